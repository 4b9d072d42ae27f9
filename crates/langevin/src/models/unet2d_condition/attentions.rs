//! Where in a conditional UNet tokens look at a sequence.

use super::{
    ConditionDownBlockType::CrossAttnDownBlock2D, ConditionUpBlockType::CrossAttnUpBlock2D,
    UNet2DConditionConfig,
};

/// One cross-attention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrossAttention {
    /// The path of its transformer block: `down_blocks.1.attentions.0.transformer_blocks.0`.
    pub path: String,
    /// The channels of its tokens.
    pub channels: usize,
}

impl UNet2DConditionConfig {
    /// Its cross-attentions on the way down, in the middle, and on the way up, in the order of a forward.
    pub fn cross_attentions(&self) -> [Vec<CrossAttention>; 3] {
        let of = |place: String, layers: usize, level: usize| {
            let (channels, depth) = (
                self.block_out_channels[level],
                self.transformer_layers_per_block.at(level),
            );
            (0..layers).flat_map(move |layer| {
                let place = place.clone();
                (0..depth).map(move |block| CrossAttention {
                    path: format!("{place}.attentions.{layer}.transformer_blocks.{block}"),
                    channels,
                })
            })
        };
        let last = self.block_out_channels.len() - 1;
        let attends_down = |level: &usize| self.down_block_types[*level] == CrossAttnDownBlock2D;
        let attends_up = |place: &usize| self.up_block_types[*place] == CrossAttnUpBlock2D;
        let down = (0..=last).filter(attends_down).flat_map(|level| {
            of(
                format!("down_blocks.{level}"),
                self.layers_per_block.at(level),
                level,
            )
        });
        let middle = self
            .mid_block_type
            .iter()
            .flat_map(|_| of("mid_block".into(), 1, last));
        let up = (0..=last).filter(attends_up).flat_map(|place| {
            let level = last - place;
            of(
                format!("up_blocks.{place}"),
                self.layers_per_block.at(level) + 1,
                level,
            )
        });
        [down.collect(), middle.collect(), up.collect()]
    }
}
