//! Large files, which go to a store of their own by Git LFS: <https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md>.

use std::{
    io::{Read, Seek, SeekFrom},
    ops::Range,
    sync::atomic::AtomicBool,
};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{BATCH, Outgoing};
use crate::{
    Error, Hash, Hub, MAIN, Progress, RepoId, Result, failure::Failure, headers::text, refused::failed,
    snapshot::each,
};

const LFS: &str = "application/vnd.git-lfs+json";

#[derive(Deserialize)]
struct Batch {
    objects: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    oid: String,
    #[serde(default)]
    actions: Option<Actions>,
    #[serde(default)]
    error: Option<ObjectError>,
}

#[derive(Deserialize)]
struct ObjectError {
    message: String,
}

#[derive(Deserialize)]
struct Actions {
    upload: Option<Action>,
    verify: Option<Action>,
}

#[derive(Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: Option<serde_json::Map<String, Value>>,
}

impl Action {
    /// How large the parts are in which the file is wanted; `None` where it is wanted whole.
    fn chunk(&self) -> Option<u64> {
        let size = match self.header.as_ref()?.get("chunk_size")? {
            Value::String(text) => text.parse().ok(),
            value => value.as_u64(),
        };
        size.filter(|&size| size > 0)
    }

    /// Where the parts go, in their order: they stand by their numbers from 1 on, which may have zeros before them.
    fn parts(&self) -> Vec<(u64, &str)> {
        let header = self.header.iter().flatten();
        let mut parts: Vec<(u64, &str)> = header
            .filter(|(name, _)| name.bytes().all(|b| b.is_ascii_digit()))
            .filter_map(|(name, url)| Some((name.parse().ok()?, url.as_str()?)))
            .collect();
        parts.sort_unstable();
        parts
    }
}

impl Hub {
    /// Sends large files to their store, several at a time.
    pub(super) fn upload(
        &self,
        repo: &RepoId,
        files: &[&(Outgoing, Hash)],
        progress: &dyn Progress,
    ) -> Result<()> {
        let fail = |failure| failed(failure, repo, &self.http);
        let url = format!(
            "{}/{}{repo}.git/info/lfs/objects/batch",
            self.settings.endpoint,
            repo.kind.prefix()
        );
        let headers = [("content-type", LFS), ("accept", LFS)];
        let mut uploads = Vec::new();
        for batch in files.chunks(BATCH) {
            let objects = batch
                .iter()
                .map(|(file, hash)| json!({ "oid": hash.text(), "size": file.size }));
            let asked = json!({
                "operation": "upload", "transfers": ["basic", "multipart"], "hash_algo": "sha256",
                "ref": { "name": MAIN }, "objects": objects.collect::<Vec<_>>(),
            });
            let answer: Batch = self
                .http
                .post_json(&url, &headers, asked.to_string().as_bytes(), progress)
                .map_err(fail)?;
            for object in answer.objects {
                let found = batch.iter().find(|(_, hash)| hash.text() == object.oid);
                let Some((file, hash)) = found else { continue };
                if let Some(error) = object.error {
                    return Err(Error::Answer(format!(
                        "the Hub does not take {}: {}",
                        file.path, error.message
                    )));
                }
                // Without actions, the store has it already.
                if let Some(Actions {
                    upload: Some(upload),
                    verify,
                }) = object.actions
                {
                    uploads.push((file, hash, upload, verify));
                }
            }
        }
        if uploads.is_empty() {
            return Ok(());
        }
        let bytes = uploads.iter().map(|(file, ..)| file.size).sum();
        progress.begin(&repo.id, uploads.len(), bytes);
        let stop = AtomicBool::new(false);
        let result = each(
            &uploads,
            self.settings.at_a_time,
            &stop,
            |(file, hash, upload, verify)| {
                self.send(file, hash, upload, progress)?;
                if let Some(verify) = verify {
                    let asked = json!({ "oid": hash.text(), "size": file.size });
                    self.http
                        .post(&verify.href, &[], asked.to_string().as_bytes(), progress)
                        .map_err(fail)?;
                }
                Ok(())
            },
        );
        progress.end();
        result
    }

    /// Sends one file, whole or in the parts that the Hub wants.
    fn send(&self, file: &Outgoing, hash: &Hash, upload: &Action, progress: &dyn Progress) -> Result<()> {
        let broke = |failure: Failure| match failure {
            Failure::Network(why) | Failure::Unreachable(why) => Error::Network(format!(
                "the network dropped while {} was on its way: run the same again; large files that arrived stay there ({why})",
                file.path
            )),
            Failure::Setup(why) => Error::Network(why),
            Failure::Refused(refusal) => Error::Answer(format!(
                "the store of large files does not take {} (status {}: {})",
                file.path, refusal.status, refusal.message
            )),
        };
        let Some(chunk) = upload.chunk() else {
            return self
                .put(file, &upload.href, 0..file.size, progress)
                .map_err(broke)
                .map(drop);
        };
        let places = upload.parts();
        let numbers = 1..=file.size.div_ceil(chunk);
        if !places.iter().map(|(number, _)| *number).eq(numbers.clone()) {
            return Err(Error::Answer(format!(
                "the Hub wants {} in {} parts of {chunk} bytes, and says of {} where they go: run the same again",
                file.path,
                numbers.count(),
                places.len()
            )));
        }
        let mut parts = Vec::with_capacity(places.len());
        for (number, url) in places {
            let range = (number - 1) * chunk..number.saturating_mul(chunk).min(file.size);
            let etag = self.put(file, url, range, progress).map_err(broke)?;
            // Without it, the store could not be told which bytes are meant.
            if etag.is_empty() {
                return Err(Error::Answer(format!(
                    "the store of large files does not say that part {number} of {} arrived (an ETag is missing): run the same again",
                    file.path
                )));
            }
            parts.push(json!({ "partNumber": number, "etag": etag }));
        }
        let asked = json!({ "oid": hash.text(), "parts": parts });
        let headers = [("content-type", LFS), ("accept", LFS)];
        self.http
            .post(&upload.href, &headers, asked.to_string().as_bytes(), progress)
            .map_err(broke)
            .map(drop)
    }

    /// Puts a stretch of a file, again where that may help, and gives its ETag.
    fn put(
        &self,
        file: &Outgoing,
        url: &str,
        range: Range<u64>,
        progress: &dyn Progress,
    ) -> Result<String, Failure> {
        let size = range.end - range.start;
        self.http.patiently(progress, || {
            let unread = |e: std::io::Error| Failure::Network(format!("{} cannot be read: {e}", file.path));
            let mut source = file.open().map_err(unread)?;
            source.seek(SeekFrom::Start(range.start)).map_err(unread)?;
            let mut counted = Counted {
                source: source.take(size),
                progress,
                count: 0,
            };
            let sent = self.http.put(url, size, &mut counted);
            if sent.is_err() {
                progress.back(counted.count);
            }
            let response = sent?;
            Ok(text(response.headers(), "etag").unwrap_or_default().to_string())
        })
    }
}

/// Tells how much was read.
struct Counted<'a, R> {
    source: R,
    progress: &'a dyn Progress,
    count: u64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.count += count as u64;
        self.progress.advance(count as u64);
        Ok(count)
    }
}
