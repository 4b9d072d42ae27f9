//! What a run trains: a file per kind.

mod full;

use std::{path::Path, sync::Arc};

use burn::module::Module;

pub use full::Full;

use crate::{
    Result,
    conditioning::{Condition, Trained},
    models::{AnyModel, ClipTextEncoder, Denoiser},
};

/// What a run trains, frozen parts included: the optimiser, the gradients' norm and the average walk its parameters.
pub trait Trainee: Module + Denoiser {
    /// The network that denoises.
    fn model(&self) -> &AnyModel;

    /// The text encoder that belongs to it, trained along or frozen.
    fn text_encoder(&self) -> Option<&ClipTextEncoder>;

    /// A run's conditions, with what was trained of them as it stands.
    fn conditions(&self, conditions: &[Trained]) -> Vec<Arc<dyn Condition>>;

    /// Writes its weights and configurations into a checkpoint's folder.
    ///
    /// # Errors
    /// If they cannot be written.
    fn write(&self, conditions: &[Trained], folder: &Path) -> Result<()>;
}
