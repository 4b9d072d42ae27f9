//! What networks that are not trained made of pictures and texts, in files of a folder: other runs find it there, and it needs no memory.
//!
//! A file is called by a hash of all that its content follows from, the network's weights and the very pixels or tokens among it. So what was made by
//! another network, of another picture, or of the same one cut otherwise is not found, and is never wrong.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use burn::tensor::{Device, Tensor, TensorData};
use sha2::{Digest, Sha256};

use crate::{
    Error, Result,
    weights::{self, NamedTensor},
};

/// A network's share of such a folder.
pub(super) struct Shelf {
    folder: PathBuf,
    /// Of the network's weights.
    network: [u8; 32],
    /// Nothing more is written: the disk is full, or the folder is gone.
    full: AtomicBool,
}

impl Shelf {
    /// The folder, which is made, for what a network of this hash makes.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(super) fn open(folder: &Path, network: [u8; 32]) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
        Ok(Self {
            folder: folder.to_path_buf(),
            network,
            full: AtomicBool::new(false),
        })
    }

    /// The file of what is made of these bytes and numbers.
    pub(super) fn file(&self, what: &str, shape: &[usize], bytes: impl Iterator<Item = [u8; 4]>) -> PathBuf {
        let mut hash = Sha256::new();
        hash.update(self.network);
        hash.update(what);
        for side in shape {
            hash.update((*side as u64).to_le_bytes());
        }
        // In pieces, which the hash takes faster.
        let mut piece = Vec::with_capacity(1 << 16);
        for bytes in bytes {
            piece.extend(bytes);
            if piece.len() == piece.capacity() {
                hash.update(&piece);
                piece.clear();
            }
        }
        hash.update(&piece);
        let digits: String = hash.finalize()[..20]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.folder.join(format!("{what}-{digits}.safetensors"))
    }

    /// The tensors of these names in a file, or `None` where it is not there, not whole, or something else.
    pub(super) fn read<const N: usize>(
        &self,
        file: &Path,
        names: [&str; N],
        device: &Device,
    ) -> Option<Vec<(String, Vec<usize>, Tensor<1>)>> {
        if !file.is_file() {
            return None;
        }
        let mut stored = match weights::read_tensors(file) {
            Ok(stored) => stored,
            Err(error) => {
                tracing::warn!("{error}: what it held is computed again");
                return None;
            }
        };
        let mut found = Vec::with_capacity(N);
        for name in names {
            if let Some(NamedTensor { name, shape, values }) = stored.remove(name) {
                if values.len() != shape.iter().product::<usize>() || !values.iter().all(|v| v.is_finite()) {
                    tracing::warn!(
                        "{}: holds no such numbers: what it held is computed again",
                        file.display()
                    );
                    return None;
                }
                let n = values.len();
                found.push((
                    name,
                    shape,
                    Tensor::from_data(TensorData::new(values, [n]), device),
                ));
            }
        }
        (!found.is_empty()).then_some(found)
    }

    /// Writes tensors into a file, as far as the disk has room; where it has none, a warning says so once.
    pub(super) fn write(&self, file: &Path, tensors: Vec<NamedTensor>) {
        if self.full.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = weights::write_tensors(file, &tensors)
            && !self.full.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "{error}: from now on nothing more is kept in {}",
                self.folder.display()
            );
        }
    }
}

/// A tensor as a file has it.
pub(super) fn named<const D: usize>(name: &str, tensor: &Tensor<D>) -> NamedTensor {
    let shape = tensor.dims().to_vec();
    let data = tensor.clone().into_data().convert::<f32>();
    NamedTensor {
        name: name.into(),
        shape,
        values: data.try_into_vec().unwrap_or_default(),
    }
}

/// A tensor of a file in its shape; `None` where that has another number of axes.
pub(super) fn shaped<const D: usize>(tensor: Tensor<1>, shape: &[usize]) -> Option<Tensor<D>> {
    let shape: [usize; D] = shape.try_into().ok()?;
    Some(tensor.reshape(shape))
}
