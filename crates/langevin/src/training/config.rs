//! The options of a training run.

use std::path::PathBuf;

#[cfg(feature = "clap")]
use super::options::Flag as _;
use super::{
    AutoencoderSource, CodecSource, ConditioningKind, LrSchedulerType, MixedPrecision, ModelSource,
    ResumeFrom, TextEncoderSource, TrackerKind, TraineeKind, VectorEmbedding, choices::LearnableProperty,
    optimizer::OptimizerKind, options::options, step::Saving,
};
use crate::{
    conditioning::PictureVector,
    data::{Alpha, Channels, Resize, split},
    models::{ClassChannels, ImageCondition, ModelPreset, autoencoder::AutoencoderPreset},
    nn::AdapterInit,
    objectives::{
        EdmObjective, FlowObjective, LossWeighting, ObjectiveKind, PredictionType, TimestepBiasStrategy,
    },
    ops::Algorithm,
    schedulers::BetaSchedule,
};

/// The name of the built-in data set.
pub const DIGITS: &str = "digits";

/// The file in a run's folder that holds its configuration.
pub const RUN_CONFIG: &str = "training.json";

/// The file in a run's folder that holds a line of JSON for every optimiser step.
pub const METRICS: &str = "metrics.jsonl";

options! {
    /// Everything that decides what a training run does: a field is an option, on the command line and in [`RUN_CONFIG`].
    ///
    /// Fields have the names, meanings and defaults of the flags of diffusers' `train_unconditional.py` where it has them;
    /// the rest is this library's own. Defaults stand in brackets; they are those of [`TrainingConfig::script`], and
    /// [`TrainingConfig::digits`] is the built-in demonstration.
    pub struct TrainingConfig {
        /// The data set: `digits`, ORG/NAME of the Hugging Face Hub, a folder or zip archive of pictures, parquet or IDX files.
        #[flag("Data", value_name = "NAME")]
        pub dataset_name: Option<String> = None,
        /// Which of a repository's configurations [the default one].
        #[flag("Data", value_name = "NAME")]
        pub dataset_config_name: Option<String> = None,
        /// The part of the data set to train on [train].
        #[flag("Data", value_name = "NAME")]
        pub split: String = split::TRAIN.into(),
        /// Train on the pictures of these classes alone: names, with commas between them, or numbers; a name with a comma stands as it is or
        /// in quotes.
        #[flag("Data", value_name = "NAMES")]
        pub only_classes: Vec<String> = vec![],
        /// The column of captions [the first of text, caption and prompt].
        #[flag("Data", value_name = "NAME")]
        pub caption_column: Option<String> = None,
        /// A folder of pictures; sub-folders are classes.
        #[flag("Data", value_name = "FOLDER")]
        pub train_data_dir: Option<PathBuf> = None,
        /// The model: digits, course-butterflies, course-mnist, tones, latent, basic-unet, ddpm-default, or a config.json [ddpm-default].
        #[flag("Model", value_name = "MODEL")]
        pub model: ModelSource = ModelPreset::DdpmDefault.into(),
        /// Start from a pipeline's folder or ORG/NAME of the Hub: its model, its noise and its sizes.
        #[flag("Model", value_name = "PIPELINE", alias = "start-model", conflicts_with_all = [
            "model", "objective", "ddpm_num_steps", "ddpm_beta_schedule", "rescale_betas_zero_snr",
            "edm_sigma_data",
        ])]
        pub pretrained: Option<PathBuf> = None,
        /// Train only parameters whose names hold one of these words, such as attention,norm.
        #[flag("Model", value_name = "WORDS", value_delimiter = ',')]
        pub train_only: Vec<String> = vec![],
        /// The run's folder [a new one under runs/].
        #[flag("Output", value_name = "FOLDER", alias = "model-save-name")]
        #[resume(may_change)]
        pub output_dir: Option<PathBuf> = None,
        /// Who keeps numbers and pictures besides metrics.jsonl: tensorboard, wandb, both as a,b, all or none [none].
        #[flag("Output", value_name = "TRACKER", visible_alias = "logger", value_delimiter = ',')]
        #[resume(may_change)]
        pub report_to: Vec<TrackerKind> = vec![],
        /// The folder of TensorBoard's files in the run's [logs].
        #[flag("Output", value_name = "FOLDER")]
        #[resume(may_change)]
        pub logging_dir: PathBuf = "logs".into(),
        /// The licence that the model card names, as the Hub spells it; the data's where it is known.
        #[flag("Output", value_name = "LICENCE")]
        #[resume(may_change)]
        pub license: Option<String> = None,
        /// Replace the run that is in the folder.
        #[flag("Output", switch())]
        #[resume(may_change)]
        pub overwrite_output_dir: bool = false,

        /// Height and width that pictures are brought to [64, or what the model is made for].
        #[flag("Data", value_name = "PIXELS", alias = "image-size")]
        pub resolution: usize = 64,
        /// Crop from the centre, not at random; sounds in slices, one after another, and not anywhere.
        #[flag("Data", switch())]
        pub center_crop: bool = false,
        /// Mirror every other picture at random.
        #[flag("Data", switch())]
        pub random_flip: bool = false,
        /// How pictures become square [shorter-side].
        #[flag("Data", value_name = "HOW")]
        pub resize: Resize = Resize::ShorterSide,
        /// The channels that pictures are read with [rgb, or what the model is made for].
        #[flag("Data", value_name = "CHANNELS")]
        pub channels: Channels = Channels::Rgb,
        /// What becomes of transparency: laid onto white or black, or dropped as Pillow does [white].
        #[flag("Data", value_name = "HOW")]
        pub alpha: Alpha = Alpha::White,
        /// What lies between the data and what the model draws: nothing (pixels); spectrograms of sounds, as diffusers' audio pipeline (mel) or
        /// Riffusion makes them; an autoencoder, the one in a folder or one that is trained first (train) [pixels].
        #[flag("Data", value_name = "NAME|FOLDER|train")]
        pub codec: Option<CodecSource> = None,
        /// The autoencoder that is trained: tiny (a latent for 4x4 pixels), small (for 8x8), or a config.json of an AutoencoderKL [tiny].
        #[flag("Model", value_name = "MODEL")]
        pub codec_model: AutoencoderSource = AutoencoderPreset::Tiny.into(),
        /// codec train: the optimiser steps of the autoencoder [2000].
        #[flag("Training", value_name = "N")]
        pub codec_train_steps: usize = 2000,
        /// codec train: pictures in its batches [train_batch_size].
        #[flag("Training", value_name = "N")]
        pub codec_batch_size: Option<usize> = None,
        /// codec train: its learning rate after the warm-up [1e-3].
        #[flag("Optimiser", value_name = "RATE")]
        pub codec_learning_rate: Option<f64> = None,
        /// How much an autoencoder's latents are drawn to a normal distribution [1e-6].
        #[flag("Training", value_name = "WEIGHT")]
        pub kl_weight: f64 = 1e-6,
        /// Samples a second that sounds are brought to [22050; riffusion: 44100].
        #[flag("Sound", value_name = "HERTZ")]
        pub sample_rate: Option<u32> = None,
        /// Samples in a window of the spectrogram [2048; riffusion: 17640, of which a quarter is heard].
        #[flag("Sound", value_name = "SAMPLES")]
        pub n_fft: Option<usize> = None,
        /// Samples from one column of the spectrogram to the next [512; riffusion: 441].
        #[flag("Sound", value_name = "SAMPLES")]
        pub hop_length: Option<usize> = None,
        /// The decibels from the loudest to what is black [80].
        #[flag("Sound", value_name = "DECIBELS")]
        pub top_db: Option<f64> = None,
        /// Griffin and Lim's rounds from a spectrogram to a sound [32].
        #[flag("Sound", value_name = "N")]
        pub n_iter: Option<usize> = None,
        /// Keep pictures in memory, resized, once they were read, as far as they fit.
        #[flag("Data", switch())]
        #[resume(may_change)]
        pub cache: bool = false,
        /// End at a picture that cannot be read, in place of leaving it out.
        #[flag("Data", switch())]
        #[resume(may_change)]
        pub strict: bool = false,
        /// Threads that decode pictures ahead of training; 0 chooses [0].
        #[flag("Data", value_name = "N")]
        #[resume(may_change)]
        pub dataloader_num_workers: usize = 0,

        /// Pictures in a batch, of each slot [16].
        #[flag("Training", value_name = "N", alias = "batch-size")]
        pub train_batch_size: usize = 16,
        /// Pictures sampled in a batch [16].
        #[flag("Output", value_name = "N")]
        #[resume(may_change)]
        pub eval_batch_size: usize = 16,
        /// Passes over the data set [100].
        #[flag("Training", value_name = "N")]
        #[resume(may_change)]
        pub num_epochs: usize = 100,
        /// End after so many optimiser steps, whatever the epochs.
        #[flag("Training", value_name = "N")]
        #[resume(may_change)]
        pub max_train_steps: Option<usize> = None,
        /// Sample every so many epochs, and after the last; 0 is after the last only [10].
        #[flag("Output", value_name = "N")]
        #[resume(may_change)]
        pub save_images_epochs: usize = 10,
        /// Sample every so many optimiser steps too; 0 is never [0].
        #[flag("Output", value_name = "N")]
        #[resume(may_change)]
        pub log_samples_every: usize = 0,
        /// Write the pipeline every so many epochs, and after the last; 0 is after the last only [10].
        #[flag("Output", value_name = "N")]
        #[resume(may_change)]
        pub save_model_epochs: usize = 10,
        /// Write a checkpoint every so many optimiser steps; 0 is where the run is interrupted only [500].
        #[flag("Output", value_name = "N")]
        #[resume(may_change)]
        pub checkpointing_steps: usize = 500,
        /// How many checkpoints are kept, the latest [all].
        #[flag("Output", value_name = "N")]
        #[resume(may_change)]
        pub checkpoints_total_limit: Option<usize> = None,
        /// Go on from a checkpoint: its folder, or `latest` for the latest in output_dir.
        #[flag("Output", value_name = "CHECKPOINT")]
        #[resume(may_change)]
        pub resume_from_checkpoint: Option<ResumeFrom> = None,
        /// Write the pipeline every so many optimiser steps too; 0 is never [0].
        #[flag("Output", value_name = "N")]
        #[resume(may_change)]
        pub save_model_every: usize = 0,
        /// Batches whose gradients are averaged for one optimiser step [1].
        #[flag("Training", value_name = "N", alias = "grad-accumulation-steps")]
        pub gradient_accumulation_steps: usize = 1,

        /// The learning rate after the warm-up [1e-4].
        #[flag("Optimiser", value_name = "RATE")]
        pub learning_rate: f64 = 1e-4,
        /// How the learning rate changes [cosine].
        #[flag("Optimiser", value_name = "NAME")]
        pub lr_scheduler: LrSchedulerType = LrSchedulerType::Cosine,
        /// Optimiser steps over which the learning rate rises from zero [500].
        #[flag("Optimiser", value_name = "N")]
        pub lr_warmup_steps: usize = 500,
        /// Waves of the cosine schedules [half a wave for cosine, one restart].
        #[flag("Optimiser", value_name = "N")]
        pub lr_num_cycles: Option<f64> = None,
        /// The power of the polynomial schedule [1].
        #[flag("Optimiser", value_name = "POWER")]
        pub lr_power: f64 = 1.0,
        /// The stretches of the piecewise_constant schedule: 1:10,0.1:20,0.01 multiplies by 1 for 10 steps, by 0.1 up to step 20, then
        /// by 0.01.
        #[flag("Optimiser", value_name = "RULES")]
        pub lr_step_rules: Option<String> = None,
        /// What the exponential schedule multiplies the learning rate with after every epoch [0.9].
        #[flag("Optimiser", value_name = "GAMMA")]
        pub lr_gamma: f64 = 0.9,
        /// What moves the parameters: adamw, prodigy, which finds its learning rate, of which the one given is a multiple, about 1, or
        /// adafactor, which keeps a fraction of what the others do [adamw].
        #[flag("Optimiser", value_name = "NAME")]
        pub optimizer: OptimizerKind = OptimizerKind::AdamW,
        /// prodigy: the decay of what the learning rate is found from [the square root of adam_beta2].
        #[flag("Optimiser", value_name = "BETA")]
        pub prodigy_beta3: Option<f64> = None,
        /// prodigy: whether weight decay is apart from the gradient, as in AdamW [true].
        #[flag("Optimiser", switch())]
        pub prodigy_decouple: bool = true,
        /// prodigy: whether running means are corrected for having begun at zero [true].
        #[flag("Optimiser", switch())]
        pub prodigy_use_bias_correction: bool = true,
        /// prodigy: whether a warm-up is kept out of what the learning rate is found from [true].
        #[flag("Optimiser", switch())]
        pub prodigy_safeguard_warmup: bool = true,
        /// prodigy: what the learning rate is multiplied by as it is found [1].
        #[flag("Optimiser", value_name = "FACTOR")]
        pub prodigy_d_coef: f64 = 1.0,
        /// AdamW's decay of the gradient's mean [0.95].
        #[flag("Optimiser", value_name = "BETA")]
        pub adam_beta1: f64 = 0.95,
        /// AdamW's decay of the gradient's mean square [0.999].
        #[flag("Optimiser", value_name = "BETA")]
        pub adam_beta2: f64 = 0.999,
        /// AdamW's weight decay, per step and unit of learning rate [1e-6].
        #[flag("Optimiser", value_name = "DECAY")]
        pub adam_weight_decay: f64 = 1e-6,
        /// AdamW's epsilon, its guard against division by zero [1e-8].
        #[flag("Optimiser", value_name = "EPSILON")]
        pub adam_epsilon: f64 = 1e-8,
        /// The norm that all gradients together are clipped to [1].
        #[flag("Optimiser", value_name = "NORM")]
        pub max_grad_norm: f64 = 1.0,

        /// Keep an exponential moving average of the weights, and sample and save with it.
        #[flag("Optimiser", switch())]
        pub use_ema: bool = false,
        /// The inverse gamma of the average's warm-up, whose decay at step n is 1 - (1 + n / inv_gamma)^-power [1].
        #[flag("Optimiser", value_name = "GAMMA")]
        pub ema_inv_gamma: f64 = 1.0,
        /// The power of the average's warm-up [0.75].
        #[flag("Optimiser", value_name = "POWER")]
        pub ema_power: f64 = 0.75,
        /// The average's decay after its warm-up [0.9999].
        #[flag("Optimiser", value_name = "DECAY")]
        pub ema_max_decay: f64 = 0.9999,

        /// The way from picture to noise, and so the samplers: a table (ddpm), edm or flow [ddpm].
        #[flag("Noise", value_name = "NAME")]
        pub objective: ObjectiveKind = ObjectiveKind::Ddpm,
        /// What the model predicts [epsilon].
        #[flag("Noise", value_name = "TYPE")]
        pub prediction_type: PredictionType = PredictionType::Epsilon,
        /// Timesteps of the noise schedule [1000].
        #[flag("Noise", value_name = "N")]
        pub ddpm_num_steps: usize = 1000,
        /// Steps of the samples that are drawn while training [1000].
        #[flag("Noise", value_name = "N")]
        #[resume(may_change)]
        pub ddpm_num_inference_steps: usize = 1000,
        /// How noise grows over the timesteps [linear].
        #[flag("Noise", value_name = "NAME")]
        pub ddpm_beta_schedule: BetaSchedule = BetaSchedule::Linear,
        /// Move the schedule so that its last timestep holds no signal.
        #[flag("Noise", switch())]
        pub rescale_betas_zero_snr: bool = false,
        /// How the loss is weighted over the timesteps; docs/objectives.md [script].
        #[flag("Noise", value_name = "NAME")]
        pub loss_weighting: LossWeighting = LossWeighting::Script,
        /// Gamma of the weightings min-snr and soft-min-snr; on a command line it means min-snr where none is named [5 and 4].
        #[flag("Noise", value_name = "GAMMA")]
        pub snr_gamma: Option<f64> = None,
        /// Add so much of a number that is the same all over a channel to the noise [0].
        #[flag("Noise", value_name = "SCALE")]
        pub noise_offset: f64 = 0.0,
        /// Mix so much further noise into the pictures, which the model is not to predict [0].
        #[flag("Noise", value_name = "SCALE")]
        pub input_perturbation: f64 = 0.0,
        /// Which timesteps are drawn more often: none, earlier, later or range [none].
        #[flag("Noise", value_name = "WHICH")]
        pub timestep_bias_strategy: TimestepBiasStrategy = TimestepBiasStrategy::None,
        /// How many times as often [1].
        #[flag("Noise", value_name = "FACTOR")]
        pub timestep_bias_multiplier: f64 = 1.0,
        /// range: the first of them [0].
        #[flag("Noise", value_name = "TIMESTEP")]
        pub timestep_bias_begin: usize = 0,
        /// range: the first behind them [1000].
        #[flag("Noise", value_name = "TIMESTEP")]
        pub timestep_bias_end: usize = 1000,
        /// earlier and later: the part of all timesteps that they are [0.25].
        #[flag("Noise", value_name = "PART")]
        pub timestep_bias_portion: f64 = 0.25,
        /// Let the model learn from what it makes of a noisy picture itself (DREAM); a step takes one more call of it.
        #[flag("Noise", switch())]
        pub dream_training: bool = false,
        /// DREAM's power: more keeps more detail, and changes less [1].
        #[flag("Noise", value_name = "POWER")]
        pub dream_detail_preservation: f64 = 1.0,
        /// The mean of the logarithm of edm's noise levels [-1.2].
        #[flag("Noise", value_name = "MEAN", allow_hyphen_values = true)]
        pub edm_p_mean: f64 = EdmObjective::default().p_mean,
        /// The standard deviation of the logarithm of edm's noise levels [1.2].
        #[flag("Noise", value_name = "STD")]
        pub edm_p_std: f64 = EdmObjective::default().p_std,
        /// The standard deviation of the data, for edm [0.5].
        #[flag("Noise", value_name = "STD")]
        pub edm_sigma_data: f64 = EdmObjective::default().sigma_data,
        /// The mean of the logit of flow's times [0].
        #[flag("Noise", value_name = "MEAN", allow_hyphen_values = true)]
        pub logit_mean: f64 = FlowObjective::default().logit_mean,
        /// The standard deviation of the logit of flow's times [1].
        #[flag("Noise", value_name = "STD")]
        pub logit_std: f64 = FlowObjective::default().logit_std,

        /// What the model is conditioned on besides picture and timestep [none].
        #[flag("Model", value_name = "KIND")]
        pub conditioning: ConditioningKind = ConditioningKind::None,
        /// How often the class is withheld, for classifier-free guidance [0.1].
        #[flag("Model", value_name = "PROBABILITY")]
        pub class_dropout: Option<f64> = None,
        /// channels: how many a class becomes, or one-hot for one per class [4].
        #[flag("Model", value_name = "N|one-hot")]
        pub class_emb_size: ClassChannels = ClassChannels::default(),
        /// A picture that the model is shown: made of the clean one (grey, blur:SIGMA, downscale:FACTOR, edges, mask), or from a column
        /// of the data.
        #[flag("Model", value_name = "WHAT|COLUMN")]
        pub conditioning_image: Option<ImageCondition> = None,
        /// cross-attention: a CLIP text encoder's folder, ORG/NAME of the Hub, or small for one that is trained along [small].
        #[flag("Model", value_name = "FOLDER|small")]
        pub text_encoder: TextEncoderSource = TextEncoderSource::Small,
        /// How often the caption is withheld [0.1].
        #[flag("Model", value_name = "PROBABILITY")]
        pub caption_dropout: Option<f64> = None,
        /// How often the conditioning picture is withheld [0].
        #[flag("Model", value_name = "PROBABILITY")]
        pub image_dropout: Option<f64> = None,
        /// vector: which vector of the picture the model is given, its mean colour or CLIP's embedding [colour].
        #[flag("Model", value_name = "WHAT")]
        pub vector: PictureVector = PictureVector::Colour,
        /// vector: how it is brought to the time embedding's dimension [projection].
        #[flag("Model", value_name = "HOW")]
        pub vector_embedding: VectorEmbedding = VectorEmbedding::Projection,
        /// vector: the CLIP model that embeds the pictures, a folder of transformers' or an open_clip checkpoint.
        #[flag("Model", value_name = "FOLDER", alias = "clip")]
        pub vector_clip: Option<PathBuf> = None,
        /// How often the vector is withheld [0.1].
        #[flag("Model", value_name = "PROBABILITY")]
        pub vector_dropout: Option<f64> = None,
        /// attributes: the columns of the data that say whether a picture has each, such as smiling,glasses.
        #[flag("Model", value_name = "COLUMNS", value_delimiter = ',')]
        pub attribute_columns: Vec<String> = vec![],
        /// How often the attributes are withheld [0.1].
        #[flag("Model", value_name = "PROBABILITY")]
        pub attribute_dropout: Option<f64> = None,
        /// What is trained on top of a latent pipeline: full (the UNet), lora, embedding (new words), controlnet or pix2pix; or codec, an autoencoder
        /// of the data, or of the pipeline that pretrained names [full].
        #[flag("Fine-tuning", value_name = "KIND")]
        pub trainee: TraineeKind = TraineeKind::Full,
        /// The rank of a LoRA's adapters [4].
        #[flag("Fine-tuning", value_name = "N")]
        pub rank: usize = 4,
        /// A LoRA counts alpha / rank [the rank, which is 1].
        #[flag("Fine-tuning", value_name = "ALPHA")]
        pub lora_alpha: Option<f64> = None,
        /// What the names of the UNet's layers end in that a LoRA is put on; where nobody says to_k,to_q,to_v,to_out.0, the projections of
        /// attention.
        #[flag("Fine-tuning", value_name = "NAMES", value_delimiter = ',')]
        pub lora_targets: Vec<String> = vec![],
        /// The same of text encoders, where they are trained; where nobody says q_proj,k_proj,v_proj,out_proj.
        #[flag("Fine-tuning", value_name = "NAMES", value_delimiter = ',')]
        pub lora_text_targets: Vec<String> = vec![],
        /// How often a number that goes into a LoRA is dropped in training [0].
        #[flag("Fine-tuning", value_name = "PROBABILITY")]
        pub lora_dropout: f64 = 0.0,
        /// How a LoRA begins: gaussian or kaiming; either changes nothing at first [gaussian].
        #[flag("Fine-tuning", value_name = "HOW")]
        pub lora_init: AdapterInit = AdapterInit::Gaussian,
        /// Learn how long weights are apart from where they point: DoRA, which is slower and often nearer to training the whole.
        #[flag("Fine-tuning", switch())]
        pub use_dora: bool = false,
        /// Write a LoRA for A1111 and ComfyUI too, with sd-scripts' names.
        #[flag("Fine-tuning", switch())]
        #[resume(may_change)]
        pub output_kohya_format: bool = false,
        /// Train the text encoder too, or put a LoRA on it.
        #[flag("Fine-tuning", switch())]
        pub train_text_encoder: bool = false,
        /// The learning rate of the text encoder [that of the model].
        #[flag("Fine-tuning", value_name = "RATE")]
        pub text_encoder_lr: Option<f64> = None,
        /// Keep latents and encoded texts in this folder, where the next run finds them: a file for each, called by a hash of what it was computed from.
        #[flag("Fine-tuning", value_name = "FOLDER")]
        #[resume(may_change)]
        pub cache_latents_to_disk: Option<PathBuf> = None,
        /// Bring each picture to the size of its proportions that has about the area of the resolution's square, and not to the square; a batch
        /// has pictures of one size. The sizes are those of sd-scripts.
        #[flag("Fine-tuning", switch())]
        pub enable_bucket: bool = false,
        /// The shortest side of such sizes [256].
        #[flag("Fine-tuning", value_name = "PIXELS")]
        pub min_bucket_reso: usize = 256,
        /// The longest [1024].
        #[flag("Fine-tuning", value_name = "PIXELS")]
        pub max_bucket_reso: usize = 1024,
        /// What their sides are multiples of [64].
        #[flag("Fine-tuning", value_name = "PIXELS")]
        pub bucket_reso_steps: usize = 64,
        /// Make pictures smaller for their sizes, and never larger; a smaller one keeps its own size, in whole steps.
        #[flag("Fine-tuning", switch())]
        pub bucket_no_upscale: bool = false,
        /// Shuffle a caption's tags, which have commas between them, each time it is used.
        #[flag("Fine-tuning", switch(), alias = "shuffle-caption")]
        pub shuffle_tags: bool = false,
        /// How many of its first tags stay where they are [0].
        #[flag("Fine-tuning", value_name = "N", alias = "keep-tokens")]
        pub keep_tags: usize = 0,
        /// The caption of all pictures, such as "a photo of sks dog"; without it each has its own.
        #[flag("Fine-tuning", value_name = "TEXT")]
        pub instance_prompt: Option<String> = None,
        /// Train on pictures of the class too, so that the model does not forget what others of it look like: their caption, such as "a photo
        /// of a dog". Missing pictures are drawn by the model itself.
        #[flag("Fine-tuning", value_name = "TEXT")]
        pub class_prompt: Option<String> = None,
        /// The folder of the pictures of the class [class-pictures in the run's].
        #[flag("Fine-tuning", value_name = "FOLDER")]
        pub class_data_dir: Option<PathBuf> = None,
        /// How many pictures of the class there are at least [100].
        #[flag("Fine-tuning", value_name = "N")]
        pub num_class_images: usize = 100,
        /// How much the pictures of the class count [1].
        #[flag("Fine-tuning", value_name = "WEIGHT")]
        pub prior_loss_weight: f64 = 1.0,
        /// embedding: the new word, such as `<cat-toy>`.
        #[flag("Fine-tuning", value_name = "WORD")]
        pub placeholder_token: Option<String> = None,
        /// embedding: the word that the new one begins as, such as toy; one token of the vocabulary.
        #[flag("Fine-tuning", value_name = "WORD")]
        pub initializer_token: Option<String> = None,
        /// embedding: how many vectors the new word has [1].
        #[flag("Fine-tuning", value_name = "N")]
        pub num_vectors: usize = 1,
        /// embedding: whether the word stands for an object or a style [object].
        #[flag("Fine-tuning", value_name = "WHAT")]
        pub learnable_property: LearnableProperty = LearnableProperty::Object,
        /// pix2pix: how often text, picture, and both are withheld [0.05].
        #[flag("Fine-tuning", value_name = "PROBABILITY")]
        pub conditioning_dropout_prob: Option<f64> = None,
        /// What pictures are drawn of while training; several are drawn in turn; where nobody says, the captions of the first
        /// pictures.
        #[flag("Fine-tuning", value_name = "TEXT", alias = "validation-prompts")]
        #[resume(may_change)]
        pub validation_prompt: Vec<String> = vec![],
        /// controlnet and pix2pix: the pictures that those are drawn after, one for each text; where nobody says, those of the first pictures.
        #[flag("Fine-tuning", value_name = "FILE")]
        #[resume(may_change)]
        pub validation_image: Vec<PathBuf> = vec![],
        /// Into how many parts a step falls, as many processes as which may share it at most, with the same bits: each has batches and chance of
        /// its own [1, in several processes as many as they are].
        #[flag("Training", value_name = "N")]
        pub num_slots: usize = 1,
        /// Train on machines whose processors compute with other instructions: the bits then depend on which of them does what.
        #[flag("Training", switch())]
        #[resume(may_change)]
        pub allow_mixed_processors: bool = false,
        /// The seed that everything random comes from [0].
        #[flag("Training", value_name = "N")]
        pub seed: u64 = 0,
        /// Convolve by plain sums: slower, and exact to the last places.
        #[flag("Training", switch())]
        pub exact_convolution: bool = false,
        /// Keep activations for the backward as bf16, in half the memory: no (float32) or bf16 [no].
        #[flag("Training", value_name = "PRECISION")]
        pub mixed_precision: MixedPrecision = MixedPrecision::No,
        /// Keep only the inputs of the model's blocks for the backward, which computes the rest again: less memory, more time.
        #[flag("Training", switch())]
        #[resume(may_change)]
        pub gradient_checkpointing: bool = false,
    }
}

impl TrainingConfig {
    /// The defaults of diffusers' `train_unconditional.py`. They name no data set.
    pub fn script() -> Self {
        Self::default()
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

    /// How convolutions are computed.
    pub fn convolution(&self) -> Algorithm {
        if self.exact_convolution {
            Algorithm::Exact
        } else {
            Algorithm::Fastest
        }
    }

    /// How a step saves memory.
    pub fn saving(&self) -> Saving {
        Saving {
            kept_as: self.mixed_precision.kept_as(),
            checkpointing: self.gradient_checkpointing,
            ..Saving::default()
        }
    }
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
}
