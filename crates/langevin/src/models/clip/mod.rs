//! CLIP (Radford et al. 2021): a text tower and a picture tower whose embeddings lie near each other where text and picture belong
//! together; its tokenizer and its preprocessing.

mod bpe;
mod config;
mod encoder;
mod image_processor;
mod open_clip;
mod preprocess;
mod text;
mod tokenizer;
mod vision;
mod vision_encoder;
mod vocabulary;

use std::path::Path;

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

pub(super) use config::within;
pub use config::{ClipConfig, ClipTextConfig, ClipVisionConfig};
pub use encoder::{ClipAttention, ClipEncoder, ClipEncoderLayer, ClipMlp};
pub use image_processor::{ClipImageProcessor, ResizeTo};
pub(crate) use preprocess::resize_weights;
pub use preprocess::{ClipPreprocess, resize_bicubic};
pub use text::{AddedTokens, ClipTextEmbeddings, ClipTextEncoder, ClipTextModel, TextOutput};
pub use tokenizer::ClipTokenizer;
pub use vision::{ClipVisionEmbeddings, ClipVisionModel};
pub use vision_encoder::ClipVisionEncoder;

use crate::{
    Error, Result, files,
    nn::{Init, Linear},
    weights::{self, CONFIG_NAME, Checkpoint, TRANSFORMERS},
};

/// The factor of similarities in models that store none: that which training starts from, 1 / 0.07.
const LOGIT_SCALE: f32 = 2.6592;

/// Both towers and their projections. Mirrors `transformers.CLIPModel`; parameters have its names.
#[derive(Module, Debug)]
struct Towers {
    text_model: ClipTextModel,
    vision_model: ClipVisionModel,
    visual_projection: Linear,
    text_projection: Linear,
}

/// A CLIP model with its tokenizer and its preprocessing.
///
/// ```no_run
/// # fn main() -> langevin::Result<()> {
/// use langevin::{device::default_device, models::clip::{ClipModel, unit}};
///
/// let clip = ClipModel::load("clip-vit-base-patch32", &default_device())?;
/// let text = unit(clip.encode_text(&["a red rose"])?);
/// # let pictures = burn::tensor::Tensor::<4>::zeros([1, 3, 64, 64], &default_device());
/// let picture = unit(clip.encode_image(pictures)?); // [batch, 3, height, width] in 0..1
/// let similarity = picture.matmul(text.transpose());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ClipModel {
    towers: Towers,
    tokenizer: Option<ClipTokenizer>,
    preprocess: ClipPreprocess,
    logit_scale: f32,
}

impl ClipModel {
    /// Loads a folder that transformers wrote (`config.json`, `model.safetensors`), a folder of open_clip
    /// (`open_clip_config.json`, `open_clip_model.safetensors`), or a checkpoint file of open_clip. The tokenizer, if there is one, lies
    /// in the folder, in `tokenizer` below it, or beside the file.
    ///
    /// # Errors
    /// If a file is missing or broken, or the weights are not those of the configuration.
    pub fn load(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let path = path.as_ref();
        if path.is_file() {
            return Self::of_open_clip(path, path.parent().unwrap_or(path), device);
        }
        if !path.is_dir() {
            return Err(Error::file(
                path,
                "there is no such folder or file of a CLIP model",
            ));
        }
        if path.join(CONFIG_NAME).is_file() {
            return Self::of_transformers(path, device);
        }
        if path.join(open_clip::CONFIG).is_file() {
            return Self::of_open_clip(&open_clip::weights_in(path)?, path, device);
        }
        Err(Error::file(
            path,
            format!(
                "holds no CLIP model: there is neither a {CONFIG_NAME} nor an {}",
                open_clip::CONFIG
            ),
        ))
    }

    fn of_transformers(folder: &Path, device: &Device) -> Result<Self> {
        let path = folder.join(CONFIG_NAME);
        let value: serde_json::Value = files::read_json(&path)?;
        let kind = value["model_type"].as_str().unwrap_or("clip");
        if kind != "clip" {
            return Err(Error::file(
                &path,
                format!(
                    "is the configuration of a {kind}; that of a whole CLIP (`model_type` \"clip\") is needed"
                ),
            ));
        }
        let config: ClipConfig = serde_json::from_value(value)
            .map_err(|e| Error::file(&path, format!("is not the configuration of a CLIP model: {e}")))?;
        config.validate().map_err(|e| Error::file(&path, e.to_string()))?;
        let preprocess = ClipPreprocess::load(folder, config.vision_config.image_size)?;
        let mut checkpoint = Checkpoint::named(folder, None, &TRANSFORMERS)?;
        checkpoint.rename(|name| (!name.ends_with("position_ids")).then(|| name.to_string()));
        Self::assemble(&config, checkpoint, preprocess, folder, device)
    }

    fn of_open_clip(weights: &Path, folder: &Path, device: &Device) -> Result<Self> {
        let (config, checkpoint, preprocess) = open_clip::read(weights)?;
        config
            .validate()
            .map_err(|e| Error::file(weights, e.to_string()))?;
        Self::assemble(&config, checkpoint, preprocess, folder, device)
    }

    fn assemble(
        config: &ClipConfig,
        mut checkpoint: Checkpoint,
        preprocess: ClipPreprocess,
        folder: &Path,
        device: &Device,
    ) -> Result<Self> {
        let (text, vision) = (&config.text_config, &config.vision_config);
        for (name, width) in [
            ("text_projection.weight", text.hidden_size),
            ("visual_projection.weight", vision.hidden_size),
        ] {
            let expected = [config.embedding_dim(), width];
            if let Some(stored) = checkpoint.get(name).filter(|stored| stored.shape != expected) {
                return Err(Error::file(
                    checkpoint.file_of(name),
                    format!(
                        "projects to another size than the configuration says: {name} has shape {:?} where projection_dim {} \
                         and the tower make {expected:?}",
                        stored.shape,
                        config.embedding_dim()
                    ),
                ));
            }
        }
        let logit_scale = match checkpoint.get("logit_scale") {
            Some(_) => checkpoint
                .read("logit_scale")?
                .first()
                .copied()
                .unwrap_or(LOGIT_SCALE),
            None => LOGIT_SCALE,
        };
        checkpoint.rename(|name| (name != "logit_scale").then(|| name.to_string()));
        let init = &mut Init::to_load(device);
        let towers = Towers {
            text_model: ClipTextModel::new(text, init),
            vision_model: ClipVisionModel::new(vision, init),
            visual_projection: Linear::without_bias(vision.hidden_size, config.embedding_dim(), init),
            text_projection: Linear::without_bias(text.hidden_size, config.embedding_dim(), init),
        };
        let places = [folder.join("tokenizer"), folder.to_path_buf()];
        let tokenizer = places
            .iter()
            .find(|place| place.join("tokenizer.json").is_file() || place.join("vocab.json").is_file());
        Ok(Self {
            towers: weights::load(towers, &mut checkpoint, device)?,
            tokenizer: tokenizer.map(ClipTokenizer::load).transpose()?,
            preprocess,
            logit_scale,
        })
    }

    /// The same model with another tokenizer, for a folder that has none.
    pub fn with_tokenizer(mut self, tokenizer: ClipTokenizer) -> Self {
        self.tokenizer = Some(tokenizer);
        self
    }

    /// The dimension of both embeddings.
    pub fn embedding_dim(&self) -> usize {
        self.towers.text_projection.weight.dims()[1]
    }

    /// What pictures are multiplied by before they are compared: `exp` of what the model learned.
    pub fn logit_scale(&self) -> f32 {
        self.logit_scale.exp()
    }

    /// The text tower.
    pub fn text_model(&self) -> &ClipTextModel {
        &self.towers.text_model
    }

    /// What the picture tower is shown.
    pub fn preprocess(&self) -> &ClipPreprocess {
        &self.preprocess
    }

    /// Embeds pictures: `[batch, 3 or 1, height, width]` in 0..1, of any size → `[batch, embedding_dim]`, not normalised; see [`unit()`].
    /// Gradients reach the pixels.
    ///
    /// # Errors
    /// If the pictures have another number of channels.
    pub fn encode_image(&self, pictures: Tensor<4>) -> Result<Tensor<2>> {
        self.image_features(self.preprocess.forward(pictures)?)
    }

    /// Embeds pictures that are of the tower's size and normalised already: `[batch, 3, size, size]` → `[batch, embedding_dim]`.
    ///
    /// # Errors
    /// If the pictures have another shape.
    pub fn image_features(&self, pictures: Tensor<4>) -> Result<Tensor<2>> {
        let whole = self.towers.vision_model.forward(pictures)?;
        Ok(self.towers.visual_projection.forward(whole))
    }

    /// Embeds texts: `[texts, embedding_dim]`, not normalised; see [`unit()`].
    ///
    /// # Errors
    /// If the folder had no tokenizer, or there are no texts.
    pub fn encode_text(&self, texts: &[&str]) -> Result<Tensor<2>> {
        let tokenizer = self.tokenizer.as_ref().ok_or_else(|| {
            Error::Config(
                "this CLIP model has no tokenizer: tokenizer.json, or vocab.json with merges.txt, should be beside its weights"
                    .into(),
            )
        })?;
        let ids = texts
            .iter()
            .map(|text| tokenizer.encode(text))
            .collect::<Result<Vec<_>>>()?;
        self.text_features(&ids)
    }

    /// Embeds texts of which the token ids are known, one row a text: `[texts, embedding_dim]`.
    ///
    /// # Errors
    /// As [`ClipTextModel::forward`].
    pub fn text_features(&self, ids: &[Vec<u32>]) -> Result<Tensor<2>> {
        let output = self.towers.text_model.forward(ids)?;
        Ok(self.towers.text_projection.forward(output.pooled))
    }
}

/// Embeddings of length 1: `[batch, dimension]`, in and out.
pub fn unit(embeddings: Tensor<2>) -> Tensor<2> {
    let length = embeddings.clone().square().sum_dim(1).sqrt();
    embeddings / length
}
