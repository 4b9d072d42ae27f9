//! Low-rank adapters beside layers: `base + scale · up(down(x))` (Hu et al. 2021, "LoRA").
//!
//! Every [`Linear`](super::Linear) and [`Conv2d`](super::Conv2d) has a place for them, [`Adapters`], which is empty until
//! [`weights::adapt`](crate::weights::adapt) puts some there: then the layer has the parameters, the bytes and the speed that it has without.
//! Several may lie on one layer. How strongly each counts is no part of the weights: it is said on the thread ([`adapting`]), for all rows of
//! a batch or for each row its own, so that pictures of different requests are computed together. [`lending`](super::lending) puts some beside the
//! layers of a model that is not changed by it.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use burn::{
    module::{
        Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param,
        ParamId,
    },
    tensor::{Device, Tensor, TensorData},
};

use super::{Dropout, lent};
use crate::{
    named::named_enum,
    ops::{self, Geometry},
    random::Generator,
};

/// A change of low rank to one layer.
#[derive(Module, Debug)]
pub struct Adapter {
    /// `[kernel height, kernel width, in, rank]`, with the layer's kernel, which is 1x1 for a linear layer; PEFT's `lora_A`.
    pub down: Param<Tensor<4>>,
    /// `[1, 1, rank, out]`; PEFT's `lora_B`.
    pub up: Param<Tensor<4>>,
    /// What its result is multiplied by before the strength of the moment: alpha / rank.
    #[module(skip)]
    pub scale: f32,
    /// Which of the model's adapters it is a part of: the place of its strength in [`Strengths`].
    #[module(skip)]
    pub slot: usize,
    /// Of what goes into it, in training.
    #[module(skip)]
    dropout: Dropout,
}

/// What an adapter has to know of its layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdaptedLayer {
    /// The layer's path in its module, such as `mid_block.attentions.0.proj_in`.
    pub name: String,
    /// Channels in.
    pub inputs: usize,
    /// Channels out.
    pub outputs: usize,
    /// Height and width of the kernel of a convolution; `None` for a linear layer.
    pub kernel: Option<[usize; 2]>,
}

named_enum! {
    /// How a new adapter's `down` is drawn; `up` is zero, so that it changes nothing at first. PEFT's `init_lora_weights`.
    #[derive(Default)]
    pub enum AdapterInit: "a way to begin" {
        /// Normal, with a standard deviation of 1 / rank.
        #[default]
        Gaussian = "gaussian",
        /// As a layer's weight is drawn: uniform up to 1 / √inputs.
        Kaiming = "kaiming",
    }
}

impl Adapter {
    /// A new adapter of this rank, which changes nothing yet.
    pub fn new(
        layer: &AdaptedLayer,
        rank: usize,
        init: AdapterInit,
        generator: &mut Generator,
        device: &Device,
    ) -> Self {
        let taps = layer.kernel.unwrap_or([1, 1]);
        let count = rank * layer.inputs * taps[0] * taps[1];
        let values: Vec<f32> = match init {
            AdapterInit::Gaussian => {
                let std = (1.0 / rank as f64) as f32;
                generator.randn(count).into_iter().map(|z| z * std).collect()
            }
            AdapterInit::Kaiming => {
                let bound = (1.0 / (layer.inputs as f64 * (taps[0] * taps[1]) as f64).sqrt()) as f32;
                let uniform = generator.rand(count).into_iter();
                uniform.map(|u| u * (bound + bound) - bound).collect()
            }
        };
        Self::of(layer, values, vec![0.0; rank * layer.outputs], device)
    }

    /// The adapter with these values, row-major in PyTorch's order: `down` as `[rank, in, kernel height, kernel width]` and `up` as `[out, rank]`.
    ///
    /// # Panics
    /// If there are not as many as that: whoever reads a file checks its shapes.
    pub fn of(layer: &AdaptedLayer, down: Vec<f32>, up: Vec<f32>, device: &Device) -> Self {
        let [height, width] = layer.kernel.unwrap_or([1, 1]);
        let rank = up.len() / layer.outputs.max(1);
        let down = TensorData::new(down, [rank, layer.inputs, height, width]);
        let up = TensorData::new(up, [layer.outputs, rank, 1, 1]);
        // Laid out anew, so that no operation has to do it.
        let turned = |data: TensorData| {
            let turned = Tensor::<4>::from_data(data, device).permute([2, 3, 1, 0]);
            Param::from_tensor(Tensor::from_data(turned.into_data(), device))
        };
        Self {
            down: turned(down),
            up: turned(up),
            scale: 1.0,
            slot: 0,
            dropout: Dropout::new(0.0),
        }
    }

    /// The same with its result multiplied by alpha / rank.
    pub fn with_alpha(mut self, alpha: f64) -> Self {
        self.scale = (alpha / self.rank().max(1) as f64) as f32;
        self
    }

    /// The same as a part of the model's adapter of this number.
    pub fn in_slot(mut self, slot: usize) -> Self {
        self.slot = slot;
        self
    }

    /// The same with each number that goes into it dropped with this probability, in training.
    pub fn with_dropout(mut self, probability: f64) -> Self {
        self.dropout = Dropout::new(probability);
        self
    }

    /// Its rank.
    pub fn rank(&self) -> usize {
        let [.., rank] = self.down.dims();
        rank
    }

    /// `y + scale · strength · up(down(x))`
    fn add(&self, strength: Strength, x: Tensor<4>, y: Tensor<4>, geometry: Geometry) -> Tensor<4> {
        let narrow = ops::conv2d(self.dropout.forward(x), self.down.val(), None, None, geometry);
        let narrow = match strength {
            Strength::Even(strength) => times(narrow, strength * self.scale),
            Strength::Rows(rows) => {
                let [batch, ..] = narrow.dims();
                assert_eq!(
                    rows.len(),
                    batch,
                    "adapters have strengths for {} rows of a batch of {batch}",
                    rows.len()
                );
                let rows: Vec<f32> = rows.iter().map(|strength| strength * self.scale).collect();
                let rows = TensorData::new(rows, [batch, 1, 1, 1]);
                let device = narrow.device();
                narrow * Tensor::from_data(rows, &device)
            }
        };
        ops::conv2d(narrow, self.up.val(), None, Some(y), Geometry::uniform(1, 0))
    }
}

fn times(x: Tensor<4>, factor: f32) -> Tensor<4> {
    if factor == 1.0 { x } else { x.mul_scalar(factor) }
}

/// The adapters on a layer: none, unless [`weights::adapt`](crate::weights::adapt) put some there.
#[derive(Clone, Debug, Default)]
pub struct Adapters(Vec<Adapter>);

impl Adapters {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One after another.
    pub fn iter(&self) -> impl Iterator<Item = &Adapter> {
        self.0.iter()
    }

    /// Whether nothing lies on the layer of this weight, and nothing is lent to it.
    pub(super) fn are_idle(&self, weight: ParamId) -> bool {
        self.0.is_empty() && !lent::are_on(weight)
    }

    /// `y` with what they, and those that are lent to the layer of this weight, make of `x`, the layer's input, whose kernel has this geometry.
    /// Rows of a batch lie on the first axis.
    pub(super) fn add(&self, weight: ParamId, x: &Tensor<4>, y: Tensor<4>, geometry: Geometry) -> Tensor<4> {
        let own = self
            .iter()
            .filter_map(|adapter| Some((adapter, strength(adapter.slot)?)));
        let y = own.fold(y, |y, (adapter, strength)| {
            adapter.add(strength, x.clone(), y, geometry)
        });
        lent::on(weight).into_iter().fold(y, |y, (adapter, strength)| {
            adapter.add(strength, x.clone(), y, geometry)
        })
    }

    /// The same for a linear layer over the last dimension, `[batch, ..., channels]`.
    pub(super) fn add_linear<const D: usize>(
        &self,
        weight: ParamId,
        x: Tensor<D>,
        y: Tensor<D>,
    ) -> Tensor<D> {
        let shape = y.dims();
        let picture = |tensor: Tensor<D>| -> Tensor<4> {
            let shape = tensor.dims();
            let rest = shape[1..D - 1].iter().product();
            tensor.reshape([shape[0], 1, rest, shape[D - 1]])
        };
        let y = self.add(weight, &picture(x), picture(y), Geometry::uniform(1, 0));
        y.reshape(shape)
    }
}

/// How strongly one of a model's adapters counts.
#[derive(Clone, Debug, PartialEq)]
pub enum Strength {
    /// The same for all rows of the batch.
    Even(f32),
    /// One number for each row of the batch that the model is given.
    Rows(Vec<f32>),
}

impl Strength {
    /// Whether it is something for any row.
    pub(super) fn counts(&self) -> bool {
        match self {
            Self::Even(strength) => *strength != 0.0,
            Self::Rows(rows) => rows.iter().any(|strength| *strength != 0.0),
        }
    }
}

/// How strongly each of a model's adapters counts, in the order of their [`Adapter::slot`]s. Those that have no number here do not count.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Strengths(pub Vec<Strength>);

thread_local! {
    /// `None`: all adapters count as they are.
    static STRENGTHS: RefCell<Option<Arc<Strengths>>> = const { RefCell::new(None) };
}

/// Runs a forward in which a model's adapters count this strongly; outside of it all count with 1. It holds on this thread until `work` returns, and
/// a backward follows its forward. It goes inside of [`ops::in_pool`](crate::ops::in_pool), which takes `work` to another thread. An adapter that counts for nothing in all rows is not computed.
pub fn adapting<R>(strengths: Strengths, work: impl FnOnce() -> R) -> R {
    adapting_as(Some(Arc::new(strengths)), work)
}

/// [`adapting`] as another forward did, see [`strengths`].
pub(super) fn adapting_as<R>(strengths: Option<Arc<Strengths>>, work: impl FnOnce() -> R) -> R {
    struct Restore(Option<Arc<Strengths>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            STRENGTHS.set(self.0.take());
        }
    }
    let _restore = Restore(STRENGTHS.replace(strengths));
    work()
}

/// What holds on this thread.
pub(super) fn strengths() -> Option<Arc<Strengths>> {
    STRENGTHS.with_borrow(Clone::clone)
}

/// How strongly the adapters of a slot count now; `None` where they do not.
fn strength(slot: usize) -> Option<Strength> {
    let Some(strengths) = strengths() else {
        return Some(Strength::Even(1.0));
    };
    let strength = strengths.0.get(slot)?;
    strength.counts().then(|| strength.clone())
}

/// What is done to the adapters that are mapped next.
pub(crate) enum Change {
    /// This one is put behind them.
    Push(Box<Adapter>),
    /// They are taken away.
    Clear,
}

thread_local! {
    /// A [`ModuleMapper`] sees the parameters that there are, and none that might be. So one that puts adapters on layers leaves here what the
    /// place that it comes to next takes up.
    static CHANGE: Cell<Option<Change>> = const { Cell::new(None) };
}

/// Changes the next [`Adapters`] that is mapped on this thread.
pub(crate) fn change_next(change: Change) {
    CHANGE.set(Some(change));
}

impl Module for Adapters {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.0.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        Self(self.0.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        Self(self.0.to_device(device))
    }

    fn train(self) -> Self {
        Self(self.0.train())
    }

    fn valid(&self) -> Self {
        Self(self.0.valid())
    }

    fn materialize(self) -> Self {
        Self(self.0.materialize())
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.0.visit(visitor);
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let mut adapters = self.0;
        match CHANGE.take() {
            Some(Change::Push(adapter)) => adapters.push(*adapter),
            Some(Change::Clear) => adapters.clear(),
            None => {}
        }
        Self(adapters.map(mapper))
    }
}

impl ModuleDisplayDefault for Adapters {
    fn content(&self, content: Content) -> Option<Content> {
        self.0.content(content)
    }
}

impl ModuleDisplay for Adapters {}
