//! The sampling loop, one step at a time.

use burn::tensor::Tensor;

use crate::{
    Error, Result,
    models::{Conditioning, Denoiser},
    random::Generator,
    schedulers::{Scheduler, StepOptions, StepOutput},
};

/// A sampling loop in progress.
///
/// Each call of [`Sampling::next`] does one step, from noise towards a picture, and lends what it came to; whoever
/// asked may look at it, show it or stop asking. [`Sampling::finish`] does the steps that are left.
///
/// ```no_run
/// # fn main() -> langevin::Result<()> {
/// use langevin::{device::default_device, pipelines::{AnyPipeline, SampleOptions}, random::Generator};
///
/// let pipeline = AnyPipeline::load("runs/digits-1", &default_device())?;
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
pub struct Sampling<'a> {
    denoiser: Held<'a>,
    scheduler: Box<dyn Scheduler + 'a>,
    conditioning: Conditioning,
    generator: &'a mut Generator,
    eta: Option<f64>,
    use_clipped_model_output: bool,
    timesteps: Vec<f64>,
    done: usize,
    sample: Tensor<4>,
    latest: Option<(Tensor<4>, Tensor<4>)>,
}

/// A denoiser that the loop owns or borrows.
enum Held<'a> {
    Borrowed(&'a dyn Denoiser),
    Owned(Box<dyn Denoiser + 'a>),
}

impl Held<'_> {
    fn get(&self) -> &dyn Denoiser {
        match self {
            Self::Borrowed(denoiser) => *denoiser,
            Self::Owned(denoiser) => denoiser.as_ref(),
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
}

impl<'a> Sampling<'a> {
    /// A loop over the timesteps that `scheduler` was set to, from the standard normal `noise`
    /// (`[batch, channels, height, width]`), with a denoiser that is borrowed.
    pub fn new(
        denoiser: &'a dyn Denoiser,
        scheduler: Box<dyn Scheduler + 'a>,
        noise: Tensor<4>,
        generator: &'a mut Generator,
    ) -> Self {
        Self::start(Held::Borrowed(denoiser), scheduler, noise, generator)
    }

    /// Like [`Sampling::new`], with a denoiser of the loop's own, such as a guided one.
    pub fn owning(
        denoiser: Box<dyn Denoiser + 'a>,
        scheduler: Box<dyn Scheduler + 'a>,
        noise: Tensor<4>,
        generator: &'a mut Generator,
    ) -> Self {
        Self::start(Held::Owned(denoiser), scheduler, noise, generator)
    }

    fn start(
        denoiser: Held<'a>,
        scheduler: Box<dyn Scheduler + 'a>,
        noise: Tensor<4>,
        generator: &'a mut Generator,
    ) -> Self {
        let sigma = scheduler.init_noise_sigma();
        Self {
            denoiser,
            timesteps: scheduler.timesteps().to_vec(),
            scheduler,
            conditioning: Conditioning::default(),
            generator,
            eta: None,
            use_clipped_model_output: false,
            done: 0,
            // Most schedulers start at 1, and multiplying would only cost.
            sample: if sigma == 1.0 { noise } else { noise * sigma },
            latest: None,
        }
    }

    /// Tells the model something besides the sample and the timestep.
    pub fn with_conditioning(mut self, conditioning: Conditioning) -> Self {
        self.conditioning = conditioning;
        self
    }

    /// Sets DDIM's η or TCD's γ, and whether DDIM derives the noise from the clipped clean sample, see [`StepOptions`].
    pub fn with_step_options(mut self, eta: Option<f64>, use_clipped_model_output: bool) -> Self {
        self.eta = eta;
        self.use_clipped_model_output = use_clipped_model_output;
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

    /// The sample as it stands, `[batch, channels, height, width]`.
    pub fn sample(&self) -> &Tensor<4> {
        &self.sample
    }

    /// Does the next step; `None` after the last.
    // It lends what it holds, which the standard iterator cannot say.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Result<Step<'_>>> {
        let timestep = *self.timesteps.get(self.done)?;
        if let Err(error) = self.advance(timestep) {
            return Some(Err(error));
        }
        let (prediction, predicted_clean) = self.latest.as_ref()?;
        Some(Ok(Step {
            index: self.done - 1,
            total: self.timesteps.len(),
            timestep,
            sample: &self.sample,
            prediction,
            predicted_clean,
        }))
    }

    fn advance(&mut self, timestep: f64) -> Result<()> {
        let x = self.sample.clone();
        let [batch, ..] = x.dims();
        let timesteps = Tensor::<1>::full([batch], timestep, &x.device());
        let input = self.scheduler.scale_model_input(x.clone(), timestep)?;
        // A model that is being trained would otherwise drag its graph from step to step.
        let prediction = self
            .denoiser
            .get()
            .denoise(input, timesteps, &self.conditioning)?
            .detach();
        let mut options = StepOptions {
            generator: Some(self.generator),
            eta: self.eta,
            use_clipped_model_output: self.use_clipped_model_output,
            ..StepOptions::default()
        };
        let StepOutput {
            previous,
            predicted_clean,
        } = self
            .scheduler
            .step(prediction.clone(), timestep, x, &mut options)?;
        self.sample = previous;
        self.latest = Some((prediction, predicted_clean));
        self.done += 1;
        Ok(())
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
