//! Files that people take for checkpoints of Stable Diffusion.

use crate::weights::Checkpoint;

/// What a file is by a part of one of its names, and what helps.
const KINDS: &[(&[&str], &str)] = &[
    (
        &["lora_controlnet"],
        "is a control-LoRA, which is not supported: use the whole ControlNet that it was made of",
    ),
    (
        &["difference"],
        "holds what a ControlNet differs by from another model, which is not supported: use the whole ControlNet",
    ),
    (
        &[
            ".lora_down.",
            ".lora_up.",
            ".lora_A.",
            ".lora_B.",
            ".lora.down.",
            ".lora.up.",
            "_lora.down.",
            "_lora.up.",
            ".hada_w1_a",
            ".lokr_w1",
            "lora_unet_",
            "lora_te_",
            "lora_te1_",
            "lycoris_",
        ],
        "is a LoRA, a change to a model and no model: load it onto the pipeline that it was made for",
    ),
    (
        &["joint_blocks.0."],
        "is a checkpoint of Stable Diffusion 3, whose transformer is not supported",
    ),
    (
        &["double_blocks.0.", "single_transformer_blocks.0."],
        "is a checkpoint of FLUX, whose transformer is not supported",
    ),
    (
        &["edm_mean"],
        "is a checkpoint of Playground 2.5, whose noise levels are not supported",
    ),
    (
        &["down_blocks.0.0.channelwise."],
        "is a checkpoint of Stable Cascade, which is not supported",
    ),
    (
        &["ip_adapter.", "image_proj."],
        "is an IP-Adapter, a change to a model and no model",
    ),
    (
        &["adapter.body."],
        "is a T2I-Adapter, a change to a model and no model",
    ),
    (
        &["emb_params", "clip_g", "<", "string_to_param"],
        "is an embedding of textual inversion, a word and no model",
    ),
    (
        &["taesd_", "decoder.layers.0.weight", "encoder.layers.0.weight"],
        "is an AutoencoderTiny: its folder is needed",
    ),
];

/// What a file is whose names are none of Stable Diffusion's, where that is known: a part of a sentence.
pub(super) fn what(file: &Checkpoint) -> Option<&'static str> {
    let holds = |parts: &[&str]| {
        file.names()
            .any(|name| parts.iter().any(|part| is_part(name, part)))
    };
    KINDS
        .iter()
        .find(|(parts, _)| holds(parts))
        .map(|(_, what)| *what)
}

/// Whether a name has such a part: anywhere where the part begins with a full stop or an underscore, and else at the beginning, behind another
/// model's name too.
fn is_part(name: &str, part: &str) -> bool {
    if part.starts_with(['.', '_']) {
        return name.contains(part);
    }
    let rest = name.strip_prefix("model.diffusion_model.").unwrap_or(name);
    rest.starts_with(part)
}
