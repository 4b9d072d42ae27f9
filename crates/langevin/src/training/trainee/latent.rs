//! The networks of a pipeline whose model denoises latents, of which a run trains some.

use burn::{
    module::{Module, Param},
    tensor::{Int, Tensor, TensorData},
};

use crate::{
    Error, Result,
    conditioning::TextCondition,
    models::{
        AnyModel, ClipTextEncoder, Conditioning, ControlNetModel, Denoiser, Model,
        clip::{AddedTokens, TextOutput},
        unet2d_condition::AdditionEmbedType,
    },
    pipelines::Pipeline,
    training::gradients::Beside,
    weights::widened,
};

/// A UNet with its text encoders, and what is trained beside them: a ControlNet, or the vectors of new words. Which of its parameters are trained
/// is a matter of the kind of run; their names begin with the part's.
#[derive(Module, Debug)]
pub struct Latent {
    /// What denoises.
    pub unet: AnyModel,
    /// What reads the texts; none in a pipeline that takes none.
    pub text_encoder: Option<ClipTextEncoder>,
    /// Stable Diffusion XL's second.
    pub text_encoder_2: Option<ClipTextEncoder>,
    /// A ControlNet that is trained.
    pub controlnet: Option<ControlNetModel>,
    /// New words that are learned.
    pub words: Option<Words>,
    /// Whether the UNet looks at the last layer but one of its encoders, and takes the texts as a vector too.
    pub(super) is_xl: bool,
}

/// The vectors of new words, which stand behind the vocabulary of each text encoder.
#[derive(Module, Debug)]
pub struct Words {
    /// `[words, hidden_size]`
    pub text_encoder: Param<Tensor<2>>,
    /// The same for the second encoder.
    pub text_encoder_2: Option<Param<Tensor<2>>>,
}

/// What a batch's texts come to.
#[derive(Clone, Debug)]
pub struct Told {
    /// The sequence, and where the model takes one the vector.
    pub conditioning: Conditioning,
    /// The rows of the vocabulary that were looked up, where words are learned.
    pub beside: Vec<Beside>,
}

impl Latent {
    /// The networks of a pipeline, in float32.
    ///
    /// # Errors
    /// If it has no UNet that looks at texts.
    pub fn of(pipeline: &Pipeline) -> Result<Self> {
        Self::as_held(pipeline).map(widened)
    }

    /// The networks of a pipeline, whose weights stay as they are held: for what is trained beside them.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn as_held(pipeline: &Pipeline) -> Result<Self> {
        let AnyModel::Condition(unet) = &pipeline.model else {
            return Err(Error::Unsupported(format!(
                "a {} has no UNet that looks at a text, and what is trained on top of one needs one",
                pipeline.class().name
            )));
        };
        let is_xl = unet.config().addition_embed_type == Some(AdditionEmbedType::TextTime);
        let text = pipeline.condition::<TextCondition>();
        let mut encoders = text.into_iter().flat_map(TextCondition::encoders).cloned();
        Ok(Self {
            unet: pipeline.model.clone(),
            text_encoder: encoders.next(),
            text_encoder_2: encoders.next(),
            controlnet: None,
            words: None,
            is_xl,
        })
    }

    /// Whether it is Stable Diffusion XL's, whose model is told sizes and a vector.
    pub fn is_xl(&self) -> bool {
        self.is_xl
    }

    /// The text encoders that there are.
    pub fn text_encoders(&self) -> impl Iterator<Item = &ClipTextEncoder> {
        self.text_encoder.iter().chain(&self.text_encoder_2)
    }

    /// What the model looks at for texts that are given as each encoder's token ids.
    ///
    /// # Errors
    /// If they are not one list for each encoder, or not of its vocabulary.
    pub fn encode(&self, ids: &[Vec<Vec<u32>>]) -> Result<Told> {
        let count = self.text_encoders().count();
        if ids.len() != count || count == 0 {
            return Err(Error::Shape(format!(
                "token ids for {} text encoders were given, and there are {count}",
                ids.len()
            )));
        }
        let (mut sequences, mut pooled, mut beside) = (Vec::new(), None, Vec::new());
        for (place, (encoder, ids)) in self.text_encoders().zip(ids).enumerate() {
            let output = self.read(place, encoder, ids, &mut beside)?;
            let layers = output.hidden_states.len();
            sequences.push(match self.is_xl {
                true => output
                    .hidden_states
                    .get(layers.saturating_sub(2))
                    .cloned()
                    .ok_or_else(|| Error::Config("a text encoder has no layers".into()))?,
                false => output.last_hidden_state,
            });
            pooled = self.is_xl.then(|| match &encoder.text_projection {
                Some(projection) => projection.forward(output.pooled),
                None => output.pooled,
            });
        }
        Ok(Told {
            conditioning: Conditioning {
                sequence: Some(Tensor::cat(sequences, 2)),
                vector: pooled,
                ..Conditioning::default()
            },
            beside,
        })
    }

    /// What one encoder makes of token ids.
    fn read(
        &self,
        place: usize,
        encoder: &ClipTextEncoder,
        ids: &[Vec<u32>],
        beside: &mut Vec<Beside>,
    ) -> Result<TextOutput> {
        let model = &encoder.text_model;
        let Some(vectors) = self.words.as_ref().and_then(|words| words.of(place)) else {
            return model.forward(ids);
        };
        let added = AddedTokens {
            first: encoder.config().vocab_size as u32,
            vectors,
        };
        if !added.vectors.is_require_grad() {
            return model.forward_with(ids, Some(&added), None);
        }
        // The rows that are looked up are leaves of their own, beside the words, which are parameters.
        let mut known: Vec<u32> = ids
            .iter()
            .flatten()
            .copied()
            .filter(|&id| !added.has(id))
            .collect();
        known.sort_unstable();
        known.dedup();
        let device = added.vectors.device();
        let numbers = |numbers: Vec<i64>| {
            let n = numbers.len();
            Tensor::<1, Int>::from_data(TensorData::new(numbers, [n]), &device)
        };
        if let Some(id) = known.iter().find(|&&id| id >= added.first) {
            return Err(Error::Config(format!(
                "there is no token {id}: the text encoder knows {}, and the new words",
                added.first
            )));
        }
        let table = &model.embeddings.token_embedding;
        let rows = table
            .forward(numbers(known.iter().map(|&id| i64::from(id)).collect()))
            .inner();
        let rows = Tensor::from_inner(rows).require_grad();
        let row = |id: u32| match known.binary_search(&id) {
            Ok(row) => row as i64,
            Err(_) => known.len() as i64 + i64::from(id - added.first),
        };
        let all = Tensor::cat(vec![rows.clone(), added.vectors.clone()], 0);
        let tokens = all.select(0, numbers(ids.iter().flatten().map(|&id| row(id)).collect()));
        beside.push(Beside {
            numbers: known
                .iter()
                .map(|&id| ((place as u64) << 32) | u64::from(id))
                .collect(),
            rows,
        });
        model.forward_embedded(ids, tokens, None)
    }
}

impl Words {
    /// Those of an encoder.
    fn of(&self, place: usize) -> Option<Tensor<2>> {
        match place {
            0 => Some(self.text_encoder.val()),
            _ => self.text_encoder_2.as_ref().map(Param::val),
        }
    }
}

impl Denoiser for Latent {
    fn denoise(&self, x: Tensor<4>, timesteps: Tensor<1>, conditioning: &Conditioning) -> Result<Tensor<4>> {
        let (Some(network), Some(picture)) = (&self.controlnet, &conditioning.control) else {
            return self.unet.denoise(x, timesteps, conditioning);
        };
        let embedded = network.embed(picture.clone())?;
        let residuals = network.residuals(x.clone(), timesteps.clone(), conditioning, embedded)?;
        let controlled = Conditioning {
            residuals: Some(network.scaled(residuals, 1.0, false)),
            control: None,
            ..conditioning.clone()
        };
        self.unet.denoise(x, timesteps, &controlled)
    }
}
