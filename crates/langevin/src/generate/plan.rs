//! What a request means for a pipeline: everything checked, every condition encoded, before the first step.

use std::{cell::RefCell, collections::BTreeMap, fmt, ops::Range, sync::Arc};

use burn::tensor::Tensor;

use super::{
    ControlLoader, Facts,
    check::{check, size},
    control::{self, Controls, Networks},
    image_prompts::{self, Adapters, IpAdapterLoader},
    loras::{self, LoraLoader, Loras},
    memory,
    notices::{idle_negative, idle_networks, idle_sizes, unknown_words, unseen},
    second::Second,
    start::{Begin, Enlarged, MaskCrop, Parts, Rows, Start},
    usual::Usual,
};
use crate::{
    Error, Lora, Request, Result,
    codec::Codec,
    conditioning::{self, Ask, DistilledGuidance, EmbeddingFile, Pair, TextCondition},
    data::Picture,
    guidance::{ClassifierFree, GuideMaker, LossGuidance},
    models::{AnyControl, IpAdapterModel, clip::ClipModel},
    ops,
    options::SampleOptions,
    pipelines::{Draws, Pipeline, Sampling, cutoff, to_pictures},
    random::Generator,
    schedulers::{AnyScheduler, LoopOptions, Scheduler},
    settings::{Drawn, ModelName},
};

/// What a request is drawn with beside its pipeline.
#[derive(Clone)]
pub struct Aids<'a> {
    /// CLIP, for guides and vectors that need it, in place of the request's.
    pub clip: Option<ClipModel>,
    /// Where ControlNets and T2I-Adapters come from that are none of the pipeline's own.
    pub controls: ControlLoader<'a>,
    /// Where IP-Adapters come from.
    pub ip_adapters: IpAdapterLoader<'a>,
    /// Where LoRA come from.
    pub loras: LoraLoader<'a>,
}

/// What `load` gives, which is asked for each name once.
fn once<T: Clone>(load: &dyn Fn(&str) -> Result<T>) -> impl Fn(&str) -> Result<T> {
    let loaded = RefCell::new(BTreeMap::new());
    move |name| {
        if let Some(known) = loaded.borrow().get(name) {
            return Ok(T::clone(known));
        }
        let new = load(name)?;
        loaded.borrow_mut().insert(name.to_owned(), new.clone());
        Ok(new)
    }
}

/// None but the pipeline's own.
impl Default for Aids<'_> {
    fn default() -> Self {
        Self {
            clip: None,
            controls: &|name| Err(control::unknown(name)),
            ip_adapters: &|name| Err(image_prompts::unknown(name)),
            loras: &|name| Err(loras::unknown(name)),
        }
    }
}

impl fmt::Debug for Aids<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aids")
            .field("clip", &self.clip)
            .finish_non_exhaustive()
    }
}

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
    controls: Controls,
    crop: Option<MaskCrop>,
    maker: GuideMaker,
    is_latent: bool,
    loras: Vec<Lora>,
    embeddings: Vec<EmbeddingFile>,
    notices: Vec<String>,
    pub(super) second: Option<Second>,
}

/// The files of learned words that the request's texts have words of.
fn used_embeddings(request: &Request, pipeline: &Pipeline) -> Vec<EmbeddingFile> {
    let Some(condition) = pipeline.condition::<TextCondition>() else {
        return Vec::new();
    };
    let texts = [
        &request.prompt,
        &request.negative_prompt,
        &request.prompt_2,
        &request.negative_prompt_2,
    ];
    let used = condition.learned_files(texts.into_iter().flatten());
    let all = pipeline.embeddings().iter();
    all.filter(|file| used.contains(file.path.as_path()))
        .cloned()
        .collect()
}

impl Plan {
    /// What a request means for a pipeline.
    ///
    /// # Errors
    /// If it asks for what the pipeline cannot do, or a file that it names cannot be read.
    pub fn of(pipeline: &Pipeline, request: &Request) -> Result<Self> {
        let device = pipeline.model.device();
        let controls = |name: &str| AnyControl::open(name, &device);
        let ip_adapters = |name: &str| IpAdapterModel::open(name, request.image_encoder.as_deref(), &device);
        let loras = |name: &str| pipeline.lend(name);
        let aids = Aids {
            controls: &controls,
            ip_adapters: &ip_adapters,
            loras: &loras,
            ..Aids::default()
        };
        Self::with(pipeline, request, aids)
    }

    /// The same with a CLIP model that is loaded already, and of ControlNets the pipeline's own alone.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn with_clip(pipeline: &Pipeline, request: &Request, clip: Option<ClipModel>) -> Result<Self> {
        let aids = Aids {
            clip,
            ..Aids::default()
        };
        Self::with(pipeline, request, aids)
    }

    /// The same with models that are loaded elsewhere: what a program does whose callers may not name files.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn with(pipeline: &Pipeline, request: &Request, aids: Aids<'_>) -> Result<Self> {
        ops::computing(request.precision, || {
            // Both passes, and pictures of one request, share what they name.
            let (controls, ip_adapters) = (once(aids.controls), once(aids.ip_adapters));
            let loras = once(aids.loras);
            let clip = match (aids.clip, &request.clip) {
                (None, Some(path)) => Some(ClipModel::load(path, &pipeline.model.device())?),
                (clip, _) => clip,
            };
            let aids = Aids {
                clip,
                controls: &controls,
                ip_adapters: &ip_adapters,
                loras: &loras,
            };
            let mut plan = Self::checked(pipeline, request, aids.clone(), None)?;
            if let Some(enlarged) = Enlarged::of(request, pipeline, plan.steps, plan.maker.size)? {
                let second = Self::checked(pipeline, &enlarged.request(request), aids, Some(enlarged))?;
                let [channels, height, width] = pipeline.codec().latent_shape(enlarged.size);
                let nothing = Tensor::zeros([1, channels, height, width], &pipeline.model.device());
                // What cannot be begun is refused now.
                let trial = second.start(pipeline, 0..1, Generator::new(0).into(), Some(nothing))?;
                plan.second = Some(Second {
                    total: trial.total(),
                    plan: Box::new(second),
                    enlarged,
                });
            }
            Ok(plan)
        })
    }

    /// A pass of a request: the first, or a second that begins so.
    fn checked(
        pipeline: &Pipeline,
        request: &Request,
        aids: Aids<'_>,
        enlarged: Option<Enlarged>,
    ) -> Result<Self> {
        let Aids {
            clip,
            controls,
            ip_adapters,
            loras,
        } = aids;
        let lent = Loras::of(request, loras)?;
        let pipeline = &*lent.on(pipeline)?;
        let networks = Networks::of(request, pipeline, controls)?;
        let adapters = Adapters::of(request, pipeline, ip_adapters)?;
        let scheduler = match &request.scheduler {
            Some(name) => pipeline.sampler(name)?,
            None => pipeline.scheduler.clone(),
        };
        let mut notices: Vec<String> = lent.notices().filter(|_| enlarged.is_none()).collect();
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
        } = match enlarged {
            Some(enlarged) => Begin {
                size: enlarged.size,
                start: Box::new(enlarged),
                crop: None,
                image_guidance_scale: None,
            },
            None => Begin::of(request, pipeline, &maker)?,
        };
        let maker = GuideMaker { size, ..maker };
        let controls = Controls::of(
            request,
            networks,
            pipeline,
            size,
            crop.as_ref(),
            usage.control_scale,
        )?;
        let count = request.count.unwrap_or_else(|| usage.count(request, pipeline));
        let rows = conditioning::rows(request).min(count);
        let (steps, calls) = match request.timesteps.len() {
            0 => {
                let steps = request.steps.unwrap_or(usage.steps);
                (steps, steps.saturating_mul(scheduler.order()))
            }
            given => (given, given),
        };
        let mut options = SampleOptions {
            batch_size: rows,
            // As a prompt's schedule counts them.
            num_inference_steps: Some(calls),
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
        notices.extend(idle_networks(request));
        notices.extend(unknown_words(request, pipeline));
        if let Some(few) = pipeline.few_steps() {
            // A scale that the model is given is another matter.
            let is_given = pipeline.condition::<DistilledGuidance>().is_some();
            let scale = if is_given { 1.0 } else { guidance.scale() };
            notices.extend(few.warnings(&scheduler, steps, scale));
            let is_chosen =
                request.scheduler.is_none() && request.steps.is_none() && request.guidance.scale.is_none();
            if pipeline.is_quickened() && is_chosen && enlarged.is_none() {
                notices.push(format!(
                    "the LoRA is of {}, so the picture is drawn with {}",
                    few.name(),
                    few.wants()
                ));
            }
        }
        let mut pair = lent.encoding(|| pipeline.pair(&options, size))?;
        lent.put_into(&mut pair, rows);
        adapters.put_into(request, pipeline, &mut pair, rows)?;
        let plan = Self {
            steps,
            guidance: options.guidance,
            image_guidance_scale,
            pair,
            request: request.clone(),
            scheduler,
            count,
            rows,
            start: start.into(),
            controls,
            crop,
            maker,
            is_latent: pipeline.codec().is_latent(),
            loras: pipeline.loras().to_vec(),
            embeddings: used_embeddings(request, pipeline),
            notices,
            second: None,
        };
        let together = plan.count.min(if plan.has_own_seeds() {
            1
        } else {
            plan.batch_size()
        });
        memory::check(
            pipeline,
            size,
            plan.calls() * together,
            !request.control.is_empty(),
        )?;
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

    /// What the model's products are computed in.
    pub fn precision(&self) -> ops::Precision {
        self.request.precision
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

    /// The pictures that ControlNets are shown, at the size and as they are shown them: one after another, control after control.
    pub fn control_pictures(&self) -> &[Picture] {
        self.controls.pictures()
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

    /// What was asked for.
    pub(super) fn request(&self) -> &Request {
        &self.request
    }

    /// How many columns at the beginning of its pictures stay as they are known.
    pub(super) fn keeps(&self) -> usize {
        self.start.keeps()
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
        ops::computing(self.request.precision, || {
            let sampling = self.start(pipeline, pictures, generator.into(), None)?;
            self.guided(sampling, self.seed())
        })
    }

    /// The loop that draws one of the pictures, with a generator of its own: what a program keeps that has many loops under way.
    ///
    /// # Errors
    /// If it cannot begin.
    pub fn picture<'a>(&self, pipeline: &'a Pipeline, number: usize) -> Result<Sampling<'a>> {
        let seed = self.seed_of(number);
        ops::computing(self.request.precision, || {
            let sampling = self.start(pipeline, number..number + 1, Generator::new(seed).into(), None)?;
            self.guided(sampling, seed)
        })
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

    /// The loop of a batch; `first` is what it begins with in place of what is drawn for that.
    pub(super) fn start<'a>(
        &self,
        pipeline: &'a Pipeline,
        pictures: Range<usize>,
        mut generator: Draws<'a>,
        first: Option<Tensor<4>>,
    ) -> Result<Sampling<'a>> {
        let rows: Vec<usize> = pictures.clone().map(|number| number % self.rows).collect();
        let batch = Rows::new(pictures);
        let mut pair = self.pair.rows(&rows);
        let drawn = generator.get_mut();
        let first = first.or_else(|| self.start.draw_first(&batch, drawn, pipeline));
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
        let sampling = sampling.with_controls(self.controls.of_batch(&batch));
        match self.request.denoising_end {
            Some(part) => {
                let cutoff = cutoff("denoising_end", part, self.scheduler.num_train_timesteps())?;
                sampling.ending_at(cutoff)
            }
            None => Ok(sampling),
        }
    }

    /// How often the model looks at each picture in a step.
    pub(super) fn calls(&self) -> usize {
        match &self.pair.parts {
            Some(parts) => parts.weights.len() + 1,
            None => memory::calls(self.guidance.is_on(), self.image_guidance_scale.is_some()),
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
        if pipeline.codec().is_latent() {
            // What the loop worked in goes back before the decoder's large maps are made.
            ops::trim();
        }
        let decoded = ops::computing(self.request.precision, || pipeline.codec().decode(samples))?;
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
    pub(super) fn guided<'a>(&self, sampling: Sampling<'a>, seed: u64) -> Result<Sampling<'a>> {
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
            loras: &self.loras,
            eta: self.request.eta,
            attributes: &self.request.attributes,
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
            upscale: self.second.as_ref().map(|second| {
                let (by, strength) = (second.enlarged.by, second.enlarged.strength());
                format!("to {} by {by}, strength {strength}", second.enlarged.size)
            }),
            controls: &self.request.control,
            image_prompts: &self.request.ip_adapter,
        }
        .texts()
    }
}

impl Plan {
    /// The settings of the pictures for their files, of the model of this name: for AUTOMATIC1111's readers and, under the keyword
    /// `langevin`, for [`Settings::read`](crate::settings::Settings::read). `number` says which picture it is of those that have a generator of their own. Nothing for models that denoise
    /// pictures themselves.
    pub fn settings(&self, model: &ModelName, number: Option<usize>) -> Vec<(&'static str, String)> {
        if !self.is_latent {
            return Vec::new();
        }
        Drawn {
            request: &self.request,
            seed: self.seed_of(number.unwrap_or(0)),
            number,
            count: self.count,
            steps: self.steps,
            guidance_scale: self.guidance.scale(),
            size: self.maker.size,
            strength: self.start.strength(),
            second: self.second.as_ref().map(|second| second.enlarged),
            loras: &self.loras,
            embeddings: &self.embeddings,
            sampler: match &self.request.scheduler {
                Some(name) => name.clone(),
                None => self
                    .scheduler
                    .sampler_name()
                    .unwrap_or(self.scheduler.class_name())
                    .to_owned(),
            },
        }
        .texts(model)
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
