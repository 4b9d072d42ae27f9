//! A vocabulary of pieces for given words (Sennrich et al. 2016): again and again, the most frequent pair of pieces becomes one.

use std::collections::BTreeMap;

/// What a word's last piece ends in.
const END_OF_WORD: &str = "</w>";

/// The vocabulary, by number, and the merges that make its pieces, in order.
pub(super) type Pieces = (BTreeMap<String, u32>, Vec<(String, String)>);

/// At most `pieces` pieces besides the bytes and the `special` ones, which come last as in CLIP's own vocabulary. Words are in the
/// alphabet of bytes.
pub(super) fn train(words: impl IntoIterator<Item = String>, pieces: usize, special: [&str; 2]) -> Pieces {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for word in words {
        *counts.entry(word).or_default() += 1;
    }
    let mut words: Vec<(Vec<String>, usize)> = counts
        .into_iter()
        .map(|(word, count)| (letters(&word), count))
        .collect();
    let mut merges = vec![];
    while merges.len() < pieces {
        let mut pairs: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for (word, count) in &words {
            for pair in word.windows(2) {
                *pairs.entry((&pair[0], &pair[1])).or_default() += count;
            }
        }
        // Of equally frequent pairs the first in the alphabet, so that the same texts give the same pieces.
        let best = pairs
            .into_iter()
            .filter(|(_, count)| *count > 1)
            .rev()
            .max_by_key(|(_, count)| *count);
        let Some(((first, second), _)) = best else {
            break;
        };
        let pair = (first.to_string(), second.to_string());
        for (word, _) in &mut words {
            merge(word, &pair);
        }
        merges.push(pair);
    }
    (vocabulary(&merges, special), merges)
}

/// The pieces that merges make, with their numbers: bytes, bytes that end a word, the merges' pieces in their order, and the `special` ones.
pub(super) fn vocabulary(merges: &[(String, String)], special: [&str; 2]) -> BTreeMap<String, u32> {
    let bytes: Vec<String> = alphabet().map(String::from).collect();
    let last = bytes.iter().map(|byte| format!("{byte}{END_OF_WORD}"));
    let merged = merges.iter().map(|(a, b)| format!("{a}{b}"));
    let special = special.into_iter().map(String::from);
    let mut vocabulary = BTreeMap::new();
    for piece in bytes.iter().cloned().chain(last).chain(merged).chain(special) {
        let id = vocabulary.len() as u32;
        // Two pairs may make the same piece.
        vocabulary.entry(piece).or_insert(id);
    }
    vocabulary
}

/// A word letter by letter, the last with its mark.
fn letters(word: &str) -> Vec<String> {
    let mut letters: Vec<String> = word.chars().map(String::from).collect();
    if let Some(last) = letters.last_mut() {
        last.push_str(END_OF_WORD);
    }
    letters
}

/// Makes one piece of every such pair of neighbours.
fn merge(word: &mut Vec<String>, (first, second): &(String, String)) {
    let mut at = 0;
    while at + 1 < word.len() {
        if word[at] == *first && word[at + 1] == *second {
            let second = word.remove(at + 1);
            word[at].push_str(&second);
        }
        at += 1;
    }
}

/// The 256 characters that stand for bytes in GPT-2's vocabularies: those that can be printed are themselves, the others follow from
/// U+0100 on.
fn alphabet() -> impl Iterator<Item = char> {
    let printed = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let others = (0..=u8::MAX).filter(move |&byte| !printed(byte)).count() as u32;
    (0..=u8::MAX)
        .filter(move |&byte| printed(byte))
        .map(char::from)
        .chain((0..others).filter_map(|i| char::from_u32(0x100 + i)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_pair_becomes_a_piece_first() {
        let words = ["low", "low", "lower", "new", "new", "new"].map(String::from);
        let (vocabulary, merges) = train(words, 2, ["<s>", "<e>"]);
        // Three pairs occur three times: the first in the alphabet comes first.
        assert_eq!(merges[0], ("e".into(), "w</w>".into()));
        assert_eq!(merges[1], ("l".into(), "o".into()));
        assert_eq!(vocabulary.len(), 512 + 2 + 2);
        assert_eq!((vocabulary["<s>"], vocabulary["<e>"]), (514, 515));
    }

    #[test]
    fn what_occurs_once_is_no_piece() {
        let (_, merges) = train(["ab".to_string()], 10, ["<s>", "<e>"]);
        assert!(merges.is_empty());
    }
}
