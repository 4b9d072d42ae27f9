//! What networks beside a UNet, such as ControlNets, add inside of it.

use burn::tensor::Tensor;

use super::{of_rows, one_after_another};
use crate::{Error, Result};

/// Additions to what a UNet computes, in the layout that it computes in: `[batch, height, width, channels]`, where height and width may
/// be 1 for all pixels.
#[derive(Clone, Debug, Default)]
pub struct Residuals {
    /// To the outputs of the way down that the way up takes, from the first convolution on; one for each, or none at all.
    pub skips: Vec<Tensor<4>>,
    /// To the output of the middle.
    pub middle: Option<Tensor<4>>,
}

impl Residuals {
    /// Both added up.
    ///
    /// # Errors
    /// If they are not of the same UNet.
    pub fn plus(self, other: Self) -> Result<Self> {
        let skips = match (self.skips.len(), other.skips.len()) {
            (0, _) => other.skips,
            (_, 0) => self.skips,
            (own, others) if own == others => {
                let pairs = self.skips.into_iter().zip(other.skips);
                pairs.map(|(a, b)| a + b).collect()
            }
            (own, others) => {
                return Err(Error::Shape(format!(
                    "{own} additions and {others} cannot be added up: they are not made for the same model"
                )));
            }
        };
        Ok(Self {
            skips,
            middle: match (self.middle, other.middle) {
                (Some(own), Some(other)) => Some(own + other),
                (own, other) => own.or(other),
            },
        })
    }

    /// Of the given rows, one per picture, in their order.
    pub(super) fn rows(&self, rows: &[usize]) -> Self {
        let of = |all: &Tensor<4>| of_rows(&Some(all.clone()), rows);
        Self {
            skips: self.skips.iter().filter_map(of).collect(),
            middle: of_rows(&self.middle, rows),
        }
    }

    /// Those of the pictures of `first`, then those of `second`.
    pub(super) fn one_after_another(first: Option<&Self>, second: Option<&Self>) -> Result<Option<Self>> {
        let (Some(first), Some(second)) = (first, second) else {
            return match (first, second) {
                (None, None) => Ok(None),
                _ => Err(Error::Config(
                    "one half of a batch has additions from beside the model and the other has none".into(),
                )),
            };
        };
        if first.skips.len() != second.skips.len() {
            return Err(Error::Config(
                "the halves of a batch have additions of different models".into(),
            ));
        }
        let what = "an addition from beside the model";
        let pairs = first.skips.iter().zip(&second.skips);
        let skips = pairs
            .filter_map(|(a, b)| one_after_another(what, &Some(a.clone()), &Some(b.clone())).transpose());
        Ok(Some(Self {
            skips: skips.collect::<Result<_>>()?,
            middle: one_after_another(what, &first.middle, &second.middle)?,
        }))
    }

    /// The same with as many rows of zeros before them as there are of their own, `parts - 1` times: for what guidance leads away from.
    pub(crate) fn behind_zeros(self, parts: usize) -> Self {
        let behind = |own: Tensor<4>| {
            let mut all = vec![own.zeros_like(); parts.saturating_sub(1)];
            all.push(own);
            Tensor::cat(all, 0)
        };
        Self {
            skips: self.skips.into_iter().map(behind).collect(),
            middle: self.middle.map(behind),
        }
    }

    /// Adds them to the outputs of a way down.
    ///
    /// # Errors
    /// If they are those of another model.
    pub(super) fn add_to_skips(&self, outputs: &mut [Tensor<4>]) -> Result<()> {
        if self.skips.is_empty() {
            return Ok(());
        }
        if self.skips.len() != outputs.len() {
            return Err(Error::Shape(format!(
                "there are additions to {} outputs of the model's way down, which has {}: they are made for another model",
                self.skips.len(),
                outputs.len()
            )));
        }
        for (output, residual) in outputs.iter_mut().zip(&self.skips) {
            fits(output, residual)?;
            *output = output.clone() + residual.clone();
        }
        Ok(())
    }

    /// Adds them to the output of a middle.
    ///
    /// # Errors
    /// If they are those of another model.
    pub(super) fn add_to_middle(&self, x: Tensor<4>) -> Result<Tensor<4>> {
        match &self.middle {
            Some(residual) => {
                fits(&x, residual)?;
                Ok(x + residual.clone())
            }
            None => Ok(x),
        }
    }
}

/// Refuses an addition of another shape; one of a single pixel is for all.
fn fits(output: &Tensor<4>, residual: &Tensor<4>) -> Result<()> {
    let ([batch, height, width, channels], found) = (output.dims(), residual.dims());
    if found == output.dims() || found == [batch, 1, 1, channels] {
        return Ok(());
    }
    Err(Error::Shape(format!(
        "an addition from beside the model has shape {found:?} where [{batch}, {height}, {width}, {channels}] is computed: it is made for \
         another model, or for pictures of another size"
    )))
}
