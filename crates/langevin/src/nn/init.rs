//! How new parameters are drawn: PyTorch's defaults, in PyTorch's order, from PyTorch's generator.

use burn::{
    module::Param,
    tensor::{Device, Tensor, TensorData},
};

use crate::random::Generator;

/// Draws the parameters of a new model, one layer after another. A model that builds its layers in the order in which diffusers'
/// does starts from the same weights as `torch.manual_seed(seed)` followed by that class's constructor.
pub struct Init<'a> {
    generator: &'a mut Generator,
    device: Device,
}

impl<'a> Init<'a> {
    /// Parameters for `device`, from `generator`.
    pub fn new(generator: &'a mut Generator, device: &Device) -> Self {
        Self {
            generator,
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
        let bound = (1.0 / (fan_in as f64).sqrt()) as f32;
        let n = shape.iter().product();
        let values: Vec<f32> = self
            .generator
            .rand(n)
            .into_iter()
            .map(|u| u * (bound + bound) - bound)
            .collect();
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }

    /// Standard normal values times `scale`.
    pub fn normal<const D: usize>(&mut self, shape: [usize; D], scale: f32) -> Tensor<D> {
        let n = shape.iter().product();
        let values: Vec<f32> = self.generator.randn(n).into_iter().map(|z| z * scale).collect();
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }

    /// A parameter whose axes were turned from PyTorch's order, with its elements laid out anew.
    pub fn parameter<const D: usize>(&self, turned: Tensor<D>) -> Param<Tensor<D>> {
        Param::from_tensor(laid_out(turned))
    }

    /// The same number everywhere.
    pub fn constant<const D: usize>(&self, shape: [usize; D], value: f32) -> Param<Tensor<D>> {
        Param::from_tensor(Tensor::full(shape, value, &self.device))
    }
}

/// The same tensor with its elements in row-major order, so that no operation has to copy it again.
pub(crate) fn laid_out<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    let device = tensor.device();
    Tensor::from_data(tensor.into_data(), &device)
}
