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

use crate::terminal::{self, bytes, thousands};

/// Prints a pipeline's parts, and how it was trained where its folder says so.
pub(super) fn describe_pipeline(folder: &Path) -> Result<()> {
    let pipeline = Pipeline::load(folder, &default_device())?;
    let model = &pipeline.model;
    let class = pipeline.class().name;
    let article = if class.starts_with('A') { "an" } else { "a" };
    terminal::print_line(&format!("{}: {article} {class}", folder.display()))?;
    print_model(model, pipeline.num_parameters(), pipeline.codec().is_latent())?;
    if pipeline.codec().is_latent() {
        let colours = match pipeline.picture_channels() {
            1 => "grey",
            _ => "colour",
        };
        line("pictures", &format!("{}, {colours}", pipeline.size()?))?;
    }
    if let Some(mel) = pipeline.mel() {
        let config = mel.config();
        let text = format!(
            "{:.2} s at {} Hz as {} columns of {} bands",
            mel.seconds(config.x_res),
            config.sample_rate,
            config.x_res,
            config.y_res
        );
        line("sounds", &text)?;
    }
    let stored = pipelines::checkpoint(folder, None)?;
    // Where the weights are, the other files of a pipeline of one model are too.
    let flat = stored.path().parent() == Some(folder);
    let layout = if flat { "; every file at the root" } else { "" };
    line("stored as", &format!("{stored}{layout}"))?;
    let scheduler = &pipeline.scheduler;
    line(
        "scheduler",
        &format!(
            "{}, {} timesteps",
            scheduler.class_name(),
            scheduler.num_train_timesteps()
        ),
    )?;
    if let Some(classes) = pipeline.classes() {
        let null = if classes.null_class.is_some() {
            ", and a null class"
        } else {
            ""
        };
        line(
            "classes",
            &format!("{}: {}{null}", classes.names.len(), shortened(&classes.names)),
        )?;
    }
    if let Some(attributes) = pipeline.condition::<AttributesCondition>() {
        let names = attributes.names();
        line("attributes", &format!("{}: {}", names.len(), shortened(names)))?;
    }
    if folder.join(RUN_CONFIG).is_file() {
        print_run(folder)?;
    }
    Ok(())
}

/// Prints what a model's folder holds.
pub(super) fn describe_model(folder: &Path) -> Result<()> {
    let model = AnyModel::load(folder, &default_device())?;
    terminal::print_line(&format!("{}: a model without a scheduler", folder.display()))?;
    print_model(&model, model.num_parameters(), false)?;
    line("stored as", &Checkpoint::in_folder(folder)?.to_string())
}

fn print_model(model: &AnyModel, parameters: usize, is_latent: bool) -> Result<()> {
    let config = model.config();
    // In memory they are float32, whatever they are stored as.
    let size = bytes(parameters as u64 * 4);
    line(
        "model",
        &format!(
            "{}, {} parameters, {size}",
            config.class_name(),
            thousands(parameters)
        ),
    )?;
    let denoised = if is_latent { "latents" } else { "pictures" };
    line(denoised, &pictures(&config))?;
    if let Some(classes) = config.num_class_embeds() {
        line("told", &format!("one of {classes} classes"))?;
    }
    Ok(())
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

fn print_run(folder: &Path) -> Result<()> {
    let config: TrainingConfig = files::read_json(folder.join(RUN_CONFIG))?;
    let data = config.dataset()?;
    line(
        "trained on",
        &format!(
            "{data}, in batches of {}, seed {}",
            config.train_batch_size, config.seed
        ),
    )?;
    // One line of JSON a step; the last says how far the run came.
    let metrics = fs::read_to_string(folder.join(METRICS)).unwrap_or_default();
    let last = metrics
        .lines()
        .last()
        .and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    if let Some(last) = last
        && let (Some(step), Some(loss)) = (last["step"].as_u64(), last["loss"].as_f64())
    {
        line(
            "steps",
            &format!("{}, last loss {loss:.4}", thousands(usize::try_from(step)?)),
        )?;
    }
    Ok(())
}

pub(super) fn line(what: &str, text: &str) -> Result<()> {
    Ok(terminal::print_line(&format!("  {what:<10} {text}"))?)
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
