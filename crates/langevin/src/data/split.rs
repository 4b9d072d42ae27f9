//! The parts of a data set: what they are called, and how folders' and files' names say which part they hold.

/// The part that is trained on where nothing else is asked for.
pub const TRAIN: &str = "train";

/// The parts that Hugging Face's `datasets` tells from names, each with the words that mean it.
const WORDS: [(&str, &[&str]); 3] = [
    (TRAIN, &["train", "training"]),
    ("validation", &["validation", "valid", "dev", "val"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

/// The part that a name means: one of its words, alone or set off by `-`, `.`, `_`, spaces or digits.
pub(super) fn meant_by(name: &str) -> Option<&'static str> {
    let is_separator = |c: char| matches!(c, '-' | '.' | '_' | ' ' | '0'..='9');
    WORDS.iter().find_map(|(split, words)| {
        name.split(is_separator)
            .any(|word| words.contains(&word))
            .then_some(*split)
    })
}

/// The part that is asked for by `name`: `valid` and `dev` mean `validation`, other names are taken as they are.
pub(super) fn canonical(name: &str) -> &str {
    WORDS
        .iter()
        .find(|(_, words)| words.contains(&name))
        .map_or(name, |(split, _)| split)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_count_where_they_stand_alone() {
        assert_eq!(meant_by("my-train-set"), Some("train"));
        assert_eq!(meant_by("dev_2.zip"), Some("validation"));
        assert_eq!(meant_by("test 1"), Some("test"));
        assert_eq!(meant_by("trainer"), None);
        assert_eq!(meant_by("latest"), None);
        assert_eq!(canonical("dev"), "validation");
        assert_eq!(canonical("extra"), "extra");
    }
}
