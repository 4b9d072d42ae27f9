//! Whole differences, as LyCORIS' `full` and extractions store them, and those of normalisations' gains.

use super::{Formula, LowRank, Parts, count};
use crate::{Result, weights::lora::key::Part};

struct Full(Part, [usize; 2]);

/// The formula of a module's parts. The error is a part of a sentence.
pub(super) fn of(parts: &Parts) -> Result<Option<Box<dyn Formula>>, String> {
    let Some(part) = [Part::Diff, Part::Norm].into_iter().find(|part| parts.has(*part)) else {
        return Ok(None);
    };
    match parts.shape(part) {
        Some([rows, rest @ ..]) => Ok(Some(Box::new(Full(part, [*rows, count(rest)])))),
        _ => Err(format!("has {part} of a shape without axes")),
    }
}

impl Formula for Full {
    fn shape(&self) -> [usize; 2] {
        self.1
    }

    fn rank(&self) -> Option<usize> {
        None
    }

    fn delta(&self, parts: &Parts) -> Result<Vec<f32>> {
        parts.read(self.0)
    }

    fn low_rank(&self) -> Result<&LowRank, &'static str> {
        Err("whole difference")
    }
}
