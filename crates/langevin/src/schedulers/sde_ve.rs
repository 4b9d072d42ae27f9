//! The variance-exploding stochastic differential equation, sampled by predictor and corrector (Song et al. 2021, *Score-Based
//! Generative Modeling through Stochastic Differential Equations*). Mirrors `diffusers.ScoreSdeVeScheduler`.

use burn::tensor::Tensor;

use super::{
    LoopOptions, ModelKind, NoiseLevel, Scheduler, SchedulerConfig, StepOptions, StepOutput,
    class::scheduler_class,
    noise_schedule::{MOST_TIMESTEPS, linspace},
    options::check_steps,
    same_shape, sigma_loop,
};
use crate::{Error, Result, random::Generator};

scheduler_class! {
    /// The configuration of a [`ScoreSdeVeScheduler`], with diffusers' names and defaults.
    pub struct ScoreSdeVeConfig for ScoreSdeVeScheduler {
        /// How many noise levels the loop has before it is set.
        num_train_timesteps: usize = 2000,
        /// The ratio of noise to score that the corrector's steps are sized by.
        snr: f64 = 0.15,
        /// The lowest noise level.
        sigma_min: f64 = 0.01,
        /// The highest noise level, where a loop begins.
        sigma_max: f64 = 1348.0,
        /// The time at which the loop ends.
        sampling_eps: f64 = 1e-5,
        /// How many corrector steps go before each predictor step.
        correct_steps: usize = 1,
    }

    facts {
        model: ModelKind::Score,
        usual_steps: 1000,
    }

    samplers {
        "sde-ve", "noise", true, "for scores under exploding noise: predictor, and Langevin correctors";
    }
}

/// The reverse diffusion of x_0 + σ(t) ε, with σ(t) from `sigma_min` to `sigma_max` by equal factors, for models that predict
/// the score ∇ log p(x).
///
/// [`Scheduler::step`] is the predictor. Before it, `correct_steps` times, the model is asked at the same timestep and
/// [`Self::correct`] moves the sample there, if wanted.
#[derive(Clone, Debug)]
pub struct ScoreSdeVeScheduler {
    config: ScoreSdeVeConfig,
    timesteps: Vec<f64>,
    /// The noise levels of the steps' times, falling.
    sigmas: Vec<f32>,
    /// The noise levels that the predictor walks down, rising.
    levels: Vec<f32>,
}

/// What a predictor step of [`ScoreSdeVeScheduler`] gives.
#[derive(Clone, Debug)]
pub struct SdeVeStep {
    /// The sample at the next level.
    pub previous: Tensor<4>,
    /// The same without the noise of this step: what to take after the last.
    pub mean: Tensor<4>,
}

impl ScoreSdeVeScheduler {
    /// A scheduler with a loop of `num_train_timesteps` steps, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense; the error names it.
    pub fn new(config: ScoreSdeVeConfig) -> Result<Self> {
        let class_name = ScoreSdeVeConfig::CLASS_NAME;
        for (name, value) in [
            ("snr", config.snr),
            ("sigma_min", config.sigma_min),
            ("sigma_max", config.sigma_max),
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
        check_eps(config.sampling_eps)?;
        if config.num_train_timesteps > MOST_TIMESTEPS {
            return Err(Error::Config(format!(
                "num_train_timesteps is {}, but a schedule has 1 to {MOST_TIMESTEPS} timesteps",
                config.num_train_timesteps
            )));
        }
        let steps = config.num_train_timesteps;
        let mut scheduler = Self {
            config,
            timesteps: Vec::new(),
            sigmas: Vec::new(),
            levels: Vec::new(),
        };
        scheduler.set_timesteps(steps)?;
        Ok(scheduler)
    }

    /// The place among the noise levels of time `t`, between 0 and 1.
    fn place(&self, t: f64) -> Result<usize> {
        if !(0.0..=1.0).contains(&t) {
            return Err(Error::Config(format!(
                "timestep {t} is not a time between 0 and 1"
            )));
        }
        Ok((t as f32 * (self.levels.len() - 1) as f32) as usize)
    }

    /// The predictor: one step of the reverse diffusion from time `t` (Song et al. 2021, algorithm 2, lines 4 to 6).
    /// `score` is the model's at the sample `x`.
    ///
    /// # Errors
    /// If the shapes do not agree, `t` is not between 0 and 1, or there is no generator.
    pub fn predict(
        &self,
        score: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        options: &mut StepOptions<'_>,
    ) -> Result<SdeVeStep> {
        same_shape("the score", &score, "the sample", &x)?;
        let place = self.place(t)?;
        let sigma = self.levels[place];
        let below = place.checked_sub(1).map_or(0.0, |place| self.levels[place]);
        let diffusion = (sigma * sigma - below * below).max(0.0).sqrt();
        let noise = options.draw_noise(ScoreSdeVeConfig::CLASS_NAME, &x)?;
        let mean = x + score * (diffusion * diffusion);
        Ok(SdeVeStep {
            previous: mean.clone() + noise * diffusion,
            mean,
        })
    }

    /// The corrector: one step of Langevin dynamics at the sample's noise level (Song et al. 2021, algorithm 4). `score` is
    /// the model's at the sample `x`.
    ///
    /// # Errors
    /// If the shapes do not agree.
    pub fn correct(&self, score: Tensor<4>, x: Tensor<4>, generator: &mut Generator) -> Result<Tensor<4>> {
        same_shape("the score", &score, "the sample", &x)?;
        let noise = generator.randn_tensor(x.dims(), &x.device());
        let ratio = mean_norm(noise.clone()) * self.config.snr
            / mean_norm(score.clone()).clamp_min(f32::MIN_POSITIVE);
        let size = ratio.square() * 2.0;
        let mean = x + score * size.clone();
        Ok(mean + noise * (size * 2.0).sqrt())
    }
}

/// The mean over the batch of the pictures' Euclidean norms, `[1, 1, 1, 1]`.
fn mean_norm(pictures: Tensor<4>) -> Tensor<4> {
    let [batch, channels, height, width] = pictures.dims();
    let rows = pictures.reshape([batch, channels * height * width]);
    rows.square().sum_dim(1).sqrt().mean().reshape([1, 1, 1, 1])
}

fn check_eps(sampling_eps: f64) -> Result<()> {
    if sampling_eps > 0.0 && sampling_eps < 1.0 {
        return Ok(());
    }
    Err(Error::Config(format!(
        "sampling_eps is {sampling_eps}, but it is a time between 0 and 1"
    )))
}

impl Scheduler for ScoreSdeVeScheduler {
    fn set_timesteps(&mut self, num_inference_steps: usize) -> Result<()> {
        self.set_loop(&LoopOptions::steps(num_inference_steps))
    }

    fn set_loop(&mut self, options: &LoopOptions) -> Result<()> {
        let class_name = ScoreSdeVeConfig::CLASS_NAME;
        options.only(class_name, &["sampling_eps"])?;
        let steps = options.number(class_name)?;
        check_steps(steps)?;
        let eps = options.sampling_eps.unwrap_or(self.config.sampling_eps);
        check_eps(eps)?;
        self.timesteps = linspace(1.0, eps, steps).into_iter().map(f64::from).collect();
        let logs = linspace(self.config.sigma_min.ln(), self.config.sigma_max.ln(), steps);
        self.levels = logs.into_iter().map(f32::exp).collect();
        let (min, ratio) = (
            self.config.sigma_min,
            self.config.sigma_max / self.config.sigma_min,
        );
        self.sigmas = self
            .timesteps
            .iter()
            .map(|&t| (min * ratio.powf(t)) as f32)
            .collect();
        Ok(())
    }

    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    /// σ(t) of every timestep of the loop: what the model is given.
    fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    fn step(
        &mut self,
        prediction: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        let step = self.predict(prediction.clone(), t, x.clone(), options)?;
        Ok(StepOutput {
            previous: step.previous,
            predicted_clean: self.predicted_clean(&prediction, t, &x)?,
        })
    }

    /// x + σ² ∇ log p(x), the posterior's mean (Tweedie).
    fn predicted_clean(&self, prediction: &Tensor<4>, t: f64, x: &Tensor<4>) -> Result<Tensor<4>> {
        same_shape("the score", prediction, "the sample", x)?;
        let sigma = self.levels[self.place(t)?];
        Ok(x.clone() + prediction.clone() * (sigma * sigma))
    }

    /// `timesteps` are places among the noise levels.
    fn add_noise(&self, x0: Tensor<4>, noise: Tensor<4>, timesteps: &[usize]) -> Result<Tensor<4>> {
        let level = |&t: &usize| {
            self.levels.get(t).copied().ok_or_else(|| {
                Error::Config(format!(
                    "timestep {t} is beyond the loop's {} noise levels",
                    self.sigmas.len()
                ))
            })
        };
        let sigmas: Result<Vec<f32>> = timesteps.iter().map(level).collect();
        sigma_loop::add_noise(x0, noise, sigmas?)
    }

    fn add_noise_at(&self, x0: Tensor<4>, noise: Tensor<4>, t: f64) -> Result<Tensor<4>> {
        let sigma = self.levels[self.place(t)?];
        let [batch, ..] = x0.dims();
        sigma_loop::add_noise(x0, noise, vec![sigma; batch])
    }

    fn level(&self, t: f64) -> Result<NoiseLevel> {
        Ok(NoiseLevel::of_sigma(self.levels[self.place(t)?]))
    }

    fn init_noise_sigma(&self) -> f64 {
        self.config.sigma_max
    }

    fn num_train_timesteps(&self) -> usize {
        self.config.num_train_timesteps
    }
}
