//! What a repository's card says of its data: `configs:` in the YAML at the head of its README.md.

use serde::Deserialize;

/// The YAML at the head of a README.md, as far as it says where data lie.
#[derive(Debug, Default, Deserialize)]
pub(in crate::data) struct Card {
    /// The data set's configurations.
    #[serde(default)]
    pub configs: Vec<Config>,
}

/// One of the data sets in a repository.
#[derive(Debug, Deserialize)]
pub(in crate::data) struct Config {
    /// Its name.
    #[serde(default = "default_name")]
    pub config_name: String,
    /// Whether it is the one that is meant where none is named.
    #[serde(default)]
    pub default: bool,
    /// The folder that it is kept in.
    #[serde(default)]
    pub data_dir: Option<String>,
    /// Its files.
    #[serde(default)]
    pub data_files: Option<DataFiles>,
}

fn default_name() -> String {
    "default".into()
}

/// The ways in which files are named.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(in crate::data) enum DataFiles {
    /// One pattern; all is to train on.
    Pattern(String),
    /// Several patterns, or patterns with their splits.
    List(Vec<DataFile>),
    /// Patterns by split.
    Splits(std::collections::BTreeMap<String, Patterns>),
}

/// An item in a list of files.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(in crate::data) enum DataFile {
    /// A pattern of files to train on.
    Pattern(String),
    /// The files of a split.
    Split {
        /// Its name.
        split: String,
        /// Its files.
        path: Patterns,
    },
}

/// One pattern or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(in crate::data) enum Patterns {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Patterns {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(pattern) => vec![pattern],
            Self::Many(patterns) => patterns,
        }
    }
}

impl DataFiles {
    /// Splits and their patterns, in the order in which the card has them.
    pub(super) fn into_splits(self) -> Vec<(String, Vec<String>)> {
        let train = |patterns| (super::split::TRAIN.to_string(), patterns);
        match self {
            Self::Pattern(pattern) => vec![train(vec![pattern])],
            Self::Splits(splits) => splits
                .into_iter()
                .map(|(split, patterns)| (split, patterns.into_vec()))
                .collect(),
            Self::List(items) => {
                let mut splits: Vec<(String, Vec<String>)> = Vec::new();
                for item in items {
                    let (split, patterns) = match item {
                        DataFile::Pattern(pattern) => train(vec![pattern]),
                        DataFile::Split { split, path } => (split, path.into_vec()),
                    };
                    match splits.iter_mut().find(|(known, _)| *known == split) {
                        Some((_, known)) => known.extend(patterns),
                        None => splits.push((split, patterns)),
                    }
                }
                splits
            }
        }
    }
}

impl Card {
    /// Reads a README's text. One without YAML at its head says nothing.
    ///
    /// # Errors
    /// The part of a sentence that follows the file's name, if the YAML is broken or says `configs` in another form.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text
            .strip_prefix('\u{FEFF}')
            .unwrap_or(text)
            .replace("\r\n", "\n");
        let Some(head) = text
            .strip_prefix("---\n")
            .and_then(|rest| rest.split_once("\n---").map(|(head, _)| head))
        else {
            return Ok(Self::default());
        };
        let only_comments = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        if head.lines().all(only_comments) {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(head).map_err(|e| {
            let reason = e.to_string();
            let first_line = reason.lines().next().unwrap_or_default();
            format!("has YAML at its head that is not a card's: {first_line}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splits(configs: &str) -> Vec<(String, Vec<String>)> {
        let text = format!("---\nlicense: mit\nsize_categories:\n- n<1K\nconfigs:\n{configs}---\n# Title\n");
        let mut card = Card::parse(&text).unwrap();
        card.configs.remove(0).data_files.unwrap().into_splits()
    }

    fn expected(splits: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
        let owned = |patterns: &[&str]| patterns.iter().map(|p| p.to_string()).collect();
        splits
            .iter()
            .map(|(split, patterns)| (split.to_string(), owned(patterns)))
            .collect()
    }

    #[test]
    fn files_are_named_in_every_way_that_the_hub_takes() {
        assert_eq!(
            splits(
                "- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n  - split: test\n    path: [a, b]\n"
            ),
            expected(&[("train", &["data/train-*"]), ("test", &["a", "b"])])
        );
        assert_eq!(
            splits("- data_files: x.parquet\n"),
            expected(&[("train", &["x.parquet"])])
        );
        assert_eq!(
            splits("- data_files: [x, z]\n"),
            expected(&[("train", &["x", "z"])])
        );
        assert_eq!(
            splits("- data_files:\n    train: x\n    test: [z]\n"),
            expected(&[("test", &["z"]), ("train", &["x"])])
        );
    }

    #[test]
    fn a_readme_without_a_card_says_nothing() {
        for text in [
            "",
            "# Title\n",
            "---\n# only a comment\n---\n",
            "---\nlicense: mit\n---\n",
            "---\nnever closed\n",
        ] {
            assert!(Card::parse(text).unwrap().configs.is_empty(), "{text}");
        }
        let error = Card::parse("---\na: [\n---\n").unwrap_err();
        assert!(error.starts_with("has YAML at its head"), "{error}");
        assert!(Card::parse("---\nconfigs: 3\n---\n").is_err());
    }

    #[test]
    fn a_billion_laughs_are_not_laughed() {
        let mut yaml = "---\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_string();
        for level in 1..12 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            yaml.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        yaml.push_str("configs: *a11\n---\n");
        assert!(Card::parse(&yaml).is_err());
    }
}
