//! What of a request is refused before anything is made of it.

use super::notices::shortened;
use crate::{
    Error, Request, Result, Size,
    codec::Mel,
    conditioning::{PromptSyntax, TextCondition},
    data::Fit,
    guidance::{ClassifierFree, GuidanceSchedule, Through},
    options::{UpscaleBy, names_lora},
    pipelines::{PictureUse, Pipeline},
    schedulers::AnyScheduler,
};

/// Refuses values that make no sense, and options that would do nothing beside the others.
pub(super) fn check(
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
    check_tags(request)?;
    let guided = !request.guide.is_empty();
    let masked = request.guide.iter().any(|guide| guide.needs_mask())
        || request.inpaint.is_some()
        || request.conditioning_image.is_some();
    let latent = pipeline.codec().is_latent();
    let begins = request.init_image.is_some() || request.sound.init_audio.is_some();
    let second = request.upscale.is_some();
    let sound = &request.sound;
    let goes_on = sound.init_audio.is_some() || sound.continue_audio.is_some();
    let idle: [(&'static [&'static str], bool); 19] = [
        (
            &["upscale_strength", "upscale"],
            request.upscale_strength.is_some() && !second,
        ),
        (
            &["upscale_steps", "upscale"],
            request.upscale_steps.is_some() && !second,
        ),
        (
            &["upscale_scheduler", "upscale"],
            request.upscale_scheduler.is_some() && !second,
        ),
        (
            &["upscale_by", "upscale"],
            request.upscale_by != UpscaleBy::Lanczos && !second,
        ),
        (
            &["guess_mode", "control"],
            request.guess_mode && request.control.is_empty(),
        ),
        (
            &["control_preprocess", "control"],
            !request.control_preprocess.is_empty() && request.control.is_empty(),
        ),
        (
            &["control_resize", "control"],
            request.control_resize != Fit::Stretch && request.control.is_empty(),
        ),
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
            &["audio_slice", "init_audio"],
            sound.audio_slice.is_some() && sound.init_audio.is_none(),
        ),
        (
            &["start_step", "init_audio"],
            sound.start_step.is_some() && !goes_on,
        ),
        (
            &["mask_start_secs", "init_audio"],
            sound.mask_start_secs.is_some() && !goes_on,
        ),
        (
            &["mask_end_secs", "init_audio"],
            sound.mask_end_secs.is_some() && sound.init_audio.is_none(),
        ),
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
    let together: [(&'static [&'static str], bool); 3] = [
        (&["init_audio", "continue_audio"], sound.continue_audio.is_some()),
        (&["init_audio", "init_image"], request.init_image.is_some()),
        (&["init_audio", "inpaint"], request.inpaint.is_some()),
    ];
    if let Some((options, _)) = together
        .into_iter()
        .find(|(_, given)| *given && sound.init_audio.is_some())
    {
        return Err(Error::option(
            options,
            format!("`{}` and `{}` do not go together", options[0], options[1]),
        ));
    }
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

/// Refuses a prompt that names a LoRA, which is put on a model before it is asked.
fn check_tags(request: &Request) -> Result<()> {
    let texts = [
        &request.prompt,
        &request.prompt_2,
        &request.negative_prompt,
        &request.negative_prompt_2,
    ];
    match texts.into_iter().flatten().find(|text| names_lora(text)) {
        Some(text) => Err(Error::option(
            &["prompt", "lora_dir"],
            format!(
                "the text `{}` names a LoRA, and there is no `lora_dir` to look for it in; only `prompt` may name some",
                shortened(text)
            ),
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
    if let Some(option) = request.sound.first_given().filter(|_| pipeline.mel().is_none()) {
        return Err(Error::option(
            option,
            format!(
                "`{}` is for pipelines that draw sounds, and this is a {}",
                option[0],
                pipeline.class().name
            ),
        ));
    }
    let unusable: [(&'static [&'static str], bool, &str); 10] = [
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
            &["prompt_syntax"],
            request.prompt_syntax != PromptSyntax::Plain && pipeline.condition::<TextCondition>().is_none(),
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

/// The size of the spectrograms of sounds that are so long, or a little longer.
fn wide(seconds: f64, mel: &Mel, own: Size, divisor: usize) -> Result<Size> {
    /// Longer ones would take all memory.
    const LONGEST: f64 = 600.0;
    if !(seconds > 0.0 && seconds <= LONGEST) {
        return Err(Error::option(
            &["seconds"],
            format!("`seconds` is {seconds}; it must be above 0 and at most {LONGEST}"),
        ));
    }
    let columns = (seconds * mel.columns_per_second() - 1e-9).ceil() as usize + 1;
    Ok(Size {
        height: own.height,
        width: columns.next_multiple_of(divisor.max(1)),
    })
}

/// The size of the pictures: the one that is asked for, if it fits, or the one that the model is made for.
pub(super) fn size(request: &Request, pipeline: &Pipeline) -> Result<Size> {
    let divisor = pipeline.size_divisor();
    if let (Some(seconds), Some(mel)) = (request.sound.seconds, pipeline.mel()) {
        return wide(seconds, mel, pipeline.size()?, divisor);
    }
    let Some(size) = request.size else {
        return pipeline.size();
    };
    if let Some(bands) = pipeline.mel().map(|mel| mel.config().y_res)
        && size.height != bands
    {
        return Err(Error::option(
            &["size"],
            format!(
                "`size` is {size}, and this model's pictures are spectrograms of {bands} bands: they are {bands} high"
            ),
        ));
    }
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
