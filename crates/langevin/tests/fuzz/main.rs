//! Fuzz targets, one for each reader of what comes from outside.
//!
//! Each is run over its corpus, over bytes at random, and over damaged copies of the corpus, as an ordinary test of a
//! few seconds. What an input may not do is panic, take more than [`SLOWEST`], or more memory than [`most_memory`].
//! `cargo bolero test fuzz::picture` (crate cargo-bolero, nightly Rust) goes on for as long as one likes, led by
//! coverage, and its corpora are the folders `__fuzz__/TARGET/corpus` beside this file.

mod damage;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use burn::tensor::{Device, Tensor};
use langevin::{
    conditioning::EmbeddingFile,
    data::{
        self, Alpha,
        sound::{Bytes, SoundReader},
    },
    models::{AnyControl, AnyModel, IpAdapter, IpAdapterModel, weights},
    named::Named,
    weights::{
        Checkpoint, NamedTensor, Precision,
        lora::{LoraFile, LoraStyle, Targets},
        single_file::{Component, SingleFile},
        write_tensors,
    },
};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// One target runs at a time, so that the memory that is counted is its own.
static ALONE: Mutex<()> = Mutex::new(());

/// The longest that one input may take: two readings of a WebP picture of 32 MiB take some ten seconds, and machines differ.
const SLOWEST: Duration = Duration::from_secs(60);

/// The most bytes of memory that an input of so many bytes may take. A small file may be a picture of 32 MiB; its
/// decoder, and what turns it into 8 bits, may hold several times as much for a moment: 198 MiB by a TIFF whose strips
/// claim it is the most that was seen.
fn most_memory(input: usize) -> usize {
    SLABS + (256 << 20) + 256 * input
}

/// What counts as taken once the first activation and the first weight are there: a slab of each pool, of whose pages next to none
/// are.
const SLABS: usize = (256 + 64 + 2) << 20;

/// Reads `input` by `read`, and fails where it takes too much.
fn bounded(input: &[u8], read: impl FnOnce(&[u8])) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let start = Instant::now();
    read(input);
    let (took, memory) = (start.elapsed(), MEMORY.peak_usage().saturating_sub(before));
    assert!(
        took < SLOWEST,
        "{} bytes took {took:?}: they begin with {:?}",
        input.len(),
        &input[..input.len().min(40)]
    );
    assert!(
        memory < most_memory(input.len()),
        "{} bytes took {memory} bytes of memory: they begin with {:?}",
        input.len(),
        &input[..input.len().min(40)]
    );
}

/// Opens a file of these bytes as a data set and reads all of it that can be read.
fn read_file(name: &str, input: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, input).unwrap();
    read_dataset(&path);
}

fn read_dataset(path: &Path) {
    let Ok(dataset) = data::open(path.to_str().unwrap()) else {
        return;
    };
    let order = data::epoch_order(dataset.as_ref(), 0, 0);
    assert_eq!(order.len(), dataset.len());
    // A damaged count can promise many pictures that are not there; the first few say as much as all.
    for index in order.into_iter().take(64) {
        if let Ok(example) = dataset.get(index) {
            let known = dataset.class_names().map_or(0, <[String]>::len);
            assert!(example.class.is_none_or(|class| class < known));
        }
    }
}

/// Runs a target: its corpus and random bytes by bolero, then damaged copies of the corpus.
macro_rules! target {
    ($name:ident, $damaged:literal, $read:expr) => {
        #[test]
        fn $name() {
            let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
            silence_contained_panics();
            let read: fn(&[u8]) = $read;
            bolero::check!()
                .with_iterations(300)
                .with_max_len(1024)
                .for_each(|input: &[u8]| bounded(input, read));
            let corpus = corpus(stringify!($name));
            assert!(
                !corpus.is_empty(),
                "the corpus of {} is gone",
                stringify!($name)
            );
            for number in 0..$damaged {
                let input = damage::damaged(&corpus, number);
                bounded(&input, read);
            }
        }
    };
}

/// The files that a target starts from, in order.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/__fuzz__")
        .join(target)
        .join("corpus");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Contained panics are no failures, and thousands of them would hide one that is.
fn silence_contained_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !data::panics_are_contained() {
                usual(info);
            }
        }));
    });
}

target!(picture, 6000, |input| {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    fs::write(&path, input).unwrap();
    for alpha in [Alpha::White, Alpha::Drop] {
        _ = data::read_picture_with(&path, alpha);
    }
});

target!(idx, 3000, |input| read_file("a-images-idx3-ubyte", input));

target!(sound, 1000, |input| {
    // What it is, its first bytes say.
    for rate in [None, Some(22_050)] {
        let bytes = Bytes(Arc::from(input));
        let Ok(mut reader) = SoundReader::of_bytes(Path::new("a.wav"), bytes, rate) else {
            return;
        };
        // A damaged length can promise hours; the first seconds and the last say as much as all.
        let (length, second) = (reader.len(), reader.rate() as usize);
        for from in [0, length / 2, length.saturating_sub(second as u64)] {
            if let Ok(samples) = reader.read(from, second) {
                assert!(samples.iter().all(|sample| sample.is_finite()));
            }
        }
    }
});

target!(zip, 3000, |input| read_file("a.zip", input));

target!(tar, 3000, |input| read_file("a.tar", input));

target!(metadata, 2000, |input| {
    // The first byte says which of the files it is, the rest is the file.
    let Some((&kind, text)) = input.split_first() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    let png = include_bytes!("__fuzz__/picture/corpus/grey.png");
    write("a.png", png);
    match kind % 3 {
        0 => write("metadata.jsonl", text),
        1 => write("metadata.csv", text),
        _ => {
            write("metadata.jsonl", b"{\"file_name\": \"a.png\", \"label\": 0}\n");
            write("labels.json", text);
        }
    }
    read_dataset(folder.path());
});

target!(single_file, 4000, |input| {
    // A pickle is told by its first bytes, whatever it is called.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    fs::write(&path, input).unwrap();
    let Ok(file) = SingleFile::open(&path) else {
        return;
    };
    _ = file.configs();
    _ = file.model_index();
    for component in file.components() {
        if let Ok(mut weights) = file.component(component) {
            let names: Vec<String> = weights.names().map(String::from).collect();
            for name in names {
                _ = weights.read(&name);
            }
        }
    }
    _ = file.with_ema();
    _ = AnyControl::open(&path, &Device::flex());
});

target!(ip_adapter, 3000, |input| {
    // A pickle is told by its first bytes, whatever it is called.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    fs::write(&path, input).unwrap();
    let Ok(adapter) = IpAdapter::open(&path, &Device::flex()) else {
        return;
    };
    let config = adapter.config();
    assert!(!config.widths.is_empty());
    assert!(IpAdapterModel::open(&path, None, &Device::flex()).is_err());
    let seen = Tensor::zeros([1, 2, config.image_embed_dim], &Device::flex());
    let [_, _, dimension] = adapter.tokens(seen).dims();
    assert_eq!(dimension, config.cross_attention_dim);
});

target!(embedding, 3000, |input| {
    // A pickle is told by its first bytes, whatever it is called.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    fs::write(&path, input).unwrap();
    let file = EmbeddingFile { path, token: None };
    _ = file.widths();
});

target!(lora, 4000, |input| {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    fs::write(&path, input).unwrap();
    let Ok(file) = LoraFile::open(&path) else {
        return;
    };
    let unet = [
        ("down_blocks.0.resnets.0.conv1.weight", &[6, 4, 3, 3][..]),
        ("down_blocks.0.resnets.0.conv1.bias", &[6]),
        (
            "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight",
            &[6, 8],
        ),
    ];
    let text = [(
        "text_model.encoder.layers.0.self_attn.out_proj.weight",
        &[4, 4][..],
    )];
    let mut targets = Targets::default();
    targets.add(Component::Unet, unet);
    targets.add(Component::TextEncoder, text);
    for style in LoraStyle::ALL {
        let output = folder.path().join("b.safetensors");
        _ = file.rewrite(&output, *style, Some(&targets), Precision::Stored);
        _ = file.rewrite(&output, *style, None, Precision::Float16);
    }
    if let Ok(beside) = file.beside(&targets) {
        assert!(file.check_beside(&targets).is_ok());
        for module in beside.modules {
            let [outputs, columns] = match module.component {
                Component::TextEncoder => [4, 4],
                _ if module.module.ends_with("conv1") => [6, 36],
                _ => [6, 8],
            };
            let rank = module.up.len() / outputs;
            assert_eq!(
                (module.up.len(), module.down.len()),
                (rank * outputs, rank * columns)
            );
        }
    }
    let Ok(fit) = file.fit(&targets, &0.5.into()) else {
        return;
    };
    assert!(fit.modules() > 0);
    for (component, parameters) in [(Component::Unet, &unet[..]), (Component::TextEncoder, &text[..])] {
        let tensors: Vec<NamedTensor> = parameters
            .iter()
            .map(|(name, shape)| NamedTensor {
                name: (*name).into(),
                shape: shape.to_vec(),
                values: vec![0.5; shape.iter().product()],
            })
            .collect();
        let path = folder.path().join("base.safetensors");
        write_tensors(&path, &tensors).unwrap();
        let mut weights = Checkpoint::open(&path).unwrap();
        fit.apply(component, &mut weights);
        for tensor in &tensors {
            if let Ok(values) = weights.read(&tensor.name) {
                assert_eq!(values.len(), tensor.values.len());
            }
        }
    }
});

#[cfg(feature = "parquet")]
target!(parquet, 4000, |input| read_file("a.parquet", input));

#[cfg(feature = "parquet")]
target!(card, 2000, |input| {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("README.md"), input).unwrap();
    let parquet = include_bytes!("__fuzz__/parquet/corpus/small.parquet");
    fs::write(folder.path().join("train-00000-of-00001.parquet"), parquet).unwrap();
    for config in [None, Some("other")] {
        let options = data::OpenOptions {
            config: config.map(String::from),
            ..data::OpenOptions::default()
        };
        _ = data::open_with(folder.path().to_str().unwrap(), &options);
    }
});

target!(model, 4000, |input| {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    write(weights::CONFIG_NAME, input);
    // No tensor: a model is built of the configuration, and then lacks its weights.
    write(weights::FILE_NAME, b"\x02\0\0\0\0\0\0\0{}");
    assert!(AnyModel::load(folder.path(), &Device::flex()).is_err());
    assert!(AnyControl::open(folder.path(), &Device::flex()).is_err());
});
