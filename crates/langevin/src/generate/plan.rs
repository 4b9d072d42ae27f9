//! What a request means for a pipeline: everything checked, every condition encoded, before the first step.

use std::{fmt, ops::Range};

use burn::tensor::Tensor;

use super::Facts;
use crate::{
    Error, Request, Result, Size,
    codec::Codec,
    conditioning::{self, Ask, Pair},
    guidance::{GuidanceSchedule, GuideMaker, LossGuidance, Through},
    models::clip::ClipModel,
    options::SampleOptions,
    pipelines::{Inpainting, Pipeline, Sampling},
    random::Generator,
    schedulers::{AnyScheduler, Scheduler},
};

/// A request that fits a pipeline, and whose conditions have been encoded once.
///
/// It does not hold the pipeline, so that it can wait where other plans of the same pipeline are drawn; it is drawn with the one that
/// it was made for.
#[derive(Clone, Debug)]
pub struct Plan {
    request: Request,
    scheduler: AnyScheduler,
    steps: usize,
    count: usize,
    /// One row for each picture until all lists have been gone through together.
    pair: Pair,
    /// How many rows that are.
    rows: usize,
    begin: Begin,
    maker: GuideMaker,
}

/// What the first step begins with.
#[derive(Clone, Debug)]
// There is one to a plan.
#[allow(clippy::large_enum_variant)]
enum Begin {
    /// Noise alone.
    Noise,
    /// A picture under noise, in the model's space, and the part of the steps that is walked.
    Picture { latent: Tensor<4>, strength: f64 },
    /// Noise, which becomes the unknown part of a picture; the mask is 1 where it is known.
    Inpainting { latent: Tensor<4>, mask: Tensor<4> },
}

impl Plan {
    /// What a request means for a pipeline.
    ///
    /// # Errors
    /// If it asks for what the pipeline cannot do, or a file that it names cannot be read.
    pub fn of(pipeline: &Pipeline, request: &Request) -> Result<Self> {
        let clip = match &request.clip {
            Some(path) => Some(ClipModel::load(path, &pipeline.model.device())?),
            None => None,
        };
        Self::with_clip(pipeline, request, clip)
    }

    /// The same with a CLIP model that is loaded already.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn with_clip(pipeline: &Pipeline, request: &Request, clip: Option<ClipModel>) -> Result<Self> {
        let scheduler = match &request.scheduler {
            Some(name) => pipeline.scheduler.for_model(name)?,
            None => pipeline.scheduler.clone(),
        };
        check(request, &scheduler)?;
        let size = size(request, pipeline)?;
        let maker = GuideMaker {
            mask: request.mask.clone(),
            clip,
            cuts: request.cuts,
            size,
            ..pipeline.guide_maker()?
        };
        let count = request.count.unwrap_or(1);
        let rows = conditioning::rows(request).min(count);
        let mut options = SampleOptions {
            batch_size: rows,
            guidance: request.guidance,
            ..SampleOptions::default()
        };
        let ask = Ask {
            request,
            images: &maker,
            rows,
        };
        conditioning::ask(pipeline.conditions(), &ask, &mut options)?;
        let begin = Begin::of(request, pipeline, &maker)?;
        let plan = Self {
            steps: request.steps.unwrap_or_else(|| match begin {
                Begin::Inpainting { .. } => pipeline.repaint_steps(),
                _ => scheduler.usual_steps(),
            }),
            pair: pipeline.pair(&options, size)?,
            request: request.clone(),
            scheduler,
            count,
            rows,
            begin,
            maker,
        };
        // What cannot be begun is refused now.
        plan.batch(
            pipeline,
            0..plan.count.min(plan.batch_size()),
            &mut Generator::new(0),
        )?;
        Ok(plan)
    }

    /// How many pictures.
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many are drawn together.
    pub fn batch_size(&self) -> usize {
        self.request.batch_size
    }

    /// Denoising steps.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.request.seed
    }

    /// The loop that draws a batch of the pictures; what is random is drawn from `generator` in the order of diffusers' call.
    ///
    /// # Errors
    /// If it cannot begin.
    pub fn batch<'a>(
        &self,
        pipeline: &'a Pipeline,
        pictures: Range<usize>,
        generator: &'a mut Generator,
    ) -> Result<Sampling<'a>> {
        let sampling = self.start(pipeline, pictures, generator.into())?;
        self.guided(sampling, self.seed())
    }

    /// The loop that draws one of the pictures, with a generator of its own: what a program keeps that has many loops under way.
    ///
    /// # Errors
    /// If it cannot begin.
    pub fn picture<'a>(&self, pipeline: &'a Pipeline, number: usize) -> Result<Sampling<'a>> {
        let seed = self.seed_of(number);
        let sampling = self.start(pipeline, number..number + 1, Generator::new(seed).into())?;
        self.guided(sampling, seed)
    }

    /// The seed of a picture that is drawn with a generator of its own.
    pub fn seed_of(&self, number: usize) -> u64 {
        self.seed().wrapping_add(number as u64)
    }

    fn start<'a>(
        &self,
        pipeline: &'a Pipeline,
        pictures: Range<usize>,
        generator: crate::pipelines::Draws<'a>,
    ) -> Result<Sampling<'a>> {
        let rows: Vec<usize> = pictures.map(|number| number % self.rows).collect();
        let options = SampleOptions {
            batch_size: rows.len(),
            eta: self.request.eta,
            guidance: self.request.guidance,
            ..SampleOptions::default()
        };
        let scheduler: Box<dyn Scheduler> = match &self.begin {
            Begin::Inpainting { latent, mask } => {
                Box::new(Inpainting::new(&self.scheduler, latent.clone(), mask.clone())?)
            }
            _ => Box::new(self.scheduler.clone()),
        };
        let pair = self.pair.rows(&rows);
        let sampling =
            pipeline.begin_with(scheduler, self.steps, self.maker.size, &options, pair, generator)?;
        match &self.begin {
            Begin::Picture { latent, strength } => sampling.starting_from(latent, *strength),
            _ => Ok(sampling),
        }
    }

    /// The loop led by the request's losses; what is random in them comes from `seed`.
    fn guided<'a>(&self, sampling: Sampling<'a>, seed: u64) -> Result<Sampling<'a>> {
        let request = &self.request;
        if request.guide.is_empty() {
            return Ok(sampling);
        }
        let mut guidance = LossGuidance::new(request.guide_through)
            .with_schedule(request.guide_schedule)
            .with_generator(Generator::new(seed));
        if let Some(norm) = request.guide_clip {
            guidance = guidance.with_max_norm(norm);
        }
        for guide in &request.guide {
            guidance = guidance.with(self.maker.make(guide)?, guide.scale);
        }
        Ok(sampling.guided_by(guidance))
    }

    /// What a picture's file says about how it was drawn, by the model of this name. Of a picture that was drawn with a generator of its
    /// own, `number` says which.
    pub fn facts(&self, model: &str, number: Option<usize>) -> Vec<(&'static str, String)> {
        Facts {
            seed: number.map_or(self.seed(), |number| self.seed_of(number)),
            scheduler: self.scheduler.class_name(),
            steps: self.steps,
            model,
            eta: self.request.eta,
            prompts: &self.request.prompt,
            guidance: self.request.guidance,
            guides: &self.request.guide,
            strength: match self.begin {
                Begin::Picture { strength, .. } => Some(strength),
                _ => None,
            },
        }
        .texts()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pictures = if self.count == 1 { "picture" } else { "pictures" };
        write!(
            f,
            "drawing {} {pictures}: {}, {} steps, seed {}",
            self.count,
            self.scheduler.class_name(),
            self.steps,
            self.seed()
        )
    }
}

impl Begin {
    fn of(request: &Request, pipeline: &Pipeline, maker: &GuideMaker) -> Result<Self> {
        let encode = |picture| pipeline.codec().encode(picture);
        Ok(match (&request.init_image, &request.inpaint) {
            (Some(image), _) => Self::Picture {
                latent: encode(maker.image(image)?)?,
                strength: request.strength.unwrap_or(Sampling::USUAL_STRENGTH),
            },
            (None, Some(image)) => {
                let (picture, mask) = maker.masked(image)?;
                Self::Inpainting {
                    latent: encode(picture)?,
                    mask,
                }
            }
            (None, None) => Self::Noise,
        })
    }
}

/// The size of the pictures: the one that is asked for, if it fits, or the one that the model is made for.
fn size(request: &Request, pipeline: &Pipeline) -> Result<Size> {
    let Some(size) = request.size else {
        return pipeline.size();
    };
    let divisor = pipeline.model.config().size_divisor();
    if size.height.is_multiple_of(divisor) && size.width.is_multiple_of(divisor) {
        return Ok(size);
    }
    let smaller = |side: usize| (side / divisor * divisor).max(divisor);
    let larger = |side: usize| side.div_ceil(divisor) * divisor;
    let of = |side: &dyn Fn(usize) -> usize| Size {
        height: side(size.height),
        width: side(size.width),
    };
    Err(Error::option(
        &["size"],
        format!(
            "`size` is {size}, and this model's pictures have widths and heights divisible by {divisor}: {} or {}, say",
            of(&smaller),
            of(&larger)
        ),
    ))
}

/// Refuses values that make no sense, and options that would do nothing beside the others.
fn check(request: &Request, scheduler: &AnyScheduler) -> Result<()> {
    let zero = |option: &'static [&'static str]| {
        Err(Error::option(
            option,
            format!("`{}` is 0; it must be at least 1", option[0]),
        ))
    };
    match (request.count, request.batch_size, request.steps) {
        (Some(0), ..) => return zero(&["count"]),
        (_, 0, _) => return zero(&["batch_size"]),
        (.., Some(0)) => return zero(&["steps"]),
        _ => {}
    }
    if request.eta.is_some() && !scheduler.takes_eta() {
        return Err(Error::option(
            &["eta", "scheduler"],
            "`eta` belongs to the ddim and tcd schedulers; add `scheduler` ddim",
        ));
    }
    if let Some(norm) = request.guide_clip.filter(|norm| norm.is_nan() || *norm <= 0.0) {
        return Err(Error::option(
            &["guide_clip"],
            format!("`guide_clip` is {norm}; it must be above 0"),
        ));
    }
    request.guidance.check_idle()?;
    let guided = !request.guide.is_empty();
    let masked = request.guide.iter().any(|guide| guide.needs_mask())
        || request.inpaint.is_some()
        || request.conditioning_image.is_some();
    let idle: [(&'static [&'static str], bool); 7] = [
        (
            &["guide_through", "guide"],
            request.guide_through != Through::Clean && !guided,
        ),
        (
            &["guide_schedule", "guide"],
            request.guide_schedule != GuidanceSchedule::Signal && !guided,
        ),
        (
            &["clip", "guide"],
            request.clip.is_some() && !guided && request.vector_of.is_none(),
        ),
        (&["guide_clip", "guide"], request.guide_clip.is_some() && !guided),
        (
            &["strength", "init_image"],
            request.strength.is_some() && request.init_image.is_none(),
        ),
        (
            &["conditioning_as_is", "conditioning_image"],
            request.conditioning_as_is && request.conditioning_image.is_none(),
        ),
        (&["mask", "inpaint"], request.mask.is_some() && !masked),
    ];
    if let Some((options, _)) = idle.into_iter().find(|(_, idle)| *idle) {
        let message = format!("`{}` does nothing without `{}`", options[0], options[1]);
        return Err(Error::option(options, message));
    }
    let apart: [(&'static [&'static str], bool); 2] = [
        (&["inpaint", "init_image"], request.init_image.is_some()),
        (&["inpaint", "scheduler"], request.scheduler.is_some()),
    ];
    match apart
        .into_iter()
        .find(|(_, given)| *given && request.inpaint.is_some())
    {
        Some((options, _)) => Err(Error::option(
            options,
            format!("`{}` and `{}` do not go together", options[0], options[1]),
        )),
        None => Ok(()),
    }
}
