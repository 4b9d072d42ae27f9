//! The model card: a run's `README.md`, as the Hugging Face Hub shows one.

use std::{fs, path::Path};

use super::{
    ConditioningKind, MixedPrecision, TraineeKind, Trainer, TrainingConfig,
    command::arguments,
    samples::{SAMPLES, SAMPLES_LAST},
    tuned_card,
};
use crate::{Result, data::looks_like_hub_name, files::write_atomically, models::AnyModelConfig};

/// The card's name in a run's folder.
pub const MODEL_CARD: &str = "README.md";
/// What tells a card that was written here from one that somebody wrote.
pub(super) const MARK: &str =
    "<!-- Written by langevin. It is written anew when the run goes on, unless this line is gone. -->";

/// What the run came to.
pub(super) struct Ended {
    /// Optimiser steps done.
    pub steps: usize,
    /// The mean loss of the last ones.
    pub loss: Option<f64>,
    /// How many numbers were trained.
    pub parameters: usize,
    /// The model that they make up, where one denoises.
    pub model: Option<AnyModelConfig>,
    /// The class of the latent pipeline that was trained on, or of an autoencoder.
    pub base: Option<&'static str>,
    /// How well pictures come back, where an autoencoder was trained.
    pub found: Option<String>,
}

/// Writes the card of a run that is over. One that somebody has made their own is left alone.
///
/// # Errors
/// If it cannot be written.
pub(super) fn write(trainer: &Trainer, ended: &Ended) -> Result<()> {
    let path = trainer.folder.join(MODEL_CARD);
    let theirs = fs::read_to_string(&path).is_ok_and(|text| !text.contains(MARK));
    if theirs {
        return Ok(());
    }
    let classes = trainer.class_names();
    let config = trainer.config.portable();
    let card = Card {
        config: &config,
        dataset: trainer.dataset.name(),
        pictures: trainer.dataset.len(),
        classes: &classes,
        samples: [SAMPLES_LAST, SAMPLES]
            .into_iter()
            .find(|name| trainer.folder.join(name).exists()),
        command: command(arguments().into_iter()),
        ended,
    };
    let text = match ended.base {
        Some(class) => tuned_card::text(&card, class),
        None => card.text(),
    };
    write_atomically(path, |w| std::io::Write::write_all(w, text.as_bytes()))
}

/// All that a card tells of.
pub(super) struct Card<'a> {
    pub(super) config: &'a TrainingConfig,
    pub(super) dataset: &'a str,
    pub(super) pictures: usize,
    classes: &'a [String],
    /// The grid of samples to show, where there is one.
    pub(super) samples: Option<&'static str>,
    pub(super) command: String,
    pub(super) ended: &'a Ended,
}

impl Card<'_> {
    fn text(&self) -> String {
        let title = format!("{} of {}", self.config.model_name(), self.dataset);
        let grid = self
            .samples
            .map_or_else(String::new, |name| format!("\n![samples]({name})\n"));
        let python = self.python().map_or_else(String::new, |python| {
            format!("In Python, with diffusers:\n\n```python\n{python}```\n\n")
        });
        format!(
            "{header}\n{MARK}\n\n# {title}\n\nA diffusion model that draws pictures of {side}x{side} pixels, trained on {data}.\n\
             {grid}\n## Use\n\nOn the command line, from the folder of this file:\n\n```sh\n{shell}\n```\n\n\
             In Rust:\n\n```rust\n{rust}```\n\n{python}\
             ## Training\n\n```sh\n{command}\n```\n\n{table}\n\
             Every step's numbers are in `metrics.jsonl`, the whole configuration is in `training.json`.\n",
            header = self.header(),
            side = self.config.resolution,
            data = self.data(),
            shell = self.shell(),
            rust = self.rust(),
            command = self.command,
            table = self.table(),
        )
    }

    /// The YAML that the Hub reads.
    fn header(&self) -> String {
        let digits = self.dataset == super::config::DIGITS;
        let licence = match &self.config.license {
            Some(licence) => licence.as_str(),
            // That of the built-in pictures.
            None if digits => "cc-by-4.0",
            None => "unknown",
        };
        let kind = match self.config.conditioning {
            ConditioningKind::None | ConditioningKind::Vector => "unconditional-image-generation",
            ConditioningKind::CrossAttention => "text-to-image",
            ConditioningKind::Attributes => "conditional-image-generation",
            ConditioningKind::Class | ConditioningKind::Channels | ConditioningKind::ClassTimestep => {
                "class-conditional-image-generation"
            }
        };
        let pipeline = match self.config.conditioning {
            ConditioningKind::CrossAttention => "text-to-image",
            _ => "unconditional-image-generation",
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        let named = self.config.dataset_name.as_deref().unwrap_or(self.dataset);
        let named = without_commit(named);
        // A path of this machine is nobody else's.
        let data = if Path::new(named).is_absolute() || !named.chars().all(is_plain) {
            self.dataset
        } else {
            named
        };
        format!(
            "---\nlicense: {}\nlibrary_name: diffusers\npipeline_tag: {pipeline}\ntags:\n- diffusers\n\
             - langevin\n- diffusion\n- {kind}\ndatasets:\n- {}\n{}---",
            yaml(licence),
            yaml(data),
            self.base()
        )
    }

    /// The model that the run started from, where that is one of the Hub's.
    fn base(&self) -> String {
        let base = self.config.pretrained.as_deref().and_then(Path::to_str);
        match base.map(|base| (base, without_commit(base))) {
            Some((pinned, base)) if pinned != base => format!("base_model: {}\n", yaml(base)),
            _ => String::new(),
        }
    }

    fn data(&self) -> String {
        let classes = match self.classes.len() {
            0 => String::new(),
            count => format!(" of {count} classes"),
        };
        format!("{} pictures{classes} of {}", self.pictures, self.dataset)
    }

    /// A class to ask for as an example: its number and its name.
    fn example(&self) -> Option<(usize, &str)> {
        let number = self.classes.len().checked_sub(1)?.min(3);
        Some((number, &self.classes[number]))
    }

    fn steps(&self) -> usize {
        self.config.ddpm_num_inference_steps
    }

    /// What to ask for as an example: as flags, and as a field of a request.
    fn asked(&self) -> Option<(String, String)> {
        Some(
            match (self.config.conditioning, self.config.attribute_columns.first()) {
                (ConditioningKind::CrossAttention, _) => (
                    " --prompt 'what to draw'".into(),
                    "    prompt: vec![\"what to draw\".into()],\n".into(),
                ),
                (_, Some(name)) => (
                    format!(" --attributes {}", shell_word(name)),
                    format!("    attributes: vec![{name:?}.into()],\n"),
                ),
                _ => {
                    let (number, name) = self.example()?;
                    let comment = name.replace(['\n', '\r'], " ");
                    (
                        format!(" --class {}", shell_word(name)),
                        format!("    class: vec![{number}.into()], // {comment}\n"),
                    )
                }
            },
        )
    }

    fn shell(&self) -> String {
        let asked = self.asked().map(|(flags, _)| flags).unwrap_or_default();
        format!(
            "langevin sample .{asked} --count 4 --steps {} --output pictures.png",
            self.steps()
        )
    }

    fn rust(&self) -> String {
        let asked = self.asked().map(|(_, field)| field).unwrap_or_default();
        format!(
            "use langevin::{{Pipeline, Request, device::default_device, grid}};\n\n\
             let pipeline = Pipeline::load(\".\", &default_device())?;\n\
             let request = Request {{\n    count: Some(4),\n    steps: Some({}),\n{asked}    ..Request::default()\n}};\n\
             let pictures = pipeline.generate(&request)?;\n\
             grid::write_png(\"pictures.png\", &grid::grid(&pictures, 4, 2, 1)?, &[])?;\n",
            self.steps()
        )
    }

    /// What draws in Python; `None` for a model that diffusers has not.
    fn python(&self) -> Option<String> {
        if !matches!(self.ended.model, Some(AnyModelConfig::UNet2D(_))) {
            return None;
        }
        let steps = self.steps();
        let Some((number, name)) = self.example() else {
            return Some(format!(
                "from diffusers import DDPMPipeline\n\n\
                 pipeline = DDPMPipeline.from_pretrained(\".\")\n\
                 pipeline(batch_size=4, num_inference_steps={steps}).images[0].save(\"picture.png\")\n"
            ));
        };
        // Diffusers' own pipeline does not tell its model a class.
        Some(format!(
            "import torch\nfrom diffusers import DDPMPipeline\nfrom diffusers.image_processor import VaeImageProcessor\n\n\
             pipeline = DDPMPipeline.from_pretrained(\".\")\n\
             unet, scheduler = pipeline.unet, pipeline.scheduler\n\
             scheduler.set_timesteps({steps})\n\
             labels = torch.full((4,), {number})  # {}\n\
             size = unet.config.sample_size\n\
             x = torch.randn(4, unet.config.in_channels, size, size)\n\
             with torch.no_grad():\n    \
             for t in scheduler.timesteps:\n        \
             x = scheduler.step(unet(x, t, class_labels=labels).sample, t, x).prev_sample\n\
             VaeImageProcessor().postprocess(x)[0].save(\"picture.png\")\n",
            name.replace(['\n', '\r'], " ")
        ))
    }

    pub(super) fn table(&self) -> String {
        let config = self.config;
        let average = if config.use_ema {
            format!("up to {}", config.ema_max_decay)
        } else {
            "none".into()
        };
        let loss = self
            .ended
            .loss
            .map_or_else(|| "-".into(), |loss| format!("{loss:.4}"));
        let rows = [
            (
                "model",
                format!("{}, {} parameters", config.model_name(), self.ended.parameters),
            ),
            ("predicts", config.prediction_type.to_string()),
            (
                "noise schedule",
                format!(
                    "{}, {} timesteps",
                    config.ddpm_beta_schedule, config.ddpm_num_steps
                ),
            ),
            ("steps", self.ended.steps.to_string()),
            (
                "batch",
                format!(
                    "{} x {}",
                    config.train_batch_size, config.gradient_accumulation_steps
                ),
            ),
            (
                "learning rate",
                format!(
                    "{}, {}, warm-up over {} steps",
                    config.learning_rate, config.lr_scheduler, config.lr_warmup_steps
                ),
            ),
            (
                "AdamW",
                format!(
                    "β₁ {}, β₂ {}, ε {}, weight decay {}",
                    config.adam_beta1, config.adam_beta2, config.adam_epsilon, config.adam_weight_decay
                ),
            ),
            (
                "mixed precision",
                match config.mixed_precision {
                    MixedPrecision::No => "no: float32".into(),
                    precision => precision.to_string(),
                },
            ),
            ("average of the weights", average),
            ("seed", config.seed.to_string()),
            ("mean loss of the last steps", loss),
        ];
        // An autoencoder has no noise.
        let of_noise = |name: &str| matches!(name, "predicts" | "noise schedule");
        let rows: String = rows
            .iter()
            .filter(|(name, _)| config.trainee != TraineeKind::Codec || !of_noise(name))
            .map(|(name, value)| format!("| {name} | {value} |\n"))
            .collect();
        format!("| | |\n| --- | --- |\n{rows}")
    }
}

/// `ORG/NAME` of an `ORG/NAME@COMMIT`; anything else as it is.
pub(super) fn without_commit(name: &str) -> &str {
    match name.split_once('@') {
        Some((id, _)) if looks_like_hub_name(id) => id,
        _ => name,
    }
}

/// A card as it stands in the repository `id` of the Hub: what it tells to do is done from anywhere, and not from the run's folder.
/// One that somebody has made their own is left alone.
pub fn for_hub(card: &str, id: &str) -> String {
    if !card.contains(MARK) {
        return card.to_string();
    }
    let load = format!(
        "let hub = langevin_hub::Hub::new(langevin_hub::Settings::from_env()?)?;\n\
         let folder = hub.pull_model(&\"{id}\".parse()?, &Default::default(), &langevin_hub::Silent)?;\n\
         let pipeline = Pipeline::load(folder, "
    );
    [
        (
            "On the command line, from the folder of this file:",
            "On the command line:",
        ),
        ("langevin sample .", &format!("langevin sample {id}")),
        ("let pipeline = Pipeline::load(\".\", ", &load),
        ("from_pretrained(\".\")", &format!("from_pretrained(\"{id}\")")),
    ]
    .into_iter()
    .fold(without_paths(card), |card, (here, there)| {
        card.replacen(here, there, 1)
    })
}

/// A card whose command line has the last part alone of every absolute path: the rest is of a machine that nobody else has.
fn without_paths(card: &str) -> String {
    const BEGIN: &str = "## Training\n\n```sh\n";
    let Some((before, rest)) = card.split_once(BEGIN) else {
        return card.to_string();
    };
    let Some((command, after)) = rest.split_once("\n```") else {
        return card.to_string();
    };
    let short = |word: &str| {
        let (flag, path) = match word.split_once('=') {
            Some((flag, path)) => (format!("{flag}="), path),
            None => (String::new(), word),
        };
        let bare = Path::new(path.trim_matches('\''));
        match bare.file_name().and_then(|name| name.to_str()) {
            Some(name) if bare.is_absolute() => format!("{flag}{name}"),
            _ => word.to_string(),
        }
    };
    let command: Vec<String> = command.split(' ').map(short).collect();
    format!("{before}{BEGIN}{}\n```{after}", command.join(" "))
}

/// A word as YAML reads it, whatever is in it: every JSON string is one of YAML.
pub(super) fn yaml(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if word.starts_with(|c: char| c.is_ascii_alphabetic()) && word.chars().all(plain) {
        word.to_string()
    } else {
        serde_json::Value::from(word).to_string()
    }
}

/// The command line as it can be typed again.
fn command(mut args: impl Iterator<Item = String>) -> String {
    let program = args.next().unwrap_or_default();
    let name = Path::new(&program)
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy();
    let words = args.map(|word| shell_word(&word));
    std::iter::once(name.into_owned())
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

/// A word as a shell reads it.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(config: &TrainingConfig, dataset: &str, classes: &[String]) -> String {
        Card {
            config,
            dataset,
            pictures: 12,
            classes,
            samples: Some(SAMPLES),
            command: command(
                ["/bin/langevin", "train", "--train-data-dir", "my pictures"]
                    .map(String::from)
                    .into_iter(),
            ),
            ended: &Ended {
                steps: 100,
                loss: Some(0.25),
                parameters: 1000,
                base: None,
                model: config
                    .model_config(&crate::models::ModelInputs {
                        num_classes: (!classes.is_empty()).then_some(classes.len() + 1),
                        ..Default::default()
                    })
                    .ok(),
                found: None,
            },
        }
        .text()
    }

    #[test]
    fn a_folder_with_a_space_can_be_pasted() {
        assert_eq!(shell_word("runs/digits-1"), "runs/digits-1");
        assert_eq!(shell_word("my run"), "'my run'");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
    }

    #[test]
    fn a_card_tells_what_was_done() {
        let text = card(
            &TrainingConfig::digits(),
            "digits",
            &["zero".into(), "it's one".into()],
        );
        for part in [
            "license: cc-by-4.0\nlibrary_name: diffusers\n",
            "\nlangevin train --train-data-dir 'my pictures'\n",
            "![samples](samples.png)",
            r"langevin sample . --class 'it'\''s one' --count 4",
            "labels = torch.full((4,), 1)  # it's one",
            "| steps | 100 |",
        ] {
            assert!(text.contains(part), "`{part}` is not in\n{text}");
        }
        let mut unconditional = TrainingConfig::script();
        unconditional.dataset_name = Some("/home/me/pictures".into());
        unconditional.license = Some("mit".into());
        let text = card(&unconditional, "pictures", &[]);
        assert!(
            text.contains("license: mit") && text.contains("datasets:\n- pictures\n"),
            "{text}"
        );
        assert!(
            text.contains("pipeline(batch_size=4, num_inference_steps=1000)") && !text.contains("/home"),
            "{text}"
        );
    }

    #[test]
    fn a_pushed_card_does_not_tell_where_things_lay() {
        let text = format!(
            "{MARK}\n## Training\n\n```sh\nlangevin train --train-data-dir=/home/me/faces --output-dir '/home/me/out' --seed 1\n```\n/end"
        );
        let pushed = for_hub(&text, "me/mine");
        assert!(
            pushed.contains("langevin train --train-data-dir=faces --output-dir out --seed 1\n```\n/end"),
            "{pushed}"
        );
    }

    #[test]
    fn what_came_from_the_hub_is_named_as_there() {
        let mut config = TrainingConfig::digits();
        config.dataset_name = Some("huggan/faces@0123456789abcdef0123456789abcdef01234567".into());
        config.pretrained = Some("google/ddpm-cat-256@0123456789abcdef0123456789abcdef01234567".into());
        let text = card(&config, "faces", &["a".into()]);
        assert!(
            text.contains("datasets:\n- huggan/faces\nbase_model: google/ddpm-cat-256\n---"),
            "{text}"
        );
        let pushed = for_hub(&text, "me/mine");
        for (here, there) in [
            ("langevin sample . ", "langevin sample me/mine --class a"),
            ("from_pretrained(\".\")", "from_pretrained(\"me/mine\")"),
            ("Pipeline::load(\".\"", "Pipeline::load(folder, "),
            ("the folder of this file", "\"me/mine\".parse()?"),
        ] {
            assert!(text.contains(here) && !pushed.contains(here), "{pushed}");
            assert!(pushed.contains(there), "{pushed}");
        }
        let own = text.replace(MARK, "");
        assert_eq!(for_hub(&own, "me/mine"), own);
    }

    #[cfg(feature = "parquet")]
    #[test]
    fn the_header_is_yaml_whatever_the_data_are_called() {
        for name in ["digits", "me/faces", "no: yes", "\"'", "ünï\tcode", "1e3", "- a"] {
            let mut config = TrainingConfig::script();
            config.dataset_name = Some(name.into());
            let text = card(&config, name, &[]);
            let header = text
                .strip_prefix("---\n")
                .unwrap()
                .split("\n---\n")
                .next()
                .unwrap();
            let read: serde_json::Value = serde_saphyr::from_str(header).unwrap();
            assert_eq!(read["datasets"], serde_json::json!([name]), "{header}");
            assert_eq!(read["library_name"], "diffusers");
            assert!(read["tags"].as_array().unwrap().len() >= 3);
        }
    }
}
