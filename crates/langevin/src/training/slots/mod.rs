//! Steps in slots: how many processes train one run without moving a bit of it.
//!
//! A step is R slots (`num_slots`), each of which is what one process computes alone: batches of its own, with generators of its own
//! ([`chance`]). What belongs to a slot follows from seed, epoch and its number ([`plan`]), and the slots' gradients are summed along
//! a tree that is fixed by R ([`tree`]). So whoever computes a slot, the sum has the same bits: P processes, from 1 to R, have a range of slots each,
//! sum what they have, send each other the sums of a range of elements each ([`reduce`]), move those, and gather the weights.

mod chance;
mod handshake;
mod plan;
mod reduce;
mod share;
mod tree;

use std::ops::Range;

pub(super) use chance::{Chance, ChanceState};
pub(super) use handshake::check;
pub(super) use plan::Plan;
pub(super) use reduce::{Part, SlotLesson, Total, Whole, reduce};
pub(super) use share::shares;

use self::tree::{Found, Node};
use super::gradients::Gradients;
use crate::{Result, world::Team};

/// What a process's slots learn in a step: `learn` is called for each in order, and gives its gradients, if it had a batch.
///
/// # Errors
/// Those of `learn`.
pub(super) fn learn(
    own: &Range<usize>,
    slots: usize,
    mut learn: impl FnMut(usize) -> Result<(Option<Gradients>, SlotLesson)>,
) -> Result<Part> {
    let mut part = Part::default();
    for node in Node::within(own, slots) {
        let mut value = |node: Node| {
            let Some(slot) = node.slot() else {
                return Ok(Found::Below);
            };
            let (gradients, lesson) = learn(slot)?;
            part.slots.push(lesson);
            Ok(Found::Here(gradients))
        };
        let sum = node.sum(slots, &mut value, &Gradients::plus)?;
        part.nodes.push((node, sum));
    }
    Ok(part)
}

/// The states of all slots' generators, of those that each process has.
///
/// # Errors
/// If a process is gone.
pub(super) fn states(team: &mut Team<'_>, own: &[Chance]) -> Result<Vec<ChanceState>> {
    let own: Vec<ChanceState> = own.iter().map(Chance::state).collect();
    if team.size() == 1 {
        return Ok(own);
    }
    Ok(team.speak(&own)?.into_iter().flatten().collect())
}

/// The elements that each process has, one after another, in the first; `None` in the others.
///
/// # Errors
/// If a process is gone.
pub(super) fn collect(team: &mut Team<'_>, own: Vec<f32>) -> Result<Option<Vec<f32>>> {
    let mut parts = vec![Vec::new(); team.size()];
    parts[0] = own;
    let received = team.exchange(parts)?;
    Ok(team.is_first().then(|| received.concat()))
}

/// The indices that any process has, each once.
///
/// # Errors
/// If a process is gone.
pub(super) fn union(team: &mut Team<'_>, own: Vec<usize>) -> Result<Vec<usize>> {
    let mut all = team.speak(&own)?.concat();
    all.sort_unstable();
    all.dedup();
    Ok(all)
}
