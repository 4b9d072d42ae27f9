//! LoRA files in another style: the same change under other names.
//!
//! A style has names for what its programs know: LoHa, LoKr and whole differences are sd-scripts' and LyCORIS' alone. Alphas are written where
//! the style has them (sd-scripts'), and otherwise multiplied into `up`, which every program reads alike.

use std::{collections::BTreeMap, path::Path};

use ::safetensors::Dtype;

use super::{
    LoraFile, LoraStyle, Module, Targets, alpha,
    formula::{self, count},
    key::Part,
    refuse, spelling, style,
};
use crate::{
    Error, Result,
    weights::{
        Precision,
        layout::{as_type, to_bytes},
        safetensors::{self, Entry},
        single_file::{Component, standard_name},
    },
};

/// A tensor to write.
struct Written {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// How many modules.
    pub modules: usize,
    /// What was left out, and why: parts of sentences.
    pub left_out: Vec<String>,
}

impl LoraFile {
    /// Writes the file in another style. `base` are the parameters of the model that it is for, whose names then are its; without them names are
    /// read by the words that Stable Diffusion's modules have, and numbered as Stable Diffusion's or XL's own.
    ///
    /// # Errors
    /// If nothing of the file has names in that style, or a file cannot be read or written.
    pub fn rewrite(
        &self,
        path: impl AsRef<Path>,
        style: LoraStyle,
        base: Option<&Targets>,
        precision: Precision,
    ) -> Result<Rewritten> {
        let is_xl = match base {
            Some(base) => base.is_xl(),
            None => self.is_for_xl(),
        };
        let mut report = Rewritten::default();
        let mut tensors: BTreeMap<String, Written> = BTreeMap::new();
        report.left_out.extend(
            self.foreign
                .iter()
                .map(|name| format!("{} is of no style of LoRA files", refuse::shortened(name))),
        );
        for module in &self.modules {
            match self.rewritten(module, style, base, is_xl, precision) {
                Ok(written) if written.keys().any(|name| tensors.contains_key(name)) => {
                    report
                        .left_out
                        .push(format!("{} is there under another name too", module.name()));
                }
                Ok(written) => {
                    report.modules += 1;
                    tensors.extend(written);
                }
                Err(super::Misfit::Module(why)) => report.left_out.push(format!("{} {why}", module.name())),
                Err(super::Misfit::File(error)) => return Err(error),
            }
        }
        if tensors.is_empty() {
            let first = report.left_out.first().map_or("", String::as_str);
            return Err(Error::file(
                self.path(),
                format!("has nothing that the style {style} has names for: {first}"),
            ));
        }
        let entries = tensors.iter().map(|(name, tensor)| Entry {
            name: name.clone(),
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
            write: Box::new(|w| w.write_all(&tensor.bytes)),
        });
        safetensors::write(path.as_ref(), entries.collect())?;
        Ok(report)
    }

    /// A module's tensors under their new names.
    fn rewritten(
        &self,
        module: &Module,
        style: LoraStyle,
        base: Option<&Targets>,
        is_xl: bool,
        precision: Precision,
    ) -> Result<BTreeMap<String, Written>, super::Misfit> {
        let (component, target) = match base {
            Some(base) => match base.find(module.component, &module.spelling) {
                Some((component, target)) => (component, target.to_string()),
                None => return Err("is not in the base model".to_string().into()),
            },
            None => spelled(module, is_xl),
        };
        let parts = &module.parts;
        let rank = formula::of(parts)?.and_then(|formula| formula.rank());
        let scale = alpha::scale(parts, rank, (component, &module.spelling), &self.configurations)?;
        let mut written = BTreeMap::new();
        for (part, name) in parts.iter() {
            let values = parts.read(part).map_err(super::Misfit::File)?;
            let stored = parts.file().get(name).map_or(Dtype::F32, |stored| stored.dtype);
            let shape = parts.shape(part).unwrap_or_default().to_vec();
            let (part, shape, values) = match changed(part, shape, values, style, scale)? {
                Some(changed) => changed,
                None => continue,
            };
            let spelling = match (style, base) {
                (LoraStyle::Kohya, Some(base)) if is_xl && component == Component::Unet => {
                    base.original(&target)
                }
                (LoraStyle::Kohya, None) if is_xl && component == Component::Unet => {
                    standard_name(&target, true, true)
                }
                _ => None,
            };
            let spelling = spelling.as_deref().unwrap_or(&target);
            let name = style::name(style, component, spelling, part)
                .ok_or_else(|| format!("has {part}, for which the style {style} has no name"))?;
            let name = match name.strip_prefix("lora_te_") {
                Some(rest) if is_xl => format!("lora_te1_{rest}"),
                _ => name,
            };
            let dtype = precision.of(stored);
            let bytes = as_type(Dtype::F32, &to_bytes(&values), dtype).into_owned();
            written.insert(name, Written { dtype, shape, bytes });
        }
        if let (LoraStyle::Kohya, Some(rank), false) = (style, rank, parts.has(Part::Scale)) {
            let prefix = written
                .keys()
                .next()
                .and_then(|name| name.split_once('.'))
                .map(|(prefix, _)| prefix.to_string());
            let alpha = to_bytes(&[(scale * rank as f64) as f32]).into_owned();
            if let Some(prefix) = prefix {
                let alpha = Written {
                    dtype: Dtype::F32,
                    shape: Vec::new(),
                    bytes: alpha,
                };
                written.insert(format!("{prefix}.alpha"), alpha);
            }
        }
        if written.is_empty() {
            return Err("has nothing that changes a weight".to_string().into());
        }
        Ok(written)
    }

    /// Whether the names are those of XL.
    fn is_for_xl(&self) -> bool {
        let is_second = |module: &Module| module.component == Some(Component::TextEncoder2);
        let looks_at = |module: &Module| {
            let is_context = module.spelling.replace('.', "_").ends_with("attn2_to_k");
            is_context && module.parts.shape(Part::Down).and_then(|shape| shape.get(1)) == Some(&2048)
        };
        let said = self.file.metadata("ss_base_model_version");
        said.is_some_and(|said| said.starts_with("sdxl"))
            || self
                .modules
                .iter()
                .any(|module| is_second(module) || looks_at(module))
    }
}

/// The component and the name with full stops of a module, of which only the name is known.
fn spelled(module: &Module, is_xl: bool) -> (Component, String) {
    let name = spelling::dotted(&module.spelling);
    let is_text =
        name.starts_with("text_model.") || name.starts_with("encoder.") || name == "text_projection";
    let component = module.component.unwrap_or(if is_text {
        Component::TextEncoder
    } else {
        Component::Unet
    });
    let present = match component {
        Component::Unet => standard_name(&name, is_xl, false),
        _ => None,
    };
    (component, present.unwrap_or(name))
}

/// A part as another style has it, with its shape and its numbers.
type Changed = Option<(Part, Vec<usize>, Vec<f32>)>;

/// A part as another style has it; `None` where it is none of its own there. The error is a part of a sentence.
fn changed(
    part: Part,
    shape: Vec<usize>,
    values: Vec<f32>,
    style: LoraStyle,
    scale: f64,
) -> Result<Changed, String> {
    let is_kohya = style == LoraStyle::Kohya;
    let scaled = |values: Vec<f32>| values.into_iter().map(|value| value * scale as f32).collect();
    Ok(Some(match part {
        // Written anew.
        Part::Alpha => return Ok(None),
        Part::Scale if !is_kohya => return Ok(None),
        // Multiplied in where the style has no alpha.
        Part::Up | Part::UpBias if !is_kohya => (part, shape, scaled(values)),
        Part::UpBias => (Part::DiffBias, shape, scaled(values)),
        Part::Magnitude if is_kohya => (Part::DoraScale, vec![count(&shape), 1], values),
        Part::DoraScale if style == LoraStyle::Peft => match shape.as_slice() {
            [outputs, rest @ ..] if count(rest) == 1 => (Part::Magnitude, vec![*outputs], values),
            _ => {
                return Err(format!(
                    "has magnitudes {shape:?} of inputs, which PEFT does not know"
                ));
            }
        },
        _ => (part, shape, values),
    }))
}
