//! The repositories of the loopback Hub: commits of files, by branches.

use std::{collections::BTreeMap, sync::Arc};

use sha1::{Digest, Sha1};
use sha2::Sha256;

/// A file of a commit.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub bytes: Arc<Vec<u8>>,
    pub lfs: bool,
}

/// A repository.
#[derive(Clone, Debug, Default)]
pub(crate) struct Repo {
    pub private: bool,
    pub gated: bool,
    pub sdk: Option<String>,
    /// Branches, tags and other refs, with their commits.
    pub refs: BTreeMap<String, String>,
    pub commits: BTreeMap<String, BTreeMap<String, Object>>,
    /// The summary of each commit.
    pub log: Vec<String>,
}

impl Repo {
    /// The commit that a revision is.
    pub(crate) fn resolve(&self, revision: &str) -> Option<&str> {
        if let Some(commit) = self.refs.get(revision) {
            return Some(commit);
        }
        self.commits
            .get_key_value(revision)
            .map(|(commit, _)| commit.as_str())
    }

    /// The files at a revision.
    pub(crate) fn files(&self, revision: &str) -> Option<&BTreeMap<String, Object>> {
        self.commits.get(self.resolve(revision)?)
    }

    /// Makes a commit on a branch: files that are added or replaced, and files that are taken away.
    pub(crate) fn commit(
        &mut self,
        branch: &str,
        summary: &str,
        added: impl IntoIterator<Item = (String, Object)>,
        removed: &[String],
    ) -> String {
        let mut files = self.files(branch).cloned().unwrap_or_default();
        files.retain(|path, _| !removed.contains(path));
        files.extend(added);
        self.log.push(summary.to_string());
        let mut sha1 = Sha1::new();
        sha1.update(format!("{} {branch}", self.log.len()));
        for (path, object) in &files {
            sha1.update(path);
            sha1.update(git_hash(&object.bytes));
        }
        let commit = hex(&sha1.finalize());
        self.commits.insert(commit.clone(), files);
        self.refs.insert(branch.to_string(), commit.clone());
        commit
    }
}

/// Which files the Hub keeps in its large store.
pub(crate) fn is_large(path: &str, size: usize) -> bool {
    let endings = [".safetensors", ".bin", ".parquet", ".zip", ".ckpt"];
    size > 10 << 20 || endings.iter().any(|ending| path.ends_with(ending))
}

/// Git's hash of a blob.
pub(crate) fn git_hash(bytes: &[u8]) -> String {
    let mut sha1 = Sha1::new();
    sha1.update(format!("blob {}\0", bytes.len()));
    sha1.update(bytes);
    hex(&sha1.finalize())
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// What stands in git in place of a large file.
pub(crate) fn pointer(object: &Object) -> String {
    format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n",
        sha256(&object.bytes),
        object.bytes.len()
    )
}

/// A file's ETag: its SHA-256 in the large store, git's hash elsewhere.
pub(crate) fn etag(object: &Object) -> String {
    if object.lfs {
        sha256(&object.bytes)
    } else {
        git_hash(&object.bytes)
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
