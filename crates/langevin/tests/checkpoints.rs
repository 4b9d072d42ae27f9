//! Checkpoints of every format and year: each gives the numbers of the one that it was made from.
//!
//! Those of PyTorch and diffusers stand in `tests/checkpoints`, whose `make.py` says how they came to be; the others are
//! made here of the reference checkpoints.

mod support;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use langevin::{
    device::default_device,
    models::{Checkpoint, Conditioning, Denoiser, Model, UNet2DConfig, UNet2DModel, weights},
    pipelines::{self, Pipeline, SampleOptions},
    random::Generator,
    schedulers::{AnyScheduler, Scheduler},
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder beside this file.
fn stored(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/checkpoints")
        .join(path)
}

fn copy(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    fs::create_dir_all(to.as_ref().parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap();
}

/// The small model's configuration in a folder with nothing else.
fn bare() -> TempDir {
    let folder = TempDir::new().unwrap();
    copy(stored("plain/config.json"), folder.path().join("config.json"));
    folder
}

/// The small model's configuration with one of the pickles as its weights.
fn with_pickle(name: &str) -> TempDir {
    let folder = bare();
    copy(
        stored(&format!("pickles/{name}")),
        folder.path().join("diffusion_pytorch_model.bin"),
    );
    folder
}

fn load(folder: &Path) -> UNet2DModel {
    UNet2DModel::load(folder, &default_device()).unwrap()
}

fn refused(folder: &Path) -> String {
    let error = UNet2DModel::load(folder, &default_device())
        .expect_err("it loaded")
        .to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

/// How far the model's output is from what diffusers computed with the small model, relative to its largest value.
fn difference(model: &UNet2DModel) -> f64 {
    let io = support::read_tensors(stored("plain/io.safetensors"));
    let device = default_device();
    let timesteps =
        burn::tensor::Tensor::from_data(burn::tensor::TensorData::new(io["timestep"].f32(), [2]), &device);
    let output = model
        .denoise(io["sample"].tensor(&device), timesteps, &Conditioning::default())
        .unwrap();
    support::relative_difference(&support::values(output), &io["output"].f32())
}

#[test]
fn every_pickle_of_pytorch_gives_the_same_weights() {
    let plain = load(&stored("plain"));
    assert!(difference(&plain) < 1e-4);
    let expected = weights::named_tensors(&plain);
    for name in [
        "zip.bin",
        "legacy.bin",
        "protocol_4.bin",
        "dict.bin",
        "parameters.bin",
        "views.bin",
        "views_legacy.bin",
        // Float64 of float32, with integers beside them that no parameter is.
        "double.bin",
    ] {
        let model = load(with_pickle(name).path());
        assert!(weights::named_tensors(&model) == expected, "{name}");
    }
}

#[test]
fn half_precision_is_read_as_it_is() {
    let expected = weights::named_tensors(&load(&stored("plain")));
    let half = |x: f32| half::f16::from_f32(x).to_f32();
    let brain = |x: f32| half::bf16::from_f32(x).to_f32();
    let rounded = |round: fn(f32) -> f32| {
        let mut tensors = expected.clone();
        for x in tensors.iter_mut().flat_map(|tensor| &mut tensor.values) {
            *x = round(*x);
        }
        tensors
    };
    let of = |folder: &Path| weights::named_tensors(&load(folder));
    assert!(of(with_pickle("half.bin").path()) == rounded(half));
    assert!(of(with_pickle("bfloat16.bin").path()) == rounded(brain));
    assert!(of(&stored("sharded_fp16")) == rounded(half));
    assert!(difference(&load(&stored("sharded_fp16"))) < 1e-2);
}

#[test]
fn several_files_are_one_checkpoint() {
    let expected = weights::named_tensors(&load(&stored("plain")));
    assert!(weights::named_tensors(&load(&stored("sharded_bin"))) == expected);
    let said = Checkpoint::in_folder(stored("sharded_bin")).unwrap().to_string();
    assert!(
        said.starts_with("PyTorch pickle in") && said.ends_with("F32"),
        "{said}"
    );
    let said = Checkpoint::variant_in(stored("sharded_fp16"), Some("fp16"))
        .unwrap()
        .to_string();
    assert!(
        said.starts_with("safetensors in") && said.ends_with("F16"),
        "{said}"
    );
}

#[test]
fn a_repository_of_2022_gives_diffusers_pictures() {
    let expected = &support::read_tensors(stored("early/images.safetensors"))["images"];
    let options = SampleOptions {
        batch_size: 2,
        num_inference_steps: Some(5),
        ..SampleOptions::default()
    };
    let draw = |folder: &Path| {
        let pipeline = Pipeline::load(folder, &default_device()).unwrap();
        let pictures = pipeline.call(&options, &mut Generator::new(11)).unwrap();
        support::values(pictures)
    };
    let pictures = draw(&stored("early"));
    assert!(support::largest_difference(&pictures, &expected.f32()) <= 1.0 / 255.0);
    let said = pipelines::checkpoint(stored("early"), None).unwrap().to_string();
    assert_eq!(
        said,
        "PyTorch pickle of before 1.6, F32, early names of attention"
    );

    // Saved again, it is a pipeline of today, and draws the same.
    let folder = TempDir::new().unwrap();
    let today = folder.path().join("today");
    Pipeline::load(stored("early"), &default_device())
        .unwrap()
        .save(&today)
        .unwrap();
    assert_eq!(draw(&today), pictures);
    let said = pipelines::checkpoint(&today, None).unwrap().to_string();
    assert_eq!(said, "safetensors, F32");
    let config = support::read_json(today.join("unet/config.json"));
    assert_eq!(config["_diffusers_version"], langevin::models::DIFFUSERS_VERSION);
    assert_eq!(
        config["down_block_types"],
        json!(["DownBlock2D", "AttnDownBlock2D"])
    );
}

#[test]
fn missing_keys_take_the_values_that_diffusers_fills_in() {
    let filled_in = support::read_json(stored("early/filled_in.json"));
    let config: UNet2DConfig =
        serde_json::from_value(support::read_json(stored("early/config.json"))).unwrap();
    let scheduler = AnyScheduler::load(stored("early")).unwrap();
    let found = [
        ("unet", serde_json::to_value(config).unwrap()),
        ("scheduler", Value::Object(scheduler.to_json().unwrap())),
    ];
    for (part, found) in found {
        for (key, expected) in filled_in[part].as_object().unwrap() {
            let same = match (expected.as_f64(), found[key].as_f64()) {
                (Some(a), Some(b)) => a == b,
                // Diffusers keeps the names of 2022; they are aliases of today's here, as they are there.
                _ if key.ends_with("block_types") => continue,
                _ => *expected == found[key],
            };
            assert!(
                same,
                "{part}: {key} is {} where diffusers has {expected}",
                found[key]
            );
        }
    }
}

#[test]
fn the_index_names_the_schedulers_class() {
    let folder = TempDir::new().unwrap();
    for file in ["model_index.json", "config.json", "diffusion_pytorch_model.bin"] {
        copy(stored("early").join(file), folder.path().join(file));
    }
    let mut config = support::read_json(stored("early/scheduler_config.json"));
    config.as_object_mut().unwrap().remove("_class_name");
    fs::write(folder.path().join("scheduler_config.json"), config.to_string()).unwrap();
    let pipeline = Pipeline::load(folder.path(), &default_device()).unwrap();
    assert_eq!(pipeline.scheduler.class_name(), "DDPMScheduler");
    assert_eq!(pipeline.scheduler.num_train_timesteps(), 1000);
}

/// Tensors as they are written: type, shape and bytes by name.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn read(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.tensors().into_iter();
    tensors
        .map(|(name, view)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
        .collect()
}

fn write(tensors: &Tensors, path: &Path) {
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        let view = TensorView::new(*dtype, shape.clone(), data).unwrap();
        (name.as_str(), view)
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Splits the tensors over `count` files with an index, all named as `variant` or plainly.
fn write_sharded(tensors: &Tensors, folder: &Path, count: usize, variant: Option<&str>) {
    let mut weight_map = BTreeMap::new();
    let stem = match variant {
        Some(variant) => format!("diffusion_pytorch_model.{variant}"),
        None => "diffusion_pytorch_model".to_string(),
    };
    for part in 0..count {
        let file = format!("{stem}-{:05}-of-{count:05}.safetensors", part + 1);
        let shard: Tensors = tensors
            .iter()
            .enumerate()
            .filter(|(i, _)| i % count == part)
            .map(|(_, (name, tensor))| (name.clone(), tensor.clone()))
            .collect();
        weight_map.extend(shard.keys().map(|name| (name.clone(), file.clone())));
        write(&shard, &folder.join(file));
    }
    let index = match variant {
        Some(variant) => format!("diffusion_pytorch_model.safetensors.index.{variant}.json"),
        None => "diffusion_pytorch_model.safetensors.index.json".to_string(),
    };
    let index = folder.join(index);
    fs::write(
        index,
        json!({"metadata": {}, "weight_map": weight_map}).to_string(),
    )
    .unwrap();
}

/// The numbers in another type.
fn as_type(tensors: &Tensors, dtype: Dtype, convert: impl Fn(f32) -> Vec<u8>) -> Tensors {
    let converted = |data: &[u8]| -> Vec<u8> {
        let numbers = data.as_chunks::<4>().0.iter();
        numbers.flat_map(|b| convert(f32::from_le_bytes(*b))).collect()
    };
    tensors
        .iter()
        .map(|(name, (_, shape, data))| (name.clone(), (dtype, shape.clone(), converted(data))))
        .collect()
}

/// The tensors under the names that attention had before diffusers 0.15.
fn with_early_names(tensors: &Tensors) -> Tensors {
    let early = |name: &str| {
        [
            (".to_q.", ".query."),
            (".to_k.", ".key."),
            (".to_v.", ".value."),
            (".to_out.0.", ".proj_attn."),
        ]
        .iter()
        .fold(name.to_string(), |name, (today, then)| name.replace(today, then))
    };
    tensors
        .iter()
        .map(|(name, tensor)| (early(name), tensor.clone()))
        .collect()
}

#[test]
fn every_reference_checkpoint_survives_every_format() {
    let mut cases = 0;
    for source in support::folders("unet2d") {
        let Ok(expected) = UNet2DModel::load(&source, &default_device()) else {
            continue;
        };
        let expected = weights::named_tensors(&expected);
        let tensors = read(&source.join(weights::FILE_NAME));
        type Make = Box<dyn Fn(&Path)>;
        let plain = |folder: &Path| folder.join(weights::FILE_NAME);
        let (a, b, c, d) = (tensors.clone(), tensors.clone(), tensors.clone(), tensors.clone());
        let formats: [(&str, Make); 4] = [
            (
                "shards",
                Box::new(move |folder| write_sharded(&a, folder, 3, None)),
            ),
            (
                "shards of a variant",
                Box::new(move |folder| write_sharded(&b, folder, 2, Some("non_ema"))),
            ),
            (
                "early names",
                Box::new(move |folder| write(&with_early_names(&c), &plain(folder))),
            ),
            (
                "float64",
                Box::new(move |folder| {
                    let wide = as_type(&d, Dtype::F64, |x| f64::from(x).to_le_bytes().to_vec());
                    write(&wide, &folder.join("diffusion_pytorch_model.f64.safetensors"));
                }),
            ),
        ];
        for (format, make) in formats {
            let folder = TempDir::new().unwrap();
            copy(source.join("config.json"), folder.path().join("config.json"));
            make(folder.path());
            assert!(
                weights::named_tensors(&load(folder.path())) == expected,
                "{} as {format}",
                source.display()
            );
            cases += 1;
        }
        for (dtype, convert) in [
            (
                Dtype::F16,
                (|x| half::f16::from_f32(x).to_le_bytes().to_vec()) as fn(f32) -> Vec<u8>,
            ),
            (Dtype::BF16, |x| half::bf16::from_f32(x).to_le_bytes().to_vec()),
        ] {
            let folder = TempDir::new().unwrap();
            copy(source.join("config.json"), folder.path().join("config.json"));
            write(
                &as_type(&tensors, dtype, convert),
                &folder.path().join(weights::FILE_NAME),
            );
            for (found, expected) in weights::named_tensors(&load(folder.path())).iter().zip(&expected) {
                let rounded: Vec<f32> = expected
                    .values
                    .iter()
                    .map(|x| weights::to_f32(dtype, &convert(*x)).unwrap()[0])
                    .collect();
                assert_eq!(found.name, expected.name);
                assert!(
                    found.values == rounded,
                    "{} as {dtype:?}: {}",
                    source.display(),
                    found.name
                );
            }
            cases += 1;
        }
    }
    assert!(cases > 0);
}

#[test]
fn a_flattened_pipeline_is_the_pipeline() {
    for source in support::folders("pipelines") {
        let options = SampleOptions {
            batch_size: 1,
            num_inference_steps: Some(2),
            ..SampleOptions::default()
        };
        let draw = |folder: &Path| {
            let pipeline = Pipeline::load(folder, &default_device()).unwrap();
            (
                pipeline.class().name,
                support::values(pipeline.call(&options, &mut Generator::new(1)).unwrap()),
            )
        };
        if !source.join("unet").is_dir() || Pipeline::load(&source, &default_device()).is_err() {
            continue;
        }
        let folder = TempDir::new().unwrap();
        for file in [
            "model_index.json",
            "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors",
            "scheduler/scheduler_config.json",
        ] {
            let name = Path::new(file).file_name().unwrap();
            copy(source.join(file), folder.path().join(name));
        }
        assert_eq!(draw(folder.path()), draw(&source));
        // Even the index can be told from what lies side by side.
        fs::remove_file(folder.path().join("model_index.json")).unwrap();
        assert_eq!(draw(folder.path()), draw(&source));
    }
}

#[test]
fn a_pickle_that_asks_for_more_than_tensors_is_refused_and_not_run() {
    for (name, part) in [
        ("command.bin", "posix.system"),
        ("command_legacy.bin", "posix.system"),
        ("module.bin", "torch.nn.modules.conv.Conv2d"),
        ("number.bin", "`extra`, which is no tensor"),
        ("list.bin", "holds no state dict"),
    ] {
        let message = refused(with_pickle(name).path());
        assert!(message.contains(part), "{message}");
        assert!(message.contains("diffusion_pytorch_model.bin"), "{message}");
    }
    // What the command would have made.
    assert!(!Path::new("langevin-ran-a-pickle").exists());
}

#[test]
fn what_is_missing_among_several_files_is_named() {
    let folder = TempDir::new().unwrap();
    let copy_all = || {
        for entry in fs::read_dir(stored("sharded_fp16")).unwrap() {
            let path = entry.unwrap().path();
            copy(&path, folder.path().join(path.file_name().unwrap()));
        }
    };
    copy_all();
    let index = folder
        .path()
        .join("diffusion_pytorch_model.safetensors.index.fp16.json");
    let mut map = support::read_json(&index);
    let shard = map["weight_map"]["conv_in.bias"].as_str().unwrap().to_string();
    fs::remove_file(folder.path().join(&shard)).unwrap();
    let message = refused(folder.path());
    assert!(
        message.contains(&shard) && message.contains("not there"),
        "{message}"
    );

    copy_all();
    map["weight_map"]["conv_in.more"] = json!(shard);
    fs::write(&index, map.to_string()).unwrap();
    let message = refused(folder.path());
    assert!(message.contains("lacks conv_in.more"), "{message}");

    for outside in [
        "../secret.safetensors",
        "/etc/passwd",
        "..",
        "",
        "a/b.safetensors",
    ] {
        map["weight_map"]["conv_in.more"] = json!(outside);
        fs::write(&index, map.to_string()).unwrap();
        let message = refused(folder.path());
        assert!(message.contains("a file beside it"), "{outside}: {message}");
    }
    fs::write(&index, "{\"weight_map\": {}}").unwrap();
    assert!(refused(folder.path()).contains("names no weights"));
}

#[test]
fn a_folder_without_weights_says_what_should_be_there() {
    let message = refused(bare().path());
    assert!(
        message.contains("diffusion_pytorch_model.safetensors"),
        "{message}"
    );
    let message = match Checkpoint::variant_in(stored("sharded_fp16"), Some("bf16")) {
        Ok(_) => panic!("there is no such variant"),
        Err(error) => error.to_string(),
    };
    assert!(
        message.contains("`bf16`") && message.contains("fp16;"),
        "{message}"
    );
}

#[test]
fn broken_pickles_are_refused() {
    // A file that is cut anywhere is not whole.
    for name in ["zip.bin", "legacy.bin"] {
        let bytes = fs::read(stored(&format!("pickles/{name}"))).unwrap();
        for percent in [0, 1, 10, 50, 90, 99] {
            let folder = bare();
            let path = folder.path().join("diffusion_pytorch_model.bin");
            fs::write(&path, &bytes[..bytes.len() * percent / 100]).unwrap();
            let message = refused(folder.path());
            assert!(message.contains("diffusion_pytorch_model.bin"), "{message}");
        }
    }
    // A changed number in the archive is found by its checksum.
    let folder = with_pickle("zip.bin");
    let path = folder.path().join("diffusion_pytorch_model.bin");
    let mut bytes = fs::read(&path).unwrap();
    let entry = b"zip/data/0";
    let at = bytes
        .windows(entry.len())
        .position(|window| window == entry)
        .unwrap();
    bytes[at + 80] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(refused(folder.path()).contains("not whole"));
    // A type that is no real number, where a parameter should be.
    let message = refused(with_pickle("integer.bin").path());
    assert!(message.contains("conv_in.bias is stored as I64"), "{message}");
    // What a clone without Git LFS has.
    let folder = bare();
    fs::write(
        folder.path().join("diffusion_pytorch_model.bin"),
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    )
    .unwrap();
    assert!(refused(folder.path()).contains("git lfs pull"));
}

#[test]
fn every_changed_byte_of_a_pickle_is_a_value_or_an_error() {
    // Whatever stands in a pickle: no panic, no hang, no memory that the file does not account for.
    let bytes = fs::read(stored("pickles/command_legacy.bin")).unwrap();
    let folder = bare();
    let path = folder.path().join("diffusion_pytorch_model.bin");
    for at in 0..bytes.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= change;
            fs::write(&path, changed).unwrap();
            let _ = Checkpoint::open(&path);
        }
    }
    assert!(!Path::new("langevin-ran-a-pickle").exists());
}
