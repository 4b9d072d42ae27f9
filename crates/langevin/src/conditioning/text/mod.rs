//! Texts, through CLIP's text encoders, for a model that looks at a sequence.

mod learned;
mod run;
mod tower;
mod weighted;

use std::{collections::BTreeSet, path::Path};

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

use self::learned::LearnedEmbedding;
pub(super) use self::tower::Tower;
pub use self::{learned::EmbeddingFile, weighted::TextChunk};
use super::{
    Ask, Call, Condition, ConditionKind, Examples, Pair, Pretrained, PromptSyntax, RunSource, Source,
    check_dropout, would_be,
};
use crate::{
    Error, Result,
    error::require,
    models::{
        AnyModelConfig, ClipTextEncoder, ClipTokenizer, Conditioning, Model, ModelInputs,
        unet2d_condition::AdditionEmbedType,
    },
    options::{Embeddings, Request, SampleOptions},
    random::Generator,
    training::{ConditioningKind, TextEncoderSource, TrainingConfig},
};

/// The folder of a text encoder, in a pipeline's.
pub(crate) const TEXT_ENCODER: &str = "text_encoder";
/// The folder of a tokenizer.
const TOKENIZER: &str = "tokenizer";
/// The folders of Stable Diffusion XL's second text encoder and tokenizer.
const SECOND: [&str; 2] = ["text_encoder_2", "tokenizer_2"];
/// Whether guidance leads away from zeros, and not from the empty text, where nobody names a text.
const ZEROS_FOR_EMPTY: &str = "force_zeros_for_empty_prompt";

/// One text per picture.
#[derive(Clone, Debug)]
pub struct TextCondition {
    /// One, or Stable Diffusion XL's two, which see the same text or each its own.
    towers: Vec<Tower>,
    /// Whether the model takes the texts as one vector too, and looks at the last layer but one (Podell et al. 2023).
    is_xl: bool,
    zeros_for_empty: bool,
}

/// What texts come to.
#[derive(Clone, Debug)]
struct Encoded {
    sequence: Tensor<3>,
    pooled: Option<Tensor<2>>,
}

impl From<Encoded> for Conditioning {
    fn from(encoded: Encoded) -> Self {
        Self {
            sequence: Some(encoded.sequence),
            vector: encoded.pooled,
            ..Self::default()
        }
    }
}

impl TextCondition {
    /// Puts the parts together.
    ///
    /// # Errors
    /// If they do not fit each other.
    pub fn new(encoder: ClipTextEncoder, tokenizer: ClipTokenizer) -> Result<Self> {
        Ok(Self::of_tower(Tower::new(
            encoder,
            tokenizer,
            [TEXT_ENCODER, TOKENIZER],
        )?))
    }

    fn of_tower(tower: Tower) -> Self {
        Self {
            towers: vec![tower],
            is_xl: false,
            zeros_for_empty: false,
        }
    }

    /// The text encoder and the tokenizer whose folders lie in `folder`.
    fn load(folder: &Path, device: &Device) -> Result<Self> {
        let encoder = ClipTextEncoder::load(folder.join(TEXT_ENCODER), device)?;
        let tokenizer = ClipTokenizer::load(folder.join(TOKENIZER))?;
        Self::new(encoder, tokenizer).map_err(|e| Error::file(folder, e.to_string()))
    }

    /// The same with another text encoder of its kind, such as the one that was trained along.
    pub fn with_encoder(&self, encoder: ClipTextEncoder) -> Self {
        let mut condition = self.clone();
        condition.towers[0].encoder = encoder;
        condition
    }

    /// The same with words that were learned as vectors (textual inversion, Gal et al. 2022), from diffusers' or A1111's files. A text that
    /// has one of the words in it, in capitals or not, has the vectors in its place.
    ///
    /// # Errors
    /// If a file is none of these, its vectors are of another width than the text encoder's, or two files have a word in common.
    pub fn with_embeddings(&self, files: &[EmbeddingFile]) -> Result<Self> {
        let mut condition = self.clone();
        let mut partial = Vec::new();
        for file in files {
            let embedding = LearnedEmbedding::read(file)?;
            embedding.check_parts(condition.is_xl)?;
            let fits = condition.towers.iter().map(|tower| tower.takes(&embedding));
            let fits: Vec<bool> = fits.collect();
            // diffusers' trainer leaves a file for each encoder of XL.
            let is_part = embedding.is_of_one() && fits.contains(&true) && fits.contains(&false);
            for (tower, fits) in condition.towers.iter_mut().zip(fits) {
                if fits || !is_part {
                    tower.learn(&embedding)?;
                }
            }
            if is_part {
                partial.push(embedding);
            }
        }
        let is_whole = |embedding: &LearnedEmbedding| {
            let word = embedding.word();
            condition
                .towers
                .iter()
                .all(|tower| tower.learned_named(word).is_some())
        };
        if let Some(part) = partial.iter().find(|part| !is_whole(part)) {
            return Err(part.is_part());
        }
        Ok(condition)
    }

    /// The words of the files of a folder that are learned for text encoders like these: the condition with them, their files, and why others
    /// are passed over. Those that are `known` are left out.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn with_embeddings_in(
        &self,
        folder: &Path,
        known: &[EmbeddingFile],
    ) -> Result<(Self, Vec<EmbeddingFile>, Vec<String>)> {
        let (mut condition, mut learned, mut passed_over) = (self.clone(), Vec::new(), Vec::new());
        let whole = |path: &Path| path.canonicalize().ok();
        let is_new = |file: &EmbeddingFile| known.iter().all(|other| whole(&other.path) != whole(&file.path));
        for file in EmbeddingFile::in_folder(folder)?.into_iter().filter(is_new) {
            match condition.with_embeddings(std::slice::from_ref(&file)) {
                Ok(with) => {
                    condition = with;
                    learned.push(file);
                }
                Err(error) => passed_over.push(error.to_string()),
            }
        }
        Ok((condition, learned, passed_over))
    }

    /// All words that were learned, sorted.
    pub fn learned_words(&self) -> Vec<&str> {
        let mut words: Vec<&str> = self.towers[0].learned_words().collect();
        words.sort_unstable();
        words
    }

    /// The learned words that a text names, as ComfyUI has it, and that there are not.
    pub(crate) fn unknown_words<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a str> {
        super::prompt::comfy_unknown(&self.towers[0], text)
    }

    /// The files whose learned words stand in these texts.
    pub(crate) fn learned_files<'a>(
        &'a self,
        texts: impl IntoIterator<Item = &'a String>,
    ) -> BTreeSet<&'a Path> {
        let texts = texts.into_iter();
        texts
            .flat_map(|text| self.towers.iter().flat_map(|tower| tower.learned_files(text)))
            .collect()
    }

    /// The same with other text encoders of their kinds, as many as there are.
    pub(crate) fn with_encoders(&self, encoders: impl IntoIterator<Item = ClipTextEncoder>) -> Self {
        let mut condition = self.clone();
        for (tower, encoder) in condition.towers.iter_mut().zip(encoders) {
            tower.encoder = encoder;
        }
        condition
    }

    /// The same with a word of so many vectors that is being learned: their numbers for each text encoder, in order.
    ///
    /// # Errors
    /// If they are of another width than a text encoder's, or there is such a word already.
    pub(crate) fn with_word(&self, word: &str, vectors: &[Vec<f32>]) -> Result<Self> {
        let mut condition = self.clone();
        let parts = condition.towers.iter().zip(vectors).map(|(tower, values)| {
            (
                tower.folders[0],
                tower.encoder.config().hidden_size,
                values.clone(),
            )
        });
        let embedding = LearnedEmbedding::of(word, parts.collect())?;
        for tower in &mut condition.towers {
            tower.learn(&embedding)?;
        }
        Ok(condition)
    }

    /// The tokens of a text in each encoder's vocabulary, learned words among them, without start, end and padding.
    ///
    /// # Errors
    /// If a tokenizer fails on it.
    pub(crate) fn plain_tokens(&self, text: &str) -> Result<Vec<Vec<u32>>> {
        let ids = |tower: &Tower| Ok(tower.pieces(text)?.into_iter().map(|(id, _)| id).collect());
        self.towers.iter().map(ids).collect()
    }

    /// The text encoder; of two the first.
    pub fn encoder(&self) -> &ClipTextEncoder {
        &self.towers[0].encoder
    }

    /// All text encoders, in order.
    pub fn encoders(&self) -> impl Iterator<Item = &ClipTextEncoder> {
        self.towers.iter().map(|tower| &tower.encoder)
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &ClipTokenizer {
        &self.towers[0].tokenizer
    }

    /// What the model looks at for `prompts`, and for `negative`, as many texts that guidance leads away from (none: the usual empty one).
    /// They may be changed, and take the texts' place in [`Request::embeddings`].
    ///
    /// # Errors
    /// If the two lists differ in length, or a tokenizer fails on a text.
    pub fn embeddings(&self, prompts: &[&str], negative: &[&str]) -> Result<Embeddings> {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let options = SampleOptions {
            batch_size: prompts.len(),
            prompts: Some(owned(prompts)),
            negative_prompts: (!negative.is_empty()).then(|| owned(negative)),
            ..SampleOptions::default()
        };
        let towards = self.towards(&options)?;
        let away = self.away(&options, &towards)?;
        Ok(Embeddings {
            towards: towards.sequence,
            away: Some(away.sequence),
            pooled: towards.pooled,
            pooled_away: away.pooled,
        })
    }

    /// The token ids of a text as each encoder is given them, learned words among them: start, tokens, end and padding.
    ///
    /// # Errors
    /// If a tokenizer fails on it.
    pub fn token_ids(&self, text: &str) -> Result<Vec<Vec<u32>>> {
        self.towers
            .iter()
            .map(|tower| Ok(tower.tokens(&[text])?.remove(0)))
            .collect()
    }

    /// Whether a second text encoder may see texts of its own.
    pub fn takes_second_texts(&self) -> bool {
        self.towers.len() > 1
    }

    /// How many numbers each vector of the sequence has.
    fn width(&self) -> usize {
        self.towers
            .iter()
            .map(|tower| tower.encoder.config().hidden_size)
            .sum()
    }

    /// What of a text no encoder sees, since it is too long; `None` where all of it is seen.
    ///
    /// # Errors
    /// If the tokenizer fails on it.
    pub fn unseen(&self, text: &str) -> Result<Option<String>> {
        self.towers[0].unseen(text)
    }

    /// What a model looks at for these texts: without the last `skipped` layers, and with other texts for a second encoder.
    fn encode<T: AsRef<str>>(
        &self,
        encoder: &ClipTextEncoder,
        texts: &[T],
        second: Option<&[String]>,
        skipped: Option<usize>,
    ) -> Result<Encoded> {
        let (mut sequences, mut pooled) = (Vec::new(), None);
        for (place, tower) in self.towers.iter().enumerate() {
            let ids = match second {
                Some(second) if place > 0 => tower.tokens(second)?,
                _ => tower.tokens(texts)?,
            };
            let encoder = if place == 0 { encoder } else { &tower.encoder };
            let states = self.states(place, encoder, &ids, None, skipped)?;
            sequences.push(states.sequence);
            pooled = states.pooled;
        }
        Ok(Encoded {
            sequence: Tensor::cat(sequences, 2),
            pooled,
        })
    }

    /// What a model looks at of one encoder: without the last `skipped` layers, and tokens with 0 in a mask are not looked at.
    fn states(
        &self,
        place: usize,
        encoder: &ClipTextEncoder,
        ids: &[Vec<u32>],
        mask: Option<&[Vec<f32>]>,
        skipped: Option<usize>,
    ) -> Result<Encoded> {
        let output = self.towers[place].forward(encoder, ids, mask)?;
        let layers = output.hidden_states.len();
        let at = |back: usize| {
            layers
                .checked_sub(back + 1)
                .and_then(|layer| output.hidden_states.get(layer).cloned())
                .ok_or_else(|| {
                    Error::option(
                        &["clip_skip"],
                        format!(
                            "`clip_skip` is {back}, and the text encoder has {} layers",
                            layers - 1
                        ),
                    )
                })
        };
        let sequence = match (self.is_xl, skipped) {
            (true, skipped) => at(skipped.unwrap_or(0) + 1)?,
            (false, None) => output.last_hidden_state,
            (false, Some(skipped)) => encoder.text_model.final_layer_norm.forward(at(skipped)?),
        };
        let pooled = self.is_xl.then(|| match &encoder.text_projection {
            Some(projection) => projection.forward(output.pooled),
            None => output.pooled,
        });
        Ok(Encoded { sequence, pooled })
    }

    /// What a call draws towards.
    fn towards(&self, options: &SampleOptions) -> Result<Encoded> {
        let batch = options.batch_size;
        let empty = vec![String::new(); batch];
        let texts = rows("prompt", options.prompts.as_ref(), batch)?.unwrap_or(&empty);
        let second = rows("second prompt", options.second_prompts.as_ref(), batch)?;
        self.encode(self.encoder(), texts, second, options.clip_skip)
    }

    /// What guidance leads away from. Layers are not skipped here, as they are not in diffusers.
    fn away(&self, options: &SampleOptions, towards: &Encoded) -> Result<Encoded> {
        let batch = options.batch_size;
        let texts = rows("negative prompt", options.negative_prompts.as_ref(), batch)?;
        if texts.is_none() && self.zeros_for_empty {
            return Ok(Encoded {
                sequence: towards.sequence.zeros_like(),
                pooled: towards.pooled.as_ref().map(Tensor::zeros_like),
            });
        }
        let empty = vec![String::new(); batch];
        let second = rows(
            "negative second prompt",
            options.negative_second_prompts.as_ref(),
            batch,
        )?;
        self.encode(self.encoder(), texts.unwrap_or(&empty), second, None)
    }

    /// What was computed elsewhere.
    fn given(&self, embeddings: &Embeddings, guided: bool, batch: usize) -> Result<Pair> {
        let of = |sequence: &Tensor<3>, pooled: &Option<Tensor<2>>| -> Result<Conditioning> {
            let [rows, length, width] = sequence.dims();
            if !(rows == 1 || rows == batch) || width != self.width() {
                return Err(Error::Shape(format!(
                    "the embeddings have shape [{rows}, {length}, {width}] where [1 or {batch}, length, {}] is needed",
                    self.width()
                )));
            }
            if self.is_xl && pooled.is_none() {
                return Err(Error::Config(
                    "the model takes pooled embeddings beside the others, and there are none".into(),
                ));
            }
            let pooled = pooled.as_ref().map(|pooled| {
                let [_, width] = pooled.dims();
                pooled.clone().expand([batch, width])
            });
            Ok(Encoded {
                sequence: sequence.clone().expand([batch, length, width]),
                pooled: pooled.filter(|_| self.is_xl),
            }
            .into())
        };
        let towards = of(&embeddings.towards, &embeddings.pooled)?;
        match &embeddings.away {
            Some(away) if guided => Ok(Pair {
                away: of(away, &embeddings.pooled_away)?,
                towards,
                ..Pair::default()
            }),
            None if guided && self.zeros_for_empty => Ok(Pair {
                away: Conditioning {
                    sequence: towards.sequence.as_ref().map(Tensor::zeros_like),
                    vector: towards.vector.as_ref().map(Tensor::zeros_like),
                    ..Conditioning::default()
                },
                towards,
                ..Pair::default()
            }),
            None if guided => Err(Error::Config(
                "guidance leads away from something: embeddings of it must be given beside the others".into(),
            )),
            _ => Ok(Pair::both(towards)),
        }
    }
}

/// A call's texts, of which there is one per picture.
fn rows<'a>(what: &str, texts: Option<&'a Vec<String>>, batch: usize) -> Result<Option<&'a [String]>> {
    match texts {
        Some(texts) if texts.len() != batch => Err(Error::Shape(format!(
            "{} {what}s were given for a batch of {batch}; there must be one per picture",
            texts.len()
        ))),
        texts => Ok(texts.map(Vec::as_slice)),
    }
}

impl Condition for TextCondition {
    fn fit(&self, inputs: &mut ModelInputs) {
        inputs.sequence_dim = Some(self.width());
    }

    fn of_call(&self, call: &Call<'_>) -> Result<Pair> {
        let options = call.options;
        let guided = options.guidance.is_on();
        if let Some(embeddings) = &options.embeddings {
            return self.given(embeddings, guided, options.batch_size);
        }
        if options.prompt_syntax != PromptSyntax::Plain {
            return self.of_syntax(options, guided);
        }
        let towards = self.towards(options)?;
        if !guided {
            return Ok(Pair::both(towards.into()));
        }
        let away = self.away(options, &towards)?;
        Ok(Pair {
            towards: towards.into(),
            away: away.into(),
            ..Pair::default()
        })
    }

    /// The empty text in place of a picture's own.
    fn of_batch(
        &self,
        examples: &Examples<'_>,
        dropout: f64,
        generator: &mut Generator,
    ) -> Result<Conditioning> {
        let draws = generator.rand(examples.captions.len());
        let captions = examples.captions.iter().zip(draws);
        let captions: Vec<&str> = captions
            .map(|(caption, u)| {
                let kept = caption.as_deref().filter(|_| f64::from(u) >= dropout);
                kept.unwrap_or_default()
            })
            .collect();
        let encoder = examples.text_encoder.unwrap_or(self.encoder());
        Ok(self.encode(encoder, &captions, None, None)?.into())
    }

    fn num_parameters(&self) -> usize {
        self.towers.iter().map(|tower| tower.encoder.num_params()).sum()
    }

    fn save(&self, folder: &Path) -> Result<Vec<(&'static str, &'static str)>> {
        let mut components = Vec::new();
        for tower in &self.towers {
            let [encoder, tokenizer] = tower.folders;
            tower.encoder.save(folder.join(encoder))?;
            tower.tokenizer.save(folder.join(tokenizer))?;
            components.push((encoder, tower.encoder.class_name()));
            components.push((tokenizer, "CLIPTokenizer"));
        }
        Ok(components)
    }
}

impl ConditionKind for TextCondition {
    fn of_pipeline(source: &Source<'_>) -> Result<Option<Self>> {
        let (AnyModelConfig::Condition(config), Some(components)) = (source.config, source.components) else {
            return Ok(None);
        };
        let mut towers = Vec::new();
        for folders in [[TEXT_ENCODER, TOKENIZER], SECOND] {
            if components.has(folders[0]) {
                towers.push(Tower::load(components, folders, source.device)?);
            }
        }
        if towers.is_empty() {
            return Ok(None);
        }
        let condition = Self {
            towers,
            is_xl: config.addition_embed_type == Some(AdditionEmbedType::TextTime),
            zeros_for_empty: components.is_set(ZEROS_FOR_EMPTY),
        };
        let (width, wanted) = (condition.width(), config.sequence_dim());
        if width != wanted {
            let message = format!(
                "the text encoder makes vectors of {width} numbers, and the UNet looks at vectors of {wanted} (cross_attention_dim)"
            );
            return Err(Error::file(components.path(), message));
        }
        Ok(Some(condition))
    }

    fn of_run(source: &RunSource<'_>, generator: &mut Generator) -> Result<Option<(Self, f64)>> {
        run::condition(source, generator)
    }

    fn check(config: &TrainingConfig) -> Result<()> {
        let kind = config.conditioning;
        let is_text = kind == ConditioningKind::CrossAttention;
        check_dropout(("caption_dropout", config.caption_dropout), is_text, || {
            would_be(ConditioningKind::CrossAttention, config)
        })?;
        let is_small = config.text_encoder == TextEncoderSource::Small;
        require(is_small || is_text, || {
            format!("`text_encoder` reads captions, and `conditioning` is `{kind}`, not `cross-attention`")
        })?;
        require(is_small || config.pretrained.is_none(), || {
            "`text_encoder` cannot be chosen for a model that is there: leave it out".into()
        })
    }

    fn of_pretrained(model: &Pretrained<'_>, config: &mut TrainingConfig) -> Result<bool> {
        let AnyModelConfig::Condition(own) = model.config else {
            return Ok(false);
        };
        let looks_at_nothing_else = own.num_class_embeds.is_none()
            && own.class_embed_type.is_none()
            && own.addition_embed_type.is_none();
        let is_text = model.has_text && looks_at_nothing_else;
        if is_text {
            config.conditioning = ConditioningKind::CrossAttention;
        }
        Ok(is_text)
    }

    fn rows(request: &Request) -> Vec<usize> {
        let given = request.embeddings.as_ref();
        vec![
            request.prompt.len(),
            request.negative_prompt.len(),
            request.prompt_2.len(),
            request.negative_prompt_2.len(),
            given.map_or(0, |embeddings| embeddings.towards.dims()[0]),
        ]
    }

    fn ask(_: Option<&Self>, ask: &Ask<'_>, options: &mut SampleOptions) -> Result<()> {
        let request = ask.request;
        options.prompts = ask.turns(&request.prompt);
        options.negative_prompts = ask.turns(&request.negative_prompt);
        options.second_prompts = ask.turns(&request.prompt_2);
        options.negative_second_prompts = ask.turns(&request.negative_prompt_2);
        options.clip_skip = request.clip_skip;
        options.prompt_syntax = request.prompt_syntax;
        options.embeddings = request.embeddings.clone();
        Ok(())
    }

    fn refuse(options: &SampleOptions) -> Result<()> {
        let texts = [
            ("prompt", &options.prompts),
            ("negative prompt", &options.negative_prompts),
        ];
        for (what, texts) in texts {
            if let Some(texts) = texts {
                return Err(Error::Config(format!(
                    "the {what} `{}` was given, but the model takes no text",
                    texts.first().map_or("", String::as_str)
                )));
            }
        }
        Ok(())
    }
}
