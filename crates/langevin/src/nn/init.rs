//! How new parameters are drawn: PyTorch's defaults, in PyTorch's order, from PyTorch's generator.

use burn::{
    module::Param,
    tensor::{Device, Tensor, TensorData},
};

use crate::random::Generator;

/// Makes the parameters of a new model, one layer after another: draws them, or leaves them out where weights are loaded into the model
/// next. A model that builds its layers in the order in which diffusers'
/// does starts from the same weights as `torch.manual_seed(seed)` followed by that class's constructor.
pub struct Init<'a> {
    /// None where the parameters are loaded.
    generator: Option<&'a mut Generator>,
    device: Device,
}

impl<'a> Init<'a> {
    /// Parameters for `device`, from `generator`.
    pub fn new(generator: &'a mut Generator, device: &Device) -> Self {
        Self {
            generator: Some(generator),
            device: device.clone(),
        }
    }

    /// Parameters that are to be loaded: they have their shapes, and neither values nor memory of their own.
    pub fn to_load(device: &Device) -> Self {
        Self {
            generator: None,
            device: device.clone(),
        }
    }

    /// Where the parameters live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// `uniform(-1/√fan_in, 1/√fan_in)`: what `kaiming_uniform(a = √5)` comes to, and the rule for biases.
    /// `shape` is PyTorch's; the values come in its order.
    pub fn uniform<const D: usize>(&mut self, shape: [usize; D], fan_in: usize) -> Tensor<D> {
        let Some(generator) = &mut self.generator else {
            return without_memory(shape, &self.device);
        };
        let bound = (1.0 / (fan_in as f64).sqrt()) as f32;
        let n = shape.iter().product();
        let values: Vec<f32> = generator
            .rand(n)
            .into_iter()
            .map(|u| u * (bound + bound) - bound)
            .collect();
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }

    /// Standard normal values times `scale`.
    pub fn normal<const D: usize>(&mut self, shape: [usize; D], scale: f32) -> Tensor<D> {
        let Some(generator) = &mut self.generator else {
            return without_memory(shape, &self.device);
        };
        let n = shape.iter().product();
        let values: Vec<f32> = generator.randn(n).into_iter().map(|z| z * scale).collect();
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }

    /// A parameter whose axes were turned from PyTorch's order, with its elements laid out anew.
    pub fn parameter<const D: usize>(&self, turned: Tensor<D>) -> Param<Tensor<D>> {
        Param::from_tensor(match &self.generator {
            Some(_) => laid_out(turned),
            None => turned,
        })
    }

    /// A table that is not trained and that a checkpoint holds; a new model's is `made`.
    pub fn fixed<const D: usize>(
        &self,
        shape: [usize; D],
        made: impl FnOnce(&Device) -> Tensor<D>,
    ) -> Param<Tensor<D>> {
        let table = match &self.generator {
            Some(_) => made(&self.device),
            None => without_memory(shape, &self.device),
        };
        Param::from_tensor(table).set_require_grad(false)
    }

    /// The same number everywhere.
    pub fn constant<const D: usize>(&self, shape: [usize; D], value: f32) -> Param<Tensor<D>> {
        Param::from_tensor(match &self.generator {
            Some(_) => Tensor::full(shape, value, &self.device),
            None => without_memory(shape, &self.device),
        })
    }
}

/// A tensor that stands for another of its shape: one number, seen everywhere.
pub(crate) fn without_memory<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::<D>::zeros([1; D], device).expand(shape)
}

/// The same tensor with its elements in row-major order, so that no operation has to copy it again.
fn laid_out<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    let device = tensor.device();
    Tensor::from_data(tensor.into_data(), &device)
}
