//! Runs that are killed, stopped or out of disk, and go on: they end in the same bytes as one that was left alone.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use langevin::{
    random::Generator,
    training::{SavedRun, checkpoints},
};
use serde_json::Value;
use support::{command, line, names, on_a_full_disk, pictures};

/// Twelve pictures in three batches, so two optimiser steps an epoch, of which the second is of half a group; an average,
/// classes that are dropped, and dropout, so that every generator counts.
const RUN: &str = "train --train-data-dir pictures --model dropping.json --conditioning class --resolution 8 --random-flip \
    --train-batch-size 4 --gradient-accumulation-steps 2 --use-ema --learning-rate 1e-3 --lr-warmup-steps 5 \
    --eval-batch-size 4 --ddpm-num-inference-steps 2 --save-images-epochs 9 --save-model-epochs 4";

/// A folder with the pictures and the model of [`RUN`].
fn scene() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    model(folder.path(), 0.1);
    folder
}

fn model(folder: &Path, dropout: f64) {
    let text = format!(
        r#"{{"_class_name": "UNet2DModel", "in_channels": 3, "out_channels": 3, "dropout": {dropout},
            "block_out_channels": [8, 8], "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 8,
            "down_block_types": ["DownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "UpBlock2D"]}}"#
    );
    fs::write(folder.join("dropping.json"), text).unwrap();
}

/// The files below a folder that a run leaves for good, with their bytes, but for those that name the folder and for plots; of
/// the metrics, all but the times.
fn left_by(run: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    fn walk(folder: &Path, root: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
        for name in names(folder) {
            let path = folder.join(&name);
            if path.is_dir() {
                walk(&path, root, found);
            } else if name == "metrics.jsonl" {
                let timeless = fs::read_to_string(&path)
                    .unwrap()
                    .lines()
                    .map(without_times)
                    .collect::<String>();
                found.push((name.into(), timeless.into_bytes()));
            } else if !name.ends_with(".png") && !["training.json", "README.md"].contains(&name.as_str()) {
                found.push((path.strip_prefix(root).unwrap().into(), fs::read(&path).unwrap()));
            }
        }
    }
    let mut found = vec![];
    walk(run, run, &mut found);
    found
}

fn without_times(line: &str) -> String {
    let mut value: Value = serde_json::from_str(line).unwrap();
    for measured in ["pictures_per_second", "memory_mb"] {
        value.as_object_mut().unwrap().remove(measured);
    }
    value.to_string() + "\n"
}

fn same(one: &Path, other: &Path) {
    let (one, other) = (left_by(one), left_by(other));
    let files = |left: &[(PathBuf, Vec<u8>)]| left.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    assert_eq!(files(&one), files(&other));
    for ((path, a), (_, b)) in one.iter().zip(&other) {
        assert!(a == b, "{} differs", path.display());
    }
}

/// How often a run is killed: so often, or as often as LANGEVIN_KILLS says.
fn kills(usual: usize) -> usize {
    std::env::var("LANGEVIN_KILLS").map_or(usual, |kills| kills.parse().unwrap())
}

/// Kills a run with SIGKILL at random moments of its life, from its first to its last, until it has ended often enough. `parts` are in every
/// checkpoint.
fn kill_at_random(scene: &Path, run: &str, wanted: usize, parts: &[&str]) {
    let start = Instant::now();
    line(scene, &format!("{run} --output-dir whole")).ok();
    let length = start.elapsed().as_secs_f64();
    let whole = scene.join("whole");
    assert!(!checkpoints::all(&whole).is_empty());
    let mut generator = Generator::new(u64::from(std::process::id()));
    let (mut kills, mut number) = (0, 0);
    while kills < wanted {
        let folder = format!("killed-{number}");
        let args = format!("{run} --output-dir {folder} --resume-from-checkpoint latest");
        let mut child = command(scene, args.split_whitespace())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let moment = f64::from(generator.rand(1)[0]) * 1.1 * length;
        thread::sleep(Duration::from_secs_f64(moment));
        let path = scene.join(&folder);
        if child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            // Whatever has a checkpoint's name is whole.
            for (step, checkpoint) in checkpoints::all(&path) {
                assert_eq!(SavedRun::open(&checkpoint).unwrap().step(), step);
                for file in parts.iter().map(|part| checkpoint.join(part)) {
                    assert!(file.is_file(), "{}", file.display());
                }
            }
        } else {
            let output = child.wait_with_output().unwrap();
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            same(&path, &whole);
            number += 1;
        }
    }
    let folder = format!("killed-{number}");
    line(
        scene,
        &format!("{run} --output-dir {folder} --resume-from-checkpoint latest"),
    )
    .ok();
    same(&scene.join(folder), &whole);
    println!("killed {kills} times, ended whole {} times", number + 1);
}

#[test]
fn killed_at_any_moment_it_goes_on_and_ends_in_the_same_bytes() {
    let scene = scene();
    let run = format!("{RUN} --max-train-steps 40 --checkpointing-steps 3 --checkpoints-total-limit 2");
    let parts = ["unet/config.json", "unet_ema/config.json"];
    kill_at_random(scene.path(), &run, kills(10), &parts);
    assert_eq!(checkpoints::all(scene.path().join("whole")).last().unwrap().0, 39);
}

/// The same of what is trained on a latent pipeline, with what such runs keep besides: cached latents, buckets, other optimisers.
#[test]
fn killed_on_a_latent_pipeline_it_goes_on_and_ends_in_the_same_bytes() {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../langevin/tests/reference/sd_training/base");
    let base = base.canonicalize().unwrap().display().to_string();
    let buckets = "--enable-bucket --min-bucket-reso 8 --max-bucket-reso 32 --bucket-reso-steps 8";
    for trainee in [
        format!("lora --instance-prompt cat --optimizer prodigy --learning-rate 1 --random-flip {buckets}"),
        "lora --instance-prompt cat --cache-latents-to-disk kept --optimizer adafactor --train-text-encoder --lora-dropout 0.1".into(),
        "embedding --placeholder-token <toy> --initializer-token cat --num-vectors 2 --learning-rate 1e-2".into(),
        "controlnet --conditioning-image shown --caption-dropout 0.5 --learning-rate 1e-3".into(),
    ] {
        let scene = scene();
        let folder = scene.path().join("pairs");
        fs::create_dir_all(&folder).unwrap();
        let mut rows = "file_name,shown_file_name,text\n".to_string();
        for (i, kind) in ["dark", "light"].into_iter().enumerate() {
            let source = scene.path().join("pictures").join(kind);
            for name in names(&source).into_iter().take(3) {
                fs::copy(source.join(&name), folder.join(&name)).unwrap();
                rows += &format!("{name},{name},cat number {i}\n");
            }
        }
        fs::write(folder.join("metadata.csv"), rows).unwrap();
        let run = format!(
            "train --pretrained {base} --train-data-dir pairs --resolution 16 --train-batch-size 2 --gradient-accumulation-steps 2 --eval-batch-size 1 \
             --ddpm-num-inference-steps 1 --max-train-steps 9 --checkpointing-steps 2 --checkpoints-total-limit 2 --trainee {trainee}"
        );
        kill_at_random(scene.path(), &run, kills(3), &["trained/trained.safetensors", "optimizer.safetensors"]);
    }
}

/// The new checkpoint is there before the oldest one goes; a kill in between leaves one too many.
#[test]
fn one_checkpoint_too_many_goes_when_the_run_goes_on() {
    let scene = scene();
    let run = format!("{RUN} --lr-scheduler constant --max-train-steps 8 --checkpointing-steps 3");
    line(
        scene.path(),
        &format!("{run} --output-dir whole --checkpoints-total-limit 1"),
    )
    .ok();
    line(scene.path(), &format!("{run} --output-dir killed")).ok();
    let killed = scene.path().join("killed");
    assert_eq!(checkpoints::all(&killed).len(), 2);
    line(
        scene.path(),
        "train --resume-from-checkpoint killed --checkpoints-total-limit 1",
    )
    .ok();
    same(&killed, &scene.path().join("whole"));
}

#[cfg(target_os = "linux")]
#[test]
fn out_of_disk_it_keeps_the_last_whole_checkpoint() {
    let scene = scene();
    let run = format!("{RUN} --lr-scheduler constant --checkpointing-steps 3 --checkpoints-total-limit 1");
    line(
        scene.path(),
        &format!("{run} --output-dir whole --max-train-steps 8"),
    )
    .ok();
    let whole = scene.path().join("whole");
    let weights = fs::metadata(whole.join("unet/diffusion_pytorch_model.safetensors"))
        .unwrap()
        .len();
    // Room for the metrics alone; for the weights too, but not for the moments, which are twice as many.
    for (number, kilobytes) in [(0, 12), (1, weights as usize / 1024 + 8)] {
        let folder = format!("full-{number}");
        line(
            scene.path(),
            &format!("{run} --output-dir {folder} --max-train-steps 3"),
        )
        .ok();
        let rest = format!("{run} --output-dir {folder} --max-train-steps 8 --resume-from-checkpoint latest");
        let (code, said) = on_a_full_disk(scene.path(), kilobytes, &rest);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("error: cannot write"), "{said}");
        let path = scene.path().join(&folder);
        let there = checkpoints::all(&path);
        assert_eq!(there.len(), 1, "{there:?}");
        assert_eq!(SavedRun::open(&there[0].1).unwrap().step(), 3);
        line(scene.path(), &rest).ok();
        same(&path, &whole);
    }
}

#[cfg(unix)]
#[test]
fn stopped_between_two_batches_it_keeps_the_gradients_that_wait() {
    let scene = scene();
    // One optimiser step an epoch, of very many batches.
    let run = format!(
        "{RUN} --dataset-name digits --channels grey --gradient-accumulation-steps 1000 --max-train-steps 2"
    )
    .replace("--train-data-dir pictures", "")
    .replace("--gradient-accumulation-steps 2 ", "");
    let text = fs::read_to_string(scene.path().join("dropping.json")).unwrap();
    fs::write(
        scene.path().join("dropping.json"),
        text.replace("channels\": 3", "channels\": 1"),
    )
    .unwrap();
    line(scene.path(), &format!("{run} --output-dir whole")).ok();

    let stop = |signal: &str, args: &str, after: u64| {
        let mut child = command(scene.path(), args.split_whitespace())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begun = scene.path().join("stopped/metrics.jsonl");
        while !begun.exists() {
            thread::sleep(Duration::from_millis(5));
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        }
        thread::sleep(Duration::from_millis(after));
        let sent = std::process::Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(0));
    };
    let fresh = format!("{run} --output-dir stopped");
    stop("-TERM", &fresh, 100);
    let stopped = scene.path().join("stopped");
    let (step, checkpoint) = checkpoints::all(&stopped).pop().unwrap();
    assert!(step < 2 && checkpoint.join("gradients.safetensors").is_file());
    // Nothing has to be typed again.
    let ran = line(scene.path(), "train --resume-from-checkpoint stopped").ok();
    assert!(ran.err.contains("going on from"), "{}", ran.err);
    fs::remove_dir_all(checkpoint).unwrap();
    same(&stopped, &scene.path().join("whole"));
}

#[test]
fn a_checkpoint_of_something_else_is_refused_with_what_differs() {
    let scene = scene();
    let run = format!("{RUN} --max-train-steps 4 --checkpointing-steps 2 --output-dir run");
    line(scene.path(), &run).ok();
    let refused = |args: &str, parts: &[&str]| {
        line(
            scene.path(),
            &format!("{run} --resume-from-checkpoint latest {args}"),
        )
        .refused(1, parts);
    };
    refused(
        "--seed 3 --prediction-type v_prediction",
        &["`seed` is 0 there and 3 here", "prediction_type", "--pretrained"],
    );
    model(scene.path(), 0.2);
    refused("", &["the model differs", "`dropout` is 0.1 there and 0.2 here"]);
    model(scene.path(), 0.1);
    let one_more = scene.path().join("pictures/dark/99.png");
    fs::copy(scene.path().join("pictures/dark/00.png"), &one_more).unwrap();
    refused("", &["they are 13 pictures, and were 12"]);
    fs::remove_file(one_more).unwrap();

    // An earlier one would lose what came after it.
    let earlier = "train --resume-from-checkpoint run/checkpoint-2";
    line(scene.path(), earlier).refused(1, &["checkpoint-4", "is newer", "--overwrite-output-dir"]);
    line(scene.path(), &format!("{earlier} --output-dir fork")).ok();
    line(
        scene.path(),
        &format!("{earlier} --overwrite-output-dir --max-train-steps 3"),
    )
    .ok();
    assert_eq!(checkpoints::all(scene.path().join("run")).len(), 1);

    let state = scene.path().join("run/checkpoint-2/state.json");
    let text = fs::read_to_string(&state).unwrap();
    fs::write(&state, text.replace(env!("CARGO_PKG_VERSION"), "0.0.7")).unwrap();
    line(scene.path(), earlier).refused(1, &["was written by langevin 0.0.7", env!("CARGO_PKG_VERSION")]);
    fs::write(&state, &text[..text.len() / 2]).unwrap();
    line(scene.path(), earlier).refused(1, &["state.json"]);
    line(scene.path(), "train --resume-from-checkpoint nowhere").refused(1, &["nowhere", "is no checkpoint"]);
    line(scene.path(), "train --resume-from-checkpoint latest").refused(1, &["--output-dir"]);
}

#[test]
fn a_run_may_go_on_for_longer_than_was_planned() {
    let scene = scene();
    let run = format!("{RUN} --lr-scheduler constant --checkpointing-steps 2 --output-dir run");
    line(scene.path(), &format!("{run} --num-epochs 2")).ok();
    line(scene.path(), "train --resume-from-checkpoint run --num-epochs 3").ok();
    line(
        scene.path(),
        &format!("{run} --num-epochs 3").replace("run", "whole"),
    )
    .ok();
    same(&scene.path().join("run"), &scene.path().join("whole"));
}

#[test]
fn a_run_that_saves_memory_goes_on_in_the_same_bytes() {
    let scene = scene();
    let run = format!("{RUN} --lr-scheduler constant --checkpointing-steps 2 --mixed-precision bf16");
    let whole = scene.path().join("whole");
    line(scene.path(), &format!("{run} --num-epochs 3 --output-dir whole")).ok();
    // Checkpointing of gradients changes no number, so it may begin in the middle.
    line(scene.path(), &format!("{run} --num-epochs 2 --output-dir run")).ok();
    line(
        scene.path(),
        "train --resume-from-checkpoint run --num-epochs 3 --gradient-checkpointing",
    )
    .ok();
    same(&scene.path().join("run"), &whole);
    // Another precision would.
    line(
        scene.path(),
        "train --resume-from-checkpoint run --num-epochs 4 --mixed-precision no",
    )
    .refused(1, &["`mixed_precision` is \"bf16\" there and \"no\" here"]);
    line(
        scene.path(),
        &format!("{RUN} --lr-scheduler constant --num-epochs 3 --output-dir float32"),
    )
    .ok();
    let weights = |run: &str| {
        fs::read(
            scene
                .path()
                .join(run)
                .join("unet/diffusion_pytorch_model.safetensors"),
        )
        .unwrap()
    };
    assert_ne!(weights("float32"), weights("whole"));
}

/// Sends a signal to a run once it has done a step, and gives what it came to.
#[cfg(unix)]
fn signalled(
    scene: &Path,
    mut run: std::process::Command,
    folder: &str,
    signal: &str,
) -> std::process::Output {
    let child = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let metrics = scene.join(folder).join("metrics.jsonl");
    let has_begun = || fs::metadata(&metrics).is_ok_and(|metrics| metrics.len() > 0);
    let start = Instant::now();
    while !has_begun() && start.elapsed() < Duration::from_secs(60) {
        thread::sleep(Duration::from_millis(20));
    }
    let id = child.id().to_string();
    std::process::Command::new("kill")
        .args([signal, &id])
        .status()
        .unwrap();
    child.wait_with_output().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn the_loss_of_the_terminal_ends_a_run_unless_it_is_ignored() {
    let scene = scene();
    let args = |steps: usize, folder: &str| format!("{RUN} --max-train-steps {steps} --output-dir {folder}");
    // Tests that run under nohup themselves hand that on, and there is no way to take it back.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .unwrap();
    if u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 == 0 {
        let run = command(scene.path(), args(4_000, "ended").split_whitespace());
        let ended = signalled(scene.path(), run, "ended", "-HUP");
        let said = String::from_utf8(ended.stdout).unwrap();
        assert!(ended.status.success() && said.contains("stopped after"), "{said}");
        assert!(!checkpoints::all(scene.path().join("ended")).is_empty());
    }
    // As under nohup.
    let program = command(scene.path(), args(60, "kept").split_whitespace());
    let mut run = std::process::Command::new("sh");
    run.current_dir(scene.path())
        .args(["-c", r#"trap "" HUP; exec "$0" "$@""#])
        .arg(program.get_program())
        .args(program.get_args());
    let kept = signalled(scene.path(), run, "kept", "-HUP");
    let said = String::from_utf8(kept.stdout).unwrap();
    assert!(
        kept.status.success() && said.contains("trained for 60 steps"),
        "{said}"
    );
}

#[cfg(unix)]
#[test]
fn more_threads_than_make_sense_do_not_start_and_a_signal_is_heard() {
    let scene = scene();
    let args = format!("{RUN} --max-train-steps 4000 --output-dir threads");
    let mut run = command(scene.path(), args.split_whitespace());
    run.env("RAYON_NUM_THREADS", "4000000000000000000000");
    let ended = signalled(scene.path(), run, "threads", "-TERM");
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success(), "{said}");
    assert!(
        said.contains("RAYON_NUM_THREADS is more than is of use here"),
        "{said}"
    );
}
