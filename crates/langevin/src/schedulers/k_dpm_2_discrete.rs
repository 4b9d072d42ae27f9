//! DPM-Solver-2 in σ: a second-order method by way of the midpoint, as k-diffusion's `sample_dpm_2` (Karras et al. 2022,
//! algorithm 3, and Lu et al. 2022). Mirrors `diffusers.KDPM2DiscreteScheduler`.

use burn::tensor::Tensor;

use super::{
    BetaSchedule, ConfigMap, GivenLoop, Scheduler, SchedulerConfig, StepOptions, StepOutput, TimestepSpacing,
    config::{self, scheduler_config},
    discrete::{Discrete, Spreading, discrete_methods},
    noise_schedule::noise_options_of,
    same_shape,
    sigma_loop::{SigmaLoop, clean_at, midpoint, scaled, twice},
    sigmas::SigmaSpacing,
};
use crate::{Result, objectives::PredictionType};

scheduler_config! {
    /// The configuration of a [`KDPM2DiscreteScheduler`], with diffusers' names and defaults.
    pub struct KDPM2DiscreteConfig: "KDPM2DiscreteScheduler" {
        /// How many timesteps the model was trained with.
        num_train_timesteps: usize = 1000,
        /// The first β.
        beta_start: f64 = 0.00085,
        /// The last β.
        beta_end: f64 = 0.012,
        /// How β goes from the first to the last.
        beta_schedule: BetaSchedule = BetaSchedule::default(),
        /// Every β, in place of the three above.
        trained_betas: Option<Vec<f64>> = None,
        /// Whether σ is spread as by Karras et al. (2022).
        use_karras_sigmas: bool = false,
        /// Whether σ is spread evenly in its logarithm.
        use_exponential_sigmas: bool = false,
        /// Whether σ is spread by the quantiles of a beta distribution.
        use_beta_sigmas: bool = false,
        /// What the model predicts. Diffusers' class does not know `sample`.
        prediction_type: PredictionType = PredictionType::default(),
        /// How the steps of a loop are spread.
        timestep_spacing: TimestepSpacing = TimestepSpacing::Linspace,
        /// What is added to the timesteps of the leading spacing.
        steps_offset: usize = 0,
    }
}

/// The midpoint method in σ: a trial step to the geometric mean of two noise levels, whose derivative is then followed all
/// the way. Each step but the last, which is Euler's, calls the model twice.
#[derive(Clone, Debug)]
pub struct KDPM2DiscreteScheduler {
    config: KDPM2DiscreteConfig,
    discrete: Discrete,
    /// σ between those of the steps, each at the place of the step's second half.
    midpoints: Vec<f32>,
    /// Where the step in progress began, after its first half.
    sample: Option<Tensor<4>>,
}

impl KDPM2DiscreteScheduler {
    /// A scheduler whose loop visits every training timestep, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense, or two do not go together; the error names it.
    pub fn new(config: KDPM2DiscreteConfig) -> Result<Self> {
        let class_name = KDPM2DiscreteConfig::CLASS_NAME;
        let discrete = Discrete::new(
            class_name,
            noise_options_of!(config, false),
            Spreading {
                timestep_spacing: config.timestep_spacing,
                steps_offset: config.steps_offset,
                sigma_spacing: SigmaSpacing::chosen(
                    class_name,
                    config.use_karras_sigmas,
                    config.use_exponential_sigmas,
                    config.use_beta_sigmas,
                )?,
                sigma_min: None,
                sigma_max: None,
            },
        )?;
        let (timesteps, sigmas) = discrete.every_timestep();
        let mut scheduler = Self {
            config,
            discrete,
            midpoints: Vec::new(),
            sample: None,
        };
        scheduler.begin(&timesteps, &sigmas);
        Ok(scheduler)
    }

    /// A scheduler that shares what it can with another class's config.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn from_config(other: &ConfigMap) -> Result<Self> {
        Self::new(config::convert(other)?)
    }

    /// The configuration that this was built from.
    pub fn config(&self) -> &KDPM2DiscreteConfig {
        &self.config
    }

    fn begin(&mut self, timesteps: &[f64], sigmas: &[f64]) {
        let levels: Vec<f32> = sigmas.iter().map(|&sigma| sigma as f32).collect();
        let between = levels.windows(2).map(|pair| midpoint(pair[1], pair[0]));
        // Half way to 0 is 0.
        let between: Vec<f32> = between.chain([0.0]).collect();

        let table = self.discrete.table();
        let mut visited = vec![timesteps[0]];
        for (&sigma, &t) in between.iter().zip(&timesteps[1..]) {
            visited.extend([f64::from(table.timestep_f32(sigma)), t]);
        }
        self.midpoints = between.iter().flat_map(|&sigma| [sigma; 2]).collect();
        // As in diffusers, with more zeros at the end than are used.
        let sigmas = twice(&levels).copied().chain([0.0; 3]).collect();
        self.discrete.steps = SigmaLoop::new(visited, sigmas);
        self.sample = None;
    }
}

impl Scheduler for KDPM2DiscreteScheduler {
    fn set_timesteps(&mut self, num_inference_steps: usize) -> Result<()> {
        let class_name = KDPM2DiscreteConfig::CLASS_NAME;
        let (mut timesteps, sigmas) = self
            .discrete
            .spread(class_name, GivenLoop::Steps(num_inference_steps))?;
        if self.config.use_karras_sigmas {
            timesteps.iter_mut().for_each(|t| *t = t.round_ties_even());
        }
        self.begin(&timesteps, &sigmas);
        Ok(())
    }

    fn scale_model_input(&mut self, sample: Tensor<4>, t: f64) -> Result<Tensor<4>> {
        if self.sample.is_none() {
            return self.discrete.steps.scale_model_input(sample, t);
        }
        let step = self.discrete.steps.step(t)?;
        Ok(scaled(sample, self.midpoints[step - 1]))
    }

    fn step(
        &mut self,
        prediction: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        _options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        same_shape("the prediction", &prediction, "the sample", &x)?;
        let (sigma, sigma_next) = self.discrete.steps.halves(t, self.sample.is_some())?;
        let step = self.discrete.steps.step(t)?;
        let sigma_mid = self.midpoints[if self.sample.is_some() { step - 1 } else { step }];
        let here = if self.sample.is_some() { sigma_mid } else { sigma };
        let clean = clean_at(self.config.prediction_type, &prediction, &x, here);
        let derivative = (x.clone() - clean.clone()) / here;

        let previous = match self.sample.take() {
            // To the midpoint ...
            None => {
                self.sample = Some(x.clone());
                x + derivative * (sigma_mid - sigma)
            }
            // ... and with the derivative there from the beginning to the end.
            Some(start) => start + derivative * (sigma_next - sigma),
        };
        self.discrete.steps.advance();
        Ok(StepOutput {
            previous,
            predicted_clean: clean,
        })
    }

    fn order(&self) -> usize {
        2
    }

    discrete_methods!();
}
