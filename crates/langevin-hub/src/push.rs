//! A folder's files into a repository, as one commit.

mod large;
mod outgoing;

use std::{io::Read, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

use self::outgoing::Outgoing;
use crate::{
    Error, Hash, Hub, MAIN, Progress, RepoId, RepoKind, Result,
    http::{Failure, Refusal, json as read_json},
    name::RepoName,
    refused::failed,
};

/// How many files the Hub takes in one question.
const BATCH: usize = 256;
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
}

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
