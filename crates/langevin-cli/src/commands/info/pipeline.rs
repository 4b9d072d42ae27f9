//! What a pipeline, a run or a bare model is.

use std::{fs, path::Path};

use anyhow::Result;
use langevin::{
    conditioning::AttributesCondition,
    device::default_device,
    files,
    models::{AnyModel, AnyModelConfig, Checkpoint},
    pipelines::{self, Pipeline},
    schedulers::Scheduler,
    training::{METRICS, RUN_CONFIG, TrainingConfig},
};

use super::Described;
use crate::terminal::{bytes, thousands};

/// A pipeline's parts, and how it was trained where its folder says so.
pub(super) fn describe_pipeline(folder: &Path) -> Result<Described> {
    let pipeline = Pipeline::load(folder, &default_device())?;
    let model = &pipeline.model;
    let class = pipeline.class().name;
    let article = if class.starts_with('A') { "an" } else { "a" };
    let mut said = Described::of("pipeline", format!("{}: {article} {class}", folder.display()));
    said.tell("class", class);
    tell_model(
        &mut said,
        model,
        pipeline.num_parameters(),
        pipeline.codec().is_latent(),
    );
    if pipeline.codec().is_latent() {
        let colours = match pipeline.picture_channels() {
            1 => "grey",
            _ => "colour",
        };
        said.line("pictures", format!("{}, {colours}", pipeline.size()?));
    }
    let size = pipeline.size()?;
    said.tell("height", size.height);
    said.tell("width", size.width);
    said.tell("channels", pipeline.picture_channels());
    if let Some(mel) = pipeline.mel() {
        let config = mel.config();
        let seconds = mel.seconds(config.x_res);
        let text = format!(
            "{seconds:.2} s at {} Hz as {} columns of {} bands",
            config.sample_rate, config.x_res, config.y_res
        );
        said.line("sounds", text);
        said.tell("seconds", seconds);
        said.tell("sample_rate", config.sample_rate);
    }
    let stored = pipelines::checkpoint(folder, None)?;
    // Where the weights are, the other files of a pipeline of one model are too.
    let flat = stored.path().parent() == Some(folder);
    let layout = if flat { "; every file at the root" } else { "" };
    said.line("stored as", format!("{stored}{layout}"));
    said.tell("stored_as", stored.to_string());
    let scheduler = &pipeline.scheduler;
    let (name, timesteps) = (scheduler.class_name(), scheduler.num_train_timesteps());
    said.line("scheduler", format!("{name}, {timesteps} timesteps"));
    said.tell("scheduler", name);
    said.tell("timesteps", timesteps);
    if let Some(classes) = pipeline.classes() {
        let null = if classes.null_class.is_some() {
            ", and a null class"
        } else {
            ""
        };
        said.line(
            "classes",
            format!("{}: {}{null}", classes.names.len(), shortened(&classes.names)),
        );
        said.tell("classes", classes.names.clone());
        said.tell("null_class", classes.null_class);
    }
    if let Some(attributes) = pipeline.condition::<AttributesCondition>() {
        let names = attributes.names();
        said.line("attributes", format!("{}: {}", names.len(), shortened(names)));
        said.tell("attributes", names.to_vec());
    }
    tell_run(&mut said, folder)?;
    Ok(said)
}

/// What a model's folder holds.
pub(super) fn describe_model(folder: &Path) -> Result<Described> {
    let model = AnyModel::load(folder, &default_device())?;
    let headline = format!("{}: a model without a scheduler", folder.display());
    let mut said = Described::of("model", headline);
    tell_model(&mut said, &model, model.num_parameters(), false);
    let stored = Checkpoint::in_folder(folder)?.to_string();
    said.tell("stored_as", stored.clone());
    said.line("stored as", stored);
    Ok(said)
}

fn tell_model(said: &mut Described, model: &AnyModel, parameters: usize, is_latent: bool) {
    let config = model.config();
    // In memory they are float32, whatever they are stored as.
    let size = bytes(parameters as u64 * 4);
    said.line(
        "model",
        format!(
            "{}, {} parameters, {size}",
            config.class_name(),
            thousands(parameters)
        ),
    );
    let denoised = if is_latent { "latents" } else { "pictures" };
    said.line(denoised, pictures(&config));
    if let Some(classes) = config.num_class_embeds() {
        said.line("told", format!("one of {classes} classes"));
    }
    said.tell("model", config.class_name());
    said.tell("parameters", parameters);
    said.tell("in_channels", config.in_channels());
    said.tell("draws_latents", is_latent);
}

fn pictures(config: &AnyModelConfig) -> String {
    let channels = match config.in_channels() {
        1 => "grey".to_string(),
        3 => "colour".to_string(),
        count => format!("{count} channels"),
    };
    match config.sample_size() {
        Some([height, width]) => format!("{width}x{height}, {channels}"),
        None => format!("any size, {channels}"),
    }
}

/// How something was trained, where its folder says so.
pub(super) fn tell_run(said: &mut Described, folder: &Path) -> Result<()> {
    if !folder.join(RUN_CONFIG).is_file() {
        return Ok(());
    }
    let config: TrainingConfig = files::read_json(folder.join(RUN_CONFIG))?;
    let data = config.dataset()?;
    said.line(
        "trained on",
        format!(
            "{data}, in batches of {}, seed {}",
            config.train_batch_size, config.seed
        ),
    );
    said.tell("trained_on", data);
    // One line of JSON a step; the last says how far the run came.
    let metrics = fs::read_to_string(folder.join(METRICS)).unwrap_or_default();
    let last = metrics
        .lines()
        .last()
        .and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    if let Some(last) = last
        && let (Some(step), Some(loss)) = (last["step"].as_u64(), last["loss"].as_f64())
    {
        said.line(
            "steps",
            format!("{}, last loss {loss:.4}", thousands(usize::try_from(step)?)),
        );
        said.tell("steps", step);
        said.tell("loss", loss);
    }
    Ok(())
}

/// The first names, and how many more there are.
fn shortened(names: &[String]) -> String {
    let shown = 12;
    let first = names
        .iter()
        .take(shown)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > shown {
        format!("{first} and {} more", names.len() - shown)
    } else {
        first
    }
}
