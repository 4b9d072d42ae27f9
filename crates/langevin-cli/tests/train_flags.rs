//! What the flags of `langevin train` come to, as `--dry-run` shows it.

mod support;

use std::fs;

use langevin::{
    data::{Channels, Picture},
    grid,
};
use serde_json::json;
use support::line;
use tempfile::TempDir;

/// A folder with a folder `pictures` in it, of one picture.
fn with_pictures() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let picture = Picture::new(1, 1, Channels::Grey, vec![0]).unwrap();
    grid::write_png(folder.path().join("pictures/a.png"), &picture, &[]).unwrap();
    folder
}

#[test]
fn without_a_data_set_the_digits_recipe_holds() {
    let folder = tempfile::tempdir().unwrap();
    let config = line(folder.path(), "train --dry-run").ok().json();
    assert_eq!(config["dataset_name"], "digits");
    assert_eq!(config["model"], "digits");
    assert_eq!(config["conditioning"], "class");
    assert_eq!(config["use_ema"], true);
    assert!(
        support::names(folder.path()).is_empty(),
        "a dry run writes nothing"
    );
}

#[test]
fn with_a_data_set_the_scripts_defaults_hold() {
    let folder = with_pictures();
    let config = line(folder.path(), "train --dataset_name=pictures --dry-run")
        .ok()
        .json();
    // The defaults of argparse in diffusers' train_unconditional.py.
    let script = json!({
        "resolution": 64, "center_crop": false, "random_flip": false, "train_batch_size": 16, "eval_batch_size": 16,
        "dataloader_num_workers": 0, "num_epochs": 100, "save_images_epochs": 10, "save_model_epochs": 10,
        "gradient_accumulation_steps": 1, "learning_rate": 1e-4, "lr_scheduler": "cosine", "lr_warmup_steps": 500,
        "adam_beta1": 0.95, "adam_beta2": 0.999, "adam_weight_decay": 1e-6, "adam_epsilon": 1e-8, "use_ema": false,
        "ema_inv_gamma": 1.0, "ema_power": 0.75, "ema_max_decay": 0.9999, "prediction_type": "epsilon",
        "ddpm_num_steps": 1000, "ddpm_num_inference_steps": 1000, "ddpm_beta_schedule": "linear",
        "checkpointing_steps": 500, "checkpoints_total_limit": null, "resume_from_checkpoint": null,
        "overwrite_output_dir": false, "model": "ddpm-default", "conditioning": "none", "channels": "rgb",
    });
    for (name, value) in script.as_object().unwrap() {
        assert_eq!(&config[name], value, "{name}");
    }
}

/// The course's line, as it stands in its notebook but for the data set, which is a folder here.
const COURSE: &str = "train_unconditional.py --dataset_name=pictures --resolution=64 --output_dir=butterflies \
     --train_batch_size=32 --num_epochs=50 --gradient_accumulation_steps=1 --learning_rate=1e-4 --lr_warmup_steps=500 \
     --mixed_precision=no";

#[test]
fn the_courses_line_can_be_pasted_whole() {
    let folder = with_pictures();
    let pasted = line(folder.path(), &format!("accelerate launch {COURSE} --dry-run")).ok();
    assert_eq!(pasted.err, "");
    let config = pasted.json();
    assert_eq!(config["train_batch_size"], 32);
    assert_eq!(config["num_epochs"], 50);
    assert_eq!(config["output_dir"], "butterflies");
    let typed = line(
        folder.path(),
        &format!("train {} --dry-run", COURSE.split_once(' ').unwrap().1),
    )
    .ok()
    .json();
    assert_eq!(config, typed);
}

#[test]
fn both_spellings_and_both_ways_to_give_a_value_mean_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let config = |flags: &str| {
        line(folder.path(), &format!("train --dry-run {flags}"))
            .ok()
            .json()
    };
    let expected = config("--train-batch-size=7 --use-ema");
    for flags in [
        "--train_batch_size 7 --use_ema",
        "--train-batch-size 7 --use_ema=true",
        "--train_batch_size=7 --use-ema",
    ] {
        assert_eq!(config(flags), expected, "{flags}");
    }
    assert_eq!(config("--use_ema=false")["use_ema"], false);
}

#[test]
fn every_flag_of_the_script_is_known() {
    let folder = with_pictures();
    let flags = "--train_data_dir=pictures --output_dir=out --overwrite_output_dir --cache_dir=cache --resolution=32 \
        --center_crop --random_flip --train_batch_size=2 --eval_batch_size=3 --dataloader_num_workers=4 --num_epochs=5 \
        --save_images_epochs=6 --save_model_epochs=7 --gradient_accumulation_steps=8 --learning_rate=9e-4 \
        --lr_scheduler=linear --lr_warmup_steps=10 --adam_beta1=0.11 --adam_beta2=0.12 --adam_weight_decay=0.13 \
        --adam_epsilon=1e-14 --use_ema --ema_inv_gamma=1.5 --ema_power=0.16 --ema_max_decay=0.17 --logging_dir=logs --logger=tensorboard \
        --local_rank=-1 --mixed_precision=no --prediction_type=sample --ddpm_num_steps=180 \
        --ddpm_num_inference_steps=19 --ddpm_beta_schedule=squaredcos_cap_v2 \
        --checkpointing_steps=22 --checkpoints_total_limit=2 --enable_xformers_memory_efficient_attention \
        --preserve_input_precision";
    let ran = line(folder.path(), &format!("train {flags} --dry-run")).ok();
    let expected = json!({
        "train_data_dir": "pictures", "output_dir": "out", "overwrite_output_dir": true, "resolution": 32,
        "center_crop": true, "random_flip": true, "train_batch_size": 2, "eval_batch_size": 3,
        "dataloader_num_workers": 4, "num_epochs": 5, "save_images_epochs": 6, "save_model_epochs": 7,
        "gradient_accumulation_steps": 8, "learning_rate": 9e-4, "lr_scheduler": "linear", "lr_warmup_steps": 10,
        "adam_beta1": 0.11, "adam_beta2": 0.12, "adam_weight_decay": 0.13, "adam_epsilon": 1e-14, "use_ema": true,
        "ema_inv_gamma": 1.5, "ema_power": 0.16, "ema_max_decay": 0.17, "prediction_type": "sample",
        "ddpm_num_steps": 180, "ddpm_num_inference_steps": 19, "ddpm_beta_schedule": "squaredcos_cap_v2", "logging_dir": "logs",
        "report_to": ["tensorboard"],
    });
    let config = ran.json();
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&config[name], value, "{name}");
    }
    // One line for each flag that has nothing to do here.
    let notes: Vec<&str> = ran.err.lines().collect();
    assert_eq!(notes.len(), 3, "{}", ran.err);
    assert!(
        notes.iter().all(|note| note.starts_with("note: --")),
        "{}",
        ran.err
    );
}

#[test]
fn what_is_on_the_hub_alone_is_refused_offline() {
    let folder = tempfile::tempdir().unwrap();
    for flag in [
        "--dataset_name=huggan/smithsonian_butterflies_subset",
        "--model=google/ddpm-cat-256",
        "--model_config_name_or_path=google/ddpm-cat-256",
        "--pretrained=google/ddpm-cat-256",
    ] {
        let parts = ["is no path here", "is not in the cache", "HF_HUB_OFFLINE"];
        let ran = line(folder.path(), &format!("train --dry-run {flag}")).refused(1, &parts);
        assert_eq!(ran.out, "", "{flag}");
    }
}

#[test]
fn a_precision_is_taken_or_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let precision = |flag: &str| {
        let config = line(folder.path(), &format!("train --dry-run {flag}"))
            .ok()
            .json();
        (
            config["mixed_precision"].as_str().unwrap().to_string(),
            config["gradient_checkpointing"].as_bool().unwrap(),
        )
    };
    assert_eq!(precision(""), ("no".into(), false));
    assert_eq!(precision("--mixed_precision=no"), ("no".into(), false));
    assert_eq!(
        precision("--mixed_precision=bf16 --gradient_checkpointing"),
        ("bf16".into(), true)
    );
    let scripts = line(
        folder.path(),
        "accelerate launch --mixed_precision fp16 train_unconditional.py --dry-run",
    )
    .ok();
    assert_eq!(scripts.json()["mixed_precision"], "bf16");
    assert!(scripts.err.contains("fp16 becomes bf16"), "{}", scripts.err);
    line(folder.path(), "train --dry-run --mixed_precision=fp8").refused(2, &["no, fp16, bf16"]);
}

#[test]
fn several_trackers_can_be_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let trackers = |flag: &str| {
        let ran = line(folder.path(), &format!("train --dry-run {flag}")).ok();
        ran.json()["report_to"].clone()
    };
    assert_eq!(trackers(""), json!([]));
    assert_eq!(trackers("--report_to=none"), json!([]));
    assert_eq!(trackers("--logger=wandb"), json!(["wandb"]));
    assert_eq!(
        trackers("--report_to=wandb,tensorboard,wandb"),
        json!(["wandb", "tensorboard"])
    );
    assert_eq!(trackers("--logger all"), json!(["tensorboard", "wandb"]));
}

#[test]
fn a_mistyped_flag_is_told_the_right_one() {
    let folder = tempfile::tempdir().unwrap();
    line(folder.path(), "train --train_batchsize=3").refused(2, &["--train-batch-size"]);
    line(folder.path(), "train --learnig-rate 3").refused(2, &["--learning-rate"]);
    line(folder.path(), "tarin").refused(2, &["train"]);
}

#[test]
fn values_that_make_no_sense_are_refused() {
    let folder = with_pictures();
    let refused = |flags: &str, code: i32, part: &str| {
        line(folder.path(), &format!("train --dry-run {flags}")).refused(code, &[part]);
    };
    refused("--logger=comet", 1, "tensorboard, wandb");
    refused("--train-batch-size=0", 1, "train_batch_size");
    refused("--train-batch-size=-3", 2, "-3");
    refused("--learning-rate=fast", 2, "fast");
    refused("--lr-scheduler=cosin", 2, "cosine");
    refused("--prediction-type=noise", 2, "v_prediction");
    refused("--class-dropout=2", 1, "class_dropout");
    refused("--dataset-name=pictures --class-dropout=0.1", 1, "conditioning");
    refused("--model=basic-unet --conditioning=class", 1, "basic-unet");
    refused("--model=basic-unett", 1, "basic-unet");
    refused(
        "--model=digits --model-config-name-or-path=x",
        2,
        "cannot be used with",
    );
    refused("--dataset-name=digits --train-data-dir=pictures", 1, "name one");
    refused("--train-data-dir=nowhere", 1, "nowhere");
    refused("--dataset-name=nowhere", 1, "nowhere");
    fs::create_dir(folder.path().join("empty")).unwrap();
    refused("--train-data-dir=empty", 1, "empty");
    refused(
        "--ddpm-num-steps=10 --ddpm-num-inference-steps=20",
        1,
        "ddpm_num_inference_steps",
    );
}

#[test]
fn a_model_brings_its_resolution_unless_another_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = |flags: &str| {
        line(folder.path(), &format!("train --dry-run {flags}"))
            .ok()
            .json()
    };
    let butterflies = config("--model course-butterflies");
    assert_eq!(
        (&butterflies["resolution"], &butterflies["channels"]),
        (&json!(32), &json!("rgb"))
    );
    let small = config("--model course-butterflies --resolution 16 --channels grey");
    assert_eq!(
        (&small["resolution"], &small["channels"]),
        (&json!(16), &json!("grey"))
    );
    assert_eq!(config("--model basic-unet")["conditioning"], "none");
}

#[test]
fn a_model_can_be_a_configuration_file() {
    let folder = tempfile::tempdir().unwrap();
    let model = support::reference_pipeline("ddpm");
    let flags = format!("train --dry-run --model_config_name_or_path={}", model.display());
    assert_eq!(line(folder.path(), &flags).ok().json()["resolution"], 16);
    fs::write(
        folder.path().join("broken.json"),
        r#"{"_class_name": "UNet2DModel", "layers_per_block": 0}"#,
    )
    .unwrap();
    line(folder.path(), "train --dry-run --model broken.json")
        .refused(1, &["broken.json", "layers_per_block"]);
    fs::write(
        folder.path().join("other.json"),
        r#"{"_class_name": "UNet3DConditionModel"}"#,
    )
    .unwrap();
    line(folder.path(), "train --dry-run --model other.json")
        .refused(1, &["UNet3DConditionModel", "not there yet"]);
}
