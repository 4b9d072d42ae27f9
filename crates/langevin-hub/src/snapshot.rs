//! A commit of a repository: which files it has, and those of them that are wanted, in the cache.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use serde::Deserialize;

use crate::{
    Error, Hash, Hub, Progress, RepoId, RepoKind, RepoName, Result, address,
    cache::RepoCache,
    download::Download,
    failure::Failure,
    headers::text,
    name::is_commit,
    refused::failed,
    tree::{self, TreeFile},
};

/// A file of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoFile {
    /// Its path, with `/` between folders.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// What its bytes come to.
    pub hash: Hash,
}

/// A commit of a repository.
pub struct Snapshot<'a> {
    hub: &'a Hub,
    repo: RepoId,
    revision: String,
    commit: String,
    cache: RepoCache,
    files: Files,
}

enum Files {
    /// What the Hub says that there is, and how it is written down.
    Listed(Vec<RepoFile>, tree::Files),
    /// What the Hub said that there is; the cache may have only some of it, and the Hub is not asked.
    Known(Vec<(String, u64)>),
    /// What the cache has; the Hub is not asked, and what else there is is not known.
    Cached(Vec<(String, u64)>),
}

/// What the Hub says of a repository at a revision, as far as it is needed.
#[derive(Deserialize)]
struct Info {
    sha: Option<String>,
}

/// An entry of a listing.
#[derive(Deserialize)]
struct Entry {
    r#type: String,
    path: String,
    oid: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Lfs>,
    #[serde(default, rename = "xetHash")]
    xet_hash: Option<String>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

impl Hub {
    /// Opens a repository at a revision: asks the Hub which commit that is and which files it has. Where the Hub may not be asked
    /// (offline) or does not answer, what the cache has of it is opened; `progress` is told of the latter.
    ///
    /// # Errors
    /// [`Error::NotCached`] or [`Error::Network`] if neither the Hub nor the cache has it to give; [`Error::NoSuchRepository`],
    /// [`Error::NoSuchRevision`], [`Error::Gated`], [`Error::Token`] if the Hub says so.
    pub fn open(&self, kind: RepoKind, name: &RepoName, progress: &dyn Progress) -> Result<Snapshot<'_>> {
        let repo = name.of_kind(kind);
        let revision = name.revision();
        let cache = RepoCache::new(&self.settings.cache, &repo, self.settings.symlinks);
        let cached = |cache: RepoCache| -> Result<Option<Snapshot<'_>>> {
            let Some(commit) = cache.commit_of(revision) else {
                return Ok(None);
            };
            let files = cache.files(&commit)?;
            if files.is_empty() {
                return Ok(None);
            }
            let files = match tree::read(&cache.tree(&commit)) {
                Some(tree) => Files::Known(
                    tree.into_iter()
                        .map(|(path, file)| (path, file.bytes()))
                        .collect(),
                ),
                None => Files::Cached(files),
            };
            Ok(Some(Snapshot {
                hub: self,
                repo: repo.clone(),
                revision: revision.to_string(),
                commit,
                cache,
                files,
            }))
        };
        if self.settings.offline {
            return cached(cache)?.ok_or_else(|| self.not_cached(kind, name));
        }
        match self.ask(&repo, revision, progress) {
            Ok((commit, files, tree)) => Ok(Snapshot {
                hub: self,
                repo,
                revision: revision.to_string(),
                commit,
                cache,
                files: Files::Listed(files, tree),
            }),
            Err(failure) if failure.says_nothing() => {
                let why = failed(failure, &repo, &self.http).to_string();
                match cached(cache)? {
                    Some(snapshot) => {
                        progress.note(&format!("{why}; going on with what the cache has of {name}"));
                        Ok(snapshot)
                    }
                    None => Err(Error::Network(format!("{why}; {name} is not in the cache"))),
                }
            }
            Err(failure) => Err(failed(failure, &repo, &self.http)),
        }
    }

    /// The commit that a revision is, and its files.
    fn ask(
        &self,
        repo: &RepoId,
        revision: &str,
        progress: &dyn Progress,
    ) -> Result<(String, Vec<RepoFile>, tree::Files), Failure> {
        let api = self.api(repo);
        let commit = if is_commit(revision) {
            revision.to_string()
        } else {
            let url = format!("{api}/revision/{}", address::part(revision));
            let (info, _) = self.http.get_json::<Info>(&url, progress)?;
            match info.sha.filter(|sha| is_commit(sha)) {
                Some(sha) => sha,
                None => return Err(Failure::unexpected(&url, "it names no commit")),
            }
        };
        let (mut files, mut tree) = (Vec::new(), BTreeMap::new());
        let mut url = Some(format!("{api}/tree/{commit}?recursive=true&expand=false"));
        let mut seen = HashSet::new();
        while let Some(page) = url {
            if !seen.insert(page.clone()) {
                return Err(Failure::unexpected(&page, "its listing leads in circles"));
            }
            let (entries, headers) = self.http.get_json::<Vec<Entry>>(&page, progress)?;
            for entry in entries.into_iter().filter(|entry| entry.r#type == "file") {
                let (lfs_sha256, lfs_size) = entry.lfs.map(|lfs| (lfs.oid, lfs.size)).unzip();
                let known = TreeFile {
                    size: entry.size,
                    blob_id: entry.oid,
                    lfs_sha256,
                    lfs_size,
                    xet_hash: TreeFile::xet(entry.xet_hash),
                };
                let Some(hash) = known.hash() else {
                    return Err(Failure::unexpected(
                        &page,
                        &format!("{} has no hash in a form that is known", entry.path),
                    ));
                };
                files.push(RepoFile {
                    path: entry.path.clone(),
                    size: known.bytes(),
                    hash,
                });
                tree.insert(entry.path, known);
            }
            url = match text(&headers, "link").map(address::next_page) {
                Some(Ok(next)) => next.map(|next| address::join(&page, next)),
                Some(Err(())) => {
                    return Err(Failure::unexpected(
                        &page,
                        "where its listing goes on is not clear",
                    ));
                }
                None => None,
            };
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok((commit, files, tree))
    }

    fn not_cached(&self, kind: RepoKind, name: &RepoName) -> Error {
        let dataset = if kind == RepoKind::Dataset {
            " --dataset"
        } else {
            ""
        };
        Error::NotCached(format!(
            "{name} is not in the cache ({}), and HF_HUB_OFFLINE forbids to download it: unset that, or run `langevin pull \
             {name}{dataset}` where it may",
            self.settings.cache.display()
        ))
    }
}

impl Snapshot<'_> {
    /// The repository.
    pub fn repo(&self) -> &RepoId {
        &self.repo
    }

    /// The commit.
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// Whether these are the cache's files alone, because the Hub may not be asked or did not answer.
    pub fn is_cached(&self) -> bool {
        !matches!(self.files, Files::Listed(..))
    }

    /// Whether it is known which files there are: where the Hub is not asked, the cache may know only those that it has.
    pub fn is_listed(&self) -> bool {
        !matches!(self.files, Files::Cached(_))
    }

    /// The folder in which files are once they are fetched.
    pub fn folder(&self) -> PathBuf {
        self.cache.snapshot(&self.commit)
    }

    /// The commit's files and their sizes, sorted by path; those that the cache has, where nobody knows which there are.
    pub fn files(&self) -> Vec<(&str, u64)> {
        match &self.files {
            Files::Listed(files, _) => files.iter().map(|file| (file.path.as_str(), file.size)).collect(),
            Files::Known(files) | Files::Cached(files) => {
                files.iter().map(|(path, size)| (path.as_str(), *size)).collect()
            }
        }
    }

    /// Whether there is such a file.
    pub fn has(&self, path: &str) -> bool {
        self.files().iter().any(|(known, _)| *known == path)
    }

    /// Whether the commit's folder has such a file already.
    pub(crate) fn is_there(&self, path: &str) -> bool {
        matches!(self.cache.file(&self.commit, path), Ok(Some(_)))
    }

    /// The text of a small file, which gets no name in the commit's folder by that: what lies there is whole. What is no UTF-8 is shown
    /// as such.
    ///
    /// # Errors
    /// As [`Snapshot::fetch`].
    pub fn read(&self, path: &str, progress: &dyn Progress) -> Result<String> {
        let place = match self.cache.file(&self.commit, path)? {
            Some(place) => place,
            None if self.is_cached() => return Err(self.missing(&[path])),
            None => {
                let file = self.listed(path)?;
                self.download(&[file], &Quiet(progress))?;
                self.cache.blob(&file.hash)
            }
        };
        let bytes = std::fs::read(&place).map_err(|e| Error::io("read", place, e))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Brings files into the commit's folder, several at a time, and gives that folder. Their names appear once all of their bytes are
    /// there.
    ///
    /// # Errors
    /// [`Error::NotCached`] if a file is not there and the Hub is not asked, [`Error::NoSuchFile`] if there is none, or what went wrong
    /// with a download. Whatever was fetched stays, and is not fetched again.
    pub fn fetch(&self, paths: &[&str], progress: &dyn Progress) -> Result<PathBuf> {
        if self.is_cached() {
            let mut missing = Vec::new();
            for path in paths {
                if self.cache.file(&self.commit, path)?.is_none() {
                    missing.push(*path);
                }
            }
            return match missing.as_slice() {
                [] => Ok(self.folder()),
                missing => Err(self.missing(missing)),
            };
        }
        let mut missing = Vec::new();
        for path in paths {
            let file = self.listed(path)?;
            if self.cache.file(&self.commit, path)?.is_none() {
                missing.push(file);
            }
        }
        if !missing.is_empty() {
            self.download(&missing, progress)?;
            // Before the first name, so that whoever sees some of them knows of the others.
            if let Files::Listed(_, tree) = &self.files {
                tree::write(&self.cache.tree(&self.commit), tree);
            }
            let mut places: HashMap<&Hash, PathBuf> = HashMap::new();
            for file in missing {
                let same = places.get(&file.hash).map(PathBuf::as_path);
                let place = self.cache.point(&self.commit, &file.path, &file.hash, same)?;
                places.insert(&file.hash, place);
            }
        }
        if let Err(error) = self.cache.set_commit_of(&self.revision, &self.commit) {
            // A cache that is only read has all that it needs.
            progress.note(&format!(
                "the cache could not be told what {} is: {error}",
                self.revision
            ));
        }
        Ok(self.folder())
    }

    /// What the cache has not, named.
    fn missing(&self, paths: &[&str]) -> Error {
        const NAMED: usize = 3;
        let named = paths[..paths.len().min(NAMED)].join(", ");
        let (more, are) = match paths.len() {
            1 => (String::new(), "is"),
            2..=NAMED => (String::new(), "are"),
            count => (format!(" and {} other files", count - NAMED), "are"),
        };
        Error::NotCached(format!(
            "{named}{more} of {} {are} not in the cache: run the same again where the Hub can be reached",
            self.repo
        ))
    }

    fn listed(&self, path: &str) -> Result<&RepoFile> {
        let files = match &self.files {
            Files::Listed(files, _) => files.as_slice(),
            Files::Known(_) | Files::Cached(_) => &[],
        };
        let found = files.binary_search_by(|file| file.path.as_str().cmp(path));
        found
            .map(|at| &files[at])
            .map_err(|_| Error::NoSuchFile(format!("{} has no file {path} at {}", self.repo, self.revision)))
    }

    /// Makes the blobs of these files, the largest first.
    fn download(&self, files: &[&RepoFile], progress: &dyn Progress) -> Result<()> {
        // The same bytes may have several names.
        let mut queue: Vec<&RepoFile> = Vec::with_capacity(files.len());
        let mut seen = HashSet::new();
        for &file in files {
            if seen.insert(&file.hash) && !self.cache.blob(&file.hash).is_file() {
                queue.push(file);
            }
        }
        if queue.is_empty() {
            return Ok(());
        }
        queue.sort_by_key(|file| std::cmp::Reverse(file.size));
        self.cache.prepare()?;
        let resolve = format!(
            "{}/{}{}/resolve/{}",
            self.hub.settings.endpoint,
            self.repo.kind.prefix(),
            self.repo.id,
            self.commit
        );
        let stop = AtomicBool::new(false);
        let download = Download {
            http: &self.hub.http,
            cache: &self.cache,
            resolve: &resolve,
            repo: &self.repo,
            progress,
            stop: &stop,
        };
        progress.begin(
            &self.repo.id,
            queue.len(),
            queue.iter().map(|file| file.size).sum(),
        );
        let result = each(&queue, self.hub.settings.at_a_time, &stop, |file| {
            download.blob(file)
        });
        progress.end();
        result
    }
}

/// Does something with each, several at a time, until one fails: then the first error.
pub(crate) fn each<T: Sync>(
    items: &[T],
    at_a_time: usize,
    stop: &AtomicBool,
    work: impl Fn(&T) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let first_error = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..at_a_time.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    match work(item) {
                        Ok(()) => {}
                        Err(Error::Stopped) => return,
                        Err(error) => {
                            stop.store(true, Ordering::Relaxed);
                            let mut first = first_error.lock().unwrap_or_else(PoisonError::into_inner);
                            first.get_or_insert(error);
                        }
                    }
                }
            });
        }
    });
    first_error
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .map_or(Ok(()), Err)
}

/// Passes on what is worth knowing, and shows no progress: the file is small.
struct Quiet<'a>(&'a dyn Progress);

impl Progress for Quiet<'_> {
    fn note(&self, text: &str) {
        self.0.note(text);
    }
}
