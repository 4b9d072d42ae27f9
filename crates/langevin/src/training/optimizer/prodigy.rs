//! Prodigy (Mishchenko & Defazio 2023, algorithm 4 with Adam's steps): AdamW that finds its step size, from how far the parameters have come since
//! the beginning. Mirrors the package `prodigyopt`.

use std::collections::{BTreeMap, HashMap};

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId},
    tensor::{Tensor, TensorData},
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::super::gradients::{Gradients, flatten};
use crate::models::weights::{self, NamedTensor};

/// Prodigy's hyper-parameters but for the learning rate, which is about 1: it multiplies the step size that is found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProdigyConfig {
    /// Decay of the gradient's running mean.
    pub beta1: f64,
    /// Decay of the running mean of its square.
    pub beta2: f64,
    /// Decay of what the step size is found from; the square root of `beta2` where nobody says.
    pub beta3: Option<f64>,
    /// Added to the denominator.
    pub eps: f64,
    /// How much of a parameter is taken away in a step.
    pub weight_decay: f64,
    /// Whether that is apart from the gradient, as in AdamW.
    pub decouple: bool,
    /// Whether running means are corrected for having begun at zero.
    pub use_bias_correction: bool,
    /// Whether the learning rate's warm-up is kept out of what the step size is found from.
    pub safeguard_warmup: bool,
    /// What the step size is multiplied by as it is found.
    pub d_coef: f64,
}

impl Default for ProdigyConfig {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            beta3: None,
            eps: 1e-8,
            weight_decay: 0.0,
            decouple: true,
            use_bias_correction: false,
            safeguard_warmup: false,
            d_coef: 1.0,
        }
    }
}

/// The step size that it begins with.
const D0: f64 = 1e-6;

/// The tensor of a checkpoint that holds numbers of all parameters.
const WHOLE: &str = "prodigy";

/// Numbers that are summed in a row; the sums of the rows are then summed in their order, whoever made them.
const ROW: usize = 1 << 14;

/// What is kept for a parameter.
#[derive(Clone, Debug, Default)]
struct State {
    exp_avg: Vec<f32>,
    exp_avg_sq: Vec<f32>,
    s: Vec<f32>,
    /// Where it began; empty where that is zero.
    p0: Vec<f32>,
}

const NAMES: [&str; 4] = ["exp_avg", "exp_avg_sq", "s", "p0"];

impl State {
    fn parts(&self) -> [&Vec<f32>; 4] {
        [&self.exp_avg, &self.exp_avg_sq, &self.s, &self.p0]
    }
}

/// Prodigy with what it keeps.
#[derive(Debug)]
pub struct ProdigyOptimizer {
    config: ProdigyConfig,
    states: HashMap<ParamId, State>,
    step: u64,
    d: f64,
    d_max: f64,
    d_numerator: f64,
}

impl ProdigyOptimizer {
    /// With no steps done.
    pub fn new(config: ProdigyConfig) -> Self {
        Self {
            config,
            states: HashMap::new(),
            step: 0,
            d: D0,
            d_max: D0,
            d_numerator: 0.0,
        }
    }

    /// The step size as it has been found.
    pub fn d(&self) -> f64 {
        self.d
    }

    /// Moves every parameter that has a gradient, which counts `factor` times.
    pub fn step<M: Module>(&mut self, module: M, gradients: Gradients, factor: f64, learning_rate: f64) -> M {
        let ProdigyConfig { beta1, beta2, .. } = self.config;
        let correction = if self.config.use_bias_correction {
            let done = self.step as i32 + 1;
            (1.0 - beta2.powi(done)).sqrt() / (1.0 - beta1.powi(done))
        } else {
            1.0
        };
        let mut look = Look {
            gradients: gradients
                .into_iter_by_id()
                .map(|(id, gradient)| (id, values(gradient * factor)))
                .collect(),
            dlr: self.d * learning_rate * correction,
            numerator: 0.0,
            denominator: 0.0,
            optimizer: self,
        };
        module.visit(&mut look);
        let Look {
            gradients,
            dlr,
            numerator,
            denominator,
            ..
        } = look;
        // As if nothing was asked, where there is nothing to learn.
        if denominator == 0.0 {
            return module;
        }
        let d_numerator = self.d_numerator * self.beta3() + numerator;
        if learning_rate > 0.0 {
            let d_hat = self.config.d_coef * d_numerator / denominator;
            if self.d == D0 {
                self.d = self.d.max(d_hat);
            }
            self.d_max = self.d_max.max(d_hat);
            self.d = self.d_max;
        }
        self.d_numerator = d_numerator;
        self.step += 1;
        module.map(&mut Move {
            optimizer: self,
            gradients,
            dlr,
        })
    }

    fn beta3(&self) -> f64 {
        self.config.beta3.unwrap_or(self.config.beta2.sqrt())
    }

    /// All that it keeps, for a checkpoint.
    pub fn moments<M: Module>(&self, module: &M) -> Vec<NamedTensor> {
        let mut named = Vec::new();
        for (key, id) in weights::parameters(module) {
            let Some(state) = self.states.get(&id) else {
                continue;
            };
            for (values, name) in state.parts().into_iter().zip(NAMES) {
                // Where it began, if that is zero, takes no room.
                if !values.is_empty() {
                    named.push(NamedTensor {
                        name: format!("{name}.{key}"),
                        shape: vec![values.len()],
                        values: values.clone(),
                    });
                }
            }
        }
        let values: Vec<f32> = [self.d, self.d_max, self.d_numerator, self.step as f64]
            .into_iter()
            .flat_map(in_parts)
            .collect();
        named.push(NamedTensor {
            name: WHOLE.into(),
            shape: vec![values.len()],
            values,
        });
        named
    }

    /// Takes up what [`Self::moments`] gave, for the same parameters in this process.
    pub fn resume<M: Module>(&mut self, module: &M, mut stored: BTreeMap<String, NamedTensor>) {
        if let Some(whole) = stored.remove(WHOLE) {
            let mut numbers = whole
                .values
                .chunks_exact(3)
                .map(|parts| parts.iter().map(|&part| f64::from(part)).sum());
            self.d = numbers.next().unwrap_or(D0);
            self.d_max = numbers.next().unwrap_or(D0);
            self.d_numerator = numbers.next().unwrap_or_default();
            self.step = numbers.next().unwrap_or_default() as u64;
        }
        for (key, id) in weights::parameters(module) {
            let mut part = |name: &str| {
                let stored = stored.remove(&format!("{name}.{key}"));
                stored.map(|tensor| tensor.values).unwrap_or_default()
            };
            let [exp_avg, exp_avg_sq, s, p0] = NAMES.map(&mut part);
            if !s.is_empty() {
                let state = State {
                    exp_avg,
                    exp_avg_sq,
                    s,
                    p0,
                };
                self.states.insert(id, state);
            }
        }
    }
}

/// A number as a sum of three of 32 bits, which hold all of its digits.
fn in_parts(number: f64) -> [f32; 3] {
    let first = number as f32;
    let rest = number - f64::from(first);
    let second = rest as f32;
    [first, second, (rest - f64::from(second)) as f32]
}

fn values(tensor: Tensor<1>) -> Vec<f32> {
    let data = tensor.into_data().convert::<f32>();
    data.try_into_vec().unwrap_or_default()
}

/// What follows from all gradients before anything moves.
struct Look<'a> {
    optimizer: &'a mut ProdigyOptimizer,
    gradients: HashMap<ParamId, Vec<f32>>,
    dlr: f64,
    numerator: f64,
    denominator: f64,
}

impl ModuleVisitor for Look<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = self.gradients.get_mut(&param.id) else {
            return;
        };
        let now = values(flatten(param.val().inner()));
        let (d, beta3) = (self.optimizer.d, self.optimizer.beta3());
        let ProdigyConfig {
            beta1,
            beta2,
            weight_decay,
            decouple,
            safeguard_warmup,
            ..
        } = self.optimizer.config;
        if weight_decay != 0.0 && !decouple {
            for (gradient, now) in gradient.iter_mut().zip(&now) {
                *gradient += now * weight_decay as f32;
            }
        }
        let state = self.optimizer.states.entry(param.id).or_insert_with(|| State {
            exp_avg: vec![0.0; now.len()],
            exp_avg_sq: vec![0.0; now.len()],
            s: vec![0.0; now.len()],
            p0: match now.iter().all(|&value| value == 0.0) {
                true => Vec::new(),
                false => now.clone(),
            },
        });
        let scale = d / D0;
        let p0 = &state.p0;
        let dots = gradient.par_chunks(ROW).zip(now.par_chunks(ROW)).enumerate();
        let dots: Vec<f64> = dots
            .map(|(row, (gradient, now))| {
                let zero = [0.0];
                let begun = match p0.is_empty() {
                    true => zero.iter().cycle(),
                    false => p0[row * ROW..].iter().cycle(),
                };
                let terms = gradient.iter().zip(now).zip(begun);
                terms
                    .map(|((g, now), begun)| f64::from(*g) * f64::from(begun - now))
                    .sum()
            })
            .collect();
        self.numerator += scale * self.dlr * dots.iter().sum::<f64>();
        let [beta1_, beta2_, beta3_] = [beta1, beta2, beta3].map(|beta| beta as f32);
        let first = (d * (1.0 - beta1)) as f32;
        let second = (d * d * (1.0 - beta2)) as f32;
        let third = (scale * if safeguard_warmup { d } else { self.dlr }) as f32;
        let rows = gradient
            .par_chunks(ROW)
            .zip(state.exp_avg.par_chunks_mut(ROW))
            .zip(state.exp_avg_sq.par_chunks_mut(ROW))
            .zip(state.s.par_chunks_mut(ROW));
        let sums: Vec<f64> = rows
            .map(|(((gradient, exp_avg), exp_avg_sq), s)| {
                let mut sum = 0.0;
                for (((g, m), v), s) in gradient.iter().zip(exp_avg).zip(exp_avg_sq).zip(s) {
                    *m = *m * beta1_ + g * first;
                    *v = *v * beta2_ + g * g * second;
                    *s = *s * beta3_ + g * third;
                    sum += f64::from(s.abs());
                }
                sum
            })
            .collect();
        self.denominator += sums.iter().sum::<f64>();
    }
}

/// Moves parameters by what was found.
struct Move<'a> {
    optimizer: &'a ProdigyOptimizer,
    gradients: HashMap<ParamId, Vec<f32>>,
    dlr: f64,
}

impl ModuleMapper for Move<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (Some(gradient), Some(state)) = (
            self.gradients.remove(&param.id),
            self.optimizer.states.get(&param.id),
        ) else {
            return param;
        };
        drop(gradient);
        let config = &self.optimizer.config;
        let eps = (self.optimizer.d * config.eps) as f32;
        let decay = match config.decouple {
            true => (config.weight_decay * self.dlr) as f32,
            false => 0.0,
        };
        let dlr = self.dlr as f32;
        param.map(|tensor| {
            let (shape, requires_grad) = (tensor.shape(), tensor.is_require_grad());
            let plain = tensor.inner();
            let device = plain.device();
            let mut now = values(flatten(plain));
            let rows = now
                .par_chunks_mut(ROW)
                .zip(state.exp_avg.par_chunks(ROW))
                .zip(state.exp_avg_sq.par_chunks(ROW));
            rows.for_each(|((now, exp_avg), exp_avg_sq)| {
                for ((now, m), v) in now.iter_mut().zip(exp_avg).zip(exp_avg_sq) {
                    let kept = *now - *now * decay;
                    *now = kept - dlr * (m / (v.sqrt() + eps));
                }
            });
            let n = now.len();
            let moved = Tensor::<1>::from_data(TensorData::new(now, [n]), &device);
            Tensor::from_inner(moved.reshape(shape)).set_require_grad(requires_grad)
        })
    }
}
