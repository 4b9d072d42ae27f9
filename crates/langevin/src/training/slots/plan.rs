//! Which batches of an epoch a slot learns from in which step: every batch once, the last ones too.

use std::ops::Range;

/// An epoch in steps, rounds of a step, and slots of a round.
///
/// Batches have their numbers by the epoch's order alone. A round is the next batch for each slot, a step so many rounds as gradients are
/// accumulated over. In the last round of an epoch slots may be without a batch, and its last batch may be a smaller one: a round counts as
/// the mean over its pictures, wherever they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::training) struct Plan {
    /// Pictures up to the end of each batch.
    ends: Vec<usize>,
    pub slots: usize,
    accumulation: usize,
}

/// A batch of a slot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::training) struct Task {
    /// Its number in the epoch.
    pub number: usize,
    /// How much the mean of its gradients counts in the step.
    pub weight: f64,
}

impl Plan {
    /// For an epoch whose batches have so many pictures.
    pub(in crate::training) fn new(pictures: &[usize], slots: usize, accumulation: usize) -> Self {
        let ends = pictures.iter().scan(0, |end, pictures| {
            *end += pictures;
            Some(*end)
        });
        Self {
            ends: ends.collect(),
            slots,
            accumulation,
        }
    }

    fn batches(&self) -> usize {
        self.ends.len()
    }

    fn in_a_step(&self) -> usize {
        self.slots.saturating_mul(self.accumulation)
    }

    /// Steps of an epoch.
    pub(in crate::training) fn steps(&self) -> usize {
        self.batches().div_ceil(self.in_a_step())
    }

    /// The step that begins after so many batches.
    pub(in crate::training) fn step_after(&self, batches: usize) -> usize {
        batches.div_ceil(self.in_a_step())
    }

    /// Batches of the epoch that are done after a step.
    pub(in crate::training) fn done_after(&self, step: usize) -> usize {
        ((step + 1) * self.in_a_step()).min(self.batches())
    }

    /// Rounds of a step, the last of which may be incomplete.
    pub(in crate::training) fn rounds(&self, step: usize) -> usize {
        (self.done_after(step) - step * self.in_a_step()).div_ceil(self.slots)
    }

    /// What a slot learns from in a step.
    pub(in crate::training) fn tasks(&self, step: usize, slot: usize) -> Vec<Task> {
        let first = |round: usize| step * self.in_a_step() + round * self.slots;
        let task = |round: usize| {
            let number = first(round) + slot;
            let all = self.until(first(round) + self.slots) - self.until(first(round));
            let own = self.until(number + 1) - self.until(number);
            // Divided by the full number in an incomplete group too, as Accelerate does it.
            let weight = own as f64 / (all * self.accumulation) as f64;
            (own > 0).then_some(Task { number, weight })
        };
        (0..self.accumulation).filter_map(task).collect()
    }

    /// The batches that some slots learn from, from a step to the end of the epoch, in the order in which they come to them.
    pub(in crate::training) fn numbers(&self, slots: &Range<usize>, from: usize) -> Vec<usize> {
        let of_step = |step| slots.clone().flat_map(move |slot| self.tasks(step, slot));
        (from..self.steps())
            .flat_map(of_step)
            .map(|task| task.number)
            .collect()
    }

    /// Pictures before a batch.
    fn until(&self, batch: usize) -> usize {
        match batch.min(self.ends.len()) {
            0 => 0,
            batch => self.ends[batch - 1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(pictures: usize, size: usize) -> Vec<usize> {
        (0..pictures.div_ceil(size))
            .map(|batch| size.min(pictures - batch * size))
            .collect()
    }

    #[test]
    fn every_batch_is_learned_from_once_whoever_does_it() {
        for (pictures, slots, accumulation) in [(1, 4, 1), (37, 4, 2), (40, 1, 3), (96, 3, 4), (5, 8, 2)] {
            let plan = Plan::new(&batches(pictures, 3), slots, accumulation);
            let mut all = plan.numbers(&(0..slots), 0);
            all.sort_unstable();
            assert_eq!(all, (0..pictures.div_ceil(3)).collect::<Vec<_>>());
            for step in 0..plan.steps() {
                let tasks: Vec<Task> = (0..slots).flat_map(|slot| plan.tasks(step, slot)).collect();
                let sum: f64 = tasks.iter().map(|task| task.weight).sum();
                let rounds = plan.rounds(step);
                assert!((sum - rounds as f64 / accumulation as f64).abs() < 1e-12, "{sum}");
                assert_eq!(plan.step_after(plan.done_after(step)), step + 1);
            }
        }
    }

    #[test]
    fn a_round_is_the_mean_over_its_pictures() {
        let plan = Plan::new(&[2, 2, 2, 1], 2, 1);
        let weights = |step| [0, 1].map(|slot| plan.tasks(step, slot)[0].weight);
        assert_eq!(weights(0), [0.5, 0.5]);
        assert_eq!(weights(1), [2.0 / 3.0, 1.0 / 3.0]);
        // Batches of buckets are of any size.
        let plan = Plan::new(&[1, 3, 2], 2, 1);
        let weights = |step| plan.tasks(step, 0)[0].weight;
        assert_eq!([weights(0), weights(1)], [0.25, 1.0]);
    }
}
