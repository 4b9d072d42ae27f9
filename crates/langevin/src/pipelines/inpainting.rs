//! RePaint's loop as any other: a scheduler that knows the picture and its mask, and takes steps back by itself.

use burn::tensor::Tensor;

use crate::{
    Error, Result,
    guidance::fits,
    objectives::PredictionType,
    schedulers::{
        AnyScheduler, LoopOptions, RePaintScheduler, Scheduler, StepOptions, StepOutput, predicted_noise_at,
    },
};

/// [`RePaintScheduler`] with what it needs at each step. Its timesteps are those at which the model is asked; the jumps back
/// towards the noise belong to the step before them.
#[derive(Clone, Debug)]
pub(crate) struct Inpainting {
    scheduler: RePaintScheduler,
    prediction_type: PredictionType,
    picture: Tensor<4>,
    mask: Tensor<4>,
    timesteps: Vec<f64>,
    /// For each call of the model, the timesteps whose steps are taken back after it.
    undone: Vec<Vec<f64>>,
    done: usize,
}

impl Inpainting {
    /// With the noise schedule of `scheduler`, for a model that predicts what that one expects.
    pub(crate) fn new(scheduler: &AnyScheduler, picture: Tensor<4>, mask: Tensor<4>) -> Result<Self> {
        let prediction_type = match scheduler.config()?.get("prediction_type") {
            Some(name) => serde_json::from_value(name.clone())
                .map_err(|e| Error::Config(format!("the scheduler's prediction_type is none: {e}")))?,
            None => PredictionType::Epsilon,
        };
        let AnyScheduler::RePaint(scheduler) = scheduler.for_pictures("repaint")? else {
            return Err(Error::Unsupported("RePaint does not fit the model".into()));
        };
        Ok(Self {
            scheduler,
            prediction_type,
            picture,
            mask,
            timesteps: Vec::new(),
            undone: Vec::new(),
            done: 0,
        })
    }
}

impl Scheduler for Inpainting {
    fn set_timesteps(&mut self, num_inference_steps: usize) -> Result<()> {
        self.set_loop(&LoopOptions::steps(num_inference_steps))
    }

    fn set_loop(&mut self, options: &LoopOptions) -> Result<()> {
        self.scheduler.set_loop(options)?;
        (self.timesteps, self.undone, self.done) = (Vec::new(), Vec::new(), 0);
        let mut last = f64::INFINITY;
        for &t in self.scheduler.timesteps() {
            if t < last {
                self.timesteps.push(t);
                self.undone.push(Vec::new());
            } else if let Some(undone) = self.undone.last_mut() {
                undone.push(last);
            }
            last = t;
        }
        Ok(())
    }

    fn set_begin_index(&mut self, index: usize) {
        self.done = index;
    }

    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn step(
        &mut self,
        prediction: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        fits("the picture to paint in", &self.picture, &x)?;
        fits("the mask", &self.mask, &x)?;
        let noise = predicted_noise_at(
            self.prediction_type,
            prediction,
            &x,
            self.scheduler.alphas_cumprod(),
            t,
        )?;
        options.original_image = Some(self.picture.clone());
        options.mask = Some(self.mask.clone());
        let StepOutput {
            mut previous,
            predicted_clean,
        } = self.scheduler.step(noise, t, x, options)?;

        let undone = self.undone.get(self.done).map_or(&[][..], Vec::as_slice);
        for &t in undone {
            let generator = options.generator.as_deref_mut().ok_or_else(|| {
                Error::Config("RePaint draws noise where it steps back, but was given no generator".into())
            })?;
            previous = self.scheduler.undo_step(previous, t, generator)?;
        }
        self.done += 1;
        Ok(StepOutput {
            previous,
            predicted_clean,
        })
    }

    fn add_noise(&self, x0: Tensor<4>, noise: Tensor<4>, timesteps: &[usize]) -> Result<Tensor<4>> {
        self.scheduler.add_noise(x0, noise, timesteps)
    }

    fn num_train_timesteps(&self) -> usize {
        self.scheduler.num_train_timesteps()
    }

    fn alphas_cumprod(&self) -> &[f32] {
        self.scheduler.alphas_cumprod()
    }
}
