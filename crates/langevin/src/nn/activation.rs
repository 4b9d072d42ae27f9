//! The activations that a diffusers config may name.

use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};

use crate::ops;

/// The factor in CLIP's approximation of GELU (Hendrycks and Gimpel 2016, sec. 2).
const QUICK_GELU: f64 = 1.702;

/// Mirrors `diffusers.models.activations.get_activation`, and the one that CLIP has besides. Names are read in capital letters too, as
/// there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum Activation {
    /// x · σ(x)
    #[default]
    Silu,
    /// Another name for SiLU.
    Swish,
    /// x · tanh(softplus(x))
    Mish,
    /// x · Φ(x)
    Gelu,
    /// x · σ(1.702 x), CLIP's approximation of GELU
    #[serde(rename = "quick_gelu")]
    QuickGelu,
    /// max(x, 0)
    Relu,
}

impl TryFrom<String> for Activation {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Ok(match name.to_lowercase().as_str() {
            "silu" => Self::Silu,
            "swish" => Self::Swish,
            "mish" => Self::Mish,
            "gelu" => Self::Gelu,
            "quick_gelu" => Self::QuickGelu,
            "relu" => Self::Relu,
            _ => {
                return Err(format!(
                    "`{name}` is no activation; there are silu, swish, mish, gelu, quick_gelu and relu"
                ));
            }
        })
    }
}

impl Activation {
    /// Whether it is SiLU, which the normalisation computes in the same pass.
    pub fn is_silu(self) -> bool {
        matches!(self, Self::Silu | Self::Swish)
    }

    /// Element by element.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Silu | Self::Swish => ops::silu(x),
            Self::Mish => activation::mish(x),
            Self::Gelu => activation::gelu(x),
            Self::QuickGelu => ops::silu(x * QUICK_GELU) / QUICK_GELU,
            Self::Relu => activation::relu(x),
        }
    }
}

/// GELU by its approximation with tanh (Hendrycks and Gimpel 2016, sec. 2), written as x · σ(2u).
/// Mirrors `torch.nn.functional.gelu(approximate="tanh")`.
pub(super) fn gelu_approximate<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    const CUBIC: f64 = 0.044_715;
    let slope = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
    let twice = (x.clone().square() * (CUBIC * slope) + slope) * x.clone();
    x * activation::sigmoid(twice)
}

#[cfg(test)]
mod tests {
    use super::Activation;

    #[test]
    fn names_are_read_in_any_case_and_written_in_one() {
        let read = |name: &str| serde_json::from_value::<Activation>(name.into());
        for (name, activation) in [
            ("SiLU", Activation::Silu),
            ("swish", Activation::Swish),
            ("Mish", Activation::Mish),
            ("GELU", Activation::Gelu),
            ("quick_gelu", Activation::QuickGelu),
            ("ReLU", Activation::Relu),
        ] {
            assert_eq!(read(name).unwrap(), activation);
            assert_eq!(serde_json::to_value(activation).unwrap(), name.to_lowercase());
        }
        let message = read("tanh").unwrap_err().to_string();
        assert!(
            message.contains("`tanh` is no activation; there are silu"),
            "{message}"
        );
    }
}
