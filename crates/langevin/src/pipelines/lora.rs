//! What is put on a pipeline's weights as they are loaded.

use std::{collections::BTreeMap, path::Path};

use super::{Role, source::PipelineSource};
use crate::{
    Error, Lora, Result,
    models::Components,
    weights::{
        Checkpoint, DIFFUSERS, FileNames, TRANSFORMERS,
        lora::{LoraFile, LoraFit, Targets, file_of},
        single_file::Component,
    },
};

/// The components whose weights a LoRA may change.
const COMPONENTS: [(Component, &FileNames); 3] = [
    (Component::Unet, &DIFFUSERS),
    (Component::TextEncoder, &TRANSFORMERS),
    (Component::TextEncoder2, &TRANSFORMERS),
];

impl PipelineSource {
    /// Puts these on the weights that are read from now on. What of a file does not fit is said in a warning.
    ///
    /// # Errors
    /// If one cannot be read, is no LoRA, or fits nowhere; or if the pipeline has no model of the kind that LoRA are for.
    pub(super) fn put_on(&mut self, loras: &[Lora]) -> Result<()> {
        if loras.is_empty() {
            return Ok(());
        }
        if self.class().component(Role::Denoiser) != Some("unet") {
            return Err(Error::option(
                &["lora"],
                format!(
                    "`lora` is for pipelines with a UNet, and a {} has none",
                    self.class().name
                ),
            ));
        }
        self.loras = fit(loras, &self.changeable()?)?;
        Ok(())
    }

    /// The components whose weights a LoRA may change.
    fn changeable(&self) -> Result<BTreeMap<Component, Checkpoint>> {
        let mut checkpoints = BTreeMap::new();
        for (component, names) in COMPONENTS {
            let name = component.to_string();
            if component == Component::Unet || self.has(&name) {
                checkpoints.insert(component, self.weights(&name, names)?);
            }
        }
        Ok(checkpoints)
    }
}

/// What LoRA may change of the pipeline in a folder or a single file: what [`LoraFile::rewrite`] may go by.
///
/// # Errors
/// If there is no pipeline with a UNet, or a file of it is missing or broken.
pub fn lora_targets(path: impl AsRef<Path>) -> Result<Targets> {
    Ok(targets(
        &PipelineSource::open(path.as_ref(), None, None)?.changeable()?,
    ))
}

fn targets(components: &BTreeMap<Component, Checkpoint>) -> Targets {
    let mut targets = Targets::default();
    for (component, weights) in components {
        targets.add_checkpoint(*component, weights);
    }
    targets
}

/// What each of these changes of components.
///
/// # Errors
/// As [`LoraFile::open`] and [`LoraFile::fit`].
pub(super) fn fit(loras: &[Lora], components: &BTreeMap<Component, Checkpoint>) -> Result<Vec<LoraFit>> {
    if loras.is_empty() {
        return Ok(Vec::new());
    }
    let targets = targets(components);
    let fit = |lora: &Lora| {
        let path = file_of(&lora.path)?;
        let fit = LoraFile::open(&path)?.fit(&targets, &lora.scale)?;
        if let Some(notice) = fit.notice() {
            tracing::warn!("{}: {notice}", path.display());
        }
        Ok(fit)
    };
    loras.iter().map(fit).collect()
}
