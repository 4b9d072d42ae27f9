//! `langevin train`, from a data set to a folder: short runs, and what goes wrong in them.

mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
};

use langevin::{data::read_picture, training::TrainingConfig};
use support::{command, line, names, on_a_full_disk, pictures, small_model};

/// A run so short that it is done in a moment.
const SHORT: &str =
    "--max-train-steps 2 --train-batch-size 8 --eval-batch-size 10 --ddpm-num-inference-steps 2";

fn metrics(run: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn the_digits_leave_a_pipeline_and_all_about_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let model = small_model(folder.path(), 1, true);
    let args = format!("train --dataset-name digits --model {model} --conditioning class --use-ema {SHORT}");
    let ran = line(folder.path(), &args).ok();
    let run = folder.path().join("runs/digits-small-1");
    assert_eq!(
        names(&run),
        [
            "README.md",
            "classes.json",
            "loss.png",
            "metrics.jsonl",
            "model_index.json",
            "samples-denoising.png",
            "samples-trained-denoising.png",
            "samples-trained.png",
            "samples.png",
            "scheduler",
            "training.json",
            "unet"
        ]
    );
    assert!(ran.err.contains("too young to use"), "{}", ran.err);
    let steps = metrics(&run);
    assert_eq!(steps.len(), 2);
    assert!(
        steps
            .iter()
            .all(|step| step["loss"].as_f64().unwrap() > 0.0 && step["ema_decay"].is_number())
    );
    let config: TrainingConfig =
        serde_json::from_str(&fs::read_to_string(run.join("training.json")).unwrap()).unwrap();
    assert_eq!(config.max_train_steps, Some(2));
    // One row a digit.
    let samples = read_picture(run.join("samples.png")).unwrap();
    assert!(samples.height() > 9 * samples.width(), "{samples:?}");

    // The line that it ends with works.
    let next = ran.out.lines().last().unwrap().split_once("sample ").unwrap().1;
    line(folder.path(), &format!("sample {next} --steps 2 --count 2")).ok();
    assert!(folder.path().join("samples.png").exists());

    // A second run gets a folder of its own, and the same seed the same weights.
    line(folder.path(), &args).ok();
    let weights = |run: &str| {
        let file = "unet/diffusion_pytorch_model.safetensors";
        fs::read(folder.path().join("runs").join(run).join(file)).unwrap()
    };
    assert!(weights("digits-small-1") == weights("digits-small-2"));
    line(folder.path(), &format!("{args} --seed 1")).ok();
    assert!(weights("digits-small-1") != weights("digits-small-3"));
}

#[test]
fn a_folder_of_pictures_is_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    let model = small_model(folder.path(), 3, true);
    // A truncated picture is left out, with a word about it.
    let broken = folder.path().join("pictures/dark/00.png");
    let whole = fs::read(&broken).unwrap();
    fs::write(&broken, &whole[..whole.len() / 2]).unwrap();
    let args = format!(
        "train --train-data-dir pictures --model {model} --resolution 8 --conditioning class --random-flip \
         --output-dir run {SHORT} --gradient-accumulation-steps 2 --num-epochs 1"
    );
    let ran = line(folder.path(), &args).ok();
    assert!(ran.err.contains("00.png"), "{}", ran.err);
    let run = folder.path().join("run");
    let classes = fs::read_to_string(run.join("classes.json")).unwrap();
    assert!(classes.contains("dark") && classes.contains("light"), "{classes}");
    line(
        folder.path(),
        "sample run --class light --steps 2 --output one.png",
    )
    .ok();
    line(
        folder.path(),
        "sample run --class green --steps 2 --output two.png",
    )
    .refused(1, &["green", "dark", "light"]);
}

#[test]
fn what_is_in_the_way_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let model = small_model(folder.path(), 1, false);
    fs::create_dir(folder.path().join("mine")).unwrap();
    fs::write(folder.path().join("mine/notes.txt"), "mine").unwrap();
    let args =
        format!("train --dataset-name digits --model {model} --channels grey --output-dir mine {SHORT}");
    line(folder.path(), &args).refused(1, &["mine", "--overwrite-output-dir"]);
    assert_eq!(names(&folder.path().join("mine")), ["notes.txt"]);
    line(folder.path(), &format!("{args} --overwrite-output-dir")).ok();
    assert!(folder.path().join("mine/model_index.json").exists());
    assert!(folder.path().join("mine/notes.txt").exists());
}

#[test]
fn data_that_are_not_there_are_an_error_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("empty")).unwrap();
    line(folder.path(), "train --train-data-dir empty").refused(1, &["empty"]);
    line(folder.path(), "train --train-data-dir nowhere").refused(1, &["nowhere"]);
    assert_eq!(names(folder.path()), ["empty"]);
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_with_the_last_good_state() {
    let folder = tempfile::tempdir().unwrap();
    let model = small_model(folder.path(), 1, false);
    let args = format!(
        "train --dataset-name digits --model {model} --channels grey --output-dir run --train-batch-size 8 \
         --max-train-steps 50 --learning-rate 1e36 --lr-scheduler constant --max-grad-norm 1e30"
    );
    line(folder.path(), &args).refused(1, &["step", "run", "learning rate"]);
    let run = folder.path().join("run");
    assert!(metrics(&run).iter().all(|step| step["loss"].is_number()));
    assert!(run.join("model_index.json").exists() && run.join("loss.png").exists());
}

#[cfg(unix)]
#[test]
fn interrupted_it_leaves_plot_and_pipeline() {
    let folder = tempfile::tempdir().unwrap();
    let model = small_model(folder.path(), 1, false);
    let args = format!(
        "train --dataset-name digits --model {model} --channels grey --output-dir run --train-batch-size 8 --max-train-steps 100000 \
         --eval-batch-size 4 --ddpm-num-inference-steps 2 --log-samples-every 5"
    );
    let mut child = command(folder.path(), args.split_whitespace())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    // Once a grid is drawn, and its strip after it, steps are being done.
    let mut text = String::new();
    while !folder
        .path()
        .join("run/samples/step-000005-denoising.png")
        .exists()
    {
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
    }
    assert!(
        Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    said.read_to_string(&mut text).unwrap();
    let mut printed = String::new();
    child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{text}");
    assert!(printed.contains("stopped after"), "{printed}");
    let run = folder.path().join("run");
    assert!(run.join("model_index.json").exists() && run.join("loss.png").exists());
    // Of the grids that were drawn on the way, the card shows the last.
    let grids = names(&run.join("samples"));
    let last = grids.iter().rfind(|name| !name.contains("denoising")).unwrap();
    let drawn = |name: &str| fs::read(run.join(name)).unwrap();
    assert_eq!(drawn("samples-last.png"), drawn(&format!("samples/{last}")));
    let card = String::from_utf8(drawn("README.md")).unwrap();
    assert!(card.contains("![samples](samples-last.png)"), "{card}");
    let listed = line(folder.path(), "runs run").ok();
    assert!(
        listed.out.contains("stopped") && !listed.out.contains("finished"),
        "{}",
        listed.out
    );
    line(folder.path(), "sample run --steps 2 --output one.png").ok();
    let mut rest = String::new();
    assert_eq!(said.read_line(&mut rest).unwrap(), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_no_half_pipeline() {
    let folder = tempfile::tempdir().unwrap();
    let model = small_model(folder.path(), 1, false);
    let args =
        format!("train --dataset-name digits --model {model} --channels grey --output-dir run {SHORT}");
    let (code, said) = on_a_full_disk(folder.path(), 4, &args);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("error: cannot write"), "{said}");
    let run = folder.path().join("run");
    assert!(
        !run.join("model_index.json").exists() && !run.join("unet").exists(),
        "{:?}",
        names(&run)
    );

    let (code, said) = on_a_full_disk(
        folder.path(),
        1,
        &format!(
            "sample {} --steps 2 --output out.png",
            support::reference_pipeline("ddpm").display()
        ),
    );
    assert_eq!(code, 1, "{said}");
    assert_eq!(names(folder.path()), ["run", "small.json"]);
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_before_training() {
    let folder = tempfile::tempdir().unwrap();
    let model = small_model(folder.path(), 1, false);
    fs::write(folder.path().join("file"), "mine").unwrap();
    line(
        folder.path(),
        &format!("train --dataset-name digits --model {model} --channels grey --output-dir file/run {SHORT}"),
    )
    .refused(1, &["file/run"]);
    assert_eq!(fs::read_to_string(folder.path().join("file")).unwrap(), "mine");
}
