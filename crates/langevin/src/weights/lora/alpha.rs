//! By what a module's change is multiplied: alpha by the rank, as the file's authors mean it.
//!
//! A module has its own alpha, or none, and then alpha is its rank. Where PEFT says alphas in a header or beside the file, those hold. diffusers
//! (0.42) gives every attention layer of sd-scripts' files the commonest alpha of the file, which is not what sd-scripts trains with.

use std::path::Path;

use serde_json::{Map, Value};

use super::{
    formula::{Parts, count},
    key::Part,
};
use crate::{Error, Result, files, weights::single_file::Component};

/// Where diffusers writes PEFT's configurations into a file's header, with the component before each key: `unet.lora_alpha`.
const HEADER: &str = "lora_adapter_metadata";
/// PEFT's configuration beside a file that it wrote itself.
const BESIDE: &str = "adapter_config.json";

/// What PEFT's configurations say of a file.
#[derive(Debug, Default)]
pub(super) struct Configurations {
    /// With what stands before each key.
    values: Map<String, Value>,
    has_components: bool,
}

impl Configurations {
    /// Those of the header or beside a file.
    ///
    /// # Errors
    /// If there are some and they are no JSON.
    pub(super) fn of(path: &Path, header: Option<&str>) -> Result<Self> {
        if let Some(text) = header {
            let values = serde_json::from_str(text)
                .map_err(|e| Error::file(path, format!("has a broken {HEADER} in its header: {e}")))?;
            return Ok(Self {
                values,
                has_components: true,
            });
        }
        let beside = path.with_file_name(BESIDE);
        let values = if beside.is_file() {
            files::read_json(&beside)?
        } else {
            Map::new()
        };
        Ok(Self {
            values,
            has_components: false,
        })
    }

    /// The name of the header's entry.
    pub(super) const HEADER: &str = HEADER;

    fn get(&self, component: Component, key: &str) -> Option<&Value> {
        if self.has_components {
            self.values.get(&format!("{component}.{key}"))
        } else {
            self.values.get(key)
        }
    }

    /// The scale of a module of a rank.
    fn scale(&self, component: Component, module: &str, rank: f64) -> Option<f64> {
        let is_of = |pattern: &str| {
            let pattern = pattern.trim_start_matches('^');
            module
                .strip_suffix(pattern)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let patterns = self.get(component, "alpha_pattern").and_then(Value::as_object);
        let own = patterns
            .into_iter()
            .flatten()
            .find_map(|(pattern, alpha)| is_of(pattern).then(|| alpha.as_f64())?);
        let alpha = own.or_else(|| self.get(component, "lora_alpha")?.as_f64())?;
        let is_rank_stabilised = self.get(component, "use_rslora") == Some(&Value::Bool(true));
        Some(alpha / if is_rank_stabilised { rank.sqrt() } else { rank })
    }
}

/// The number by which a module's change is multiplied. The error is a part of a sentence.
pub(super) fn scale(
    parts: &Parts,
    rank: Option<usize>,
    (component, module): (Component, &str),
    configurations: &Configurations,
) -> Result<f64, String> {
    if let Some(scale) = number(parts, Part::Scale)? {
        return Ok(scale);
    }
    let Some(rank) = rank else {
        return Ok(1.0);
    };
    let rank = rank as f64;
    match number(parts, Part::Alpha)? {
        // As sd-scripts has it.
        Some(0.0) => Ok(1.0),
        Some(alpha) => Ok(alpha / rank),
        None => match configurations.scale(component, module, rank) {
            Some(scale) if !scale.is_finite() => Err("has an alpha that is not finite".into()),
            scale => Ok(scale.unwrap_or(1.0)),
        },
    }
}

/// The one number of a part.
fn number(parts: &Parts, part: Part) -> Result<Option<f64>, String> {
    match parts.shape(part) {
        None => Ok(None),
        Some(shape) if count(shape) != 1 => {
            Err(format!("has {part} of shape {shape:?}, where it is one number"))
        }
        Some(_) => match parts.read(part).map_err(|e| e.to_string())?.first() {
            Some(value) => Ok(Some(f64::from(*value))),
            None => Ok(None),
        },
    }
}
