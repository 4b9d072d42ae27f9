//! Which model a file is a checkpoint of, by its names and shapes. Mirrors `infer_diffusers_model_type`, which goes by widths alone, where the name of the
//! text encoder says more.

use super::{Component, components, foreign, place_of};
use crate::{Error, Result, named::named_enum, weights::Checkpoint};

named_enum! {
    /// What a single file is a checkpoint of. A file of one component of a model is of the model's kind, as far as its shapes tell it;
    /// [`super::SingleFile::components`] says what it holds.
    pub enum Kind: "a kind of single file" {
        /// Stable Diffusion 1, and what was trained from it.
        Sd1 = "sd1",
        /// Version 1 for inpainting, with nine input channels.
        Sd1Inpaint = "sd1-inpaint",
        /// InstructPix2Pix, with eight input channels.
        InstructPix2Pix = "instruct-pix2pix",
        /// Stable Diffusion 2 for 768 pixels, which predicts velocity.
        Sd2 = "sd2",
        /// Stable Diffusion 2 for 512 pixels, which predicts noise.
        Sd2Base = "sd2-base",
        /// Version 2 for inpainting, with nine input channels.
        Sd2Inpaint = "sd2-inpaint",
        /// Version 2 with a depth map, and so five input channels.
        Sd2Depth = "sd2-depth",
        /// The upscaler to four times the size, with seven input channels.
        Upscale = "upscale",
        /// Stable Diffusion XL.
        Sdxl = "sdxl",
        /// XL for inpainting, with nine input channels.
        SdxlInpaint = "sdxl-inpaint",
        /// XL's refiner.
        SdxlRefiner = "sdxl-refiner",
        /// A ControlNet of versions 1 and 2.
        ControlNet = "controlnet",
        /// A ControlNet of XL.
        ControlNetXl = "controlnet-xl",
        /// An autoencoder alone. Its shapes do not say whether it is XL's; as one of [`Kind::Sdxl`] it is.
        Vae = "vae",
    }
}

impl Kind {
    /// Whether it is Stable Diffusion 2 or made of it.
    pub fn is_version_2(self) -> bool {
        matches!(
            self,
            Self::Sd2 | Self::Sd2Base | Self::Sd2Inpaint | Self::Sd2Depth | Self::Upscale
        )
    }

    /// Whether it is Stable Diffusion XL or made of it.
    pub fn is_xl(self) -> bool {
        matches!(
            self,
            Self::Sdxl | Self::SdxlInpaint | Self::SdxlRefiner | Self::ControlNetXl
        )
    }

    /// Whether a second vector, of text and sizes, is added to the timestep's.
    pub(super) fn has_text_time(self) -> bool {
        self.is_xl()
    }
}

/// The width of the text of version 2, of XL and of its refiner.
const WIDTHS: [usize; 3] = [1024, 2048, 1280];
/// Of a normalisation's bias near the UNet's end in models of version 2: above, a model predicts velocity.
const MOST_DEVIATION: f64 = 0.09;
/// That normalisation, and how wide its layer is in models of that kind.
const TELLING: (&str, usize) = ("output_blocks.11.1.transformer_blocks.0.norm1.bias", 320);
/// The steps of training after which version 2 for 512 pixels was published.
const BASE_STEPS: i64 = 875_000;

/// What a file is a checkpoint of.
///
/// # Errors
/// If it is none of the family.
pub(super) fn recognise(file: &Checkpoint) -> Result<Kind> {
    if let Some(what) = foreign::what(file) {
        return Err(Error::file(file.path(), what));
    }
    let there = components(file);
    if there.contains(&Component::ControlNet) {
        let is_xl = holds(file, &["label_emb.0.0.weight", "add_embedding.linear_1.weight"]);
        return Ok(if is_xl {
            Kind::ControlNetXl
        } else {
            Kind::ControlNet
        });
    }
    if there.contains(&Component::Unet) {
        return of_unet(file);
    }
    match there.as_slice() {
        [Component::Vae, ..] => Ok(Kind::Vae),
        _ => Err(Error::file(file.path(), unknown(file))),
    }
}

/// Why a file is of no kind.
fn unknown(file: &Checkpoint) -> String {
    let first: Vec<&str> = file.names().take(3).collect();
    let names = match first.as_slice() {
        [] => "it holds no tensors".to_string(),
        _ => format!("its first tensors are {}", first.join(", ")),
    };
    format!(
        "is no checkpoint of Stable Diffusion: no name begins with `model.diffusion_model.` or as those of a ControlNet or a VAE do; {names}"
    )
}

/// The kind of a file with a UNet.
fn of_unet(file: &Checkpoint) -> Result<Kind> {
    let shape = |names: &[&str]| names.iter().find_map(|name| unet_shape(file, name));
    let channels =
        shape(&["input_blocks.0.0.weight", "conv_in.weight"]).and_then(|shape| shape.get(1).copied());
    let Some(channels) = channels else {
        let message = "holds a UNet without its first layer, input_blocks.0.0.weight";
        return Err(Error::file(file.path(), message));
    };
    let width = text_width(file);
    let begins = |prefix: &str| file.names_below(prefix).next().is_some();
    let has_label = holds(file, &["label_emb.0.0.weight", "add_embedding.linear_1.weight"]);
    let is_as_wide = |place: usize| has_label && width == Some(WIDTHS[place]);
    Ok(if begins("conditioner.embedders.0.model.") || is_as_wide(2) {
        Kind::SdxlRefiner
    } else if begins("conditioner.embedders.1.model.") || is_as_wide(1) {
        match channels {
            9 => Kind::SdxlInpaint,
            _ => Kind::Sdxl,
        }
    } else if holds(file, &["label_emb.weight"]) {
        Kind::Upscale
    } else if begins("cond_stage_model.model.") || width == Some(WIDTHS[0]) {
        match channels {
            9 => Kind::Sd2Inpaint,
            5 => Kind::Sd2Depth,
            _ if predicts_noise(file)? => Kind::Sd2Base,
            _ => Kind::Sd2,
        }
    } else {
        match channels {
            9 => Kind::Sd1Inpaint,
            8 => Kind::InstructPix2Pix,
            _ => Kind::Sd1,
        }
    })
}

/// Whether one of a model's parameters has such a name.
fn holds(file: &Checkpoint, names: &[&str]) -> bool {
    [Component::Unet, Component::ControlNet]
        .into_iter()
        .any(|component| {
            place_of(file, component).is_some_and(|(prefix, _)| {
                names
                    .iter()
                    .any(|name| file.get(&format!("{prefix}{name}")).is_some())
            })
        })
}

/// The shape of a parameter of the UNet.
fn unet_shape(file: &Checkpoint, name: &str) -> Option<Vec<usize>> {
    let (prefix, _) = place_of(file, Component::Unet)?;
    file.get(&format!("{prefix}{name}"))
        .map(|stored| stored.shape.clone())
}

/// How wide the text is that the UNet looks at.
fn text_width(file: &Checkpoint) -> Option<usize> {
    let (prefix, _) = place_of(file, Component::Unet)?;
    let name = file
        .names_below(prefix)
        .find(|name| name.ends_with(".attn2.to_k.weight"))?;
    file.get(name)?.shape.get(1).copied()
}

/// Whether a model of version 2 predicts noise: what training was resumed from says so, or else how far a bias deviates, as ComfyUI measures it. Where
/// neither can be told, it does not, as diffusers assumes.
fn predicts_noise(file: &Checkpoint) -> Result<bool> {
    if file.step() == Some(BASE_STEPS) {
        return Ok(true);
    }
    let (name, width) = TELLING;
    if unet_shape(file, name) != Some(vec![width]) {
        return Ok(false);
    }
    let prefix = place_of(file, Component::Unet).map_or("", |(prefix, _)| prefix);
    let values = file.read_as(&format!("{prefix}{name}"), false)?;
    Ok(deviation(&values) <= MOST_DEVIATION)
}

/// The standard deviation, as `torch.std` has it.
fn deviation(values: &[f32]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let squares: f64 = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
    (squares / (n - 1.0)).sqrt()
}
