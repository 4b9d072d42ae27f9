//! Some of a module's parameters replaced by stored ones.

use std::collections::BTreeMap;

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Device, Tensor, TensorData},
};

use super::{NamedTensor, walk::Location};
use crate::{Error, Result};

/// The module with the parameters that are stored under their keys, as [`named_tensors`](super::named_tensors) gives them.
///
/// # Errors
/// If one is of no parameter, or has another shape.
pub fn replace<M: Module>(module: M, stored: BTreeMap<String, NamedTensor>, device: &Device) -> Result<M> {
    let mut replacing = Replacing {
        location: Location::default(),
        stored,
        device,
        wrong: None,
    };
    let module = module.map(&mut replacing);
    let left = replacing.stored.into_keys().next();
    match replacing
        .wrong
        .or(left.map(|name| format!("there is no parameter {name}")))
    {
        Some(message) => Err(Error::Config(message)),
        None => Ok(module),
    }
}

struct Replacing<'a> {
    location: Location,
    stored: BTreeMap<String, NamedTensor>,
    device: &'a Device,
    wrong: Option<String>,
}

impl ModuleMapper for Replacing<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.location.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.location.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(stored) = self.stored.remove(&self.location.key()) else {
            return param;
        };
        let shape = self.location.stored_shape(&param.dims());
        if stored.shape != shape {
            self.wrong.get_or_insert(format!(
                "{} has shape {:?} where the parameter has {shape:?}",
                stored.name, stored.shape
            ));
            return param;
        }
        let (turned, device) = (self.location.is_turned(), self.device);
        param.map(|tensor| {
            let values = Tensor::<D>::from_data(TensorData::new(stored.values, shape), device);
            if !turned {
                return values.reshape(tensor.dims());
            }
            // `[out, in, taps ...]` to `[taps ..., in, out]`, laid out anew.
            let mut axes: [isize; D] = std::array::from_fn(|axis| axis as isize + 2);
            (axes[D - 2], axes[D - 1]) = (1, 0);
            Tensor::from_data(values.permute(axes).into_data(), device)
        })
    }
}
