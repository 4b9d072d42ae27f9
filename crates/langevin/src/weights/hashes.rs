//! The hashes by which others name files of weights.

use std::{
    fmt::Write,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// How much of a file is read at a time.
const PIECE: usize = 1 << 20;
/// Where AUTOMATIC1111's first hash begins, and how many bytes it is of.
const FIRST: (u64, u64) = (0x0010_0000, 0x0001_0000);

/// A file's hashes, in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHashes {
    /// SHA-256 of the file. A1111 and Civitai (AutoV2) show its first ten digits of a model, A1111 its first twelve of a LoRA.
    pub sha256: String,
    /// A1111's first kind (AutoV1), of 64 KiB in the middle: eight digits.
    pub first: String,
    /// SHA-256 of what follows a safetensors file's header, by which LoRAs are known whatever is noted in them: twelve digits are Civitai's AutoV3.
    pub weights: Option<String>,
}

impl FileHashes {
    /// Reads a file through.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let unread = |e| Error::io("read", path, e);
        let mut file = File::open(path).map_err(unread)?;
        let header = header(&mut file).map_err(unread)?;
        let (mut whole, mut weights) = (Sha256::new(), Sha256::new());
        let (mut piece, mut at) = (vec![0; PIECE], 0_u64);
        file.seek(SeekFrom::Start(0)).map_err(unread)?;
        loop {
            let length = file.read(&mut piece).map_err(unread)?;
            if length == 0 {
                break;
            }
            whole.update(&piece[..length]);
            if let Some(header) = header {
                let skipped = header.saturating_sub(at).min(length as u64) as usize;
                weights.update(&piece[skipped..length]);
            }
            at += length as u64;
        }
        file.seek(SeekFrom::Start(FIRST.0)).map_err(unread)?;
        let mut middle = Vec::new();
        file.take(FIRST.1).read_to_end(&mut middle).map_err(unread)?;
        let mut first = digits(&Sha256::digest(&middle));
        first.truncate(8);
        Ok(Self {
            sha256: digits(&whole.finalize()),
            first,
            weights: header.map(|_| digits(&weights.finalize())),
        })
    }
}

/// How many bytes a safetensors file has before its numbers; `None` of any other file.
fn header(file: &mut File) -> std::io::Result<Option<u64>> {
    let size = file.metadata()?.len();
    let mut start = [0; 9];
    let mut read = 0;
    while read < start.len() {
        match file.read(&mut start[read..])? {
            0 => return Ok(None),
            more => read += more,
        }
    }
    let mut length = [0; 8];
    length.copy_from_slice(&start[..8]);
    let end = u64::from_le_bytes(length).checked_add(8);
    Ok(end.filter(|&end| start[8] == b'{' && end <= size))
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A string takes whatever is written.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        // printf '\002\0\0\0\0\0\0\0{}abc' | sha256sum; printf abc | sha256sum; sha256sum < /dev/null
        std::fs::write(&path, b"\x02\0\0\0\0\0\0\0{}abc").unwrap();
        let hashes = FileHashes::of(&path).unwrap();
        assert_eq!(
            hashes.sha256,
            "6c89478bb16da5268159eb3a5f218529eec3500610bddf8db89e18f10616c21f"
        );
        assert_eq!(
            hashes.weights.as_deref(),
            Some("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        );
        assert_eq!(hashes.first, "e3b0c442");
        std::fs::write(&path, b"\xff\xff\xff\xff\xff\xff\xff\xff{").unwrap();
        assert_eq!(FileHashes::of(&path).unwrap().weights, None);
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(FileHashes::of(&path).unwrap().weights, None);
        // 0x100000 zeros and then 64 KiB of the letter a, and one byte more.
        let mut long = vec![0; 0x0010_0000];
        long.extend(vec![b'a'; 0x0001_0000 + 1]);
        std::fs::write(&path, long).unwrap();
        assert_eq!(FileHashes::of(&path).unwrap().first, "bf718b6f");
    }
}
