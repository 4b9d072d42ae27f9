//! Which files of a repository hold a split: what its card names, else what the names of its files say.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use glob::{MatchOptions, Pattern};

use super::{
    card::{Card, Config, DataFiles},
    split,
};
use crate::data::paths::sort_key;

/// A split's files, relative to the repository.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    /// The configuration that they belong to, where there is one with a name.
    pub config: Option<String>,
    /// The files, in order.
    pub files: Vec<PathBuf>,
}

/// Chooses among a repository's parquet files, which are sorted.
///
/// # Errors
/// The part of a sentence that follows the repository's name, if there is no such configuration or split, or several
/// configurations and none is asked for.
pub(super) fn choose(
    files: &[PathBuf],
    card: Card,
    config: Option<&str>,
    split: &str,
) -> Result<Chosen, String> {
    if card.configs.is_empty() {
        by_names(files, config, split)
    } else {
        by_card(files, card.configs, config, split)
    }
}

/// The configuration that is meant among a card's.
fn meant(configs: Vec<Config>, wanted: Option<&str>) -> Result<Config, String> {
    let names: Vec<String> = configs.iter().map(|config| config.config_name.clone()).collect();
    let only = names.len() == 1;
    let is_meant = |config: &Config| match wanted {
        Some(wanted) => config.config_name == wanted,
        None => only || config.default || config.config_name == "default",
    };
    configs
        .into_iter()
        .find(is_meant)
        .ok_or_else(|| no_config(wanted, &names))
}

/// What of a repository's pictures and what belongs to them a card names: all of a folder, whose splits its folders' names tell, or the
/// files of the split that is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::data) enum Named {
    /// What lies in the folder.
    Folder(PathBuf),
    /// The files of the split.
    Files(Vec<PathBuf>),
}

/// What a card says of a repository's files that are not parquet; `None` where it says nothing, or names none of those that there are.
///
/// # Errors
/// As [`choose`].
pub(in crate::data) fn named(
    files: &[PathBuf],
    card: Card,
    config: Option<&str>,
    split: &str,
) -> Result<Option<Named>, String> {
    if card.configs.is_empty() {
        return Ok(None);
    }
    let config = meant(card.configs, config)?;
    if config.data_files.is_none() {
        let folder = Path::new(folder_of(&config)).to_path_buf();
        let is_there = files.iter().any(|file| file.starts_with(&folder));
        return Ok(Some(Named::Folder(folder)).filter(|_| is_there));
    }
    let patterns = patterns(&config, split)?;
    let found = matching(files, &patterns)?;
    if found.is_empty() {
        tracing::warn!(
            "the card names the files {} for the split `{split}`, and there is no such file: what it says is not used",
            patterns.join(", ")
        );
    }
    Ok(Some(Named::Files(found)).filter(|named| *named != Named::Files(vec![])))
}

/// The folder that a configuration is kept in.
fn folder_of(config: &Config) -> &str {
    let folder = config.data_dir.as_deref().unwrap_or_default();
    folder.trim_start_matches("./").trim_end_matches('/')
}

fn by_card(
    files: &[PathBuf],
    configs: Vec<Config>,
    wanted: Option<&str>,
    split: &str,
) -> Result<Chosen, String> {
    let config = meant(configs, wanted)?;
    let folder = folder_of(&config);
    let chosen = |files| Chosen {
        config: Some(config.config_name.clone()),
        files,
    };
    if config.data_files.is_none() {
        let below: Vec<PathBuf> = files
            .iter()
            .filter(|file| file.starts_with(folder))
            .cloned()
            .collect();
        return Ok(chosen(of_split(&below, Path::new(folder), split)?));
    }
    let patterns = patterns(&config, split)?;
    let found = matching(files, &patterns)?;
    if found.is_empty() {
        return Err(format!(
            "has a card that names the files {} for the split `{split}`, and there is no such parquet file",
            patterns.join(", ")
        ));
    }
    Ok(chosen(found))
}

/// The patterns of a split's files, relative to the repository.
fn patterns(config: &Config, split: &str) -> Result<Vec<String>, String> {
    let folder = folder_of(config);
    let splits = config
        .data_files
        .clone()
        .map(DataFiles::into_splits)
        .unwrap_or_default();
    let is_wanted = |name: &str| name == split || name == split::canonical(split);
    let Some((_, patterns)) = splits.iter().find(|(name, _)| is_wanted(name)) else {
        let there: Vec<&str> = splits.iter().map(|(name, _)| name.as_str()).collect();
        return Err(no_split(split, &there));
    };
    let in_folder = |pattern: &String| {
        let pattern = pattern.trim_start_matches("./");
        if folder.is_empty() {
            pattern.to_string()
        } else {
            format!("{folder}/{pattern}")
        }
    };
    Ok(patterns.iter().map(in_folder).collect())
}

/// The files that patterns match, in their order.
fn matching(files: &[PathBuf], patterns: &[String]) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for pattern in patterns {
        let compiled = Pattern::new(pattern)
            .map_err(|e| format!("has a card that names the files `{pattern}`, which is no pattern: {e}"))?;
        let options = MatchOptions {
            require_literal_separator: true,
            ..MatchOptions::default()
        };
        for file in files
            .iter()
            .filter(|file| compiled.matches_with(&sort_key(file), options))
        {
            if seen.insert(file) {
                found.push(file.clone());
            }
        }
    }
    Ok(found)
}

/// Without a card, files at the root or in `data` are the default configuration, and those in another folder are a
/// configuration that is called as the folder.
fn by_names(files: &[PathBuf], wanted: Option<&str>, split: &str) -> Result<Chosen, String> {
    let config_of = |file: &PathBuf| {
        let mut folders = file.parent().into_iter().flat_map(Path::iter);
        let first = folders.next()?.to_str()?;
        // `train/0.parquet` is a split in a folder of its own.
        let is_default = first == "data" || split::meant_by(first).is_some();
        (!is_default).then(|| first.to_string())
    };
    let configs: BTreeSet<Option<String>> = files.iter().map(config_of).collect();
    let names: Vec<String> = configs
        .iter()
        .map(|config| config.clone().unwrap_or_else(|| "default".into()))
        .collect();
    let meant = match wanted {
        Some("default") if configs.contains(&None) => None,
        Some(wanted) if names.iter().any(|name| name == wanted) => Some(wanted.to_string()),
        Some(_) => return Err(no_config(wanted, &names)),
        None if configs.contains(&None) => None,
        None if configs.len() == 1 => configs.first().cloned().flatten(),
        None if names.iter().any(|name| name == "default") => Some("default".into()),
        None => return Err(no_config(None, &names)),
    };
    let of_config: Vec<PathBuf> = files
        .iter()
        .filter(|file| config_of(file) == meant)
        .cloned()
        .collect();
    let root = PathBuf::from(meant.as_deref().unwrap_or_default());
    Ok(Chosen {
        files: of_split(&of_config, &root, split)?,
        config: meant,
    })
}

/// The files of a split, told by their names: `NAME-00000-of-00002.parquet` is of the split `NAME`, others are of the
/// split that a word in their names or their folders' below `root` means, and files without such a word are `train`.
fn of_split(files: &[PathBuf], root: &Path, wanted: &str) -> Result<Vec<PathBuf>, String> {
    let split_of = |file: &PathBuf| {
        let stem = file
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default();
        if let Some(name) = before_shard(stem) {
            return name.to_string();
        }
        let below = file.strip_prefix(root).unwrap_or(file);
        let folders = below
            .parent()
            .into_iter()
            .flat_map(Path::iter)
            .filter_map(|part| part.to_str());
        std::iter::once(stem)
            .chain(folders)
            .find_map(split::meant_by)
            .unwrap_or(split::TRAIN)
            .to_string()
    };
    let is_wanted = |name: &str| name == wanted || split::canonical(name) == split::canonical(wanted);
    let found: Vec<PathBuf> = files
        .iter()
        .filter(|file| is_wanted(&split_of(file)))
        .cloned()
        .collect();
    if found.is_empty() {
        let there: BTreeSet<String> = files.iter().map(split_of).collect();
        return Err(no_split(
            wanted,
            &there.iter().map(String::as_str).collect::<Vec<_>>(),
        ));
    }
    Ok(found)
}

/// What stands before `-00000-of-00002`, whatever follows that: `datasets` writes a hash there at times.
fn before_shard(stem: &str) -> Option<&str> {
    let is_number = |text: &str| text.len() >= 5 && text.bytes().all(|b| b.is_ascii_digit());
    let (rest, count) = stem.rsplit_once("-of-")?;
    let count = count.split_once('-').map_or(count, |(count, _)| count);
    let (name, number) = rest.rsplit_once('-')?;
    (is_number(count) && is_number(number) && !name.is_empty()).then_some(name)
}

fn no_config(wanted: Option<&str>, names: &[String]) -> String {
    let names = names.join(", ");
    match wanted {
        Some(wanted) => format!("has no configuration `{wanted}`; there are {names}"),
        None => format!("has several configurations: choose one of {names} with `dataset_config_name`"),
    }
}

fn no_split(wanted: &str, there: &[&str]) -> String {
    format!("has no split `{wanted}`; there are {}", there.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(files: &[&str], card: &str, config: Option<&str>, split: &str) -> Result<Vec<String>, String> {
        let mut files: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
        files.sort();
        let card = Card::parse(card).unwrap();
        let chosen = choose(&files, card, config, split)?;
        Ok(chosen.files.iter().map(|file| sort_key(file)).collect())
    }

    const SHARDS: [&str; 4] = [
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
        "data/test-00000-of-00001.parquet",
        "data/extra_unlabelled-00000-of-00001.parquet",
    ];

    #[test]
    fn shards_say_their_split() {
        assert_eq!(chosen(&SHARDS, "", None, "train").unwrap(), SHARDS[..2]);
        assert_eq!(chosen(&SHARDS, "", None, "test").unwrap(), SHARDS[2..3]);
        assert_eq!(
            chosen(&SHARDS, "", None, "extra_unlabelled").unwrap(),
            SHARDS[3..]
        );
        let error = chosen(&SHARDS, "", None, "validation").unwrap_err();
        assert_eq!(
            error,
            "has no split `validation`; there are extra_unlabelled, test, train"
        );
    }

    #[test]
    fn a_hash_behind_a_shard_changes_nothing() {
        let files = [
            "data/train-00000-of-00001-0a1b2c3d4e5f6071.parquet",
            "data/unlabelled-00000-of-00001-6f3c0a1b2d4e5f60.parquet",
        ];
        assert_eq!(chosen(&files, "", None, "train").unwrap(), files[..1]);
        assert_eq!(chosen(&files, "", None, "unlabelled").unwrap(), files[1..]);
    }

    #[test]
    fn words_in_names_and_folders_say_it_too() {
        let files = ["train/0000.parquet", "validation/0000.parquet"];
        assert_eq!(chosen(&files, "", None, "dev").unwrap(), files[1..]);
        assert_eq!(
            chosen(&["my-test.parquet", "my-train.parquet"], "", None, "train").unwrap(),
            ["my-train.parquet"]
        );
        assert_eq!(
            chosen(&["all.parquet"], "", None, "train").unwrap(),
            ["all.parquet"]
        );
        assert!(chosen(&["all.parquet"], "", None, "test").is_err());
    }

    #[test]
    fn folders_are_configurations() {
        let files = [
            "balanced/train-00000-of-00001.parquet",
            "letters/train-00000-of-00001.parquet",
            "letters/test-00000-of-00001.parquet",
        ];
        assert_eq!(chosen(&files, "", Some("letters"), "test").unwrap(), files[2..]);
        let error = chosen(&files, "", None, "train").unwrap_err();
        assert!(error.contains("choose one of balanced, letters"), "{error}");
        let error = chosen(&files, "", Some("digits"), "train").unwrap_err();
        assert!(error.contains("no configuration `digits`"), "{error}");
        assert_eq!(chosen(&files[1..], "", None, "train").unwrap(), files[1..2]);
        // As the Hub converts other formats.
        let converted = ["default/train/0000.parquet", "other/train/0000.parquet"];
        assert_eq!(chosen(&converted, "", None, "train").unwrap(), converted[..1]);
        assert_eq!(
            chosen(&SHARDS, "", Some("default"), "train").unwrap(),
            SHARDS[..2]
        );
    }

    const CARD: &str = "---\nconfigs:\n- config_name: small\n  data_files:\n  - split: train\n    path: s/part-*\n  - split: dev\n    path: \
        [\"s/d.parquet\", \"**/late.parquet\"]\n- config_name: large\n  default: true\n  data_dir: l\n- config_name: lost\n  data_files: gone-*\n---\n";
    const FILES: [&str; 6] = [
        "l/test-00000-of-00001.parquet",
        "l/train-00000-of-00001.parquet",
        "s/d.parquet",
        "s/deep/late.parquet",
        "s/part-1.parquet",
        "s/part-2.parquet",
    ];

    #[test]
    fn the_card_decides_where_it_says_something() {
        assert_eq!(chosen(&FILES, CARD, Some("small"), "train").unwrap(), FILES[4..]);
        assert_eq!(chosen(&FILES, CARD, Some("small"), "dev").unwrap(), FILES[2..4]);
        assert_eq!(chosen(&FILES, CARD, None, "train").unwrap(), FILES[1..2]);
        assert!(
            chosen(&FILES, CARD, Some("small"), "test")
                .unwrap_err()
                .contains("there are train, dev")
        );
        let error = chosen(&FILES, CARD, Some("lost"), "train").unwrap_err();
        assert!(error.contains("names the files gone-*"), "{error}");
        let error = chosen(&FILES, CARD, Some("huge"), "train").unwrap_err();
        assert!(error.contains("there are small, large, lost"), "{error}");
    }
}
