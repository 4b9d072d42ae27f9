//! Training in slots: any number of processes leaves the same bytes, at once or in parts, and all of them end where one fails. The processes are
//! threads here; the program's tests have some of MPI.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use langevin::{
    Error, Result,
    data::{Channels, Picture},
    device::default_device,
    grid,
    training::{Observer, Outcome, Progress, SavedRun, Silent, Trainer, TrainingConfig, checkpoints},
    world::{ThreadWorld, World},
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with pictures of two classes, each with a caption, and a small model with dropout.
fn scene(pictures: usize) -> TempDir {
    let scene = tempfile::tempdir().unwrap();
    for i in 0..pictures {
        let pixels = (0..16 * 16 * 3)
            .map(|at| ((at * (7 + i) + i * 40) % 256) as u8)
            .collect();
        let picture = Picture::new(16, 16, Channels::Rgb, pixels).unwrap();
        let path = scene
            .path()
            .join(format!("pictures/{}/{i:02}.png", ["a", "b"][i % 2]));
        grid::write_png(&path, &picture, &[]).unwrap();
        fs::write(path.with_extension("txt"), format!("a cat, number {i}")).unwrap();
    }
    let model = json!({
        "_class_name": "UNet2DModel", "in_channels": 3, "out_channels": 3, "dropout": 0.1, "block_out_channels": [8, 16],
        "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 8, "attention_head_dim": 8,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    });
    fs::write(scene.path().join("model.json"), model.to_string()).unwrap();
    scene
}

/// A run on the pictures, into a folder of the scene.
fn config(scene: &Path, folder: &str, options: &Value) -> TrainingConfig {
    let mut all = json!({
        "train_data_dir": scene.join("pictures"), "output_dir": scene.join(folder), "resolution": 8, "random_flip": true,
        "train_batch_size": 2, "learning_rate": 1e-3, "lr_warmup_steps": 0, "lr_scheduler": "constant", "eval_batch_size": 4,
        "ddpm_num_inference_steps": 2, "save_images_epochs": 0, "save_model_epochs": 0, "num_epochs": 3,
    });
    for (name, value) in options.as_object().unwrap() {
        all[name] = value.clone();
    }
    serde_json::from_value(all).unwrap()
}

/// Of small pictures with classes.
fn of_classes(scene: &Path) -> Value {
    json!({"model": scene.join("model.json"), "conditioning": "class", "use_ema": true})
}

/// On top of the tiny Stable Diffusion.
fn on_latents(options: &Value) -> Value {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/sd_training/base");
    let mut all = json!({"pretrained": base, "resolution": 16, "prediction_type": "epsilon", "eval_batch_size": 1, "num_epochs": 2});
    for (name, value) in options.as_object().unwrap() {
        all[name] = value.clone();
    }
    all
}

/// Trains on so many processes, each with an observer.
fn train_watched<O: Observer + Send>(config: &TrainingConfig, observers: Vec<O>) -> Vec<Result<Outcome>> {
    let worlds = ThreadWorld::of(observers.len());
    let work = |(mut world, mut observer): (ThreadWorld, O)| {
        let config = config.clone();
        move || Trainer::new(config, &default_device())?.run_among(&mut world, &mut observer)
    };
    thread::scope(|scope| {
        let pairs = worlds.into_iter().zip(observers);
        let threads: Vec<_> = pairs.map(|pair| scope.spawn(work(pair))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn train(config: &TrainingConfig, processes: usize) {
    for outcome in train_watched(config, vec![Silent; processes]) {
        outcome.unwrap();
    }
}

/// What a run leaves, but for what names its folder, for plots, and for times.
fn left_by(run: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    fn walk(folder: &Path, root: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
        let mut paths: Vec<PathBuf> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap().to_str().unwrap().to_string();
            if path.is_dir() {
                walk(&path, root, found);
            } else if name == "metrics.jsonl" {
                let text = fs::read_to_string(&path).unwrap();
                let timeless = text.lines().map(|line| {
                    let mut line: Value = serde_json::from_str(line).unwrap();
                    for measured in ["pictures_per_second", "memory_mb"] {
                        line.as_object_mut().unwrap().remove(measured);
                    }
                    line.to_string()
                });
                found.push((name.into(), timeless.collect::<String>().into_bytes()));
            } else if !["training.json", "README.md", "loss.png"].contains(&name.as_str()) {
                // Samples name the folder in their texts.
                let bytes = match name.ends_with(".png") {
                    true => langevin::data::read_picture(&path).unwrap().pixels().to_vec(),
                    false => fs::read(&path).unwrap(),
                };
                found.push((path.strip_prefix(root).unwrap().into(), bytes));
            }
        }
    }
    let mut found = vec![];
    walk(run, run, &mut found);
    found
}

fn same(one: &Path, other: &Path) {
    let (a, b) = (left_by(one), left_by(other));
    let names = |left: &[(PathBuf, Vec<u8>)]| left.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    assert_eq!(names(&a), names(&b), "{} and {}", one.display(), other.display());
    for ((path, a), (_, b)) in a.iter().zip(&b) {
        assert!(a == b, "{} differs in {}", path.display(), other.display());
    }
}

/// Trains on one process and on others, which must leave the same.
fn same_on_any(scene: &Path, options: &Value, processes: impl IntoIterator<Item = usize>) {
    train(&config(scene, "on-1", options), 1);
    for count in processes {
        let folder = format!("on-{count}");
        train(&config(scene, &folder, options), count);
        same(&scene.join("on-1"), &scene.join(&folder));
        fs::remove_dir_all(scene.join(&folder)).unwrap();
    }
    fs::remove_dir_all(scene.join("on-1")).unwrap();
}

#[test]
fn any_number_of_processes_leaves_the_same_bytes() {
    // Eleven batches, the last of which is a smaller one: steps of 8 and 3 batches, of 3 rounds and less.
    let scene = scene(21);
    for (slots, accumulation, processes) in [(4, 2, 2..5), (8, 1, 2..5), (3, 1, 2..4)] {
        let mut options = of_classes(scene.path());
        options["num_slots"] = slots.into();
        options["gradient_accumulation_steps"] = accumulation.into();
        options["checkpointing_steps"] = 3.into();
        options["save_images_epochs"] = 2.into();
        same_on_any(scene.path(), &options, processes);
    }
}

#[test]
fn fewer_batches_than_slots_leave_some_without_work() {
    let scene = scene(3);
    let mut options = of_classes(scene.path());
    options["num_slots"] = 8.into();
    same_on_any(scene.path(), &options, [3, 8]);
}

#[test]
fn what_is_trained_on_latents_has_the_same_bytes_too() {
    let scene = scene(7);
    let lora = json!({"trainee": "lora", "num_slots": 4, "gradient_accumulation_steps": 2, "train_text_encoder": true});
    same_on_any(scene.path(), &on_latents(&lora), [2, 3]);
    // Batches of several sizes, and few of them full.
    let buckets = json!({
        "trainee": "lora", "num_slots": 3, "enable_bucket": true, "min_bucket_reso": 8, "max_bucket_reso": 32, "bucket_reso_steps": 4,
        "bucket_no_upscale": true,
    });
    same_on_any(scene.path(), &on_latents(&buckets), [2, 3]);
    let word = json!({"trainee": "embedding", "num_slots": 4, "placeholder_token": "<new>", "initializer_token": "cat"});
    same_on_any(scene.path(), &on_latents(&word), [2, 3]);
    let class = json!({
        "num_slots": 2, "use_ema": true, "train_text_encoder": true, "instance_prompt": "a photo of sks cat",
        "class_prompt": "a photo of a cat", "num_class_images": 2, "num_epochs": 1,
    });
    same_on_any(scene.path(), &on_latents(&class), [2]);
}

/// A model of an autoencoder's latents, which is trained first.
fn of_own_latents(scene: &Path) -> Value {
    let mut model: Value = serde_json::from_slice(&fs::read(scene.join("model.json")).unwrap()).unwrap();
    for channels in ["in_channels", "out_channels"] {
        model[channels] = 4.into();
    }
    fs::write(scene.join("latents.json"), model.to_string()).unwrap();
    json!({
        "model": scene.join("latents.json"), "codec": "train", "codec_train_steps": 6, "resolution": 16, "center_crop": true,
        "num_slots": 3, "num_epochs": 1,
    })
}

#[test]
fn autoencoders_have_the_same_bytes_too() {
    let scene = scene(7);
    let alone = json!({"trainee": "codec", "num_slots": 3, "use_ema": true, "num_epochs": 2, "checkpointing_steps": 2});
    same_on_any(scene.path(), &alone, [2, 3]);
    same_on_any(scene.path(), &of_own_latents(scene.path()), [2]);
}

#[test]
fn a_run_that_is_replaced_is_not_gone_on_with_when_its_successor_stops_in_the_autoencoder() {
    let scene = scene(7);
    let mut options = of_own_latents(scene.path());
    options["seed"] = 1.into();
    train(&config(scene.path(), "fresh", &options), 1);
    options["seed"] = 0.into();
    options["checkpointing_steps"] = 1.into();
    train(&config(scene.path(), "run", &options), 1);
    let run = scene.path().join("run");
    assert!(!checkpoints::all(&run).is_empty());
    // Another seed's in its place.
    options["seed"] = 1.into();
    options["overwrite_output_dir"] = true.into();
    let stops = Stops {
        it: true,
        asked: AtomicUsize::new(0),
    };
    let [stopped] = train_watched(&config(scene.path(), "run", &options), vec![stops])
        .try_into()
        .unwrap();
    let stopped = stopped.unwrap();
    assert!(stopped.interrupted && stopped.steps == 0);
    assert!(
        checkpoints::all(&run).is_empty(),
        "those of the run that was replaced are there"
    );
    options["overwrite_output_dir"] = false.into();
    options["resume_from_checkpoint"] = "latest".into();
    train(&config(scene.path(), "run", &options), 1);
    let weights = |run: &str| {
        let part = |part: &str| {
            let file = format!("{run}/{part}/diffusion_pytorch_model.safetensors");
            fs::read(scene.path().join(file)).unwrap()
        };
        [part("vqvae"), part("unet")]
    };
    assert!(weights("run") == weights("fresh"));
}

#[test]
fn a_run_goes_on_with_other_processes() {
    let scene = scene(21);
    let mut options = of_classes(scene.path());
    options["num_slots"] = 4.into();
    options["max_train_steps"] = 8.into();
    options["checkpointing_steps"] = 2.into();
    train(&config(scene.path(), "whole", &options), 1);
    options["resume_from_checkpoint"] = "latest".into();
    for (steps, processes) in [(2, 4), (4, 2), (6, 3), (8, 1)] {
        options["max_train_steps"] = steps.into();
        train(&config(scene.path(), "parts", &options), processes);
    }
    same(&scene.path().join("whole"), &scene.path().join("parts"));
}

/// Asks to stop when it was asked for the third time.
struct Stops {
    it: bool,
    asked: AtomicUsize,
}

impl Observer for Stops {
    fn should_stop(&self) -> bool {
        self.it && self.asked.fetch_add(1, Ordering::Relaxed) >= 2
    }
}

#[test]
fn one_that_is_asked_to_stop_stops_all_at_a_step_and_they_go_on() {
    let scene = scene(21);
    let mut options = of_classes(scene.path());
    options["num_slots"] = 4.into();
    train(&config(scene.path(), "whole", &options), 2);
    let observers = (0..3).map(|rank| Stops {
        it: rank == 2,
        asked: AtomicUsize::new(0),
    });
    let stopped = config(scene.path(), "stopped", &options);
    for outcome in train_watched(&stopped, observers.collect()) {
        let outcome = outcome.unwrap();
        assert!(outcome.interrupted);
        assert_eq!(outcome.steps, 3);
    }
    assert_eq!(checkpoints::all(scene.path().join("stopped")).len(), 1);
    options["resume_from_checkpoint"] = "latest".into();
    train(&config(scene.path(), "stopped", &options), 4);
    let weights = |run: &str| {
        fs::read(
            scene
                .path()
                .join(run)
                .join("unet/diffusion_pytorch_model.safetensors"),
        )
        .unwrap()
    };
    assert!(weights("whole") == weights("stopped"));
}

#[test]
fn where_one_fails_all_say_which_and_keep_what_was_learned() {
    let scene = scene(21);
    let mut options = of_classes(scene.path());
    options["num_slots"] = 4.into();
    options["strict"] = true.into();
    options["checkpointing_steps"] = 1.into();
    options["random_flip"] = false.into();
    // The order of the first epoch decides who comes to it, and when.
    fs::write(scene.path().join("pictures/b/07.png"), "no picture").unwrap();
    let outcomes = train_watched(&config(scene.path(), "run", &options), vec![Silent; 4]);
    let mut whose = 0;
    for outcome in outcomes {
        match outcome.unwrap_err() {
            Error::Elsewhere { message, .. } => assert!(message.contains("07.png"), "{message}"),
            error => {
                assert!(error.to_string().contains("07.png"), "{error}");
                whose += 1;
            }
        }
    }
    assert_eq!(whose, 1);
}

/// Moves the run's folder away after a step, so that nothing more can be written into it.
struct Moves(PathBuf);

impl Observer for Moves {
    fn step(&mut self, progress: &Progress) {
        if progress.step == 2 {
            fs::rename(&self.0, self.0.with_extension("moved")).unwrap();
            fs::write(&self.0, "no folder").unwrap();
        }
    }
}

#[test]
fn where_the_first_cannot_write_all_end_and_the_last_checkpoint_is_whole() {
    let scene = scene(21);
    let mut options = of_classes(scene.path());
    options["num_slots"] = 4.into();
    options["checkpointing_steps"] = 1.into();
    let run = scene.path().join("run");
    let observers = (0..3).map(|_| Moves(run.clone())).collect();
    let outcomes = train_watched(&config(scene.path(), "run", &options), observers);
    for (rank, outcome) in outcomes.into_iter().enumerate() {
        let error = outcome.unwrap_err();
        assert_eq!(
            rank > 0,
            matches!(error, Error::Elsewhere { rank: 0, .. }),
            "{error}"
        );
    }
    let kept = checkpoints::all(run.with_extension("moved"));
    assert_eq!(kept.len(), 1);
    assert_eq!(SavedRun::open(&kept[0].1).unwrap().step(), 1);
}

#[test]
fn one_that_is_gone_ends_the_others() {
    let scene = scene(9);
    let mut options = of_classes(scene.path());
    options["num_slots"] = 3.into();
    let config = config(scene.path(), "run", &options);
    let mut worlds = ThreadWorld::of(3);
    drop(worlds.pop());
    let run = |mut world: ThreadWorld| {
        let config = config.clone();
        move || Trainer::new(config, &default_device())?.run_among(&mut world, &mut Silent)
    };
    let threads: Vec<_> = worlds
        .into_iter()
        .map(|world| thread::spawn(run(world)))
        .collect();
    for thread in threads {
        let message = thread.join().unwrap().unwrap_err().to_string();
        assert!(
            message.contains("process") && message.contains("is gone"),
            "{message}"
        );
    }
    assert!(!scene.path().join("run").exists());
}

#[test]
fn processes_that_do_not_go_together_are_refused_by_all() {
    let scene = scene(9);
    let mut options = of_classes(scene.path());
    options["num_slots"] = 2.into();
    let all = train_watched(&config(scene.path(), "run", &options), vec![Silent; 3]);
    for outcome in all {
        let message = outcome.unwrap_err().to_string();
        assert!(
            message.contains("`num_slots`") && message.contains("there are 3"),
            "{message}"
        );
    }
    // What moves an element by others cannot be shared by elements.
    for optimizer in ["prodigy", "adafactor"] {
        let mut options = options.clone();
        options["optimizer"] = optimizer.into();
        for outcome in train_watched(&config(scene.path(), "run", &options), vec![Silent; 2]) {
            let message = outcome.unwrap_err().to_string();
            assert!(
                message.contains("one process") && message.contains(optimizer),
                "{message}"
            );
        }
        // In one process slots are no matter.
        train(&config(scene.path(), optimizer, &options), 1);
    }
    let other = TrainingConfig {
        seed: 3,
        ..config(scene.path(), "run", &options)
    };
    let both = [config(scene.path(), "run", &options), other];
    let threads = ThreadWorld::of(2)
        .into_iter()
        .zip(both)
        .map(|(mut world, config)| {
            thread::spawn(move || Trainer::new(config, &default_device())?.run_among(&mut world, &mut Silent))
        });
    for thread in threads.collect::<Vec<_>>() {
        let message = thread.join().unwrap().unwrap_err().to_string();
        assert!(
            message.contains("process 1") && message.contains("`seed` is 3"),
            "{message}"
        );
    }
    assert!(!scene.path().join("run").exists());
}

#[test]
fn a_world_of_threads_carries_what_it_is_given() {
    let threads = ThreadWorld::of(3).into_iter().map(|mut world| {
        thread::spawn(move || {
            let rank = world.rank();
            let parts = (0..3).map(|to| vec![rank as f32; to]).collect();
            let received = world.exchange(parts).unwrap();
            assert_eq!(
                received,
                (0..3).map(|from| vec![from as f32; rank]).collect::<Vec<_>>()
            );
            assert_eq!(
                world.gather(&vec![rank as u8; rank]).unwrap(),
                [vec![], vec![1], vec![2, 2]]
            );
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().unwrap();
    }
}
