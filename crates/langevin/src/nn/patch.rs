//! Pictures as tokens, one per patch, and back (Dosovitskiy et al. 2021), with sines and cosines of each patch's place.

use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData},
};

use super::{Conv2d, Init};
use crate::{Error, Result, ops::Geometry};

/// The longest wave of the places' sines and cosines, over 2π.
const PERIOD: f64 = 10_000.0;

/// The arguments of a [`PatchEmbed`].
#[derive(Clone, Copy, Debug)]
pub struct PatchConfig {
    /// Channels of the pictures.
    pub in_channels: usize,
    /// Channels of a token; 4 divides them.
    pub channels: usize,
    /// Height and width of a patch.
    pub patch_size: usize,
    /// Patches along a side of the pictures that the model was made for.
    pub base_size: usize,
    /// By what places are divided.
    pub interpolation_scale: f64,
    /// Places along a side of a table that is a part of the checkpoint. Pictures take its middle; without one, places follow from a picture's
    /// size, and lie as far apart as its sides lie in those of `base_size`.
    pub table_size: Option<usize>,
}

/// A token for every patch, with its place added. Mirrors `diffusers.models.embeddings.PatchEmbed`.
#[derive(Module, Debug)]
pub struct PatchEmbed {
    /// Of a patch.
    pub proj: Conv2d,
    /// The table of places, `[1, table_size · table_size, channels]`; not trained.
    pub pos_embed: Option<Param<Tensor<3>>>,
    #[module(skip)]
    config: PatchConfig,
}

impl PatchEmbed {
    /// A new layer.
    pub fn new(config: PatchConfig, init: &mut Init<'_>) -> Self {
        let (channels, patch) = (config.channels, config.patch_size);
        let geometry = Geometry::uniform(patch, 0);
        Self {
            proj: Conv2d::new(config.in_channels, channels, patch, geometry, init),
            pos_embed: config.table_size.map(|side| {
                let shape = [1, side * side, channels];
                init.fixed(shape, |device| places(&config, [side; 2], device))
            }),
            config,
        }
    }

    /// # Shapes
    /// `[batch, in_channels, height, width]` → `[batch, patches, channels]`, row by row
    ///
    /// # Errors
    /// If the picture is larger than the table of places.
    pub fn forward(&self, x: Tensor<4>) -> Result<Tensor<3>> {
        let patches = self.proj.forward(x.permute([0, 2, 3, 1]));
        let [batch, height, width, channels] = patches.dims();
        let places = match (&self.pos_embed, self.config.table_size) {
            (Some(table), Some(side)) => middle(table.val(), side, [height, width])?,
            _ => places(&self.config, [height, width], &patches.device()),
        };
        Ok(patches.reshape([batch, height * width, channels]) + places)
    }
}

/// The middle of a table of places, `[1, height · width, channels]`.
fn middle(table: Tensor<3>, side: usize, [height, width]: [usize; 2]) -> Result<Tensor<3>> {
    if height > side || width > side {
        return Err(Error::Shape(format!(
            "a picture of {height}x{width} patches is larger than the {side}x{side} that the model has places for (pos_embed_max_size)"
        )));
    }
    let channels = table.dims()[2];
    Ok(table
        .reshape([side, side, channels])
        .narrow(0, (side - height) / 2, height)
        .narrow(1, (side - width) / 2, width)
        .reshape([1, height * width, channels]))
}

/// Sines and cosines of the column of each place, then of its row, `[1, height · width, channels]`.
/// Mirrors `diffusers.models.embeddings.get_2d_sincos_pos_embed`.
fn places(config: &PatchConfig, [height, width]: [usize; 2], device: &Device) -> Tensor<3> {
    let half = config.channels / 2;
    let along = |count: usize| {
        let values = TensorData::new(along_side(config, count), [count, half]);
        Tensor::<2>::from_data(values, device)
    };
    let columns = along(width).unsqueeze_dim::<3>(0).expand([height, width, half]);
    let rows = along(height).unsqueeze_dim::<3>(1).expand([height, width, half]);
    Tensor::cat(vec![columns, rows], 2).reshape([1, height * width, 2 * half])
}

/// The same of `count` places along a side: `[count, channels / 2]`, the sines of a place first.
fn along_side(config: &PatchConfig, count: usize) -> Vec<f32> {
    let quarter = config.channels / 4;
    let apart = (count as f64 / config.base_size as f64) as f32;
    let frequency = |i: usize| 1.0 / PERIOD.powf(i as f64 / quarter as f64);
    let frequencies: Vec<f64> = (0..quarter).map(frequency).collect();
    let place = |i: usize| f64::from(i as f32 / apart / config.interpolation_scale as f32);
    (0..count)
        .flat_map(|i| {
            let angles = frequencies.iter().map(move |frequency| place(i) * frequency);
            let sines = angles.clone().map(|angle| angle.sin() as f32);
            sines.chain(angles.map(|angle| angle.cos() as f32))
        })
        .collect()
}

/// Pictures of their patches.
///
/// # Shapes
/// `[batch, rows · columns, patch_size · patch_size · channels]` → `[batch, channels, rows · patch_size, columns · patch_size]`
pub(crate) fn of_patches(tokens: Tensor<3>, [rows, columns]: [usize; 2], patch_size: usize) -> Tensor<4> {
    let [batch, _, numbers] = tokens.dims();
    let channels = numbers / (patch_size * patch_size);
    tokens
        .reshape([batch, rows, columns, patch_size, patch_size, channels])
        .permute([0, 5, 1, 3, 2, 4])
        .reshape([batch, channels, rows * patch_size, columns * patch_size])
}
