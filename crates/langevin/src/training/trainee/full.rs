//! The whole model, with its text encoder where it has one.

use std::{path::Path, sync::Arc};

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

use super::Trainee;
use crate::{
    Error, Result,
    conditioning::{self, Condition, TEXT_ENCODER, TextCondition, Trained},
    models::{AnyModel, ClipTextEncoder, Conditioning, Denoiser, Model},
    weights::widened,
};

/// A model whose own parameters are trained.
#[derive(Module, Debug)]
// There is one of these to a run; the difference in size is nothing beside the weights.
#[allow(clippy::large_enum_variant)]
pub enum Full {
    /// Alone: its parameters have the names that they have in its file.
    Model(AnyModel),
    /// With a text encoder, trained along or frozen: `unet.…` and `text_encoder.…`
    WithText(ModelWithText),
}

/// A model and the text encoder whose sequences it looks at.
#[derive(Module, Debug)]
pub struct ModelWithText {
    unet: AnyModel,
    text_encoder: ClipTextEncoder,
}

impl Full {
    /// The model, with the text encoder that is among the run's conditions, in float32.
    pub fn new(model: AnyModel, conditions: &[Trained]) -> Self {
        match text(conditions) {
            None => Self::Model(widened(model)),
            Some(text) => Self::WithText(ModelWithText {
                unet: widened(model),
                text_encoder: widened(text.encoder().clone()),
            }),
        }
    }

    /// The same with the weights in a checkpoint's folder.
    ///
    /// # Errors
    /// If a file is missing or broken, or another model's.
    pub fn load(&self, folder: &Path, device: &Device) -> Result<Self> {
        let mut weights = crate::models::Checkpoint::in_folder(folder)?;
        let model = AnyModel::with_weights(&self.model().config(), &mut weights, device)?;
        Ok(match self {
            Self::Model(_) => Self::Model(model),
            Self::WithText(_) => Self::WithText(ModelWithText {
                unet: model,
                text_encoder: ClipTextEncoder::load(folder.join(TEXT_ENCODER), device)?,
            }),
        })
    }
}

/// The text condition of a run.
fn text(conditions: &[Trained]) -> Option<&TextCondition> {
    let found = |trained| conditioning::find(std::slice::from_ref(trained));
    conditions
        .iter()
        .map(|trained| &trained.condition)
        .find_map(found)
}

impl Trainee for Full {
    fn model(&self) -> &AnyModel {
        match self {
            Self::Model(model) => model,
            Self::WithText(both) => &both.unet,
        }
    }

    fn text_encoder(&self) -> Option<&ClipTextEncoder> {
        match self {
            Self::Model(_) => None,
            Self::WithText(both) => Some(&both.text_encoder),
        }
    }

    fn conditions(&self, conditions: &[Trained]) -> Vec<Arc<dyn Condition>> {
        let conditions = conditions.iter().map(|trained| Arc::clone(&trained.condition));
        conditions
            .map(|condition| {
                let text = conditioning::find::<TextCondition>(std::slice::from_ref(&condition));
                match (text, self.text_encoder()) {
                    (Some(text), Some(encoder)) => Arc::new(text.with_encoder(encoder.clone())),
                    _ => condition,
                }
            })
            .collect()
    }

    fn write(&self, conditions: &[Trained], folder: &Path) -> Result<()> {
        self.model().save(folder)?;
        match (text(conditions), self.text_encoder()) {
            (Some(text), Some(encoder)) => text.with_encoder(encoder.clone()).save(folder).map(drop),
            (None, None) => Ok(()),
            _ => Err(Error::Config(
                "the run's text encoder and its text condition do not belong together".into(),
            )),
        }
    }
}

impl Denoiser for Full {
    fn denoise(&self, x: Tensor<4>, timesteps: Tensor<1>, conditioning: &Conditioning) -> Result<Tensor<4>> {
        self.model().denoise(x, timesteps, conditioning)
    }
}
