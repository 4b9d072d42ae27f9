//! A change of one parameter, made as it is read.

use std::sync::Arc;

use super::{
    formula::{Formula, Parts},
    key::Part,
};
use crate::{Error, Result, weights::Edit};

/// DoRA (Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation"): the direction of the changed weight, with magnitudes that were trained
/// beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dora {
    /// A magnitude for each output. As PEFT has it, the user's scale multiplies the low-rank change alone.
    Outputs,
    /// A magnitude for each output of a whole change `W' − W`, which the user's scale multiplies, as A1111 and ComfyUI have it.
    OutputsOfWhole,
    /// The same with a magnitude for each input.
    InputsOfWhole,
}

/// The change of a weight.
pub(super) struct WeightEdit {
    pub formula: Arc<dyn Formula>,
    pub parts: Arc<Parts>,
    /// The file's scale: alpha by the rank.
    pub scale: f64,
    /// The user's.
    pub weight: f64,
    pub dora: Option<Dora>,
}

impl Edit for WeightEdit {
    fn apply(&self, values: &mut [f32], shape: &[usize]) -> Result<()> {
        let delta = self.formula.delta(&self.parts)?;
        let rows = shape.first().copied().unwrap_or(1).max(1);
        let columns = values.len() / rows;
        let delta = padded(delta, [rows, columns]);
        let Some(dora) = self.dora else {
            let factor = (self.weight * self.scale) as f32;
            for (value, change) in values.iter_mut().zip(&delta) {
                *value += factor * change;
            }
            return Ok(());
        };
        let inner = if dora == Dora::Outputs { self.weight } else { 1.0 };
        let factor = (inner * self.scale) as f32;
        let changed: Vec<f32> = values
            .iter()
            .zip(&delta)
            .map(|(value, change)| value + factor * change)
            .collect();
        let taps: usize = shape.iter().skip(2).product();
        let axis = |place: usize| match dora {
            Dora::InputsOfWhole => place % columns / taps.max(1),
            _ => place / columns,
        };
        let magnitudes = self.parts.read(match dora {
            Dora::Outputs => Part::Magnitude,
            _ => Part::DoraScale,
        })?;
        let mut squares = vec![0.0f64; magnitudes.len()];
        for (place, value) in changed.iter().enumerate() {
            squares[axis(place)] += f64::from(*value) * f64::from(*value);
        }
        let factors: Vec<f64> = magnitudes
            .iter()
            .zip(squares)
            // A row of zeros has no direction.
            .map(|(magnitude, square)| {
                if square > 0.0 {
                    f64::from(*magnitude) / square.sqrt()
                } else {
                    1.0
                }
            })
            .collect();
        for (place, (value, changed)) in values.iter_mut().zip(changed).enumerate() {
            let whole = f64::from(changed) * factors[axis(place)];
            *value = match dora {
                Dora::Outputs => whole as f32,
                _ => (f64::from(*value) + self.weight * (whole - f64::from(*value))) as f32,
            };
        }
        Ok(())
    }
}

/// A matrix of so many rows with zeros behind each of them up to so many columns: an inpainting model's first convolution sees more channels than
/// the model that a file is for.
pub(super) fn padded(matrix: Vec<f32>, [rows, columns]: [usize; 2]) -> Vec<f32> {
    let of = matrix.len() / rows.max(1);
    if of >= columns {
        return matrix;
    }
    let mut wider = vec![0.0; rows * columns];
    for (line, change) in wider.chunks_mut(columns.max(1)).zip(matrix.chunks(of.max(1))) {
        line[..of].copy_from_slice(change);
    }
    wider
}

/// The change of a bias, or of what else has one axis: a stored difference.
pub(super) struct VectorEdit {
    pub parts: Arc<Parts>,
    pub part: Part,
    /// All scales in one.
    pub factor: f64,
}

impl Edit for VectorEdit {
    fn apply(&self, values: &mut [f32], _: &[usize]) -> Result<()> {
        let delta = self.parts.read(self.part)?;
        if delta.len() != values.len() {
            return Err(Error::Shape(format!(
                "a change of {} numbers does not fit a parameter of {}",
                delta.len(),
                values.len()
            )));
        }
        for (value, change) in values.iter_mut().zip(delta) {
            *value += self.factor as f32 * change;
        }
        Ok(())
    }
}
