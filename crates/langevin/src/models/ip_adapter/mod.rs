//! IP-Adapters: pictures as prompts beside a text (Ye et al. 2023, "IP-Adapter: Text Compatible Image Prompt Adapter").

mod config;
mod encoder;
mod open;
mod projection;

use std::path::Path;

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

pub use config::{IpAdapterConfig, IpAdapterKind};
pub use encoder::ImageEncoder;
pub use open::{ENDINGS, IpAdapterModel, encoder_of, file_in, has_ending};
pub use projection::{FullProjection, ImageProjection, PlainProjection, Resampler, ResamplerLayer};

use super::{ImagePrompts, room::room_for, unet2d_condition::CrossAttention};
use crate::{
    Error, Result,
    nn::{Init, Linear, Look},
    weights::{self, Checkpoint},
};

/// Makes of pictures tokens that a UNet's cross-attentions look at beside those of a text. It changes nothing of the UNet: what it makes is
/// given to it with every other condition.
///
/// Mirrors diffusers' `MultiIPAdapterImageProjection` of one adapter and its `IPAdapterAttnProcessor`s.
#[derive(Module, Debug)]
pub struct IpAdapter {
    /// From what a picture's encoder says to tokens.
    pub image_proj: ImageProjection,
    /// Of each cross-attention, in the order in which files number them: the way down, the way up, the middle.
    pub layers: Vec<ImageAttention>,
    #[module(skip)]
    config: IpAdapterConfig,
}

/// The keys and values of pictures' tokens in one cross-attention.
#[derive(Module, Debug)]
pub struct ImageAttention {
    /// Keys, without bias.
    pub to_k_ip: Linear,
    /// Values, without bias.
    pub to_v_ip: Linear,
}

/// What an encoder says of pictures, and what guidance leads away from.
#[derive(Clone, Debug)]
pub struct SeenPictures {
    /// The pictures' own, `[pictures, vectors, image_embed_dim]`.
    pub towards: Tensor<3>,
    /// That of no picture, of the same shape.
    pub away: Tensor<3>,
}

impl IpAdapter {
    /// Opens the file of an adapter: safetensors, or a pickle of two dicts.
    ///
    /// # Errors
    /// If it is missing or broken, or holds no adapter of a kind that is there.
    pub fn open(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let path = path.as_ref();
        let (config, mut weights) = IpAdapterConfig::of_weights(Checkpoint::open(path)?.keeping_types())?;
        room_for(weights.loaded_bytes(), path)?;
        let init = &mut Init::to_load(device);
        let image_proj = ImageProjection::new(&config, init);
        let mut layers = Vec::with_capacity(config.widths.len());
        for &width in &config.widths {
            layers.push(ImageAttention {
                to_k_ip: Linear::without_bias(config.cross_attention_dim, width, init),
                to_v_ip: Linear::without_bias(config.cross_attention_dim, width, init),
            });
        }
        let adapter = Self {
            image_proj,
            layers,
            config,
        };
        weights::load(adapter, &mut weights, device)
    }

    /// The bytes that the adapter in a file takes once it is loaded.
    ///
    /// # Errors
    /// If there is none.
    pub fn bytes_at(path: impl AsRef<Path>) -> Result<u64> {
        Ok(
            IpAdapterConfig::of_weights(Checkpoint::open(path)?.keeping_types())?
                .1
                .loaded_bytes(),
        )
    }

    /// What it consists of.
    pub fn config(&self) -> &IpAdapterConfig {
        &self.config
    }

    /// What it is told of pictures that an encoder is shown.
    ///
    /// # Shapes
    /// `[pictures, 3, side, side]`, as [`ImageEncoder::prepare`] makes them
    ///
    /// # Errors
    /// If the encoder is another one than the adapter was made with.
    pub fn see(&self, encoder: &ImageEncoder, pictures: Tensor<4>) -> Result<SeenPictures> {
        encoder.check_fits(&self.config)?;
        if self.config.sees_patches() {
            let [count, ..] = pictures.dims();
            // They are all alike, and seen without regard to each other.
            let nothing = encoder.patches(pictures.clone().narrow(0, 0, 1).zeros_like())?;
            return Ok(SeenPictures {
                towards: encoder.patches(pictures)?,
                away: nothing.repeat_dim(0, count),
            });
        }
        let towards = encoder.whole(pictures)?.unsqueeze_dim::<3>(1);
        Ok(SeenPictures {
            away: towards.zeros_like(),
            towards,
        })
    }

    /// The tokens of each picture.
    ///
    /// # Shapes
    /// `[pictures, vectors, image_embed_dim]` → `[pictures, tokens, cross_attention_dim]`
    pub fn tokens(&self, seen: Tensor<3>) -> Tensor<3> {
        self.image_proj.forward(seen)
    }

    /// What pictures that are seen together come to in each cross-attention of a UNet.
    ///
    /// `scale` says how strongly they lead in each, which `cross_attentions` lists as the UNet does.
    ///
    /// # Shapes
    /// `seen`: `[pictures, vectors, image_embed_dim]`
    ///
    /// # Errors
    /// If the UNet has other cross-attentions than the adapter was made for.
    pub fn prompts(
        &self,
        seen: Tensor<3>,
        cross_attentions: &[Vec<CrossAttention>; 3],
        scale: impl Fn(&CrossAttention) -> f64,
    ) -> Result<ImagePrompts> {
        let tokens = self.tokens(seen);
        let [pictures, each, dimension] = tokens.dims();
        // Several pictures are one longer prompt.
        let tokens = tokens.reshape([1, pictures * each, dimension]);
        let [down, middle, up] = cross_attentions;
        let count = down.len() + middle.len() + up.len();
        if count != self.layers.len() {
            return Err(Error::Shape(format!(
                "the IP-Adapter is for {} cross-attentions, and the model has {count}",
                self.layers.len()
            )));
        }
        let look = |(layer, attention): (&ImageAttention, &CrossAttention)| Look {
            keys: layer.to_k_ip.forward(tokens.clone()),
            // What a value counts for is linear in it.
            values: layer.to_v_ip.forward(tokens.clone()) * scale(attention),
        };
        let (of_down, rest) = self.layers.split_at(down.len());
        let (of_up, of_middle) = rest.split_at(up.len());
        let in_turn = of_down
            .iter()
            .zip(down)
            .chain(of_middle.iter().zip(middle))
            .chain(of_up.iter().zip(up));
        Ok(ImagePrompts::of(in_turn.map(look).collect()))
    }
}
