//! Euler's method on the probability flow in σ (Karras et al. 2022, algorithm 2). Mirrors `diffusers.EulerDiscreteScheduler`.

use burn::tensor::Tensor;

use super::{
    FinalSigmas, GivenLoop, LoopOptions, PredictionType, Scheduler, SchedulerConfig, StepOptions, StepOutput,
    TimestepSpacing,
    class::scheduler_class,
    discrete::{Discrete, Spreading, discrete_methods},
    noise_schedule::linspace,
    same_shape,
    sigma_loop::{SigmaLoop, churn, clean_at},
    sigmas::check_sigmas,
};
use crate::{Error, Result, named::named_enum};

named_enum! {
    /// How σ of a loop's timesteps follows from the schedule's.
    #[derive(Default)]
    pub enum InterpolationType: "a way to interpolate noise levels" {
        /// Between the neighbouring timesteps' σ.
        #[default]
        Linear = "linear",
        /// Evenly in log σ from the schedule's highest to its lowest, one more than there are steps, so that the loop
        /// ends at the lowest.
        LogLinear = "log_linear",
    }
}

named_enum! {
    /// How a model that predicts velocities is given the noise level.
    #[derive(Default)]
    pub enum TimestepType: "a kind of timestep" {
        /// The timestep.
        #[default]
        Discrete = "discrete",
        /// ¼ ln σ.
        Continuous = "continuous",
    }
}

scheduler_class! {
    /// The configuration of an [`EulerDiscreteScheduler`], with diffusers' names and defaults.
    pub struct EulerDiscreteConfig for EulerDiscreteScheduler {
        ..noise(0.0001, 0.02, Linear),
        /// What the model predicts.
        prediction_type: PredictionType = PredictionType::default(),
        /// How σ of the loop's timesteps follows from the schedule's.
        interpolation_type: InterpolationType = InterpolationType::default(),
        ..sigma_spacing,
        /// The lowest σ of such a spread, where that is not the last timestep's.
        sigma_min: Option<f64> = None,
        /// The highest σ of such a spread, where that is not the first timestep's.
        sigma_max: Option<f64> = None,
        /// How the steps of a loop are spread.
        timestep_spacing: TimestepSpacing = TimestepSpacing::Linspace,
        /// How a model that predicts velocities is given the noise level.
        timestep_type: TimestepType = TimestepType::default(),
        /// What is added to the timesteps of the leading spacing.
        steps_offset: usize = 0,
        /// Whether the schedule is moved to end with hardly any signal.
        rescale_betas_zero_snr: bool = false,
        /// The noise level that the loop ends at.
        final_sigmas_type: FinalSigmas = FinalSigmas::default(),
    }

    facts {}

    samplers {
        "euler", "1", false, "Euler's method in sigma";
    }
}

/// Euler's method in σ: each step goes straight along the derivative dx/dσ = (x - x̂_0) / σ, which is the predicted
/// noise; with [`StepOptions::s_churn`], from a sample that was made a little noisier before.
#[derive(Clone, Debug)]
pub struct EulerDiscreteScheduler {
    config: EulerDiscreteConfig,
    discrete: Discrete,
}

impl EulerDiscreteScheduler {
    /// A scheduler whose loop visits every training timestep, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense, or two do not go together; the error names it.
    pub fn new(config: EulerDiscreteConfig) -> Result<Self> {
        let class_name = EulerDiscreteConfig::CLASS_NAME;
        let discrete = Discrete::new(
            class_name,
            config.noise_options().rescaled(config.rescale_betas_zero_snr),
            Spreading {
                sigma_min: config.sigma_min,
                sigma_max: config.sigma_max,
                ..Spreading::new(
                    config.timestep_spacing,
                    config.steps_offset,
                    config.sigma_spacing()?,
                )
            },
        )?;
        let (timesteps, sigmas) = discrete.every_timestep();
        let mut scheduler = Self { config, discrete };
        scheduler.begin(
            timesteps,
            sigmas.into_iter().map(|sigma| sigma as f32).collect(),
            0.0,
        );
        Ok(scheduler)
    }

    /// Whether the model is given ¼ ln σ.
    fn is_continuous(&self) -> bool {
        self.config.timestep_type == TimestepType::Continuous
            && self.config.prediction_type == PredictionType::VPrediction
    }

    /// Begins a loop over these noise levels with `last` after them.
    fn begin(&mut self, timesteps: Vec<f64>, mut sigmas: Vec<f32>, last: f32) {
        let timesteps = if self.is_continuous() {
            sigmas.iter().map(|sigma| f64::from(0.25 * sigma.ln())).collect()
        } else {
            timesteps.into_iter().map(|t| f64::from(t as f32)).collect()
        };
        sigmas.push(last);
        self.discrete.steps = SigmaLoop::new(timesteps, sigmas);
    }

    /// Begins a loop over these noise levels, the last of which is where it ends.
    fn begin_custom(&mut self, sigmas: &[f64]) -> Result<()> {
        check_sigmas(sigmas, true)?;
        let Some((&last, above)) = sigmas.split_last().filter(|(_, above)| !above.is_empty()) else {
            return Err(Error::Config(
                "custom sigmas are at least two: where a step begins, and where it ends".to_owned(),
            ));
        };
        let table = self.discrete.table();
        let timesteps = above.iter().map(|&sigma| table.timestep(sigma)).collect();
        self.begin(
            timesteps,
            above.iter().map(|&sigma| sigma as f32).collect(),
            last as f32,
        );
        Ok(())
    }
}

impl Scheduler for EulerDiscreteScheduler {
    fn set_timesteps(&mut self, num_inference_steps: usize) -> Result<()> {
        self.set_loop(&LoopOptions::steps(num_inference_steps))
    }

    fn set_loop(&mut self, options: &LoopOptions) -> Result<()> {
        let class_name = EulerDiscreteConfig::CLASS_NAME;
        options.only(class_name, &["timesteps", "sigmas"])?;
        let given = options.given(class_name)?;
        if let GivenLoop::Sigmas(sigmas) = given {
            return self.begin_custom(sigmas);
        }
        if matches!(given, GivenLoop::Timesteps(_)) && self.is_continuous() {
            return Err(Error::Config(format!(
                "{class_name} cannot be given timesteps where its model is told the noise level itself"
            )));
        }
        let (timesteps, mut sigmas) = self.discrete.spread(class_name, given)?;
        let table = self.discrete.table();
        if self.config.interpolation_type == InterpolationType::LogLinear && !self.discrete.spreads_sigmas() {
            let logs = table.logs();
            let (lowest, highest) = (logs[0].into(), logs[logs.len() - 1].into());
            let evenly = linspace(highest, lowest, timesteps.len() + 1).into_iter();
            sigmas = evenly.map(|log| f64::from(log.exp())).collect();
        }
        let last = match self.config.final_sigmas_type {
            FinalSigmas::SigmaMin => table.sigmas()[0],
            FinalSigmas::Zero => 0.0,
        };
        self.begin(
            timesteps,
            sigmas.into_iter().map(|sigma| sigma as f32).collect(),
            last,
        );
        Ok(())
    }

    fn scale_model_input(&mut self, sample: Tensor<4>, t: f64) -> Result<Tensor<4>> {
        self.discrete.steps.scale_model_input(sample, t)
    }

    fn step(
        &mut self,
        prediction: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        same_shape("the prediction", &prediction, "the sample", &x)?;
        let (sigma, sigma_next) = self.discrete.steps.levels(t)?;
        let steps = self.sigmas().len() - 1;
        let (x, sigma_hat) = churn(EulerDiscreteConfig::CLASS_NAME, x, sigma, steps, options)?;

        // diffusers takes σ for the velocity and σ̂ for the noise.
        let kind = self.config.prediction_type;
        let level = if kind == PredictionType::VPrediction {
            sigma
        } else {
            sigma_hat
        };
        let clean = clean_at(kind, &prediction, &x, level);

        // x + (σ_{i+1} - σ̂_i) d_i, with d_i = (x - x̂_0) / σ̂_i (Karras et al. 2022, algorithm 2, lines 7 and 8)
        let derivative = (x.clone() - clean.clone()) / sigma_hat;
        let previous = x + derivative * (sigma_next - sigma_hat);
        self.discrete.steps.advance();
        Ok(StepOutput {
            previous,
            predicted_clean: clean,
        })
    }

    fn predicted_clean(&self, prediction: &Tensor<4>, t: f64, x: &Tensor<4>) -> Result<Tensor<4>> {
        same_shape("the prediction", prediction, "the sample", x)?;
        let sigma = self.discrete.steps.sigma_at(t)?;
        Ok(clean_at(self.config.prediction_type, prediction, x, sigma))
    }

    discrete_methods!();
}
