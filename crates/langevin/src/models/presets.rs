//! Models by name: the configurations of the course, of diffusers' training script, and of the built-in digits.

use super::{
    AnyModelConfig, BasicUNetConfig, UNet2DConfig,
    unet2d::{
        DownBlockType::{self, AttnDownBlock2D, DownBlock2D},
        SampleSize,
        UpBlockType::{AttnUpBlock2D, UpBlock2D},
    },
};
use crate::named::named_enum;

named_enum! {
    /// A built-in model configuration.
    pub enum ModelPreset: "a built-in model" {
        /// A UNet of 1.2 million parameters for the built-in 8x8 digits.
        Digits = "digits",
        /// The course's first UNet, for butterflies at 32x32: 18.5 million parameters.
        CourseButterflies = "course-butterflies",
        /// The course's UNet for MNIST at 28x28: 1.7 million parameters.
        CourseMnist = "course-mnist",
        /// A UNet for spectrograms of 64 bands, such as the tones' at 64x64: 2.9 million parameters.
        Tones = "tones",
        /// A UNet for latents of 16x16, such as those of pictures of 64x64 pixels: 7.4 million parameters.
        Latent = "latent",
        /// The course's network from scratch: 309 thousand parameters, without normalisation or timestep.
        BasicUnet = "basic-unet",
        /// What diffusers' `train_unconditional.py` trains where it is told nothing: 113.7 million parameters.
        DdpmDefault = "ddpm-default",
    }
}

impl ModelPreset {
    /// The resolution that the model is made for.
    pub fn resolution(self) -> usize {
        match self {
            Self::Digits => 8,
            Self::Latent => 16,
            Self::CourseMnist | Self::BasicUnet => 28,
            Self::CourseButterflies => 32,
            Self::DdpmDefault | Self::Tones => 64,
        }
    }

    /// How many channels the pictures have that it is made for.
    pub fn channels(self) -> usize {
        match self {
            Self::Digits | Self::CourseMnist | Self::Tones | Self::BasicUnet => 1,
            Self::CourseButterflies | Self::DdpmDefault => 3,
            Self::Latent => 4,
        }
    }

    /// The configuration, at the resolution and with the channels that it is made for, unconditional.
    pub fn config(self) -> AnyModelConfig {
        let unet = |block_out_channels: &[usize], down_block_types: &[DownBlockType]| UNet2DConfig {
            sample_size: Some(SampleSize::Square(self.resolution())),
            in_channels: self.channels(),
            out_channels: self.channels(),
            block_out_channels: block_out_channels.to_vec(),
            down_block_types: down_block_types.to_vec(),
            // The way up mirrors the way down.
            up_block_types: down_block_types
                .iter()
                .rev()
                .map(|block| {
                    if *block == AttnDownBlock2D {
                        AttnUpBlock2D
                    } else {
                        UpBlock2D
                    }
                })
                .collect(),
            ..UNet2DConfig::default()
        };
        AnyModelConfig::UNet2D(match self {
            // Narrow and shallow: what it lacks in width it gains in steps a second.
            Self::Digits => UNet2DConfig {
                layers_per_block: 1,
                norm_num_groups: Some(8),
                ..unet(&[32, 64, 64], &[DownBlock2D, AttnDownBlock2D, AttnDownBlock2D])
            },
            Self::CourseButterflies => unet(
                &[64, 128, 128, 256],
                &[DownBlock2D, DownBlock2D, AttnDownBlock2D, AttnDownBlock2D],
            ),
            // At the lowest levels alone it looks from one time to another.
            Self::Tones => UNet2DConfig {
                layers_per_block: 1,
                norm_num_groups: Some(8),
                ..unet(
                    &[32, 64, 96, 128],
                    &[DownBlock2D, DownBlock2D, AttnDownBlock2D, AttnDownBlock2D],
                )
            },
            // It looks from one place to another below the latents' own size, by heads of 32 numbers: many heads of 8 take a tenth longer.
            Self::Latent => UNet2DConfig {
                layers_per_block: 1,
                attention_head_dim: Some(32),
                norm_num_groups: Some(16),
                ..unet(&[64, 128, 192], &[DownBlock2D, AttnDownBlock2D, AttnDownBlock2D])
            },
            Self::CourseMnist => unet(&[32, 64, 64], &[DownBlock2D, AttnDownBlock2D, AttnDownBlock2D]),
            Self::BasicUnet => {
                return AnyModelConfig::Basic(BasicUNetConfig {
                    in_channels: self.channels(),
                    out_channels: self.channels(),
                    sample_size: Some(self.resolution()),
                    ..BasicUNetConfig::default()
                });
            }
            Self::DdpmDefault => unet(
                &[128, 128, 256, 256, 512, 512],
                &[
                    DownBlock2D,
                    DownBlock2D,
                    DownBlock2D,
                    DownBlock2D,
                    AttnDownBlock2D,
                    DownBlock2D,
                ],
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{device::default_device, named::Named, random::Generator};

    #[test]
    fn the_models_are_as_large_as_the_course_and_the_script_print() {
        for (preset, parameters) in [
            (ModelPreset::CourseButterflies, 18_536_323),
            (ModelPreset::CourseMnist, 1_707_009),
            (ModelPreset::BasicUnet, 309_057),
            // diffusers' of the same configuration.
            (ModelPreset::Latent, 7_402_756),
        ] {
            let model = preset
                .config()
                .build(&default_device(), &mut Generator::new(0))
                .unwrap();
            assert_eq!(model.num_parameters(), parameters, "{preset}");
        }
    }

    #[test]
    fn every_preset_is_a_model_for_its_own_pictures() {
        for &preset in ModelPreset::ALL {
            let config = preset.config();
            config.validate().unwrap();
            assert_eq!(config.sample_size(), Some([preset.resolution(); 2]));
            assert_eq!(config.in_channels(), preset.channels());
        }
    }
}
