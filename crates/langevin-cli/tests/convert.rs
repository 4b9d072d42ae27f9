//! `langevin convert`, and what `langevin info` says about old checkpoints.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use support::{langevin, names, reference_pipeline};

/// A checkpoint of the library's tests.
fn stored(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../langevin/tests/checkpoints")
        .join(path)
}

fn convert(folder: &Path, input: &Path, rest: &[&str]) -> support::Ran {
    let mut args = vec!["convert".as_ref(), input.as_os_str()];
    args.extend(rest.iter().map(std::ffi::OsStr::new));
    langevin(folder, args)
}

/// The bytes of the picture that a pipeline draws.
fn drawn(folder: &Path, pipeline: &Path, picture: &str) -> Vec<u8> {
    let args = ["--count", "2", "--steps", "3", "--output", picture].map(std::ffi::OsStr::new);
    let command = ["sample".as_ref(), pipeline.as_os_str()];
    langevin(folder, command.into_iter().chain(args)).ok();
    fs::read(folder.join(picture)).unwrap()
}

/// The picture without the facts beside it, of which one is where the model came from.
fn pixels(png: &[u8]) -> &[u8] {
    let at = png.windows(4).position(|window| window == b"IDAT").unwrap();
    &png[at..]
}

#[test]
fn a_repository_of_2022_becomes_a_pipeline_of_today() {
    let folder = tempfile::tempdir().unwrap();
    let early = stored("early");
    let ran = langevin(folder.path(), ["info".as_ref(), early.as_os_str()]).ok();
    for part in [
        "PyTorch pickle of before 1.6",
        "early names",
        "at the root",
        "DDPMScheduler",
    ] {
        assert!(ran.out.contains(part), "{}", ran.out);
    }
    let ran = convert(folder.path(), &early, &["today"]).ok();
    assert!(ran.out.contains("parameters from PyTorch pickle"), "{}", ran.out);
    let today = folder.path().join("today");
    assert_eq!(names(&today), ["model_index.json", "scheduler", "unet"]);
    assert_eq!(
        names(&today.join("unet")),
        ["config.json", "diffusion_pytorch_model.safetensors"]
    );
    assert_eq!(names(folder.path()), ["today"]);
    assert_eq!(
        pixels(&drawn(folder.path(), &early, "a.png")),
        pixels(&drawn(folder.path(), &today, "b.png"))
    );
    let ran = langevin(folder.path(), ["info", "today"]).ok();
    assert!(ran.out.contains("safetensors, F32\n"), "{}", ran.out);
}

#[test]
fn a_model_alone_stays_one_unless_it_is_given_a_scheduler() {
    let folder = tempfile::tempdir().unwrap();
    let input = stored("sharded_fp16");
    convert(folder.path(), &input, &["model"]).ok();
    let files = ["config.json", "diffusion_pytorch_model.safetensors"];
    assert_eq!(names(&folder.path().join("model")), files);
    convert(
        folder.path(),
        &input,
        &["pipeline", "--scheduler", "ddim", "--variant", "fp16"],
    )
    .ok();
    let ran = langevin(folder.path(), ["info", "pipeline"]).ok();
    assert!(
        ran.out.contains("DDIMPipeline") && ran.out.contains("DDIMScheduler"),
        "{}",
        ran.out
    );
    let weights = |path: &str| fs::read(folder.path().join(path).join(files[1])).unwrap();
    assert_eq!(weights("model"), weights("pipeline/unet"));
}

#[test]
fn a_model_and_a_scheduler_side_by_side_are_a_pipeline() {
    let folder = tempfile::tempdir().unwrap();
    let flat = folder.path().join("flat");
    fs::create_dir(&flat).unwrap();
    for file in [
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
    ] {
        let source = reference_pipeline("ddim").join(file);
        fs::copy(&source, flat.join(source.file_name().unwrap())).unwrap();
    }
    convert(folder.path(), &flat, &["pipeline"]).ok();
    let text = |root: &Path| fs::read_to_string(root.join("model_index.json")).unwrap();
    assert_eq!(
        text(&folder.path().join("pipeline")),
        text(&reference_pipeline("ddim"))
    );
}

#[test]
fn what_is_in_the_way_or_broken_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let early = stored("early");
    convert(folder.path(), Path::new("nowhere"), &["out"]).refused(1, &["nowhere"]);
    convert(folder.path(), &early, &["out", "--variant", "fp16"]).refused(1, &["variant `fp16`"]);
    convert(folder.path(), &early, &["out", "--scheduler", "magic"]).refused(2, &["magic"]);
    let hostile = folder.path().join("hostile");
    fs::create_dir(&hostile).unwrap();
    for file in ["config.json", "model_index.json", "scheduler_config.json"] {
        fs::copy(early.join(file), hostile.join(file)).unwrap();
    }
    fs::copy(
        stored("pickles/command.bin"),
        hostile.join("diffusion_pytorch_model.bin"),
    )
    .unwrap();
    convert(folder.path(), &hostile, &["out"]).refused(1, &["posix.system", "not run"]);
    assert_eq!(names(folder.path()), ["hostile"]);

    fs::create_dir(folder.path().join("full")).unwrap();
    fs::write(folder.path().join("full/mine.txt"), "mine").unwrap();
    convert(folder.path(), &early, &["full"]).refused(1, &["--overwrite"]);
    assert_eq!(names(&folder.path().join("full")), ["mine.txt"]);
    convert(folder.path(), &early, &["full", "--overwrite"]).ok();
    assert_eq!(
        names(&folder.path().join("full")),
        ["mine.txt", "model_index.json", "scheduler", "unet"]
    );
    convert(
        folder.path(),
        &folder.path().join("full"),
        &["full", "--overwrite"],
    )
    .refused(1, &["the input itself"]);
    fs::write(folder.path().join("file"), "").unwrap();
    convert(folder.path(), &early, &["file"]).refused(1, &["is a file"]);
}
