//! What a pipeline of a file's components consists of.

use serde_json::{Value, json};

use super::{Component, Kind, SingleFile, schedule};
use crate::models::DIFFUSERS_VERSION;

/// What CLIP's own tokenizer pads with.
const END: &str = "<|endoftext|>";
/// What open_clip's pads with, whose number is 0.
const ZERO: &str = "!";

/// The pipeline's class.
fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::Sd1 | Kind::Sd2 | Kind::Sd2Base | Kind::ControlNet | Kind::Vae => "StableDiffusionPipeline",
        Kind::Sd1Inpaint | Kind::Sd2Inpaint => "StableDiffusionInpaintPipeline",
        Kind::InstructPix2Pix => "StableDiffusionInstructPix2PixPipeline",
        Kind::Sd2Depth => "StableDiffusionDepth2ImgPipeline",
        Kind::Upscale => "StableDiffusionUpscalePipeline",
        Kind::Sdxl | Kind::ControlNetXl => "StableDiffusionXLPipeline",
        Kind::SdxlInpaint => "StableDiffusionXLInpaintPipeline",
        Kind::SdxlRefiner => "StableDiffusionXLImg2ImgPipeline",
    }
}

/// The pipeline's index.
pub(super) fn of(file: &SingleFile) -> Option<Value> {
    let there = file.components();
    if !there.contains(&Component::Unet) {
        return None;
    }
    let kind = file.kind();
    let mut index = json!({ "_class_name": class(kind), "_diffusers_version": DIFFUSERS_VERSION });
    // What a pipeline of the class has beside, of which a file holds nothing.
    let absent: &[&str] = match kind {
        Kind::SdxlRefiner => &["text_encoder", "tokenizer", "image_encoder", "feature_extractor"],
        _ if kind.is_xl() => &["image_encoder", "feature_extractor"],
        Kind::Sd2Depth => &["depth_estimator", "feature_extractor"],
        Kind::Upscale => &["watermarker"],
        _ => &["safety_checker", "feature_extractor", "image_encoder"],
    };
    for name in absent {
        index[*name] = json!([null, null]);
    }
    if kind.is_xl() {
        index["force_zeros_for_empty_prompt"] = (kind != Kind::SdxlRefiner).into();
        if kind == Kind::SdxlRefiner {
            index["requires_aesthetics_score"] = true.into();
        }
    } else if absent.contains(&"safety_checker") {
        index["requires_safety_checker"] = false.into();
    }
    for component in there {
        let class = match component {
            Component::Unet => json!(["diffusers", "UNet2DConditionModel"]),
            Component::Vae => json!(["diffusers", "AutoencoderKL"]),
            Component::TextEncoder => json!(["transformers", "CLIPTextModel"]),
            Component::TextEncoder2 => json!(["transformers", "CLIPTextModelWithProjection"]),
            Component::ControlNet => continue,
        };
        index[component.to_string()] = class;
    }
    for (name, _) in tokenizers(file) {
        index[name] = json!(["transformers", "CLIPTokenizer"]);
    }
    for (name, config) in schedule::of(kind, &file.file) {
        index[name] = json!(["diffusers", config["_class_name"]]);
    }
    Some(index)
}

/// The tokenizers of the text encoders that there are.
pub(super) fn tokenizers(file: &SingleFile) -> Vec<(&'static str, &'static str)> {
    let of = |component| match component {
        Component::TextEncoder if file.kind().is_version_2() => Some(("tokenizer", ZERO)),
        Component::TextEncoder => Some(("tokenizer", END)),
        Component::TextEncoder2 => Some(("tokenizer_2", ZERO)),
        _ => None,
    };
    file.components().into_iter().filter_map(of).collect()
}
