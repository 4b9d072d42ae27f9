//! Training on processes of MPI: any number of them leaves the same bytes, killed, stopped and resumed with others too. Where there is no
//! mpirun, these tests say so and pass.
#![cfg(feature = "mpi")]

mod support;

use std::{
    env, fs,
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use langevin::{random::Generator, training::checkpoints};
use support::{
    command,
    mpi::{ended_within, has_mpirun, launch, launcher, running, same, scene, signal},
};

/// Two steps of four slots an epoch, of two rounds and of one.
const RUN: &str = "train --train-data-dir pictures --model model.json --conditioning class --resolution 8 --random-flip --train-batch-size 2 \
    --num-slots 4 --gradient-accumulation-steps 2 --use-ema --learning-rate 1e-3 --lr-scheduler constant --lr-warmup-steps 0 \
    --eval-batch-size 4 --ddpm-num-inference-steps 2 --save-images-epochs 0 --save-model-epochs 0 --checkpointing-steps 3";

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
fn what_a_batch_system_sends_writes_a_checkpoint_and_ends() {
    if !has_mpirun() {
        return;
    }
    let scene = scene();
    let folder = scene.path();
    for sent in ["USR1", "HUP", "TERM"] {
        let line = format!("{RUN} --max-train-steps 4000 --checkpointing-steps 0 --output-dir {sent}");
        let mut child = launcher(folder, 2, &line)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let metrics = folder.join(sent).join("metrics.jsonl");
        while fs::read_to_string(&metrics).map_or(0, |lines| lines.lines().count()) < 3 {
            assert!(child.try_wait().unwrap().is_none(), "{sent}: it ended by itself");
            thread::sleep(Duration::from_millis(10));
        }
        signal(sent, &child.id().to_string());
        if sent == "USR1" {
            // Slurm sends it to a script and to its steps.
            signal(sent, &child.id().to_string());
        }
        assert!(ended_within(&mut child, Duration::from_secs(20)), "{sent}");
        assert_eq!(checkpoints::all(folder.join(sent)).len(), 1, "{sent}");
    }
}

#[test]
fn pictures_of_a_class_are_drawn_by_all_and_stopped_cleanly() {
    if !has_mpirun() {
        return;
    }
    let scene = scene();
    let folder = scene.path();
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../langevin/tests/reference/sd_training/base");
    let line = format!(
        "train --pretrained {} --trainee lora --train-data-dir pictures/a --resolution 16 --train-batch-size 1 --num-slots 2 \
         --instance-prompt cat --class-prompt animal --num-class-images 40 --max-train-steps 2 --ddpm-num-inference-steps 2 \
         --eval-batch-size 1",
        base.canonicalize().unwrap().display()
    );
    let mut child = launcher(folder, 2, &format!("{line} --output-dir stopped"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let drawn = folder.join("stopped/class-pictures");
    let count = || fs::read_dir(&drawn).map_or(0, Iterator::count);
    while count() < 3 {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        thread::sleep(Duration::from_millis(5));
    }
    signal("INT", &child.id().to_string());
    assert!(ended_within(&mut child, Duration::from_secs(20)));
    assert!(count() < 40, "it was not stopped before the last");
    let kept = checkpoints::all(folder.join("stopped"));
    assert_eq!(kept.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0]);
    launch(
        folder,
        1,
        &format!("{line} --output-dir stopped --resume-from-checkpoint latest"),
    );
    assert_eq!(count(), 40);
    launch(folder, 2, &format!("{line} --output-dir whole"));
    let learned = |run: &str| fs::read(folder.join(run).join("pytorch_lora_weights.safetensors")).unwrap();
    assert!(learned("stopped") == learned("whole"));
    for entry in fs::read_dir(&drawn).unwrap() {
        let name = entry.unwrap().file_name();
        let picture = |run: &str| fs::read(folder.join(run).join("class-pictures").join(&name)).unwrap();
        assert!(picture("stopped") == picture("whole"), "{name:?}");
    }
}

#[test]
fn one_that_is_killed_ends_all_and_they_start_again_with_the_same_bytes() {
    if !has_mpirun() {
        return;
    }
    let scene = scene();
    let folder = scene.path();
    // Twenty and more before a release.
    let kills: usize = env::var("LANGEVIN_KILLS").map_or(3, |kills| kills.parse().unwrap());
    let run = format!("{RUN} --max-train-steps {}", 6 * kills + 12);
    launch(folder, 2, &format!("{run} --output-dir whole"));
    let mut generator = Generator::new(u64::from(std::process::id()));
    // The name of its folder tells its processes from those of other tests.
    let name = format!("killed-{}", std::process::id());
    let line = format!("--max-restarts {kills} {run} --output-dir {name}");
    let mut child = launcher(folder, 3, &line)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for kill in 1..=kills {
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
        let ids = running("train", &name);
        signal(
            "KILL",
            &ids[generator.randint(0, ids.len() as i64, 1)[0] as usize],
        );
        // All of them end, and others begin.
        let start = Instant::now();
        while running("train", &name).iter().any(|id| ids.contains(id)) {
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
    let named = (0..4).any(|rank| said.contains(&format!("error: process {rank}: pictures/b/07.png")));
    assert!(named, "{said}");
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
