//! Inversion as the Hugging Face diffusion course writes it (unit 4): the noise that a picture's latents come from, found step by step, and
//! the way back under another text. Its timesteps are its own; diffusers' `DDIMInverseScheduler` has others.

use burn::tensor::Tensor;

use super::Plan;
use crate::{
    Error, Request, Result,
    guidance::Guided,
    models::{Conditioning, Denoiser},
    ops::{self, Precision},
    pipelines::Pipeline,
    schedulers::{AnyScheduler, Scheduler},
};

/// A guided model that is asked in a loop of one's own, as a [`Plan`] says what it is asked for.
pub struct Asked<'a> {
    denoiser: Box<dyn Denoiser + 'a>,
    towards: Conditioning,
    precision: Precision,
}

impl Asked<'_> {
    /// The guided prediction for samples, `[count, channels, height, width]`, at a timestep. Differentiable.
    ///
    /// # Errors
    /// If the model refuses them.
    pub fn predict(&self, samples: Tensor<4>, timestep: f64) -> Result<Tensor<4>> {
        let timesteps = Tensor::<1>::full([samples.dims()[0]], timestep, &samples.device());
        ops::computing(self.precision, || {
            self.denoiser.denoise(samples, timesteps, &self.towards)
        })
    }
}

impl Plan {
    /// The pipeline's model under this plan's conditions and guidance, for loops of one's own. What a start shows the model is not
    /// among them.
    ///
    /// # Errors
    /// If the guidance makes no sense.
    pub fn asked<'a>(&self, pipeline: &'a Pipeline) -> Result<Asked<'a>> {
        let rows: Vec<usize> = (0..self.count()).map(|number| number % self.rows()).collect();
        let pair = self.pair().rows(&rows);
        let guidance = self.guidance();
        let train_timesteps = self.scheduler().num_train_timesteps();
        let denoiser: Box<dyn Denoiser> = if guidance.is_on() {
            Box::new(Guided::new(
                &pipeline.model,
                pair.away,
                guidance,
                train_timesteps,
            )?)
        } else {
            Box::new(&pipeline.model)
        };
        Ok(Asked {
            denoiser,
            towards: pair.towards,
            precision: self.precision(),
        })
    }
}

/// Between a picture's latents and their noise, by DDIM's deterministic steps.
pub struct Inversion<'a> {
    pipeline: &'a Pipeline,
    ddim: AnyScheduler,
    steps: usize,
}

/// Called after every step with how many are done; `false` ends the walk.
pub(super) type Watched<'w> = &'w mut dyn FnMut(usize) -> bool;

impl<'a> Inversion<'a> {
    /// In so many steps.
    ///
    /// # Errors
    /// If DDIM does not fit the model, or the schedule has fewer steps.
    pub fn new(pipeline: &'a Pipeline, steps: usize) -> Result<Self> {
        let mut ddim = pipeline.sampler("ddim")?.unbounded()?;
        ddim.set_timesteps(steps)?;
        if steps < 3 {
            return Err(Error::option(&["steps"], "an inversion needs at least 3 steps"));
        }
        Ok(Self {
            pipeline,
            ddim,
            steps,
        })
    }

    /// How far a step goes.
    fn stride(&self) -> f64 {
        (self.ddim.num_train_timesteps() / self.steps) as f64
    }

    /// √ᾱ and √(1 - ᾱ) of a timestep.
    fn level(&self, t: f64) -> (f32, f32) {
        let alpha = self.ddim.alphas_cumprod()[t as usize];
        (alpha.sqrt(), (1.0 - alpha).sqrt())
    }

    fn plan(&self, request: &Request, latents: &Tensor<4>) -> Result<Plan> {
        let [count, ..] = latents.dims();
        Plan::of(
            self.pipeline,
            &Request {
                count: Some(count),
                batch_size: count,
                steps: Some(self.steps),
                latents: Some(latents.clone()),
                ..request.clone()
            },
        )
    }

    /// The latents on the way from a picture's to noise, the noisiest last: two fewer than there are steps, as the course's `invert` gives
    /// them. `request` says the text that describes the picture, and the guidance.
    ///
    /// # Errors
    /// If the request does not fit the pipeline.
    pub fn invert(
        &self,
        request: &Request,
        latents: Tensor<4>,
        watched: Watched<'_>,
    ) -> Result<Option<Vec<Tensor<4>>>> {
        let plan = self.plan(request, &latents)?;
        let asked = plan.asked(self.pipeline)?;
        let timesteps: Vec<f64> = self.ddim.timesteps().iter().rev().copied().collect();
        let (mut latents, mut all) = (latents, Vec::new());
        for (done, &t) in timesteps[1..self.steps - 1].iter().enumerate() {
            let noise = asked.predict(latents.clone(), t)?;
            let (signal, deviation) = self.level((t - self.stride()).max(0.0));
            let (next_signal, next_deviation) = self.level(t);
            let clean = latents - noise.clone() * deviation;
            latents = clean * (next_signal / signal) + noise * next_deviation;
            all.push(latents.clone());
            if !watched(done + 1) {
                return Ok(None);
            }
        }
        Ok(Some(all))
    }

    /// The latents after each of `count` steps from step `first` on, from noise that [`Self::invert`] found, under the text of `request`:
    /// the course's `sample`.
    ///
    /// # Errors
    /// If the request does not fit the pipeline.
    pub fn draw(
        &self,
        request: &Request,
        latents: Tensor<4>,
        first: usize,
        count: usize,
        watched: Watched<'_>,
    ) -> Result<Option<Vec<Tensor<4>>>> {
        let plan = self.plan(request, &latents)?;
        let asked = plan.asked(self.pipeline)?;
        let (mut latents, mut all) = (latents, Vec::new());
        let timesteps = self.ddim.timesteps().iter().skip(first).take(count);
        for (done, &t) in timesteps.enumerate() {
            let noise = asked.predict(latents.clone(), t)?;
            let (signal, deviation) = self.level(t);
            let (next_signal, next_deviation) = self.level((t - self.stride()).max(1.0));
            let clean = (latents - noise.clone() * deviation) / signal;
            latents = clean * next_signal + noise * next_deviation;
            all.push(latents.clone());
            if !watched(done + 1) {
                return Ok(None);
            }
        }
        Ok(Some(all))
    }

    /// Where an edit of a picture begins that leaves out the first `first` steps: with the latents of an inversion that are as noisy.
    ///
    /// # Errors
    /// If there are not so many.
    pub fn beginning(inverted: &[Tensor<4>], first: usize) -> Result<Tensor<4>> {
        let place = inverted.len().checked_sub(first + 1);
        let latents = place.and_then(|place| inverted.get(place)).cloned();
        latents.ok_or_else(|| {
            Error::Config(format!(
                "an edit cannot begin at step {first}: the inversion has {} latents, of which the last is step 0",
                inverted.len()
            ))
        })
    }
}
