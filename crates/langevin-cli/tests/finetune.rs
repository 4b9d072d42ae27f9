//! Other objectives and other beginnings: what they leave is a pipeline that samples.

mod support;

use std::{collections::BTreeMap, fs, path::Path};

use langevin::models::weights::{FILE_NAME, NamedTensor, read_tensors};
use support::{line, names, pictures, small_model};

const SHORT: &str = "--train-batch-size 8 --eval-batch-size 4 --ddpm-num-inference-steps 3";

fn weights(run: &Path) -> BTreeMap<String, NamedTensor> {
    read_tensors(run.join("unet").join(FILE_NAME)).unwrap()
}

/// Names of the tensors that differ.
fn moved(a: &BTreeMap<String, NamedTensor>, b: &BTreeMap<String, NamedTensor>) -> Vec<String> {
    let changed = a.iter().filter(|(name, tensor)| b[name.as_str()] != **tensor);
    changed.map(|(name, _)| name.clone()).collect()
}

#[test]
fn every_objective_leaves_a_pipeline_that_samples() {
    let folder = tempfile::tempdir().unwrap();
    let model = small_model(folder.path(), 1, false);
    for (name, flags, class, other) in [
        (
            "edm",
            "--objective edm --edm-sigma-data 0.6",
            "EDMEulerScheduler",
            "edm-dpm++2m",
        ),
        (
            "flow",
            "--objective flow --logit-mean -0.5",
            "FlowMatchEulerDiscreteScheduler",
            "flow-heun",
        ),
        (
            "min-snr",
            "--snr-gamma 5 --noise-offset 0.1 --input-perturbation 0.1",
            "DDPMScheduler",
            "ddim",
        ),
        (
            "zero-snr",
            "--rescale-betas-zero-snr --loss-weighting p2",
            "DDPMScheduler",
            "ddim",
        ),
    ] {
        let args = format!(
            "train --dataset-name digits --model {model} --channels grey --conditioning none --max-train-steps 3 {SHORT} \
             {flags} --output-dir {name}"
        );
        line(folder.path(), &args).ok();
        let scheduler =
            fs::read_to_string(folder.path().join(name).join("scheduler/scheduler_config.json")).unwrap();
        assert!(scheduler.contains(class), "{scheduler}");
        for scheduler in ["", &format!("--scheduler {other}")] {
            let output = format!("{name}{}.png", scheduler.len());
            line(
                folder.path(),
                &format!("sample {name} --steps 4 --output {output} {scheduler}"),
            )
            .ok();
        }
    }
    let edm = fs::read_to_string(folder.path().join("edm/scheduler/scheduler_config.json")).unwrap();
    assert!(edm.contains("\"sigma_data\": 0.6"), "{edm}");
    let zero = fs::read_to_string(folder.path().join("zero-snr/scheduler/scheduler_config.json")).unwrap();
    assert!(
        zero.contains("\"trailing\"") && zero.contains("\"rescale_betas_zero_snr\": true"),
        "{zero}"
    );
}

#[test]
fn flags_of_another_objective_are_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |flags: &str, part: &str| {
        line(folder.path(), &format!("train {flags} --output-dir run")).refused(1, &[part]);
        assert!(names(folder.path()).is_empty());
    };
    refused("--objective edm --prediction-type v_prediction", "objective ddpm");
    refused("--objective flow --snr-gamma 5", "objective ddpm");
    refused(
        "--objective flow --ddpm-beta-schedule linear",
        "--ddpm-beta-schedule",
    );
    refused("--edm-p-mean -1", "objective edm");
    refused("--snr-gamma 5 --loss-weighting p2", "min-snr");
    refused(
        "--rescale-betas-zero-snr --prediction-type epsilon",
        "v_prediction or sample",
    );
}

#[test]
fn a_pretrained_model_is_gone_on_from_at_another_size_and_only_where_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    pictures(path);
    let model = small_model(path, 3, false);
    let data = format!("--train-data-dir pictures {SHORT}");
    line(
        path,
        &format!(
            "train {data} --model {model} --resolution 8 --max-train-steps 4 --prediction-type v_prediction \
             --ddpm-beta-schedule squaredcos_cap_v2 --output-dir first"
        ),
    )
    .ok();
    let first = weights(&path.join("first"));

    // Under the course's names for the flags.
    line(
        path,
        "train --start_model first --train-data-dir pictures --image_size 16 --batch_size 4 --grad_accumulation_steps 2 \
         --num_epochs 2 --model_save_name second --save_model_every 2 --lr_scheduler exponential --learning_rate 1e-3 \
         --eval-batch-size 4 --ddpm-num-inference-steps 3",
    )
    .ok();
    let second = weights(&path.join("second"));
    assert_eq!(
        moved(&first, &second).len(),
        first.len(),
        "all of it is trained on"
    );
    let read = |name: &str| fs::read_to_string(path.join(name)).unwrap();
    assert_eq!(
        read("first/scheduler/scheduler_config.json"),
        read("second/scheduler/scheduler_config.json")
    );
    assert!(read("second/unet/config.json").contains("\"sample_size\": 16"));
    let metrics = read("second/metrics.jsonl");
    let rates: Vec<f64> = metrics
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["lr"]
                .as_f64()
                .unwrap()
        })
        .collect();
    let expected = [1e-3, 1e-3, 9e-4, 9e-4];
    assert!(
        rates.len() == 4 && rates.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12),
        "{rates:?}"
    );

    // Frozen parameters have no moments and do not move by a bit, in the average neither.
    line(
        path,
        &format!(
            "train --pretrained first {data} --train-only norm,conv_out --use-ema --max-train-steps 3 --lr-warmup-steps 0 \
             --checkpointing-steps 2 --output-dir third"
        ),
    )
    .ok();
    let is_trained = |name: &str| name.contains("norm") || name.contains("conv_out");
    let moved = moved(&first, &weights(&path.join("third")));
    assert!(
        !moved.is_empty() && moved.iter().all(|name| is_trained(name)),
        "{moved:?}"
    );
    let moments = read_tensors(path.join("third/checkpoint-2/optimizer.safetensors")).unwrap();
    assert!(!moments.is_empty() && moments.keys().all(|name| is_trained(name)));

    // Told classes now, of which the model knew none.
    let classes = format!(
        "train --pretrained first {data} --conditioning class --max-train-steps 2 --output-dir fourth"
    );
    line(path, &classes).ok();
    line(path, "sample fourth --class dark --steps 2 --output one.png").ok();

    let refused = |flags: &str, code: i32, parts: &[&str]| {
        line(
            path,
            &format!("train {data} --output-dir fifth --pretrained {flags}"),
        )
        .refused(code, parts);
    };
    refused(
        "first --train-only attentoin",
        1,
        &["none of the model's parameters", "conv_in"],
    );
    refused("first --channels grey", 1, &["3 channels"]);
    refused("pictures", 1, &["holds no pipeline"]);
    refused(
        "google/ddpm-celebahq-256",
        1,
        &["is no path here", "HF_HUB_OFFLINE"],
    );
    refused("first --prediction-type epsilon", 1, &["cannot be used with"]);
    refused("first --model digits", 2, &["cannot be used with"]);
}
