//! All pictures of a plan, batch after batch.

use std::ops::Range;

use burn::tensor::Tensor;

use super::Plan;
use crate::{
    Error, Request, Result,
    data::Picture,
    ops::in_pool,
    pipelines::{Pipeline, Sampling, Step},
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

    /// A step is done, the `done`th of `total` over all batches; `false` ends the drawing. Where batches are drawn at once, their steps come in
    /// turn.
    ///
    /// # Errors
    /// Whatever goes wrong in looking ends the drawing.
    fn step(&mut self, step: &Step<'_>, done: usize, total: usize) -> Result<bool> {
        let _ = (step, done, total);
        Ok(true)
    }

    /// The pipeline's safety checker has flagged a picture, by its number, and it is black.
    fn flagged(&mut self, number: usize) {
        let _ = number;
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
        let Some(batches) = self.samples(pipeline, watch)? else {
            return Ok(None);
        };
        let mut all = Vec::with_capacity(self.count());
        for batch in batches {
            let (pictures, flags) = self.pictures(pipeline, batch)?;
            let flagged = flags.iter().enumerate().filter(|(_, flag)| **flag);
            flagged.for_each(|(place, _)| watch.flagged(all.len() + place));
            all.extend(pictures);
        }
        Ok(Some(all))
    }

    /// The same before anything is decoded: each batch's samples in the model's space; with a seed for each picture, each picture is a
    /// batch of its own.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn samples(&self, pipeline: &Pipeline, watch: &mut dyn Watch) -> Result<Option<Vec<Tensor<4>>>> {
        let mut generator = Generator::new(self.seed());
        let batches = self.batches();
        let (mut all, mut done) = (Vec::with_capacity(batches.len()), 0);
        for pictures in &batches {
            let sampling = if self.has_own_seeds() {
                self.picture(pipeline, pictures.start)?
            } else {
                self.batch(pipeline, pictures.clone(), &mut generator)?
            };
            let total = batches.len() * self.steps_of_all_passes(sampling.total());
            let Some(mut samples) = walk(sampling, watch, &mut done, total)? else {
                return Ok(None);
            };
            if self.has_second_pass() {
                let second = self.go_on(pipeline, samples, pictures.clone())?;
                samples = match walk(second, watch, &mut done, total)? {
                    Some(samples) => samples,
                    None => return Ok(None),
                };
            }
            all.push(samples);
        }
        Ok(Some(all))
    }

    /// The pictures of each batch; with a seed for each picture, each is a batch of its own.
    pub(super) fn batches(&self) -> Vec<Range<usize>> {
        let together = if self.has_own_seeds() {
            1
        } else {
            self.batch_size()
        };
        let first = (0..self.count()).step_by(together);
        first
            .map(|first| first..self.count().min(first + together))
            .collect()
    }
}

/// Takes all steps of a loop; `None` where `watch` ended it.
fn walk(
    mut sampling: Sampling<'_>,
    watch: &mut dyn Watch,
    done: &mut usize,
    total: usize,
) -> Result<Option<Tensor<4>>> {
    watch.begin(&sampling)?;
    while let Some(step) = sampling.next() {
        let step = step?;
        *done += 1;
        if !watch.step(&step, *done, total)? {
            return Ok(None);
        }
    }
    sampling.finish().map(Some)
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
