//! Training on processes of MPI: any number of them leaves the same bytes, killed, stopped and resumed with others too. Where there is no
//! mpirun, these tests say so and pass.
#![cfg(feature = "mpi")]

mod support;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use langevin::{
    data::{Channels, Picture},
    grid,
    random::Generator,
    training::checkpoints,
};
use support::{command, names};
use tempfile::TempDir;

/// Two steps of four slots an epoch, of two rounds and of one.
const RUN: &str = "train --train-data-dir pictures --model model.json --conditioning class --resolution 8 --random-flip --train-batch-size 2 \
    --num-slots 4 --gradient-accumulation-steps 2 --use-ema --learning-rate 1e-3 --lr-scheduler constant --lr-warmup-steps 0 \
    --eval-batch-size 4 --ddpm-num-inference-steps 2 --save-images-epochs 0 --save-model-epochs 0 --checkpointing-steps 3";

fn has_mpirun() -> bool {
    let found = Command::new("mpirun").arg("--version").output().is_ok();
    if !found {
        eprintln!("there is no mpirun: processes of MPI are not tested");
    }
    found
}

fn scene() -> TempDir {
    let scene = tempfile::tempdir().unwrap();
    for i in 0..21 {
        let pixels = (0..16 * 16 * 3)
            .map(|at| ((at * (7 + i) + i * 40) % 256) as u8)
            .collect();
        let picture = Picture::new(16, 16, Channels::Rgb, pixels).unwrap();
        let path = scene
            .path()
            .join(format!("pictures/{}/{i:02}.png", ["a", "b"][i % 2]));
        grid::write_png(&path, &picture, &[]).unwrap();
        fs::write(path.with_extension("txt"), format!("a cat, number {i}")).unwrap();
    }
    let model = r#"{"_class_name": "UNet2DModel", "dropout": 0.1, "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4,
        "sample_size": 8, "attention_head_dim": 8, "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"]}"#;
    fs::write(scene.path().join("model.json"), model).unwrap();
    scene
}

fn launcher(scene: &Path, processes: usize, words: &str) -> Command {
    let line = format!("launch --num-processes {processes} {words}");
    command(scene, line.split_whitespace())
}

fn launch(scene: &Path, processes: usize, words: &str) -> Output {
    let output = launcher(scene, processes, words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words} on {processes}: {said}");
    output
}

/// The files of weights, averages and moments below a folder, with their bytes.
fn tensors(run: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for name in names(run) {
        let path = run.join(&name);
        if path.is_dir() {
            let inside = tensors(&path).into_iter();
            found.extend(inside.map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else if name.ends_with(".safetensors") || name == "state.json" {
            found.push((name, fs::read(&path).unwrap()));
        }
    }
    found
}

fn same(one: &Path, other: &Path) {
    let (a, b) = (tensors(one), tensors(other));
    let names = |all: &[(String, Vec<u8>)]| all.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert!(!a.is_empty());
    assert_eq!(names(&a), names(&b));
    for ((name, a), (_, b)) in a.iter().zip(&b) {
        assert!(a == b, "{name} differs in {}", other.display());
    }
}

/// The processes that train into a folder, by their numbers in the system.
fn training(folder: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let trains = |id: &String| {
        let line = fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let words: Vec<&str> = line.split('\0').collect();
        words.get(1) == Some(&"train") && words.contains(&folder)
    };
    let mut ids: Vec<String> = ids.filter(trains).collect();
    ids.sort_by_key(|id| id.parse::<u64>().unwrap_or(0));
    ids
}

fn signal(name: &str, id: &str) {
    assert!(
        Command::new("kill")
            .args([format!("-{name}"), id.into()])
            .status()
            .unwrap()
            .success()
    );
}

fn ended_within(child: &mut Child, limit: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(status) = child.try_wait().unwrap() {
            return status.success();
        }
        thread::sleep(Duration::from_millis(50));
    }
    child.kill().unwrap();
    panic!("the processes did not end within {limit:?}");
}

#[test]
fn any_number_of_processes_leaves_the_same_bytes() {
    if !has_mpirun() {
        return;
    }
    let scene = scene();
    for processes in 1..=4 {
        launch(
            scene.path(),
            processes,
            &format!("{RUN} --max-train-steps 6 --output-dir on-{processes}"),
        );
        same(
            &scene.path().join("on-1"),
            &scene.path().join(format!("on-{processes}")),
        );
    }
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../langevin/tests/reference/sd_training/base");
    let lora = format!(
        "train --pretrained {} --trainee lora --train-data-dir pictures --resolution 16 --train-batch-size 1 --num-slots 8 \
         --max-train-steps 3 --ddpm-num-inference-steps 2 --eval-batch-size 1 --checkpointing-steps 2",
        base.canonicalize().unwrap().display()
    );
    for processes in [1, 3] {
        launch(
            scene.path(),
            processes,
            &format!("{lora} --output-dir lora-{processes}"),
        );
        same(
            &scene.path().join("lora-1"),
            &scene.path().join(format!("lora-{processes}")),
        );
    }
}

#[test]
fn a_run_is_stopped_and_goes_on_with_other_processes() {
    if !has_mpirun() {
        return;
    }
    let scene = scene();
    let folder = scene.path();
    launch(
        folder,
        1,
        &format!("{RUN} --max-train-steps 40 --checkpointing-steps 0 --output-dir whole"),
    );
    let parts = |processes, steps| {
        let line = format!(
            "{RUN} --max-train-steps {steps} --checkpointing-steps 3 --output-dir parts --resume-from-checkpoint latest"
        );
        launch(folder, processes, &line)
    };
    parts(4, 4);
    parts(2, 7);
    // Asked to end, it writes a checkpoint.
    let line = format!("{RUN} --max-train-steps 40 --output-dir parts --resume-from-checkpoint latest");
    let mut child = launcher(folder, 3, &line)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while checkpoints::all(folder.join("parts")).last().unwrap().0 < 12 {
        thread::sleep(Duration::from_millis(10));
    }
    signal("INT", &child.id().to_string());
    assert!(ended_within(&mut child, Duration::from_secs(20)));
    parts(1, 40);
    let weights =
        |run: &str| fs::read(folder.join(run).join("unet/diffusion_pytorch_model.safetensors")).unwrap();
    assert!(weights("whole") == weights("parts"));
}

#[test]
fn one_that_is_killed_ends_all_and_they_start_again_with_the_same_bytes() {
    if !has_mpirun() {
        return;
    }
    let scene = scene();
    let folder = scene.path();
    let run = format!("{RUN} --max-train-steps 30");
    launch(folder, 2, &format!("{run} --output-dir whole"));
    let mut generator = Generator::new(u64::from(std::process::id()));
    // The name of its folder tells its processes from those of other tests.
    let name = format!("killed-{}", std::process::id());
    let line = format!("--max-restarts 3 {run} --output-dir {name}");
    let mut child = launcher(folder, 3, &line)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for kill in 1..=3usize {
        let after = 6 * kill;
        while checkpoints::all(folder.join(&name))
            .last()
            .is_none_or(|(step, _)| *step < after)
        {
            assert!(
                child.try_wait().unwrap().is_none(),
                "it ended before it was killed"
            );
            thread::sleep(Duration::from_millis(5));
        }
        let ids = training(&name);
        signal(
            "KILL",
            &ids[generator.randint(0, ids.len() as i64, 1)[0] as usize],
        );
        // All of them end, and others begin.
        let start = Instant::now();
        while training(&name).iter().any(|id| ids.contains(id)) {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "others go on without the one that was killed"
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
    assert!(ended_within(&mut child, Duration::from_secs(60)));
    same(&folder.join("whole"), &folder.join(&name));
}

#[test]
fn what_goes_wrong_is_said_once_and_ends_all() {
    if !has_mpirun() {
        return;
    }
    let scene = scene();
    let refused = |processes, words: &str| {
        let output = launcher(scene.path(), processes, words).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let said = refused(3, "train --num-slots 2 --output-dir few");
    assert_eq!(said.matches("a step of 2 slots").count(), 1, "{said}");
    assert!(!scene.path().join("few").exists());
    fs::write(scene.path().join("pictures/b/07.png"), "no picture").unwrap();
    let said = refused(4, &format!("{RUN} --strict --output-dir strict"));
    assert!(said.contains("07.png") && said.contains("process "), "{said}");
    // Without a launcher, a world that MPI knows nothing of.
    let output = command(scene.path(), ["train", "--output-dir", "apart"])
        .env("PMI_SIZE", "4")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains("MPI knows of 1"),
        "{said}"
    );
    assert!(!scene.path().join("apart").exists());
}
