//! The networks: configuration, module, loading.

pub mod any;
pub mod presets;
pub mod unet2d;

pub use any::{AnyModel, AnyModelConfig};
pub use presets::ModelPreset;
pub use unet2d::{UNet2DConfig, UNet2DModel};

use burn::tensor::{Int, Tensor};

/// What a model may be told besides the noisy picture and its timestep. Each part is optional; a model uses those it has inputs for.
#[derive(Clone, Debug, Default)]
pub struct Conditioning {
    /// One class a picture, `[batch]`.
    pub classes: Option<Tensor<1, Int>>,
    /// A vector added to the time embedding, `[batch, dimension]`.
    pub vector: Option<Tensor<2>>,
    /// A sequence for cross-attention, `[batch, length, dimension]`.
    pub sequence: Option<Tensor<3>>,
    /// Channels put beside the picture's, `[batch, channels, height, width]`.
    pub channels: Option<Tensor<4>>,
}

/// Anything that predicts noise, a clean picture or a velocity from a noisy picture: every model, and guided ones too.
pub trait Denoiser: Send {
    /// The prediction for `x` (`[batch, channels, height, width]`) at `timesteps` (`[batch]`, float). Shape of `x`, but for the channels.
    ///
    /// # Errors
    /// If a shape does not fit the model, or a conditioning that it needs is missing.
    fn denoise(
        &self,
        x: Tensor<4>,
        timesteps: Tensor<1>,
        conditioning: &Conditioning,
    ) -> crate::Result<Tensor<4>>;
}
