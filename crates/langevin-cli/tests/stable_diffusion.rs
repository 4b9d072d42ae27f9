//! `langevin sample` on tiny pipelines of the Stable Diffusion family: what diffusers draws with them, and what cannot be drawn.

mod support;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use langevin::{
    data::{Channels, Picture, read_picture},
    device::default_device,
    grid,
    models::{AutoencoderKL, Model, ModelConfig, UNet2DConditionModel},
    random::Generator,
};
use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use support::{Ran, copy, langevin, line, names};

/// The folder of reference values, or the one that `LANGEVIN_REFERENCE` names.
fn reference() -> PathBuf {
    env::var_os("LANGEVIN_REFERENCE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../langevin/tests/reference"),
        PathBuf::from,
    )
}

fn model(name: &str) -> PathBuf {
    reference().join(name)
}

/// Four steps of a pipeline, with more words.
fn sample(folder: &Path, pipeline: impl AsRef<Path>, words: &[&str]) -> Ran {
    let pipeline = pipeline.as_ref().display().to_string();
    let brief = ["sample", &pipeline, "--steps", "4"];
    langevin(folder, brief.iter().chain(words))
}

/// The same of Stable Diffusion 1's, from a text: its pixels.
fn drawn(folder: &Path, words: &[&str]) -> Vec<u8> {
    one(
        folder,
        sd1(),
        &[&["--prompt", "a cat in the snow"], words].concat(),
    )
    .into_pixels()
}

/// The only picture of a drawing, as it is: tiny ones by themselves are enlarged.
fn one(folder: &Path, pipeline: impl AsRef<Path>, words: &[&str]) -> Picture {
    let output = ["--output", "one", "--overwrite"];
    sample(folder, pipeline, &[words, &output].concat()).ok();
    assert_eq!(names(&folder.join("one")), ["0000.png"]);
    read_picture(folder.join("one/0000.png")).unwrap()
}

fn sd1() -> PathBuf {
    model("sd/models/sd1")
}

fn pixels(path: &Path) -> Vec<u8> {
    read_picture(path).unwrap().into_pixels()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

/// A picture of a gradient.
fn gradient(height: usize, width: usize) -> Picture {
    let pixel = |at: usize| [(at % width * 7) as u8, (at / width * 5) as u8, (at % 251) as u8];
    Picture::new(
        height,
        width,
        Channels::Rgb,
        (0..height * width).flat_map(pixel).collect(),
    )
    .unwrap()
}

/// A picture of one value.
fn flat(height: usize, width: usize, channels: Channels, value: u8) -> Picture {
    let pixels = vec![value; height * width * channels.count()];
    Picture::new(height, width, channels, pixels).unwrap()
}

/// Writes a mask whose right half is white.
fn half(folder: &Path, height: usize, width: usize) {
    let white = |at: usize| if at % width < width / 2 { 0 } else { 255 };
    let mask = (0..height * width).map(white).collect();
    write(
        folder,
        "mask.png",
        &Picture::new(height, width, Channels::Grey, mask).unwrap(),
    );
}

fn write(folder: &Path, name: &str, picture: &Picture) {
    grid::write_png(folder.join(name), picture, &[]).unwrap();
}

/// By how many of 255 levels two pictures differ at most.
fn levels(a: &[u8], b: &[u8]) -> u8 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

/// A call of diffusers' that the reference values hold, as a command line; `None` where it is given what no file is.
struct Case {
    folder: PathBuf,
    call: Value,
}

impl Case {
    fn path(&self, name: &str) -> PathBuf {
        let beside = self.folder.join(name);
        if beside.exists() {
            beside
        } else {
            reference().join(name)
        }
    }

    /// The pipeline with what the call replaces of it.
    fn pipeline(&self, folder: &Path) {
        copy(&self.path(self.call["model"].as_str().unwrap()), folder);
        let mut index = json(&folder.join("model_index.json"));
        index["_class_name"] = self.call["pipeline"].clone();
        if let Some(scheduler) = self.call["scheduler"].as_str() {
            let config = self.path(scheduler);
            index["scheduler"][1] = json(&config)["_class_name"].clone();
            copy(config.parent().unwrap(), &folder.join("scheduler"));
        }
        for (name, path) in self.call["components"].as_object().into_iter().flatten() {
            index[name] = match name.as_str() {
                "safety_checker" => json!(["stable_diffusion", "StableDiffusionSafetyChecker"]),
                _ => json!(["transformers", "CLIPImageProcessor"]),
            };
            copy(&self.path(path.as_str().unwrap()), &folder.join(name));
        }
        for (name, value) in self.call["pipeline_config"].as_object().into_iter().flatten() {
            index[name] = value.clone();
        }
        fs::write(folder.join("model_index.json"), index.to_string()).unwrap();
    }

    fn number(&self, name: &str, usual: u64) -> u64 {
        self.call["arguments"][name].as_u64().unwrap_or(usual)
    }

    /// The call's flags.
    fn flags(&self) -> Option<Vec<String>> {
        let mut flags = Vec::new();
        let arguments = self.call["arguments"].as_object().unwrap();
        for (name, value) in arguments {
            for (flag, text) in self.flag(name, value) {
                flags.extend([flag.to_string(), text]);
            }
        }
        let inputs = self.call["inputs"].as_object().unwrap();
        for (name, value) in inputs {
            let file = value.as_str().filter(|text| !text.contains('#'))?;
            let flag = match name.as_str() {
                "image" if inputs.contains_key("mask_image") => "--inpaint",
                "image" => "--init-image",
                "mask_image" => "--mask",
                _ => return None,
            };
            flags.extend([flag.into(), self.path(file).display().to_string()]);
        }
        let prompts = arguments
            .get("prompt")
            .and_then(Value::as_array)
            .map_or(1, Vec::len) as u64;
        let count = prompts * self.number("num_images_per_prompt", 1);
        flags.extend(["--count".into(), count.to_string()]);
        match (&self.call["generator"]["seed"], &self.call["generator"]["seeds"]) {
            (Value::Number(seed), _) => flags.extend(["--seed".into(), seed.to_string()]),
            (_, seeds) => flags.extend(["--seeds".into(), list(seeds, false)]),
        }
        (self.call["output_type"] != "latent").then_some(flags)
    }

    /// The flags of one argument.
    fn flag(&self, name: &str, value: &Value) -> Vec<(&'static str, String)> {
        let each = self.number("num_images_per_prompt", 1) as usize;
        let texts = |flag| match value {
            Value::Array(all) => all
                .iter()
                .flat_map(|text| vec![(flag, text.as_str().unwrap().to_string()); each])
                .collect(),
            Value::String(text) => vec![(flag, text.clone())],
            _ => vec![],
        };
        let one = |flag| vec![(flag, value.to_string())];
        let size = |flag| vec![(flag, list(value, true).replace(',', "x"))];
        let offset = |flag| vec![(flag, list(value, false))];
        match name {
            "prompt" => texts("--prompt"),
            "negative_prompt" => texts("--negative-prompt"),
            "prompt_2" => texts("--prompt-2"),
            "negative_prompt_2" => texts("--negative-prompt-2"),
            "num_images_per_prompt" | "width" => vec![],
            "height" => vec![("--size", format!("{}x{value}", self.call["arguments"]["width"]))],
            "num_inference_steps" => one("--steps"),
            "guidance_scale" => one("--guidance-scale"),
            "guidance_rescale" if value.as_f64() != Some(0.0) => one("--guidance-rescale"),
            "eta" if value.as_f64() != Some(0.0) => one("--eta"),
            "guidance_rescale" | "eta" => vec![],
            "clip_skip" => one("--clip-skip"),
            "timesteps" => offset("--timesteps"),
            "strength" => one("--strength"),
            "padding_mask_crop" => one("--mask-crop"),
            "original_inference_steps" => one("--original-inference-steps"),
            "image_guidance_scale" => one("--image-guidance-scale"),
            "noise_level" => one("--noise-level"),
            "original_size" => size("--original-size"),
            "target_size" => size("--target-size"),
            "negative_original_size" => size("--negative-original-size"),
            "negative_target_size" => size("--negative-target-size"),
            "crops_coords_top_left" => offset("--crop-top-left"),
            "negative_crops_coords_top_left" => offset("--negative-crop-top-left"),
            "aesthetic_score" => one("--aesthetic-score"),
            "negative_aesthetic_score" => one("--negative-aesthetic-score"),
            "denoising_end" => one("--denoising-end"),
            "denoising_start" => one("--denoising-start"),
            other => panic!("the argument `{other}` is not known to this test"),
        }
    }

    /// Makes the call, and compares the pictures: by how many levels they differ, and how many are black.
    fn levels(&self, flags: Vec<String>) -> (u8, usize) {
        let folder = tempfile::tempdir().unwrap();
        self.pipeline(&folder.path().join("pipeline"));
        let brief = ["sample", "pipeline", "--output", "pictures"].map(String::from);
        langevin(folder.path(), brief.into_iter().chain(flags)).ok();
        let pictures = names(&folder.path().join("pictures"));
        let pictures: Vec<Vec<u8>> = pictures
            .iter()
            .map(|name| pixels(&folder.path().join("pictures").join(name)))
            .collect();
        let black = pictures
            .iter()
            .filter(|pixels| pixels.iter().all(|&v| v == 0))
            .count();
        (levels(&pictures.concat(), &self.expected()), black)
    }

    fn expected(&self) -> Vec<u8> {
        let bytes = fs::read(self.folder.join("expected.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let images = file.tensor("images").unwrap();
        let numbers = images.data().chunks_exact(4);
        numbers
            .map(|b| (f32::from_le_bytes(b.try_into().unwrap()) * 255.0).round() as u8)
            .collect()
    }
}

/// Numbers of a list, or of a pair the other way round.
fn list(value: &Value, reversed: bool) -> String {
    let mut numbers: Vec<String> = value
        .as_array()
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    if reversed {
        numbers.reverse();
    }
    numbers.join(",")
}

#[test]
fn the_program_draws_what_diffusers_draws() {
    let mut ran = 0;
    for folder in ["sd/cases", "sdxl/cases"].map(|name| reference().join(name)) {
        for name in names(&folder) {
            let folder = folder.join(name);
            let call = json(&folder.join("call.json"));
            let case = Case { folder, call };
            let Some(flags) = case.flags() else {
                continue;
            };
            let (levels, black) = case.levels(flags);
            assert!(levels <= 1, "{}: {levels} levels", case.folder.display());
            let flagged = case.call["nsfw_content_detected"]
                .as_array()
                .into_iter()
                .flatten();
            let flagged = flagged.filter(|flag| **flag == json!(true)).count();
            assert!(black >= flagged, "{}", case.folder.display());
            ran += 1;
        }
    }
    println!("ran {ran}");
    assert!(ran > 0);
}

#[test]
fn prompts_take_turns_and_seeds_are_a_pictures_own() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let many = |words: &[&str], output: &str| {
        let brief = ["--prompt", "a cat", "--prompt", "a red house", "--output", output];
        sample(folder, sd1(), &[&brief, words].concat()).ok()
    };
    // One picture a prompt, unless it is said how many.
    let ran = many(&[], "two");
    assert!(ran.out.contains("2 pictures in two"), "{}", ran.out);
    many(&["--count", "3"], "three");
    assert_eq!(names(&folder.join("three")).len(), 3);
    many(&["--seeds", "7,8,9"], "seeds");
    for (number, prompt, seed) in [(0, "a cat", "7"), (1, "a red house", "8"), (2, "a cat", "9")] {
        let alone = one(folder, sd1(), &["--prompt", prompt, "--seed", seed]);
        let among = pixels(&folder.join(format!("seeds/{number:04}.png")));
        assert!(alone.pixels() == among, "{number}");
    }
    // And its file says so.
    let texts: BTreeMap<String, String> = grid::read_png_text(folder.join("seeds/0001.png"))
        .unwrap()
        .into_iter()
        .collect();
    assert_eq!(texts["seed"], "8");
    assert!(texts["prompts"].contains("a red house"), "{texts:?}");
}

#[test]
fn a_picture_is_drawn_again_from_what_its_file_says() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let words = [
        "--prompt",
        "a (cat:1.2), \"snow\": [white]",
        "--negative-prompt",
        "blurry,\nnoise",
        "--prompt-syntax",
        "a1111",
        "--scheduler",
        "euler-a",
        "--seed",
        "9",
        "--guidance-scale",
        "6.5",
        "--size",
        "64x48",
        "--output",
        "one.png",
    ];
    sample(folder, sd1(), &words).ok();
    let texts = |name: &str| -> BTreeMap<String, String> {
        grid::read_png_text(folder.join(name))
            .unwrap()
            .into_iter()
            .collect()
    };
    let parameters = &texts("one.png")["parameters"];
    assert!(
        parameters.starts_with(
            "a (cat:1.2), \"snow\": [white]\nNegative prompt: blurry,\nnoise\nSteps: 4, Sampler: Euler a, CFG scale: 6.5, Seed: 9, Size: 64x48, Model: sd1"
        ),
        "{parameters}"
    );
    let ran = line(folder, "sample --like one.png --output two.png").ok();
    assert!(ran.err.contains("seed 9"), "{}", ran.err);
    assert_eq!(pixels(&folder.join("one.png")), pixels(&folder.join("two.png")));
    assert_eq!(&texts("two.png")["parameters"], parameters);
    // With changes, and from A1111's text alone.
    line(
        folder,
        "sample --like one.png --seed 10 --steps 3 --output other.png",
    )
    .ok();
    assert!(
        texts("other.png")["parameters"].contains("Steps: 3, Sampler: Euler a, CFG scale: 6.5, Seed: 10")
    );
    let text = vec![("parameters", parameters.clone())];
    grid::write_png(
        folder.join("theirs.png"),
        &read_picture(folder.join("one.png")).unwrap(),
        &text,
    )
    .unwrap();
    let model = sd1().display().to_string();
    line(
        folder,
        &format!("sample {model} --like theirs.png --output three.png"),
    )
    .ok();
    assert_eq!(pixels(&folder.join("one.png")), pixels(&folder.join("three.png")));
    line(folder, "sample --like theirs.png --output x.png").refused(1, &["theirs.png", "`sd1`", "not here"]);

    let shown = line(folder, "info one.png").ok();
    for part in [
        "this program",
        "a (cat:1.2)",
        "blurry, noise",
        "euler a",
        "--like one.png",
    ] {
        assert!(
            shown.out.to_lowercase().contains(&part.to_lowercase()),
            "{part}: {}",
            shown.out
        );
    }
    line(folder, "sample --like one.png --no-metadata --output none.png").ok();
    assert!(texts("none.png").is_empty());
    line(folder, "sample --like none.png --output x.png").refused(1, &["says nothing"]);
    let shown = line(folder, "info none.png").ok();
    assert!(shown.out.contains("says nothing"), "{}", shown.out);

    // Pictures with seeds of their own say their own.
    let words = [
        "--prompt",
        "a cat",
        "--prompt",
        "a red house",
        "--seeds",
        "7,8",
        "--output",
        "both",
    ];
    sample(folder, sd1(), &words).ok();
    line(folder, "sample --like both/0001.png --output again").ok();
    assert_eq!(names(&folder.join("again")), ["0000.png"]);
    assert_eq!(
        pixels(&folder.join("both/0001.png")),
        pixels(&folder.join("again/0000.png"))
    );

    // ComfyUI's graph is told, and is not enough to draw with.
    let graph = json!({"1": {"class_type": "KSampler", "inputs": {"seed": 5, "steps": 20, "positive": ["2", 0]}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a glass bottle"}}});
    let text = vec![("prompt", graph.to_string())];
    grid::write_png(
        folder.join("comfy.png"),
        &read_picture(folder.join("one.png")).unwrap(),
        &text,
    )
    .unwrap();
    let shown = line(folder, "info comfy.png").ok();
    assert!(
        shown.out.contains("ComfyUI") && shown.out.contains("a glass bottle"),
        "{}",
        shown.out
    );
    line(folder, "sample --like comfy.png --output x.png").refused(1, &["not enough"]);
    let broken = vec![("langevin", "{\"request\": 3}".to_string())];
    grid::write_png(
        folder.join("broken.png"),
        &read_picture(folder.join("one.png")).unwrap(),
        &broken,
    )
    .unwrap();
    line(folder, "sample --like broken.png --output x.png").refused(1, &["broken.png", "broken"]);
    assert!(!folder.join("x.png").exists());
}

#[test]
fn a_model_of_a_few_steps_gets_a_line_where_it_is_drawn_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    copy(&sd1(), &folder.join("my-lcm"));
    let draw = |words: &str| {
        line(
            folder,
            &format!("sample my-lcm --prompt x --steps 4 {words} --overwrite --output few.png"),
        )
        .ok()
    };
    let ran = draw("");
    assert!(
        ran.err.contains("LCM model") && ran.err.contains("right is: lcm, 4 steps"),
        "{}",
        ran.err
    );
    let ran = draw("--scheduler lcm --guidance-scale 1");
    assert!(!ran.err.contains("looks like"), "{}", ran.err);
}

#[test]
fn combinations_are_drawn_as_one_labelled_picture() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let vary = |what: &str, words: &[&str]| {
        sample(
            folder,
            sd1(),
            &[
                &[
                    "--prompt",
                    "a cat",
                    "--vary",
                    what,
                    "--overwrite",
                    "--output",
                    "all.png",
                ],
                words,
            ]
            .concat(),
        )
    };
    let ran = vary("guidance-scale=1,5,9; scheduler=euler,ddim", &["--seed", "3"]).ok();
    assert!(ran.out.contains("6 combinations"), "{}", ran.out);
    if let Some(kept) = env::var_os("LANGEVIN_KEEP") {
        fs::copy(folder.join("all.png"), kept).unwrap();
    }
    let whole = read_picture(folder.join("all.png")).unwrap();
    let alone = one(
        folder,
        sd1(),
        &[
            "--prompt",
            "a cat",
            "--seed",
            "3",
            "--guidance-scale",
            "9",
            "--scheduler",
            "ddim",
        ],
    );
    // The last is at the end of the last row, enlarged, and eight pixels from the edge.
    let scale = 96 / alone.width();
    let last = (whole.height() - 9) * whole.width() + whole.width() - 9;
    let corner = &whole.pixels()[last * 3..][..3];
    assert_eq!((scale, corner), (3, &alone.pixels()[alone.pixels().len() - 3..]));
    vary("prompt=a cat|a dog, running", &[]).ok();
    for (what, part) in [
        ("steps", "steps=10,20,40"),
        ("stepz=1,2", "`stepz`"),
        ("steps=x,2", "`x`"),
        ("steps=1,2;steps=3", "twice"),
        ("scheduler=euler,nothing", "nothing"),
        (
            "seed=1,2;steps=1,2,3,4,5,6,7,8,9,10;clip_skip=0,1,2,3,4,5,6",
            "140 combinations",
        ),
    ] {
        let ran = vary(what, &[]);
        assert!(ran.code != 0 && ran.err.contains(part), "{what}: {}", ran.err);
    }
    let ran = sample(
        folder,
        sd1(),
        &["--prompt", "a cat", "--vary", "seed=1,2", "--output", "folder"],
    );
    assert!(ran.code == 1 && ran.err.contains("--vary"), "{}", ran.err);
}

#[test]
fn one_picture_is_written_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let words = ["--prompt", "a cat", "--size", "64x48", "--output", "one.png"];
    sample(folder.path(), sd1(), &words).ok();
    let drawn = read_picture(folder.path().join("one.png")).unwrap();
    assert_eq!((drawn.width(), drawn.height()), (64, 48));
}

#[test]
fn the_denoising_of_latents_can_be_watched() {
    let folder = tempfile::tempdir().unwrap();
    let plain = drawn(folder.path(), &[]);
    assert!(plain == drawn(folder.path(), &["--animate", "a.gif"]));
    assert!(
        fs::read(folder.path().join("a.gif"))
            .unwrap()
            .starts_with(b"GIF89a")
    );
}

#[test]
fn an_autoencoder_may_be_another_of_a_folder_or_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let vae = sd1().join("vae").display().to_string();
    let pipeline = sd1().display().to_string();
    let plain = drawn(folder, &[]);
    assert!(plain == drawn(folder, &["--codec", &vae]));
    assert!(plain == drawn(folder, &["--codec", &pipeline]));
    // One of 8 pixels a side, as a folder and as a file.
    copy(&model("single_file/vae/diffusers"), &folder.join("vae"));
    widen::<AutoencoderKL>(&folder.join("vae"), &[32; 4]);
    let of_folder = drawn(folder, &["--codec", "vae", "--size", "64x64"]);
    assert_eq!(of_folder.len(), 64 * 64 * 3);
    line(folder, "convert vae vae.safetensors --single-file --kind vae").ok();
    let of_file = drawn(folder, &["--vae", "vae.safetensors", "--size", "64x64"]);
    assert!(levels(&of_file, &of_folder) <= 1);
    let refused = |codec: &str, parts: &[&str]| {
        sample(folder, sd1(), &["--prompt", "a cat", "--codec", codec]).refused(1, parts);
    };
    refused("nowhere", &["nowhere"]);
    refused(
        &model("sd/models/sd1/unet").display().to_string(),
        &["UNet2DConditionModel"],
    );
}

/// Gives a model as many channels as its kind has at least in single files, and new weights.
fn widen<M: Model>(folder: &Path, channels: &[usize]) {
    let mut config = json(&folder.join("config.json"));
    config["block_out_channels"] = json!(channels);
    config["norm_num_groups"] = json!(32);
    let config = M::Config::of_value(config, folder).unwrap();
    let model = M::new(&config, &default_device(), &mut Generator::new(1)).unwrap();
    model.save(folder).unwrap();
}

/// Reads a safetensors file, changes it, and writes it.
fn rewrite(path: &Path, change: impl Fn(&str, &mut Vec<usize>, &mut Vec<u8>)) {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors: Vec<_> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let (mut shape, mut data) = (view.shape().to_vec(), view.data().to_vec());
            change(&name, &mut shape, &mut data);
            (name, view.dtype(), shape, data)
        })
        .collect();
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, data)| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    let bytes = safetensors::serialize(views, None).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_single_file_is_drawn_with_directly() {
    const PIECES: usize = 49_408;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    copy(&model("single_file/sdxl/diffusers"), &folder.join("sdxl"));
    widen::<UNet2DConditionModel>(&folder.join("sdxl/unet"), &[32, 64, 128]);
    widen::<AutoencoderKL>(&folder.join("sdxl/vae"), &[32; 4]);
    // The text encoders are made to know CLIP's whole vocabulary, whose tokenizer comes with the program.
    for encoder in ["text_encoder", "text_encoder_2"] {
        let encoder = folder.join("sdxl").join(encoder);
        rewrite(&encoder.join("model.safetensors"), |name, shape, data| {
            if name.ends_with("token_embedding.weight") {
                let row = data.len() / shape[0];
                *data = data.iter().copied().cycle().take(PIECES * row).collect();
                shape[0] = PIECES;
            }
        });
        let mut config = json(&encoder.join("config.json"));
        config["vocab_size"] = json!(PIECES);
        config["eos_token_id"] = json!(PIECES - 1);
        fs::write(encoder.join("config.json"), config.to_string()).unwrap();
    }
    line(folder, "convert sdxl one.safetensors --single-file").ok();
    line(folder, "convert one.safetensors back").ok();
    let of = |path: &str| one(folder, path, &["--prompt", "a cat", "--size", "32x32"]);
    assert!(of("one.safetensors").pixels() == of("back").pixels());
    // What its name says of a model of a few steps.
    fs::rename(
        folder.join("one.safetensors"),
        folder.join("sdxl_lightning_2step.safetensors"),
    )
    .unwrap();
    let few = |words: &str| {
        line(
            folder,
            &format!(
                "sample sdxl_lightning_2step.safetensors --prompt x --size 32x32 {words} --overwrite --output few.png"
            ),
        )
    };
    let ran = few("").ok();
    assert!(
        ran.err.contains("EulerDiscreteScheduler, 2 steps") && !ran.err.contains("looks like"),
        "{}",
        ran.err
    );
    // It is trained on, too, and so is one of few bits.
    fs::create_dir(folder.join("dog")).unwrap();
    fs::copy(folder.join("few.png"), folder.join("dog/0.png")).unwrap();
    line(
        folder,
        "convert sdxl_lightning_2step.safetensors xl.gguf --precision q8_0",
    )
    .ok();
    for (base, trainee) in [("xl.gguf", "lora"), ("sdxl_lightning_2step.safetensors", "full")] {
        let flags = "--train-data-dir dog --instance-prompt cat --resolution 32 --max-train-steps 1 --ddpm-num-inference-steps 1 --eval-batch-size 1 --quiet";
        line(
            folder,
            &format!("train --pretrained {base} --trainee {trainee} {flags} --output-dir {trainee}"),
        )
        .ok();
        let card = fs::read_to_string(folder.join(trainee).join("README.md")).unwrap();
        assert_eq!(card.contains("from_single_file"), trainee == "lora", "{card}");
    }
    line(
        folder,
        "sample xl.gguf --lora lora --prompt cat --steps 1 --size 32x32 --output tuned.png",
    )
    .ok();
    line(
        folder,
        "sample full --prompt cat --steps 1 --size 32x32 --output full.png",
    )
    .ok();
    line(
        folder,
        "train --pretrained few.png --train-data-dir dog --instance-prompt cat",
    )
    .refused(1, &["few.png"]);
    let ran = few("--steps 9 --scheduler dpm++2m --guidance-scale 7").ok();
    for part in [
        "Lightning",
        "DPMSolverMultistepScheduler and 9 steps and a guidance scale of 7 are wrong",
        "euler, trailing spacing, 2 steps",
    ] {
        assert!(ran.err.contains(part), "{part}: {}", ran.err);
    }
}

#[test]
fn a_refiner_goes_on_where_the_base_ends() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let base = model("sdxl/models/base");
    let path = base.display().to_string();
    let of = |words: &[&str]| {
        let brief = ["--prompt", "a cat", "--negative-prompt", "blurry"];
        one(folder, &base, &[&brief, words].concat()).into_pixels()
    };
    let plain = of(&[]);
    // The model itself goes on, with Euler's rule, which remembers nothing from step to step.
    let refined = of(&["--refiner", &path, "--refiner-start", "0.5"]);
    assert!(levels(&plain, &refined) <= 1);
    assert!(plain != of(&["--denoising-end", "0.5"]));
    let ran = sample(
        folder,
        &base,
        &["--prompt", "a cat", "--negative-target-size", "64x64"],
    )
    .ok();
    assert!(
        ran.err.contains("the negative sizes have no effect"),
        "{}",
        ran.err
    );
    let refused = |words: &[&str], code: i32, parts: &[&str]| {
        sample(folder, &base, &[&["--prompt", "a cat"][..], words].concat()).refused(code, parts);
    };
    refused(&["--refiner-start", "0.5"], 2, &["--refiner"]);
    refused(&["--aesthetic-score", "7"], 1, &["--aesthetic-score", "refiner"]);
    refused(&["--refiner", "nowhere"], 1, &["nowhere"]);
    refused(
        &["--refiner", &path, "--refiner-start", "2"],
        1,
        &["2", "between 0 and 1"],
    );
}

#[test]
fn masks_of_every_kind_are_right() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "photo.png", &gradient(32, 32));
    half(folder, 32, 32);
    for (name, value) in [("black.png", 0), ("white.png", 255)] {
        write(folder, name, &flat(32, 32, Channels::Grey, value));
    }
    let photo = read_picture(folder.join("photo.png")).unwrap().into_pixels();
    let painted = |mask: &str, words: &[&str]| {
        let brief = ["--size", "32x32", "--inpaint", "photo.png", "--mask", mask];
        drawn(folder, &[&brief[..], words].concat())
    };
    // Nothing painted is the picture, there through the autoencoder and back, whatever the text; everything painted is not.
    let black = painted("black.png", &[]);
    let again = painted("black.png", &["--guidance-scale", "3"]);
    assert!(black == again);
    let white = painted("white.png", &[]);
    assert!(black != white);
    // The left half of a mask's is what the black mask leaves, but at the border, and the right half is not.
    let both = painted("mask.png", &[]);
    let left = |pixels: &[u8]| -> Vec<u8> {
        pixels
            .chunks(32 * 3)
            .flat_map(|row| row[..8 * 3].to_vec())
            .collect()
    };
    let close = |a: &[u8], b: &[u8]| {
        let sum: u64 = a.iter().zip(b).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        sum as f64 / a.len() as f64
    };
    assert!(
        close(&left(&both), &left(&black)) < close(&left(&white), &left(&black)),
        "{} {}",
        close(&left(&both), &left(&black)),
        close(&left(&white), &left(&black))
    );
    // With a crop, what is not painted is the picture's own bytes.
    let cropped = painted("mask.png", &["--mask-crop", "4"]);
    assert!(left(&cropped) == left(&photo));
    assert!(cropped != photo);
    let brief = ["--prompt", "a cat", "--inpaint", "photo.png"];
    let refused = |words: &[&str], parts: &[&str]| {
        sample(folder, sd1(), &[&brief[..], words].concat()).refused(1, parts);
    };
    refused(
        &["--mask", "black.png", "--mask-crop", "4"],
        &["black all over", "nothing to paint"],
    );
    refused(&[], &["mask"]);
    // A mask of another size is stretched, but where a part is to be cut out.
    half(folder, 20, 48);
    painted("mask.png", &[]);
    refused(
        &["--mask", "mask.png", "--mask-crop", "4"],
        &["48x20", "32x32", "one size"],
    );
}

#[test]
fn initial_pictures_of_every_kind_are_converted() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let from = |name: &str| drawn(folder, &["--init-image", name, "--strength", "0.5"]);
    // A photo that its EXIF data turn, and the same turned.
    let image = image::RgbImage::from_fn(24, 16, |x, y| image::Rgb([x as u8 * 9, y as u8 * 15, 90]));
    image.save(folder.join("turned.jpg")).unwrap();
    let lying = read_picture(folder.join("turned.jpg")).unwrap();
    let exif = b"\xFF\xE1\x00\x22Exif\0\0MM\0\x2A\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let mut jpeg = fs::read(folder.join("turned.jpg")).unwrap();
    jpeg.splice(2..2, exif.iter().copied());
    fs::write(folder.join("turned.jpg"), jpeg).unwrap();
    let (height, width) = (lying.width(), lying.height());
    let upright = (0..height * width).flat_map(|at| {
        // A quarter turn clockwise: the upper right is what was the upper left.
        let (y, x) = (at / width, at % width);
        let from = ((width - 1 - x) * height + y) * 3;
        lying.pixels()[from..from + 3].to_vec()
    });
    let upright = Picture::new(height, width, Channels::Rgb, upright.collect()).unwrap();
    write(folder, "upright.png", &upright);
    assert!(from("turned.jpg") == from("upright.png"));
    let drawn = read_picture(folder.join("one/0000.png")).unwrap();
    assert_eq!((drawn.width(), drawn.height()), (16, 24));

    // Grey and transparent ones, and one of a palette.
    let grey = image::GrayImage::from_fn(16, 16, |x, y| image::Luma([(x * 9 + y * 5) as u8]));
    grey.save(folder.join("grey.png")).unwrap();
    let colour = image::DynamicImage::from(grey).into_rgb8();
    colour.save(folder.join("colour.png")).unwrap();
    assert!(from("grey.png") == from("colour.png"));
    let clear = image::RgbaImage::from_fn(16, 16, |x, _| {
        image::Rgba([10, 200, 30, if x < 8 { 0 } else { 255 }])
    });
    clear.save(folder.join("clear.png")).unwrap();
    let white = image::RgbImage::from_fn(16, 16, |x, _| {
        image::Rgb(if x < 8 { [255; 3] } else { [10, 200, 30] })
    });
    white.save(folder.join("white.png")).unwrap();
    assert!(from("clear.png") == from("white.png"));
    fs::write(folder.join("palette.bmp"), palette()).unwrap();
    let striped = image::RgbImage::from_fn(16, 16, |x, _| {
        image::Rgb(if x % 2 == 0 { [200, 40, 7] } else { [3, 90, 250] })
    });
    striped.save(folder.join("striped.png")).unwrap();
    assert!(from("palette.bmp") == from("striped.png"));
}

/// A BMP of 16 by 16 pixels of two colours in turn, by a palette.
fn palette() -> Vec<u8> {
    let mut bytes = b"BM".to_vec();
    let words = |bytes: &mut Vec<u8>, words: &[u32]| {
        words.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    };
    words(&mut bytes, &[62 + 256, 0, 62, 40, 16, 16]);
    bytes.extend([1, 0, 8, 0]);
    words(&mut bytes, &[0, 256, 0, 0, 2, 2]);
    // Blue, green, red.
    bytes.extend([7, 40, 200, 0, 250, 90, 3, 0]);
    bytes.extend((0..256).map(|at| (at % 2) as u8));
    bytes
}

#[test]
fn what_cannot_be_drawn_is_refused_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "photo.png", &gradient(16, 16));
    let refused = |words: &[&str], parts: &[&str]| {
        sample(folder, sd1(), &[&["--prompt", "a cat"][..], words].concat()).refused(1, parts);
    };
    refused(
        &["--size", "33x24"],
        &["--size is 33x24", "divisible by 2", "32x24 or 34x24"],
    );
    refused(&["--count", "0"], &["--count is 0"]);
    refused(
        &["--init-image", "photo.png", "--strength", "0.2"],
        &["0.2", "none of 4 steps"],
    );
    refused(&["--init-image", "photo.png", "--strength", "0"], &["above 0"]);
    refused(&["--strength", "0.5"], &["--strength", "--init-image"]);
    half(folder, 16, 16);
    let paint = ["--inpaint", "photo.png", "--mask", "mask.png"];
    let paint = |words: &[&'static str]| [&paint[..], words].concat();
    refused(&paint(&["--strength", "0.2"]), &["0.2", "none of 4 steps"]);
    refused(&paint(&["--strength", "1.5"]), &["1.5"]);
    refused(&["--depth", "photo.png"], &["--depth", "StableDiffusionPipeline"]);
    refused(
        &["--noise-level", "20"],
        &["--noise-level", "StableDiffusionPipeline"],
    );
    refused(&["--prompt-2", "a dog"], &["--prompt-2", "two text encoders"]);
    refused(
        &["--original-size", "64x64"],
        &["--original-size", "Stable Diffusion XL"],
    );
    refused(&["--class", "3"], &["classes"]);
    refused(&["--init-image", "nowhere.png"], &["nowhere.png"]);
    refused(&["--clip-skip", "90"], &["--clip-skip", "90", "layers"]);
    fs::write(folder.join("text.png"), "no picture").unwrap();
    refused(&["--init-image", "text.png"], &["text.png", "not a picture"]);
    sample(folder, model("sd/models/inpaint9"), &["--prompt", "a cat"]).refused(1, &["--inpaint", "--mask"]);
    let words = ["--prompt", "a cat", "--steps", "0"];
    let path = sd1().display().to_string();
    langevin(folder, ["sample", &path].iter().chain(&words)).refused(1, &["--steps is 0"]);
    assert!(!folder.join("samples.png").exists());
}

#[test]
fn a_large_photo_wants_a_size() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "photo.png", &flat(3000, 4000, Channels::Rgb, 90));
    let words = ["--prompt", "a cat", "--init-image", "photo.png"];
    sample(folder, sd1(), &words).refused(1, &["photo.png", "4000x3000", "--size", "768x576"]);
    let sized = drawn(folder, &["--init-image", "photo.png", "--size", "32x24"]);
    assert_eq!(sized.len(), 32 * 24 * 3);
}

#[test]
fn texts_of_every_length_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let path = sd1().display().to_string();
    let with = |prompt: &str, words: &[&str]| {
        let brief = ["sample", &path, "--steps", "2", "--prompt", prompt];
        langevin(folder, brief.iter().chain(words)).ok()
    };
    let words: Vec<String> = (0..10_000).map(|word| format!("word{word}")).collect();
    let ran = with(&words.join(" "), &[]);
    let said = ran
        .err
        .lines()
        .find(|line| line.contains("does not see"))
        .unwrap();
    assert!(
        said.contains("word") && said.contains("more words") && said.len() < 1000,
        "{said}"
    );
    let ran = with("Ein Schloß über dem Fluß, ".repeat(20).as_str(), &[]);
    assert!(ran.err.contains("Schloß über"), "{}", ran.err);
    let ran = with("", &[]);
    assert!(!ran.err.contains("does not see"), "{}", ran.err);
    let ran = with("a cat", &["--guidance-scale", "1", "--negative-prompt", "blurry"]);
    assert!(
        ran.err.contains("the negative prompt has no effect"),
        "{}",
        ran.err
    );
    let lcm = model("sd/models/lcm");
    let ran = sample(folder, lcm, &["--prompt", "a cat", "--negative-prompt", "blurry"]).ok();
    assert!(
        ran.err.contains("the negative prompt has no effect"),
        "{}",
        ran.err
    );
    // And is drawn as without it.
    let alone = drawn(folder, &["--guidance-scale", "1"]);
    let idle = drawn(folder, &["--guidance-scale", "1", "--negative-prompt", "blurry"]);
    assert!(alone == idle);
}

#[test]
fn a_pipeline_that_lacks_or_mixes_parts_is_told_which() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let broken = |what: &dyn Fn(&Path), parts: &[&str]| {
        let run = folder.join("run");
        _ = fs::remove_dir_all(&run);
        copy(&sd1(), &run);
        what(&run);
        sample(folder, "run", &["--prompt", "a cat"]).refused(1, parts);
    };
    for component in ["unet", "vae", "scheduler", "text_encoder", "tokenizer"] {
        let remove = |run: &Path| fs::remove_dir_all(run.join(component)).unwrap();
        broken(&remove, &[component]);
    }
    let weights = "unet/diffusion_pytorch_model.safetensors";
    let other = |from: &'static str, to: &'static str| {
        move |run: &Path| _ = fs::copy(model(from), run.join(to)).unwrap()
    };
    broken(
        &other("sd/models/lcm/unet/diffusion_pytorch_model.safetensors", weights),
        &[weights],
    );
    broken(
        &other("sd/models/sd1/vae/diffusion_pytorch_model.safetensors", weights),
        &[weights],
    );
    broken(
        &other(
            "sdxl/models/base/text_encoder/model.safetensors",
            "text_encoder/model.safetensors",
        ),
        &["text_encoder"],
    );
    let nan = |run: &Path| {
        rewrite(&run.join(weights), |_, _, data| {
            data.chunks_exact_mut(4)
                .for_each(|b| b.copy_from_slice(&f32::NAN.to_le_bytes()));
        });
    };
    broken(&nan, &["not numbers"]);
    let nan = |run: &Path| {
        rewrite(
            &run.join("vae/diffusion_pytorch_model.safetensors"),
            |_, _, data| {
                data.chunks_exact_mut(4)
                    .for_each(|b| b.copy_from_slice(&f32::NAN.to_le_bytes()));
            },
        );
    };
    broken(&nan, &["not numbers"]);
}

#[test]
fn latents_are_inverted_edited_and_described() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "photo.png", &gradient(16, 16));
    let path = sd1().display().to_string();
    for (command, file, shown) in [
        (
            "invert PATH photo.png --steps 4 --prompt cat --grid again.png",
            "latents.safetensors",
            "reconstruction error",
        ),
        (
            "edit PATH photo.png --steps 5 --start-step 1 --source-prompt cat --prompt dog --output edited.png",
            "edited.png",
            "edited in edited.png",
        ),
        (
            "edit PATH latents.safetensors --start-step 1 --source-prompt cat --prompt dog --output other.png",
            "other.png",
            "edited in other.png",
        ),
        (
            "interpolate PATH 1 photo.png --steps 4 --frames 3",
            "between.png",
            "3 pictures in between.png",
        ),
    ] {
        let ran = line(folder, &command.replace("PATH", &path)).ok();
        assert!(ran.out.contains(shown), "{}", ran.out);
        assert!(folder.join(file).is_file(), "{file}");
    }
    line(folder, &format!("invert {path} photo.png --steps 2 --overwrite")).refused(1, &["at least 3 steps"]);
    let info = line(folder, &format!("info {path}")).ok();
    let parts = ["latents    16x16, 4 channels", "pictures   32x32, colour"];
    assert!(parts.iter().all(|part| info.out.contains(part)), "{}", info.out);
}

#[test]
fn pictures_follow_another_by_a_controlnet() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "photo.png", &gradient(32, 32));
    let sd2 = model("sd/models/sd2");
    let net = model("controlnet/models/net_a").display().to_string();
    let text = ["--prompt", "a cat in the snow"];
    let drawn = |words: &[&str]| one(folder.path(), &sd2, &[&text, words].concat()).into_pixels();
    let plain = drawn(&[]);
    let control = format!("{net}=photo.png");
    let led = drawn(&["--control", &control]);
    assert_ne!(plain, led);
    // A number behind the last colon is the scale, and two more are a part of the steps.
    assert_eq!(led, drawn(&["--control", &format!("{control}:1:0:1")]));
    assert_eq!(plain, drawn(&["--control", &format!("{control}:0")]));
    let early = drawn(&["--control", &format!("{control}:1:0:0.5")]);
    assert!(early != led && early != plain);
    assert_ne!(led, drawn(&["--control", &control, "--guess-mode"]));
    let two = drawn(&["--control", &control, "--control", &format!("{control}:0.5")]);
    assert_ne!(led, two);

    // What a network is shown can be kept, and shown again as it is.
    let canny = [
        "--control",
        &control,
        "--control-preprocess",
        "canny",
        "--keep-control",
        "shown",
    ];
    let edges = drawn(&canny);
    // One like it, where the networks are not named again: what was said of them goes too.
    let like = line(folder.path(), "sample --like one/0000.png --output again").ok();
    assert!(like.err.contains("name them again"), "{}", like.err);
    assert!(plain == pixels(&folder.path().join("again/0000.png")));
    assert_eq!(names(&folder.path().join("shown")), ["control-1.png"]);
    let shown = read_picture(folder.path().join("shown/control-1.png")).unwrap();
    assert!(shown.pixels().iter().all(|value| [0, 255].contains(value)));
    assert_eq!(
        edges,
        drawn(&["--control", &format!("{net}=shown/control-1.png")])
    );

    let refused = |words: &[&str], part: &str| {
        sample(folder.path(), &sd2, &[&text, words].concat()).refused(1, &[part]);
    };
    refused(&["--control", "photo.png"], "--control must name one");
    refused(&["--control", "nowhere/net=photo.png"], "nowhere/net");
    refused(&["--control", &format!("{net}=nothing.png")], "nothing.png");
    refused(&["--control", &format!("{control}:1:0.5:0.2")], "from 0.5 to 0.2");
    refused(&["--guess-mode"], "--guess-mode does nothing without --control");
    let wrong = |words: &[&str], part: &str| {
        sample(folder.path(), &sd2, &[&text, words].concat()).refused(2, &[part]);
    };
    wrong(&["--keep-control", "shown"], "--control");
    wrong(
        &["--control", &control, "--control-preprocess", "edges"],
        "canny:100:200",
    );
    let unet = sd2.join("unet").display().to_string();
    refused(
        &["--control", &format!("{unet}=photo.png")],
        "UNet2DConditionModel",
    );
}
