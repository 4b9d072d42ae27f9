//! From what somebody asks for to pictures: [`Request`](crate::Request) → [`Plan`] → [`Sampling`](crate::pipelines::Sampling) → pictures.

mod among;
mod animation;
mod check;
mod control;
mod evaluation;
mod facts;
mod image_prompts;
mod inversion;
mod loras;
mod memory;
mod notices;
mod plan;
mod run;
mod second;
mod sound;
mod start;
mod usual;

pub(crate) use among::exchanged;
pub use animation::Animation;
pub use control::ControlLoader;
pub use evaluation::{PictureSet, Subjects, agreement, agreement_in, draw_set, real_set};
use facts::Facts;
pub use image_prompts::IpAdapterLoader;
pub use inversion::{Asked, Inversion};
pub use loras::LoraLoader;
pub(crate) use memory::drawing;
pub use plan::{Aids, Plan};
pub use run::Watch;
pub use sound::{Sounding, sounds};
pub(crate) use start::Enlarged;
