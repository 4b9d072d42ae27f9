//! Checkpoints of float16 and bfloat16: what draws holds their weights so, and draws the bits of the same weights in float32.

mod support;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{DType, Tensor},
};
use langevin::{
    Lora, Request,
    codec::Codec,
    data::{Channels, ImageInput, Picture},
    device::default_device,
    generate::Plan,
    guidance::Through,
    models::{AnyControl, AnyModel, Checkpoint, ImageEncoder, IpAdapter, IpAdapterModel},
    ops,
    options::{ControlInput, IpAdapterInput, LoraInput},
    pipelines::{LoadOptions, Pipeline, loaded_bytes},
    training::{Full, Latent, Trainee},
    weights::{Precision, writing},
};
use safetensors::{Dtype, SafeTensors};
use support::{call::Case, reference, values};

const HALVES: [(Precision, DType, Dtype); 2] = [
    (Precision::Float16, DType::F16, Dtype::F16),
    (Precision::Bfloat16, DType::BF16, Dtype::BF16),
];

/// All files of weights in a folder.
fn weight_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(weight_files(&path));
        } else if path
            .extension()
            .is_some_and(|extension| extension == "safetensors")
        {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// A pipeline whose weights are rounded to a type, and the same numbers in float32.
struct Both {
    folder: tempfile::TempDir,
}

impl Both {
    fn of(pipeline: &Path, precision: Precision) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let both = Self { folder };
        copy(pipeline, &both.half());
        for file in weight_files(&both.half()) {
            Checkpoint::open(&file).unwrap().save(&file, precision).unwrap();
        }
        copy(&both.half(), &both.wide());
        for file in weight_files(&both.wide()) {
            Checkpoint::open(&file)
                .unwrap()
                .save(&file, Precision::Float32)
                .unwrap();
        }
        both
    }

    fn half(&self) -> PathBuf {
        self.folder.path().join("half")
    }

    fn wide(&self) -> PathBuf {
        self.folder.path().join("wide")
    }
}

/// How many numbers a model holds of each type.
fn held(model: &impl Module) -> BTreeMap<String, usize> {
    #[derive(Default)]
    struct Held(BTreeMap<String, usize>);
    impl ModuleVisitor for Held {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.val();
            *self.0.entry(format!("{:?}", tensor.dtype())).or_default() += tensor.shape().num_elements();
        }
    }
    let mut held = Held::default();
    model.visit(&mut held);
    held.0
}

fn case() -> Case {
    Case::in_folder(&reference().join("sd/cases/pndm_negative"))
}

/// What a request of two steps comes to, pictures themselves.
fn drawn(case: &Case, folder: &Path, options: &LoadOptions, precision: ops::Precision) -> Vec<u32> {
    let device = default_device();
    let pipeline = Pipeline::load_with(folder, options, &device).unwrap();
    drawn_by(case, &pipeline, |request| Request { precision, ..request })
}

fn drawn_by(case: &Case, pipeline: &Pipeline, change: impl FnOnce(Request) -> Request) -> Vec<u32> {
    let request = Request {
        steps: Some(2),
        ..case.request(&default_device()).unwrap()
    };
    let plan = Plan::of(pipeline, &change(request)).unwrap();
    let latents = Tensor::cat(plan.samples(pipeline, &mut ()).unwrap().unwrap(), 0);
    let pictures = pipeline.codec().decode(latents).unwrap();
    values(pictures).into_iter().map(f32::to_bits).collect()
}

#[test]
fn pictures_are_those_of_float32_weights_to_the_bit() {
    let case = case();
    let whole = case.pipeline_folder();
    for (precision, dtype, _) in HALVES {
        let both = Both::of(whole.path(), precision);
        let pipeline = Pipeline::load(both.half(), &default_device()).unwrap();
        let held = held(&pipeline.model);
        let halves = held[&format!("{dtype:?}")];
        assert!(halves > 20 * held["F32"], "{held:?}");
        let options = LoadOptions::default();
        let [half, wide] = [both.half(), both.wide()].map(|folder| loaded_bytes(folder, &options).unwrap());
        assert!(half < wide * 11 / 20, "{half} of {wide} bytes");
        for products in [ops::Precision::Float32, ops::Precision::Bf16] {
            let [half, wide] =
                [both.half(), both.wide()].map(|folder| drawn(&case, &folder, &options, products));
            assert!(half == wide, "{precision} weights, {products} products");
        }
    }
}

/// A folder with these files and folders of the reference.
fn with(paths: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for path in paths {
        let from = reference().join(path);
        let to = folder.path().join(from.file_name().unwrap());
        match from.is_dir() {
            true => copy(&from, &to),
            false => drop(fs::copy(from, to).unwrap()),
        }
    }
    folder
}

/// A picture to follow, and to draw like.
fn picture() -> ImageInput {
    let pixels = (0..48 * 48 * 3).map(|i| if i / 144 % 10 < 4 { 30 } else { 220 });
    Picture::new(48, 48, Channels::Rgb, pixels.collect())
        .unwrap()
        .into()
}

#[test]
fn networks_beside_a_model_keep_their_types_too() {
    let device = default_device();
    let base = Pipeline::load(reference().join("sd/models/sd1"), &device).unwrap();
    let pictures = |pipeline: &Pipeline, change: &dyn Fn(&mut Request)| {
        let mut request = Request {
            prompt: vec!["a boat".into()],
            steps: Some(2),
            size: Some("48".parse().unwrap()),
            ..Request::default()
        };
        change(&mut request);
        let plan = Plan::of(pipeline, &request).unwrap();
        let latents = plan.samples(pipeline, &mut ()).unwrap().unwrap();
        values(Tensor::cat(latents, 0))
    };
    let plain = pictures(&base, &|_| {});
    let smaller = |[half, wide]: [u64; 2], what: &str| {
        // Positions, norms and biases are float32.
        assert!(
            half < wide * 7 / 10 && half > wide * 4 / 10,
            "{what}: {half} of {wide} bytes"
        );
    };
    for file in ["plain_sd.safetensors", "full_sd.safetensors"] {
        let adapters = with(&[&format!("ip_adapter/{file}"), "ip_adapter/image_encoder"]);
        let both = Both::of(adapters.path(), Precision::Float16);
        let folders = [both.half(), both.wide()];
        smaller(
            folders
                .clone()
                .map(|folder| IpAdapter::bytes_at(folder.join(file)).unwrap()),
            file,
        );
        let encoders = folders.clone().map(|folder| folder.join("image_encoder"));
        smaller(
            encoders.map(|folder| ImageEncoder::bytes_at(folder).unwrap()),
            "image_encoder",
        );
        let opened = IpAdapterModel::open(both.half().join(file), None, &device).unwrap();
        let held = held(opened.adapter.as_ref());
        assert!(held["F16"] > 3 * held["F32"], "{held:?}");
        let [half, wide] = folders.map(|folder| {
            pictures(&base, &|request| {
                let path = folder.join(file).display().to_string();
                request.ip_adapter = vec![IpAdapterInput::new(path, picture())];
            })
        });
        assert!(half == wide && half != plain, "{file}");
    }
    let sd2 = Pipeline::load(reference().join("sd/models/sd2"), &device).unwrap();
    for network in NETWORKS {
        let networks = with(&[network]);
        let both = Both::of(networks.path(), Precision::Float16);
        let name = Path::new(network).file_name().unwrap();
        let [half, wide] = [both.half(), both.wide()].map(|folder| folder.join(name));
        smaller(
            [&half, &wide].map(|path| AnyControl::bytes_at(path).unwrap()),
            network,
        );
        let [half, wide] = [half, wide].map(|path| {
            pictures(&sd2, &|request| {
                request.control = vec![ControlInput::new(path.to_str().unwrap(), picture())];
            })
        });
        assert!(half == wide && half != pictures(&sd2, &|_| {}), "{network}");
    }
    let adapters = with(&["t2i_adapter/models/full"]);
    let both = Both::of(adapters.path(), Precision::Float16);
    let folders = [both.half(), both.wide()].map(|folder| folder.join("full"));
    smaller(
        folders.clone().map(|path| AnyControl::bytes_at(path).unwrap()),
        "full",
    );
    let AnyControl::T2IAdapter(network) = AnyControl::open(&folders[0], &device).unwrap() else {
        panic!("it is a T2I-Adapter");
    };
    let held = held(network.as_ref());
    assert!(held["F16"] > 3 * held["F32"], "{held:?}");
    // A LoRA beside weights of 16 bits.
    let whole = Both::of(&reference().join("sd/models/sd1"), Precision::Float16);
    let [half, wide] = [whole.half(), whole.wide()].map(|folder| {
        let pipeline = Pipeline::load(folder, &device).unwrap();
        pictures(&pipeline, &|request| {
            let path = reference().join("lora/files/kohya.safetensors");
            request.loras = vec![LoraInput::new(path.display().to_string(), 0.8)];
        })
    });
    assert!(half == wide && half != plain);
}

/// Networks for the model `sd2`.
const NETWORKS: [&str; 1] = ["controlnet/models/net_a"];

#[test]
fn a_lora_moves_what_it_moves_of_float32_weights() {
    let folder = reference().join("lora/cases/kohya");
    let call = support::read_json(folder.join("call.json"));
    let file = reference().join(call["loras"][0]["file"].as_str().unwrap());
    let case = Case::in_folder(&folder);
    let folder = case.pipeline_folder();
    let both = Both::of(folder.path(), Precision::Bfloat16);
    let options = LoadOptions {
        loras: vec![Lora::new(file, 1.0)],
        ..LoadOptions::default()
    };
    let [half, wide] =
        [both.half(), both.wide()].map(|folder| drawn(&case, &folder, &options, ops::Precision::Float32));
    assert!(half == wide);
    let plain = drawn(
        &case,
        &both.half(),
        &LoadOptions::default(),
        ops::Precision::Float32,
    );
    assert!(half != plain);

    // Written, it is of the type that all of it was.
    let rounded = LoadOptions {
        rounded_loras: true,
        ..options
    };
    let written = tempfile::tempdir().unwrap();
    let pipeline = Pipeline::load_with(both.half(), &rounded, &default_device()).unwrap();
    pipeline.save(written.path()).unwrap();
    for file in weight_files(written.path()) {
        assert_eq!(types(&file), ["BF16"], "{}", file.display());
    }
}

/// The types in a file.
fn types(file: &Path) -> Vec<String> {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut types: Vec<String> = tensors
        .iter()
        .map(|(_, tensor)| format!("{:?}", tensor.dtype()))
        .collect();
    types.sort();
    types.dedup();
    types
}

/// Names, types and bytes of a file's tensors.
fn tensors(file: &Path) -> BTreeMap<String, (Dtype, Vec<u8>)> {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let entry = |(name, tensor): (&str, safetensors::tensor::TensorView<'_>)| {
        (name.to_string(), (tensor.dtype(), tensor.data().to_vec()))
    };
    tensors.iter().map(entry).collect()
}

#[test]
fn what_is_saved_has_the_type_and_the_bytes_of_what_was_loaded() {
    let folder = case().pipeline_folder();
    for (precision, _, dtype) in HALVES {
        let both = Both::of(folder.path(), precision);
        let pipeline = Pipeline::load(both.half(), &default_device()).unwrap();
        let written = tempfile::tempdir().unwrap();
        pipeline.save(written.path()).unwrap();
        for file in weight_files(written.path()) {
            let name = file.strip_prefix(written.path()).unwrap();
            let (stored, again) = (tensors(&both.half().join(name)), tensors(&file));
            assert!(again.values().all(|(of, _)| *of == dtype), "{}", name.display());
            for (key, tensor) in &again {
                assert!(stored.get(key).is_none_or(|stored| stored == tensor), "{key}");
            }
            assert!(again.keys().any(|key| stored.contains_key(key)));
        }
        // In a type of choice.
        let wide = tempfile::tempdir().unwrap();
        writing(Precision::Float32, || pipeline.save(wide.path())).unwrap();
        for file in weight_files(wide.path()) {
            let name = file.strip_prefix(wide.path()).unwrap();
            let stored = tensors(&both.wide().join(name));
            for (key, tensor) in tensors(&file) {
                assert!(stored.get(&key).is_none_or(|stored| *stored == tensor), "{key}");
            }
        }
    }
}

#[test]
fn gradients_go_through_weights_of_16_bits() {
    let case = case();
    let folder = case.pipeline_folder();
    let both = Both::of(folder.path(), Precision::Float16);
    let [half, wide] = [both.half(), both.wide()].map(|folder| {
        let pipeline = Pipeline::load(folder, &default_device()).unwrap();
        drawn_by(&case, &pipeline, |request| Request {
            guide: vec!["color:#1AE680@40".parse().unwrap()],
            guide_through: Through::Model,
            ..request
        })
    });
    assert!(half == wide);
}

#[test]
fn what_is_trained_is_float32() {
    let folder = case().pipeline_folder();
    let both = Both::of(folder.path(), Precision::Float16);
    let device = default_device();
    let pipeline = Pipeline::load(both.half(), &device).unwrap();
    let trainee = Full::new(pipeline.model.clone(), &[]);
    assert_eq!(held(&trainee).keys().collect::<Vec<_>>(), ["F32"]);
    let latent = Latent::of(&pipeline).unwrap();
    assert_eq!(held(&latent).keys().collect::<Vec<_>>(), ["F32"]);
    let model = AnyModel::load(both.half().join("unet"), &device).unwrap();
    assert_eq!(held(&model).keys().collect::<Vec<_>>(), ["F32"]);
    assert_eq!(trainee.model().num_parameters(), model.num_parameters());
}
