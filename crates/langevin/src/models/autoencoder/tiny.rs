//! `AutoencoderTiny` (TAESD, by Ollin Boer Bohan): a distilled autoencoder of a few convolutions, fast enough for previews.

use burn::{module::Module, tensor::Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Tiling, check_latents, check_pictures,
    levels::{self, finite, positive, validate_levels, within},
};
use crate::{
    Error, Result,
    models::{DIFFUSERS_VERSION, Model, ModelConfig},
    nn::{Activation, Conv2d, Init},
    ops::{self, Geometry},
};

/// What the decoder holds latents to, whatever the configuration's `latent_magnitude`.
const LIMIT: f64 = 3.0;

/// The configuration of an [`AutoencoderTiny`], with diffusers' names and defaults; a key that is missing takes its default, and one that
/// is unknown is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // The names are diffusers', and its documentation is theirs.
pub struct AutoencoderTinyConfig {
    #[serde(rename = "_class_name")]
    pub class_name: String,
    #[serde(rename = "_diffusers_version")]
    pub diffusers_version: String,
    pub in_channels: usize,
    pub out_channels: usize,
    pub encoder_block_out_channels: Vec<usize>,
    pub decoder_block_out_channels: Vec<usize>,
    pub act_fn: Activation,
    pub upsample_fn: String,
    pub latent_channels: usize,
    pub upsampling_scaling_factor: usize,
    pub num_encoder_blocks: Vec<usize>,
    pub num_decoder_blocks: Vec<usize>,
    pub latent_magnitude: f64,
    pub latent_shift: f64,
    #[serde(deserialize_with = "crate::models::checks::on_or_off")]
    pub force_upcast: bool,
    pub scaling_factor: f64,
    pub shift_factor: f64,
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Default for AutoencoderTinyConfig {
    fn default() -> Self {
        Self {
            class_name: Self::CLASS.into(),
            diffusers_version: DIFFUSERS_VERSION.into(),
            in_channels: 3,
            out_channels: 3,
            encoder_block_out_channels: vec![64; 4],
            decoder_block_out_channels: vec![64; 4],
            act_fn: Activation::Relu,
            upsample_fn: "nearest".into(),
            latent_channels: 4,
            upsampling_scaling_factor: 2,
            num_encoder_blocks: vec![1, 3, 3, 3],
            num_decoder_blocks: vec![3, 3, 3, 1],
            latent_magnitude: 3.0,
            latent_shift: 0.5,
            force_upcast: false,
            scaling_factor: 1.0,
            shift_factor: 0.0,
            unknown: Map::new(),
        }
    }
}

impl AutoencoderTinyConfig {
    /// Pixels along a side of what one latent stands for.
    pub fn factor(&self) -> usize {
        levels::factor(self.encoder_block_out_channels.len())
    }

    /// Checks the levels of one side.
    fn validate_side(&self, side: &str, channels: &[usize], blocks: &[usize]) -> Result<()> {
        let fail = |message: String| Err(Error::Config(message));
        let name = format!("{side}_block_out_channels");
        validate_levels(&name, channels.len())?;
        let (levels, first) = (self.encoder_block_out_channels.len(), channels[0]);
        for (name, length) in [
            (name.clone(), channels.len()),
            (format!("num_{side}_blocks"), blocks.len()),
        ] {
            if length != levels {
                return fail(format!(
                    "{name} has {length} entries but encoder_block_out_channels has {levels}: there is one per level"
                ));
            }
        }
        within(&[(name.as_str(), first, 1 << 14)])?;
        if let Some(other) = channels.iter().find(|&&other| other != first) {
            return fail(format!(
                "{name} has {first} and {other}: all levels of an AutoencoderTiny are equally wide"
            ));
        }
        let many = blocks.iter().find(|&&blocks| blocks > 64);
        many.map_or(Ok(()), |blocks| {
            fail(format!("num_{side}_blocks has {blocks}: a level has at most 64"))
        })
    }
}

impl ModelConfig for AutoencoderTinyConfig {
    const CLASS: &'static str = "AutoencoderTiny";
    const LIBRARY: &'static str = "diffusers";

    fn validate(&self) -> Result<()> {
        for (name, value, only) in [
            ("upsample_fn", json!(self.upsample_fn), json!("nearest")),
            (
                "upsampling_scaling_factor",
                json!(self.upsampling_scaling_factor),
                json!(2),
            ),
        ] {
            if value != only {
                return Err(Error::Unsupported(format!(
                    "{name} {value} is not there yet for an AutoencoderTiny; {only} is"
                )));
            }
        }
        self.validate_side(
            "encoder",
            &self.encoder_block_out_channels,
            &self.num_encoder_blocks,
        )?;
        self.validate_side(
            "decoder",
            &self.decoder_block_out_channels,
            &self.num_decoder_blocks,
        )?;
        within(&[
            ("in_channels", self.in_channels, 4096),
            ("out_channels", self.out_channels, 4096),
            ("latent_channels", self.latent_channels, 4096),
        ])?;
        positive("latent_magnitude", self.latent_magnitude)?;
        positive("scaling_factor", self.scaling_factor)?;
        finite("latent_shift", self.latent_shift)?;
        finite("shift_factor", self.shift_factor)
    }

    fn size_divisor(&self) -> usize {
        self.factor()
    }
}

/// What stands between layers and has no parameters, but a place in their numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// An activation.
    Activation(Activation),
    /// Twice the size by nearest neighbour.
    Upsample,
}

/// A place without parameters: an activation, or twice the size.
#[derive(Module, Debug)]
pub struct TinyStep {
    #[module(skip)]
    step: Step,
}

impl TinyStep {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self.step {
            Step::Activation(activation) => activation.forward(x),
            Step::Upsample => {
                let [_, height, width, _] = x.dims();
                ops::upsample_nearest(x, [2 * height, 2 * width])
            }
        }
    }
}

/// What a block is made of.
#[allow(
    clippy::large_enum_variant,
    reason = "a model has a few dozen of them, and a box would stand between it and its parameters"
)]
#[derive(Module, Debug)]
pub enum TinyConv {
    /// A convolution.
    Conv(Conv2d),
    /// What has no parameters.
    Step(TinyStep),
}

/// Three convolutions with activations between, plus the input. Mirrors `diffusers.models.unets.unet_2d_blocks.AutoencoderTinyBlock`.
#[derive(Module, Debug)]
pub struct AutoencoderTinyBlock {
    /// Three 3x3, with activations between.
    pub conv: Vec<TinyConv>,
}

impl AutoencoderTinyBlock {
    fn new(channels: usize, activation: Activation, init: &mut Init<'_>) -> Self {
        let mut conv = || TinyConv::Conv(conv(channels, channels, init));
        let step = || {
            TinyConv::Step(TinyStep {
                step: Step::Activation(activation),
            })
        };
        Self {
            conv: vec![conv(), step(), conv(), step(), conv()],
        }
    }

    /// # Shapes
    /// `[batch, height, width, channels]`, in and out
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let last = self.conv.len() - 1;
        let mut h = x.clone();
        for layer in &self.conv[..last] {
            h = match layer {
                TinyConv::Conv(conv) => conv.forward(h),
                TinyConv::Step(step) => step.forward(h),
            };
        }
        let h = match &self.conv[last] {
            TinyConv::Conv(conv) => conv.forward_add(h, x),
            TinyConv::Step(step) => step.forward(h) + x,
        };
        // A ReLU whatever `act_fn` is, as in diffusers.
        Activation::Relu.forward(h)
    }
}

/// What encoder and decoder are made of.
#[allow(
    clippy::large_enum_variant,
    reason = "a model has a few dozen of them, and a box would stand between it and its parameters"
)]
#[derive(Module, Debug)]
pub enum TinyLayer {
    /// A convolution.
    Conv(Conv2d),
    /// A residual block.
    Block(AutoencoderTinyBlock),
    /// What has no parameters.
    Step(TinyStep),
}

/// Layer after layer. Mirrors `EncoderTiny` and `DecoderTiny` of `diffusers.models.autoencoders.vae`.
#[derive(Module, Debug)]
pub struct TinyLayers {
    /// In order.
    pub layers: Vec<TinyLayer>,
}

/// 3x3, the size stays.
fn conv(inputs: usize, outputs: usize, init: &mut Init<'_>) -> Conv2d {
    Conv2d::new(inputs, outputs, 3, Geometry::uniform(1, 1), init)
}

/// 3x3 without bias, which may halve the size.
fn bare(channels: usize, stride: usize, init: &mut Init<'_>) -> TinyLayer {
    let geometry = Geometry::uniform(stride, 1);
    TinyLayer::Conv(Conv2d::without_bias(channels, channels, 3, geometry, init))
}

impl TinyLayers {
    fn encoder(c: &AutoencoderTinyConfig, init: &mut Init<'_>) -> Self {
        let channels = c.encoder_block_out_channels[0];
        let mut layers = Vec::new();
        for (level, &blocks) in c.num_encoder_blocks.iter().enumerate() {
            layers.push(match level {
                0 => TinyLayer::Conv(conv(c.in_channels, channels, init)),
                _ => bare(channels, 2, init),
            });
            for _ in 0..blocks {
                layers.push(TinyLayer::Block(AutoencoderTinyBlock::new(
                    channels, c.act_fn, init,
                )));
            }
        }
        layers.push(TinyLayer::Conv(conv(channels, c.latent_channels, init)));
        Self { layers }
    }

    fn decoder(c: &AutoencoderTinyConfig, init: &mut Init<'_>) -> Self {
        let step = |step| TinyLayer::Step(TinyStep { step });
        let channels = c.decoder_block_out_channels[0];
        let mut layers = vec![
            TinyLayer::Conv(conv(c.latent_channels, channels, init)),
            step(Step::Activation(c.act_fn)),
        ];
        for (level, &blocks) in c.num_decoder_blocks.iter().enumerate() {
            for _ in 0..blocks {
                layers.push(TinyLayer::Block(AutoencoderTinyBlock::new(
                    channels, c.act_fn, init,
                )));
            }
            if level + 1 < c.num_decoder_blocks.len() {
                layers.extend([step(Step::Upsample), bare(channels, 1, init)]);
            }
        }
        layers.push(TinyLayer::Conv(conv(channels, c.out_channels, init)));
        Self { layers }
    }

    /// # Shapes
    /// `[batch, height, width, channels]`, in and out
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.layers.iter().fold(x, |x, layer| match layer {
            TinyLayer::Conv(conv) => conv.forward(x),
            TinyLayer::Block(block) => block.forward(x),
            TinyLayer::Step(step) => step.forward(x),
        })
    }
}

/// Encodes pictures as latents and back. Mirrors `diffusers.AutoencoderTiny`; parameters have its names.
///
/// Pictures and latents are `[batch, channels, height, width]`; inside, channels come last.
#[derive(Module, Debug)]
pub struct AutoencoderTiny {
    /// To the latents.
    pub encoder: TinyLayers,
    /// From them.
    pub decoder: TinyLayers,
    #[module(skip)]
    config: AutoencoderTinyConfig,
}

impl Model for AutoencoderTiny {
    type Config = AutoencoderTinyConfig;

    fn build(config: &AutoencoderTinyConfig, init: &mut Init<'_>) -> Result<Self> {
        Ok(Self {
            encoder: TinyLayers::encoder(config, init),
            decoder: TinyLayers::decoder(config, init),
            config: config.clone(),
        })
    }

    fn config(&self) -> &AutoencoderTinyConfig {
        &self.config
    }

    fn written_config(&self) -> AutoencoderTinyConfig {
        let mut config = self.config.clone();
        // Whichever version wrote what was loaded, this is the one whose files these are.
        config.class_name = AutoencoderTinyConfig::CLASS.into();
        config.diffusers_version = DIFFUSERS_VERSION.into();
        let channels = json!(config.decoder_block_out_channels);
        // Where diffusers' pipelines look for the number of levels.
        config.unknown.insert("block_out_channels".into(), channels);
        config
    }
}

impl AutoencoderTiny {
    /// The pictures' latents.
    ///
    /// # Shapes
    /// `[batch, in_channels, height, width]` in -1..1 → `[batch, latent_channels, height / factor, width / factor]`, rounded up
    ///
    /// # Errors
    /// If the pictures have another number of channels, or are smaller than what one latent stands for.
    pub fn encode(&self, pictures: Tensor<4>) -> Result<Tensor<4>> {
        check_pictures(&pictures, self.config.in_channels, self.config.factor())?;
        let x = (pictures.permute([0, 2, 3, 1]) + 1.0) / 2.0;
        Ok(self.encoder.forward(x).permute([0, 3, 1, 2]))
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
        let z = (latents.permute([0, 2, 3, 1]) / LIMIT).tanh() * LIMIT;
        Ok(self.decoder.forward(z).permute([0, 3, 1, 2]) * 2.0 - 1.0)
    }

    /// [`Self::encode`] tile by tile, where a side is longer than a tile: memory is then that of a tile.
    ///
    /// # Errors
    /// As [`Self::encode`], or if tiles do not begin at whole latents.
    pub fn encode_tiled(&self, pictures: Tensor<4>, tiling: &Tiling) -> Result<Tensor<4>> {
        tiling.encode_over(pictures, self.config.factor(), |tile| self.encode(tile))
    }

    /// [`Self::decode`] tile by tile, where a side is longer than a tile: memory is then that of a tile.
    ///
    /// # Errors
    /// As [`Self::decode`], or if the tiling makes no tiles.
    pub fn decode_tiled(&self, latents: Tensor<4>, tiling: &Tiling) -> Result<Tensor<4>> {
        tiling.decode_over(latents, self.config.factor(), |tile| self.decode(tile))
    }

    /// Pictures, encoded, their latents rounded to 8 bits, as they would be in a picture file, and decoded: what calling the module does in
    /// diffusers.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn quantized_forward(&self, pictures: Tensor<4>) -> Result<Tensor<4>> {
        let (width, shift) = (2.0 * self.config.latent_magnitude, self.config.latent_shift);
        let unit = (self.encode(pictures)? / width + shift).clamp(0.0, 1.0);
        let stored = (unit * 255.0).round() / 255.0;
        self.decode((stored - shift) * width)
    }
}
