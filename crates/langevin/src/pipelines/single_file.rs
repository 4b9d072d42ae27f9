//! A pipeline's folder of a single file, and the other way round, component by component: no model is built.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;

use super::{MODEL_INDEX, lora, staging::Staging};
use crate::{
    Error, Lora, Result, files,
    models::clip::ClipTokenizer,
    schedulers::SCHEDULER_CONFIG,
    weights::{
        CONFIG_NAME, Checkpoint, DIFFUSERS, FileNames, Precision, TRANSFORMERS,
        single_file::{self, Component, Kind, Markers, SingleFile},
    },
};

/// How many pieces CLIP's vocabulary has.
const CLIP_PIECES: u64 = 49_408;
/// The files of a tokenizer.
const TOKENIZER_FILES: [&str; 5] = [
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
];

/// What the weights of a component are called in its folder.
fn file_names(component: Component) -> &'static FileNames {
    match component {
        Component::TextEncoder | Component::TextEncoder2 => &TRANSFORMERS,
        _ => &DIFFUSERS,
    }
}

/// Writes a single file's components as diffusers' folder of them, whole or not at all: a pipeline with its schedulers and tokenizers, or a model
/// alone where the file holds one component. `like` is a folder whose configurations, schedulers and tokenizers are taken where it has them, in
/// place of those that are known of the file's kind; `loras` are merged into the weights.
///
/// # Errors
/// If the file lacks what a component needs, a LoRA does not fit, or a file cannot be read or written.
pub fn unpack(
    file: &SingleFile,
    folder: impl AsRef<Path>,
    like: Option<&Path>,
    precision: Precision,
    loras: &[Lora],
) -> Result<()> {
    let weights = weights_of(file, loras)?;
    let mut configs = file.configs()?;
    for (name, config) in &mut configs {
        if let Some(theirs) = config_of(like, name)? {
            *config = theirs;
        }
    }
    let staging = Staging::of(folder)?;
    let components = file.components();
    if let [alone] = components.as_slice() {
        save(&weights[alone], *alone, &configs, staging.path(), precision)?;
        return staging.commit(CONFIG_NAME);
    }
    let Some(mut index) = file.model_index() else {
        let message = "holds several components, but no UNet that they could serve";
        return Err(Error::file(file.path(), message));
    };
    for component in components {
        save(
            &weights[&component],
            component,
            &configs,
            &staging.path().join(component.to_string()),
            precision,
        )?;
    }
    for name in ["scheduler", "low_res_scheduler"] {
        if let Some(config) = configs.get(name) {
            files::write_json(staging.path().join(name).join(SCHEDULER_CONFIG), config)?;
            index[name][1] = config["_class_name"].clone();
        }
    }
    for (name, padding) in file.tokenizers() {
        let encoder = name.replace("tokenizer", "text_encoder");
        save_tokenizer(
            file,
            like,
            name,
            padding,
            configs.get(encoder.as_str()),
            staging.path(),
        )?;
    }
    files::write_json(staging.path().join(MODEL_INDEX), &index)?;
    staging.commit(MODEL_INDEX)
}

/// The weights of all components of a file, with these merged into them.
fn weights_of(file: &SingleFile, loras: &[Lora]) -> Result<BTreeMap<Component, Checkpoint>> {
    let mut weights = BTreeMap::new();
    for component in file.components() {
        weights.insert(component, file.component(component)?);
    }
    merge(loras, &mut weights)?;
    Ok(weights)
}

/// Merges LoRA into components, as they are read from now on.
fn merge(loras: &[Lora], weights: &mut BTreeMap<Component, Checkpoint>) -> Result<()> {
    let fits = lora::fit(loras, weights)?;
    for (component, weights) in weights {
        fits.iter().for_each(|fit| fit.apply(*component, weights));
    }
    Ok(())
}

/// Writes a single file again, with these merged into it. What belongs to no component is left out.
///
/// # Errors
/// If the file lacks what a component needs, a LoRA does not fit, or a file cannot be read or written.
pub fn repack(file: &SingleFile, path: impl AsRef<Path>, precision: Precision, loras: &[Lora]) -> Result<()> {
    let weights = weights_of(file, loras)?;
    let weights: Vec<(Component, &Checkpoint)> = weights.iter().map(|(c, w)| (*c, w)).collect();
    let markers = if file.kind().is_xl() {
        let configs = file.configs()?;
        let scheduler = configs.get("scheduler").unwrap_or(&Value::Null);
        Markers {
            v_prediction: scheduler["prediction_type"] == "v_prediction",
            zero_terminal_snr: scheduler["rescale_betas_zero_snr"] == true,
        }
    } else {
        Markers::default()
    };
    single_file::write(path, file.kind(), &weights, markers, precision)
}

/// A component's configuration in a folder like the one that is to be.
fn config_of(like: Option<&Path>, name: &str) -> Result<Option<Value>> {
    let Some(like) = like else {
        return Ok(None);
    };
    let file = if name.contains("scheduler") {
        SCHEDULER_CONFIG
    } else {
        CONFIG_NAME
    };
    let places = [like.join(name).join(file), like.join(file)];
    match places.iter().find(|path| path.is_file()) {
        Some(path) => files::read_json(path).map(Some),
        None => Ok(None),
    }
}

/// Writes a component's two files.
fn save(
    weights: &Checkpoint,
    component: Component,
    configs: &BTreeMap<&'static str, Value>,
    folder: &Path,
    precision: Precision,
) -> Result<()> {
    weights.save(folder.join(file_names(component).whole()), precision)?;
    let config = configs
        .get(component.to_string().as_str())
        .unwrap_or(&Value::Null);
    files::write_json(folder.join(CONFIG_NAME), config)
}

/// Writes a tokenizer's files: those of the folder `like`, or CLIP's own, which its text encoder must be large enough for.
fn save_tokenizer(
    file: &SingleFile,
    like: Option<&Path>,
    name: &str,
    padding: &str,
    encoder: Option<&Value>,
    folder: &Path,
) -> Result<()> {
    let theirs = like.map(|like| like.join(name)).filter(|theirs| theirs.is_dir());
    if let Some(theirs) = theirs {
        let own = folder.join(name);
        fs::create_dir_all(&own).map_err(|e| Error::io("create", &own, e))?;
        for file in TOKENIZER_FILES {
            let path = theirs.join(file);
            if path.is_file() {
                let bytes = files::read(&path)?;
                files::write_atomically(own.join(file), |w| w.write_all(&bytes))?;
            }
        }
        return Ok(());
    }
    let pieces = encoder
        .and_then(|config| config["vocab_size"].as_u64())
        .unwrap_or(0);
    if pieces < CLIP_PIECES {
        let message = format!(
            "has a text encoder of {pieces} pieces, where CLIP's vocabulary has {CLIP_PIECES}: name a folder with its own tokenizer"
        );
        return Err(Error::file(file.path(), message));
    }
    ClipTokenizer::of_clip(padding)?.save(folder.join(name))
}

/// Writes the components of a pipeline's folder, or a model alone, as a single file, and gives its kind. Of components that single files have no place
/// for, such as a safety checker, nothing is written. `loras` are merged into the weights.
///
/// # Errors
/// If the folder holds no such pipeline or model, a LoRA does not fit, or a file cannot be read or written.
pub fn pack(
    folder: impl AsRef<Path>,
    path: impl AsRef<Path>,
    kind: Option<Kind>,
    variant: Option<&str>,
    precision: Precision,
    loras: &[Lora],
) -> Result<Kind> {
    let folder = folder.as_ref();
    let parts = parts(folder)?;
    let kind = match kind {
        Some(kind) => kind,
        None => kind_of(&parts, folder)?,
    };
    let mut weights = BTreeMap::new();
    for part in &parts {
        let found = Checkpoint::named(&part.folder, variant, file_names(part.component))?;
        weights.insert(part.component, found);
    }
    merge(loras, &mut weights)?;
    let weights: Vec<(Component, &Checkpoint)> = weights.iter().map(|(c, w)| (*c, w)).collect();
    let markers = if kind.is_xl() {
        markers(folder)?
    } else {
        Markers::default()
    };
    single_file::write(path, kind, &weights, markers, precision)?;
    Ok(kind)
}

/// A component of a folder.
struct Part {
    component: Component,
    folder: std::path::PathBuf,
    config: Value,
}

/// The components that a single file can hold.
fn parts(folder: &Path) -> Result<Vec<Part>> {
    const ALL: [Component; 5] = [
        Component::Unet,
        Component::Vae,
        Component::TextEncoder,
        Component::TextEncoder2,
        Component::ControlNet,
    ];
    if !folder.is_dir() {
        return Err(Error::file(folder, "there is no such folder"));
    }
    let mut parts = vec![];
    for component in ALL {
        let own = folder.join(component.to_string());
        let config = own.join(CONFIG_NAME);
        if config.is_file() {
            let config = files::read_json(&config)?;
            parts.push(Part {
                component,
                folder: own,
                config,
            });
        }
    }
    let alone = folder.join(CONFIG_NAME);
    if parts.is_empty() && alone.is_file() {
        let config: Value = files::read_json(&alone)?;
        let class = config["_class_name"]
            .as_str()
            .or(config["architectures"][0].as_str());
        let component = match class.unwrap_or_default() {
            "UNet2DConditionModel" => Component::Unet,
            "AutoencoderKL" => Component::Vae,
            "ControlNetModel" => Component::ControlNet,
            other => {
                let message =
                    format!("is the configuration of a {other}, which single files have no layout for");
                return Err(Error::file(alone, message));
            }
        };
        parts.push(Part {
            component,
            folder: folder.to_path_buf(),
            config,
        });
    }
    if parts.is_empty() {
        let message = format!("holds neither a pipeline's components nor a {CONFIG_NAME}");
        return Err(Error::file(folder, message));
    }
    Ok(parts)
}

/// The kind of a folder's model, by its configurations.
fn kind_of(parts: &[Part], folder: &Path) -> Result<Kind> {
    let config = |component| {
        parts
            .iter()
            .find(|part| part.component == component)
            .map(|part| &part.config)
    };
    let is_xl = |config: &Value| config["addition_embed_type"] == "text_time";
    let Some(unet) = config(Component::Unet) else {
        return Ok(match (config(Component::ControlNet), config(Component::Vae)) {
            (Some(net), _) if is_xl(net) => Kind::ControlNetXl,
            (Some(_), _) => Kind::ControlNet,
            (None, Some(_)) => Kind::Vae,
            (None, None) => {
                let message = "holds no UNet, ControlNet or VAE, one of which a single file needs";
                return Err(Error::file(folder, message));
            }
        });
    };
    let channels = unet["in_channels"].as_u64();
    if is_xl(unet) {
        let has_first = config(Component::TextEncoder).is_some();
        let is_refiner = config(Component::TextEncoder2).is_some() && !has_first;
        return Ok(match channels {
            _ if is_refiner => Kind::SdxlRefiner,
            Some(9) => Kind::SdxlInpaint,
            _ => Kind::Sdxl,
        });
    }
    let text = config(Component::TextEncoder);
    // Version 2's is one of open_clip's, which were trained with the exact function.
    let is_version_2 = match text {
        Some(text) => text["hidden_act"] == "gelu",
        None => unet["cross_attention_dim"] == 1024,
    };
    Ok(match channels {
        _ if unet["num_class_embeds"].is_u64() => Kind::Upscale,
        Some(9) if is_version_2 => Kind::Sd2Inpaint,
        Some(5) if is_version_2 => Kind::Sd2Depth,
        _ if is_version_2 && predicts_velocity(folder)? => Kind::Sd2,
        _ if is_version_2 => Kind::Sd2Base,
        Some(9) => Kind::Sd1Inpaint,
        Some(8) => Kind::InstructPix2Pix,
        _ => Kind::Sd1,
    })
}

/// The configuration of a pipeline's scheduler; null where there is none.
fn scheduler(folder: &Path) -> Result<Value> {
    let path = folder.join("scheduler").join(SCHEDULER_CONFIG);
    if path.is_file() {
        files::read_json(&path)
    } else {
        Ok(Value::Null)
    }
}

fn predicts_velocity(folder: &Path) -> Result<bool> {
    Ok(scheduler(folder)?["prediction_type"] == "v_prediction")
}

/// What the scheduler says that a file can say.
fn markers(folder: &Path) -> Result<Markers> {
    Ok(Markers {
        v_prediction: predicts_velocity(folder)?,
        zero_terminal_snr: scheduler(folder)?["rescale_betas_zero_snr"] == true,
    })
}
