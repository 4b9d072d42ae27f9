//! The choices that a training configuration is made of, by the names they have in files and on the command line.

use std::path::PathBuf;

use crate::{
    Error, Result, models::unet2d_condition::ConditionClassEmbedType, named::named_enum, ops::KeptAs,
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
        /// Several labels of the picture at once, each a column of the data, added to that of the timestep.
        Attributes = "attributes",
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

named_enum! {
    /// What a new word stands for, and so the sentences that it is learned in.
    #[derive(Default)]
    pub enum LearnableProperty: "a property to learn" {
        /// A thing.
        #[default]
        Object = "object",
        /// A manner.
        Style = "style",
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

impl LrSchedulerType {
    /// Whether the learning rate rises from zero first.
    pub fn warms_up(self) -> bool {
        !matches!(self, Self::Constant | Self::Exponential | Self::PiecewiseConstant)
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
