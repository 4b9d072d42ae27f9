//! ComfyUI: `comfy/sd1_clip.py`.

use std::ops::Range;

use burn::tensor::Tensor;

use super::{Chunk, DEEPEST, Encode, Encoding, Joined, Prompt, Span, Syntax, check, weight};
use crate::{Result, conditioning::text::Tower};

/// How many times a bracket without a number multiplies what is in it.
const BRACKET: f64 = 1.1;
/// Words of fewer tokens are kept in one chunk.
const LONG_WORD: usize = 8;
/// What stands before the name of a learned word.
const EMBEDDING: &str = "embedding:";
/// The endings that a learned word's file may be named with.
const ENDINGS: [&str; 3] = [".safetensors", ".pt", ".bin"];

pub(super) struct Comfy;

impl Syntax for Comfy {
    fn read(&self, text: &str, _: usize, _: bool) -> Result<Prompt> {
        let mut spans = Vec::new();
        weigh(&hidden(text), 1.0, 0, &mut spans);
        Ok(Prompt::one(Joined::one(spans)))
    }

    fn chunks(&self, tower: &Tower, spans: &[Span]) -> Result<Vec<Chunk>> {
        let length = tower.tokenizer.length() - 2;
        let mut chunks = vec![Vec::new()];
        for (place, span) in spans.iter().enumerate() {
            let Span::Text { text, weight } = span else {
                continue;
            };
            for mut word in words(tower, text)? {
                let is_long = word.len() >= LONG_WORD;
                while !word.is_empty() {
                    let room = chunks.last().map_or(0, |chunk| length - chunk.len());
                    let fits = word.len().min(room);
                    // A short word goes whole into the next chunk.
                    let taken = if word.len() <= room || is_long { fits } else { 0 };
                    let rest = word.split_off(taken);
                    if let Some(chunk) = chunks.last_mut() {
                        chunk.extend(word.into_iter().map(|id| (id, *weight as f32, place)));
                    }
                    if !rest.is_empty() {
                        chunks.push(Vec::new());
                    }
                    word = rest;
                }
            }
        }
        check(
            chunks
                .into_iter()
                .map(|tokens| Chunk::framed(tower, tokens))
                .collect(),
        )
    }

    /// Away from the empty text's encoding at the same place, as far as a token's weight says.
    fn weigh(&self, texts: Vec<Encoding>, empty: &[u32], encode: &Encode<'_>) -> Result<Vec<Tensor<3>>> {
        let weighed = |Encoding { chunks, z }: Encoding| {
            if !chunks.iter().any(Chunk::is_weighted) {
                return Ok(z);
            }
            let nothing = encode(&[empty.to_vec()], None)?;
            Ok(from_empty(&chunks, z, &nothing))
        };
        texts.into_iter().map(weighed).collect()
    }
}

/// `empty + (z − empty) · weight`, and where a token's weight is 1, `z` itself.
pub(super) fn from_empty(chunks: &[Chunk], z: Tensor<3>, empty: &Tensor<3>) -> Tensor<3> {
    let [_, length, width] = z.dims();
    let rows = chunks.iter().enumerate().map(|(row, chunk)| {
        let own = z.clone().narrow(0, row, 1);
        let weights = chunk.weights_on(&z);
        let moved = (own.clone() - empty.clone()) * weights.clone() + empty.clone();
        own.mask_where(weights.not_equal_elem(1.0).expand([1, length, width]), moved)
    });
    Tensor::cat(rows.collect(), 0)
}

/// What stands for escaped brackets while brackets are read.
const OPEN: char = '\u{2}';
const CLOSE: char = '\u{1}';

fn hidden(text: &str) -> String {
    // Control characters of the text's own mean nothing.
    let plain: String = text.chars().filter(|c| ![OPEN, CLOSE].contains(c)).collect();
    plain
        .replace("\\)", &CLOSE.to_string())
        .replace("\\(", &OPEN.to_string())
}

fn shown(text: &str) -> String {
    text.replace(CLOSE, ")").replace(OPEN, "(")
}

/// A text in pieces: what stands outside of brackets, and whole brackets. After a closing bracket too many, the next opening one is text.
fn bracketed(text: &str) -> Vec<&str> {
    let (mut pieces, mut from, mut level) = (Vec::new(), 0, 0_i64);
    for (at, c) in text.char_indices() {
        match c {
            '(' => {
                if level == 0 {
                    pieces.push(&text[from..at]);
                    from = at;
                }
                level += 1;
            }
            ')' => {
                level -= 1;
                if level == 0 {
                    pieces.push(&text[from..=at]);
                    from = at + 1;
                }
            }
            _ => {}
        }
    }
    pieces.push(&text[from..]);
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// Parts with their weights: a bracket multiplies, and a number in it stands for all that is around.
fn weigh(text: &str, around: f64, depth: usize, spans: &mut Vec<Span>) {
    for piece in bracketed(text) {
        let inner = piece.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
        let Some(inner) = inner.filter(|_| depth < DEEPEST) else {
            spans.push(Span::of(shown(piece), around));
            continue;
        };
        let numbered = inner.rsplit_once(':').filter(|(before, _)| !before.is_empty());
        match numbered.and_then(|(before, number)| Some((before, weight(number)?))) {
            Some((before, weight)) => weigh(before, weight, depth + 1, spans),
            None => weigh(inner, around * BRACKET, depth + 1, spans),
        }
    }
}

/// The tokens of a learned word, which may be named as its file is.
fn learned(tower: &Tower, name: &str) -> Option<Range<u32>> {
    let stem = ENDINGS.iter().find_map(|ending| name.strip_suffix(ending));
    tower.learned_named(name).or_else(|| tower.learned_named(stem?))
}

/// The learned words that a text names and that there are not.
pub(in crate::conditioning) fn unknown<'a>(tower: &'a Tower, text: &'a str) -> impl Iterator<Item = &'a str> {
    let is_end = |c: char| c.is_whitespace() || "(),:".contains(c);
    let named = text.split(EMBEDDING).skip(1);
    named
        .filter_map(move |rest| rest.split(is_end).next())
        .filter(|name| learned(tower, name).is_none())
}

/// The tokens of each word.
fn words(tower: &Tower, text: &str) -> Result<Vec<Vec<u32>>> {
    let mut words = Vec::new();
    for word in text.split([' ', '\n']).filter(|word| !word.is_empty()) {
        let mut word = word;
        if let Some(name) = word.strip_prefix(EMBEDDING) {
            let bare = name.trim_end_matches(',');
            words.extend(learned(tower, bare).map(Iterator::collect));
            // One that there is not is left out of the text, as there.
            word = &name[bare.len()..];
        }
        if !word.is_empty() {
            words.push(
                tower
                    .tokenizer
                    .pieces(word)?
                    .into_iter()
                    .map(|(id, _)| id)
                    .collect(),
            );
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, f64)> {
        let prompt = Comfy.read(text, 10, false).unwrap();
        let spans = prompt.parts[0].stages[0].1.texts[0].1.iter();
        let part = |span: &Span| match span {
            Span::Text { text, weight } => (text.clone(), *weight),
            Span::Break => unreachable!(),
        };
        spans.map(part).collect()
    }

    #[test]
    fn weights_are_the_programs() {
        // By hand from token_weights and parse_parentheses; the first five are in a report about the program's nesting.
        let cases: [(&str, &[(&str, f64)]); 16] = [
            ("foo bar baz", &[("foo bar baz", 1.0)]),
            ("foo (bar) baz", &[("foo ", 1.0), ("bar", 1.1), (" baz", 1.0)]),
            (
                "foo ((bar)) baz",
                &[("foo ", 1.0), ("bar", 1.1 * 1.1), (" baz", 1.0)],
            ),
            (
                "foo (((bar))) baz",
                &[("foo ", 1.0), ("bar", 1.1 * 1.1 * 1.1), (" baz", 1.0)],
            ),
            (
                "foo ((lol (cat:666) attack)) baz",
                &[
                    ("foo ", 1.0),
                    ("lol ", 1.1 * 1.1),
                    ("cat", 666.0),
                    (" attack", 1.1 * 1.1),
                    (" baz", 1.0),
                ],
            ),
            ("(a (b) c:1.3)", &[("a ", 1.3), ("b", 1.3 * 1.1), (" c", 1.3)]),
            ("a \\(b\\) c", &[("a (b) c", 1.0)]),
            (
                "snakebite (\\(piercing\\):1.2)",
                &[("snakebite ", 1.0), ("(piercing)", 1.2)],
            ),
            ("[a:b:3]", &[("[a:b:3]", 1.0)]),
            ("(a", &[("(a", 1.0)]),
            ("a) (b) c", &[("a) (b) c", 1.0)]),
            ("(:1.2)", &[(":1.2", 1.1)]),
            ("(a:b)", &[("a:b", 1.1)]),
            ("(a:1.2)(b:-1)", &[("a", 1.2), ("b", -1.0)]),
            ("()", &[]),
            ("(a:inf)", &[("a:inf", 1.1)]),
        ];
        for (text, parts) in cases {
            let parts: Vec<(String, f64)> = parts
                .iter()
                .map(|(text, weight)| ((*text).into(), *weight))
                .collect();
            assert_eq!(read(text), parts, "{text}");
        }
    }

    #[test]
    fn hostile_texts_end() {
        let deep = format!("{}a{}", "(".repeat(2000), ")".repeat(2000));
        assert_eq!(read(&deep).len(), 1);
        assert_eq!(read(&"(".repeat(100_000)).len(), 1);
    }
}
