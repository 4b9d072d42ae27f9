//! CLIP's tokenizer: byte-level pairs with lower-casing, where a word's last piece ends in `</w>`.

use std::{collections::BTreeMap, error::Error as StdError, ops::Range, path::Path};

use serde_json::{Value, json};
use tokenizers::{AddedToken, Tokenizer};

use super::{bpe, vocabulary};
use crate::{Error, Result, files};

const TOKENIZER: &str = "tokenizer.json";
const VOCABULARY: &str = "vocab.json";
const MERGES: &str = "merges.txt";
const CONFIG: &str = "tokenizer_config.json";
const SPECIAL: &str = "special_tokens_map.json";

/// What begins every text.
const START: &str = "<|startoftext|>";
/// What ends every text.
const END: &str = "<|endoftext|>";

/// How a text falls into words, before pairs are merged.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// A text's pieces as numbers. Mirrors `transformers.CLIPTokenizer`.
#[derive(Clone, Debug)]
pub struct ClipTokenizer {
    tokenizer: Tokenizer,
    vocabulary: BTreeMap<String, u32>,
    merges: Vec<(String, String)>,
    length: usize,
    start: u32,
    end: u32,
    padding: u32,
}

impl ClipTokenizer {
    /// Loads the tokenizer of a folder: `vocab.json` and `merges.txt`, or `tokenizer.json`, which holds both.
    ///
    /// # Errors
    /// If neither is there, or a file is broken.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let path = folder.join(TOKENIZER);
        let value: Value = if path.is_file() {
            files::read_json(&path)?
        } else if folder.join(VOCABULARY).is_file() && folder.join(MERGES).is_file() {
            let merges = vocabulary::merges(&files::read_text(folder.join(MERGES))?);
            definition(&files::read_json(folder.join(VOCABULARY))?, &merges)
        } else {
            return Err(Error::file(
                folder,
                format!("holds no tokenizer: {TOKENIZER}, or {VOCABULARY} with {MERGES}, should be in it"),
            ));
        };
        Self::of(&value, &Settings::load(folder)?).map_err(|e| Error::file(folder, e))
    }

    /// CLIP's own tokenizer, which Stable Diffusion's text encoders were trained with. Texts are padded with a piece of it: its end,
    /// `<|endoftext|>`, for CLIP's encoders, and `!`, whose number is 0, for open_clip's, which are those of version 2 and XL's second.
    ///
    /// # Errors
    /// If there is no such piece.
    pub fn of_clip(padding: &str) -> Result<Self> {
        let (vocabulary, merges) = vocabulary::clip([START, END])?;
        let settings = Settings {
            padding: padding.into(),
            ..Settings::default()
        };
        Self::of(&definition(&json!(vocabulary), &merges), &settings).map_err(Error::Config)
    }

    /// A tokenizer of its own for `texts`: the pairs that are most frequent in them become pieces, `pieces` at most, besides the
    /// bytes, so that any other text has pieces too. Texts are padded and cut to `length`.
    ///
    /// # Errors
    /// If `length` has no room for a text between its start and its end.
    pub fn train<'a>(texts: impl IntoIterator<Item = &'a str>, pieces: usize, length: usize) -> Result<Self> {
        if length < 3 {
            return Err(Error::Config(format!(
                "a tokenizer's length is {length}: it must be at least 3, for start, text and end"
            )));
        }
        let empty = definition(&json!({ START: 0, END: 1 }), &vec![]);
        let words = Self::of(&empty, &Settings::default()).map_err(Error::Config)?;
        let words = texts.into_iter().flat_map(|text| words.words(text));
        let (vocabulary, merges) = bpe::train(words, pieces, [START, END]);
        let settings = Settings {
            length,
            ..Settings::default()
        };
        Self::of(&definition(&json!(vocabulary), &merges), &settings).map_err(Error::Config)
    }

    /// The tokenizer that a `tokenizer.json` describes.
    fn of(definition: &Value, settings: &Settings) -> std::result::Result<Self, String> {
        let wrong = |what: &str| format!("is not a CLIP tokenizer: {what}");
        let mut tokenizer: Tokenizer = definition
            .to_string()
            .parse()
            .map_err(|e| wrong(&format!("{e}")))?;
        // Texts are cut and padded here, where the number of pieces is the model's.
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|e| wrong(&format!("{e}")))?;
        // What a text is padded with is one piece in a text, too.
        if tokenizer.token_to_id(&settings.padding).is_some() {
            tokenizer
                .add_special_tokens([AddedToken::from(settings.padding.as_str(), true)])
                .map_err(|e| wrong(&format!("{e}")))?;
        }
        let id = |token: &str| {
            tokenizer
                .token_to_id(token)
                .ok_or_else(|| wrong(&format!("it has no {token}")))
        };
        let (start, end, padding) = (id(&settings.start)?, id(&settings.end)?, id(&settings.padding)?);
        let model = &definition["model"];
        let vocabulary = serde_json::from_value(model["vocab"].clone())
            .map_err(|_| wrong("its vocabulary is not pieces and numbers"))?;
        Ok(Self {
            vocabulary,
            merges: merges_of(&model["merges"]),
            length: settings.length,
            start,
            end,
            padding,
            tokenizer,
        })
    }

    /// The words of a text, in the alphabet of bytes that vocabularies are written in.
    fn words(&self, text: &str) -> Vec<String> {
        use tokenizers::{
            Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
            normalizer::NormalizedString,
        };
        let mut normalized = NormalizedString::from(text);
        let normalizer = self.tokenizer.get_normalizer();
        let splitter = self.tokenizer.get_pre_tokenizer();
        if normalizer.is_some_and(|n| n.normalize(&mut normalized).is_err()) {
            return vec![];
        }
        let mut split = PreTokenizedString::from(normalized);
        if splitter.is_some_and(|s| s.pre_tokenize(&mut split).is_err()) {
            return vec![];
        }
        split
            .get_splits(OffsetReferential::Original, OffsetType::Byte)
            .into_iter()
            .map(|(word, ..)| word.to_string())
            .collect()
    }

    /// Start, pieces and end of a text, cut to the model's length and padded to it.
    ///
    /// # Errors
    /// If the tokenizer fails on it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .tokenizer
            .encode_fast(text, false)
            .map_err(|e| no_pieces(text, e.as_ref()))?;
        Ok(self.framed(encoding.get_ids().iter().copied()))
    }

    /// The pieces of a text without start and end, all of them, each with the bytes of the text that it stands for.
    ///
    /// # Errors
    /// If the tokenizer fails on it.
    pub fn pieces(&self, text: &str) -> Result<Vec<(u32, Range<usize>)>> {
        let encoding = self
            .tokenizer
            .encode(text, false)
            .map_err(|e| no_pieces(text, e.as_ref()))?;
        let ids = encoding.get_ids().iter().copied();
        let places = encoding.get_offsets().iter().map(|&(from, to)| from..to);
        Ok(ids.zip(places).collect())
    }

    /// Pieces between start and end, cut to the model's length and padded to it.
    pub fn framed(&self, pieces: impl IntoIterator<Item = u32>) -> Vec<u32> {
        let pieces = pieces.into_iter().take(self.length - 2);
        let mut ids: Vec<u32> = std::iter::once(self.start).chain(pieces).collect();
        ids.push(self.end);
        ids.resize(self.length, self.padding);
        ids
    }

    /// A piece as it stands in texts, such as `cat ` with the space that ends a word, or `<|startoftext|>`; `None` where there is no piece
    /// of this number.
    pub fn piece(&self, id: u32) -> Option<String> {
        use tokenizers::{Decoder, pre_tokenizers::byte_level::ByteLevel};
        let piece = self.tokenizer.id_to_token(id)?;
        let (piece, space) = match piece.strip_suffix("</w>") {
            Some(word) => (word.to_string(), " "),
            None => (piece, ""),
        };
        let text = ByteLevel::default().decode_chain(vec![piece]).ok()?.concat();
        Some(text + space)
    }

    /// How many tokens every text has in the end.
    pub fn length(&self) -> usize {
        self.length
    }

    /// How many pieces there are.
    pub fn vocab_size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// The numbers of start, end and padding.
    pub fn special_ids(&self) -> [u32; 3] {
        [self.start, self.end, self.padding]
    }

    /// Writes `vocab.json`, `merges.txt` and `tokenizer_config.json` into a folder, as transformers reads them.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
        let mut vocabulary: Vec<(&String, &u32)> = self.vocabulary.iter().collect();
        vocabulary.sort_by_key(|(_, id)| **id);
        let vocabulary: serde_json::Map<String, Value> = vocabulary
            .into_iter()
            .map(|(piece, id)| (piece.clone(), json!(id)))
            .collect();
        files::write_json(folder.join(VOCABULARY), &vocabulary)?;
        let merges: String = self.merges.iter().map(|(a, b)| format!("{a} {b}\n")).collect();
        let text = format!("#version: 0.2\n{merges}");
        files::write_atomically(folder.join(MERGES), |w| w.write_all(text.as_bytes()))?;
        let token = |id| self.tokenizer.id_to_token(id);
        let config = json!({
            "bos_token": token(self.start),
            "eos_token": token(self.end),
            "model_max_length": self.length,
            "pad_token": token(self.padding),
            "tokenizer_class": "CLIPTokenizer",
            "unk_token": token(self.end),
        });
        files::write_json(folder.join(CONFIG), &config)
    }
}

fn no_pieces(text: &str, error: &dyn StdError) -> Error {
    Error::Config(format!("the text `{text}` has no pieces: {error}"))
}

/// What stands beside a vocabulary.
struct Settings {
    length: usize,
    start: String,
    end: String,
    padding: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            length: 77,
            start: START.into(),
            end: END.into(),
            padding: END.into(),
        }
    }
}

impl Settings {
    /// What a folder's `tokenizer_config.json` says, and `special_tokens_map.json` where that is silent.
    fn load(folder: &Path) -> Result<Self> {
        let mut settings = Self::default();
        for file in [SPECIAL, CONFIG] {
            let path = folder.join(file);
            if !path.is_file() {
                continue;
            }
            let value: Value = files::read_json(&path)?;
            let token = |name: &str, default: &str| {
                let token = &value[name];
                // A token is its text, or an object with its text in it.
                let text = token.as_str().or_else(|| token["content"].as_str());
                text.unwrap_or(default).to_string()
            };
            settings.start = token("bos_token", &settings.start);
            settings.end = token("eos_token", &settings.end);
            settings.padding = token("pad_token", &settings.padding);
            // Where nobody knew the length, transformers writes an astronomical number.
            if let Some(length) = value["model_max_length"].as_u64().filter(|&n| n <= 1 << 16) {
                if length < 3 {
                    return Err(Error::file(path, "model_max_length should be at least 3"));
                }
                settings.length = length as usize;
            }
        }
        Ok(settings)
    }
}

/// The `tokenizer.json` of a vocabulary and its merges, with CLIP's normalisation.
fn definition(vocabulary: &Value, merges: &Vec<(String, String)>) -> Value {
    let special: Vec<Value> = [START, END]
        .iter()
        .filter_map(|token| {
            let id = vocabulary.get(token)?;
            Some(json!({
                "id": id, "content": token, "special": true,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            }))
        })
        .collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": special,
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "NFC" },
            { "type": "Replace", "pattern": { "Regex": r"\s+" }, "content": " " },
            { "type": "Lowercase" },
        ] },
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": WORDS }, "behavior": "Removed", "invert": true },
            { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        ] },
        "post_processor": null,
        "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": END, "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>", "fuse_unk": false, "byte_fallback": false,
            "vocab": vocabulary, "merges": merges,
        },
    })
}

/// Merges as pairs; older files write each as one text.
fn merges_of(merges: &Value) -> Vec<(String, String)> {
    let pair = |merge: &Value| match merge {
        Value::String(text) => text.split_once(' ').map(|(a, b)| (a.into(), b.into())),
        pair => serde_json::from_value(pair.clone()).ok(),
    };
    merges.as_array().into_iter().flatten().filter_map(pair).collect()
}
