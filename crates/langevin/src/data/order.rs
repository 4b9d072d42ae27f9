//! The order in which an epoch goes through a data set.

use std::ops::Range;

use super::Dataset;
use crate::random::Generator;

/// The most bytes that the pictures may take, as they are stored, among which an epoch's order is free.
pub(super) const WINDOW_BYTES: u64 = 256 << 20;

/// A stretch of a data set that is read as a whole, such as a row group of a parquet file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The indices of its pictures.
    pub pictures: Range<usize>,
    /// What it takes in memory once read, in bytes.
    pub bytes: u64,
}

/// The data set's indices in the order of an epoch: a function of data set, seed and epoch.
///
/// Every order is as likely as any other, unless the data set is read in [groups](Dataset::groups) of more than
/// 256 MiB in all. Then the groups come in a random order, as many of them as fit into 256 MiB make a window, and the
/// order is random within each window: no more than two windows need to be in memory at any time.
pub fn epoch_order(dataset: &dyn Dataset, seed: u64, epoch: u64) -> Vec<usize> {
    shuffled(dataset.len(), dataset.groups(), seed, epoch, WINDOW_BYTES)
}

/// Whether a data set's order is random only within windows.
pub(super) fn is_windowed(dataset: &dyn Dataset) -> bool {
    let bytes = |groups: &[Group]| groups.iter().map(|group| group.bytes).sum::<u64>();
    dataset
        .groups()
        .is_some_and(|groups| bytes(groups) > WINDOW_BYTES)
}

fn shuffled(count: usize, groups: Option<&[Group]>, seed: u64, epoch: u64, window_bytes: u64) -> Vec<usize> {
    // No picture has this index, so no picture's crop depends on the numbers that order them.
    let mut generator = Generator::for_index(seed, epoch, u64::MAX);
    let large = groups.filter(|groups| groups.iter().map(|group| group.bytes).sum::<u64>() > window_bytes);
    let Some(groups) = large else {
        return generator.randperm(count);
    };
    let mut order = Vec::with_capacity(count);
    let mut window: Vec<usize> = Vec::new();
    let mut bytes = 0;
    for group in generator.randperm(groups.len()).into_iter().map(|g| &groups[g]) {
        if !window.is_empty() && bytes + group.bytes > window_bytes {
            let places = generator.randperm(window.len());
            order.extend(places.into_iter().map(|place| window[place]));
            window.clear();
            bytes = 0;
        }
        window.extend(group.pictures.clone());
        bytes += group.bytes;
    }
    let places = generator.randperm(window.len());
    order.extend(places.into_iter().map(|place| window[place]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(sizes: &[usize]) -> Vec<Group> {
        let mut first = 0;
        let group = |&size: &usize| {
            first += size;
            Group {
                pictures: first - size..first,
                bytes: 10 * size as u64,
            }
        };
        sizes.iter().map(group).collect()
    }

    #[test]
    fn a_set_that_fits_is_shuffled_as_a_whole() {
        let groups = groups(&[5, 7, 8]);
        let whole = Generator::for_index(3, 2, u64::MAX).randperm(20);
        assert_eq!(shuffled(20, None, 3, 2, 0), whole);
        assert_eq!(shuffled(20, Some(&groups), 3, 2, 200), whole);
        assert_ne!(shuffled(20, Some(&groups), 3, 2, 199), whole);
    }

    #[test]
    fn windows_hold_whole_groups_and_no_more_bytes_than_they_may() {
        let groups = groups(&[5, 7, 8, 3, 40, 4, 6]);
        let group_of = |index: usize| groups.iter().position(|g| g.pictures.contains(&index)).unwrap();
        for epoch in 0..20 {
            let order = shuffled(73, Some(&groups), 1, epoch, 150);
            assert_eq!(order, shuffled(73, Some(&groups), 1, epoch, 150));
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..73).collect::<Vec<_>>());
            // What is between the first and the last picture of a group belongs to the group's window, and the groups
            // that are open at any point fit into one, or are one that is larger on its own.
            for at in 0..order.len() {
                let open: Vec<usize> = (0..groups.len())
                    .filter(|&g| {
                        order[..=at].iter().any(|&i| group_of(i) == g)
                            && order[at..].iter().any(|&i| group_of(i) == g)
                    })
                    .collect();
                let bytes: u64 = open.iter().map(|&g| groups[g].bytes).sum();
                assert!(bytes <= 150 || open.len() == 1, "{open:?}");
            }
        }
        assert_ne!(
            shuffled(73, Some(&groups), 1, 0, 150),
            shuffled(73, Some(&groups), 1, 1, 150)
        );
        assert_ne!(
            shuffled(73, Some(&groups), 1, 0, 150),
            shuffled(73, Some(&groups), 2, 0, 150)
        );
    }
}
