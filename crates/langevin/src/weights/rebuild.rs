//! The Python objects that a state dict is pickled with, and what they come to: where each tensor's numbers lie.

use std::{ops::Range, sync::Arc};

use safetensors::Dtype;

use super::pickle::{Value, items};

/// A Python object that a pickle may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    /// `collections.OrderedDict`
    OrderedDict,
    /// `torch.nn.ParameterDict`, which keeps its entries under `_parameters`: of a learned embedding.
    ParameterDict,
    /// `torch._utils._rebuild_tensor` and `_rebuild_tensor_v2`: a view of a storage.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`: a tensor that is trained.
    RebuildParameter,
    /// `torch.FloatStorage` and its like: what a storage's numbers are.
    Storage(Dtype),
}

impl Global {
    /// The object `module.name`, where it is known.
    fn of(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch.nn.modules.container", "ParameterDict") => Self::ParameterDict,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", "FloatStorage") => Self::Storage(Dtype::F32),
            ("torch", "HalfStorage") => Self::Storage(Dtype::F16),
            ("torch", "BFloat16Storage") => Self::Storage(Dtype::BF16),
            ("torch", "DoubleStorage") => Self::Storage(Dtype::F64),
            ("torch", "LongStorage") => Self::Storage(Dtype::I64),
            ("torch", "IntStorage") => Self::Storage(Dtype::I32),
            ("torch", "ShortStorage") => Self::Storage(Dtype::I16),
            ("torch", "CharStorage") => Self::Storage(Dtype::I8),
            ("torch", "ByteStorage") => Self::Storage(Dtype::U8),
            ("torch", "BoolStorage") => Self::Storage(Dtype::BOOL),
            _ => return None,
        })
    }

    /// What a call of the object gives.
    pub(super) fn call(self, arguments: &[Value], containers: &[Vec<Value>]) -> Result<Value, String> {
        match (self, arguments) {
            (Self::RebuildTensor | Self::RebuildParameter, [unknown @ Value::Unknown(_), ..]) => {
                Ok(unknown.clone())
            }
            (Self::RebuildTensor, _) => TensorRef::of(arguments, containers)
                .map(Arc::new)
                .map(Value::Tensor),
            (Self::RebuildParameter, [tensor @ Value::Tensor(_), ..]) => Ok(tensor.clone()),
            _ => Err(format!(
                "has a broken pickle: a call of {self:?} with the wrong arguments"
            )),
        }
    }
}

/// The object `module.name` as a pickle names it.
pub(super) fn named(module: &str, name: &str) -> Value {
    match Global::of(module, name) {
        Some(global) => Value::Global(global),
        // It may be anything, of any length.
        None => {
            let name: String = format!("{module}.{name}").escape_debug().take(80).collect();
            Value::Unknown(name.into())
        }
    }
}

/// Why a state dict with such an object in it is refused.
pub(super) fn refused(name: &str) -> String {
    format!("asks for the Python object `{name}`, which weights alone do not need; it was not run")
}

/// A row of numbers in the file, as a pickle refers to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StorageRef {
    /// What the numbers are.
    pub dtype: Dtype,
    /// Its name in the file.
    pub key: Arc<str>,
    /// How many of its numbers are passed over.
    pub first: usize,
    /// How many there are after those.
    pub len: usize,
}

impl StorageRef {
    /// Reads `('storage', type, key, device, length)`, and the view of a part of it that old files may add.
    pub(super) fn of(id: &[Value], containers: &[Vec<Value>]) -> Result<Self, String> {
        let broken = || "has a broken pickle: a reference to what is no storage".to_string();
        let [
            Value::Text(kind),
            Value::Global(Global::Storage(dtype)),
            Value::Text(key),
            Value::Text(_device),
            Value::Int(len),
            view @ ..,
        ] = id
        else {
            return Err(broken());
        };
        if &**kind != "storage" {
            return Err(broken());
        }
        let (first, len) = match view {
            [] | [Value::None] => (0, *len),
            [view @ Value::Tuple(_)] => match items(containers, view) {
                [Value::Text(_), Value::Int(first), Value::Int(len)] => (*first, *len),
                _ => return Err(broken()),
            },
            _ => return Err(broken()),
        };
        let size = |n: i64| usize::try_from(n).map_err(|_| broken());
        Ok(Self {
            dtype: *dtype,
            key: key.clone(),
            first: size(first)?,
            len: size(len)?,
        })
    }
}

/// A tensor: a view of a storage. Its numbers are known to lie inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TensorRef {
    pub storage: Arc<StorageRef>,
    /// Where in the storage its first number is.
    offset: usize,
    pub shape: Vec<usize>,
    /// How far apart in the storage neighbours along each axis are.
    strides: Vec<usize>,
}

impl TensorRef {
    /// Reads `(storage, offset, shape, strides, …)`.
    fn of(arguments: &[Value], containers: &[Vec<Value>]) -> Result<Self, String> {
        let [
            Value::Storage(storage),
            Value::Int(offset),
            shape @ Value::Tuple(_),
            strides @ Value::Tuple(_),
            ..,
        ] = arguments
        else {
            return Err("has a broken pickle: a tensor that is not a view of a storage".into());
        };
        let sizes = |value| -> Option<Vec<usize>> {
            items(containers, value)
                .iter()
                .map(|item| match item {
                    Value::Int(n) => usize::try_from(*n).ok(),
                    _ => None,
                })
                .collect()
        };
        let broken = "has a tensor whose shape makes no sense";
        let tensor = Self {
            storage: storage.clone(),
            offset: usize::try_from(*offset).map_err(|_| broken)?,
            shape: sizes(shape).ok_or(broken)?,
            strides: sizes(strides).ok_or(broken)?,
        };
        if tensor.shape.len() != tensor.strides.len() {
            return Err(broken.into());
        }
        // A view may show a number many times, but a file of a few bytes is no reason for gigabytes.
        let most = storage.len.max(1 << 20);
        let fits =
            tensor.len().is_some_and(|len| len <= most) && tensor.end().is_some_and(|end| end <= storage.len);
        fits.then_some(tensor).ok_or_else(|| {
            format!(
                "has a tensor that reaches beyond the {} numbers of its storage",
                storage.len
            )
        })
    }

    /// How many numbers it has, where that can be counted.
    fn len(&self) -> Option<usize> {
        self.shape.iter().copied().try_fold(1, usize::checked_mul)
    }

    /// Where in the storage its last number ends.
    fn end(&self) -> Option<usize> {
        if self.shape.contains(&0) {
            return Some(self.offset);
        }
        let axes = self.shape.iter().zip(&self.strides);
        axes.map(|(size, stride)| (size - 1).checked_mul(*stride))
            .try_fold(self.offset, |at, step| at.checked_add(step?))?
            .checked_add(1)
    }

    /// Where its numbers lie in the bytes of the whole storage, where they lie one after another.
    pub(super) fn place(&self) -> Option<Range<usize>> {
        let size = self.storage.dtype.bitsize() / 8;
        let first = self.storage.first.checked_add(self.offset)?;
        let end = first.checked_add(self.len()?)?;
        self.is_row_major()
            .then_some(first.checked_mul(size)?..end.checked_mul(size)?)
    }

    /// Its numbers in row-major order, of the `bytes` of the whole storage.
    pub(super) fn gather(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let size = self.storage.dtype.bitsize() / 8;
        let too_short = || "ends in the middle of its weights".to_string();
        let span = |from: usize, len: usize| {
            let from = from.checked_mul(size)?;
            bytes.get(from..from.checked_add(len.checked_mul(size)?)?)
        };
        let first = self
            .storage
            .first
            .checked_add(self.offset)
            .ok_or_else(too_short)?;
        let len = self.len().unwrap_or(0);
        if self.is_row_major() {
            return span(first, len).map(<[u8]>::to_vec).ok_or_else(too_short);
        }
        let mut gathered = Vec::with_capacity(len * size);
        let mut index = vec![0; self.shape.len()];
        for _ in 0..len {
            let steps = index.iter().zip(&self.strides).map(|(i, stride)| i * stride);
            let number = span(first + steps.sum::<usize>(), 1).ok_or_else(too_short)?;
            gathered.extend_from_slice(number);
            // The next index, the last axis turning fastest.
            for (i, size) in index.iter_mut().zip(&self.shape).rev() {
                *i += 1;
                if *i < *size {
                    break;
                }
                *i = 0;
            }
        }
        Ok(gathered)
    }

    fn is_row_major(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(size, stride)| {
            let fits = *size == 1 || *stride == expected;
            expected *= size;
            fits
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(len: usize, offset: usize, shape: &[usize], strides: &[usize]) -> TensorRef {
        TensorRef {
            storage: Arc::new(StorageRef {
                dtype: Dtype::I16,
                key: "0".into(),
                first: 1,
                len,
            }),
            offset,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
        }
    }

    #[test]
    fn strides_and_offsets_are_honoured() {
        let numbers: Vec<u8> = (0..20_i16).flat_map(i16::to_le_bytes).collect();
        let gathered = |view: TensorRef| -> Vec<i16> {
            let bytes = view.gather(&numbers).unwrap();
            bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| i16::from_le_bytes(*b))
                .collect()
        };
        assert_eq!(gathered(view(19, 0, &[2, 3], &[3, 1])), [1, 2, 3, 4, 5, 6]);
        assert_eq!(gathered(view(19, 2, &[2, 3], &[1, 2])), [3, 5, 7, 4, 6, 8]);
        assert_eq!(gathered(view(19, 4, &[3], &[0])), [5, 5, 5]);
        assert_eq!(gathered(view(19, 7, &[], &[])), [8]);
        assert!(gathered(view(19, 7, &[0, 3], &[3, 1])).is_empty());
        assert!(view(19, 0, &[20], &[1]).gather(&numbers).is_err());
    }

    #[test]
    fn a_view_ends_where_its_last_number_does() {
        assert_eq!(view(0, 2, &[2, 3], &[10, 2]).end(), Some(17));
        assert_eq!(view(0, 2, &[], &[]).end(), Some(3));
        assert_eq!(view(0, 2, &[2, 0], &[usize::MAX, 1]).end(), Some(2));
        assert_eq!(view(0, 2, &[2, 3], &[usize::MAX, 2]).end(), None);
        assert_eq!(view(0, 0, &[usize::MAX, 2], &[0, 0]).len(), None);
    }
}
