//! What a loader promises: order, purity, bounded running ahead, broken pictures left out.

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::data::{Channels, Crop, Picture, digits};

/// Pictures of one value, of which some are broken, that count how often they are read.
struct Fake {
    count: usize,
    broken: fn(usize) -> bool,
    reads: AtomicUsize,
    /// Whether each picture is its own conditioning picture.
    shown: bool,
}

impl Fake {
    fn new(count: usize, broken: fn(usize) -> bool) -> Arc<Self> {
        Arc::new(Self {
            count,
            broken,
            reads: AtomicUsize::new(0),
            shown: false,
        })
    }
}

impl Dataset for Fake {
    fn len(&self) -> usize {
        self.count
    }

    fn get(&self, index: usize) -> Result<Example> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if (self.broken)(index) {
            return Err(Error::file(format!("{index}.png"), "is broken"));
        }
        let picture = Picture::new(2, 3, Channels::Grey, (0..6).map(|i| (index + i) as u8).collect())?;
        Ok(Example {
            conditioning: self.shown.then(|| picture.clone()),
            picture,
            class: Some(index % 2),
            caption: Some(index.to_string()),
            attributes: vec![index.is_multiple_of(3)],
        })
    }

    fn class_names(&self) -> Option<&[String]> {
        None
    }

    fn name(&self) -> &str {
        "fake"
    }

    fn description(&self) -> String {
        "fake".into()
    }
}

fn transform() -> Transform {
    Transform {
        channels: Channels::Grey,
        crop: Crop::Random,
        random_flip: true,
        ..Transform::new(2)
    }
}

fn loader(dataset: Arc<dyn Dataset>, config: LoaderConfig) -> Loader {
    Loader::new(dataset, transform(), config).unwrap()
}

fn batches(loader: &Loader, epoch: u64) -> Vec<Batch> {
    loader.epoch(epoch).map(Result::unwrap).collect()
}

#[test]
fn conditioning_pictures_are_cropped_and_mirrored_as_theirs_are() {
    let mut fake = Fake::new(30, |_| false);
    Arc::get_mut(&mut fake).unwrap().shown = true;
    let batches = batches(&loader(fake, LoaderConfig::default()), 3);
    assert_eq!(batches.len(), 2);
    for batch in batches {
        assert_eq!(batch.conditioning.as_ref(), Some(&batch.pixels));
    }
}

#[test]
fn threads_and_caching_change_nothing() {
    let make = |workers, cache| {
        let config = LoaderConfig {
            batch_size: 7,
            workers,
            cache_bytes: if cache { u64::MAX } else { 0 },
            seed: 3,
            ..LoaderConfig::default()
        };
        loader(Fake::new(50, |_| false), config)
    };
    let plain = make(1, false);
    let cached = make(3, true);
    for epoch in 0..3 {
        let expected = batches(&plain, epoch);
        assert_eq!(expected.len(), 8);
        assert_eq!(batches(&make(4, false), epoch), expected);
        assert_eq!(batches(&cached, epoch), expected);
    }
    assert_ne!(batches(&plain, 0), batches(&plain, 1));
}

#[test]
fn every_picture_comes_once_in_the_epochs_order() {
    let loader = loader(
        Fake::new(20, |_| false),
        LoaderConfig {
            batch_size: 6,
            ..LoaderConfig::default()
        },
    );
    let batches = batches(&loader, 5);
    assert_eq!(
        batches.iter().map(|b| b.shape).collect::<Vec<_>>(),
        [[6, 1, 2, 2], [6, 1, 2, 2], [6, 1, 2, 2], [2, 1, 2, 2]]
    );
    let mut seen: Vec<usize> = batches.iter().flat_map(|b| b.indices.clone()).collect();
    assert_eq!(seen, loader.order(5));
    assert_ne!(seen, loader.order(6));
    seen.sort_unstable();
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
    assert_eq!(batches[0].captions[0], Some(batches[0].indices[0].to_string()));
}

#[test]
fn a_pictures_crop_depends_on_seed_epoch_and_index_only() {
    let dataset = Fake::new(9, |_| false);
    let loader = loader(
        dataset.clone(),
        LoaderConfig {
            batch_size: 4,
            seed: 11,
            ..LoaderConfig::default()
        },
    );
    for batch in batches(&loader, 2) {
        for (pixels, &index) in batch.pixels.chunks(4).zip(&batch.indices) {
            let picture = dataset.get(index).unwrap().picture;
            let mut generator = Generator::for_index(11, 2, index as u64);
            assert_eq!(pixels, transform().apply(picture, &mut generator).unwrap());
        }
    }
}

#[test]
fn broken_pictures_are_left_out_and_counted_once() {
    let config = LoaderConfig {
        batch_size: 2,
        shuffle: false,
        workers: 2,
        ..LoaderConfig::default()
    };
    // The second batch is broken as a whole, the third in part.
    let loader = loader(Fake::new(6, |i| (2..5).contains(&i)), config);
    for epoch in 0..2 {
        let indices: Vec<_> = batches(&loader, epoch).into_iter().map(|b| b.indices).collect();
        assert_eq!(indices, [vec![0, 1], vec![5]]);
        assert_eq!(loader.skipped(), 3);
    }
}

#[test]
fn an_epoch_of_nothing_is_one_error() {
    let loader = loader(
        Fake::new(5, |_| true),
        LoaderConfig {
            batch_size: 2,
            workers: 1,
            ..LoaderConfig::default()
        },
    );
    let mut epoch = loader.epoch(0);
    let error = epoch.next().unwrap().unwrap_err().to_string();
    assert!(
        error.contains("none of the 5 pictures of fake") && error.contains("is broken"),
        "{error}"
    );
    assert!(epoch.next().is_none());
}

#[test]
fn a_panicking_decoder_is_an_error_and_not_the_end() {
    let loader = loader(
        Fake::new(4, |i| if i == 2 { panic!("on purpose") } else { false }),
        LoaderConfig {
            batch_size: 1,
            workers: 1,
            shuffle: false,
            ..LoaderConfig::default()
        },
    );
    let results: Vec<_> = loader.epoch(0).collect();
    assert_eq!(results.len(), 3);
    assert!(results[..2].iter().all(Result::is_ok) && results[2].is_err());
}

#[test]
fn threads_run_ahead_by_a_bounded_number_of_batches_and_stop_when_dropped() {
    let dataset = Fake::new(10_000, |_| false);
    let config = LoaderConfig {
        batch_size: 10,
        workers: 2,
        prefetch: 2,
        ..LoaderConfig::default()
    };
    let loader = loader(dataset.clone(), config);
    let mut epoch = loader.epoch(0);
    epoch.next().unwrap().unwrap();
    thread::sleep(std::time::Duration::from_millis(100));
    // Handed out: 1. Each of two threads: 2 waiting and 1 in the making.
    let reads = dataset.reads.load(Ordering::SeqCst);
    assert!(reads <= 70, "{reads} pictures were read");
    drop(epoch);
    let after = dataset.reads.load(Ordering::SeqCst);
    thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(dataset.reads.load(Ordering::SeqCst), after);
}

#[test]
fn the_cache_reads_each_picture_once() {
    let dataset = Fake::new(30, |_| false);
    let loader = loader(
        dataset.clone(),
        LoaderConfig {
            cache_bytes: u64::MAX,
            ..LoaderConfig::default()
        },
    );
    for epoch in 0..3 {
        batches(&loader, epoch);
    }
    assert_eq!(dataset.reads.load(Ordering::SeqCst), 30);
}

#[test]
fn a_cache_that_is_too_small_keeps_what_fits() {
    let dataset = Fake::new(30, |_| false);
    // Six grey pixels and a caption of one or two letters a picture.
    let config = LoaderConfig {
        cache_bytes: 80,
        ..LoaderConfig::default()
    };
    let small = loader(dataset.clone(), config);
    let plain = loader(dataset.clone(), LoaderConfig::default());
    for epoch in 0..2 {
        assert_eq!(batches(&small, epoch), batches(&plain, epoch));
    }
    let before = dataset.reads.load(Ordering::SeqCst);
    batches(&small, 2);
    let read_again = dataset.reads.load(Ordering::SeqCst) - before;
    assert!((19..=21).contains(&read_again), "{read_again}");
    assert!(small.cache_note().unwrap().contains("room for 0.1 kB"));
    assert_eq!(plain.cache_note(), None);
}

#[test]
fn a_strict_loader_ends_at_the_first_broken_picture() {
    let config = LoaderConfig {
        batch_size: 2,
        shuffle: false,
        strict: true,
        workers: 2,
        ..LoaderConfig::default()
    };
    let results: Vec<_> = loader(Fake::new(10, |i| i == 5 || i == 8), config)
        .epoch(0)
        .collect();
    assert_eq!(results.len(), 3);
    let error = results[2].as_ref().unwrap_err().to_string();
    assert!(error.contains("5.png"), "{error}");
}

#[test]
fn the_last_batch_may_be_dropped() {
    let config = LoaderConfig {
        batch_size: 4,
        drop_last: true,
        ..LoaderConfig::default()
    };
    assert_eq!(batches(&loader(Fake::new(10, |_| false), config), 0).len(), 2);
    assert!(Loader::new(Fake::new(3, |_| false), transform(), config).is_err());
    assert!(Loader::new(Fake::new(0, |_| false), transform(), LoaderConfig::default()).is_err());
    let zero = LoaderConfig {
        batch_size: 0,
        ..LoaderConfig::default()
    };
    assert!(Loader::new(Fake::new(3, |_| false), transform(), zero).is_err());
}

#[test]
fn digits_come_with_their_classes() {
    let digits = Arc::new(digits().unwrap());
    let transform = Transform {
        channels: Channels::Grey,
        ..Transform::new(8)
    };
    let loader = Loader::new(
        digits.clone(),
        transform,
        LoaderConfig {
            batch_size: 64,
            ..LoaderConfig::default()
        },
    );
    let batch = loader.unwrap().epoch(0).next().unwrap().unwrap();
    for (i, &index) in batch.indices.iter().enumerate() {
        let example = digits.get(index).unwrap();
        assert_eq!(batch.classes.as_ref().unwrap()[i], example.class.unwrap() as i64);
        assert_eq!(batch.pixels[i * 64..][..64], example.picture.to_chw());
    }
}
