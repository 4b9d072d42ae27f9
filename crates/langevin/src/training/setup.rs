//! What a run's parts are made of: its model and its pictures.

use std::sync::Arc;

use super::{TrainingConfig, latent_space::LatentSpace};
use crate::{
    Result,
    conditioning::Trained,
    data::{self, BucketRule, Buckets, Dataset, Loader, LoaderConfig, Transform},
    models::{AnyModelConfig, ModelInputs},
};

/// The configuration of the model that a run trains under these conditions, on pictures or in the space of an autoencoder.
///
/// # Errors
/// If it cannot be conditioned so.
pub(super) fn model_config(
    config: &TrainingConfig,
    space: Option<&LatentSpace>,
    conditions: &[Trained],
) -> Result<AnyModelConfig> {
    let mut inputs = ModelInputs::default();
    for trained in conditions {
        trained.condition.fit(&mut inputs);
    }
    match space {
        Some(space) => {
            let [channels, side, _] = space.shape(config);
            config.model.config()?.made_with(side, channels, &inputs)
        }
        None => config.model_config(&inputs),
    }
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

impl TrainingConfig {
    /// The sizes that pictures are brought to, where that is not one square.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn buckets(&self) -> Result<Option<Buckets>> {
        let rule = BucketRule {
            resolution: self.resolution,
            min: self.min_bucket_reso,
            max: self.max_bucket_reso,
            step: self.bucket_reso_steps,
            no_upscale: self.bucket_no_upscale,
        };
        self.enable_bucket.then(|| Buckets::new(rule)).transpose()
    }
}

/// What reads the pictures of a run.
///
/// # Errors
/// If the data set is empty.
pub(super) fn loader(config: &TrainingConfig, dataset: Arc<dyn Dataset>) -> Result<Loader> {
    let (transform, reading) = (transform(config), loader_config(config, dataset.as_ref()));
    match config.buckets()? {
        Some(buckets) => Loader::in_buckets(dataset, transform, reading, buckets),
        None => Loader::new(dataset, transform, reading),
    }
}

/// How the pictures are read.
fn loader_config(config: &TrainingConfig, dataset: &dyn Dataset) -> LoaderConfig {
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
