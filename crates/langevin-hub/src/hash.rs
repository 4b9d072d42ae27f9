//! The hashes by which the Hub knows its files: SHA-256 for those in its large store, and git's SHA-1 of a blob for the rest.

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// What a file's bytes must come to. Its text is the name of the blob in the cache, and the file's ETag.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Hash {
    /// SHA-256 of the bytes, in hexadecimal digits.
    Sha256(String),
    /// SHA-1 of `blob SIZE\0` and the bytes, in hexadecimal digits.
    Git(String),
}

impl Hash {
    /// A hash by its digits: 64 or 40 of them.
    pub fn of_text(text: &str) -> Option<Self> {
        let is_hex = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match (text.len(), is_hex) {
            (64, true) => Some(Self::Sha256(text.into())),
            (40, true) => Some(Self::Git(text.into())),
            _ => None,
        }
    }

    /// Its digits.
    pub fn text(&self) -> &str {
        match self {
            Self::Sha256(text) | Self::Git(text) => text,
        }
    }
}

/// The hash of bytes that come one after another.
pub(crate) enum Hasher {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hasher {
    /// A hasher of the same kind as `hash`, for a file of `size` bytes.
    pub(crate) fn like(hash: &Hash, size: u64) -> Self {
        match hash {
            Hash::Sha256(_) => Self::sha256(),
            Hash::Git(_) => Self::git(size),
        }
    }

    /// SHA-256.
    pub(crate) fn sha256() -> Self {
        Self::Sha256(Sha256::new())
    }

    /// Git's hash of a file of `size` bytes.
    pub(crate) fn git(size: u64) -> Self {
        let mut sha1 = Sha1::new();
        sha1.update(format!("blob {size}\0"));
        Self::Git(sha1)
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(sha256) => sha256.update(bytes),
            Self::Git(sha1) => sha1.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> Hash {
        match self {
            Self::Sha256(sha256) => Hash::Sha256(hex(&sha256.finalize())),
            Self::Git(sha1) => Hash::Git(hex(&sha1.finalize())),
        }
    }
}

/// The hash of all that a file holds.
pub(crate) fn hash_file(file: &mut impl std::io::Read, mut hasher: Hasher) -> std::io::Result<Hash> {
    let mut chunk = vec![0; 256 << 10];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hasher.finish()),
            count => hasher.update(&chunk[..count]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_gits_and_the_stores() {
        // `printf hello | git hash-object --stdin` and `printf hello | sha256sum`.
        let git = Hash::of_text("b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0").unwrap();
        let sha256 =
            Hash::of_text("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824").unwrap();
        for hash in [git, sha256] {
            let mut hasher = Hasher::like(&hash, 5);
            hasher.update(b"hel");
            hasher.update(b"lo");
            assert_eq!(hasher.finish(), hash);
        }
        assert!(Hash::of_text("xyz").is_none() && Hash::of_text(&"G".repeat(40)).is_none());
    }
}
