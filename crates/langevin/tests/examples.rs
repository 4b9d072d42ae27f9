//! The examples, a few steps of each.

// Their `main` is not called here, and not everything that they return is looked at.
#[allow(dead_code)]
#[path = "../examples/class_conditioned.rs"]
mod class_conditioned;
#[allow(dead_code)]
#[path = "../examples/from_scratch.rs"]
mod from_scratch;
#[allow(dead_code)]
#[path = "../examples/guidance.rs"]
mod guidance;
#[allow(dead_code)]
#[path = "../examples/introduction.rs"]
mod introduction;
#[allow(dead_code)]
#[path = "../examples/sound.rs"]
mod sound;
#[allow(dead_code)]
#[path = "../examples/stable_diffusion.rs"]
mod stable_diffusion;

use std::fs;

use langevin::{data::sound::Sound, models::ModelPreset};
use tempfile::TempDir;

#[test]
fn sound_is_learned_drawn_varied_and_gone_on_from() {
    let folder = TempDir::new().unwrap();
    let sounds = folder.path().join("sounds");
    let tone = |hertz: f32| Sound {
        rate: 11_025,
        samples: (0..6000).map(|i| (i as f32 * hertz * 5.7e-4).sin()).collect(),
    };
    tone(440.0).write(sounds.join("a.wav")).unwrap();
    tone(660.0).write(sounds.join("b.wav")).unwrap();
    let outcome = sound::run(&sound::Lesson {
        sounds,
        resolution: 16,
        // Its size follows the lesson's.
        model: ModelPreset::Digits.into(),
        steps: 2,
        drawing: 3,
        folder: folder.path().join("lesson"),
    })
    .unwrap();
    assert!(outcome.loss.is_finite());
    let [drawn, longer, varied, continued] = outcome.seconds;
    let usual = 15.0 * 256.0 / 11_025.0;
    assert!((drawn - usual).abs() < 1e-4 && (varied - usual).abs() < 1e-4);
    assert!((longer - 2.5 * usual).abs() < 1e-3, "{longer}");
    // Half of what is drawn is the end of what there was.
    assert!(continued > 1.4 * usual && continued < 1.6 * usual, "{continued}");
    for file in [
        "spectrogram.png",
        "again.wav",
        "run/mel/mel_config.json",
        "drawn.png",
        "continued.wav",
    ] {
        assert!(folder.path().join("lesson").join(file).is_file(), "{file}");
    }
}

#[test]
fn introduction_learns_draws_and_saves() {
    let folder = TempDir::new().unwrap();
    let outcome = introduction::run(&introduction::Lesson {
        data: pictures(&folder, 8),
        resolution: 16,
        batch_size: 4,
        epochs: 2,
        timesteps: 5,
        count: 2,
        folder: folder.path().join("lesson"),
    })
    .unwrap();
    assert_eq!(outcome.losses.len(), 4);
    assert!(outcome.losses.iter().all(|(_, loss)| loss.is_finite()));
    assert_eq!(outcome.differences, [0.0; 2]);
    for file in [
        "batch.png",
        "noisy.png",
        "noisy-linear.png",
        "losses.png",
        "samples.png",
        "my_pipeline/model_index.json",
    ] {
        assert!(folder.path().join("lesson").join(file).is_file(), "{file}");
    }
}

#[test]
fn from_scratch_learns_to_restore_digits() {
    let folder = TempDir::new().unwrap();
    let losses = from_scratch::run(&from_scratch::Lesson {
        data: pictures(&folder, 24),
        resolution: 8,
        batch_size: 8,
        epochs: 4,
        count: 8,
        timesteps: 10,
        folder: folder.path().to_path_buf(),
    })
    .unwrap();
    for of_model in [&losses.basic, &losses.unet, &losses.ddpm] {
        assert_eq!(of_model.len(), 4);
        assert!(of_model[3] < of_model[0], "{of_model:?}");
    }
    for file in [
        "corrupted.png",
        "predicted.png",
        "basic-5-steps.png",
        "unet-40-steps.png",
        "ddpm.png",
    ] {
        assert!(folder.path().join(file).is_file(), "{file}");
    }
}

#[test]
fn guidance_draws_samples_to_a_colour() {
    let folder = TempDir::new().unwrap();
    // A model as the lesson's: one of velocities.
    let pipeline = folder.path().join("pipeline");
    let reference = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/pipelines/ddim");
    langevin::pipelines::Pipeline::load(reference, &langevin::device::default_device())
        .unwrap()
        .save(&pipeline)
        .unwrap();
    let config = pipeline.join("scheduler/scheduler_config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("epsilon", "v_prediction")).unwrap();
    let distances = guidance::run(&guidance::Lesson {
        pipeline,
        data: pictures(&folder, 16),
        prediction: langevin::objectives::PredictionType::VPrediction,
        steps: 11,
        count: 2,
        updates: 1,
        folder: folder.path().to_path_buf(),
    })
    .unwrap();
    let [(_, plain), (_, clean), (_, model)] = distances[..] else {
        panic!("{distances:?}")
    };
    assert!(clean < plain && model < plain, "{distances:?}");
    for file in [
        "ddim-0.png",
        "ddim-10-clean.png",
        "ddim.png",
        "tuned.png",
        "corners.png",
    ] {
        assert!(folder.path().join(file).is_file(), "{file}");
    }
}

#[test]
fn class_conditioned_learns_and_draws_every_class() {
    let folder = TempDir::new().unwrap();
    let losses = class_conditioned::run(&class_conditioned::Lesson {
        data: "digits".into(),
        resolution: 8,
        batch_size: 600,
        epochs: 2,
        timesteps: 4,
        of_each: 1,
        folder: folder.path().to_path_buf(),
    })
    .unwrap();
    assert!(losses[1] < losses[0], "{losses:?}");
    let drawn = langevin::data::read_picture(folder.path().join("samples.png")).unwrap();
    assert!(drawn.height() > 5 * drawn.width());
}

#[test]
fn stable_diffusion_is_walked_through() {
    let folder = TempDir::new().unwrap();
    let models = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/sd/models");
    let outcome = stable_diffusion::run(&stable_diffusion::Lesson {
        pipeline: models.join("sd1"),
        depth: Some(models.join("depth2img")),
        prompt: "a photo of a cat".into(),
        negative_prompt: "blurry".into(),
        steps: 6,
        folder: folder.path().to_path_buf(),
    })
    .unwrap();
    assert_eq!(outcome.pieces.concat(), "a photo of a cat ");
    assert_eq!(outcome.by_hand, 0);
    for file in [
        "drawn.png",
        "scales.png",
        "there-and-back.png",
        "mixed.png",
        "schedule.png",
        "lms.png",
        "by-hand.png",
        "on-the-way.png",
        "again.png",
        "painted.png",
        "depth.png",
    ] {
        assert!(folder.path().join(file).is_file(), "{file}");
    }
    let pixels = |name: &str| {
        langevin::data::read_picture(folder.path().join(name))
            .unwrap()
            .into_pixels()
    };
    for other in ["mixed.png", "lms.png", "again.png", "painted.png", "depth.png"] {
        assert_ne!(pixels("drawn.png"), pixels(other), "{other}");
    }
}

#[test]
fn the_pages_quote_the_examples() {
    let lines = |text: &str| -> Vec<String> { text.lines().map(|line| line.trim().to_string()).collect() };
    let page = [
        include_str!("../../../docs/course.md"),
        include_str!("../../../docs/guidance.md"),
        include_str!("../../../docs/stable-diffusion.md"),
    ]
    .concat();
    let programs = [
        include_str!("../examples/introduction.rs"),
        include_str!("../examples/from_scratch.rs"),
        include_str!("../examples/guidance.rs"),
        include_str!("../examples/class_conditioned.rs"),
        include_str!("../examples/stable_diffusion.rs"),
    ]
    .map(lines);
    let mut blocks = 0;
    for block in page.split("```rust\n").skip(1) {
        let (block, _) = block.split_once("```").unwrap();
        let block = lines(block);
        let quoted = |program: &Vec<String>| program.windows(block.len()).any(|window| window == block);
        assert!(
            programs.iter().any(quoted),
            "no example has these lines: {block:#?}"
        );
        blocks += 1;
    }
    assert!(blocks > 0);
    // And its pictures are there.
    for picture in page.split("(images/").skip(1) {
        let (name, _) = picture.split_once(')').unwrap();
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../docs/images")
            .join(name);
        assert!(path.is_file(), "{name}");
    }
}

/// A folder of a few digits.
fn pictures(folder: &TempDir, count: usize) -> String {
    let digits = langevin::data::open("digits").unwrap();
    let path = folder.path().join("pictures");
    fs::create_dir(&path).unwrap();
    for index in 0..count {
        let picture = digits.get(index).unwrap().picture;
        langevin::grid::write_png(path.join(format!("{index}.png")), &picture, &[]).unwrap();
    }
    path.display().to_string()
}
