//! What the cache holds, and taking some of it away.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{Error, Hub, RepoId, RepoName, Result, cache::RepoCache, lock::Lock, name::is_commit};

/// The folder of the cache in which Python's client keeps, by their Xet hashes, blobs that several repositories link to.
const SHARED: &str = "blobs";

/// A repository in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedRepo {
    /// Which.
    pub repo: RepoId,
    /// The bytes that it takes on disk.
    pub size: u64,
    /// When a file of it was last written.
    pub modified: Option<SystemTime>,
    /// Its commits, sorted by name.
    pub revisions: Vec<CachedRevision>,
}

/// A commit in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedRevision {
    /// The commit.
    pub commit: String,
    /// The branches and tags that are known to be it.
    pub refs: Vec<String>,
    /// How many files of it are there.
    pub files: usize,
    /// Their bytes.
    pub size: u64,
}

/// What was taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many commits.
    pub revisions: usize,
    /// How many bytes are free now.
    pub bytes: u64,
    /// How many bytes stay in the store that Python's client shares between repositories.
    pub shared: u64,
}

impl Hub {
    /// The repositories in the cache, sorted by kind and name. Folders that are none are passed over.
    ///
    /// # Errors
    /// [`Error::Io`] if a folder of the cache cannot be read.
    pub fn cached(&self) -> Result<Vec<CachedRepo>> {
        let root = &self.settings.cache;
        let mut found = Vec::new();
        for name in names(root)? {
            if let Some(repo) = RepoId::of_folder(&name)
                && root.join(&name).is_dir()
            {
                found.push(self.cached_repo(repo)?);
            }
        }
        found.sort_by(|a, b| a.repo.cmp(&b.repo));
        Ok(found)
    }

    /// How many bytes lie in `blobs` of the cache itself, where Python's client keeps what it shares between repositories. They are no
    /// repository's, and counted with none.
    pub fn shared_bytes(&self) -> u64 {
        let (mut size, mut modified) = (0, None);
        measure(
            &self.settings.cache.join(SHARED),
            &mut Seen::default(),
            &mut size,
            &mut modified,
        );
        size
    }

    fn cached_repo(&self, repo: RepoId) -> Result<CachedRepo> {
        let cache = RepoCache::new(&self.settings.cache, &repo, self.settings.symlinks);
        let refs = refs(&cache)?;
        let mut revisions = Vec::new();
        for commit in names(&cache.folder().join("snapshots"))? {
            if !is_commit(&commit) {
                continue;
            }
            let files = cache.files(&commit)?;
            let is_it = |(name, of): (&String, &String)| (*of == commit).then(|| name.clone());
            revisions.push(CachedRevision {
                refs: refs.iter().filter_map(is_it).collect(),
                files: files.len(),
                size: files.iter().map(|(_, size)| size).sum(),
                commit,
            });
        }
        let (mut size, mut modified) = (0, None);
        measure(cache.folder(), &mut Seen::default(), &mut size, &mut modified);
        Ok(CachedRepo {
            repo,
            size,
            modified,
            revisions,
        })
    }

    /// Takes a repository out of the cache, or one commit of it where `name` has a revision; of bytes that other commits need, none.
    ///
    /// # Errors
    /// [`Error::NotCached`] if the cache has no such repository or commit, [`Error::Busy`] if all of it is to go while some of it comes,
    /// [`Error::Io`] if something cannot be removed.
    pub fn remove(&self, repo: &RepoId, name: &RepoName) -> Result<Removed> {
        let cache = RepoCache::new(&self.settings.cache, repo, self.settings.symlinks);
        let not_there = || {
            Error::NotCached(format!(
                "the {} {name} is not in the cache: `langevin list` says what is",
                repo.kind.spoken()
            ))
        };
        if !cache.folder().is_dir() {
            return Err(not_there());
        }
        let before = self.cached_repo(repo.clone())?;
        let Some(revision) = &name.revision else {
            return self.remove_all(&cache, &before);
        };
        let commit = cache
            .commit_of(revision)
            .filter(|commit| cache.snapshot(commit).is_dir());
        let commit = commit.ok_or_else(not_there)?;
        if before.revisions.iter().all(|known| known.commit == commit) {
            return self.remove_all(&cache, &before);
        }
        for (name, of) in refs(&cache)? {
            if of == commit {
                let path = cache.folder().join("refs").join(name);
                fs::remove_file(&path).map_err(|e| Error::io("remove", path, e))?;
            }
        }
        self.throw_away(&cache.snapshot(&commit))?;
        // Python does not look at it without the snapshot.
        let _ = fs::remove_file(cache.tree(&commit));
        let shared = self.remove_unused_blobs(&cache)?;
        let after = self.cached_repo(repo.clone())?;
        Ok(Removed {
            revisions: 1,
            bytes: before.size.saturating_sub(after.size),
            shared,
        })
    }

    fn remove_all(&self, cache: &RepoCache, before: &CachedRepo) -> Result<Removed> {
        // Held until it is done, so that no download of it begins meanwhile.
        let mut locks = Vec::new();
        for name in names(cache.locks())? {
            match Lock::try_acquire(&cache.locks().join(name)) {
                Some(lock) => locks.push(lock),
                None => {
                    return Err(Error::Busy(format!(
                        "another program is downloading files of {}: nothing was removed; run the same again when it is done",
                        before.repo
                    )));
                }
            }
        }
        let blobs = cache.folder().join("blobs");
        let shared = names(&blobs)?
            .iter()
            .map(|name| self.shared_size(&blobs.join(name)))
            .sum();
        self.throw_away(cache.folder())?;
        // Whoever waits for one of them finds no file, and makes it anew.
        let _ = fs::remove_dir_all(cache.locks());
        Ok(Removed {
            revisions: before.revisions.len(),
            bytes: before.size,
            shared,
        })
    }

    /// The bytes that a blob has in the shared store, where it is a link there.
    fn shared_size(&self, blob: &Path) -> u64 {
        let is_shared = blob.is_symlink()
            && fs::canonicalize(blob).is_ok_and(|target| {
                fs::canonicalize(self.settings.cache.join(SHARED))
                    .is_ok_and(|store| target.starts_with(store))
            });
        match fs::metadata(blob) {
            Ok(metadata) if is_shared => metadata.len(),
            _ => 0,
        }
    }

    /// Removes a folder: first from its place, at once, then from the disk.
    fn throw_away(&self, folder: &Path) -> Result<()> {
        let fail = |e| Error::io("remove", folder, e);
        let away = tempfile::Builder::new()
            .prefix(".langevin-")
            .tempdir_in(&self.settings.cache)
            .map_err(fail)?;
        fs::rename(folder, away.path().join("removed")).map_err(fail)?;
        away.close().map_err(fail)
    }

    /// Removes the blobs that no snapshot leads to, and gives the bytes of those that stay in the shared store.
    fn remove_unused_blobs(&self, cache: &RepoCache) -> Result<u64> {
        let mut used = BTreeSet::new();
        collect_targets(&cache.folder().join("snapshots"), &mut used)?;
        let blobs = cache.folder().join("blobs");
        let mut shared = 0;
        for name in names(&blobs)? {
            // What is on its way belongs to whoever downloads it.
            if name.ends_with(".incomplete") || used.contains(&name) {
                continue;
            }
            let lock = cache.locks().join(format!("{name}.lock"));
            let Some(_lock) = Lock::try_acquire(&lock) else {
                continue;
            };
            let mut used = BTreeSet::new();
            collect_targets(&cache.folder().join("snapshots"), &mut used)?;
            if !used.contains(&name) {
                let path = blobs.join(name);
                shared += self.shared_size(&path);
                fs::remove_file(&path).map_err(|e| Error::io("remove", path, e))?;
            }
        }
        Ok(shared)
    }
}

/// The names in a folder, sorted; none if it is not there.
fn names(folder: &Path) -> Result<Vec<String>> {
    let read = |e| Error::io("read", folder, e);
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(read)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(read)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// Branches, tags and the like, with their commits.
fn refs(cache: &RepoCache) -> Result<BTreeMap<String, String>> {
    fn walk(folder: &Path, within: &str, found: &mut Vec<String>) -> Result<()> {
        for name in names(folder)? {
            let path = if within.is_empty() {
                name.clone()
            } else {
                format!("{within}/{name}")
            };
            let is_folder = folder
                .join(&name)
                .symlink_metadata()
                .is_ok_and(|kind| kind.is_dir());
            if is_folder {
                walk(&folder.join(name), &path, found)?;
            } else {
                found.push(path);
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    walk(&cache.folder().join("refs"), "", &mut found)?;
    let with_commit = |name: String| Some((cache.commit_of(&name)?, name));
    Ok(found
        .into_iter()
        .filter_map(with_commit)
        .map(|(commit, name)| (name, commit))
        .collect())
}

/// The files that have been counted, where that can be told: several names of one take its bytes once.
#[derive(Default)]
struct Seen(BTreeSet<(u64, u64)>);

impl Seen {
    #[cfg(unix)]
    fn is_new(&mut self, metadata: &fs::Metadata) -> bool {
        use std::os::unix::fs::MetadataExt;
        metadata.nlink() < 2 || self.0.insert((metadata.dev(), metadata.ino()))
    }

    #[cfg(not(unix))]
    fn is_new(&mut self, _: &fs::Metadata) -> bool {
        true
    }
}

/// Adds up what a folder takes on disk: links count as nothing.
fn measure(folder: &Path, seen: &mut Seen, size: &mut u64, modified: &mut Option<SystemTime>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.path().symlink_metadata() else {
            continue;
        };
        if metadata.is_dir() {
            measure(&entry.path(), seen, size, modified);
        } else if metadata.is_file() && seen.is_new(&metadata) {
            *size += metadata.len();
            *modified = (*modified).max(metadata.modified().ok());
        }
    }
}

/// The names of the blobs that links below a folder lead to.
fn collect_targets(folder: &Path, used: &mut BTreeSet<String>) -> Result<()> {
    for name in names(folder)? {
        let path: PathBuf = folder.join(name);
        match fs::read_link(&path) {
            Ok(target) => used.extend(
                target
                    .file_name()
                    .and_then(|name| name.to_str())
                    .map(String::from),
            ),
            Err(_) if path.is_dir() => collect_targets(&path, used)?,
            Err(_) => {}
        }
    }
    Ok(())
}
