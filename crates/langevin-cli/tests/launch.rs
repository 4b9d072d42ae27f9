//! Lines that ask for several processes, and what a program without MPI makes of them.
#![cfg(not(feature = "mpi"))]

mod support;

use std::{fs, path::Path};

use support::{command, line, names, pictures};

const RUN: &str = "--dataset_name=pictures --resolution=8 --train_batch_size=2 --max_train_steps=3 --ddpm_num_inference_steps=2 \
    --eval_batch_size=1 --model=model.json --lr_warmup_steps=0";

fn scene() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    let model = r#"{"_class_name": "UNet2DModel", "block_out_channels": [8, 8], "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 8,
        "down_block_types": ["DownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "UpBlock2D"]}"#;
    fs::write(folder.path().join("model.json"), model).unwrap();
    folder
}

fn weights(folder: &Path, run: &str) -> Vec<u8> {
    fs::read(folder.join(run).join("unet/diffusion_pytorch_model.safetensors")).unwrap()
}

#[test]
fn several_processes_become_slots_of_one_with_the_same_bytes() {
    let scene = scene();
    let folder = scene.path();
    fs::write(
        folder.join("accelerate.yaml"),
        "num_processes: 3\nmixed_precision: 'no'\n",
    )
    .unwrap();
    line(folder, &format!("train {RUN} --num-slots 3 --output_dir=slots")).ok();
    for (number, launcher) in [
        "accelerate launch --num_processes 3 train_unconditional.py",
        "accelerate launch --config_file accelerate.yaml train_unconditional.py",
        "torchrun --nproc_per_node=3 train_unconditional.py",
        "launch --num-processes 3 train",
    ]
    .into_iter()
    .enumerate()
    {
        let ran = line(folder, &format!("{launcher} {RUN} --output_dir=run-{number}")).ok();
        assert!(
            ran.err.contains("without MPI")
                && ran.err.contains("all 3 slots")
                && ran.err.contains("6 in all, in one process"),
            "{}",
            ran.err
        );
        assert!(
            weights(folder, "slots") == weights(folder, &format!("run-{number}")),
            "{launcher}"
        );
    }
    // With the number of its slots in its configuration, which a resumed run keeps, whatever line resumes it.
    let resumed = format!("launch -n 2 train {RUN} --resume-from-checkpoint latest --output_dir=longer");
    line(
        folder,
        &format!("train {RUN} --num-slots 3 --checkpointing-steps 2 --output_dir=longer"),
    )
    .ok();
    let ran = line(folder, &resumed.replace("max_train_steps=3", "max_train_steps=4")).ok();
    assert!(ran.err.contains("3 slots"), "{}", ran.err);
    assert!(names(&folder.join("longer")).contains(&"README.md".to_string()));
}

#[test]
fn what_a_launcher_started_as_several_is_never_several_runs() {
    let scene = scene();
    for (variable, by) in [
        ("OMPI_COMM_WORLD_SIZE", "mpirun"),
        ("PMI_SIZE", "mpiexec"),
        ("SLURM_STEP_NUM_TASKS", "srun"),
    ] {
        let args = format!("train {RUN} --output_dir=run");
        let output = command(scene.path(), args.split_whitespace())
            .env(variable, "4")
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(
            said.contains(&format!("{by} started 4 processes"))
                && said.contains("--num-slots 4")
                && said.contains("--features mpi"),
            "{said}"
        );
        assert!(!scene.path().join("run").exists());
    }
    for words in ["sample run", "evaluate run"] {
        let output = command(scene.path(), words.split_whitespace())
            .env("OMPI_COMM_WORLD_SIZE", "4")
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success()
                && said.contains("mpirun started 4 processes")
                && said.contains("each do all of it"),
            "{words}: {said}"
        );
    }
    // What makes no sense in several is refused whatever it was built with.
    for words in ["serve run", "push run a/b", "list", "convert run x.safetensors"] {
        let output = command(scene.path(), words.split_whitespace())
            .env("PMI_SIZE", "2")
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && said.contains("is one process, and mpiexec started 2"),
            "{words}: {said}"
        );
    }
    // The shell of a batch script is one process.
    let args = format!("train {RUN} --dry-run");
    let output = command(scene.path(), args.split_whitespace())
        .env("SLURM_NTASKS", "4")
        .output()
        .unwrap();
    assert!(output.status.success());
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let scene = scene();
    for (launcher, named) in [
        (
            "accelerate launch --use_deepspeed train_unconditional.py",
            "DeepSpeed",
        ),
        ("accelerate launch --use_fsdp train_unconditional.py", "FSDP"),
        ("accelerate launch --tpu train_unconditional.py", "TPU"),
        (
            "accelerate launch --num_machines 2 --num_processes 4 train_unconditional.py",
            "--hostfile hosts",
        ),
        ("launch --num-processes 2 serve", "`serve` is one process"),
        (
            "launch --num-processes 2 sample no-run",
            "one process draws all of it",
        ),
        ("launch --num-processes 2 --max-restarts 1 train", "--output-dir"),
        (
            "launch --num-processes 2 --hostfile hosts train",
            "cannot be reached",
        ),
    ] {
        line(scene.path(), &format!("{launcher} --seed 1")).refused(1, &[named]);
    }
    line(scene.path(), "launch --num-processes 0 train").refused(2, &["--num-processes"]);
    line(scene.path(), &format!("train {RUN} --num-slots 0")).refused(1, &["`num_slots`"]);
}
