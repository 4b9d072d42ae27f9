//! Checkpoints of open_clip, as transformers would name their tensors.
//!
//! open_clip keeps queries, keys and values of a layer in one tensor, and its projections the other way round.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{ClipConfig, ClipPreprocess, ClipTextConfig, ClipVisionConfig};
use crate::{
    Error, Result, files,
    nn::Activation,
    weights::{Checkpoint, NamedTensor},
};

/// The name of open_clip's configuration.
pub(super) const CONFIG: &str = "open_clip_config.json";
/// The names of its weights, in the order of preference.
const WEIGHTS: [&str; 3] = [
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
];
/// How wide a head is where nothing says otherwise.
const HEAD_WIDTH: usize = 64;

/// The file of weights in a folder of open_clip's.
///
/// # Errors
/// If there is none.
pub(super) fn weights_in(folder: &Path) -> Result<PathBuf> {
    let found = WEIGHTS
        .iter()
        .map(|name| folder.join(name))
        .find(|path| path.is_file());
    found.ok_or_else(|| {
        Error::file(
            folder,
            format!("holds no weights: {} should be in it", WEIGHTS[0]),
        )
    })
}

/// A checkpoint of open_clip read as a CLIP model: its configuration, its weights by transformers' names, and its preprocessing.
/// `open_clip_config.json` is looked for beside the file; without it, heads are 64 wide and the activation is GELU.
///
/// # Errors
/// If it is not the checkpoint of a CLIP with two transformers.
pub(super) fn read(path: &Path) -> Result<(ClipConfig, Checkpoint, ClipPreprocess)> {
    let mut checkpoint = Checkpoint::open(path)?;
    // Models with a text tower of another kind put theirs below `text.`.
    checkpoint.rename(|name| Some(name.strip_prefix("text.").unwrap_or(name).to_string()));
    let beside = path.with_file_name(CONFIG);
    let settings: Value = if beside.is_file() {
        files::read_json(&beside)?
    } else {
        Value::Null
    };
    let config = configuration(&checkpoint, &settings["model_cfg"], path)?;
    let preprocess = ClipPreprocess::new(config.vision_config.image_size).with(
        settings["preprocess_cfg"].get("mean"),
        settings["preprocess_cfg"].get("std"),
        &beside,
    )?;
    let tensors = tensors(&mut checkpoint)?;
    Ok((
        config,
        Checkpoint::of_tensors(path.to_path_buf(), tensors),
        preprocess,
    ))
}

/// What the tensors' shapes and the configuration's words say.
fn configuration(checkpoint: &Checkpoint, words: &Value, path: &Path) -> Result<ClipConfig> {
    let shape = |name: &str, rank: usize| -> Result<&[usize]> {
        let stored = checkpoint.get(name).filter(|stored| stored.shape.len() == rank);
        stored.map(|stored| stored.shape.as_slice()).ok_or_else(|| {
            let message = format!(
                "is not the checkpoint of an open_clip model with a vision transformer and a text transformer: it has no {name}"
            );
            Error::file(path, message)
        })
    };
    let layers = |prefix: &str| {
        let numbers: BTreeSet<&str> = checkpoint
            .names()
            .filter_map(|name| name.strip_prefix(prefix)?.split('.').next())
            .collect();
        numbers.len()
    };
    let number = |value: &Value| {
        value
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
            .filter(|&n| n > 0)
    };
    let quick = words["quick_gelu"].as_bool().unwrap_or(false);
    let hidden_act = if quick {
        Activation::QuickGelu
    } else {
        Activation::Gelu
    };
    let [vocab_size, text_width] = *shape("token_embedding.weight", 2)? else {
        return Err(Error::file(path, "token_embedding.weight is no table"));
    };
    let embedding = shape("text_projection", 2)?[1];
    let patch = shape("visual.conv1.weight", 4)?;
    let (width, channels, patch) = (patch[0], patch[1], patch[3]);
    let places = shape("visual.positional_embedding", 2)?[0];
    let side = (places.saturating_sub(1)).isqrt();
    if shape("visual.proj", 2)?[1] != embedding {
        return Err(Error::file(
            path,
            format!(
                "projects texts to {embedding} numbers and pictures to {}: they should be the same",
                shape("visual.proj", 2)?[1]
            ),
        ));
    }
    let head_width = number(&words["vision_cfg"]["head_width"]).unwrap_or(HEAD_WIDTH);
    let text_heads = number(&words["text_cfg"]["heads"]).unwrap_or(text_width / HEAD_WIDTH);
    let inner = "resblocks.0.mlp.c_fc.weight";
    Ok(ClipConfig {
        text_config: ClipTextConfig {
            vocab_size,
            hidden_size: text_width,
            intermediate_size: shape(&format!("transformer.{inner}"), 2)?[0],
            projection_dim: embedding,
            num_hidden_layers: layers("transformer.resblocks."),
            num_attention_heads: text_heads.max(1),
            max_position_embeddings: shape("positional_embedding", 2)?[0],
            hidden_act,
            bos_token_id: (vocab_size as u32).saturating_sub(2),
            eos_token_id: (vocab_size as u32).saturating_sub(1),
            ..ClipTextConfig::default()
        },
        vision_config: ClipVisionConfig {
            hidden_size: width,
            intermediate_size: shape(&format!("visual.transformer.{inner}"), 2)?[0],
            projection_dim: embedding,
            num_hidden_layers: layers("visual.transformer.resblocks."),
            num_attention_heads: (width / head_width).max(1),
            num_channels: channels,
            image_size: side * patch,
            patch_size: patch,
            hidden_act,
            ..ClipVisionConfig::default()
        },
        projection_dim: Some(embedding),
        ..ClipConfig::default()
    })
}

/// All tensors with transformers' names and shapes.
fn tensors(checkpoint: &mut Checkpoint) -> Result<Vec<NamedTensor>> {
    let names: Vec<String> = checkpoint.names().map(String::from).collect();
    let mut tensors = vec![];
    for name in names {
        let Some(ours) = renamed(&name) else {
            continue;
        };
        let shape = checkpoint
            .get(&name)
            .map(|stored| stored.shape.clone())
            .unwrap_or_default();
        let values = checkpoint.read(&name)?;
        match ours {
            Renamed::As(name) => tensors.push(NamedTensor { name, shape, values }),
            Renamed::Transposed(name) => tensors.push(transposed(name, &shape, &values)),
            Renamed::Thirds { block, parameter } => {
                let rows = shape.first().copied().unwrap_or(0) / 3;
                let part = values.len() / 3;
                for (i, letter) in ["q", "k", "v"].into_iter().enumerate() {
                    let mut shape = shape.clone();
                    shape[0] = rows;
                    tensors.push(NamedTensor {
                        name: format!("{block}.self_attn.{letter}_proj.{parameter}"),
                        shape,
                        values: values[i * part..(i + 1) * part].to_vec(),
                    });
                }
            }
        }
    }
    Ok(tensors)
}

/// A matrix the other way round.
fn transposed(name: String, shape: &[usize], values: &[f32]) -> NamedTensor {
    let (rows, columns) = (
        shape.first().copied().unwrap_or(0),
        shape.get(1).copied().unwrap_or(0),
    );
    let turned = (0..columns).flat_map(|c| (0..rows).map(move |r| (r, c)));
    NamedTensor {
        name,
        shape: vec![columns, rows],
        values: turned.map(|(r, c)| values[r * columns + c]).collect(),
    }
}

/// What becomes of a tensor.
enum Renamed {
    /// It has another name.
    As(String),
    /// It is also a matrix the other way round.
    Transposed(String),
    /// It is queries, keys and values one below the other.
    Thirds { block: String, parameter: &'static str },
}

/// `None` for what transformers does not have.
fn renamed(name: &str) -> Option<Renamed> {
    let whole = match name {
        "token_embedding.weight" => "text_model.embeddings.token_embedding.weight",
        "positional_embedding" => "text_model.embeddings.position_embedding.weight",
        "visual.class_embedding" => "vision_model.embeddings.class_embedding",
        "visual.positional_embedding" => "vision_model.embeddings.position_embedding.weight",
        "visual.conv1.weight" => "vision_model.embeddings.patch_embedding.weight",
        "text_projection" => return Some(Renamed::Transposed("text_projection.weight".into())),
        "visual.proj" => return Some(Renamed::Transposed("visual_projection.weight".into())),
        "logit_scale" => "logit_scale",
        _ => "",
    };
    if !whole.is_empty() {
        return Some(Renamed::As(whole.into()));
    }
    for (theirs, ours) in [
        ("ln_final.", "text_model.final_layer_norm."),
        ("visual.ln_pre.", "vision_model.pre_layrnorm."),
        ("visual.ln_post.", "vision_model.post_layernorm."),
    ] {
        if let Some(parameter) = name.strip_prefix(theirs) {
            return Some(Renamed::As(format!("{ours}{parameter}")));
        }
    }
    let (tower, rest) = match name.strip_prefix("visual.transformer.resblocks.") {
        Some(rest) => ("vision_model", rest),
        None => ("text_model", name.strip_prefix("transformer.resblocks.")?),
    };
    let (layer, rest) = rest.split_once('.')?;
    let block = format!("{tower}.encoder.layers.{layer}");
    match rest {
        "attn.in_proj_weight" => {
            return Some(Renamed::Thirds {
                block,
                parameter: "weight",
            });
        }
        "attn.in_proj_bias" => {
            return Some(Renamed::Thirds {
                block,
                parameter: "bias",
            });
        }
        _ => {}
    }
    let (part, parameter) = rest.rsplit_once('.')?;
    let part = match part {
        "ln_1" => "layer_norm1",
        "ln_2" => "layer_norm2",
        "attn.out_proj" => "self_attn.out_proj",
        "mlp.c_fc" => "mlp.fc1",
        "mlp.c_proj" => "mlp.fc2",
        _ => return None,
    };
    Some(Renamed::As(format!("{block}.{part}.{parameter}")))
}
