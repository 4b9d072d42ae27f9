//! Sentences about what a data set has and is not taken of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{decode::is_unread_picture, sound::is_unread_sound};

/// The most names in one sentence.
const MOST: usize = 8;

/// Files by their endings, in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Endings(BTreeMap<String, usize>);

impl Endings {
    /// Counts a file, unless it is one that data sets have beside their data: a description, a licence, the classes' names.
    pub(super) fn add(&mut self, path: &Path) {
        const DESCRIPTIONS: [&str; 6] = [
            "labels.json",
            "dataset_info.json",
            "dataset_infos.json",
            "thumbs.db",
            "desktop.ini",
            "license",
        ];
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_ascii_lowercase();
        if DESCRIPTIONS.contains(&&*name) || name.starts_with("readme") || name.starts_with("license.") {
            return;
        }
        *self.0.entry(ending(path)).or_default() += 1;
    }

    /// How many files end so.
    pub(super) fn count(&self, ending: &str) -> usize {
        self.0.get(ending).copied().unwrap_or(0)
    }

    /// `3 .avif, 1 without an ending`, the most first; empty where there are none.
    pub(super) fn list(&self) -> String {
        let named = |(ending, count): (&String, &usize)| match ending.as_str() {
            "" => (*count, format!("{count} without an ending")),
            ending => (*count, format!("{count} .{ending}")),
        };
        let mut counts: Vec<(usize, String)> = self.0.iter().map(named).collect();
        counts.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        shortened(counts.into_iter().map(|(_, text)| text))
    }

    /// A sentence about the files that are passed over, if there are any.
    pub(super) fn sentence(&self) -> Option<String> {
        let count: usize = self.0.values().sum();
        let advice = |what: &str, into: &str, is_unread: &dyn Fn(&str) -> bool| {
            let endings = self.0.keys().map(String::as_str);
            let unread: Vec<&str> = endings.filter(|ending| is_unread(ending)).collect();
            match unread.is_empty() {
                true => String::new(),
                false => format!(
                    " ({what} that end in .{} are not read: convert them to {into})",
                    unread.join(" or .")
                ),
            }
        };
        let advice = advice("pictures", "PNG or JPEG", &is_unread_picture)
            + &advice("sounds", "WAV or FLAC", &is_unread_sound);
        (count > 0).then(|| format!("{} passed over: {}{advice}", files(count), self.list()))
    }
}

/// A file's ending in lower case; empty where it has none.
pub(super) fn ending(path: &Path) -> String {
    path.extension()
        .map(|ending| ending.to_string_lossy().to_ascii_lowercase())
        .unwrap_or_default()
}

fn files(count: usize) -> String {
    match count {
        1 => "1 file is".into(),
        _ => format!("{count} files are"),
    }
}

/// How many pictures, as the beginning of a sentence.
pub(super) fn pictures(count: usize) -> String {
    match count {
        1 => "1 picture".into(),
        _ => format!("{count} pictures"),
    }
}

/// A sentence about the splits that are not the one that is taken, with their numbers of pictures; `""` is the name of none.
pub(super) fn splits(taken: &str, others: &BTreeMap<&str, usize>) -> Option<String> {
    let named = |(split, count): (&&str, &usize)| match *split {
        "" => format!("{} in no split's folder", pictures(*count)),
        split => format!("`{split}` with {}", pictures(*count)),
    };
    let list: Vec<String> = others.iter().map(named).collect();
    (!list.is_empty()).then(|| format!("of the split `{taken}` alone; left out: {}", list.join(", ")))
}

/// A sentence about columns or fields that are not used.
pub(super) fn columns(what: &str, names: &BTreeSet<String>) -> Option<String> {
    let list = shortened(names.iter().map(|name| format!("`{name}`")));
    (!names.is_empty()).then(|| format!("{what} not used: {list}"))
}

/// A list of at most a few, and how many more there are.
fn shortened(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    let more = names.len().saturating_sub(MOST);
    let mut list = names[..names.len() - more].join(", ");
    if more > 0 {
        list += &format!(" and {more} more");
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_by_their_endings() {
        let mut endings = Endings::default();
        for path in [
            "a.AVIF",
            "b/c.avif",
            "d",
            "README.md",
            "x/labels.json",
            "LICENSE",
            "e.npy",
        ] {
            endings.add(Path::new(path));
        }
        assert_eq!(
            endings.sentence().unwrap(),
            "4 files are passed over: 2 .avif, 1 without an ending, 1 .npy (pictures that end in .avif are not read: \
             convert them to PNG or JPEG)"
        );
        assert_eq!(Endings::default().sentence(), None);
        let many: BTreeSet<String> = (0..11).map(|n| format!("c{n:02}")).collect();
        let sentence = columns("columns", &many).unwrap();
        assert!(sentence.ends_with("`c07` and 3 more"), "{sentence}");
    }
}
