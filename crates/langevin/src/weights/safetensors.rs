//! Safetensors files: read by ranges, written one tensor after another.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};

use super::{
    NamedTensor, StoredTensor,
    layout::{self, Bytes, to_bytes},
};
use crate::{Error, Result, files};

/// The longest header that is read, as in the format's own library.
const LONGEST_HEADER: u64 = 100_000_000;

/// An open safetensors file, of which the header has been read. It covers the file.
pub(super) struct SafetensorsFile {
    file: File,
    tensors: BTreeMap<String, (StoredTensor, u64)>,
    metadata: HashMap<String, String>,
}

impl SafetensorsFile {
    /// Opens a file and reads its header.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |e| Error::io("read", path, e);
        let mut file = files::open(path)?;
        let len = file.metadata().map_err(failed)?.len();
        let broken = |why: String| Error::file(path, format!("is not a whole safetensors file ({why})"));
        let mut length = [0; 8];
        if len < 8 {
            return Err(broken("header too small".into()));
        }
        file.read_exact(&mut length).map_err(failed)?;
        let header = u64::from_le_bytes(length);
        if header > LONGEST_HEADER {
            return Err(broken("header too large".into()));
        }
        // Where the tensors begin: behind the header and its length.
        let begin = header + 8;
        if begin > len {
            return Err(broken("invalid header length".into()));
        }
        let mut text = vec![0; header as usize];
        file.read_exact(&mut text).map_err(failed)?;
        let text = String::from_utf8(text).map_err(|e| broken(format!("invalid UTF-8 in header: {e}")))?;
        let metadata: Metadata =
            serde_json::from_str(&text).map_err(|e| broken(format!("invalid JSON in header: {e}")))?;
        if begin + metadata.data_len() as u64 != len {
            return Err(broken("incomplete metadata, file not fully covered".into()));
        }
        let place = |(name, info): (String, &TensorInfo)| {
            let stored = StoredTensor {
                dtype: info.dtype,
                shape: info.shape.clone(),
            };
            (name, (stored, begin + info.data_offsets.0 as u64))
        };
        let tensors = metadata.tensors().into_iter().map(place).collect();
        Ok(Self {
            file,
            tensors,
            metadata: metadata.metadata().clone().unwrap_or_default(),
        })
    }

    /// What the header says under a key, besides the tensors.
    pub(super) fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// Every tensor's name with its type and shape.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (&String, &StoredTensor)> {
        self.tensors.iter().map(|(name, (stored, _))| (name, stored))
    }

    /// A tensor's bytes.
    pub(super) fn bytes(&self, name: &str) -> Option<Bytes<'_>> {
        self.tensors
            .get(name)
            .map(|(_, start)| Bytes::File(&self.file, *start))
    }
}

/// Writes a tensor's values into a file.
type WriteInto<'a> = Box<dyn Fn(&mut dyn Write) -> io::Result<()> + 'a>;

/// A tensor that is to be written.
pub(super) struct Entry<'a> {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Writes its bytes, row-major.
    pub write: WriteInto<'a>,
}

/// Writes tensors as PyTorch's `save_file` does, one after another.
pub(super) fn write(path: &Path, mut entries: Vec<Entry<'_>>) -> Result<()> {
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let mut offset = 0;
    let info = |entry: &Entry<'_>| {
        let start = offset;
        offset += entry.shape.iter().product::<usize>() * (entry.dtype.bitsize() / 8);
        let info = TensorInfo {
            dtype: entry.dtype,
            shape: entry.shape.clone(),
            data_offsets: (start, offset),
        };
        (entry.name.clone(), info)
    };
    let infos = entries.iter().map(info).collect();
    let format = [("format".to_string(), "pt".to_string())].into_iter().collect();
    let unfit = |e: String| Error::file(path, format!("the tensors cannot be stored: {e}"));
    let metadata = Metadata::new(Some(format), infos).map_err(|e| unfit(e.to_string()))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|e| unfit(e.to_string()))?;
    // So that the tensors begin at a multiple of eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    files::write_atomically(path, |w| {
        w.write_all(&(header.len() as u64).to_le_bytes())?;
        w.write_all(&header)?;
        entries.iter().try_for_each(|entry| (entry.write)(w))
    })
}

/// Writes tensors of float32 as a safetensors file, as PyTorch's `save_file` does.
///
/// # Errors
/// If the file cannot be written; what was there before then still is.
pub fn write_tensors(path: impl AsRef<Path>, tensors: &[NamedTensor]) -> Result<()> {
    let entries = tensors.iter().map(|tensor| Entry {
        name: tensor.name.clone(),
        dtype: Dtype::F32,
        shape: tensor.shape.clone(),
        write: Box::new(|w| w.write_all(&to_bytes(&tensor.values))),
    });
    write(path.as_ref(), entries.collect())
}

/// Reads what [`write_tensors`] wrote, by its names.
///
/// # Errors
/// If the file cannot be read or is not whole.
pub fn read_tensors(path: impl AsRef<Path>) -> Result<BTreeMap<String, NamedTensor>> {
    let path = path.as_ref();
    let file = SafetensorsFile::open(path)?;
    let read = |(name, (stored, start)): (&String, &(StoredTensor, u64))| {
        let bytes = Bytes::File(&file.file, *start);
        let values = layout::read(&bytes, stored.dtype, &stored.shape, false)
            .ok_or_else(|| Error::file(path, format!("{name} holds no real numbers")))?
            .map_err(|e| Error::io("read", path, e))?;
        let tensor = NamedTensor {
            name: name.clone(),
            shape: stored.shape.clone(),
            values,
        };
        Ok((name.clone(), tensor))
    };
    file.tensors.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::TensorView;

    use super::*;

    #[test]
    fn a_file_is_written_byte_for_byte_as_the_formats_own_library_writes_it() {
        let tensor = |name: &str, shape: &[usize]| NamedTensor {
            name: name.into(),
            shape: shape.to_vec(),
            values: (0..shape.iter().product()).map(|i| i as f32 / 3.0).collect(),
        };
        let tensors = [
            tensor("b.weight", &[3, 2]),
            tensor("b.bias", &[3]),
            tensor("a", &[]),
        ];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tensors.safetensors");
        write_tensors(&path, &tensors).unwrap();

        let bytes: Vec<_> = tensors.iter().map(|tensor| to_bytes(&tensor.values)).collect();
        let views = tensors.iter().zip(&bytes).map(|(tensor, bytes)| {
            let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).unwrap();
            (tensor.name.as_str(), view)
        });
        let format = [("format".to_string(), "pt".to_string())].into_iter().collect();
        assert!(std::fs::read(&path).unwrap() == safetensors::serialize(views, Some(format)).unwrap());

        let read = read_tensors(&path).unwrap();
        assert!(tensors.iter().all(|tensor| read[&tensor.name] == *tensor));
    }
}
