//! The course's `ClassConditionedUnet`: a class as channels of its own beside the picture's.

use std::{fmt, path::Path, str::FromStr};

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Checkpoint, Conditioning, Denoiser, UNet2DConfig, UNet2DModel, weights};
use crate::{
    Error, Result,
    nn::{Embedding, Init},
    random::Generator,
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

    /// Checks the values.
    ///
    /// # Errors
    /// If they make no model.
    pub fn validate(&self) -> Result<()> {
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

impl ClassConditionedUnet {
    /// A new model with PyTorch's initialisation, the UNet first, as in the course.
    ///
    /// # Errors
    /// If the configuration makes no model.
    pub fn new(config: &ClassConditionedConfig, device: &Device, generator: &mut Generator) -> Result<Self> {
        config.validate()?;
        let model = UNet2DModel::new(&config.model, device, generator)?;
        let init = &mut Init::new(generator, device);
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

    /// A model with the weights of a checkpoint.
    ///
    /// # Errors
    /// If the configuration makes no model, or the weights are not its.
    pub fn with_weights(
        config: &ClassConditionedConfig,
        checkpoint: &mut Checkpoint,
        device: &Device,
    ) -> Result<Self> {
        let model = Self::new(config, device, &mut Generator::new(0))?;
        weights::load(model, checkpoint, device)
    }

    /// Saves both files into a folder.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        weights::save_with_config(self, &self.config, folder)
    }

    /// Its configuration.
    pub fn config(&self) -> &ClassConditionedConfig {
        &self.config
    }

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
        let classes = conditioning.classes.clone().ok_or_else(|| {
            Error::Config("this model is class-conditional: it needs a class for each picture".into())
        })?;
        if classes.dims() != [batch] {
            return Err(Error::Shape(format!(
                "there are {} classes for {batch} pictures: each needs one",
                classes.dims()[0]
            )));
        }
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
