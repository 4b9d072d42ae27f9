//! The model card of what was trained on top of a latent pipeline, and of an autoencoder.

use std::path::Path;

use super::{
    TraineeKind, TrainingConfig,
    card::{Card, shell_word, without_commit, yaml},
    trainee::lora,
};
use crate::{data::looks_like_hub_name, weights::single_file};

/// The text of a card; `class` is that of the pipeline that was trained on, or an autoencoder's own.
pub(super) fn text(card: &Card<'_>, class: &str) -> String {
    let config = card.config;
    let what = match config.trainee {
        TraineeKind::Full => "A fine-tuned pipeline",
        TraineeKind::Lora => "A LoRA",
        TraineeKind::Embedding => "A textual inversion",
        TraineeKind::ControlNet => "A ControlNet",
        TraineeKind::Pix2Pix => "A pipeline that edits pictures as a text says",
        TraineeKind::Codec => "An autoencoder",
    };
    let base = base(config);
    let grid = card
        .samples
        .map_or_else(String::new, |name| format!("\n![validation pictures]({name})\n"));
    let prompts = prompts(config);
    let said = match prompts.is_empty() {
        true => card.ended.found.as_ref().map_or_else(String::new, |found| {
            format!("\nWhat comes back of pictures: {found}.\n")
        }),
        false => format!(
            "\nThe pictures were drawn of:\n\n{}\n",
            prompts
                .iter()
                .map(|prompt| format!("- {}\n", plain(prompt)))
                .collect::<String>()
        ),
    };
    let title = format!("{} of {}", config.trainee, card.dataset);
    format!(
        "{header}\n{mark}\n\n# {title}\n\n{what}{of}, trained on {pictures} pictures of {dataset} at {side}x{side}.\n{grid}{said}\n\
         ## Use\n\nOn the command line, from the folder of this file:\n\n```sh\n{shell}\n```\n\nIn Python, with diffusers:\n\n\
         ```python\n{python}```\n\n## Training\n\n```sh\n{command}\n```\n\n{table}\n\
         Every step's numbers are in `metrics.jsonl`, the whole configuration is in `training.json`.\n",
        of = match config.pretrained {
            Some(_) => format!(" for {base}"),
            None => String::new(),
        },
        header = header(card, class),
        mark = super::card::MARK,
        pictures = card.pictures,
        dataset = card.dataset,
        side = config.resolution,
        shell = shell(config, class, &base),
        python = python(config, class, &base),
        command = card.command,
        table = card.table(),
    )
}

/// The pipeline that was trained on, by the name that others know it by.
fn base(config: &TrainingConfig) -> String {
    let folder = config.pretrained.as_deref().unwrap_or(Path::new("."));
    let name = folder.to_str().map(without_commit).unwrap_or(".");
    if folder.is_absolute() {
        let last = folder.file_name().unwrap_or_default();
        return last.to_string_lossy().into_owned();
    }
    name.to_string()
}

/// The texts that validation pictures were drawn of, as far as the configuration says them.
fn prompts(config: &TrainingConfig) -> Vec<String> {
    match (
        &config.validation_prompt,
        &config.instance_prompt,
        &config.placeholder_token,
    ) {
        (prompts, ..) if !prompts.is_empty() => prompts.clone(),
        (_, Some(prompt), _) => vec![prompt.clone()],
        (.., Some(word)) => vec![format!("a photo of a {word}")],
        _ => Vec::new(),
    }
}

/// A text without what Markdown takes for its own.
fn plain(text: &str) -> String {
    let escaped = text.replace(['\n', '\r'], " ");
    escaped
        .replace('<', "\\<")
        .replace('*', "\\*")
        .replace('_', "\\_")
}

/// The YAML that the Hub reads.
fn header(card: &Card<'_>, class: &str) -> String {
    let config = card.config;
    let tags: String = config
        .trainee
        .row()
        .tags
        .iter()
        .map(|tag| {
            let xl = class.starts_with("StableDiffusionXL") && *tag == "stable-diffusion";
            format!("- {}\n", if xl { "stable-diffusion-xl" } else { tag })
        })
        .collect();
    let base = base(config);
    let base = match looks_like_hub_name(&base) {
        true => format!("base_model: {}\n", yaml(&base)),
        false => String::new(),
    };
    let prompt = config
        .instance_prompt
        .as_ref()
        .map_or_else(String::new, |prompt| {
            format!("instance_prompt: {}\n", yaml(prompt))
        });
    format!(
        "---\nlicense: {}\nlibrary_name: diffusers\n{base}{prompt}tags:\n- diffusers\n- diffusers-training\n- langevin\n{tags}---",
        yaml(config.license.as_deref().unwrap_or("unknown"))
    )
}

fn shell(config: &TrainingConfig, class: &str, base: &str) -> String {
    let base = shell_word(base);
    let prompt = prompts(config)
        .into_iter()
        .next()
        .unwrap_or_else(|| "what to draw".into());
    let prompt = shell_word(&prompt);
    match config.trainee {
        TraineeKind::Full => format!("langevin sample . --prompt {prompt} --output picture.png"),
        TraineeKind::Lora => {
            format!("langevin sample {base} --lora . --prompt {prompt} --output picture.png")
        }
        TraineeKind::Embedding => {
            let files = match class.contains("XL") {
                true => "--embedding learned_embeds.safetensors --embedding learned_embeds_2.safetensors",
                false => "--embedding learned_embeds.safetensors",
            };
            format!("langevin sample {base} {files} --prompt {prompt} --output picture.png")
        }
        TraineeKind::ControlNet => {
            format!("langevin sample {base} --control .=picture.png --prompt {prompt} --output drawn.png")
        }
        TraineeKind::Pix2Pix => {
            format!("langevin sample . --init-image picture.png --prompt {prompt} --output edited.png")
        }
        TraineeKind::Codec => "langevin train --train-data-dir pictures --codec .".into(),
    }
}

fn python(config: &TrainingConfig, class: &str, base: &str) -> String {
    let prompt = prompts(config)
        .into_iter()
        .next()
        .unwrap_or_else(|| "what to draw".into());
    let prompt = quoted(&prompt);
    let from = match config.pretrained.as_deref().is_some_and(single_file::is_named) {
        true => "from_single_file",
        false => "from_pretrained",
    };
    let base = quoted(base);
    let load = format!("from diffusers import {class}\n\npipeline = {class}.{from}({base})\n");
    let draw = format!("pipeline({prompt}).images[0].save(\"picture.png\")\n");
    match config.trainee {
        TraineeKind::Full => {
            format!("from diffusers import {class}\n\npipeline = {class}.from_pretrained(\".\")\n{draw}")
        }
        TraineeKind::Lora => format!(
            "{load}pipeline.load_lora_weights(\".\", weight_name=\"{}\")\n{draw}",
            lora::LORA_FILE
        ),
        TraineeKind::Embedding => {
            let word = config.placeholder_token.as_deref().unwrap_or_default();
            let tokens = match config.num_vectors {
                1 => String::new(),
                _ => format!("# `{word}` stands for {} vectors\n", config.num_vectors),
            };
            let learned = match class.contains("XL") {
                true => {
                    let second = "text_encoder=pipeline.text_encoder_2, tokenizer=pipeline.tokenizer_2";
                    format!(
                        "pipeline.load_textual_inversion(\"learned_embeds.safetensors\")\n\
                         pipeline.load_textual_inversion(\"learned_embeds_2.safetensors\", {second})\n"
                    )
                }
                false => "pipeline.load_textual_inversion(\"learned_embeds.safetensors\")\n".into(),
            };
            format!("{load}{tokens}{learned}{draw}")
        }
        TraineeKind::ControlNet => {
            let controlled = class.replace("Pipeline", "ControlNetPipeline");
            format!(
                "from diffusers import ControlNetModel, {controlled}\nfrom diffusers.utils import load_image\n\n\
                 controlnet = ControlNetModel.from_pretrained(\".\")\n\
                 pipeline = {controlled}.{from}({base}, controlnet=controlnet)\n\
                 pipeline({prompt}, image=load_image(\"picture.png\")).images[0].save(\"drawn.png\")\n"
            )
        }
        TraineeKind::Pix2Pix => format!(
            "from diffusers import StableDiffusionInstructPix2PixPipeline\nfrom diffusers.utils import load_image\n\n\
             pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(\".\")\n\
             pipeline({prompt}, image=load_image(\"picture.png\")).images[0].save(\"edited.png\")\n"
        ),
        TraineeKind::Codec => {
            "from diffusers import AutoencoderKL\n\nvae = AutoencoderKL.from_pretrained(\".\")\n".into()
        }
    }
}

/// A text as Python writes it, which JSON's strings are too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
