//! What somebody asks for, as plain data: a [`Request`] for pictures, and [`SampleOptions`], one call of a pipeline in numbers.

mod class_name;
mod control;
mod embeddings;
mod ip_adapter;
mod lora;
mod lora_input;
mod lora_tags;
mod request;
mod sample;
#[cfg(feature = "schema")]
mod schema;
mod sound;
mod upscale;

pub use class_name::ClassName;
pub use control::ControlInput;
pub use embeddings::Embeddings;
pub use ip_adapter::IpAdapterInput;
pub use lora::Lora;
pub use lora_input::LoraInput;
pub(crate) use lora_tags::names_lora;
pub use lora_tags::{LoraTag, take_loras};
pub use request::Request;
pub use sample::{ConditioningImage, SampleOptions, SizeOptions};
pub use sound::SoundOptions;
pub use upscale::UpscaleBy;
