//! The choices that a training configuration is made of, by the names they have in files and on the command line.

use std::path::{Path, PathBuf};

use crate::{
    Error, Result,
    data::looks_like_hub_name,
    files,
    models::{AnyModelConfig, ModelPreset, unet2d_condition::ConditionClassEmbedType},
    named::{Named, named_enum},
    ops::KeptAs,
};

named_enum! {
    /// What a model is told besides the noisy picture and its timestep.
    pub enum ConditioningKind: "a conditioning" {
        /// Nothing.
        None = "none",
        /// The picture's class, as a learned embedding added to that of the timestep; one class more than the data
        /// has, the null class, stands for "not told".
        Class = "class",
        /// The picture's class, as channels of its own beside the picture's: the course's ClassConditionedUnet.
        Channels = "channels",
        /// The picture's class, its number embedded as a timestep's is and added to that of the timestep.
        ClassTimestep = "class-timestep",
        /// The picture's caption, through a text encoder and cross-attention.
        CrossAttention = "cross-attention",
        /// A vector of the picture itself, such as its mean colour or CLIP's embedding, added to that of the timestep.
        Vector = "vector",
    }
}

named_enum! {
    /// How a vector is brought to the dimension of the time embedding. The names of diffusers' `class_embed_type`.
    pub enum VectorEmbedding: "an embedding of a vector" {
        /// By two linear layers.
        Projection = "projection",
        /// By one linear layer.
        SimpleProjection = "simple_projection",
        /// Not at all: it has that dimension.
        Identity = "identity",
    }
}

impl From<VectorEmbedding> for ConditionClassEmbedType {
    fn from(embedding: VectorEmbedding) -> Self {
        match embedding {
            VectorEmbedding::Projection => Self::Projection,
            VectorEmbedding::SimpleProjection => Self::SimpleProjection,
            VectorEmbedding::Identity => Self::Identity,
        }
    }
}

impl TryFrom<ConditionClassEmbedType> for VectorEmbedding {
    type Error = Error;

    fn try_from(embedding: ConditionClassEmbedType) -> Result<Self> {
        match embedding {
            ConditionClassEmbedType::Projection => Ok(Self::Projection),
            ConditionClassEmbedType::SimpleProjection => Ok(Self::SimpleProjection),
            ConditionClassEmbedType::Identity => Ok(Self::Identity),
            ConditionClassEmbedType::Timestep => Err(Error::Unsupported(
                "a class that is told as a timestep is no vector of a picture".into(),
            )),
        }
    }
}

named_enum! {
    /// How the learning rate changes over a run. The names of diffusers' `get_scheduler`.
    pub enum LrSchedulerType: "a learning-rate schedule" {
        /// Down to zero in a straight line after the warm-up.
        Linear = "linear",
        /// Down to zero along half a cosine after the warm-up.
        Cosine = "cosine",
        /// Several half cosines, each from the top.
        CosineWithRestarts = "cosine_with_restarts",
        /// Down to 1e-7 along a power of what is left of the run.
        Polynomial = "polynomial",
        /// The same throughout, without a warm-up.
        Constant = "constant",
        /// The same throughout, after the warm-up.
        ConstantWithWarmup = "constant_with_warmup",
        /// `lr_gamma` times what it was in the epoch before, without a warm-up: PyTorch's `ExponentialLR`, stepped once an
        /// epoch.
        Exponential = "exponential",
        /// The same within each stretch of steps, as `lr_step_rules` says.
        PiecewiseConstant = "piecewise_constant",
    }
}

named_enum! {
    /// What training computes and keeps its numbers as. The names of accelerate's `--mixed_precision`.
    pub enum MixedPrecision: "a precision" {
        /// Float32 throughout.
        No = "no",
        /// Float16: for GPUs, and not there yet.
        Fp16 = "fp16",
        /// What the forward keeps for the backward is bf16, in half the memory; weights, their gradients, the optimiser's
        /// moments, statistics and all sums are float32.
        Bf16 = "bf16",
    }
}

impl MixedPrecision {
    /// How operations keep activations then.
    pub fn kept_as(self) -> KeptAs {
        match self {
            Self::Bf16 => KeptAs::Bf16,
            Self::No | Self::Fp16 => KeptAs::Float32,
        }
    }
}

impl ConditioningKind {
    /// Whether the model is told classes.
    pub fn tells_classes(self) -> bool {
        matches!(self, Self::Class | Self::Channels | Self::ClassTimestep)
    }
}

/// Where captions become sequences.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(from = "String", into = "String")]
pub enum TextEncoderSource {
    /// A small transformer that is trained along, with a tokenizer of the captions' words.
    #[default]
    Small,
    /// A folder of CLIP's text tower, which stays as it is: of a pipeline's `text_encoder`, with `tokenizer` beside it, or of a whole
    /// CLIP.
    Folder(PathBuf),
}

/// `small` is the small one; anything else is a path.
impl From<String> for TextEncoderSource {
    fn from(text: String) -> Self {
        match text.as_str() {
            "small" => Self::Small,
            _ => Self::Folder(text.into()),
        }
    }
}

impl From<TextEncoderSource> for String {
    fn from(source: TextEncoderSource) -> Self {
        match source {
            TextEncoderSource::Small => "small".into(),
            TextEncoderSource::Folder(path) => path.display().to_string(),
        }
    }
}

/// The checkpoint that a run goes on from.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(from = "String", into = "String")]
pub enum ResumeFrom {
    /// The latest in the run's folder; where there is none, the run starts from the beginning.
    Latest,
    /// A checkpoint's folder, its name in the run's folder, or a run's folder, which stands for its latest.
    Path(PathBuf),
}

impl From<String> for ResumeFrom {
    fn from(text: String) -> Self {
        if text == "latest" {
            Self::Latest
        } else {
            Self::Path(text.into())
        }
    }
}

impl From<ResumeFrom> for String {
    fn from(from: ResumeFrom) -> Self {
        match from {
            ResumeFrom::Latest => "latest".into(),
            ResumeFrom::Path(path) => path.display().to_string(),
        }
    }
}

/// Which model a run trains: a preset by its name, or a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(from = "String", into = "String")]
pub enum ModelSource {
    /// One of the built-in configurations.
    Preset(ModelPreset),
    /// A diffusers `config.json`, or a folder that has one.
    Config(PathBuf),
}

impl ModelSource {
    /// The configuration, as the preset or the file has it.
    ///
    /// # Errors
    /// If there is no such file, or it is not the configuration of a model that there is.
    pub fn config(&self) -> Result<AnyModelConfig> {
        match self {
            Self::Preset(preset) => Ok(preset.config()),
            Self::Config(path) => AnyModelConfig::load(config_file(path)?),
        }
    }

    /// A name for the model that is fit for a folder's: the preset's, or the file's without its extension.
    pub fn short_name(&self) -> String {
        match self {
            Self::Preset(preset) => preset.name().to_string(),
            Self::Config(path) => {
                if let Some(repository) = files::cached_repository(path) {
                    return repository.name().to_string();
                }
                // `some-model/config.json` is better called by its folder.
                let named_by = if path.file_name().is_some_and(|name| name == "config.json") {
                    path.parent()
                        .filter(|parent| parent.file_name().is_some())
                        .unwrap_or(path)
                } else {
                    path
                };
                named_by
                    .file_stem()
                    .map_or_else(|| "model".into(), |stem| stem.to_string_lossy().into_owned())
            }
        }
    }
}

/// The model configuration that a path stands for: the file itself, or that of a model's or a pipeline's folder.
///
/// # Errors
/// If there is nothing at the path, or a folder without a model.
fn config_file(path: &Path) -> Result<PathBuf> {
    if path.is_dir() {
        return [path.join("config.json"), path.join("unet/config.json")]
            .into_iter()
            .find(|file| file.is_file())
            .ok_or_else(|| Error::file(path, "holds no config.json of a model"));
    }
    if path.exists() {
        return Ok(path.to_path_buf());
    }
    let name = path.display();
    if looks_like_hub_name(&name.to_string()) {
        return Err(Error::Unsupported(format!(
            "there is no file `{name}`; if it is a repository of the Hub, pull it and name the folder, as the program \
             langevin does"
        )));
    }
    let presets: Vec<&str> = ModelPreset::ALL.iter().map(|preset| preset.name()).collect();
    Err(Error::Config(format!(
        "there is no model `{name}`: there are {}, and there is no such file",
        presets.join(", ")
    )))
}

impl From<ModelPreset> for ModelSource {
    fn from(preset: ModelPreset) -> Self {
        Self::Preset(preset)
    }
}

/// A preset's name is that preset; anything else is a path.
impl From<String> for ModelSource {
    fn from(text: String) -> Self {
        ModelPreset::from_name(&text).map_or_else(|_| Self::Config(text.into()), Self::Preset)
    }
}

impl From<ModelSource> for String {
    fn from(source: ModelSource) -> Self {
        source.to_string()
    }
}

impl std::fmt::Display for ModelSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Preset(preset) => preset.fmt(f),
            Self::Config(path) => path.display().fmt(f),
        }
    }
}
