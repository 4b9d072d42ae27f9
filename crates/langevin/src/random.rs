//! PyTorch's CPU generator, bit for bit: all randomness of the library comes from a [`Generator`] that is passed along.

pub(crate) mod brownian;
mod mersenne;
mod normal;
pub(crate) mod seed_sequence;

use burn::tensor::{Device, Tensor, TensorData};
use langevin_kernels::normal::{BLOCK, box_muller};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};
use mersenne::Mersenne;

/// From this range on, a 32-bit draw reduced by `%` would favour small values visibly, and PyTorch draws 64 bits.
const WIDE_RANGE: u64 = 1 << 28;

/// From this length on, PyTorch shuffles with 64-bit draws and in another way, for the same reason.
const WIDE_PERMUTATION: usize = u32::MAX as usize / 20;

/// A source of random numbers that draws what `torch.Generator().manual_seed(seed)` draws on a CPU (PyTorch 2.15):
/// any sequence of calls here gives the numbers of the same sequence of calls there.
///
/// ```
/// use langevin::random::Generator;
///
/// // torch.randn(4, generator=torch.Generator().manual_seed(0))
/// let mut generator = Generator::new(0);
/// let noise = generator.randn(4);
/// let expected = [1.540_996, -0.293_428_9, -2.178_789_4, 0.568_431_2];
/// assert!(noise.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-6));
///
/// // The same state gives the same numbers.
/// let mut copy = Generator::from_state(generator.state()).unwrap();
/// assert_eq!(generator.randperm(10), copy.randperm(10));
/// ```
#[derive(Clone, Debug)]
pub struct Generator {
    seed: u64,
    engine: Mersenne,
    /// The second value of the last scalar Box–Muller pair, which the next scalar normal draw of any call returns.
    cached_normal: Option<f64>,
}

impl Generator {
    /// A generator in the state of `torch.Generator().manual_seed(seed)`. The numbers depend on the seed's low 32 bits
    /// alone, as they do in PyTorch.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            engine: Mersenne::new(seed as u32),
            cached_normal: None,
        }
    }

    /// A generator that is a function of a run's seed, an epoch and a picture's index in the data set alone, so that
    /// what is drawn for a picture does not depend on which thread came to it first.
    pub fn for_index(seed: u64, epoch: u64, index: u64) -> Self {
        Self::new(
            [seed, epoch, index]
                .into_iter()
                .fold(0, |hash, part| splitmix64(hash ^ part)),
        )
    }

    /// The seed that this generator began with.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// `n` float32 values, uniform in [0, 1). `torch.rand(n)`.
    pub fn rand(&mut self, n: usize) -> Vec<f32> {
        let mut values = Vec::with_capacity(n);
        while values.len() < n {
            let words = self.engine.take_u32(n - values.len());
            values.extend(words.map(unit));
        }
        values
    }

    /// `n` float64 values, uniform in [0, 1). `torch.rand(n, dtype=torch.float64)`.
    pub fn rand_f64(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| self.uniform_f64()).collect()
    }

    /// `n` float32 values from the standard normal distribution. `torch.randn(n)`.
    ///
    /// As in PyTorch, fewer than 16 values are drawn one by one and 16 or more in blocks, from different numbers.
    pub fn randn(&mut self, n: usize) -> Vec<f32> {
        if n < BLOCK {
            return (0..n).map(|_| self.normal() as f32).collect();
        }
        let mut values = self.rand(n);
        box_muller(&mut values);
        // What does not fill a block is drawn again, with as much before it as makes a whole one.
        if !n.is_multiple_of(BLOCK) {
            let tail = &mut values[n - BLOCK..];
            tail.copy_from_slice(&self.rand(BLOCK));
            box_muller(tail);
        }
        values
    }

    /// `n` float64 values from the standard normal distribution. `torch.randn(n, dtype=torch.float64)`.
    pub fn randn_f64(&mut self, n: usize) -> Vec<f64> {
        if n < BLOCK {
            return (0..n).map(|_| self.normal()).collect();
        }
        let mut values = self.rand_f64(n);
        for block in values.chunks_exact_mut(BLOCK) {
            normal::transform_block_f64(block);
        }
        if !n.is_multiple_of(BLOCK) {
            let tail = &mut values[n - BLOCK..];
            tail.copy_from_slice(&self.rand_f64(BLOCK));
            normal::transform_block_f64(tail);
        }
        values
    }

    /// `n` whole numbers, uniform in `low..high`. `torch.randint(low, high, (n,))`.
    ///
    /// # Panics
    /// If `low` is not below `high`.
    pub fn randint(&mut self, low: i64, high: i64, n: usize) -> Vec<i64> {
        assert!(
            low < high,
            "randint needs low < high, but was given {low} and {high}"
        );
        // The difference of two i64 fits u64, and wrapping arithmetic finds it.
        let range = high.wrapping_sub(low) as u64;
        let mut draw = || {
            let bits = if range >= WIDE_RANGE {
                self.engine.next_u64()
            } else {
                self.engine.next_u32().into()
            };
            low.wrapping_add((bits % range) as i64)
        };
        (0..n).map(|_| draw()).collect()
    }

    /// The numbers `0..n` in random order. `torch.randperm(n)`.
    pub fn randperm(&mut self, n: usize) -> Vec<usize> {
        if n >= WIDE_PERMUTATION {
            return self.randperm_wide(n);
        }
        let mut order: Vec<usize> = (0..n).collect();
        for i in 0..n.saturating_sub(1) {
            let left = (n - i) as u64;
            order.swap(i, i + (u64::from(self.engine.next_u32()) % left) as usize);
        }
        order
    }

    /// PyTorch's shuffle for lengths at which 32 bits no longer do: it grows the order from the inside out.
    fn randperm_wide(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = Vec::with_capacity(n);
        for i in 0..n {
            let place = (self.engine.next_u64() % (i as u64 + 1)) as usize;
            order.push(i);
            order.swap(i, place);
        }
        order
    }

    /// Standard normal noise of `shape`, in float32. `torch.randn(shape)`.
    pub fn randn_tensor<const D: usize>(&mut self, shape: [usize; D], device: &Device) -> Tensor<D> {
        let values = self.randn(shape.iter().product());
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    /// Uniform noise in [0, 1) of `shape`, in float32. `torch.rand(shape)`.
    pub fn rand_tensor<const D: usize>(&mut self, shape: [usize; D], device: &Device) -> Tensor<D> {
        let values = self.rand(shape.iter().product());
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    /// All that is needed to go on drawing the same numbers later.
    pub fn state(&self) -> GeneratorState {
        GeneratorState {
            seed: self.seed,
            words: self.engine.words().to_vec(),
            next: self.engine.next_index(),
            cached_normal: self.cached_normal.map(f64::to_bits),
        }
    }

    /// The generator that [`Generator::state`] was taken from.
    ///
    /// # Errors
    /// If the state is not one that a generator can be in.
    pub fn from_state(state: GeneratorState) -> Result<Self> {
        let engine = Mersenne::from_parts(&state.words, state.next).ok_or_else(|| {
            Error::Config(format!(
                "the saved random state holds {} words at position {}, which is not a state of the Mersenne twister",
                state.words.len(),
                state.next
            ))
        })?;
        Ok(Self {
            seed: state.seed,
            engine,
            cached_normal: state.cached_normal.map(f64::from_bits),
        })
    }

    /// 53 random bits as a float64 in [0, 1).
    fn uniform_f64(&mut self) -> f64 {
        (self.engine.next_u64() & ((1 << 53) - 1)) as f64 / (1_u64 << 53) as f64
    }

    /// One normal value by the scalar path: a Box–Muller pair in float64, whose second value waits for the next draw.
    fn normal(&mut self) -> f64 {
        if let Some(value) = self.cached_normal.take() {
            return value;
        }
        let (u1, u2) = (self.uniform_f64(), self.uniform_f64());
        let (first, second) = normal::pair(u1, u2);
        self.cached_normal = Some(second);
        first
    }
}

/// The state of a [`Generator`], for checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeneratorState {
    seed: u64,
    words: Vec<u32>,
    next: usize,
    /// As bits, since a decimal fraction in JSON need not come back the same.
    cached_normal: Option<u64>,
}

/// The low 24 bits as a float32 in [0, 1).
fn unit(bits: u32) -> f32 {
    (bits & 0xff_ffff) as f32 / (1_u32 << 24) as f32
}

/// One step of SplitMix64 (Steele, Lea and Flood 2014): every bit of the input moves every bit of the output.
fn splitmix64(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests;
