//! A step of a sampling loop before it is taken.

use burn::tensor::Tensor;

use super::{
    Sampling, control,
    sampling::{LoopDenoiser, SharedDenoiser},
};
use crate::{
    Result,
    codec::Codec,
    guidance::{LossGuidance, Question, Through, leaf},
    ops,
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

impl<'a> OpenStep<'_, 'a> {
    /// What the model predicts for `x`: this step's sample, or another of its shape. Differentiable in `x`.
    ///
    /// # Errors
    /// If the model refuses it.
    pub fn predict(&mut self, x: Tensor<4>) -> Result<Tensor<4>> {
        let [batch, ..] = x.dims();
        let timesteps = Tensor::<1>::full([batch], self.timestep, &x.device());
        let sampling = &mut *self.sampling;
        let input = sampling.scheduler.scale_model_input(x, self.timestep)?;
        let prediction = match sampling.denoiser.shared() {
            Some(denoiser) if !sampling.controls.is_empty() => {
                let precision = sampling.precision;
                let question = self.ask(input, timesteps)?;
                let Question {
                    x,
                    timesteps,
                    conditioning,
                    ..
                } = &question;
                let answer = ops::computing(precision, || {
                    denoiser.denoise(x.clone(), timesteps.clone(), conditioning)
                })?;
                self.of_answer(&question, answer)
            }
            _ => {
                let denoiser = sampling.denoiser.get();
                ops::computing(sampling.precision, || {
                    denoiser.denoise(input, timesteps, &sampling.conditioning)
                })?
            }
        };
        Ok(self.of_samples(prediction))
    }

    /// What the model is asked for a scaled sample, with what controls add to it.
    fn ask(&self, input: Tensor<4>, timesteps: Tensor<1>) -> Result<Question> {
        let sampling = &*self.sampling;
        let mut question = match &sampling.denoiser {
            LoopDenoiser::Guided(guided) => guided.question(input, timesteps, &sampling.conditioning)?,
            _ => Question::plain(input, timesteps, &sampling.conditioning),
        };
        ops::computing(sampling.precision, || {
            control::apply(&sampling.controls, &mut question, self.index, self.total)
        })?;
        Ok(question)
    }

    /// The prediction that the model's answer to a question makes.
    fn of_answer(&self, question: &Question, answer: Tensor<4>) -> Tensor<4> {
        match &self.sampling.denoiser {
            LoopDenoiser::Guided(guided) => guided.prediction(question, answer),
            _ => answer,
        }
    }

    /// The part of a prediction that is of the samples: what a model says of its variance, in as many channels behind, is left out where
    /// the scheduler has no use for it.
    fn of_samples(&self, prediction: Tensor<4>) -> Tensor<4> {
        let channels = self.sample.dims()[1];
        let has_variance = prediction.dims()[1] == 2 * channels;
        if has_variance && !self.sampling.scheduler.takes_variance() {
            prediction.narrow(1, 0, channels)
        } else {
            prediction
        }
    }

    /// The clean picture that a prediction for `x` implies. Differentiable in both.
    ///
    /// # Errors
    /// If the scheduler refuses them.
    pub fn predicted_clean(&self, prediction: &Tensor<4>, x: &Tensor<4>) -> Result<Tensor<4>> {
        self.sampling
            .scheduler
            .predicted_clean(prediction, self.timestep, x)
    }

    /// ᾱ: the share of the signal in the sample's variance, from 0 (noise) to 1 (clean).
    ///
    /// # Errors
    /// If the scheduler cannot tell its noise at this timestep.
    pub fn alpha_cumprod(&self) -> Result<f64> {
        Ok(self.sampling.scheduler.level(self.timestep)?.alpha_cumprod())
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
        let mut options = sampling.settings.options(sampling.generator.get_mut());
        let StepOutput {
            previous,
            predicted_clean,
        } = sampling
            .scheduler
            .step(prediction.clone(), timestep, sample, &mut options)?;
        let next = sampling.timesteps.get(sampling.done + 1).copied();
        sampling.sample = match &sampling.known {
            Some(known) => known.put_into(previous, sampling.scheduler.as_ref(), timestep, next)?,
            None => previous,
        };
        sampling.latest = Some((prediction, predicted_clean));
        sampling.done += 1;
        Ok(())
    }

    /// Takes the step from a prediction of nothing: what is drawn on the way is drawn as in any step.
    pub(crate) fn pass(self) -> Result<()> {
        let [batch, channels, height, width] = self.sample.dims();
        let predicted = match self.sampling.scheduler.takes_variance() {
            true => 2 * channels,
            false => channels,
        };
        let nothing = Tensor::zeros([batch, predicted, height, width], &self.sample.device());
        self.take(nothing)
    }

    /// The usual step: asks the model, lets a loss move the sample, and takes the step.
    pub(super) fn finish(mut self, guidance: Option<&mut LossGuidance>) -> Result<()> {
        match guidance {
            Some(guidance) if guidance.through() == Through::Model => {
                let leaf = leaf(&self.sample);
                let prediction = self.predict(leaf.clone())?;
                self.lead(&leaf, prediction, guidance)
            }
            guidance => {
                let prediction = self.predict(self.sample.clone())?;
                self.conclude(prediction, guidance)
            }
        }
    }

    /// What the usual step asks the model, and the model; `None` where others cannot ask along, because the denoiser is the
    /// loop's own or a gradient goes through it.
    pub(super) fn question(&mut self) -> Option<Result<(Question, SharedDenoiser<'a>)>> {
        let x = self.sample.clone();
        let [batch, ..] = x.dims();
        let timesteps = Tensor::<1>::full([batch], self.timestep, &x.device());
        let sampling = &mut *self.sampling;
        let shared = sampling.denoiser.shared()?;
        let through = sampling.guidance.as_ref().map(LossGuidance::through);
        if through == Some(Through::Model) {
            return None;
        }
        let input = sampling.scheduler.scale_model_input(x, self.timestep);
        let question = input.and_then(|input| self.ask(input, timesteps));
        Some(question.map(|question| (question, shared)))
    }

    /// The step from the model's answer to this step's [`Self::question`].
    pub(super) fn answered(
        self,
        question: &Question,
        answer: Tensor<4>,
        guidance: Option<&mut LossGuidance>,
    ) -> Result<()> {
        let prediction = self.of_samples(self.of_answer(question, answer));
        self.conclude(prediction, guidance)
    }

    /// Lets a loss of the predicted clean picture move the sample, and takes the step.
    fn conclude(self, prediction: Tensor<4>, guidance: Option<&mut LossGuidance>) -> Result<()> {
        match guidance {
            Some(guidance) => {
                let leaf = leaf(&self.sample);
                self.lead(&leaf, prediction.without_autodiff(), guidance)
            }
            None => self.take(prediction),
        }
    }

    fn lead(mut self, leaf: &Tensor<4>, prediction: Tensor<4>, guidance: &mut LossGuidance) -> Result<()> {
        let clean = self.predicted_clean(&prediction, leaf)?;
        let clean = match self.sampling.codec {
            Some(codec) => ops::computing(self.sampling.precision, || codec.decode(clean))?,
            None => clean,
        };
        let shift = guidance.shift(leaf, clean, self.timestep, || self.alpha_cumprod())?;
        self.sample = self.sample.clone() + shift;
        self.take(prediction)
    }
}
