//! Drawing on several processes: every picture has the bits that one process comes to, whoever computed what, and all end where one does. The
//! processes are threads here; the program's tests have some of MPI.

mod support;

use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use burn::tensor::Tensor;
use langevin::{
    Error, Request, Result,
    data::{Channels, ImageInput, Picture},
    generate::{Plan, Subjects, Watch, draw_set},
    pipelines::{Pipeline, Sampling, Step},
    schedulers::SamplerName,
    world::{Alone, ThreadWorld, World},
};
use serde_json::{Value, json};
use support::{device, own_reference};

fn load(model: &str) -> Pipeline {
    Pipeline::load(own_reference().join(model), &device()).unwrap()
}

/// A request of JSON, in which every picture is one and the same.
fn request(options: &Value) -> Request {
    let mut request: Request = serde_json::from_value(options.clone()).unwrap();
    let pixels = (0..32 * 32 * 3).map(|i| if (i / 96 + i % 96 / 3) % 16 < 5 { 230 } else { 20 });
    let picture = Picture::new(32, 32, Channels::Rgb, pixels.collect()).unwrap();
    for (_, place) in request.images_mut() {
        *place = ImageInput::Picture(picture.clone());
    }
    request
}

/// A pipeline with a safety checker.
fn with_checker() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let models = own_reference().join("sd/models");
    for (model, parts) in [
        (
            "sd1",
            ["unet", "vae", "text_encoder", "tokenizer", "scheduler"].as_slice(),
        ),
        ("sd1_safe", &["safety_checker", "feature_extractor"]),
    ] {
        for part in parts {
            let into = folder.path().join(part);
            fs::create_dir(&into).unwrap();
            let Ok(files) = fs::read_dir(models.join(model).join(part)) else {
                continue;
            };
            for file in files {
                let file = file.unwrap();
                fs::copy(file.path(), into.join(file.file_name())).unwrap();
            }
        }
    }
    let index = fs::read_to_string(models.join("sd1/model_index.json")).unwrap();
    let mut index: Value = serde_json::from_str(&index).unwrap();
    index["safety_checker"] = json!(["stable_diffusion", "StableDiffusionSafetyChecker"]);
    index["feature_extractor"] = json!(["transformers", "CLIPImageProcessor"]);
    fs::write(folder.path().join("model_index.json"), index.to_string()).unwrap();
    folder
}

/// What each of so many processes does in its world.
fn each<T: Send>(processes: usize, work: impl Fn(&mut ThreadWorld) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = ThreadWorld::of(processes)
            .into_iter()
            .map(|mut world| scope.spawn(move || work(&mut world)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Remembers the numbers of the steps that it sees, and the flags.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    begun: Vec<usize>,
    steps: Vec<usize>,
    flagged: Vec<usize>,
    total: usize,
}

impl Watch for Seen {
    fn begin(&mut self, sampling: &Sampling<'_>) -> Result<()> {
        self.begun.push(sampling.sample().dims()[0]);
        Ok(())
    }

    fn step(&mut self, _: &Step<'_>, done: usize, total: usize) -> Result<bool> {
        self.steps.push(done);
        self.total = total;
        Ok(true)
    }

    fn flagged(&mut self, number: usize) {
        self.flagged.push(number);
    }
}

/// Draws on one process and on others, all of which must have the same pictures and have seen the same.
fn same_on_any(pipeline: &Pipeline, options: &Value, processes: impl IntoIterator<Item = usize>) {
    let request = request(options);
    let mut seen = Seen::default();
    let plan = Plan::of(pipeline, &request).unwrap();
    let alone = plan.run(pipeline, &mut seen).unwrap().unwrap();
    for count in processes {
        let drawn = each(count, |world| {
            let mut seen = Seen::default();
            let plan = Plan::of(pipeline, &request)?;
            let drawn = plan.run_among(pipeline, world, &mut seen)?;
            seen.steps.sort_unstable();
            Ok::<(Option<Vec<Picture>>, Seen), Error>((drawn, seen))
        });
        for (rank, drawn) in drawn.into_iter().enumerate() {
            let (pictures, other) = drawn.unwrap();
            assert!(pictures.unwrap() == alone, "{options}: process {rank} of {count}");
            assert_eq!(other, seen, "{options}: process {rank} of {count}");
        }
    }
}

#[test]
fn pictures_of_every_sampler_have_the_same_bits_on_any_number_of_processes() {
    let pipeline = load("pipelines/ddpm");
    let mut drawn = 0;
    for sampler in SamplerName::ALL {
        if pipeline.sampler(sampler.name).is_err() {
            continue;
        }
        // Two whole batches and a smaller one, whose noise comes from one generator; of fewer pictures than there are processes, too.
        let options = json!({"scheduler": sampler.name, "steps": 4, "count": 5, "batch_size": 2, "seed": 3});
        if Plan::of(&pipeline, &request(&options)).is_err() {
            continue;
        }
        same_on_any(&pipeline, &options, [2, 5]);
        drawn += 1;
    }
    assert!(drawn > 20, "{drawn}");
    for through in ["clean", "model"] {
        let led = json!({"guide": ["colour:#1AE680@5"], "guide_through": through, "steps": 3, "count": 3, "batch_size": 2});
        same_on_any(&pipeline, &led, [3]);
    }
    let one_by_one = json!({"steps": 5, "count": 7, "batch_size": 1, "scheduler": "ddpm"});
    same_on_any(&pipeline, &one_by_one, 2..5);
    same_on_any(
        &pipeline,
        &json!({"steps": 3, "count": 3, "batch_size": 1, "seeds": [5, 2, 9]}),
        [2, 4],
    );
}

#[test]
fn latents_are_shared_down_to_the_two_halves_of_guidance() {
    let sd = load("sd/models/sd1");
    for options in [
        json!({"prompt": ["a boat", "a cat"], "scheduler": "euler-a", "steps": 3, "seed": 1}),
        json!({"prompt": ["a boat"], "scheduler": "ddim", "steps": 3, "count": 3, "guidance_scale": 4, "guidance_rescale": 0.5}),
        json!({"prompt": ["a boat"], "seeds": [1, 2, 3], "scheduler": "dpm++2m-sde", "steps": 3}),
        json!({"prompt": ["a [boat:cat:0.5] AND a tree"], "prompt_syntax": "a1111", "steps": 4, "count": 2}),
        json!({"prompt": ["a boat"], "upscale": 1.5, "upscale_steps": 2, "steps": 3, "count": 3, "scheduler": "euler-a"}),
    ] {
        same_on_any(&sd, &options, [2, 3, 5]);
    }
    let checked = with_checker();
    same_on_any(
        &Pipeline::load(checked.path(), &device()).unwrap(),
        &json!({"prompt": ["a boat", "a cat"], "steps": 2, "count": 4}),
        [3],
    );
    same_on_any(
        &load("sdxl/models/base"),
        &json!({"prompt": ["a boat"], "steps": 2, "count": 2}),
        [3],
    );
}

#[test]
fn what_a_drawing_begins_with_or_follows_is_shared_too() {
    // Every picture of a request is one and the same here.
    let picture = "";
    let network = own_reference().join("controlnet/models/net_a");
    let sd = load("sd/models/sd2");
    for options in [
        json!({"prompt": ["a boat"], "init_image": picture, "strength": 0.6, "steps": 5, "count": 3}),
        json!({"prompt": ["a boat"], "inpaint": picture, "mask": picture, "steps": 4, "count": 2, "scheduler": "ddpm"}),
        json!({"prompt": ["a boat"], "control": [{"model": network, "picture": picture}], "size": "32x32", "steps": 2, "count": 3}),
        json!({"prompt": ["a boat"], "control": [{"model": network, "picture": picture}], "guess_mode": true, "size": "32x32", "steps": 2}),
    ] {
        same_on_any(&sd, &options, [2, 3]);
    }
    let pixels = load("pipelines/ddpm");
    same_on_any(
        &pixels,
        &json!({"inpaint": picture, "mask": picture, "steps": 4, "count": 3, "batch_size": 2}),
        [3],
    );
}

#[test]
fn samples_before_they_are_decoded_are_the_same() {
    let pipeline = load("sd/models/sd1");
    let plan = Plan::of(
        &pipeline,
        &request(&json!({"prompt": ["a boat"], "count": 3, "steps": 2})),
    )
    .unwrap();
    let values = |samples: Option<Vec<Tensor<4>>>| -> Vec<u32> {
        let values = samples
            .unwrap()
            .into_iter()
            .flat_map(|batch| batch.into_data().try_to_vec::<f32>().unwrap());
        values.map(f32::to_bits).collect()
    };
    let alone = values(plan.samples(&pipeline, &mut ()).unwrap());
    for other in each(4, |world| {
        values(plan.samples_among(&pipeline, world, &mut ()).unwrap())
    }) {
        assert!(other == alone);
    }
}

#[test]
fn sets_for_an_evaluation_are_the_same() {
    let pipeline = load("pipelines/ddpm");
    let asked = request(&json!({"batch_size": 3, "steps": 2, "scheduler": "ddim"}));
    let alone = draw_set(&pipeline, &Subjects::Anything(7), &asked, &mut Alone, &mut ())
        .unwrap()
        .unwrap();
    for other in each(3, |world| {
        draw_set(&pipeline, &Subjects::Anything(7), &asked, world, &mut ())
            .unwrap()
            .unwrap()
    }) {
        assert!(other.pictures == alone.pictures);
    }
}

/// Has enough after some steps.
struct Stops {
    after: Option<usize>,
    steps: AtomicUsize,
}

impl Watch for Stops {
    fn step(&mut self, _: &Step<'_>, _: usize, _: usize) -> Result<bool> {
        let done = self.steps.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(self.after.is_none_or(|after| done < after))
    }
}

#[test]
fn where_one_has_enough_all_end_at_that_step() {
    let pipeline = load("pipelines/ddpm");
    let plan = Plan::of(&pipeline, &request(&json!({"count": 2, "steps": 6}))).unwrap();
    let all = each(3, |world| {
        let mut watch = Stops {
            after: (world.rank() == 2).then_some(3),
            steps: AtomicUsize::new(0),
        };
        let drawn = plan.run_among(&pipeline, world, &mut watch).unwrap();
        (drawn.is_none(), watch.steps.into_inner())
    });
    assert_eq!(all, [(true, 3); 3]);
}

/// Fails at a step.
struct Fails(bool);

impl Watch for Fails {
    fn step(&mut self, _: &Step<'_>, done: usize, _: usize) -> Result<bool> {
        match self.0 && done == 2 {
            true => Err(Error::Config("the disk is full".into())),
            false => Ok(true),
        }
    }
}

#[test]
fn where_one_fails_all_say_which() {
    let pipeline = load("pipelines/ddpm");
    let plan = Plan::of(&pipeline, &request(&json!({"count": 2, "steps": 6}))).unwrap();
    let all = each(3, |world| {
        let mut watch = Fails(world.rank() == 1);
        plan.run_among(&pipeline, world, &mut watch).unwrap_err()
    });
    for (rank, error) in all.into_iter().enumerate() {
        assert!(error.to_string().contains("the disk is full"), "{error}");
        assert_eq!(
            rank != 1,
            matches!(error, Error::Elsewhere { rank: 1, .. }),
            "{error}"
        );
    }
}

#[test]
fn processes_that_would_not_draw_the_same_are_refused_by_all() {
    let (one, other) = (load("sd/models/sd1"), load("sd/models/lcm"));
    let asked = json!({"prompt": ["a boat"], "scheduler": "lcm", "steps": 2});
    let refused = |work: &(dyn Fn(usize) -> (Pipeline, Value) + Sync)| -> Vec<String> {
        each(2, |world| {
            let (pipeline, options) = work(world.rank());
            let plan = Plan::of(&pipeline, &request(&options)).unwrap();
            plan.run_among(&pipeline, world, &mut ()).unwrap_err().to_string()
        })
    };
    for said in refused(&|rank| ([&one, &other][rank].clone(), asked.clone())) {
        assert!(
            said.contains("process 1 cannot draw with process 0") && said.contains("another model"),
            "{said}"
        );
    }
    let other_steps = |rank: usize| {
        let mut options = asked.clone();
        options["steps"] = (2 + rank).into();
        (one.clone(), options)
    };
    for said in refused(&other_steps) {
        assert!(said.contains("3 steps") && said.contains("2 steps"), "{said}");
    }
}

#[test]
fn one_that_is_gone_ends_the_others() {
    let pipeline = load("pipelines/ddpm");
    let plan = Plan::of(&pipeline, &request(&json!({"count": 2, "steps": 3}))).unwrap();
    let mut worlds = ThreadWorld::of(3);
    drop(worlds.pop());
    thread::scope(|scope| {
        for mut world in worlds {
            let (plan, pipeline) = (&plan, &pipeline);
            scope.spawn(move || {
                let said = plan
                    .run_among(pipeline, &mut world, &mut ())
                    .unwrap_err()
                    .to_string();
                assert!(said.contains("is gone"), "{said}");
            });
        }
    });
}
