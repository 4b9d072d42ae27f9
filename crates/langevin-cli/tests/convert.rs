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

/// A case of the library's single files.
fn single(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../langevin/tests/reference/single_file")
        .join(path)
}

/// The bytes of every file of weights in a pipeline's folder.
fn weights(pipeline: &Path) -> Vec<(String, Vec<u8>)> {
    let file = |component: &str| {
        let folder = pipeline.join(component);
        let name = if component.starts_with("text") {
            "model"
        } else {
            "diffusion_pytorch_model"
        };
        (
            component.to_string(),
            fs::read(folder.join(format!("{name}.safetensors"))).unwrap(),
        )
    };
    ["unet", "vae", "text_encoder", "text_encoder_2"].map(file).into()
}

#[test]
fn a_single_file_is_a_folder_and_the_folder_is_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let like = single("sdxl/diffusers");
    let like = like.to_str().unwrap();
    let original = single("sdxl/sdxl.safetensors");
    let ran = convert(folder.path(), &original, &["pipeline", "--config", like]).ok();
    assert!(
        ran.out
            .contains("unet, vae, text_encoder, text_encoder_2 of sdxl"),
        "{}",
        ran.out
    );
    assert_eq!(
        names(&at("pipeline")),
        [
            "model_index.json",
            "scheduler",
            "text_encoder",
            "text_encoder_2",
            "tokenizer",
            "tokenizer_2",
            "unet",
            "vae"
        ]
    );
    for file in [
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "tokenizer_2/tokenizer_config.json",
    ] {
        let json = |root: &Path| -> serde_json::Value {
            serde_json::from_str(&fs::read_to_string(root.join(file)).unwrap()).unwrap()
        };
        assert_eq!(json(&at("pipeline")), json(&single("sdxl/diffusers")), "{file}");
    }
    let ran = convert(
        folder.path(),
        &at("pipeline"),
        &["again.safetensors", "--single-file"],
    )
    .ok();
    assert!(ran.out.contains("a single file of sdxl"), "{}", ran.out);
    convert(
        folder.path(),
        &at("again.safetensors"),
        &["again", "--config", like],
    )
    .ok();
    assert!(weights(&at("pipeline")) == weights(&at("again")));

    // In half the bytes of float32.
    let whole = ["wide.safetensors", "--single-file", "--precision", "float32"];
    convert(folder.path(), &at("pipeline"), &whole).ok();
    let size = |name: &str| fs::metadata(at(name)).unwrap().len();
    assert!(size("wide.safetensors") > size("again.safetensors"));
    let again = ["again.safetensors", "--single-file"];
    convert(folder.path(), &at("pipeline"), &again).refused(1, &["--overwrite"]);
    convert(folder.path(), &at("pipeline"), &["a.ckpt", "--single-file"]).refused(1, &[".safetensors"]);
}

#[test]
fn a_model_alone_in_a_file_is_a_model_alone_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let files = ["config.json", "diffusion_pytorch_model.safetensors"];
    let config = |name: &str| -> serde_json::Value {
        serde_json::from_str(&fs::read_to_string(at(name).join(files[0])).unwrap()).unwrap()
    };
    convert(folder.path(), &single("vae/vae_lightning.ckpt"), &["vae"]).ok();
    assert_eq!(names(&at("vae")), files);
    assert_eq!(config("vae")["scaling_factor"], 0.18215);
    convert(
        folder.path(),
        &single("vae/vae.safetensors"),
        &["xl", "--kind", "sdxl"],
    )
    .ok();
    assert_eq!(config("xl")["scaling_factor"], 0.13025);
    convert(
        folder.path(),
        &single("controlnet/controlnet.safetensors"),
        &["net"],
    )
    .ok();
    assert_eq!(config("net")["_class_name"], "ControlNetModel");

    convert(folder.path(), &at("net"), &["net.safetensors", "--single-file"]).ok();
    convert(folder.path(), &at("net.safetensors"), &["again"]).ok();
    let bytes = |name: &str| fs::read(at(name).join(files[1])).unwrap();
    assert!(bytes("net") == bytes("again"));
}

#[test]
fn what_a_single_file_is_not_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let original = single("sdxl/sdxl.safetensors");
    convert(folder.path(), &original, &["out"]).refused(1, &["786 pieces", "tokenizer"]);
    convert(folder.path(), &original, &["out", "--ema"]).refused(1, &["no moving average"]);
    convert(folder.path(), &original, &["out", "--scheduler", "ddim"]).refused(1, &["--scheduler"]);
    convert(folder.path(), &original, &["out", "--kind", "sd9"]).refused(2, &["sd9"]);
    convert(folder.path(), &stored("early"), &["out", "--kind", "sd1"]).refused(1, &["--kind"]);
    convert(
        folder.path(),
        &stored("early"),
        &["a.safetensors", "--single-file"],
    )
    .refused(1, &["UNet2DModel"]);
    convert(folder.path(), Path::new("nowhere.safetensors"), &["out"]).refused(1, &["nowhere.safetensors"]);
    fs::write(folder.path().join("text.ckpt"), "none").unwrap();
    convert(folder.path(), Path::new("text.ckpt"), &["out"]).refused(1, &["text.ckpt", "torch.save"]);
    assert_eq!(names(folder.path()), ["text.ckpt"]);
}

#[test]
fn numbers_keep_their_type_or_get_the_one_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let file = |name: &str| at(name).join("unet/diffusion_pytorch_model.safetensors");
    let bytes = |name: &str| fs::read(file(name)).unwrap();
    let types = |name: &str| langevin(folder.path(), ["info", name]).ok().out;
    for (asked, shown) in [("f16", "safetensors, F16\n"), ("bfloat16", "safetensors, BF16\n")] {
        convert(folder.path(), &stored("early"), &[asked, "--dtype", asked]).ok();
        assert!(types(asked).contains(shown), "{}", types(asked));
        let again = format!("{asked}-again");
        convert(folder.path(), &at(asked), &[&again]).ok();
        assert!(bytes(asked) == bytes(&again));
        // Widened, they draw the same pictures.
        let wide = format!("{asked}-wide");
        convert(folder.path(), &at(asked), &[&wide, "--precision", "float32"]).ok();
        assert!(types(&wide).contains("safetensors, F32\n"), "{}", types(&wide));
        let [a, b] =
            [asked, wide.as_str()].map(|name| drawn(folder.path(), &at(name), &format!("{name}.png")));
        assert_eq!(pixels(&a), pixels(&b));
    }
    let half = fs::metadata(file("f16")).unwrap().len();
    assert!(fs::metadata(file("f16-wide")).unwrap().len() > half);
    convert(folder.path(), &stored("early"), &["x", "--dtype", "f8"]).refused(2, &["float16", "bfloat16"]);
}

#[test]
fn a_gguf_file_is_written_read_and_drawn_with() {
    let folder = tempfile::tempdir().unwrap();
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../langevin/tests/reference/sd_training/base");
    let config = base.to_str().unwrap();
    let at = |name: &str| folder.path().join(name);
    let draw = |pipeline: &Path, picture: &str| {
        let args = [
            "--prompt", "cat", "--steps", "2", "--seed", "3", "--output", picture,
        ];
        let command = ["sample".as_ref(), pipeline.as_os_str()];
        langevin(
            folder.path(),
            command.into_iter().chain(args.map(std::ffi::OsStr::new)),
        )
        .ok();
        let picture = langevin::data::read_picture(at(picture)).unwrap();
        picture.pixels().to_vec()
    };
    let own = draw(&base, "own.png");
    // As it is, the same to the byte; of eight bits, near.
    convert(folder.path(), &base, &["whole.gguf"]).ok();
    convert(
        folder.path(),
        &at("whole.gguf"),
        &["small.gguf", "--precision", "q8_0"],
    )
    .ok();
    for (name, most) in [("whole", 0), ("small", 24)] {
        convert(
            folder.path(),
            &at(&format!("{name}.gguf")),
            &[name, "--config", config],
        )
        .ok();
        let drawn = draw(&at(name), &format!("{name}.png"));
        let difference = own.iter().zip(&drawn).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(difference <= most, "{name}: {difference}");
        assert_eq!(name == "small", drawn != own, "{name}");
    }
    let size = |name: &str| fs::metadata(at(name)).unwrap().len();
    assert!(size("small.gguf") < size("whole.gguf"));
    let info = langevin(folder.path(), ["info", "small.gguf"]).ok();
    assert!(
        info.out
            .contains("unet, vae, text_encoder of sd1 (GGUF of f32, q8_0"),
        "{}",
        info.out
    );
    // Back, and what is refused.
    convert(
        folder.path(),
        &at("small.gguf"),
        &["back.safetensors", "--single-file"],
    )
    .ok();
    let q8_0 = ["--precision", "q8_0"];
    convert(folder.path(), &base, &["folder", q8_0[0], q8_0[1]]).refused(1, &["q8_0", ".gguf"]);
    convert(
        folder.path(),
        &at("whole.gguf"),
        &["a.safetensors", "--single-file", q8_0[0], q8_0[1]],
    )
    .refused(1, &["q8_0", ".gguf"]);
    convert(folder.path(), &at("whole.gguf"), &["again.gguf"]).refused(1, &["already", "--precision"]);
    let whole = fs::read(at("small.gguf")).unwrap();
    fs::write(at("cut.gguf"), &whole[..whole.len() / 2]).unwrap();
    convert(folder.path(), &at("cut.gguf"), &["cut"]).refused(1, &["cut.gguf", "does not lie in it"]);
    assert!(!at("cut").exists() && !at("a.safetensors").exists());
}
