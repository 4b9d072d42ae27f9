//! What a caller may say about a loop and about a step. One struct serves every scheduler, as the keyword arguments of
//! diffusers' methods do; each scheduler reads what it knows.

use burn::tensor::Tensor;

use super::noise_schedule::MOST_TIMESTEPS;
use crate::{Error, Result, random::Generator};

/// What one call of [`Scheduler::step`](super::Scheduler::step) may be given besides the prediction and the sample.
pub struct StepOptions<'a> {
    /// Where a stochastic scheduler draws its noise from. `None` where noise is needed is an error.
    pub generator: Option<&'a mut Generator>,
    /// The share of fresh noise. DDIM's η: 0, its default, is deterministic, 1 adds as much noise as DDPM (Song et al.
    /// 2021, eq. 16). TCD's γ: 0.3 by default. `None` is the scheduler's default.
    pub eta: Option<f64>,
    /// DDIM: derive the noise direction from the clipped predicted clean sample.
    pub use_clipped_model_output: bool,
    /// Noise to use in place of a draw, of the sample's shape.
    pub variance_noise: Option<Tensor<4>>,
    /// How much noise Euler's and Heun's methods add before each step, over the whole loop (Karras et al. 2022,
    /// algorithm 2). 0 by default: none.
    pub s_churn: f64,
    /// The lowest σ at which `s_churn` adds noise. 0 by default.
    pub s_tmin: f64,
    /// The highest σ at which `s_churn` adds noise. Infinite by default.
    pub s_tmax: f64,
    /// The standard deviation of the noise that is added. 1 by default.
    pub s_noise: f64,
    /// LMS: how many derivatives a step looks at, at most. 4 by default.
    pub order: usize,
    /// EDM: the clean sample, in place of the one that the prediction implies.
    pub predicted_clean: Option<Tensor<4>>,
    /// Flow matching: a timestep for each place of the sample, of a shape that broadcasts to the sample's.
    pub per_token_timesteps: Option<Tensor<4>>,
    /// RePaint: the picture whose known part stays, of the sample's shape.
    pub original_image: Option<Tensor<4>>,
    /// RePaint: 1 where the picture is known, 0 where it is to be painted; of a shape that broadcasts to the sample's.
    pub mask: Option<Tensor<4>>,
    /// UnCLIP: the timestep that the step leads to, in place of the one before.
    pub prev_timestep: Option<usize>,
}

impl Default for StepOptions<'_> {
    fn default() -> Self {
        Self {
            generator: None,
            eta: None,
            use_clipped_model_output: false,
            variance_noise: None,
            s_churn: 0.0,
            s_tmin: 0.0,
            s_tmax: f64::INFINITY,
            s_noise: 1.0,
            order: 4,
            predicted_clean: None,
            per_token_timesteps: None,
            original_image: None,
            mask: None,
            prev_timestep: None,
        }
    }
}

impl StepOptions<'_> {
    /// Draws standard normal noise of the shape of `like`.
    ///
    /// # Errors
    /// If there is no generator; the error names the class.
    pub fn draw_noise(&mut self, class_name: &str, like: &Tensor<4>) -> Result<Tensor<4>> {
        let generator = self.generator.as_deref_mut().ok_or_else(|| {
            Error::Config(format!(
                "{class_name} draws noise in this step, but was given no generator to draw from"
            ))
        })?;
        Ok(generator.randn_tensor(like.dims(), &like.device()))
    }
}

/// What [`Scheduler::set_loop`](super::Scheduler::set_loop) may be given: the keyword arguments of diffusers'
/// `set_timesteps`. Either a number of steps, or the steps themselves.
///
/// ```
/// use langevin::schedulers::{EulerDiscreteConfig, EulerDiscreteScheduler, LoopOptions, Scheduler};
///
/// let mut scheduler = EulerDiscreteScheduler::new(EulerDiscreteConfig::default())?;
/// scheduler.set_loop(&LoopOptions { timesteps: Some(vec![999.0, 500.0, 20.0]), ..LoopOptions::default() })?;
/// assert_eq!(scheduler.timesteps(), [999.0, 500.0, 20.0]);
/// # Ok::<(), langevin::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoopOptions {
    /// How many steps, spread as the scheduler's config says.
    pub num_inference_steps: Option<usize>,
    /// The timesteps, from the noisiest to the cleanest.
    pub timesteps: Option<Vec<f64>>,
    /// The noise levels σ, from the highest to the lowest. Whether the last one is where the loop ends or where its last
    /// step begins is the scheduler's to say.
    pub sigmas: Option<Vec<f64>>,
    /// How far dynamic shifting moves the steps towards the noise.
    pub mu: Option<f64>,
    /// LCM and TCD: how many steps the distilled model's teacher took.
    pub original_inference_steps: Option<usize>,
    /// LCM and TCD: the share of the teacher's steps that the loop walks through, 0 to 1.
    pub strength: Option<f64>,
    /// RePaint: how many steps a jump back towards the noise takes.
    pub jump_length: Option<usize>,
    /// RePaint: how many times each stretch is walked.
    pub jump_n_sample: Option<usize>,
    /// ScoreSdeVe: the time at which the loop ends.
    pub sampling_eps: Option<f64>,
}

impl LoopOptions {
    /// A loop of this many steps, spread as the scheduler's config says.
    pub fn steps(num_inference_steps: usize) -> Self {
        Self {
            num_inference_steps: Some(num_inference_steps),
            ..Self::default()
        }
    }

    /// Refuses what class `class_name` does not know: everything that is set besides the number of steps and `known`.
    ///
    /// # Errors
    /// If something else is set; the error names it.
    pub fn only(&self, class_name: &str, known: &[&str]) -> Result<()> {
        let set = [
            ("timesteps", self.timesteps.is_some()),
            ("sigmas", self.sigmas.is_some()),
            ("mu", self.mu.is_some()),
            (
                "original_inference_steps",
                self.original_inference_steps.is_some(),
            ),
            ("strength", self.strength.is_some()),
            ("jump_length", self.jump_length.is_some()),
            ("jump_n_sample", self.jump_n_sample.is_some()),
            ("sampling_eps", self.sampling_eps.is_some()),
        ];
        match set.iter().find(|(name, set)| *set && !known.contains(name)) {
            Some((name, _)) => Err(Error::Config(format!(
                "{class_name} has no use for `{name}` in its loop"
            ))),
            None => Ok(()),
        }
    }

    /// The number of steps, where nothing else says how the loop goes.
    ///
    /// # Errors
    /// If it is missing.
    pub fn number(&self, class_name: &str) -> Result<usize> {
        self.num_inference_steps
            .ok_or_else(|| Error::Config(format!("{class_name} needs a number of steps for its loop")))
    }

    /// The one way in which the loop is given.
    ///
    /// # Errors
    /// If there is none, or more than one of the number of steps, the timesteps and the sigmas.
    pub fn given(&self, class_name: &str) -> Result<GivenLoop<'_>> {
        match (self.num_inference_steps, &self.timesteps, &self.sigmas) {
            (Some(steps), None, None) => Ok(GivenLoop::Steps(steps)),
            (None, Some(timesteps), None) => Ok(GivenLoop::Timesteps(timesteps)),
            (None, None, Some(sigmas)) => Ok(GivenLoop::Sigmas(sigmas)),
            _ => Err(Error::Config(format!(
                "{class_name} takes exactly one of a number of steps, timesteps and sigmas for its loop"
            ))),
        }
    }
}

/// How [`LoopOptions`] give a loop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GivenLoop<'a> {
    /// A number of steps.
    Steps(usize),
    /// The timesteps themselves.
    Timesteps(&'a [f64]),
    /// The noise levels themselves.
    Sigmas(&'a [f64]),
}

/// Refuses custom timesteps that are none, not below `train`, or do not fall.
pub(crate) fn check_timesteps(timesteps: &[f64], train: usize) -> Result<()> {
    let last = train as f64 - 1.0;
    let fits = |t: f64| (0.0..=last).contains(&t);
    if timesteps.is_empty() {
        return Err(Error::Config(
            "custom timesteps were given, but there are none of them".to_owned(),
        ));
    }
    if let Some(t) = timesteps.iter().find(|&&t| !fits(t)) {
        return Err(Error::Config(format!(
            "custom timestep {t} is beyond the schedule, which goes from 0 to {last}"
        )));
    }
    falls("timesteps", timesteps)
}

/// Refuses numbers that do not fall from one to the next.
pub(crate) fn falls(what: &str, values: &[f64]) -> Result<()> {
    match values
        .windows(2)
        .find(|pair| pair[1] >= pair[0] || pair[1].is_nan())
    {
        Some(pair) => Err(Error::Config(format!(
            "custom {what} must fall from one to the next, but {} comes after {}",
            pair[1], pair[0]
        ))),
        None => Ok(()),
    }
}

/// Refuses a number of steps that no loop has.
///
/// # Errors
/// If it is 0, or more than a million.
pub(crate) fn check_steps(steps: usize) -> Result<()> {
    if steps == 0 || steps > MOST_TIMESTEPS {
        return Err(Error::Config(format!(
            "{steps} inference steps were asked for, but a loop has 1 to {MOST_TIMESTEPS} of them"
        )));
    }
    Ok(())
}

/// The error of a scheduler that is asked for whole timesteps and has none.
pub(crate) fn no_whole_timesteps(class_name: &str) -> Error {
    Error::Config(format!(
        "the timesteps of {class_name} follow from the noise levels of its loop and are not whole numbers of a schedule"
    ))
}
