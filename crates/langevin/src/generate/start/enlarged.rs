//! The second pass at a larger size: what the first came to, enlarged, is noised and drawn on from there.

use burn::tensor::Tensor;

use super::{Rows, Start};
use crate::{
    Error, Request, Result, Size,
    options::UpscaleBy,
    pipelines::{Pipeline, Sampling},
    schedulers::LoopOptions,
};

/// As A1111 has it, a strength of 1 still leaves the first pass's picture a trace.
const MOST: f64 = 0.999;
/// The part of the noise that is drawn anew where nobody says.
const USUAL_STRENGTH: f64 = 0.5;
/// No picture is made so many times larger in one pass.
const LARGEST: f64 = 8.0;
/// No schedule has so many steps. Texts may change with each, and are read before the sampler is asked.
const LONGEST: usize = 10_000;

/// Where a second pass begins, and how its pictures come to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Enlarged {
    /// The pictures' size.
    pub size: Size,
    /// How they come to it.
    pub by: UpscaleBy,
    strength: f64,
    /// The steps that are taken.
    walked: usize,
    /// Whether the sampler leaves out steps by itself.
    in_loop: bool,
}

impl Enlarged {
    /// The second pass that a request asks for, after a first of so many steps and of this size.
    ///
    /// # Errors
    /// If it makes no sense, or the pipeline cannot take one.
    pub(crate) fn of(
        request: &Request,
        pipeline: &Pipeline,
        steps: usize,
        size: Size,
    ) -> Result<Option<Self>> {
        let Some(factor) = request.upscale else {
            return Ok(None);
        };
        let latent = pipeline.usage(!request.control.is_empty());
        let Some(latent) = latent.filter(|latent| latent.picture_use == crate::pipelines::PictureUse::Start)
        else {
            return Err(Error::option(
                &["upscale"],
                format!(
                    "`upscale` draws latents on at a larger size, which a {} does not",
                    pipeline.class().name
                ),
            ));
        };
        if request.inpaint.is_some() {
            return Err(Error::option(
                &["upscale", "inpaint"],
                "`upscale` and `inpaint` do not go together",
            ));
        }
        if request.denoising_end.is_some() || request.denoising_start.is_some() {
            return Err(Error::option(
                &["upscale", "denoising_end"],
                "`upscale` draws all of the noise away: leave out `denoising_end` and `denoising_start`",
            ));
        }
        if !(factor > 1.0 && factor <= LARGEST) {
            return Err(Error::option(
                &["upscale"],
                format!("`upscale` is {factor}: it must be above 1 and at most {LARGEST}"),
            ));
        }
        let strength = request.upscale_strength.unwrap_or(USUAL_STRENGTH);
        if !(strength > 0.0 && strength <= 1.0) {
            return Err(Error::option(
                &["upscale_strength"],
                format!("`upscale_strength` is {strength}: it must be above 0 and at most 1"),
            ));
        }
        let walked = request.upscale_steps.unwrap_or(steps);
        if walked == 0 {
            return Err(Error::option(
                &["upscale_steps"],
                "`upscale_steps` is 0; it must be at least 1",
            ));
        }
        if pipeline.mel().is_some() {
            return Err(Error::option(
                &["upscale"],
                "`upscale` draws pictures on at a larger size, and this model's are spectrograms: `seconds` makes sounds longer",
            ));
        }
        let divisor = pipeline.size_divisor();
        let side = |side: usize| ((side as f64 * factor) as usize / divisor).max(1) * divisor;
        let enlarged = Self {
            size: Size {
                height: side(size.height),
                width: side(size.width),
            },
            by: request.upscale_by,
            strength,
            walked,
            in_loop: latent.strength_in_loop,
        };
        if enlarged.steps() > LONGEST {
            return Err(Error::option(
                &["upscale_strength", "upscale_steps"],
                format!(
                    "`upscale_strength` {strength} is too little: {walked} steps of it are the last of a schedule of {}, and {LONGEST} are the most",
                    enlarged.steps()
                ),
            ));
        }
        Ok(Some(enlarged))
    }

    /// What is asked for in the second pass.
    pub(crate) fn request(&self, request: &Request) -> Request {
        Request {
            size: Some(self.size),
            steps: Some(self.steps()),
            timesteps: Vec::new(),
            scheduler: request.upscale_scheduler.clone().or(request.scheduler.clone()),
            init_image: None,
            strength: None,
            latents: None,
            upscale: None,
            upscale_strength: None,
            upscale_steps: None,
            upscale_scheduler: None,
            upscale_by: UpscaleBy::Lanczos,
            ..request.clone()
        }
    }

    /// The steps of the whole schedule, of which the last are taken.
    fn steps(&self) -> usize {
        match self.in_loop {
            true => self.walked,
            false => (self.walked as f64 / self.strength.min(MOST)) as usize,
        }
    }

    /// The part of the noise that is drawn anew.
    pub(crate) fn strength(&self) -> f64 {
        self.strength
    }

    /// The steps that are taken.
    pub(crate) fn walked(&self) -> usize {
        self.walked
    }
}

impl Start for Enlarged {
    fn set_loop(&self, options: &mut LoopOptions) {
        if self.in_loop {
            options.strength = Some(self.strength);
        }
    }

    fn begin<'a>(
        &self,
        sampling: Sampling<'a>,
        first: Option<Tensor<4>>,
        _: Tensor<4>,
        _: &Rows,
    ) -> Result<Sampling<'a>> {
        match first {
            Some(latents) if self.in_loop => sampling.starting_from(&latents, 1.0),
            Some(latents) => sampling.walking_last(&latents, self.walked),
            None => Ok(sampling),
        }
    }
}
