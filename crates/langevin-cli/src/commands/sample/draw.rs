//! The drawing itself: batch after batch, step after step.

use anyhow::{Result, bail};
use burn::tensor::Tensor;
use langevin::{
    data::Picture,
    guidance::{ClassifierFree, GuideMaker},
    pipelines::{ConditioningImage, Facts, Pipeline, SampleOptions, Sampling, to_pictures},
    random::Generator,
};

use super::animation::Animation;
use crate::{commands::guidance::LossArgs, progress::Progress, stop::Stop};

/// What is to be drawn.
pub struct Drawing {
    /// The pipeline, with the scheduler that was asked for.
    pub pipeline: Pipeline,
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
    /// DDIM's η or TCD's γ, where it is not the sampler's own.
    pub eta: Option<f64>,
    /// The classes that the pictures take turns in; none for an unconditional model.
    pub classes: Vec<i64>,
    /// The texts that the pictures take turns in.
    pub prompts: Vec<String>,
    /// The text that guidance leads away from, where it is not the empty one.
    pub negative_prompt: Option<String>,
    /// What the model is shown beside the noisy picture.
    pub conditioning_image: Option<ConditioningImage>,
    /// The vector that it is told, `[1, dimension]`.
    pub vector: Option<Tensor<2>>,
    /// Guidance towards them.
    pub guidance: ClassifierFree,
    /// The class that guidance leads away from, where it is not the null class.
    pub negative: Option<i64>,
    /// Guidance by losses.
    pub losses: LossArgs,
    /// What they are made with.
    pub maker: GuideMaker,
    /// What the first step begins with.
    pub begin: Begin,
}

/// What the first step begins with.
#[allow(clippy::large_enum_variant)] // There is one.
pub enum Begin {
    /// Noise alone.
    Noise,
    /// A picture under noise.
    Picture {
        /// `[1, channels, height, width]` in -1..1.
        picture: Tensor<4>,
        /// The part of the steps that is walked.
        strength: f64,
    },
    /// Noise, which becomes the unknown part of a picture.
    Inpainting {
        /// `[1, channels, height, width]` in -1..1.
        picture: Tensor<4>,
        /// `[1, 1, height, width]`, 1 where the picture is known.
        mask: Tensor<4>,
    },
}

impl Drawing {
    /// What a picture's file says about how it was made.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        Facts {
            seed: self.seed,
            scheduler: self.pipeline.scheduler.class_name(),
            steps: self.steps,
            model: &self.model,
            eta: self.eta,
            prompts: &self.prompts,
            guidance: self.guidance,
            guides: &self.losses.guide,
            strength: match self.begin {
                Begin::Picture { strength, .. } => Some(strength),
                _ => None,
            },
        }
        .texts()
    }

    /// Begins the first batch's loop, to find out before anything is drawn what cannot be.
    pub fn check(&self) -> Result<()> {
        let batch = self.batch_size.min(self.count);
        self.start(0, batch, &mut Generator::new(self.seed)).map(drop)
    }

    /// The loop of a batch whose first picture is number `first`.
    fn start<'a>(&'a self, first: usize, batch: usize, generator: &'a mut Generator) -> Result<Sampling<'a>> {
        let options = SampleOptions {
            batch_size: batch,
            num_inference_steps: Some(self.steps),
            eta: self.eta,
            classes: turns(&self.classes, first, batch),
            prompts: turns(&self.prompts, first, batch),
            conditioning_image: self.conditioning_image.clone(),
            vectors: self.vector.clone(),
            negative_prompts: self.negative_prompt.clone().map(|text| vec![text; batch]),
            guidance: self.guidance,
            negative_classes: self.negative.map(|class| vec![class; batch]),
            ..SampleOptions::default()
        };
        let sampling = match &self.begin {
            Begin::Noise => self.pipeline.sample(&options, generator)?,
            Begin::Picture { picture, strength } => {
                let sampling = self.pipeline.sample(&options, generator)?;
                sampling.starting_from(picture, *strength)?
            }
            Begin::Inpainting { picture, mask } => {
                let (picture, mask) = (picture.clone(), mask.clone());
                self.pipeline.inpaint(picture, mask, &options, generator)?
            }
        };
        if !self.losses.is_given() {
            return Ok(sampling);
        }
        Ok(sampling.guided_by(self.losses.make(&self.maker, self.seed)?))
    }

    /// The sizes of the batches: all the same but for the last.
    fn batches(&self) -> impl Iterator<Item = usize> {
        let (count, batch_size) = (self.count, self.batch_size);
        (0..count)
            .step_by(batch_size)
            .map(move |first| batch_size.min(count - first))
    }
}

/// What the pictures from `first` on take of what they take turns in; `None` where there is nothing.
fn turns<T: Clone>(all: &[T], first: usize, batch: usize) -> Option<Vec<T>> {
    (!all.is_empty()).then(|| {
        let turns = all.iter().cloned().cycle();
        turns.skip(first % all.len()).take(batch).collect()
    })
}

impl std::fmt::Display for Drawing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pictures = if self.count == 1 { "picture" } else { "pictures" };
        let scheduler = self.pipeline.scheduler.class_name();
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
    let mut bar = None;
    let mut pictures = Vec::with_capacity(drawing.count);
    for (number, batch) in drawing.batches().enumerate() {
        let mut sampling = drawing.start(pictures.len(), batch, &mut generator)?;
        let calls = sampling.total();
        if let Some(animation) = animation.as_deref_mut() {
            animation.frames.begin(&sampling)?;
        }
        while let Some(step) = sampling.next() {
            let step = step?;
            if let Some(animation) = animation.as_deref_mut() {
                animation.frames.show(&step)?;
            }
            let bar = bar.get_or_insert_with(|| Progress::new("step", batches * calls));
            bar.update(number * calls + step.index + 1, || {
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
