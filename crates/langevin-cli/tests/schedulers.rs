//! `langevin schedulers`, `langevin plot-schedule`, and the samplers that `langevin sample` takes.

mod support;

use std::{fs, path::Path};

use langevin::{
    data::read_picture,
    grid,
    schedulers::{AnyScheduler, FlowMatchEulerDiscreteConfig, FlowMatchEulerDiscreteScheduler, SamplerName},
};
use support::{Ran, langevin, line, reference_pipeline};

/// The short names that people know.
const KNOWN: [&str; 23] = [
    "ddpm",
    "ddim",
    "pndm",
    "lms",
    "euler",
    "euler-a",
    "heun",
    "dpm2",
    "dpm2-a",
    "dpm++2m",
    "dpm++2m-karras",
    "dpm++2m-sde",
    "dpm++2s",
    "dpm-sde",
    "deis",
    "unipc",
    "sa-solver",
    "ipndm",
    "edm-euler",
    "lcm",
    "tcd",
    "flow-euler",
    "flow-heun",
];

/// Of these, those for other models than one with a noise schedule.
const FOR_OTHER_MODELS: [&str; 4] = ["ipndm", "edm-euler", "flow-euler", "flow-heun"];

fn sample(folder: &Path, pipeline: &Path, name: &str) -> Ran {
    let flags = format!("--count 2 --steps 4 --scheduler {name} --output {name}.png");
    let words = flags.split_whitespace().map(Into::into);
    langevin(
        folder,
        ["sample".into(), pipeline.as_os_str().to_owned()]
            .into_iter()
            .chain(words),
    )
}

#[test]
fn every_name_that_fits_draws_and_the_others_say_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = reference_pipeline("ddpm");
    for name in KNOWN {
        let ran = sample(folder.path(), &pipeline, name);
        let picture = folder.path().join(format!("{name}.png"));
        if FOR_OTHER_MODELS.contains(&name) {
            ran.refused(1, &[&format!("{name} does not fit this model"), "DDPMScheduler"]);
            assert!(!picture.exists());
            continue;
        }
        ran.ok();
        let class = SamplerName::find(name).unwrap().class_name;
        let texts = grid::read_png_text(&picture).unwrap();
        assert!(
            texts.contains(&("scheduler".to_string(), class.to_string())),
            "{texts:?}"
        );
    }
    line(folder.path(), "sample . --scheduler dpm++9").refused(2, &["dpm++9", "dpm++2m"]);
}

#[test]
fn a_flow_takes_the_samplers_of_flows() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = folder.path().join("flow");
    copy(&reference_pipeline("ddpm"), &pipeline);
    let scheduler = FlowMatchEulerDiscreteScheduler::new(FlowMatchEulerDiscreteConfig::default()).unwrap();
    AnyScheduler::from(scheduler)
        .save(pipeline.join("scheduler"))
        .unwrap();
    let index = fs::read_to_string(pipeline.join("model_index.json")).unwrap();
    let index = index.replace("DDPMScheduler", "FlowMatchEulerDiscreteScheduler");
    fs::write(pipeline.join("model_index.json"), index).unwrap();
    for name in ["flow-euler", "flow-heun", "dpm++2m", "unipc"] {
        sample(folder.path(), &pipeline, name).ok();
    }
    sample(folder.path(), &pipeline, "ddim")
        .refused(1, &["ddim does not fit this model", "one of the flows"]);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn the_samplers_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let ran = line(folder.path(), "schedulers").ok();
    for name in KNOWN {
        let class = SamplerName::find(name).unwrap().class_name;
        let listed = ran.out.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(name) && words.next() == Some(class)
        });
        assert!(listed, "{name}: {}", ran.out);
    }
    assert_eq!(ran.out.lines().count(), 1 + SamplerName::ALL.len());
}

#[test]
fn eta_is_for_those_that_have_it() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = reference_pipeline("ddpm");
    let with_eta = |name: &str| {
        let flags = [
            "--count",
            "1",
            "--steps",
            "3",
            "--eta",
            "0.5",
            "--scheduler",
            name,
        ];
        let words = flags.into_iter().map(Into::into);
        langevin(
            folder.path(),
            ["sample".into(), pipeline.as_os_str().to_owned()]
                .into_iter()
                .chain(words),
        )
    };
    with_eta("tcd").ok();
    with_eta("ddim").ok();
    with_eta("unipc").refused(1, &["--eta belongs to the ddim and tcd schedulers"]);
}

#[test]
fn a_schedule_is_drawn() {
    let folder = tempfile::tempdir().unwrap();
    line(
        folder.path(),
        "plot-schedule --beta-schedule squaredcos_cap_v2 --scheduler unipc --steps 12",
    )
    .ok();
    let picture = read_picture(folder.path().join("schedule.png")).unwrap();
    assert!(picture.width() > 1000 && picture.height() > 500);

    let pipeline = reference_pipeline("ddim").into_os_string();
    let flags = ["--scheduler", "heun", "--output", "heun.png"].map(Into::into);
    let ran = langevin(
        folder.path(),
        ["plot-schedule".into(), pipeline].into_iter().chain(flags),
    )
    .ok();
    assert!(ran.out.contains("schedule in heun.png"), "{}", ran.out);
    let texts = grid::read_png_text(folder.path().join("heun.png")).unwrap();
    assert_eq!(texts[0].1, "Noise schedule, and 50 steps of heun");

    line(folder.path(), "plot-schedule --steps 1001").refused(1, &["1001 inference steps", "1 to 1000"]);
    line(folder.path(), "plot-schedule --output a.jpg").refused(1, &[".png"]);
    line(folder.path(), "plot-schedule nowhere").refused(1, &["nowhere"]);
}
