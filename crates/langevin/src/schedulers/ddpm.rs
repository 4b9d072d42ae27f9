//! DDPM: ancestral sampling (Ho et al. 2020). Mirrors `diffusers.DDPMScheduler`.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    LoopOptions, NoiseSchedule, PredictionType, Scheduler, SchedulerConfig, StepOptions, StepOutput,
    class::scheduler_class,
    noise_schedule::table_methods,
    prediction::{Bounds, ratio},
    same_shape,
};
use crate::{Error, Result};

/// The least variance whose logarithm is taken, as in diffusers.
const LEAST_VARIANCE: f32 = 1e-20;

/// The variance of the noise that a step of DDPM adds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VarianceType {
    /// β̃_t, the posterior's variance for a single clean picture (Ho et al. 2020, eq. 7).
    #[default]
    FixedSmall,
    /// The same, by way of its logarithm.
    FixedSmallLog,
    /// β_t.
    FixedLarge,
    /// The same, by way of its logarithm.
    FixedLargeLog,
    /// Predicted by the model, in a second half of its channels.
    Learned,
    /// Between β̃_t and β_t on a logarithmic scale, at a place in [-1, 1] that the model predicts in a second half of its
    /// channels (Nichol and Dhariwal 2021, eq. 15).
    LearnedRange,
}

impl VarianceType {
    pub(super) fn is_learned(self) -> bool {
        matches!(self, Self::Learned | Self::LearnedRange)
    }
}

scheduler_class! {
    /// The configuration of a [`DDPMScheduler`], with diffusers' names and defaults.
    pub struct DDPMConfig for DDPMScheduler {
        ..noise(0.0001, 0.02, Linear),
        /// The variance of the noise added.
        variance_type: VarianceType = VarianceType::default(),
        /// Whether to clip the predicted clean sample.
        clip_sample: bool = true,
        /// What the model predicts.
        prediction_type: PredictionType = PredictionType::default(),
        /// Whether to threshold the predicted clean sample dynamically, in place of clipping it.
        thresholding: bool = false,
        /// The quantile that dynamic thresholding looks at.
        dynamic_thresholding_ratio: f64 = 0.995,
        /// The largest absolute value that clipping leaves.
        clip_sample_range: f64 = 1.0,
        /// The largest threshold of dynamic thresholding.
        sample_max_value: f64 = 1.0,
        ..steps(Leading),
        /// Whether the schedule is moved to end without any signal.
        rescale_betas_zero_snr: bool = false,
    }

    facts {
        usual_steps: 1000,
    }

    samplers {
        "ddpm", "noise", true, "ancestral sampling; with hundreds of steps the surest";
    }
}

/// Ancestral sampling of a denoising diffusion model: each step draws from the posterior q(x_{t-1} | x_t, x̂_0).
#[derive(Clone, Debug)]
pub struct DDPMScheduler {
    config: DDPMConfig,
    noise: NoiseSchedule,
    bounds: Bounds,
    timesteps: Vec<f64>,
}

impl DDPMScheduler {
    /// A scheduler whose loop visits every training timestep, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense; the error names it.
    pub fn new(config: DDPMConfig) -> Result<Self> {
        let bounds = Bounds {
            clip_sample: config.clip_sample,
            clip_sample_range: config.clip_sample_range,
            thresholding: config.thresholding,
            dynamic_thresholding_ratio: config.dynamic_thresholding_ratio,
            sample_max_value: config.sample_max_value,
        };
        bounds.check()?;
        let noise = NoiseSchedule::new(config.noise_options().rescaled(config.rescale_betas_zero_snr))?;
        let timesteps = (0..config.num_train_timesteps).rev().map(|t| t as f64).collect();
        Ok(Self {
            config,
            noise,
            bounds,
            timesteps,
        })
    }

    /// Makes the loop visit these timesteps, in place of evenly spread ones.
    ///
    /// # Errors
    /// If there are none, they do not fall, or one is beyond the schedule.
    pub fn set_custom_timesteps(&mut self, timesteps: &[usize]) -> Result<()> {
        let last = self.num_train_timesteps() - 1;
        match timesteps {
            [] => return Err(Error::Config("a loop needs at least one timestep".to_owned())),
            [first, ..] if *first > last => {
                return Err(Error::Config(format!(
                    "timestep {first} is beyond the schedule's last, {last}"
                )));
            }
            _ => {}
        }
        if let Some(pair) = timesteps.windows(2).find(|pair| pair[1] >= pair[0]) {
            return Err(Error::Config(format!(
                "custom timesteps must fall from one to the next, but {} comes after {}",
                pair[1], pair[0]
            )));
        }
        self.timesteps = timesteps.iter().map(|&t| t as f64).collect();
        Ok(())
    }

    /// ᾱ at timestep `t` of the loop, ᾱ at the next one (1 after the last), and whether `t` is above 0.
    fn levels(&self, t: f64) -> Result<(f32, f32, bool)> {
        let alphas_cumprod = self.noise.alphas_cumprod();
        let index = self.noise.index(t)?;
        let place = self
            .timesteps
            .iter()
            .position(|&visited| visited == t)
            .ok_or_else(|| {
                Error::Config(format!(
                    "timestep {t} is not one of this loop's {} timesteps",
                    self.timesteps.len()
                ))
            })?;
        let previous = self
            .timesteps
            .get(place + 1)
            .map_or(1.0, |&next| alphas_cumprod[next as usize]);
        Ok((alphas_cumprod[index], previous, index > 0))
    }
}

/// What the model says of the sample, and what of the variance where it is learned.
pub(super) fn split_variance(
    variance_type: VarianceType,
    prediction: Tensor<4>,
    x: &Tensor<4>,
) -> Result<(Tensor<4>, Option<Tensor<4>>)> {
    let channels = x.dims()[1];
    if !variance_type.is_learned() {
        same_shape("the prediction", &prediction, "the sample", x)?;
        return Ok((prediction, None));
    }
    if prediction.dims()[1] != 2 * channels {
        return Err(Error::Shape(format!(
            "a learned variance needs a prediction of {} channels for a sample of {channels}, but it has {}",
            2 * channels,
            prediction.dims()[1]
        )));
    }
    let variance = prediction.clone().narrow(1, channels, channels);
    let prediction = prediction.narrow(1, 0, channels);
    same_shape("the prediction", &prediction, "the sample", x)?;
    Ok((prediction, Some(variance)))
}

/// The mean of q(x_{t-1} | x_t, x_0) is `clean · x_0 + sample · x_t`, its variance β̃_t = `variance`, and β_t = `beta`
/// (Ho et al. 2020, eq. 7), from ᾱ_t and ᾱ_{t-1}.
pub(super) struct Posterior {
    pub clean: f32,
    pub sample: f32,
    variance: f32,
    beta: f32,
}

impl Posterior {
    fn new(alpha_prod: f32, alpha_prod_prev: f32) -> Self {
        Self::with_beta(
            alpha_prod,
            alpha_prod_prev,
            1.0 - ratio(alpha_prod, alpha_prod_prev),
        )
    }

    /// The same where β_t is known from elsewhere.
    pub(super) fn with_beta(alpha_prod: f32, alpha_prod_prev: f32, beta: f32) -> Self {
        let (beta_prod, beta_prod_prev) = (1.0 - alpha_prod, 1.0 - alpha_prod_prev);
        let alpha = 1.0 - beta;
        if beta_prod == 0.0 {
            // No noise is left, so the sample is the clean one; the quotients below would not be numbers.
            return Self {
                clean: 1.0,
                sample: 0.0,
                variance: 0.0,
                beta: 0.0,
            };
        }
        Self {
            clean: alpha_prod_prev.sqrt() * beta / beta_prod,
            sample: alpha.sqrt() * beta_prod_prev / beta_prod,
            variance: beta_prod_prev / beta_prod * beta,
            beta,
        }
    }

    /// `noise` times the standard deviation that `variance_type` asks for.
    pub(super) fn scale_noise(
        &self,
        noise: Tensor<4>,
        variance_type: VarianceType,
        predicted_variance: Option<Tensor<4>>,
    ) -> Tensor<4> {
        let variance = self.variance.max(LEAST_VARIANCE);
        match (variance_type, predicted_variance) {
            // A model's variance below zero has no root; it is taken for none.
            (VarianceType::Learned, Some(predicted)) => noise * predicted.clamp_min(LEAST_VARIANCE).sqrt(),
            (VarianceType::LearnedRange, Some(predicted)) => {
                let (least, most) = (variance.ln(), self.beta.max(LEAST_VARIANCE).ln());
                let share = (predicted + 1.0) / 2.0;
                let log_variance = share.clone() * most + (-share + 1.0) * least;
                noise * (log_variance * 0.5).exp()
            }
            (VarianceType::FixedSmallLog, _) => noise * (0.5 * variance.ln()).exp(),
            // For `fixed_large_log` diffusers takes the root of a negative logarithm, which is not a number; what the
            // logarithm stands for has one.
            (VarianceType::FixedLarge | VarianceType::FixedLargeLog, _) => noise * self.beta.max(0.0).sqrt(),
            _ => noise * variance.sqrt(),
        }
    }
}

/// A timestep of the schedule.
fn whole(t: f64) -> Result<usize> {
    if t >= 0.0 && t.fract() == 0.0 {
        Ok(t as usize)
    } else {
        Err(Error::Config(format!(
            "timestep {t} is not one of the schedule's"
        )))
    }
}

impl Scheduler for DDPMScheduler {
    fn set_timesteps(&mut self, num_inference_steps: usize) -> Result<()> {
        let config = &self.config;
        let timesteps = config.timestep_spacing.timesteps(
            config.num_train_timesteps,
            num_inference_steps,
            config.steps_offset,
        )?;
        self.timesteps = timesteps.into_iter().map(|t| t as f64).collect();
        Ok(())
    }

    fn takes_variance(&self) -> bool {
        self.config.variance_type.is_learned()
    }

    fn set_loop(&mut self, options: &LoopOptions) -> Result<()> {
        options.only(DDPMConfig::CLASS_NAME, &["timesteps"])?;
        match &options.timesteps {
            Some(timesteps) => {
                let whole = timesteps.iter().map(|&t| whole(t)).collect::<Result<Vec<_>>>()?;
                self.set_custom_timesteps(&whole)
            }
            None => self.set_timesteps(options.number(DDPMConfig::CLASS_NAME)?),
        }
    }

    fn step(
        &mut self,
        prediction: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        let (alpha_prod, alpha_prod_prev, adds_noise) = self.levels(t)?;
        let (prediction, predicted_variance) = split_variance(self.config.variance_type, prediction, &x)?;

        // x̂_0 (Ho et al. 2020, eq. 15)
        let kind = self.config.prediction_type;
        let clean = self.bounds.predicted_clean(kind, &prediction, &x, alpha_prod);

        // x_{t-1} ~ N(μ̃_t(x_t, x̂_0), σ_t² I) (eq. 7)
        let posterior = Posterior::new(alpha_prod, alpha_prod_prev);
        let mut previous = clean.clone() * posterior.clean + x * posterior.sample;
        if adds_noise {
            let noise = options.draw_noise(DDPMConfig::CLASS_NAME, &previous)?;
            previous = previous + posterior.scale_noise(noise, self.config.variance_type, predicted_variance);
        }
        Ok(StepOutput {
            previous,
            predicted_clean: clean,
        })
    }

    fn predicted_clean(&self, prediction: &Tensor<4>, t: f64, x: &Tensor<4>) -> Result<Tensor<4>> {
        let (prediction, _) = split_variance(self.config.variance_type, prediction.clone(), x)?;
        let alpha_prod = self.noise.alpha_cumprod(t)?;
        Ok(self
            .bounds
            .predicted_clean(self.config.prediction_type, &prediction, x, alpha_prod))
    }

    table_methods!();
}
