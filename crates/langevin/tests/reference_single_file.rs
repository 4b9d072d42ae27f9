//! Single files in the original layout against diffusers' folders of the same weights: every component's names, shapes and bits, of safetensors and of
//! pickles, and the file again that is written of them. Every folder of `single_file`, by its `case.json`.

mod support;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use langevin::weights::{
    Checkpoint, Precision,
    single_file::{self, Component, Kind, Markers, SingleFile},
};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use support::{Outcome, Report, folders, read_json};

/// Tensors by their names: type, shape and bytes.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn read(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.tensors().into_iter();
    tensors
        .map(|(name, view)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
        .collect()
}

/// A component as it is written into a folder, in the types that the file has.
fn saved(file: &SingleFile, component: Component) -> Result<Tensors, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("component.safetensors");
    let weights = file.component(component).map_err(|e| e.to_string())?;
    weights
        .save(&path, Precision::Stored)
        .map_err(|e| e.to_string())?;
    Ok(read(&path))
}

/// Where the weights of a component of a folder of diffusers lie: in a folder of its name, or where the folder is the component.
fn weights_of(folder: &Path, component: Component) -> PathBuf {
    let own = folder.join(component.to_string());
    let folder = if own.is_dir() { own } else { folder.to_path_buf() };
    let name = match component {
        Component::TextEncoder | Component::TextEncoder2 => "model.safetensors",
        _ => "diffusion_pytorch_model.safetensors",
    };
    folder.join(name)
}

/// A component as diffusers has it. transformers writes the names of text encoders with and without that of the model within.
fn expected(path: &Path, component: Component) -> Tensors {
    let name = |name: String| {
        let is_bare = component == Component::TextEncoder && !name.starts_with("text_model.");
        if is_bare {
            format!("text_model.{name}")
        } else {
            name
        }
    };
    read(path)
        .into_iter()
        .map(|(key, tensor)| (name(key), tensor))
        .collect()
}

/// Numbers in 16 bits, as the pickles hold those of which the folder has 32.
fn halved(tensors: Tensors) -> Tensors {
    let half = |(name, (dtype, shape, data)): (String, (Dtype, Vec<usize>, Vec<u8>))| {
        if dtype != Dtype::F32 {
            return (name, (dtype, shape, data));
        }
        let numbers = data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
        let data = numbers
            .flat_map(|x| half::f16::from_f32(x).to_le_bytes())
            .collect();
        (name, (Dtype::F16, shape, data))
    };
    tensors.into_iter().map(half).collect()
}

/// What differs between tensors.
fn compare(found: &Tensors, expected: &Tensors) -> Result<(), String> {
    for (name, tensor) in expected {
        let found = found.get(name).ok_or_else(|| format!("{name} is missing"))?;
        if (found.0, &found.1) != (tensor.0, &tensor.1) {
            return Err(format!(
                "{name} is {:?} {:?}, not {:?} {:?}",
                found.0, found.1, tensor.0, tensor.1
            ));
        }
        if found.2 != tensor.2 {
            return Err(format!("{name} has other numbers"));
        }
    }
    match found.keys().find(|name| !expected.contains_key(*name)) {
        Some(name) => Err(format!("{name} is one too many")),
        None => Ok(()),
    }
}

/// The components that a case has, with how many tensors each.
fn components(case: &Value) -> Vec<(Component, usize)> {
    let entries = case["components"].as_object().unwrap().iter();
    entries
        .map(|(name, count)| (name.parse().unwrap(), count.as_u64().unwrap() as usize))
        .collect()
}

/// The kinds that are told of a case; widths as small as these do not tell 512 pixels from 768.
fn kind(case: &Value) -> Kind {
    match case["kind"].as_str().unwrap() {
        "inpaint" => Kind::Sd1Inpaint,
        other => other.parse().unwrap(),
    }
}

/// Holds every component of a file to the folder's.
fn check_components(file: &SingleFile, case: &Value, folder: &Path, half: bool) -> Result<Outcome, String> {
    if file.kind() != kind(case) {
        return Err(format!("is of the kind {}", file.kind()));
    }
    let there = file.components();
    let wanted = components(case);
    if there.len() != wanted.len() {
        return Err(format!("holds {there:?}"));
    }
    for (component, count) in wanted {
        let found = saved(file, component)?;
        if found.len() != count {
            return Err(format!("{component} has {} tensors, not {count}", found.len()));
        }
        let mut expected = expected(&weights_of(folder, component), component);
        if half {
            expected = halved(expected);
        }
        compare(&found, &expected).map_err(|e| format!("{component}: {e}"))?;
        // And as a model reads them.
        let mut weights = file.component(component).unwrap();
        for (name, (dtype, shape, data)) in &expected {
            assert_eq!(&weights.get(name).unwrap().shape, shape);
            let numbers = langevin::weights::to_f32(*dtype, data).unwrap();
            if weights.read(name).map_err(|e| e.to_string())? != numbers {
                return Err(format!("{component}: {name} reads as other numbers"));
            }
        }
    }
    Ok(Outcome::Ran)
}

/// Whether a tensor of a file is none of a component's.
fn is_ignored(name: &str, kind: Kind) -> bool {
    let in_version_2 = [".resblocks.23.", "text_projection"];
    let in_all = ["position_ids", "logit_scale", "alphas", "betas", "model_ema."];
    in_all.iter().any(|part| name.contains(part))
        || kind == Kind::Sd2 && in_version_2.iter().any(|part| name.contains(part))
}

/// Writes the components of a folder as a file, and holds it to the original one.
fn check_written(original: &Path, case: &Value, folder: &Path) -> Result<Outcome, String> {
    let weights: Vec<(Component, Checkpoint)> = components(case)
        .into_iter()
        .map(|(component, _)| {
            (
                component,
                Checkpoint::open(weights_of(folder, component)).unwrap(),
            )
        })
        .collect();
    let weights: Vec<(Component, &Checkpoint)> = weights.iter().map(|(c, w)| (*c, w)).collect();
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("written.safetensors");
    single_file::write(&path, kind(case), &weights, Markers::default(), Precision::Stored)
        .map_err(|e| e.to_string())?;
    let mut expected = read(original);
    expected.retain(|name, _| !is_ignored(name, kind(case)));
    compare(&read(&path), &expected)?;
    // Read again, it is the same folder.
    let again = SingleFile::open(&path).map_err(|e| e.to_string())?;
    check_components(&again, case, folder, false)
}

/// Holds the moving average to the one that diffusers takes.
fn check_ema(path: &Path, expected: &Path) -> Result<Outcome, String> {
    let file = SingleFile::open(path)
        .and_then(SingleFile::with_ema)
        .map_err(|e| e.to_string())?;
    compare(&saved(&file, Component::Unet)?, &read(expected))?;
    Ok(Outcome::Ran)
}

#[test]
fn every_component_has_diffusers_names_and_bits() {
    let mut report = Report::new();
    for folder in folders("single_file") {
        let case = read_json(folder.join("case.json"));
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let diffusers = folder.join(case["diffusers"].as_str().unwrap());
        let check = |file: &Value, half: bool| {
            let path = folder.join(file.as_str().unwrap());
            let opened = SingleFile::open(&path).map_err(|e| e.to_string());
            opened.and_then(|file| check_components(&file, &case, &diffusers, half))
        };
        report.case(&name, check(&case["file"], false));
        if case["bare"].is_string() {
            report.case(&format!("{name} without its prefix"), check(&case["bare"], false));
        }
        for pickle in ["ckpt", "lightning"] {
            if case[pickle]["file"].is_string() {
                report.case(
                    &format!("{name} as a {pickle}"),
                    check(&case[pickle]["file"], true),
                );
            }
        }
        let original = folder.join(case["file"].as_str().unwrap());
        report.case(
            &format!("{name} written"),
            check_written(&original, &case, &diffusers),
        );
        if let Some(ema) = case["ckpt"]["with_ema"].as_str() {
            // The file's name is followed by what it is.
            let expected = folder.join(ema.split(':').next().unwrap());
            let path = folder.join(case["ckpt"]["file"].as_str().unwrap());
            report.case(&format!("{name}'s average"), check_ema(&path, &expected));
        }
    }
    report.finish();
}

/// What shapes do not tell: of models as narrow as these neither heads nor groups nor the size of samples.
const UNTOLD: [&str; 9] = [
    "upcast_attention",
    "attention_head_dim",
    "norm_num_groups",
    "sample_size",
    "num_attention_heads",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "projection_dim",
];
/// What others write about themselves.
const ABOUT: [&str; 3] = ["_diffusers_version", "transformers_version", "dtype"];

#[test]
fn every_configuration_is_diffusers_as_far_as_a_file_tells_it() {
    let mut report = Report::new();
    for folder in folders("single_file") {
        let case = read_json(folder.join("case.json"));
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let diffusers = folder.join(case["diffusers"].as_str().unwrap());
        let file = SingleFile::open(folder.join(case["file"].as_str().unwrap())).unwrap();
        let configs = match file.configs() {
            Ok(configs) => configs,
            Err(e) => {
                report.case(&name, Err(e.to_string()));
                continue;
            }
        };
        for (component, found) in &configs {
            let own = diffusers.join(component);
            let own = if own.is_dir() { own } else { diffusers.clone() };
            let path = if *component == "scheduler" {
                "scheduler_config.json"
            } else {
                "config.json"
            };
            let outcome = same_config(found, &read_json(own.join(path)));
            report.case(&format!("{name}: {component}"), outcome.map(|()| Outcome::Ran));
        }
        if let Some(index) = file.model_index() {
            let outcome = same_config(&index, &read_json(diffusers.join("model_index.json")));
            report.case(&format!("{name}: index"), outcome.map(|()| Outcome::Ran));
        }
    }
    report.finish();
}

fn same_config(found: &Value, expected: &Value) -> Result<(), String> {
    let passed_over = |key: &str| UNTOLD.contains(&key) || ABOUT.contains(&key);
    for (key, expected) in expected.as_object().unwrap() {
        let same = match (found[key].as_f64(), expected.as_f64()) {
            (Some(a), Some(b)) => a == b,
            _ => found[key] == *expected,
        };
        if !same && !passed_over(key) {
            return Err(format!("{key} is {}, not {expected}", found[key]));
        }
    }
    match found
        .as_object()
        .unwrap()
        .keys()
        .find(|key| expected.get(key.as_str()).is_none())
    {
        Some(key) => Err(format!("{key} is one too many")),
        None => Ok(()),
    }
}

/// The picture that a case's folder draws: its weights are the file's, to the bit.
#[test]
fn pipelines_give_diffusers_pictures() {
    let mut report = Report::new();
    for folder in folders("single_file") {
        let case = read_json(folder.join("case.json"));
        if !case["call"].is_object() || !folder.join("expected.safetensors").is_file() {
            continue;
        }
        let mut call = case["call"].clone();
        call["model"] = case["diffusers"].clone();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        report.case(&name, support::call::Case::of(&folder, call).compare());
    }
    report.finish();
}
