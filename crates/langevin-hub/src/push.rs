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
    failure::{Failure, Refusal},
    http::json as read_json,
    name::RepoName,
    refused::{failed, unknown_token, unreached},
};

/// How many files the Hub takes in one question.
const BATCH: usize = 256;
/// What the Hub says while it makes another repository of the same owner.
const BUSY: &str = "conflicting operation";

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
    #[serde(default)]
    auth: Option<Auth>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Auth {
    #[serde(default)]
    access_token: Option<AccessToken>,
}

#[derive(Deserialize)]
struct AccessToken {
    /// `read`, `write`, or `fineGrained`, whose rights differ from repository to repository.
    #[serde(default)]
    role: Option<String>,
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
        let mut outgoing = push.outgoing()?;
        let repo = self.make(name, push.kind, push.private, progress)?;
        let fail = |failure| failed(failure, &repo, &self.http);
        self.ask_modes(&repo, &mut outgoing, progress).map_err(fail)?;
        let changed = self.changed(outgoing)?;
        let page = self.page(&repo);
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
        let committed = self
            .http
            .when_allowed(progress, || self.http.post_once(&url, &headers, &body))
            .and_then(|response| read_json::<Committed>(response, &url));
        let committed = committed.map_err(|failure| match failure {
            Failure::Network(why) => Error::Network(format!(
                "the connection broke while the Hub made the commit, and it may have made it: run the same again, which pushes \
                 what is missing ({why})"
            )),
            failure => fail(failure),
        })?;
        Ok(Pushed {
            page,
            commit: Some(committed.commit_oid),
            files: changed.len(),
        })
    }

    /// Whose token it is: long before there is something to push, this is worth asking.
    ///
    /// # Errors
    /// [`Error::Token`] if there is no token, the Hub does not know it, or it may only read; [`Error::NotCached`] offline;
    /// [`Error::Network`] if the Hub cannot be reached.
    pub fn check_push(&self, progress: &dyn Progress) -> Result<String> {
        self.may_push()?;
        let url = format!("{}/api/whoami-v2", self.settings.endpoint);
        match self.http.get_json::<Whoami>(&url, progress) {
            Ok((who, _)) => {
                let token = who.auth.and_then(|auth| auth.access_token);
                match token.and_then(|token| token.role).as_deref() {
                    Some("read") => Err(Error::Token(format!(
                        "the token {} may only read: set HF_TOKEN to one that may write, from {}/settings/tokens",
                        self.http.token_source(),
                        self.settings.endpoint
                    ))),
                    _ => Ok(who.name),
                }
            }
            Err(Failure::Refused(Refusal { status: 401, .. })) => Err(unknown_token(&self.http)),
            Err(failure) => Err(unreached(failure)),
        }
    }

    /// Makes a repository if there is none, and gives its page: what may fail for want of a right, or of a name, fails before there is
    /// something to push.
    ///
    /// # Errors
    /// As [`Hub::push`].
    pub fn make_repository(
        &self,
        name: &RepoName,
        kind: RepoKind,
        private: bool,
        progress: &dyn Progress,
    ) -> Result<String> {
        let repo = self.make(name, kind, private, progress)?;
        Ok(self.page(&repo))
    }

    fn make(
        &self,
        name: &RepoName,
        kind: RepoKind,
        private: bool,
        progress: &dyn Progress,
    ) -> Result<RepoId> {
        self.may_push()?;
        if name.revision.is_some() {
            return Err(Error::Name(format!(
                "`{name}` names a revision; a push goes to the main branch of {}",
                name.id
            )));
        }
        let repo = name.of_kind(kind);
        self.create(&repo, private, progress)
            .map_err(|failure| failed(failure, &repo, &self.http))?;
        Ok(repo)
    }

    fn page(&self, repo: &RepoId) -> String {
        format!("{}/{}{repo}", self.settings.endpoint, repo.kind.prefix())
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
    fn create(&self, repo: &RepoId, private: bool, progress: &dyn Progress) -> Result<(), Failure> {
        let (organization, name) = repo.id.split_once('/').unwrap_or(("", &repo.id));
        let mut asked = json!({ "name": name, "organization": organization, "type": repo.kind.word() });
        if private {
            asked["visibility"] = json!("private");
        }
        if repo.kind == RepoKind::Space {
            asked["sdk"] = json!("docker");
        }
        let url = format!("{}/api/repos/create", self.settings.endpoint);
        let mut repeated = 0;
        loop {
            match self.http.post(&url, &[], asked.to_string().as_bytes(), progress) {
                Ok(_) => return Ok(()),
                // The Hub makes one repository of an owner at a time, and says by the same status that there is one.
                Err(Failure::Refused(refusal)) if refusal.status == 409 && refusal.message.contains(BUSY) => {
                    self.http
                        .wait(Failure::Refused(refusal), repeated, progress, &|| false)?;
                    repeated += 1;
                }
                Err(Failure::Refused(Refusal { status: 409, .. })) => return Ok(()),
                // A token may have the right to write to one repository, and not that to make others; and what must be paid for may be
                // there already.
                Err(Failure::Refused(refusal)) if matches!(refusal.status, 401..=403) => {
                    return match self.http.get_json::<Value>(&self.api(repo), progress) {
                        Ok(_) => Ok(()),
                        Err(_) => Err(Failure::Refused(refusal)),
                    };
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Asks which files belong into the store of large ones, and what the repository has of them.
    fn ask_modes(
        &self,
        repo: &RepoId,
        files: &mut Vec<Outgoing>,
        progress: &dyn Progress,
    ) -> Result<(), Failure> {
        let url = format!("{}/preupload/{MAIN}", self.api(repo));
        let mut ignored = Vec::new();
        for batch in files.chunks_mut(BATCH) {
            let described = batch.iter().map(|file| {
                json!({ "path": file.path, "size": file.size, "sample": STANDARD.encode(&file.sample) })
            });
            let asked = json!({ "files": described.collect::<Vec<_>>() });
            let modes: Preupload = self
                .http
                .post_json(&url, &[], asked.to_string().as_bytes(), progress)?;
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
