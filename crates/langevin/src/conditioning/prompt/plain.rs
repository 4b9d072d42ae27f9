//! Texts as they are.

use burn::tensor::Tensor;

use super::{Chunk, Encode, Encoding, Joined, Prompt, Span, Syntax};
use crate::{Result, conditioning::text::Tower};

/// diffusers: nothing in a text means anything, and what does not fit is cut.
pub(super) struct Plain;

impl Syntax for Plain {
    fn read(&self, text: &str, _: usize, _: bool) -> Result<Prompt> {
        Ok(Prompt::one(Joined::one(vec![Span::of(text, 1.0)])))
    }

    fn chunks(&self, tower: &Tower, spans: &[Span]) -> Result<Vec<Chunk>> {
        let mut tokens = Vec::new();
        for (place, span) in spans.iter().enumerate() {
            if let Span::Text { text, .. } = span {
                tokens.extend(tower.pieces(text)?.into_iter().map(|(id, _)| (id, 1.0, place)));
            }
        }
        Ok(vec![Chunk::framed(tower, tokens)])
    }

    fn weigh(&self, texts: Vec<Encoding>, _: &[u32], _: &Encode<'_>) -> Result<Vec<Tensor<3>>> {
        Ok(texts.into_iter().map(|text| text.z).collect())
    }

    fn zeros_for_empty(&self) -> bool {
        true
    }

    fn pads_with_empty(&self) -> bool {
        true
    }
}
