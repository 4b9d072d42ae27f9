//! Autoencoders by name, to be trained from nothing.

use super::{
    AutoencoderKLConfig,
    blocks::{DOWN_BLOCK, UP_BLOCK},
};
use crate::{models::unet2d::SampleSize, named::named_enum};

named_enum! {
    /// A built-in configuration of an [`AutoencoderKL`](super::AutoencoderKL).
    #[derive(Default)]
    pub enum AutoencoderPreset: "a built-in autoencoder" {
        /// A latent for 4x4 pixels, of 4 numbers: for pictures of 32 to 96 pixels, 0.95 million parameters.
        #[default]
        Tiny = "tiny",
        /// A latent for 8x8 pixels, of 4 numbers, as Stable Diffusion has them: for pictures of 128 pixels and more, 3.9 million parameters.
        Small = "small",
    }
}

impl AutoencoderPreset {
    /// The configuration, for pictures of so many pixels along a side and so many channels.
    pub fn config(self, side: usize, channels: usize) -> AutoencoderKLConfig {
        let widths: &[usize] = match self {
            Self::Tiny => &[32, 64, 64],
            Self::Small => &[32, 64, 128, 128],
        };
        AutoencoderKLConfig {
            in_channels: channels,
            out_channels: channels,
            block_out_channels: widths.to_vec(),
            down_block_types: vec![DOWN_BLOCK.into(); widths.len()],
            up_block_types: vec![UP_BLOCK.into(); widths.len()],
            layers_per_block: 1,
            norm_num_groups: 8,
            sample_size: SampleSize::Square(side),
            scaling_factor: 1.0,
            force_upcast: false,
            ..AutoencoderKLConfig::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        device::default_device,
        models::{AutoencoderKL, Model, ModelConfig},
        named::Named,
        random::Generator,
    };

    #[test]
    fn every_preset_is_an_autoencoder_of_the_size_that_its_help_says() {
        for (preset, parameters, factor) in [
            (AutoencoderPreset::Tiny, 954_567, 4),
            (AutoencoderPreset::Small, 3_884_295, 8),
        ] {
            let config = preset.config(64, 3);
            config.validate().unwrap();
            assert_eq!(config.factor(), factor);
            let network = AutoencoderKL::new(&config, &default_device(), &mut Generator::new(0)).unwrap();
            // As many as diffusers' of the same configuration has.
            assert_eq!(network.num_parameters(), parameters, "{preset}");
        }
        assert_eq!(AutoencoderPreset::ALL.len(), 2);
    }
}
