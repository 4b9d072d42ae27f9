//! How strongly a LoRA is applied.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::weights::single_file::Component;

/// How strongly a LoRA is applied: one number, or other ones for parts of the model, as diffusers' `set_adapters` takes them.
///
/// ```
/// use langevin::weights::lora::LoraScale;
///
/// let scale = LoraScale::from(0.8).with("text_encoder", 0.5).with("unet.up_blocks.1", 0.0);
/// assert_eq!(scale.to_string(), "0.8 (text_encoder 0.5, unet.up_blocks.1 0)");
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraScale {
    all: f64,
    parts: Vec<(String, f64)>,
}

impl Default for LoraScale {
    /// As strongly as it was trained.
    fn default() -> Self {
        1.0.into()
    }
}

impl From<f64> for LoraScale {
    fn from(all: f64) -> Self {
        Self {
            all,
            parts: Vec::new(),
        }
    }
}

impl LoraScale {
    /// The same with another scale for the modules whose path begins so: `text_encoder`, `unet.down_blocks.1`. The longest beginning counts.
    pub fn with(mut self, part: impl Into<String>, scale: f64) -> Self {
        self.parts.push((part.into(), scale));
        self
    }

    /// The number for all, and those for parts.
    pub(crate) fn into_parts(self) -> (f64, Vec<(String, f64)>) {
        (self.all, self.parts)
    }

    /// The scale of a module.
    pub(crate) fn of(&self, component: Component, module: &str) -> f64 {
        let path = format!("{component}.{module}");
        let begins = |part: &str| {
            path.strip_prefix(part)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let parts = self.parts.iter().filter(|(part, _)| begins(part));
        parts
            .max_by_key(|(part, _)| part.len())
            .map_or(self.all, |(_, scale)| *scale)
    }

    /// All its numbers.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = f64> {
        std::iter::once(self.all).chain(self.parts.iter().map(|(_, scale)| *scale))
    }
}

impl fmt::Display for LoraScale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.all)?;
        if !self.parts.is_empty() {
            let parts: Vec<String> = self
                .parts
                .iter()
                .map(|(part, scale)| format!("{part} {scale}"))
                .collect();
            write!(f, " ({})", parts.join(", "))?;
        }
        Ok(())
    }
}
