//! What an earlier state of the program left on disk: it samples, goes on and is trained on, to the same pictures.

mod support;

use std::{fs, path::Path};

use langevin::data::read_picture;
use serde_json::Value;
use support::{command, copy};

/// What is measured of the machine.
const MEASURED: [&str; 2] = ["pictures_per_second", "memory_mb"];

/// Runs the command lines of a list in a copy of `fixtures/before`, and compares what they leave with what the earlier state left
/// there: pictures exactly, metrics as far as Burn's sums are the same on every processor.
fn come_out_as_before(list: &str) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/before");
    let (scene, drawn) = (tempfile::tempdir().unwrap(), fixtures.join("drawn"));
    let folder = scene.path();
    copy(&fixtures, folder);
    for line in fs::read_to_string(fixtures.join(list)).unwrap().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let output = command(folder, &words)
            .env("LANGEVIN_ISA", "portable")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{line}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let after = |flag: &str| {
            let at = words.iter().position(|word| *word == flag).unwrap();
            words[at + 1]
        };
        if words[0] == "train" {
            let run = after("--output-dir");
            let metrics = [
                folder.join(run).join("metrics.jsonl"),
                drawn.join(format!("{run}.jsonl")),
            ];
            assert_same_metrics(line, metrics.map(|path| fs::read_to_string(path).unwrap()));
        } else {
            let name = after("--output");
            let pictures = [folder, &drawn].map(|place| read_picture(place.join(name)).unwrap());
            assert!(pictures[0] == pictures[1], "another picture: {line}");
        }
    }
}

/// Metrics of the same steps, with the same numbers in them but for what was measured of the machine.
fn assert_same_metrics(run: &str, [now, before]: [String; 2]) {
    assert_eq!(now.lines().count(), before.lines().count(), "{run}");
    for (now, before) in now.lines().zip(before.lines()) {
        let [mut now, before] = [now, before].map(|line| serde_json::from_str::<Value>(line).unwrap());
        let now = now.as_object_mut().unwrap();
        now.retain(|name, _| !MEASURED.contains(&name.as_str()));
        let before = before.as_object().unwrap();
        assert!(now.keys().eq(before.keys()), "{run}: {now:?} {before:?}");
        for (name, value) in before {
            let [now, before] = [&now[name], value].map(|value| value.as_f64().unwrap());
            assert!(
                (now - before).abs() <= 1e-4 * before.abs(),
                "{run}: {name} is {now}, and was {before}"
            );
        }
    }
}

#[test]
fn runs_pipelines_and_latents_are_drawn_from_as_before() {
    come_out_as_before("sample.txt");
}

#[test]
fn checkpoints_go_on_as_before() {
    come_out_as_before("resume.txt");
}

#[test]
fn runs_are_trained_on_as_before() {
    come_out_as_before("pretrained.txt");
}
