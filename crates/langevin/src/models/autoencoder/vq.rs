//! `VQModel` (van den Oord et al. 2017): an autoencoder whose latents are brought to the nearest vectors of a book of them.

use burn::{
    module::{Module, Param},
    tensor::{Int, Tensor},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Decoder, Encoder,
    blocks::{DOWN_BLOCK, UP_BLOCK},
    check_latents, check_pictures,
    levels::{self, Levels, positive, within},
};
use crate::{
    Error, Result,
    models::{DIFFUSERS_VERSION, Model, ModelConfig, unet2d::SampleSize},
    nn::{Activation, Conv2d, Embedding, Init},
    ops::Geometry,
};

/// Latents that are compared with the book at once.
const PIECE: usize = 1024;
/// How much the book's way to the latents counts in the loss.
const BETA: f64 = 0.25;

/// The configuration of a [`VQModel`], with diffusers' names and defaults; a key that is missing takes its default, and one that is
/// unknown is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // The names are diffusers', and its documentation is theirs.
pub struct VQModelConfig {
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
    pub sample_size: SampleSize,
    pub num_vq_embeddings: usize,
    pub norm_num_groups: usize,
    pub vq_embed_dim: Option<usize>,
    pub scaling_factor: f64,
    pub norm_type: String,
    #[serde(deserialize_with = "crate::models::checks::on_or_off")]
    pub mid_block_add_attention: bool,
    #[serde(deserialize_with = "crate::models::checks::on_or_off")]
    pub lookup_from_codebook: bool,
    #[serde(deserialize_with = "crate::models::checks::on_or_off")]
    pub force_upcast: bool,
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Default for VQModelConfig {
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
            latent_channels: 3,
            sample_size: SampleSize::Square(32),
            num_vq_embeddings: 256,
            norm_num_groups: 32,
            vq_embed_dim: None,
            scaling_factor: 0.18215,
            norm_type: "group".into(),
            mid_block_add_attention: true,
            lookup_from_codebook: false,
            force_upcast: false,
            unknown: Map::new(),
        }
    }
}

impl VQModelConfig {
    /// Pixels along a side of what one latent stands for.
    pub fn factor(&self) -> usize {
        levels::factor(self.block_out_channels.len())
    }

    /// Channels of the latents that are brought to the book's vectors, which a diffusion model denoises.
    pub fn embed_dim(&self) -> usize {
        self.vq_embed_dim.unwrap_or(self.latent_channels)
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
}

impl ModelConfig for VQModelConfig {
    const CLASS: &'static str = "VQModel";
    const LIBRARY: &'static str = "diffusers";

    fn validate(&self) -> Result<()> {
        for (name, value, only) in [
            ("norm_type", json!(self.norm_type), json!("group")),
            (
                "lookup_from_codebook",
                json!(self.lookup_from_codebook),
                json!(false),
            ),
        ] {
            if value != only {
                return Err(Error::Unsupported(format!(
                    "{name} {value} is not there yet for a VQModel; {only} is"
                )));
            }
        }
        self.levels()
            .validate(&self.down_block_types, &self.up_block_types, self.sample_size)?;
        within(&[
            ("num_vq_embeddings", self.num_vq_embeddings, 1 << 24),
            ("vq_embed_dim", self.embed_dim(), 4096),
        ])?;
        positive("scaling_factor", self.scaling_factor)
    }

    fn sample_size(&self) -> Option<[usize; 2]> {
        Some(self.sample_size.height_width())
    }

    fn size_divisor(&self) -> usize {
        self.factor()
    }
}

/// The book of vectors. Mirrors `diffusers.models.autoencoders.vae.VectorQuantizer`.
#[derive(Module, Debug)]
pub struct VectorQuantizer {
    /// `[num_vq_embeddings, vq_embed_dim]`
    pub embedding: Embedding,
}

/// Latents, brought to the nearest vectors.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// The numbers of the vectors, `[batch, height, width]`.
    pub codes: Tensor<3, Int>,
    /// The vectors, `[batch, vq_embed_dim, height, width]`. Gradients pass to the latents as they are.
    pub quantized: Tensor<4>,
    /// How far latents and vectors lie apart, `[1]`: the mean square, towards which the latents move, and a quarter of it, towards which the
    /// vectors do.
    pub commitment: Tensor<1>,
}

impl VectorQuantizer {
    /// # Shapes
    /// `[batch, vq_embed_dim, height, width]`
    fn forward(&self, latents: Tensor<4>) -> Quantized {
        let [batch, channels, height, width] = latents.dims();
        let flat = latents
            .clone()
            .permute([0, 2, 3, 1])
            .reshape([batch * height * width, channels]);
        let codes = self.nearest(flat.detach());
        let nearest = self
            .embedding
            .forward(codes.clone())
            .reshape([batch, height, width, channels])
            .permute([0, 3, 1, 2]);
        let apart = |a: Tensor<4>, b: Tensor<4>| (a - b).square().mean();
        let commitment = apart(nearest.clone().detach(), latents.clone())
            + apart(nearest.clone(), latents.clone().detach()) * BETA;
        Quantized {
            codes: codes.reshape([batch, height, width]),
            quantized: latents.clone() + (nearest - latents).detach(),
            commitment,
        }
    }

    /// The vector with the smallest distance from each row: `[rows, channels]` → `[rows]`.
    fn nearest(&self, rows: Tensor<2>) -> Tensor<1, Int> {
        let book = self.embedding.table().detach().transpose();
        let [count, _] = rows.dims();
        // |z - e|² = |z|² + |e|² - 2 z·e, of which the first does not matter.
        let squares = book.clone().square().sum_dim(0);
        let of_piece = |start: usize| {
            let piece = rows.clone().narrow(0, start, PIECE.min(count - start));
            let distances = squares.clone() - piece.matmul(book.clone()) * 2.0;
            distances.argmin(1).squeeze_dim::<1>(1)
        };
        Tensor::cat((0..count).step_by(PIECE).map(of_piece).collect(), 0)
    }
}

/// Encodes pictures as latents, brings them to the nearest vectors of a book, and decodes them. Mirrors `diffusers.VQModel`; parameters
/// have its names.
///
/// Pictures and latents are `[batch, channels, height, width]`; inside, channels come last. Latents are not scaled.
#[derive(Module, Debug)]
pub struct VQModel {
    /// To the latents' channels.
    pub encoder: Encoder,
    /// 1x1, to the book's.
    pub quant_conv: Conv2d,
    /// The book.
    pub quantize: VectorQuantizer,
    /// 1x1, from the book's channels.
    pub post_quant_conv: Conv2d,
    /// From the latents.
    pub decoder: Decoder,
    #[module(skip)]
    config: VQModelConfig,
}

impl Model for VQModel {
    type Config = VQModelConfig;

    fn build(config: &VQModelConfig, init: &mut Init<'_>) -> Result<Self> {
        let (levels, latents, dim) = (config.levels(), config.latent_channels, config.embed_dim());
        let pixelwise = Geometry::uniform(1, 0);
        let encoder = Encoder::new(&levels, latents, init)?;
        let quant_conv = Conv2d::new(latents, dim, 1, pixelwise, init);
        let vectors = config.num_vq_embeddings;
        let mut embedding = Embedding::new(vectors, dim, init);
        // PyTorch draws them twice: ±1/n is what stays.
        embedding.weight = Param::from_tensor(init.uniform([vectors, dim], vectors * vectors));
        let post_quant_conv = Conv2d::new(dim, latents, 1, pixelwise, init);
        Ok(Self {
            encoder,
            quant_conv,
            quantize: VectorQuantizer { embedding },
            post_quant_conv,
            decoder: Decoder::new(&levels, init)?,
            config: config.clone(),
        })
    }

    fn config(&self) -> &VQModelConfig {
        &self.config
    }

    fn written_config(&self) -> VQModelConfig {
        // Whichever version wrote what was loaded, this is the one whose files these are.
        VQModelConfig {
            class_name: VQModelConfig::CLASS.into(),
            diffusers_version: DIFFUSERS_VERSION.into(),
            ..self.config.clone()
        }
    }
}

impl VQModel {
    /// The pictures' latents, before they are brought to the book's vectors.
    ///
    /// # Shapes
    /// `[batch, in_channels, height, width]` in -1..1 → `[batch, vq_embed_dim, height / factor, width / factor]`, rounded down
    ///
    /// # Errors
    /// If the pictures have another number of channels, or are smaller than what one latent stands for.
    pub fn encode(&self, pictures: Tensor<4>) -> Result<Tensor<4>> {
        check_pictures(&pictures, self.config.in_channels, self.config.factor())?;
        let h = self.encoder.forward(pictures.permute([0, 2, 3, 1]));
        Ok(self.quant_conv.forward(h).permute([0, 3, 1, 2]))
    }

    /// Latents brought to the nearest vectors.
    ///
    /// # Errors
    /// If the latents have another number of channels, or there are none.
    pub fn quantize(&self, latents: Tensor<4>) -> Result<Quantized> {
        check_latents(&latents, self.config.embed_dim())?;
        Ok(self.quantize.forward(latents))
    }

    /// The pictures of latents, which are brought to the nearest vectors first.
    ///
    /// # Shapes
    /// `[batch, vq_embed_dim, height, width]` → `[batch, out_channels, factor · height, factor · width]`
    ///
    /// # Errors
    /// As [`Self::quantize`].
    pub fn decode(&self, latents: Tensor<4>) -> Result<Tensor<4>> {
        self.decode_not_quantized(self.quantize(latents)?.quantized)
    }

    /// [`Self::decode`] of latents as they are: `force_not_quantize` of diffusers.
    ///
    /// # Errors
    /// As [`Self::quantize`].
    pub fn decode_not_quantized(&self, latents: Tensor<4>) -> Result<Tensor<4>> {
        check_latents(&latents, self.config.embed_dim())?;
        let z = self.post_quant_conv.forward(latents.permute([0, 2, 3, 1]));
        Ok(self.decoder.forward(z).permute([0, 3, 1, 2]))
    }
}
