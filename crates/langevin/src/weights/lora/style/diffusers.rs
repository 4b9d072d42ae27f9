//! diffusers' names of before PEFT: `.lora.down.weight`, and those of attention processors, which are older.

use super::suffix;
use crate::weights::{
    lora::key::{Key, Part},
    single_file::Component,
};

const UNET: &[(&str, Part)] = &[
    (".lora.down.weight", Part::Down),
    (".lora.up.weight", Part::Up),
    (".lora.alpha", Part::Alpha),
];
const TEXT_ENCODER: &[(&str, Part)] = &[
    (".lora_linear_layer.down.weight", Part::Down),
    (".lora_linear_layer.up.weight", Part::Up),
    (".lora_linear_layer.alpha", Part::Alpha),
];
/// Of attention's projections, such as `to_q_lora.down.weight`.
const PROCESSOR: &[(&str, Part)] = &[
    ("_lora.down.weight", Part::Down),
    ("_lora.up.weight", Part::Up),
    ("_lora.alpha", Part::Alpha),
];
/// What the text encoder calls what processors call otherwise.
const TEXT_PROJECTIONS: [(&str, &str); 4] = [
    ("to_q", "q_proj"),
    ("to_k", "k_proj"),
    ("to_v", "v_proj"),
    ("to_out", "out_proj"),
];

/// A name of this style.
pub(super) fn key(name: &str) -> Option<Key> {
    let plain = Key::by_suffix(name, UNET).or_else(|| Key::by_suffix(name, TEXT_ENCODER));
    plain.or_else(|| of_processor(Key::by_suffix(name, PROCESSOR)?))
}

/// The module that a processor's projection stands for.
fn of_processor(key: Key) -> Option<Key> {
    let (layer, projection) = key.module.rsplit_once('.')?;
    let module = match layer.strip_suffix(".processor") {
        Some(layer) if projection == "to_out" => format!("{layer}.to_out.0"),
        Some(layer) => format!("{layer}.{projection}"),
        None => {
            let (_, now) = TEXT_PROJECTIONS.iter().find(|(old, _)| *old == projection)?;
            format!("{layer}.{now}")
        }
    };
    Some(Key { module, ..key })
}

/// The name of a part of a module.
pub(super) fn name(component: Component, module: &str, part: Part) -> Option<String> {
    let suffixes = if component == Component::Unet {
        UNET
    } else {
        TEXT_ENCODER
    };
    // Where diffusers reads alphas, they stand at the module itself.
    let suffix = match part {
        Part::Alpha => ".alpha",
        part => suffix(suffixes, part)?,
    };
    Some(format!("{component}.{module}{suffix}"))
}
