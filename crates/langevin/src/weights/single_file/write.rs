//! Components as one file.

use std::{collections::BTreeSet, io, path::Path};

use ::safetensors::Dtype;

use super::{
    Component, Kind, clip, controlnet,
    pairs::Translator,
    schedule::{V_PREDICTION, ZERO_SNR},
    unet::Structure,
    vae,
};
use crate::{
    Error, Result,
    weights::{
        Checkpoint, Precision, gguf,
        safetensors::{self, Entry},
    },
};

/// What a file says of its model beside the weights, in a way that other programs read: tensors without numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Markers {
    /// The model predicts velocity.
    pub v_prediction: bool,
    /// The last timestep is noise alone.
    pub zero_terminal_snr: bool,
}

/// The ending of files that hold types of few bits.
pub(super) const GGUF: &str = "gguf";

/// Writes components, which have the names of diffusers and transformers, as one file of a kind, a piece of a tensor after another: safetensors, or
/// GGUF where the name ends in `.gguf`.
///
/// # Errors
/// If a kind has no place for a component, a component has tensors that the kind has no names for, or a file cannot be read or written; what was
/// at `path` before then still is.
pub fn write(
    path: impl AsRef<Path>,
    kind: Kind,
    components: &[(Component, &Checkpoint)],
    markers: Markers,
    precision: Precision,
) -> Result<()> {
    let mut entries = vec![];
    for (component, weights) in components {
        weights.check_types()?;
        let alone = components.len() == 1;
        let prefix = prefix(kind, *component, alone).ok_or_else(|| {
            Error::Unsupported(format!(
                "a single file of the kind {kind} has no place for the component {component}"
            ))
        })?;
        for tensor in tensors(*component, weights, kind)? {
            entries.push(entry(
                format!("{prefix}{}", tensor.name),
                tensor,
                weights,
                precision,
            )?);
        }
    }
    for (name, is_so) in [
        (V_PREDICTION, markers.v_prediction),
        (ZERO_SNR, markers.zero_terminal_snr),
    ] {
        if is_so {
            entries.push(Entry {
                name: name.into(),
                dtype: Dtype::F32,
                shape: vec![0],
                write: Box::new(|_| Ok(())),
            });
        }
    }
    let mut names = BTreeSet::new();
    if let Some(twice) = entries.iter().find(|entry| !names.insert(&entry.name)) {
        return Err(Error::Config(format!(
            "two of the components' tensors would be called {}",
            twice.name
        )));
    }
    let path = path.as_ref();
    let is_gguf = path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case(GGUF));
    match (is_gguf, precision == Precision::Q8_0) {
        (true, quantised) => gguf::write(path, entries, architecture(kind), quantised),
        (false, false) => safetensors::write(path, entries),
        (false, true) => Err(Error::option(
            &["precision"],
            format!(
                "`precision` q8_0 is a type of GGUF files: {} would have to end in .{GGUF}",
                path.display()
            ),
        )),
    }
}

/// What a GGUF file calls the architecture of a kind.
fn architecture(kind: Kind) -> &'static str {
    if kind.is_xl() {
        "sdxl"
    } else if kind.is_version_2() {
        "sd2"
    } else {
        "sd1"
    }
}

/// What a component's names begin with in a file of a kind.
fn prefix(kind: Kind, component: Component, alone: bool) -> Option<&'static str> {
    Some(match component {
        Component::Unet => "model.diffusion_model.",
        Component::Vae if alone => "",
        Component::Vae => "first_stage_model.",
        Component::TextEncoder if kind == Kind::SdxlRefiner => return None,
        Component::TextEncoder if kind.is_xl() => "conditioner.embedders.0.transformer.",
        Component::TextEncoder if kind.is_version_2() => "cond_stage_model.model.",
        Component::TextEncoder => "cond_stage_model.transformer.",
        Component::TextEncoder2 if kind == Kind::SdxlRefiner => "conditioner.embedders.0.model.",
        Component::TextEncoder2 if kind.is_xl() => "conditioner.embedders.1.model.",
        Component::TextEncoder2 => return None,
        Component::ControlNet => "control_model.",
    })
}

/// A tensor of the file: parameters one below the other.
struct Written {
    name: String,
    of: Vec<String>,
    shape: Vec<usize>,
    /// Whether the parameter is a matrix that the file has the other way round.
    transposed: bool,
}

/// The tensors that a component becomes.
fn tensors(component: Component, weights: &Checkpoint, kind: Kind) -> Result<Vec<Written>> {
    let names = || weights.names();
    let is_text = matches!(component, Component::TextEncoder | Component::TextEncoder2);
    if component == Component::TextEncoder && !kind.is_version_2() {
        return Ok(of_transformers(weights));
    }
    let translator = Translator::to_original(match component {
        Component::Unet => Structure::of_present(names()).pairs(kind.has_text_time()),
        Component::ControlNet => {
            let names: Vec<&str> = names().collect();
            controlnet::pairs(names.into_iter(), kind)
        }
        Component::Vae => vae::pairs(names()),
        Component::TextEncoder | Component::TextEncoder2 => clip::pairs(names()),
    });
    let mut written = vec![];
    for name in names().filter(|name| !name.ends_with("position_ids")) {
        let present = if is_text {
            with_model(name)
        } else {
            name.to_string()
        };
        let found = match is_text {
            true => of_open_clip(name, &present, weights, &translator)?,
            false => translator
                .name(&present)
                .map(|original| as_it_is(original, name, weights)),
        };
        let mut found = match found {
            Some(found) => found,
            None if is_text && is_third(&present) => continue,
            None => {
                let message = format!("{name} has no name in a single file of the kind {kind}");
                return Err(Error::file(weights.file_of(name), message));
            }
        };
        if component == Component::Vae && vae::is_matrix(name) && found.shape.len() == 2 {
            found.shape.extend([1, 1]);
        }
        written.push(found);
    }
    Ok(written)
}

/// A parameter under another name.
fn as_it_is(original: String, name: &str, weights: &Checkpoint) -> Written {
    Written {
        name: original,
        of: vec![name.to_string()],
        shape: weights
            .get(name)
            .map(|stored| stored.shape.clone())
            .unwrap_or_default(),
        transposed: false,
    }
}

/// transformers' name of a text encoder's parameter, with the name of its model.
fn with_model(name: &str) -> String {
    let is_whole = name.starts_with("text_model.") || name == clip::PROJECTION;
    if is_whole {
        name.to_string()
    } else {
        format!("text_model.{name}")
    }
}

/// The parameters of a text encoder that keeps transformers' names.
fn of_transformers(weights: &Checkpoint) -> Vec<Written> {
    let names = weights
        .names()
        .filter(|name| !name.ends_with("position_ids") && *name != clip::PROJECTION);
    names
        .map(|name| as_it_is(with_model(name), name, weights))
        .collect()
}

/// Whether a parameter is one of queries, keys and values.
fn is_third(present: &str) -> bool {
    clip::THIRDS
        .iter()
        .any(|third| present.contains(&format!(".self_attn.{third}.")))
}

/// What a text encoder's parameter is in open_clip; `None` for keys and values, which stand with the queries, and where there is no name.
fn of_open_clip(
    name: &str,
    present: &str,
    weights: &Checkpoint,
    translator: &Translator,
) -> Result<Option<Written>> {
    if present == clip::PROJECTION {
        let mut written = as_it_is("text_projection".into(), name, weights);
        written.shape.reverse();
        written.transposed = true;
        return Ok(Some(written));
    }
    if present == clip::POSITIONS.0 {
        return Ok(Some(as_it_is(clip::POSITIONS.1.into(), name, weights)));
    }
    if !is_third(present) {
        return Ok(translator
            .name(present)
            .map(|original| as_it_is(original, name, weights)));
    }
    let Some((block, parameter)) = name.split_once(&format!(".self_attn.{}.", clip::THIRDS[0])) else {
        return Ok(None);
    };
    let of = clip::THIRDS.map(|third| format!("{block}.self_attn.{third}.{parameter}"));
    let first = weights.get(&of[0]);
    for other in &of[1..] {
        let found = weights.get(other);
        if found.map(|stored| &stored.shape) != first.map(|stored| &stored.shape) {
            let message = format!("{} and {other} should both be there and have one shape", of[0]);
            return Err(Error::file(weights.path(), message));
        }
    }
    let block = with_model(block).replace("text_model.encoder.layers.", "transformer.resblocks.");
    let mut written = as_it_is(format!("{block}.attn.in_proj_{parameter}"), name, weights);
    if let Some(rows) = written.shape.first_mut() {
        *rows *= 3;
    }
    written.of = of.into();
    Ok(Some(written))
}

/// A tensor as it is to be written.
fn entry<'a>(
    name: String,
    tensor: Written,
    weights: &'a Checkpoint,
    precision: Precision,
) -> Result<Entry<'a>> {
    let dtypes: Vec<Dtype> = tensor
        .of
        .iter()
        .filter_map(|name| Some(precision.of(weights.get(name)?.dtype)))
        .collect();
    // Of parts that are stored differently, the first decides where all can be written so.
    let dtype = dtypes.first().copied().unwrap_or(Dtype::F32);
    if dtypes.iter().any(|other| *other != dtype) {
        let message = format!(
            "{} are stored in numbers of different types",
            tensor.of.join(", ")
        );
        return Err(Error::file(weights.path(), message));
    }
    let (of, transposed) = (tensor.of, tensor.transposed);
    let write = move |w: &mut dyn io::Write| {
        of.iter()
            .try_for_each(|name| weights.copy_as(name, transposed, dtype, w))
    };
    Ok(Entry {
        name,
        dtype,
        shape: tensor.shape,
        write: Box::new(write),
    })
}
