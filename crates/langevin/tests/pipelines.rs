//! Pipelines as folders and as loops: what is saved, what is refused, what a step lends.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use langevin::{
    device::default_device,
    guidance::{Axis, ClassifierFree, LossGuidance, Symmetry, Through},
    models::{Model, ModelPreset, UNet2DConfig, UNet2DModel, unet2d::SampleSize},
    pipelines::{Classes, Pipeline, SampleOptions, Sampling, step_together},
    random::Generator,
    schedulers::SamplerName,
};
use serde_json::Value;
use tempfile::TempDir;

fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/reference/pipelines")
        .join(name)
}

fn load(name: &str) -> Pipeline {
    Pipeline::load(reference(name), &default_device()).unwrap()
}

fn options(batch_size: usize, steps: usize) -> SampleOptions {
    SampleOptions {
        batch_size,
        num_inference_steps: Some(steps),
        ..SampleOptions::default()
    }
}

/// A small untrained model of three classes and a null class.
fn conditional(null_class: Option<usize>) -> Pipeline {
    let config = UNet2DConfig {
        sample_size: Some(SampleSize::HeightWidth([8, 4])),
        in_channels: 1,
        out_channels: 1,
        block_out_channels: vec![8, 8],
        norm_num_groups: Some(4),
        num_class_embeds: Some(4),
        down_block_types: UNet2DConfig::default().down_block_types[..2].to_vec(),
        up_block_types: UNet2DConfig::default().up_block_types[2..].to_vec(),
        layers_per_block: 1,
        ..UNet2DConfig::default()
    };
    let model = UNet2DModel::new(&config, &default_device(), &mut Generator::new(0)).unwrap();
    let names = ["cat", "dog", "cow"].map(String::from).to_vec();
    Pipeline::new(
        model.into(),
        load("ddpm").scheduler,
        Some(Classes { names, null_class }),
    )
    .unwrap()
}

/// Every file below a folder, with its contents.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// The JSON with every number as a float.
fn with_floats(value: Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().into(),
        Value::Array(items) => items.into_iter().map(with_floats).collect(),
        Value::Object(entries) => {
            let entries = entries.into_iter();
            entries.map(|(key, value)| (key, with_floats(value))).collect()
        }
        other => other,
    }
}

#[test]
fn what_diffusers_saved_is_saved_again_in_the_same_words() {
    for name in ["ddpm", "ddim"] {
        let folder = TempDir::new().unwrap();
        load(name).save(folder.path().join("run")).unwrap();
        for file in [
            "model_index.json",
            "scheduler/scheduler_config.json",
            "unet/config.json",
        ] {
            let text = |root: &Path| fs::read_to_string(root.join(file)).unwrap();
            // Python writes 1e-05 and 0 where Rust writes 0.00001 and 0.0: the same numbers.
            let value = |root: &Path| with_floats(serde_json::from_str(&text(root)).unwrap());
            assert_eq!(
                value(&folder.path().join("run")),
                value(&reference(name)),
                "{name}/{file}"
            );
        }
    }
}

#[test]
fn a_saved_pipeline_draws_the_same_pictures() {
    let folder = TempDir::new().unwrap();
    let pipeline = conditional(Some(3));
    pipeline.save(folder.path()).unwrap();
    let again = Pipeline::load(folder.path(), &default_device()).unwrap();
    assert_eq!(again.classes(), pipeline.classes());
    let options = SampleOptions {
        classes: Some(vec![0, 2]),
        ..options(2, 3)
    };
    let [first, second] = [
        pipeline.call(&options, &mut Generator::new(5)).unwrap(),
        again.call(&options, &mut Generator::new(5)).unwrap(),
    ];
    assert_eq!(first.dims(), [2, 8, 4, 1]);
    assert_eq!(support::values(first), support::values(second));
}

#[test]
fn saving_over_a_run_keeps_what_is_not_the_pipelines() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("metrics.jsonl"), "{}\n").unwrap();
    conditional(Some(3)).save(folder.path()).unwrap();
    let before = files(folder.path());
    assert_eq!(before.len(), 6, "{before:?}");
    conditional(Some(3)).save(folder.path()).unwrap();
    assert_eq!(files(folder.path()), before);
}

#[test]
fn what_cannot_be_saved_leaves_nothing_behind() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "mine").unwrap();
    assert!(load("ddpm").save(&file).is_err());
    assert!(load("ddpm").save(file.join("run")).is_err());
    assert_eq!(files(folder.path()), [(file, b"mine".to_vec())]);
}

/// The reference pipeline `name` with the scheduler of the pipeline `other`, but for the noise schedule, which stays.
fn with_scheduler_of(name: &str, other: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    load(name).save(folder.path()).unwrap();
    let config = |name: &str| support::read_json(reference(name).join("scheduler/scheduler_config.json"));
    let mut mixed = config(other);
    mixed["beta_schedule"] = config(name)["beta_schedule"].clone();
    fs::write(
        folder.path().join("scheduler/scheduler_config.json"),
        mixed.to_string(),
    )
    .unwrap();
    let index = folder.path().join("model_index.json");
    let class_of = |name: &str| config(name)["_class_name"].as_str().unwrap().to_string();
    let text = fs::read_to_string(&index)
        .unwrap()
        .replace(&class_of(name), &class_of(other));
    fs::write(&index, text).unwrap();
    folder
}

/// How far the pictures are from those that diffusers made with the pipeline `name`.
fn difference(pipeline: &Pipeline, name: &str) -> f64 {
    let expected = &support::read_tensors(reference(name).join("images.safetensors"))["images"];
    let pictures = pipeline.call(&options(2, 10), &mut Generator::new(42)).unwrap();
    support::largest_difference(&support::values(pictures), &expected.f32())
}

#[test]
fn a_ddim_pipeline_makes_any_scheduler_its_own() {
    let folder = with_scheduler_of("ddim", "ddpm");
    let pipeline = Pipeline::load(folder.path(), &default_device()).unwrap();
    assert_eq!(pipeline.scheduler.class_name(), "DDIMScheduler");
    assert!(difference(&pipeline, "ddim") <= 1.0 / 255.0);
}

#[test]
fn the_scheduler_can_be_changed_either_way() {
    let folder = with_scheduler_of("ddpm", "ddim");
    let pipeline = Pipeline::load(folder.path(), &default_device()).unwrap();
    assert_eq!(pipeline.scheduler.class_name(), "DDIMScheduler");
    let pipeline = pipeline.with_scheduler("ddpm").unwrap();
    assert_eq!(
        (pipeline.class().name, pipeline.scheduler.class_name()),
        ("DDPMPipeline", "DDPMScheduler")
    );
    assert!(difference(&pipeline, "ddpm") <= 1.0 / 255.0);

    let folder = with_scheduler_of("ddim", "ddpm");
    let pipeline = Pipeline::load(folder.path(), &default_device()).unwrap();
    let pipeline = pipeline.with_scheduler("ddim").unwrap();
    assert_eq!(
        (pipeline.class().name, pipeline.scheduler.class_name()),
        ("DDIMPipeline", "DDIMScheduler")
    );
    assert!(difference(&pipeline, "ddim") <= 1.0 / 255.0);
}

#[test]
fn a_step_lends_what_it_came_to() {
    let pipeline = load("ddim");
    let mut generator = Generator::new(1);
    let mut sampling = pipeline.sample(&options(1, 4), &mut generator).unwrap();
    let mut seen = Vec::new();
    while let Some(step) = sampling.next() {
        let step = step.unwrap();
        assert_eq!(step.total, 4);
        for tensor in [step.sample, step.prediction, step.predicted_clean] {
            assert_eq!(tensor.dims(), [1, 3, 16, 16]);
        }
        seen.push((step.index, step.timestep));
    }
    assert_eq!(seen, [(0, 750.0), (1, 500.0), (2, 250.0), (3, 0.0)]);
    assert!(sampling.next().is_none());
    let last = support::values(sampling.sample().clone());
    assert_eq!(support::values(sampling.finish().unwrap()), last);
}

#[test]
fn a_class_that_is_not_told_is_the_null_class() {
    let pipeline = conditional(Some(3));
    let draw = |classes: Option<Vec<i64>>| {
        let options = SampleOptions {
            classes,
            ..options(1, 2)
        };
        support::values(pipeline.call(&options, &mut Generator::new(0)).unwrap())
    };
    assert_eq!(draw(None), draw(Some(vec![3])));
    assert_ne!(draw(None), draw(Some(vec![0])));
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let refused = |pipeline: &Pipeline, options: SampleOptions| {
        let mut generator = Generator::new(0);
        pipeline
            .sample(&options, &mut generator)
            .err()
            .expect("the options do not fit")
            .to_string()
    };
    let with = |classes: &[i64]| SampleOptions {
        classes: Some(classes.to_vec()),
        ..options(2, 2)
    };
    assert!(refused(&conditional(None), options(1, 2)).contains("null class"));
    assert!(refused(&conditional(None), with(&[1])).contains("one per picture"));
    assert!(refused(&conditional(None), with(&[1, 4])).contains("class 4"));
    assert!(refused(&conditional(None), with(&[-1, 0])).contains("class -1"));
    assert!(refused(&conditional(Some(3)), options(0, 2)).contains("batch_size"));
    let unconditional = load("ddpm");
    assert!(refused(&unconditional, with(&[0, 1])).contains("unconditional"));
}

#[test]
fn early_repositories_have_every_file_at_the_root() {
    let folder = TempDir::new().unwrap();
    let case = reference("ddim");
    for file in [
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
    ] {
        let path = case.join(file);
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    Pipeline::load(folder.path(), &default_device()).unwrap();
}

#[test]
fn an_index_that_the_folder_contradicts_is_refused() {
    let folder = TempDir::new().unwrap();
    load("ddpm").save(folder.path()).unwrap();
    let index = folder.path().join("model_index.json");
    let text = fs::read_to_string(&index).unwrap();
    fs::write(&index, text.replace("UNet2DModel", "UNet2DConditionModel")).unwrap();
    let message = Pipeline::load(folder.path(), &default_device())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("UNet2DConditionModel") && message.contains("model_index.json"),
        "{message}"
    );
    fs::write(&index, r#"{"_class_name": "DDPMPipeline"}"#).unwrap();
    let message = Pipeline::load(folder.path(), &default_device())
        .unwrap_err()
        .to_string();
    assert!(message.contains("`unet`"), "{message}");
}

#[test]
fn the_courses_own_network_is_a_pipelines_model_too() {
    let folder = TempDir::new().unwrap();
    let model = ModelPreset::BasicUnet
        .config()
        .build(&default_device(), &mut Generator::new(0))
        .unwrap();
    let scheduler = load("ddpm").scheduler;
    Pipeline::new(model, scheduler, None)
        .unwrap()
        .save(folder.path())
        .unwrap();
    let again = Pipeline::load(folder.path(), &default_device()).unwrap();
    assert_eq!(again.model.num_parameters(), 309_057);
    let pictures = again.call(&options(1, 1), &mut Generator::new(0)).unwrap();
    assert_eq!(pictures.dims(), [1, 28, 28, 1]);
}

/// A loop of a kind of its own: its sampler, length, class, guidance and seed follow from its number.
fn of_kind(pipeline: &Pipeline, number: usize) -> Sampling<'_> {
    let fitting = SamplerName::ALL.iter().filter(|sampler| {
        // EDM's and other kinds of model aside.
        pipeline.scheduler.for_model(sampler.name).is_ok()
    });
    let sampler = fitting.cycle().nth(number).unwrap();
    let scheduler = pipeline.scheduler.for_model(sampler.name).unwrap();
    let options = SampleOptions {
        classes: Some(vec![(number % 4) as i64]),
        guidance: ClassifierFree::of_scale(if number.is_multiple_of(3) { 2.0 } else { 1.0 }),
        ..options(1, 4 + number % 3)
    };
    let sampling = pipeline
        .start(scheduler, &options, Generator::new(number as u64))
        .unwrap();
    let symmetry = Symmetry {
        axis: Axis::default(),
    };
    match number % 5 {
        0 => sampling.guided_by(LossGuidance::new(Through::Clean).with(symmetry, 5.0)),
        1 => sampling.guided_by(LossGuidance::new(Through::Model).with(symmetry, 5.0)),
        _ => sampling,
    }
}

fn bits(sampling: Sampling<'_>) -> Vec<u32> {
    let values: Vec<f32> = sampling.finish().unwrap().into_data().try_to_vec().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

#[test]
fn loops_together_come_to_the_bits_that_they_come_to_alone() {
    let (one, other) = (conditional(Some(3)), conditional(Some(3)));
    let kinds: Vec<usize> = (0..30).collect();
    let of = |number: usize| if number == 7 { &other } else { &one };
    let alone: Vec<Vec<u32>> = kinds.iter().map(|&kind| bits(of_kind(of(kind), kind))).collect();
    // They come one after the other, and leave when they are done.
    let mut waiting = kinds.iter().map(|&kind| (kind, of_kind(of(kind), kind)));
    let mut under_way: Vec<(usize, Sampling<'_>)> = Vec::new();
    let mut done = 0;
    loop {
        under_way.extend(waiting.by_ref().take(3));
        if under_way.is_empty() {
            break;
        }
        let mut loops: Vec<&mut Sampling<'_>> = under_way.iter_mut().map(|(_, sampling)| sampling).collect();
        for result in step_together(&mut loops) {
            result.unwrap();
        }
        let all = std::mem::take(&mut under_way);
        for (kind, sampling) in all {
            if sampling.done() < sampling.total() {
                under_way.push((kind, sampling));
            } else {
                assert!(bits(sampling) == alone[kind], "loop {kind}");
                done += 1;
            }
        }
    }
    assert_eq!(done, kinds.len());
}

#[test]
fn a_loop_that_fails_leaves_the_others_alone() {
    let pipeline = conditional(Some(3));
    let expected = bits(of_kind(&pipeline, 2));
    let mut good = of_kind(&pipeline, 2);
    let broken = |clean: burn::tensor::Tensor<4>| clean.mean_dims(&[1, 2, 3]).flatten::<1>(0, 3) * f32::NAN;
    let mut bad = of_kind(&pipeline, 3).guided_by(LossGuidance::new(Through::Clean).with(broken, 1.0));
    let results = step_together(&mut [&mut good, &mut bad]);
    assert!(results[0].is_ok());
    let message = results[1].as_ref().unwrap_err().to_string();
    assert!(message.contains("not a finite number"), "{message}");
    assert_eq!(bits(good), expected);
}
