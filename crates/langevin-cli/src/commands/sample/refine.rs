//! The second of two models: Stable Diffusion XL's refiner goes on where the base ended.

use anyhow::Result;
use langevin::burn::tensor::Tensor;
use langevin::{
    Pipeline, Request,
    data::{Fit, ImageInput, Picture},
    generate::{Plan, Watch},
};

use crate::processes::Processes;

/// The part of the noise at which the refiner goes on where nobody says.
pub(super) const USUAL_START: f64 = 0.8;

/// What the first model is asked: all but the refiner's scores.
pub(super) fn base(request: &Request) -> Request {
    Request {
        aesthetic_score: None,
        negative_aesthetic_score: None,
        ..request.clone()
    }
}

/// Draws the rest of the steps from the base's latents; `None` where the drawing was ended.
///
/// # Errors
/// If the refiner cannot be loaded, or does not take what the base made.
pub(super) fn run(
    base: Vec<Tensor<4>>,
    request: Request,
    load: impl FnOnce() -> Result<Pipeline>,
    processes: &mut Processes,
    watch: &mut (dyn Watch + Send),
) -> Result<Option<Vec<Picture>>> {
    let pipeline = processes.agree(load())?;
    let request = Request {
        denoising_start: request.denoising_end,
        denoising_end: None,
        init_image: Some(ImageInput::Tensor(Tensor::cat(base, 0))),
        // Its first encoder is the base's second.
        prompt: if request.prompt_2.is_empty() {
            request.prompt
        } else {
            request.prompt_2
        },
        negative_prompt: if request.negative_prompt_2.is_empty() {
            request.negative_prompt
        } else {
            request.negative_prompt_2
        },
        prompt_2: Vec::new(),
        negative_prompt_2: Vec::new(),
        inpaint: None,
        mask: None,
        mask_crop: None,
        // ControlNets are made for the base.
        control: Vec::new(),
        guess_mode: false,
        control_preprocess: Vec::new(),
        control_resize: Fit::Stretch,
        ip_adapter: Vec::new(),
        image_encoder: None,
        strength: None,
        size: None,
        ..request
    };
    let plan = processes.agree(Plan::of(&pipeline, &request).map_err(Into::into))?;
    Ok(plan.run_among(&pipeline, processes.world(), watch)?)
}
