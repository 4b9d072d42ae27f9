//! Multistep sampling of consistency models (Song et al. 2023, algorithm 1). Mirrors
//! `diffusers.CMStochasticIterativeScheduler`.

use burn::tensor::Tensor;

use super::{
    GivenLoop, LoopOptions, ModelKind, Scheduler, SchedulerConfig, StepOptions, StepOutput,
    class::scheduler_class,
    noise_schedule::MOST_TIMESTEPS,
    options::check_timesteps,
    same_shape,
    sigma_loop::{SigmaLoop, sigma_loop_methods},
    sigmas::karras,
};
use crate::{Error, Result};

scheduler_class! {
    /// The configuration of a [`CMStochasticIterativeScheduler`], with diffusers' names and defaults.
    pub struct CMStochasticIterativeConfig for CMStochasticIterativeScheduler {
        /// How many noise levels the model was trained with.
        num_train_timesteps: usize = 40,
        /// The lowest noise level.
        sigma_min: f64 = 0.002,
        /// The highest noise level.
        sigma_max: f64 = 80.0,
        /// The standard deviation of the data.
        sigma_data: f64 = 0.5,
        /// The standard deviation of the noise that a step adds.
        s_noise: f64 = 1.0,
        /// ρ of Karras's spacing.
        rho: f64 = 7.0,
        /// Whether to clip the predicted clean sample to [-1, 1].
        clip_denoised: bool = true,
    }

    facts {
        model: ModelKind::Consistency,
        usual_steps: 1,
    }

    samplers {
        "cm", "noise", true, "for consistency models: 1 or 2 steps";
    }
}

/// Each step asks the consistency model for the clean sample, and adds noise up to the next level. With one step alone no
/// noise is added.
#[derive(Clone, Debug)]
pub struct CMStochasticIterativeScheduler {
    config: CMStochasticIterativeConfig,
    steps: SigmaLoop,
}

impl CMStochasticIterativeScheduler {
    /// A scheduler whose loop visits every noise level, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense; the error names it.
    pub fn new(config: CMStochasticIterativeConfig) -> Result<Self> {
        let class_name = CMStochasticIterativeConfig::CLASS_NAME;
        for (name, value) in [
            ("sigma_min", config.sigma_min),
            ("sigma_max", config.sigma_max),
            ("sigma_data", config.sigma_data),
            ("rho", config.rho),
        ] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::Config(format!(
                    "{class_name}: {name} is {value}, but it must be above 0"
                )));
            }
        }
        if config.sigma_min >= config.sigma_max {
            return Err(Error::Config(format!(
                "{class_name}: sigma_min is {} and sigma_max {}, but the lowest noise level must be below the highest",
                config.sigma_min, config.sigma_max
            )));
        }
        if !(config.s_noise >= 0.0 && config.s_noise.is_finite()) {
            return Err(Error::Config(format!(
                "{class_name}: s_noise is {}, but it must be 0 or more",
                config.s_noise
            )));
        }
        let train = config.num_train_timesteps;
        if !(2..=MOST_TIMESTEPS).contains(&train) {
            return Err(Error::Config(format!(
                "num_train_timesteps is {train}, but {class_name} has 2 to {MOST_TIMESTEPS} noise levels"
            )));
        }
        let mut scheduler = Self {
            config,
            steps: SigmaLoop::default(),
        };
        scheduler.set_timesteps(train)?;
        Ok(scheduler)
    }

    /// Begins a loop over these noise levels, of which 0 is the highest, from the highest down.
    fn begin(&mut self, levels: &[usize]) {
        let config = &self.config;
        let last = (config.num_train_timesteps - 1) as f64;
        let ramp: Vec<f64> = levels.iter().map(|&level| level as f64 / last).collect();
        let sigmas = karras(&ramp, config.sigma_max, config.sigma_min, config.rho);
        // What the model is given: 1000 · ¼ ln σ.
        let timesteps = sigmas.iter().map(|sigma| 250.0 * (sigma + 1e-44).ln()).collect();
        let sigmas = sigmas
            .iter()
            .chain([&config.sigma_min])
            .map(|&sigma| sigma as f32)
            .collect();
        self.steps = SigmaLoop::new(timesteps, sigmas);
    }
}

impl Scheduler for CMStochasticIterativeScheduler {
    /// `timesteps` are the numbers of the noise levels, falling; the highest number is the lowest σ.
    fn set_loop(&mut self, options: &LoopOptions) -> Result<()> {
        let class_name = CMStochasticIterativeConfig::CLASS_NAME;
        options.only(class_name, &["timesteps"])?;
        let train = self.config.num_train_timesteps;
        let levels: Vec<usize> = match options.given(class_name)? {
            GivenLoop::Timesteps(timesteps) => {
                check_timesteps(timesteps, train)?;
                timesteps.iter().rev().map(|&t| t as usize).collect()
            }
            _ => {
                let steps = options.number(class_name)?;
                if steps == 0 || steps > train {
                    return Err(Error::Config(format!(
                        "{steps} inference steps were asked for, but this schedule has 1 to {train} of them"
                    )));
                }
                (0..steps).map(|i| i * (train / steps)).collect()
            }
        };
        self.begin(&levels);
        Ok(())
    }

    fn scale_model_input(&mut self, sample: Tensor<4>, t: f64) -> Result<Tensor<4>> {
        let (sigma, _) = self.steps.levels(t)?;
        let data = self.config.sigma_data;
        Ok(sample / (sigma * sigma + (data * data) as f32).sqrt())
    }

    fn step(
        &mut self,
        prediction: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        let clean = self.predicted_clean(&prediction, t, &x)?;
        let config = &self.config;
        let (_, sigma_next) = self.steps.levels(t)?;

        // f + √(σ_{i+1}² - σ_min²) z (algorithm 1, line 4)
        let previous = if self.steps.timesteps().len() > 1 {
            let noise = options.draw_noise(CMStochasticIterativeConfig::CLASS_NAME, &clean)? * config.s_noise;
            let sigma_hat = sigma_next.clamp(config.sigma_min as f32, config.sigma_max as f32);
            let min_square = (config.sigma_min * config.sigma_min) as f32;
            // Equal levels can differ by a rounding.
            clean.clone() + noise * (sigma_hat * sigma_hat - min_square).max(0.0).sqrt()
        } else {
            clean.clone()
        };
        self.steps.advance();
        Ok(StepOutput {
            previous,
            predicted_clean: clean,
        })
    }

    fn predicted_clean(&self, prediction: &Tensor<4>, t: f64, x: &Tensor<4>) -> Result<Tensor<4>> {
        same_shape("the prediction", prediction, "the sample", x)?;
        let config = &self.config;
        let sigma = self.steps.sigma_at(t)?;
        let (min, data) = (config.sigma_min as f32, config.sigma_data as f32);
        let data_square = (config.sigma_data * config.sigma_data) as f32;

        // f(x, σ) = c_skip x + c_out F, which is x itself at the lowest level (Song et al. 2023, appendix C)
        let c_skip = data_square / ((sigma - min) * (sigma - min) + data_square);
        let c_out = (sigma - min) * data / (sigma * sigma + data_square).sqrt();
        let clean = prediction.clone() * c_out + x.clone() * c_skip;
        Ok(if config.clip_denoised {
            clean.clamp(-1.0, 1.0)
        } else {
            clean
        })
    }

    fn init_noise_sigma(&self) -> f64 {
        self.config.sigma_max
    }

    sigma_loop_methods!(CMStochasticIterativeConfig);
}
