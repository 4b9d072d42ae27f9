//! What `--logger` leaves, read back by TensorBoard and the wandb package themselves where Python has them.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use langevin::data::read_picture;
use serde_json::{Value, json};
use support::{command, names, python, small_model};
use tempfile::TempDir;

/// A run of six steps with both trackers, in `run` under the folder.
fn tracked() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = small_model(folder.path(), 1, false);
    let args = format!(
        "train --dataset-name digits --model {model} --channels grey --conditioning none --output-dir run --train-batch-size 8 \
         --eval-batch-size 4 --ddpm-num-inference-steps 20 --max-train-steps 6 --log-samples-every 4 --use-ema \
         --logger all"
    );
    let output = command(folder.path(), args.split_whitespace())
        .env("WANDB_PROJECT", "testing")
        .env("WANDB_MODE", "offline")
        .env_remove("WANDB_DIR")
        .env_remove("WANDB_NAME")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("wandb sync run/wandb/offline-run-"), "{said}");
    assert!(said.contains("tensorboard --logdir run/logs"), "{said}");
    folder
}

/// The one entry of a folder whose name ends so.
fn only(folder: &Path, ending: &str) -> PathBuf {
    let found: Vec<String> = names(folder)
        .into_iter()
        .filter(|name| name.ends_with(ending))
        .collect();
    assert_eq!(found.len(), 1, "{:?}", names(folder));
    folder.join(&found[0])
}

#[test]
fn trackers_are_told_everything() {
    let folder = tracked();
    let run = folder.path().join("run");

    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let steps: Vec<Value> = metrics
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(steps.len(), 6);
    for name in ["loss", "lr", "grad_norm", "ema_decay", "pictures_per_second"] {
        assert!(steps.iter().all(|step| step[name].is_number()), "{name}");
    }
    // Eight timesteps all over the schedule: some quarter has one, and its losses are part of the mean.
    assert!(
        steps
            .iter()
            .all(|step| (1..=4).any(|n| step[format!("loss_quarter_{n}")].is_number()))
    );

    assert_eq!(
        names(&run.join("samples")),
        ["step-000004-denoising.png", "step-000004.png"]
    );
    let grid = read_picture(run.join("samples/step-000004.png")).unwrap();
    let strip = read_picture(run.join("samples/step-000004-denoising.png")).unwrap();
    assert_eq!((grid.width(), grid.height()), (2 * 66 + 2, 2 * 66 + 2));
    assert_eq!((strip.width(), strip.height()), (10 * 66 + 2, 4 * 66 + 2));

    let events = only(&run.join("logs"), ".0");
    assert!(
        events
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("events.out.tfevents.")
    );
    if let Some(read) = python("read_tensorboard.py", &run.join("logs")) {
        let losses: Vec<Value> = steps
            .iter()
            .map(|step| json!([step["step"], step["loss"]]))
            .collect();
        let read_losses = read["scalars"]["loss"].as_array().unwrap();
        assert_eq!(read_losses.len(), losses.len());
        for (read, logged) in read_losses.iter().zip(&losses) {
            assert_eq!(read[0], logged[0]);
            let (read, logged) = (read[1].as_f64().unwrap(), logged[1].as_f64().unwrap());
            assert!((read - logged).abs() <= 1e-6 * logged, "{read} {logged}");
        }
        assert_eq!(read["images"]["samples"], json!([[4, 134, 134], [6, 134, 134]]));
        assert_eq!(read["images"]["denoising"], json!([[4, 662, 266], [6, 662, 266]]));
        assert_eq!(read["png"], true);
        assert_eq!(read["hparams"]["train_batch_size"], 8.0);
        assert_eq!(read["hparams"]["use_ema"], true);
        assert_eq!(read["hparams"]["lr_scheduler"], "cosine");
    }

    let wandb = only(&run.join("wandb"), "");
    let log = only(&wandb, ".wandb");
    let files = names(&wandb.join("files"));
    assert_eq!(
        files,
        [
            "config.yaml",
            "media",
            "wandb-metadata.json",
            "wandb-summary.json"
        ]
    );
    if let Some(read) = python("read_wandb.py", &log) {
        let numbers: Vec<usize> = (1..=read["kinds"].as_array().unwrap().len()).collect();
        assert_eq!(read["numbers"], json!(numbers));
        assert_eq!(
            (&read["kinds"][0], &read["kinds"][1]),
            (&json!("header"), &json!("run"))
        );
        assert_eq!(read["exit"], 0);
        assert_eq!(
            (&read["run"]["project"], &read["run"]["name"]),
            (&json!("testing"), &json!("run"))
        );
        assert_eq!(read["config"]["train_batch_size"], 8);
        let history = read["history"].as_array().unwrap();
        let losses: Vec<&Value> = history
            .iter()
            .map(|row| &row["loss"])
            .filter(|loss| !loss.is_null())
            .collect();
        assert_eq!(losses, steps.iter().map(|step| &step["loss"]).collect::<Vec<_>>());
        let images: Vec<&Value> = history.iter().filter(|row| row["samples"].is_object()).collect();
        assert_eq!(images.len(), 2);
        let file = wandb
            .join("files")
            .join(images[0]["samples"]["path"].as_str().unwrap());
        assert_eq!(read_picture(file).unwrap(), grid);
    }
}

#[test]
fn the_environment_of_wandb_is_honoured() {
    let folder = tempfile::tempdir().unwrap();
    let model = small_model(folder.path(), 1, false);
    let train = |run: &str, mode: &str, directory: &Path| {
        let args = format!(
            "train --dataset-name digits --model {model} --channels grey --output-dir {run} --train-batch-size 4 \
             --eval-batch-size 1 --ddpm-num-inference-steps 2 --max-train-steps 1 --logger wandb"
        );
        let mut command = command(folder.path(), args.split_whitespace());
        command.env("WANDB_MODE", mode).env("WANDB_DIR", directory);
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let elsewhere = folder.path().join("elsewhere");
    let (ended, said) = train("online", "online", &elsewhere);
    assert!(
        ended && said.contains("stays on this machine; `wandb sync"),
        "{said}"
    );
    assert_eq!(names(&elsewhere), ["wandb"]);
    assert!(!folder.path().join("online/wandb").exists());
    let (ended, said) = train("disabled", "disabled", &folder.path().join("nowhere"));
    assert!(ended && said.contains("WANDB_MODE is disabled"), "{said}");
    assert!(!folder.path().join("nowhere").exists());
    let (ended, said) = train("mistyped", "ofline", &elsewhere);
    assert!(!ended && said.contains("error: WANDB_MODE is `ofline`"), "{said}");
}
