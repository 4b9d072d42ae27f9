//! Euler's method for flow-matching models (Esser et al. 2024: Stable Diffusion 3; Flux). Mirrors
//! `diffusers.FlowMatchEulerDiscreteScheduler`.

use burn::tensor::{Tensor, TensorData};

use super::{
    LoopOptions, ModelKind, Scheduler, SchedulerConfig, StepOptions, StepOutput,
    class::scheduler_class,
    flow::{self, flow_methods},
    options::check_steps,
    same_shape,
    sigma_loop::SigmaLoop,
    sigmas::{SigmaSpacing, check_sigmas, shifted},
};
use crate::{Error, Result, named::named_enum};

named_enum! {
    /// How dynamic shifting moves the noise levels by μ.
    #[derive(Default)]
    pub enum TimeShiftType: "a kind of time shift" {
        /// σ' = e^μ / (e^μ + 1/σ - 1).
        #[default]
        Exponential = "exponential",
        /// σ' = μ / (μ + 1/σ - 1).
        Linear = "linear",
    }
}

impl TimeShiftType {
    /// The level moved by `mu`.
    pub(crate) fn shift(self, mu: f64, sigma: f64) -> f64 {
        let factor = match self {
            Self::Exponential => mu.exp(),
            Self::Linear => mu,
        };
        factor / (factor + (1.0 / sigma - 1.0))
    }
}

scheduler_class! {
    /// The configuration of a [`FlowMatchEulerDiscreteScheduler`], with diffusers' names and defaults.
    pub struct FlowMatchEulerDiscreteConfig for FlowMatchEulerDiscreteScheduler {
        /// How many timesteps the model was trained with: T, where the timestep of level σ is T σ.
        num_train_timesteps: usize = 1000,
        /// How far the noise levels are moved towards the noise.
        shift: f64 = 1.0,
        /// Whether they are moved by [`LoopOptions::mu`] in place of `shift`.
        use_dynamic_shifting: bool = false,
        /// μ at the smallest picture; for whoever computes it from the picture's size.
        base_shift: f64 = 0.5,
        /// μ at the largest picture.
        max_shift: f64 = 1.15,
        /// The number of tokens of the smallest picture.
        base_image_seq_len: usize = 256,
        /// The number of tokens of the largest picture.
        max_image_seq_len: usize = 4096,
        /// Whether σ counts the signal and not the noise, and so rises to 1.
        invert_sigmas: bool = false,
        /// The last σ above 0, to which the others are stretched.
        shift_terminal: Option<f64> = None,
        ..sigma_spacing,
        /// How dynamic shifting moves the noise levels.
        time_shift_type: TimeShiftType = TimeShiftType::default(),
        /// Whether each step goes to the clean sample and adds new noise up to the next level.
        stochastic_sampling: bool = false,
    }

    facts {
        model: ModelKind::Flow,
    }

    samplers {
        "flow-euler", "1", false, "for flows: Euler's method";
    }
}

/// Euler's method along the straight paths of a flow.
#[derive(Clone, Debug)]
pub struct FlowMatchEulerDiscreteScheduler {
    config: FlowMatchEulerDiscreteConfig,
    spacing: Option<SigmaSpacing>,
    shift: f64,
    /// Every noise level of training.
    levels: Vec<f32>,
    steps: SigmaLoop,
}

impl FlowMatchEulerDiscreteScheduler {
    /// A scheduler whose loop visits every training timestep, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense, or two do not go together; the error names it.
    pub fn new(config: FlowMatchEulerDiscreteConfig) -> Result<Self> {
        let class_name = FlowMatchEulerDiscreteConfig::CLASS_NAME;
        flow::check(class_name, config.num_train_timesteps, config.shift)?;
        if config
            .shift_terminal
            .is_some_and(|sigma| !(0.0..1.0).contains(&sigma))
        {
            return Err(Error::Config(format!(
                "{class_name}: shift_terminal is {}, but it must be at least 0 and below 1",
                config.shift_terminal.unwrap_or_default()
            )));
        }
        let spacing = config.sigma_spacing()?;
        let shift = (!config.use_dynamic_shifting).then_some(config.shift);
        let levels = flow::training_levels(config.num_train_timesteps, shift);
        let mut scheduler = Self {
            shift: config.shift,
            config,
            spacing,
            levels: levels.clone(),
            steps: SigmaLoop::default(),
        };
        scheduler.begin(levels, None);
        Ok(scheduler)
    }

    /// Moves the noise levels of the loops to come by another shift than the config's.
    ///
    /// # Errors
    /// If it is not above 0.
    pub fn set_shift(&mut self, shift: f64) -> Result<()> {
        flow::check(
            FlowMatchEulerDiscreteConfig::CLASS_NAME,
            self.config.num_train_timesteps,
            shift,
        )?;
        self.shift = shift;
        Ok(())
    }

    /// Begins a loop over these noise levels. The timesteps are T σ, unless others are given.
    fn begin(&mut self, mut sigmas: Vec<f32>, timesteps: Option<Vec<f64>>) {
        let train = self.config.num_train_timesteps as f32;
        let timesteps_of = |sigmas: &[f32]| sigmas.iter().map(|&sigma| f64::from(sigma * train)).collect();
        let timesteps = if self.config.invert_sigmas {
            sigmas.iter_mut().for_each(|sigma| *sigma = 1.0 - *sigma);
            timesteps_of(&sigmas)
        } else {
            timesteps.unwrap_or_else(|| timesteps_of(&sigmas))
        };
        sigmas.push(if self.config.invert_sigmas { 1.0 } else { 0.0 });
        self.steps = SigmaLoop::new(timesteps, sigmas);
    }

    /// The noise levels of a loop, moved, stretched and spread as the config says.
    fn arrange(&self, sigmas: &[f64], mu: Option<f64>) -> Result<Vec<f32>> {
        let class_name = FlowMatchEulerDiscreteConfig::CLASS_NAME;
        let mut sigmas: Vec<f64> = match (self.config.use_dynamic_shifting, mu) {
            (true, Some(mu)) => sigmas
                .iter()
                .map(|&sigma| self.config.time_shift_type.shift(mu, sigma))
                .collect(),
            (false, None) => sigmas.iter().map(|&sigma| shifted(sigma, self.shift)).collect(),
            (true, None) => {
                return Err(Error::Config(format!(
                    "{class_name} with use_dynamic_shifting needs `mu` for its loop"
                )));
            }
            (false, Some(_)) => {
                return Err(Error::Config(format!(
                    "{class_name} has no use for `mu` in its loop without use_dynamic_shifting"
                )));
            }
        };
        let last = sigmas[sigmas.len() - 1];
        // A loop that is pure noise at its last step, as one of a single step, cannot be stretched to end elsewhere.
        if let Some(terminal) = self
            .config
            .shift_terminal
            .filter(|&sigma| sigma != 0.0 && last < 1.0)
        {
            let scale = (1.0 - last) / (1.0 - terminal);
            sigmas
                .iter_mut()
                .for_each(|sigma| *sigma = 1.0 - (1.0 - *sigma) / scale);
        }
        if let Some(spacing) = self.spacing {
            sigmas = spacing.spread(sigmas[0], sigmas[sigmas.len() - 1], sigmas.len());
        }
        // Shifting can round the highest level a little above 1.
        let of_flow = |sigma: f64| (-1e-6..=1.0 + 1e-6).contains(&sigma);
        if let Some(sigma) = sigmas.iter().find(|&&sigma| !of_flow(sigma)) {
            return Err(Error::Config(format!(
                "{class_name} comes to a noise level of {sigma}, but those of a flow are between 0 and 1"
            )));
        }
        Ok(sigmas.into_iter().map(|sigma| sigma as f32).collect())
    }

    /// σ at each place's own timestep, and the next lower level of the loop. Both have the shape of `timesteps`.
    fn levels_of_tokens(&self, timesteps: &Tensor<4>) -> Result<(Tensor<4>, Tensor<4>)> {
        let (shape, device) = (timesteps.dims(), timesteps.device());
        let train = self.config.num_train_timesteps as f32;
        let values = timesteps
            .clone()
            .into_data()
            .convert::<f32>()
            .try_into_vec::<f32>()
            .map_err(|e| Error::Shape(format!("the timesteps of the places cannot be read: {e:?}")))?;
        let here: Vec<f32> = values.into_iter().map(|t| t / train).collect();
        let below = |sigma: f32| {
            let lower = self
                .steps
                .sigmas()
                .iter()
                .copied()
                .filter(|&level| level < sigma - 1e-6);
            lower.fold(0.0, f32::max)
        };
        let next: Vec<f32> = here.iter().map(|&sigma| below(sigma)).collect();
        let tensor = |values| Tensor::from_data(TensorData::new(values, shape), &device);
        Ok((tensor(here), tensor(next)))
    }
}

impl Scheduler for FlowMatchEulerDiscreteScheduler {
    fn set_timesteps(&mut self, num_inference_steps: usize) -> Result<()> {
        self.set_loop(&LoopOptions::steps(num_inference_steps))
    }

    /// Takes a number of steps, `sigmas` (between 0 and 1), `timesteps`, or both of the latter, which are then independent;
    /// and `mu` with `use_dynamic_shifting`. The noise levels are moved by the shift in every case.
    fn set_loop(&mut self, options: &LoopOptions) -> Result<()> {
        let class_name = FlowMatchEulerDiscreteConfig::CLASS_NAME;
        options.only(class_name, &["timesteps", "sigmas", "mu"])?;
        let lengths = [
            options.num_inference_steps,
            options.sigmas.as_ref().map(Vec::len),
            options.timesteps.as_ref().map(Vec::len),
        ];
        let mut lengths = lengths.into_iter().flatten();
        let steps = lengths.next().ok_or_else(|| {
            Error::Config(format!(
                "{class_name} needs a number of steps, sigmas or timesteps for its loop"
            ))
        })?;
        check_steps(steps)?;
        if let Some(other) = lengths.find(|&length| length != steps) {
            return Err(Error::Config(format!(
                "{class_name} was given a loop of {steps} steps and of {other}: sigmas and timesteps must be as many as the \
                 steps"
            )));
        }
        let train = self.config.num_train_timesteps as f64;
        // As in diffusers, what is given is rounded to float32 first.
        let round = |values: &Vec<f64>| {
            values
                .iter()
                .map(|&value| f64::from(value as f32))
                .collect::<Vec<f64>>()
        };
        let timesteps = options.timesteps.as_ref().map(round);
        let sigmas = match (&options.sigmas, &timesteps) {
            (Some(sigmas), _) => {
                check_sigmas(sigmas, false)?;
                round(sigmas)
            }
            (None, Some(timesteps)) => {
                let sigmas: Vec<f64> = timesteps.iter().map(|t| t / train).collect();
                check_sigmas(&sigmas, false)?;
                sigmas
            }
            (None, None) => {
                let even = flow::even_timesteps(&self.levels, steps);
                even.into_iter().map(|t| t / train).collect()
            }
        };
        let sigmas = self.arrange(&sigmas, options.mu)?;
        self.begin(sigmas, timesteps);
        Ok(())
    }

    /// [`StepOptions::s_churn`] and its companions mean nothing here, as in diffusers. With
    /// [`StepOptions::per_token_timesteps`] the step goes from each place's own level to the next lower one, and as in
    /// diffusers the prediction is then expected with its sign turned.
    fn step(
        &mut self,
        prediction: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        same_shape("the prediction", &prediction, "the sample", &x)?;
        let (sigma, sigma_next) = self.steps.levels(t)?;
        let output = if let Some(timesteps) = options.per_token_timesteps.take() {
            let (here, next) = self.levels_of_tokens(&timesteps)?;
            let clean = x.clone() - prediction.clone() * here.clone();
            let previous = if self.config.stochastic_sampling {
                let noise = options.draw_noise(FlowMatchEulerDiscreteConfig::CLASS_NAME, &x)?;
                clean.clone() * (-next.clone() + 1.0) + noise * next
            } else {
                x + prediction * (here - next)
            };
            StepOutput {
                previous,
                predicted_clean: clean,
            }
        } else {
            // dx/dσ = v
            let clean = self.predicted_clean(&prediction, t, &x)?;
            let previous = if self.config.stochastic_sampling {
                let noise = options.draw_noise(FlowMatchEulerDiscreteConfig::CLASS_NAME, &x)?;
                flow::clean(&prediction, &x, sigma) * (1.0 - sigma_next) + noise * sigma_next
            } else {
                x + prediction * (sigma_next - sigma)
            };
            StepOutput {
                previous,
                predicted_clean: clean,
            }
        };
        self.steps.advance();
        Ok(output)
    }

    fn predicted_clean(&self, prediction: &Tensor<4>, t: f64, x: &Tensor<4>) -> Result<Tensor<4>> {
        same_shape("the prediction", prediction, "the sample", x)?;
        let sigma = self.steps.sigma_at(t)?;
        // Inverted levels count the signal.
        let noise_level = if self.config.invert_sigmas {
            1.0 - sigma
        } else {
            sigma
        };
        Ok(flow::clean(prediction, x, noise_level))
    }

    flow_methods!();
}
