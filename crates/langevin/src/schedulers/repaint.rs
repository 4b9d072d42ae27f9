//! RePaint: painting the unknown part of a picture (Lugmayr et al. 2022). Mirrors `diffusers.RePaintScheduler`.

use burn::tensor::Tensor;

use super::{
    LoopOptions, NoiseSchedule, PredictionType, Scheduler, SchedulerConfig, StepOptions, StepOutput,
    class::scheduler_class,
    noise_schedule::table_methods,
    prediction::{Bounds, ratio},
    same_shape,
};
use crate::{Error, Result};

/// How many steps a jump back takes, and how many times each stretch is walked, as in diffusers.
const DEFAULT_JUMP: usize = 10;

scheduler_class! {
    /// The configuration of a [`RePaintScheduler`], with diffusers' names and defaults. The model predicts noise.
    pub struct RePaintConfig for RePaintScheduler {
        ..betas(0.0001, 0.02, Linear),
        /// How much noise a step adds to the unknown part: 0 as DDIM, 1 as DDPM.
        eta: f64 = 0.0,
        ..trained_betas,
        /// Whether to clip the predicted clean sample to -1 to 1.
        clip_sample: bool = true,
    }

    facts {
        no_sampler: Some("paints the unknown part of a picture, and needs that picture with its mask"),
    }

    samplers {
        "repaint", "noise", true, "paints the unknown part of a picture (inpainting)";
    }
}

/// Inpainting with an unconditional model: in each step the known part of the picture is noised to the level of the next
/// timestep, and only the unknown part is denoised. So that the two come to fit each other, the loop jumps back towards the
/// noise again and again: where its timesteps rise, [`RePaintScheduler::undo_step`] takes the place of a step.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use langevin::{
///     random::Generator,
///     schedulers::{LoopOptions, RePaintConfig, RePaintScheduler, Scheduler, StepOptions},
/// };
///
/// let mut scheduler = RePaintScheduler::new(RePaintConfig::default())?;
/// scheduler.set_loop(&LoopOptions { jump_length: Some(2), jump_n_sample: Some(2), ..LoopOptions::steps(5) })?;
///
/// let picture = Tensor::<4>::ones([1, 1, 4, 4], &Device::default());
/// let mask = Tensor::<4>::ones([1, 1, 4, 4], &Device::default()).slice_fill([0..1, 0..1, 0..4, 0..2], 0.0);
/// let mut generator = Generator::new(0);
/// let mut x = generator.randn_tensor([1, 1, 4, 4], &Device::default());
/// let mut last = f64::INFINITY;
/// for t in scheduler.timesteps().to_vec() {
///     if t < last {
///         let prediction = x.clone() * 0.5; // a model's guess of the noise in it
///         let mut options = StepOptions {
///             generator: Some(&mut generator),
///             original_image: Some(picture.clone()),
///             mask: Some(mask.clone()),
///             ..StepOptions::default()
///         };
///         x = scheduler.step(prediction, t, x, &mut options)?.previous;
///     } else {
///         x = scheduler.undo_step(x, last, &mut generator)?;
///     }
///     last = t;
/// }
/// assert_eq!(x.narrow(3, 2, 2).mean().into_scalar::<f32>(), 1.0);
/// # Ok::<(), langevin::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RePaintScheduler {
    config: RePaintConfig,
    noise: NoiseSchedule,
    bounds: Bounds,
    /// How far a step goes.
    stride: usize,
    timesteps: Vec<f64>,
}

impl RePaintScheduler {
    /// A scheduler whose loop visits every training timestep once, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense; the error names it.
    pub fn new(config: RePaintConfig) -> Result<Self> {
        if !(config.eta >= 0.0 && config.eta.is_finite()) {
            return Err(Error::Config(format!(
                "eta is {}, but it must be 0 or more",
                config.eta
            )));
        }
        let bounds = Bounds::clipping(config.clip_sample, 1.0);
        let noise = NoiseSchedule::new(config.noise_options())?;
        let timesteps = (0..config.num_train_timesteps).rev().map(|t| t as f64).collect();
        Ok(Self {
            config,
            noise,
            bounds,
            stride: 1,
            timesteps,
        })
    }

    /// Takes back the step that led to `x` at timestep `t`: noises it to the level of the timestep above.
    ///
    /// # Errors
    /// If there is no timestep above `t` in the loop.
    pub fn undo_step(
        &self,
        x: Tensor<4>,
        t: f64,
        generator: &mut crate::random::Generator,
    ) -> Result<Tensor<4>> {
        let index = self.noise.index(t)?;
        let betas = self
            .noise
            .betas()
            .get(index..index + self.stride)
            .ok_or_else(|| {
                Error::Config(format!(
                    "timestep {t} is the loop's noisiest; no step led to it that could be undone"
                ))
            })?;
        // x_{t+1} ~ N(√(1 - β_t) x_t, β_t I) (Lugmayr et al. 2022, eq. 1)
        Ok(betas.iter().fold(x, |x, beta| {
            let noise = generator.randn_tensor(x.dims(), &x.device());
            x * (1.0 - beta).sqrt() + noise * beta.sqrt()
        }))
    }

    /// ᾱ at timestep `t` and at the one that a step from there leads to.
    fn levels(&self, t: f64) -> Result<(f32, f32)> {
        let alphas_cumprod = self.noise.alphas_cumprod();
        let index = self.noise.index(t)?;
        let previous = index.checked_sub(self.stride).map_or(1.0, |i| alphas_cumprod[i]);
        Ok((alphas_cumprod[index], previous))
    }
}

/// The numbers of the steps still to go, with jumps of `length` back up so that each stretch is walked `walks` times
/// (Lugmayr et al. 2022, appendix B).
fn jumping(steps: usize, length: usize, walks: usize) -> Vec<usize> {
    let mut jumps_left: Vec<usize> = (0..steps)
        .map(|t| {
            let jumps_here = t % length == 0 && t + length < steps;
            if jumps_here { walks - 1 } else { 0 }
        })
        .collect();
    let mut visited = Vec::new();
    let mut t = steps;
    while t > 0 {
        t -= 1;
        visited.push(t);
        if jumps_left[t] > 0 {
            jumps_left[t] -= 1;
            visited.extend(t + 1..=t + length);
            t += length;
        }
    }
    visited
}

impl Scheduler for RePaintScheduler {
    fn set_timesteps(&mut self, num_inference_steps: usize) -> Result<()> {
        self.set_loop(&LoopOptions::steps(num_inference_steps))
    }

    fn set_loop(&mut self, options: &LoopOptions) -> Result<()> {
        options.only(RePaintConfig::CLASS_NAME, &["jump_length", "jump_n_sample"])?;
        let train = self.num_train_timesteps();
        let steps = options.number(RePaintConfig::CLASS_NAME)?.min(train);
        let length = options.jump_length.unwrap_or(DEFAULT_JUMP);
        let walks = options.jump_n_sample.unwrap_or(DEFAULT_JUMP);
        for (name, value) in [
            ("num_inference_steps", steps),
            ("jump_length", length),
            ("jump_n_sample", walks),
        ] {
            if value == 0 {
                return Err(Error::Config(format!("{name} is 0, but it must be at least 1")));
            }
        }
        self.stride = train / steps;
        let visited = jumping(steps, length, walks);
        self.timesteps = visited.into_iter().map(|t| (t * self.stride) as f64).collect();
        Ok(())
    }

    fn step(
        &mut self,
        prediction: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        let clean = self.predicted_clean(&prediction, t, &x)?;
        let (Some(original), Some(mask)) = (options.original_image.clone(), options.mask.clone()) else {
            return Err(Error::Config(
                "RePaintScheduler needs the original image and the mask of what is known in each step"
                    .to_owned(),
            ));
        };
        let (alpha_prod, alpha_prod_prev) = self.levels(t)?;
        let noise = options.draw_noise(RePaintConfig::CLASS_NAME, &x)?;

        // The unknown part is a step of DDIM (Song et al. 2021, eq. 12 and 16) …
        let noise_left = ratio(1.0 - alpha_prod_prev, 1.0 - alpha_prod);
        let variance = (noise_left * (1.0 - ratio(alpha_prod, alpha_prod_prev))).max(0.0);
        let sigma = self.config.eta as f32 * variance.sqrt();
        let direction = (1.0 - alpha_prod_prev - sigma * sigma).max(0.0).sqrt();
        let mut unknown = clean.clone() * alpha_prod_prev.sqrt() + prediction * direction;
        if t > 0.0 && sigma > 0.0 {
            unknown = unknown + noise.clone() * sigma;
        }
        // … and the known part is the picture at the same noise level (Lugmayr et al. 2022, eq. 8).
        let known = original * alpha_prod_prev.sqrt() + noise * (1.0 - alpha_prod_prev).sqrt();
        let previous = mask.clone() * known + (-mask + 1.0) * unknown;
        Ok(StepOutput {
            previous,
            predicted_clean: clean,
        })
    }

    fn predicted_clean(&self, prediction: &Tensor<4>, t: f64, x: &Tensor<4>) -> Result<Tensor<4>> {
        same_shape("the prediction", prediction, "the sample", x)?;
        let alpha_prod = self.noise.alpha_cumprod(t)?;
        Ok(self
            .bounds
            .predicted_clean(PredictionType::Epsilon, prediction, x, alpha_prod))
    }

    table_methods!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_jumps_back_as_in_diffusers() {
        // RePaintScheduler.set_timesteps(6, jump_length=2, jump_n_sample=2) of diffusers, over its stride.
        assert_eq!(jumping(6, 2, 2), [5, 4, 3, 2, 3, 4, 3, 2, 1, 0, 1, 2, 1, 0]);
        assert_eq!(jumping(3, 10, 10), [2, 1, 0]);
    }
}
