//! PEFT's names, which today's diffusers writes: `.lora_A.weight`, with an adapter's name between in its own dumps.

use super::suffix;
use crate::weights::{
    lora::key::{Key, Part},
    single_file::Component,
};

pub(super) const SUFFIXES: &[(&str, Part)] = &[
    (".lora_A.weight", Part::Down),
    (".lora_B.weight", Part::Up),
    (".lora_B.bias", Part::UpBias),
    (".lora_magnitude_vector", Part::Magnitude),
    (".lora_magnitude_vector.weight", Part::Magnitude),
];

/// A name of this style. `.lora_A.default.weight` has the name of an adapter in it.
pub(super) fn key(name: &str) -> Option<Key> {
    if let Some(key) = Key::by_suffix(name, SUFFIXES) {
        return Some(key);
    }
    let (rest, kind) = name.rsplit_once('.')?;
    let (rest, _) = rest.rsplit_once('.')?;
    Key::by_suffix(&format!("{rest}.{kind}"), SUFFIXES)
}

/// The name of a part of a module.
pub(super) fn name(component: Component, module: &str, part: Part) -> Option<String> {
    Some(format!("{component}.{module}{}", suffix(SUFFIXES, part)?))
}
