//! Between a module's parameters and a diffusers checkpoint: a walk over the parameters, whose paths are the checkpoint's keys.
//!
//! The one place that knows how weights lie in a checkpoint (as PyTorch has them) and in a module (as [`crate::ops`] wants them);
//! [`super::checkpoint`] knows the files.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId},
    tensor::{Device, Tensor, TensorData},
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Serialize, de::DeserializeOwned};

use super::checkpoint::Checkpoint;
use crate::{Error, Result, files, nn::init::laid_out};

/// diffusers' name for a model's configuration.
pub const CONFIG_NAME: &str = "config.json";
/// diffusers' name for a model's weights.
pub const FILE_NAME: &str = "diffusion_pytorch_model.safetensors";

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
    let bytes = files::read(path)?;
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

/// Writes a model's configuration and its weights into a folder.
///
/// # Errors
/// If either cannot be written.
pub fn save_with_config<M: Module>(
    module: &M,
    config: &impl Serialize,
    folder: impl AsRef<Path>,
) -> Result<()> {
    let folder = folder.as_ref();
    save(module, folder.join(FILE_NAME))?;
    files::write_json(folder.join(CONFIG_NAME), config)
}

/// Reads the configuration of the model in a folder.
///
/// # Errors
/// If it is missing or not such a configuration.
pub fn read_config<C: DeserializeOwned>(folder: impl AsRef<Path>) -> Result<C> {
    files::read_json(folder.as_ref().join(CONFIG_NAME))
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
