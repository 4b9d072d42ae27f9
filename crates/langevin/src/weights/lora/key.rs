//! What a name in a LoRA file says: which part of the change of which module it is.

use std::fmt;

use super::style;
use crate::weights::single_file::Component;

/// What a tensor is to the change of its module's weight; see [`formula`](super::formula) for what they come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Part {
    Down,
    Up,
    Mid,
    UpBias,
    Alpha,
    Scale,
    /// The magnitude of DoRA as kohya's and LyCORIS' files have it, which has the axis that it belongs to in its shape.
    DoraScale,
    /// The magnitude of DoRA as PEFT's files have it: one number for each output.
    Magnitude,
    HadaW1A,
    HadaW1B,
    HadaW2A,
    HadaW2B,
    HadaT1,
    HadaT2,
    LokrW1,
    LokrW1A,
    LokrW1B,
    LokrW2,
    LokrW2A,
    LokrW2B,
    LokrT2,
    Diff,
    DiffBias,
    Norm,
    NormBias,
}

/// What most files call it: `lora_down`.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(style::part_name(*self))
    }
}

/// A name in a LoRA file, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// The component that the name says; `None` where it says none.
    pub component: Option<Component>,
    /// The module, as the file spells it, without what says the component.
    pub module: String,
    pub part: Part,
}

/// What names begin with, and the component that it says. What several of these begin is taken off in turn.
const PREFIXES: &[(&str, Option<Component>)] = &[
    ("lora_unet_", Some(Component::Unet)),
    ("lora_te1_", Some(Component::TextEncoder)),
    ("lora_te2_", Some(Component::TextEncoder2)),
    ("lora_te_", Some(Component::TextEncoder)),
    ("lycoris_", None),
    ("base_model.model.", None),
    ("unet.", Some(Component::Unet)),
    ("text_encoder.", Some(Component::TextEncoder)),
    ("text_encoder_2.", Some(Component::TextEncoder2)),
    ("model.diffusion_model.", Some(Component::Unet)),
    ("diffusion_model.", Some(Component::Unet)),
    ("text_encoders.clip_l.transformer.", Some(Component::TextEncoder)),
    ("text_encoders.clip_g.transformer.", Some(Component::TextEncoder2)),
];

impl Key {
    /// The key of a name without its suffix.
    pub(in crate::weights::lora) fn new(name: &str, part: Part) -> Self {
        let (mut component, mut module) = (None, name);
        while let Some((rest, of)) = PREFIXES
            .iter()
            .find_map(|(prefix, of)| Some((module.strip_prefix(prefix)?, *of)))
        {
            module = rest;
            component = component.or(of);
        }
        Self {
            component,
            module: module.to_string(),
            part,
        }
    }

    /// The key of a name that ends in one of these suffixes.
    pub(in crate::weights::lora) fn by_suffix(name: &str, suffixes: &[(&str, Part)]) -> Option<Self> {
        let (module, part) = suffixes
            .iter()
            .find_map(|(suffix, part)| Some((name.strip_suffix(suffix)?, *part)))?;
        Some(Self::new(module, part))
    }
}
