//! A text encoder with its tokenizer, and the words that were taught to it in files beside it.

use std::{ops::Range, path::Path, sync::Arc};

use burn::tensor::{Device, Tensor, TensorData};

use super::learned::{Learned, LearnedEmbedding};
use crate::{
    Error, Result,
    models::{
        ClipTextEncoder, ClipTokenizer, Components, Model,
        clip::{AddedTokens, TextOutput},
        components,
    },
};

/// A token of a text, and the bytes of it that it stands for.
pub(in crate::conditioning) type Piece = (u32, Range<usize>);

/// A text encoder with its tokenizer, and the names of their folders.
#[derive(Clone, Debug)]
pub(in crate::conditioning) struct Tower {
    pub encoder: ClipTextEncoder,
    pub tokenizer: Arc<ClipTokenizer>,
    pub folders: [&'static str; 2],
    learned: Learned,
    /// The vectors of all learned words.
    added: Option<AddedTokens>,
}

impl Tower {
    pub(super) fn new(
        encoder: ClipTextEncoder,
        tokenizer: ClipTokenizer,
        folders: [&'static str; 2],
    ) -> Result<Self> {
        let config = encoder.config();
        if tokenizer.vocab_size() > config.vocab_size || tokenizer.length() > config.max_position_embeddings {
            return Err(Error::Config(format!(
                "the tokenizer has {} pieces and texts of {}, the text encoder knows {} and {}: they are not of one model",
                tokenizer.vocab_size(),
                tokenizer.length(),
                config.vocab_size,
                config.max_position_embeddings
            )));
        }
        Ok(Self {
            encoder,
            tokenizer: Arc::new(tokenizer),
            folders,
            learned: Learned::default(),
            added: None,
        })
    }

    /// The one whose folders are called so.
    pub(super) fn load(source: &dyn Components, folders: [&'static str; 2], device: &Device) -> Result<Self> {
        if !source.has(folders[1]) {
            return Err(components::missing(
                source,
                folders[1],
                "which its text encoder needs",
            ));
        }
        let encoder = components::load(source, folders[0], device)?;
        let tokenizer = source.tokenizer(folders[1])?;
        Self::new(encoder, tokenizer, folders).map_err(|e| Error::file(source.path(), e.to_string()))
    }

    /// The same with a word of an embedding's file, which has vectors for this encoder.
    ///
    /// # Errors
    /// If they are of another width, or another file has the word already.
    pub(super) fn learn(&mut self, embedding: &LearnedEmbedding) -> Result<()> {
        let width = self.encoder.config().hidden_size;
        let values = embedding.vectors_for(self.folders[0], width)?;
        let device = self.encoder.text_model.final_layer_norm.weight.val().device();
        let count = values.len() / width;
        let vectors = Tensor::from_data(TensorData::new(values, [count, width]), &device);
        let (first, before) = match self.added.take() {
            Some(AddedTokens { first, vectors }) => (first, Some(vectors)),
            None => (self.encoder.config().vocab_size as u32, None),
        };
        let known = before.as_ref().map_or(0, |before: &Tensor<2>| before.dims()[0]);
        let tokens = |text: &str| {
            let pieces = self.tokenizer.pieces(text)?;
            Ok(pieces.into_iter().map(|(id, _)| id).collect())
        };
        self.learned
            .add(embedding, first + known as u32, count, &tokens)?;
        let vectors = match before {
            Some(before) => Tensor::cat(vec![before, vectors], 0),
            None => vectors,
        };
        self.added = Some(AddedTokens { first, vectors });
        Ok(())
    }

    /// Whether there are vectors for this encoder.
    pub(super) fn takes(&self, embedding: &LearnedEmbedding) -> bool {
        let width = self.encoder.config().hidden_size;
        embedding.vectors_for(self.folders[0], width).is_ok()
    }

    /// The tokens of a text, learned words among them, in order.
    ///
    /// # Errors
    /// If the tokenizer fails on it.
    pub(in crate::conditioning) fn pieces(&self, text: &str) -> Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        let plain = |from: usize, to: usize, pieces: &mut Vec<Piece>| -> Result<()> {
            let found = self.tokenizer.pieces(&text[from..to])?.into_iter();
            pieces.extend(found.map(|(id, range)| (id, range.start + from..range.end + from)));
            Ok(())
        };
        let mut from = 0;
        for (place, ids) in self.learned.words(text) {
            plain(from, place.start, &mut pieces)?;
            from = place.end;
            pieces.extend(ids.map(|id| (id, place.clone())));
        }
        plain(from, text.len(), &mut pieces)?;
        Ok(pieces)
    }

    /// The learned word whose own tokens these begin with: how many those are, and the tokens that stand for it.
    pub(in crate::conditioning) fn learned_at(&self, tokens: &[u32]) -> Option<(usize, Range<u32>)> {
        self.learned.at_tokens(tokens)
    }

    /// The tokens of the learned word of this name, in capitals or not.
    pub(in crate::conditioning) fn learned_named(&self, name: &str) -> Option<Range<u32>> {
        self.learned.named(name)
    }

    /// All learned words.
    pub(super) fn learned_words(&self) -> impl Iterator<Item = &str> {
        self.learned.all()
    }

    /// The files whose learned words stand in a text.
    pub(super) fn learned_files<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a Path> {
        self.learned.files(text)
    }

    /// Token ids, one row per text: start, tokens, end and padding.
    ///
    /// # Errors
    /// If the tokenizer fails on one.
    pub(super) fn tokens<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<Vec<u32>>> {
        let row = |text: &T| {
            let pieces = self.pieces(text.as_ref())?;
            Ok(self.tokenizer.framed(pieces.into_iter().map(|(id, _)| id)))
        };
        texts.iter().map(row).collect()
    }

    /// What of a text does not fit into the model's length; `None` where all of it does.
    ///
    /// # Errors
    /// If the tokenizer fails on it.
    pub(super) fn unseen(&self, text: &str) -> Result<Option<String>> {
        let pieces = self.pieces(text)?;
        let first = pieces.get(self.tokenizer.length() - 2);
        let rest = first.and_then(|(_, range)| text.get(range.start..));
        Ok(rest
            .map(|rest| rest.trim().to_string())
            .filter(|rest| !rest.is_empty()))
    }

    /// What an encoder of this kind, such as the one that was trained along, makes of token ids; tokens with 0 in a mask are not looked at.
    ///
    /// # Errors
    /// As [`ClipTextModel::forward`](crate::models::clip::ClipTextModel::forward).
    pub(super) fn forward(
        &self,
        encoder: &ClipTextEncoder,
        ids: &[Vec<u32>],
        mask: Option<&[Vec<f32>]>,
    ) -> Result<TextOutput> {
        encoder.text_model.forward_with(ids, self.added.as_ref(), mask)
    }
}
