//! Pictures that a UNet looks at as it looks at a text.

use super::{of_rows, one_after_another};
use crate::{Error, Result, nn::Look};

/// What pictures come to in each cross-attention of a UNet, one row per picture that is drawn. [`IpAdapter`](super::IpAdapter) makes it.
#[derive(Clone, Debug, Default)]
pub struct ImagePrompts {
    /// Of each cross-attention, in the order in which a forward comes to them; of each adapter in turn.
    layers: Vec<Vec<Look>>,
}

impl ImagePrompts {
    /// Those of one adapter: a look in each cross-attention, in the order in which a forward comes to them.
    pub fn of(looks: Vec<Look>) -> Self {
        Self {
            layers: looks.into_iter().map(|look| vec![look]).collect(),
        }
    }

    /// Those of several adapters together.
    ///
    /// # Errors
    /// If they are not made for the same model.
    pub fn and(mut self, other: Self) -> Result<Self> {
        if self.layers.is_empty() {
            return Ok(other);
        }
        if self.layers.len() != other.layers.len() {
            return Err(different_models());
        }
        for (own, others) in self.layers.iter_mut().zip(other.layers) {
            own.extend(others);
        }
        Ok(self)
    }

    /// What is looked at in each cross-attention.
    pub(super) fn layers(&self) -> &[Vec<Look>] {
        &self.layers
    }

    /// How many tokens each adapter's pictures have: loops whose numbers are the same can be asked together.
    pub(crate) fn tokens(&self) -> Vec<usize> {
        let first = self.layers.first().into_iter().flatten();
        first.map(|look| look.keys.dims()[1]).collect()
    }

    /// The first row so many times.
    pub(crate) fn repeated(&self, rows: usize) -> Self {
        self.rows(&vec![0; rows])
    }

    /// Of the given rows, one per picture, in their order.
    pub(super) fn rows(&self, rows: &[usize]) -> Self {
        let of = |look: &Look| {
            let keys = of_rows(&Some(look.keys.clone()), rows)?;
            let values = of_rows(&Some(look.values.clone()), rows)?;
            Some(Look { keys, values })
        };
        Self {
            layers: self
                .layers
                .iter()
                .map(|looks| looks.iter().filter_map(of).collect())
                .collect(),
        }
    }

    /// Those of the pictures of `first`, then those of `second`.
    pub(super) fn one_after_another(first: Option<&Self>, second: Option<&Self>) -> Result<Option<Self>> {
        let (Some(first), Some(second)) = (first, second) else {
            return match (first, second) {
                (None, None) => Ok(None),
                _ => Err(Error::Config(
                    "one half of a batch is told pictures and the other is not".into(),
                )),
            };
        };
        if first.layers.len() != second.layers.len() || first.tokens() != second.tokens() {
            return Err(different_models());
        }
        let what = "a picture's tokens";
        let both = |(a, b): (&Look, &Look)| -> Result<Option<Look>> {
            let keys = one_after_another(what, &Some(a.keys.clone()), &Some(b.keys.clone()))?;
            let values = one_after_another(what, &Some(a.values.clone()), &Some(b.values.clone()))?;
            Ok(keys.zip(values).map(|(keys, values)| Look { keys, values }))
        };
        let layer = |(a, b): (&Vec<Look>, &Vec<Look>)| -> Result<Vec<Look>> {
            a.iter()
                .zip(b)
                .filter_map(|pair| both(pair).transpose())
                .collect()
        };
        let layers = first.layers.iter().zip(&second.layers).map(layer);
        Ok(Some(Self {
            layers: layers.collect::<Result<_>>()?,
        }))
    }
}

fn different_models() -> Error {
    Error::Shape("pictures' tokens of different adapters cannot be put together".into())
}
