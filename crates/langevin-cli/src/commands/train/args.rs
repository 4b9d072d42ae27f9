//! The flags of `langevin train`, as they are typed.

use std::path::PathBuf;

use clap::Args;
use langevin::{
    data::{Alpha, Channels, Resize},
    device::DeviceName,
    models::{ClassChannels, ImageCondition, PictureVector},
    objectives::{LossWeighting, ObjectiveKind, PredictionType},
    schedulers::BetaSchedule,
    training::{
        ConditioningKind, LrSchedulerType, MixedPrecision, ModelSource, ResumeFrom, TextEncoderSource,
        VectorEmbedding,
    },
};

use crate::flags::choice;

/// What `--help` begins with.
pub const LONG_ABOUT: &str = "\
Train a model on pictures.

Without a data set, this trains on the built-in handwritten digits with a recipe made for them. With one, the defaults \
are those of diffusers' train_unconditional.py, given in brackets. Flags are taken in --kebab-case and in the script's \
--snake_case; `--dry-run` shows what they come to.";

const EXAMPLES: &str = "\
Examples:
  langevin train
  langevin train --train-data-dir pictures --model course-butterflies --num-epochs 50
  langevin train --dataset_name=pictures --resolution=64 --train_batch_size=32 --learning_rate=1e-4
  langevin accelerate launch train_unconditional.py --dataset_name=pictures --output_dir=my-model";

/// What the user typed; `None` is what was not.
#[derive(Args, Debug, Default)]
#[command(after_help = EXAMPLES)]
pub struct TrainArgs {
    /// The data set: `digits`, ORG/NAME of the Hugging Face Hub, a folder or zip archive of pictures, parquet or IDX files
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub dataset_name: Option<String>,
    /// Which of a repository's configurations [the default one]
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub dataset_config_name: Option<String>,
    /// The part of the data set to train on [train]
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub split: Option<String>,
    /// Train on the pictures of these classes alone
    #[arg(long, value_delimiter = ',', value_name = "NAMES", help_heading = "Data")]
    pub only_classes: Option<Vec<String>>,
    /// A folder of pictures; sub-folders are classes
    #[arg(long, value_name = "FOLDER", help_heading = "Data")]
    pub train_data_dir: Option<PathBuf>,
    /// Height and width that pictures are brought to [64, or what the model is made for]
    #[arg(long, alias = "image-size", value_name = "PIXELS", help_heading = "Data")]
    pub resolution: Option<usize>,
    /// How pictures become square [shorter-side]
    #[arg(long, value_parser = choice::<Resize>(), value_name = "HOW", help_heading = "Data")]
    pub resize: Option<Resize>,
    /// Crop from the centre, not at random
    #[arg(long, help_heading = "Data", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub center_crop: Option<bool>,
    /// Mirror every other picture
    #[arg(long, help_heading = "Data", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub random_flip: Option<bool>,
    /// The channels that pictures are read with [rgb, or what the model is made for]
    #[arg(long, value_parser = choice::<Channels>(), value_name = "CHANNELS", help_heading = "Data")]
    pub channels: Option<Channels>,
    /// What becomes of transparency: laid onto white or black, or dropped as Pillow does [white]
    #[arg(long, value_parser = choice::<Alpha>(), value_name = "HOW", help_heading = "Data")]
    pub alpha: Option<Alpha>,
    /// Keep pictures in memory, resized, once they were read, as far as they fit
    #[arg(long, help_heading = "Data", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub cache: Option<bool>,
    /// End at a picture that cannot be read, in place of leaving it out
    #[arg(long, help_heading = "Data", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub strict: Option<bool>,
    /// Threads that decode pictures ahead of training; 0 chooses [0]
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub dataloader_num_workers: Option<usize>,

    /// The model: digits, course-butterflies, course-mnist, basic-unet, ddpm-default, or a config.json [ddpm-default]
    #[arg(long, value_parser = model_source, value_name = "MODEL", help_heading = "Model")]
    pub model: Option<ModelSource>,
    /// A diffusers model configuration: a config.json, its folder, or ORG/NAME of the Hub
    #[arg(long, value_parser = model_source, value_name = "PATH", help_heading = "Model", conflicts_with = "model")]
    pub model_config_name_or_path: Option<ModelSource>,
    /// Start from a pipeline's folder or ORG/NAME of the Hub: its model, its noise and its sizes
    #[arg(long, alias = "start-model", value_name = "PIPELINE", help_heading = "Model", conflicts_with_all = ["model", "model_config_name_or_path", "objective", "prediction_type", "ddpm_num_steps", "ddpm_beta_schedule", "rescale_betas_zero_snr", "edm_sigma_data"])]
    pub pretrained: Option<PathBuf>,
    /// Train only parameters whose names hold one of these words, such as attention,norm
    #[arg(long, value_delimiter = ',', value_name = "WORDS", help_heading = "Model")]
    pub train_only: Option<Vec<String>>,
    /// What the model is told besides picture and timestep [none]
    #[arg(long, value_parser = choice::<ConditioningKind>(), value_name = "KIND", help_heading = "Model")]
    pub conditioning: Option<ConditioningKind>,
    /// channels: how many a class becomes, or one-hot for one a class [4]
    #[arg(long, value_name = "N|one-hot", help_heading = "Model")]
    pub class_emb_size: Option<ClassChannels>,
    /// A picture that the model is shown: made of the clean one (grey, blur:SIGMA, downscale:FACTOR, edges, mask), or from a column of the data
    #[arg(long, value_name = "WHAT|COLUMN", help_heading = "Model")]
    pub conditioning_image: Option<ImageCondition>,
    /// cross-attention: a CLIP text encoder's folder, ORG/NAME of the Hub, or small for one that is trained along [small]
    #[arg(long, value_parser = text_encoder, value_name = "FOLDER|small", help_heading = "Model")]
    pub text_encoder: Option<TextEncoderSource>,
    /// How often the caption is withheld [0.1]
    #[arg(long, value_name = "PROBABILITY", help_heading = "Model")]
    pub caption_dropout: Option<f64>,
    /// How often the conditioning picture is withheld [0]
    #[arg(long, value_name = "PROBABILITY", help_heading = "Model")]
    pub image_dropout: Option<f64>,
    /// vector: what the model is told of the picture, its mean colour or CLIP's embedding [colour]
    #[arg(long, value_parser = choice::<PictureVector>(), value_name = "WHAT", help_heading = "Model")]
    pub vector: Option<PictureVector>,
    /// vector: how it is brought to the time embedding's dimension [projection]
    #[arg(long, value_parser = choice::<VectorEmbedding>(), value_name = "HOW", help_heading = "Model")]
    pub vector_embedding: Option<VectorEmbedding>,
    /// vector: the CLIP model that embeds the pictures, a folder of transformers' or an open_clip checkpoint
    #[arg(long, alias = "clip", value_name = "FOLDER", help_heading = "Model")]
    pub vector_clip: Option<PathBuf>,
    /// How often the vector is withheld [0.1]
    #[arg(long, value_name = "PROBABILITY", help_heading = "Model")]
    pub vector_dropout: Option<f64>,
    /// How often the class is withheld, for classifier-free guidance [0.1]
    #[arg(long, value_name = "PROBABILITY", help_heading = "Model")]
    pub class_dropout: Option<f64>,

    /// Pictures in a batch [16]
    #[arg(long, alias = "batch-size", value_name = "N", help_heading = "Training")]
    pub train_batch_size: Option<usize>,
    /// Passes over the data set [100]
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub num_epochs: Option<usize>,
    /// End after so many optimiser steps, whatever the epochs
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub max_train_steps: Option<usize>,
    /// Batches to one optimiser step [1]
    #[arg(
        long,
        alias = "grad-accumulation-steps",
        value_name = "N",
        help_heading = "Training"
    )]
    pub gradient_accumulation_steps: Option<usize>,
    /// The seed that everything random comes from [0]
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub seed: Option<u64>,
    /// Where to train: cpu, or vulkan, vulkan:N, wgpu, wgpu:N, metal, cuda, cuda:N where they are built in [cpu]
    #[arg(long, value_name = "DEVICE", help_heading = "Training")]
    pub device: Option<DeviceName>,
    /// Convolve by plain sums: slower, and exact to the last places
    #[arg(long, help_heading = "Training", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub exact_convolution: Option<bool>,
    /// Keep activations for the backward as bf16, in half the memory: no (float32) or bf16 [no]
    #[arg(long, value_name = "PRECISION", help_heading = "Training", value_parser = choice::<MixedPrecision>())]
    pub mixed_precision: Option<MixedPrecision>,
    /// Keep only the inputs of the model's blocks for the backward, which computes the rest again: less memory, more time
    #[arg(long, help_heading = "Training", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub gradient_checkpointing: Option<bool>,

    /// The learning rate [1e-4]
    #[arg(long, value_name = "RATE", help_heading = "Optimiser")]
    pub learning_rate: Option<f64>,
    /// How the learning rate changes [cosine]
    #[arg(long, value_parser = choice::<LrSchedulerType>(), value_name = "NAME", help_heading = "Optimiser")]
    pub lr_scheduler: Option<LrSchedulerType>,
    /// Steps over which the learning rate rises [500]
    #[arg(long, value_name = "N", help_heading = "Optimiser")]
    pub lr_warmup_steps: Option<usize>,
    /// Waves of the cosine schedules
    #[arg(long, value_name = "N", help_heading = "Optimiser")]
    pub lr_num_cycles: Option<f64>,
    /// The power of the polynomial schedule [1]
    #[arg(long, value_name = "POWER", help_heading = "Optimiser")]
    pub lr_power: Option<f64>,
    /// The stretches of the piecewise_constant schedule, such as 1:10,0.1:20,0.01
    #[arg(long, value_name = "RULES", help_heading = "Optimiser")]
    pub lr_step_rules: Option<String>,
    /// What the exponential schedule multiplies with every epoch [0.9]
    #[arg(long, value_name = "GAMMA", help_heading = "Optimiser")]
    pub lr_gamma: Option<f64>,
    /// AdamW's decay of the mean [0.95]
    #[arg(long, value_name = "BETA", help_heading = "Optimiser")]
    pub adam_beta1: Option<f64>,
    /// AdamW's decay of the mean square [0.999]
    #[arg(long, value_name = "BETA", help_heading = "Optimiser")]
    pub adam_beta2: Option<f64>,
    /// AdamW's weight decay [1e-6]
    #[arg(long, value_name = "DECAY", help_heading = "Optimiser")]
    pub adam_weight_decay: Option<f64>,
    /// AdamW's epsilon [1e-8]
    #[arg(long, value_name = "EPSILON", help_heading = "Optimiser")]
    pub adam_epsilon: Option<f64>,
    /// The norm that gradients are clipped to [1]
    #[arg(long, value_name = "NORM", help_heading = "Optimiser")]
    pub max_grad_norm: Option<f64>,
    /// Keep an exponential moving average of the weights
    #[arg(long, help_heading = "Optimiser", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub use_ema: Option<bool>,
    /// The inverse gamma of the average's warm-up [1]
    #[arg(long, value_name = "GAMMA", help_heading = "Optimiser")]
    pub ema_inv_gamma: Option<f64>,
    /// The power of the average's warm-up [0.75]
    #[arg(long, value_name = "POWER", help_heading = "Optimiser")]
    pub ema_power: Option<f64>,
    /// The average's decay after its warm-up [0.9999]
    #[arg(long, value_name = "DECAY", help_heading = "Optimiser")]
    pub ema_max_decay: Option<f64>,

    /// The way from picture to noise, and so the samplers: a table (ddpm), edm or flow [ddpm]
    #[arg(long, value_parser = choice::<ObjectiveKind>(), value_name = "NAME", help_heading = "Noise")]
    pub objective: Option<ObjectiveKind>,
    /// What the model predicts [epsilon]
    #[arg(long, value_parser = choice::<PredictionType>(), value_name = "TYPE", help_heading = "Noise")]
    pub prediction_type: Option<PredictionType>,
    /// Timesteps of the noise schedule [1000]
    #[arg(long, value_name = "N", help_heading = "Noise")]
    pub ddpm_num_steps: Option<usize>,
    /// Steps of the samples drawn while training [1000]
    #[arg(long, value_name = "N", help_heading = "Noise")]
    pub ddpm_num_inference_steps: Option<usize>,
    /// How noise grows [linear]
    #[arg(long, value_parser = choice::<BetaSchedule>(), value_name = "NAME", help_heading = "Noise")]
    pub ddpm_beta_schedule: Option<BetaSchedule>,

    /// Move the schedule so that its last timestep holds no signal
    #[arg(long, help_heading = "Noise", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub rescale_betas_zero_snr: Option<bool>,
    /// How the loss is weighted over the timesteps; docs/objectives.md [script]
    #[arg(long, value_parser = choice::<LossWeighting>(), value_name = "NAME", help_heading = "Noise")]
    pub loss_weighting: Option<LossWeighting>,
    /// Gamma of the weightings min-snr, which it stands for on its own, and soft-min-snr [5 and 4]
    #[arg(long, value_name = "GAMMA", help_heading = "Noise")]
    pub snr_gamma: Option<f64>,
    /// Add so much of a number that is the same all over a channel to the noise [0]
    #[arg(long, value_name = "SCALE", help_heading = "Noise")]
    pub noise_offset: Option<f64>,
    /// Mix so much further noise into the pictures, of which the model is not told [0]
    #[arg(long, value_name = "SCALE", help_heading = "Noise")]
    pub input_perturbation: Option<f64>,
    /// The mean of the logarithm of edm's noise levels [-1.2]
    #[arg(long, allow_hyphen_values = true, value_name = "MEAN", help_heading = "Noise")]
    pub edm_p_mean: Option<f64>,
    /// Its standard deviation [1.2]
    #[arg(long, value_name = "STD", help_heading = "Noise")]
    pub edm_p_std: Option<f64>,
    /// The standard deviation of the data, for edm [0.5]
    #[arg(long, value_name = "STD", help_heading = "Noise")]
    pub edm_sigma_data: Option<f64>,
    /// The mean of the logit of flow's times [0]
    #[arg(long, allow_hyphen_values = true, value_name = "MEAN", help_heading = "Noise")]
    pub logit_mean: Option<f64>,
    /// Its standard deviation [1]
    #[arg(long, value_name = "STD", help_heading = "Noise")]
    pub logit_std: Option<f64>,

    /// The run's folder [a new one under runs/]
    #[arg(
        long,
        alias = "model-save-name",
        value_name = "FOLDER",
        help_heading = "Output"
    )]
    pub output_dir: Option<PathBuf>,
    /// Replace the run that is in the folder
    #[arg(long, help_heading = "Output", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub overwrite_output_dir: Option<bool>,
    /// Draw samples every so many epochs; 0 at the end only [10]
    #[arg(long, value_name = "N", help_heading = "Output")]
    pub save_images_epochs: Option<usize>,
    /// Write the pipeline every so many epochs; 0 at the end only [10]
    #[arg(long, value_name = "N", help_heading = "Output")]
    pub save_model_epochs: Option<usize>,
    /// Write the pipeline every so many optimiser steps too; 0 never [0]
    #[arg(long, value_name = "N", help_heading = "Output")]
    pub save_model_every: Option<usize>,
    /// Optimiser steps between samples; 0 is never [0]
    #[arg(long, value_name = "N", help_heading = "Output")]
    pub log_samples_every: Option<usize>,
    /// Who keeps numbers and pictures besides metrics.jsonl: tensorboard, wandb, both as a,b, all or none [none]
    #[arg(
        long,
        visible_alias = "report-to",
        value_delimiter = ',',
        value_name = "TRACKER",
        help_heading = "Output"
    )]
    pub logger: Option<Vec<String>>,
    /// The folder of TensorBoard's files in the run's [logs]
    #[arg(long, value_name = "FOLDER", help_heading = "Output")]
    pub logging_dir: Option<PathBuf>,
    /// Write a checkpoint every so many optimiser steps; 0 where the run is interrupted only [500]
    #[arg(long, value_name = "N", help_heading = "Output")]
    pub checkpointing_steps: Option<usize>,
    /// How many checkpoints are kept [all]
    #[arg(long, value_name = "N", help_heading = "Output")]
    pub checkpoints_total_limit: Option<usize>,
    /// Go on from a checkpoint: its folder, or `latest` for that of --output-dir
    #[arg(long, value_parser = resume_from, value_name = "CHECKPOINT", help_heading = "Output")]
    pub resume_from_checkpoint: Option<ResumeFrom>,
    /// Pictures sampled in a batch [16]
    #[arg(long, value_name = "N", help_heading = "Output")]
    pub eval_batch_size: Option<usize>,
    /// The licence that the model card names, as the Hub spells it
    #[arg(long, value_name = "LICENCE", help_heading = "Output")]
    pub license: Option<String>,
    /// Show a bar in place of the dashboard
    #[arg(long, visible_alias = "plain", help_heading = "Output")]
    pub no_dashboard: bool,
    /// Show nothing while training
    #[arg(long, short, help_heading = "Output")]
    pub quiet: bool,
    /// Print what the flags come to, as JSON, and train nothing
    #[arg(long, help_heading = "Output")]
    pub dry_run: bool,

    #[command(flatten)]
    pub hub: HubArgs,
    #[command(flatten)]
    pub script: ScriptArgs,
}

/// Flags about the Hugging Face Hub.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Hub")]
pub struct HubArgs {
    /// Publish the run on the Hub when it is over
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub push_to_hub: Option<bool>,
    /// The repository to publish it in [the name of the run's folder, under your own]
    #[arg(long, value_name = "ORG/NAME")]
    pub hub_model_id: Option<String>,
    /// The token [HF_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    pub hub_token: Option<String>,
    /// Make the repository a private one, if it is made now
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub hub_private_repo: Option<bool>,
    /// Where models and data sets of the Hub are kept [the standard cache]
    #[arg(long, value_name = "FOLDER")]
    pub cache_dir: Option<PathBuf>,
}

/// Flags of the script that have no effect here; not in the help.
#[derive(Args, Debug, Default)]
pub struct ScriptArgs {
    #[arg(long, hide = true)]
    pub enable_xformers_memory_efficient_attention: bool,
    #[arg(long, hide = true)]
    pub preserve_input_precision: bool,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub local_rank: Option<String>,
}

fn resume_from(text: &str) -> Result<ResumeFrom, std::convert::Infallible> {
    Ok(ResumeFrom::from(text.to_string()))
}

fn model_source(text: &str) -> Result<ModelSource, std::convert::Infallible> {
    Ok(ModelSource::from(text.to_string()))
}

fn text_encoder(text: &str) -> Result<TextEncoderSource, std::convert::Infallible> {
    Ok(TextEncoderSource::from(text.to_string()))
}
