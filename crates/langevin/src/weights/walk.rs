//! The walk over a module's parameters, whose paths are the checkpoint's keys.
//!
//! The one place that knows how weights lie in a checkpoint (as PyTorch has them) and in a module (as [`crate::ops`] wants them).

use std::{
    collections::HashSet,
    io::{self, Write},
    path::Path,
};

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId},
    tensor::{DType, Device, Tensor, TensorData},
};
use rayon::prelude::*;
use safetensors::Dtype;
use sha2::{Digest, Sha256};

use super::{
    Checkpoint, NamedTensor, Precision, StoredTensor,
    checkpoint::Parameter,
    layout::{as_type, to_bytes, turned_back},
    precision::written,
    safetensors::Entry,
};
use crate::{Error, Result, nn::init::without_memory, ops::takes_halves};

/// Where the walk is: the names on the way, and the struct that holds the parameter.
#[derive(Default)]
pub(super) struct Location(Vec<(String, String)>);

impl Location {
    pub(super) fn enter(&mut self, name: &str, container: &str) {
        self.0.push((name.to_string(), container.to_string()));
    }

    pub(super) fn exit(&mut self) {
        self.0.pop();
    }

    /// The key. An enum's variant is a choice of this library, not a level of the checkpoint.
    pub(super) fn key(&self) -> String {
        let names: Vec<&str> = self
            .0
            .iter()
            .filter(|(_, container)| !container.starts_with("Enum:"))
            .map(|(name, _)| name.as_str())
            .collect();
        names.join(".")
    }

    /// Whether the parameter is a weight that lies with its outputs last in a module, and first in a checkpoint.
    pub(super) fn is_turned(&self) -> bool {
        let is_factor = |(name, container): &(String, String)| {
            container == "Struct:Adapter" && ["down", "up"].contains(&name.as_str())
        };
        self.is_matrix() || self.0.last().is_some_and(is_factor)
    }

    /// The layer whose weight this is, if it is that of a linear layer or a convolution.
    pub(super) fn turned_weight_of(&self) -> Option<String> {
        let is_weight = self.0.last().is_some_and(|(name, _)| name == "weight");
        let key = self.key();
        (is_weight && self.is_turned()).then(|| {
            key.strip_suffix(".weight")
                .map_or_else(String::new, str::to_string)
        })
    }

    /// Whether the parameter is one that its layer takes with 16 bits too.
    fn takes_halves(&self) -> bool {
        self.is_matrix() || self.is_weight_of(&["Struct:Embedding"])
    }

    /// Whether the parameter is the weight of a linear layer or a convolution.
    fn is_matrix(&self) -> bool {
        self.is_weight_of(&["Struct:Linear", "Struct:Conv2d"])
    }

    fn is_weight_of(&self, layers: &[&str]) -> bool {
        self.0
            .last()
            .is_some_and(|(name, container)| name == "weight" && layers.contains(&container.as_str()))
    }

    /// The shape in a checkpoint of a parameter that has this shape in its module.
    pub(super) fn stored_shape(&self, shape: &[usize]) -> Vec<usize> {
        match shape {
            [taps @ .., inputs, outputs] if self.is_turned() => [&[*outputs, *inputs], taps].concat(),
            _ => shape.to_vec(),
        }
    }
}

/// A tensor's numbers, as float32; there are no others than real ones, so nothing can fail.
fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor
        .into_data()
        .convert::<f32>()
        .try_into_vec()
        .unwrap_or_default()
}

/// A part of a weight that is turned in its module, as the checkpoint has it.
fn as_stored<const D: usize>(weight: Tensor<D>) -> Vec<f32> {
    let shape = weight.dims();
    let taps = shape.iter().rev().skip(2).product();
    turned_back(&numbers(weight), taps, shape[D - 1])
}

/// All parameters as a checkpoint has them, in the module's order.
pub fn named_tensors<M: Module>(module: &M) -> Vec<NamedTensor> {
    named_tensors_of(module, |_| true)
}

/// The parameters whose keys are wanted as a checkpoint has them, in the module's order.
pub fn named_tensors_of<M: Module>(module: &M, wanted: impl Fn(&str) -> bool) -> Vec<NamedTensor> {
    struct Collector<F> {
        location: Location,
        wanted: F,
        tensors: Vec<NamedTensor>,
    }
    impl<F: Fn(&str) -> bool> ModuleVisitor for Collector<F> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.location.enter(name, container);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.location.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let name = self.location.key();
            if !(self.wanted)(&name) {
                return;
            }
            let tensor = param.val().inner();
            self.tensors.push(NamedTensor {
                name,
                shape: self.location.stored_shape(&tensor.dims()),
                values: if self.location.is_turned() {
                    as_stored(tensor)
                } else {
                    numbers(tensor)
                },
            });
        }
    }
    let mut collector = Collector {
        location: Location::default(),
        wanted,
        tensors: Vec::new(),
    };
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

/// Every parameter's key with its shape in a checkpoint, in the module's order.
pub fn shapes<M: Module>(module: &M) -> Vec<(String, Vec<usize>)> {
    #[derive(Default)]
    struct Shapes {
        location: Location,
        found: Vec<(String, Vec<usize>)>,
    }
    impl ModuleVisitor for Shapes {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.location.enter(name, container);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.location.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let shape = self.location.stored_shape(&param.dims());
            self.found.push((self.location.key(), shape));
        }
    }
    let mut shapes = Shapes::default();
    module.visit(&mut shapes);
    shapes.found
}

/// Every parameter's key, in the module's order.
pub fn parameter_names<M: Module>(module: &M) -> Vec<String> {
    parameters(module).into_iter().map(|(name, _)| name).collect()
}

/// Writes all parameters as diffusers does, a piece of one after another: a few megabytes are there twice. They are written in the type that the
/// module holds them in; where it holds weights of 16 bits, what is float32 beside them but fits into that type without loss is of it as well, as
/// all of the checkpoint was that it was loaded from. [`writing`](super::writing) chooses another type.
///
/// # Errors
/// If the file cannot be written; what was there before then still is.
pub fn save<M: Module>(module: &M, path: impl AsRef<Path>) -> Result<()> {
    struct Entries {
        location: Location,
        precision: Precision,
        /// What the module's weights of 16 bits are.
        halves: Option<Dtype>,
        entries: Vec<Entry<'static>>,
    }
    impl ModuleVisitor for Entries {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.location.enter(name, container);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.location.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let (tensor, turned) = (param.val().inner(), self.location.is_turned());
            let held = match self.halves {
                Some(halves) if stored_as(tensor.dtype()) == Dtype::F32 && fits(&tensor, halves) => halves,
                _ => stored_as(tensor.dtype()),
            };
            let dtype = self.precision.of(held);
            self.entries.push(Entry {
                name: self.location.key(),
                dtype,
                shape: self.location.stored_shape(&tensor.dims()),
                write: Box::new(move |w| write_pieces(&tensor, turned, dtype, w)),
            });
        }
    }
    let precision = written();
    let mut entries = Entries {
        location: Location::default(),
        precision,
        halves: halves(module).filter(|_| precision == Precision::Stored),
        entries: Vec::new(),
    };
    module.visit(&mut entries);
    super::safetensors::write(path.as_ref(), entries.entries)
}

/// The type in a file of what is this in memory.
fn stored_as(dtype: DType) -> Dtype {
    match dtype {
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        _ => Dtype::F32,
    }
}

/// The type of a module's parameters of 16 bits, where it has any.
fn halves<M: Module>(module: &M) -> Option<Dtype> {
    struct Find(Option<Dtype>);
    impl ModuleVisitor for Find {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let dtype = stored_as(param.val().dtype());
            self.0 = self.0.or(Some(dtype).filter(|&dtype| dtype != Dtype::F32));
        }
    }
    let mut find = Find(None);
    module.visit(&mut find);
    find.0
}

/// Whether numbers are the same in this type.
fn fits<const D: usize>(tensor: &Tensor<D>, dtype: Dtype) -> bool {
    let same = |value: &f32| {
        let there_and_back = match dtype {
            Dtype::F16 => half::f16::from_f32(*value).to_f32(),
            _ => half::bf16::from_f32(*value).to_f32(),
        };
        there_and_back.to_bits() == value.to_bits()
    };
    numbers(tensor.clone()).iter().all(same)
}

/// Makes a module's parameters float32, which training wants: what was of 16 bits is so exactly.
pub fn widened<M: Module>(module: M) -> M {
    struct Widen;
    impl ModuleMapper for Widen {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            match param.val().dtype() {
                DType::F32 => param,
                _ => param.map(crate::ops::widened),
            }
        }
    }
    module.map(&mut Widen)
}

/// A hash of a module's parameters: their keys, shapes and values.
pub(crate) fn digest<M: Module>(module: &M) -> [u8; 32] {
    struct Take(Location, Sha256);
    impl ModuleVisitor for Take {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.0.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.val().inner();
            self.1.update(self.0.key());
            for side in tensor.dims() {
                self.1.update((side as u64).to_le_bytes());
            }
            self.1.update(to_bytes(&numbers(tensor)));
        }
    }
    let mut take = Take(Location::default(), Sha256::new());
    module.visit(&mut take);
    take.1.finalize().into()
}

/// A module of the same shape whose parameters take no memory and are all zero: what is left to ask of a model whose weights are elsewhere.
pub(crate) fn hollow<M: Module>(module: M) -> M {
    struct Hollow;
    impl ModuleMapper for Hollow {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| without_memory(tensor.dims(), &tensor.device()))
        }
    }
    module.map(&mut Hollow)
}

/// Writes a parameter as a checkpoint has it.
fn write_pieces<const D: usize>(
    tensor: &Tensor<D>,
    turned: bool,
    dtype: Dtype,
    w: &mut dyn Write,
) -> io::Result<()> {
    /// Numbers of a piece, where a row is not longer.
    const PIECE: usize = 1 << 21;
    // What is the first axis in the checkpoint.
    let axis = if turned { D - 1 } else { 0 };
    let rows = tensor.dims()[axis];
    let row = tensor.dims().iter().product::<usize>() / rows.max(1);
    let count = (PIECE / row.max(1)).max(1);
    for start in (0..rows).step_by(count) {
        let piece = tensor.clone().narrow(axis, start, count.min(rows - start));
        let values = if turned { as_stored(piece) } else { numbers(piece) };
        w.write_all(&as_type(Dtype::F32, &to_bytes(&values), dtype))?;
    }
    Ok(())
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
    let mut emptier = Emptier {
        location: Location::default(),
        kept,
        wanted: Vec::new(),
    };
    // What the parameters were is of no use any more: its memory is free for what they become.
    let module = module.map(&mut emptier);
    let wanted = emptier.wanted;
    let missing: Vec<&str> = wanted
        .iter()
        .map(|wanted| wanted.name.as_str())
        .filter(|name| checkpoint.get(name).is_none())
        .collect();
    if !missing.is_empty() {
        return Err(Error::file(
            checkpoint.path(),
            format!("lacks {}", list(&missing)),
        ));
    }
    let known: HashSet<&str> = wanted.iter().map(|wanted| wanted.name.as_str()).collect();
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

    // Before a number is read: a file may claim any shape.
    for Wanted {
        name, shape, turned, ..
    } in &wanted
    {
        let wrong = |stored: &&StoredTensor| !is_shape(&stored.shape, shape, *turned);
        if let Some(stored) = checkpoint.get(name).filter(wrong) {
            return Err(Error::file(
                checkpoint.file_of(name),
                format!(
                    "{name} has shape {:?} where the configuration makes {shape:?}",
                    stored.shape
                ),
            ));
        }
    }
    let (checkpoint, device_takes) = (&*checkpoint, takes_halves(device));
    // One by one, as threads come free: their sizes differ.
    let values: Vec<Result<Parameter>> = wanted
        .par_iter()
        .with_max_len(1)
        .map(|wanted| {
            let takes_halves = device_takes && wanted.takes_halves;
            checkpoint.read_parameter(&wanted.name, wanted.turned, takes_halves)
        })
        .collect();
    let values: Vec<Parameter> = values.into_iter().collect::<Result<_>>()?;
    Ok(module.map(&mut Filler {
        location: Location::default(),
        kept,
        values: values.into_iter(),
        device,
    }))
}

/// Whether a tensor that is stored in one shape is a parameter of another. The weight of a linear layer may be stored as that of a
/// convolution of one pixel, `[out, in, 1, 1]`, as early attention blocks have it, and the other way round: they are the same numbers.
fn is_shape(stored: &[usize], wanted: &[usize], turned: bool) -> bool {
    let beside = |shape: &[usize]| shape.iter().skip(2).all(|&taps| taps == 1);
    let matrices = turned && stored.get(..2) == wanted.get(..2) && stored.len() >= 2;
    stored == wanted || matrices && beside(stored) && beside(wanted)
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

/// A parameter that is to be read.
struct Wanted {
    name: String,
    shape: Vec<usize>,
    turned: bool,
    takes_halves: bool,
}

/// Notes which parameters are to be read, and takes their values away.
struct Emptier<'a> {
    location: Location,
    kept: Option<&'a str>,
    wanted: Vec<Wanted>,
}

impl ModuleMapper for Emptier<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.location.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.location.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.location.key();
        if self.kept.is_some_and(|kept| name.starts_with(kept)) {
            return param;
        }
        self.wanted.push(Wanted {
            name,
            shape: self.location.stored_shape(&param.dims()),
            turned: self.location.is_turned(),
            takes_halves: self.location.takes_halves(),
        });
        param.map(|tensor| without_memory(tensor.dims(), &tensor.device()))
    }
}

/// Puts values into those parameters, in the same order.
struct Filler<'a> {
    location: Location,
    kept: Option<&'a str>,
    values: std::vec::IntoIter<Parameter>,
    device: &'a Device,
}

impl ModuleMapper for Filler<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.location.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.location.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.location.key();
        if self.kept.is_some_and(|kept| name.starts_with(kept)) {
            return param;
        }
        match self.values.next() {
            Some(Parameter { bytes, dtype }) => param.map(|tensor| {
                let data = TensorData::from_bytes(bytes, tensor.dims(), dtype);
                Tensor::from_data(data, (self.device, dtype))
            }),
            None => param,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        device::default_device,
        nn::{Conv2d, Init, Linear},
        ops::Geometry,
        random::Generator,
        weights::write_tensors,
    };

    #[derive(Module, Debug)]
    struct Layers {
        wide: Linear,
        conv: Conv2d,
    }

    impl Layers {
        fn new(init: &mut Init<'_>) -> Self {
            Self {
                // More than a piece, of which the last one is shorter.
                wide: Linear::new(1400, 1601, init),
                conv: Conv2d::new(70, 130, 3, Geometry::uniform(1, 1), init),
            }
        }
    }

    #[test]
    fn what_is_saved_in_pieces_is_what_the_parameters_are_and_loads_again() {
        let device = default_device();
        let drawn = Layers::new(&mut Init::new(&mut Generator::new(3), &device));
        let tensors = named_tensors(&drawn);
        let conv = &tensors[2];
        assert_eq!(
            (conv.name.as_str(), conv.shape.as_slice()),
            ("conv.weight", &[130, 70, 3, 3][..])
        );

        let folder = tempfile::tempdir().unwrap();
        let (saved, written) = (
            folder.path().join("a.safetensors"),
            folder.path().join("b.safetensors"),
        );
        save(&drawn, &saved).unwrap();
        write_tensors(&written, &tensors).unwrap();
        assert!(std::fs::read(&saved).unwrap() == std::fs::read(&written).unwrap());

        let empty = Layers::new(&mut Init::to_load(&device));
        let loaded = load(empty, &mut Checkpoint::open(&saved).unwrap(), &device).unwrap();
        assert!(named_tensors(&loaded) == tensors);
        let weight: Vec<f32> = drawn.conv.weight.val().into_data().try_into_vec().unwrap();
        assert!(
            weight
                == loaded
                    .conv
                    .weight
                    .val()
                    .into_data()
                    .try_into_vec::<f32>()
                    .unwrap()
        );
    }
}
