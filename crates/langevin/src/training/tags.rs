//! Captions that are tags with commas between them.

use crate::random::Generator;

/// The same tags in an order that `generator` draws, of which the first `kept` stay where they are. What sd-scripts calls `--shuffle_caption` and
/// `--keep_tokens`.
pub(super) fn shuffled(caption: &str, kept: usize, generator: &mut Generator) -> String {
    let tags: Vec<&str> = caption.trim().split(',').map(str::trim).collect();
    let (first, rest) = tags.split_at(kept.min(tags.len()));
    let order = generator.randperm(rest.len());
    let rest = order.into_iter().filter_map(|place| rest.get(place).copied());
    first.iter().copied().chain(rest).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tag_is_there_once_and_the_first_stay() {
        let mut generator = Generator::new(3);
        let caption = " sks dog,a, b ,c,d, e";
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..50 {
            let text = shuffled(caption, 1, &mut generator);
            assert!(text.starts_with("sks dog, "), "{text}");
            let mut tags: Vec<&str> = text.split(", ").collect();
            tags.sort_unstable();
            assert_eq!(tags, ["a", "b", "c", "d", "e", "sks dog"]);
            seen.insert(text);
        }
        assert!(seen.len() > 30, "{}", seen.len());
        assert_eq!(shuffled("one", 5, &mut generator), "one");
        assert_eq!(shuffled("", 0, &mut generator), "");
    }
}
