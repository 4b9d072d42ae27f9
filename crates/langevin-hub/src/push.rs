//! A folder's files into a repository, as one commit.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Error, Hash, Hub, MAIN, Progress, RepoId, RepoKind, Result,
    hash::{Hasher, hash_file},
    http::{Failure, Refusal, json as read_json, text},
    name::RepoName,
    refused::failed,
    snapshot::each,
};

/// How many files the Hub takes in one question.
const BATCH: usize = 256;
/// How many of a file's first bytes the Hub wants to see before it says where the file belongs.
const SAMPLE: u64 = 512;
const LFS: &str = "application/vnd.git-lfs+json";

/// What is to be pushed.
#[derive(Clone, Debug, Default)]
pub struct Push {
    /// What the repository holds.
    pub kind: RepoKind,
    /// Whether it is private, if it is made now.
    pub private: bool,
    /// The summary of the commit.
    pub summary: String,
    /// The files: where they are, and what they are called in the repository.
    pub files: Vec<(PathBuf, String)>,
    /// Texts in place of files, by their names in the repository.
    pub texts: Vec<(String, String)>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The page of the repository.
    pub page: String,
    /// The commit; `None` where the repository has all of it already.
    pub commit: Option<String>,
    /// How many files are new or different.
    pub files: usize,
}

/// A file on its way.
struct Outgoing {
    path: String,
    source: Source,
    size: u64,
    sample: Vec<u8>,
    /// Whether it goes to the store of large files.
    large: bool,
    /// What the repository has under that name.
    remote: Option<String>,
}

enum Source {
    File(PathBuf),
    Text(String),
}

#[derive(Deserialize)]
struct Preupload {
    files: Vec<Mode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mode {
    path: String,
    upload_mode: String,
    #[serde(default)]
    should_ignore: bool,
    #[serde(default)]
    oid: Option<String>,
}

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
    header: serde_json::Map<String, Value>,
}

#[derive(Deserialize)]
struct Whoami {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Committed {
    commit_oid: String,
}

impl Hub {
    /// Makes a repository if there is none, and commits files to its main branch. What it has already does not travel.
    ///
    /// # Errors
    /// [`Error::Token`] if there is no token or it may not do that, [`Error::Network`] if the Hub cannot be reached, [`Error::Io`] if
    /// a file cannot be read. The repository is as it was unless all went well; large files that arrived need not travel again.
    pub fn push(&self, name: &RepoName, push: &Push, progress: &dyn Progress) -> Result<Pushed> {
        self.may_push()?;
        if name.revision.is_some() {
            return Err(Error::Name(format!(
                "`{name}` names a revision; a push goes to the main branch of {}",
                name.id
            )));
        }
        let repo = name.of_kind(push.kind);
        let fail = |failure| failed(failure, &repo, &self.http);
        let mut outgoing = push.outgoing()?;
        self.create(&repo, push.private).map_err(fail)?;
        self.ask_modes(&repo, &mut outgoing).map_err(fail)?;
        let changed = self.changed(outgoing)?;
        let page = format!("{}/{}{repo}", self.settings.endpoint, repo.kind.prefix());
        if changed.is_empty() {
            return Ok(Pushed {
                page,
                commit: None,
                files: 0,
            });
        }
        let large: Vec<&(Outgoing, Hash)> = changed.iter().filter(|(file, _)| file.large).collect();
        self.upload(&repo, &large, progress)?;
        let body = commit_body(&push.summary, &changed)?;
        let url = format!("{}/commit/{MAIN}", self.api(&repo));
        let headers = [("content-type", "application/x-ndjson")];
        // Once: a commit whose answer is lost may have been made.
        let response = self.http.post_once(&url, &headers, &body).map_err(fail)?;
        let committed: Committed = read_json(response, &url).map_err(fail)?;
        Ok(Pushed {
            page,
            commit: Some(committed.commit_oid),
            files: changed.len(),
        })
    }

    /// Whose token it is: long before there is something to push, this is worth asking.
    ///
    /// # Errors
    /// [`Error::Token`] if there is no token, or the Hub does not know it; [`Error::NotCached`] offline; [`Error::Network`] if the Hub
    /// cannot be reached.
    pub fn check_push(&self) -> Result<String> {
        self.may_push()?;
        let url = format!("{}/api/whoami-v2", self.settings.endpoint);
        match self.http.get_json::<Whoami>(&url) {
            Ok((who, _)) => Ok(who.name),
            Err(Failure::Refused(Refusal { status: 401, .. })) => Err(Error::Token(format!(
                "the Hub does not know this token: set HF_TOKEN to one that may write, from {}/settings/tokens",
                self.settings.endpoint
            ))),
            Err(Failure::Refused(refusal)) => Err(Error::Answer(format!(
                "the Hub does not say whose token it is (status {}: {})",
                refusal.status, refusal.message
            ))),
            Err(Failure::Network(why) | Failure::Unreachable(why)) => Err(Error::Network(format!(
                "the Hub cannot be reached: check the network, or HF_ENDPOINT if it is set ({why})"
            ))),
        }
    }

    fn may_push(&self) -> Result<()> {
        if self.settings.offline {
            return Err(Error::NotCached(
                "nothing can be pushed while HF_HUB_OFFLINE is set: unset it".into(),
            ));
        }
        if self.http.has_token() {
            return Ok(());
        }
        Err(Error::Token(format!(
            "pushing needs a token: set HF_TOKEN to one that may write, from {}/settings/tokens",
            self.settings.endpoint
        )))
    }

    /// Makes the repository, unless it is there.
    fn create(&self, repo: &RepoId, private: bool) -> Result<(), Failure> {
        let (organization, name) = repo.id.split_once('/').unwrap_or(("", &repo.id));
        let mut asked = json!({ "name": name, "organization": organization, "type": repo.kind.word() });
        if private {
            asked["visibility"] = json!("private");
        }
        if repo.kind == RepoKind::Space {
            asked["sdk"] = json!("docker");
        }
        let url = format!("{}/api/repos/create", self.settings.endpoint);
        match self.http.post(&url, &[], asked.to_string().as_bytes()) {
            Ok(_) => Ok(()),
            Err(Failure::Refused(Refusal { status: 409, .. })) => Ok(()),
            // A token may have the right to write to one repository, and not that to make others.
            Err(Failure::Refused(refusal)) if matches!(refusal.status, 401 | 403) => {
                match self.http.get_json::<Value>(&self.api(repo)) {
                    Ok(_) => Ok(()),
                    Err(_) => Err(Failure::Refused(refusal)),
                }
            }
            Err(failure) => Err(failure),
        }
    }

    /// Asks which files belong into the store of large ones, and what the repository has of them.
    fn ask_modes(&self, repo: &RepoId, files: &mut Vec<Outgoing>) -> Result<(), Failure> {
        let url = format!("{}/preupload/{MAIN}", self.api(repo));
        let mut ignored = Vec::new();
        for batch in files.chunks_mut(BATCH) {
            let described = batch.iter().map(|file| {
                json!({ "path": file.path, "size": file.size, "sample": STANDARD.encode(&file.sample) })
            });
            let asked = json!({ "files": described.collect::<Vec<_>>() });
            let response = self.http.post(&url, &[], asked.to_string().as_bytes())?;
            let modes: Preupload = read_json(response, &url)?;
            for mode in modes.files {
                if let Some(file) = batch.iter_mut().find(|file| file.path == mode.path) {
                    // The store takes no empty files.
                    file.large = mode.upload_mode == "lfs" && file.size > 0;
                    file.remote = mode.oid;
                    if mode.should_ignore {
                        ignored.push(mode.path);
                    }
                }
            }
        }
        files.retain(|file| !ignored.contains(&file.path));
        Ok(())
    }

    /// The files that the repository has not, or has otherwise, with their hashes.
    fn changed(&self, files: Vec<Outgoing>) -> Result<Vec<(Outgoing, Hash)>> {
        let mut changed = Vec::with_capacity(files.len());
        for file in files {
            let hash = file.hash()?;
            if file.remote.as_deref() != Some(hash.text()) {
                changed.push((file, hash));
            }
        }
        Ok(changed)
    }

    /// Sends large files to their store, several at a time.
    fn upload(&self, repo: &RepoId, files: &[&(Outgoing, Hash)], progress: &dyn Progress) -> Result<()> {
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
            let response = self
                .http
                .post(&url, &headers, asked.to_string().as_bytes())
                .map_err(fail)?;
            let answer: Batch = read_json(response, &url).map_err(fail)?;
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
                        .post(&verify.href, &[], asked.to_string().as_bytes())
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
            Failure::Refused(refusal) => Error::Answer(format!(
                "the store of large files does not take {} (status {}: {})",
                file.path, refusal.status, refusal.message
            )),
        };
        let chunk = upload.header.get("chunk_size").and_then(|size| match size {
            Value::String(text) => text.parse().ok(),
            value => value.as_u64(),
        });
        let Some(chunk) = chunk.filter(|&size: &u64| size > 0) else {
            return self
                .put(file, &upload.href, 0..file.size, progress)
                .map_err(broke)
                .map(drop);
        };
        let mut parts = Vec::new();
        for number in 1..=file.size.div_ceil(chunk) {
            let Some(url) = upload.header.get(&number.to_string()).and_then(Value::as_str) else {
                return Err(Error::Answer(format!(
                    "the Hub wants {} in parts of {chunk} bytes, and does not say where part {number} goes",
                    file.path
                )));
            };
            let range = (number - 1) * chunk..(number * chunk).min(file.size);
            let etag = self.put(file, url, range, progress).map_err(broke)?;
            parts.push(json!({ "partNumber": number, "etag": etag }));
        }
        let asked = json!({ "oid": hash.text(), "parts": parts });
        let headers = [("content-type", LFS), ("accept", LFS)];
        self.http
            .post(&upload.href, &headers, asked.to_string().as_bytes())
            .map_err(broke)
            .map(drop)
    }

    /// Puts a stretch of a file, again where that may help, and gives its ETag.
    fn put(
        &self,
        file: &Outgoing,
        url: &str,
        range: std::ops::Range<u64>,
        progress: &dyn Progress,
    ) -> Result<String, Failure> {
        let size = range.end - range.start;
        self.http.patiently(|| {
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

impl Push {
    fn outgoing(&self) -> Result<Vec<Outgoing>> {
        let files = self.files.iter().map(|(path, name)| {
            let read = |e| Error::io("read", path, e);
            let mut file = File::open(path).map_err(read)?;
            let size = file.metadata().map_err(read)?.len();
            let mut sample = Vec::new();
            (&mut file).take(SAMPLE).read_to_end(&mut sample).map_err(read)?;
            Ok(Outgoing {
                path: name.clone(),
                source: Source::File(path.clone()),
                size,
                sample,
                large: false,
                remote: None,
            })
        });
        let texts = self.texts.iter().map(|(name, text)| {
            Ok(Outgoing {
                path: name.clone(),
                source: Source::Text(text.clone()),
                size: text.len() as u64,
                sample: text.bytes().take(SAMPLE as usize).collect(),
                large: false,
                remote: None,
            })
        });
        files.chain(texts).collect()
    }
}

impl Outgoing {
    fn open(&self) -> std::io::Result<Box<dyn ReadSeek>> {
        Ok(match &self.source {
            Source::File(path) => Box::new(File::open(path)?),
            Source::Text(text) => Box::new(std::io::Cursor::new(text.clone().into_bytes())),
        })
    }

    fn place(&self) -> &Path {
        match &self.source {
            Source::File(path) => path,
            Source::Text(_) => Path::new(&self.path),
        }
    }

    /// The hash by which the Hub will know it.
    fn hash(&self) -> Result<Hash> {
        let hasher = if self.large {
            Hasher::sha256()
        } else {
            Hasher::git(self.size)
        };
        let mut source = self.open().map_err(|e| Error::io("read", self.place(), e))?;
        hash_file(&mut source, hasher).map_err(|e| Error::io("read", self.place(), e))
    }
}

trait ReadSeek: Read + Seek {}
impl<T: Read + Seek> ReadSeek for T {}

/// The lines of JSON that make a commit.
fn commit_body(summary: &str, files: &[(Outgoing, Hash)]) -> Result<Vec<u8>> {
    let header = json!({ "key": "header", "value": { "summary": summary, "description": "" } });
    let mut body = format!("{header}\n").into_bytes();
    for (file, hash) in files {
        let line = if file.large {
            let value = json!({ "path": file.path, "algo": "sha256", "oid": hash.text(), "size": file.size });
            json!({ "key": "lfsFile", "value": value })
        } else {
            let mut bytes = Vec::new();
            file.open()
                .and_then(|mut source| source.read_to_end(&mut bytes))
                .map_err(|e| Error::io("read", file.place(), e))?;
            let value = json!({ "path": file.path, "encoding": "base64", "content": STANDARD.encode(bytes) });
            json!({ "key": "file", "value": value })
        };
        body.extend(format!("{line}\n").into_bytes());
    }
    Ok(body)
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
