//! What a repository is called: `ORG/NAME`, with `@REVISION` where it is not the main branch that is meant.

use std::{fmt, path::PathBuf, str::FromStr};

use crate::Error;

/// The branch that is meant where none is named.
pub const MAIN: &str = "main";
/// The branch on which the Hub keeps every data set that it can read as parquet files.
pub const CONVERTED: &str = "refs/convert/parquet";

/// What a repository holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum RepoKind {
    /// A model.
    #[default]
    Model,
    /// A data set.
    Dataset,
    /// A program with a page.
    Space,
}

impl RepoKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Model, Self::Dataset, Self::Space];

    /// The Hub's word for one, as in a request to create one.
    pub fn word(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Dataset => "dataset",
            Self::Space => "space",
        }
    }

    /// The Hub's word for many, as in its API's addresses and in the cache's folders.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
            Self::Space => "spaces",
        }
    }

    /// What stands before a name in the address of a page or a file.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Model => "",
            Self::Dataset => "datasets/",
            Self::Space => "spaces/",
        }
    }

    /// What a user calls it.
    pub fn spoken(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Dataset => "data set",
            Self::Space => "Space",
        }
    }
}

/// A repository's kind and its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RepoId {
    /// What it holds.
    pub kind: RepoKind,
    /// `ORG/NAME`; a few old ones have no `ORG/`.
    pub id: String,
}

impl RepoId {
    /// The name as a folder of the cache has it: `models--ORG--NAME`.
    pub fn folder_name(&self) -> String {
        format!("{}--{}", self.kind.plural(), self.id.replace('/', "--"))
    }

    /// The repository whose files the cache keeps in a folder of this name; `None` where it is no such folder.
    pub fn of_folder(name: &str) -> Option<Self> {
        let (plural, rest) = name.split_once("--")?;
        let kind = RepoKind::ALL.into_iter().find(|kind| kind.plural() == plural)?;
        let id = rest.replacen("--", "/", 1);
        id.split('/').all(is_word).then_some(Self { kind, id })
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

/// A repository's name and its revision, as they are typed: `ORG/NAME` or `ORG/NAME@REVISION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoName {
    /// `ORG/NAME`.
    pub id: String,
    /// The branch, tag or commit.
    pub revision: Option<String>,
}

impl RepoName {
    /// Whether a text may be such a name. A path may look the same; a path that exists is what is meant then.
    pub fn looks_like_one(text: &str) -> bool {
        text.parse::<Self>().is_ok()
    }

    /// The repository of a kind that has this name.
    pub fn of_kind(&self, kind: RepoKind) -> RepoId {
        RepoId {
            kind,
            id: self.id.clone(),
        }
    }

    /// The revision, or the main branch.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }
}

impl FromStr for RepoName {
    type Err = Error;

    /// # Errors
    /// [`Error::Name`] if the text is not `ORG/NAME` or `ORG/NAME@REVISION`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let (id, revision) = match text.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (text, None),
        };
        let is_repository = id
            .split_once('/')
            .is_some_and(|(org, name)| is_word(org) && is_word(name));
        if !is_repository {
            return Err(Error::Name(format!(
                "`{text}` is no name of a repository: ORG/NAME or ORG/NAME@REVISION is, of letters, digits, `-`, `_` and `.`"
            )));
        }
        if revision.is_some_and(|revision| !is_revision(revision)) {
            return Err(Error::Name(format!(
                "`{text}` names no revision: a branch, a tag or a commit should follow the `@`"
            )));
        }
        Ok(Self {
            id: id.to_string(),
            revision: revision.map(String::from),
        })
    }
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)?;
        match &self.revision {
            Some(revision) => write!(f, "@{revision}"),
            None => Ok(()),
        }
    }
}

/// The rules of the Hub for each half of a name.
fn is_word(word: &str) -> bool {
    let is_edge = |c: char| matches!(c, '-' | '.');
    !word.is_empty()
        && word.len() <= 96
        && !word.starts_with(is_edge)
        && !word.ends_with(is_edge)
        && !word.contains("--")
        && !word.contains("..")
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// A revision becomes a file's path in the cache, so it must not lead out of it.
fn is_revision(revision: &str) -> bool {
    relative(revision).is_some()
        && revision
            .chars()
            .all(|c| c.is_ascii_graphic() && !matches!(c, ':' | '*' | '?' | '"' | '<' | '>' | '|'))
}

/// Whether a text names one file or folder directly in another folder, and is not hidden in it, on every system.
pub(crate) fn is_plain(text: &str) -> bool {
    is_part(text, true) && !text.starts_with('.')
}

/// A path of a repository, with `/` between folders, as one of this system; `None` where it leads out of the repository, or may. All
/// paths that come from the Hub, or go there, go through this. The library has the same rules for paths in its files, in
/// `files/inside.rs`: neither of the two crates knows the other.
pub(crate) fn relative(path: &str) -> Option<PathBuf> {
    path.split('/')
        .map(|part| is_part(part, cfg!(windows)).then_some(part))
        .collect()
}

/// Whether a text is one part of a path and stays one when it is joined to others. With `portable`, also on Windows, where a colon
/// begins a drive or a stream, dots and spaces at the end are dropped, and some names are devices.
fn is_part(text: &str, portable: bool) -> bool {
    let is_drive = text.as_bytes().get(1) == Some(&b':') && text.as_bytes()[0].is_ascii_alphabetic();
    let is_part = !matches!(text, "" | "." | "..") && !text.contains(['/', '\\', '\0']) && !is_drive;
    let is_portable = || {
        !text.contains([':', '*', '?', '"', '<', '>', '|'])
            && !text.contains(char::is_control)
            && !text.ends_with(['.', ' '])
            && !is_device(text)
    };
    is_part && (!portable || is_portable())
}

/// Whether Windows opens a device by this name, whatever its ending.
fn is_device(name: &str) -> bool {
    let stem = name
        .split('.')
        .next()
        .unwrap_or(name)
        .trim_end()
        .to_ascii_uppercase();
    let is_port = |stem: &str| {
        let number = stem.strip_prefix("COM").or(stem.strip_prefix("LPT"));
        number.is_some_and(|number| number.chars().count() == 1 && number.contains(|c: char| c.is_numeric()))
    };
    ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"].contains(&stem.as_str()) || is_port(&stem)
}

/// Whether a revision is a whole commit's hash, which never means anything else.
pub(crate) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The repository, with its commit as the revision, that a path in a cache belongs to: `…/models--ORG--NAME/snapshots/COMMIT/…`.
pub fn of_cached(path: &std::path::Path) -> Option<(RepoKind, RepoName)> {
    let parts: Vec<&str> = path
        .iter()
        .map(|part| part.to_str().unwrap_or_default())
        .collect();
    parts.windows(3).find_map(|window| match window {
        [folder, "snapshots", commit] if is_commit(commit) => {
            let RepoId { kind, id } = RepoId::of_folder(folder)?;
            let revision = Some(commit.to_string());
            Some((kind, RepoName { id, revision }))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn names_are_read_with_and_without_a_revision() {
        let plain: RepoName = "google/ddpm-cat-256".parse().unwrap();
        assert_eq!(
            (plain.revision(), plain.to_string().as_str()),
            ("main", "google/ddpm-cat-256")
        );
        let pinned: RepoName = "a/b_c.d@refs/convert/parquet".parse().unwrap();
        assert_eq!(pinned.revision(), CONVERTED);
        assert_eq!(pinned.to_string(), "a/b_c.d@refs/convert/parquet");
    }

    #[test]
    fn paths_and_what_leads_out_of_the_cache_are_no_names() {
        for text in [
            "pictures",
            "./a",
            "../a",
            "/a/b",
            "a/b/c",
            "a/",
            "/b",
            "a b/c",
            "a--x/b",
            "a/..",
            "a\\b/c",
            "runs/digits-1/",
            "a/b@",
            "a/b@../../x",
            "a/b@x\\y",
            "a/b@/etc",
            "C:/x",
            "a/.hidden",
            "",
        ] {
            assert!(text.parse::<RepoName>().is_err(), "{text}");
        }
    }

    #[test]
    fn paths_of_a_repository_stay_in_it() {
        let out = [
            "", ".", "..", "../x", "a/../x", "/x", "a//b", "./a", "a/", "a\\b", "..\\x", "C:x", "c:/x",
            "a/C:x", "x\0",
        ];
        for text in out {
            assert_eq!(relative(text), None, "{text:?}");
            assert!(!is_plain(text), "{text:?}");
        }
        for text in ["NUL", "aux.txt", "com1", "a:b", "a.", "a ", "a\n", ".git", "a/b"] {
            assert!(!is_plain(text), "{text:?}");
        }
        for text in ["unet", "text_encoder_2", "console"] {
            assert!(is_plain(text), "{text:?}");
        }
        assert_eq!(
            relative("a/größe 1.png"),
            Some(Path::new("a").join("größe 1.png"))
        );
    }

    #[test]
    fn a_folder_of_the_cache_says_whose_it_is() {
        let id = RepoId {
            kind: RepoKind::Dataset,
            id: "huggan/smithsonian_butterflies_subset".into(),
        };
        assert_eq!(
            id.folder_name(),
            "datasets--huggan--smithsonian_butterflies_subset"
        );
        assert_eq!(RepoId::of_folder(&id.folder_name()).unwrap(), id);
        assert_eq!(RepoId::of_folder("models--gpt2").unwrap().id, "gpt2");
        for other in [
            ".locks",
            "version.txt",
            "kernels--a--b",
            "models--",
            "models--a--b--c/d",
        ] {
            assert!(RepoId::of_folder(other).is_none(), "{other}");
        }
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let path = format!("/c/hub/models--a--b/snapshots/{commit}/unet/config.json");
        let (kind, name) = of_cached(Path::new(&path)).unwrap();
        assert_eq!(
            (kind, name.to_string()),
            (RepoKind::Model, format!("a/b@{commit}"))
        );
        assert!(of_cached(Path::new("/c/hub/models--a--b/snapshots/main")).is_none());
    }
}
