//! The models that there are, one row per class.

use std::path::Path;

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use serde_json::Value;

use super::{
    BasicUNet, BasicUNetConfig, ClassConditionedConfig, ClassConditionedUnet, Conditioning, Denoiser,
    DiTTransformer2DConfig, DiTTransformer2DModel, Model, ModelConfig, PixArtTransformer2DConfig,
    PixArtTransformer2DModel, SD3Transformer2DConfig, SD3Transformer2DModel, UNet2DConditionConfig,
    UNet2DConditionModel, UNet2DConfig, UNet2DModel,
};
use crate::{
    Error, Result, files,
    random::Generator,
    weights::{self, CONFIG_NAME, Checkpoint},
};

/// The class of a configuration. Written by hand it may leave its class out; and early transformers were all of one class, which their
/// normalisation tells apart, as diffusers' `_CLASS_REMAPPING_DICT` has it.
fn present_class(config: &Value) -> &str {
    let text = |key: &str| config.get(key).and_then(Value::as_str);
    match (text("_class_name"), text("norm_type")) {
        (None, _) => UNet2DConfig::CLASS,
        (Some("Transformer2DModel"), Some("ada_norm_zero")) => DiTTransformer2DConfig::CLASS,
        (Some("Transformer2DModel"), Some("ada_norm_single")) => PixArtTransformer2DConfig::CLASS,
        (Some(class_name), _) => class_name,
    }
}

/// Writes [`AnyModel`] and [`AnyModelConfig`] for rows of a variant, a [`Model`] that is a [`Denoiser`], and its configuration.
macro_rules! models {
    ($($(#[$doc:meta])+ $variant:ident($model:ident, $config:ident);)+) => {
        /// The configuration of any model that there is, told apart by `_class_name`.
        #[derive(Clone, Debug, PartialEq)]
        // A handful of these ever exist.
        #[allow(clippy::large_enum_variant)]
        pub enum AnyModelConfig {
            $(
                #[doc = concat!("Of a [`", stringify!($model), "`].")]
                $variant($config),
            )+
        }

        impl AnyModelConfig {
            /// Reads a `config.json`.
            ///
            /// # Errors
            /// If it cannot be read, is of a class that is not there yet, or makes no sense.
            pub fn load(path: impl AsRef<Path>) -> Result<Self> {
                let path = path.as_ref();
                Self::of_value(files::read_json(path)?, path)
            }

            /// The configuration that a file holds.
            ///
            /// # Errors
            /// If it is of a class that is not there yet, or makes no sense.
            pub fn of_value(mut value: Value, path: &Path) -> Result<Self> {
                let wrong = |message: String| Error::file(path, message);
                let class_name = present_class(&value).to_string();
                if let Some(named) = value.get_mut("_class_name").filter(|named| named.is_string()) {
                    *named = class_name.as_str().into();
                }
                let config = match class_name.as_str() {
                    $($config::CLASS => serde_json::from_value(value).map(Self::$variant),)+
                    other => {
                        let message = format!(
                            "{}: a {other} is not there yet; a {} is",
                            path.display(),
                            UNet2DConfig::CLASS
                        );
                        return Err(Error::Unsupported(message));
                    }
                };
                let config =
                    config.map_err(|e| wrong(format!("is not the configuration of a {class_name}: {e}")))?;
                config.validate().map_err(|e| match e {
                    Error::Unsupported(what) => Error::Unsupported(format!("{}: {what}", path.display())),
                    e => wrong(e.to_string()),
                })?;
                Ok(config)
            }

            /// Checks the values.
            ///
            /// # Errors
            /// If they make no model.
            pub fn validate(&self) -> Result<()> {
                match self {
                    $(Self::$variant(config) => config.validate(),)+
                }
            }

            /// The name of the model's class.
            pub fn class_name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $config::CLASS,)+
                }
            }

            /// The Python package that has the class of this name; `None` where there is no such model here.
            pub fn library_of(class_name: &str) -> Option<&'static str> {
                match class_name {
                    $($config::CLASS => Some($config::LIBRARY),)+
                    _ => None,
                }
            }

            /// Height and width of the images that the model is for.
            pub fn sample_size(&self) -> Option<[usize; 2]> {
                match self {
                    $(Self::$variant(config) => config.sample_size(),)+
                }
            }

            /// What height and width of the images must be divisible by.
            pub fn size_divisor(&self) -> usize {
                match self {
                    $(Self::$variant(config) => config.size_divisor(),)+
                }
            }

            /// A new model, initialised as PyTorch does with numbers from `generator`.
            ///
            /// # Errors
            /// If the configuration makes no model.
            pub fn build(&self, device: &Device, generator: &mut Generator) -> Result<AnyModel> {
                match self {
                    $(Self::$variant(config) => {
                        $model::new(config, device, generator).map(AnyModel::$variant)
                    })+
                }
            }
        }

        /// Any model that there is.
        #[derive(Module, Debug)]
        // There is one of these to a pipeline; the difference in size is nothing beside the weights.
        #[allow(clippy::large_enum_variant)]
        pub enum AnyModel {
            $(
                $(#[$doc])+
                $variant($model),
            )+
        }

        impl AnyModel {
            /// A model with the weights of a checkpoint.
            ///
            /// # Errors
            /// If they are not this model's.
            pub fn with_weights(
                config: &AnyModelConfig,
                checkpoint: &mut Checkpoint,
                device: &Device,
            ) -> Result<Self> {
                match config {
                    $(AnyModelConfig::$variant(config) => {
                        $model::with_weights(config, checkpoint, device).map(Self::$variant)
                    })+
                }
            }

            /// Saves the configuration and the weights into a folder.
            ///
            /// # Errors
            /// If they cannot be written.
            pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
                match self {
                    $(Self::$variant(model) => model.save(folder),)+
                }
            }

            /// A copy of its configuration.
            pub fn config(&self) -> AnyModelConfig {
                match self {
                    $(Self::$variant(model) => model.config().clone().into(),)+
                }
            }
        }

        impl Denoiser for AnyModel {
            fn denoise(
                &self,
                x: Tensor<4>,
                timesteps: Tensor<1>,
                conditioning: &Conditioning,
            ) -> Result<Tensor<4>> {
                match self {
                    $(Self::$variant(model) => model.denoise(x, timesteps, conditioning),)+
                }
            }
        }

        $(
            impl From<$config> for AnyModelConfig {
                fn from(config: $config) -> Self {
                    Self::$variant(config)
                }
            }

            impl From<$model> for AnyModel {
                fn from(model: $model) -> Self {
                    Self::$variant(model)
                }
            }
        )+
    };
}

models! {
    /// Diffusers' unconditional or class-conditional UNet.
    UNet2D(UNet2DModel, UNet2DConfig);
    /// Diffusers' UNet that looks at a sequence.
    Condition(UNet2DConditionModel, UNet2DConditionConfig);
    /// Diffusers' transformer that is told a class.
    DiT(DiTTransformer2DModel, DiTTransformer2DConfig);
    /// Diffusers' transformer that looks at a caption.
    PixArt(PixArtTransformer2DModel, PixArtTransformer2DConfig);
    /// Stable Diffusion 3's transformer over a picture and a text.
    SD3(SD3Transformer2DModel, SD3Transformer2DConfig);
    /// The course's UNet with a class as channels.
    ClassChannels(ClassConditionedUnet, ClassConditionedConfig);
    /// The course's network from scratch.
    Basic(BasicUNet, BasicUNetConfig);
}

impl AnyModel {
    /// Loads the model in `folder`, by the class that its `config.json` names.
    ///
    /// # Errors
    /// If a file is missing or broken, or the weights are not the model's.
    pub fn load(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let folder = folder.as_ref();
        let config = AnyModelConfig::load(folder.join(CONFIG_NAME))?;
        Self::with_weights(&config, &mut Checkpoint::in_folder(folder)?, device)
    }

    /// This model with the weights of a checkpoint, but for those whose key begins with `kept`, which stay.
    ///
    /// # Errors
    /// If they are not this model's.
    pub fn with_weights_but(self, checkpoint: &mut Checkpoint, kept: &str, device: &Device) -> Result<Self> {
        weights::load_but(self, checkpoint, Some(kept), device)
    }

    /// How many parameters it has.
    pub fn num_parameters(&self) -> usize {
        self.num_params()
    }

    /// Where its weights are.
    pub fn device(&self) -> Device {
        // A model without parameters would be anywhere; there is none.
        self.devices().into_iter().next().unwrap_or_default()
    }
}
