//! Pictures as an autoencoder has them: computed once where nothing about them is random, and kept as far as memory has room.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
};

use burn::tensor::{Device, Tensor, TensorData};

use super::{TrainingConfig, setup::transform};
use crate::{
    Result, Size,
    codec::{AnyCodec, Codec, Encoded},
    data::{self, Dataset, Transform},
};

/// Which picture of several kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    Instance,
    Class,
    Shown,
}

/// Pictures of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pixels<'a> {
    pub whose: Whose,
    /// The number of each among those of its kind; `usize::MAX` where it is none that comes again.
    pub indices: &'a [usize],
    /// One after another, in -1..1.
    pub values: &'a [f32],
    /// `[pictures, channels, height, width]`
    pub shape: [usize; 4],
}

/// What pictures came to.
pub(super) struct Latents(Mutex<Kept<(Whose, usize), Encoded>>);

impl Latents {
    /// None yet, and room for so many bytes.
    pub(super) fn new(room: u64) -> Self {
        Self(Mutex::new(Kept::new(room)))
    }

    /// Pictures as the autoencoder has them.
    ///
    /// # Errors
    /// If they do not fit it.
    pub(super) fn of(
        &self,
        codec: &AnyCodec,
        config: &TrainingConfig,
        pictures: Pixels<'_>,
        device: &Device,
    ) -> Result<Encoded> {
        let tensor = |values: &[f32], shape: [usize; 4]| {
            Tensor::<4>::from_data(TensorData::new(values.to_vec(), shape), device)
        };
        if !is_fixed(&transform(config)) {
            return codec.encode(tensor(pictures.values, pictures.shape));
        }
        let [_, channels, height, width] = pictures.shape;
        let size = channels * height * width;
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Vec::with_capacity(pictures.indices.len());
        for (row, &index) in pictures.indices.iter().enumerate() {
            let key = (pictures.whose, index);
            if let Some(encoded) = kept.get(&key) {
                all.push(encoded.clone());
                continue;
            }
            let picture = &pictures.values[row * size..][..size];
            let encoded = codec.encode(tensor(picture, [1, channels, height, width]))?;
            let bytes = 2 * 4 * encoded.mode().shape().num_elements() as u64;
            if index != usize::MAX {
                kept.keep(key, &encoded, bytes);
            }
            all.push(encoded);
        }
        Encoded::together(all)
    }

    /// A sentence on what is kept, and how much it takes.
    pub(super) fn remark(codec: &AnyCodec, config: &TrainingConfig, dataset: &dyn Dataset) -> String {
        let [channels, height, width] = codec.latent_shape(Size {
            height: config.resolution,
            width: config.resolution,
        });
        let all = 2 * 4 * (channels * height * width * dataset.len()) as u64;
        match is_fixed(&transform(config)) {
            true => format!(
                "latents are computed once and kept: {}",
                data::bytes_in_words(all)
            ),
            false => "latents are computed anew each time, for pictures are cropped or mirrored at random: --center-crop, and no \
                      --random-flip, keeps them"
                .into(),
        }
    }
}

/// Whether the same picture always becomes the same pixels.
fn is_fixed(transform: &Transform) -> bool {
    let cuts_nothing = transform.resize == data::Resize::Square || transform.crop == data::Crop::Center;
    cuts_nothing && !transform.random_flip
}

/// What was computed once, as far as memory has room.
pub(super) struct Kept<K, V> {
    all: HashMap<K, V>,
    room: u64,
}

impl<K: Hash + Eq, V: Clone> Kept<K, V> {
    pub(super) fn new(room: u64) -> Self {
        Self {
            all: HashMap::new(),
            room,
        }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.all.get(key)
    }

    /// Takes a value of so many bytes up, if there is room.
    pub(super) fn keep(&mut self, key: K, value: &V, bytes: u64) {
        if bytes <= self.room {
            self.room -= bytes;
            self.all.insert(key, value.clone());
        }
    }
}
