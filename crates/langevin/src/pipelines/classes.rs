//! The table of pipeline classes: what diffusers calls them, what they consist of, and what their calls do where nobody says.

use crate::schedulers::AnyScheduler;

/// What a component is in its pipeline. What conditions consist of, such as text encoders, is theirs to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What denoises.
    Denoiser,
    /// The noise schedule and the rule of its steps.
    Scheduler,
    /// Between pictures and what the model denoises.
    Codec,
    /// The noise schedule of the small picture that is enlarged.
    LowResolutionScheduler,
}

/// What becomes of the picture that a request begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureUse {
    /// It is noised and drawn anew.
    Start,
    /// It is shown to the model, which edits it (InstructPix2Pix).
    Edit,
    /// It is noised and drawn anew, beside its depths.
    Depth,
    /// The model draws others like it.
    Variation,
    /// The model draws it larger.
    Upscale,
}

/// What a call does where nobody says.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Denoising steps.
    pub steps: usize,
    /// The scale of classifier-free guidance.
    pub guidance_scale: f64,
    /// The part of the steps that is walked from a picture.
    pub strength: f64,
}

/// The defaults of a class that denoises latents.
#[derive(Clone, Copy, Debug)]
pub struct LatentUsage {
    /// From noise.
    pub draw: Usage,
    /// From a picture.
    pub picture: Usage,
    /// In a part of a picture.
    pub inpaint: Usage,
    /// What becomes of a picture.
    pub picture_use: PictureUse,
    /// Whether steps count from the second timestep whatever the scheduler's file says, as the constructors of diffusers' classes have it.
    pub insists_on_offset: bool,
    /// Whether the sampler is given the strength, as latent consistency models' is, and does not leave out steps for it.
    pub strength_in_loop: bool,
}

/// A row of the table: a class of diffusers' pipelines.
#[derive(Debug)]
pub struct PipelineClass {
    /// Its name in a pipeline's index.
    pub name: &'static str,
    /// The components that it cannot do without: their names, and so their folders', and what they are.
    pub components: &'static [(&'static str, Role)],
    /// The sampler that it has whatever its folder holds; `None` where it takes any.
    pub sampler: Option<&'static str>,
    /// What its calls do; `None` where it denoises pictures and the scheduler says.
    pub latent: Option<LatentUsage>,
    /// Whether a pipeline of pictures with this scheduler is of this class. The last row that says yes names it.
    holds: fn(&AnyScheduler) -> bool,
}

/// A UNet and a scheduler.
const UNET_AND_SCHEDULER: &[(&str, Role)] = &[("unet", Role::Denoiser), ("scheduler", Role::Scheduler)];
/// The same in an autoencoder's space.
const STABLE_DIFFUSION: &[(&str, Role)] = &[
    ("unet", Role::Denoiser),
    ("scheduler", Role::Scheduler),
    ("vae", Role::Codec),
];

const fn usage(steps: usize, guidance_scale: f64, strength: f64) -> Usage {
    Usage {
        steps,
        guidance_scale,
        strength,
    }
}

/// What Stable Diffusion does with a picture, and with none.
const fn stable(picture_use: PictureUse) -> LatentUsage {
    LatentUsage {
        draw: usage(50, 7.5, 1.0),
        picture: usage(50, 7.5, 0.8),
        inpaint: usage(50, 7.5, 1.0),
        picture_use,
        insists_on_offset: matches!(picture_use, PictureUse::Start),
        strength_in_loop: false,
    }
}

const XL: LatentUsage = LatentUsage {
    draw: usage(50, 5.0, 1.0),
    picture: usage(50, 5.0, 0.3),
    // So that the picture still shows through.
    inpaint: usage(50, 7.5, 0.9999),
    picture_use: PictureUse::Start,
    insists_on_offset: false,
    strength_in_loop: false,
};

const CONSISTENCY: LatentUsage = LatentUsage {
    draw: usage(4, 8.5, 1.0),
    picture: usage(4, 8.5, 0.8),
    inpaint: usage(4, 8.5, 1.0),
    picture_use: PictureUse::Start,
    insists_on_offset: false,
    strength_in_loop: true,
};

const fn of(name: &'static str, latent: LatentUsage) -> PipelineClass {
    PipelineClass {
        name,
        components: STABLE_DIFFUSION,
        sampler: None,
        latent: Some(latent),
        holds: |_| false,
    }
}

/// Every class that there is.
pub(super) static CLASSES: [PipelineClass; 16] = [
    PipelineClass {
        name: "DDPMPipeline",
        components: UNET_AND_SCHEDULER,
        sampler: None,
        latent: None,
        holds: |_| true,
    },
    PipelineClass {
        name: "DDIMPipeline",
        components: UNET_AND_SCHEDULER,
        sampler: Some("ddim"),
        latent: None,
        holds: |scheduler| matches!(scheduler, AnyScheduler::DDIM(_)),
    },
    of("StableDiffusionPipeline", stable(PictureUse::Start)),
    of("StableDiffusionImg2ImgPipeline", stable(PictureUse::Start)),
    of("StableDiffusionInpaintPipeline", stable(PictureUse::Start)),
    of("StableDiffusionDepth2ImgPipeline", stable(PictureUse::Depth)),
    of(
        "StableDiffusionInstructPix2PixPipeline",
        LatentUsage {
            picture: usage(100, 7.5, 1.0),
            ..stable(PictureUse::Edit)
        },
    ),
    of(
        "StableDiffusionImageVariationPipeline",
        stable(PictureUse::Variation),
    ),
    PipelineClass {
        components: &[
            ("unet", Role::Denoiser),
            ("scheduler", Role::Scheduler),
            ("vae", Role::Codec),
            ("low_res_scheduler", Role::LowResolutionScheduler),
        ],
        ..of(
            "StableDiffusionUpscalePipeline",
            LatentUsage {
                picture: usage(75, 9.0, 1.0),
                ..stable(PictureUse::Upscale)
            },
        )
    },
    of("LatentConsistencyModelPipeline", CONSISTENCY),
    of("LatentConsistencyModelImg2ImgPipeline", CONSISTENCY),
    of("StableDiffusionXLPipeline", XL),
    of("StableDiffusionXLImg2ImgPipeline", XL),
    of("StableDiffusionXLInpaintPipeline", XL),
    PipelineClass {
        components: &[
            ("unet", Role::Denoiser),
            ("scheduler", Role::Scheduler),
            ("vqvae", Role::Codec),
        ],
        ..of(
            "LDMPipeline",
            LatentUsage {
                draw: usage(50, 1.0, 1.0),
                picture: usage(50, 1.0, 0.8),
                insists_on_offset: false,
                ..stable(PictureUse::Start)
            },
        )
    },
    PipelineClass {
        components: &[
            ("transformer", Role::Denoiser),
            ("scheduler", Role::Scheduler),
            ("vae", Role::Codec),
        ],
        ..of(
            "DiTPipeline",
            LatentUsage {
                draw: usage(50, 4.0, 1.0),
                picture: usage(50, 4.0, 0.8),
                inpaint: usage(50, 4.0, 1.0),
                insists_on_offset: false,
                ..stable(PictureUse::Start)
            },
        )
    },
];

impl PipelineClass {
    /// Every class that there is.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        CLASSES.iter()
    }

    /// The class of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        // As the exports for another framework call theirs.
        let name = name.strip_prefix("Flax").unwrap_or(name);
        CLASSES.iter().find(|class| class.name == name)
    }

    /// The class of a pipeline of pictures with this scheduler.
    pub fn of(scheduler: &AnyScheduler) -> &'static Self {
        let mut classes = CLASSES.iter().rev();
        // The first row holds any.
        classes
            .find(|class| (class.holds)(scheduler))
            .unwrap_or(&CLASSES[0])
    }

    /// The name of the component of this role.
    pub fn component(&self, role: Role) -> Option<&'static str> {
        let component = self.components.iter().find(|(_, of)| *of == role);
        component.map(|(name, _)| *name)
    }

    /// What becomes of the picture that a request begins with.
    pub fn picture_use(&self) -> PictureUse {
        self.latent.map_or(PictureUse::Start, |latent| latent.picture_use)
    }
}
