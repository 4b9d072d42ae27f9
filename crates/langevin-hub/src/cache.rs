//! The standard cache of the Hub's clients, in which Python reads what is written here, and the other way round.
//!
//! ```text
//! models--ORG--NAME/
//!   blobs/HASH                   every file's bytes once, by its SHA-256 or git hash
//!   trees/COMMIT.json            what the Hub says that a commit holds
//!   refs/main                    the commit that a branch or tag was when it was last looked at
//!   snapshots/COMMIT/unet/…      the files of a commit by their names: links to the blobs
//! .locks/models--ORG--NAME/HASH.lock
//! ```

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use crate::{
    Error, Hash, RepoId, Result,
    name::{self, is_commit},
};

/// The mark by which programs that make backups pass a cache over, <https://bford.info/cachedir/>.
const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # This file marks a cache of the Hugging Face Hub: what is in it can be downloaded again.\n";

/// The cache's part for one repository.
#[derive(Clone, Debug)]
pub(crate) struct RepoCache {
    root: PathBuf,
    folder: PathBuf,
    locks: PathBuf,
    symlinks: bool,
}

impl RepoCache {
    /// The part of the cache at `root`; nothing is made yet.
    pub(crate) fn new(root: &Path, repo: &RepoId, symlinks: bool) -> Self {
        let name = repo.folder_name();
        Self {
            root: root.to_path_buf(),
            folder: root.join(&name),
            locks: root.join(".locks").join(name),
            symlinks,
        }
    }

    /// The folder of the repository.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of its locks.
    pub(crate) fn locks(&self) -> &Path {
        &self.locks
    }

    /// The folder of a commit's files.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// Where it is written down which files a commit has.
    pub(crate) fn tree(&self, commit: &str) -> PathBuf {
        self.folder.join("trees").join(format!("{commit}.json"))
    }

    /// Where the bytes of a file with this hash lie.
    pub(crate) fn blob(&self, hash: &Hash) -> PathBuf {
        self.folder.join("blobs").join(hash.text())
    }

    /// Where they lie until all of them are there.
    pub(crate) fn incomplete(&self, hash: &Hash) -> PathBuf {
        self.folder
            .join("blobs")
            .join(format!("{}.incomplete", hash.text()))
    }

    /// The file that whoever downloads these bytes holds locked.
    pub(crate) fn lock(&self, hash: &Hash) -> PathBuf {
        self.locks.join(format!("{}.lock", hash.text()))
    }

    /// Makes the folders that a download needs.
    pub(crate) fn prepare(&self) -> Result<()> {
        for folder in [&self.folder.join("blobs"), &self.locks] {
            fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
        }
        let tag = self.root.join("CACHEDIR.TAG");
        if !tag.exists() {
            // A cache without it is a cache.
            let _ = fs::write(tag, CACHEDIR_TAG);
        }
        Ok(())
    }

    /// The commit that a revision is, as far as the cache knows.
    pub(crate) fn commit_of(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_string());
        }
        let commit = fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
        Some(commit.trim().to_string()).filter(|commit| is_commit(commit))
    }

    /// Notes which commit a revision is. A commit needs no note.
    pub(crate) fn set_commit_of(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit || self.commit_of(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        write_atomically(&path, commit.as_bytes())
    }

    /// Where a file of a commit is, if it is there.
    pub(crate) fn file(&self, commit: &str, path: &str) -> Result<Option<PathBuf>> {
        let path = self.snapshot(commit).join(relative(path)?);
        Ok(path.is_file().then_some(path))
    }

    /// Gives a blob its name in a commit: a link to it. Where there are no links of either kind, the bytes are moved there, as Python
    /// does it, for two copies of a model are one too many; `same` is a file of this commit that took them already.
    ///
    /// # Errors
    /// [`Error::Io`] if that cannot be written, [`Error::Busy`] if the blob is not there any more.
    pub(crate) fn point(
        &self,
        commit: &str,
        path: &str,
        hash: &Hash,
        same: Option<&Path>,
    ) -> Result<PathBuf> {
        let place = self.snapshot(commit).join(relative(path)?);
        let blob = self.blob(hash);
        if place.is_file() {
            return Ok(place);
        }
        let parent = place.parent().unwrap_or(&self.folder);
        fs::create_dir_all(parent).map_err(|e| Error::io("create", parent, e))?;
        // A link to a blob that is gone.
        if place.is_symlink() {
            fs::remove_file(&place).map_err(|e| Error::io("replace", &place, e))?;
        }
        if !blob.is_file() {
            return match same {
                Some(same) => copy_atomically(same, &place).map(|()| place),
                // A link that leads nowhere would be worse than none.
                None => Err(Error::Busy(format!(
                    "another program removed {path} while it was pulled: run the same again"
                ))),
            };
        }
        let up = "../".repeat(path.split('/').count() + 1);
        let target = format!("{up}blobs/{}", hash.text());
        if self.symlinks {
            match symlink(Path::new(&target), &place) {
                Ok(()) => return Ok(place),
                // Somebody else was faster.
                Err(_) if place.is_file() => return Ok(place),
                Err(_) => {}
            }
        }
        // What is a link to elsewhere, as in the store that Python shares between repositories, stays where it is.
        if blob.is_symlink() {
            copy_atomically(&blob, &place)?;
        } else if fs::hard_link(&blob, &place).is_err() && !place.is_file() {
            fs::rename(&blob, &place).map_err(|e| Error::io("write", &place, e))?;
        }
        Ok(place)
    }

    /// The files of a commit that are there, by their paths, with their sizes; sorted.
    pub(crate) fn files(&self, commit: &str) -> Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        let root = self.snapshot(commit);
        if root.is_dir() {
            walk(&root, "", &mut files)?;
        }
        files.sort();
        Ok(files)
    }
}

/// A path of a repository as one of this system.
///
/// # Errors
/// [`Error::Answer`] if it leads out of the repository: paths come from the Hub.
fn relative(path: &str) -> Result<PathBuf> {
    name::relative(path).ok_or_else(|| {
        Error::Answer(format!(
            "the repository has a file called `{path}`, which is no path within it: it is not downloaded"
        ))
    })
}

fn walk(folder: &Path, within: &str, files: &mut Vec<(String, u64)>) -> Result<()> {
    let read = |e: io::Error| Error::io("read", folder, e);
    for entry in fs::read_dir(folder).map_err(read)? {
        let entry = entry.map_err(read)?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let path = if within.is_empty() {
            name.to_string()
        } else {
            format!("{within}/{name}")
        };
        // Files are links to blobs, and not there where the blob is gone; nobody makes links to folders here.
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        match fs::metadata(entry.path()) {
            Ok(metadata) if metadata.is_dir() && !is_link => walk(&entry.path(), &path, files)?,
            Ok(metadata) if metadata.is_file() => files.push((path, metadata.len())),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    let target: PathBuf = target.components().collect();
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A temporary file beside `path`, whose folder is made.
fn beside(path: &Path) -> Result<tempfile::NamedTempFile> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".langevin-");
    // Temporary files are private to their owner; a cache may be shared.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    builder
        .tempfile_in(folder)
        .map_err(|e| Error::io("write", path, e))
}

/// Writes a small file whole or not at all.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = beside(path)?;
    let write = || -> io::Result<()> {
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|e| e.error)?;
        Ok(())
    };
    write().map_err(|e| Error::io("write", path, e))
}

fn copy_atomically(from: &Path, to: &Path) -> Result<()> {
    let mut file = beside(to)?;
    let copy = || -> io::Result<()> {
        io::copy(&mut fs::File::open(from)?, &mut file)?;
        file.as_file().sync_all()?;
        file.persist(to).map_err(|e| e.error)?;
        Ok(())
    };
    copy().map_err(|e| Error::io("write", to, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RepoKind;

    fn cache(root: &Path, symlinks: bool) -> RepoCache {
        let repo = RepoId {
            kind: RepoKind::Model,
            id: "a/b".into(),
        };
        RepoCache::new(root, &repo, symlinks)
    }

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn files_are_links_or_copies() {
        for symlinks in [true, false] {
            let root = tempfile::tempdir().unwrap();
            let cache = cache(root.path(), symlinks);
            cache.prepare().unwrap();
            let hash = Hash::of_text(&"a".repeat(64)).unwrap();
            fs::write(cache.blob(&hash), "x").unwrap();
            let place = cache.point(COMMIT, "unet/deep/config.json", &hash, None).unwrap();
            assert_eq!(fs::read_to_string(&place).unwrap(), "x");
            assert_eq!(place.is_symlink(), symlinks && cfg!(unix));
            assert_eq!(
                cache.files(COMMIT).unwrap(),
                [("unet/deep/config.json".to_string(), 1)]
            );
            assert!(root.path().join("CACHEDIR.TAG").is_file());
        }
    }

    #[test]
    fn a_link_whose_blob_is_gone_is_no_file_and_is_made_anew() {
        let root = tempfile::tempdir().unwrap();
        let cache = cache(root.path(), true);
        cache.prepare().unwrap();
        let hash = Hash::of_text(&"a".repeat(64)).unwrap();
        cache.set_commit_of("refs/pr/1", COMMIT).unwrap();
        assert_eq!(cache.commit_of("refs/pr/1").as_deref(), Some(COMMIT));
        fs::write(cache.blob(&hash), "x").unwrap();
        cache.point(COMMIT, "f", &hash, None).unwrap();
        fs::remove_file(cache.blob(&hash)).unwrap();
        assert!(cache.files(COMMIT).unwrap().is_empty() || cfg!(not(unix)));
        fs::write(cache.blob(&hash), "y").unwrap();
        assert!(cache.point(COMMIT, "f", &hash, None).unwrap().is_file());
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let cache = cache(root.path(), true);
        for path in [
            "../x",
            "a/../../x",
            "/etc/passwd",
            "a//b",
            "",
            "a\\b",
            "./a",
            "a/",
            "C:x",
            "a/..\\x",
            "x\0",
        ] {
            assert!(cache.file(COMMIT, path).is_err(), "{path}");
        }
        assert!(cache.file(COMMIT, "a/b.c").unwrap().is_none());
    }

    #[cfg(unix)]
    #[test]
    fn links_to_folders_lead_nowhere() {
        let root = tempfile::tempdir().unwrap();
        let cache = cache(root.path(), true);
        let snapshot = cache.snapshot(COMMIT);
        fs::create_dir_all(snapshot.join("unet")).unwrap();
        fs::write(snapshot.join("unet/config.json"), "{}").unwrap();
        for name in ["up", "also"] {
            std::os::unix::fs::symlink("..", snapshot.join("unet").join(name)).unwrap();
        }
        assert_eq!(
            cache.files(COMMIT).unwrap(),
            [("unet/config.json".to_string(), 2)]
        );
    }

    #[test]
    fn a_ref_that_is_no_commit_is_none() {
        let root = tempfile::tempdir().unwrap();
        let cache = cache(root.path(), true);
        fs::create_dir_all(cache.folder().join("refs")).unwrap();
        fs::write(cache.folder().join("refs/main"), "").unwrap();
        assert_eq!(cache.commit_of("main"), None);
        assert_eq!(cache.commit_of(COMMIT).as_deref(), Some(COMMIT));
    }
}
