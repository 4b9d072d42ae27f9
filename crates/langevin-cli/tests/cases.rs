//! Small folders and files out of public reports, each with the line that went wrong and what is right. `cases/NN-…` holds the files.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use support::{Ran, copy, langevin, line};

/// A case's files in a folder of their own, where it may leave something.
struct Case(tempfile::TempDir);

impl Case {
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/cases")
            .join(name);
        copy(&files, folder.path());
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What a line without quotes comes to there.
    fn line(&self, text: &str) -> Ran {
        line(self.0.path(), text)
    }

    fn langevin(&self, args: &[&str]) -> Ran {
        langevin(self.0.path(), args)
    }

    /// A training line with a tiny model.
    fn train(&self, rest: &str) -> Ran {
        self.line(&format!("{TRAIN} {rest}"))
    }
}

const TRAIN: &str = "train --model_config_name_or_path model.json --resolution 16 --train_batch_size 4 --no-dashboard --quiet \
    --save_images_epochs 0 --ddpm_num_inference_steps 3";

/// A success that said each of `parts`, on either stream.
fn said(ran: Ran, parts: &[&str]) -> String {
    let ran = ran.ok();
    let all = format!("{}{}", ran.out, ran.err);
    for part in parts {
        assert!(all.contains(part), "`{part}` is not in: {all}");
    }
    all
}

#[test]
fn case_10_endings_of_pictures() {
    // datasets reads the .avif too, for which there is no decoder here.
    let all = said(
        Case::new("10-picture-endings").line("info pictures"),
        &["pictures  4", "1 file is passed over: 1 .avif"],
    );
    assert!(all.contains("convert them to PNG or JPEG"), "{all}");
}

#[test]
fn case_11_what_is_not_supported_is_not_called_damaged() {
    let case = Case::new("11-unsupported-called-damaged");
    for archive in ["lzma.zip", "bzip2.zip"] {
        case.line(&format!("info {archive}"))
            .refused(1, &["is not supported", "pack it again"]);
    }
    let tiffs = case.line("info tiffs");
    assert_eq!(
        tiffs.out.matches("not supported here").count(),
        4,
        "{}",
        tiffs.out
    );
    assert!(!tiffs.out.contains("damaged"), "{}", tiffs.out);
}

#[test]
fn case_15_a_class_called_train() {
    let case = Case::new("15-class-called-train");
    let classes =
        "classes   6: apple (4), bicycle (4), rocket (4), streetcar (4), train (4), willow_tree (4)";
    said(
        case.line("info pictures"),
        &["pictures  24", classes, "train: is taken for a class"],
    );
    let trained =
        case.train("--train_data_dir pictures --conditioning class --max_train_steps 2 --output_dir run");
    let all = said(trained, &["trained for 2 steps"]);
    // Once, although the data are looked at before and after the rest of the line.
    assert_eq!(all.matches("is taken for a class").count(), 1, "{all}");
}

#[test]
fn case_20_numbers_that_are_none() {
    said(
        Case::new("20-metadata-nan").line("info pictures"),
        &["pictures  2", "captions  2"],
    );
}

#[test]
fn case_25_names_in_archives() {
    let case = Case::new("25-zip-names");
    for archive in ["powershell.zip", "dot-slash.zip"] {
        said(
            case.line(&format!("info {archive}")),
            &["pictures  4", "classes   2: cat (2), dog (2)"],
        );
    }
    said(
        case.line("info metadata-dot-slash.zip"),
        &["pictures  2", "captions  2"],
    );
}

#[test]
fn case_28_a_run_inside_its_pictures() {
    let case = Case::new("28-run-inside-its-pictures");
    let pictures = case.path("pictures");
    let run = format!(
        "{TRAIN} --train_data_dir . --conditioning class --max_train_steps 4 --checkpointing_steps 2"
    );
    line(&pictures, &run).ok();
    said(
        line(
            &pictures,
            "train --resume-from-checkpoint runs/pictures-model-1 --max-train-steps 6",
        ),
        &["6 pictures of 2 classes", "trained for 6 steps"],
    );
    said(
        line(&pictures, "info ."),
        &["pictures  6", "classes   2: cat (3), dog (3)"],
    );
}

#[test]
fn case_30_codecs_and_encodings() {
    let case = Case::new("30-parquet-codecs-and-encodings");
    for name in support::names(case.0.path()) {
        said(
            case.line(&format!("info {name}")),
            &["pictures  6", "classes   3", "captions  6"],
        );
    }
}

#[test]
fn case_31_shards_with_a_hash() {
    let case = Case::new("31-parquet-shards-with-a-hash");
    said(case.line("info one"), &["pictures  6"]);
    said(case.line("info one --split unlabelled"), &["pictures  6"]);
    case.line("info two")
        .refused(1, &["no split `train`", "full, small"]);
    said(case.line("info two --split full"), &["pictures  3"]);
}

#[test]
fn case_44_models_that_predict_their_variance() {
    let case = Case::new("44-learned-variance");
    let train =
        "train --pretrained model --train_data_dir pictures --max_train_steps 1 --output_dir run --quiet";
    case.line(train)
        .refused(1, &["predicts its variance", "6 out_channels, 3 in_channels"]);
    assert!(!case.path("run").exists());
    for sampler in ["ddpm", "dpm++2m", "ddim", "euler", "unipc"] {
        let sample = format!("sample model --count 1 --scheduler {sampler} --steps 5 --output {sampler}.png");
        said(case.line(&sample), &["1 picture in"]);
        // What is there is kept.
        case.line(&sample)
            .refused(1, &["is there already", "--overwrite"]);
        said(case.line(&format!("{sample} --overwrite")), &["1 picture in"]);
    }
    said(
        case.line("sample model --count 1 --steps 2"),
        &["1 picture in samples.png"],
    );
    said(
        case.line("sample model --count 1 --steps 2"),
        &["1 picture in samples-2.png"],
    );
}

/// Configurations as people write them, and weights as `torch.compile` and `DataParallel` leave them: the same pictures.
#[test]
fn what_diffusers_ignores_and_what_wraps_a_model_changes_nothing() {
    let case = Case::new("44-learned-variance");
    let draw = |name: &str| {
        case.line(&format!("sample model --count 1 --steps 2 --output {name}.png"))
            .ok();
        langevin::data::read_picture(case.path(&format!("{name}.png"))).unwrap()
    };
    let plain = draw("plain");
    let config = case.path("model/unet/config.json");
    let mut fields: serde_json::Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    fields["act_fn"] = "SiLU".into();
    fields["mid_block_type"] = "UNetMidBlock2DCrossAttn".into();
    fields["class_embed_type"] = "none".into();
    fields["a_key_of_next_year"] = serde_json::json!({"x": [1, null]});
    fs::write(&config, fields.to_string()).unwrap();
    assert_eq!(draw("config"), plain);

    let weights = case.path("model/unet/diffusion_pytorch_model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    for (number, prefix) in ["module.", "_orig_mod.", "module._orig_mod."]
        .into_iter()
        .enumerate()
    {
        let wrapped = |(name, place): (&String, &serde_json::Value)| match name.as_str() {
            "__metadata__" => (name.clone(), place.clone()),
            name => (format!("{prefix}{name}"), place.clone()),
        };
        let header = serde_json::Value::Object(header.iter().map(wrapped).collect()).to_string();
        let head = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        fs::write(&weights, [&head, &bytes[8 + length..]].concat()).unwrap();
        assert_eq!(draw(&format!("wrapped-{number}")), plain, "{prefix}");
    }
}

#[test]
fn case_58_the_same_line_after_the_run_is_done() {
    let case = Case::new("58-the-same-line-after-the-run-is-done");
    let run = "--train_data_dir pictures --output_dir run --resume_from_checkpoint latest";
    case.train(&format!("{run} --max_train_steps 6")).ok();
    let weights = || {
        fs::metadata(case.path("run/unet/diffusion_pytorch_model.safetensors"))
            .unwrap()
            .modified()
            .unwrap()
    };
    let written = weights();
    said(
        case.train(&format!("{run} --max_train_steps 6")),
        &["is done: 6 steps, and nothing to do"],
    );
    said(
        case.train(&format!("{run} --max_train_steps 4")),
        &["is done: 6 steps, and nothing to do"],
    );
    assert_eq!(weights(), written);
    // More cannot be had without a checkpoint, and another run is another one.
    case.train(&format!("{run} --max_train_steps 9")).refused(
        1,
        &[
            "ended after 6 steps and left no checkpoint",
            "--pretrained",
            "--overwrite-output-dir",
        ],
    );
    case.train(&format!("{run} --max_train_steps 6 --seed 5"))
        .refused(1, &["`seed` is 0 there and 5 here"]);
    case.line("train --resume-from-checkpoint run")
        .refused(1, &["left no checkpoint", "--pretrained"]);
    assert_eq!(weights(), written);
    said(
        case.train(&format!("{run} --max_train_steps 9 --overwrite_output_dir")),
        &["trained for 9 steps"],
    );
    assert!(weights() > written);
}

#[test]
fn case_59_resumed_with_other_data() {
    let case = Case::new("59-resumed-with-other-data");
    let run = "--train_data_dir pictures --conditioning class --max_train_steps 4 --checkpointing_steps 2 --output_dir run";
    case.train(run).ok();
    let resume = "train --resume-from-checkpoint run --max-train-steps 6 --quiet";
    fs::rename(case.path("pictures/5"), case.path("pictures/05")).unwrap();
    case.line(resume).refused(
        1,
        &[
            "cannot be resumed with these data",
            "class 1 is \"05\", and was \"1\"",
            "--pretrained",
        ],
    );
    fs::rename(case.path("pictures/05"), case.path("pictures/5")).unwrap();
    // Another picture of the same name.
    let one = case
        .path("pictures/5")
        .join(support::names(&case.path("pictures/5"))[0].as_str());
    let bytes = fs::read(&one).unwrap();
    fs::write(&one, [&bytes[..], b"more"].concat()).unwrap();
    case.line(resume)
        .refused(1, &["pictures of other names or sizes"]);
    fs::write(&one, bytes).unwrap();
    // The same pictures in another place are the same.
    fs::rename(case.path("pictures"), case.path("moved")).unwrap();
    case.line(resume)
        .refused(1, &["its data were in `pictures`", "--train-data-dir"]);
    said(
        case.line(&format!("{resume} --train-data-dir moved")),
        &["trained for 6 steps"],
    );
}

#[test]
fn case_60_resumed_from_another_folder() {
    let case = Case::new("60-resumed-from-another-folder");
    let (work, elsewhere) = (case.path("work"), case.path("elsewhere"));
    let run = "--dataset_name data/pics --max_train_steps 4 --checkpointing_steps 2 --output_dir run";
    line(&work, &format!("{TRAIN} {run}")).ok();
    said(
        line(
            &elsewhere,
            "train --resume-from-checkpoint ../work/run --max-train-steps 6",
        ),
        &["trained for 6 steps"],
    );
    // And back again, by the line of the beginning.
    said(
        line(
            &work,
            &format!("{TRAIN} {run} --resume_from_checkpoint latest").replace("steps 4", "steps 8"),
        ),
        &["trained for 8 steps"],
    );
    // Where the run's folder was renamed, nothing says where the data were.
    fs::rename(work.join("run"), work.join("renamed")).unwrap();
    line(
        &elsewhere,
        "train --resume-from-checkpoint ../work/renamed --max-train-steps 9",
    )
    .refused(1, &["its data were in `data/pics`", "--dataset-name"]);
}

#[test]
fn case_64_class_names_with_commas() {
    let case = Case::new("64-class-names-with-commas");
    for classes in ["tench, Tinca tinca", "'tench, Tinca tinca'", "2"] {
        let ran = case.langevin(&["info", "pictures", "--only-classes", classes]);
        said(ran, &["pictures  2", "classes   1: tench, Tinca tinca (2)"]);
    }
    let twice = [
        "info",
        "pictures",
        "--only-classes",
        "cock",
        "--only-classes",
        "tench, Tinca tinca",
    ];
    said(case.langevin(&twice), &["classes   2"]);
}

#[test]
fn case_71_metadata_that_lead_out() {
    Case::new("71-metadata-leads-out")
        .line("info set")
        .refused(1, &["names ../private.png", "beside its metadata or below"]);
}

/// Weights and samples in a run's folder are of one run, at one time, whatever ends the second.
#[test]
fn a_second_run_leaves_no_samples_of_the_first_beside_its_weights() {
    let case = Case::new("58-the-same-line-after-the-run-is-done");
    case.train("--train_data_dir pictures --max_train_steps 4 --checkpointing_steps 2 --output_dir run")
        .ok();
    let samples = case.path("run/samples.png");
    fs::create_dir_all(case.path("run/samples")).unwrap();
    for name in ["epoch-0001.png", "epoch-0001-denoising.png", "mine.png"] {
        fs::copy(&samples, case.path("run/samples").join(name)).unwrap();
    }
    // On from its end, and ended by a loss that is none: weights are kept, which drew no samples.
    let on = "train --resume-from-checkpoint run --max-train-steps 6000 --quiet";
    let state = case.path("run/checkpoint-4/training.json");
    let text = fs::read_to_string(&state).unwrap();
    interrupted(&case, on);
    assert!(!samples.exists() && case.path("run/model_index.json").exists());
    fs::write(&state, text).unwrap_or_default();
    // A run that replaces it takes its drawings away.
    case.train("--train_data_dir pictures --max_train_steps 2 --output_dir run --overwrite_output_dir")
        .ok();
    assert_eq!(support::names(&case.path("run/samples")), ["mine.png"]);
    assert!(samples.exists());
}

/// Runs a line, and asks it to end once it has done some steps.
fn interrupted(case: &Case, text: &str) {
    let metrics = case.path("run/metrics.jsonl");
    let before = fs::metadata(&metrics).unwrap().len();
    let mut child = support::command(case.0.path(), text.split_whitespace())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while fs::metadata(&metrics).unwrap().len() <= before {
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
    }
    let sent = std::process::Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn numbers_that_no_run_comes_to_are_refused() {
    let case = Case::new("58-the-same-line-after-the-run-is-done");
    case.train("--train_data_dir pictures --max_train_steps 4 --checkpointing_steps 2 --output_dir run")
        .ok();
    let state = case.path("run/checkpoint-4/state.json");
    let text = fs::read_to_string(&state).unwrap();
    let place: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (field, value, part) in [
        ("step", 7, "its folder's name says 4"),
        ("epoch", 0, "epochs count from 1"),
        ("batch", 9_000, "is not the state of this run"),
        ("waiting", 1, "1 batches wait for a step"),
    ] {
        let mut wrong = place.clone();
        wrong[field] = value.into();
        fs::write(&state, wrong.to_string()).unwrap();
        case.line("train --resume-from-checkpoint run --max-train-steps 6")
            .refused(1, &["state.json", part]);
    }
    // A step that its epochs cannot have come to, under a name that fits.
    let mut wrong = place;
    wrong["step"] = 4_000.into();
    fs::write(&state, wrong.to_string()).unwrap();
    fs::rename(case.path("run/checkpoint-4"), case.path("run/checkpoint-4000")).unwrap();
    case.line("train --resume-from-checkpoint run --max-train-steps 5000")
        .refused(1, &["is not the state of this run: step 4000"]);
}

#[test]
fn lines_are_taken_as_they_are_pasted() {
    let case = Case::new("58-the-same-line-after-the-run-is-done");
    let config = |text: &str| case.line(&format!("{text} --dry-run")).ok().json();
    // Of a flag that is given twice, the last holds.
    let twice = config("train --seed 1 --use_ema --seed=2 --use_ema --train_batch_size 3 --batch-size 5");
    assert_eq!((&twice["seed"], &twice["use_ema"]), (&2.into(), &true.into()));
    assert_eq!(twice["train_batch_size"], 5);
    for launcher in [
        "torchrun --standalone --nproc_per_node=1",
        "python -m accelerate.commands.launch --num_processes 1",
        "!accelerate launch",
        "CUDA_VISIBLE_DEVICES=0 accelerate launch",
    ] {
        let pasted = config(&format!(
            "{launcher} train_unconditional.py --train_data_dir=pictures --ddpm_num_steps=100"
        ));
        assert_eq!(pasted["train_data_dir"], "pictures", "{launcher}");
        // The samples on the way take no more steps than there are.
        assert_eq!(pasted["ddpm_num_inference_steps"], 100, "{launcher}");
    }
    let noted = case
        .line("CUDA_VISIBLE_DEVICES=0 torchrun train_unconditional.py --mixed_precision fp16 --dry-run")
        .ok();
    assert_eq!(noted.json()["mixed_precision"], "bf16");
    for part in [
        "note: CUDA_VISIBLE_DEVICES=",
        "note: --mixed-precision fp16 becomes bf16",
    ] {
        assert!(noted.err.contains(part), "{}", noted.err);
    }
}

#[test]
fn what_is_worth_knowing_is_said_before_the_first_step() {
    let case = Case::new("58-the-same-line-after-the-run-is-done");
    fs::write(case.path("pictures/more.avif"), "").unwrap();
    let run = format!("{TRAIN} --train_data_dir pictures --max_train_steps 2").replace("--quiet", "");
    let all = said(
        case.line(&format!("{run} --output_dir run")),
        &[
            "the data: 1 file is passed over: 1 .avif",
            "the warm-up of 500 steps is longer than the run of 2",
        ],
    );
    assert!(!all.contains("grey"), "{all}");
    let grey = run.replace(
        "--train_data_dir pictures",
        "--dataset-name digits --channels rgb --lr-warmup-steps 1",
    );
    let all = said(
        case.line(&format!("{grey} --output_dir grey")),
        &["the pictures are grey", "--channels grey"],
    );
    assert!(!all.contains("warm-up"), "{all}");
    // The system's reason, once.
    fs::write(case.path("file"), "").unwrap();
    let ran = case.line(&format!("{run} --output_dir file/run"));
    assert_eq!(
        (ran.code, ran.err.matches("os error").count()),
        (1, 1),
        "{}",
        ran.err
    );
}

#[test]
fn very_many_classes_stay_readable() {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/cases/58-the-same-line-after-the-run-is-done/pictures");
    let picture = source.join(&support::names(&source)[0]);
    for class in 0..1200 {
        let class_folder = folder.path().join(format!("many/c{class:04}"));
        fs::create_dir_all(&class_folder).unwrap();
        fs::copy(&picture, class_folder.join("0.png")).unwrap();
    }
    let all = said(
        line(folder.path(), "info many"),
        &["classes   1200: c0000 (1), ", "and 1150 more, of 1 to 1 pictures"],
    );
    assert!(all.len() < 2_000, "{all}");
    let refused = line(folder.path(), "info many --only-classes nobody")
        .refused(1, &["no class \"nobody\"", "and 1150 more"]);
    assert!(refused.err.len() < 2_000);
}

#[test]
fn latents_and_pictures_are_not_written_over() {
    let case = Case::new("44-learned-variance");
    fs::write(case.path("mine.png"), "mine").unwrap();
    fs::write(case.path("mine.safetensors"), "mine").unwrap();
    for line in [
        "sample model --count 1 --steps 2 --output mine.png",
        "sample model --count 1 --steps 2 --output mine.safetensors",
        "invert model pictures/0.png --steps 2 --output mine.safetensors",
    ] {
        case.line(line).refused(1, &["is there already", "--overwrite"]);
    }
    for name in ["mine.png", "mine.safetensors"] {
        assert_eq!(fs::read_to_string(case.path(name)).unwrap(), "mine");
    }
    case.line("invert model pictures/0.png --steps 2 --output mine.safetensors --overwrite")
        .ok();
}
