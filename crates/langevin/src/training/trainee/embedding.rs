//! New words for a text encoder, learned as vectors from a few pictures (Gal et al. 2022, "textual inversion").
//!
//! What diffusers' `textual_inversion.py` and its `_sdxl` form train. They give the optimiser the whole table of the vocabulary and put its other
//! rows back after each step; here the new rows alone are parameters, which comes to the same numbers.

use std::path::Path;

use burn::{
    module::Param,
    tensor::{Int, Tensor, TensorData},
};

use super::{
    Latent,
    kind::{Row, Start},
    latent::Words,
};
use crate::{
    Error, Result,
    conditioning::TextCondition,
    models::{ClipTextEncoder, Model},
    weights::{self, NamedTensor},
};

/// What diffusers calls the file.
pub const EMBEDDING_FILE: &str = "learned_embeds.safetensors";
/// The same of Stable Diffusion XL's second encoder.
pub const EMBEDDING_FILE_2: &str = "learned_embeds_2.safetensors";

pub(super) const ROW: Row = Row {
    attach: |latent, start, _| attach_asked(latent, start),
    trains: |_, name| name.starts_with("words."),
    save: |latent, finished| {
        let placeholder = finished.config.placeholder_token.as_deref().unwrap_or_default();
        save(latent, placeholder, finished.folder)
    },
    learning_rate: 5e-4,
    tags: &["stable-diffusion", "text-to-image", "textual_inversion"],
};

/// Adds the words that a run asks for.
fn attach_asked(latent: Latent, start: &Start<'_>) -> Result<Latent> {
    let config = start.config;
    let text = start.base.condition::<TextCondition>().ok_or_else(|| {
        Error::Config("new words are learned for a text encoder, and the pipeline has none".into())
    })?;
    let refuse = |message: String| {
        Err(Error::option(
            &["placeholder_token", "initializer_token"],
            message,
        ))
    };
    let Some(placeholder) = &config.placeholder_token else {
        return refuse("`placeholder_token` is the new word, such as <cat-toy>, and there is none".into());
    };
    // A word that is a token already has a meaning.
    if text.plain_tokens(placeholder)?.iter().any(|ids| ids.len() == 1) {
        return refuse(format!(
            "`placeholder_token` {placeholder} is in the vocabulary already: another word is needed"
        ));
    }
    let Some(initializer) = &config.initializer_token else {
        return refuse(
            "`initializer_token` is a word that the new one begins as, such as toy, and there is none".into(),
        );
    };
    let mut initial = Vec::new();
    for ids in text.plain_tokens(initializer)? {
        match ids[..] {
            [id] => initial.push(id),
            _ => {
                return refuse(format!(
                    "`initializer_token` {initializer} is {} tokens of the vocabulary, and must be one: another word is needed",
                    ids.len()
                ));
            }
        }
    }
    attach(latent, config.num_vectors, &initial)
}

/// The words of a placeholder of so many vectors: `<cat>`, `<cat>_1`, `<cat>_2` …
pub fn tokens(placeholder: &str, vectors: usize) -> Vec<String> {
    (0..vectors)
        .map(|number| match number {
            0 => placeholder.to_string(),
            number => format!("{placeholder}_{number}"),
        })
        .collect()
}

/// Adds so many words behind the vocabulary of each encoder, which begin as the vectors of the tokens with these numbers, one per encoder.
///
/// # Errors
/// If there is no encoder, or it has no such token.
pub fn attach(latent: Latent, vectors: usize, initial: &[u32]) -> Result<Latent> {
    let row = |encoder: &ClipTextEncoder, id: u32| -> Result<Param<Tensor<2>>> {
        let table = encoder.text_model.embeddings.token_embedding.weight.val();
        let known = encoder.config().vocab_size;
        if id as usize >= known {
            return Err(Error::Config(format!(
                "there is no token {id} to begin with: the text encoder knows {known}"
            )));
        }
        let rows = vec![i64::from(id); vectors];
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [vectors]), &table.device());
        // Values of its own: the table stays as it is.
        let values = table.select(0, rows).into_data().convert::<f32>();
        Ok(Param::from_tensor(Tensor::from_data(
            values,
            &encoder.text_model.final_layer_norm.weight.val().device(),
        )))
    };
    let (Some(encoder), Some(&first)) = (&latent.text_encoder, initial.first()) else {
        return Err(Error::Config(
            "new words are learned for a text encoder, and the pipeline has none".into(),
        ));
    };
    let words = Words {
        text_encoder: row(encoder, first)?,
        text_encoder_2: match (&latent.text_encoder_2, initial.get(1)) {
            (Some(encoder), Some(&id)) => Some(row(encoder, id)?),
            _ => None,
        },
    };
    Ok(Latent {
        words: Some(words),
        ..latent
    })
}

/// Writes the file that diffusers' scripts leave, and for a second encoder the second, into a folder.
///
/// # Errors
/// If there are no words, or a file cannot be written.
pub fn save(latent: &Latent, placeholder: &str, folder: &Path) -> Result<()> {
    let stored = weights::named_tensors_of(latent, |name| name.starts_with("words."));
    if stored.is_empty() {
        return Err(Error::Config("no words were learned".into()));
    }
    for (tensor, file) in stored.into_iter().zip([EMBEDDING_FILE, EMBEDDING_FILE_2]) {
        let named = NamedTensor {
            name: placeholder.to_string(),
            ..tensor
        };
        weights::write_tensors(folder.join(file), &[named])?;
    }
    Ok(())
}
