//! Between what people see or hear and what a model denoises.

mod autoencoder;
mod mel;
mod open;
mod pixels;
mod preview;
mod tiny;
mod vector_quantized;

pub use autoencoder::Autoencoder;
pub use mel::{MEL_CONFIG, Mel, MelConfig, Spectrogram};
pub use pixels::Pixels;
pub use tiny::Tiny;
pub use vector_quantized::VectorQuantized;

use std::path::Path;

use burn::tensor::{Device, Tensor};
use serde_json::Value;

use crate::{
    Error, Result, Size,
    models::{
        Components, Model, ModelConfig,
        autoencoder::{AutoencoderKL, AutoencoderTiny, VQModel},
        components,
    },
    random::Generator,
};

/// Brings pictures into a model's space and back. A file per kind here, and a row of `codecs!` below.
pub trait Codec {
    /// How many pixels of a picture's side one step of the model's space stands for.
    fn factor(&self) -> usize {
        1
    }

    /// How many channels the model's space has.
    fn channels(&self) -> usize;

    /// How many channels pictures have.
    fn picture_channels(&self) -> usize {
        self.channels()
    }

    /// Pictures, `[batch, channels, height, width]` in -1..1, as the codec has them before they are scaled to the model's space: a
    /// distribution, or a point.
    ///
    /// # Errors
    /// If they are not of its kind.
    fn encode(&self, pictures: Tensor<4>) -> Result<Encoded>;

    /// What the codec has as the model denoises it.
    fn scale(&self, latents: Tensor<4>) -> Tensor<4> {
        latents
    }

    /// What the model has denoised as pictures, `[batch, channels, height, width]` in about -1..1. Differentiable.
    ///
    /// # Errors
    /// If it is not of the model's shape.
    fn decode(&self, samples: Tensor<4>) -> Result<Tensor<4>>;

    /// The same where it is only looked at on the way: cheaper, and as good as it can be then.
    ///
    /// # Errors
    /// As [`Self::decode`].
    fn preview(&self, samples: Tensor<4>) -> Result<Tensor<4>> {
        self.decode(samples)
    }

    /// A hash of its network, where it has one: what it makes of a picture follows from both.
    fn digest(&self) -> Option<[u8; 32]> {
        None
    }

    /// About how many bytes decoding a picture of this size takes beside the network; encoding takes no more.
    fn decoding_bytes(&self, size: Size) -> u64 {
        let _ = size;
        0
    }

    /// How many parameters its network has.
    fn num_parameters(&self) -> usize {
        0
    }

    /// Writes its network into a folder, where it has one; its class.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn save(&self, folder: &Path) -> Result<Option<&'static str>> {
        let _ = folder;
        Ok(None)
    }

    /// The shape of what a model denoises for a picture of this size: channels, height and width.
    fn latent_shape(&self, size: Size) -> [usize; 3] {
        let factor = self.factor();
        [self.channels(), size.height / factor, size.width / factor]
    }
}

/// Pictures as a codec has them: a normal distribution for each, or a point, `[batch, channels, height, width]`, unscaled.
#[derive(Clone, Debug)]
pub struct Encoded {
    mean: Tensor<4>,
    deviation: Option<Tensor<4>>,
}

impl Encoded {
    /// Points.
    pub fn point(latents: Tensor<4>) -> Self {
        Self {
            mean: latents,
            deviation: None,
        }
    }

    /// Distributions of these means and standard deviations.
    pub fn distribution(mean: Tensor<4>, deviation: Tensor<4>) -> Self {
        Self {
            mean,
            deviation: Some(deviation),
        }
    }

    /// How many pictures.
    pub fn count(&self) -> usize {
        self.mean.dims()[0]
    }

    /// The standard deviations, where they are no points.
    pub(crate) fn deviation(&self) -> Option<Tensor<4>> {
        self.deviation.clone()
    }

    /// The likeliest points.
    pub fn mode(&self) -> Tensor<4> {
        self.mean.clone()
    }

    /// Drawn points; from points nothing is drawn.
    pub fn sample(&self, generator: &mut Generator) -> Tensor<4> {
        match &self.deviation {
            Some(_) => self.with_noise(generator.randn_tensor(self.mean.dims(), &self.mean.device())),
            None => self.mode(),
        }
    }

    /// The points that this standard normal noise, of their shape, leads to.
    pub fn with_noise(&self, noise: Tensor<4>) -> Tensor<4> {
        match &self.deviation {
            Some(deviation) => self.mean.clone() + deviation.clone() * noise,
            None => self.mode(),
        }
    }

    /// Several, one after another.
    ///
    /// # Errors
    /// If there are none, or some are points and others not.
    pub fn together(all: Vec<Self>) -> Result<Self> {
        let deviations: Vec<Tensor<4>> = all
            .iter()
            .filter_map(|encoded| encoded.deviation.clone())
            .collect();
        if all.is_empty() || !(deviations.is_empty() || deviations.len() == all.len()) {
            return Err(Error::Shape(
                "encoded pictures must be of one kind to stand together".into(),
            ));
        }
        Ok(Self {
            mean: Tensor::cat(all.into_iter().map(|encoded| encoded.mean).collect(), 0),
            deviation: (!deviations.is_empty()).then(|| Tensor::cat(deviations, 0)),
        })
    }

    /// Those of the given pictures, in their order.
    pub fn rows(&self, rows: &[usize]) -> Self {
        let of = |tensor: &Tensor<4>| {
            Tensor::cat(
                rows.iter().map(|&row| tensor.clone().narrow(0, row, 1)).collect(),
                0,
            )
        };
        Self {
            mean: of(&self.mean),
            deviation: self.deviation.as_ref().map(of),
        }
    }
}

/// Writes [`AnyCodec`] for rows of a variant and a [`Codec`].
macro_rules! codecs {
    ($($(#[$doc:meta])+ $variant:ident($codec:ident);)+) => {
        /// Any codec that there is.
        #[derive(Clone, Debug)]
        // A pipeline holds one.
        #[allow(clippy::large_enum_variant)]
        pub enum AnyCodec {
            $($(#[$doc])+ $variant($codec),)+
        }

        impl AnyCodec {
            fn get(&self) -> &dyn Codec {
                match self {
                    $(Self::$variant(codec) => codec,)+
                }
            }
        }

        $(
            impl From<$codec> for AnyCodec {
                fn from(codec: $codec) -> Self {
                    Self::$variant(codec)
                }
            }
        )+
    };
}

codecs! {
    /// Pictures as they are.
    Pixels(Pixels);
    /// Stable Diffusion's autoencoder.
    Autoencoder(Autoencoder);
    /// A small one, for previews and in a hurry.
    Tiny(Tiny);
    /// One with a table of codes.
    VectorQuantized(VectorQuantized);
}

impl AnyCodec {
    /// Whether a model denoises something else than pictures.
    pub fn is_latent(&self) -> bool {
        !matches!(self, Self::Pixels(_))
    }

    /// Loads a codec by itself: the folder of an autoencoder, or of a pipeline that has one, or a file with its weights.
    ///
    /// # Errors
    /// If there is none, or it is broken.
    pub fn open(path: &Path, device: &Device) -> Result<Self> {
        if path.is_file() {
            return open::of_file(path, device);
        }
        open::of_folder(path, device)
    }

    /// The same in tiles wherever a picture is larger than one, where the codec works so.
    pub fn tiled(self) -> Self {
        match self {
            Self::Autoencoder(codec) => Self::Autoencoder(codec.tiled()),
            other => other,
        }
    }

    /// The same with another codec of its space for previews.
    ///
    /// # Errors
    /// If that is of another space, or this one needs none.
    pub fn with_preview(self, preview: Self) -> Result<Self> {
        match (self, preview) {
            (Self::Autoencoder(codec), Self::Tiny(tiny))
                if (codec.channels(), codec.factor()) == (tiny.channels(), tiny.factor()) =>
            {
                Ok(Self::Autoencoder(codec.with_preview(tiny)))
            }
            (codec, preview) => Err(Error::option(
                &["preview_codec"],
                format!(
                    "previews need an AutoencoderTiny of {} channels that halves as often as the pipeline's autoencoder, and this one has {} \
                     channels, or is of another class",
                    codec.channels(),
                    preview.channels()
                ),
            )),
        }
    }

    /// Loads the codec of a pipeline's component, by the class that its configuration names.
    ///
    /// # Errors
    /// If a file is missing or broken, or it is of a class that is not there yet.
    pub fn load(source: &dyn Components, name: &str, device: &Device) -> Result<Self> {
        let (value, path) = source.config(name)?;
        let class = value.get("_class_name").and_then(Value::as_str).unwrap_or(CLASS);
        // As the exports for another framework call theirs.
        match class.strip_prefix("Flax").unwrap_or(class) {
            CLASS => Ok(Autoencoder::new(components::load(source, name, device)?).into()),
            TINY => Ok(Tiny::new(components::load(source, name, device)?).into()),
            QUANTIZED => Ok(VectorQuantized::new(components::load(source, name, device)?).into()),
            other => Err(Error::Unsupported(format!(
                "{}: a {other} is not there yet; a {CLASS}, a {TINY} and a {QUANTIZED} are",
                path.display()
            ))),
        }
    }
}

const CLASS: &str = <AutoencoderKL as Model>::Config::CLASS;
const TINY: &str = <AutoencoderTiny as Model>::Config::CLASS;
const QUANTIZED: &str = <VQModel as Model>::Config::CLASS;

impl Codec for AnyCodec {
    fn factor(&self) -> usize {
        self.get().factor()
    }

    fn channels(&self) -> usize {
        self.get().channels()
    }

    fn picture_channels(&self) -> usize {
        self.get().picture_channels()
    }

    fn encode(&self, pictures: Tensor<4>) -> Result<Encoded> {
        self.get().encode(pictures)
    }

    fn scale(&self, latents: Tensor<4>) -> Tensor<4> {
        self.get().scale(latents)
    }

    fn decode(&self, samples: Tensor<4>) -> Result<Tensor<4>> {
        self.get().decode(samples)
    }

    fn preview(&self, samples: Tensor<4>) -> Result<Tensor<4>> {
        self.get().preview(samples)
    }

    fn digest(&self) -> Option<[u8; 32]> {
        self.get().digest()
    }

    fn decoding_bytes(&self, size: Size) -> u64 {
        self.get().decoding_bytes(size)
    }

    fn num_parameters(&self) -> usize {
        self.get().num_parameters()
    }

    fn save(&self, folder: &Path) -> Result<Option<&'static str>> {
        self.get().save(folder)
    }
}
