//! What a run draws: grids of samples, and the plot of its loss.

use std::path::{Path, PathBuf};

use super::{Trainer, metrics::Metrics};
use crate::{
    Result, grid,
    ops::in_pool,
    pipelines::{DdpmPipeline, SampleOptions, to_pictures},
    random::Generator,
};

/// The plot of the loss in a run's folder.
pub const LOSS_PLOT: &str = "loss.png";
/// The grid of samples drawn at the end.
pub const SAMPLES: &str = "samples.png";
/// The same of the weights as they were trained, where [`SAMPLES`] is of their average.
pub const SAMPLES_TRAINED: &str = "samples-trained.png";

/// Draws a grid with seed 0, as the training script's samples are: a row for each class, or as square as it gets.
pub(super) fn draw(trainer: &Trainer, pipeline: &DdpmPipeline, path: &Path) -> Result<PathBuf> {
    const MOST_ROWS: usize = 20;
    let config = &trainer.config;
    let (classes, columns) = match &trainer.classes {
        Some(classes) => {
            let rows = classes.names.len().min(MOST_ROWS);
            let columns = (config.eval_batch_size / rows).clamp(1, 10);
            let classes = (0..rows)
                .flat_map(|class| vec![class as i64; columns])
                .collect::<Vec<_>>();
            (Some(classes), columns)
        }
        None => (None, (config.eval_batch_size as f64).sqrt().ceil() as usize),
    };
    let count = classes.as_ref().map_or(config.eval_batch_size, Vec::len);
    let mut generator = Generator::new(0);
    let mut pictures = vec![];
    for first in (0..count).step_by(config.eval_batch_size) {
        let batch_size = config.eval_batch_size.min(count - first);
        let options = SampleOptions {
            batch_size,
            num_inference_steps: Some(config.ddpm_num_inference_steps),
            classes: classes
                .as_ref()
                .map(|classes| classes[first..first + batch_size].to_vec()),
            ..SampleOptions::default()
        };
        let samples = in_pool(|| pipeline.sample(&options, &mut generator)?.finish())?;
        pictures.extend(to_pictures(&samples)?);
    }
    let scale = grid::visible_scale(&pictures[0]);
    let picture = grid::grid(&pictures, columns, 2, scale)?;
    let text = [
        ("seed", "0".to_string()),
        ("scheduler", pipeline.scheduler.class_name().to_string()),
        ("steps", config.ddpm_num_inference_steps.to_string()),
        ("model", trainer.folder.display().to_string()),
    ];
    grid::write_png(path, &picture, &text)?;
    Ok(path.to_path_buf())
}

/// Plots the loss into the run's folder.
#[cfg(feature = "plot")]
pub(super) fn plot(trainer: &Trainer, metrics: &Metrics) -> Result<Option<PathBuf>> {
    let path = trainer.folder.join(LOSS_PLOT);
    let title = format!(
        "{} on {}",
        trainer.config.model.short_name(),
        trainer.dataset.name()
    );
    crate::plot::loss_plot(&path, metrics.losses(), &title)?;
    Ok(Some(path))
}

/// Plots nothing: this build cannot.
#[cfg(not(feature = "plot"))]
pub(super) fn plot(_trainer: &Trainer, _metrics: &Metrics) -> Result<Option<PathBuf>> {
    Ok(None)
}
