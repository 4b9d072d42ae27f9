//! What several models check of their configurations and of what they are told.

use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::Conditioning;
use crate::{Error, Result};

/// Refuses a number that is not from 1 to its limit.
pub(super) fn bounded(numbers: &[(&str, usize, usize)]) -> Result<()> {
    let wrong = |&&(_, value, limit): &&(&str, usize, usize)| value == 0 || value > limit;
    match numbers.iter().find(wrong) {
        None => Ok(()),
        Some((name, value, limit)) => Err(Error::Config(format!(
            "{name} is {value}: it must be from 1 to {limit}"
        ))),
    }
}

/// Whether Python takes the value for a no, as diffusers takes a setting that is written so.
fn is_no(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(yes) => !yes,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
    }
}

/// A setting of diffusers that is on or off; `null` is off, as Python takes it.
pub(super) fn on_or_off<'de, D: Deserializer<'de>>(value: D) -> std::result::Result<bool, D::Error> {
    Option::<bool>::deserialize(value).map(Option::unwrap_or_default)
}

/// Refuses settings of diffusers that change a model and have only one meaning here yet.
pub(super) fn only(class: &str, given: &Map<String, Value>, only: &[(&str, Value)]) -> Result<()> {
    for (name, only) in only {
        let is_other = |value: &&Value| *value != only && !(is_no(value) && is_no(only));
        if let Some(value) = given.get(*name).filter(is_other) {
            return Err(Error::Unsupported(format!(
                "{name} {value} is not there yet for a {class}; {only} is"
            )));
        }
    }
    Ok(())
}

/// Refuses dropout, which the transformers have no layers for.
pub(super) fn no_dropout(class: &str, dropout: f64) -> Result<()> {
    if dropout == 0.0 {
        return Ok(());
    }
    Err(Error::Unsupported(format!(
        "dropout {dropout} is not there yet for a {class}; 0 is"
    )))
}

/// Refuses what is no positive number.
pub(super) fn positive(name: &str, value: f64) -> Result<()> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(Error::Config(format!(
        "{name} is {value}: it must be a positive number"
    )))
}

/// The numbers that every transformer of patches has.
#[derive(Clone, Copy, Debug)]
pub(super) struct PatchNumbers {
    pub in_channels: usize,
    pub out_channels: usize,
    pub num_layers: usize,
    pub num_attention_heads: usize,
    pub attention_head_dim: usize,
    pub sample_size: usize,
    pub patch_size: usize,
}

impl PatchNumbers {
    /// Channels of a token.
    pub(super) fn inner_dim(&self) -> usize {
        self.num_attention_heads.saturating_mul(self.attention_head_dim)
    }

    /// Numbers of a patch of the prediction.
    pub(super) fn patch_numbers(&self) -> usize {
        self.patch_size * self.patch_size * self.out_channels
    }

    /// Refuses those that make no model.
    pub(super) fn validate(&self) -> Result<()> {
        bounded(&[
            ("in_channels", self.in_channels, 4096),
            ("out_channels", self.out_channels, 4096),
            ("num_layers", self.num_layers, 256),
            ("num_attention_heads", self.num_attention_heads, 1 << 10),
            ("attention_head_dim", self.attention_head_dim, 1 << 10),
            ("sample_size", self.sample_size, 1 << 14),
            ("patch_size", self.patch_size, 64),
        ])?;
        let width = self.inner_dim();
        if width > 1 << 14 || !width.is_multiple_of(4) {
            return Err(Error::Config(format!(
                "num_attention_heads {} times attention_head_dim {} is {width}: it must be at most {} and divisible by 4",
                self.num_attention_heads,
                self.attention_head_dim,
                1 << 14
            )));
        }
        if !self.sample_size.is_multiple_of(self.patch_size) {
            return Err(Error::Config(format!(
                "sample_size {} is not divisible by patch_size {}",
                self.sample_size, self.patch_size
            )));
        }
        Ok(())
    }

    /// Patches along a side of the pictures that the model was made for.
    pub(super) fn base_size(&self) -> usize {
        self.sample_size / self.patch_size
    }

    /// Refuses pictures and timesteps that do not fit; returns how many pictures there are, and their patches down and across.
    pub(super) fn check_input(&self, x: &Tensor<4>, timesteps: &Tensor<1>) -> Result<(usize, [usize; 2])> {
        let patch = self.patch_size;
        let parts = format_args!("patches of {patch}x{patch}");
        super::check_input(x, timesteps, self.in_channels, parts, patch)?;
        let [batch, _, height, width] = x.dims();
        Ok((batch, [height / patch, width / patch]))
    }
}

impl Conditioning {
    /// A class for each picture.
    pub(super) fn needed_classes(&self, batch: usize) -> Result<Tensor<1, Int>> {
        let classes = self.classes.clone().ok_or_else(|| {
            Error::Config("this model is class-conditional: it needs a class for each picture".into())
        })?;
        if classes.dims() != [batch] {
            return Err(Error::Shape(format!(
                "there are {} classes for {batch} pictures: each needs one",
                classes.dims()[0]
            )));
        }
        Ok(classes)
    }

    /// A sequence for each picture, of vectors of so many numbers.
    pub(super) fn needed_sequence(&self, batch: usize, dimension: usize) -> Result<Tensor<3>> {
        let Some(sequence) = self.sequence.clone() else {
            return Err(Error::Config(
                "this model looks at a sequence, such as a caption's embedding: it needs one for each picture"
                    .into(),
            ));
        };
        let [pictures, length, numbers] = sequence.dims();
        if pictures != batch || length == 0 || numbers != dimension {
            return Err(Error::Shape(format!(
                "the sequence has shape [{pictures}, {length}, {numbers}] where [{batch}, length, {dimension}] is needed"
            )));
        }
        Ok(sequence)
    }

    /// A vector for each picture, of so many numbers.
    pub(super) fn needed_vector(&self, batch: usize, dimension: usize) -> Result<Tensor<2>> {
        let Some(vector) = self.vector.clone() else {
            return Err(Error::Config(format!(
                "this model needs a vector of {dimension} numbers for each picture"
            )));
        };
        let expected = [batch, dimension];
        if vector.dims() != expected {
            return Err(Error::Shape(format!(
                "the vectors have shape {:?} where {expected:?} is needed: one per picture",
                vector.dims()
            )));
        }
        Ok(vector)
    }
}
