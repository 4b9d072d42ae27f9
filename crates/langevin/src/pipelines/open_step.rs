//! A step of a sampling loop before it is taken.

use burn::tensor::Tensor;

use super::Sampling;
use crate::{
    Result,
    guidance::{LossGuidance, Through, leaf},
    schedulers::StepOutput,
};

/// A step that has not been taken yet: the sample may still be changed, and so may what the model says of it.
///
/// Dropped without [`OpenStep::take`], it leaves the loop where it was.
pub struct OpenStep<'s, 'a> {
    pub(super) sampling: &'s mut Sampling<'a>,
    /// Which step it is, from 0.
    pub index: usize,
    /// How many steps there are.
    pub total: usize,
    /// The timestep that the model is to be asked at.
    pub timestep: f64,
    /// The sample before the step, `[batch, channels, height, width]`.
    pub sample: Tensor<4>,
}

impl OpenStep<'_, '_> {
    /// What the model predicts for `x`: this step's sample, or another of its shape. Differentiable in `x`.
    ///
    /// # Errors
    /// If the model refuses it.
    pub fn predict(&mut self, x: Tensor<4>) -> Result<Tensor<4>> {
        let [batch, ..] = x.dims();
        let timesteps = Tensor::<1>::full([batch], self.timestep, &x.device());
        let sampling = &mut *self.sampling;
        let input = sampling.scheduler.scale_model_input(x, self.timestep)?;
        sampling
            .denoiser
            .get()
            .denoise(input, timesteps, &sampling.conditioning)
    }

    /// The clean picture that a prediction for `x` implies. Differentiable in both.
    ///
    /// # Errors
    /// If the scheduler refuses them.
    pub fn predicted_clean(&self, prediction: &Tensor<4>, x: &Tensor<4>) -> Result<Tensor<4>> {
        // The step is taken by copies, which leaves everything where it is.
        let mut scheduler = self.sampling.scheduler.boxed_clone();
        let mut generator = self.sampling.generator.clone();
        let mut options = self.sampling.settings.options(&mut generator);
        let output = scheduler.step(prediction.clone(), self.timestep, x.clone(), &mut options)?;
        Ok(output.predicted_clean)
    }

    /// ᾱ: the share of the signal in the sample's variance, from 0 (noise) to 1 (clean).
    ///
    /// # Errors
    /// If the scheduler cannot tell its noise at this timestep.
    pub fn alpha_cumprod(&self) -> Result<f64> {
        let device = self.sample.device();
        let (zero, one) = (
            Tensor::zeros([1, 1, 1, 1], &device),
            Tensor::ones([1, 1, 1, 1], &device),
        );
        let square = |x0: &Tensor<4>, noise: &Tensor<4>| {
            let level = self
                .sampling
                .scheduler
                .add_noise_at(x0.clone(), noise.clone(), self.timestep)?;
            Ok(f64::from(level.into_scalar::<f32>()).powi(2))
        };
        let (signal, noise): (f64, f64) = (square(&one, &zero)?, square(&zero, &one)?);
        Ok(signal / (signal + noise))
    }

    /// Takes the step from the sample, as it now is, by `prediction`.
    ///
    /// # Errors
    /// If the scheduler refuses them.
    pub fn take(self, prediction: Tensor<4>) -> Result<()> {
        let Self {
            sampling,
            timestep,
            sample,
            ..
        } = self;
        // A model that is being trained, or a loss, would otherwise drag its graph from step to step.
        let (prediction, sample) = (prediction.without_autodiff(), sample.without_autodiff());
        let mut options = sampling.settings.options(sampling.generator);
        let StepOutput {
            previous,
            predicted_clean,
        } = sampling
            .scheduler
            .step(prediction.clone(), timestep, sample, &mut options)?;
        sampling.sample = previous;
        sampling.latest = Some((prediction, predicted_clean));
        sampling.done += 1;
        Ok(())
    }

    /// The usual step: asks the model, lets a loss move the sample, and takes the step.
    pub(super) fn finish(mut self, guidance: Option<&mut LossGuidance>) -> Result<()> {
        let x = self.sample.clone();
        let Some(guidance) = guidance else {
            let prediction = self.predict(x)?;
            return self.take(prediction);
        };
        let leaf = leaf(&x);
        let prediction = match guidance.through() {
            Through::Clean => self.predict(x.clone())?.without_autodiff(),
            Through::Model => self.predict(leaf.clone())?,
        };
        let clean = self.predicted_clean(&prediction, &leaf)?;
        self.sample = x + guidance.shift(&leaf, clean, self.timestep, || self.alpha_cumprod())?;
        self.take(prediction)
    }
}
