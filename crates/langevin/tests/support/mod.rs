//! What the oracle tests share: where the reference values are, how to read them, and the tally of what was compared.
//!
//! The folder is `tests/reference` beside this file, or the one that the environment variable `LANGEVIN_REFERENCE`
//! names. Its README says what is in it. Every test runs all the cases that it finds there.
//!
//! `LANGEVIN_DEVICE` names the device that the tests of the operations, of the models and of training run on.

// Each test target includes this file and uses a part of it.
#![allow(dead_code)]

pub(crate) mod call;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use burn::tensor::{Device, Tensor, TensorData};
use langevin::device::DeviceName;
use safetensors::{Dtype, SafeTensors};

/// The folder of reference values.
pub(crate) fn reference() -> PathBuf {
    env::var_os("LANGEVIN_REFERENCE").map_or_else(own_reference, PathBuf::from)
}

/// The device to test on: the CPU, or the one that the environment variable `LANGEVIN_DEVICE` names.
pub(crate) fn device() -> Device {
    let name = env::var("LANGEVIN_DEVICE").unwrap_or_else(|_| "cpu".into());
    let device = name.parse().and_then(DeviceName::open);
    device.unwrap_or_else(|e| panic!("LANGEVIN_DEVICE: {e}"))
}

/// Reads a JSON file of the reference folder. `path` is relative to it, or absolute.
pub(crate) fn read_json(path: impl AsRef<Path>) -> serde_json::Value {
    let path = reference().join(path);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The sub-folders of a folder of reference values, in order. `path` is relative to it, or absolute.
pub(crate) fn folders(path: impl AsRef<Path>) -> Vec<PathBuf> {
    let path = reference().join(path);
    let entries = fs::read_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut folders: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders
}

/// The values in the repository, of which those that its scripts make need not be in another folder.
pub(crate) fn own_reference() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference")
}

/// The sub-folders of a folder that one of the repository's scripts makes: of the reference folder, or else of the repository.
pub(crate) fn own_or_given(path: &str) -> Vec<PathBuf> {
    if reference().join(path).is_dir() {
        folders(path)
    } else {
        folders(own_reference().join(path))
    }
}

/// One stored tensor: its shape, and its values as 64-bit numbers, which hold every stored type exactly
/// (integers up to 2^53; `integers` holds them all).
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// The shape; empty for a single number.
    pub shape: Vec<usize>,
    /// The values in row-major order.
    pub values: Vec<f64>,
    /// The values of an integer tensor, exactly; empty for other types.
    pub integers: Vec<i64>,
}

impl Stored {
    /// The values as 32-bit numbers.
    pub(crate) fn f32(&self) -> Vec<f32> {
        self.values.iter().map(|&value| value as f32).collect()
    }

    /// The only value of a tensor of one element.
    pub(crate) fn item(&self) -> f64 {
        assert_eq!(
            self.values.len(),
            1,
            "expected one value, found shape {:?}",
            self.shape
        );
        self.values[0]
    }

    /// Each row so many times, one after another.
    pub(crate) fn repeated(self, times: usize) -> Self {
        let rows = self.shape.first().copied().unwrap_or(1).max(1);
        let row = self.values.len() / rows;
        let values = self
            .values
            .chunks(row.max(1))
            .flat_map(|row| row.repeat(times))
            .collect();
        let mut shape = self.shape;
        if let Some(first) = shape.first_mut() {
            *first *= times;
        }
        Self {
            shape,
            values,
            integers: Vec::new(),
        }
    }

    /// The values as a float32 tensor with `D` dimensions.
    pub(crate) fn tensor<const D: usize>(&self, device: &Device) -> Tensor<D> {
        Tensor::from_data(TensorData::new(self.f32(), self.shape.clone()), device)
    }
}

/// Reads a safetensors file. `path` is relative to the reference folder, or absolute.
pub(crate) fn read_tensors(path: impl AsRef<Path>) -> BTreeMap<String, Stored> {
    let path = reference().join(path);
    let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    file.tensors()
        .into_iter()
        .map(|(name, view)| (name, stored(&view)))
        .collect()
}

fn stored(view: &safetensors::tensor::TensorView<'_>) -> Stored {
    fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
        bytes.chunks_exact(N).map(|chunk| chunk.try_into().unwrap())
    }
    let data = view.data();
    let integers: Vec<i64> = match view.dtype() {
        Dtype::I64 => words(data).map(i64::from_le_bytes).collect(),
        Dtype::I32 => words(data)
            .map(|word| i64::from(i32::from_le_bytes(word)))
            .collect(),
        Dtype::U8 | Dtype::BOOL => data.iter().map(|&byte| i64::from(byte)).collect(),
        _ => Vec::new(),
    };
    let values = match view.dtype() {
        Dtype::F64 => words(data).map(f64::from_le_bytes).collect(),
        Dtype::F32 => words(data)
            .map(|word| f64::from(f32::from_le_bytes(word)))
            .collect(),
        Dtype::I64 | Dtype::I32 | Dtype::U8 | Dtype::BOOL => {
            integers.iter().map(|&value| value as f64).collect()
        }
        other => panic!("the reference values hold a type that these tests do not read: {other:?}"),
    };
    Stored {
        shape: view.shape().to_vec(),
        values,
        integers,
    }
}

/// The largest absolute difference between two rows of numbers; infinite where the lengths differ or one is not a number.
pub(crate) fn largest_difference(found: &[f32], expected: &[f32]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let differences = found
        .iter()
        .zip(expected)
        .map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs());
    differences.fold(
        0.0,
        |largest, d| if d.is_nan() { f64::INFINITY } else { largest.max(d) },
    )
}

/// The largest absolute difference, relative to the largest absolute expected value.
pub(crate) fn relative_difference(found: &[f32], expected: &[f32]) -> f64 {
    let scale = expected
        .iter()
        .fold(0.0_f64, |largest, &b| largest.max(f64::from(b).abs()));
    largest_difference(found, expected) / scale.max(f64::MIN_POSITIVE)
}

/// The values of a tensor in row-major order.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec().unwrap()
}

/// What one case of a reference test came to.
pub(crate) enum Outcome {
    /// Compared and equal.
    Ran,
    /// The library does not claim to do this yet; says what.
    NotSupported(String),
}

/// The tally of a reference test: prints `ran N, not supported M, failed K` when finished.
#[derive(Default)]
pub(crate) struct Report {
    ran: usize,
    not_supported: BTreeMap<String, usize>,
    failures: Vec<String>,
}

impl Report {
    /// An empty tally.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Counts one case: `Err` holds what differed.
    pub(crate) fn case(&mut self, name: &str, outcome: Result<Outcome, String>) {
        match outcome {
            Ok(Outcome::Ran) => self.ran += 1,
            Ok(Outcome::NotSupported(what)) => *self.not_supported.entry(what).or_default() += 1,
            Err(message) => self.failures.push(format!("{name}: {message}")),
        }
    }

    /// Counts one case that is a single comparison: `difference` must not be above `tolerance`.
    pub(crate) fn compare(&mut self, name: &str, difference: f64, tolerance: f64) {
        self.case(name, within("", difference, tolerance).map(|()| Outcome::Ran));
    }

    /// Prints the tally.
    ///
    /// # Panics
    /// If a case failed, or if none ran.
    pub(crate) fn finish(self) {
        let not_supported: usize = self.not_supported.values().sum();
        println!(
            "ran {}, not supported {not_supported}, failed {}",
            self.ran,
            self.failures.len()
        );
        for (what, count) in &self.not_supported {
            println!("  not supported: {what} ({count})");
        }
        assert!(
            self.failures.is_empty(),
            "failed:\n  {}",
            self.failures.join("\n  ")
        );
        assert!(
            self.ran > 0,
            "nothing ran: no case was found in {}",
            reference().display()
        );
    }
}

/// An error that names `what` unless `difference` is at most `tolerance`.
pub(crate) fn within(what: &str, difference: f64, tolerance: f64) -> Result<(), String> {
    if difference <= tolerance {
        Ok(())
    } else {
        Err(
            format!("{what} differs by {difference:.3e}, more than {tolerance:.0e}")
                .trim_start()
                .to_owned(),
        )
    }
}
