//! Where weights come from and go: the walk over a module's parameters, and the formats of files: safetensors, shards with an index,
//! PyTorch's pickles, GGUF, all components of a pipeline in one file ([`single_file`]), and what is put on top of weights ([`lora`]). Knows no model.

mod adapt;
mod checkpoint;
mod edit;
mod find;
mod gguf;
mod hashes;
mod index;
mod layout;
pub mod lora;
mod names;
mod pickle;
mod precision;
mod rebuild;
mod replace;
mod safetensors;
pub mod single_file;
mod tensors;
mod torch;
mod walk;

pub use adapt::{
    NamedAdapter, adapt, adapters, is_adapter, layers, layers_with_weights, lengths, without_adapters,
};
pub use checkpoint::{Checkpoint, StoredTensor};
pub use edit::Edit;
pub use find::{DIFFUSERS, FileNames, TRANSFORMERS};
pub use hashes::FileHashes;
pub use layout::to_f32;
pub use precision::{Precision, writing};
pub use replace::replace;
pub use safetensors::{read_tensors, write_tensors};
pub use tensors::NamedTensor;
pub(crate) use walk::{digest, hollow};
pub use walk::{
    load, load_but, named_tensors, named_tensors_of, parameter_names, parameters, save, shapes, widened,
};

/// The name of a model's configuration, in diffusers and transformers.
pub const CONFIG_NAME: &str = "config.json";
/// diffusers' name for a model's weights.
pub const FILE_NAME: &str = "diffusion_pytorch_model.safetensors";
