//! Names and links that come from elsewhere, and the folder that they may not lead out of.
//!
//! Every text of a file that becomes part of a path goes through [`is_plain_name`] or [`plain_path`] first, and whatever is read to be
//! published or trained on through [`Inside`]. The crate of the Hub's client has the same rules for the Hub's names, in its `name.rs`:
//! neither of the two crates knows the other.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::in_cache;
use crate::{Error, Result};

/// Whether a text names one file or folder directly in another folder, and is not hidden in it, on every system: what names a pipeline's
/// component or a shard of weights.
pub fn is_plain_name(text: &str) -> bool {
    is_part(text, true) && !text.starts_with('.')
}

/// The path that a text means below a folder, written with `/` or, as Windows writes it, with `\`; `None` where it is absolute, leads
/// upwards, names a drive or a device, or nothing. Parts that only say "here" are left out.
pub fn plain_path(text: &str) -> Option<PathBuf> {
    let is_absolute = text.starts_with(['/', '\\']);
    let mut parts = text
        .split(['/', '\\'])
        .filter(|part| !matches!(*part, "" | "."))
        .peekable();
    parts.peek()?;
    parts
        .map(|part| is_part(part, cfg!(windows)).then_some(part))
        .collect::<Option<PathBuf>>()
        .filter(|_| !is_absolute)
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

/// A folder, and what counts as lying in it where links lead elsewhere: the folder itself, and for one in a cache of the Hugging Face
/// Hub the blobs that the names in its snapshots are links to.
#[derive(Clone, Debug)]
pub struct Inside {
    places: Vec<PathBuf>,
}

impl Inside {
    /// Of the folder `root`, which may be a link itself.
    ///
    /// # Errors
    /// If it cannot be found.
    pub fn of(root: impl AsRef<Path>) -> Result<Self> {
        let root = fs::canonicalize(&root).map_err(|e| Error::io("read", root, e))?;
        let mut places = vec![];
        if let Some((repository, _)) = in_cache(&root) {
            // Its own blobs, and those that Python's client shares between repositories.
            let blobs = [Some(repository), repository.parent()].map(|at| at.map(|at| at.join("blobs")));
            // One that is a link itself is no part of a cache.
            let is_there = |blobs: &PathBuf| fs::canonicalize(blobs).is_ok_and(|whole| whole == *blobs);
            places.extend(blobs.into_iter().flatten().filter(is_there));
        }
        places.push(root);
        Ok(Self { places })
    }

    /// Whether what `path` leads to, by whatever links, lies in the folder.
    ///
    /// # Errors
    /// If it leads nowhere.
    pub fn holds(&self, path: &Path) -> io::Result<bool> {
        let whole = fs::canonicalize(path)?;
        Ok(self.places.iter().any(|place| whole.starts_with(place)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What leads out of a folder, or elsewhere, on one system or another.
    const OUT: [&str; 14] = [
        "",
        ".",
        "..",
        "../x",
        "x/../../y",
        "/etc/passwd",
        "\\x",
        "..\\x",
        "C:x",
        "C:\\x",
        "c:/x",
        "\\\\host\\share\\x",
        "x\0",
        "//x",
    ];

    #[test]
    fn a_name_is_one_plain_part() {
        let other = [
            "a/b",
            "a\\b",
            "x:stream",
            "NUL",
            "nul.txt",
            "com1.json",
            "LPT¹",
            "x.",
            "x ",
            "a\nb",
            ".git",
            "a*",
            "con .bin",
        ];
        for text in OUT.iter().chain(&other) {
            assert!(!is_plain_name(text), "{text:?}");
        }
        for text in [
            "unet",
            "text_encoder_2",
            "model-00001-of-00002.safetensors",
            "größe 1",
            "com",
            "console",
            "com10",
        ] {
            assert!(is_plain_name(text), "{text:?}");
        }
    }

    #[test]
    fn a_path_stays_below_its_folder() {
        for text in OUT {
            assert_eq!(plain_path(text), None, "{text:?}");
        }
        for text in ["a/b.png", "a\\b.png", "./a/b.png", "a//./b.png", ".\\a\\b.png"] {
            assert_eq!(plain_path(text), Some(Path::new("a").join("b.png")), "{text:?}");
        }
        // A class may be called so where it is no device's name.
        assert_eq!(plain_path("con/1.png").is_some(), !cfg!(windows));
    }

    #[cfg(unix)]
    #[test]
    fn links_may_lead_into_the_caches_blobs_and_nowhere_else() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let repository = root.path().join("models--a--b");
        let snapshot = repository.join("snapshots").join("0".repeat(40));
        for folder in [
            &repository.join("blobs"),
            &root.path().join("blobs"),
            &snapshot.join("unet"),
        ] {
            fs::create_dir_all(folder).unwrap();
        }
        let file = |path: &Path| fs::write(path, "").unwrap();
        file(&root.path().join("secret"));
        file(&root.path().join("blobs/2"));
        file(&repository.join("blobs/1"));
        symlink("../../secret", repository.join("blobs/3")).unwrap();
        let link = |target: &str, name: &str| {
            symlink(target, snapshot.join(name)).unwrap();
            Inside::of(&snapshot).unwrap().holds(&snapshot.join(name))
        };
        assert!(link("../../blobs/1", "own").unwrap());
        assert!(link("../../../blobs/2", "shared").unwrap());
        assert!(link("unet", "within").unwrap());
        assert!(!link("../../blobs/3", "through").unwrap());
        assert!(!link("../../../secret", "out").unwrap());
        assert!(link("gone", "lost").is_err());
        assert!(link("circle", "circle").is_err());
        // A folder of another name has no blobs.
        let plain = root.path().join("plain");
        fs::create_dir(&plain).unwrap();
        symlink("../blobs/2", plain.join("x")).unwrap();
        assert!(!Inside::of(&plain).unwrap().holds(&plain.join("x")).unwrap());
    }
}
