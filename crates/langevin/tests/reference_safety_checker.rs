//! The safety checker, and the picture encoder and the image processor that it stands on, against what transformers and diffusers compute:
//! every folder under `sd/cases` whose `expected.safetensors` holds a `clip_input`.

mod support;

use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use langevin::{
    data::{Channels, Picture},
    models::{
        Checkpoint, ClipImageProcessor, ClipVisionEncoder, Model, SafetyChecker,
        clip::unit,
        weights::{self, NamedTensor, TRANSFORMERS},
    },
};
use serde_json::Value;
use support::{
    Outcome, Report, Stored, folders, largest_difference, read_json, read_tensors, reference,
    relative_difference, values, within,
};

const TOLERANCE: f64 = 1e-4;

/// The folders whose case a checker is part of, with what is expected.
fn cases() -> Vec<(PathBuf, Value)> {
    let cases = reference().join("sd/cases");
    let checks = |folder: &PathBuf| {
        let expected = folder.join("expected.safetensors");
        expected.is_file() && read_tensors(expected).contains_key("clip_input")
    };
    folders(cases)
        .into_iter()
        .filter(checks)
        .map(|folder| {
            let call = read_json(folder.join("call.json"));
            (folder, call)
        })
        .collect()
}

/// Where a component of a case is: beside its JSON, or from the folder of references.
fn component(folder: &Path, call: &Value, name: &str) -> Result<PathBuf, String> {
    let path = call["components"][name]
        .as_str()
        .ok_or(format!("the case names no {name}"))?;
    let places = [folder.join(path), reference().join(path)];
    let found = places.iter().find(|place| place.is_dir());
    found.cloned().ok_or(format!("there is no {path}"))
}

/// The pictures that were returned as the checker saw them, where they are not blackened.
fn pictures(stored: &Stored, flagged: &[bool]) -> Vec<Option<Picture>> {
    let [_, height, width, channels] = stored.shape[..] else {
        panic!("images have shape {:?}", stored.shape);
    };
    let each = stored.values.chunks_exact(height * width * channels);
    each.zip(flagged)
        .map(|(values, flagged)| {
            let pixels = values
                .iter()
                .map(|x| (x * 255.0).round_ties_even() as u8)
                .collect();
            (!flagged).then(|| Picture::new(height, width, Channels::Rgb, pixels).unwrap())
        })
        .collect()
}

fn check(folder: &Path, call: &Value) -> Result<Outcome, String> {
    let device = support::device();
    let io = read_tensors(folder.join("expected.safetensors"));
    let flagged: Vec<bool> = call["nsfw_content_detected"]
        .as_array()
        .ok_or("the case says of no picture whether it is flagged")?
        .iter()
        .map(|flag| flag.as_bool().unwrap_or_default())
        .collect();
    let checker = component(folder, call, "safety_checker")?;
    let checker_folder = checker.clone();
    let checker = SafetyChecker::load(checker, &device).map_err(|e| e.to_string())?;
    let input: Tensor<4> = io["clip_input"].tensor(&device);
    let embeddings = checker.embed(input.clone()).map_err(|e| e.to_string())?;
    let expected = io["image_embeds"].f32();
    let of_embeddings = |found: Tensor<2>| relative_difference(&values(found), &expected);
    within("image_embeds", of_embeddings(embeddings.clone()), TOLERANCE)?;
    for found in [
        checker.check(input.clone()).map_err(|e| e.to_string())?,
        checker.resemble(embeddings),
    ] {
        if found != flagged {
            return Err(format!("flagged are {found:?} where {flagged:?} is right"));
        }
    }

    // The same tower by itself.
    let encoder = ClipVisionEncoder::load(&checker_folder, &device).map_err(|e| e.to_string())?;
    let alone = encoder.encode(input).map_err(|e| e.to_string())?;
    within("the picture encoder's", of_embeddings(unit(alone)), TOLERANCE)?;

    let processor =
        ClipImageProcessor::load(component(folder, call, "feature_extractor")?).map_err(|e| e.to_string())?;
    let rows = io["clip_input"].f32();
    let row = rows.len() / flagged.len();
    for (picture, expected) in pictures(&io["images"], &flagged).iter().zip(rows.chunks(row)) {
        let Some(picture) = picture else {
            continue;
        };
        let shown = processor
            .forward(std::slice::from_ref(picture), &device)
            .map_err(|e| e.to_string())?;
        within("clip_input", largest_difference(&values(shown), expected), 1e-5)?;
    }
    Ok(Outcome::Ran)
}

#[test]
fn every_picture_is_embedded_and_flagged_the_same() {
    let mut report = Report::new();
    for (folder, call) in cases() {
        report.case(&folder.display().to_string(), check(&folder, &call));
    }
    report.finish();
}

#[test]
fn early_names_load_and_what_is_saved_loads_again() {
    let device = support::device();
    let (folder, call) = cases().into_iter().next().expect("there is no case");
    let folder = component(&folder, &call, "safety_checker").unwrap();
    let checker = SafetyChecker::load(&folder, &device).unwrap();
    let expected = weights::named_tensors(&checker);

    let saved = tempfile::tempdir().unwrap();
    checker.save(saved.path()).unwrap();
    let again = SafetyChecker::load(saved.path(), &device).unwrap();
    assert!(weights::named_tensors(&again) == expected);

    let early: Vec<NamedTensor> = expected
        .iter()
        .cloned()
        .map(|tensor| NamedTensor {
            name: match tensor.name.starts_with("vision_model.") {
                true => format!("vision_model.{}", tensor.name),
                false => tensor.name,
            },
            ..tensor
        })
        .chain([NamedTensor {
            name: "vision_model.vision_model.embeddings.position_ids".into(),
            shape: vec![1, 2],
            values: vec![0.0, 1.0],
        }])
        .collect();
    weights::write_tensors(saved.path().join("model.safetensors"), &early).unwrap();
    let mut checkpoint = Checkpoint::named(saved.path(), None, &TRANSFORMERS).unwrap();
    let loaded = SafetyChecker::with_weights(checker.config(), &mut checkpoint, &device).unwrap();
    assert!(weights::named_tensors(&loaded) == expected);
}

#[test]
fn a_flag_needs_more_than_half_a_thousandth() {
    let device = support::device();
    let (folder, call) = cases().into_iter().next().expect("there is no case");
    let folder = component(&folder, &call, "safety_checker").unwrap();
    let checker = SafetyChecker::load(&folder, &device).unwrap();
    // Towards each concept itself, which is as near as can be.
    let concepts = checker.concept_embeds.val();
    let [count, _] = concepts.dims();
    let towards = checker.resemble(unit(concepts.clone()));
    let away = checker.resemble(-unit(concepts));
    assert_eq!(towards.len(), count);
    assert!(towards.iter().any(|&flag| flag));
    assert!(away.iter().zip(&towards).any(|(away, towards)| away != towards));
}
