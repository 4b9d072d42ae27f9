//! Files on their way to the Hub.

use std::{
    fs::File,
    io::{Read, Seek},
    path::{Path, PathBuf},
};

use super::Push;
use crate::{
    Error, Hash, Result,
    hash::{Hasher, hash_file},
    name::relative,
};

/// How many of a file's first bytes the Hub wants to see before it says where the file belongs.
const SAMPLE: u64 = 512;

/// A file on its way.
pub struct Outgoing {
    /// Its path in the repository.
    pub path: String,
    source: Source,
    pub size: u64,
    /// Its first bytes.
    pub sample: Vec<u8>,
    /// Whether it goes to the store of large files.
    pub large: bool,
    /// What the repository has under that name.
    pub remote: Option<String>,
}

enum Source {
    File(PathBuf),
    Text(String),
}

impl Push {
    /// What is to be pushed, with all that the Hub asks about it.
    pub fn outgoing(&self) -> Result<Vec<Outgoing>> {
        let files = self.files.iter().map(|(_, name)| name);
        let mut names = files.chain(self.texts.iter().map(|(name, _)| name));
        if let Some(name) = names.find(|name| relative(name).is_none()) {
            return Err(Error::Name(format!(
                "`{name}` is no path within a repository: nothing was pushed"
            )));
        }
        let files = self.files.iter().map(|(path, name)| {
            let read = |e| Error::io("read", path, e);
            let metadata = std::fs::metadata(path).map_err(read)?;
            // Opening a pipe would wait for whoever writes into it.
            if !metadata.is_file() {
                return Err(read(std::io::Error::other("it is not a regular file")));
            }
            let mut file = File::open(path).map_err(read)?;
            let size = metadata.len();
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
    pub fn open(&self) -> std::io::Result<Box<dyn ReadSeek>> {
        Ok(match &self.source {
            Source::File(path) => Box::new(File::open(path)?),
            Source::Text(text) => Box::new(std::io::Cursor::new(text.clone().into_bytes())),
        })
    }

    /// Where it is, for messages.
    pub fn place(&self) -> &Path {
        match &self.source {
            Source::File(path) => path,
            Source::Text(_) => Path::new(&self.path),
        }
    }

    /// The hash by which the Hub will know it.
    pub fn hash(&self) -> Result<Hash> {
        let hasher = if self.large {
            Hasher::sha256()
        } else {
            Hasher::git(self.size)
        };
        let mut source = self.open().map_err(|e| Error::io("read", self.place(), e))?;
        hash_file(&mut source, hasher).map_err(|e| Error::io("read", self.place(), e))
    }
}

/// What bytes can be read from, from anywhere.
pub trait ReadSeek: Read + Seek {}
impl<T: Read + Seek> ReadSeek for T {}
