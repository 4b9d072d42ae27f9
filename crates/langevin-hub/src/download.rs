//! One file's bytes: fetched, resumed where they broke off, checked, and put in their place whole or not at all.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use ureq::http::HeaderMap;

use crate::{
    Error, Hash, Progress, RepoFile, RepoId, Result, address,
    cache::RepoCache,
    failure::{Failure, Refusal},
    hash::{Hasher, hash_file},
    headers::text,
    http::{Ask, Http},
    lock::Lock,
    refused::refused,
};

/// How much is read between two looks at whether to stop.
const CHUNK: usize = 256 << 10;

/// What the downloads of one transfer have in common.
pub(crate) struct Download<'a> {
    pub http: &'a Http,
    pub cache: &'a RepoCache,
    /// The address that a file's path follows.
    pub resolve: &'a str,
    /// The repository.
    pub repo: &'a RepoId,
    pub progress: &'a dyn Progress,
    /// Set where another file failed.
    pub stop: &'a AtomicBool,
}

/// Why one attempt ended.
enum Ended {
    /// All bytes are there.
    Whole,
    /// Bytes are missing, for this reason.
    Broke(Failure),
}

impl Download<'_> {
    /// Makes the blob of a file that is not there yet.
    ///
    /// # Errors
    /// [`Error::Network`] if the bytes do not come, [`Error::Hash`] if they are not those that the Hub names, or what the Hub says.
    /// What came so far stays for the next time, but for bytes that are wrong.
    pub(crate) fn blob(&self, file: &RepoFile) -> Result<()> {
        let blob = self.cache.blob(&file.hash);
        if blob.is_file() {
            self.progress.advance(file.size);
            return Ok(());
        }
        let stopped = || self.stop.load(Ordering::Relaxed);
        let lock = Lock::acquire(&self.cache.lock(&file.hash), self.progress, &stopped)?;
        // Whoever held the lock may have made it.
        if blob.is_file() {
            self.progress.advance(file.size);
            return Ok(());
        }
        let path = self.cache.incomplete(&file.hash);
        let mut filled = self.fill(&path, file).inspect_err(|_| remove_if_empty(&path))?;
        // What was there from before may have been anything; what comes in one piece is what the Hub sends.
        if filled.from_before && filled.check(file).is_err() {
            remove(&path)?;
            self.progress.back(file.size);
            filled = self.fill(&path, file)?;
        }
        // What was hashed on its way is on the disk, unless it came in pieces, or somebody else may be writing there too.
        if filled.in_pieces || !lock.is_sure() {
            filled.hash = hash_on_disk(&path, file)?;
        }
        if let Err(wrong) = filled.check(file) {
            remove(&path)?;
            self.progress.back(file.size);
            return Err(self.wrong_hash(file, &wrong));
        }
        std::fs::rename(&path, &blob).map_err(|e| Error::io("write", &blob, e))?;
        sync_folder(&blob);
        Ok(())
    }

    /// Brings the file at `path` to its full size, and syncs it.
    fn fill(&self, path: &Path, file: &RepoFile) -> Result<Filled> {
        let io = |e| Error::io("write", path, e);
        let mut target = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io)?;
        let mut hasher = Hasher::like(&file.hash, file.size);
        let mut have = target.metadata().map_err(io)?.len();
        if have > file.size {
            have = 0;
        }
        target.set_len(have).map_err(io)?;
        let from_before = have > 0;
        let mut in_pieces = from_before;
        feed(&mut target, &mut hasher).map_err(io)?;
        self.progress.advance(have);
        let mut repeated = 0;
        let stopped = || self.stop.load(Ordering::Relaxed);
        while have < file.size {
            self.http.wait_until_allowed(&stopped);
            if stopped() {
                return Err(Error::Stopped);
            }
            let before = have;
            let ended = self.attempt(path, &mut target, file, &mut have, &mut hasher)?;
            // Whatever moves on may go on.
            repeated = if have > before { 0 } else { repeated };
            if let Ended::Broke(failure) = ended {
                in_pieces = true;
                if !failure.is_passing() {
                    return Err(self.broke(file, have, failure));
                }
                self.http
                    .wait(failure, repeated, self.progress, &stopped)
                    .map_err(|failure| self.broke(file, have, failure))?;
                repeated += 1;
            }
        }
        target.sync_all().map_err(io)?;
        Ok(Filled {
            hash: hasher.finish(),
            from_before,
            in_pieces,
        })
    }

    /// Asks for what is missing, and writes what comes.
    fn attempt(
        &self,
        path: &Path,
        target: &mut File,
        file: &RepoFile,
        have: &mut u64,
        hasher: &mut Hasher,
    ) -> Result<Ended> {
        let url = format!("{}/{}", self.resolve, address::path(&file.path));
        let range = format!("bytes={have}-");
        let headers = [("range", range.as_str())];
        let headers = if *have > 0 { &headers[..] } else { &[] };
        let response = match self.http.get(&url, Ask { headers }) {
            Ok(response) => response,
            // The range begins behind the end: what is there is not what the Hub has.
            Err(Failure::Refused(Refusal { status: 416, .. })) if *have > 0 => {
                self.start_over(path, target, file, have, hasher)?;
                return Ok(Ended::Broke(Failure::Network(
                    "the Hub has fewer bytes than were there".into(),
                )));
            }
            Err(failure) => return Ok(Ended::Broke(failure)),
        };
        // A store that knows no ranges, or another beginning than was asked for, sends all of it.
        let is_rest = response.status() == 206 && starts_at(response.headers(), *have);
        if *have > 0 && !is_rest {
            self.start_over(path, target, file, have, hasher)?;
            if response.status() == 206 {
                return Ok(Ended::Broke(Failure::Network(
                    "the Hub sent another range than was asked for".into(),
                )));
            }
        }
        let mut body = response.into_body().into_reader();
        let mut chunk = vec![0; CHUNK];
        while *have < file.size {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            let most = usize::try_from(file.size - *have).map_or(CHUNK, |left| left.min(CHUNK));
            let count = match body.read(&mut chunk[..most]) {
                Ok(0) => {
                    return Ok(Ended::Broke(Failure::Network(
                        "the connection ended early".into(),
                    )));
                }
                Ok(count) => count,
                Err(e) => return Ok(Ended::Broke(Failure::Network(e.to_string()))),
            };
            target
                .write_all(&chunk[..count])
                .map_err(|e| Error::io("write", path, e))?;
            hasher.update(&chunk[..count]);
            *have += count as u64;
            self.progress.advance(count as u64);
        }
        Ok(Ended::Whole)
    }

    /// Throws away what is there.
    fn start_over(
        &self,
        path: &Path,
        target: &mut File,
        file: &RepoFile,
        have: &mut u64,
        hasher: &mut Hasher,
    ) -> Result<()> {
        self.progress.back(*have);
        *have = 0;
        *hasher = Hasher::like(&file.hash, file.size);
        target
            .set_len(0)
            .and_then(|()| target.rewind())
            .map_err(|e| Error::io("write", path, e))
    }

    fn broke(&self, file: &RepoFile, have: u64, failure: Failure) -> Error {
        match failure {
            Failure::Network(why) | Failure::Unreachable(why) if have > 0 => Error::Network(format!(
                "the network dropped while {} of {} was coming ({have} of {} bytes are here): run the same again to go on \
                 from there ({why})",
                file.path, self.repo, file.size
            )),
            Failure::Network(why) | Failure::Unreachable(why) => Error::Network(format!(
                "{} of {} did not come: check the network and run the same again ({why})",
                file.path, self.repo
            )),
            Failure::Setup(why) => Error::Network(why),
            Failure::Refused(refusal) => refused(refusal, self.repo, self.http),
        }
    }

    fn wrong_hash(&self, file: &RepoFile, came: &Hash) -> Error {
        Error::Hash(format!(
            "{} of {} came with the hash {}, and the Hub names {}: nothing of it was kept; run the same again, and if it \
             differs again, the file on the Hub or a proxy on the way is damaged",
            file.path,
            self.repo,
            came.text(),
            file.hash.text()
        ))
    }
}

/// A file of its full size.
struct Filled {
    hash: Hash,
    /// Whether some of it was there from an earlier time.
    from_before: bool,
    /// Whether it did not come in one answer.
    in_pieces: bool,
}

impl Filled {
    /// # Errors
    /// The hash that the bytes have, where it is another.
    fn check(&self, file: &RepoFile) -> Result<(), Hash> {
        if self.hash == file.hash {
            Ok(())
        } else {
            Err(self.hash.clone())
        }
    }
}

/// What the bytes on the disk come to.
fn hash_on_disk(path: &Path, file: &RepoFile) -> Result<Hash> {
    let read = |e| Error::io("read", path, e);
    let mut source = File::open(path).map_err(read)?;
    hash_file(&mut source, Hasher::like(&file.hash, file.size)).map_err(read)
}

/// Feeds a file's bytes to a hasher; what is written next follows them.
fn feed(file: &mut File, hasher: &mut Hasher) -> std::io::Result<()> {
    file.rewind()?;
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            count => hasher.update(&chunk[..count]),
        }
    }
    file.seek(SeekFrom::End(0)).map(drop)
}

/// Whether an answer's range begins there.
fn starts_at(headers: &HeaderMap, at: u64) -> bool {
    let range = text(headers, "content-range").and_then(|range| range.trim().strip_prefix("bytes "));
    range.is_some_and(|range| range.split('-').next() == Some(&at.to_string()))
}

fn remove(path: &Path) -> Result<()> {
    std::fs::remove_file(path).map_err(|e| Error::io("remove", path, e))
}

/// Of a file of which nothing came, nothing need stay.
fn remove_if_empty(path: &Path) {
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() == 0) {
        // It would do no harm.
        let _ = std::fs::remove_file(path);
    }
}

/// Makes a rename last through a power cut, where that can be had.
fn sync_folder(path: &Path) {
    if let Some(folder) = path.parent()
        && cfg!(unix)
    {
        // The bytes are synced; a name that is lost is downloaded again.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
}
