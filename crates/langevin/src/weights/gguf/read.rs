//! Reading one: the header at once, tensors by ranges.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufReader, ErrorKind, Read},
    path::Path,
};

use ::safetensors::Dtype;

use super::{ALIGNMENT, ALIGNMENT_KEY, BlockType};
use crate::{
    Error, Result, files,
    weights::{StoredTensor, layout::Bytes},
};

/// How a file begins.
pub(in crate::weights) const MAGIC: &[u8] = b"GGUF";
/// The key under which a file says how many there are of it.
const SPLITS_KEY: &str = "split.count";
/// What the names of keys begin with under which ComfyUI-GGUF keeps the shape of a tensor that it stores in another.
const SHAPE_KEY: &str = "comfy.gguf.orig_shape.";

/// Tensors that a file may have.
const MOST_TENSORS: u64 = 1 << 17;
/// Keys that a file may have.
const MOST_KEYS: u64 = 1 << 16;
/// Bytes of a name or a key.
const LONGEST_NAME: u64 = 1 << 12;
/// How deep arrays may lie in arrays.
const DEEPEST: usize = 4;
/// Axes that a tensor may have.
const MOST_AXES: u32 = 8;

/// An open file, of which the header has been read. All its tensors lie in it.
pub(in crate::weights) struct GgufFile {
    file: File,
    tensors: BTreeMap<String, (StoredTensor, Place)>,
    /// The names of the types that there are.
    types: BTreeSet<&'static str>,
}

/// Where a tensor's numbers lie.
#[derive(Clone, Copy)]
struct Place {
    start: u64,
    blocks: Option<BlockType>,
}

/// What the numbers of a tensor are.
#[derive(Clone, Copy)]
enum Type {
    Plain(Dtype, &'static str),
    Blocks(BlockType),
}

/// ggml's numbers of types whose numbers lie one by one.
const PLAIN: [(u32, Dtype, &str); 8] = [
    (0, Dtype::F32, "f32"),
    (1, Dtype::F16, "f16"),
    (24, Dtype::I8, "i8"),
    (25, Dtype::I16, "i16"),
    (26, Dtype::I32, "i32"),
    (27, Dtype::I64, "i64"),
    (28, Dtype::F64, "f64"),
    (30, Dtype::BF16, "bf16"),
];

impl Type {
    fn of_id(id: u32) -> Option<Self> {
        let plain = PLAIN.iter().find(|(plain, ..)| *plain == id);
        let plain = plain.map(|(_, dtype, name)| Self::Plain(*dtype, name));
        plain.or_else(|| BlockType::of_id(id).map(Self::Blocks))
    }

    /// The bytes of so many numbers; `None` where they are no whole blocks or too many.
    fn bytes(self, numbers: u64) -> Option<u64> {
        match self {
            Self::Plain(dtype, _) => numbers.checked_mul(dtype.bitsize() as u64 / 8),
            Self::Blocks(blocks) => {
                let whole = numbers.is_multiple_of(blocks.numbers() as u64);
                let count = numbers / blocks.numbers() as u64;
                whole.then_some(count)?.checked_mul(blocks.bytes() as u64)
            }
        }
    }
}

impl GgufFile {
    /// Opens a file and reads its header.
    pub(in crate::weights) fn open(path: &Path) -> Result<Self> {
        let file = files::open(path)?;
        let length = file.metadata().map_err(|e| Error::io("read", path, e))?.len();
        let header = Header {
            from: BufReader::new(&file),
            at: 0,
            length,
        };
        let read = header.read().map_err(|failure| match failure {
            Failure::Io(e) if e.kind() == ErrorKind::UnexpectedEof => {
                Error::file(path, "is not a whole GGUF file: it ends in its header")
            }
            Failure::Io(e) => Error::io("read", path, e),
            Failure::Said(why) => Error::file(path, why),
        })?;
        let (tensors, types) = read;
        Ok(Self { file, tensors, types })
    }

    /// What it is, for a sentence: `GGUF of f16, q8_0`.
    pub(in crate::weights) fn format(&self) -> String {
        let types: Vec<&str> = self.types.iter().copied().collect();
        format!("GGUF of {}", types.join(", "))
    }

    /// Every tensor's name with its shape, and its type as it is read: blocks are float32.
    pub(in crate::weights) fn tensors(&self) -> impl Iterator<Item = (&String, &StoredTensor)> {
        self.tensors.iter().map(|(name, (stored, _))| (name, stored))
    }

    /// A tensor's bytes.
    pub(in crate::weights) fn bytes(&self, name: &str) -> Option<Bytes<'_>> {
        let (_, place) = self.tensors.get(name)?;
        Some(match place.blocks {
            None => Bytes::File(&self.file, place.start),
            Some(blocks) => Bytes::Blocks {
                file: &self.file,
                start: place.start,
                blocks,
                skipped: 0,
            },
        })
    }
}

/// Why a header was not read.
enum Failure {
    Io(io::Error),
    Said(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn said<T>(why: impl Into<String>) -> std::result::Result<T, Failure> {
    Err(Failure::Said(why.into()))
}

/// A header as it is read.
struct Header<R> {
    from: R,
    at: u64,
    /// Bytes of the file.
    length: u64,
}

/// The tensors of a file, and the names of their types.
type Tensors = (BTreeMap<String, (StoredTensor, Place)>, BTreeSet<&'static str>);

/// A value of a key, as far as it matters here.
enum Value {
    Whole(u64),
    /// The whole numbers of an array.
    List(Vec<u64>),
    Other,
}

impl<R: Read> Header<R> {
    fn read(mut self) -> std::result::Result<Tensors, Failure> {
        let magic: [u8; 4] = self.bytes()?;
        if magic != MAGIC {
            return said("is no GGUF file");
        }
        match u32::from_le_bytes(self.bytes()?) {
            2 | 3 => {}
            version if version.swap_bytes() < 256 => {
                return said("is a GGUF file of a big-endian machine, which is not supported");
            }
            version => {
                return said(format!(
                    "is a GGUF file of version {version}, which is not supported: 2 and 3 are"
                ));
            }
        }
        let tensors = self.count(MOST_TENSORS, "tensors")?;
        let keys = self.count(MOST_KEYS, "keys")?;
        let (mut alignment, mut shapes) = (ALIGNMENT, BTreeMap::new());
        for _ in 0..keys {
            let key = self.name()?;
            let kind = u32::from_le_bytes(self.bytes()?);
            match (key.as_str(), self.value(kind, 0)?) {
                (ALIGNMENT_KEY, Value::Whole(own)) if own.is_power_of_two() && own <= 1 << 20 => {
                    alignment = own;
                }
                (ALIGNMENT_KEY, _) => {
                    return said("has tensors at places that are no multiple of a power of two");
                }
                (SPLITS_KEY, Value::Whole(count)) if count > 1 => {
                    return said(format!(
                        "is one of {count} files of a model, which are not supported"
                    ));
                }
                (_, Value::List(shape)) => {
                    if let Some(name) = key.strip_prefix(SHAPE_KEY) {
                        shapes.insert(name.to_string(), shape);
                    }
                }
                _ => {}
            }
        }
        let mut infos = BTreeMap::new();
        for _ in 0..tensors {
            let name = self.name()?;
            let info = self.info(&name, &shapes)?;
            if infos.insert(name.clone(), info).is_some() {
                return said(format!("has two tensors of the name {name}"));
            }
        }
        let begin = self.at.next_multiple_of(alignment);
        let mut types = BTreeSet::new();
        let mut placed = BTreeMap::new();
        for (name, (shape, kind, offset)) in infos {
            let numbers = shape
                .iter()
                .try_fold(1_u64, |n, &side| n.checked_mul(side as u64));
            let Some(bytes) = numbers.and_then(|numbers| kind.bytes(numbers)) else {
                return said(format!("has no whole blocks of numbers in {name}"));
            };
            let start = begin.checked_add(offset);
            let end = start.and_then(|start| start.checked_add(bytes));
            let (Some(start), true) = (start, end.is_some_and(|end| end <= self.length)) else {
                return said(format!("is not a whole GGUF file: {name} does not lie in it"));
            };
            let (dtype, blocks, called) = match kind {
                Type::Plain(dtype, called) => (dtype, None, called),
                Type::Blocks(blocks) => (Dtype::F32, Some(blocks), blocks.name()),
            };
            types.insert(called);
            placed.insert(name, (StoredTensor { dtype, shape }, Place { start, blocks }));
        }
        Ok((placed, types))
    }

    /// What is said of a tensor: its shape as PyTorch has it, its type, and where it begins.
    fn info(
        &mut self,
        name: &str,
        shapes: &BTreeMap<String, Vec<u64>>,
    ) -> std::result::Result<(Vec<usize>, Type, u64), Failure> {
        let axes = u32::from_le_bytes(self.bytes()?);
        if axes > MOST_AXES {
            return said(format!("has a tensor of {axes} axes, {name}"));
        }
        let mut sides = Vec::new();
        for _ in 0..axes {
            sides.push(u64::from_le_bytes(self.bytes()?));
        }
        let id = u32::from_le_bytes(self.bytes()?);
        let Some(kind) = Type::of_id(id) else {
            return said(format!(
                "has {name} in ggml's type {id}, which is not supported: f32, f16, bf16 and {} are",
                BlockType::names()
            ));
        };
        if let (Type::Blocks(blocks), Some(row)) = (kind, sides.first())
            && !row.is_multiple_of(blocks.numbers() as u64)
        {
            return said(format!(
                "has rows of {row} numbers in {name}, which are no whole blocks"
            ));
        }
        let offset = u64::from_le_bytes(self.bytes()?);
        // Also where there are no numbers, a side may be multiplied with others.
        let filled = sides
            .iter()
            .try_fold(1_u64, |n, &side| n.checked_mul(side.max(1)));
        if filled.is_none() {
            return said(format!("has a tensor that is too large, {name}"));
        }
        // The innermost comes first in the file.
        sides.reverse();
        if let Some(own) = shapes.get(name) {
            let count = |sides: &[u64]| sides.iter().try_fold(1_u64, |n, &side| n.checked_mul(side));
            if own.len() > MOST_AXES as usize || count(own).is_none() || count(own) != count(&sides) {
                return said(format!(
                    "says that {name} has a shape of other numbers than it has"
                ));
            }
            sides.clone_from(own);
        }
        let shape = sides.iter().map(|&side| usize::try_from(side)).collect();
        match shape {
            Ok(shape) => Ok((shape, kind, offset)),
            Err(_) => said(format!("has a tensor that is too large, {name}")),
        }
    }

    /// A value of a type, or of several of it one after another.
    fn value(&mut self, kind: u32, depth: usize) -> std::result::Result<Value, Failure> {
        Ok(match kind {
            0 | 7 => Value::Whole(u64::from(self.bytes::<1>()?[0])),
            1 => whole(i64::from(self.bytes::<1>()?[0] as i8)),
            2 => Value::Whole(u64::from(u16::from_le_bytes(self.bytes()?))),
            3 => whole(i64::from(i16::from_le_bytes(self.bytes()?))),
            4 => Value::Whole(u64::from(u32::from_le_bytes(self.bytes()?))),
            5 => whole(i64::from(i32::from_le_bytes(self.bytes()?))),
            10 => Value::Whole(u64::from_le_bytes(self.bytes()?)),
            11 => whole(i64::from_le_bytes(self.bytes()?)),
            6 => {
                self.bytes::<4>()?;
                Value::Other
            }
            12 => {
                self.bytes::<8>()?;
                Value::Other
            }
            8 => {
                let length = u64::from_le_bytes(self.bytes()?);
                self.skip(length)?;
                Value::Other
            }
            9 if depth < DEEPEST => {
                let kind = u32::from_le_bytes(self.bytes()?);
                let count = u64::from_le_bytes(self.bytes()?);
                // Each has a byte at least.
                if count > self.length.saturating_sub(self.at) {
                    return Err(io::Error::from(ErrorKind::UnexpectedEof).into());
                }
                let mut list = Vec::new();
                for _ in 0..count {
                    match self.value(kind, depth + 1)? {
                        Value::Whole(number) if list.len() <= MOST_AXES as usize => list.push(number),
                        _ => {}
                    }
                }
                Value::List(list)
            }
            kind => return said(format!("has a value of the type {kind}, which GGUF has not")),
        })
    }

    fn count(&mut self, most: u64, what: &str) -> std::result::Result<u64, Failure> {
        match u64::from_le_bytes(self.bytes()?) {
            count if count > most => said(format!("is a GGUF file of {count} {what}; {most} are the most")),
            count => Ok(count),
        }
    }

    fn name(&mut self) -> std::result::Result<String, Failure> {
        let length = u64::from_le_bytes(self.bytes()?);
        if length > LONGEST_NAME {
            return said(format!(
                "has a name of {length} bytes; {LONGEST_NAME} are the most"
            ));
        }
        let mut name = vec![0; length as usize];
        self.from.read_exact(&mut name)?;
        self.at += length;
        String::from_utf8(name).or_else(|_| said("has a name that is no UTF-8"))
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.from.by_ref().take(bytes), &mut io::sink())?;
        self.at += skipped;
        match skipped == bytes {
            true => Ok(()),
            false => Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// A number that may be below zero, which nothing here asks for.
fn whole(number: i64) -> Value {
    u64::try_from(number).map_or(Value::Other, Value::Whole)
}
