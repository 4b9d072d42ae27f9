//! The names of a ControlNet's parameters: those of a UNet's way down, the embedding of its hint, and its outputs.

use super::{
    Below, Kind, Parts,
    pairs::{Pair, Translator},
    unet::Structure,
};

/// A ControlNet's parameters.
pub(super) fn parts(below: &Below<'_>, kind: Kind) -> Result<Parts, String> {
    let mut pairs = Structure::of_original(below.names())?.pairs(kind.has_text_time());
    let largest = |of: &str| below.names().filter_map(|name| number_after(name, of)).max();
    pairs.extend(own(
        largest("input_hint_block.").map_or(0, |last| last / 2),
        largest("zero_convs.").map_or(0, |last| last.saturating_add(1)),
    ));
    let translator = Translator::to_present(pairs);
    Ok(below.renamed(|name| translator.name(name)))
}

/// The names of all layers of a ControlNet that has these in diffusers.
pub(super) fn pairs<'a>(names: impl Iterator<Item = &'a str> + Clone, kind: Kind) -> Vec<Pair> {
    let mut pairs = Structure::of_present(names.clone()).pairs(kind.has_text_time());
    let count = |of: &str| {
        names
            .clone()
            .filter_map(|name| number_after(name, of))
            .max()
            .map_or(0, |last| last.saturating_add(1))
    };
    pairs.extend(own(
        count("controlnet_cond_embedding.blocks.").saturating_add(1),
        count("controlnet_down_blocks."),
    ));
    pairs
}

/// The layers that a UNet does not have: the hint's last is at twice `hints`, with an activation between every two, and there are so many `outputs`.
fn own(hints: usize, outputs: usize) -> Vec<Pair> {
    /// More than there are names for; a number in a name is nothing to make room by.
    const MOST: usize = 4096;
    let hint = |n: usize| format!("input_hint_block.{}", 2 * n);
    let mut pairs = vec![
        Pair::new("middle_block_out.0", "controlnet_mid_block", &[]),
        Pair::new(hint(0), "controlnet_cond_embedding.conv_in", &[]),
        Pair::new(hint(hints.min(MOST)), "controlnet_cond_embedding.conv_out", &[]),
    ];
    for n in 1..hints.min(MOST) {
        let block = format!("controlnet_cond_embedding.blocks.{}", n - 1);
        pairs.push(Pair::new(hint(n), block, &[]));
    }
    for n in 0..outputs.min(MOST) {
        pairs.push(Pair::new(
            format!("zero_convs.{n}.0"),
            format!("controlnet_down_blocks.{n}"),
            &[],
        ));
    }
    pairs
}

/// The number that follows `prefix` in a name.
fn number_after(name: &str, prefix: &str) -> Option<usize> {
    name.strip_prefix(prefix)?.split('.').next()?.parse().ok()
}
