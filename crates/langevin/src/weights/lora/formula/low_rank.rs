//! LoRA (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models"): `up · down`. For convolutions (LoCon) `down` has the
//! kernel and `up` one pixel; with `mid`, a Tucker core, the kernel is the core's.

use super::{Factors, Formula, Parts, check_rank, contracted, count, product};
use crate::{Result, weights::lora::key::Part};

pub(in crate::weights::lora) struct LowRank {
    outputs: usize,
    rank: usize,
    down: [usize; 2],
    core: Option<[usize; 3]>,
}

/// The formula of a module's parts. The error is a part of a sentence.
pub(super) fn of(parts: &Parts) -> Result<Option<Box<dyn Formula>>, String> {
    if !parts.has(Part::Down) && !parts.has(Part::Up) {
        return Ok(None);
    }
    let (down, [outputs, rank]) = (parts.matrix(Part::Down)?, parts.matrix(Part::Up)?);
    let core = match parts.shape(Part::Mid) {
        Some([i, j, taps @ ..]) => Some([*i, *j, count(taps)]),
        Some(shape) => return Err(format!("has lora_mid of shape {shape:?}, which has too few axes")),
        None => None,
    };
    let [first, last, _] = core.unwrap_or([rank, down[0], 1]);
    let fits = rank == first && down[0] == last && (core.is_some() || rank == down[0]);
    if !fits {
        return Err(format!(
            "has lora_down of rank {}, lora_up of rank {rank}{}, which do not fit each other",
            down[0],
            core.map_or(String::new(), |core| format!(", lora_mid {core:?}"))
        ));
    }
    let formula = LowRank {
        outputs,
        rank: down[0],
        down,
        core,
    };
    check_rank(rank.max(down[0]), formula.shape())?;
    Ok(Some(Box::new(formula)))
}

impl LowRank {
    /// `up`, and `down` with the core in it.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    pub(in crate::weights::lora) fn factors(&self, parts: &Parts) -> Result<Factors> {
        let (up, down) = (parts.read(Part::Up)?, parts.read(Part::Down)?);
        let (down, rank) = match self.core {
            Some(core) => (
                contracted(&parts.read(Part::Mid)?, core, down, self.down[1]),
                core[0],
            ),
            None => (down, self.rank),
        };
        Ok(Factors { down, up, rank })
    }
}

impl Formula for LowRank {
    fn shape(&self) -> [usize; 2] {
        let taps = self.core.map_or(1, |[.., taps]| taps);
        [self.outputs, self.down[1].saturating_mul(taps)]
    }

    fn rank(&self) -> Option<usize> {
        Some(self.rank)
    }

    fn delta(&self, parts: &Parts) -> Result<Vec<f32>> {
        let Factors { down, up, rank } = self.factors(parts)?;
        let [outputs, columns] = self.shape();
        Ok(product(up, down, [outputs, rank, columns]))
    }

    fn low_rank(&self) -> Result<&LowRank, &'static str> {
        Ok(self)
    }
}
