//! The sampling loop, one step at a time.

use burn::tensor::Tensor;

use super::{Control, OpenStep, to_pictures};
use crate::{
    Error, Result,
    codec::{AnyCodec, Codec},
    conditioning::Turns,
    data::Picture,
    guidance::{Guided, LossGuidance},
    models::{Conditioning, Denoiser},
    ops::{self, Precision},
    random::Generator,
    schedulers::{Scheduler, StepOptions, same_shape},
};

/// A sampling loop in progress.
///
/// Each call of [`Sampling::next`] does one step, from noise towards a picture, and lends what it came to; whoever
/// asked may look at it, show it or stop asking. [`Sampling::finish`] does the steps that are left.
///
/// ```no_run
/// # fn main() -> langevin::Result<()> {
/// use langevin::{device::default_device, pipelines::{Pipeline, SampleOptions}, random::Generator};
///
/// let pipeline = Pipeline::load("runs/digits-1", &default_device())?;
/// let mut generator = Generator::new(7);
/// let mut sampling = pipeline.sample(&SampleOptions::default(), &mut generator)?;
/// while let Some(step) = sampling.next() {
///     let step = step?;
///     println!("{} of {}: timestep {}", step.index + 1, step.total, step.timestep);
/// }
/// let pictures = sampling.finish()?;
/// # Ok(())
/// # }
/// ```
///
/// Whoever wants a hand in the steps opens them, see [`Sampling::open`].
pub struct Sampling<'a> {
    pub(super) denoiser: LoopDenoiser<'a>,
    pub(super) scheduler: Box<dyn Scheduler + 'a>,
    pub(super) conditioning: Conditioning,
    pub(super) generator: Draws<'a>,
    pub(super) settings: Settings,
    pub(super) guidance: Option<LossGuidance>,
    /// How many steps were asked for; the model may be asked more often.
    pub(super) steps: usize,
    pub(super) timesteps: Vec<f64>,
    pub(super) done: usize,
    pub(super) sample: Tensor<4>,
    pub(super) latest: Option<(Tensor<4>, Tensor<4>)>,
    pub(super) known: Option<KnownPart>,
    /// Networks that add to what the model computes.
    pub(super) controls: Vec<Control>,
    /// Makes pictures of what the loop denoises, where that is something else.
    pub(super) codec: Option<&'a AnyCodec>,
    /// Of the model's products: what held where the loop was begun.
    pub(super) precision: Precision,
    /// Texts that change on the way, and which of them are drawn.
    turns: Option<(Turns, usize)>,
}

/// The part of the samples that is known, and put back after every step.
#[derive(Clone, Debug)]
pub(crate) struct KnownPart {
    /// The clean samples, `[batch, channels, height, width]`.
    pub samples: Tensor<4>,
    /// The noise that they are given, of the same shape.
    pub noise: Tensor<4>,
    /// 1 where the loop paints and 0 where the samples are known, `[batch, 1, height, width]`.
    pub mask: Tensor<4>,
    /// Whether the known part is given the noise of the timestep that a step was taken from, as diffusers' `AudioDiffusionPipeline` has it,
    /// and not of the one that it leads to.
    pub lags: bool,
}

impl KnownPart {
    /// The sample after the step at a timestep, with the known part at the next one's noise, or clean after the last.
    pub(super) fn put_into(
        &self,
        sample: Tensor<4>,
        scheduler: &dyn Scheduler,
        timestep: f64,
        next: Option<f64>,
    ) -> Result<Tensor<4>> {
        let level = if self.lags { Some(timestep) } else { next };
        let known = match level {
            Some(t) => scheduler.add_noise_at(self.samples.clone(), self.noise.clone(), t)?,
            None => self.samples.clone(),
        };
        let kept = self.mask.clone() * -1.0 + 1.0;
        Ok(known * kept + sample * self.mask.clone())
    }
}

/// A denoiser that loops can share.
pub(super) type SharedDenoiser<'a> = &'a (dyn Denoiser + Sync);

/// What a loop asks.
pub(super) enum LoopDenoiser<'a> {
    /// A denoiser that other loops may ask too, then all of them together.
    Shared(SharedDenoiser<'a>),
    /// The same, guided in this loop's own way.
    Guided(Box<Guided<SharedDenoiser<'a>>>),
    /// One of the loop's own.
    Owned(Box<dyn Denoiser + 'a>),
}

impl<'a> LoopDenoiser<'a> {
    pub(super) fn get(&self) -> &dyn Denoiser {
        match self {
            Self::Shared(denoiser) => *denoiser,
            Self::Guided(guided) => guided.as_ref(),
            Self::Owned(denoiser) => denoiser.as_ref(),
        }
    }

    /// The denoiser that other loops may ask too.
    pub(super) fn shared(&self) -> Option<SharedDenoiser<'a>> {
        match self {
            Self::Shared(denoiser) => Some(*denoiser),
            Self::Guided(guided) => Some(*guided.denoiser()),
            Self::Owned(_) => None,
        }
    }
}

/// A generator that the loop owns or borrows.
pub(crate) enum Draws<'a> {
    Borrowed(&'a mut Generator),
    Owned(Box<Generator>),
}

impl<'a> From<&'a mut Generator> for Draws<'a> {
    fn from(generator: &'a mut Generator) -> Self {
        Self::Borrowed(generator)
    }
}

impl From<Generator> for Draws<'_> {
    fn from(generator: Generator) -> Self {
        Self::Owned(Box::new(generator))
    }
}

impl Draws<'_> {
    pub(crate) fn get_mut(&mut self) -> &mut Generator {
        match self {
            Self::Borrowed(generator) => generator,
            Self::Owned(generator) => generator,
        }
    }
}

/// The call that a loop of `steps` steps begins with at a strength: `get_timesteps` of diffusers'
/// `StableDiffusionImg2ImgPipeline`, with `order` calls a step.
fn first_step(steps: usize, order: usize, strength: f64) -> Result<usize> {
    if !(strength > 0.0 && strength <= 1.0) {
        return Err(Error::Config(format!(
            "the strength is {strength}, but it must be above 0 and at most 1"
        )));
    }
    match (steps as f64 * strength) as usize {
        0 => Err(no_step(steps, strength)),
        walked => Ok((steps - walked) * order),
    }
}

/// The timestep from which a part of the noise, from the cleanest, is left to another model: `round(T - part · T)`.
pub(crate) fn cutoff(option: &'static str, part: f64, train_timesteps: usize) -> Result<f64> {
    if !(part > 0.0 && part < 1.0) {
        return Err(Error::Config(format!(
            "`{option}` is {part}: it must be between 0 and 1"
        )));
    }
    let all = train_timesteps as f64;
    Ok((all - part * all).round_ties_even())
}

fn no_step(steps: usize, strength: f64) -> Error {
    Error::Config(format!(
        "a strength of {strength} leaves none of {steps} steps: give more steps, or a higher strength"
    ))
}

/// What every step is told.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Settings {
    eta: Option<f64>,
    use_clipped_model_output: bool,
}

impl Settings {
    pub(super) fn options(self, generator: &mut Generator) -> StepOptions<'_> {
        StepOptions {
            generator: Some(generator),
            eta: self.eta,
            use_clipped_model_output: self.use_clipped_model_output,
            ..StepOptions::default()
        }
    }
}

/// What one step came to. All tensors are `[batch, channels, height, width]`.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Which step it was, from 0.
    pub index: usize,
    /// How many steps there are.
    pub total: usize,
    /// The timestep that the model was asked at.
    pub timestep: f64,
    /// The sample after the step.
    pub sample: &'a Tensor<4>,
    /// What the model predicted.
    pub prediction: &'a Tensor<4>,
    /// The clean picture that the prediction implies.
    pub predicted_clean: &'a Tensor<4>,
    codec: Option<&'a AnyCodec>,
}

impl Step<'_> {
    /// The sample as pictures; latents as their codec's previews show them.
    ///
    /// # Errors
    /// If it makes no pictures.
    pub fn pictures(&self) -> Result<Vec<Picture>> {
        shown(self.sample, self.codec)
    }

    /// The predicted clean sample as pictures.
    ///
    /// # Errors
    /// If it makes no pictures.
    pub fn clean_pictures(&self) -> Result<Vec<Picture>> {
        shown(self.predicted_clean, self.codec)
    }
}

/// Samples as pictures that are only looked at.
fn shown(samples: &Tensor<4>, codec: Option<&AnyCodec>) -> Result<Vec<Picture>> {
    match codec {
        Some(codec) => to_pictures(&codec.preview(samples.clone())?),
        None => to_pictures(samples),
    }
}

impl<'a> Sampling<'a> {
    /// The strength to begin with a picture at, see [`Sampling::starting_from`], where nobody says: the course's. diffusers' usual one is
    /// 0.8, of steps from a text.
    pub const USUAL_STRENGTH: f64 = 0.6;

    /// A loop over the timesteps that `scheduler` was set to, from the standard normal `noise`
    /// (`[batch, channels, height, width]`), with a denoiser that is borrowed: loops that borrow one and the same can take steps together,
    /// see [`step_together`](super::step_together).
    pub fn new(
        denoiser: &'a (dyn Denoiser + Sync),
        scheduler: Box<dyn Scheduler + 'a>,
        noise: Tensor<4>,
        generator: &'a mut Generator,
    ) -> Self {
        Self::start(
            LoopDenoiser::Shared(denoiser),
            scheduler,
            noise,
            Draws::Borrowed(generator),
        )
    }

    /// Like [`Sampling::new`], with a denoiser of the loop's own, such as a guided one.
    pub fn owning(
        denoiser: Box<dyn Denoiser + 'a>,
        scheduler: Box<dyn Scheduler + 'a>,
        noise: Tensor<4>,
        generator: &'a mut Generator,
    ) -> Self {
        Self::start(
            LoopDenoiser::Owned(denoiser),
            scheduler,
            noise,
            Draws::Borrowed(generator),
        )
    }

    pub(super) fn start(
        denoiser: LoopDenoiser<'a>,
        scheduler: Box<dyn Scheduler + 'a>,
        noise: Tensor<4>,
        generator: Draws<'a>,
    ) -> Self {
        let sigma = scheduler.init_noise_sigma();
        Self {
            denoiser,
            timesteps: scheduler.timesteps().to_vec(),
            conditioning: Conditioning::default(),
            generator,
            settings: Settings::default(),
            guidance: None,
            steps: scheduler.timesteps().len().div_ceil(scheduler.order()),
            done: 0,
            // Most schedulers start at 1, and multiplying would only cost.
            sample: if sigma == 1.0 { noise } else { noise * sigma },
            scheduler,
            latest: None,
            known: None,
            controls: Vec::new(),
            codec: None,
            precision: ops::precision(),
            turns: None,
        }
    }

    /// Lets texts take the place of others on the way.
    pub(super) fn with_turns(mut self, turns: Option<Turns>) -> Self {
        self.turns = turns.map(|turns| (turns, 0));
        self
    }

    /// Puts the texts of the next call in their place.
    fn turn(&mut self) {
        let Some((turns, number)) = &mut self.turns else {
            return;
        };
        let next = turns.number(self.done);
        if next == *number {
            return;
        }
        *number = next;
        let texts = &turns.texts[next];
        self.conditioning = texts.towards.clone().and(self.conditioning.clone());
        if let LoopDenoiser::Guided(guided) = &mut self.denoiser {
            guided.turn(texts);
        }
    }

    /// Says how many steps were asked for, where the scheduler makes more calls of them.
    pub(super) fn of_steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }

    /// Tells the model something besides the sample and the timestep.
    pub fn with_conditioning(mut self, conditioning: Conditioning) -> Self {
        self.conditioning = conditioning;
        self
    }

    /// Puts a known part back after every step.
    pub(crate) fn with_known(mut self, known: Option<KnownPart>) -> Self {
        self.known = known;
        self
    }

    /// Lets networks add to what the model computes.
    pub(crate) fn with_controls(mut self, controls: Vec<Control>) -> Self {
        self.controls = controls;
        self
    }

    /// Makes pictures of predicted clean samples before a loss looks at them.
    pub(crate) fn with_codec(mut self, codec: &'a AnyCodec) -> Self {
        self.codec = Some(codec);
        self
    }

    /// Ends with the last timestep that is at least `timestep`, and leaves the rest to another model.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn ending_at(mut self, timestep: f64) -> Result<Self> {
        self.timesteps.retain(|&t| t >= timestep);
        if self.timesteps.is_empty() {
            return Err(Error::Config(
                "`denoising_end` leaves no step to this model: give more steps, or a larger part".into(),
            ));
        }
        Ok(self)
    }

    /// Sets DDIM's η or TCD's γ, and whether DDIM derives the noise from the clipped clean sample, see [`StepOptions`].
    pub fn with_step_options(mut self, eta: Option<f64>, use_clipped_model_output: bool) -> Self {
        self.settings = Settings {
            eta,
            use_clipped_model_output,
        };
        self
    }

    /// Begins with step `step`, from 0, and `sample` as it is before that step, in place of noise before the first: with a latent that
    /// inversion found, say.
    ///
    /// # Errors
    /// If there is no such step, or the sample has another shape than the noise.
    pub fn starting_at(mut self, sample: Tensor<4>, step: usize) -> Result<Self> {
        if step >= self.timesteps.len() {
            return Err(Error::Config(format!(
                "the loop cannot begin with step {step}: it has {} steps, counted from 0",
                self.timesteps.len()
            )));
        }
        same_shape("the sample", &sample, "the noise", &self.sample)?;
        self.scheduler.set_begin_index(step);
        self.timesteps.drain(..step);
        self.sample = sample;
        Ok(self)
    }

    /// Begins with `pictures` (`[1 or batch, channels, height, width]` in -1..1) under noise, in place of noise alone. `strength`
    /// is the part of the steps that is walked: 1 leaves little of the pictures, 0.1 most of them. Mirrors diffusers'
    /// picture-to-picture pipelines.
    ///
    /// # Errors
    /// If the strength is not above 0 and at most 1, or leaves no step, or the pictures have another shape than the noise.
    pub fn starting_from(self, pictures: &Tensor<4>, strength: f64) -> Result<Self> {
        let steps = self.steps;
        let step = first_step(self.steps, self.scheduler.order(), strength)?;
        self.noising(pictures, step, || no_step(steps, strength))
    }

    /// Begins with `pictures` under noise, so that the last `walked` of the steps are taken.
    ///
    /// # Errors
    /// If there are fewer steps, or the pictures have another shape than the noise.
    pub(crate) fn walking_last(self, pictures: &Tensor<4>, walked: usize) -> Result<Self> {
        let step = self.steps.saturating_sub(walked) * self.scheduler.order();
        let steps = self.steps;
        self.noising(pictures, step, || {
            Error::Config(format!("{walked} steps cannot be taken of {steps}"))
        })
    }

    fn noising(self, pictures: &Tensor<4>, step: usize, missing: impl Fn() -> Error) -> Result<Self> {
        let noise = self.sample.clone() / self.scheduler.init_noise_sigma();
        let [batch, ..] = noise.dims();
        let pictures = match pictures.dims()[0] {
            1 => pictures.clone().repeat_dim(0, batch),
            _ => pictures.clone(),
        };
        same_shape("the pictures", &pictures, "the noise", &noise)?;
        let timestep = *self.timesteps.get(step).ok_or_else(missing)?;
        let mut sampling = self.starting_at(noise.clone(), step)?;
        sampling.sample = sampling.scheduler.add_noise_at(pictures, noise, timestep)?;
        Ok(sampling)
    }

    /// Goes on with `latents` where another model ended: at the part `part` of the noise, from the cleanest, as diffusers counts
    /// `denoising_start`.
    ///
    /// # Errors
    /// If the part is not between 0 and 1, or leaves no step.
    pub(crate) fn going_on_at(self, part: f64, latents: Tensor<4>) -> Result<Self> {
        let cutoff = cutoff("denoising_start", part, self.scheduler.num_train_timesteps())?;
        let mut left = self.timesteps.iter().filter(|&&t| t < cutoff).count();
        // A step of two calls is not cut in two.
        if self.scheduler.order() == 2 && left.is_multiple_of(2) {
            left = (left + 1).min(self.timesteps.len());
        }
        let first = self.timesteps.len() - left;
        self.starting_at(latents, first)
    }

    /// Lets a loss lead every step, besides what the denoiser itself is guided by. DDIM then takes the noise from the clipped
    /// clean sample, as [`SampleOptions::use_clipped_model_output`](super::SampleOptions) says.
    pub fn guided_by(mut self, guidance: LossGuidance) -> Self {
        self.guidance = Some(guidance);
        self.settings.use_clipped_model_output = true;
        self
    }

    /// How many steps there are.
    pub fn total(&self) -> usize {
        self.timesteps.len()
    }

    /// How many steps are done.
    pub fn done(&self) -> usize {
        self.done
    }

    /// The sample as it stands as pictures; latents as their codec's previews show them.
    ///
    /// # Errors
    /// If it makes no pictures.
    pub fn pictures(&self) -> Result<Vec<Picture>> {
        shown(&self.sample, self.codec)
    }

    /// The sample as it stands, `[batch, channels, height, width]`.
    pub fn sample(&self) -> &Tensor<4> {
        &self.sample
    }

    /// Does the next step; `None` after the last.
    // It lends what it holds, which the standard iterator cannot say.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Result<Step<'_>>> {
        // Out of the way while it leads the step, and put back whether or not that succeeds.
        let mut guidance = self.guidance.take();
        let done = self.open().map(|step| step.finish(guidance.as_mut()));
        self.guidance = guidance;
        match done? {
            Ok(()) => self.latest().map(Ok),
            Err(error) => Some(Err(error)),
        }
    }

    /// Opens the next step, for a loop of one's own; `None` after the last. [`OpenStep`] has what the course's loops have: the
    /// sample, a way to ask the model, the clean picture that its answer implies, and the step itself.
    ///
    /// ```no_run
    /// # fn main() -> langevin::Result<()> {
    /// # use langevin::{device::default_device, pipelines::{Pipeline, SampleOptions}, random::Generator};
    /// use langevin::guidance::{gradient, leaf};
    ///
    /// # let pipeline = Pipeline::load("runs/digits-1", &default_device())?;
    /// # let mut generator = Generator::new(7);
    /// let mut sampling = pipeline.sample(&SampleOptions::default(), &mut generator)?;
    /// while let Some(mut step) = sampling.open() {
    ///     let prediction = step.predict(step.sample.clone())?;
    ///     let x = leaf(&step.sample);
    ///     let darkness = step.predicted_clean(&prediction, &x)?.mean();
    ///     step.sample = step.sample - gradient(&darkness, &x)? * 20.0;
    ///     step.take(prediction)?;
    /// }
    /// let dark_pictures = sampling.finish()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn open(&mut self) -> Option<OpenStep<'_, 'a>> {
        let timestep = *self.timesteps.get(self.done)?;
        self.turn();
        Some(OpenStep {
            index: self.done,
            total: self.timesteps.len(),
            timestep,
            sample: self.sample.clone(),
            sampling: self,
        })
    }

    /// What the last step came to; `None` before the first.
    pub fn latest(&self) -> Option<Step<'_>> {
        let (prediction, predicted_clean) = self.latest.as_ref()?;
        let index = self.done.checked_sub(1)?;
        Some(Step {
            index,
            total: self.timesteps.len(),
            timestep: self.timesteps[index],
            sample: &self.sample,
            prediction,
            predicted_clean,
            codec: self.codec,
        })
    }

    /// Does the steps that are left, and gives the samples: `[batch, channels, height, width]`, about -1 to 1.
    ///
    /// # Errors
    /// If a step fails, or the samples are not numbers at the end.
    pub fn finish(mut self) -> Result<Tensor<4>> {
        while let Some(step) = self.next() {
            step?;
        }
        // One sum tells: it is finite only if every term is a number.
        if self.sample.clone().abs().sum().into_scalar::<f32>().is_finite() {
            Ok(self.sample)
        } else {
            Err(Error::NotFinite(
                "the samples are not numbers any more: the model's weights are broken, or its training diverged".into(),
            ))
        }
    }
}
