//! What a request means for a pipeline: everything checked, every condition encoded, before the first step.

use std::{fmt, ops::Range, sync::Arc};

use burn::tensor::Tensor;

use super::{
    Facts, memory,
    start::{Begin, MaskCrop, Parts, Rows, Start},
};
use crate::{
    Error, Request, Result, Size,
    codec::Codec,
    conditioning::{self, Ask, DistilledGuidance, Pair, SizeCondition, TextCondition},
    data::Picture,
    guidance::{ClassifierFree, GuidanceSchedule, GuideMaker, LossGuidance, Through},
    models::clip::ClipModel,
    options::SampleOptions,
    pipelines::{Draws, PictureUse, Pipeline, Sampling, cutoff, to_pictures},
    random::Generator,
    schedulers::{AnyScheduler, LoopOptions, Scheduler},
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
    /// Classifier-free guidance, as it is once the pipeline's defaults are known.
    guidance: ClassifierFree,
    image_guidance_scale: Option<f64>,
    /// One row for each picture until all lists have been gone through together.
    pair: Pair,
    /// How many rows that are.
    rows: usize,
    start: Arc<dyn Start>,
    crop: Option<MaskCrop>,
    maker: GuideMaker,
    is_latent: bool,
    notices: Vec<String>,
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
            Some(name) => pipeline.sampler(name)?,
            None => pipeline.scheduler.clone(),
        };
        let mut notices = Vec::new();
        let usage = Usual::of(request, pipeline, &scheduler);
        let guidance = usage.guidance(request.guidance, pipeline);
        check(request, &scheduler, guidance, pipeline)?;
        let maker = GuideMaker {
            mask: request.mask.clone(),
            clip,
            cuts: request.cuts,
            size: size(request, pipeline)?,
            ..pipeline.guide_maker()?
        };
        let Begin {
            start,
            size,
            crop,
            image_guidance_scale,
        } = Begin::of(request, pipeline, &maker)?;
        let maker = GuideMaker { size, ..maker };
        let count = request.count.unwrap_or_else(|| usage.count(request, pipeline));
        let rows = conditioning::rows(request).min(count);
        let mut options = SampleOptions {
            batch_size: rows,
            guidance,
            ..SampleOptions::default()
        };
        let ask = Ask {
            request,
            images: &maker,
            rows,
        };
        conditioning::ask(pipeline.conditions(), &ask, &mut options)?;
        if image_guidance_scale.is_some_and(|scale| scale < 1.0) {
            // As diffusers has it: the picture is shown, and nothing leads.
            options.guidance.scale = None;
        }
        notices.extend(idle_negative(request, &mut options, pipeline));
        notices.extend(idle_sizes(request, pipeline));
        notices.extend(unseen(request, pipeline)?);
        let plan = Self {
            steps: request.steps.unwrap_or(usage.steps),
            guidance: options.guidance,
            image_guidance_scale,
            pair: pipeline.pair(&options, size)?,
            request: request.clone(),
            scheduler,
            count,
            rows,
            start: start.into(),
            crop,
            maker,
            is_latent: pipeline.codec().is_latent(),
            notices,
        };
        let together = plan.count.min(if plan.has_own_seeds() {
            1
        } else {
            plan.batch_size()
        });
        let parts = if plan.guidance.is_on() { 2 } else { 1 };
        memory::check(pipeline, size, parts * together)?;
        // What cannot be begun is refused now.
        plan.batch(
            pipeline,
            0..plan.count.min(plan.batch_size()),
            &mut Generator::new(0),
        )?;
        Ok(plan)
    }

    /// What is worth knowing about the request, such as the part of a text that no model sees.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// How many pictures.
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many are drawn together.
    pub fn batch_size(&self) -> usize {
        self.request.batch_size
    }

    /// The sampler, with the pipeline's noise schedule.
    pub(super) fn scheduler(&self) -> &AnyScheduler {
        &self.scheduler
    }

    /// Classifier-free guidance, with the pipeline's default scale where nobody says.
    pub fn guidance(&self) -> ClassifierFree {
        self.guidance
    }

    pub(super) fn pair(&self) -> &Pair {
        &self.pair
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
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
        match self.request.seeds.as_slice() {
            [] => self.seed().wrapping_add(number as u64),
            seeds => seeds[number % seeds.len()],
        }
    }

    /// The seed, or those of the pictures, in words.
    fn seeds(&self) -> String {
        let seeds: Vec<String> = self.request.seeds.iter().map(ToString::to_string).collect();
        match seeds.is_empty() {
            true => self.seed().to_string(),
            false => seeds.join(", "),
        }
    }

    /// Whether every picture has a generator of its own, seeded with one of the request's seeds.
    pub fn has_own_seeds(&self) -> bool {
        !self.request.seeds.is_empty()
    }

    fn start<'a>(
        &self,
        pipeline: &'a Pipeline,
        pictures: Range<usize>,
        mut generator: Draws<'a>,
    ) -> Result<Sampling<'a>> {
        let rows: Vec<usize> = pictures.clone().map(|number| number % self.rows).collect();
        let batch = Rows::new(pictures);
        let mut pair = self.pair.rows(&rows);
        let drawn = generator.get_mut();
        let first = self.start.draw_first(&batch, drawn, pipeline);
        let noise = match &self.request.latents {
            Some(latents) => batch.of(latents),
            None => pipeline.noise(batch.len(), self.maker.size, drawn),
        };
        let parts = Parts {
            batch: &batch,
            first: first.clone(),
            generator: drawn,
            pipeline,
        };
        self.start.show(parts, &mut pair)?;
        let options = SampleOptions {
            batch_size: rows.len(),
            eta: self.request.eta,
            guidance: self.guidance,
            image_guidance_scale: self.image_guidance_scale,
            ..SampleOptions::default()
        };
        let scheduler = self.start.scheduler(&self.scheduler)?;
        let sampling = pipeline.begin_from(
            scheduler,
            &self.loop_options(),
            noise.clone(),
            &options,
            pair,
            generator,
        )?;
        let sampling = self.start.begin(sampling, first, noise, &batch)?;
        match self.request.denoising_end {
            Some(part) => {
                let cutoff = cutoff("denoising_end", part, self.scheduler.num_train_timesteps())?;
                sampling.ending_at(cutoff)
            }
            None => Ok(sampling),
        }
    }

    /// What is said about the loop.
    fn loop_options(&self) -> LoopOptions {
        let request = &self.request;
        let mut options = match request.timesteps.as_slice() {
            [] => LoopOptions::steps(self.steps),
            timesteps => LoopOptions {
                timesteps: Some(timesteps.to_vec()),
                ..LoopOptions::default()
            },
        };
        options.original_inference_steps = request.original_inference_steps;
        self.start.set_loop(&mut options);
        options
    }

    /// The pictures that a loop's final samples are: decoded, checked, and put back where a part was painted by itself; and which of them
    /// the pipeline's safety checker flagged, which are black.
    ///
    /// # Errors
    /// If the samples are not of the pipeline's space, or come to what is not numbers.
    pub fn pictures(&self, pipeline: &Pipeline, samples: Tensor<4>) -> Result<(Vec<Picture>, Vec<bool>)> {
        let decoded = pipeline.codec().decode(samples)?;
        // One sum tells, as at the end of a loop.
        if !decoded.clone().abs().sum().into_scalar::<f32>().is_finite() {
            return Err(Error::NotFinite(
                "the decoded pictures are not numbers: the autoencoder's weights are broken".into(),
            ));
        }
        let mut pictures = to_pictures(&decoded)?;
        let flags = match pipeline.safety() {
            Some(safety) => safety.flags(&pictures)?,
            None => vec![false; pictures.len()],
        };
        for (picture, _) in pictures.iter_mut().zip(&flags).filter(|(_, flag)| **flag) {
            *picture = Picture::filled(picture.height(), picture.width(), picture.channels(), 0);
        }
        if let Some(crop) = &self.crop {
            let whole = pictures.into_iter().map(|picture| crop.put_back(picture));
            pictures = whole.collect::<Result<_>>()?;
        }
        Ok((pictures, flags))
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
            seed: number.map_or_else(|| self.seeds(), |number| self.seed_of(number).to_string()),
            scheduler: self.scheduler.class_name(),
            steps: self.steps,
            model,
            eta: self.request.eta,
            prompts: &self.request.prompt,
            negative_prompts: if self.guidance.is_on() {
                &self.request.negative_prompt
            } else {
                &[]
            },
            size: self.is_latent.then_some(self.maker.size),
            clip_skip: self.request.clip_skip,
            guidance: self.guidance,
            guides: &self.request.guide,
            strength: self.start.strength(),
        }
        .texts()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        write!(
            f,
            "drawing {}: {}, {}, seed {}",
            of(self.count, "picture"),
            self.scheduler.class_name(),
            of(self.steps, "step"),
            self.seeds()
        )
    }
}

/// What a call does where its request does not say.
struct Usual {
    steps: usize,
    guidance_scale: Option<f64>,
}

impl Usual {
    fn of(request: &Request, pipeline: &Pipeline, scheduler: &AnyScheduler) -> Self {
        let Some(latent) = pipeline.class().latent else {
            return Self {
                steps: match request.inpaint {
                    Some(_) => pipeline.repaint_steps(),
                    None => scheduler.usual_steps(),
                },
                guidance_scale: None,
            };
        };
        let usage = match (&request.inpaint, &request.init_image) {
            (Some(_), _) => latent.inpaint,
            (None, Some(_)) => latent.picture,
            (None, None) => latent.draw,
        };
        Self {
            steps: usage.steps.min(scheduler.num_train_timesteps()),
            guidance_scale: Some(usage.guidance_scale),
        }
    }

    /// The guidance; of latent classes a scale of at most 1 is none, but where the model is given the scale itself.
    fn guidance(&self, asked: ClassifierFree, pipeline: &Pipeline) -> ClassifierFree {
        let scale = asked.scale.or(self.guidance_scale);
        let is_given = pipeline.condition::<DistilledGuidance>().is_some();
        let none = self.guidance_scale.is_some() && !is_given && scale.is_some_and(|scale| scale <= 1.0);
        ClassifierFree {
            scale: scale.filter(|_| !none),
            ..asked
        }
    }

    /// One for each prompt or seed, or one.
    fn count(&self, request: &Request, pipeline: &Pipeline) -> usize {
        if pipeline.class().latent.is_none() {
            return request.seeds.len().max(1);
        }
        request.prompt.len().max(request.seeds.len()).max(1)
    }
}

/// Leaves out what guidance would lead away from where a latent pipeline guides nothing, with a word.
fn idle_negative(request: &Request, options: &mut SampleOptions, pipeline: &Pipeline) -> Option<String> {
    let given = !request.negative_prompt.is_empty() || !request.negative_prompt_2.is_empty();
    if !given || options.guidance.is_on() || pipeline.class().latent.is_none() {
        return None;
    }
    (options.negative_prompts, options.negative_second_prompts) = (None, None);
    let why = match pipeline.condition::<DistilledGuidance>() {
        Some(_) => "this model is given the guidance scale itself",
        None => "guidance is off at a scale of 1 or less",
    };
    Some(format!("the negative prompt has no effect: {why}"))
}

/// A word about negative sizes of which there is only a part.
fn idle_sizes(request: &Request, pipeline: &Pipeline) -> Option<String> {
    let overlooked = pipeline.condition::<SizeCondition>()?.overlooks(request);
    overlooked.then(|| {
        "the negative sizes have no effect: both the negative original size and the negative target size must be given".into()
    })
}

/// What of the texts is too long to be seen.
fn unseen(request: &Request, pipeline: &Pipeline) -> Result<Vec<String>> {
    let Some(condition) = pipeline.condition::<TextCondition>() else {
        return Ok(Vec::new());
    };
    let first = request.prompt.iter().chain(&request.negative_prompt);
    let mut notices = Vec::new();
    for text in first.chain(&request.prompt_2).chain(&request.negative_prompt_2) {
        if let Some(rest) = condition.unseen(text)? {
            let notice = format!(
                "the text is longer than the model sees; it does not see: {}",
                shortened(&rest)
            );
            if !notices.contains(&notice) {
                notices.push(notice);
            }
        }
    }
    Ok(notices)
}

/// The beginning of a long text, and how many words follow.
fn shortened(text: &str) -> String {
    const WORDS: usize = 30;
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.len() <= WORDS {
        return text.to_string();
    }
    format!(
        "{} … and {} more words",
        words[..WORDS].join(" "),
        words.len() - WORDS
    )
}

/// The size of the pictures: the one that is asked for, if it fits, or the one that the model is made for.
fn size(request: &Request, pipeline: &Pipeline) -> Result<Size> {
    let Some(size) = request.size else {
        return pipeline.size();
    };
    let divisor = pipeline.size_divisor();
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
fn check(
    request: &Request,
    scheduler: &AnyScheduler,
    guidance: ClassifierFree,
    pipeline: &Pipeline,
) -> Result<()> {
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
    guidance.check_idle()?;
    let guided = !request.guide.is_empty();
    let masked = request.guide.iter().any(|guide| guide.needs_mask())
        || request.inpaint.is_some()
        || request.conditioning_image.is_some();
    let latent = pipeline.codec().is_latent();
    let begins = request.init_image.is_some();
    let idle: [(&'static [&'static str], bool); 8] = [
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
            request.strength.is_some() && !begins && !(latent && request.inpaint.is_some()),
        ),
        (
            &["conditioning_as_is", "conditioning_image"],
            request.conditioning_as_is && request.conditioning_image.is_none(),
        ),
        (&["mask", "inpaint"], request.mask.is_some() && !masked),
        (
            &["mask_crop", "inpaint"],
            request.mask_crop.is_some() && request.inpaint.is_none(),
        ),
    ];
    if let Some((options, _)) = idle.into_iter().find(|(_, idle)| *idle) {
        let message = format!("`{}` does nothing without `{}`", options[0], options[1]);
        return Err(Error::option(options, message));
    }
    refuse_unusable(request, pipeline)?;
    let apart: [(&'static [&'static str], bool); 3] = [
        (&["inpaint", "init_image"], begins),
        // RePaint is a sampler of its own.
        (&["inpaint", "scheduler"], request.scheduler.is_some() && !latent),
        (&["inpaint", "strength"], request.strength.is_some() && !latent),
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

/// Refuses what this kind of pipeline cannot use.
fn refuse_unusable(request: &Request, pipeline: &Pipeline) -> Result<()> {
    let latent = pipeline.codec().is_latent();
    let picture_use = pipeline.class().picture_use();
    let second = pipeline
        .condition::<TextCondition>()
        .is_some_and(TextCondition::takes_second_texts);
    let unusable: [(&'static [&'static str], bool, &str); 9] = [
        (
            &["mask_crop"],
            request.mask_crop.is_some() && !latent,
            "paint in latents",
        ),
        (
            &["denoising_end"],
            request.denoising_end.is_some() && !latent,
            "denoise latents",
        ),
        (
            &["denoising_start"],
            request.denoising_start.is_some() && !latent,
            "denoise latents",
        ),
        (
            &["prompt_2"],
            !request.prompt_2.is_empty() && !second,
            "have two text encoders",
        ),
        (
            &["negative_prompt_2"],
            !request.negative_prompt_2.is_empty() && !second,
            "have two text encoders",
        ),
        (
            &["clip_skip"],
            request.clip_skip.is_some() && pipeline.condition::<TextCondition>().is_none(),
            "look at texts",
        ),
        (
            &["image_guidance_scale"],
            request.image_guidance_scale.is_some() && picture_use != PictureUse::Edit,
            "edit pictures by instructions",
        ),
        (
            &["noise_level"],
            request.noise_level.is_some() && picture_use != PictureUse::Upscale,
            "enlarge pictures",
        ),
        (
            &["depth"],
            request.depth.is_some() && picture_use != PictureUse::Depth,
            "are shown depths",
        ),
    ];
    match unusable.into_iter().find(|(_, given, _)| *given) {
        Some((options, _, whose)) => Err(Error::option(
            options,
            format!(
                "`{}` is for pipelines that {whose}, and this is a {}",
                options[0],
                pipeline.class().name
            ),
        )),
        None => Ok(()),
    }
}
