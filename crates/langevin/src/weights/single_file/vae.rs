//! The names of an autoencoder's parameters. Originally the decoder's levels are numbered from the finest on, in diffusers from the coarsest.

use std::collections::BTreeSet;

use super::{
    Below, Parts,
    pairs::{Inner, Pair, Translator},
};

const RESNET: Inner = &[("nin_shortcut", "conv_shortcut")];
const ATTENTION: Inner = &[
    ("norm", "group_norm"),
    ("q", "to_q"),
    ("k", "to_k"),
    ("v", "to_v"),
    ("proj_out", "to_out.0"),
];
/// Most of which only damaged names have more.
const MOST: usize = 64;

/// An autoencoder's parameters.
pub(super) fn parts(below: &Below<'_>) -> Parts {
    let translator = Translator::to_present(pairs(below.names()));
    let mut parts = vec![];
    for name in below.names() {
        // Training leaves its losses and its averages beside it.
        if ["loss.", "model_ema."]
            .iter()
            .any(|other| name.starts_with(other))
        {
            continue;
        }
        let Some(present) = translator.name(name) else {
            tracing::warn!(
                "{}: passed over {}{name}",
                below.file.path().display(),
                below.prefix
            );
            continue;
        };
        let mut part = below.whole(name);
        // Attention's matrices are stored as convolutions of one pixel.
        if let [rows, columns, 1, 1] = *part.shape.as_slice()
            && is_matrix(&present)
        {
            part.shape = vec![rows, columns];
        }
        parts.push((present, part));
    }
    parts
}

/// Whether a parameter, by its present name, is one of attention's matrices.
pub(super) fn is_matrix(present: &str) -> bool {
    present.contains(".attentions.")
        && present.ends_with(".weight")
        && !present.ends_with("group_norm.weight")
}

/// The names of all layers of an autoencoder that has these, of either kind.
pub(super) fn pairs<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Pair> {
    // Of every block: whether it is the encoder's, its level, and its layer or `None` for the one to another resolution.
    let mut blocks: BTreeSet<(bool, usize, Option<usize>)> = BTreeSet::new();
    for name in names {
        let words: Vec<&str> = name.splitn(6, '.').collect();
        let [
            side @ ("encoder" | "decoder"),
            "down" | "up" | "down_blocks" | "up_blocks",
            level,
            rest @ ..,
        ] = words.as_slice()
        else {
            continue;
        };
        let number = |text: &str| text.parse().ok().filter(|n| *n < MOST);
        let layer = match rest {
            ["block" | "resnets", layer, ..] => number(layer).map(Some),
            _ => Some(None),
        };
        if let (Some(level), Some(layer)) = (number(level), layer) {
            blocks.insert((*side == "encoder", level, layer));
        }
    }
    let levels = blocks.iter().map(|(_, level, _)| level + 1).max().unwrap_or(0);
    let present_level = |is_encoder, level| if is_encoder { level } else { levels - 1 - level };
    let mut pairs = vec![];
    for (is_encoder, level, layer) in blocks {
        // Every level has both names, whichever of them the block was found by.
        for level in [level, levels - 1 - level] {
            let now = present_level(is_encoder, level);
            let (original, present) = match is_encoder {
                true => (
                    format!("encoder.down.{level}"),
                    format!("encoder.down_blocks.{now}"),
                ),
                false => (format!("decoder.up.{level}"), format!("decoder.up_blocks.{now}")),
            };
            pairs.push(match (layer, is_encoder) {
                (Some(layer), _) => Pair::new(
                    format!("{original}.block.{layer}"),
                    format!("{present}.resnets.{layer}"),
                    RESNET,
                ),
                (None, true) => Pair::new(
                    format!("{original}.downsample"),
                    format!("{present}.downsamplers.0"),
                    &[],
                ),
                (None, false) => Pair::new(
                    format!("{original}.upsample"),
                    format!("{present}.upsamplers.0"),
                    &[],
                ),
            });
        }
    }
    for side in ["encoder", "decoder"] {
        for layer in 0..2 {
            let original = format!("{side}.mid.block_{}", layer + 1);
            pairs.push(Pair::new(
                original,
                format!("{side}.mid_block.resnets.{layer}"),
                RESNET,
            ));
        }
        let attention = format!("{side}.mid_block.attentions.0");
        pairs.push(Pair::new(format!("{side}.mid.attn_1"), attention, ATTENTION));
        pairs.push(Pair::new(
            format!("{side}.norm_out"),
            format!("{side}.conv_norm_out"),
            &[],
        ));
        for same in ["conv_in", "conv_out"] {
            let name = format!("{side}.{same}");
            pairs.push(Pair::new(name.clone(), name, &[]));
        }
    }
    for same in ["quant_conv", "post_quant_conv"] {
        pairs.push(Pair::new(same, same, &[]));
    }
    pairs
}
