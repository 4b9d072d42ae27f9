//! Starting from a pipeline that is there: its model, its scheduler, and what they say of a run.

use std::path::Path;

use burn::tensor::Device;
use serde_json::Value;

use super::{ConditioningKind, ModelSource, TrainingConfig};
use crate::{
    Error, Result,
    data::looks_like_hub_name,
    models::{AnyModel, AnyModelConfig},
    named::Named,
    objectives::{ObjectiveKind, PredictionType},
    pipelines::{self, MODEL_INDEX},
    random::Generator,
    schedulers::{AnyScheduler, BetaSchedule},
};

impl TrainingConfig {
    /// Starts from the pipeline in `folder`: its model, for pictures of its size and channels unless something else is said
    /// later, and its noise.
    ///
    /// # Errors
    /// If there is no pipeline, or it is one that cannot be trained.
    pub fn use_pretrained(&mut self, folder: &Path) -> Result<()> {
        if !folder.join(MODEL_INDEX).is_file() {
            let name = folder.display().to_string();
            return Err(if !folder.exists() && looks_like_hub_name(&name) {
                Error::Unsupported(format!(
                    "there is no folder `{name}`; if it is a repository of the Hub, pull it and name the folder, as the \
                     program langevin does"
                ))
            } else {
                Error::file(
                    folder,
                    format!("holds no pipeline: there is no {MODEL_INDEX} in it"),
                )
            });
        }
        let source = ModelSource::Config(folder.to_path_buf());
        let model = source.config()?;
        if !matches!(model, AnyModelConfig::UNet2D(_) | AnyModelConfig::Basic(_)) {
            return Err(Error::Unsupported(format!(
                "{}: training on from a {} is not there yet; from a UNet2DModel it is",
                folder.display(),
                model.class_name()
            )));
        }
        self.use_model(source)?;
        self.conditioning = match model.num_class_embeds() {
            Some(_) => ConditioningKind::Class,
            None => ConditioningKind::None,
        };
        self.pretrained = Some(folder.to_path_buf());
        let scheduler = scheduler(folder)?;
        self.objective = match &scheduler {
            AnyScheduler::EDMEuler(_) | AnyScheduler::EDMDPMSolverMultistep(_) => ObjectiveKind::Edm,
            AnyScheduler::FlowMatchEulerDiscrete(_) | AnyScheduler::FlowMatchHeunDiscrete(_) => {
                ObjectiveKind::Flow
            }
            _ => ObjectiveKind::Ddpm,
        };
        let config = scheduler.config()?;
        let word = |key: &str| config.get(key).and_then(Value::as_str);
        let number = |key: &str| config.get(key).and_then(Value::as_u64);
        if let Some(steps) = number("num_train_timesteps") {
            self.ddpm_num_steps = steps as usize;
            self.ddpm_num_inference_steps = self.ddpm_num_inference_steps.min(self.ddpm_num_steps);
        }
        match self.objective {
            ObjectiveKind::Ddpm => {
                self.prediction_type =
                    word("prediction_type").map_or(Ok(PredictionType::Epsilon), Named::from_name)?;
                self.ddpm_beta_schedule =
                    word("beta_schedule").map_or(Ok(BetaSchedule::Linear), Named::from_name)?;
                self.rescale_betas_zero_snr =
                    config.get("rescale_betas_zero_snr") == Some(&Value::Bool(true));
            }
            ObjectiveKind::Edm => {
                self.prediction_type = PredictionType::Epsilon;
                let stored = config.get("sigma_data").and_then(Value::as_f64);
                self.edm_sigma_data = stored.unwrap_or(self.edm_sigma_data);
            }
            ObjectiveKind::Flow => self.prediction_type = PredictionType::Epsilon,
        }
        Ok(())
    }
}

/// The scheduler of the pipeline in `folder`.
///
/// # Errors
/// If it cannot be read.
pub(super) fn scheduler(folder: &Path) -> Result<AnyScheduler> {
    AnyScheduler::load(pipelines::component_folder(folder, pipelines::SCHEDULER))
}

/// The model of the pipeline in `folder`, made for what `config` says: other sizes need no other weights. A table of other
/// classes begins anew, with numbers from `generator`.
///
/// # Errors
/// If the weights are not this model's, as where the pictures have another number of channels.
pub(super) fn model(
    folder: &Path,
    config: &AnyModelConfig,
    device: &Device,
    generator: &mut Generator,
) -> Result<AnyModel> {
    let own = ModelSource::Config(folder.to_path_buf()).config()?;
    if own.in_channels() != config.in_channels() {
        return Err(Error::Config(format!(
            "the model in {} takes pictures of {} channels, and they are to be read with {}: leave --channels out",
            folder.display(),
            own.in_channels(),
            config.in_channels()
        )));
    }
    let mut checkpoint = pipelines::checkpoint(folder, None)?;
    if own.num_class_embeds() == config.num_class_embeds() {
        return AnyModel::with_weights(config, &mut checkpoint, device);
    }
    let fresh = config.build(device, generator)?;
    fresh.with_weights_but(&mut checkpoint, "class_embedding.", device)
}
