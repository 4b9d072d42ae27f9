//! The course's `ClassConditionedUnet`: a class as channels of its own beside the picture's.

use std::{fmt, str::FromStr};

use burn::{
    module::Module,
    tensor::{Int, Tensor},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Conditioning, Denoiser, Model, ModelConfig, UNet2DConfig, UNet2DModel};
use crate::{
    Error, Result,
    nn::{Embedding, Init},
};

/// How a class becomes channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum ClassChannels {
    /// A learned vector of so many numbers.
    Embedding(usize),
    /// A channel for each class, 1 in the class's own and 0 in the others; the null class has none.
    OneHot,
}

impl Default for ClassChannels {
    fn default() -> Self {
        // The course's.
        Self::Embedding(4)
    }
}

impl fmt::Display for ClassChannels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedding(size) => size.fmt(f),
            Self::OneHot => write!(f, "one-hot"),
        }
    }
}

impl FromStr for ClassChannels {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match (text, text.parse()) {
            ("one-hot", _) => Ok(Self::OneHot),
            (_, Ok(size @ 1..=4096)) => Ok(Self::Embedding(size)),
            _ => Err(Error::Config(format!(
                "`{text}` is no size of a class embedding: it is a number of channels from 1 to 4096, or `one-hot`"
            ))),
        }
    }
}

impl TryFrom<Value> for ClassChannels {
    type Error = Error;

    fn try_from(value: Value) -> Result<Self> {
        value
            .as_str()
            .map_or_else(|| value.to_string(), String::from)
            .parse()
    }
}

impl From<ClassChannels> for Value {
    fn from(channels: ClassChannels) -> Self {
        match channels {
            ClassChannels::Embedding(size) => json!(size),
            ClassChannels::OneHot => json!("one-hot"),
        }
    }
}

/// The configuration of a [`ClassConditionedUnet`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassConditionedConfig {
    /// `ClassConditionedUnet`
    #[serde(rename = "_class_name")]
    pub class_name: String,
    /// How many classes there are, the null class included, which is the last.
    pub num_classes: usize,
    /// How a class becomes channels.
    pub class_emb_size: ClassChannels,
    /// Of the UNet; its `in_channels` count the class's.
    pub model: UNet2DConfig,
}

impl ClassConditionedConfig {
    /// How many channels the class takes.
    pub fn class_channels(&self) -> usize {
        match self.class_emb_size {
            ClassChannels::Embedding(size) => size,
            ClassChannels::OneHot => self.num_classes.saturating_sub(1),
        }
    }
}

impl ModelConfig for ClassConditionedConfig {
    const CLASS: &'static str = "ClassConditionedUnet";
    // As for the course's other network: diffusers has no such class.
    const LIBRARY: &'static str = "langevin";

    fn size_divisor(&self) -> usize {
        self.model.size_divisor()
    }

    fn validate(&self) -> Result<()> {
        self.model.validate()?;
        if !(2..=1 << 20).contains(&self.num_classes) || self.class_channels() >= self.model.in_channels {
            return Err(Error::Config(format!(
                "num_classes is {} and class_emb_size {}: there should be at least a class and the null class, and in_channels {} \
                 should count the picture's channels and the class's",
                self.num_classes, self.class_emb_size, self.model.in_channels
            )));
        }
        Ok(())
    }

    fn sample_size(&self) -> Option<[usize; 2]> {
        self.model.sample_size()
    }
}

/// A UNet that sees its picture's class as channels, the same at every place. Parameters have the course's names: `class_emb.weight`,
/// `model.…`
#[derive(Module, Debug)]
pub struct ClassConditionedUnet {
    /// A vector for each class; none where classes are one-hot.
    pub class_emb: Option<Embedding>,
    /// Sees the picture and the class.
    pub model: UNet2DModel,
    #[module(skip)]
    config: ClassConditionedConfig,
}

impl Model for ClassConditionedUnet {
    type Config = ClassConditionedConfig;

    fn build(config: &ClassConditionedConfig, init: &mut Init<'_>) -> Result<Self> {
        // The UNet first, as in the course.
        let model = UNet2DModel::build(&config.model, init)?;
        let class_emb = match config.class_emb_size {
            ClassChannels::Embedding(size) => Some(Embedding::new(config.num_classes, size, init)),
            ClassChannels::OneHot => None,
        };
        Ok(Self {
            class_emb,
            model,
            config: config.clone(),
        })
    }

    fn config(&self) -> &ClassConditionedConfig {
        &self.config
    }
}

impl ClassConditionedUnet {
    /// `[batch]` → `[batch, class channels]`
    fn vectors(&self, classes: Tensor<1, Int>) -> Tensor<2> {
        if let Some(table) = &self.class_emb {
            return table.forward(classes);
        }
        let device = classes.device();
        let numbers = Tensor::<1, Int>::arange(0..self.config.class_channels() as i64, &device);
        // The null class is none of them.
        let own = classes.unsqueeze_dim::<2>(1) - numbers.unsqueeze_dim::<2>(0);
        own.equal_elem(0).float()
    }
}

impl Denoiser for ClassConditionedUnet {
    fn denoise(&self, x: Tensor<4>, timesteps: Tensor<1>, conditioning: &Conditioning) -> Result<Tensor<4>> {
        let [batch, _, height, width] = x.dims();
        let classes = conditioning.needed_classes(batch)?;
        let channels = self.config.class_channels();
        let class = self
            .vectors(classes)
            .reshape([batch, channels, 1, 1])
            .expand([batch, channels, height, width]);
        let others = Conditioning {
            classes: None,
            ..conditioning.clone()
        };
        self.model
            .denoise(Tensor::cat(vec![x, class], 1), timesteps, &others)
    }
}
