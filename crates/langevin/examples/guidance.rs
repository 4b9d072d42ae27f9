//! The course's third notebook: faster sampling, fine-tuning, guidance, every loop in sight.
//!
//! ```sh
//! cargo run --release -p langevin --features parquet --example guidance -- PIPELINE [DATA] [FOLDER]
//! ```
//!
//! PIPELINE is a model of colour pictures to begin with, DATA the pictures to fine-tune it on, FOLDER where the pictures of the
//! lesson go. `docs/course.md` walks through it.

// Tests call it as a module.
#![allow(unreachable_pub)]

use std::{path::PathBuf, sync::Arc};

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData},
};
use langevin::{
    Result,
    data::{self, Loader, LoaderConfig, Resize, Transform},
    device::default_device,
    grid,
    guidance::{Colour, GuidanceSchedule, LossGuidance, Through, gradient, leaf},
    models::{Conditioning, Denoiser},
    objectives::{DdpmObjective, Objective, PredictionType, Weighting},
    pipelines::{Pipeline, SampleOptions, to_pictures},
    random::Generator,
    schedulers::Scheduler,
    training::{
        gradients::Gradients,
        optimizer::{AdamWConfig, AdamWOptimizer},
    },
};

/// What may be chosen.
pub struct Lesson {
    /// The folder of the pipeline to begin with.
    pub pipeline: PathBuf,
    /// A folder of pictures to fine-tune on, or `digits`.
    pub data: String,
    /// What the model predicts.
    pub prediction: PredictionType,
    /// Denoising steps.
    pub steps: usize,
    /// Pictures to draw.
    pub count: usize,
    /// Optimiser steps of fine-tuning.
    pub updates: usize,
    /// Where the pictures of the lesson go.
    pub folder: PathBuf,
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let lesson = Lesson {
        pipeline: args.next().unwrap_or_else(|| "emoji".into()).into(),
        data: args.next().unwrap_or_else(|| "digits".into()),
        prediction: PredictionType::VPrediction,
        steps: 40,
        count: 8,
        updates: 60,
        folder: args.next().unwrap_or_else(|| "guidance".into()).into(),
    };
    for (name, distance) in run(&lesson)? {
        println!("{name}: a mean distance of {distance:.3} to the colour");
    }
    Ok(())
}

/// The lesson. Returns, for each way to draw, how far from the colour its pictures are.
pub fn run(lesson: &Lesson) -> Result<Vec<(&'static str, f64)>> {
    let pipeline = Pipeline::load(&lesson.pipeline, &default_device())?;
    let options = SampleOptions {
        batch_size: lesson.count,
        num_inference_steps: Some(lesson.steps),
        // The null class, where the model has classes.
        classes: None,
        ..SampleOptions::default()
    };

    // 1. Faster sampling: another sampler for the same model, and its loop by hand.
    let pipeline = pipeline.with_scheduler("ddim")?;
    let mut generator = Generator::new(7);
    let mut sampling = pipeline.sample(&options, &mut generator)?;
    while let Some(mut step) = sampling.open() {
        let prediction = step.predict(step.sample.clone())?;
        if step.index % 10 == 0 {
            let clean = step.predicted_clean(&prediction, &step.sample)?;
            show(&step.sample, lesson, &format!("ddim-{}.png", step.index))?;
            show(&clean, lesson, &format!("ddim-{}-clean.png", step.index))?;
        }
        step.take(prediction)?;
    }
    let plain = sampling.finish()?;
    show(&plain, lesson, "ddim.png")?;

    // 2. Fine-tuning: a few steps of training on other pictures.
    let tuned = fine_tune(&pipeline, lesson)?;
    let mut generator = Generator::new(7);
    show(
        &tuned.sample(&options, &mut generator)?.finish()?,
        lesson,
        "tuned.png",
    )?;

    // 3. Guidance: at every step, change the sample so that the predicted picture comes nearer to what is wanted.
    let mut generator = Generator::new(7);
    let mut sampling = pipeline
        .sample(&options, &mut generator)?
        .with_step_options(None, true);
    while let Some(mut step) = sampling.open() {
        let prediction = step.predict(step.sample.clone())?;
        let x = leaf(&step.sample);
        let loss = colour_loss(step.predicted_clean(&prediction, &x)?) * GUIDANCE_SCALE;
        step.sample = step.sample - gradient(&loss, &x)?;
        step.take(prediction)?;
    }
    let cheap = sampling.finish()?;
    show(&cheap, lesson, "colour-clean.png")?;

    // 4. The second variant: the gradient goes through the model, which takes longer and keeps closer to its pictures.
    let mut generator = Generator::new(7);
    let mut sampling = pipeline
        .sample(&options, &mut generator)?
        .with_step_options(None, true);
    while let Some(mut step) = sampling.open() {
        let x = leaf(&step.sample);
        let prediction = step.predict(x.clone())?;
        let loss = colour_loss(step.predicted_clean(&prediction, &x)?) * GUIDANCE_SCALE;
        step.sample = step.sample - gradient(&loss, &x)?;
        step.take(prediction)?;
    }
    let through_model = sampling.finish()?;
    show(&through_model, lesson, "colour-model.png")?;

    // 5. The same without the loop, and a loss of one's own beside it: dark corners.
    let dark_corners = |clean: Tensor<4>| {
        let [_, _, height, width] = clean.dims();
        let corner = clean.narrow(2, 0, height / 4).narrow(3, 0, width / 4);
        corner.mean_dims(&[1, 2, 3]).flatten::<1>(0, 3)
    };
    let guidance = LossGuidance::new(Through::Clean)
        .with(GREEN, 20.0)
        .with(dark_corners, 40.0)
        .with_schedule(GuidanceSchedule::RootSignal);
    let mut generator = Generator::new(7);
    let sampling = pipeline.sample(&options, &mut generator)?.guided_by(guidance);
    show(&sampling.finish()?, lesson, "corners.png")?;

    let distance =
        |pictures: Tensor<4>| f64::from(colour_loss(pictures).into_scalar::<f32>()) / lesson.count as f64;
    Ok(vec![
        ("without guidance", distance(plain)),
        ("guided by the predicted picture", distance(cheap)),
        ("guided through the model", distance(through_model)),
    ])
}

/// How strongly to guide. The notebook's 40 is of a mean over eight pictures, so 5 a picture.
const GUIDANCE_SCALE: f64 = 10.0;

/// A light green.
const GREEN: Colour = Colour {
    rgb: [0x1A, 0xE6, 0x80],
};

/// How far pictures are from that green, each by its mean absolute difference; their sum.
fn colour_loss(pictures: Tensor<4>) -> Tensor<1> {
    let [count, ..] = pictures.dims();
    let target = Tensor::<1>::from_data([0.1, 0.9, 0.5], &pictures.device()) * 2.0 - 1.0;
    (pictures - target.reshape([1, 3, 1, 1])).abs().mean() * count as f64
}

/// Trains the pipeline's model on other pictures for a little while: the rates are small, and two batches make a step.
fn fine_tune(pipeline: &Pipeline, lesson: &Lesson) -> Result<Pipeline> {
    let config = pipeline.model.config();
    let [height, _] = config.sample_size().unwrap_or([32; 2]);
    let transform = Transform {
        resize: Resize::Square,
        random_flip: true,
        ..Transform::new(height)
    };
    let loader = Loader::new(
        Arc::from(data::open(&lesson.data)?),
        transform,
        LoaderConfig::default(),
    )?;
    let scheduler = pipeline.scheduler.clone();
    let objective = DdpmObjective::new(&scheduler, lesson.prediction, Weighting::default())?;
    let mut model = pipeline.model.clone().train();
    let device = default_device().autodiff();
    let mut optimizer = AdamWOptimizer::new(AdamWConfig::default());
    let mut generator = Generator::new(0);
    let mut waiting = Gradients::default();
    for (number, batch) in (0..)
        .flat_map(|epoch| loader.epoch(epoch))
        .take(2 * lesson.updates)
        .enumerate()
    {
        let batch = batch?;
        let clean: Tensor<4> = Tensor::from_data(TensorData::new(batch.pixels, batch.shape), &device);
        let [pictures, ..] = clean.dims();
        let noise = generator.randn_tensor(clean.dims(), &device);
        let timesteps = generator.randint(0, scheduler.num_train_timesteps() as i64, pictures);
        let timesteps: Vec<f64> = timesteps.into_iter().map(|t| t as f64).collect();

        let pair = objective.training_pair(clean, noise.into(), &timesteps)?;
        let prediction = model.denoise(
            pair.input.clone(),
            Tensor::from_floats(pair.timesteps.as_slice(), &device),
            &nothing(pipeline, pictures, &device),
        )?;
        let loss = pair.losses(prediction)?.mean();

        waiting = waiting.plus(Gradients::gather(&model, &mut loss.backward()));
        if number % 2 == 1 {
            model = optimizer.step(model, std::mem::take(&mut waiting).scale(0.5), 1.0, 1e-4);
            println!("update {}: loss {:.4}", number / 2 + 1, loss.into_scalar::<f32>());
        }
    }
    Pipeline::new(model.valid(), scheduler, pipeline.classes().cloned())
}

/// What a model is told that is told nothing: the null class, where it knows classes.
fn nothing(pipeline: &Pipeline, pictures: usize, device: &Device) -> Conditioning {
    let null = pipeline.classes().and_then(|classes| classes.null_class);
    Conditioning {
        classes: null.map(|null| Tensor::<1, Int>::full([pictures], null as i64, device)),
        ..Conditioning::default()
    }
}

/// Writes pictures side by side.
fn show(pictures: &Tensor<4>, lesson: &Lesson, name: &str) -> Result<()> {
    let pictures = to_pictures(pictures)?;
    let scale = grid::visible_scale(&pictures[0]);
    let row = grid::grid(&pictures, pictures.len(), 2, scale)?;
    grid::write_png(lesson.folder.join(name), &row, &[])
}
