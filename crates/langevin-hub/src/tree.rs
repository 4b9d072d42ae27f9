//! The listing of a commit's files beside the cache's snapshots, `trees/COMMIT.json`, as Python's `huggingface_hub` 1.33 keeps it:
//! a commit never changes, so without a network it tells a whole snapshot from one whose download broke off.

use std::{collections::BTreeMap, fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::{Hash, cache::write_atomically};

/// The only form there is so far.
const VERSION: u32 = 1;

#[derive(Deserialize, Serialize)]
struct Tree {
    format_version: u32,
    files: Files,
}

/// The files of a commit by their paths.
pub(crate) type Files = BTreeMap<String, TreeFile>;

/// What the Hub's listing says of a file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct TreeFile {
    pub size: u64,
    /// Git's hash, which is that of the pointer where the file is in the large store.
    pub blob_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lfs_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lfs_size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xet_hash: Option<String>,
}

impl TreeFile {
    /// The file's own size.
    pub(crate) fn bytes(&self) -> u64 {
        self.lfs_size.unwrap_or(self.size)
    }

    /// What its bytes come to; `None` if that is no hash.
    pub(crate) fn hash(&self) -> Option<Hash> {
        Hash::of_text(self.lfs_sha256.as_deref().unwrap_or(&self.blob_id))
    }

    /// Python reads no listing with a hash of another form.
    pub(crate) fn xet(hash: Option<String>) -> Option<String> {
        hash.filter(|hash| matches!(Hash::of_text(hash), Some(Hash::Sha256(_))))
    }
}

/// The files of the listing at `path`, if it is there and of a form that is known.
pub(crate) fn read(path: &Path) -> Option<Files> {
    let tree: Tree = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (tree.format_version == VERSION).then_some(tree.files)
}

/// Writes a listing, unless there is one.
pub(crate) fn write(path: &Path, files: &Files) {
    if path.is_file() {
        return;
    }
    let tree = Tree {
        format_version: VERSION,
        files: files.clone(),
    };
    if let Ok(text) = serde_json::to_vec_pretty(&tree) {
        // A cache without it is one as they were before.
        let _ = write_atomically(path, &text);
    }
}
