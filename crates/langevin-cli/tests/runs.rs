//! `langevin runs` and `langevin plot`.

mod support;

use std::fs;

use langevin::{
    data::read_picture,
    training::{RunLock, TrainingConfig},
};
use support::{line, names};

/// A folder with two runs of which there are only the configuration and the metrics.
fn two_runs() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, rate) in [("digits-1", 0.9f64), ("digits-2", 0.95)] {
        let run = folder.path().join("runs").join(name);
        fs::create_dir_all(&run).unwrap();
        let config = serde_json::to_string(&TrainingConfig::digits()).unwrap();
        fs::write(run.join("training.json"), config).unwrap();
        let lines = (1..=200).map(|step| {
            let loss = rate.powi(step) + 0.25;
            format!("{{\"step\":{step},\"epoch\":1,\"loss\":{loss},\"lr\":0.001}}\n")
        });
        fs::write(run.join("metrics.jsonl"), lines.collect::<String>()).unwrap();
    }
    folder
}

#[test]
fn runs_are_listed() {
    let folder = two_runs();
    let goes_on = RunLock::acquire(&folder.path().join("runs/digits-1")).unwrap();
    let listed = line(folder.path(), "runs").ok();
    let rows: Vec<Vec<&str>> = listed
        .out
        .lines()
        .map(|row| row.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0][..6], ["run", "data", "model", "steps", "loss", "state"]);
    assert_eq!(
        rows[1][..6],
        ["runs/digits-1", "digits", "digits", "200", "0.2500", "running"]
    );
    assert_eq!((rows.len(), rows[2][5]), (3, "stopped"));
    // No other run may write into it.
    let again = "train --output-dir runs/digits-1 --overwrite-output-dir --max-train-steps 1";
    line(folder.path(), again).refused(1, &["runs/digits-1", "another run is going on"]);
    drop(goes_on);
    let listed = line(folder.path(), "runs").ok();
    assert!(!listed.out.contains("running"), "{}", listed.out);
    fs::write(folder.path().join("runs/digits-2/training.json"), "{").unwrap();
    let listed = line(folder.path(), "runs runs").ok();
    assert!(
        listed.out.contains("digits-1") && listed.err.contains("digits-2"),
        "{}",
        listed.err
    );
    line(folder.path(), "runs nowhere").refused(1, &["nowhere"]);
}

#[test]
fn runs_are_drawn_alone_and_together() {
    let folder = two_runs();
    line(folder.path(), "plot runs/digits-1").ok();
    line(
        folder.path(),
        "plot runs/digits-1 runs/digits-2 --output both.png",
    )
    .ok();
    line(folder.path(), "plot runs/digits-1 --metric lr --output lr.png").ok();
    assert_eq!(names(folder.path()), ["both.png", "loss.png", "lr.png", "runs"]);
    let picture = |name: &str| read_picture(folder.path().join(name)).unwrap();
    assert_ne!(picture("loss.png"), picture("both.png"));
    line(folder.path(), "plot runs/digits-1 --metric los").refused(1, &["`los`", "loss, lr"]);
    line(folder.path(), "plot runs").refused(1, &["runs", "not the folder of a run"]);
    line(folder.path(), "plot runs/digits-1 --output a.svg").refused(1, &["a.svg", ".png"]);
}
