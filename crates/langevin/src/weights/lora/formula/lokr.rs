//! LoKr: a Kronecker product, either factor whole or a product of low rank (LyCORIS, Yeh et al. 2023, "Navigating Text-To-Image
//! Customization").

use super::{Factor, Formula, LowRank, Parts};
use crate::{Result, weights::lora::key::Part};

/// One side of the Kronecker product.
enum Side {
    Whole(Part, [usize; 2]),
    Product(Factor),
}

struct LoKr([Side; 2]);

/// The formula of a module's parts. The error is a part of a sentence.
pub(super) fn of(parts: &Parts) -> Result<Option<Box<dyn Formula>>, String> {
    let first = [Part::LokrW1, Part::LokrW1A, Part::LokrW1B];
    let second = [Part::LokrW2, Part::LokrW2A, Part::LokrW2B];
    if !first.iter().chain(&second).any(|part| parts.has(*part)) {
        return Ok(None);
    }
    let side = |[whole, a, b]: [Part; 3], core| {
        Ok::<_, String>(if parts.has(whole) {
            Side::Whole(whole, parts.matrix(whole)?)
        } else {
            Side::Product(Factor::of(parts, a, b, core)?)
        })
    };
    // The first side has no core; there is no tensor of a part that is not its own.
    let sides = [side(first, Part::HadaT1)?, side(second, Part::LokrT2)?];
    Ok(Some(Box::new(LoKr(sides))))
}

impl Side {
    fn shape(&self) -> [usize; 2] {
        match self {
            Self::Whole(_, shape) => *shape,
            Self::Product(factor) => factor.shape,
        }
    }

    fn rank(&self) -> Option<usize> {
        match self {
            Self::Whole(..) => None,
            Self::Product(factor) => Some(factor.rank),
        }
    }

    fn values(&self, parts: &Parts) -> Result<Vec<f32>> {
        match self {
            Self::Whole(part, _) => parts.read(*part),
            Self::Product(factor) => factor.values(parts),
        }
    }
}

impl Formula for LoKr {
    fn shape(&self) -> [usize; 2] {
        let [[a, b], [c, d]] = [self.0[0].shape(), self.0[1].shape()];
        [a.saturating_mul(c), b.saturating_mul(d)]
    }

    fn rank(&self) -> Option<usize> {
        self.0[0].rank().or(self.0[1].rank())
    }

    fn delta(&self, parts: &Parts) -> Result<Vec<f32>> {
        let [first, second] = [self.0[0].values(parts)?, self.0[1].values(parts)?];
        let [[_, columns], [rows, inner]] = [self.0[0].shape(), self.0[1].shape()];
        let [outputs, inputs] = self.shape();
        let mut delta = Vec::with_capacity(outputs * inputs);
        for row in 0..outputs {
            let (outer, line) = (row / rows * columns, row % rows * inner);
            for factor in &first[outer..outer + columns] {
                delta.extend(second[line..line + inner].iter().map(|value| factor * value));
            }
        }
        Ok(delta)
    }

    fn low_rank(&self) -> Result<&LowRank, &'static str> {
        Err("LoKr")
    }
}
