//! The walk over a module's parameters, whose paths are the checkpoint's keys.
//!
//! The one place that knows how weights lie in a checkpoint (as PyTorch has them) and in a module (as [`crate::ops`] wants them).

use std::{collections::HashSet, path::Path};

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId},
    tensor::{Device, Tensor, TensorData},
};

use super::{Checkpoint, NamedTensor, write_tensors};
use crate::{Error, Result, nn::init::laid_out};

/// Where the walk is: the names on the way, and the struct that holds the parameter.
#[derive(Default)]
struct Location(Vec<(String, String)>);

impl Location {
    fn enter(&mut self, name: &str, container: &str) {
        self.0.push((name.to_string(), container.to_string()));
    }

    fn exit(&mut self) {
        self.0.pop();
    }

    /// The key. An enum's variant is a choice of this library, not a level of the checkpoint.
    fn key(&self) -> String {
        let names: Vec<&str> = self
            .0
            .iter()
            .filter(|(_, container)| !container.starts_with("Enum:"))
            .map(|(name, _)| name.as_str())
            .collect();
        names.join(".")
    }

    /// Whether the parameter is the weight of a `kind`.
    fn is_weight_of(&self, kind: &str) -> bool {
        self.0
            .last()
            .is_some_and(|(name, container)| name == "weight" && container == kind)
    }

    /// From the module's layout to the checkpoint's; each turn is its own inverse but for the convolution's.
    fn to_file<const D: usize>(&self, tensor: Tensor<D>) -> Tensor<D> {
        if self.is_weight_of("Struct:Linear") {
            tensor.swap_dims(0, 1)
        } else if self.is_weight_of("Struct:Conv2d") {
            tensor.permute(turned::<D>([3, 2, 0, 1]))
        } else {
            tensor
        }
    }

    /// From the checkpoint's layout to the module's.
    fn to_module<const D: usize>(&self, tensor: Tensor<D>) -> Tensor<D> {
        if self.is_weight_of("Struct:Linear") {
            tensor.swap_dims(0, 1)
        } else if self.is_weight_of("Struct:Conv2d") {
            tensor.permute(turned::<D>([2, 3, 1, 0]))
        } else {
            tensor
        }
    }
}

/// The axes of a convolution's weight, which has four, in the walk's generic rank.
fn turned<const D: usize>(axes: [isize; 4]) -> [isize; D] {
    std::array::from_fn(|i| axes[i])
}

/// All parameters as a checkpoint has them, in the module's order.
pub fn named_tensors<M: Module>(module: &M) -> Vec<NamedTensor> {
    #[derive(Default)]
    struct Collector {
        location: Location,
        tensors: Vec<NamedTensor>,
    }
    impl ModuleVisitor for Collector {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.location.enter(name, container);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.location.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = self.location.to_file(param.val().inner());
            let shape = tensor.dims().to_vec();
            // The models are float32 throughout, so the conversion cannot fail.
            let values = tensor
                .into_data()
                .convert::<f32>()
                .try_to_vec()
                .unwrap_or_default();
            self.tensors.push(NamedTensor {
                name: self.location.key(),
                shape,
                values,
            });
        }
    }
    let mut collector = Collector::default();
    module.visit(&mut collector);
    collector.tensors
}

/// Every parameter's key and its identity in this process, in the module's order.
pub fn parameters<M: Module>(module: &M) -> Vec<(String, ParamId)> {
    #[derive(Default)]
    struct Names {
        location: Location,
        found: Vec<(String, ParamId)>,
    }
    impl ModuleVisitor for Names {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.location.enter(name, container);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.location.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.found.push((self.location.key(), param.id));
        }
    }
    let mut names = Names::default();
    module.visit(&mut names);
    names.found
}

/// Every parameter's key, in the module's order.
pub fn parameter_names<M: Module>(module: &M) -> Vec<String> {
    parameters(module).into_iter().map(|(name, _)| name).collect()
}

/// Writes all parameters as diffusers does.
///
/// # Errors
/// If the file cannot be written; what was there before then still is.
pub fn save<M: Module>(module: &M, path: impl AsRef<Path>) -> Result<()> {
    write_tensors(path, &named_tensors(module))
}

/// Replaces all parameters by those of a checkpoint.
///
/// # Errors
/// If the checkpoint lacks a parameter, or has one of another shape or of a type that holds no real numbers. Keys that the
/// module does not know are passed over with a warning, as diffusers does.
pub fn load<M: Module>(module: M, checkpoint: &mut Checkpoint, device: &Device) -> Result<M> {
    load_but(module, checkpoint, None, device)
}

/// The same for all parameters but those whose key begins with `kept`.
///
/// # Errors
/// As [`load`].
pub fn load_but<M: Module>(
    module: M,
    checkpoint: &mut Checkpoint,
    kept: Option<&str>,
    device: &Device,
) -> Result<M> {
    let is_kept = |name: &str| kept.is_some_and(|kept| name.starts_with(kept));
    let mut wanted = parameter_names(&module);
    wanted.retain(|name| !is_kept(name));
    let missing: Vec<&str> = wanted
        .iter()
        .map(String::as_str)
        .filter(|name| checkpoint.get(name).is_none())
        .collect();
    if !missing.is_empty() {
        return Err(Error::file(
            checkpoint.path(),
            format!("lacks {}", list(&missing)),
        ));
    }
    let known: HashSet<&str> = wanted.iter().map(String::as_str).collect();
    let unexpected: Vec<&str> = checkpoint
        .names()
        .filter(|name| !known.contains(name) && !is_kept(name))
        .collect();
    if !unexpected.is_empty() {
        tracing::warn!(
            "{}: passed over {}, which the model does not have",
            checkpoint.path().display(),
            list(&unexpected)
        );
    }

    let mut loader = Loader {
        location: Location::default(),
        checkpoint,
        kept,
        device,
        error: None,
    };
    let module = module.map(&mut loader);
    match loader.error {
        Some(error) => Err(error),
        None => Ok(module),
    }
}

/// The first few names and how many more there are.
fn list(names: &[&str]) -> String {
    const SHOWN: usize = 3;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len().checked_sub(SHOWN) {
        Some(more @ 1..) => format!("{shown} and {more} more parameters"),
        _ => shown,
    }
}

struct Loader<'a> {
    location: Location,
    checkpoint: &'a mut Checkpoint,
    kept: Option<&'a str>,
    device: &'a Device,
    error: Option<Error>,
}

impl Loader<'_> {
    fn tensor<const D: usize>(&mut self, shape: [usize; D]) -> Result<Tensor<D>> {
        let key = self.location.key();
        // Before a number is read: a file may claim any shape.
        if let Some(stored) = self.checkpoint.get(&key)
            && stored.shape != shape
        {
            return Err(Error::file(
                self.checkpoint.file_of(&key),
                format!(
                    "{key} has shape {:?} where the configuration makes {shape:?}",
                    stored.shape
                ),
            ));
        }
        let values = self.checkpoint.read(&key)?;
        Ok(Tensor::from_data(TensorData::new(values, shape), self.device))
    }
}

impl ModuleMapper for Loader<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.location.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.location.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let is_kept = self
            .kept
            .is_some_and(|kept| self.location.key().starts_with(kept));
        if self.error.is_some() || is_kept {
            return param;
        }
        let shape = self.location.to_file(param.val().inner()).dims();
        match self.tensor(shape) {
            Ok(tensor) => {
                let tensor = laid_out(self.location.to_module(tensor));
                param.map(|_| tensor)
            }
            Err(error) => {
                self.error = Some(error);
                param
            }
        }
    }
}
