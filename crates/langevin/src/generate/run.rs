//! All pictures of a plan, batch after batch.

use super::Plan;
use crate::{
    Error, Request, Result,
    codec::Codec,
    data::Picture,
    ops::in_pool,
    pipelines::{Pipeline, Sampling, Step, to_pictures},
    random::Generator,
};

/// Who looks on while pictures are drawn, and may end it.
pub trait Watch {
    /// A batch's loop begins.
    ///
    /// # Errors
    /// Whatever goes wrong in looking ends the drawing.
    fn begin(&mut self, sampling: &Sampling<'_>) -> Result<()> {
        let _ = sampling;
        Ok(())
    }

    /// A step is done, the `done`th of `total` over all batches; `false` ends the drawing.
    ///
    /// # Errors
    /// Whatever goes wrong in looking ends the drawing.
    fn step(&mut self, step: &Step<'_>, done: usize, total: usize) -> Result<bool> {
        let _ = (step, done, total);
        Ok(true)
    }
}

/// Nobody.
impl Watch for () {}

impl Plan {
    /// Draws all pictures with one generator, in the order in which diffusers' calls of one batch after another do; `None` where `watch`
    /// ended it.
    ///
    /// # Errors
    /// If a step fails, or the samples are not numbers at the end.
    pub fn run(&self, pipeline: &Pipeline, watch: &mut dyn Watch) -> Result<Option<Vec<Picture>>> {
        let mut generator = Generator::new(self.seed());
        let batches = self.count().div_ceil(self.batch_size());
        let (mut pictures, mut done) = (Vec::with_capacity(self.count()), 0);
        while pictures.len() < self.count() {
            let first = pictures.len();
            let batch = first..self.count().min(first + self.batch_size());
            let mut sampling = self.batch(pipeline, batch, &mut generator)?;
            let total = batches * sampling.total();
            watch.begin(&sampling)?;
            while let Some(step) = sampling.next() {
                let step = step?;
                done += 1;
                if !watch.step(&step, done, total)? {
                    return Ok(None);
                }
            }
            let samples = pipeline.codec().decode(sampling.finish()?)?;
            pictures.extend(to_pictures(&samples)?);
        }
        Ok(Some(pictures))
    }
}

impl Pipeline {
    /// Draws what is asked for.
    ///
    /// # Errors
    /// If the request does not fit the pipeline, or a step fails.
    pub fn generate(&self, request: &Request) -> Result<Vec<Picture>> {
        let plan = Plan::of(self, request)?;
        let drawn = in_pool(|| plan.run(self, &mut ()))?;
        drawn.ok_or_else(|| Error::Config("the drawing was ended".into()))
    }
}
