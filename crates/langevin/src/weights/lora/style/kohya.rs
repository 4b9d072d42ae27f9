//! sd-scripts' names: `lora_unet_` and a module's name with underscores, `.lora_down.weight`, `.lora_up.weight` and `.alpha`.

use super::{lycoris, suffix};
use crate::weights::{
    lora::key::{Key, Part},
    single_file::Component,
};

pub(super) const SUFFIXES: &[(&str, Part)] = &[
    (".lora_down.weight", Part::Down),
    (".lora_up.weight", Part::Up),
    (".lora_mid.weight", Part::Mid),
    (".alpha", Part::Alpha),
    (".dora_scale", Part::DoraScale),
];

/// A name of this style.
pub(super) fn key(name: &str) -> Option<Key> {
    Key::by_suffix(name, SUFFIXES)
}

/// The name of a part of a module, LyCORIS' among them. `lora_te_` is the text encoder of a model that has one; see
/// [`write`](crate::weights::lora::write) for the two of XL.
pub(super) fn name(component: Component, module: &str, part: Part) -> Option<String> {
    let prefix = match component {
        Component::Unet => "lora_unet_",
        Component::TextEncoder => "lora_te_",
        Component::TextEncoder2 => "lora_te2_",
        _ => return None,
    };
    let suffix = suffix(SUFFIXES, part).or_else(|| suffix(lycoris::SUFFIXES, part))?;
    Some(format!("{prefix}{}{suffix}", module.replace('.', "_")))
}
