//! Whether a run that is to go on with its latest checkpoint, and has none, is over already.

use std::path::Path;

use super::{
    RUN_CONFIG, ResumeFrom, TrainingConfig,
    runs::RunSummary,
    samples::SAMPLES,
    state::{config_differences, refuse},
};
use crate::{Error, Result, pipelines::MODEL_INDEX, weights::CONFIG_NAME};

/// The run in a configuration's `output_dir`, where that asks for its latest checkpoint and the run ended without one: it is done, and
/// would be trained anew over its finished model. `None` where there is something to do.
///
/// # Errors
/// If it was another run, or ended earlier than this one is to; or what is there cannot be read.
pub fn ended(config: &TrainingConfig, pictures: usize) -> Result<Option<RunSummary>> {
    let (Some(ResumeFrom::Latest), Some(folder)) = (&config.resume_from_checkpoint, &config.output_dir)
    else {
        return Ok(None);
    };
    if config.overwrite_output_dir || !is_over(folder) || !super::checkpoints::all(folder).is_empty() {
        return Ok(None);
    }
    let run = RunSummary::read(folder)?;
    refuse(
        folder,
        "the run's configuration",
        &config_differences(&run.config, config)?,
    )?;
    let [was, now] = [&run.config, config].map(|config| config.total_steps(pictures));
    if now > was {
        return Err(Error::option(
            &["pretrained", "overwrite_output_dir"],
            format!(
                "{}: ended after {} steps and left no checkpoint, so it cannot go on to {now}: start a new run from its \
                 weights with `pretrained`, or add `overwrite_output_dir` to train it anew",
                folder.display(),
                run.steps
            ),
        ));
    }
    Ok(Some(run))
}

/// Whether a folder holds a run that came to its end: its samples are drawn last, and go as soon as other weights are written.
fn is_over(folder: &Path) -> bool {
    let there = |name: &str| folder.join(name).is_file();
    // A pipeline, or an autoencoder.
    there(RUN_CONFIG) && there(SAMPLES) && (there(MODEL_INDEX) || there(CONFIG_NAME))
}
