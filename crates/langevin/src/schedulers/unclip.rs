//! The sampler of unCLIP's priors and decoders: DDPM on the cosine schedule (Ramesh et al. 2022). Mirrors
//! `diffusers.UnCLIPScheduler`.

use burn::tensor::Tensor;

use super::{
    BetaSchedule, LoopOptions, NoiseSchedule, PredictionType, Scheduler, SchedulerConfig, StepOptions,
    StepOutput, TimestepSpacing, VarianceType,
    class::scheduler_class,
    ddpm::{Posterior, split_variance},
    noise_schedule::{NoiseOptions, table_methods},
    prediction::{Bounds, ratio},
};
use crate::{Error, Result};

scheduler_class! {
    /// The configuration of an [`UnCLIPScheduler`], with diffusers' names and defaults.
    pub struct UnCLIPConfig for UnCLIPScheduler {
        /// How many timesteps the model was trained with.
        num_train_timesteps: usize = 1000,
        /// The variance of the noise added: `fixed_small_log` or `learned_range`.
        variance_type: VarianceType = VarianceType::FixedSmallLog,
        /// Whether to clip the predicted clean sample.
        clip_sample: bool = true,
        /// The largest absolute value that clipping leaves.
        clip_sample_range: f64 = 1.0,
        /// What the model predicts: `epsilon` or `sample`.
        prediction_type: PredictionType = PredictionType::Epsilon,
        /// How β grows: `squaredcos_cap_v2`.
        beta_schedule: BetaSchedule = BetaSchedule::SquaredcosCapV2,
    }

    facts {
        no_sampler: Some("samples unCLIP's priors and decoders alone"),
    }

    samplers {
        "unclip", "noise", true, "for unCLIP's priors and decoders: ancestral sampling";
    }
}

/// Ancestral sampling on the cosine schedule, whose steps may lead to any timestep below.
#[derive(Clone, Debug)]
pub struct UnCLIPScheduler {
    config: UnCLIPConfig,
    noise: NoiseSchedule,
    bounds: Bounds,
    timesteps: Vec<f64>,
}

impl UnCLIPScheduler {
    /// A scheduler whose loop visits every training timestep, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense; the error names it.
    pub fn new(config: UnCLIPConfig) -> Result<Self> {
        let bounds = Bounds::clipping(config.clip_sample, config.clip_sample_range);
        bounds.check()?;
        let refuse = |name: &str, known: &str| {
            Err(Error::Config(format!(
                "{name} is one that UnCLIPScheduler does not have; it has {known}"
            )))
        };
        if config.beta_schedule != BetaSchedule::SquaredcosCapV2 {
            return refuse("beta_schedule", "squaredcos_cap_v2");
        }
        if !matches!(
            config.variance_type,
            VarianceType::FixedSmallLog | VarianceType::LearnedRange
        ) {
            return refuse("variance_type", "fixed_small_log and learned_range");
        }
        if !matches!(
            config.prediction_type,
            PredictionType::Epsilon | PredictionType::Sample
        ) {
            return refuse("prediction_type", "epsilon and sample");
        }
        let noise = NoiseSchedule::new(NoiseOptions {
            num_train_timesteps: config.num_train_timesteps,
            // The cosine schedule is not given by its ends.
            beta_start: 0.0,
            beta_end: 0.0,
            beta_schedule: config.beta_schedule,
            trained_betas: None,
            rescale_betas_zero_snr: false,
        })?;
        let timesteps = (0..config.num_train_timesteps).rev().map(|t| t as f64).collect();
        Ok(Self {
            config,
            noise,
            bounds,
            timesteps,
        })
    }

    /// The timestep that the step at `t` leads to: the one asked for, or else the loop's next; `None` where it leads to a
    /// clean sample.
    fn previous(&self, t: usize, asked: Option<usize>) -> Result<Option<usize>> {
        match asked {
            Some(previous) if previous >= t => Err(Error::Config(format!(
                "prev_timestep is {previous}, but a step from timestep {t} leads to one below"
            ))),
            Some(previous) => Ok(Some(previous)),
            None => match self.timesteps.iter().position(|&visited| visited == t as f64) {
                Some(place) => Ok(self.timesteps.get(place + 1).map(|&next| next as usize)),
                // Outside the loop a step goes down by one, as diffusers' do.
                None => Ok(t.checked_sub(1)),
            },
        }
    }
}

impl Scheduler for UnCLIPScheduler {
    fn set_timesteps(&mut self, num_inference_steps: usize) -> Result<()> {
        self.set_loop(&LoopOptions::steps(num_inference_steps))
    }

    fn takes_variance(&self) -> bool {
        self.config.variance_type == VarianceType::LearnedRange
    }

    fn set_loop(&mut self, options: &LoopOptions) -> Result<()> {
        options.only(UnCLIPConfig::CLASS_NAME, &[])?;
        let steps = options.number(UnCLIPConfig::CLASS_NAME)?;
        let train = self.num_train_timesteps();
        let mut timesteps = TimestepSpacing::Linspace.timesteps(train, steps, 0)?;
        if steps == 1 {
            // A single step begins with noise; diffusers divides by zero here.
            timesteps = vec![train - 1];
        }
        self.timesteps = timesteps.into_iter().map(|t| t as f64).collect();
        Ok(())
    }

    fn step(
        &mut self,
        prediction: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        let (prediction, predicted_variance) = split_variance(self.config.variance_type, prediction, &x)?;
        let index = self.noise.index(t)?;
        let previous = self.previous(index, options.prev_timestep)?;
        let (alphas_cumprod, betas) = (self.noise.alphas_cumprod(), self.noise.betas());
        let alpha_prod = alphas_cumprod[index];
        let alpha_prod_prev = previous.map_or(1.0, |i| alphas_cumprod[i]);
        // A step by one has its β in the table, with more digits than the quotient of two products.
        let beta = if previous.map_or(0, |i| i + 1) == index {
            betas[index]
        } else {
            1.0 - ratio(alpha_prod, alpha_prod_prev)
        };

        // x̂_0 (Ho et al. 2020, eq. 15)
        let kind = self.config.prediction_type;
        let clean = self.bounds.predicted_clean(kind, &prediction, &x, alpha_prod);

        // x_{t-1} ~ N(μ̃_t(x_t, x̂_0), σ_t² I) (eq. 7)
        let posterior = Posterior::with_beta(alpha_prod, alpha_prod_prev, beta);
        let mut previous = clean.clone() * posterior.clean + x * posterior.sample;
        if index > 0 {
            let noise = options.draw_noise(UnCLIPConfig::CLASS_NAME, &previous)?;
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
