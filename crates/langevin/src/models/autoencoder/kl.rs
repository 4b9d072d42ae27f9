//! `AutoencoderKL`: the autoencoder of Stable Diffusion, whose encoder answers with a distribution.

use burn::{module::Module, tensor::Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    Decoder, Encoder, Posterior, Tiling,
    blocks::{DOWN_BLOCK, UP_BLOCK},
    check_latents, check_pictures,
    levels::{self, Levels, finite, positive},
};
use crate::{
    Error, Result,
    models::{DIFFUSERS_VERSION, Model, ModelConfig, unet2d::SampleSize},
    nn::{Activation, Conv2d, Init},
    ops::Geometry,
};

/// The configuration of an [`AutoencoderKL`], with diffusers' names and defaults; a key that is missing takes its default, and one that is
/// unknown is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // The names are diffusers', and its documentation is theirs.
pub struct AutoencoderKLConfig {
    #[serde(rename = "_class_name")]
    pub class_name: String,
    #[serde(rename = "_diffusers_version")]
    pub diffusers_version: String,
    pub in_channels: usize,
    pub out_channels: usize,
    pub down_block_types: Vec<String>,
    pub up_block_types: Vec<String>,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: usize,
    pub act_fn: Activation,
    pub latent_channels: usize,
    pub norm_num_groups: usize,
    pub sample_size: SampleSize,
    pub scaling_factor: f64,
    pub shift_factor: Option<f64>,
    pub latents_mean: Option<Vec<f64>>,
    pub latents_std: Option<Vec<f64>>,
    #[serde(deserialize_with = "crate::models::checks::on_or_off")]
    pub force_upcast: bool,
    #[serde(deserialize_with = "crate::models::checks::on_or_off")]
    pub use_quant_conv: bool,
    #[serde(deserialize_with = "crate::models::checks::on_or_off")]
    pub use_post_quant_conv: bool,
    #[serde(deserialize_with = "crate::models::checks::on_or_off")]
    pub mid_block_add_attention: bool,
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Default for AutoencoderKLConfig {
    fn default() -> Self {
        Self {
            class_name: Self::CLASS.into(),
            diffusers_version: DIFFUSERS_VERSION.into(),
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec![DOWN_BLOCK.into()],
            up_block_types: vec![UP_BLOCK.into()],
            block_out_channels: vec![64],
            layers_per_block: 1,
            act_fn: Activation::Silu,
            latent_channels: 4,
            norm_num_groups: 32,
            sample_size: SampleSize::Square(32),
            scaling_factor: 0.18215,
            shift_factor: None,
            latents_mean: None,
            latents_std: None,
            force_upcast: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
            unknown: Map::new(),
        }
    }
}

impl AutoencoderKLConfig {
    /// Pixels along a side of what one latent stands for.
    pub fn factor(&self) -> usize {
        levels::factor(self.block_out_channels.len())
    }

    fn levels(&self) -> Levels<'_> {
        Levels {
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            latent_channels: self.latent_channels,
            block_out_channels: &self.block_out_channels,
            layers_per_block: self.layers_per_block,
            norm_num_groups: self.norm_num_groups,
            act_fn: self.act_fn,
            mid_block_add_attention: self.mid_block_add_attention,
        }
    }

    /// Checks one number a channel of the latents.
    fn validate_each(
        &self,
        name: &str,
        numbers: Option<&[f64]>,
        check: fn(&str, f64) -> Result<()>,
    ) -> Result<()> {
        let Some(numbers) = numbers else {
            return Ok(());
        };
        if numbers.len() != self.latent_channels {
            return Err(Error::Config(format!(
                "{name} has {} entries but there are {} latent_channels: there is one per channel",
                numbers.len(),
                self.latent_channels
            )));
        }
        numbers.iter().try_for_each(|&number| check(name, number))
    }
}

impl ModelConfig for AutoencoderKLConfig {
    const CLASS: &'static str = "AutoencoderKL";
    const LIBRARY: &'static str = "diffusers";

    fn validate(&self) -> Result<()> {
        self.levels()
            .validate(&self.down_block_types, &self.up_block_types, self.sample_size)?;
        positive("scaling_factor", self.scaling_factor)?;
        finite("shift_factor", self.shift_factor.unwrap_or(0.0))?;
        self.validate_each("latents_mean", self.latents_mean.as_deref(), finite)?;
        self.validate_each("latents_std", self.latents_std.as_deref(), positive)
    }

    fn sample_size(&self) -> Option<[usize; 2]> {
        Some(self.sample_size.height_width())
    }

    fn size_divisor(&self) -> usize {
        self.factor()
    }
}

/// Encodes pictures as distributions of latents, and decodes latents. Mirrors `diffusers.AutoencoderKL`; parameters have its names.
///
/// Pictures and latents are `[batch, channels, height, width]`; inside, channels come last. Latents are not scaled.
#[derive(Module, Debug)]
pub struct AutoencoderKL {
    /// To twice the latents' channels.
    pub encoder: Encoder,
    /// 1x1, after the encoder.
    pub quant_conv: Option<Conv2d>,
    /// 1x1, before the decoder.
    pub post_quant_conv: Option<Conv2d>,
    /// From the latents.
    pub decoder: Decoder,
    #[module(skip)]
    config: AutoencoderKLConfig,
}

impl Model for AutoencoderKL {
    type Config = AutoencoderKLConfig;

    fn build(config: &AutoencoderKLConfig, init: &mut Init<'_>) -> Result<Self> {
        let (levels, latents) = (config.levels(), config.latent_channels);
        let pixelwise = |used: bool, channels: usize, init: &mut Init<'_>| {
            used.then(|| Conv2d::new(channels, channels, 1, Geometry::uniform(1, 0), init))
        };
        let encoder = Encoder::new(&levels, 2 * latents, init)?;
        let decoder = Decoder::new(&levels, init)?;
        Ok(Self {
            encoder,
            decoder,
            quant_conv: pixelwise(config.use_quant_conv, 2 * latents, init),
            post_quant_conv: pixelwise(config.use_post_quant_conv, latents, init),
            config: config.clone(),
        })
    }

    fn config(&self) -> &AutoencoderKLConfig {
        &self.config
    }

    fn written_config(&self) -> AutoencoderKLConfig {
        // Whichever version wrote what was loaded, this is the one whose files these are.
        AutoencoderKLConfig {
            class_name: AutoencoderKLConfig::CLASS.into(),
            diffusers_version: DIFFUSERS_VERSION.into(),
            ..self.config.clone()
        }
    }
}

impl AutoencoderKL {
    /// The distribution of the pictures' latents.
    ///
    /// # Shapes
    /// `[batch, in_channels, height, width]` in -1..1 → `[batch, latent_channels, height / factor, width / factor]`, rounded down
    ///
    /// # Errors
    /// If the pictures have another number of channels, or are smaller than what one latent stands for.
    pub fn encode(&self, pictures: Tensor<4>) -> Result<Posterior> {
        self.moments(pictures).map(Posterior::of_moments)
    }

    /// The pictures of latents.
    ///
    /// # Shapes
    /// `[batch, latent_channels, height, width]` → `[batch, out_channels, factor · height, factor · width]`
    ///
    /// # Errors
    /// If the latents have another number of channels, or there are none.
    pub fn decode(&self, latents: Tensor<4>) -> Result<Tensor<4>> {
        check_latents(&latents, self.config.latent_channels)?;
        let z = latents.permute([0, 2, 3, 1]);
        let z = match &self.post_quant_conv {
            Some(conv) => conv.forward(z),
            None => z,
        };
        Ok(self.decoder.forward(z).permute([0, 3, 1, 2]))
    }

    /// [`Self::encode`] tile by tile, where a side is longer than a tile: memory is then that of a tile. It is not the same, since
    /// normalisation and attention see a tile alone.
    ///
    /// # Errors
    /// As [`Self::encode`], or if the tiling leaves a tile smaller than what one latent stands for or makes no whole of the tiles.
    pub fn encode_tiled(&self, pictures: Tensor<4>, tiling: &Tiling) -> Result<Posterior> {
        check_pictures(&pictures, self.config.in_channels, self.config.factor())?;
        tiling
            .encode(pictures, self.config.factor(), |tile| self.moments(tile))
            .map(Posterior::of_moments)
    }

    /// [`Self::decode`] tile by tile, where a side is longer than a tile: memory is then that of a tile. It is not the same, since
    /// normalisation and attention see a tile alone.
    ///
    /// # Errors
    /// As [`Self::decode`], or if the tiling makes no whole of the tiles.
    pub fn decode_tiled(&self, latents: Tensor<4>, tiling: &Tiling) -> Result<Tensor<4>> {
        check_latents(&latents, self.config.latent_channels)?;
        tiling.decode(latents, self.config.factor(), |tile| self.decode(tile))
    }

    /// Means and logarithms of variances, `[batch, 2 · latent_channels, height, width]`.
    fn moments(&self, pictures: Tensor<4>) -> Result<Tensor<4>> {
        check_pictures(&pictures, self.config.in_channels, self.config.factor())?;
        let h = self.encoder.forward(pictures.permute([0, 2, 3, 1]));
        let h = match &self.quant_conv {
            Some(conv) => conv.forward(h),
            None => h,
        };
        Ok(h.permute([0, 3, 1, 2]))
    }
}
