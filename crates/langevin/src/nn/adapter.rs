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
    /// `[out]`: how long the changed weight's column of each output is, where lengths are learned apart from directions (Liu et al. 2024, "DoRA");
    /// PEFT's `lora_magnitude_vector`.
    pub magnitude: Option<Param<Tensor<1>>>,
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
            magnitude: None,
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

    /// The same with a length for each output, which begins as the layer's own.
    ///
    /// # Panics
    /// If there are not as many as outputs.
    pub fn with_magnitude(mut self, lengths: Vec<f32>) -> Self {
        let ([.., outputs], device) = (self.up.dims(), self.up.val().device());
        assert_eq!(lengths.len(), outputs, "a length for each output");
        self.magnitude = Some(Param::from_tensor(Tensor::from_data(
            TensorData::new(lengths, [outputs]),
            &device,
        )));
        self
    }

    /// Its rank.
    pub fn rank(&self) -> usize {
        let [.., rank] = self.down.dims();
        rank
    }

    /// What it changes is added to `y`, this strongly: `scale · up(down(x))`.
    fn add(&self, strength: Strength, x: Tensor<4>, y: Tensor<4>, layer: &Adapted) -> Tensor<4> {
        match &self.magnitude {
            Some(magnitude) => y + by_rows(self.rescaled(magnitude.val(), x, layer), strength),
            None => self.add_plain(strength, x, y, layer.geometry),
        }
    }

    /// What it changes where lengths are learned apart: `(f - 1) · W x + f · scale · up(down(x))` with f the length that was learned over that of
    /// `W + scale · up down`, which counts as a number and not as a function (Liu et al. 2024, section 4.3). Mirrors PEFT's `DoraLinearLayer`.
    fn rescaled(&self, magnitude: Tensor<1>, x: Tensor<4>, layer: &Adapted) -> Tensor<4> {
        let factor = self.factor(magnitude, layer);
        let x = self.dropout.forward(x);
        let base = ops::conv2d(x.clone(), layer.weight.clone(), None, None, layer.geometry);
        let narrow = ops::conv2d(x, self.down.val(), None, None, layer.geometry);
        let wide = ops::conv2d(narrow, self.up.val(), None, None, Geometry::uniform(1, 0));
        base * (factor.clone() - 1.0) + wide.mul_scalar(self.scale) * factor
    }

    /// The length that was learned of each output over the one that it has.
    fn factor(&self, magnitude: Tensor<1>, layer: &Adapted) -> Tensor<4> {
        let [height, width, inputs, rank] = self.down.dims();
        let [.., outputs] = self.up.dims();
        let rows = height * width * inputs;
        let down = self.down.val().detach().reshape([rows, rank]);
        let change = down.matmul(self.up.val().detach().reshape([rank, outputs]));
        let weight = ops::widened(layer.weight.clone().detach()).reshape([rows, outputs]);
        let weight = weight + change.mul_scalar(self.scale);
        let length = weight.square().sum_dim(0).sqrt().reshape([outputs]);
        (magnitude / length).reshape([1, 1, 1, outputs])
    }

    fn add_plain(&self, strength: Strength, x: Tensor<4>, y: Tensor<4>, geometry: Geometry) -> Tensor<4> {
        let narrow = ops::conv2d(self.dropout.forward(x), self.down.val(), None, None, geometry);
        let narrow = by_rows(narrow, strength.times(self.scale));
        ops::conv2d(narrow, self.up.val(), None, Some(y), Geometry::uniform(1, 0))
    }
}

/// Each row of a batch times its strength.
fn by_rows(x: Tensor<4>, strength: Strength) -> Tensor<4> {
    match strength {
        Strength::Even(1.0) => x,
        Strength::Even(strength) => x.mul_scalar(strength),
        Strength::Rows(rows) => {
            let [batch, ..] = x.dims();
            assert_eq!(
                rows.len(),
                batch,
                "adapters have strengths for {} rows of a batch of {batch}",
                rows.len()
            );
            let device = x.device();
            x * Tensor::from_data(TensorData::new(rows, [batch, 1, 1, 1]), &device)
        }
    }
}

/// The layer that adapters lie on.
pub(super) struct Adapted {
    /// The identity of its weight.
    pub id: ParamId,
    /// `[kernel height, kernel width, in, out]`
    pub weight: Tensor<4>,
    /// Of its kernel.
    pub geometry: Geometry,
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

    /// What the layer gives with an adapter that learns lengths and drops nothing, which then is `f · (W x + scale · up(down(x)))` with bias and residual
    /// behind it: the layer is computed once. `None` where it is to be added up as others are.
    pub(super) fn whole(
        &self,
        layer: &Adapted,
        x: &Tensor<4>,
        bias: Option<Tensor<1>>,
        residual: Option<Tensor<4>>,
    ) -> Option<Tensor<4>> {
        let [adapter] = self.0.as_slice() else { return None };
        let magnitude = adapter.magnitude.as_ref()?.val();
        let counts_whole = strength(adapter.slot) == Some(Strength::Even(1.0));
        if !counts_whole || adapter.dropout.is_active() || lent::are_on(layer.id) {
            return None;
        }
        let base = ops::conv2d(x.clone(), layer.weight.clone(), None, None, layer.geometry);
        let sum = adapter.add_plain(Strength::Even(1.0), x.clone(), base, layer.geometry);
        let mut y = sum * adapter.factor(magnitude, layer);
        if let Some(bias) = bias {
            let [outputs] = bias.dims();
            y = y + bias.reshape([1, 1, 1, outputs]);
        }
        Some(match residual {
            Some(residual) => y + residual,
            None => y,
        })
    }

    /// `y` with what they, and those that are lent to the layer, make of `x`, the layer's input. Rows of a batch lie on the first axis.
    pub(super) fn add(&self, layer: &Adapted, x: &Tensor<4>, y: Tensor<4>) -> Tensor<4> {
        let own = self
            .iter()
            .filter_map(|adapter| Some((adapter, strength(adapter.slot)?)));
        let y = own.fold(y, |y, (adapter, strength)| {
            adapter.add(strength, x.clone(), y, layer)
        });
        lent::on(layer.id).into_iter().fold(y, |y, (adapter, strength)| {
            adapter.add(strength, x.clone(), y, layer)
        })
    }

    /// The same for a linear layer over the last dimension, `[batch, ..., channels]`.
    pub(super) fn add_linear<const D: usize>(
        &self,
        weight: &Param<Tensor<2>>,
        x: Tensor<D>,
        bias: Option<Tensor<1>>,
        residual: Option<Tensor<D>>,
    ) -> Tensor<D> {
        let mut shape = x.dims();
        [_, shape[D - 1]] = weight.dims();
        let picture = |tensor: Tensor<D>| -> Tensor<4> {
            let shape = tensor.dims();
            let rest = shape[1..D - 1].iter().product();
            tensor.reshape([shape[0], 1, rest, shape[D - 1]])
        };
        let [inputs, outputs] = weight.dims();
        let layer = Adapted {
            id: weight.id,
            weight: weight.val().reshape([1, 1, inputs, outputs]),
            geometry: Geometry::uniform(1, 0),
        };
        let rows = picture(x.clone());
        if let Some(y) = self.whole(&layer, &rows, bias.clone(), residual.clone().map(picture)) {
            return y.reshape(shape);
        }
        let y = ops::linear(x, weight.val(), bias, residual);
        self.add(&layer, &rows, picture(y)).reshape(shape)
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
    /// The same, so many times as strong.
    fn times(self, factor: f32) -> Self {
        match self {
            Self::Even(strength) => Self::Even(strength * factor),
            Self::Rows(rows) => Self::Rows(rows.into_iter().map(|strength| strength * factor).collect()),
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Conv2d, Linear};

    /// sin(k), sin(2k), … in a tensor of this shape.
    fn waves<const D: usize>(shape: [usize; D], k: f64) -> Tensor<D> {
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|i| (k * (i + 1) as f64).sin() as f32)
            .collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::default())
    }

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_into_vec().unwrap()
    }

    /// Checks numbers at some places.
    fn at<const D: usize>(tensor: Tensor<D>, expected: &[(usize, f32)]) {
        let found = values(tensor);
        for (place, expected) in expected {
            let difference = (found[*place] - expected).abs();
            assert!(
                difference <= 2e-5 * expected.abs().max(1.0),
                "{} at {place} is not {expected}",
                found[*place]
            );
        }
    }

    fn dora(layer: &AdaptedLayer, lengths: [f32; 4]) -> Adapter {
        let [height, width] = layer.kernel.unwrap_or([1, 1]);
        let down = values(waves([2 * layer.inputs * height * width], 0.53));
        let up = values(waves([8], 0.29));
        let longer = lengths.iter().map(|length| length * 1.25).collect();
        Adapter::of(layer, down, up, &Device::default())
            .with_alpha(4.0)
            .with_magnitude(longer)
    }

    /// Results and gradients of a `Linear(6, 4)` and a `Conv2d(3, 4, 3, stride=2, padding=1)` with DoRA of rank 2 and alpha 4 in PEFT, whose lengths are
    /// 1.25 times what they begin as.
    #[test]
    fn lengths_that_are_learned_apart_are_pefts() {
        let layer = AdaptedLayer {
            name: "a".into(),
            inputs: 6,
            outputs: 4,
            kernel: None,
        };
        let weight = waves([4, 6], 0.7).transpose();
        let linear = Linear {
            weight: Param::from_tensor(Tensor::from_data(weight.into_data(), &Device::default())),
            bias: Some(Param::from_tensor(waves([4], 0.3))),
            adapters: Adapters(vec![dora(&layer, [1.7681, 1.87148, 1.53363, 1.7806])]),
        }
        .train();
        let begun = crate::weights::lengths(&linear, |_| true);
        assert_eq!(begun.len(), 1);
        for (found, expected) in begun
            .values()
            .flatten()
            .zip([1.7681_f32, 1.87148, 1.53363, 1.7806])
        {
            assert!((found - expected).abs() < 1e-5, "{begun:?}");
        }
        let x = Tensor::from_inner(waves([2, 3, 6], 0.11)).require_grad();
        let y = linear.forward(x.clone());
        at(
            y.clone(),
            &[
                (0, -0.740_574),
                (1, 1.47796),
                (2, -0.462_042),
                (22, 2.45911),
                (23, 0.071_604_5),
            ],
        );
        let loss = (y * Tensor::from_inner(waves([2, 3, 4], 0.17))).sum();
        at(loss.clone(), &[(0, 2.639_426_7)]);
        let gradients = loss.backward();
        let adapter = &linear.adapters.0[0];
        let down = adapter.down.val().grad(&gradients).unwrap();
        at(down, &[(0, 16.5006), (2, 17.6632), (4, 18.6122), (6, 19.3363)]);
        let up = adapter.up.val().grad(&gradients).unwrap();
        at(up, &[(0, 33.2266), (4, -32.8368), (1, 21.3324), (5, -21.0406)]);
        let magnitude = adapter
            .magnitude
            .as_ref()
            .unwrap()
            .val()
            .grad(&gradients)
            .unwrap();
        at(
            magnitude,
            &[(0, -0.488_918), (1, 0.070_337_2), (2, -4.35805), (3, 2.87817)],
        );
        let x = x.grad(&gradients).unwrap();
        at(
            x,
            &[(0, 0.330_804), (1, 0.363_711), (2, 0.204_548), (3, -0.060_769_6)],
        );

        let layer = AdaptedLayer {
            inputs: 3,
            kernel: Some([3, 3]),
            ..layer
        };
        let channels_last = |picture: Tensor<4>| {
            let picture = picture.permute([0, 2, 3, 1]);
            Tensor::<4>::from_data(picture.into_data(), &Device::default())
        };
        let mut generator = Generator::new(0);
        let mut init = crate::nn::Init::new(&mut generator, &Device::default());
        let mut conv = Conv2d::new(3, 4, 3, Geometry::uniform(2, 1), &mut init);
        let weight = waves([4, 3, 3, 3], 0.37).permute([2, 3, 1, 0]);
        conv.weight = Param::from_tensor(Tensor::from_data(weight.into_data(), &Device::default()));
        conv.bias = Some(Param::from_tensor(waves([4], 0.9)));
        conv.adapters = Adapters(vec![dora(&layer, [3.61391, 3.72179, 3.77352, 3.71197])]);
        let conv = conv.train();
        let x = Tensor::from_inner(channels_last(waves([2, 3, 5, 5], 0.11))).require_grad();
        let y = conv.forward(x.clone());
        at(
            y.clone(),
            &[
                (0, -1.61848),
                (4, -1.41563),
                (8, 0.654_949),
                (12, 4.95634),
                (16, 10.0785),
                (71, 0.117_58),
            ],
        );
        let loss = (y * Tensor::from_inner(channels_last(waves([2, 4, 3, 3], 0.17)))).sum();
        at(loss.clone(), &[(0, 31.875_957)]);
        let gradients = loss.backward();
        let adapter = &conv.adapters.0[0];
        let down = adapter.down.val().grad(&gradients).unwrap();
        at(
            down,
            &[(0, -1.171), (6, -1.69438), (12, -1.12299), (18, -0.96714)],
        );
        let up = adapter.up.val().grad(&gradients).unwrap();
        at(up, &[(0, -12.9643), (4, -0.578_944), (1, -7.09247), (5, 1.83127)]);
        let magnitude = adapter
            .magnitude
            .as_ref()
            .unwrap()
            .val()
            .grad(&gradients)
            .unwrap();
        at(
            magnitude,
            &[(0, 7.12069), (1, -2.36339), (2, 0.314_218), (3, -2.75747)],
        );
        let x = x.grad(&gradients).unwrap();
        at(
            x,
            &[(0, -0.629_191), (3, -1.06155), (6, -0.508_071), (9, -0.814_721)],
        );
    }
}
