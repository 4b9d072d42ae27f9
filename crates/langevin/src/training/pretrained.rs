//! Starting from a pipeline that is there: its model, its scheduler, and what they say of a run.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::Value;

use super::{ConditioningKind, LrSchedulerType, ModelSource, TraineeKind, TrainingConfig};
use crate::{
    Error, Result,
    conditioning::{self, Pretrained, TEXT_ENCODER},
    data::{Channels, looks_like_hub_name},
    files,
    models::{AnyModel, AnyModelConfig, AutoencoderKLConfig, Components, ModelConfig},
    named::Named,
    objectives::{ObjectiveKind, PredictionType},
    pipelines::{self, MODEL_INDEX, PipelineClass, PipelineSource, Role},
    random::Generator,
    schedulers::{AnyScheduler, BetaSchedule, ModelKind},
};

impl TrainingConfig {
    /// Starts from the pipeline in `folder`, or from the single file of one: its model, for pictures of its size and channels unless something else
    /// is said later, and its noise.
    ///
    /// # Errors
    /// If there is no pipeline, or it is one that cannot be trained.
    pub fn use_pretrained(&mut self, folder: &Path) -> Result<()> {
        if folder.is_file() {
            return self.use_latent(folder);
        }
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
        if is_latent(folder)? {
            return self.use_latent(folder);
        }
        let source = ModelSource::Config(folder.to_path_buf());
        let model = source.config()?;
        if Channels::from_count(model.in_channels()).is_none() {
            return Err(Error::Unsupported(format!(
                "{}: the model draws {} channels, which are no picture's; one that draws the latents of an autoencoder, as Stable \
                 Diffusion's does, cannot be trained on yet",
                folder.display(),
                model.in_channels()
            )));
        }
        self.use_model(source)?;
        self.condition_as(&model, folder)?;
        self.pretrained = Some(folder.to_path_buf());
        self.hear_as(folder)?;
        let scheduler = scheduler(folder)?;
        self.objective = match scheduler.facts().model {
            ModelKind::Edm => ObjectiveKind::Edm,
            ModelKind::Flow => ObjectiveKind::Flow,
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

    /// The folder of the pipeline that the run starts from, where its model denoises latents.
    ///
    /// # Errors
    /// If there is a pipeline that cannot be read.
    pub(crate) fn latent_base(&self) -> Result<Option<PathBuf>> {
        match &self.pretrained {
            // An autoencoder is trained by itself.
            Some(_) if self.trainee == TraineeKind::Codec => Ok(None),
            Some(folder) if is_latent(folder)? => Ok(Some(folder.clone())),
            _ => Ok(None),
        }
    }

    /// Whether the run is on top of a pipeline whose model denoises latents.
    ///
    /// # Errors
    /// If there is a pipeline that cannot be read.
    pub fn tunes_latents(&self) -> Result<bool> {
        Ok(self.latent_base()?.is_some())
    }

    /// Starts from a pipeline whose model denoises latents: its sizes, and settings that the scripts for such have, or that work.
    fn use_latent(&mut self, folder: &Path) -> Result<()> {
        let source = PipelineSource::open(folder, None, None)?;
        let model = source.model_config()?;
        if !matches!(model, AnyModelConfig::Condition(_)) {
            return Err(Error::Unsupported(format!(
                "{}: a {} that denoises latents is drawn from, and not trained on",
                folder.display(),
                model.class_name()
            )));
        }
        let (vae, path) = source.config("vae")?;
        let vae = AutoencoderKLConfig::of_value(vae, &path)?;
        if let Some([height, _]) = model.sample_size() {
            self.resolution = height * vae.factor();
        }
        self.model = ModelSource::Config(folder.to_path_buf());
        self.pretrained = Some(folder.to_path_buf());
        self.channels = Channels::Rgb;
        self.conditioning = ConditioningKind::CrossAttention;
        self.objective = ObjectiveKind::Ddpm;
        let config = source.scheduler(Role::Scheduler)?.config()?;
        let word = |key: &str| config.get(key).and_then(Value::as_str);
        let steps = config.get("num_train_timesteps").and_then(Value::as_u64);
        self.ddpm_num_steps = steps.map_or(self.ddpm_num_steps, |steps| steps as usize);
        self.prediction_type =
            word("prediction_type").map_or(Ok(PredictionType::Epsilon), Named::from_name)?;
        self.rescale_betas_zero_snr = config.get("rescale_betas_zero_snr") == Some(&Value::Bool(true));
        if let Some(schedule) = word("beta_schedule").and_then(|name| BetaSchedule::from_name(name).ok()) {
            self.ddpm_beta_schedule = schedule;
        }
        // What the scripts for latent pipelines have.
        (self.adam_beta1, self.adam_weight_decay) = (0.9, 1e-2);
        self.lr_scheduler = LrSchedulerType::Constant;
        self.lr_warmup_steps = 0;
        self.train_batch_size = 1;
        self.caption_dropout = Some(0.0);
        self.center_crop = true;
        // Pictures take long to draw.
        self.ddpm_num_inference_steps = 25.min(self.ddpm_num_steps);
        self.eval_batch_size = 4;
        (self.save_images_epochs, self.save_model_epochs) = (0, 0);
        Ok(())
    }

    /// Conditions the model on what it is conditioned on already.
    fn condition_as(&mut self, model: &AnyModelConfig, folder: &Path) -> Result<()> {
        self.conditioning = ConditioningKind::None;
        let pretrained = Pretrained {
            config: model,
            has_text: folder.join(TEXT_ENCODER).is_dir(),
        };
        let is_known = conditioning::of_pretrained(&pretrained, self)?;
        if !is_known && matches!(model, AnyModelConfig::Condition(_)) {
            return Err(Error::Unsupported(format!(
                "{}: a {} is trained on where it looks at captions alone, with a text encoder beside it, or takes a vector that a run \
                 of this program made, and this one takes something else",
                folder.display(),
                model.class_name()
            )));
        }
        Ok(())
    }
}

/// Whether the folder holds a pipeline whose model denoises latents, as single files do.
///
/// # Errors
/// If its index cannot be read.
fn is_latent(folder: &Path) -> Result<bool> {
    if folder.is_file() {
        return Ok(true);
    }
    let index = folder.join(MODEL_INDEX);
    if !index.is_file() {
        return Ok(false);
    }
    let index: Value = files::read_json(index)?;
    let class = index
        .get("_class_name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    Ok(PipelineClass::named(class).is_some_and(|class| class.latent.is_some()))
}

/// The scheduler of the pipeline in `folder`, or of a single file.
///
/// # Errors
/// If it cannot be read.
pub(super) fn scheduler(folder: &Path) -> Result<AnyScheduler> {
    if folder.is_file() {
        return PipelineSource::open(folder, None, None)?.scheduler(Role::Scheduler);
    }
    AnyScheduler::load(pipelines::component_folder(folder, "scheduler"))
}

/// The model of the pipeline in `folder`, whose configuration is `own`, made for what `config`
/// says: other sizes need no other weights. A table of other classes begins anew, with numbers from `generator`.
///
/// # Errors
/// If the weights are not this model's, as where the pictures have another number of channels.
pub(super) fn model(
    folder: &Path,
    own: &AnyModelConfig,
    config: &AnyModelConfig,
    device: &Device,
    generator: &mut Generator,
) -> Result<AnyModel> {
    const OPTIONS: &[&str] = &[
        "conditioning",
        "conditioning_image",
        "vector",
        "vector_embedding",
        "attribute_columns",
        "class_emb_size",
        "channels",
    ];
    let differs = |what: String| Error::option(OPTIONS, format!("the model in {} {what}", folder.display()));
    if own.class_name() != config.class_name() {
        return Err(differs(format!(
            "is a {}, and told that it would be a {}: leave `conditioning` out",
            own.class_name(),
            config.class_name()
        )));
    }
    if own.image_condition() != config.image_condition() {
        let shown = |config: &AnyModelConfig| {
            let image = config.image_condition();
            image.map_or_else(|| "nothing".into(), |image| format!("`{image}`"))
        };
        return Err(differs(format!(
            "is shown {} beside its picture, and is to be shown {}: leave `conditioning_image` out",
            shown(own),
            shown(config)
        )));
    }
    if vector(own) != vector(config) {
        return Err(differs(
            "takes another vector, or in another way: leave `vector` and `vector_embedding` out, or `attribute_columns`".into(),
        ));
    }
    if let (AnyModelConfig::ClassChannels(own), AnyModelConfig::ClassChannels(config)) = (own, config)
        && own.class_channels() != config.class_channels()
    {
        return Err(differs(format!(
            "has {} channels for a class, and would have {}: leave `class_emb_size` out, and where it is one-hot, take as many \
             classes as the model has, which are {}",
            own.class_channels(),
            config.class_channels(),
            own.num_classes - 1
        )));
    }
    if own.in_channels() != config.in_channels() {
        return Err(differs(format!(
            "takes pictures of {} channels, and they are to be read with {}: leave `channels` out",
            own.in_channels(),
            config.in_channels()
        )));
    }
    let mut checkpoint = pipelines::checkpoint(folder, None)?;
    if matches!(own, AnyModelConfig::DiT(_)) && own.num_class_embeds() != config.num_class_embeds() {
        let classes =
            |config: &AnyModelConfig| config.num_class_embeds().unwrap_or_default().saturating_sub(1);
        return Err(differs(format!(
            "tells {} classes apart, and the pictures have {}: another table of classes is not there yet for a {}",
            classes(own),
            classes(config),
            own.class_name()
        )));
    }
    match class_table(own, config) {
        None => AnyModel::with_weights(config, &mut checkpoint, device),
        Some(table) => {
            let fresh = config.build(device, generator)?;
            fresh.with_weights_but(&mut checkpoint, table, device)
        }
    }
}

/// What the vector is that a model takes, and how it takes it.
fn vector(config: &AnyModelConfig) -> Option<impl PartialEq> {
    match config {
        AnyModelConfig::Condition(of_unet) => Some((config.vector_note(), of_unet.class_embed_type)),
        _ => None,
    }
}

/// What the names of the class table's parameters begin with, where `config` has other classes than `own`.
fn class_table(own: &AnyModelConfig, config: &AnyModelConfig) -> Option<&'static str> {
    match config {
        _ if own.num_class_embeds() == config.num_class_embeds() => None,
        AnyModelConfig::ClassChannels(_) => Some("class_emb."),
        _ => Some("class_embedding."),
    }
}
