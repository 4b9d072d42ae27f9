//! Brownian motion whose increments do not depend on the order in which they are asked for, as `torchsde.BrownianInterval`
//! with `halfway_tree=True` (Li et al. 2020, *Scalable Gradients for Stochastic Differential Equations*).

use std::{collections::HashMap, sync::Arc};

use super::{Generator, seed_sequence::seeds};

/// How much entropy numpy's seeds keep, as in diffusers.
const POOL_SIZE: usize = 24;

/// Independent Brownian motions on an interval of time, each a function of the seed alone.
///
/// The interval is halved again and again, down to a millionth; each half's increment is drawn, given the whole's, from a
/// generator seeded by its place in this tree.
#[derive(Clone, Debug)]
pub(crate) struct BrownianTree {
    seed: u64,
    root: Interval,
    /// What the last increments went through: those of the next step begin where they ended, and share most of their way.
    recent: Halves,
}

/// Halved intervals by the bits of their two ends.
type Halves = HashMap<(u64, u64), Arc<[Interval; 2]>>;

/// A part of the interval, and how far each motion went over it.
#[derive(Clone, Debug)]
struct Interval {
    start: f64,
    end: f64,
    /// Its place in the tree: which of the intervals at its depth.
    key: u64,
    depth: u64,
    increments: Vec<f32>,
}

impl BrownianTree {
    /// `size` motions from time `start` to `end`, with `start` not above `end`.
    pub(crate) fn new(seed: u64, start: f64, end: f64, size: usize) -> Self {
        let [first, ..] = words::<3>(seed, &[]);
        let scale = (end - start).sqrt() as f32;
        let increments = Generator::new(first.into())
            .randn(size)
            .into_iter()
            .map(|x| x * scale)
            .collect();
        Self {
            seed,
            root: Interval {
                start: round(start),
                end: round(end),
                key: 0,
                depth: 0,
                increments,
            },
            recent: Halves::new(),
        }
    }

    /// How many motions there are.
    pub(crate) fn size(&self) -> usize {
        self.root.increments.len()
    }

    /// How far each motion goes from time `from` to `to`, which is not below it.
    pub(crate) fn increments(&mut self, from: f64, to: f64) -> Vec<f32> {
        let within = |time: f64| round(time.clamp(self.root.start, self.root.end));
        let (from, to) = (within(from), within(to));
        let mut sum = vec![0.0; self.size()];
        if from < to {
            let mut visited = Halves::new();
            self.add(&self.root, from, to, &mut sum, &mut visited);
            self.recent = visited;
        }
        sum
    }

    /// Adds the increments of what of an interval lies between the two times, which are within it.
    fn add(&self, interval: &Interval, from: f64, to: f64, sum: &mut [f32], visited: &mut Halves) {
        if from == interval.start && to == interval.end {
            sum.iter_mut()
                .zip(&interval.increments)
                .for_each(|(sum, x)| *sum += x);
            return;
        }
        let place = (interval.start.to_bits(), interval.end.to_bits());
        let known = self.recent.get(&place).cloned();
        let halves = known.unwrap_or_else(|| Arc::new(self.halves(interval)));
        visited.insert(place, Arc::clone(&halves));
        let [left, right] = &*halves;
        let middle = left.end;
        if from < middle {
            self.add(left, from, to.min(middle), sum, visited);
        }
        if to > middle {
            self.add(right, from.max(middle), to, sum, visited);
        }
    }

    /// The two halves of an interval: the increment of the first is normal around its share of the whole's (a Brownian
    /// bridge), the second's is what is left.
    fn halves(&self, interval: &Interval) -> [Interval; 2] {
        let &Interval {
            start,
            end,
            key,
            depth,
            ..
        } = interval;
        let middle = round(0.5 * (end + start));
        let [seed, ..] = words::<4>(self.seed, &[key, depth]);
        let noise = Generator::new(seed.into()).randn(self.size());
        // In torchsde's order of operations.
        let reciprocal = 1.0 / (end - start);
        let (before, after) = (middle - start, end - middle);
        let deviation = (before * after * reciprocal).sqrt() as f32;
        let (before, reciprocal) = (before as f32, reciprocal as f32);
        let left: Vec<f32> = interval
            .increments
            .iter()
            .zip(noise)
            .map(|(whole, noise)| before * whole * reciprocal + deviation * noise)
            .collect();
        let right = interval
            .increments
            .iter()
            .zip(&left)
            .map(|(whole, left)| whole - left)
            .collect();
        let half = |start, end, key, increments| Interval {
            start,
            end,
            key,
            depth: depth + 1,
            increments,
        };
        // Beyond 64 halvings keys begin to repeat; by then a part is far below a millionth of what models see.
        let key = key.wrapping_mul(2);
        [
            half(start, middle, key, left),
            half(middle, end, key.wrapping_add(1), right),
        ]
    }
}

fn words<const N: usize>(seed: u64, spawn_key: &[u64]) -> [u32; N] {
    let mut words = [0; N];
    words.copy_from_slice(&seeds(seed, spawn_key, POOL_SIZE, N));
    words
}

/// To a millionth, as Python's `round(time, 6)`: by the decimal digits, so that halves meet at the same number.
fn round(time: f64) -> f64 {
    format!("{time:.6}").parse().unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn increments_are_torchsdes() {
        // torchsde.BrownianInterval(t0=0.03, t1=14.6, size=(3,), entropy=5, tol=1e-6, pool_size=24, halfway_tree=True)
        let mut tree = BrownianTree::new(5, 0.03, 14.6, 3);
        for (from, to, expected) in [
            (0.03, 14.6, [4.19188, 1.757236, -1.068695]),
            (7.0, 14.6, [-0.366954, -0.8955128, 0.2623596]),
            (1.234567, 7.0, [3.476261, 0.6298599, -0.7695094]),
            (0.03, 0.030001, [-0.0008228449, -0.0007210264, 0.0004403697]),
            (0.5, 1.123456, [0.2928602, 0.02187454, -0.3333163]),
        ] {
            for (found, expected) in tree.increments(from, to).into_iter().zip(expected) {
                assert!(
                    (found - expected).abs() < 1e-5,
                    "{from} to {to}: {found} is not {expected}"
                );
            }
        }
    }

    #[test]
    fn parts_sum_to_the_whole_in_whatever_order() {
        let mut tree = BrownianTree::new(1, 0.0, 1.0, 20);
        let whole = tree.increments(0.1, 0.9);
        let parts = [tree.increments(0.5, 0.9), tree.increments(0.1, 0.5)];
        for (i, whole) in whole.iter().enumerate() {
            assert!((whole - parts[0][i] - parts[1][i]).abs() < 1e-5);
        }
        assert_eq!(tree.increments(0.3, 0.3), vec![0.0; 20]);
        // Beyond the ends nothing moves.
        assert_eq!(tree.increments(-1.0, 2.0), tree.increments(0.0, 1.0));
    }

    #[test]
    fn increments_are_as_wide_as_the_time_between() {
        let mut tree = BrownianTree::new(2, 0.02, 157.0, 20_000);
        for (from, to) in [(0.02, 0.05), (1.0, 2.0), (30.0, 157.0)] {
            let increments = tree.increments(from, to);
            let square: f64 = increments.iter().map(|x| f64::from(x * x)).sum::<f64>() / 20_000.0;
            assert!(
                (square / (to - from) - 1.0).abs() < 0.05,
                "{from} to {to}: {square}"
            );
        }
    }
}
