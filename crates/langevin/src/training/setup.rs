//! What a run's parts are made of: its classes and its pictures.

use super::TrainingConfig;
use crate::{
    Error, Result,
    data::{self, Dataset, LoaderConfig, Transform},
    pipelines::Classes,
};

/// The names of the data's classes, where the model is told them.
pub(super) fn classes(config: &TrainingConfig, dataset: &dyn Dataset) -> Result<Option<Classes>> {
    if !config.conditioning.tells_classes() {
        return Ok(None);
    }
    let names = dataset.class_names().ok_or_else(|| {
        Error::option(
            &["conditioning"],
            format!(
                "the data set {} has no classes, which `conditioning` {} needs: put the pictures of each class into a folder of \
                 its own, or add a `label` column to metadata.jsonl",
                dataset.name(),
                config.conditioning
            ),
        )
    })?;
    Ok(Some(Classes {
        names: names.to_vec(),
        null_class: Some(names.len()),
    }))
}

/// How a picture becomes what the model sees.
pub(super) fn transform(config: &TrainingConfig) -> Transform {
    Transform {
        resolution: config.resolution,
        resize: config.resize,
        crop: if config.center_crop {
            data::Crop::Center
        } else {
            data::Crop::Random
        },
        random_flip: config.random_flip,
        channels: config.channels,
    }
}

/// How the pictures are read.
pub(super) fn loader_config(config: &TrainingConfig, dataset: &dyn Dataset) -> LoaderConfig {
    /// Decoding one batch ahead on one thread keeps up with training on a CPU.
    const WORKERS: usize = 1;
    LoaderConfig {
        batch_size: config.train_batch_size,
        seed: config.seed,
        workers: if config.dataloader_num_workers == 0 {
            WORKERS
        } else {
            config.dataloader_num_workers
        },
        cache_bytes: if config.cache || dataset.is_small() {
            data::cache_limit()
        } else {
            0
        },
        strict: config.strict,
        ..LoaderConfig::default()
    }
}
