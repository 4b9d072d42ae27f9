//! Tensors of float32 and the safetensors files that hold them.

use std::{collections::BTreeMap, path::Path};

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::{Error, Result, files};

/// A parameter's value as a checkpoint has it.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// Its path in the module: its key in the checkpoint.
    pub name: String,
    /// PyTorch's shape.
    pub shape: Vec<usize>,
    /// Row-major.
    pub values: Vec<f32>,
}

impl NamedTensor {
    /// A row of numbers.
    pub fn flat(name: String, tensor: Tensor<1>) -> Self {
        // The models are float32 throughout, so the conversion cannot fail.
        let data = tensor.into_data().convert::<f32>();
        let values = data.try_into_vec().unwrap_or_default();
        Self {
            name,
            shape: vec![values.len()],
            values,
        }
    }

    /// The numbers in a row, on a device.
    pub fn into_flat(self, device: &Device) -> Tensor<1> {
        let n = self.values.len();
        Tensor::from_data(TensorData::new(self.values, [n]), device)
    }
}

/// Writes tensors of float32 as a safetensors file, as PyTorch's `save_file` does.
///
/// # Errors
/// If the file cannot be written; what was there before then still is.
pub fn write_tensors(path: impl AsRef<Path>, tensors: &[NamedTensor]) -> Result<()> {
    let path = path.as_ref();
    let mut views = BTreeMap::new();
    for tensor in tensors {
        let bytes = bytemuck::cast_slice(&tensor.values);
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes)
            .map_err(|e| Error::file(path, format!("{} cannot be stored: {e}", tensor.name)))?;
        views.insert(tensor.name.as_str(), view);
    }
    let metadata = [("format".to_string(), "pt".to_string())].into_iter().collect();
    let bytes = safetensors::serialize(views, Some(metadata))
        .map_err(|e| Error::file(path, format!("the tensors cannot be stored: {e}")))?;
    files::write_atomically(path, |w| w.write_all(&bytes))
}

/// Reads what [`write_tensors`] wrote, by its names.
///
/// # Errors
/// If the file cannot be read or is not whole.
pub fn read_tensors(path: impl AsRef<Path>) -> Result<BTreeMap<String, NamedTensor>> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
    let stored = SafeTensors::deserialize(&bytes)
        .map_err(|e| Error::file(path, format!("is not a whole safetensors file: {e}")))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in stored.iter() {
        let values = to_f32(view.dtype(), view.data())
            .ok_or_else(|| Error::file(path, format!("{name} holds no real numbers")))?;
        let tensor = NamedTensor {
            name: name.to_string(),
            shape: view.shape().to_vec(),
            values,
        };
        tensors.insert(name.to_string(), tensor);
    }
    Ok(tensors)
}

/// Little-endian numbers of a safetensors type as float32; `None` for types that hold no real numbers.
pub fn to_f32(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    Some(match dtype {
        Dtype::F32 => numbers(bytes, f32::from_le_bytes),
        Dtype::F64 => numbers(bytes, |b| f64::from_le_bytes(b) as f32),
        Dtype::F16 => numbers(bytes, |b| half::f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => numbers(bytes, |b| half::bf16::from_le_bytes(b).to_f32()),
        _ => return None,
    })
}

fn numbers<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes
        .as_chunks::<N>()
        .0
        .iter()
        .map(|chunk| read(*chunk))
        .collect()
}
