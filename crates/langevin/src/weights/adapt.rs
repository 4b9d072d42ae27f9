//! Adapters on a module's layers: put there, taken away, looked up by their layers' names.

use std::collections::BTreeMap;

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId},
    tensor::Tensor,
};

use super::{NamedTensor, walk};
use crate::nn::{
    Adapter,
    adapter::{AdaptedLayer, Change, change_next},
};

/// What a layer calls its adapters.
const ADAPTERS: &str = "adapters";

/// Puts on each linear layer and convolution the adapter that `make` has for it. Those that are there already stay.
pub fn adapt<M: Module>(module: M, make: impl FnMut(&AdaptedLayer) -> Option<Adapter>) -> M {
    let mut put = Put {
        location: walk::Location::default(),
        layer: None,
        make,
    };
    module.map(&mut put)
}

/// The module without any adapter.
pub fn without_adapters<M: Module>(module: M) -> M {
    struct Take;
    impl ModuleMapper for Take {
        fn enter_module(&mut self, name: &str, container: &str) {
            if is_place(name, container) {
                change_next(Change::Clear);
            }
        }
    }
    module.map(&mut Take)
}

/// Every linear layer and convolution, in the module's order.
pub fn layers<M: Module>(module: &M) -> Vec<AdaptedLayer> {
    let layers = layers_with_weights(module).into_iter();
    layers.map(|(layer, _)| layer).collect()
}

/// The same with the identity of each one's weight in this process, by which [`LentAdapters`](crate::nn::LentAdapters) know it.
pub fn layers_with_weights<M: Module>(module: &M) -> Vec<(AdaptedLayer, ParamId)> {
    let mut found = Found::default();
    module.visit(&mut found);
    found.layers
}

/// How long the column of each output is in the weights of the layers that are `chosen`, by the layers' names.
pub fn lengths<M: Module>(module: &M, chosen: impl Fn(&AdaptedLayer) -> bool) -> BTreeMap<String, Vec<f32>> {
    let mut measured = Measured {
        location: walk::Location::default(),
        chosen,
        lengths: BTreeMap::new(),
    };
    module.visit(&mut measured);
    measured.lengths
}

struct Measured<F> {
    location: walk::Location,
    chosen: F,
    lengths: BTreeMap<String, Vec<f32>>,
}

impl<F: Fn(&AdaptedLayer) -> bool> ModuleVisitor for Measured<F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.location.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.location.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(layer) = layer(&self.location, param).filter(&self.chosen) else {
            return;
        };
        // Outputs are last, so that a row of the data has a number of each column.
        let values = param.val().into_data().convert::<f32>();
        let mut squares = vec![0.0_f64; layer.outputs];
        for (place, value) in values.iter::<f32>().enumerate() {
            squares[place % layer.outputs] += f64::from(value).powi(2);
        }
        let lengths = squares.into_iter().map(|square| square.sqrt() as f32).collect();
        self.lengths.insert(layer.name, lengths);
    }
}

/// An adapter's parameters as PEFT has them in files.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedAdapter {
    /// Its layer's path in the module.
    pub layer: String,
    /// The place among the layer's adapters.
    pub place: usize,
    /// `[rank, in]`, or `[rank, in, kernel height, kernel width]` of a convolution; its name is the parameter's in the module.
    pub down: NamedTensor,
    /// `[out, rank]`, or `[out, rank, 1, 1]`.
    pub up: NamedTensor,
    /// `[out]`, of DoRA.
    pub magnitude: Option<NamedTensor>,
}

/// All adapters on a module's layers, in the module's order.
pub fn adapters<M: Module>(module: &M) -> Vec<NamedAdapter> {
    let layers = layers(module);
    let is_linear = |name: &str| {
        layers
            .iter()
            .any(|layer| layer.name == name && layer.kernel.is_none())
    };
    let mut found: Vec<NamedAdapter> = Vec::new();
    let mut down = None;
    for mut tensor in walk::named_tensors_of(module, |name| name.contains(&format!(".{ADAPTERS}."))) {
        let path = tensor.name.clone();
        let Some((layer, rest)) = path.rsplit_once(&format!(".{ADAPTERS}.")) else {
            continue;
        };
        if rest.ends_with(".magnitude") {
            if let Some(adapter) = found.last_mut() {
                adapter.magnitude = Some(tensor);
            }
            continue;
        }
        if is_linear(layer) {
            tensor.shape.truncate(2);
        }
        match (rest.split_once('.'), down.take()) {
            (Some((place, "up")), Some(down)) => found.push(NamedAdapter {
                layer: layer.to_string(),
                place: place.parse().unwrap_or(0),
                down,
                up: tensor,
                magnitude: None,
            }),
            _ => down = Some(tensor),
        }
    }
    found
}

/// Whether a parameter of this name is an adapter's.
pub fn is_adapter(parameter: &str) -> bool {
    parameter.contains(&format!(".{ADAPTERS}."))
}

fn is_layer(container: &str) -> bool {
    ["Struct:Linear", "Struct:Conv2d"].contains(&container)
}

fn is_place(name: &str, container: &str) -> bool {
    name == ADAPTERS && is_layer(container)
}

/// The layer whose weight a parameter is, if it is one's.
fn layer<const D: usize>(location: &walk::Location, param: &Param<Tensor<D>>) -> Option<AdaptedLayer> {
    let name = location.turned_weight_of()?;
    match param.dims()[..] {
        [inputs, outputs] => Some(AdaptedLayer {
            name,
            inputs,
            outputs,
            kernel: None,
        }),
        [height, width, inputs, outputs] => Some(AdaptedLayer {
            name,
            inputs,
            outputs,
            kernel: Some([height, width]),
        }),
        _ => None,
    }
}

struct Put<F> {
    location: walk::Location,
    /// Whose weight was come by last.
    layer: Option<AdaptedLayer>,
    make: F,
}

impl<F: FnMut(&AdaptedLayer) -> Option<Adapter>> ModuleMapper for Put<F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.location.enter(name, container);
        if is_place(name, container)
            && let Some(layer) = self.layer.take()
            && let Some(adapter) = (self.make)(&layer)
        {
            change_next(Change::Push(Box::new(adapter)));
        }
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.location.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if let Some(layer) = layer(&self.location, &param) {
            self.layer = Some(layer);
        }
        param
    }
}

#[derive(Default)]
struct Found {
    location: walk::Location,
    layers: Vec<(AdaptedLayer, ParamId)>,
}

impl ModuleVisitor for Found {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.location.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.location.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let layer = layer(&self.location, param);
        self.layers.extend(layer.map(|layer| (layer, param.id)));
    }
}
