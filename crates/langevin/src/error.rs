//! The one error type of the library: what was wrong, where, and what would be right.

use std::path::{Path, PathBuf};

/// Everything that can go wrong in the library because of something outside it.
///
/// Messages are whole sentences without a final full stop, meant to be shown to a user as they are.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
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
    /// A file was read, but what it holds is not what it should be.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what would be right.
        message: String,
    },
    /// A configuration value that makes no sense, alone or together with another.
    #[error("{0}")]
    Config(String),
    /// What is asked for cannot be, and other values of some options would help. The message names each as a configuration file does,
    /// in backticks: `output_dir`.
    #[error("{message}")]
    Option {
        /// The options.
        options: &'static [&'static str],
        /// What is wrong and what would be right.
        message: String,
    },
    /// A tensor whose shape or type does not fit where it was passed.
    #[error("{0}")]
    Shape(String),
    /// Something well formed that this version does not do.
    #[error("{0}")]
    Unsupported(String),
    /// Another process of the same run failed.
    #[error("process {rank}: {message}")]
    Elsewhere {
        /// Its number, from 0.
        rank: usize,
        /// What it said.
        message: String,
    },
    /// A number that should be finite is not.
    #[error("{0}")]
    NotFinite(String),
}

impl Error {
    /// An [`Error::Io`] for `path`.
    pub fn io(action: &'static str, path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io {
            action,
            path: path.as_ref().to_path_buf(),
            source,
        }
    }

    /// An [`Error::File`] for `path`.
    pub fn file(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::File {
            path: path.as_ref().to_path_buf(),
            message: message.into(),
        }
    }

    /// An [`Error::Option`] whose message names these options.
    pub fn option(options: &'static [&'static str], message: impl Into<String>) -> Self {
        Self::Option {
            options,
            message: message.into(),
        }
    }

    /// The message with its options spelled as a front end has them: `--output-dir` on a command line.
    pub fn spelled(&self, spell: impl Fn(&str) -> String) -> String {
        match self {
            Self::Option { options, message } => options.iter().fold(message.clone(), |text, option| {
                text.replace(&format!("`{option}`"), &spell(option))
            }),
            other => other.to_string(),
        }
    }
}

/// An error in a configuration unless `holds`.
pub(crate) fn require(holds: bool, message: impl FnOnce() -> String) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::Config(message()))
    }
}

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_front_end_spells_the_options() {
        let error = Error::option(
            &["output_dir"],
            "`pictures` is not empty: name another `output_dir`",
        );
        assert_eq!(
            error.to_string(),
            "`pictures` is not empty: name another `output_dir`"
        );
        assert_eq!(
            error.spelled(|option| format!("--{}", option.replace('_', "-"))),
            "`pictures` is not empty: name another --output-dir"
        );
    }
}
