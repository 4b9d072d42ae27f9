//! The course's second notebook: the smallest thing that still is a diffusion model, and what the real one adds.
//!
//! ```sh
//! cargo run --release --example from_scratch -- [DATA] [EPOCHS] [FOLDER]
//! ```
//!
//! DATA is `digits`, or a folder with MNIST's files; FOLDER is where the pictures of the lesson go.
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
    data::{self, Channels, Loader, LoaderConfig, Transform},
    device::default_device,
    grid,
    models::{AnyModel, Conditioning, Denoiser, ModelPreset},
    pipelines::{Pipeline, SampleOptions, to_pictures},
    random::Generator,
    schedulers::{DDPMConfig, DDPMScheduler, Scheduler},
    training::{
        gradients::Gradients,
        optimizer::{AdamWConfig, AdamWOptimizer},
    },
};

/// What may be chosen.
pub struct Lesson {
    /// `digits`, or a folder with MNIST's files.
    pub data: String,
    /// Height and width to train at.
    pub resolution: usize,
    /// Pictures in a batch.
    pub batch_size: usize,
    /// Passes over the data.
    pub epochs: u64,
    /// Pictures to draw.
    pub count: usize,
    /// Timesteps of DDPM's noise schedule.
    pub timesteps: usize,
    /// Where the pictures are written.
    pub folder: PathBuf,
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let data = args.next().unwrap_or_else(|| "digits".into());
    let digits = data == "digits";
    let epochs = args.next().and_then(|epochs| epochs.parse().ok());
    let lesson = Lesson {
        data,
        resolution: if digits { 8 } else { 28 },
        batch_size: 128,
        // The built-in digits are so few that a hundred passes are as many steps as MNIST's three.
        epochs: epochs.unwrap_or(if digits { 100 } else { 3 }),
        count: 64,
        timesteps: 1000,
        folder: args.next().unwrap_or_else(|| "from-scratch".into()).into(),
    };
    run(&lesson).map(|_| ())
}

/// The mean loss of each epoch, model by model.
pub struct Losses {
    /// Of the network from scratch.
    pub basic: Vec<f64>,
    /// Of the UNet that learns the same.
    pub unet: Vec<f64>,
    /// Of the UNet that learns what DDPM teaches.
    pub ddpm: Vec<f64>,
}

/// The lesson.
pub fn run(lesson: &Lesson) -> Result<Losses> {
    let device = default_device();
    let loader = Loader::new(
        Arc::from(data::open(&lesson.data)?),
        Transform {
            channels: Channels::Grey,
            ..Transform::new(lesson.resolution)
        },
        LoaderConfig {
            batch_size: lesson.batch_size,
            ..LoaderConfig::default()
        },
    )?;

    // 1. Corruption: the more, the less is left of the picture.
    let mut generator = Generator::new(0);
    let Some(batch) = loader.epoch(0).next() else {
        return Err(langevin::Error::Config("the data set is empty".into()));
    };
    let few = clean(&batch?, &device).narrow(0, 0, 8);
    let amounts: Vec<f32> = (0..8).map(|i| i as f32 / 7.0).collect();
    let noise = generator.rand_tensor(few.dims(), &device);
    let corrupted = corrupt(
        few.clone(),
        noise,
        Tensor::from_floats(amounts.as_slice(), &device),
    );
    show(&few, 8, lesson, "clean.png")?;
    show(&corrupted, 8, lesson, "corrupted.png")?;

    // 2. The network from scratch: it sees a corrupted picture, and says what the clean one was.
    let [basic, unet] = [ModelPreset::BasicUnet, ModelPreset::CourseMnist]
        .map(|preset| preset.config().made_for(lesson.resolution, 1, None));
    let mut basic = basic?.build(&device, &mut generator)?;
    println!("BasicUNet, {} parameters", basic.num_parameters());
    let basic_losses = train(&mut basic, &loader, lesson, &mut generator, &restoration)?;
    show(&predict(&basic, corrupted)?, 8, lesson, "predicted.png")?;

    // 3. Drawing: from noise, a part of the way towards what the network says, again and again.
    for steps in [5, 40] {
        let drawn = draw(&basic, steps, lesson, &mut generator)?;
        show(&drawn, 8, lesson, &format!("basic-{steps}-steps.png"))?;
    }

    // 4. The same with the course's UNet, which has normalisation, attention and more layers.
    let unet = unet?;
    let mut model = unet.build(&device, &mut generator)?;
    println!("UNet2DModel, {} parameters", model.num_parameters());
    let unet_losses = train(&mut model, &loader, lesson, &mut generator, &restoration)?;
    show(
        &draw(&model, 40, lesson, &mut generator)?,
        8,
        lesson,
        "unet-40-steps.png",
    )?;

    // 5. And DDPM: Gaussian noise, a timestep for the model, the noise as its answer.
    let scheduler = DDPMScheduler::new(DDPMConfig {
        num_train_timesteps: lesson.timesteps,
        ..DDPMConfig::default()
    })?;
    let mut model = unet.build(&device, &mut generator)?;
    println!("UNet2DModel by DDPM");
    let ddpm_losses = train(
        &mut model,
        &loader,
        lesson,
        &mut generator,
        &|model, clean, generator| {
            let clean = clean * 2.0 - 1.0;
            let [pictures, ..] = clean.dims();
            let noise = generator.randn_tensor(clean.dims(), &clean.device());
            let timesteps = generator.randint(0, lesson.timesteps as i64, pictures);
            let told: Vec<f32> = timesteps.iter().map(|&t| t as f32).collect();
            let timesteps: Vec<usize> = timesteps.into_iter().map(|t| t as usize).collect();
            let noisy = scheduler.add_noise(clean, noise.clone(), &timesteps)?;
            let told = Tensor::from_floats(told.as_slice(), &noise.device());
            let prediction = model.denoise(noisy, told, &Conditioning::default())?;
            Ok((prediction - noise).square().mean())
        },
    )?;
    let pipeline = Pipeline::new(model, scheduler.into(), None)?;
    let options = SampleOptions {
        batch_size: lesson.count,
        num_inference_steps: Some(lesson.timesteps),
        ..SampleOptions::default()
    };
    let drawn = pipeline.sample(&options, &mut generator)?.finish()?;
    show(&(drawn / 2.0 + 0.5), 8, lesson, "ddpm.png")?;
    Ok(Losses {
        basic: basic_losses,
        unet: unet_losses,
        ddpm: ddpm_losses,
    })
}

/// Mixes pictures with noise: `amount` 0 is the picture, 1 is the noise. One amount a picture, all values 0 to 1.
fn corrupt(x: Tensor<4>, noise: Tensor<4>, amount: Tensor<1>) -> Tensor<4> {
    let amount = amount.reshape([-1, 1, 1, 1]);
    x * (amount.clone() * -1.0 + 1.0) + noise * amount
}

/// What the model makes of corrupted pictures. It is not told how corrupted they are: the timestep is always 0.
fn predict(model: &AnyModel, corrupted: Tensor<4>) -> Result<Tensor<4>> {
    let [pictures, ..] = corrupted.dims();
    let timesteps = Tensor::zeros([pictures], &corrupted.device());
    model.denoise(corrupted, timesteps, &Conditioning::default())
}

/// The loss of one batch of clean pictures, 0 to 1.
type Lossy<'a> = &'a dyn Fn(&AnyModel, Tensor<4>, &mut Generator) -> Result<Tensor<1>>;

/// How far the model is from restoring pictures that are corrupted by any amount.
fn restoration(model: &AnyModel, clean: Tensor<4>, generator: &mut Generator) -> Result<Tensor<1>> {
    let [pictures, ..] = clean.dims();
    let noise = generator.rand_tensor(clean.dims(), &clean.device());
    let amount = generator.rand_tensor([pictures], &clean.device());
    let prediction = predict(model, corrupt(clean.clone(), noise, amount))?;
    Ok((prediction - clean).square().mean())
}

/// Trains the model with Adam, and says how it goes.
fn train(
    model: &mut AnyModel,
    loader: &Loader,
    lesson: &Lesson,
    generator: &mut Generator,
    loss_of: Lossy<'_>,
) -> Result<Vec<f64>> {
    let device = model.device().autodiff();
    let mut learning = model.clone().train();
    let mut optimizer = AdamWOptimizer::new(AdamWConfig {
        beta1: 0.9,
        weight_decay: 0.0,
        ..AdamWConfig::default()
    });
    let mut losses = Vec::new();
    for epoch in 0..lesson.epochs {
        let (mut sum, mut batches) = (0.0, 0);
        for batch in loader.epoch(epoch) {
            let loss = loss_of(&learning, clean(&batch?, &device), generator)?;
            let gradients = Gradients::gather(&learning, &mut loss.backward());
            learning = optimizer.step(learning, gradients, 1.0, 1e-3);
            sum += f64::from(loss.into_scalar::<f32>());
            batches += 1;
        }
        losses.push(sum / f64::from(batches));
        // Three lines, as the notebook prints for its three epochs.
        if (epoch + 1) * 3 % lesson.epochs < 3 {
            println!(
                "  after epoch {}: loss {:.6}",
                epoch + 1,
                sum / f64::from(batches)
            );
        }
    }
    *model = learning.valid();
    Ok(losses)
}

/// Draws pictures in a few steps: each goes the part of the way that makes all of them equally long.
fn draw(model: &AnyModel, steps: usize, lesson: &Lesson, generator: &mut Generator) -> Result<Tensor<4>> {
    let shape = [lesson.count, 1, lesson.resolution, lesson.resolution];
    let mut x = generator.rand_tensor(shape, &model.device());
    for step in 0..steps {
        let part = 1.0 / (steps - step) as f32;
        x = x.clone() * (1.0 - part) + predict(model, x)? * part;
    }
    Ok(x)
}

/// The pictures of a batch with values 0 to 1, as the notebook has them.
fn clean(batch: &data::Batch, device: &Device) -> Tensor<4> {
    let pixels = TensorData::new(batch.pixels.clone(), batch.shape);
    Tensor::from_data(pixels, device) / 2.0 + 0.5
}

/// Writes pictures with values 0 to 1, so many in a row, dark on white as the notebook shows them.
fn show(pictures: &Tensor<4>, columns: usize, lesson: &Lesson, name: &str) -> Result<()> {
    let pictures = to_pictures(&(pictures.clone() * -2.0 + 1.0))?;
    let scale = grid::visible_scale(&pictures[0]).min(4);
    let path = lesson.folder.join(name);
    grid::write_png(path, &grid::grid(&pictures, columns, 2, scale)?, &[])
}
