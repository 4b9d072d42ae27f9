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
    /// To what is computed on each level of the way down, before it is halved where the level looks at a text, and after it where it does
    /// not; of more than there are levels, to the middle. None, or one for each level.
    pub levels: Vec<Tensor<4>>,
}

impl Residuals {
    /// Both added up.
    ///
    /// # Errors
    /// If they are not of the same UNet.
    pub fn plus(self, other: Self) -> Result<Self> {
        Ok(Self {
            skips: sums(self.skips, other.skips)?,
            middle: match (self.middle, other.middle) {
                (Some(own), Some(other)) => Some(own + other),
                (own, other) => own.or(other),
            },
            levels: sums(self.levels, other.levels)?,
        })
    }

    /// So many times as much.
    pub(crate) fn times(self, scale: f64) -> Self {
        self.each(|own| if scale == 1.0 { own } else { own * scale })
    }

    /// As many rows as that, of which they have a part.
    pub(crate) fn repeated(self, rows: usize) -> Self {
        self.each(|own| {
            let [own_rows, ..] = own.dims();
            own.repeat_dim(0, rows / own_rows.max(1))
        })
    }

    fn each(self, change: impl Fn(Tensor<4>) -> Tensor<4>) -> Self {
        Self {
            skips: self.skips.into_iter().map(&change).collect(),
            middle: self.middle.map(&change),
            levels: self.levels.into_iter().map(&change).collect(),
        }
    }

    /// How many pictures they are of.
    pub(crate) fn count(&self) -> usize {
        let mut all = self.skips.iter().chain(&self.middle).chain(&self.levels);
        all.next().map_or(1, |first| first.dims()[0])
    }

    /// Of the given rows, one per picture, in their order.
    pub(crate) fn rows(&self, rows: &[usize]) -> Self {
        let of = |all: &Tensor<4>| of_rows(&Some(all.clone()), rows);
        Self {
            skips: self.skips.iter().filter_map(of).collect(),
            middle: of_rows(&self.middle, rows),
            levels: self.levels.iter().filter_map(of).collect(),
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
        let count = |of: &Self| (of.skips.len(), of.levels.len());
        if count(first) != count(second) {
            return Err(Error::Config(
                "the halves of a batch have additions of different kinds".into(),
            ));
        }
        let what = "an addition from beside the model";
        let both = |first: &[Tensor<4>], second: &[Tensor<4>]| -> Result<Vec<Tensor<4>>> {
            let pairs = first.iter().zip(second);
            pairs
                .filter_map(|(a, b)| one_after_another(what, &Some(a.clone()), &Some(b.clone())).transpose())
                .collect()
        };
        Ok(Some(Self {
            skips: both(&first.skips, &second.skips)?,
            middle: one_after_another(what, &first.middle, &second.middle)?,
            levels: both(&first.levels, &second.levels)?,
        }))
    }

    /// The same with as many rows of zeros before them as there are of their own, `parts - 1` times: for what guidance leads away from.
    pub(crate) fn behind_zeros(self, parts: usize) -> Self {
        self.each(|own| {
            let mut all = vec![own.zeros_like(); parts.saturating_sub(1)];
            all.push(own);
            Tensor::cat(all, 0)
        })
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

    /// Adds them to the output of a middle, of a model with so many levels. Mirrors diffusers, where an addition for a level that there
    /// is not counts only if it has the middle's shape.
    ///
    /// # Errors
    /// If they are those of another model.
    pub(super) fn add_to_middle(&self, x: Tensor<4>, levels: usize) -> Result<Tensor<4>> {
        let x = match self.levels.get(levels) {
            Some(residual) if residual.dims() == x.dims() => x + residual.clone(),
            _ => x,
        };
        match &self.middle {
            Some(residual) => {
                fits(&x, residual)?;
                Ok(x + residual.clone())
            }
            None => Ok(x),
        }
    }

    /// What is added on a level.
    pub(super) fn level(&self, level: usize) -> Option<&Tensor<4>> {
        self.levels.get(level)
    }
}

/// Each of the one's with each of the other's, or those that there are.
fn sums(own: Vec<Tensor<4>>, others: Vec<Tensor<4>>) -> Result<Vec<Tensor<4>>> {
    match (own.len(), others.len()) {
        (0, _) => Ok(others),
        (_, 0) => Ok(own),
        (count, other) if count == other => Ok(own.into_iter().zip(others).map(|(a, b)| a + b).collect()),
        (count, other) => Err(Error::Shape(format!(
            "{count} additions and {other} cannot be added up: they are not made for the same model"
        ))),
    }
}

/// Refuses an addition of another shape; one of a single pixel is for all.
pub(super) fn fits(output: &Tensor<4>, residual: &Tensor<4>) -> Result<()> {
    let ([batch, height, width, channels], found) = (output.dims(), residual.dims());
    if found == output.dims() || found == [batch, 1, 1, channels] {
        return Ok(());
    }
    Err(Error::Shape(format!(
        "an addition from beside the model has shape {found:?} where [{batch}, {height}, {width}, {channels}] is computed: it is made for \
         another model, or for pictures of another size"
    )))
}
