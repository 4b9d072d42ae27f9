//! Models by name: the configurations of the course, of diffusers' training script, and of the built-in digits.

use crate::named::named_enum;

named_enum! {
    /// A built-in model configuration.
    pub enum ModelPreset: "a built-in model" {
        /// A class-conditional UNet of about 4 million parameters for the built-in 8x8 digits.
        Digits = "digits",
        /// The course's first UNet, for butterflies at 32x32: 18.5 million parameters.
        CourseButterflies = "course-butterflies",
        /// The course's UNet for MNIST at 28x28: 1.7 million parameters.
        CourseMnist = "course-mnist",
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
            Self::CourseMnist | Self::BasicUnet => 28,
            Self::CourseButterflies => 32,
            Self::DdpmDefault => 64,
        }
    }

    /// How many channels its pictures have.
    pub fn channels(self) -> usize {
        match self {
            Self::Digits | Self::CourseMnist | Self::BasicUnet => 1,
            Self::CourseButterflies | Self::DdpmDefault => 3,
        }
    }
}
