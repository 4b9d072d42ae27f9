//! The package compel: `compel/prompt_parser.py` and `embeddings_provider.py` of its version 2.

mod grammar;

use std::f64::consts::FRAC_PI_2;

use burn::tensor::Tensor;

use super::{Chunk, Encode, Encoding, Prompt, Span, Syntax, check, comfy::from_empty};
use crate::{Result, conditioning::text::Tower};

/// The least weight: a text of none at all would have an infinite part of what lacks it.
const LEAST: f64 = 1e-5;

pub(super) struct Compel;

impl Syntax for Compel {
    fn read(&self, text: &str, _: usize, _: bool) -> Result<Prompt> {
        grammar::read(text).map(Prompt::one)
    }

    fn chunks(&self, tower: &Tower, spans: &[Span]) -> Result<Vec<Chunk>> {
        let mut tokens = Vec::new();
        for (place, span) in spans.iter().enumerate() {
            if let Span::Text { text, weight } = span {
                let pieces = tower.pieces(text)?.into_iter();
                tokens.extend(pieces.map(|(id, _)| (id, *weight as f32, place)));
            }
        }
        let length = tower.tokenizer.length() - 2;
        let mut chunks = vec![Vec::new()];
        for token in tokens {
            if chunks.last().is_some_and(|chunk| chunk.len() == length) {
                chunks.push(Vec::new());
            }
            if let Some(chunk) = chunks.last_mut() {
                chunk.push(token);
            }
        }
        check(
            chunks
                .into_iter()
                .map(|tokens| Chunk::framed(tower, tokens))
                .collect(),
        )
    }

    /// As ComfyUI weighs; and of every part of less than 1 there is mixed in, the more the less it weighs, what the encoder makes of the text
    /// where it does not look at that part.
    fn weigh(&self, texts: Vec<Encoding>, empty: &[u32], encode: &Encode<'_>) -> Result<Vec<Tensor<3>>> {
        let weighed = |Encoding { chunks, z }: Encoding| {
            if !chunks.iter().any(Chunk::is_weighted) {
                return Ok(z);
            }
            let nothing = encode(&[empty.to_vec()], None)?;
            let ids: Vec<Vec<u32>> = chunks.iter().map(|chunk| chunk.ids.clone()).collect();
            let mut sum = from_empty(&chunks, z, &nothing);
            let mut total = 1.0;
            for (span, weight) in light_spans(&chunks) {
                let seen = |of: &Option<usize>| if *of == Some(span) { 0.0 } else { 1.0 };
                let mask: Vec<Vec<f32>> = chunks
                    .iter()
                    .map(|chunk| chunk.spans.iter().map(seen).collect())
                    .collect();
                let without = from_empty(&chunks, encode(&ids, Some(&mask))?, &nothing);
                let share = ((1.0 - weight.max(LEAST)) * FRAC_PI_2).tan();
                sum = sum + without * share;
                total += share;
            }
            Ok(sum / total)
        };
        texts.into_iter().map(weighed).collect()
    }

    fn pads_with_empty(&self) -> bool {
        true
    }
}

/// The spans of a weight below 1, in order.
fn light_spans(chunks: &[Chunk]) -> Vec<(usize, f64)> {
    let tokens = chunks
        .iter()
        .flat_map(|chunk| chunk.spans.iter().zip(&chunk.weights));
    let mut light: Vec<(usize, f64)> = tokens
        .filter_map(|(span, weight)| Some(((*span)?, f64::from(*weight))))
        .filter(|(_, weight)| *weight < 1.0)
        .collect();
    light.dedup_by_key(|(span, _)| *span);
    light
}
