//! Fine-tuning of latent pipelines against the traces that diffusers' example scripts leave: every case found under `sd_training/`, a folder with a
//! `case.json`. All that is random is in the case, so the numbers must be the same.

mod support;

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use burn::tensor::{Device, Tensor};
use langevin::{
    codec::Codec,
    models::{ControlNetModel, Model, weights},
    named::Named,
    objectives::{DdpmObjective, LossWeighting, Noise, PredictionType, Weighting},
    pipelines::Pipeline,
    random::Generator,
    schedulers::AnyScheduler,
    training::{
        LrSchedulerType,
        ema::EmaSchedule,
        gradients::Gradients,
        learner::{Learner, Update},
        lr_schedule::{LrSchedule, LrScheduleOptions},
        optimizer::AdamWConfig,
        step::{self, Batch, Draw},
        trainee::{Latent, controlnet, embedding, lora, pix2pix},
    },
};
use serde_json::Value;
use support::{Outcome, Report, Stored, read_json, read_tensors, reference, relative_difference, within};

const TOLERANCE: f64 = 1e-3;

type Tensors = BTreeMap<String, Stored>;

fn said(error: langevin::Error) -> String {
    error.to_string()
}

fn words(value: &Value) -> Vec<String> {
    let words = value.as_array().into_iter().flatten();
    words
        .filter_map(|word| Some(word.as_str()?.to_string()))
        .collect()
}

/// What a case trains, and how it is looked at afterwards.
enum Kind {
    /// The networks whose names begin so.
    Whole(Vec<&'static str>),
    Lora(lora::LoraOptions),
    Embedding {
        placeholder: String,
    },
    ControlNet,
}

impl Kind {
    fn trains(&self, name: &str) -> bool {
        match self {
            Self::Whole(parts) => parts.iter().any(|part| name.starts_with(part)),
            Self::Lora(_) => weights::is_adapter(name),
            Self::Embedding { .. } => name.starts_with("words."),
            Self::ControlNet => name.starts_with("controlnet."),
        }
    }
}

/// The networks of a case as it begins, and what of them is trained.
fn begin(case: &Value, folder: &Path, base: &Pipeline, device: &Device) -> Result<(Latent, Kind), String> {
    let latent = Latent::of(base).map_err(said)?;
    let mut generator = Generator::new(0);
    if let Some(lora) = case.get("lora") {
        let mut text_targets = words(&lora["text_encoder_targets"]);
        text_targets.extend(words(&lora["text_encoder_2_targets"]));
        let options = lora::LoraOptions {
            rank: lora["rank"].as_u64().unwrap() as usize,
            alpha: lora["alpha"].as_f64(),
            targets: words(&lora["unet_targets"]),
            text_targets,
            ..lora::LoraOptions::default()
        };
        let stored = weights::read_tensors(folder.join("lora_init.safetensors")).map_err(said)?;
        // The layers that a new one is put on are those that the case has adapters for.
        let new = lora::attach(latent.clone(), &options, &mut generator, device).map_err(said)?;
        let count = stored.len();
        if lora::tensors(&new, &options).len() != count {
            return Err(format!(
                "a new LoRA has other tensors than the {count} of the case"
            ));
        }
        let latent = lora::attach_stored(latent, stored, &options, device).map_err(said)?;
        return Ok((latent, Kind::Lora(options)));
    }
    if let Some(placeholder) = case.get("placeholder_token").and_then(Value::as_str) {
        let vectors = case["num_vectors"].as_u64().unwrap() as usize;
        if embedding::tokens(placeholder, vectors) != words(&case["tokens"]) {
            return Err("the words of the placeholder have other names".into());
        }
        let initial = case["initializer_token_id"].as_u64().unwrap() as u32;
        let latent = embedding::attach(latent, vectors, &[initial, initial]).map_err(said)?;
        let placeholder = placeholder.to_string();
        return Ok((latent, Kind::Embedding { placeholder }));
    }
    if case.get("conditioning_pixel_values").is_some() {
        let network = ControlNetModel::load(folder.join("init"), device).map_err(said)?;
        // Of a new one too every parameter is its own, and none the UNet's.
        let factor = base.codec().factor();
        let new = controlnet::begin(&latent, factor, &mut generator, device).map_err(said)?;
        let new = controlnet::attach(latent.clone(), new);
        let all = weights::parameters(&new);
        let ids: HashSet<_> = all.iter().map(|(_, id)| *id).collect();
        if ids.len() != all.len() {
            return Err("a new ControlNet shares parameters with the UNet".into());
        }
        let latent = controlnet::attach(latent, network);
        return Ok((latent, Kind::ControlNet));
    }
    if case.get("original_pixel_values").is_some() {
        let latent = pix2pix::attach(latent, base.codec().channels()).map_err(said)?;
        same_weights(
            "init",
            &latent,
            "unet.",
            &folder.join("init/diffusion_pytorch_model.safetensors"),
            0.0,
        )?;
        return Ok((latent, Kind::Whole(vec!["unet."])));
    }
    let mut parts = vec!["unet."];
    if case["trained"].as_str().unwrap_or("").contains("text_encoder") {
        parts.push("text_encoder.");
    }
    Ok((latent, Kind::Whole(parts)))
}

/// Compares a part of the networks with a file, each tensor relative to its largest value.
fn same_weights(what: &str, latent: &Latent, part: &str, file: &Path, tolerance: f64) -> Result<(), String> {
    let expected = read_tensors(file);
    let found = weights::named_tensors_of(latent, |name| {
        name.starts_with(part) && !weights::is_adapter(name)
    });
    if found.len() != expected.len() {
        return Err(format!(
            "{what}: {} tensors where {} were expected",
            found.len(),
            expected.len()
        ));
    }
    for tensor in found {
        let name = tensor.name.trim_start_matches(part);
        // transformers of version 5 leaves it out.
        let bare = name.trim_start_matches("text_model.");
        let expected = expected
            .get(name)
            .or_else(|| expected.get(bare))
            .ok_or_else(|| format!("{what}: no {name}"))?;
        let difference = relative_difference(&tensor.values, &expected.f32());
        within(&format!("{what}: {name}"), difference, tolerance)?;
    }
    Ok(())
}

/// Compares a file that was written with the one that the script wrote: names, header and numbers.
fn same_file(written: &Path, expected: &Path) -> Result<(), String> {
    let header = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        header["__metadata__"].clone()
    };
    if header(written) != header(expected) {
        return Err(format!("{}: its header differs", expected.display()));
    }
    let (written, stored) = (read_tensors(written), read_tensors(expected));
    // Ours writes `text_model.`, which scripts on transformers 5 leave out in one of the encoders.
    let bare = |name: &str| name.replacen("text_encoder.text_model.", "text_encoder.", 1);
    let names = |tensors: &Tensors| tensors.keys().map(|name| bare(name)).collect::<Vec<_>>();
    let (mut found, mut wanted) = (names(&written), names(&stored));
    found.sort();
    wanted.sort();
    if found != wanted {
        return Err(format!("the names in {} differ", expected.display()));
    }
    let stored: BTreeMap<String, &Stored> =
        stored.iter().map(|(name, tensor)| (bare(name), tensor)).collect();
    for (name, tensor) in &written {
        let expected = stored[&bare(name)];
        if tensor.shape != expected.shape {
            return Err(format!(
                "{name}: shape {:?}, not {:?}",
                tensor.shape, expected.shape
            ));
        }
        let difference = relative_difference(&tensor.f32(), &expected.f32());
        within(name, difference, TOLERANCE)?;
    }
    Ok(())
}

fn close(what: &str, place: &str, found: f64, expected: f64) -> Result<(), String> {
    let difference = if found == expected {
        0.0
    } else {
        (found - expected).abs() / expected.abs().max(1e-9)
    };
    within(&format!("{what} of step {place}"), difference, TOLERANCE)
}

/// One micro-batch of a case.
struct Micro<'a> {
    case: &'a Value,
    all: &'a Tensors,
    prefix: String,
    device: &'a Device,
}

impl Micro<'_> {
    fn get(&self, name: &str) -> Option<&Stored> {
        self.all.get(&format!("{}.{name}", self.prefix))
    }

    fn tensor<const D: usize>(&self, name: &str) -> Result<Tensor<D>, String> {
        let stored = self
            .get(name)
            .ok_or_else(|| format!("{} has no {name}", self.prefix))?;
        Ok(stored.tensor::<D>(self.device))
    }

    fn numbers(&self, name: &str) -> Result<Vec<f32>, String> {
        Ok(self
            .get(name)
            .ok_or_else(|| format!("{} has no {name}", self.prefix))?
            .f32())
    }

    /// Rows of token ids.
    fn ids(&self, name: &str) -> Option<Vec<Vec<u32>>> {
        let stored = self.get(name)?;
        let ids: Vec<u32> = stored.f32().into_iter().map(|id| id as u32).collect();
        Some(ids.chunks(stored.shape[1]).map(<[u32]>::to_vec).collect())
    }

    /// The clean latents with all that the model is told, and what chance decides.
    fn read(&self, base: &Pipeline, latent: &Latent, empty: &[Vec<u32>]) -> Result<(Batch, Draw), String> {
        let codec = base.codec();
        let encoded = codec.encode(self.tensor("pixel_values")?).map_err(said)?;
        let clean = codec.scale(encoded.with_noise(self.tensor("posterior_noise")?));
        let mut ids = vec![self.ids("input_ids").ok_or("no input_ids")?];
        ids.extend(self.ids("input_ids_2"));
        let random = self.get("random_p").map(Stored::f32);
        let dropout = self.case["conditioning_dropout_prob"].as_f64().unwrap_or(0.0);
        if let Some(random) = &random {
            for (place, ids) in ids.iter_mut().enumerate() {
                for (row, p) in ids.iter_mut().zip(random) {
                    if f64::from(*p) < 2.0 * dropout {
                        row.clone_from(&empty[place]);
                    }
                }
            }
        }
        let told = latent.encode(&ids).map_err(said)?;
        let mut batch = Batch::new(clean, told.conditioning);
        batch.beside = told.beside;
        batch.prior_weight = self.case.get("prior_loss_weight").and_then(Value::as_f64);
        if self.get("time_ids").is_some() {
            batch.conditioning.time_ids = Some(self.tensor("time_ids")?);
        }
        if self.get("conditioning_pixel_values").is_some() {
            batch.conditioning.control = Some(self.tensor("conditioning_pixel_values")?);
        }
        if self.get("original_pixel_values").is_some() {
            let shown = codec
                .encode(self.tensor("original_pixel_values")?)
                .map_err(said)?
                .mode();
            let kept: Vec<f32> = random
                .unwrap_or_default()
                .into_iter()
                .map(|p| {
                    let p = f64::from(p);
                    if p >= dropout && p < 3.0 * dropout {
                        0.0
                    } else {
                        1.0
                    }
                })
                .collect();
            let rows = kept.len();
            let kept = Tensor::<1>::from_floats(kept.as_slice(), self.device).reshape([rows, 1, 1, 1]);
            batch.conditioning.channels = Some(shown * kept);
        }
        let number = |key: &str| self.case.get(key).and_then(Value::as_f64);
        let mut epsilon = self.tensor::<4>("noise")?;
        if let Some(offset) = number("noise_offset") {
            epsilon = epsilon + self.tensor::<4>("offset_noise")? * offset;
        }
        let mixed = match number("input_perturbation") {
            Some(scale) => epsilon.clone() + self.tensor::<4>("perturbation_noise")? * scale,
            None => epsilon.clone(),
        };
        let draw = Draw {
            noise: Noise { epsilon, mixed },
            times: self.numbers("timesteps")?.into_iter().map(f64::from).collect(),
        };
        Ok((batch, draw))
    }
}

fn check(root: &Path, folder: &Path) -> Result<Outcome, String> {
    let case = read_json(folder.join("case.json"));
    let device = support::device();
    // Beside the case, or from the whole folder.
    let at = |path: &Value| {
        let path = path.as_str().unwrap();
        Some(folder.join(path))
            .filter(|path| path.exists())
            .unwrap_or_else(|| root.join(path))
    };
    let base = Pipeline::load(at(&case["base"]), &device).map_err(said)?;
    let all = read_tensors(folder.join("batches.safetensors"));
    let (latent, kind) = begin(&case, folder, &base, &device)?;

    let number = |section: &str, key: &str| case[section][key].as_f64().unwrap();
    let optimizer = AdamWConfig {
        beta1: case["optimizer"]["betas"][0].as_f64().unwrap(),
        beta2: case["optimizer"]["betas"][1].as_f64().unwrap(),
        eps: number("optimizer", "eps"),
        weight_decay: number("optimizer", "weight_decay"),
    };
    let steps = case["steps"].as_u64().unwrap() as usize;
    let learning_rate = number("optimizer", "lr");
    let schedule = LrSchedule::new(
        LrSchedulerType::from_name(case["lr_scheduler"]["name"].as_str().unwrap()).map_err(said)?,
        &LrScheduleOptions {
            num_warmup_steps: number("lr_scheduler", "warmup") as usize,
            num_training_steps: steps,
            num_cycles: None,
            power: 1.0,
            step_rules: None,
            gamma: 0.9,
            steps_per_epoch: 1,
            learning_rate,
        },
    )
    .map_err(said)?;
    let ema = case.get("ema").map(|ema| EmaSchedule {
        max_decay: ema["decay"].as_f64().unwrap(),
        use_ema_warmup: ema["use_ema_warmup"].as_bool().unwrap(),
        ..EmaSchedule::default()
    });
    let noise = &case["noise_schedule"];
    let table = at(&noise["from"]);
    let scheduler = AnyScheduler::load(table.parent().unwrap()).map_err(said)?;
    let prediction = noise.get("prediction_type").and_then(Value::as_str);
    let prediction = match prediction {
        Some(prediction) => prediction.to_string(),
        None => read_json(&table)["prediction_type"]
            .as_str()
            .unwrap_or("epsilon")
            .to_string(),
    };
    let gamma = case.get("snr_gamma").and_then(Value::as_f64);
    let weighting = Weighting {
        rule: if gamma.is_some() {
            LossWeighting::MinSnr
        } else {
            LossWeighting::Script
        },
        gamma,
    };
    let prediction = PredictionType::from_name(&prediction).map_err(said)?;
    let objective = DdpmObjective::new(&scheduler, prediction, weighting).map_err(said)?;
    let text = base
        .condition::<langevin::conditioning::TextCondition>()
        .ok_or("the base reads no texts")?;
    let empty = text.token_ids("").map_err(said)?;

    let clip = case["clip_grad_norm"].as_f64().unwrap_or(f64::INFINITY);
    let mut learner = Learner::new(latent, optimizer, learning_rate, schedule, clip, ema)
        .train_only(|name| kind.trains(name))
        .map_err(said)?;
    let micro_batches = case["gradient_accumulation_steps"].as_u64().unwrap() as usize;
    for i in 0..steps {
        let (mut gradients, mut loss) = (Gradients::default(), 0.0);
        for m in 0..micro_batches {
            let micro = Micro {
                case: &case,
                all: &all,
                prefix: format!("{i:02}.{m}"),
                device: &device,
            };
            let (batch, draw) = micro.read(&base, learner.model(), &empty)?;
            let checkpointed = std::env::var_os("LANGEVIN_CHECKPOINTING").is_some();
            let saving = step::Saving {
                checkpointing: checkpointed,
                ..step::Saving::default()
            };
            let lesson =
                step::gradients_saving(saving, learner.model(), &objective, &batch, &draw).map_err(said)?;
            let expected = case["micro_losses"][i][m].as_f64().unwrap();
            close("loss", &micro.prefix, lesson.loss, expected)?;
            loss += lesson.loss / micro_batches as f64;
            gradients = gradients.plus(lesson.gradients.scale(1.0 / micro_batches as f64));
        }
        let update: Update;
        (learner, update) = learner.update(gradients);
        let of = |key: &str| case[key][i].as_f64();
        let place = format!("{i:02}");
        close("loss", &place, loss, of("losses").unwrap())?;
        close("learning rate", &place, update.learning_rate, of("lrs").unwrap())?;
        close(
            "gradient norm",
            &place,
            update.grad_norm,
            of("grad_norms").unwrap(),
        )?;
        if let Some(expected) = of("ema_decays") {
            close(
                "EMA decay",
                &place,
                update.ema_decay.unwrap_or(f64::NAN),
                expected,
            )?;
        }
    }

    let (trained, best) = (learner.plain(), learner.best());
    let place = folder.join(
        case["final"]
            .as_str()
            .unwrap_or("final")
            .split([',', ':'])
            .next()
            .unwrap(),
    );
    let written = tempfile::tempdir().unwrap();
    match &kind {
        Kind::Lora(options) => {
            let file = written.path().join(lora::LORA_FILE);
            lora::save(&trained, options, &file).map_err(said)?;
            same_file(&file, &folder.join(lora::LORA_FILE))?;
        }
        Kind::Embedding { placeholder } => {
            embedding::save(&trained, placeholder, written.path()).map_err(said)?;
            let file = embedding::EMBEDDING_FILE;
            same_file(&written.path().join(file), &folder.join(file))?;
        }
        Kind::ControlNet => {
            controlnet::save(&trained, written.path()).map_err(said)?;
            same_file(
                &written.path().join(weights::FILE_NAME),
                &place.join(weights::FILE_NAME),
            )?;
        }
        Kind::Whole(parts) if parts.len() > 1 => {
            let final_ = folder.join("final");
            same_weights(
                "unet",
                &trained,
                "unet.",
                &final_.join("unet").join(weights::FILE_NAME),
                TOLERANCE,
            )?;
            let text = final_.join("text_encoder/model.safetensors");
            same_weights("text encoder", &trained, "text_encoder.", &text, TOLERANCE)?;
        }
        Kind::Whole(_) => {
            same_weights(
                "final",
                &trained,
                "unet.",
                &folder.join("final").join(weights::FILE_NAME),
                TOLERANCE,
            )?;
            let average = folder.join("final_ema");
            if average.is_dir() {
                same_weights(
                    "final_ema",
                    &best,
                    "unet.",
                    &average.join(weights::FILE_NAME),
                    TOLERANCE,
                )?;
            }
        }
    }
    // What is not trained is what it was, to the bit.
    let begun = begin(&case, folder, &base, &device)?.0;
    let frozen = |latent: &Latent| weights::named_tensors_of(latent, |name| !kind.trains(name));
    if frozen(&trained) != frozen(&begun) {
        return Err("what is not trained has changed".into());
    }
    Ok(Outcome::Ran)
}

#[test]
fn fine_tuning_follows_the_scripts() {
    let mut report = Report::new();
    let root = reference();
    let mut folders: Vec<_> = std::fs::read_dir(root.join("sd_training"))
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    folders.retain(|folder| folder.join("case.json").is_file());
    folders.sort();
    for folder in folders {
        report.case(&folder.display().to_string(), check(&root, &folder));
    }
    report.finish();
}
