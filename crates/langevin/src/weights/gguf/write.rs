//! Writing one.

use std::path::Path;

use ::safetensors::Dtype;

use super::{ALIGNMENT, BlockType, blocks::to_q8_0, read::MAGIC};
use crate::{
    Error, Result, files,
    weights::{layout::as_type, layout::to_f32, safetensors::Entry},
};

/// The version that is written.
const VERSION: u32 = 3;
/// The number of the type of keys' values that are texts.
const TEXT: u32 = 8;
/// The same of whole numbers of 32 bits.
const WHOLE: u32 = 4;
/// The axes that ggml's tensors have at most.
const MOST_AXES: usize = 4;

/// What stable-diffusion.cpp leaves as it is, by a part of its name: tables, and what works on the time and on what is told as a vector.
const AS_THEY_ARE: [&str; 4] = ["embedding", "time_embed.", "label_emb.", "pos_embed"];

/// What becomes of a tensor.
#[derive(Clone, Copy)]
enum Written {
    Plain(Dtype, u32),
    Q8_0,
}

impl Written {
    fn of(entry: &Entry<'_>, quantised: bool) -> Self {
        let [.., row] = entry.shape.as_slice() else {
            return Self::plain(entry.dtype);
        };
        let matrix = entry.shape.len() == 2 && entry.name.ends_with(".weight");
        let stays = AS_THEY_ARE.iter().any(|part| entry.name.contains(part));
        match quantised && matrix && !stays && row.is_multiple_of(BlockType::Q8_0.numbers()) {
            true => Self::Q8_0,
            false => Self::plain(entry.dtype),
        }
    }

    fn plain(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F16 => Self::Plain(dtype, 1),
            Dtype::BF16 => Self::Plain(dtype, 30),
            _ => Self::Plain(Dtype::F32, 0),
        }
    }

    fn id(self) -> u32 {
        match self {
            Self::Plain(_, id) => id,
            Self::Q8_0 => BlockType::Q8_0.id(),
        }
    }

    fn bytes(self, numbers: u64) -> u64 {
        match self {
            Self::Plain(dtype, _) => numbers * (dtype.bitsize() as u64 / 8),
            Self::Q8_0 => numbers / BlockType::Q8_0.numbers() as u64 * BlockType::Q8_0.bytes() as u64,
        }
    }
}

/// Writes tensors as a GGUF file of an architecture, as stable-diffusion.cpp does: matrices whose rows are whole blocks in eight bits a number where
/// they are to be `quantised`, everything else in the type that it has.
pub(in crate::weights) fn write(
    path: &Path,
    mut entries: Vec<Entry<'_>>,
    architecture: &str,
    quantised: bool,
) -> Result<()> {
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(entry) = entries.iter().find(|entry| entry.shape.len() > MOST_AXES) {
        return Err(Error::file(
            path,
            format!(
                "the tensors cannot be stored: {} has more than {MOST_AXES} axes",
                entry.name
            ),
        ));
    }
    let written: Vec<Written> = entries
        .iter()
        .map(|entry| Written::of(entry, quantised))
        .collect();
    let mut header = Vec::new();
    header.extend(MAGIC);
    header.extend(VERSION.to_le_bytes());
    header.extend((entries.len() as u64).to_le_bytes());
    header.extend(3_u64.to_le_bytes());
    text(&mut header, "general.architecture");
    header.extend(TEXT.to_le_bytes());
    text(&mut header, architecture);
    // 7: most of the tensors are q8_0; 1: f16, which is what others call those with nothing in blocks.
    for (key, value) in [
        ("general.quantization_version", 2_u32),
        ("general.file_type", if quantised { 7 } else { 1 }),
    ] {
        text(&mut header, key);
        header.extend(WHOLE.to_le_bytes());
        header.extend(value.to_le_bytes());
    }
    let mut offset = 0_u64;
    for (entry, written) in entries.iter().zip(&written) {
        text(&mut header, &entry.name);
        // A number alone is a list of one.
        let shape = if entry.shape.is_empty() {
            &[1][..]
        } else {
            &entry.shape
        };
        header.extend((shape.len() as u32).to_le_bytes());
        for side in shape.iter().rev() {
            header.extend((*side as u64).to_le_bytes());
        }
        header.extend(written.id().to_le_bytes());
        header.extend(offset.to_le_bytes());
        let numbers = shape.iter().map(|&side| side as u64).product();
        offset = (offset + written.bytes(numbers)).next_multiple_of(ALIGNMENT);
    }
    pad(&mut header);
    files::write_atomically(path, |w| {
        w.write_all(&header)?;
        for (entry, written) in entries.iter().zip(&written) {
            let mut bytes = Vec::new();
            (entry.write)(&mut bytes)?;
            let mut bytes = match written {
                Written::Plain(dtype, _) => as_type(entry.dtype, &bytes, *dtype).into_owned(),
                Written::Q8_0 => to_q8_0(&to_f32(entry.dtype, &bytes).unwrap_or_default()),
            };
            pad(&mut bytes);
            w.write_all(&bytes)?;
        }
        Ok(())
    })
}

fn text(into: &mut Vec<u8>, text: &str) {
    into.extend((text.len() as u64).to_le_bytes());
    into.extend(text.as_bytes());
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
}
