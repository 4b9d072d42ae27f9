//! What somebody asks for, as plain data.

mod sample;

pub use sample::{ConditioningImage, SampleOptions};
