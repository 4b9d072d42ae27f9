//! Where weights come from and go: the walk over a module's parameters, and the formats of files: safetensors, shards with an index,
//! PyTorch's pickles, and all components of a pipeline in one file ([`single_file`]). Knows no model.

mod checkpoint;
mod find;
mod index;
mod layout;
mod names;
mod pickle;
mod precision;
mod rebuild;
mod safetensors;
pub mod single_file;
mod tensors;
mod torch;
mod walk;

pub use checkpoint::{Checkpoint, StoredTensor};
pub use find::{DIFFUSERS, FileNames, TRANSFORMERS};
pub use layout::to_f32;
pub use precision::Precision;
pub use safetensors::{read_tensors, write_tensors};
pub use tensors::NamedTensor;
pub use walk::{load, load_but, named_tensors, parameter_names, parameters, save};

/// The name of a model's configuration, in diffusers and transformers.
pub const CONFIG_NAME: &str = "config.json";
/// diffusers' name for a model's weights.
pub const FILE_NAME: &str = "diffusion_pytorch_model.safetensors";
