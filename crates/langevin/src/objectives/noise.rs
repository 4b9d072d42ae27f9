//! How the noise of a training step is drawn.

use burn::tensor::{Device, Tensor};

use crate::random::Generator;

/// The noise of a training step. Both have the pictures' shape.
#[derive(Clone, Debug)]
pub struct Noise {
    /// ε, which the model is to tell from the picture.
    pub epsilon: Tensor<4>,
    /// What is mixed into the picture: ε, or ε perturbed.
    pub mixed: Tensor<4>,
}

impl From<Tensor<4>> for Noise {
    fn from(epsilon: Tensor<4>) -> Self {
        let mixed = epsilon.clone();
        Self { epsilon, mixed }
    }
}

/// What is done to plain noise; zeros leave it as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NoiseOptions {
    /// How much of a number that is the same all over a channel is added to ε, so that a model also learns how bright a picture
    /// is as a whole (Guttenberg 2023).
    pub offset: f64,
    /// How much further noise is mixed into the picture, which the model does not know of: samples are never quite what training
    /// shows (Ning et al. 2023).
    pub input_perturbation: f64,
}

impl NoiseOptions {
    /// Standard normal noise of `shape`, and what is added to it, in the order in which diffusers' `train_text_to_image.py`
    /// draws them.
    pub fn draw(&self, shape: [usize; 4], device: &Device, generator: &mut Generator) -> Noise {
        let mut epsilon = generator.randn_tensor(shape, device);
        if self.offset != 0.0 {
            let [batch, channels, ..] = shape;
            epsilon = epsilon + generator.randn_tensor([batch, channels, 1, 1], device) * self.offset;
        }
        if self.input_perturbation == 0.0 {
            return epsilon.into();
        }
        let mixed = epsilon.clone() + generator.randn_tensor(shape, device) * self.input_perturbation;
        Noise { epsilon, mixed }
    }
}
