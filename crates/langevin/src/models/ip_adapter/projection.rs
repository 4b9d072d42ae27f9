//! From what an encoder says of a picture to the tokens that a UNet looks at.

use burn::{
    module::{Module, Param},
    tensor::Tensor,
};

use super::{IpAdapterConfig, IpAdapterKind, config::HEAD_DIM};
use crate::{
    nn::{Activation, Init, LayerNorm, Linear},
    ops::{self, AttentionOptions},
};

/// PyTorch's default.
const EPS: f64 = 1e-5;

/// The projection of an adapter, of whichever kind.
#[derive(Module, Debug)]
// An adapter has one.
#[allow(clippy::large_enum_variant)]
pub enum ImageProjection {
    /// Of a picture's one vector.
    Plain(PlainProjection),
    /// Of its patches, which a few tokens look at.
    Plus(Resampler),
    /// Of its patches, each for itself.
    Full(FullProjection),
}

impl ImageProjection {
    pub(super) fn new(config: &IpAdapterConfig, init: &mut Init<'_>) -> Self {
        let (inputs, outputs) = (config.image_embed_dim, config.cross_attention_dim);
        match config.kind {
            IpAdapterKind::Plain { tokens } => Self::Plain(PlainProjection {
                proj: Linear::new(inputs, tokens * outputs, init),
                norm: LayerNorm::new(outputs, EPS, init),
                tokens,
            }),
            IpAdapterKind::Full => Self::Full(FullProjection {
                inner: Linear::new(inputs, inputs, init),
                outer: Linear::new(inputs, outputs, init),
                norm: LayerNorm::new(outputs, EPS, init),
            }),
            IpAdapterKind::Plus {
                tokens,
                hidden,
                heads,
                layers,
                widened,
            } => Self::Plus(Resampler {
                latents: Param::from_tensor(init.normal([1, tokens, hidden], 1.0)),
                proj_in: Linear::new(inputs, hidden, init),
                layers: (0..layers)
                    .map(|_| ResamplerLayer::new(hidden, heads, widened, init))
                    .collect(),
                proj_out: Linear::new(hidden, outputs, init),
                norm_out: LayerNorm::new(outputs, EPS, init),
            }),
        }
    }

    /// # Shapes
    /// `[pictures, vectors, image_embed_dim]` → `[pictures, tokens, cross_attention_dim]`
    pub(super) fn forward(&self, seen: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Plain(projection) => projection.forward(seen),
            Self::Plus(projection) => projection.forward(seen),
            Self::Full(projection) => projection.forward(seen),
        }
    }
}

/// A linear layer to all tokens at once. Mirrors `diffusers.models.embeddings.ImageProjection`.
#[derive(Module, Debug)]
pub struct PlainProjection {
    /// To all tokens.
    pub proj: Linear,
    /// Of each.
    pub norm: LayerNorm,
    tokens: usize,
}

impl PlainProjection {
    fn forward(&self, seen: Tensor<3>) -> Tensor<3> {
        let projected = self.proj.forward(seen);
        let [pictures, vectors, all] = projected.dims();
        self.norm
            .forward(projected.reshape([pictures, vectors * self.tokens, all / self.tokens]))
    }
}

/// Two linear layers. Mirrors `diffusers.models.embeddings.IPAdapterFullImageProjection`.
#[derive(Module, Debug)]
pub struct FullProjection {
    /// The first.
    pub inner: Linear,
    /// The second.
    pub outer: Linear,
    /// Of each token.
    pub norm: LayerNorm,
}

impl FullProjection {
    fn forward(&self, seen: Tensor<3>) -> Tensor<3> {
        let inner = Activation::Gelu.forward(self.inner.forward(seen));
        self.norm.forward(self.outer.forward(inner))
    }
}

/// A perceiver's resampler (Jaegle et al. 2021; Alayrac et al. 2022): learned tokens that look at patches.
/// Mirrors `diffusers.models.embeddings.IPAdapterPlusImageProjection`.
#[derive(Module, Debug)]
pub struct Resampler {
    /// The learned tokens, `[1, tokens, hidden]`.
    pub latents: Param<Tensor<3>>,
    /// Of the patches.
    pub proj_in: Linear,
    /// One after another.
    pub layers: Vec<ResamplerLayer>,
    /// To the tokens' dimension.
    pub proj_out: Linear,
    /// Of each token.
    pub norm_out: LayerNorm,
}

impl Resampler {
    fn forward(&self, seen: Tensor<3>) -> Tensor<3> {
        let [pictures, ..] = seen.dims();
        let patches = self.proj_in.forward(seen);
        let latents = self.latents.val().repeat_dim(0, pictures);
        let latents = self
            .layers
            .iter()
            .fold(latents, |latents, layer| layer.forward(&patches, latents));
        self.norm_out.forward(self.proj_out.forward(latents))
    }
}

/// Attention of the tokens to the patches and themselves, and a feed-forward.
#[derive(Module, Debug)]
pub struct ResamplerLayer {
    /// Of the patches.
    pub norm1: LayerNorm,
    /// Of the tokens.
    pub norm2: LayerNorm,
    /// Queries of the tokens, without bias.
    pub to_q: Linear,
    /// Keys, then values, of both, without bias.
    pub to_kv: Linear,
    /// The output projection, without bias.
    pub to_out: Linear,
    /// Before the feed-forward.
    pub ff_norm: LayerNorm,
    /// The layer that widens, without bias.
    pub ff_in: Linear,
    /// The way back, without bias.
    pub ff_out: Linear,
    heads: usize,
}

impl ResamplerLayer {
    fn new(hidden: usize, heads: usize, widened: usize, init: &mut Init<'_>) -> Self {
        let inner = heads * HEAD_DIM;
        Self {
            norm1: LayerNorm::new(hidden, EPS, init),
            norm2: LayerNorm::new(hidden, EPS, init),
            to_q: Linear::without_bias(hidden, inner, init),
            to_kv: Linear::without_bias(hidden, 2 * inner, init),
            to_out: Linear::without_bias(inner, hidden, init),
            ff_norm: LayerNorm::new(hidden, EPS, init),
            ff_in: Linear::without_bias(hidden, widened, init),
            ff_out: Linear::without_bias(widened, hidden, init),
            heads,
        }
    }

    fn forward(&self, patches: &Tensor<3>, latents: Tensor<3>) -> Tensor<3> {
        let own = self.norm2.forward(latents.clone());
        let all = Tensor::cat(vec![self.norm1.forward(patches.clone()), own.clone()], 1);
        let both = self.to_kv.forward(all);
        let inner = self.heads * HEAD_DIM;
        let options = AttentionOptions {
            heads: self.heads,
            scale: (HEAD_DIM as f32).powf(-0.5),
            causal: false,
        };
        let found = ops::attention(
            self.to_q.forward(own),
            both.clone().narrow(2, 0, inner),
            both.narrow(2, inner, inner),
            options,
        );
        let latents = self.to_out.forward_add(found, latents);
        let widened = Activation::Gelu.forward(self.ff_in.forward(self.ff_norm.forward(latents.clone())));
        self.ff_out.forward_add(widened, latents)
    }
}
