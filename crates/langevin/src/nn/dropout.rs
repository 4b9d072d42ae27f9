//! Dropout that draws from an explicit generator.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Tensor, TensorData};

use crate::random::Generator;

/// Where all dropout layers of a model draw their masks from; `None` while the model is not being trained.
pub(crate) type DropoutGenerator = Arc<Mutex<Option<Generator>>>;

/// Zeroes elements at random while a model is trained and scales the others up. Mirrors `torch.nn.Dropout`.
#[derive(Clone, Debug)]
pub struct Dropout {
    probability: f64,
    generator: DropoutGenerator,
}

impl Dropout {
    /// A layer that zeroes each element with `probability`.
    pub fn new(probability: f64, generator: &DropoutGenerator) -> Self {
        Self {
            probability,
            generator: generator.clone(),
        }
    }

    /// Where it draws from, where it ever does.
    pub(super) fn source(&self) -> Option<&DropoutGenerator> {
        (self.probability != 0.0).then_some(&self.generator)
    }

    /// Whether it may change its input: while a model is trained, where the probability is not zero.
    pub fn is_active(&self) -> bool {
        let generator = self.generator.lock().unwrap_or_else(PoisonError::into_inner);
        self.probability != 0.0 && generator.is_some()
    }

    /// The input unchanged, unless a generator has been put in and the probability is not zero.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if self.probability == 0.0 {
            return x;
        }
        let mut generator = self.generator.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(generator) = generator.as_mut() else {
            return x;
        };
        let keep = 1.0 - self.probability;
        let shape = x.dims();
        let mask: Vec<f32> = generator
            .rand(shape.iter().product())
            .into_iter()
            .map(|u| {
                if f64::from(u) < keep {
                    (1.0 / keep) as f32
                } else {
                    0.0
                }
            })
            .collect();
        let device = x.device();
        x * Tensor::from_data(TensorData::new(mask, shape), &device)
    }
}
