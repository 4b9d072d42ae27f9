//! Depth estimators and what prepares their pictures, where they are not what they should be: each a sentence.

use std::{fs, path::Path};

use burn::tensor::Tensor;
use langevin::{
    device::default_device,
    models::{ClipImageProcessor, DptForDepthEstimation, Model},
};
use serde_json::{Value, json};

fn stored(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/reference/sd/depth")
        .join(name)
}

/// A copy of a tiny estimator, whose configuration is changed in one place.
fn refused(name: &str, path: &str, value: Value) -> String {
    let (stored, folder) = (stored(name), tempfile::tempdir().unwrap());
    let weights = "model.safetensors";
    fs::copy(stored.join(weights), folder.path().join(weights)).unwrap();
    let text = fs::read(stored.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&text).unwrap();
    *config.pointer_mut(path).unwrap() = value;
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    DptForDepthEstimation::load(folder.path(), &default_device())
        .unwrap_err()
        .to_string()
}

#[test]
fn configurations_that_make_no_estimator_are_refused() {
    for (name, path, value, part) in [
        ("dpt", "/num_attention_heads", json!(5), "num_attention_heads 5"),
        (
            "dpt",
            "/num_attention_heads",
            json!(0),
            "num_attention_heads is 0",
        ),
        (
            "dpt",
            "/num_hidden_layers",
            json!(1_u64 << 40),
            "must be from 1 to 256",
        ),
        ("dpt", "/patch_size", json!(65), "patch_size is 65"),
        ("dpt", "/layer_norm_eps", json!(0.0), "layer_norm_eps"),
        (
            "dpt",
            "/backbone_out_indices",
            json!([0, 1, 3, 9]),
            "below the 5 layers",
        ),
        ("dpt", "/backbone_out_indices", json!([3, 1, 0, 4]), "must rise"),
        ("dpt", "/neck_hidden_sizes", json!([8, 8]), "from 3 to 16"),
        (
            "dpt",
            "/reassemble_factors",
            json!([4, 2, 1, 0]),
            "reassemble_factors",
        ),
        (
            "dpt",
            "/reassemble_factors",
            json!([4, 2, 1, 1e9]),
            "reassemble_factors",
        ),
        (
            "dpt",
            "/reassemble_factors",
            json!([4, 2, 1, -0.5]),
            "reassemble_factors",
        ),
        ("dpt", "/fusion_hidden_size", json!(1), "fusion_hidden_size is 1"),
        ("dpt", "/head_in_index", json!(0), "head_in_index"),
        ("dpt", "/readout_type", json!("shout"), "shout"),
        ("dpt", "/fusion_hidden_size", json!(16), "has shape"),
        ("dpt", "/is_hybrid", json!(true), "hybrid"),
        (
            "dpt_hybrid",
            "/is_hybrid",
            json!(false),
            "not hybrid is not there yet",
        ),
        ("dpt_hybrid", "/patch_size", json!(8), "patch_size 16"),
        ("dpt_hybrid", "/backbone_config/model_type", json!("swin"), "swin"),
        ("dpt_hybrid", "/backbone_config/num_groups", json!(3), "3 groups"),
        (
            "dpt_hybrid",
            "/backbone_config/depths",
            json!([1, 2, 2, 2]),
            "3 stages",
        ),
        ("dpt_hybrid", "/backbone_config/depths", json!([1, 2, 3]), "lacks"),
        (
            "dpt_hybrid",
            "/backbone_config/layer_type",
            json!("preactivation"),
            "bottleneck",
        ),
    ] {
        let error = refused(name, path, value);
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

#[test]
fn pictures_of_other_sizes_and_channels_are_refused() {
    let device = default_device();
    for (name, shape, part) in [
        ("dpt_hybrid", [1, 3, 80, 64], "64x64"),
        ("dpt_hybrid", [1, 1, 64, 64], "3 channels"),
        ("dpt", [1, 3, 8, 64], "16x16"),
    ] {
        let estimator = DptForDepthEstimation::load(stored(name), &device).unwrap();
        let error = estimator.forward(Tensor::zeros(shape, &device)).unwrap_err();
        assert!(error.to_string().contains(part), "`{part}` is not in: {error}");
    }
    // Without the convolutional part any size of whole patches will do: 5 by 3 of them, halved to 3 by 2 and doubled five times.
    let estimator = DptForDepthEstimation::load(stored("dpt"), &device).unwrap();
    let depths = estimator.forward(Tensor::zeros([1, 3, 80, 48], &device)).unwrap();
    assert_eq!(depths.dims(), [1, 1, 96, 64]);
}

#[test]
fn a_processor_that_does_something_else_is_refused() {
    for (value, part) in [
        (json!({"do_pad": true}), "do_pad"),
        (json!({"ensure_multiple_of": 0}), "ensure_multiple_of is 0"),
        (json!({"size": {"height": 0, "width": 64}}), "one is 0"),
        (
            json!({"image_processor_type": "BitImageProcessor"}),
            "BitImageProcessor",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = stored("feature_extractor").join("preprocessor_config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        for (key, value) in value.as_object().unwrap() {
            config[key] = value.clone();
        }
        let path = folder.path().join("preprocessor_config.json");
        fs::write(path, config.to_string()).unwrap();
        let error = ClipImageProcessor::load(folder.path()).unwrap_err().to_string();
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}
