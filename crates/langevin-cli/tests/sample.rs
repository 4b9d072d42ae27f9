//! `langevin sample` on pipelines that diffusers saved.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
};

use langevin::{Request, data::read_picture, grid};
use support::{command, copy, langevin, line, names, reference_pipeline};

/// `sample PIPELINE` with more flags, split at spaces.
fn sample(folder: &Path, pipeline: &str, flags: &str) -> support::Ran {
    let path = reference_pipeline(pipeline).into_os_string();
    let words = flags.split_whitespace().map(Into::into);
    langevin(folder, ["sample".into(), path].into_iter().chain(words))
}

/// The texts in a PNG.
fn texts(path: &Path) -> BTreeMap<String, String> {
    grid::read_png_text(path).unwrap().into_iter().collect()
}

#[test]
fn a_folder_holds_the_pictures_that_diffusers_makes() {
    let folder = tempfile::tempdir().unwrap();
    sample(
        folder.path(),
        "ddpm",
        "--count 2 --batch-size 2 --steps 10 --seed 42 --output a/pictures",
    )
    .ok();
    assert_eq!(names(folder.path()), ["a"]);
    assert_eq!(names(&folder.path().join("a")), ["pictures"]);
    assert_eq!(names(&folder.path().join("a/pictures")), ["0000.png", "0001.png"]);

    // The file's only tensor, `images`, is all that follows its header: 2 pictures of 16x16 in colour, float32.
    let bytes = fs::read(reference_pipeline("ddpm").join("images.safetensors")).unwrap();
    let expected = bytes[bytes.len() - 2 * 16 * 16 * 3 * 4..].chunks_exact(4);
    let expected: Vec<f32> = expected
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    let found: Vec<u8> = ["0000.png", "0001.png"]
        .iter()
        .flat_map(|name| {
            read_picture(folder.path().join("a/pictures").join(name))
                .unwrap()
                .into_pixels()
        })
        .collect();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (f32::from(*found) - expected * 255.0).abs() <= 1.0,
            "{found} {}",
            expected * 255.0
        );
    }
}

#[test]
fn a_grid_says_how_it_was_made() {
    let folder = tempfile::tempdir().unwrap();
    let ran = sample(
        folder.path(),
        "ddim",
        "--count 3 --steps 2 --seed 7 --output deep/grid.png",
    )
    .ok();
    assert!(ran.out.contains("3 pictures in deep/grid.png"), "{}", ran.out);
    let texts = texts(&folder.path().join("deep/grid.png"));
    assert_eq!((texts["seed"].as_str(), texts["steps"].as_str()), ("7", "2"));
    assert_eq!(texts["scheduler"], "DDIMScheduler");
    assert!(texts["model"].ends_with("pipelines/ddim"), "{texts:?}");
}

#[test]
fn the_scheduler_can_be_another() {
    let folder = tempfile::tempdir().unwrap();
    sample(
        folder.path(),
        "ddpm",
        "--count 1 --steps 3 --scheduler ddim --eta 0.5 --output a.png",
    )
    .ok();
    assert_eq!(texts(&folder.path().join("a.png"))["scheduler"], "DDIMScheduler");
    sample(
        folder.path(),
        "ddim",
        "--count 1 --steps 3 --scheduler ddpm --output b.png",
    )
    .ok();
    assert_eq!(texts(&folder.path().join("b.png"))["scheduler"], "DDPMScheduler");
}

#[test]
fn the_same_seed_gives_the_same_file_and_another_another() {
    let folder = tempfile::tempdir().unwrap();
    for (name, seed) in [("a", 1), ("b", 1), ("c", 2)] {
        sample(
            folder.path(),
            "ddpm",
            &format!("--count 2 --steps 2 --seed {seed} --output {name}.png"),
        )
        .ok();
    }
    let bytes = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert_eq!(bytes("a.png"), bytes("b.png"));
    assert_ne!(bytes("a.png"), bytes("c.png"));
}

#[test]
fn the_denoising_can_be_watched() {
    let folder = tempfile::tempdir().unwrap();
    sample(
        folder.path(),
        "ddim",
        "--count 2 --batch-size 1 --steps 4 --output a.png --animate b/a.gif",
    )
    .ok();
    let gif = fs::read(folder.path().join("b/a.gif")).unwrap();
    assert!(gif.starts_with(b"GIF89a"));
    sample(folder.path(), "ddim", "--steps 4 --animate a.mp4").refused(1, &["--animate", ".gif"]);
}

#[test]
fn pictures_are_as_large_as_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let flags = "--count 2 --steps 2 --scheduler ddim";
    sample(
        folder.path(),
        "ddpm",
        &format!("{flags} --size 24x16 --output wide"),
    )
    .ok();
    for name in ["0000.png", "0001.png"] {
        let picture = read_picture(folder.path().join("wide").join(name)).unwrap();
        assert_eq!((picture.width(), picture.height()), (24, 16));
    }
    // The model's own size draws what no size draws.
    sample(
        folder.path(),
        "ddpm",
        &format!("{flags} --size 16x16 --output own"),
    )
    .ok();
    sample(folder.path(), "ddpm", &format!("{flags} --output none")).ok();
    let pixels = |name: &str| read_picture(folder.path().join(name)).unwrap().into_pixels();
    assert_eq!(pixels("own/0001.png"), pixels("none/0001.png"));

    // Three levels halve a side twice.
    let refused = |size: &str, code: i32, parts: &[&str]| {
        sample(folder.path(), "ddpm", &format!("{flags} --size {size}")).refused(code, parts);
    };
    refused(
        "18x16",
        1,
        &["--size is 18x16", "divisible by 4", "16x16 or 20x16"],
    );
    refused("2x2", 1, &["4x4"]);
    refused("16x", 2, &["WIDTHxHEIGHT"]);
    refused("0x16", 2, &["WIDTHxHEIGHT"]);
}

#[test]
fn what_the_model_cannot_do_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |pipeline: &str, flags: &str, code: i32, part: &str| {
        sample(folder.path(), pipeline, flags).refused(code, &[part]);
    };
    refused("ddpm", "--class 3", 1, "unconditional");
    refused("ddpm", "--eta 1", 1, "--scheduler ddim");
    refused("ddpm", "--steps 0", 1, "0");
    refused("ddpm", "--steps 1001", 1, "1001");
    refused("ddpm", "--count 0", 1, "--count");
    refused("ddpm", "--scheduler eulerr", 2, "euler-a");
    assert!(names(folder.path()).is_empty());
}

#[test]
fn what_is_there_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("full")).unwrap();
    fs::write(folder.path().join("full/notes.txt"), "mine").unwrap();
    fs::write(folder.path().join("file"), "mine").unwrap();
    sample(folder.path(), "ddpm", "--steps 2 --output full").refused(1, &["full", "--overwrite"]);
    sample(folder.path(), "ddpm", "--steps 2 --output file").refused(1, &["file"]);
    assert_eq!(names(&folder.path().join("full")), ["notes.txt"]);
    sample(
        folder.path(),
        "ddpm",
        "--count 1 --steps 2 --output full --overwrite",
    )
    .ok();
    assert_eq!(names(&folder.path().join("full")), ["0000.png", "notes.txt"]);
}

#[test]
fn a_broken_pipeline_is_told_what_is_wrong_with_it() {
    let folder = tempfile::tempdir().unwrap();
    line(folder.path(), "sample nowhere").refused(1, &["nowhere", "no such folder"]);
    fs::create_dir(folder.path().join("empty")).unwrap();
    line(folder.path(), "sample empty").refused(1, &["empty", "model_index.json"]);
    copy(&reference_pipeline("ddpm"), &folder.path().join("run"));
    let weights = folder.path().join("run/unet/diffusion_pytorch_model.safetensors");
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
    line(folder.path(), "sample run --steps 2").refused(1, &["diffusion_pytorch_model.safetensors"]);
    fs::remove_file(&weights).unwrap();
    line(folder.path(), "sample run --steps 2").refused(1, &["diffusion_pytorch_model.safetensors"]);
    fs::write(
        folder.path().join("run/model_index.json"),
        r#"{"_class_name": "KandinskyPipeline"}"#,
    )
    .unwrap();
    line(folder.path(), "sample run").refused(1, &["KandinskyPipeline", "not there yet"]);
    assert_eq!(names(folder.path()), ["empty", "run"]);
}

#[cfg(unix)]
#[test]
fn an_output_that_cannot_be_written_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // A file where a parent folder would have to be: refused to root as well.
    fs::write(folder.path().join("file"), "mine").unwrap();
    sample(
        folder.path(),
        "ddpm",
        "--count 1 --steps 2 --output file/sub/a.png",
    )
    .refused(1, &["file/sub"]);
    sample(
        folder.path(),
        "ddpm",
        "--count 1 --steps 2 --output file/sub/pictures",
    )
    .refused(1, &["file/sub"]);
    assert_eq!(names(folder.path()), ["file"]);
}

#[cfg(unix)]
#[test]
fn interrupted_it_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["sample".into(), reference_pipeline("ddpm").into_os_string()]
        .into_iter()
        .chain(
            "--count 64 --batch-size 64 --steps 1000 --output pictures"
                .split_whitespace()
                .map(Into::into),
        );
    let mut child = command(folder.path(), args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    // It says what it is about to do when it is ready to be interrupted.
    let mut first = String::new();
    said.read_line(&mut first).unwrap();
    assert!(first.contains("drawing 64 pictures"), "{first}");
    let interrupted = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(interrupted.success());
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{rest}");
    assert!(rest.contains("nothing was written"), "{rest}");
    assert!(names(folder.path()).is_empty());
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_device_that_is_not_built_in_is_refused_with_how_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--count", "1", "--steps", "1", "--device"].map(std::ffi::OsStr::new);
    let pipeline = reference_pipeline("ddpm");
    let sample = |device: &str| {
        let command = ["sample".as_ref(), pipeline.as_os_str()];
        langevin(
            folder.path(),
            command.into_iter().chain(args).chain([device.as_ref()]),
        )
    };
    sample("cuda:1").refused(
        1,
        &["cuda is not built in", "cargo build --release --features cuda"],
    );
    sample("gpu").refused(2, &["cpu, vulkan, wgpu, metal, cuda"]);
    line(folder.path(), "train --device cuda").refused(1, &["--features cuda"]);
    assert!(names(folder.path()).is_empty());
    sample("cpu").ok();
}

/// An option is a field of a request: in the program, and in the API.
#[test]
fn options_of_drawing_are_flags_and_fields_alike() {
    /// What is no option of a caller of the API: how much is drawn together, and the CLIP model, are the server's to say.
    const PROGRAM_ONLY: [&str; 4] = ["batch_size", "clip", "cuts", "image_encoder"];
    /// LoRA beside a model that others draw with meanwhile; the program merges them (`--lora`).
    const BESIDE: &str = "loras";
    /// What is about the program and not about the pictures.
    const NO_OPTIONS: [&str; 22] = [
        "device",
        "output",
        "overwrite",
        "exact_convolution",
        "animate",
        "help",
        // How the model is loaded, which a server was told when it began.
        "variant",
        "kind",
        "codec",
        "vae_tiling",
        "preview_vae",
        "no_safety_checker",
        "embedding",
        "embedding_dir",
        "lora",
        "lora_dir",
        // What is read of a picture's file, and what is written beside the pictures.
        "like",
        "no_metadata",
        "keep_control",
        // Several requests in one.
        "vary",
        // Two requests in one, with a model each.
        "refiner",
        "refiner_start",
    ];
    let folder = tempfile::tempdir().unwrap();
    let help = line(folder.path(), "sample --help").ok().out;
    let flags: BTreeSet<String> = help
        .lines()
        .filter_map(|line| line.trim().split_once("--"))
        .filter(|(before, _)| before.is_empty() || before.ends_with(", "))
        .map(|(_, flag)| {
            flag.split_whitespace()
                .next()
                .unwrap_or_default()
                .replace('-', "_")
        })
        .filter(|flag| !NO_OPTIONS.contains(&flag.as_str()))
        .collect();
    let fields = serde_json::to_value(Request::default()).unwrap();
    let fields = fields.as_object().unwrap().keys().cloned();
    let fields: BTreeSet<String> = fields
        .filter(|field| field != BESIDE)
        .chain(PROGRAM_ONLY.map(String::from))
        .collect();
    assert_eq!(flags, fields);
}
