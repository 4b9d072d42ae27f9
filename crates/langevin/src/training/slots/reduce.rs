//! From what each process learned to what all of them learned together: by element ranges, along the tree of slots.

use std::{collections::BTreeMap, ops::Range};

use burn::module::ParamId;
use serde::{Deserialize, Serialize};

use super::{
    share::{CHUNK, shares, squares},
    tree::{Found, Node},
};
use crate::{
    Error, Result,
    training::{
        gradients::Gradients,
        learner::shared::{ShareOfGradients, numbers},
    },
    world::{Team, of_process, part_of},
};

/// Elements that are sent to a process at once: 4 MiB.
const BLOCK: usize = 256 * CHUNK;

/// What a slot's batches came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::training) struct SlotLesson {
    /// The weighted sum of its batches' losses.
    pub loss: f64,
    /// Its pictures' losses.
    pub losses: Vec<f32>,
    /// Where they stood between clean and noise.
    pub noise_levels: Vec<f32>,
}

/// What a process learned in a step.
#[derive(Default)]
pub(in crate::training) struct Part {
    /// The sums of the nodes that it has.
    pub(super) nodes: Vec<(Node, Option<Gradients>)>,
    /// What its slots came to, in order.
    pub(super) slots: Vec<SlotLesson>,
}

/// What all of them learned.
pub(in crate::training) struct Whole {
    pub slots: Vec<SlotLesson>,
    pub total: Total,
    /// Somebody was asked to stop.
    pub stop: bool,
}

/// The sum of the slots' gradients.
pub(in crate::training) enum Total {
    /// None had any.
    Nothing,
    /// All of it, with its norm.
    Whole(Gradients, f64),
    /// The elements of this process.
    Share(ShareOfGradients),
}

/// What a process says of a step.
#[derive(Serialize, Deserialize)]
struct Said {
    failed: Option<String>,
    stop: bool,
    /// Of each slot: the bits of its loss, of its pictures' losses and noise levels. A decimal fraction need not come back the same.
    slots: Vec<(u64, Vec<u32>, Vec<u32>)>,
    /// Which of its nodes have gradients.
    nodes: Vec<bool>,
    /// Places of parameters that have none, where it has any gradients.
    missing: Option<Vec<usize>>,
    /// Whether there are gradients of rows beside.
    beside: bool,
}

/// Sums over all slots of all processes.
///
/// # Errors
/// If a process failed or is gone; or their gradients are not of the same parameters.
pub(in crate::training) fn reduce(
    team: &mut Team<'_>,
    slots: usize,
    row: &[(ParamId, Range<usize>)],
    part: Result<Part>,
    stop: bool,
) -> Result<Whole> {
    let (part, failed) = match part {
        Ok(part) => (part, None),
        Err(error) => (Part::default(), Some(error)),
    };
    if team.size() == 1 {
        return match failed {
            Some(error) => Err(error),
            None => Ok(alone(part, row, stop)),
        };
    }
    let said: Vec<Said> = team.speak(&part.said(row, failed.as_ref(), stop))?;
    if let Some(error) = failed {
        return Err(error);
    }
    if let Some((rank, sentence)) = said
        .iter()
        .enumerate()
        .find_map(|(rank, said)| Some((rank, said.failed.as_ref()?)))
    {
        return Err(of_process(rank, sentence));
    }
    let mut missing = said.iter().filter_map(|said| said.missing.as_ref());
    let first = missing.next().cloned();
    if missing.any(|other| Some(other) != first.as_ref()) {
        return Err(Error::Config(
            "the slots' gradients are not of the same parameters, so they cannot be summed".into(),
        ));
    }
    let stop = said.iter().any(|said| said.stop);
    let lessons = said
        .iter()
        .flat_map(|said| &said.slots)
        .map(SlotLesson::heard)
        .collect();
    let total = match first {
        None => Total::Nothing,
        Some(missing) => Total::Share(shared(team, slots, row, part, &said, missing)?),
    };
    Ok(Whole {
        slots: lessons,
        total,
        stop,
    })
}

/// One process that has all slots.
fn alone(part: Part, row: &[(ParamId, Range<usize>)], stop: bool) -> Whole {
    let total = match part.nodes.into_iter().next() {
        Some((_, Some(gradients))) => {
            let values = in_a_row(&gradients, row);
            let beside = gradients.beside().values().map(|tensor| numbers(tensor.clone()));
            let norm = norm(squares(&values), beside);
            Total::Whole(gradients, norm)
        }
        _ => Total::Nothing,
    };
    Whole {
        slots: part.slots,
        total,
        stop,
    }
}

/// This process's share of the sum, and the norm of all of it.
fn shared(
    team: &mut Team<'_>,
    slots: usize,
    row: &[(ParamId, Range<usize>)],
    part: Part,
    said: &[Said],
    missing: Vec<usize>,
) -> Result<ShareOfGradients> {
    let (size, rank) = (team.size(), team.rank());
    let total = row.last().map_or(0, |(_, at)| at.end);
    let shares = shares(total, size);
    let theirs: Vec<Vec<Node>> = (0..size)
        .map(|rank| {
            let nodes = Node::within(&part_of(rank, size, slots), slots).into_iter();
            let there = nodes.zip(&said[rank].nodes).filter(|(_, has)| **has);
            there.map(|(node, _)| node).collect()
        })
        .collect();
    let mut beside = BTreeMap::new();
    if said.iter().any(|said| said.beside) {
        beside = summed_beside(team, slots, &part, &theirs)?;
    }
    // What is in a row is not needed as tensors any more.
    let own: Vec<Vec<f32>> = part
        .nodes
        .into_iter()
        .filter_map(|(_, gradients)| Some(in_a_row(&gradients?, row)))
        .collect();
    let longest = shares.iter().map(Range::len).max().unwrap_or(0);
    let mut values = Vec::with_capacity(shares[rank].len());
    for block in (0..longest).step_by(BLOCK) {
        let of = |share: &Range<usize>| {
            (share.start + block).min(share.end)..(share.start + block + BLOCK).min(share.end)
        };
        let parts = shares.iter().map(|share| {
            let range = of(share);
            own.iter()
                .flat_map(|values| &values[range.clone()])
                .copied()
                .collect()
        });
        let received = team.exchange(parts.collect())?;
        values.extend(sum_block(slots, &theirs, received, of(&shares[rank]).len())?);
    }
    let own_squares: Vec<u8> = squares(&values).into_iter().flat_map(f64::to_le_bytes).collect();
    let all = team.gather(&own_squares)?.concat();
    let (numbers, _) = all.as_chunks::<8>();
    let norm = norm(
        numbers.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect(),
        beside.into_values(),
    );
    Ok(ShareOfGradients {
        values,
        missing,
        norm,
    })
}

/// The sum of a block of a share, of which each process sent one after another what its nodes have.
fn sum_block(slots: usize, theirs: &[Vec<Node>], received: Vec<Vec<f32>>, len: usize) -> Result<Vec<f32>> {
    let mut known: Vec<(Node, &[f32])> = Vec::new();
    for ((rank, nodes), values) in theirs.iter().enumerate().zip(&received) {
        if values.len() != nodes.len() * len {
            return Err(of_process(
                rank,
                "sent another number of elements than was asked for",
            ));
        }
        known.extend(
            nodes
                .iter()
                .enumerate()
                .map(|(i, node)| (*node, &values[i * len..(i + 1) * len])),
        );
    }
    let mut value = |node: Node| {
        Ok(match known.iter().find(|(known, _)| *known == node) {
            Some((_, values)) => Found::Here(Some(values.to_vec())),
            None => Found::Below,
        })
    };
    let sum = Node::root(slots).sum(slots, &mut value, &added)?;
    Ok(sum.unwrap_or_default())
}

fn added(mut a: Vec<f32>, b: Vec<f32>) -> Vec<f32> {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    a
}

type Rows = BTreeMap<u64, Vec<f32>>;
/// The same as they are sent: numbers of rows, and the bits of their elements.
type SentRows = Vec<(u64, Vec<u32>)>;

/// The sums of the rows beside, of all slots.
fn summed_beside(team: &mut Team<'_>, slots: usize, part: &Part, theirs: &[Vec<Node>]) -> Result<Rows> {
    let own: Vec<SentRows> = part
        .nodes
        .iter()
        .filter_map(|(_, gradients)| gradients.as_ref())
        .map(|gradients| {
            let rows = gradients.beside().iter();
            rows.map(|(number, row)| (*number, bits(&numbers(row.clone()))))
                .collect()
        })
        .collect();
    let all: Vec<Vec<SentRows>> = team.speak(&own)?;
    let known: Vec<(Node, Rows)> = theirs
        .iter()
        .flatten()
        .copied()
        .zip(all.into_iter().flatten())
        .map(|(node, rows)| {
            (
                node,
                rows.into_iter()
                    .map(|(number, row)| (number, floats(&row)))
                    .collect(),
            )
        })
        .collect();
    let mut value = |node: Node| {
        Ok(match known.iter().find(|(known, _)| *known == node) {
            Some((_, rows)) => Found::Here(Some(rows.clone())),
            None => Found::Below,
        })
    };
    let add = |mut a: Rows, b: Rows| {
        for (number, row) in b {
            let sum = match a.remove(&number) {
                Some(there) => added(there, row),
                None => row,
            };
            a.insert(number, sum);
        }
        a
    };
    let sum = Node::root(slots).sum(slots, &mut value, &add)?;
    Ok(sum.unwrap_or_default())
}

/// The norm of gradients whose chunks have these sums of squares, and of rows beside.
fn norm(chunks: Vec<f64>, beside: impl Iterator<Item = Vec<f32>>) -> f64 {
    let beside: f64 = beside.map(|row| squares(&row).into_iter().sum::<f64>()).sum();
    (chunks.into_iter().sum::<f64>() + beside).sqrt()
}

/// All elements of gradients in a row; zero where a parameter has none.
fn in_a_row(gradients: &Gradients, row: &[(ParamId, Range<usize>)]) -> Vec<f32> {
    let mut values = Vec::with_capacity(row.last().map_or(0, |(_, at)| at.end));
    let mut parts = gradients.parts().iter().peekable();
    for (id, at) in row {
        match parts.next_if(|(part, _)| part == id) {
            Some((_, gradient)) => values.extend(numbers(gradient.clone())),
            None => values.resize(at.end, 0.0),
        }
    }
    values
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn floats(bits: &[u32]) -> Vec<f32> {
    bits.iter().map(|bits| f32::from_bits(*bits)).collect()
}

impl SlotLesson {
    fn heard((loss, losses, levels): &(u64, Vec<u32>, Vec<u32>)) -> Self {
        Self {
            loss: f64::from_bits(*loss),
            losses: floats(losses),
            noise_levels: floats(levels),
        }
    }
}

impl Part {
    fn said(&self, row: &[(ParamId, Range<usize>)], failed: Option<&Error>, stop: bool) -> Said {
        let mut gradients = self.nodes.iter().filter_map(|(_, gradients)| gradients.as_ref());
        let missing = gradients.clone().next().map(|gradients| {
            let mut parts = gradients.parts().iter().peekable();
            let has = |(_, (id, _)): &(usize, &(ParamId, _))| parts.next_if(|(part, _)| part == id).is_none();
            row.iter()
                .enumerate()
                .filter(has)
                .map(|(place, _)| place)
                .collect()
        });
        let slot = |slot: &SlotLesson| (slot.loss.to_bits(), bits(&slot.losses), bits(&slot.noise_levels));
        Said {
            failed: failed.map(ToString::to_string),
            stop,
            slots: self.slots.iter().map(slot).collect(),
            nodes: self
                .nodes
                .iter()
                .map(|(_, gradients)| gradients.is_some())
                .collect(),
            missing,
            beside: gradients.any(|gradients| !gradients.beside().is_empty()),
        }
    }
}
