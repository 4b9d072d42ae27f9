//! GGUF files, as llama.cpp, stable-diffusion.cpp and ComfyUI-GGUF have them: tensors in types of few bits, see [`BlockType`], which are read as
//! float32.
//!
//! The format is that of `gguf.md` in ggml's repository, version 2 and 3.

mod blocks;
mod read;
mod write;

pub(super) use blocks::BlockType;
pub(super) use read::{GgufFile, MAGIC};
pub(super) use write::write;

/// Where tensors begin, in bytes, and where nobody says otherwise.
const ALIGNMENT: u64 = 32;
/// The key under which a file has another.
const ALIGNMENT_KEY: &str = "general.alignment";
