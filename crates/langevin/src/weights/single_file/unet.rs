//! The names of a UNet's parameters. Originally its layers are numbered along the way through it, in diffusers by block and layer: which is which
//! follows from which layers there are.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Below, Kind, Parts,
    pairs::{Inner, Pair, Translator},
};
use crate::weights::Checkpoint;

/// What the names of a moving average's tensors begin with; the rest is the weight's name without its full stops.
pub(super) const EMA: &str = "model_ema.diffusion_model";

const RESNET: Inner = &[
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
];
const DOWN: Inner = &[("op", "conv")];

/// A UNet's structure.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Structure {
    down: Vec<Block>,
    /// Of each layer in the middle, whether it is attention.
    middle: Vec<bool>,
    up: Vec<Block>,
}

/// The layers at one resolution.
#[derive(Debug, Default, PartialEq, Eq)]
struct Block {
    /// Of each layer, whether attention follows it.
    layers: Vec<bool>,
    /// Whether a layer to another resolution ends it.
    sampler: bool,
}

/// What stands at one number.
#[derive(Default)]
struct Stage {
    resnet: bool,
    attention: bool,
    sampler: bool,
}

impl Stage {
    /// Notes that the part `name` of a layer is there.
    fn add(&mut self, name: &str) {
        match name.split('.').next().unwrap_or_default() {
            "in_layers" => self.resnet = true,
            "transformer_blocks" => self.attention = true,
            "op" | "conv" => self.sampler = true,
            _ => {}
        }
    }
}

impl Structure {
    /// That of Stable Diffusion 1 and 2, or of XL.
    pub(super) fn standard(is_xl: bool) -> Self {
        let block = |attends, layers, sampler| Block {
            layers: vec![attends; layers],
            sampler,
        };
        let side = |attends: &[bool], layers| {
            let last = attends.len() - 1;
            let blocks = attends.iter().enumerate();
            blocks
                .map(|(at, attends)| block(*attends, layers, at < last))
                .collect()
        };
        let (down, up): (&[bool], &[bool]) = if is_xl {
            (&[false, true, true], &[true, true, false])
        } else {
            (&[true, true, true, false], &[false, true, true, true])
        };
        Self {
            down: side(down, 2),
            middle: vec![false, true, false],
            up: side(up, 3),
        }
    }

    /// What original names tell. The error is a part of a sentence.
    pub(super) fn of_original<'a>(names: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut sides: [BTreeMap<usize, Stage>; 3] = Default::default();
        for name in names {
            let mut words = name.splitn(4, '.');
            let (side, number, next, rest) = (words.next(), words.next(), words.next(), words.next());
            let Some(number) = number.and_then(|number| number.parse().ok()) else {
                continue;
            };
            match side {
                Some("input_blocks") => sides[0].entry(number).or_default().add(rest.unwrap_or_default()),
                Some("middle_block") => sides[1].entry(number).or_default().add(next.unwrap_or_default()),
                Some("output_blocks") => sides[2].entry(number).or_default().add(rest.unwrap_or_default()),
                _ => {}
            }
        }
        let [input, middle, output] = sides;
        for (side, stages, first) in [
            ("input", &input, 0),
            ("middle", &middle, 0),
            ("output", &output, 0),
        ] {
            if let Some(missing) = (first..stages.len()).find(|number| !stages.contains_key(number)) {
                let plural = if side == "middle" { "" } else { "s" };
                return Err(format!(
                    "lacks the layers {side}_block{plural}.{missing}, and has later ones"
                ));
            }
        }
        if !output.is_empty() && output.len() != input.len() {
            return Err(format!(
                "has {} input blocks and {} output blocks: there should be as many of these as of those",
                input.len(),
                output.len()
            ));
        }
        Ok(Self {
            // The first is a convolution alone.
            down: blocks(input.into_values().skip(1)),
            middle: middle.into_values().map(|stage| stage.attention).collect(),
            up: blocks(output.into_values()),
        })
    }

    /// What diffusers' names tell.
    pub(super) fn of_present<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        /// Numbers of resnets, those of attentions, and whether there is a sampler.
        type Found<'a> = (BTreeSet<&'a str>, BTreeSet<&'a str>, bool);
        let mut found: BTreeMap<(&str, usize), Found<'_>> = BTreeMap::new();
        for name in names {
            let words: Vec<&str> = name.splitn(5, '.').collect();
            let (side, block, layers, layer) = match words.as_slice() {
                ["mid_block", layers, layer, ..] => ("mid_block", 0, *layers, *layer),
                [side @ ("down_blocks" | "up_blocks"), block, layers, layer, ..] => match block.parse() {
                    Ok(block) => (*side, block, *layers, *layer),
                    Err(_) => continue,
                },
                _ => continue,
            };
            let found = found.entry((side, block)).or_default();
            match layers {
                "resnets" => drop(found.0.insert(layer)),
                "attentions" => drop(found.1.insert(layer)),
                "downsamplers" | "upsamplers" => found.2 = true,
                _ => {}
            }
        }
        let mut structure = Self::default();
        for ((side, _), (resnets, attentions, sampler)) in found {
            let attends = |layer: usize| attentions.contains(layer.to_string().as_str());
            if side == "mid_block" {
                // Attention lies between resnets.
                let layers = (0..resnets.len()).flat_map(|layer| {
                    let attention = attends(layer).then_some(true);
                    std::iter::once(false).chain(attention)
                });
                structure.middle = layers.collect();
                continue;
            }
            let block = Block {
                layers: (0..resnets.len()).map(attends).collect(),
                sampler,
            };
            match side {
                "down_blocks" => structure.down.push(block),
                _ => structure.up.push(block),
            }
        }
        structure
    }

    /// The names of all layers. `has_text_time` says what the label's embedding is.
    pub(super) fn pairs(&self, has_text_time: bool) -> Vec<Pair> {
        let label = if has_text_time {
            "add_embedding"
        } else {
            "class_embedding"
        };
        let mut pairs = vec![
            Pair::new("time_embed.0", "time_embedding.linear_1", &[]),
            Pair::new("time_embed.2", "time_embedding.linear_2", &[]),
            Pair::new("time_embed.cond_proj", "time_embedding.cond_proj", &[]),
            Pair::new("label_emb.0.0", format!("{label}.linear_1"), &[]),
            Pair::new("label_emb.0.2", format!("{label}.linear_2"), &[]),
            Pair::new("label_emb", "class_embedding", &[]),
            Pair::new("input_blocks.0.0", "conv_in", &[]),
            Pair::new("out.0", "conv_norm_out", &[]),
            Pair::new("out.2", "conv_out", &[]),
        ];
        side(
            &self.down,
            ["input_blocks", "down_blocks", "downsamplers"],
            1,
            &mut pairs,
        );
        side(
            &self.up,
            ["output_blocks", "up_blocks", "upsamplers"],
            0,
            &mut pairs,
        );
        let (mut resnets, mut attentions) = (0, 0);
        for (number, attention) in self.middle.iter().enumerate() {
            let original = format!("middle_block.{number}");
            if *attention {
                pairs.push(Pair::new(
                    original,
                    format!("mid_block.attentions.{attentions}"),
                    &[],
                ));
                attentions += 1;
            } else {
                pairs.push(Pair::new(
                    original,
                    format!("mid_block.resnets.{resnets}"),
                    RESNET,
                ));
                resnets += 1;
            }
        }
        pairs
    }
}

/// Stages in a row, as blocks.
fn blocks(stages: impl Iterator<Item = Stage>) -> Vec<Block> {
    let mut blocks = vec![];
    let mut block = Block::default();
    for stage in stages {
        if stage.resnet {
            block.layers.push(stage.attention);
        }
        if stage.sampler {
            block.sampler = true;
            blocks.push(std::mem::take(&mut block));
        }
    }
    if !block.layers.is_empty() {
        blocks.push(block);
    }
    blocks
}

/// The names of one side's layers, which are numbered from `number` on.
fn side(
    blocks: &[Block],
    [original, present, samplers]: [&str; 3],
    mut number: usize,
    pairs: &mut Vec<Pair>,
) {
    let is_down = original == "input_blocks";
    for (b, block) in blocks.iter().enumerate() {
        for (l, attention) in block.layers.iter().enumerate() {
            let at = format!("{original}.{number}");
            pairs.push(Pair::new(
                format!("{at}.0"),
                format!("{present}.{b}.resnets.{l}"),
                RESNET,
            ));
            if *attention {
                pairs.push(Pair::new(
                    format!("{at}.1"),
                    format!("{present}.{b}.attentions.{l}"),
                    &[],
                ));
            }
            // On the way up it stands beside the last layer, on the way down it has a number of its own.
            if block.sampler && !is_down && l + 1 == block.layers.len() {
                let place = 1 + usize::from(*attention);
                pairs.push(Pair::new(
                    format!("{at}.{place}"),
                    format!("{present}.{b}.{samplers}.0"),
                    &[],
                ));
            }
            number += 1;
        }
        if block.sampler && is_down {
            let at = format!("{original}.{number}.0");
            pairs.push(Pair::new(at, format!("{present}.{b}.{samplers}.0"), DOWN));
            number += 1;
        }
    }
}

/// A UNet's parameters.
pub(super) fn parts(below: &Below<'_>, kind: Kind) -> Result<Parts, String> {
    let structure = Structure::of_original(below.names())?;
    let translator = Translator::to_present(structure.pairs(kind.has_text_time()));
    Ok(below.renamed(|name| translator.name(name)))
}

/// Takes each parameter's moving average in its place.
pub(super) fn take_ema(file: &Checkpoint, parts: &mut Parts) -> Result<(), String> {
    for (_, part) in parts {
        let name = part
            .of
            .strip_prefix("model.")
            .unwrap_or(&part.of)
            .replace('.', "");
        let ema = format!("model_ema.{name}");
        let stored = file
            .get(&ema)
            .ok_or_else(|| format!("lacks {ema}, the moving average of {}", part.of))?;
        if stored.shape != part.shape {
            return Err(format!(
                "{ema} has shape {:?}, where {} has {:?}",
                stored.shape, part.of, part.shape
            ));
        }
        part.of = ema;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(layers: &[bool], sampler: bool) -> Block {
        Block {
            layers: layers.to_vec(),
            sampler,
        }
    }

    /// Names of which the structure is read again by either side.
    fn names(structure: &Structure, present: bool) -> Vec<String> {
        let mut names = vec!["input_blocks.0.0.weight".to_string()];
        for pair in structure.pairs(false) {
            let name = if present { &pair.present } else { &pair.original };
            let part = match (pair.inner.first(), pair.present.as_str()) {
                (Some((original, now)), _) => {
                    if present {
                        now
                    } else {
                        original
                    }
                }
                (None, layer) if layer.contains("attentions") => "transformer_blocks.0.norm1",
                (None, layer) if layer.contains("upsamplers") => "conv",
                _ => continue,
            };
            names.push(format!("{name}.{part}.weight"));
        }
        names
    }

    #[test]
    fn the_structure_is_the_same_by_either_names() {
        let structures = [
            // Stable Diffusion 1, XL, and one without a middle and of one layer.
            Structure {
                down: vec![
                    block(&[true; 2], true),
                    block(&[true; 2], true),
                    block(&[false; 2], false),
                ],
                middle: vec![false, true, false],
                up: vec![
                    block(&[false; 3], true),
                    block(&[true; 3], true),
                    block(&[true; 3], false),
                ],
            },
            Structure {
                down: vec![block(&[false; 2], true), block(&[true; 2], false)],
                middle: vec![false],
                up: vec![block(&[true; 3], true), block(&[false; 3], false)],
            },
            Structure {
                down: vec![block(&[true], true), block(&[true], false)],
                middle: vec![],
                up: vec![block(&[true; 2], true), block(&[true; 2], false)],
            },
        ];
        for structure in structures {
            let original = names(&structure, false);
            let found = Structure::of_original(original.iter().map(String::as_str)).unwrap();
            assert_eq!(found, structure);
            let present = names(&structure, true);
            assert_eq!(
                Structure::of_present(present.iter().map(String::as_str)),
                structure
            );
        }
    }

    #[test]
    fn layers_have_the_numbers_of_stable_diffusion() {
        let structure = Structure {
            down: vec![block(&[true; 2], true), block(&[false; 2], false)],
            middle: vec![false, true, false],
            up: vec![block(&[false; 3], true), block(&[true; 3], false)],
        };
        let translator = Translator::to_present(structure.pairs(true));
        for (original, present) in [
            ("input_blocks.0.0.bias", "conv_in.bias"),
            (
                "input_blocks.2.0.in_layers.2.weight",
                "down_blocks.0.resnets.1.conv1.weight",
            ),
            (
                "input_blocks.2.1.proj_in.weight",
                "down_blocks.0.attentions.1.proj_in.weight",
            ),
            (
                "input_blocks.3.0.op.weight",
                "down_blocks.0.downsamplers.0.conv.weight",
            ),
            (
                "input_blocks.4.0.skip_connection.bias",
                "down_blocks.1.resnets.0.conv_shortcut.bias",
            ),
            (
                "middle_block.2.out_layers.3.bias",
                "mid_block.resnets.1.conv2.bias",
            ),
            (
                "output_blocks.2.1.conv.weight",
                "up_blocks.0.upsamplers.0.conv.weight",
            ),
            (
                "output_blocks.5.1.norm.weight",
                "up_blocks.1.attentions.2.norm.weight",
            ),
            ("label_emb.0.2.bias", "add_embedding.linear_2.bias"),
        ] {
            assert_eq!(translator.name(original).as_deref(), Some(present));
        }
        assert_eq!(translator.name("input_blocks.9.0.in_layers.0.bias"), None);
    }

    #[test]
    fn a_gap_is_said() {
        let names = ["input_blocks.0.0.weight", "input_blocks.2.0.in_layers.0.weight"];
        let message = Structure::of_original(names.into_iter()).unwrap_err();
        assert!(message.contains("input_blocks.1"), "{message}");
    }
}
