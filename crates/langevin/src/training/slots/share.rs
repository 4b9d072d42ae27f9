//! Who has what of the row that all trained parameters make.

use std::ops::Range;

/// Elements in a chunk. Shares are cut between chunks, and the gradients' norm is added up chunk by chunk, so that it does not depend on where
/// they are cut.
pub(super) const CHUNK: usize = 4096;

/// The elements of each process, of `total`.
pub(in crate::training) fn shares(total: usize, processes: usize) -> Vec<Range<usize>> {
    let chunks = total.div_ceil(CHUNK);
    let cut = |rank: usize| (rank * chunks / processes * CHUNK).min(total);
    (0..processes).map(|rank| cut(rank)..cut(rank + 1)).collect()
}

/// The sum of the squares of each chunk of a share.
pub(super) fn squares(share: &[f32]) -> Vec<f64> {
    share
        .chunks(CHUNK)
        .map(langevin_kernels::elementwise::sum_of_squares)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::part_of;

    #[test]
    fn everything_is_somebodys_once() {
        for total in [0, 1, CHUNK, 10 * CHUNK + 7] {
            for processes in 1..9 {
                let shares = shares(total, processes);
                assert_eq!((shares[0].start, shares[processes - 1].end), (0, total));
                assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start));
                assert!(
                    shares
                        .iter()
                        .all(|share| share.start % CHUNK == 0 || share.is_empty())
                );
            }
        }
        for slots in 1..9 {
            for processes in 1..=slots {
                let all: Vec<usize> = (0..processes)
                    .flat_map(|rank| part_of(rank, processes, slots))
                    .collect();
                assert_eq!(all, (0..slots).collect::<Vec<_>>());
            }
        }
    }
}
