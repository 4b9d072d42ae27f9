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

#[cfg(unix)]
#[test]
fn names_of_other_peoples_files_do_nothing_to_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let clear = "cat\u{1b}[2J\nerror: x";
    for class in [clear, "dog\u{202e}gnp"] {
        let class = folder.path().join("set").join(class);
        fs::create_dir_all(&class).unwrap();
        fs::write(class.join("a\r.png"), "no picture").unwrap();
    }
    let ran = line(folder.path(), "info set").refused(1, &["2 pictures are broken"]);
    for text in [&ran.out, &ran.err] {
        assert!(
            !text.contains(['\u{1b}', '\r', '\u{202e}']) && !text.contains("\nerror: x"),
            "{text:?}"
        );
    }
    assert!(
        ran.out
            .contains("cat\\u001b[2J\\nerror: x (0), dog\\u202egnp (0)"),
        "{}",
        ran.out
    );
    // In warnings of the library, in which the crate that formats them is first to write them out, and in errors.
    std::os::unix::fs::symlink("/", folder.path().join("set").join("out\u{1b}c")).unwrap();
    let ran = line(folder.path(), "info set");
    assert!(
        ran.err.contains("out\\x1bc") && !ran.err.contains('\u{1b}'),
        "{:?}",
        ran.err
    );
    fs::write(
        folder.path().join("model_index.json"),
        r#"{"_class_name": "P", "un\u001bet": 3, "a\u0007": [1]}"#,
    )
    .unwrap();
    let ran = line(folder.path(), "info .");
    assert!(
        ran.code == 1 && ran.err.contains("a\\u0007") && !ran.err.contains('\u{7}'),
        "{:?}",
        ran.err
    );
}

#[test]
fn a_program_is_told_in_json_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let told = |path: &str| line(folder.path(), &format!("info {path} --json")).ok().json();
    let pipeline = told(&reference_pipeline("ddpm").display().to_string());
    assert_eq!(pipeline["kind"], "pipeline");
    assert_eq!(pipeline["class"], "DDPMPipeline");
    assert_eq!(
        (&pipeline["height"], &pipeline["channels"]),
        (&16.into(), &3.into())
    );
    assert!(pipeline["parameters"].as_u64().unwrap() > 1000, "{pipeline}");
    let digits = told("digits");
    assert_eq!(digits["kind"], "dataset");
    assert_eq!(digits["pictures"], 1797);
    assert_eq!(digits["classes"].as_array().unwrap().len(), 10);
    let codec = reference_pipeline("ddpm").join("../../codec_training");
    let codec = told(&codec.display().to_string());
    assert_eq!(codec["kind"], "autoencoder");
    assert_eq!(
        (&codec["factor"], &codec["latent_channels"]),
        (&4.into(), &2.into())
    );
    let file = reference_pipeline("ddpm").join("unet/diffusion_pytorch_model.safetensors");
    let file = told(&file.display().to_string());
    assert_eq!(file["kind"], "weights");
    assert_eq!(file["sha256"].as_str().unwrap().len(), 64);
}
