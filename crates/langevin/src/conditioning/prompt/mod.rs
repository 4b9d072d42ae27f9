//! How weights, schedules and the like are written in texts: a file and a row of `SYNTAXES` per program whose way it is.
//!
//! A syntax reads a text as a [`Prompt`], puts its tokens into chunks that a text encoder takes, and says how weights change what the encoder
//! makes of them. `docs/prompts.md` has the rules beside each other.

mod a1111;
mod comfy;
mod compel;
mod plain;

pub(super) use comfy::unknown as comfy_unknown;

use burn::tensor::Tensor;

use super::text::Tower;
use crate::{Error, Result, named::named_enum};

named_enum! {
    /// How weights, schedules and the like are written in texts.
    #[derive(Default)]
    pub enum PromptSyntax: "a prompt syntax" {
        /// They are not: a text is a text, cut to what the encoder takes. diffusers.
        #[default]
        Plain = "plain",
        /// `(word:1.2)`, `[word]`, `[from:to:when]`, `[one|other]`, `BREAK`, `AND`. AUTOMATIC1111's web UI.
        A1111 = "a1111",
        /// `(word:1.2)`, `embedding:name`. ComfyUI.
        Comfy = "comfy",
        /// `word++`, `(some words)1.2`, `("one", "other").blend(0.7, 0.3)`. The package compel.
        Compel = "compel",
    }
}

/// The most things that one text draws together.
const MOST_PARTS: usize = 16;
/// The most chunks of one text.
const MOST_CHUNKS: usize = 32;
/// The most texts of one schedule.
pub(super) const MOST_STAGES: usize = 256;
/// The deepest that brackets may be nested; deeper ones are read as text.
const DEEPEST: usize = 64;

/// A part of a text with its weight, or the end of a chunk.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Span {
    Text { text: String, weight: f64 },
    Break,
}

impl Span {
    fn of(text: impl Into<String>, weight: f64) -> Self {
        Self::Text {
            text: text.into(),
            weight,
        }
    }
}

/// How the encodings of several texts become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Join {
    /// One after another, each times its weight.
    #[default]
    Follow,
    /// Their sum, each times its weight.
    Sum,
    /// The same, divided by the sum of weights.
    Mean,
}

/// Texts whose encodings are joined, each with a weight; nearly always one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Joined {
    pub texts: Vec<(f64, Vec<Span>)>,
    pub join: Join,
}

impl Joined {
    fn one(spans: Vec<Span>) -> Self {
        Self {
            texts: vec![(1.0, spans)],
            join: Join::Follow,
        }
    }
}

/// What a text means.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Prompt {
    /// What is drawn together: one, or several that guidance leads towards at once.
    pub parts: Vec<Part>,
}

/// One of the things that guidance leads towards.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    /// How far, beside the others.
    pub weight: f64,
    /// What is drawn up to which step, counted from 1; the last to the end.
    pub stages: Vec<(usize, Joined)>,
}

impl Prompt {
    /// The same from the first step to the last.
    fn one(joined: Joined) -> Self {
        let part = Part {
            weight: 1.0,
            stages: vec![(usize::MAX, joined)],
        };
        Self { parts: vec![part] }
    }
}

/// Tokens that go through a text encoder together: start, tokens, end and padding, each with its weight.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chunk {
    pub ids: Vec<u32>,
    pub weights: Vec<f32>,
    /// Of which span each token is; `None` for start, end and padding.
    pub spans: Vec<Option<usize>>,
}

impl Chunk {
    /// Start, these tokens, end, and as much padding as the encoder wants.
    fn framed(tower: &Tower, tokens: Vec<(u32, f32, usize)>) -> Self {
        let length = tower.tokenizer.length();
        let ids = tower.tokenizer.framed(tokens.iter().map(|(id, ..)| *id));
        let mut weights = vec![1.0; length];
        let mut spans = vec![None; length];
        for (place, (_, weight, span)) in tokens.into_iter().enumerate().take(length - 2) {
            weights[place + 1] = weight;
            spans[place + 1] = Some(span);
        }
        Self { ids, weights, spans }
    }

    /// How many tokens of a text are in it.
    pub(super) fn len(&self) -> usize {
        self.spans.iter().flatten().count()
    }

    /// Whether a weight is not 1.
    fn is_weighted(&self) -> bool {
        self.weights.iter().any(|&weight| weight != 1.0)
    }

    /// The weights, `[1, length, 1]`.
    fn weights_on(&self, like: &Tensor<3>) -> Tensor<3> {
        Tensor::<1>::from_floats(self.weights.as_slice(), &like.device()).reshape([1, self.weights.len(), 1])
    }
}

/// What a text encoder makes of rows of token ids, `[rows, length, width]`; where a mask is given, tokens with 0 in it are not looked at.
pub(super) type Encode<'a> = dyn Fn(&[Vec<u32>], Option<&[Vec<f32>]>) -> Result<Tensor<3>> + 'a;

/// A text's chunks and what the encoder made of them, `[chunks, length, width]`.
pub(super) struct Encoding {
    pub chunks: Vec<Chunk>,
    pub z: Tensor<3>,
}

/// One program's way.
pub(super) trait Syntax: Sync {
    /// What a text means that is drawn in `steps` calls of the model. What guidance leads away from has no parts.
    ///
    /// # Errors
    /// If it is none of the syntax, or asks for what is not there.
    fn read(&self, text: &str, steps: usize, is_negative: bool) -> Result<Prompt>;

    /// The chunks that a text encoder takes, at least one.
    ///
    /// # Errors
    /// If the tokenizer fails.
    fn chunks(&self, tower: &Tower, spans: &[Span]) -> Result<Vec<Chunk>>;

    /// What weights make of each chunk's encoding. The texts are those of one schedule, of as many chunks each.
    ///
    /// # Errors
    /// If the encoder fails.
    fn weigh(&self, texts: Vec<Encoding>, empty: &[u32], encode: &Encode<'_>) -> Result<Vec<Tensor<3>>>;

    /// Whether a model's zeros stand for an empty text that guidance leads away from, where the model wants that.
    fn zeros_for_empty(&self) -> bool {
        false
    }

    /// Whether a text of fewer chunks than another that it stands beside has empty ones behind; otherwise all of them again, which the model
    /// cannot tell from none.
    fn pads_with_empty(&self) -> bool {
        false
    }
}

const SYNTAXES: [(PromptSyntax, &dyn Syntax); 4] = [
    (PromptSyntax::Plain, &plain::Plain),
    (PromptSyntax::A1111, &a1111::A1111),
    (PromptSyntax::Comfy, &comfy::Comfy),
    (PromptSyntax::Compel, &compel::Compel),
];

impl PromptSyntax {
    /// Its rules.
    pub(super) fn rules(self) -> &'static dyn Syntax {
        let row = SYNTAXES.iter().find(|(syntax, _)| *syntax == self);
        row.map_or(&plain::Plain, |(_, rules)| *rules)
    }
}

/// Refuses a text of more chunks than make sense.
fn check(chunks: Vec<Chunk>) -> Result<Vec<Chunk>> {
    match chunks.len() {
        0..=MOST_CHUNKS => Ok(chunks),
        more => Err(Error::option(
            &["prompt"],
            format!("a text has {more} chunks of tokens, and {MOST_CHUNKS} are the most"),
        )),
    }
}

/// A number of a text that can be a weight.
fn weight(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|weight: &f64| weight.is_finite())
}

/// Where the tags of other networks stand in a text, such as `<lora:name:0.8>`.
pub(crate) fn network_tags(text: &str) -> impl Iterator<Item = &str> {
    const KINDS: [&str; 3] = ["lora:", "lyco:", "hypernet:"];
    text.match_indices('<').filter_map(|(at, _)| {
        let rest = &text[at + 1..];
        let end = rest.find('>')?;
        KINDS
            .iter()
            .any(|kind| rest.starts_with(kind))
            .then(|| &text[at..at + end + 2])
    })
}
