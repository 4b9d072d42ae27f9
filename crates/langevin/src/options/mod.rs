//! What somebody asks for, as plain data: a [`Request`] for pictures, and [`SampleOptions`], one call of a pipeline in numbers.

mod class_name;
mod embeddings;
mod request;
mod sample;

pub use class_name::ClassName;
pub use embeddings::Embeddings;
pub use request::Request;
pub use sample::{ConditioningImage, SampleOptions, SizeOptions};
