//! The names of a text encoder's parameters: transformers' below a prefix, or those of open_clip, which keeps queries, keys and values of a layer in one
//! tensor and its projection the other way round.

use std::collections::BTreeSet;

use super::{
    Below, Component, Kind, Parts,
    pairs::{Inner, Pair, Translator},
};
use crate::weights::checkpoint::Part;

/// The parts of a layer's tensor of three, in their order.
pub(super) const THIRDS: [&str; 3] = ["q_proj", "k_proj", "v_proj"];
/// transformers' name of the projection.
pub(super) const PROJECTION: &str = "text_projection.weight";
/// transformers' name of the places' embedding, and open_clip's.
pub(super) const POSITIONS: (&str, &str) = (
    "text_model.embeddings.position_embedding.weight",
    "positional_embedding",
);
/// The first layer that diffusers leaves out of version 2's text encoder: its second last state is what the UNet was trained on.
const LEFT_OUT: usize = 23;

const LAYER: Inner = &[
    ("ln_1", "layer_norm1"),
    ("ln_2", "layer_norm2"),
    ("attn.out_proj", "self_attn.out_proj"),
    ("mlp.c_fc", "mlp.fc1"),
    ("mlp.c_proj", "mlp.fc2"),
];

/// The parameters of an encoder that has transformers' names.
pub(super) fn of_transformers(below: &Below<'_>) -> Parts {
    below
        .names()
        .filter(|name| !name.ends_with("position_ids"))
        .filter_map(|name| Some((with_model(name)?, below.whole(name))))
        .collect()
}

/// transformers' name of a parameter, with that of the model within, which some programs, and transformers since 5.6, leave out.
fn with_model(name: &str) -> Option<String> {
    let begins = |part: &&str| name.starts_with(*part);
    if name.starts_with("text_model.") {
        return Some(name.to_string());
    }
    let is_bare = ["embeddings.", "encoder.", "final_layer_norm."]
        .iter()
        .any(begins);
    is_bare.then(|| format!("text_model.{name}"))
}

/// The parameters of an encoder that has open_clip's names. The error is a part of a sentence.
pub(super) fn of_open_clip(below: &Below<'_>, component: Component, kind: Kind) -> Result<Parts, String> {
    let with_projection = component == Component::TextEncoder2;
    let translator = Translator::to_present(pairs(below.names()));
    let mut parts = vec![];
    for name in below.names() {
        let layer = layer_of(name, "transformer.resblocks.");
        if kind.is_version_2() && !with_projection && layer.is_some_and(|layer| layer >= LEFT_OUT) {
            continue;
        }
        match name {
            "logit_scale" | "attn_mask" => {}
            "text_projection" if !with_projection => {}
            "text_projection" => parts.push((PROJECTION.to_string(), transposed(below, name)?)),
            _ if name == POSITIONS.1 => parts.push((POSITIONS.0.to_string(), below.whole(name))),
            _ => match name.rsplit_once(".attn.in_proj_") {
                Some((block, parameter)) => parts.extend(thirds(below, name, block, parameter)?),
                None => parts.extend(translator.name(name).map(|present| (present, below.whole(name)))),
            },
        }
    }
    Ok(parts)
}

/// The names of all layers of an encoder that has these, of either kind.
pub(super) fn pairs<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Pair> {
    let number = |name: &str| {
        let present = name.strip_prefix("text_model.").unwrap_or(name);
        layer_of(name, "transformer.resblocks.").or_else(|| layer_of(present, "encoder.layers."))
    };
    let layers: BTreeSet<usize> = names.filter_map(number).collect();
    let mut pairs = vec![
        Pair::new("token_embedding", "text_model.embeddings.token_embedding", &[]),
        Pair::new("ln_final", "text_model.final_layer_norm", &[]),
    ];
    pairs.extend(layers.into_iter().map(|layer| {
        let original = format!("transformer.resblocks.{layer}");
        Pair::new(original, format!("text_model.encoder.layers.{layer}"), LAYER)
    }));
    pairs
}

/// The number of the layer that a parameter belongs to.
fn layer_of(name: &str, prefix: &str) -> Option<usize> {
    name.strip_prefix(prefix)?.split('.').next()?.parse().ok()
}

/// A matrix the other way round.
fn transposed(below: &Below<'_>, name: &str) -> Result<Part, String> {
    let mut part = below.whole(name);
    if part.shape.len() != 2 {
        return Err(format!(
            "{}{name} has shape {:?}, where a matrix should be",
            below.prefix, part.shape
        ));
    }
    part.shape.reverse();
    part.transposed = true;
    Ok(part)
}

/// Queries, keys and values, which lie one below the other.
fn thirds(below: &Below<'_>, name: &str, block: &str, parameter: &str) -> Result<Parts, String> {
    let block = block.replace("transformer.resblocks.", "text_model.encoder.layers.");
    let shape = below.shape(name);
    let rows = shape.first().copied().unwrap_or(0);
    if rows == 0 || rows % 3 != 0 {
        return Err(format!(
            "{}{name} has shape {shape:?}, where queries, keys and values should lie one below the other",
            below.prefix
        ));
    }
    let part = |third: usize| {
        let mut part = below.whole(name);
        part.shape[0] = rows / 3;
        part.first = third * part.shape.iter().product::<usize>();
        (format!("{block}.self_attn.{}.{parameter}", THIRDS[third]), part)
    };
    Ok((0..3).map(part).collect())
}
