//! The configuration of a training run.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    TrackerKind,
    choices::{
        ConditioningKind, LrSchedulerType, MixedPrecision, ModelSource, ResumeFrom, TextEncoderSource,
        VectorEmbedding,
    },
    lr_schedule::{LrSchedule, LrScheduleOptions},
    step::Saving,
};
use crate::{
    Error, Result,
    data::{Alpha, Channels, OpenOptions, Resize, split},
    models::{AnyModelConfig, ClassChannels, ImageCondition, ModelInputs, ModelPreset, PictureVector},
    objectives::{EdmObjective, FlowObjective, LossWeighting, ObjectiveKind, PredictionType},
    schedulers::BetaSchedule,
};

/// The name of the built-in data set.
pub const DIGITS: &str = "digits";

/// The file in a run's folder that holds its configuration.
pub const RUN_CONFIG: &str = "training.json";

/// The file in a run's folder that holds a line of JSON for every optimiser step.
pub const METRICS: &str = "metrics.jsonl";

/// Everything that decides what a training run does.
///
/// Fields have the names, meanings and defaults of the flags of diffusers' `train_unconditional.py` where it has them;
/// the rest is this library's own. [`TrainingConfig::script`] holds the script's defaults, [`TrainingConfig::digits`]
/// those of the built-in demonstration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainingConfig {
    /// The data set: `digits`, or the path of one as [`data::open_with`](crate::data::open_with) takes it.
    pub dataset_name: Option<String>,
    /// Which of a repository's configurations; `None` is the default one.
    pub dataset_config_name: Option<String>,
    /// The part of the data set that is trained on.
    pub split: String,
    /// The names of the classes whose pictures are trained on; empty is all.
    pub only_classes: Vec<String>,
    /// A folder of pictures, where `dataset_name` does not name one.
    pub train_data_dir: Option<PathBuf>,
    /// The model.
    pub model: ModelSource,
    /// A pipeline's folder whose model is trained on, on the noise of its scheduler; see
    /// [`TrainingConfig::use_pretrained`].
    pub pretrained: Option<PathBuf>,
    /// Only parameters whose names hold one of these words are trained; empty trains all.
    pub train_only: Vec<String>,
    /// The run's folder; `None` is a new one under `runs`, see [`TrainingConfig::run_folder`].
    pub output_dir: Option<PathBuf>,
    /// Who keeps the run's numbers and pictures besides [`METRICS`].
    pub report_to: Vec<TrackerKind>,
    /// The folder of TensorBoard's event files, in the run's.
    pub logging_dir: PathBuf,
    /// The licence that the model card names, by the Hub's word for it; `None` is the data's where it is known.
    pub license: Option<String>,
    /// Whether a run that is already in `output_dir` may be replaced.
    pub overwrite_output_dir: bool,

    /// Height and width, in pixels, that pictures are brought to.
    pub resolution: usize,
    /// Crop from the picture's centre in place of a random position.
    pub center_crop: bool,
    /// Mirror every other picture at random.
    pub random_flip: bool,
    /// How a picture becomes square.
    pub resize: Resize,
    /// The channels pictures are read with.
    pub channels: Channels,
    /// What becomes of transparency.
    pub alpha: Alpha,
    /// Keep pictures in memory, resized, once they were read, as far as they fit.
    pub cache: bool,
    /// A picture that cannot be read ends the run, in place of being left out.
    pub strict: bool,
    /// Threads that decode pictures ahead of training; 0 lets the library choose.
    pub dataloader_num_workers: usize,

    /// Pictures in one batch.
    pub train_batch_size: usize,
    /// Pictures sampled in one batch.
    pub eval_batch_size: usize,
    /// Passes over the data set.
    pub num_epochs: usize,
    /// Ends the run after so many optimiser steps, and overrides `num_epochs`.
    pub max_train_steps: Option<usize>,
    /// Samples are drawn after every so many epochs, and after the last; 0 is after the last only.
    pub save_images_epochs: usize,
    /// Samples are drawn after every so many optimiser steps too; 0 is never.
    pub log_samples_every: usize,
    /// The pipeline is written after every so many epochs, and after the last; 0 is after the last only.
    pub save_model_epochs: usize,
    /// A checkpoint is written after every so many optimiser steps; 0 is only where the run is interrupted.
    pub checkpointing_steps: usize,
    /// How many checkpoints are kept, the latest; `None` keeps all.
    pub checkpoints_total_limit: Option<usize>,
    /// The checkpoint that the run goes on from.
    pub resume_from_checkpoint: Option<ResumeFrom>,
    /// The pipeline is written after every so many optimiser steps too; 0 is never.
    pub save_model_every: usize,
    /// Batches whose gradients are averaged for one optimiser step.
    pub gradient_accumulation_steps: usize,

    /// The learning rate after the warm-up.
    pub learning_rate: f64,
    /// How the learning rate changes.
    pub lr_scheduler: LrSchedulerType,
    /// Optimiser steps over which the learning rate rises from zero.
    pub lr_warmup_steps: usize,
    /// Cosine waves in the schedules that have them; `None` is half a wave for `cosine` and one restart.
    pub lr_num_cycles: Option<f64>,
    /// The power of the `polynomial` schedule.
    pub lr_power: f64,
    /// The stretches of `piecewise_constant`: `1:10,0.1:20,0.01` multiplies by 1 for 10 steps, by 0.1 up to step 20,
    /// by 0.01 from there.
    pub lr_step_rules: Option<String>,
    /// What `exponential` multiplies the learning rate with after every epoch.
    pub lr_gamma: f64,
    /// AdamW's decay of the gradient's mean.
    pub adam_beta1: f64,
    /// AdamW's decay of the gradient's mean square.
    pub adam_beta2: f64,
    /// AdamW's decay of the weights, per step and unit of learning rate.
    pub adam_weight_decay: f64,
    /// AdamW's guard against division by zero.
    pub adam_epsilon: f64,
    /// The norm that all gradients together are scaled down to.
    pub max_grad_norm: f64,

    /// Keep an exponential moving average of the weights, and sample and save with it.
    pub use_ema: bool,
    /// 1/γ of the average's warm-up: the decay at step n is 1 - (1 + n·γ⁻¹)^-power. Diffusers' `inv_gamma`.
    pub ema_inv_gamma: f64,
    /// The power of the average's warm-up.
    pub ema_power: f64,
    /// The decay that the warm-up ends at.
    pub ema_max_decay: f64,

    /// The way from picture to noise that is trained on, and so which samplers the model has.
    pub objective: ObjectiveKind,
    /// What the model learns to predict.
    pub prediction_type: PredictionType,
    /// Timesteps of the noise schedule.
    pub ddpm_num_steps: usize,
    /// Steps of the samples drawn during training.
    pub ddpm_num_inference_steps: usize,
    /// How noise grows over the timesteps.
    pub ddpm_beta_schedule: BetaSchedule,
    /// Move the schedule so that its last timestep holds no signal.
    pub rescale_betas_zero_snr: bool,
    /// How the loss is weighted over the timesteps.
    pub loss_weighting: LossWeighting,
    /// γ of the weightings min-snr and soft-min-snr; `None` is 5 and 4.
    pub snr_gamma: Option<f64>,
    /// How much of a number that is the same all over a channel is added to the noise.
    pub noise_offset: f64,
    /// How much further noise is mixed into the pictures, of which the model is not told.
    pub input_perturbation: f64,
    /// The mean of the logarithm of EDM's noise levels.
    pub edm_p_mean: f64,
    /// Its standard deviation.
    pub edm_p_std: f64,
    /// The standard deviation of the data, as EDM's preconditioning has it.
    pub edm_sigma_data: f64,
    /// The mean of the logit of a flow's times.
    pub logit_mean: f64,
    /// Its standard deviation.
    pub logit_std: f64,

    /// What the model is told besides the noisy picture and its timestep.
    pub conditioning: ConditioningKind,
    /// How often a picture's class is replaced by the null class, see [`TrainingConfig::class_dropout`].
    pub class_dropout: Option<f64>,
    /// How a class becomes channels, where `conditioning` is `channels`.
    pub class_emb_size: ClassChannels,
    /// What picture, made of the clean one, the model is shown beside the noisy one.
    pub conditioning_image: Option<ImageCondition>,
    /// Where captions become sequences, where `conditioning` is `cross-attention`.
    pub text_encoder: TextEncoderSource,
    /// How often a picture's caption is replaced by the empty one, see [`TrainingConfig::caption_dropout`].
    pub caption_dropout: Option<f64>,
    /// How often a picture's conditioning picture is replaced by an empty one: 0 unless the configuration says otherwise.
    pub image_dropout: Option<f64>,
    /// What vector of the picture the model is told, where `conditioning` is `vector`.
    pub vector: PictureVector,
    /// How it is brought to the time embedding's dimension.
    pub vector_embedding: VectorEmbedding,
    /// The CLIP model of a vector that is CLIP's: a folder of transformers', or an open_clip checkpoint.
    pub vector_clip: Option<PathBuf>,
    /// How often zeros take its place, see [`TrainingConfig::vector_dropout`].
    pub vector_dropout: Option<f64>,
    /// The seed that all randomness of the run comes from.
    pub seed: u64,
    /// Whether convolutions are plain sums in place of Winograd's, see [`crate::ops::set_exact_convolution`].
    pub exact_convolution: bool,
    /// What training computes and keeps its numbers as.
    pub mixed_precision: MixedPrecision,
    /// Whether blocks of the model keep only their inputs for the backward, which computes the rest again.
    pub gradient_checkpointing: bool,
}

impl Default for TrainingConfig {
    fn default() -> Self {
        Self::script()
    }
}

impl TrainingConfig {
    /// The defaults of diffusers' `train_unconditional.py`. They name no data set.
    pub fn script() -> Self {
        let (edm, flow) = (EdmObjective::default(), FlowObjective::default());
        Self {
            dataset_name: None,
            dataset_config_name: None,
            only_classes: vec![],
            split: split::TRAIN.into(),
            train_data_dir: None,
            model: ModelSource::Preset(ModelPreset::DdpmDefault),
            pretrained: None,
            train_only: vec![],
            output_dir: None,
            report_to: vec![],
            logging_dir: "logs".into(),
            license: None,
            overwrite_output_dir: false,
            resolution: 64,
            center_crop: false,
            random_flip: false,
            resize: Resize::ShorterSide,
            channels: Channels::Rgb,
            alpha: Alpha::White,
            cache: false,
            strict: false,
            dataloader_num_workers: 0,
            train_batch_size: 16,
            eval_batch_size: 16,
            num_epochs: 100,
            max_train_steps: None,
            save_images_epochs: 10,
            log_samples_every: 0,
            save_model_epochs: 10,
            save_model_every: 0,
            checkpointing_steps: 500,
            checkpoints_total_limit: None,
            resume_from_checkpoint: None,
            gradient_accumulation_steps: 1,
            learning_rate: 1e-4,
            lr_scheduler: LrSchedulerType::Cosine,
            lr_warmup_steps: 500,
            lr_num_cycles: None,
            lr_power: 1.0,
            lr_step_rules: None,
            lr_gamma: 0.9,
            adam_beta1: 0.95,
            adam_beta2: 0.999,
            adam_weight_decay: 1e-6,
            adam_epsilon: 1e-8,
            max_grad_norm: 1.0,
            use_ema: false,
            ema_inv_gamma: 1.0,
            ema_power: 0.75,
            ema_max_decay: 0.9999,
            objective: ObjectiveKind::Ddpm,
            prediction_type: PredictionType::Epsilon,
            ddpm_num_steps: 1000,
            ddpm_num_inference_steps: 1000,
            ddpm_beta_schedule: BetaSchedule::Linear,
            rescale_betas_zero_snr: false,
            loss_weighting: LossWeighting::Script,
            snr_gamma: None,
            noise_offset: 0.0,
            input_perturbation: 0.0,
            edm_p_mean: edm.p_mean,
            edm_p_std: edm.p_std,
            edm_sigma_data: edm.sigma_data,
            logit_mean: flow.logit_mean,
            logit_std: flow.logit_std,
            conditioning: ConditioningKind::None,
            class_dropout: None,
            class_emb_size: ClassChannels::default(),
            conditioning_image: None,
            text_encoder: TextEncoderSource::default(),
            caption_dropout: None,
            image_dropout: None,
            vector: PictureVector::Colour,
            vector_embedding: VectorEmbedding::Projection,
            vector_clip: None,
            vector_dropout: None,
            seed: 0,
            exact_convolution: false,
            mixed_precision: MixedPrecision::No,
            gradient_checkpointing: false,
        }
    }

    /// The recipe for the built-in digits: a class-conditional model, good after two minutes on two cores.
    pub fn digits() -> Self {
        Self {
            dataset_name: Some(DIGITS.into()),
            model: ModelSource::Preset(ModelPreset::Digits),
            resolution: ModelPreset::Digits.resolution(),
            center_crop: true,
            channels: Channels::Grey,
            train_batch_size: 64,
            eval_batch_size: 100,
            num_epochs: 55,
            save_images_epochs: 0,
            save_model_epochs: 0,
            checkpoints_total_limit: Some(1),
            learning_rate: 2e-3,
            lr_warmup_steps: 100,
            use_ema: true,
            ema_max_decay: 0.999,
            // At so small a size most of the schedule is noise, where learning ε teaches the model little of the digit.
            prediction_type: PredictionType::VPrediction,
            ddpm_num_inference_steps: 50,
            ddpm_beta_schedule: BetaSchedule::SquaredcosCapV2,
            conditioning: ConditioningKind::Class,
            ..Self::script()
        }
    }

    /// Trains `model`, on pictures of the size and channels that it is made for.
    ///
    /// # Errors
    /// If it is a file that cannot be read, or is not a model's configuration.
    pub fn use_model(&mut self, model: ModelSource) -> Result<()> {
        let config = model.config()?;
        if let Some([height, width]) = config.sample_size() {
            if height != width {
                return Err(Error::Unsupported(format!(
                    "the model `{model}` is for pictures of {height}x{width}; only square ones can be trained on yet"
                )));
            }
            self.resolution = height;
        }
        self.channels = Channels::from_count(config.in_channels()).unwrap_or(self.channels);
        if !config.takes_classes() {
            self.conditioning = ConditioningKind::None;
        }
        self.model = model;
        Ok(())
    }

    /// How a step saves memory.
    pub fn saving(&self) -> Saving {
        Saving {
            kept_as: self.mixed_precision.kept_as(),
            checkpointing: self.gradient_checkpointing,
        }
    }

    /// The configuration of the model that is to be trained, for this configuration's pictures and with these
    /// inputs besides.
    ///
    /// # Errors
    /// If the model's file is broken, or the model cannot have them.
    pub fn model_config(&self, inputs: &ModelInputs) -> Result<AnyModelConfig> {
        self.model
            .config()?
            .made_with(self.resolution, self.channels.count(), inputs)
    }

    /// How often a picture's class is replaced by the null class: 0.1 unless the configuration says otherwise, and
    /// never where the model is told no class.
    pub fn class_dropout(&self) -> f64 {
        if self.conditioning.tells_classes() {
            self.class_dropout.unwrap_or(0.1)
        } else {
            0.0
        }
    }

    /// How often a picture's caption is replaced by the empty one: 0.1 unless the configuration says otherwise.
    pub fn caption_dropout(&self) -> f64 {
        self.caption_dropout.unwrap_or(0.1)
    }

    /// How often zeros take the place of a picture's vector: 0.1 unless the configuration says otherwise.
    pub fn vector_dropout(&self) -> f64 {
        self.vector_dropout.unwrap_or(0.1)
    }

    /// How the data set is opened.
    pub fn open_options(&self) -> OpenOptions {
        OpenOptions {
            config: self.dataset_config_name.clone(),
            split: self.split.clone(),
            alpha: self.alpha,
            conditioning_column: match &self.conditioning_image {
                Some(ImageCondition::Column(name)) => Some(name.clone()),
                _ => None,
            },
            only_classes: self.only_classes.clone(),
        }
    }

    /// What [`data::open_with`](crate::data::open_with) is to be given: the built-in data set's name, or a path.
    ///
    /// # Errors
    /// If nothing says so, or two fields say so.
    pub fn dataset(&self) -> Result<String> {
        match (self.dataset_name.as_deref(), &self.train_data_dir) {
            (None, None) => Err(Error::Config(format!(
                "no data set is named; `dataset_name` may be `{DIGITS}` or the path of a folder of pictures"
            ))),
            // Hugging Face's name for "whatever is in train_data_dir".
            (None | Some("imagefolder"), Some(folder)) => match folder.to_str() {
                Some(DIGITS) => Ok(format!("./{DIGITS}")),
                Some(path) => Ok(path.to_string()),
                None => Err(Error::file(folder, "is not a name in UTF-8")),
            },
            (Some(name), Some(folder)) => Err(Error::Config(format!(
                "`dataset_name` says `{name}` and `train_data_dir` says `{}`; name one of them",
                folder.display()
            ))),
            (Some(name), None) => Ok(name.to_string()),
        }
    }

    /// The learning-rate schedule of a run of so many optimiser steps, with so many to an epoch.
    ///
    /// # Errors
    /// If its rules are malformed.
    pub fn lr_schedule(&self, steps: usize, steps_per_epoch: usize) -> Result<LrSchedule> {
        let options = LrScheduleOptions {
            num_warmup_steps: self.lr_warmup_steps,
            num_training_steps: steps,
            num_cycles: self.lr_num_cycles,
            power: self.lr_power,
            step_rules: self.lr_step_rules.clone(),
            gamma: self.lr_gamma,
            steps_per_epoch,
            learning_rate: self.learning_rate,
        };
        LrSchedule::new(self.lr_scheduler, &options)
    }

    /// Optimiser steps in one pass over `pictures` pictures; a last, smaller batch counts.
    pub fn steps_per_epoch(&self, pictures: usize) -> usize {
        pictures
            .div_ceil(self.train_batch_size)
            .div_ceil(self.gradient_accumulation_steps)
    }

    /// Optimiser steps in the whole run over a data set of `pictures` pictures.
    pub fn total_steps(&self, pictures: usize) -> usize {
        self.max_train_steps
            .unwrap_or(self.num_epochs * self.steps_per_epoch(pictures))
    }

    /// The run's folder: `output_dir`, or the first of `runs/DATA-MODEL-1`, `-2` … that is not there yet, for a data set
    /// of this name.
    pub fn run_folder(&self, dataset: &str) -> PathBuf {
        self.output_dir
            .clone()
            .unwrap_or_else(|| next_free_folder(Path::new("runs"), &self.run_name(dataset)))
    }

    /// The data set and the model, as one word.
    fn run_name(&self, dataset: &str) -> String {
        let model = self.model.short_name();
        if dataset == model {
            model
        } else {
            format!("{dataset}-{model}")
        }
    }
}

/// `root/name-1`, or with the number after the highest that is taken.
fn next_free_folder(root: &Path, name: &str) -> PathBuf {
    let taken = std::fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            entry
                .file_name()
                .to_str()?
                .strip_prefix(name)?
                .strip_prefix('-')?
                .parse::<usize>()
                .ok()
        });
    root.join(format!("{name}-{}", taken.max().unwrap_or(0) + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_survives_its_file() {
        for config in [TrainingConfig::script(), TrainingConfig::digits()] {
            let text = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<TrainingConfig>(&text).unwrap(), config);
        }
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        let message = serde_json::from_str::<TrainingConfig>(r#"{"learnig_rate": 1}"#)
            .unwrap_err()
            .to_string();
        assert!(message.contains("learnig_rate"), "{message}");
    }

    #[test]
    fn a_model_brings_its_size_along() {
        let mut config = TrainingConfig::digits();
        config.use_model(ModelPreset::CourseButterflies.into()).unwrap();
        assert_eq!((config.resolution, config.channels), (32, Channels::Rgb));
        config.use_model(ModelPreset::BasicUnet.into()).unwrap();
        assert_eq!((config.resolution, config.channels), (28, Channels::Grey));
        config.validate().unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("config.json"),
            r#"{"sample_size": 48, "in_channels": 3}"#,
        )
        .unwrap();
        config
            .use_model(ModelSource::Config(folder.path().into()))
            .unwrap();
        assert_eq!((config.resolution, config.channels), (48, Channels::Rgb));
    }

    #[test]
    fn the_model_is_made_for_the_pictures_and_a_null_class() {
        let config = TrainingConfig {
            resolution: 16,
            ..TrainingConfig::digits()
        };
        let inputs = ModelInputs {
            num_classes: Some(11),
            ..ModelInputs::default()
        };
        let model = config.model_config(&inputs).unwrap();
        assert_eq!((model.sample_size(), model.in_channels()), (Some([16, 16]), 1));
        assert_eq!(model.num_class_embeds(), Some(11));
        let without = config.model_config(&ModelInputs::default()).unwrap();
        assert_eq!(without.num_class_embeds(), None);
    }

    #[test]
    fn a_model_that_is_not_there_is_told_the_ones_that_are() {
        let refused = |name: &str| {
            TrainingConfig::digits()
                .use_model(name.to_string().into())
                .unwrap_err()
                .to_string()
        };
        assert!(refused("no-such-model").contains("course-butterflies"));
        assert!(refused("google/ddpm-cat-256").contains("pull it and name the folder"));
    }

    #[test]
    fn a_data_set_is_named_once() {
        let named = |name: Option<&str>, folder: Option<&str>| {
            let (dataset_name, train_data_dir) = (name.map(String::from), folder.map(PathBuf::from));
            TrainingConfig {
                dataset_name,
                train_data_dir,
                ..TrainingConfig::script()
            }
            .dataset()
        };
        assert_eq!(named(Some("digits"), None).unwrap(), "digits");
        assert_eq!(named(None, Some("pictures")).unwrap(), "pictures");
        assert_eq!(named(None, Some("digits")).unwrap(), "./digits");
        assert_eq!(named(Some("imagefolder"), Some("pictures")).unwrap(), "pictures");
        assert!(named(Some("digits"), Some("pictures")).is_err());
        assert!(named(None, None).is_err());
    }

    #[test]
    fn a_last_smaller_batch_counts_as_a_step() {
        let config = TrainingConfig {
            train_batch_size: 64,
            num_epochs: 3,
            ..TrainingConfig::script()
        };
        assert_eq!(config.steps_per_epoch(1000), 16);
        assert_eq!(config.total_steps(1000), 48);
        let accumulating = TrainingConfig {
            gradient_accumulation_steps: 3,
            ..config
        };
        assert_eq!(accumulating.steps_per_epoch(1000), 6);
        assert_eq!(
            TrainingConfig {
                max_train_steps: Some(5),
                ..accumulating
            }
            .total_steps(1000),
            5
        );
    }

    #[test]
    fn runs_are_numbered_after_the_last() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(
            next_free_folder(root.path(), "digits"),
            root.path().join("digits-1")
        );
        for taken in ["digits-1", "digits-9", "digits-x", "other-12"] {
            std::fs::create_dir(root.path().join(taken)).unwrap();
        }
        assert_eq!(
            next_free_folder(root.path(), "digits"),
            root.path().join("digits-10")
        );
    }

    #[test]
    fn a_run_is_named_after_its_data_and_its_model() {
        let named = |model: &str| TrainingConfig {
            model: model.to_string().into(),
            ..TrainingConfig::digits()
        };
        assert_eq!(named("digits").run_name("digits"), "digits");
        assert_eq!(named("course-mnist").run_name("digits"), "digits-course-mnist");
        assert_eq!(named("models/small/config.json").run_name("emoji"), "emoji-small");
    }
}
