//! A parameter's value as a checkpoint has it.

use burn::tensor::{Device, Tensor, TensorData};

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
