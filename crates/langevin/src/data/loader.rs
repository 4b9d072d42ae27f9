//! Batches of transformed pictures, made ahead of training on threads of their own.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use super::{
    Buckets, Crop, Cut, Dataset, Example, Picture, Target, Transform, buckets::Bucketed, epoch_order,
    memory::bytes_in_words, order::is_windowed,
};
use crate::{Error, Result, random::Generator};

/// How a [`Loader`] makes batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoaderConfig {
    /// Pictures in a batch.
    pub batch_size: usize,
    /// What the order, the crops and the flips follow from, together with the epoch and the picture's index.
    pub seed: u64,
    /// Threads that decode.
    pub workers: usize,
    /// Whether each epoch has an order of its own; otherwise it is the data set's.
    pub shuffle: bool,
    /// Whether a last batch that is not full is left out.
    pub drop_last: bool,
    /// Finished batches that each thread may have waiting.
    pub prefetch: usize,
    /// How many bytes of pictures may stay in memory, resized, once they were read; 0 keeps none. Pictures that do not
    /// fit are read again every epoch.
    pub cache_bytes: u64,
    /// Whether a picture that cannot be read ends the epoch with an error; otherwise it is left out, with a warning.
    pub strict: bool,
}

impl Default for LoaderConfig {
    fn default() -> Self {
        let workers = thread::available_parallelism().map_or(2, usize::from).min(4);
        Self {
            batch_size: 16,
            seed: 0,
            workers,
            shuffle: true,
            drop_last: false,
            prefetch: 2,
            cache_bytes: 0,
            strict: false,
        }
    }
}

/// Pictures of one training step.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Values in [-1, 1], of `shape`.
    pub pixels: Vec<f32>,
    /// `[pictures, channels, height, width]`.
    pub shape: [usize; 4],
    /// The class of each picture, if the data set has classes.
    pub classes: Option<Vec<i64>>,
    /// The pictures that belong to them, if the data set has any: like `pixels`, cropped and mirrored as these are.
    pub conditioning: Option<Vec<f32>>,
    /// The caption of each picture.
    pub captions: Vec<Option<String>>,
    /// Each picture's attributes, see [`OpenOptions::attribute_columns`](super::OpenOptions).
    pub attributes: Vec<Vec<bool>>,
    /// The index of each picture in the data set.
    pub indices: Vec<usize>,
    /// How large each came, and where it was cut.
    pub sizes: Vec<Cut>,
    /// Which batch of its epoch this is, from 0.
    pub number: usize,
}

/// Goes through a data set in epochs.
///
/// An epoch's order, and every picture's crop and flip, are functions of (seed, epoch, index) alone: neither the
/// number of threads nor their luck changes a batch.
#[derive(Clone)]
pub struct Loader {
    shared: Arc<Shared>,
}

/// What the threads of all epochs share.
struct Shared {
    dataset: Arc<dyn Dataset>,
    transform: Transform,
    /// The size that each picture is brought to, where that is not one square.
    buckets: Option<Bucketed>,
    config: LoaderConfig,
    /// Prepared pictures, where they are kept.
    cache: Option<Vec<OnceLock<Prepared>>>,
    /// What the kept pictures take, in bytes.
    cached_bytes: AtomicU64,
    broken: Mutex<Broken>,
}

/// The pictures that could not be read.
#[derive(Default)]
struct Broken {
    indices: BTreeSet<usize>,
    first_error: Option<String>,
}

impl Loader {
    /// A loader over `dataset`; nothing is read yet.
    ///
    /// # Errors
    /// [`Error::Config`] if the data set is empty, or batch size or resolution are zero.
    pub fn new(dataset: Arc<dyn Dataset>, transform: Transform, config: LoaderConfig) -> Result<Self> {
        Self::of(dataset, transform, config, None)
    }

    /// A loader that brings each picture to the size of its proportions, of which each batch has one. The size of every picture is looked at.
    ///
    /// # Errors
    /// As [`Loader::new`].
    pub fn in_buckets(
        dataset: Arc<dyn Dataset>,
        transform: Transform,
        config: LoaderConfig,
        buckets: Buckets,
    ) -> Result<Self> {
        let buckets = Bucketed::new(buckets, dataset.as_ref());
        Self::of(dataset, transform, config, Some(buckets))
    }

    fn of(
        dataset: Arc<dyn Dataset>,
        transform: Transform,
        config: LoaderConfig,
        buckets: Option<Bucketed>,
    ) -> Result<Self> {
        if dataset.is_empty() {
            return Err(Error::Config(format!("the data set {} is empty", dataset.name())));
        }
        if config.batch_size == 0 || transform.resolution == 0 {
            return Err(Error::Config(
                "batch size and resolution must be at least 1".into(),
            ));
        }
        if config.drop_last && dataset.len() < config.batch_size {
            return Err(Error::Config(format!(
                "the data set {} has {} pictures, too few for one full batch of {}",
                dataset.name(),
                dataset.len(),
                config.batch_size
            )));
        }
        let cache = (config.cache_bytes > 0).then(|| (0..dataset.len()).map(|_| OnceLock::new()).collect());
        let shared = Shared {
            dataset,
            transform,
            buckets,
            config,
            cache,
            cached_bytes: AtomicU64::new(0),
            broken: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// The data set.
    pub fn dataset(&self) -> &Arc<dyn Dataset> {
        &self.shared.dataset
    }

    /// The batches of an epoch, if every picture can be read.
    pub fn batches_per_epoch(&self) -> usize {
        let (pictures, size) = (self.shared.dataset.len(), self.shared.config.batch_size);
        if let Some(buckets) = &self.shared.buckets {
            buckets.count(size)
        } else if self.shared.config.drop_last {
            pictures / size
        } else {
            pictures.div_ceil(size)
        }
    }

    /// How many pictures each batch of an epoch has, if every one can be read.
    pub fn batch_sizes(&self, epoch: u64) -> Vec<usize> {
        let cut = self.cut(epoch);
        (0..self.batches_per_epoch())
            .map(|number| cut.batch(number).len())
            .collect()
    }

    /// How many pictures are brought to each size, with heights and widths; `None` where all are brought to one square.
    pub fn sizes(&self) -> Option<Vec<([usize; 2], usize)>> {
        self.shared.buckets.as_ref().map(Bucketed::counts)
    }

    /// How many pictures were found broken so far, and left out.
    pub fn skipped(&self) -> usize {
        self.shared.broken().indices.len()
    }

    /// Which those are.
    pub(crate) fn broken(&self) -> Vec<usize> {
        self.shared.broken().indices.iter().copied().collect()
    }

    /// What the cache is going to hold, in a sentence for a person; `None` without a cache.
    ///
    /// Pictures that are cropped at random are kept uncropped, so theirs is the least that they can take.
    pub fn cache_note(&self) -> Option<String> {
        self.shared.cache.as_ref()?;
        let pictures = self.shared.dataset.len();
        let size: usize = self.shared.transform.shape().iter().product();
        let (all, limit) = (pictures as u64 * size as u64, self.shared.config.cache_bytes);
        Some(if all <= limit {
            format!(
                "keeping {pictures} pictures in memory, resized: {} or a little more",
                bytes_in_words(all)
            )
        } else {
            format!(
                "{pictures} pictures take {} resized, and there is room for {}: those that fit stay in memory, the \
                 others are read again every epoch",
                bytes_in_words(all),
                bytes_in_words(limit)
            )
        })
    }

    /// The data set's indices in the order of `epoch`: as [`epoch_order`] has it, or the data set's.
    pub fn order(&self, epoch: u64) -> Vec<usize> {
        let (dataset, config) = (&self.shared.dataset, &self.shared.config);
        if config.shuffle {
            epoch_order(dataset.as_ref(), config.seed, epoch)
        } else {
            (0..dataset.len()).collect()
        }
    }

    /// An epoch's order, cut into batches.
    fn cut(&self, epoch: u64) -> EpochBatches {
        let config = &self.shared.config;
        let order = self.order(epoch);
        let size = config.batch_size;
        let Some(buckets) = &self.shared.buckets else {
            return EpochBatches {
                order,
                size,
                starts: None,
            };
        };
        let mut batches = buckets.batches(&order, size);
        // Where pictures that are read together stand together, they stay so.
        if config.shuffle && !is_windowed(self.shared.dataset.as_ref()) {
            // No picture has this index.
            let mut generator = Generator::for_index(config.seed, epoch, u64::MAX - 1);
            let places = generator.randperm(batches.len()).into_iter();
            batches = places.map(|place| std::mem::take(&mut batches[place])).collect();
        }
        let starts = batches.iter().scan(0, |end, batch| {
            *end += batch.len();
            Some(*end - batch.len())
        });
        EpochBatches {
            size,
            starts: Some(starts.collect()),
            order: batches.concat(),
        }
    }

    /// Starts the threads that make the batches of `epoch`, and hands out the batches in order.
    ///
    /// A picture that cannot be read is left out of its batch, with one warning, or ends the epoch with an error if the
    /// loader is [strict](LoaderConfig::strict). An epoch in which no picture can be read ends with an error.
    pub fn epoch(&self, epoch: u64) -> Epoch {
        self.epoch_from(epoch, 0)
    }

    /// The same from the batch at `first` on: what comes before is not read.
    pub fn epoch_from(&self, epoch: u64, first: usize) -> Epoch {
        // An epoch that goes on has had pictures.
        self.batches(epoch, (first..self.batches_per_epoch()).collect(), first.min(1))
    }

    /// Some batches of an epoch, by their numbers, in the order in which these are given. Where none of their pictures can be read,
    /// there is no batch, and no error: others may have read theirs.
    pub fn epoch_of(&self, epoch: u64, numbers: Vec<usize>) -> Epoch {
        self.batches(epoch, numbers, 1)
    }

    fn batches(&self, epoch: u64, numbers: Vec<usize>, delivered: usize) -> Epoch {
        let workers = self.shared.config.workers.clamp(1, numbers.len().max(1));
        let numbers = Arc::new(numbers);
        let cut = Arc::new(self.cut(epoch));
        let stop = Arc::new(AtomicBool::new(false));
        let mut iterator = Epoch {
            shared: Arc::clone(&self.shared),
            receivers: Vec::new(),
            threads: Vec::new(),
            stop: Arc::clone(&stop),
            next: 0,
            batches: numbers.len(),
            delivered,
            failed: None,
        };
        for worker in 0..workers {
            // Each thread makes every `workers`-th batch and may run ahead by what its channel holds, so that
            // taking turns among the channels gives the batches in order and memory is bounded.
            let (sender, receiver) = sync_channel(self.shared.config.prefetch);
            let job = Job {
                shared: Arc::clone(&self.shared),
                cut: Arc::clone(&cut),
                epoch,
                stop: Arc::clone(&stop),
                numbers: Arc::clone(&numbers),
                places: (worker..numbers.len()).step_by(workers),
                sender,
            };
            match thread::Builder::new()
                .name(format!("loader-{worker}"))
                .spawn(move || job.run())
            {
                Ok(thread) => iterator.threads.push(thread),
                Err(e) => iterator.failed = Some(Error::Config(format!("cannot start a loader thread: {e}"))),
            }
            iterator.receivers.push(receiver);
        }
        iterator
    }
}

/// The pictures of an epoch.
struct EpochBatches {
    /// Batch after batch.
    order: Vec<usize>,
    /// Pictures of a batch.
    size: usize,
    /// Where batches start, where they are not all of one size.
    starts: Option<Vec<usize>>,
}

impl EpochBatches {
    fn batch(&self, number: usize) -> &[usize] {
        let last = self.order.len();
        let (start, end) = match &self.starts {
            None => (number * self.size, (number + 1) * self.size),
            Some(starts) => (
                starts.get(number).copied().unwrap_or(last),
                starts.get(number + 1).copied().unwrap_or(last),
            ),
        };
        &self.order[start.min(last)..end.min(last)]
    }
}

/// An example with its picture resized.
#[derive(Clone)]
struct Prepared {
    example: Example,
    /// How it was cut so far.
    cut: Cut,
}

impl Shared {
    fn broken(&self) -> MutexGuard<'_, Broken> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The example at `index`, cut anew where crops are random and it is a part of something longer.
    fn cut_or_prepared(&self, index: usize, generator: &mut Generator) -> Result<Cow<'_, Prepared>> {
        let is_random = self.transform.crop == Crop::Random;
        match is_random.then(|| self.dataset.cut(index, generator)).flatten() {
            Some(example) => self.prepare(index, example?).map(Cow::Owned),
            None => self.prepared(index),
        }
    }

    /// The example at `index` with its picture resized.
    fn prepared(&self, index: usize) -> Result<Cow<'_, Prepared>> {
        let place = self.cache.as_ref().map(|cache| &cache[index]);
        if let Some(example) = place.and_then(OnceLock::get) {
            return Ok(Cow::Borrowed(example));
        }
        let prepared = self.prepare(index, self.dataset.get(index)?)?;
        Ok(match place {
            Some(place) if self.has_room(&prepared.example) => Cow::Borrowed(place.get_or_init(|| prepared)),
            _ => Cow::Owned(prepared),
        })
    }

    fn prepare(&self, index: usize, example: Example) -> Result<Prepared> {
        let target = self.target(index, &example.picture);
        let cut = self.transform.middle(&example.picture, target);
        let example = self.resized(index, example)?;
        Ok(Prepared { example, cut })
    }

    /// What becomes of a picture.
    fn target(&self, index: usize, picture: &Picture) -> Target {
        let (height, width) = (picture.height(), picture.width());
        match &self.buckets {
            Some(buckets) => buckets.target(index, height, width),
            None => self.transform.target(height, width),
        }
    }

    /// Height and width that a picture is brought to.
    fn size(&self, index: usize) -> [usize; 2] {
        let square = [self.transform.resolution; 2];
        self.buckets
            .as_ref()
            .map_or(square, |buckets| buckets.size(index))
    }

    fn resized(&self, index: usize, example: Example) -> Result<Example> {
        let target = self.target(index, &example.picture);
        let picture = self.transform.prepare(example.picture, target)?;
        let conditioning = example.conditioning.map(|picture| {
            let target = self.target(index, &picture);
            self.transform.prepare(picture, target)
        });
        let conditioning = conditioning.transpose()?;
        let size = |picture: &Picture| (picture.height(), picture.width());
        if let Some(other) = &conditioning
            && size(other) != size(&picture)
        {
            return Err(Error::Shape(
                "the conditioning picture has other proportions than the picture".into(),
            ));
        }
        Ok(Example {
            picture,
            conditioning,
            ..example
        })
    }

    /// Whether the cache has room for another picture, which is then taken up.
    fn has_room(&self, example: &Example) -> bool {
        let caption = example.caption.as_ref().map_or(0, String::len);
        let pixels = |picture: &Picture| picture.pixels().len();
        let shown = example.conditioning.as_ref().map_or(0, pixels);
        let bytes = (pixels(&example.picture) + shown + caption + example.attributes.len()) as u64;
        let after = |taken: u64| Some(taken + bytes).filter(|sum| *sum <= self.config.cache_bytes);
        self.cached_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, after)
            .is_ok()
    }

    /// Notes a broken picture, and warns when it is seen for the first time.
    fn note_broken(&self, index: usize, error: &Error) {
        let mut broken = self.broken();
        if broken.indices.insert(index) {
            tracing::warn!("skipping picture {index} of {}: {error}", self.dataset.name());
            broken.first_error.get_or_insert_with(|| error.to_string());
        }
    }
}

/// What one thread does in one epoch.
struct Job {
    shared: Arc<Shared>,
    cut: Arc<EpochBatches>,
    epoch: u64,
    stop: Arc<AtomicBool>,
    /// The batches of all threads, and the places of those of this one among them.
    numbers: Arc<Vec<usize>>,
    places: std::iter::StepBy<std::ops::Range<usize>>,
    sender: SyncSender<Result<Batch>>,
}

impl Job {
    fn run(mut self) {
        while let Some(place) = self.places.next() {
            let number = self.numbers[place];
            let Some(batch) = self.batch(number).transpose() else {
                return;
            };
            if self.sender.send(batch).is_err() {
                // Nobody listens any more.
                return;
            }
        }
    }

    /// The batch at `number`, or `None` if it is no longer wanted. It is empty if no picture of it could be read.
    fn batch(&self, number: usize) -> Result<Option<Batch>> {
        let Shared {
            dataset,
            transform,
            config,
            ..
        } = &*self.shared;
        let indices = self.cut.batch(number);
        let channels = transform.channels.count();
        let first = indices.first();
        let size = first.map_or([transform.resolution; 2], |&index| self.shared.size(index));
        let [height, width] = size;
        let mut batch = Batch {
            pixels: Vec::with_capacity(indices.len() * channels * height * width),
            shape: [0, channels, height, width],
            classes: dataset.class_names().map(|_| Vec::with_capacity(indices.len())),
            conditioning: None,
            captions: Vec::with_capacity(indices.len()),
            attributes: Vec::with_capacity(indices.len()),
            indices: Vec::with_capacity(indices.len()),
            sizes: Vec::with_capacity(indices.len()),
            number,
        };
        for &index in indices {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let mut generator = Generator::for_index(config.seed, self.epoch, index as u64);
            let prepared = match self.shared.cut_or_prepared(index, &mut generator) {
                Ok(prepared) => prepared,
                Err(error) if config.strict => return Err(error),
                Err(error) => {
                    self.shared.note_broken(index, &error);
                    continue;
                }
            };
            let Prepared { example, cut } = &*prepared;
            if let Some(picture) = &example.conditioning {
                // By the same numbers, so that both stay in place.
                let (pixels, _) = transform.finish(picture, *cut, size, &mut generator.clone());
                batch.conditioning.get_or_insert_default().extend(pixels);
            }
            let (pixels, cut) = transform.finish(&example.picture, *cut, size, &mut generator);
            batch.pixels.extend(pixels);
            batch.sizes.push(cut);
            if let Some(classes) = &mut batch.classes {
                classes.push(example.class.map_or(-1, |class| class as i64));
            }
            batch.captions.push(example.caption.clone());
            batch.attributes.push(example.attributes.clone());
            batch.indices.push(index);
        }
        batch.shape[0] = batch.indices.len();
        Ok(Some(batch))
    }
}

/// The batches of one epoch, in order. Dropping it stops the threads that make them.
pub struct Epoch {
    shared: Arc<Shared>,
    receivers: Vec<Receiver<Result<Batch>>>,
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    /// The place of the batch to hand out next.
    next: usize,
    batches: usize,
    delivered: usize,
    failed: Option<Error>,
}

impl Iterator for Epoch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        if let Some(error) = self.failed.take() {
            self.next = self.batches;
            self.delivered = 1;
            return Some(Err(error));
        }
        while self.next < self.batches {
            let receiver = &self.receivers[self.next % self.receivers.len()];
            self.next += 1;
            match receiver.recv() {
                Ok(Ok(batch)) if batch.indices.is_empty() => {}
                Ok(Ok(batch)) => {
                    self.delivered += 1;
                    return Some(Ok(batch));
                }
                Ok(Err(error)) => {
                    self.failed = Some(error);
                    return self.next();
                }
                // The thread ended before its work did: a decoder panicked.
                Err(_) => {
                    self.failed = Some(Error::Config(
                        "a loader thread ended before its work was done".into(),
                    ));
                    return self.next();
                }
            }
        }
        if self.delivered == 0 {
            self.delivered = 1;
            let (name, count) = (self.shared.dataset.name(), self.shared.dataset.len());
            let first = self.shared.broken().first_error.clone().unwrap_or_default();
            return Some(Err(Error::Config(format!(
                "none of the {count} pictures of {name} could be read; the first failed so: {first}"
            ))));
        }
        None
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.receivers.clear();
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing to hand over; the iterator reported it.
            _ = thread.join();
        }
    }
}

#[cfg(test)]
#[path = "loader_tests.rs"]
mod tests;
