//! AUTOMATIC1111's web UI, from 1.6 on: `modules/prompt_parser.py`, `sd_hijack_clip.py` and `sd_emphasis.py`.

mod attention;
mod schedule;

use burn::tensor::Tensor;

use super::{
    Chunk, Encode, Encoding, Joined, MOST_PARTS, MOST_STAGES, Part, Prompt, Span, Syntax, check, weight,
};
use crate::{Error, Result, conditioning::text::Tower};

/// How many tokens after the last comma go into the next chunk with what follows, where a chunk is full.
const COMMA_BACKTRACK: usize = 20;

pub(super) struct A1111;

impl Syntax for A1111 {
    fn read(&self, text: &str, steps: usize, is_negative: bool) -> Result<Prompt> {
        let text = without_comments(text);
        let parts = if is_negative {
            vec![(text.as_str(), 1.0)]
        } else {
            composed(&text)
        };
        if parts.len() > MOST_PARTS {
            return Err(Error::option(
                &["prompt"],
                format!(
                    "the prompt has {} parts between `AND`s, and {MOST_PARTS} are the most",
                    parts.len()
                ),
            ));
        }
        let part = |(text, weight): (&str, f64)| -> Result<Part> {
            let stages = schedule::schedule(text, steps);
            let mut different: Vec<&String> = stages.iter().map(|(_, text)| text).collect();
            different.sort();
            different.dedup();
            if different.len() > MOST_STAGES {
                return Err(Error::option(
                    &["prompt"],
                    format!(
                        "the prompt's schedule has {} texts, and {MOST_STAGES} are the most",
                        different.len()
                    ),
                ));
            }
            let stages = stages.into_iter();
            let stages = stages
                .map(|(until, text)| (until, Joined::one(attention::spans(&text))))
                .collect();
            Ok(Part { weight, stages })
        };
        let parts = parts.into_iter().map(part).collect::<Result<_>>()?;
        Ok(Prompt { parts })
    }

    fn chunks(&self, tower: &Tower, spans: &[Span]) -> Result<Vec<Chunk>> {
        let comma = tower.tokenizer.pieces(",")?.first().map(|(id, _)| *id);
        let mut chunker = Chunker {
            length: tower.tokenizer.length() - 2,
            chunks: Vec::new(),
            chunk: Vec::new(),
            last_comma: None,
        };
        for (place, span) in spans.iter().enumerate() {
            let Span::Text { text, weight } = span else {
                chunker.next();
                continue;
            };
            let tokens: Vec<u32> = tower
                .tokenizer
                .pieces(text)?
                .into_iter()
                .map(|(id, _)| id)
                .collect();
            let mut at = 0;
            while let Some(&token) = tokens.get(at) {
                if Some(token) == comma {
                    chunker.last_comma = Some(chunker.chunk.len());
                } else {
                    chunker.move_to_comma();
                }
                if chunker.chunk.len() == chunker.length {
                    chunker.next();
                }
                let (taken, ids) = match tower.learned_at(&tokens[at..]) {
                    Some((taken, ids)) => (taken, ids),
                    None => (1, token..token + 1),
                };
                // A learned word is not cut in two, unless it is longer than a chunk.
                if !chunker.chunk.is_empty() && chunker.chunk.len() + ids.len() > chunker.length {
                    chunker.next();
                }
                for id in ids {
                    if chunker.chunk.len() == chunker.length {
                        chunker.next();
                    }
                    chunker.chunk.push((id, *weight as f32, place));
                }
                at += taken;
            }
        }
        if !chunker.chunk.is_empty() || chunker.chunks.is_empty() {
            chunker.next();
        }
        let chunks = chunker.chunks.into_iter();
        check(chunks.map(|tokens| Chunk::framed(tower, tokens)).collect())
    }

    /// Times the weights, and then such that the mean over all of a chunk's numbers, in all texts of the schedule, is what it was.
    fn weigh(&self, texts: Vec<Encoding>, _: &[u32], _: &Encode<'_>) -> Result<Vec<Tensor<3>>> {
        let chunks = texts.first().map_or(0, |text| text.chunks.len());
        let mut weighed: Vec<Vec<Tensor<3>>> = texts.iter().map(|_| Vec::new()).collect();
        for place in 0..chunks {
            let of = |text: &Encoding| text.z.clone().narrow(0, place, 1);
            let plain = Tensor::cat(texts.iter().map(of).collect(), 0);
            let all = if texts.iter().any(|text| text.chunks[place].is_weighted()) {
                let weights = texts.iter().map(|text| text.chunks[place].weights_on(&plain));
                let scaled = plain.clone() * Tensor::cat(weights.collect(), 0);
                let factor = plain.mean() / scaled.clone().mean();
                scaled * factor.reshape([1, 1, 1])
            } else {
                plain
            };
            for (row, weighed) in weighed.iter_mut().enumerate() {
                weighed.push(all.clone().narrow(0, row, 1));
            }
        }
        Ok(weighed.into_iter().map(|chunks| Tensor::cat(chunks, 0)).collect())
    }

    fn zeros_for_empty(&self) -> bool {
        true
    }
}

/// Tokens on their way into chunks: number, weight, and of which span.
struct Chunker {
    length: usize,
    chunks: Vec<Vec<(u32, f32, usize)>>,
    chunk: Vec<(u32, f32, usize)>,
    last_comma: Option<usize>,
}

impl Chunker {
    fn next(&mut self) {
        self.chunks.push(std::mem::take(&mut self.chunk));
        self.last_comma = None;
    }

    /// Where a full chunk has a comma near its end, what follows the comma goes into the next one.
    fn move_to_comma(&mut self) {
        let Some(comma) = self.last_comma else { return };
        if self.chunk.len() == self.length && self.chunk.len() - comma <= COMMA_BACKTRACK {
            let moved = self.chunk.split_off(comma + 1);
            self.next();
            self.chunk = moved;
        }
    }
}

/// Without what stands between `#` and the end of a line, from 1.9 on.
fn without_comments(text: &str) -> String {
    if !text.contains('#') {
        return text.to_owned();
    }
    let kept = text
        .split('\n')
        .map(|line| line.split('#').next().unwrap_or_default());
    kept.collect::<Vec<_>>().join("\n")
}

/// The texts between `AND`s, each with the number behind its last colon.
fn composed(text: &str) -> Vec<(&str, f64)> {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let mut parts = Vec::new();
    let mut from = 0;
    for (at, and) in text.match_indices("AND") {
        let end = at + and.len();
        if !is_word(text[..at].chars().next_back()) && !is_word(text[end..].chars().next()) {
            parts.push(&text[from..at]);
            from = end;
        }
    }
    parts.push(&text[from..]);
    parts.into_iter().map(with_weight).collect()
}

/// A text and the number behind its last colon, which must be digits with at most one point.
fn with_weight(text: &str) -> (&str, f64) {
    let found = text.trim_end().rsplit_once(':').and_then(|(before, number)| {
        let number = number.trim_start();
        let digits = number.strip_prefix(['-', '+']).unwrap_or(number);
        let plain = digits.chars().all(|c| c.is_ascii_digit() || c == '.')
            && digits.chars().any(|c| c.is_ascii_digit());
        Some((before.trim_end(), weight(number).filter(|_| plain)?))
    });
    found.unwrap_or((text, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn and_separates_words_alone() {
        // The program's own expression: \bAND\b, then ^(.*?)(?:\s*:\s*([-+]?(?:\d+\.?|\d*\.\d+)))?\s*$
        let cases: [(&str, &[(&str, f64)]); 8] = [
            ("a cat", &[("a cat", 1.0)]),
            ("a cat AND a dog", &[("a cat ", 1.0), (" a dog", 1.0)]),
            ("a cat :1.2 AND a dog: 0.5", &[("a cat", 1.2), (" a dog", 0.5)]),
            ("a BRAND, HANDS", &[("a BRAND, HANDS", 1.0)]),
            ("a AND b :-1", &[("a ", 1.0), (" b", -1.0)]),
            ("a:b:2", &[("a:b", 2.0)]),
            ("(a:1.2)", &[("(a:1.2)", 1.0)]),
            ("a:1e3 AND b:.", &[("a:1e3 ", 1.0), (" b:.", 1.0)]),
        ];
        for (text, parts) in cases {
            assert_eq!(composed(text), parts, "{text}");
        }
    }

    #[test]
    fn comments_are_left_out() {
        assert_eq!(without_comments("a # b\nc"), "a \nc");
        assert_eq!(without_comments("a\n# b"), "a\n");
    }
}
