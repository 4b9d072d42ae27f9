//! The text tower of CLIP (Radford et al. 2021), with a projection or without: a pipeline's text encoder.

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData},
};
use serde_json::json;

use super::{config::ClipTextConfig, encoder::ClipEncoder};
use crate::{
    Error, Result,
    models::{Model, ModelConfig},
    nn::{Embedding, Init, LayerNorm, Linear},
    weights::{self, Checkpoint, FileNames, TRANSFORMERS},
};

/// Tokens and their places as vectors.
#[derive(Module, Debug)]
pub struct ClipTextEmbeddings {
    /// One a token of the vocabulary.
    pub token_embedding: Embedding,
    /// One a place.
    pub position_embedding: Embedding,
}

/// The text tower without projection. Mirrors `transformers.CLIPTextModel`.
#[derive(Module, Debug)]
pub struct ClipTextModel {
    /// Tokens and their places.
    pub embeddings: ClipTextEmbeddings,
    /// The transformer.
    pub encoder: ClipEncoder,
    /// After it.
    pub final_layer_norm: LayerNorm,
    #[module(skip)]
    config: ClipTextConfig,
}

/// Tokens besides the vocabulary's, such as those of textual inversion (Gal et al. 2022).
#[derive(Clone, Debug)]
pub struct AddedTokens {
    /// The first one's number; none of the vocabulary is as large.
    pub first: u32,
    /// One vector each, `[count, hidden_size]`.
    pub vectors: Tensor<2>,
}

impl AddedTokens {
    /// Whether a token is one of these.
    pub fn has(&self, id: u32) -> bool {
        id >= self.first && ((id - self.first) as usize) < self.vectors.dims()[0]
    }
}

/// What the text tower makes of a batch of token ids.
#[derive(Clone, Debug)]
pub struct TextOutput {
    /// The tokens before the first layer and after each, none of them normalised: `[batch, length, hidden_size]`.
    /// The last but one is what Stable Diffusion 2 and XL look at.
    pub hidden_states: Vec<Tensor<3>>,
    /// The tokens after the last layer, normalised: `[batch, length, hidden_size]`. What Stable Diffusion 1 looks at.
    pub last_hidden_state: Tensor<3>,
    /// Of those the end of each text: `[batch, hidden_size]`.
    pub pooled: Tensor<2>,
}

impl ClipTextModel {
    pub(super) fn new(config: &ClipTextConfig, init: &mut Init<'_>) -> Self {
        let width = config.hidden_size;
        Self {
            embeddings: ClipTextEmbeddings {
                token_embedding: Embedding::scaled(config.vocab_size, width, 0.02, init),
                position_embedding: Embedding::scaled(config.max_position_embeddings, width, 0.02, init),
            },
            encoder: ClipEncoder::new(&config.sizes(), init),
            final_layer_norm: LayerNorm::new(width, config.layer_norm_eps, init),
            config: config.clone(),
        }
    }

    /// Its configuration.
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// Runs over token ids, one row a text, all of one length.
    ///
    /// # Errors
    /// If there are none, their lengths differ or are longer than the model's, or one is not of the vocabulary.
    pub fn forward(&self, ids: &[Vec<u32>]) -> Result<TextOutput> {
        self.forward_with(ids, None, None)
    }

    /// The same where there are tokens besides the vocabulary's, and where those are not looked at that have a 0 in a `mask` of as many rows.
    ///
    /// # Errors
    /// As [`Self::forward`], or if the mask is of another shape.
    pub fn forward_with(
        &self,
        ids: &[Vec<u32>],
        added: Option<&AddedTokens>,
        mask: Option<&[Vec<f32>]>,
    ) -> Result<TextOutput> {
        let length = ids.first().map_or(0, Vec::len);
        let longest = self.config.max_position_embeddings;
        if length == 0 || length > longest || ids.iter().any(|row| row.len() != length) {
            return Err(Error::Shape(format!(
                "a text encoder takes rows of token ids of one length, from 1 to {longest}"
            )));
        }
        let vocabulary = self.config.vocab_size;
        let is_added = |id: u32| added.is_some_and(|added| added.has(id));
        let unknown = |id: &&u32| **id as usize >= vocabulary && !is_added(**id);
        if let Some(id) = ids.iter().flatten().find(unknown) {
            return Err(Error::Config(format!(
                "there is no token {id}: the text encoder knows {vocabulary}; its tokenizer is another model's"
            )));
        }
        let tokens = self.embed(ids, added);
        self.forward_embedded(ids, tokens, mask)
    }

    /// The same from the tokens' vectors, `[batch · length, hidden_size]`, whichever they are.
    ///
    /// # Errors
    /// As [`Self::forward_with`].
    pub(crate) fn forward_embedded(
        &self,
        ids: &[Vec<u32>],
        tokens: Tensor<2>,
        mask: Option<&[Vec<f32>]>,
    ) -> Result<TextOutput> {
        let (batch, length) = (ids.len(), ids.first().map_or(0, Vec::len));
        let width = self.config.hidden_size;
        let device = tokens.device();
        let places = self
            .embeddings
            .position_embedding
            .table()
            .narrow(0, 0, length)
            .unsqueeze_dim::<3>(0);
        let x = tokens.reshape([batch, length, width]) + places;
        let bias = mask
            .map(|mask| self.bias(mask, [batch, length], &device))
            .transpose()?;
        let hidden_states = self.encoder.hidden_states(x.clone(), bias.as_ref());
        let last = hidden_states.last().cloned().unwrap_or(x);
        let last_hidden_state = self.final_layer_norm.forward(last);
        let ends: Vec<i64> = ids
            .iter()
            .enumerate()
            .map(|(row, ids)| (row * length + self.end(ids)) as i64)
            .collect();
        let ends = Tensor::<1, Int>::from_data(TensorData::new(ends, [batch]), &device);
        let pooled = last_hidden_state
            .clone()
            .reshape([batch * length, width])
            .select(0, ends);
        Ok(TextOutput {
            hidden_states,
            last_hidden_state,
            pooled,
        })
    }

    /// The vectors of token ids, `[batch · length, hidden_size]`, where there are tokens besides the vocabulary's.
    fn embed(&self, ids: &[Vec<u32>], added: Option<&AddedTokens>) -> Tensor<2> {
        let (batch, length) = (ids.len(), ids.first().map_or(0, Vec::len));
        let is_added = |id: u32| added.is_some_and(|added| added.has(id));
        let device = self.final_layer_norm.weight.val().device();
        let all = || ids.iter().flatten().copied();
        let numbers = |numbers: Vec<i64>| {
            Tensor::<1, Int>::from_data(TensorData::new(numbers, [batch * length]), &device)
        };
        let known = |id| if is_added(id) { 0 } else { i64::from(id) };
        let tokens = self
            .embeddings
            .token_embedding
            .forward(numbers(all().map(known).collect()));
        match added.filter(|_| all().any(is_added)) {
            Some(added) => {
                let place = |(row, id): (usize, u32)| match is_added(id) {
                    true => (batch * length) as i64 + i64::from(id - added.first),
                    false => row as i64,
                };
                let places = numbers(all().enumerate().map(place).collect());
                Tensor::cat(vec![tokens, added.vectors.clone()], 0).select(0, places)
            }
            None => tokens,
        }
    }

    /// What is added to a token's scores, `[batch, length]`.
    fn bias(&self, mask: &[Vec<f32>], [batch, length]: [usize; 2], device: &Device) -> Result<Tensor<2>> {
        /// As good as none of it, and far from what overflows.
        const UNSEEN: f32 = -1e9;
        if mask.len() != batch || mask.iter().any(|row| row.len() != length) {
            return Err(Error::Shape(
                "a mask of texts must have a number for each token".into(),
            ));
        }
        let bias: Vec<f32> = mask
            .iter()
            .flatten()
            .map(|&seen| if seen == 0.0 { UNSEEN } else { 0.0 })
            .collect();
        Ok(Tensor::from_data(TensorData::new(bias, [batch, length]), device))
    }

    /// The place of a text's end: its first end token; in configurations that call it 2, as early ones wrongly did, the largest id of the
    /// vocabulary.
    fn end(&self, ids: &[u32]) -> usize {
        let end = match self.config.eos_token_id {
            2 => {
                let known = ids.iter().filter(|&&id| (id as usize) < self.config.vocab_size);
                known.copied().max().unwrap_or(0)
            }
            end => end,
        };
        ids.iter().position(|&id| id == end).unwrap_or(0)
    }
}

/// A text tower by itself, as a pipeline's folder `text_encoder` holds it. Mirrors `transformers.CLIPTextModel`, and
/// `CLIPTextModelWithProjection` where there is a projection.
#[derive(Module, Debug)]
pub struct ClipTextEncoder {
    /// The tower.
    pub text_model: ClipTextModel,
    /// Of a text's end, without bias.
    pub text_projection: Option<Linear>,
}

impl Model for ClipTextEncoder {
    type Config = ClipTextConfig;
    const FILES: FileNames = TRANSFORMERS;

    /// A tower without projection.
    fn build(config: &ClipTextConfig, init: &mut Init<'_>) -> Result<Self> {
        Ok(Self {
            text_model: ClipTextModel::new(config, init),
            text_projection: None,
        })
    }

    fn config(&self) -> &ClipTextConfig {
        self.text_model.config()
    }

    fn written_config(&self) -> ClipTextConfig {
        let mut config = self.config().clone();
        let unknown = &mut config.unknown;
        unknown.insert("architectures".into(), json!([self.class_name()]));
        unknown.insert("model_type".into(), json!("clip_text_model"));
        config
    }

    /// A tower with a projection where the checkpoint has one, which may be of a whole CLIP.
    fn with_weights(config: &ClipTextConfig, checkpoint: &mut Checkpoint, device: &Device) -> Result<Self> {
        checkpoint.rename(key);
        config.validate()?;
        let init = &mut Init::to_load(device);
        let mut model = Self::build(config, init)?;
        if checkpoint.get(PROJECTION).is_some() {
            let projection = Linear::without_bias(config.hidden_size, config.projection_dim, init);
            model.text_projection = Some(projection);
        }
        weights::load(model, checkpoint, device)
    }
}

impl ClipTextEncoder {
    /// Its class in transformers.
    pub fn class_name(&self) -> &'static str {
        match self.text_projection {
            Some(_) => "CLIPTextModelWithProjection",
            None => "CLIPTextModel",
        }
    }
}

const PROJECTION: &str = "text_projection.weight";

/// The name of a text tower's tensor in this module; `None` for those that are of no use here.
fn key(name: &str) -> Option<String> {
    let ours = name == PROJECTION || name.starts_with("text_model.");
    let bare = ["embeddings.", "encoder.", "final_layer_norm."]
        .iter()
        .any(|start| name.starts_with(start));
    match (name.ends_with("position_ids"), ours, bare) {
        (true, ..) | (_, false, false) => None,
        (_, true, _) => Some(name.to_string()),
        // Since version 5 transformers leaves the prefix out.
        (_, _, true) => Some(format!("text_model.{name}")),
    }
}
