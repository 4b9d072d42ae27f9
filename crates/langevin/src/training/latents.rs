//! Pictures as an autoencoder has them: computed once where nothing about them is random, and kept as far as memory has room.

use std::{
    collections::HashMap,
    hash::Hash,
    path::Path,
    sync::{Mutex, PoisonError},
};

use burn::tensor::{Device, Tensor, TensorData};

use super::{
    TrainingConfig,
    setup::transform,
    shelf::{Shelf, named, shaped},
};
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

/// A picture, and the height and width that it was brought to.
type Key = (Whose, usize, [usize; 2]);

/// What pictures came to.
pub(super) struct Latents {
    kept: Mutex<Kept<Key, Encoded>>,
    /// What there was room for at the beginning.
    room: u64,
    /// Where they are kept on a disk too.
    shelf: Option<Shelf>,
}

impl Latents {
    /// None yet, and room for so many bytes.
    pub(super) fn new(room: u64) -> Self {
        Self {
            kept: Mutex::new(Kept::new(room)),
            room,
            shelf: None,
        }
    }

    /// The same, kept in this folder too, where the codec has a network that they follow from.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub(super) fn on_disk(mut self, folder: &Path, codec: &AnyCodec) -> Result<Self> {
        self.shelf = codec
            .digest()
            .map(|digest| Shelf::open(folder, digest))
            .transpose()?;
        Ok(self)
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
        let fixed = is_fixed(&transform(config));
        if !fixed && self.shelf.is_none() {
            return codec.encode(tensor(pictures.values, pictures.shape));
        }
        let [_, channels, height, width] = pictures.shape;
        let size = channels * height * width;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Vec::with_capacity(pictures.indices.len());
        for (row, &index) in pictures.indices.iter().enumerate() {
            let key = (pictures.whose, index, [height, width]);
            if let Some(encoded) = kept.get(&key).filter(|_| fixed) {
                all.push(encoded.clone());
                continue;
            }
            let picture = &pictures.values[row * size..][..size];
            let shape = [1, channels, height, width];
            let compute = || codec.encode(tensor(picture, shape));
            let encoded = match self.shelf.as_ref().filter(|_| index != usize::MAX) {
                Some(shelf) => found_or(shelf, picture, shape, device, compute)?,
                None => compute()?,
            };
            let bytes = 2 * 4 * encoded.mode().shape().num_elements() as u64;
            if index != usize::MAX && fixed {
                kept.keep(key, &encoded, bytes);
            }
            all.push(encoded);
        }
        Encoded::together(all)
    }

    /// The bytes that one picture's take, and all of them.
    fn sizes(codec: &AnyCodec, config: &TrainingConfig, dataset: &dyn Dataset) -> [u64; 2] {
        let [channels, height, width] = codec.latent_shape(Size {
            height: config.resolution,
            width: config.resolution,
        });
        let one = 2 * 4 * (channels * height * width) as u64;
        let pictures = (0..dataset.len())
            .filter(|&index| index == 0 || dataset.original(index) != dataset.original(index - 1))
            .count();
        [one, one.saturating_mul(pictures as u64)]
    }

    /// The bytes that will be kept in memory, about.
    pub(super) fn bytes(&self, codec: &AnyCodec, config: &TrainingConfig, dataset: &dyn Dataset) -> u64 {
        let [_, all] = Self::sizes(codec, config, dataset);
        match is_fixed(&transform(config)) {
            true => all.min(self.room),
            false => 0,
        }
    }

    /// A sentence on what is kept, and how much it takes.
    pub(super) fn remark(&self, codec: &AnyCodec, config: &TrainingConfig, dataset: &dyn Dataset) -> String {
        let [one, all] = Self::sizes(codec, config, dataset);
        let [one, words, room] = [one, all, self.room].map(data::bytes_in_words);
        let folder = config.cache_latents_to_disk.as_deref();
        match (is_fixed(&transform(config)), folder.filter(|_| self.shelf.is_some())) {
            (true, None) if all <= self.room => format!("latents are computed once and kept: {words}"),
            (true, None) => format!(
                "latents take {words}, and there is room for {room}: those that fit are computed once and kept, the others anew each time; \
                 --cache-latents-to-disk keeps all of them"
            ),
            (true, Some(folder)) => format!(
                "latents are computed once and kept in {}, {one} each and {words} in all, and in memory up to {room}",
                folder.display()
            ),
            (false, Some(folder)) => format!(
                "latents are computed once and kept in {}, {one} for each way that a picture is mirrored",
                folder.display()
            ),
            (false, None) => "latents are computed anew each time, for pictures are cropped or mirrored at random: --center-crop, and no \
                      --random-flip, keeps them"
                .into(),
        }
    }
}

/// A picture's latents from a disk, or as they are computed, which are then there.
fn found_or(
    shelf: &Shelf,
    picture: &[f32],
    shape: [usize; 4],
    device: &Device,
    compute: impl FnOnce() -> Result<Encoded>,
) -> Result<Encoded> {
    let file = shelf.file("latents", &shape, picture.iter().map(|value| value.to_le_bytes()));
    if let Some(found) = shelf.read(&file, ["mean", "deviation"], device) {
        let tensors: Vec<(String, Tensor<4>)> = found
            .into_iter()
            .filter_map(|(name, shape, tensor)| Some((name, shaped(tensor, &shape)?)))
            .collect();
        match tensors.as_slice() {
            [(a, mean), (b, deviation)]
                if a == "mean" && b == "deviation" && mean.dims() == deviation.dims() =>
            {
                return Ok(Encoded::distribution(mean.clone(), deviation.clone()));
            }
            [(a, mean)] if a == "mean" => return Ok(Encoded::point(mean.clone())),
            _ => {}
        }
    }
    let encoded = compute()?;
    let deviation = encoded.deviation();
    let deviation = deviation.map(|deviation| named("deviation", &deviation));
    let tensors = std::iter::once(named("mean", &encoded.mode())).chain(deviation);
    shelf.write(&file, tensors.collect());
    Ok(encoded)
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
