//! The course's fourth notebook: a model that is told which digit to draw, by channels beside the picture's.
//!
//! ```sh
//! cargo run --release -p langevin --example class_conditioned -- [DATA] [EPOCHS] [FOLDER]
//! ```
//!
//! DATA is a folder with MNIST's files, or any data set with classes; without one it is the built-in digits. `docs/course.md`
//! walks through it.

// Tests call it as a module.
#![allow(unreachable_pub)]

use std::{path::PathBuf, sync::Arc};

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData},
};
use langevin::{
    Result,
    data::{self, Channels, Loader, LoaderConfig, Transform},
    device::default_device,
    grid,
    models::{
        Conditioning, Denoiser, Model, UNet2DConfig, UNet2DModel,
        unet2d::{
            DownBlockType::{AttnDownBlock2D, DownBlock2D},
            SampleSize,
            UpBlockType::{AttnUpBlock2D, UpBlock2D},
        },
    },
    nn::{Embedding, Init},
    pipelines::{Sampling, to_pictures},
    random::Generator,
    schedulers::{BetaSchedule, DDPMConfig, DDPMScheduler, Scheduler},
    training::{
        gradients::Gradients,
        optimizer::{AdamWConfig, AdamWOptimizer},
    },
};

/// What may be chosen.
pub struct Lesson {
    /// A data set with classes.
    pub data: String,
    /// Height and width to train at.
    pub resolution: usize,
    /// Pictures in a batch.
    pub batch_size: usize,
    /// Passes over the data.
    pub epochs: u64,
    /// Timesteps of the noise schedule.
    pub timesteps: usize,
    /// Pictures to draw of each class.
    pub of_each: usize,
    /// Where the pictures of the lesson go.
    pub folder: PathBuf,
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let data = args.next().unwrap_or_else(|| "digits".into());
    let lesson = Lesson {
        resolution: if data == "digits" { 8 } else { 28 },
        data,
        batch_size: 128,
        epochs: args.next().and_then(|epochs| epochs.parse().ok()).unwrap_or(40),
        timesteps: 1000,
        of_each: 8,
        folder: args.next().unwrap_or_else(|| "class_conditioned".into()).into(),
    };
    run(&lesson).map(|_| ())
}

/// A UNet that sees, beside the picture, a few channels of one value each: what its class is embedded as.
#[derive(Module, Debug)]
pub struct ClassConditionedUnet {
    class_emb: Embedding,
    model: UNet2DModel,
}

impl ClassConditionedUnet {
    fn new(classes: usize, lesson: &Lesson, device: &Device, generator: &mut Generator) -> Result<Self> {
        let class_emb_size = 4;
        let config = UNet2DConfig {
            sample_size: Some(SampleSize::Square(lesson.resolution)),
            in_channels: 1 + class_emb_size,
            out_channels: 1,
            layers_per_block: 2,
            block_out_channels: vec![32, 64, 64],
            down_block_types: vec![DownBlock2D, AttnDownBlock2D, AttnDownBlock2D],
            up_block_types: vec![AttnUpBlock2D, AttnUpBlock2D, UpBlock2D],
            ..UNet2DConfig::default()
        };
        Ok(Self {
            class_emb: Embedding::new(classes, class_emb_size, &mut Init::new(generator, device)),
            model: UNet2DModel::new(&config, device, generator)?,
        })
    }
}

impl Denoiser for ClassConditionedUnet {
    fn denoise(&self, x: Tensor<4>, timesteps: Tensor<1>, told: &Conditioning) -> Result<Tensor<4>> {
        let [batch, _, height, width] = x.dims();
        let classes = told
            .classes
            .clone()
            .ok_or_else(|| langevin::Error::Config("which class?".into()))?;
        let embedded = self.class_emb.forward(classes).reshape([batch as i32, -1, 1, 1]);
        let [_, channels, ..] = embedded.dims();
        let beside = embedded.expand([batch, channels, height, width]);
        let input = Tensor::cat(vec![x, beside], 1);
        self.model.denoise(input, timesteps, &Conditioning::default())
    }
}

/// The lesson. Returns the mean loss of every epoch.
pub fn run(lesson: &Lesson) -> Result<Vec<f64>> {
    let device = default_device();
    let mut generator = Generator::new(0);

    // 1. The data: grey pictures with the number of their class.
    let dataset: Arc<dyn data::Dataset> = Arc::from(data::open(&lesson.data)?);
    let classes = dataset.class_names().map_or(0, <[String]>::len);
    let transform = Transform {
        channels: Channels::Grey,
        ..Transform::new(lesson.resolution)
    };
    let config = LoaderConfig {
        batch_size: lesson.batch_size,
        ..LoaderConfig::default()
    };
    let loader = Loader::new(dataset, transform, config)?;

    // 2. The model, and the noise schedule.
    let model = ClassConditionedUnet::new(classes, lesson, &device, &mut generator)?;
    let mut scheduler = DDPMScheduler::new(DDPMConfig {
        num_train_timesteps: lesson.timesteps,
        beta_schedule: BetaSchedule::SquaredcosCapV2,
        ..DDPMConfig::default()
    })?;

    // 3. Training: as ever, but that the model is told the class as well.
    let mut model = model.train();
    let mut optimizer = AdamWOptimizer::new(AdamWConfig {
        beta1: 0.9,
        weight_decay: 0.0,
        ..AdamWConfig::default()
    });
    let mut losses = Vec::new();
    for epoch in 0..lesson.epochs {
        let (mut sum, mut batches) = (0.0, 0.0);
        for batch in loader.epoch(epoch) {
            let batch = batch?;
            let device = device.clone().autodiff();
            let told = class(batch.classes.unwrap_or_default(), &device);
            let clean: Tensor<4> = Tensor::from_data(TensorData::new(batch.pixels, batch.shape), &device);
            let noise = generator.randn_tensor(clean.dims(), &device);
            let timesteps = generator.randint(0, lesson.timesteps as i64 - 1, batch.shape[0]);
            let asked: Vec<f32> = timesteps.iter().map(|&t| t as f32).collect();
            let timesteps: Vec<usize> = timesteps.into_iter().map(|t| t as usize).collect();

            let noisy = scheduler.add_noise(clean, noise.clone(), &timesteps)?;
            let prediction = model.denoise(noisy, Tensor::from_floats(asked.as_slice(), &device), &told)?;
            let loss = (prediction - noise).square().mean();

            let gradients = Gradients::gather(&model, &mut loss.backward());
            model = optimizer.step(model, gradients, 1.0, 1e-3);
            sum += f64::from(loss.into_scalar::<f32>());
            batches += 1.0;
        }
        losses.push(sum / batches);
        println!("epoch {}: loss {:.6}", epoch + 1, sum / batches);
    }

    // 4. Drawing: a row of every class, from noise and what is asked for.
    let model = model.valid();
    scheduler.set_timesteps(lesson.timesteps)?;
    let asked: Vec<i64> = (0..classes as i64)
        .flat_map(|class| vec![class; lesson.of_each])
        .collect();
    let noise = generator.randn_tensor([asked.len(), 1, lesson.resolution, lesson.resolution], &device);
    let sampling = Sampling::new(&model, Box::new(scheduler), noise, &mut generator);
    let drawn = sampling.with_conditioning(class(asked, &device)).finish()?;
    show(&drawn, lesson, "samples.png")?;
    Ok(losses)
}

/// What the model is told: each picture's class.
fn class(numbers: Vec<i64>, device: &Device) -> Conditioning {
    let shape = [numbers.len()];
    Conditioning {
        classes: Some(Tensor::<1, Int>::from_data(
            TensorData::new(numbers, shape),
            device,
        )),
        ..Conditioning::default()
    }
}

/// Writes the pictures, a class a row.
fn show(pictures: &Tensor<4>, lesson: &Lesson, name: &str) -> Result<()> {
    let pictures = to_pictures(pictures)?;
    let scale = grid::visible_scale(&pictures[0]).min(4);
    let rows = grid::grid(&pictures, lesson.of_each, 2, scale)?;
    grid::write_png(lesson.folder.join(name), &rows, &[])
}
