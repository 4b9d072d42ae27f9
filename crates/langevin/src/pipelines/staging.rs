//! A folder's files, written aside and put in their places together.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::{Error, Result, files};

/// Files on their way into a folder: they are written into [`Staging::path`], and [`Staging::commit`] moves them.
///
/// Whatever fails before the commit leaves the folder as it was, and nothing beside it.
#[derive(Debug)]
pub(super) struct Staging {
    /// Removed when dropped, with whatever was not moved.
    aside: TempDir,
    staged: PathBuf,
    folder: PathBuf,
}

impl Staging {
    /// A place on the file system of `folder`, which need not exist yet; its parents are made.
    ///
    /// # Errors
    /// If nothing can be written there.
    pub(super) fn of(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref().to_path_buf();
        if folder.exists() && !folder.is_dir() {
            return Err(Error::file(&folder, "is a file, where a folder is to be written"));
        }
        let beside = if folder.is_dir() {
            folder.clone()
        } else {
            parent(&folder)
        };
        fs::create_dir_all(&beside).map_err(|e| Error::io("create", &beside, e))?;
        let aside = tempfile::Builder::new()
            .prefix(".langevin-")
            .tempdir_in(&beside)
            .map_err(|e| Error::io("write into", &beside, e))?;
        // Temporary folders are private; one made inside is as public as any other.
        let staged = aside.path().join("staged");
        fs::create_dir(&staged).map_err(|e| Error::io("create", &staged, e))?;
        Ok(Self {
            aside,
            staged,
            folder,
        })
    }

    /// Where to write.
    pub(super) fn path(&self) -> &Path {
        &self.staged
    }

    /// Moves everything into its place. A folder that was not there appears whole. In one that was, each file replaces
    /// its predecessor, and files that have no successor stay.
    ///
    /// Where a JSON file changes, old and new files do not fit together: then `index` is taken away first and comes
    /// back last, so that at no instant does a folder with an index hold some of each. Where none does, as when a
    /// training run saves its model again, there is always a whole pipeline.
    ///
    /// # Errors
    /// If something cannot be moved.
    pub(super) fn commit(self, index: &str) -> Result<()> {
        if !self.folder.exists() {
            fs::rename(&self.staged, &self.folder).map_err(|e| Error::io("write", &self.folder, e))?;
        } else {
            let old_index = self.folder.join(index);
            if old_index.exists() && !same_json(&self.staged, &self.folder)? {
                fs::remove_file(&old_index).map_err(|e| Error::io("replace", &old_index, e))?;
            }
            move_files(&self.staged, &self.folder, Some(index))?;
            let new_index = self.staged.join(index);
            fs::rename(&new_index, &old_index).map_err(|e| Error::io("write", &old_index, e))?;
        }
        self.aside
            .close()
            .map_err(|e| Error::io("remove", &self.folder, e))
    }
}

/// Renames every file below `from` to the same place below `to`, but for `except` at the top.
fn move_files(from: &Path, to: &Path, except: Option<&str>) -> Result<()> {
    let entries = fs::read_dir(from).map_err(|e| Error::io("read", from, e))?;
    for entry in entries {
        let entry = entry.map_err(|e| Error::io("read", from, e))?;
        let name = entry.file_name();
        if except.is_some_and(|except| name == except) {
            continue;
        }
        let (source, target) = (entry.path(), to.join(&name));
        if source.is_dir() {
            fs::create_dir_all(&target).map_err(|e| Error::io("create", &target, e))?;
            move_files(&source, &target, None)?;
        } else {
            fs::rename(&source, &target).map_err(|e| Error::io("write", &target, e))?;
        }
    }
    Ok(())
}

/// Whether every JSON file below `staged` is already below `folder`, with the same text.
fn same_json(staged: &Path, folder: &Path) -> Result<bool> {
    let entries = fs::read_dir(staged).map_err(|e| Error::io("read", staged, e))?;
    for entry in entries {
        let entry = entry.map_err(|e| Error::io("read", staged, e))?;
        let (new, old) = (entry.path(), folder.join(entry.file_name()));
        let same = if new.is_dir() {
            same_json(&new, &old)?
        } else if new.extension().is_some_and(|extension| extension == "json") {
            old.is_file() && files::read_text(&new)? == files::read_text(&old)?
        } else {
            true
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

fn parent(folder: &Path) -> PathBuf {
    match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn stage(folder: &Path) -> Staging {
        let staging = Staging::of(folder).unwrap();
        fs::create_dir(staging.path().join("unet")).unwrap();
        fs::write(staging.path().join("unet/weights"), "new").unwrap();
        fs::write(staging.path().join("index"), "new").unwrap();
        staging
    }

    #[test]
    fn a_new_folder_appears_whole_with_its_parents() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b");
        let staging = stage(&folder);
        assert!(!folder.exists());
        staging.commit("index").unwrap();
        assert_eq!(names(&folder), ["index", "unet"]);
        assert_eq!(names(&root.path().join("a")), ["b"]);
    }

    #[test]
    fn an_existing_folder_keeps_what_has_no_successor() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("unet")).unwrap();
        for file in ["metrics", "index", "unet/weights"] {
            fs::write(root.path().join(file), "old").unwrap();
        }
        stage(root.path()).commit("index").unwrap();
        assert_eq!(names(root.path()), ["index", "metrics", "unet"]);
        let text = |file: &str| fs::read_to_string(root.path().join(file)).unwrap();
        assert_eq!(
            [text("metrics"), text("index"), text("unet/weights")],
            ["old", "new", "new"]
        );
    }

    #[test]
    fn an_index_is_taken_away_only_where_something_beside_the_weights_changes() {
        let root = tempfile::tempdir().unwrap();
        let [staged, folder] = ["staged", "folder"].map(|name| root.path().join(name));
        for (at, config, weights) in [(&staged, "{}", "new"), (&folder, "{}", "old")] {
            fs::create_dir_all(at.join("unet")).unwrap();
            fs::write(at.join("unet/config.json"), config).unwrap();
            fs::write(at.join("unet/weights"), weights).unwrap();
        }
        assert!(same_json(&staged, &folder).unwrap());
        fs::write(staged.join("unet/config.json"), "[]").unwrap();
        assert!(!same_json(&staged, &folder).unwrap());
        fs::remove_file(folder.join("unet/config.json")).unwrap();
        assert!(!same_json(&staged, &folder).unwrap());
    }

    #[test]
    fn what_is_not_committed_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("index"), "old").unwrap();
        drop(stage(root.path()));
        drop(stage(&root.path().join("new")));
        assert_eq!(names(root.path()), ["index"]);
        assert_eq!(fs::read_to_string(root.path().join("index")).unwrap(), "old");
    }

    #[test]
    fn a_file_is_not_a_folder() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(
            Staging::of(file.path())
                .unwrap_err()
                .to_string()
                .contains("is a file")
        );
    }
}
