//! LoRA and learned words, as pictures' files name them: by what they are called and by their hashes, which others know them by.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{Drawn, ModelName};
use crate::{
    Lora, Result,
    options::LoraTag,
    weights::{
        FileHashes,
        lora::{LoraScale, file_of, header_hash},
    },
};

/// How many digits of a hash A1111 shows.
const DIGITS: usize = 12;

/// The beginning of SHA-256 of nothing, which programs write that could not read a file: it names none.
const OF_NOTHING: &str = "e3b0c44298fc1c149afb";

/// A LoRA that a picture was drawn with.
#[derive(Clone, Debug, PartialEq)]
pub struct NotedLora {
    /// Where whoever drew with it had it.
    pub path: PathBuf,
    /// How strongly it was applied.
    pub scale: LoraScale,
    /// Its hash, where it is known.
    pub hash: Option<String>,
}

/// A file of learned words that a picture was drawn with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotedEmbedding {
    /// Where whoever drew with it had it.
    pub path: PathBuf,
    /// The word that stood for it, where that was not its own.
    pub token: Option<String>,
    /// Its hash, where it is known.
    pub hash: Option<String>,
}

/// The hash that A1111 and Civitai know a LoRA or a learned word by. Of a LoRA it is what its header notes, or else of what follows the
/// header; of other files, of all that is in them.
///
/// # Errors
/// If the file cannot be read.
pub fn addition_hash(path: impl AsRef<Path>, is_lora: bool) -> Result<String> {
    let path = path.as_ref();
    if !is_lora {
        return Ok(FileHashes::of(path)?.sha256);
    }
    let path = file_of(path)?;
    if let Some(noted) = header_hash(&path) {
        return Ok(noted);
    }
    let hashes = FileHashes::of(&path)?;
    Ok(hashes.weights.unwrap_or(hashes.sha256))
}

/// What a file is called.
fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy();
    // What would end the name in the list.
    stem.replace([':', ','], "")
}

fn short(hash: &str) -> String {
    hash.chars().take(DIGITS).collect()
}

/// The pairs of A1111's text.
pub(super) fn pairs(drawn: &Drawn<'_>, model: &ModelName) -> Vec<(&'static str, String)> {
    let known = |path: &Path| {
        model
            .hashes
            .get(path)
            .map(|hash| format!("{}: {}", stem(path), short(hash)))
    };
    let loras: Vec<String> = drawn.loras.iter().filter_map(|lora| known(&lora.path)).collect();
    let words = drawn.embeddings.iter();
    let words: Vec<String> = words.filter_map(|word| known(&word.path)).collect();
    [("Lora hashes", loras), ("TI hashes", words)]
        .into_iter()
        .filter(|(_, all)| !all.is_empty())
        .map(|(name, all)| (name, all.join(", ")))
        .collect()
}

/// A prompt with A1111's tags of the LoRA behind it.
pub(super) fn with_tags(prompt: &str, loras: &[Lora]) -> String {
    loras.iter().fold(prompt.to_string(), |prompt, lora| {
        let scale = lora.scale.numbers().next().unwrap_or(1.0);
        let between = if prompt.is_empty() { "" } else { " " };
        format!("{prompt}{between}<lora:{}:{scale}>", stem(&lora.path))
    })
}

/// Notes them in our own text.
pub(super) fn note(drawn: &Drawn<'_>, model: &ModelName, own: &mut Value) {
    let hash = |path: &Path| model.hashes.get(path);
    let shown = |path: &Path| match path.file_name() {
        Some(name) if model.without_folders => Path::new(name).to_path_buf(),
        _ => path.to_path_buf(),
    };
    if !drawn.loras.is_empty() {
        let lora =
            |lora: &Lora| json!({ "path": shown(&lora.path), "scale": lora.scale, "hash": hash(&lora.path) });
        own["loras"] = drawn.loras.iter().map(lora).collect();
    }
    if !drawn.embeddings.is_empty() {
        let words = drawn.embeddings.iter();
        own["embeddings"] = words
            .map(|word| json!({ "path": shown(&word.path), "token": word.token, "hash": hash(&word.path) }))
            .collect();
    }
}

/// The LoRA that our own text notes.
pub(super) fn loras(own: &Value) -> Vec<NotedLora> {
    let all = own["loras"].as_array().into_iter().flatten();
    all.filter_map(|noted| {
        Some(NotedLora {
            path: noted["path"].as_str()?.into(),
            scale: serde_json::from_value(noted["scale"].clone()).ok()?,
            hash: noted["hash"].as_str().map(String::from),
        })
    })
    .collect()
}

/// The LoRA that a prompt of A1111's names, with the hashes that stand beside it as `NAME: HASH, NAME: HASH`.
pub(super) fn tagged(tags: Vec<LoraTag>, hashes: &str) -> Vec<NotedLora> {
    let mut all = BTreeMap::new();
    for (name, hash) in hashes.split(',').filter_map(|one| one.rsplit_once(':')) {
        all.entry(name.trim()).or_insert(hash.trim());
    }
    let hash = |name: &str| {
        all.get(name)
            .map(ToString::to_string)
            .filter(|hash| hash.len() >= 8 && !OF_NOTHING.starts_with(hash))
    };
    let noted = |tag: LoraTag| NotedLora {
        hash: hash(&tag.name),
        path: tag.name.into(),
        scale: tag.scale,
    };
    tags.into_iter().map(noted).collect()
}

/// The learned words that it notes.
pub(super) fn embeddings(own: &Value) -> Vec<NotedEmbedding> {
    let all = own["embeddings"].as_array().into_iter().flatten();
    all.filter_map(|noted| {
        Some(NotedEmbedding {
            path: noted["path"].as_str()?.into(),
            token: noted["token"].as_str().map(String::from),
            hash: noted["hash"].as_str().map(String::from),
        })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_gets_the_tags_that_others_read() {
        let loras = [
            Lora::new("styles/pixel-art.safetensors", 0.8),
            Lora::new("b.pt", 1.0),
        ];
        assert_eq!(
            with_tags("a castle", &loras),
            "a castle <lora:pixel-art:0.8> <lora:b:1>"
        );
        assert_eq!(with_tags("", &loras[1..]), "<lora:b:1>");
    }

    #[test]
    fn tags_of_others_keep_their_names_and_hashes() {
        let (_, tags) = crate::options::take_loras(
            "a <lora:[XL]Style v1.5:-0.5:-0.8> <lora:b:1> <lora:unread:1> <lora:not hashed:1>",
        )
        .unwrap();
        let noted = tagged(
            tags,
            "[XL]Style v1.5: 8c6dd764ceff, b: 5a4becfcc624, unread: e3b0c44298fc, c: 1",
        );
        let hashes: Vec<(&str, Option<&str>)> = noted
            .iter()
            .map(|lora| (lora.path.to_str().unwrap(), lora.hash.as_deref()))
            .collect();
        assert_eq!(
            hashes,
            [
                ("[XL]Style v1.5", Some("8c6dd764ceff")),
                ("b", Some("5a4becfcc624")),
                // A program that could not read the file noted the hash of nothing.
                ("unread", None),
                ("not hashed", None),
            ]
        );
        assert_eq!(
            noted[0].scale.to_string(),
            "-0.8 (text_encoder -0.5, text_encoder_2 -0.5)"
        );
    }
}
