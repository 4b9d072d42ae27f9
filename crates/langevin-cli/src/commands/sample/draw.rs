//! The drawing itself: batch after batch, step after step.

use anyhow::{Result, bail};
use langevin::{
    data::Picture,
    pipelines::{AnyPipeline, SampleOptions, to_pictures},
    random::Generator,
};

use super::animation::Animation;
use crate::{progress::Progress, stop::Stop};

/// What is to be drawn.
pub struct Drawing {
    /// The pipeline, with the scheduler that was asked for.
    pub pipeline: AnyPipeline,
    /// Where it came from.
    pub model: String,
    /// How many pictures.
    pub count: usize,
    /// How many at once.
    pub batch_size: usize,
    /// Denoising steps.
    pub steps: usize,
    /// The generator's seed.
    pub seed: u64,
    /// How often a batch asks the model: some samplers do so more than once a step.
    pub calls: usize,
    /// DDIM's η or TCD's γ, where it is not the sampler's own.
    pub eta: Option<f64>,
    /// The classes that the pictures take turns in; none for an unconditional model.
    pub classes: Vec<i64>,
}

impl Drawing {
    /// What a picture's file says about how it was made.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = vec![
            ("seed", self.seed.to_string()),
            ("scheduler", self.pipeline.scheduler().class_name().to_string()),
            ("steps", self.steps.to_string()),
            ("model", self.model.clone()),
        ];
        if let Some(eta) = self.eta {
            facts.push(("eta", eta.to_string()));
        }
        facts
    }

    /// The sizes of the batches: all the same but for the last.
    fn batches(&self) -> impl Iterator<Item = usize> {
        let (count, batch_size) = (self.count, self.batch_size);
        (0..count)
            .step_by(batch_size)
            .map(move |first| batch_size.min(count - first))
    }

    /// The classes of the pictures from `first` on.
    fn classes(&self, first: usize, batch: usize) -> Option<Vec<i64>> {
        (!self.classes.is_empty()).then(|| {
            let turns = self.classes.iter().copied().cycle();
            turns.skip(first % self.classes.len()).take(batch).collect()
        })
    }
}

impl std::fmt::Display for Drawing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pictures = if self.count == 1 { "picture" } else { "pictures" };
        let scheduler = self.pipeline.scheduler().class_name();
        write!(
            f,
            "drawing {} {pictures}: {scheduler}, {} steps, seed {}",
            self.count, self.steps, self.seed
        )
    }
}

/// Draws the pictures, and shows the animation each step.
pub fn draw(drawing: &Drawing, stop: &Stop, mut animation: Option<&mut Animation>) -> Result<Vec<Picture>> {
    let mut generator = Generator::new(drawing.seed);
    let batches = drawing.batches().count();
    let mut bar = Progress::new("step", batches * drawing.calls);
    let mut pictures = Vec::with_capacity(drawing.count);
    for (number, batch) in drawing.batches().enumerate() {
        let options = SampleOptions {
            batch_size: batch,
            num_inference_steps: Some(drawing.steps),
            eta: drawing.eta,
            classes: drawing.classes(pictures.len(), batch),
            ..SampleOptions::default()
        };
        let mut sampling = drawing.pipeline.sample(&options, &mut generator)?;
        if let Some(animation) = animation.as_deref_mut() {
            animation.begin(&sampling)?;
        }
        while let Some(step) = sampling.next() {
            let step = step?;
            if let Some(animation) = animation.as_deref_mut() {
                animation.show(&step)?;
            }
            bar.update(number * drawing.calls + step.index + 1, || {
                if batches == 1 {
                    String::new()
                } else {
                    format!("batch {}/{batches}", number + 1)
                }
            });
            if stop.requested() {
                bail!("stopped before the pictures were done; nothing was written");
            }
        }
        pictures.extend(to_pictures(&sampling.finish()?)?);
    }
    Ok(pictures)
}
