//! Adafactor (Shazeer & Stern 2018): no running mean of the gradient, and of its square those of rows and columns. Mirrors `torch.optim.Adafactor`,
//! which begins with a step of 1 / √step of a parameter's size and never takes a larger one than the learning rate.

use std::collections::{BTreeMap, HashMap};

use burn::{
    module::{Module, ModuleMapper, Param, ParamId},
    tensor::{Tensor, TensorData},
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::super::gradients::{Gradients, flatten};
use crate::models::weights::{self, NamedTensor};

/// Adafactor's hyper-parameters but for the learning rate, with PyTorch's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdafactorConfig {
    /// The decay of running means at step t is `1 - t ^ beta2_decay`.
    pub beta2_decay: f64,
    /// The least that a mean of squares is taken for; float32's precision where nobody says.
    pub eps1: Option<f64>,
    /// The least that a parameter's size is taken for.
    pub eps2: f64,
    /// What the root of the mean square of a parameter's update is clipped to.
    pub d: f64,
    /// How much of a parameter is taken away in a step of learning rate 1.
    pub weight_decay: f64,
}

impl Default for AdafactorConfig {
    fn default() -> Self {
        Self {
            beta2_decay: -0.8,
            eps1: None,
            eps2: 1e-3,
            d: 1.0,
            weight_decay: 0.0,
        }
    }
}

/// Rows or columns that are summed at a time.
const PART: usize = 1 << 14;

/// Running means of squares: of rows and columns of matrices, or of all elements of what is none.
#[derive(Clone, Debug)]
struct State {
    /// PyTorch's names of them are row_var, col_var and variance.
    row: Vec<f32>,
    column: Vec<f32>,
    all: Vec<f32>,
}

const NAMES: [&str; 3] = ["row_var", "col_var", "variance"];

/// Adafactor with what it keeps.
#[derive(Debug)]
pub struct AdafactorOptimizer {
    config: AdafactorConfig,
    states: HashMap<ParamId, State>,
    rates: HashMap<ParamId, f64>,
    step: u64,
}

impl AdafactorOptimizer {
    /// With no steps done.
    pub fn new(config: AdafactorConfig) -> Self {
        Self {
            config,
            states: HashMap::new(),
            rates: HashMap::new(),
            step: 0,
        }
    }

    /// The same with the learning rate multiplied by these for these parameters.
    pub(super) fn with_rates(self, rates: HashMap<ParamId, f64>) -> Self {
        Self { rates, ..self }
    }

    /// Moves every parameter that has a gradient, which counts `factor` times.
    pub fn step<M: Module>(&mut self, module: M, gradients: Gradients, factor: f64, learning_rate: f64) -> M {
        self.step += 1;
        module.map(&mut Update {
            gradients: gradients.into_iter_by_id().collect(),
            factor,
            learning_rate,
            optimizer: self,
        })
    }

    /// All that it keeps, for a checkpoint.
    pub fn moments<M: Module>(&self, module: &M) -> Vec<NamedTensor> {
        let mut named = Vec::new();
        for (key, id) in weights::parameters(module) {
            let Some(State { row, column, all }) = self.states.get(&id) else {
                continue;
            };
            for (values, name) in [row, column, all].into_iter().zip(NAMES) {
                if !values.is_empty() {
                    named.push(NamedTensor {
                        name: format!("{name}.{key}"),
                        shape: vec![values.len()],
                        values: values.clone(),
                    });
                }
            }
        }
        named
    }

    /// Takes up what [`Self::moments`] gave after `step` steps, for the same parameters in this process.
    pub fn resume<M: Module>(&mut self, module: &M, step: u64, mut stored: BTreeMap<String, NamedTensor>) {
        self.step = step;
        for (key, id) in weights::parameters(module) {
            let mut part = |name: &str| {
                let stored = stored.remove(&format!("{name}.{key}"));
                stored.map(|tensor| tensor.values).unwrap_or_default()
            };
            let [row, column, all] = NAMES.map(&mut part);
            if !(row.is_empty() && all.is_empty()) {
                self.states.insert(id, State { row, column, all });
            }
        }
    }
}

struct Update<'a> {
    gradients: HashMap<ParamId, Tensor<1>>,
    factor: f64,
    learning_rate: f64,
    optimizer: &'a mut AdafactorOptimizer,
}

/// The matrix whose rows and columns are told apart, as PyTorch's last two axes are: of a linear layer all, of a convolution each pair of channels'
/// taps. Sizes, and what lies between neighbours in a row, in a column, and from one matrix to the next.
struct Matrices {
    count: usize,
    rows: usize,
    columns: usize,
    row_step: usize,
    column_step: usize,
    next: usize,
}

impl Matrices {
    /// Of a parameter of this shape here; `None` for what is no matrix.
    fn of(shape: &[usize]) -> Option<Self> {
        match *shape {
            // PyTorch's `[out, in]`: its rows are our columns.
            [inputs, outputs] => Some(Self {
                count: 1,
                rows: outputs,
                columns: inputs,
                row_step: 1,
                column_step: outputs,
                next: 0,
            }),
            // As an adapter of one has it.
            [1, 1, inputs, outputs] => Self::of(&[inputs, outputs]),
            [height, width, inputs, outputs] => Some(Self {
                count: inputs * outputs,
                rows: height,
                columns: width,
                row_step: width * inputs * outputs,
                column_step: inputs * outputs,
                next: 1,
            }),
            _ => None,
        }
    }

    fn at(&self, matrix: usize, row: usize, column: usize) -> usize {
        matrix * self.next + row * self.row_step + column * self.column_step
    }
}

impl Update<'_> {
    fn move_one(&mut self, id: ParamId, shape: &[usize], parameter: &mut [f32], gradient: &[f32]) {
        let AdafactorConfig {
            beta2_decay,
            eps1,
            eps2,
            d,
            weight_decay,
        } = self.optimizer.config;
        let eps1 = eps1.unwrap_or(f64::from(f32::EPSILON));
        let learning_rate = self.learning_rate * self.optimizer.rates.get(&id).copied().unwrap_or(1.0);
        let step = self.optimizer.step as f64;
        let lerp = step.powf(beta2_decay) as f32;
        let rho = learning_rate.min(1.0 / step.sqrt());
        let alpha = eps2.max(root_mean_square(parameter)) * rho;
        let decay = (1.0 - learning_rate * weight_decay) as f32;
        let matrices = Matrices::of(shape);
        let n = parameter.len();
        let state = self
            .optimizer
            .states
            .entry(id)
            .or_insert_with(|| match &matrices {
                Some(of) => State {
                    row: vec![0.0; of.count * of.rows],
                    column: vec![0.0; of.count * of.columns],
                    all: Vec::new(),
                },
                None => State {
                    row: Vec::new(),
                    column: Vec::new(),
                    all: vec![0.0; n],
                },
            });
        let mut update = vec![0.0f32; n];
        match &matrices {
            Some(of) => {
                let square = |at: usize| gradient[at] * gradient[at];
                state
                    .row
                    .par_iter_mut()
                    .with_min_len(PART / of.columns.max(1) + 1)
                    .enumerate()
                    .for_each(|(i, mean)| {
                        let (matrix, row) = (i / of.rows, i % of.rows);
                        let sum: f32 = (0..of.columns)
                            .map(|column| square(of.at(matrix, row, column)))
                            .sum();
                        *mean += (sum / of.columns as f32 - *mean) * lerp;
                    });
                state
                    .column
                    .par_iter_mut()
                    .with_min_len(PART / of.rows.max(1) + 1)
                    .enumerate()
                    .for_each(|(i, mean)| {
                        let (matrix, column) = (i / of.columns, i % of.columns);
                        let sum: f32 = (0..of.rows).map(|row| square(of.at(matrix, row, column))).sum();
                        *mean += (sum / of.rows as f32 - *mean) * lerp;
                    });
                let eps = eps1 as f32;
                for matrix in 0..of.count {
                    let rows = &state.row[matrix * of.rows..][..of.rows];
                    let columns = &state.column[matrix * of.columns..][..of.columns];
                    let mean = (rows.iter().sum::<f32>() / of.rows as f32).max(eps);
                    for (row, of_row) in rows.iter().enumerate() {
                        for (column, of_column) in columns.iter().enumerate() {
                            let at = of.at(matrix, row, column);
                            update[at] = (of_row * of_column / mean).max(eps * eps);
                        }
                    }
                }
            }
            None => {
                let rows = state
                    .all
                    .par_chunks_mut(PART)
                    .zip(gradient.par_chunks(PART))
                    .zip(update.par_chunks_mut(PART));
                rows.for_each(|((mean, gradient), update)| {
                    for ((mean, g), update) in mean.iter_mut().zip(gradient).zip(update) {
                        *mean += (g * g - *mean) * lerp;
                        *update = mean.max((eps1 * eps1) as f32);
                    }
                });
            }
        }
        update
            .par_chunks_mut(PART)
            .zip(gradient.par_chunks(PART))
            .for_each(|(update, gradient)| {
                for (update, g) in update.iter_mut().zip(gradient) {
                    *update = g / update.sqrt();
                }
            });
        let scale = (alpha / (root_mean_square(&update) / d).max(1.0)) as f32;
        parameter
            .par_chunks_mut(PART)
            .zip(update.par_chunks(PART))
            .for_each(|(parameter, update)| {
                for (parameter, update) in parameter.iter_mut().zip(update) {
                    *parameter = *parameter * decay - scale * update;
                }
            });
    }
}

/// In an order of sums that is the same for any number of threads.
fn root_mean_square(values: &[f32]) -> f64 {
    let sums: Vec<f64> = values
        .par_chunks(PART)
        .map(|part| {
            part.iter()
                .map(|value| f64::from(*value) * f64::from(*value))
                .sum()
        })
        .collect();
    (sums.iter().sum::<f64>() / values.len().max(1) as f64).sqrt()
}

fn values(tensor: Tensor<1>) -> Vec<f32> {
    let data = tensor.into_data().convert::<f32>();
    data.try_into_vec().unwrap_or_default()
}

impl ModuleMapper for Update<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let id = param.id;
        let Some(gradient) = self.gradients.remove(&id) else {
            return param;
        };
        param.map(|tensor| {
            let (shape, requires_grad) = (tensor.shape(), tensor.is_require_grad());
            let plain = tensor.inner();
            let (device, sides) = (plain.device(), plain.dims());
            let mut now = values(flatten(plain));
            let gradient = values(gradient * self.factor);
            self.move_one(id, &sides, &mut now, &gradient);
            let n = now.len();
            let moved = Tensor::<1>::from_data(TensorData::new(now, [n]), &device);
            Tensor::from_inner(moved.reshape(shape)).set_require_grad(requires_grad)
        })
    }
}
