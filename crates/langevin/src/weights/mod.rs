//! Where weights come from and go: the walk over a module's parameters, and the formats of files: safetensors, shards with an index,
//! PyTorch's pickles. Knows no model.

mod checkpoint;
mod find;
mod index;
mod names;
mod pickle;
mod rebuild;
mod tensors;
mod torch;
mod walk;

pub use checkpoint::{Checkpoint, StoredTensor};
pub use find::{DIFFUSERS, FileNames, TRANSFORMERS};
pub use tensors::{NamedTensor, read_tensors, to_f32, write_tensors};
pub use walk::{load, load_but, named_tensors, parameter_names, parameters, save};

/// The name of a model's configuration, in diffusers and transformers.
pub const CONFIG_NAME: &str = "config.json";
/// diffusers' name for a model's weights.
pub const FILE_NAME: &str = "diffusion_pytorch_model.safetensors";
