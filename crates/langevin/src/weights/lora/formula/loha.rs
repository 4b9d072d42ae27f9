//! LoHa: the product, element by element, of two products of low rank (Hyeon-Woo et al. 2021, "FedPara"; LyCORIS).

use super::{Factor, Formula, LowRank, Parts};
use crate::{Result, weights::lora::key::Part};

struct LoHa([Factor; 2]);

/// The formula of a module's parts. The error is a part of a sentence.
pub(super) fn of(parts: &Parts) -> Result<Option<Box<dyn Formula>>, String> {
    let all = [Part::HadaW1A, Part::HadaW1B, Part::HadaW2A, Part::HadaW2B];
    if !all.iter().any(|part| parts.has(*part)) {
        return Ok(None);
    }
    let first = Factor::of(parts, Part::HadaW1A, Part::HadaW1B, Part::HadaT1)?;
    let second = Factor::of(parts, Part::HadaW2A, Part::HadaW2B, Part::HadaT2)?;
    if first.shape != second.shape {
        return Err(format!(
            "has factors of shapes {:?} and {:?}, which should be the same",
            first.shape, second.shape
        ));
    }
    Ok(Some(Box::new(LoHa([first, second]))))
}

impl Formula for LoHa {
    fn shape(&self) -> [usize; 2] {
        self.0[0].shape
    }

    fn rank(&self) -> Option<usize> {
        Some(self.0[0].rank)
    }

    fn delta(&self, parts: &Parts) -> Result<Vec<f32>> {
        let mut delta = self.0[0].values(parts)?;
        for (value, other) in delta.iter_mut().zip(self.0[1].values(parts)?) {
            *value *= other;
        }
        Ok(delta)
    }

    fn low_rank(&self) -> Result<&LowRank, &'static str> {
        Err("LoHa")
    }
}
