//! CLIP folders that are not what they should be: each a sentence that names the file.

use std::{fs, path::Path};

use langevin::{
    device::default_device,
    models::{
        ClipVisionEncoder, Model, SafetyChecker,
        clip::{ClipImageProcessor, ClipModel, ClipTokenizer},
    },
};
use serde_json::{Value, json};

/// A copy of the tiny CLIP, whose configuration `change` changes.
fn altered(change: impl Fn(&mut Value)) -> tempfile::TempDir {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/conditional/clip");
    let folder = tempfile::tempdir().unwrap();
    fs::copy(
        tiny.join("model.safetensors"),
        folder.path().join("model.safetensors"),
    )
    .unwrap();
    let mut config: Value = serde_json::from_slice(&fs::read(tiny.join("config.json")).unwrap()).unwrap();
    change(&mut config);
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

fn refused(folder: &Path) -> String {
    ClipModel::load(folder, &default_device())
        .unwrap_err()
        .to_string()
}

#[test]
fn another_projection_size() {
    let folder = altered(|config| config["projection_dim"] = json!(48));
    let message = refused(folder.path());
    assert!(
        message.contains("model.safetensors") && message.contains("projection_dim 48"),
        "{message}"
    );
}

#[test]
fn heads_that_do_not_divide_the_width() {
    let folder = altered(|config| config["text_config"]["num_attention_heads"] = json!(5));
    assert!(refused(folder.path()).contains("num_attention_heads 5"));
}

#[test]
fn weights_of_another_model() {
    let folder = altered(|config| config["vision_config"]["num_hidden_layers"] = json!(4));
    assert!(refused(folder.path()).contains("vision_model.encoder.layers.3"));
}

#[test]
fn a_model_that_is_no_clip() {
    let folder = altered(|config| config["model_type"] = json!("siglip"));
    assert!(refused(folder.path()).contains("siglip"));
}

#[test]
fn missing_files() {
    let empty = tempfile::tempdir().unwrap();
    assert!(refused(empty.path()).contains("config.json"));
    assert!(refused(&empty.path().join("nowhere")).contains("no such"));
    let folder = altered(|_| {});
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    assert!(refused(folder.path()).contains("model.safetensors"));
    let message = ClipTokenizer::load(empty.path()).unwrap_err().to_string();
    assert!(message.contains("vocab.json"), "{message}");
}

#[test]
fn texts_without_a_tokenizer() {
    let clip = ClipModel::load(altered(|_| {}).path(), &default_device()).unwrap();
    assert!(
        clip.encode_text(&["a rose"])
            .unwrap_err()
            .to_string()
            .contains("no tokenizer")
    );
}

#[test]
fn a_file_that_is_no_open_clip() {
    let tiny =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/conditional/clip/model.safetensors");
    assert!(refused(&tiny).contains("open_clip"));
}

/// A copy of the tiny safety checker, whose configuration `change` changes.
fn checker(change: impl Fn(&mut Value)) -> tempfile::TempDir {
    let tiny =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/sd/models/sd1_safe/safety_checker");
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("model.safetensors");
    fs::copy(tiny.join("model.safetensors"), weights).unwrap();
    let mut config: Value = serde_json::from_slice(&fs::read(tiny.join("config.json")).unwrap()).unwrap();
    change(&mut config);
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

#[test]
fn bad_configurations_of_a_safety_checker_and_of_a_picture_encoder() {
    for (key, value, part) in [
        ("projection_dim", json!(0), "projection_dim is 0"),
        ("projection_dim", json!(1_u64 << 50), "must be from 1 to"),
        ("projection_dim", json!(17), "where the configuration makes"),
        ("vision_config", json!(7), "config.json"),
    ] {
        let folder = checker(|config| config[key] = value.clone());
        let device = default_device();
        let errors = [
            SafetyChecker::load(folder.path(), &device).map(|_| ()),
            ClipVisionEncoder::load(folder.path(), &device).map(|_| ()),
        ];
        for error in errors {
            let error = error.unwrap_err().to_string();
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
    }
    for (key, value, part) in [
        ("patch_size", json!(25), "patch_size is 25"),
        ("num_hidden_layers", json!(3), "vision_model.encoder.layers.2"),
        ("num_channels", json!(0), "num_channels is 0"),
        ("image_size", json!(1_u64 << 40), "image_size is"),
        ("num_attention_heads", json!(5), "num_attention_heads 5"),
    ] {
        let folder = checker(|config| config["vision_config"][key] = value.clone());
        let error = SafetyChecker::load(folder.path(), &default_device()).unwrap_err();
        assert!(error.to_string().contains(part), "`{part}` is not in: {error}");
    }
}

#[test]
fn a_folder_without_an_image_processor() {
    let folder = tempfile::tempdir().unwrap();
    let error = ClipImageProcessor::load(folder.path()).unwrap_err().to_string();
    assert!(error.contains("preprocessor_config.json"), "{error}");
    fs::write(folder.path().join("preprocessor_config.json"), "{\"size\": -1}").unwrap();
    let error = ClipImageProcessor::load(folder.path()).unwrap_err().to_string();
    assert!(error.contains("preprocessor_config.json"), "{error}");
}
