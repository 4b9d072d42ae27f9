//! Which files of a data set's repository are needed, before any of them is there.

use std::path::{Path, PathBuf};

use super::{
    Medium, OpenOptions, idx,
    named::keep_named,
    paths::{is_shown, sort_key},
    split,
    store::Listing,
};
use crate::{Error, Result};

/// The file in which a repository says what its data are.
pub(super) const CARD: &str = "README.md";

/// The files of a repository that make up what [`data::open_with`](super::open_with) is then given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryFiles {
    /// Their paths in the repository.
    pub files: Vec<String>,
    /// The one of them that is opened by its own path, a zip archive; `None` where it is the folder of all.
    pub opened: Option<String>,
}

/// Why there is nothing among a repository's files that is read as it is, as the end of a sentence about the data set. The Hub may have
/// converted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread(pub String);

/// What the names of files end with that hold data, and are not read.
const UNREAD: [&str; 15] = [
    ".tgz",
    ".gz",
    ".zst",
    ".xz",
    ".bz2",
    ".7z",
    ".rar",
    ".arrow",
    ".npz",
    ".npy",
    ".h5",
    ".hdf5",
    ".jsonl",
    ".csv",
    ".tfrecord",
];

/// Chooses among a repository's files, given by their paths and sizes: the parquet files of a configuration and a split, as the
/// repository's card or its files' names say; else the IDX files of a split; else pictures with their metadata, or a zip archive of
/// them, whichever has more bytes. [`Unread`] where there is nothing of the kind, or where the pictures are fewer bytes than the files
/// that are not read: a preview beside an archive is not what the data set holds; or where there are several archives and none is called
/// after the split.
///
/// `card` is the text of the repository's `README.md`, where it has one.
///
/// # Errors
/// If there is no such configuration or split; the error says which there are.
pub fn repository_files(
    name: &str,
    paths: &[(&str, u64)],
    card: Option<&str>,
    options: &OpenOptions,
) -> Result<Result<RepositoryFiles, Unread>> {
    let wrong = |message: String| Error::Config(format!("the data set {name} {message}"));
    let mut listing = Listing::default();
    let mut archives = Vec::new();
    let (mut of_pictures, mut of_archives, mut of_tars, mut of_unread) = (0, 0, 0, 0);
    let mut unread = Vec::new();
    for (path, size) in paths.iter().filter(|(path, _)| is_shown(Path::new(path))) {
        if path.to_ascii_lowercase().ends_with(".zip") {
            of_archives += size;
            archives.push(*path);
        } else if path.to_ascii_lowercase().ends_with(".tar") {
            of_tars += size;
        } else if options.medium.wants(Path::new(path)) {
            of_pictures += size;
        } else if is_unread(path) {
            of_unread += size;
            // A few say what they are.
            if unread.len() < 3 {
                unread.push(*path);
            }
        }
        listing.add(path.into());
    }
    if let Medium::Sounds(_) = options.medium {
        listing.pictures = std::mem::take(&mut listing.sounds);
    }
    let has = |path: &str| paths.iter().any(|(known, _)| *known == path);
    let card_file = has(CARD).then(|| CARD.to_string());
    let folder = |files: Vec<String>| RepositoryFiles {
        files: files.into_iter().chain(card_file.clone()).collect(),
        opened: None,
    };
    let wanted = split::canonical(&options.split);
    let idx: Vec<String> = idx::files_of(wanted, &has);
    if !idx.is_empty() {
        return Ok(Ok(folder(idx)));
    }
    if !listing.parquet.is_empty() {
        let mut files = listing.parquet;
        files.sort_by_cached_key(|path| sort_key(path));
        return parquet(&files, card, options)
            .map_err(wrong)
            .map(|files| Ok(folder(files)));
    }
    let named = keep_named(&mut listing, card.unwrap_or_default(), options).map_err(wrong)?;
    if of_tars > of_pictures.max(of_archives) {
        let mut files = match named {
            Some(true) => listing.tars.iter().map(|path| sort_key(path)).collect(),
            _ => shards(&listing.tars, wanted).map_err(wrong)?,
        };
        files.extend(has("labels.json").then(|| "labels.json".to_string()));
        // The card would be asked again for the files of its other splits.
        return Ok(Ok(folder(files)));
    }
    if of_archives > of_pictures {
        return Ok(archive(&archives, wanted).map(|archive| RepositoryFiles {
            files: vec![archive.to_string()],
            opened: Some(archive.to_string()),
        }));
    }
    if listing.pictures.is_empty() {
        return Ok(Err(Unread(format!(
            "holds no parquet files, {}, zip archive or IDX files",
            options.medium.words().1
        ))));
    }
    if of_unread > of_pictures {
        return Ok(Err(Unread(format!(
            "has fewer bytes of pictures than of files that are not read, {}",
            unread.join(", ")
        ))));
    }
    let mut files = match named {
        Some(true) => {
            let all = listing.pictures.iter().chain(&listing.metadata);
            let texts = listing
                .pictures
                .iter()
                .filter_map(|path| listing.text_beside(path));
            all.map(|path| sort_key(path))
                .chain(texts.map(|path| sort_key(&path)))
                .collect()
        }
        _ => pictures(&listing, wanted),
    };
    let beside = |path: &PathBuf| sort_key(&path.with_file_name("labels.json"));
    files.extend(listing.metadata.iter().map(beside).filter(|path| has(path)));
    Ok(Ok(folder(files)))
}

/// Whether a file holds data in a form that is not read. Metadata of pictures, and lists of what is where, are small beside what they
/// describe, and so are cards and programs.
fn is_unread(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    let name = path.rsplit('/').next().unwrap_or(&path);
    !name.starts_with("metadata.") && UNREAD.iter().any(|ending| name.ends_with(ending))
}

/// The archive of a split: the one that is called after it, or the only one that is called after none.
fn archive<'a>(archives: &[&'a str], wanted: &str) -> Result<&'a str, Unread> {
    let split_of = |path: &str| {
        let without_ending = path.get(..path.len() - 4).unwrap_or(path);
        without_ending.rsplit('/').find_map(split::meant_by)
    };
    let of_split: Vec<&str> = archives
        .iter()
        .copied()
        .filter(|path| split_of(path) == Some(wanted))
        .collect();
    let of_none: Vec<&str> = archives
        .iter()
        .copied()
        .filter(|path| split_of(path).is_none())
        .collect();
    match (of_split.as_slice(), of_none.as_slice()) {
        ([only], _) | ([], [only]) => Ok(only),
        _ => Err(Unread(format!(
            "has several zip archives, and it is not clear which of them is its split `{wanted}` (download one of {} and name that)",
            archives.join(", ")
        ))),
    }
}

/// The tar archives of a split: those whose name or folder is called after it; where none is called after a split, all are `train`.
fn shards(tars: &[PathBuf], wanted: &str) -> Result<Vec<String>, String> {
    let split_of = |path: &PathBuf| path.iter().rev().find_map(|part| split::meant_by(part.to_str()?));
    let of = |split: Option<&str>| -> Vec<String> {
        let found = tars.iter().filter(|path| split_of(path) == split);
        found.map(|path| sort_key(path)).collect()
    };
    let found = of(Some(wanted));
    let found = if found.is_empty() && wanted == split::TRAIN {
        of(None)
    } else {
        found
    };
    if found.is_empty() {
        let there: std::collections::BTreeSet<&str> = tars.iter().filter_map(split_of).collect();
        let there: Vec<&str> = there.into_iter().collect();
        return Err(format!(
            "has no tar archives of the split `{wanted}`; there are {}",
            there.join(", ")
        ));
    }
    Ok(found)
}

/// All pictures and metadata, or those below folders that are called after the split, where there are such.
fn pictures(listing: &Listing, wanted: &str) -> Vec<String> {
    let is_of_split = |path: &Path| {
        let folders = path.parent().into_iter().flat_map(Path::iter);
        folders
            .filter_map(|part| part.to_str())
            .any(|part| split::meant_by(part) == Some(wanted))
    };
    let all: Vec<&PathBuf> = listing.pictures.iter().chain(&listing.metadata).collect();
    // Metadata names pictures wherever they lie.
    let is_apart = listing.pictures.iter().any(|path| is_of_split(path))
        && listing.metadata.iter().all(|path| split_folder(path).is_some());
    let chosen: Vec<&PathBuf> = all
        .into_iter()
        .filter(|path| !is_apart || is_of_split(path))
        .collect();
    let captions = chosen.iter().filter_map(|path| listing.text_beside(path));
    chosen
        .iter()
        .map(|path| sort_key(path))
        .chain(captions.map(|path| sort_key(&path)))
        .collect()
}

/// The split that a folder on the way to a file is called after.
fn split_folder(path: &Path) -> Option<&'static str> {
    let mut folders = path.parent().into_iter().flat_map(Path::iter);
    folders.find_map(|part| split::meant_by(part.to_str()?))
}

#[cfg(feature = "parquet")]
fn parquet(files: &[PathBuf], card: Option<&str>, options: &OpenOptions) -> Result<Vec<String>, String> {
    super::parquet::files_of(files, card, options)
        .map(|files| files.iter().map(|path| sort_key(path)).collect())
}

#[cfg(not(feature = "parquet"))]
fn parquet(_: &[PathBuf], _: Option<&str>, _: &OpenOptions) -> Result<Vec<String>, String> {
    Err("holds parquet files, and this build reads none: build with the feature `parquet`".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(
        paths: &[&str],
        card: Option<&str>,
        config: Option<&str>,
        split: &str,
    ) -> Result<Result<RepositoryFiles, Unread>> {
        let sizes = [
            ("train.png", 1),
            (".png", 100),
            (".zip", 5000),
            (".tar", 5000),
            (".tgz", 5000),
        ];
        let size = |path: &str| {
            sizes
                .iter()
                .find(|(end, _)| path.ends_with(end))
                .map_or(10, |(_, size)| *size)
        };
        let paths: Vec<(&str, u64)> = paths.iter().map(|path| (*path, size(path))).collect();
        let options = OpenOptions {
            config: config.map(String::from),
            split: split.into(),
            ..OpenOptions::default()
        };
        repository_files("a/b", &paths, card, &options)
    }

    fn files(paths: &[&str], split: &str) -> Vec<String> {
        of(paths, None, None, split).unwrap().unwrap().files
    }

    #[cfg(feature = "parquet")]
    #[test]
    fn of_parquet_files_those_of_a_split_and_a_configuration_come() {
        let paths = [
            ".gitattributes",
            "README.md",
            "data/test-00000-of-00001.parquet",
            "data/train-00000-of-00002.parquet",
            "data/train-00001-of-00002.parquet",
            "thumbnail.png",
        ];
        assert_eq!(files(&paths, "train"), [paths[3], paths[4], paths[1]]);
        assert_eq!(files(&paths, "test"), [paths[2], paths[1]]);
        let error = of(&paths, None, None, "dev").unwrap_err().to_string();
        assert_eq!(
            error,
            "the data set a/b has no split `dev`; there are test, train"
        );
        let configs = [
            "large/train-00000-of-00001.parquet",
            "small/train-00000-of-00001.parquet",
        ];
        let chosen = of(&configs, None, Some("small"), "train").unwrap().unwrap();
        assert_eq!(chosen.files, configs[1..]);
        assert!(
            of(&configs, None, None, "train")
                .unwrap_err()
                .to_string()
                .contains("choose one of large, small")
        );
        let card = "---\nconfigs:\n- config_name: default\n  data_files: large/*\n---\n";
        assert_eq!(
            of(&configs, Some(card), None, "train").unwrap().unwrap().files,
            configs[..1]
        );
        // As the Hub converts others.
        let converted = ["default/partial-train/0000.parquet", "default/test/0000.parquet"];
        assert_eq!(files(&converted, "train"), converted[..1]);
    }

    #[test]
    fn pictures_come_with_their_metadata() {
        let paths = [
            "README.md",
            "cats/1.png",
            "dogs/2.JPG",
            "labels.json",
            "metadata.csv",
            "script.py",
            ".git/3.png",
        ];
        assert_eq!(
            files(&paths, "train"),
            [paths[1], paths[2], paths[4], paths[3], paths[0]]
        );
        let split = ["test/a/1.png", "train/a/2.png", "train/metadata.jsonl"];
        assert_eq!(files(&split, "train"), split[1..]);
        assert_eq!(files(&split, "test"), split[..1]);
        let outside = ["metadata.jsonl", "test/a/1.png", "train/a/2.png"];
        assert_eq!(files(&outside, "test").len(), 3);
    }

    #[test]
    fn an_archive_is_opened_by_its_own_path() {
        let one = ["README.md", "pictures.zip", "preview.png"];
        let chosen = of(&one, None, None, "train").unwrap().unwrap();
        assert_eq!(
            (chosen.files.as_slice(), chosen.opened.as_deref()),
            (&[one[1].to_string()][..], Some(one[1]))
        );
        let splits = ["data/test.zip", "data/train.zip"];
        assert_eq!(files(&splits, "train"), splits[1..]);
        assert_eq!(files(&splits, "eval"), splits[..1]);
        let Unread(why) = of(&["a.zip", "b.zip"], None, None, "train").unwrap().unwrap_err();
        assert!(why.contains("one of a.zip, b.zip"), "{why}");
    }

    #[test]
    fn shards_come_by_their_names_and_a_card_says_which_pictures() {
        let paths = [
            "README.md",
            "preview.png",
            "data/train-000.tar",
            "data/train-001.tar",
            "data/test-000.tar",
        ];
        assert_eq!(files(&paths, "train"), [paths[2], paths[3], paths[0]]);
        assert_eq!(files(&paths, "test"), [paths[4], paths[0]]);
        let message = of(&paths, None, None, "dev").unwrap_err().to_string();
        assert!(
            message.contains("no tar archives of the split `validation`; there are test, train"),
            "{message}"
        );
        assert_eq!(files(&["a.tar", "b.tar"], "train").len(), 2);
        #[cfg(feature = "parquet")]
        {
            let paths = ["README.md", "new/1.png", "old/2.png", "old/metadata.csv"];
            let card = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: old/*\n  - split: extra\n    path: new/*.png\n---\n";
            let chosen = |split: &str| of(&paths, Some(card), None, split).map(|files| files.unwrap().files);
            assert_eq!(chosen("train").unwrap(), [paths[2], paths[3], paths[0]]);
            assert_eq!(chosen("extra").unwrap(), [paths[1], paths[0]]);
            let message = chosen("test").unwrap_err().to_string();
            assert!(
                message.contains("no split `test`; there are train, extra"),
                "{message}"
            );
        }
    }

    #[test]
    fn idx_files_come_with_their_labels_and_other_things_not_at_all() {
        let paths = [
            "README.md",
            "t10k-images-idx3-ubyte.gz",
            "t10k-labels-idx1-ubyte.gz",
            "train-images-idx3-ubyte.gz",
            "train-labels-idx1-ubyte.gz",
        ];
        assert_eq!(files(&paths, "train"), [paths[3], paths[4], paths[0]]);
        let Unread(why) = of(&["README.md", "loader.py", "data.tgz"], None, None, "train")
            .unwrap()
            .unwrap_err();
        assert!(why.contains("no parquet files"), "{why}");
        // A thumbnail is not the data.
        let beside = ["README.md", "preview.png", "data/train.tgz"];
        let Unread(why) = of(&beside, None, None, "train").unwrap().unwrap_err();
        assert!(why.contains("that are not read, data/train.tgz"), "{why}");
        // What describes pictures is smaller than they are.
        assert_eq!(files(&["a.png", "b.png", "list.csv"], "train").len(), 2);
    }
}
