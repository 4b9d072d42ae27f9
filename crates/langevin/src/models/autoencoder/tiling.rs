//! Large pictures tile by tile, the tiles' borders blended.

use burn::tensor::{Device, Tensor, TensorData};

use super::{AutoencoderKLConfig, AutoencoderTinyConfig};
use crate::{Error, Result};

/// How a picture, or latents, are cut into tiles that overlap, with diffusers' names. Mirrors what `enable_tiling` of its autoencoders sets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tiling {
    /// Height and width of a tile of a picture, in pixels.
    pub tile_sample_min_size: usize,
    /// Height and width of a tile of latents.
    pub tile_latent_min_size: usize,
    /// How much of a tile lies in the next one too, from 0 to below 1.
    pub tile_overlap_factor: f64,
}

/// Tiles along one side, all in the units of what is cut but `blend` and `keep`, which are in those of the result.
#[derive(Clone, Copy, Debug)]
struct Tiles {
    size: usize,
    stride: usize,
    blend: usize,
    keep: usize,
}

impl Tiling {
    /// diffusers' own for an [`AutoencoderKL`](super::AutoencoderKL): tiles of the size that it was trained for, of which a quarter overlaps.
    pub fn of(config: &AutoencoderKLConfig) -> Self {
        let [size, _] = config.sample_size.height_width();
        Self {
            tile_sample_min_size: size,
            tile_latent_min_size: size / config.factor(),
            tile_overlap_factor: 0.25,
        }
    }

    /// diffusers' own for an [`AutoencoderTiny`](super::AutoencoderTiny): tiles of 512 pixels, of which an eighth overlaps.
    pub fn of_tiny(config: &AutoencoderTinyConfig) -> Self {
        Self {
            tile_sample_min_size: 512,
            tile_latent_min_size: 512 / config.factor(),
            tile_overlap_factor: 0.125,
        }
    }

    /// Pictures to what `one` makes of a tile, `factor` times smaller.
    pub(super) fn encode(
        &self,
        pictures: Tensor<4>,
        factor: usize,
        one: impl Fn(Tensor<4>) -> Result<Tensor<4>>,
    ) -> Result<Tensor<4>> {
        let tiles = self.tiles(self.tile_sample_min_size, self.tile_latent_min_size)?;
        self.check_whole(tiles.keep.checked_mul(factor) == Some(tiles.stride), factor)?;
        tiles.put_together(pictures, one)
    }

    /// Latents to what `one` makes of a tile, `factor` times larger.
    pub(super) fn decode(
        &self,
        latents: Tensor<4>,
        factor: usize,
        one: impl Fn(Tensor<4>) -> Result<Tensor<4>>,
    ) -> Result<Tensor<4>> {
        let tiles = self.tiles(self.tile_latent_min_size, self.tile_sample_min_size)?;
        self.check_whole(tiles.stride.checked_mul(factor) == Some(tiles.keep), factor)?;
        tiles.put_together(latents, one)
    }

    /// As [`Self::encode`], every tile laid over those before it, as an [`AutoencoderTiny`](super::AutoencoderTiny)'s are.
    pub(super) fn encode_over(
        &self,
        pictures: Tensor<4>,
        factor: usize,
        one: impl Fn(Tensor<4>) -> Result<Tensor<4>>,
    ) -> Result<Tensor<4>> {
        let (size, stride) = self.overlaid(self.tile_sample_min_size)?;
        let over = Over {
            size,
            stride,
            blend: (size - stride) as f64 / factor as f64,
            place: Box::new(move |at| at / factor),
        };
        over.put_together(pictures, one)
    }

    /// As [`Self::decode`], every tile laid over those before it, as an [`AutoencoderTiny`](super::AutoencoderTiny)'s are.
    pub(super) fn decode_over(
        &self,
        latents: Tensor<4>,
        factor: usize,
        one: impl Fn(Tensor<4>) -> Result<Tensor<4>>,
    ) -> Result<Tensor<4>> {
        let (size, stride) = self.overlaid(self.tile_latent_min_size)?;
        let over = Over {
            size,
            stride,
            blend: ((size - stride) * factor) as f64,
            place: Box::new(move |at| at * factor),
        };
        over.put_together(latents, one)
    }

    /// Size and stride of tiles of which each lies over the last.
    fn overlaid(&self, size: usize) -> Result<(usize, usize)> {
        let overlap = self.tile_overlap_factor;
        let blend = (size as f64 * overlap) as usize;
        if !(0.0..1.0).contains(&overlap) || size == 0 || size > 1 << 20 {
            return Err(self.no_tiles());
        }
        Ok((size, size - blend))
    }

    /// Tiles of `size` whose results are of `result`.
    fn tiles(&self, size: usize, result: usize) -> Result<Tiles> {
        let overlap = self.tile_overlap_factor;
        let stride = (size as f64 * (1.0 - overlap)) as usize;
        let blend = (result as f64 * overlap) as usize;
        if !(0.0..1.0).contains(&overlap) || stride == 0 || blend >= result {
            return Err(self.no_tiles());
        }
        Ok(Tiles {
            size,
            stride,
            blend,
            keep: result - blend,
        })
    }

    fn no_tiles(&self) -> Error {
        Error::Config(format!(
            "tiles of {} pixels and {} latents cannot overlap by {} of their size: choose sizes from 1 on and tile_overlap_factor from 0 \
             to below 1, so that every tile begins after the one before it",
            self.tile_sample_min_size, self.tile_latent_min_size, self.tile_overlap_factor
        ))
    }

    /// What is kept of the tiles must lie edge to edge.
    fn check_whole(&self, whole: bool, factor: usize) -> Result<()> {
        if whole {
            return Ok(());
        }
        Err(Error::Config(format!(
            "tiles of {} pixels and {} latents that overlap by {} of their size do not make a whole picture: a tile has {factor} pixels a \
             latent, and what tile_overlap_factor leaves of both sizes must be a whole number of latents",
            self.tile_sample_min_size, self.tile_latent_min_size, self.tile_overlap_factor
        )))
    }
}

impl Tiles {
    /// Every tile blends with the ones above it and to its left, which are blended already, and gives the part that they do not.
    fn put_together(&self, x: Tensor<4>, one: impl Fn(Tensor<4>) -> Result<Tensor<4>>) -> Result<Tensor<4>> {
        let [.., height, width] = x.dims();
        if height <= self.size && width <= self.size {
            return one(x);
        }
        let mut above: Vec<Tensor<4>> = Vec::new();
        let mut rows = Vec::new();
        for top in (0..height).step_by(self.stride) {
            let mut row: Vec<Tensor<4>> = Vec::new();
            for left in (0..width).step_by(self.stride) {
                let mut tile = one(part(&x, [top, left], self.size))?;
                if let Some(above) = above.get(row.len()) {
                    tile = blended(above, tile, self.blend, 2);
                }
                if let Some(before) = row.last() {
                    tile = blended(before, tile, self.blend, 3);
                }
                row.push(tile);
            }
            let kept = row.iter().map(|tile| part(tile, [0, 0], self.keep)).collect();
            rows.push(Tensor::cat(kept, 3));
            above = row;
        }
        Ok(Tensor::cat(rows, 2))
    }
}

/// Tiles of which each lies over those before it, as `AutoencoderTiny` has them.
struct Over {
    size: usize,
    stride: usize,
    /// How long a tile comes in, in the result's units.
    blend: f64,
    /// Where in the result a place lies.
    place: Box<dyn Fn(usize) -> usize>,
}

impl Over {
    fn put_together(&self, x: Tensor<4>, one: impl Fn(Tensor<4>) -> Result<Tensor<4>>) -> Result<Tensor<4>> {
        let [.., height, width] = x.dims();
        if height <= self.size && width <= self.size {
            return one(x);
        }
        let mut whole: Option<Tensor<4>> = None;
        for top in (0..height).step_by(self.stride) {
            for left in (0..width).step_by(self.stride) {
                let tile = one(part(&x, [top, left], self.size))?;
                let [batch, channels, ..] = tile.dims();
                let size = [(self.place)(height), (self.place)(width)];
                let under = whole
                    .take()
                    .unwrap_or_else(|| Tensor::zeros([batch, channels, size[0], size[1]], &tile.device()));
                whole = Some(self.laid(under, tile, [top, left])?);
            }
        }
        whole.ok_or_else(|| Error::Shape("there is nothing to cut into tiles".into()))
    }

    /// `under` with a tile over it that began there.
    fn laid(&self, under: Tensor<4>, tile: Tensor<4>, begin: [usize; 2]) -> Result<Tensor<4>> {
        let [batch, channels, height, width] = tile.dims();
        let [_, _, whole_height, whole_width] = under.dims();
        let [top, left] = begin.map(|at| (self.place)(at));
        if top + height > whole_height || left + width > whole_width {
            return Err(Error::Shape(format!(
                "a tile's result of {height}x{width} does not fit at {top}, {left} of {whole_height}x{whole_width}: the sides, and where \
                 tiles begin, must be whole numbers of latents"
            )));
        }
        let device = tile.device();
        let rows = along(self.shares(begin[0], height), 2, &device);
        let columns = along(self.shares(begin[1], width), 3, &device);
        let share = rows * columns;
        let place = [0..batch, 0..channels, top..top + height, left..left + width];
        let old = under.clone().slice(place.clone()) * (-share.clone() + 1.0);
        Ok(under.slice_assign(place, tile * share + old))
    }

    /// How much a tile's first rows or columns count: all where nothing lies below, else more and more. An overlap of less than two of
    /// the result's units counts for nothing, as in diffusers.
    fn shares(&self, begin: usize, length: usize) -> Vec<f32> {
        let last = (self.blend - 1.0) as f32;
        let share = |k: usize| match begin {
            0 => 1.0,
            _ if last == 0.0 => f32::from(k > 0),
            _ => (k as f32 / last).clamp(0.0, 1.0),
        };
        (0..length).map(share).collect()
    }
}

/// The square of `size` from there on, or what there is of it.
fn part(x: &Tensor<4>, [top, left]: [usize; 2], size: usize) -> Tensor<4> {
    let [.., height, width] = x.dims();
    x.clone()
        .narrow(2, top, size.min(height - top))
        .narrow(3, left, size.min(width - left))
}

/// `tile`, whose first `blend` rows or columns come little by little out of the last ones of the tile before it.
fn blended(before: &Tensor<4>, tile: Tensor<4>, blend: usize, axis: usize) -> Tensor<4> {
    let (end, length) = (before.dims()[axis], tile.dims()[axis]);
    let blend = blend.min(end).min(length);
    if blend == 0 {
        return tile;
    }
    let share = |of: fn(f64) -> f64| {
        let shares = (0..blend).map(|y| of(y as f64 / blend as f64) as f32);
        along(shares.collect(), axis, &tile.device())
    };
    let old = before.clone().narrow(axis, end - blend, blend) * share(|new| 1.0 - new);
    let mixed = old + tile.clone().narrow(axis, 0, blend) * share(|new| new);
    if blend == length {
        return mixed;
    }
    Tensor::cat(vec![mixed, tile.narrow(axis, blend, length - blend)], axis)
}

/// Numbers along an axis, the same everywhere else.
fn along(numbers: Vec<f32>, axis: usize, device: &Device) -> Tensor<4> {
    let mut shape = [1; 4];
    shape[axis] = numbers.len();
    Tensor::from_data(TensorData::new(numbers, shape), device)
}
