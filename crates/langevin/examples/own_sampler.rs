//! A sampler of one's own, in a file of one's own: all that a loop needs is the [`Scheduler`] trait.
//!
//! This one takes DDIM's deterministic step (Song et al. 2021, eq. 12) with the noise predicted at this timestep and at the
//! one before, continued to the middle of the step (Adams and Bashforth's second rule), so that it is more exact than DDIM
//! and costs the same.
//!
//!     cargo run --release --example own_sampler

// Tests call it as a module.
#![allow(unreachable_pub)]

use burn::tensor::{Device, Tensor};
use langevin::{
    Result,
    models::{Conditioning, Denoiser},
    pipelines::Sampling,
    random::Generator,
    schedulers::{
        BetaSchedule, NoiseSchedule, Scheduler, StepOptions, StepOutput, TimestepSpacing,
        noise_schedule::{self, NoiseOptions},
    },
};

/// DDIM with a memory of one step.
#[derive(Clone)]
struct TwoStep {
    noise: NoiseSchedule,
    timesteps: Vec<f64>,
    before: Option<Tensor<4>>,
}

impl TwoStep {
    fn new(num_train_timesteps: usize) -> Result<Self> {
        let noise = NoiseSchedule::new(NoiseOptions {
            num_train_timesteps,
            beta_start: 0.0001,
            beta_end: 0.02,
            beta_schedule: BetaSchedule::Linear,
            trained_betas: None,
            rescale_betas_zero_snr: false,
        })?;
        Ok(Self {
            noise,
            timesteps: Vec::new(),
            before: None,
        })
    }
}

impl Scheduler for TwoStep {
    fn set_timesteps(&mut self, num_inference_steps: usize) -> Result<()> {
        let train = self.num_train_timesteps();
        let timesteps = TimestepSpacing::Trailing.timesteps(train, num_inference_steps, 0)?;
        self.timesteps = timesteps.into_iter().map(|t| t as f64).collect();
        self.before = None;
        Ok(())
    }

    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn step(
        &mut self,
        prediction: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        _options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        let here = self.noise.alphas_cumprod()[self.noise.index(t)?];
        let next = self.timesteps.iter().find(|&&later| later < t);
        let there = next.map_or(1.0, |&t| self.noise.alphas_cumprod()[t as usize]);

        let noise = match self.before.replace(prediction.clone()) {
            Some(before) => prediction * 1.5 - before * 0.5,
            None => prediction,
        };
        let clean = (x - noise.clone() * (1.0 - here).sqrt()) / here.sqrt();
        Ok(StepOutput {
            previous: clean.clone() * there.sqrt() + noise * (1.0 - there).sqrt(),
            predicted_clean: clean,
        })
    }

    fn add_noise(&self, x0: Tensor<4>, noise: Tensor<4>, timesteps: &[usize]) -> Result<Tensor<4>> {
        noise_schedule::add_noise(self.alphas_cumprod(), x0, noise, timesteps)
    }

    fn num_train_timesteps(&self) -> usize {
        self.noise.num_train_timesteps()
    }

    fn alphas_cumprod(&self) -> &[f32] {
        self.noise.alphas_cumprod()
    }
}

/// A model that knows its data to be a single grey: the noise is whatever else is in the sample.
struct Grey {
    noise: NoiseSchedule,
    grey: f32,
}

impl Denoiser for Grey {
    fn denoise(&self, x: Tensor<4>, timesteps: Tensor<1>, _: &Conditioning) -> Result<Tensor<4>> {
        let t = timesteps.into_scalar::<f32>();
        let alpha = self.noise.alphas_cumprod()[self.noise.index(t.into())?];
        Ok((x - self.grey * alpha.sqrt()) / (1.0 - alpha).sqrt())
    }
}

/// One picture of [`Grey`]'s, by 20 steps.
pub fn sample() -> Result<Tensor<4>> {
    let mut sampler = TwoStep::new(1000)?;
    let model = Grey {
        noise: sampler.noise.clone(),
        grey: 0.25,
    };
    sampler.set_timesteps(20)?;

    let mut generator = Generator::new(0);
    let noise = generator.randn_tensor([1, 3, 8, 8], &Device::default());
    Sampling::new(&model, Box::new(sampler), noise, &mut generator).finish()
}

/// Prints how grey the picture is.
pub fn main() -> Result<()> {
    let picture = sample()?;
    let (least, most) = (picture.clone().min(), picture.max());
    println!(
        "a grey of 0.25, sampled: {:.4} to {:.4}",
        least.into_scalar::<f32>(),
        most.into_scalar::<f32>()
    );
    Ok(())
}
