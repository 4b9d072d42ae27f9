//! What LyCORIS adds to sd-scripts' names: LoHa, LoKr, whole differences, and normalisations.

use crate::weights::lora::key::{Key, Part};

pub(super) const SUFFIXES: &[(&str, Part)] = &[
    (".hada_w1_a", Part::HadaW1A),
    (".hada_w1_b", Part::HadaW1B),
    (".hada_w2_a", Part::HadaW2A),
    (".hada_w2_b", Part::HadaW2B),
    (".hada_t1", Part::HadaT1),
    (".hada_t2", Part::HadaT2),
    (".lokr_w1", Part::LokrW1),
    (".lokr_w1_a", Part::LokrW1A),
    (".lokr_w1_b", Part::LokrW1B),
    (".lokr_w2", Part::LokrW2),
    (".lokr_w2_a", Part::LokrW2A),
    (".lokr_w2_b", Part::LokrW2B),
    (".lokr_t2", Part::LokrT2),
    (".diff", Part::Diff),
    (".diff_b", Part::DiffBias),
    (".w_norm", Part::Norm),
    (".b_norm", Part::NormBias),
    (".scale", Part::Scale),
];

/// A name of this style.
pub(super) fn key(name: &str) -> Option<Key> {
    Key::by_suffix(name, SUFFIXES)
}
