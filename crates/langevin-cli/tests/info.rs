//! `langevin info`.

mod support;

use std::fs;

use support::{langevin, line, reference_pipeline};

#[test]
fn a_pipeline_is_described() {
    let folder = tempfile::tempdir().unwrap();
    let ran = langevin(
        folder.path(),
        ["info".as_ref(), reference_pipeline("ddpm").as_os_str()],
    )
    .ok();
    for part in [
        "DDPMPipeline",
        "UNet2DModel",
        "parameters",
        "16x16",
        "colour",
        "DDPMScheduler",
        "1000 timesteps",
    ] {
        assert!(ran.out.contains(part), "{}", ran.out);
    }
}

#[test]
fn a_bare_model_is_described() {
    let folder = tempfile::tempdir().unwrap();
    let ran = langevin(
        folder.path(),
        [
            "info".as_ref(),
            reference_pipeline("ddim").join("unet").as_os_str(),
        ],
    )
    .ok();
    assert!(
        ran.out.contains("without a scheduler") && ran.out.contains("UNet2DModel"),
        "{}",
        ran.out
    );
}

#[test]
fn the_digits_are_described_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let ran = line(folder.path(), "info digits --grid out/digits.png").ok();
    for part in ["1797", "8x8", "grey"] {
        assert!(ran.out.contains(part), "{}", ran.out);
    }
    assert!(
        fs::read(folder.path().join("out/digits.png"))
            .unwrap()
            .starts_with(b"\x89PNG")
    );
}

#[test]
fn what_is_not_there_or_broken_is_said() {
    let folder = tempfile::tempdir().unwrap();
    line(folder.path(), "info nowhere").refused(1, &["nowhere"]);
    fs::create_dir(folder.path().join("pictures")).unwrap();
    line(folder.path(), "info pictures").refused(1, &["pictures"]);
    fs::write(folder.path().join("pictures/a.png"), "not a picture").unwrap();
    let ran = line(folder.path(), "info pictures").refused(1, &["broken"]);
    assert!(ran.out.contains("a.png"), "{}", ran.out);
    fs::create_dir_all(folder.path().join("run/unet")).unwrap();
    line(folder.path(), "info run").refused(1, &["model_index.json"]);
}
