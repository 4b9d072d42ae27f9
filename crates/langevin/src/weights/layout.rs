//! How a tensor lies in a file, and how in a module: as PyTorch has it, or with a layer's outputs last, as [`crate::ops`] wants the weights
//! of linear layers and convolutions.
//!
//! Both ways go in pieces, so that no tensor is there twice.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, Write},
    ops::Range,
    sync::Arc,
};

use langevin_kernels::turn::{self, Turned};
use safetensors::Dtype;

use super::gguf::BlockType;

/// Rows of a matrix that are turned back together: so many numbers are then read one after another.
const ROWS: usize = 64;
/// Columns that are turned back at once: a cache line of a row.
const LINE: usize = 16;
/// A cache line.
const LINE_BYTES: usize = 64;
/// Bytes of a file's matrix that are turned together, about: a second-level cache holds them.
const TILE_BYTES: usize = 1 << 20;
/// Numbers that are read or widened at once where nothing is turned.
const PIECE: usize = 1 << 18;

/// A tensor's bytes, little-endian and row-major, wherever they are.
pub(super) enum Bytes<'a> {
    /// From here on in a file. It is read by ranges, and not mapped into memory: a map's pages count as the process's memory beside the tensors
    /// that are made of them, and a file that another program cuts short would end this one with a signal, where a read fails.
    File(&'a File, u64),
    /// This part of what was read already.
    Memory(Arc<Vec<u8>>, Range<usize>),
    /// Numbers in blocks, which begin at `start` in a file, as bytes of float32 without the first `skipped`.
    Blocks {
        file: &'a File,
        start: u64,
        blocks: BlockType,
        skipped: usize,
    },
}

impl Bytes<'_> {
    /// The same without the first few bytes.
    pub(super) fn after(self, bytes: usize) -> Self {
        match self {
            Self::File(file, start) => Self::File(file, start + bytes as u64),
            Self::Memory(content, place) => {
                let start = place.start.saturating_add(bytes).min(place.end);
                Self::Memory(content, start..place.end)
            }
            Self::Blocks {
                file,
                start,
                blocks,
                skipped,
            } => Self::Blocks {
                file,
                start,
                blocks,
                skipped: skipped + bytes,
            },
        }
    }

    /// Fills `into` with the bytes from `at` on.
    fn read(&self, at: usize, into: &mut [u8]) -> io::Result<()> {
        match self {
            Self::File(file, start) => read_at(file, into, start + at as u64),
            Self::Memory(bytes, place) => {
                let part = bytes
                    .get(place.clone())
                    .and_then(|part| part.get(at..)?.get(..into.len()));
                into.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
            Self::Blocks {
                file,
                start,
                blocks,
                skipped,
            } => read_blocks(file, *start, *blocks, skipped + at, into),
        }
    }
}

/// Fills `into` with bytes of float32 from `at` on, of numbers in blocks.
fn read_blocks(file: &File, start: u64, blocks: BlockType, at: usize, into: &mut [u8]) -> io::Result<()> {
    const SIZE: usize = size_of::<f32>();
    let (first, last) = (at / SIZE, (at + into.len()).div_ceil(SIZE));
    let (begin, end) = (first / blocks.numbers(), last.div_ceil(blocks.numbers()));
    let mut stored = vec![0; (end - begin) * blocks.bytes()];
    read_at(file, &mut stored, start + (begin * blocks.bytes()) as u64)?;
    let mut values = vec![0.0; (end - begin) * blocks.numbers()];
    blocks.widen(&stored, &mut values);
    let skipped = at - begin * blocks.numbers() * SIZE;
    into.copy_from_slice(&to_bytes(&values)[skipped..][..into.len()]);
    Ok(())
}

#[cfg(unix)]
fn read_at(file: &File, into: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, into, at)
}

#[cfg(windows)]
fn read_at(file: &File, mut into: &mut [u8], mut at: u64) -> io::Result<()> {
    while !into.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, into, at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        into = &mut into[read..];
        at += read as u64;
    }
    Ok(())
}

/// Reads a tensor's numbers as float32, with its first axis last where it is `turned`: `[out, in, height, width]` becomes
/// `[height, width, in, out]`, and `[out, in]` `[in, out]`. `None` for types that hold no real numbers.
pub(super) fn read(
    bytes: &Bytes<'_>,
    dtype: Dtype,
    shape: &[usize],
    turned: bool,
) -> Option<io::Result<Vec<f32>>> {
    let mut values = vec![0.0; shape.iter().product()];
    Some(read_into(bytes, dtype, shape, turned, &mut values)?.map(|()| values))
}

/// The same into room that is there, as many numbers of float32, or of 16 bits as their bits.
pub(super) fn read_into<N: Number>(
    bytes: &Bytes<'_>,
    dtype: Dtype,
    shape: &[usize],
    turned: bool,
    into: &mut [N],
) -> Option<io::Result<()>> {
    let numbers = Numbers {
        bytes,
        dtype,
        size: size(dtype)?,
    };
    Some(match shape {
        [outputs, inputs, taps @ ..] if turned => {
            numbers.turned(*outputs, *inputs, taps.iter().product(), into)
        }
        _ => numbers.as_stored(into),
    })
}

/// Writes so many numbers of real ones, a piece after another, as numbers of the type `to`: itself, or one that has 16 or 32 bits.
pub(super) fn copy(
    bytes: &Bytes<'_>,
    dtype: Dtype,
    len: usize,
    to: Dtype,
    w: &mut dyn Write,
) -> io::Result<()> {
    let size = dtype.bitsize() / 8;
    let mut piece = Vec::new();
    for first in (0..len).step_by(PIECE) {
        piece.resize(PIECE.min(len - first) * size, 0);
        bytes.read(first * size, &mut piece)?;
        w.write_all(&as_type(dtype, &piece, to))?;
    }
    Ok(())
}

/// The same of a matrix `[rows, columns]` the other way round, which is held in memory.
pub(super) fn copy_transposed(
    bytes: &Bytes<'_>,
    dtype: Dtype,
    [rows, columns]: [usize; 2],
    to: Dtype,
    w: &mut dyn Write,
) -> io::Result<()> {
    let size = dtype.bitsize() / 8;
    let mut stored = vec![0; rows * columns * size];
    bytes.read(0, &mut stored)?;
    let mut turned = Vec::with_capacity(stored.len());
    for column in 0..columns {
        for row in 0..rows {
            turned.extend_from_slice(&stored[(row * columns + column) * size..][..size]);
        }
    }
    w.write_all(&as_type(dtype, &turned, to))
}

/// Numbers of a type as numbers of another, see [`copy`].
pub(super) fn as_type(from: Dtype, bytes: &[u8], to: Dtype) -> Cow<'_, [u8]> {
    if from == to {
        return Cow::Borrowed(bytes);
    }
    let values = to_f32(from, bytes).unwrap_or_default();
    let values = values.iter();
    Cow::Owned(match to {
        Dtype::F16 => values
            .flat_map(|x| half::f16::from_f32(*x).to_le_bytes())
            .collect(),
        Dtype::BF16 => values
            .flat_map(|x| half::bf16::from_f32(*x).to_le_bytes())
            .collect(),
        _ => values.flat_map(|x| x.to_le_bytes()).collect(),
    })
}

/// A tensor's numbers, as they lie in its bytes.
struct Numbers<'a> {
    bytes: &'a Bytes<'a>,
    dtype: Dtype,
    size: usize,
}

/// What numbers are read as.
pub(super) trait Number: bytemuck::Pod + Turned {
    /// Makes numbers of bytes; those of another type are widened.
    fn of_bytes(dtype: Dtype, bytes: &[u8], into: &mut [Self]);

    /// Whether numbers of this type are these, byte for byte, on a little-endian machine.
    fn is(dtype: Dtype) -> bool;
}

impl Number for f32 {
    fn of_bytes(dtype: Dtype, bytes: &[u8], into: &mut [Self]) {
        widen(dtype, bytes, into);
    }

    fn is(dtype: Dtype) -> bool {
        dtype == Dtype::F32
    }
}

/// The bits of a number.
impl Number for u16 {
    fn of_bytes(_: Dtype, bytes: &[u8], into: &mut [Self]) {
        each(bytes, into, u16::from_le_bytes);
    }

    fn is(_: Dtype) -> bool {
        true
    }
}

impl Numbers<'_> {
    /// Fills `into` with the numbers from `first` on; `scratch` is for those that are to be widened.
    fn read<N: Number>(&self, first: usize, into: &mut [N], scratch: &mut Vec<u8>) -> io::Result<()> {
        if N::is(self.dtype) && cfg!(target_endian = "little") {
            return self.bytes.read(first * self.size, bytemuck::cast_slice_mut(into));
        }
        scratch.resize(into.len() * self.size, 0);
        self.bytes.read(first * self.size, scratch)?;
        N::of_bytes(self.dtype, scratch, into);
        Ok(())
    }

    fn as_stored<N: Number>(&self, into: &mut [N]) -> io::Result<()> {
        let mut scratch = Vec::new();
        for (i, piece) in into.chunks_mut(PIECE).enumerate() {
            self.read(i * PIECE, piece, &mut scratch)?;
        }
        Ok(())
    }

    fn turned<N: Number>(
        &self,
        outputs: usize,
        inputs: usize,
        taps: usize,
        into: &mut [N],
    ) -> io::Result<()> {
        let columns = inputs * taps;
        if into.is_empty() {
            return Ok(());
        }
        // Whole rows, so that they are read at once, and whole cache lines of what becomes of them.
        let line = LINE_BYTES / size_of::<N>();
        let rows = (TILE_BYTES / (columns * size_of::<N>()) / line * line).clamp(line, turn::ROWS);
        let mut scratch = Vec::new();
        let mut tile = vec![N::zeroed(); rows.min(outputs) * columns];
        for row in (0..outputs).step_by(rows) {
            let tile = &mut tile[..rows.min(outputs - row) * columns];
            self.read(row * columns, tile, &mut scratch)?;
            turn::turn(tile, row, [outputs, inputs, taps], into);
        }
        Ok(())
    }
}

/// Numbers that are there already with their first axis last, see [`read`].
pub(super) fn turned(values: Vec<f32>, shape: &[usize]) -> Vec<f32> {
    let [outputs, inputs, taps @ ..] = shape else {
        return values;
    };
    let size = [*outputs, *inputs, taps.iter().product()];
    let mut turned = vec![0.0; values.len()];
    for (block, rows) in values.chunks((turn::ROWS * size[1] * size[2]).max(1)).enumerate() {
        turn::turn(rows, block * turn::ROWS, size, &mut turned);
    }
    turned
}

/// The other way: of `[height, width, in, out]` with so many `taps`, height times width, and `outputs`, `[out, in, height, width]`.
pub(super) fn turned_back(values: &[f32], taps: usize, outputs: usize) -> Vec<f32> {
    let columns = values.len() / outputs.max(1);
    let inputs = columns / taps.max(1);
    let mut turned = vec![0.0; values.len()];
    let mut lines = [[0.0; LINE]; ROWS];
    for (block, rows) in turned.chunks_mut((ROWS * columns).max(1)).enumerate() {
        for first in (0..columns).step_by(LINE) {
            let end = columns.min(first + LINE);
            for (i, column) in (first..end).enumerate() {
                let (input, tap) = (column / taps, column % taps);
                let line = &values[(tap * inputs + input) * outputs..][..outputs];
                for (turned, value) in lines.iter_mut().zip(&line[ROWS * block..]) {
                    turned[i] = *value;
                }
            }
            for (row, line) in rows.chunks_exact_mut(columns).zip(&lines) {
                row[first..end].copy_from_slice(&line[..end - first]);
            }
        }
    }
    turned
}

/// How many bytes a number has; `None` for types that hold no real numbers.
pub(super) fn size(dtype: Dtype) -> Option<usize> {
    let real = matches!(dtype, Dtype::F32 | Dtype::F64 | Dtype::F16 | Dtype::BF16);
    real.then(|| dtype.bitsize() / 8)
}

/// Little-endian numbers of a type of [`size`] as float32.
fn widen(dtype: Dtype, bytes: &[u8], into: &mut [f32]) {
    match dtype {
        Dtype::F64 => each(bytes, into, |b| f64::from_le_bytes(b) as f32),
        Dtype::F16 => each(bytes, into, |b| half::f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => each(bytes, into, |b| half::bf16::from_le_bytes(b).to_f32()),
        _ => each(bytes, into, f32::from_le_bytes),
    }
}

fn each<T, const N: usize>(bytes: &[u8], into: &mut [T], read: impl Fn([u8; N]) -> T) {
    for (chunk, value) in bytes.as_chunks::<N>().0.iter().zip(into) {
        *value = read(*chunk);
    }
}

/// Little-endian numbers of a safetensors type as float32; `None` for types that hold no real numbers.
pub fn to_f32(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let mut values = vec![0.0; bytes.len() / size(dtype)?];
    widen(dtype, bytes, &mut values);
    Some(values)
}

/// Numbers as little-endian bytes.
pub(super) fn to_bytes(values: &[f32]) -> Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        Cow::Borrowed(bytemuck::cast_slice(values))
    } else {
        Cow::Owned(values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that float16 and bfloat16 hold.
    fn numbers(len: usize) -> Vec<f32> {
        (0..len).map(|i| (i % 251) as f32).collect()
    }

    #[test]
    fn turning_is_a_permutation_and_turning_back_undoes_it() {
        for (outputs, inputs, taps) in [
            (3, 5, 1),
            (64, 2048, 1),
            (70, 230, 9),
            (65, 1, 25),
            (1, 1, 1),
            (2, 0, 1),
        ] {
            let stored = numbers(outputs * inputs * taps);
            let bytes = to_bytes(&stored).into_owned();
            let bytes = Bytes::Memory(Arc::new(bytes.clone()), 0..bytes.len());
            let shape = [outputs, inputs, taps];
            let turned = read(&bytes, Dtype::F32, &shape, true).unwrap().unwrap();
            for (place, value) in stored.iter().enumerate() {
                let (output, input, tap) = (place / (inputs * taps), place / taps % inputs, place % taps);
                assert_eq!(
                    turned[(tap * inputs + input) * outputs + output],
                    *value,
                    "{shape:?}"
                );
            }
            assert_eq!(turned_back(&turned, taps, outputs), stored, "{shape:?}");
        }
    }

    #[test]
    fn every_type_is_widened_however_it_is_read() {
        let (shape, expected) = ([70, 2100], numbers(70 * 2100));
        let narrow: [(Dtype, Vec<u8>); 3] = [
            (
                Dtype::F64,
                expected
                    .iter()
                    .flat_map(|x| f64::from(*x).to_le_bytes())
                    .collect(),
            ),
            (
                Dtype::F16,
                expected
                    .iter()
                    .flat_map(|x| half::f16::from_f32(*x).to_le_bytes())
                    .collect(),
            ),
            (
                Dtype::BF16,
                expected
                    .iter()
                    .flat_map(|x| half::bf16::from_f32(*x).to_le_bytes())
                    .collect(),
            ),
        ];
        for (dtype, bytes) in narrow {
            let bytes = Bytes::Memory(Arc::new(bytes.clone()), 0..bytes.len());
            assert_eq!(read(&bytes, dtype, &shape, false).unwrap().unwrap(), expected);
            let turned = read(&bytes, dtype, &shape, true).unwrap().unwrap();
            assert_eq!(turned_back(&turned, 1, shape[0]), expected);
        }
        let bytes = Bytes::Memory(Arc::new(vec![0; 8]), 0..8);
        assert!(read(&bytes, Dtype::I64, &[1], false).is_none());
    }

    #[test]
    fn bytes_that_are_not_there_are_an_error() {
        let short = Bytes::Memory(Arc::new(vec![0; 11]), 0..11);
        for turned in [false, true] {
            let error = read(&short, Dtype::F32, &[3, 1], turned).unwrap().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
