//! The table of pipeline classes: what diffusers calls them, what they consist of, and what their calls do where nobody says.

use crate::{models::AnyControlConfig, schedulers::AnyScheduler};

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
    /// What lets pictures follow another: a ControlNet or a T2I-Adapter, or several.
    Control,
    /// Between sounds and their spectrograms, which are the pictures.
    Sound,
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
    /// How strongly controls lead.
    pub control_scale: f64,
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
    /// Whether predicted clean latents are clipped where the scheduler's file says so; those of other classes have no bounds.
    pub clips: bool,
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
    /// The class of the same pipeline with ControlNets; `None` where diffusers has none.
    pub controlled: Option<&'static str>,
    /// That with T2I-Adapters.
    pub adapted: Option<&'static str>,
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

/// Stable Diffusion with ControlNets.
const CONTROLLED: &[(&str, Role)] = &[
    ("unet", Role::Denoiser),
    ("scheduler", Role::Scheduler),
    ("vae", Role::Codec),
    ("controlnet", Role::Control),
];

/// Stable Diffusion with T2I-Adapters.
const ADAPTED: &[(&str, Role)] = &[
    ("unet", Role::Denoiser),
    ("scheduler", Role::Scheduler),
    ("vae", Role::Codec),
    ("adapter", Role::Control),
];

/// The class of pipelines that draw sounds, with an autoencoder or without one.
pub(super) const AUDIO: &str = "AudioDiffusionPipeline";

const fn usage(steps: usize, guidance_scale: f64, strength: f64) -> Usage {
    Usage {
        steps,
        guidance_scale,
        strength,
        control_scale: 1.0,
    }
}

impl Usage {
    /// The same with controls that lead so strongly.
    const fn controlled(self, control_scale: f64) -> Self {
        Self {
            control_scale,
            ..self
        }
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
        clips: false,
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
    clips: false,
    strength_in_loop: false,
};

const STABLE_CONTROLLED: LatentUsage = LatentUsage {
    picture: usage(50, 7.5, 0.8).controlled(0.8),
    inpaint: usage(50, 7.5, 1.0).controlled(0.5),
    insists_on_offset: false,
    ..stable(PictureUse::Start)
};

const XL_CONTROLLED: LatentUsage = LatentUsage {
    picture: usage(50, 5.0, 0.8).controlled(0.8),
    inpaint: usage(50, 5.0, 0.9999),
    ..XL
};

const CONSISTENCY: LatentUsage = LatentUsage {
    draw: usage(4, 8.5, 1.0),
    picture: usage(4, 8.5, 0.8),
    inpaint: usage(4, 8.5, 1.0),
    picture_use: PictureUse::Start,
    insists_on_offset: false,
    clips: false,
    strength_in_loop: true,
};

const fn of(name: &'static str, latent: LatentUsage) -> PipelineClass {
    PipelineClass {
        name,
        components: STABLE_DIFFUSION,
        sampler: None,
        latent: Some(latent),
        controlled: None,
        adapted: None,
        holds: |_| false,
    }
}

/// A class that is of another name with controls.
const fn and_controlled(name: &'static str, controlled: &'static str, latent: LatentUsage) -> PipelineClass {
    PipelineClass {
        controlled: Some(controlled),
        ..of(name, latent)
    }
}

/// A class that has T2I-Adapters.
const fn adapted(name: &'static str, latent: LatentUsage) -> PipelineClass {
    PipelineClass {
        components: ADAPTED,
        adapted: Some(name),
        ..of(name, latent)
    }
}

/// A class that has ControlNets.
const fn controlled(name: &'static str, latent: LatentUsage) -> PipelineClass {
    PipelineClass {
        components: CONTROLLED,
        ..and_controlled(name, name, latent)
    }
}

/// Every class that there is.
pub(super) static CLASSES: [PipelineClass; 26] = [
    PipelineClass {
        name: "DDPMPipeline",
        components: UNET_AND_SCHEDULER,
        sampler: None,
        latent: None,
        controlled: None,
        adapted: None,
        holds: |_| true,
    },
    PipelineClass {
        name: "DDIMPipeline",
        components: UNET_AND_SCHEDULER,
        sampler: Some("ddim"),
        latent: None,
        controlled: None,
        adapted: None,
        holds: |scheduler| matches!(scheduler, AnyScheduler::DDIM(_)),
    },
    PipelineClass {
        adapted: Some("StableDiffusionAdapterPipeline"),
        ..and_controlled(
            "StableDiffusionPipeline",
            "StableDiffusionControlNetPipeline",
            stable(PictureUse::Start),
        )
    },
    and_controlled(
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionControlNetImg2ImgPipeline",
        stable(PictureUse::Start),
    ),
    and_controlled(
        "StableDiffusionInpaintPipeline",
        "StableDiffusionControlNetInpaintPipeline",
        stable(PictureUse::Start),
    ),
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
    PipelineClass {
        adapted: Some("StableDiffusionXLAdapterPipeline"),
        ..and_controlled(
            "StableDiffusionXLPipeline",
            "StableDiffusionXLControlNetPipeline",
            XL,
        )
    },
    and_controlled(
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLControlNetImg2ImgPipeline",
        XL,
    ),
    and_controlled(
        "StableDiffusionXLInpaintPipeline",
        "StableDiffusionXLControlNetInpaintPipeline",
        XL,
    ),
    controlled("StableDiffusionControlNetPipeline", STABLE_CONTROLLED),
    controlled("StableDiffusionControlNetImg2ImgPipeline", STABLE_CONTROLLED),
    controlled("StableDiffusionControlNetInpaintPipeline", STABLE_CONTROLLED),
    controlled("StableDiffusionXLControlNetPipeline", XL_CONTROLLED),
    controlled("StableDiffusionXLControlNetImg2ImgPipeline", XL_CONTROLLED),
    controlled("StableDiffusionXLControlNetInpaintPipeline", XL_CONTROLLED),
    adapted(
        "StableDiffusionAdapterPipeline",
        LatentUsage {
            insists_on_offset: false,
            ..stable(PictureUse::Start)
        },
    ),
    adapted("StableDiffusionXLAdapterPipeline", XL),
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
    PipelineClass {
        name: AUDIO,
        components: &[
            ("mel", Role::Sound),
            ("unet", Role::Denoiser),
            ("scheduler", Role::Scheduler),
        ],
        sampler: None,
        latent: None,
        controlled: None,
        adapted: None,
        holds: |_| false,
    },
    // The same in an autoencoder's space, where there is one.
    PipelineClass {
        components: &[
            ("mel", Role::Sound),
            ("unet", Role::Denoiser),
            ("scheduler", Role::Scheduler),
            ("vqvae", Role::Codec),
        ],
        ..of(
            AUDIO,
            LatentUsage {
                draw: usage(50, 1.0, 1.0),
                picture: usage(50, 1.0, 0.8),
                inpaint: usage(50, 1.0, 1.0),
                insists_on_offset: false,
                clips: true,
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

    /// The class of this name that can have these components; of several, the one that has most of them.
    pub(super) fn with_components<'a>(name: &str, held: impl Fn(&str) -> bool + 'a) -> Option<&'static Self> {
        let first = Self::named(name)?;
        let rows = CLASSES.iter().filter(|class| class.name == first.name);
        let whole = rows.filter(|class| class.components.iter().all(|(name, _)| held(name)));
        whole.max_by_key(|class| class.components.len()).or(Some(first))
    }

    /// The class of pipelines that draw sounds without an autoencoder.
    pub(super) fn of_sounds() -> &'static Self {
        let is_plain = |class: &&Self| class.name == AUDIO && class.latent.is_none();
        CLASSES.iter().find(is_plain).unwrap_or(&CLASSES[0])
    }

    /// The class of a pipeline of pictures with this scheduler.
    pub fn of(scheduler: &AnyScheduler) -> &'static Self {
        let mut classes = CLASSES.iter().rev();
        // The first row holds any.
        classes
            .find(|class| (class.holds)(scheduler))
            .unwrap_or(&CLASSES[0])
    }

    /// The class of the same pipeline with controls of this class, where diffusers has one.
    pub fn with_controls(&self, of: &AnyControlConfig) -> Option<&'static Self> {
        let name = match of {
            AnyControlConfig::ControlNet(_) => self.controlled,
            AnyControlConfig::T2IAdapter(_) => self.adapted,
        };
        name.and_then(Self::named)
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
