//! What chance decides in a slot.

use serde::{Deserialize, Serialize};

use crate::{
    Result,
    random::{Generator, GeneratorState},
};

/// The generators of a slot: what they draw follows from the run's seed and the slot's number, and from nothing else.
#[derive(Clone, Debug)]
pub(in crate::training) struct Chance {
    /// Draws every step's noise, timesteps and dropped classes.
    pub generator: Generator,
    /// Draws the masks of dropout, in models that have it.
    pub dropout: Generator,
}

/// Their states, for checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::training) struct ChanceState {
    pub generator: GeneratorState,
    pub dropout: GeneratorState,
}

impl Chance {
    /// That of the first slot, whose generator has drawn the weights before.
    pub(in crate::training) fn first(generator: Generator, seed: u64) -> Self {
        Self {
            generator,
            // No epoch has this number, so no picture's crop depends on the numbers that drop activations.
            dropout: Generator::for_index(seed, u64::MAX, 0),
        }
    }

    /// That of another slot.
    pub(in crate::training) fn of(slot: usize, seed: u64) -> Self {
        let number = 2 * slot as u64;
        Self {
            generator: Generator::for_index(seed, u64::MAX, number - 1),
            dropout: Generator::for_index(seed, u64::MAX, number),
        }
    }

    pub(in crate::training) fn state(&self) -> ChanceState {
        ChanceState {
            generator: self.generator.state(),
            dropout: self.dropout.state(),
        }
    }

    /// As it was.
    ///
    /// # Errors
    /// If it is none.
    pub(in crate::training) fn restored(state: ChanceState) -> Result<Self> {
        Ok(Self {
            generator: Generator::from_state(state.generator)?,
            dropout: Generator::from_state(state.dropout)?,
        })
    }
}
