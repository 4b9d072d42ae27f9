//! The course's first notebook: a diffusion model from a data set to new pictures, every step in sight.
//!
//! ```sh
//! cargo run --release --example introduction -- [DATA] [EPOCHS] [FOLDER]
//! ```
//!
//! DATA is a folder of pictures, or `digits`; FOLDER is where the pictures of the lesson and the pipeline go.
//! `docs/course.md` walks through it.

// Tests call it as a module.
#![allow(unreachable_pub)]

use std::{path::PathBuf, sync::Arc};

use burn::{
    module::Module,
    tensor::{Device, Tensor, TensorData},
};
use langevin::{
    Result,
    data::{self, Loader, LoaderConfig, Resize, Transform},
    device::default_device,
    grid,
    models::{Conditioning, Denoiser, ModelPreset},
    pipelines::{Pipeline, SampleOptions, to_pictures},
    plot,
    random::Generator,
    schedulers::{BetaSchedule, DDPMConfig, DDPMScheduler, Scheduler, StepOptions},
    training::{
        gradients::Gradients,
        optimizer::{AdamWConfig, AdamWOptimizer},
    },
};

/// What may be chosen.
pub struct Lesson {
    /// A folder of pictures, or `digits`.
    pub data: String,
    /// Height and width to train at.
    pub resolution: usize,
    /// Pictures in a batch.
    pub batch_size: usize,
    /// Passes over the data.
    pub epochs: u64,
    /// Timesteps of the noise schedule.
    pub timesteps: usize,
    /// Pictures to draw at the end.
    pub count: usize,
    /// Where everything is written.
    pub folder: PathBuf,
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let lesson = Lesson {
        data: args.next().unwrap_or_else(|| "digits".into()),
        resolution: 32,
        batch_size: 64,
        epochs: args.next().and_then(|epochs| epochs.parse().ok()).unwrap_or(30),
        timesteps: 1000,
        count: 8,
        folder: args.next().unwrap_or_else(|| "introduction".into()).into(),
    };
    run(&lesson).map(|_| ())
}

/// What came out.
pub struct Outcome {
    /// The loss of every step.
    pub losses: Vec<(u64, f64)>,
    /// How far the pipeline's samples, and the loaded pipeline's, are from those drawn by hand: the largest difference of a value.
    pub differences: [f32; 2],
}

/// The lesson.
pub fn run(lesson: &Lesson) -> Result<Outcome> {
    let device = default_device();
    let mut generator = Generator::new(0);

    // 1. The data: pictures of one size, mirrored at random, with values from -1 to 1.
    let dataset = Arc::from(data::open(&lesson.data)?);
    let transform = Transform {
        resize: Resize::Square,
        random_flip: true,
        ..Transform::new(lesson.resolution)
    };
    let loader = Loader::new(
        dataset,
        transform,
        LoaderConfig {
            batch_size: lesson.batch_size,
            ..LoaderConfig::default()
        },
    )?;
    let clean = tensor(&first(&loader)?, &device);
    println!("a batch has the shape {:?}", clean.dims());
    show(&clean.clone().narrow(0, 0, lesson.count), lesson, "batch.png")?;

    // 2. The noise: little at the first timesteps, nothing but noise at the last.
    let schedule = |beta_schedule| {
        DDPMScheduler::new(DDPMConfig {
            num_train_timesteps: lesson.timesteps,
            beta_schedule,
            ..DDPMConfig::default()
        })
    };
    let mut scheduler = schedule(BetaSchedule::SquaredcosCapV2)?;
    let spread: Vec<usize> = (0..lesson.count)
        .map(|i| i * (lesson.timesteps - 1) / (lesson.count - 1).max(1))
        .collect();
    let few = clean.narrow(0, 0, lesson.count);
    let noise = generator.randn_tensor(few.dims(), &device);
    let linear = schedule(BetaSchedule::Linear)?;
    show(
        &linear.add_noise(few.clone(), noise.clone(), &spread)?,
        lesson,
        "noisy-linear.png",
    )?;
    show(&scheduler.add_noise(few, noise, &spread)?, lesson, "noisy.png")?;

    // 3. The model: the course's, a UNet with attention at the two smallest sizes.
    let config = ModelPreset::CourseButterflies
        .config()
        .made_for(lesson.resolution, 3, None)?;
    let mut model = config.build(&device, &mut generator)?.train();
    println!("the model has {} parameters", model.num_parameters());

    // 4. Training: add noise, and let the model say what it was.
    let mut optimizer = AdamWOptimizer::new(AdamWConfig {
        beta1: 0.9,
        weight_decay: 1e-2,
        ..AdamWConfig::default()
    });
    let mut losses = Vec::new();
    for epoch in 0..lesson.epochs {
        for batch in loader.epoch(epoch) {
            let clean = tensor(&batch?, &device.clone().autodiff());
            let [pictures, ..] = clean.dims();
            let noise = generator.randn_tensor(clean.dims(), &clean.device());
            let timesteps: Vec<usize> = generator
                .randint(0, lesson.timesteps as i64, pictures)
                .into_iter()
                .map(|t| t as usize)
                .collect();

            let noisy = scheduler.add_noise(clean, noise.clone(), &timesteps)?;
            let prediction = model.denoise(noisy, floats(&timesteps, &noise.device()), &nothing())?;
            let loss = (prediction - noise).square().mean();

            let gradients = Gradients::gather(&model, &mut loss.backward());
            model = optimizer.step(model, gradients, 1.0, 4e-4);
            losses.push((losses.len() as u64 + 1, f64::from(loss.into_scalar::<f32>())));
        }
        let of_epoch = &losses[losses.len().saturating_sub(loader.batches_per_epoch())..];
        let mean = of_epoch.iter().map(|(_, loss)| loss).sum::<f64>() / of_epoch.len() as f64;
        println!("epoch {}: loss {mean:.4}", epoch + 1);
    }

    // 5. The losses, plainly and by their logarithm.
    plot::loss_plot(lesson.folder.join("losses.png"), &losses, "introduction")?;

    // 6. Drawing by hand: from noise, one step after another, each a little less noisy than the one before.
    let model = model.valid();
    scheduler.set_timesteps(lesson.timesteps)?;
    let mut generator = Generator::new(7);
    let shape = [lesson.count, 3, lesson.resolution, lesson.resolution];
    let mut sample = generator.randn_tensor(shape, &device);
    for t in scheduler.timesteps().to_vec() {
        let prediction = model.denoise(
            sample.clone(),
            Tensor::full([lesson.count], t, &device),
            &nothing(),
        )?;
        let mut options = StepOptions {
            generator: Some(&mut generator),
            ..StepOptions::default()
        };
        sample = scheduler.step(prediction, t, sample, &mut options)?.previous;
    }
    show(&sample, lesson, "samples.png")?;

    // 7. The same as a pipeline: the same seed gives the same pictures.
    let pipeline = Pipeline::new(model, scheduler.into(), None)?;
    let options = SampleOptions {
        batch_size: lesson.count,
        num_inference_steps: Some(lesson.timesteps),
        ..SampleOptions::default()
    };
    let drawn = pipeline.sample(&options, &mut Generator::new(7))?.finish()?;

    // 8. Saved as diffusers saves it, and loaded again.
    let saved = lesson.folder.join("my_pipeline");
    pipeline.save(&saved)?;
    let loaded = Pipeline::load(&saved, &device)?;
    let drawn_again = loaded.sample(&options, &mut Generator::new(7))?.finish()?;
    let differences = [drawn, drawn_again].map(|drawn| difference(&drawn, &sample));
    println!(
        "the pipeline's samples differ from those by hand by {}, the loaded pipeline's by {}",
        differences[0], differences[1]
    );
    Ok(Outcome { losses, differences })
}

/// The first batch, in the data set's first order.
fn first(loader: &Loader) -> Result<data::Batch> {
    let nothing = || langevin::Error::Config("the data set has no picture that can be read".into());
    loader.epoch(0).next().ok_or_else(nothing)?
}

/// A batch as a tensor, `[pictures, channels, height, width]`.
fn tensor(batch: &data::Batch, device: &Device) -> Tensor<4> {
    Tensor::from_data(TensorData::new(batch.pixels.clone(), batch.shape), device)
}

fn floats(timesteps: &[usize], device: &Device) -> Tensor<1> {
    let values: Vec<f32> = timesteps.iter().map(|&t| t as f32).collect();
    Tensor::from_floats(values.as_slice(), device)
}

/// An unconditional model is told nothing but the timestep.
fn nothing() -> Conditioning {
    Conditioning::default()
}

/// Writes pictures side by side.
fn show(pictures: &Tensor<4>, lesson: &Lesson, name: &str) -> Result<()> {
    let pictures = to_pictures(pictures)?;
    let scale = grid::visible_scale(&pictures[0]);
    let row = grid::grid(&pictures, pictures.len(), 2, scale)?;
    grid::write_png(lesson.folder.join(name), &row, &[])
}

/// The largest difference between two tensors' numbers.
fn difference(a: &Tensor<4>, b: &Tensor<4>) -> f32 {
    (a.clone() - b.clone()).abs().max().into_scalar::<f32>()
}
