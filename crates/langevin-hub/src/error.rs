//! What can go wrong between this machine and the Hub, in sentences that say what to do about it.

use std::path::{Path, PathBuf};

/// Everything that can go wrong. Messages are whole sentences without a final full stop, meant to be shown to a user as they are.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A text that is no repository's name.
    #[error("{0}")]
    Name(String),
    /// A setting in the environment that makes no sense.
    #[error("{0}")]
    Setting(String),
    /// What is asked for is not in the cache, and nothing may be, or can be, downloaded.
    #[error("{0}")]
    NotCached(String),
    /// There is no such repository, or it does not show itself without the right token.
    #[error("{0}")]
    NoSuchRepository(String),
    /// The repository has no such branch, tag or commit.
    #[error("{0}")]
    NoSuchRevision(String),
    /// The repository has no such file, or none that would do.
    #[error("{0}")]
    NoSuchFile(String),
    /// The repository's owners want to be asked first.
    #[error("{0}")]
    Gated(String),
    /// The token is missing, is not one, or is not one for this.
    #[error("{0}")]
    Token(String),
    /// The Hub cannot be reached, or the connection broke and did not come back.
    #[error("{0}")]
    Network(String),
    /// A file is not what the Hub says that it is.
    #[error("{0}")]
    Hash(String),
    /// What a repository holds is of no use for what is wanted of it.
    #[error("{0}")]
    Unsupported(String),
    /// Another program is at work on the same files.
    #[error("{0}")]
    Busy(String),
    /// The Hub answered with something that was not expected.
    #[error("{0}")]
    Answer(String),
    /// The operating system refused to read or write a path.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: `read`, `write`, `create` …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another file of the same transfer failed, whose error is the one that is reported.
    #[error("stopped because another file failed")]
    Stopped,
}

impl Error {
    /// An [`Error::Io`] for `path`.
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io {
            action,
            path: path.as_ref().to_path_buf(),
            source,
        }
    }
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
