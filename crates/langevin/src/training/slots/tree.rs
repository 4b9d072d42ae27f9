//! The tree that slots are summed along: balanced, fixed by their number alone, so that a sum's bits say nothing of who computed which part.

use std::ops::Range;

use crate::Result;

/// A node: the slots from `index · 2^level` on, 2^level of them as far as there are so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node {
    level: u32,
    index: usize,
}

/// What is known of a node.
pub(super) enum Found<T> {
    /// Its sum; `None` where none of its slots has anything.
    Here(Option<T>),
    /// Nothing but what its children are.
    Below,
}

impl Node {
    /// The node of all slots.
    pub(super) fn root(slots: usize) -> Self {
        Self {
            level: slots.next_power_of_two().trailing_zeros(),
            index: 0,
        }
    }

    /// Its slot, of a leaf.
    pub(super) fn slot(self) -> Option<usize> {
        (self.level == 0).then_some(self.index)
    }

    fn range(self, slots: usize) -> Range<usize> {
        let end = (self.index + 1) << self.level;
        self.index << self.level..end.min(slots)
    }

    /// Its two children; the right one may have no slots.
    fn children(self) -> [Self; 2] {
        [0, 1].map(|side| Self {
            level: self.level - 1,
            index: 2 * self.index + side,
        })
    }

    /// The largest nodes of `slots` slots that lie wholly in a range, in order: what whoever has these slots can sum alone.
    pub(super) fn within(range: &Range<usize>, slots: usize) -> Vec<Self> {
        fn walk(node: Node, range: &Range<usize>, slots: usize, found: &mut Vec<Node>) {
            let own = node.range(slots);
            if own.start >= own.end || own.end <= range.start || range.end <= own.start {
                return;
            }
            if range.start <= own.start && own.end <= range.end {
                return found.push(node);
            }
            for child in node.children() {
                walk(child, range, slots, found);
            }
        }
        let mut found = Vec::new();
        walk(Self::root(slots), range, slots, &mut found);
        found
    }

    /// The sum below a node of `slots` slots. A slot that has nothing counts as if it were not there, so that nothing is added to
    /// what its neighbour has.
    ///
    /// # Errors
    /// Those of `value`.
    pub(super) fn sum<T>(
        self,
        slots: usize,
        value: &mut impl FnMut(Self) -> Result<Found<T>>,
        add: &impl Fn(T, T) -> T,
    ) -> Result<Option<T>> {
        if self.range(slots).is_empty() {
            return Ok(None);
        }
        match value(self)? {
            Found::Here(sum) => Ok(sum),
            Found::Below if self.level == 0 => Ok(None),
            Found::Below => {
                let [left, right] = self.children();
                let left = left.sum(slots, value, add)?;
                let right = right.sum(slots, value, add)?;
                Ok(match (left, right) {
                    (Some(left), Some(right)) => Some(add(left, right)),
                    (one, None) | (None, one) => one,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum as a formula.
    fn formula(slots: usize, processes: usize, absent: &[usize]) -> Option<String> {
        let add = |a: String, b: String| format!("({a}+{b})");
        let leaf = |node: Node| {
            Ok(match node.slot() {
                Some(slot) if absent.contains(&slot) => Found::Here(None),
                Some(slot) => Found::Here(Some(slot.to_string())),
                None => Found::Below,
            })
        };
        let mut known = Vec::new();
        for rank in 0..processes {
            let range = rank * slots / processes..(rank + 1) * slots / processes;
            for node in Node::within(&range, slots) {
                known.push((node, node.sum(slots, &mut { leaf }, &add).unwrap()));
            }
        }
        let mut value = |node: Node| {
            Ok(match known.iter().find(|(known, _)| *known == node) {
                Some((_, sum)) => Found::Here(sum.clone()),
                None => Found::Below,
            })
        };
        Node::root(slots).sum(slots, &mut value, &add).unwrap()
    }

    #[test]
    fn the_formula_is_that_of_the_slots_whoever_has_them() {
        assert_eq!(formula(1, 1, &[]).unwrap(), "0");
        assert_eq!(formula(4, 1, &[]).unwrap(), "((0+1)+(2+3))");
        assert_eq!(formula(5, 1, &[]).unwrap(), "(((0+1)+(2+3))+4)");
        assert_eq!(formula(6, 1, &[2, 3]).unwrap(), "((0+1)+(4+5))");
        assert_eq!(formula(3, 2, &[0, 1, 2]), None);
        for slots in 1..20 {
            for absent in [vec![], vec![slots - 1], vec![0, slots / 2]] {
                let alone = formula(slots, 1, &absent);
                for processes in 2..=slots {
                    assert_eq!(
                        formula(slots, processes, &absent),
                        alone,
                        "{slots} on {processes}"
                    );
                }
            }
        }
    }

    #[test]
    fn nobody_sends_more_than_few_sums() {
        assert_eq!(Node::within(&(0..8), 8).len(), 1);
        assert_eq!(Node::within(&(4..8), 8).len(), 1);
        assert_eq!(Node::within(&(1..8), 8).len(), 3);
    }
}
