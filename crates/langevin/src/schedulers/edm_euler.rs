//! Euler's method for models with the preconditioning of Karras et al. (2022). Mirrors `diffusers.EDMEulerScheduler`.

use burn::tensor::Tensor;

use super::{
    FinalSigmas, GivenLoop, LoopOptions, ModelKind, Scheduler, SchedulerConfig, StepOptions, StepOutput,
    class::scheduler_class,
    edm::{EdmLevels, Preconditioning, SigmaSchedule, timestep},
    noise_schedule::MOST_TIMESTEPS,
    options::check_steps,
    same_shape,
    sigma_loop::{SigmaLoop, churn, sigma_loop_methods},
    sigmas::{check_sigmas, karras, linspace},
};
use crate::{Error, Result};

scheduler_class! {
    /// The configuration of an [`EDMEulerScheduler`], with diffusers' names and defaults.
    pub struct EDMEulerConfig for EDMEulerScheduler {
        ..edm_levels,
        /// The noise level that the loop ends at.
        final_sigmas_type: FinalSigmas = FinalSigmas::default(),
    }

    facts {
        model: ModelKind::Edm,
    }

    samplers {
        "edm-euler", "1", false, "for EDM's models: Euler's method";
    }
}

/// Euler's method in σ, with [`StepOptions::s_churn`] the stochastic one (Karras et al. 2022, algorithm 2 without its second
/// order).
#[derive(Clone, Debug)]
pub struct EDMEulerScheduler {
    config: EDMEulerConfig,
    levels: EdmLevels,
    preconditioning: Preconditioning,
    steps: SigmaLoop,
}

impl EDMEulerScheduler {
    /// A scheduler whose loop visits `num_train_timesteps` + 1 noise levels, until [`Scheduler::set_timesteps`] says
    /// otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense; the error names it.
    pub fn new(config: EDMEulerConfig) -> Result<Self> {
        let class_name = EDMEulerConfig::CLASS_NAME;
        let levels = EdmLevels {
            schedule: config.sigma_schedule,
            sigma_min: config.sigma_min,
            sigma_max: config.sigma_max,
            rho: config.rho,
        };
        levels.check()?;
        let preconditioning = Preconditioning::new(class_name, config.sigma_data, config.prediction_type)?;
        let train = config.num_train_timesteps;
        if train == 0 || train >= MOST_TIMESTEPS {
            return Err(Error::Config(format!(
                "num_train_timesteps is {train}, but it must be at least 1 and below {MOST_TIMESTEPS}"
            )));
        }
        let mut scheduler = Self {
            config,
            levels,
            preconditioning,
            steps: SigmaLoop::default(),
        };
        let sigmas = scheduler.falling(train + 1);
        scheduler.begin(sigmas);
        Ok(scheduler)
    }

    /// `n` noise levels; those of Karras's spacing are computed in float64 in this class of diffusers.
    fn falling(&self, n: usize) -> Vec<f32> {
        if self.config.sigma_schedule == SigmaSchedule::Exponential {
            return self.levels.falling(n);
        }
        let EDMEulerConfig {
            sigma_max,
            sigma_min,
            rho,
            ..
        } = self.config;
        let levels = karras(&linspace(0.0, 1.0, n), sigma_max, sigma_min, rho);
        levels.into_iter().map(|sigma| sigma as f32).collect()
    }

    fn begin(&mut self, mut sigmas: Vec<f32>) {
        let timesteps = sigmas.iter().map(|&sigma| timestep(sigma)).collect();
        sigmas.push(match self.config.final_sigmas_type {
            FinalSigmas::SigmaMin => sigmas[sigmas.len() - 1],
            FinalSigmas::Zero => 0.0,
        });
        self.steps = SigmaLoop::new(timesteps, sigmas);
    }
}

impl Scheduler for EDMEulerScheduler {
    /// `sigmas` are the noise levels at which the steps begin. (Diffusers' class takes them for places between the highest
    /// level, 0, and the lowest, 1.)
    fn set_loop(&mut self, options: &LoopOptions) -> Result<()> {
        let class_name = EDMEulerConfig::CLASS_NAME;
        options.only(class_name, &["sigmas"])?;
        let sigmas = match options.given(class_name)? {
            GivenLoop::Sigmas(sigmas) => {
                check_sigmas(sigmas, false)?;
                sigmas.iter().map(|&sigma| sigma as f32).collect()
            }
            _ => {
                let steps = options.number(class_name)?;
                check_steps(steps)?;
                self.falling(steps)
            }
        };
        self.begin(sigmas);
        Ok(())
    }

    fn scale_model_input(&mut self, sample: Tensor<4>, t: f64) -> Result<Tensor<4>> {
        let (sigma, _) = self.steps.levels(t)?;
        Ok(self.preconditioning.input(sample, sigma))
    }

    fn step(
        &mut self,
        prediction: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        same_shape("the prediction", &prediction, "the sample", &x)?;
        let (sigma, sigma_next) = self.steps.levels(t)?;
        let levels = self.steps.sigmas().len() - 1;
        let (x, sigma_hat) = churn(EDMEulerConfig::CLASS_NAME, x, sigma, levels, options)?;
        let clean = match options.predicted_clean.take() {
            Some(given) => {
                same_shape("the given clean sample", &given, "the sample", &x)?;
                given
            }
            None => self.preconditioning.clean(&prediction, &x, sigma_hat),
        };
        // x + (σ_{i+1} - σ̂_i) d_i, with d_i = (x - x̂_0) / σ̂_i
        let derivative = (x.clone() - clean.clone()) / sigma_hat;
        let previous = x + derivative * (sigma_next - sigma_hat);
        self.steps.advance();
        Ok(StepOutput {
            previous,
            predicted_clean: clean,
        })
    }

    fn predicted_clean(&self, prediction: &Tensor<4>, t: f64, x: &Tensor<4>) -> Result<Tensor<4>> {
        same_shape("the prediction", prediction, "the sample", x)?;
        Ok(self.preconditioning.clean(prediction, x, self.steps.sigma_at(t)?))
    }

    fn init_noise_sigma(&self) -> f64 {
        (self.config.sigma_max * self.config.sigma_max + 1.0).sqrt()
    }

    sigma_loop_methods!(EDMEulerConfig);
}
