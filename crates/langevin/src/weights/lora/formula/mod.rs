//! What a LoRA adds to a weight: a file per formula, a row each in [`FORMULAS`].
//!
//! A weight is a matrix here, `[outputs, inputs · taps]`, as it lies in a checkpoint: a linear layer's as it is, a convolution's `[out, in, h, w]`
//! with all but its first axis in a row. So a formula need not know what it changes, and a change of a convolution of one pixel may be stored as
//! that of a linear layer, and the other way round.

mod full;
mod loha;
mod lokr;
mod low_rank;

use std::{collections::BTreeMap, sync::Arc};

use burn::tensor::{Tensor, TensorData};

use self::low_rank::LowRank;
use super::key::Part;
use crate::{Error, Result, device::default_device, ops, weights::Checkpoint};

/// A formula with what it is computed from.
pub(super) trait Formula: Send + Sync {
    /// The weight that it changes: `[outputs, inputs · taps]`.
    fn shape(&self) -> [usize; 2];

    /// What alpha is divided by; `None` where nothing is.
    fn rank(&self) -> Option<usize>;

    /// The change, row-major in [`Self::shape`], before any scale.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    fn delta(&self, parts: &Parts) -> Result<Vec<f32>>;

    /// Itself, where it is a product of two matrices, which may lie beside a layer as well as in its weight; or else what people call it.
    fn low_rank(&self) -> Result<&LowRank, &'static str>;
}

/// A change that is a product of two matrices, row-major.
pub(super) struct Factors {
    /// `[rank, inputs · taps]`
    pub down: Vec<f32>,
    /// `[outputs, rank]`
    pub up: Vec<f32>,
    /// How long what lies between them is.
    pub rank: usize,
}

/// The formula of a module's parts, where they are of it. The error is a part of a sentence.
type Of = fn(&Parts) -> Result<Option<Box<dyn Formula>>, String>;

const FORMULAS: &[Of] = &[low_rank::of, loha::of, lokr::of, full::of];

/// The formula of a module's parts; `None` where they change no weight. The error is a part of a sentence.
pub(super) fn of(parts: &Parts) -> Result<Option<Box<dyn Formula>>, String> {
    for of in FORMULAS {
        if let Some(formula) = of(parts)? {
            return Ok(Some(formula));
        }
    }
    Ok(None)
}

/// The tensors of one module in a LoRA file, of which only the shapes have been read.
#[derive(Clone)]
pub(super) struct Parts {
    file: Arc<Checkpoint>,
    names: BTreeMap<Part, String>,
}

impl Parts {
    pub(in crate::weights::lora) fn new(file: Arc<Checkpoint>) -> Self {
        Self {
            file,
            names: BTreeMap::new(),
        }
    }

    /// Adds a tensor of this name; `false` where there is one for the part.
    pub(in crate::weights::lora) fn add(&mut self, part: Part, name: &str) -> bool {
        let is_new = !self.names.contains_key(&part);
        if is_new {
            self.names.insert(part, name.to_string());
        }
        is_new
    }

    /// All of them, with their names in the file.
    pub(in crate::weights::lora) fn iter(&self) -> impl Iterator<Item = (Part, &str)> {
        self.names.iter().map(|(part, name)| (*part, name.as_str()))
    }

    /// The file that they lie in.
    pub(in crate::weights::lora) fn file(&self) -> &Checkpoint {
        &self.file
    }

    pub(in crate::weights::lora) fn has(&self, part: Part) -> bool {
        self.names.contains_key(&part)
    }

    pub(in crate::weights::lora) fn shape(&self, part: Part) -> Option<&[usize]> {
        Some(&self.file.get(self.names.get(&part)?)?.shape)
    }

    /// A part that must be there beside another, as a matrix: its first axis, and the product of the rest.
    fn matrix(&self, part: Part) -> Result<[usize; 2], String> {
        match self.shape(part) {
            Some([rows, rest @ ..]) if !rest.is_empty() && *rows > 0 && count(rest) > 0 => {
                Ok([*rows, count(rest)])
            }
            Some(shape) => Err(format!("has {part} of shape {shape:?}, which is no matrix")),
            None => Err(format!("lacks {part}, which what it has needs")),
        }
    }

    /// A part's numbers, row-major.
    ///
    /// # Errors
    /// If it cannot be read, or a number of it is not finite.
    pub(in crate::weights::lora) fn read(&self, part: Part) -> Result<Vec<f32>> {
        let name = self.names.get(&part).map_or("", String::as_str);
        let values = self.file.read_as(name, false)?;
        if values.iter().all(|value| value.is_finite()) {
            return Ok(values);
        }
        let message = format!(
            "{name} holds numbers that are not finite: the file is broken, and pictures would be black"
        );
        Err(Error::file(self.file.path(), message))
    }
}

/// How many numbers a tensor of this shape has.
pub(super) fn count(shape: &[usize]) -> usize {
    shape
        .iter()
        .fold(1, |product, axis| product.saturating_mul(*axis))
}

/// Refuses a rank that no change of such a weight needs: what is computed on the way would grow with it.
fn check_rank(rank: usize, shape: [usize; 2]) -> Result<(), String> {
    match shape[0].max(shape[1]) {
        most if rank > most => Err(format!(
            "has rank {rank}, where a weight of {shape:?} has {most} at most"
        )),
        _ => Ok(()),
    }
}

/// `a · b` of `[m, k]` and `[k, n]`.
fn product(a: Vec<f32>, b: Vec<f32>, [m, k, n]: [usize; 3]) -> Vec<f32> {
    let device = default_device();
    let [a, b] = [(a, [m, k]), (b, [k, n])]
        .map(|(values, shape)| Tensor::<2>::from_data(TensorData::new(values, shape), &device));
    let data = ops::linear(a, b, None, None).into_data();
    // The operation is one of float32 throughout, so the conversion cannot fail.
    data.convert::<f32>().try_into_vec().unwrap_or_default()
}

/// A core `[i, j, taps]` and a matrix `[j, n]`: `Σ_j core[i, j, t] · matrix[j, n]` as `[i, n · taps]`.
fn contracted(core: &[f32], [i, j, taps]: [usize; 3], matrix: Vec<f32>, n: usize) -> Vec<f32> {
    let mut turned = vec![0.0; core.len()];
    for (place, value) in core.iter().enumerate() {
        let (row, column, tap) = (place / (j * taps), place / taps % j, place % taps);
        turned[(row * taps + tap) * j + column] = *value;
    }
    let summed = product(turned, matrix, [i * taps, j, n]);
    let mut result = vec![0.0; summed.len()];
    for (place, value) in summed.iter().enumerate() {
        let (row, tap, column) = (place / (taps * n), place / n % taps, place % n);
        result[(row * n + column) * taps + tap] = *value;
    }
    result
}

/// The matrix `[rows, columns]` the other way round.
fn transposed(matrix: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    (0..rows * columns)
        .map(|place| matrix[place % rows * columns + place / rows])
        .collect()
}

/// A factor of LoHa or LoKr: a product `a · b` of `[out, r]` and `[r, in · taps]`, or with a core (Tucker) `[i, j, h, w]`, of `a` `[i, out]`
/// and `b` `[j, in]`.
struct Factor {
    a: Part,
    b: Part,
    core: Option<(Part, [usize; 3])>,
    /// Of the factor.
    shape: [usize; 2],
    /// The first axis of `b`.
    rank: usize,
    rows: [[usize; 2]; 2],
}

impl Factor {
    fn of(parts: &Parts, a: Part, b: Part, core: Part) -> Result<Self, String> {
        let rows = [parts.matrix(a)?, parts.matrix(b)?];
        let [[a_rows, a_columns], [rank, columns]] = rows;
        let unfit = |what: &str| Err(format!("has {a} {:?} and {b} {:?}, {what}", rows[0], rows[1]));
        let (core, shape) = match parts.shape(core) {
            None if a_columns != rank => return unfit("which do not fit each other"),
            None => (None, [a_rows, columns]),
            Some([i, j, taps @ ..]) if *i == a_rows && *j == rank => {
                let taps = count(taps);
                (
                    Some((core, [*i, *j, taps])),
                    [a_columns, columns.saturating_mul(taps)],
                )
            }
            Some(shape) => return unfit(&format!("which do not fit {core} {shape:?}")),
        };
        check_rank(rank.max(core.map_or(0, |(_, [i, ..])| i)), shape)?;
        Ok(Self {
            a,
            b,
            core,
            shape,
            rank,
            rows,
        })
    }

    fn values(&self, parts: &Parts) -> Result<Vec<f32>> {
        let (a, b) = (parts.read(self.a)?, parts.read(self.b)?);
        let [[a_rows, a_columns], [rank, columns]] = self.rows;
        Ok(match self.core {
            None => product(a, b, [a_rows, rank, columns]),
            Some((core, sizes)) => {
                let right = contracted(&parts.read(core)?, sizes, b, columns);
                product(
                    transposed(&a, self.rows[0]),
                    right,
                    [a_columns, a_rows, columns * sizes[2]],
                )
            }
        })
    }
}
