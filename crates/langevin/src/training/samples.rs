//! What a run draws: grids of samples, and the plot of its loss.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use burn::tensor::{Tensor, TensorData};

use super::{Trainer, metrics::Metrics, setup::transform};
use crate::{
    Result,
    data::{Crop, Example, Transform},
    grid,
    models::{AnyModel, ImageCondition},
    ops::in_pool,
    pipelines::{ConditioningImage, DdpmPipeline, SampleOptions, to_pictures},
    random::Generator,
};

/// The plot of the loss in a run's folder.
pub const LOSS_PLOT: &str = "loss.png";
/// The grid of samples drawn at the end.
pub const SAMPLES: &str = "samples.png";

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
    let told = Examples::of(trainer, &pipeline.model);
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
            prompts: told.prompts(first..first + batch_size),
            conditioning_image: told.images(first..first + batch_size)?,
            ..SampleOptions::default()
        };
        let samples = in_pool(|| pipeline.sample(&options, &mut generator)?.finish())?;
        pictures.extend(to_pictures(&samples)?);
    }
    let scale = grid::visible_scale(&pictures[0]);
    let picture = grid::grid(&pictures, columns, 2, scale)?;
    let text = [
        ("seed", "0".to_string()),
        ("scheduler", "ddpm".to_string()),
        ("steps", config.ddpm_num_inference_steps.to_string()),
        ("model", trainer.folder.display().to_string()),
    ];
    grid::write_png(path, &picture, &text)?;
    Ok(path.to_path_buf())
}

/// What samples are told of the data's first pictures, one after another.
struct Examples<'a> {
    trainer: &'a Trainer,
    captioned: bool,
    image: Option<ImageCondition>,
}

impl<'a> Examples<'a> {
    fn of(trainer: &'a Trainer, model: &AnyModel) -> Self {
        Self {
            trainer,
            captioned: matches!(model, AnyModel::Captioned(_)),
            image: model.config().image_condition(),
        }
    }

    fn example(&self, index: usize) -> Result<Example> {
        let dataset = &self.trainer.dataset;
        dataset.get(index % dataset.len())
    }

    /// The captions of these pictures, for a model that looks at texts.
    fn prompts(&self, range: Range<usize>) -> Option<Vec<String>> {
        let caption = |index| self.example(index).ok().and_then(|example| example.caption);
        self.captioned
            .then(|| range.map(|index| caption(index).unwrap_or_default()).collect())
    }

    /// These pictures, for a model that is shown one; a mask covers the middle.
    fn images(&self, range: Range<usize>) -> Result<Option<ConditioningImage>> {
        let Some(image) = &self.image else {
            return Ok(None);
        };
        let config = &self.trainer.config;
        let transform = Transform {
            crop: Crop::Center,
            random_flip: false,
            ..transform(config)
        };
        let device = &self.trainer.device;
        let side = config.resolution;
        let shape = [range.len(), config.channels.count(), side, side];
        let mut pixels = vec![];
        for index in range {
            pixels.extend(transform.apply(self.example(index)?.picture, &mut Generator::new(0))?);
        }
        let middle = |i: usize| (side / 4..side - side / 4).contains(&i);
        let mask: Vec<f32> = (0..side * side)
            .map(|i| {
                if middle(i / side) && middle(i % side) {
                    1.0
                } else {
                    0.0
                }
            })
            .collect();
        let mask = (*image == ImageCondition::Mask)
            .then(|| Tensor::from_data(TensorData::new(mask, [1, 1, side, side]), device));
        Ok(Some(ConditioningImage {
            picture: Tensor::from_data(TensorData::new(pixels, shape), device),
            mask,
            as_is: false,
        }))
    }
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
