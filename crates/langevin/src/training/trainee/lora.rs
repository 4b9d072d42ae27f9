//! A LoRA: adapters on the layers of a UNet, and on request of its text encoders, which stay as they are (Hu et al. 2021).
//!
//! What diffusers' `train_text_to_image_lora.py`, `train_dreambooth_lora.py` and their `_sdxl` forms train, and the file that they leave.

use std::{collections::BTreeMap, path::Path};

use burn::tensor::Device;

use super::{
    Latent,
    kind::{Finished, Row},
};
use crate::{
    Error, Result,
    nn::{AdaptedLayer, Adapter, AdapterInit},
    random::Generator,
    training::TrainingConfig,
    weights::{
        self, NamedTensor, Precision,
        lora::{LoraFile, LoraStyle, Targets},
        single_file::Component,
    },
};

/// What diffusers calls the file.
pub const LORA_FILE: &str = "pytorch_lora_weights.safetensors";

/// The layers of a UNet that get an adapter where nobody says: the projections of all attention.
pub const UNET_TARGETS: [&str; 4] = ["to_k", "to_q", "to_v", "to_out.0"];
/// The same of a text encoder.
pub const TEXT_TARGETS: [&str; 4] = ["q_proj", "k_proj", "v_proj", "out_proj"];

/// What diffusers calls the file for A1111 and ComfyUI.
pub const KOHYA_FILE: &str = "pytorch_lora_weights_kohya.safetensors";

pub(super) const ROW: Row = Row {
    attach: |latent, start, generator| {
        attach(latent, &LoraOptions::of(start.config), generator, start.device)
    },
    trains: |_, name| weights::is_adapter(name),
    save: |latent, finished| save_asked(latent, finished),
    learning_rate: 1e-4,
    tags: &["stable-diffusion", "text-to-image", "lora"],
};

/// Writes the file, and on request the other.
fn save_asked(latent: &Latent, finished: &Finished<'_>) -> Result<()> {
    let path = finished.folder.join(LORA_FILE);
    save(latent, &LoraOptions::of(finished.config), &path)?;
    if !finished.config.output_kohya_format {
        return Ok(());
    }
    let mut targets = Targets::default();
    let plain = weights::without_adapters(latent.clone());
    let parts = [
        ("unet.", Component::Unet),
        ("text_encoder.", Component::TextEncoder),
        ("text_encoder_2.", Component::TextEncoder2),
    ];
    for (part, component) in parts {
        let shapes = weights::shapes(&plain);
        let of_part: Vec<(&str, &[usize])> = shapes
            .iter()
            .filter_map(|(name, shape)| Some((name.strip_prefix(part)?, shape.as_slice())))
            .collect();
        if !of_part.is_empty() {
            targets.add(component, of_part);
        }
    }
    let file = LoraFile::open(&path)?;
    file.rewrite(
        finished.folder.join(KOHYA_FILE),
        LoraStyle::Kohya,
        Some(&targets),
        Precision::Float32,
    )?;
    Ok(())
}

/// How a LoRA is made.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraOptions {
    /// The rank of every adapter.
    pub rank: usize,
    /// Adapters count alpha / rank; the rank where it is not given.
    pub alpha: Option<f64>,
    /// What the names of the UNet's layers end in that get one.
    pub targets: Vec<String>,
    /// The same of text encoders; empty where none gets one.
    pub text_targets: Vec<String>,
    /// How often a number that goes into an adapter is dropped.
    pub dropout: f64,
    /// How `down` is drawn.
    pub init: AdapterInit,
    /// Whether the lengths of weights are learned apart from their directions (Liu et al. 2024, "DoRA").
    pub dora: bool,
}

impl Default for LoraOptions {
    fn default() -> Self {
        Self {
            rank: 4,
            alpha: None,
            targets: UNET_TARGETS.map(String::from).to_vec(),
            text_targets: Vec::new(),
            dropout: 0.0,
            init: AdapterInit::Gaussian,
            dora: false,
        }
    }
}

impl LoraOptions {
    /// As a run's options say.
    pub(crate) fn of(config: &TrainingConfig) -> Self {
        let or = |asked: &[String], usual: [&str; 4]| match asked {
            [] => usual.map(String::from).to_vec(),
            asked => asked.to_vec(),
        };
        Self {
            rank: config.rank,
            alpha: config.lora_alpha,
            targets: or(&config.lora_targets, UNET_TARGETS),
            text_targets: match config.train_text_encoder {
                true => or(&config.lora_text_targets, TEXT_TARGETS),
                false => Vec::new(),
            },
            dropout: config.lora_dropout,
            init: config.lora_init,
            dora: config.use_dora,
        }
    }

    /// Whether a layer gets one, as PEFT's `target_modules` choose.
    fn chooses(&self, layer: &str) -> bool {
        let targets = match layer.split_once('.') {
            Some(("unet", _)) => &self.targets,
            Some(("text_encoder" | "text_encoder_2", _)) => &self.text_targets,
            _ => return false,
        };
        let is = |target: &String| {
            let rest = layer.strip_suffix(target.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        targets.iter().any(is)
    }

    fn finish(&self, adapter: Adapter) -> Adapter {
        let alpha = self.alpha.unwrap_or(adapter.rank() as f64);
        adapter.with_alpha(alpha).with_dropout(self.dropout)
    }
}

/// Puts new adapters on the networks, which change nothing yet.
///
/// # Errors
/// If the rank is none, or a target is the name of no layer.
pub fn attach(
    latent: Latent,
    options: &LoraOptions,
    generator: &mut Generator,
    device: &Device,
) -> Result<Latent> {
    if options.rank == 0 {
        return Err(Error::Config(
            "`rank` is 0, and an adapter needs at least one row".into(),
        ));
    }
    check_targets(&latent, options)?;
    let chosen = |layer: &AdaptedLayer| options.chooses(&layer.name);
    let mut lengths = match options.dora {
        true => weights::lengths(&latent, chosen),
        false => BTreeMap::new(),
    };
    Ok(weights::adapt(latent, |layer| {
        let new =
            chosen(layer).then(|| Adapter::new(layer, options.rank, options.init, generator, device))?;
        Some(options.finish(match lengths.remove(&layer.name) {
            Some(lengths) => new.with_magnitude(lengths),
            None => new,
        }))
    }))
}

/// Refuses targets that no layer has.
fn check_targets(latent: &Latent, options: &LoraOptions) -> Result<()> {
    let layers = weights::layers(latent);
    for target in options.targets.iter().chain(&options.text_targets) {
        let only = LoraOptions {
            targets: vec![target.clone()],
            text_targets: vec![target.clone()],
            ..options.clone()
        };
        if !layers.iter().any(|layer| only.chooses(&layer.name)) {
            let ends = |layer: &AdaptedLayer| layer.name.rsplit('.').next().unwrap_or_default().to_string();
            let mut names: Vec<String> = layers.iter().map(ends).collect();
            names.retain(|name| name.parse::<usize>().is_err());
            names.sort();
            names.dedup();
            return Err(Error::Config(format!(
                "no layer is called `{target}`; names end in {}, and the like",
                names.join(", ")
            )));
        }
    }
    Ok(())
}

/// Puts the adapters of a file on the networks: [`LORA_FILE`], in diffusers' or PEFT's names.
///
/// # Errors
/// If a layer has half of one, or one of another shape, or nothing in the file is of these networks.
pub fn attach_stored(
    latent: Latent,
    mut stored: BTreeMap<String, NamedTensor>,
    options: &LoraOptions,
    device: &Device,
) -> Result<Latent> {
    let mut found = 0;
    let mut wrong = None;
    let latent = weights::adapt(latent, |layer| {
        let pair = STYLES.iter().find_map(|[down, up]| {
            spellings(&layer.name).into_iter().find_map(|name| {
                let down = stored.remove(&format!("{name}{down}"))?;
                let up = stored.remove(&format!("{name}{up}"));
                Some((down, up, stored.remove(&format!("{name}{MAGNITUDE}"))))
            })
        });
        let (down, up, magnitude) = pair?;
        let [height, width] = layer.kernel.unwrap_or([1, 1]);
        let rank = down.shape.first().copied().unwrap_or(0);
        let fits = |up: &NamedTensor| {
            rank > 0
                && down.values.len() == rank * layer.inputs * height * width
                && up.values.len() == rank * layer.outputs
        };
        let Some(up) = up.filter(fits) else {
            wrong.get_or_insert(layer.name.clone());
            return None;
        };
        let adapter = Adapter::of(layer, down.values, up.values, device);
        found += 1;
        Some(options.finish(match magnitude {
            Some(magnitude) if magnitude.values.len() == layer.outputs => {
                adapter.with_magnitude(magnitude.values)
            }
            Some(_) => {
                wrong.get_or_insert(layer.name.clone());
                return None;
            }
            None => adapter,
        }))
    });
    match (wrong, stored.keys().next(), found) {
        (Some(layer), ..) => Err(Error::Config(format!(
            "the LoRA's adapter of {layer} is not whole, or of another shape than the layer"
        ))),
        (None, Some(name), _) => Err(Error::Config(format!(
            "the LoRA has {name}, which is no adapter of these networks"
        ))),
        (None, None, 0) => Err(Error::Config("the LoRA has no adapters".into())),
        _ => Ok(latent),
    }
}

/// What a layer may be called: transformers of version 5 leave `text_model.` out.
fn spellings(layer: &str) -> Vec<String> {
    let bare = layer
        .strip_prefix("text_encoder.text_model.")
        .map(|rest| format!("text_encoder.{rest}"));
    let bare_2 = layer
        .strip_prefix("text_encoder_2.text_model.")
        .map(|rest| format!("text_encoder_2.{rest}"));
    std::iter::once(layer.to_string())
        .chain(bare)
        .chain(bare_2)
        .collect()
}

/// How files call both factors.
const STYLES: [[&str; 2]; 3] = [
    [".lora_A.weight", ".lora_B.weight"],
    [".lora.down.weight", ".lora.up.weight"],
    [".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"],
];

/// How files call the lengths of DoRA.
const MAGNITUDE: &str = ".lora_magnitude_vector";

/// The style that diffusers' scripts write a layer's in: the renaming that they do knows the projections of attention alone.
fn style(layer: &str) -> [&'static str; 2] {
    let ends = |targets: &[&str]| {
        targets
            .iter()
            .any(|target| layer.ends_with(&format!(".{target}")))
    };
    match layer.split_once('.') {
        Some(("unet", _)) if ends(&UNET_TARGETS) => STYLES[1],
        Some(("text_encoder" | "text_encoder_2", _)) if ends(&TEXT_TARGETS) => STYLES[2],
        _ => STYLES[0],
    }
}

/// The adapters as the scripts write them. Where alpha is not the rank, it is multiplied into `up`, which every program reads alike.
pub fn tensors(latent: &Latent, options: &LoraOptions) -> Vec<NamedTensor> {
    let named = weights::adapters(latent).into_iter().flat_map(|adapter| {
        let [down, up] = style(&adapter.layer);
        let rank = adapter.down.shape.first().copied().unwrap_or(1) as f64;
        let scale = options.alpha.map_or(1.0, |alpha| (alpha / rank) as f32);
        let mut scaled = adapter.up;
        if scale != 1.0 {
            scaled.values.iter_mut().for_each(|value| *value *= scale);
        }
        let magnitude = adapter.magnitude.map(|magnitude| NamedTensor {
            name: format!("{}{MAGNITUDE}", adapter.layer),
            ..magnitude
        });
        let factors = [
            NamedTensor {
                name: format!("{}{down}", adapter.layer),
                ..adapter.down
            },
            NamedTensor {
                name: format!("{}{up}", adapter.layer),
                ..scaled
            },
        ];
        factors.into_iter().chain(magnitude)
    });
    named.collect()
}

/// Writes the file that diffusers' scripts leave.
///
/// # Errors
/// If it cannot be written.
pub fn save(latent: &Latent, options: &LoraOptions, path: &Path) -> Result<()> {
    weights::write_tensors(path, &tensors(latent, options))
}
