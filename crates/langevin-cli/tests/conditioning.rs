//! The ways to tell a model what to draw: trained for a few steps, drawn from, and asked for what they cannot do.

mod support;

use std::{fs, path::Path};

use langevin::{
    data::{self, Channels, Picture},
    grid,
    models::weights::{FILE_NAME, read_tensors},
};
use serde_json::{Value, json};
use support::{langevin, line, names};

/// Two steps of training on 8x8 pictures, into `run`.
fn train(folder: &Path, flags: &str) -> support::Ran {
    let brief = "--max-train-steps 2 --train-batch-size 4 --eval-batch-size 4 --ddpm-num-inference-steps 2";
    line(folder, &format!("train {brief} --output-dir run {flags}"))
}

/// `sample run`, two pictures in two steps, with more words.
fn sample(folder: &Path, words: &[&str]) -> support::Ran {
    let brief = ["sample", "run", "--count", "2", "--steps", "2"];
    langevin(folder, brief.iter().chain(words))
}

fn config(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("run/unet/config.json")).unwrap()).unwrap()
}

/// Digits as files, with captions.
fn captioned(folder: &Path) {
    let pictures = folder.join("pictures");
    fs::create_dir(&pictures).unwrap();
    let digits = data::open("digits").unwrap();
    let mut lines = String::new();
    for index in 0..8 {
        let name = format!("{index}.png");
        let example = digits.get(index).unwrap();
        grid::write_png(pictures.join(&name), &example.picture, &[]).unwrap();
        let text = format!("a handwritten digit, number {}", example.class.unwrap());
        lines += &format!("{}\n", json!({ "file_name": name, "text": text }));
    }
    fs::write(pictures.join("metadata.jsonl"), lines).unwrap();
}

#[test]
fn a_class_as_channels() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    train(folder, "--conditioning channels --class-emb-size 3").ok();
    let config = config(folder);
    assert_eq!(config["_class_name"], "ClassConditionedUnet");
    assert_eq!(
        (&config["num_classes"], &config["class_emb_size"]),
        (&json!(11), &json!(3))
    );
    assert_eq!(config["model"]["in_channels"], 4);
    sample(folder, &["--class", "3", "--guidance-scale", "2"]).ok();
    sample(folder, &["--class", "11"]).refused(1, &["there is no class `11`"]);
    sample(folder, &["--prompt", "a seven"]).refused(1, &["`a seven`", "takes no text"]);
    let picture = folder.join("samples.png").display().to_string();
    sample(folder, &["--conditioning-image", &picture]).refused(1, &["shown none"]);
}

#[test]
fn a_class_as_a_channel_each_or_as_a_timestep() {
    for (flags, part) in [
        ("--conditioning channels --class-emb-size one-hot", "one-hot"),
        ("--conditioning class-timestep", "timestep"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        train(folder.path(), flags).ok();
        let config = config(folder.path()).to_string();
        assert!(config.contains(part), "{config}");
        sample(folder.path(), &["--class", "3"]).ok();
    }
}

#[test]
fn captions_through_a_text_encoder_that_is_trained_along() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    captioned(folder);
    let data = "--train-data-dir pictures --model digits --channels grey --resolution 8";
    train(
        folder,
        &format!("{data} --conditioning cross-attention --caption-dropout 0.3"),
    )
    .ok();
    assert_eq!(
        names(&folder.join("run/text_encoder")),
        ["config.json", "model.safetensors"]
    );
    assert_eq!(
        names(&folder.join("run/tokenizer")),
        ["merges.txt", "tokenizer_config.json", "vocab.json"]
    );
    assert_eq!(config(folder)["_class_name"], "UNet2DConditionModel");
    let words = [
        "--prompt",
        "number 3",
        "--guidance-scale",
        "2",
        "--negative-prompt",
        "number 4",
    ];
    sample(folder, &words).ok();
    sample(folder, &[]).ok();
    sample(folder, &["--class", "3"]).refused(1, &["knows no classes"]);
    // A picture is drawn anew under another caption.
    let edit = |words: &[&str], output: &str| {
        let brief = "edit run pictures/3.png --steps 6 --start-step 1 --output".split(' ');
        langevin(folder, brief.chain([output]).chain(words.iter().copied()))
    };
    let edited = |prompt: &str, output: &str| {
        let words = [
            "--source-prompt",
            "number 3",
            "--prompt",
            prompt,
            "--guidance-scale",
            "4",
        ];
        edit(&words, output).ok();
        fs::read(folder.join(output)).unwrap()
    };
    let eight = edited("number 8", "eight.png");
    assert_eq!(edited("number 8", "again.png"), eight);
    assert_ne!(edited("number 4", "four.png"), eight);
    edit(&["--class", "3"], "class.png").refused(1, &["knows no classes"]);
    assert!(!folder.join("class.png").exists());
    // The encoder of that run, which stays as it is.
    let encoder = folder.join("run/text_encoder");
    let before = fs::read(encoder.join("model.safetensors")).unwrap();
    let frozen = format!(
        "{data} --conditioning cross-attention --text-encoder {} --overwrite-output-dir --use-ema \
         --checkpointing-steps 2",
        encoder.display()
    );
    train(folder, &frozen).ok();
    assert_eq!(fs::read(encoder.join("model.safetensors")).unwrap(), before);
    // It goes on with the average of both.
    line(folder, "train --resume-from-checkpoint run --max-train-steps 3").ok();
    let index = fs::read_to_string(folder.join("run/model_index.json")).unwrap();
    assert!(
        index.contains("CLIPTextModel") && index.contains("CLIPTokenizer"),
        "{index}"
    );
    sample(folder, &words).ok();
}

#[test]
fn a_picture_under_a_mask() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    train(
        folder,
        "--conditioning class --conditioning-image mask --image-dropout 0.1",
    )
    .ok();
    assert_eq!(config(folder)["in_channels"], 3);
    assert_eq!(config(folder)["conditioning_image"], "mask");
    let digits = data::open("digits").unwrap();
    let picture = digits.get(0).unwrap().picture;
    grid::write_png(folder.join("picture.png"), &picture, &[]).unwrap();
    grid::write_png(folder.join("mask.png"), &digits.get(1).unwrap().picture, &[]).unwrap();
    grid::write_png(folder.join("small.png"), &picture.crop(0, 0, 4, 4), &[]).unwrap();
    let shown = ["--conditioning-image", "picture.png"];
    sample(folder, &[&shown[..], &["--mask", "mask.png"]].concat()).ok();
    sample(folder, &[&shown[..], &["--mask", "small.png"]].concat()).refused(1, &["one size"]);
    sample(folder, &shown).refused(1, &["mask"]);
    sample(folder, &[]).refused(1, &["a conditioning picture must be given"]);
}

#[test]
fn pictures_made_of_the_clean_one() {
    for (what, channels) in [("blur:1.5", 2), ("downscale:2", 2), ("edges", 2)] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        train(
            folder,
            &format!("--conditioning none --conditioning-image {what}"),
        )
        .ok();
        assert_eq!(config(folder)["in_channels"], channels, "{what}");
        let picture = data::open("digits").unwrap().get(0).unwrap().picture;
        grid::write_png(folder.join("picture.png"), &picture, &[]).unwrap();
        let shown = ["--conditioning-image", "picture.png"];
        sample(folder, &shown).ok();
        sample(folder, &[&shown[..], &["--conditioning-as-is"]].concat()).ok();
    }
}

#[test]
fn pictures_of_a_column_of_the_data() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    captioned(folder);
    let digits = data::open("digits").unwrap();
    let mut lines = String::new();
    for index in 0..8 {
        let mirrored = digits.get(index).unwrap().picture.flip();
        let (name, other) = (format!("{index}.png"), format!("mirrored-{index}.png"));
        grid::write_png(folder.join("pictures").join(&other), &mirrored, &[]).unwrap();
        lines += &format!("{}\n", json!({ "file_name": name, "mirrored_file_name": other }));
    }
    fs::write(folder.join("pictures/metadata.jsonl"), lines).unwrap();
    let data = "--train-data-dir pictures --model digits --channels grey --resolution 8";
    train(folder, &format!("{data} --conditioning-image mirrored")).ok();
    assert_eq!(config(folder)["in_channels"], 2);
    assert_eq!(config(folder)["conditioning_image"], "mirrored");
    sample(folder, &["--conditioning-image", "pictures/mirrored-1.png"]).ok();
    train(
        folder,
        &format!("{data} --conditioning-image upright --overwrite-output-dir"),
    )
    .refused(1, &["metadata.jsonl: line 1 has no `upright_file_name`"]);
}

/// CLIP's two towers in small, with random weights.
fn small_clip() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../langevin/tests/reference/conditional/clip");
    folder.display().to_string()
}

#[test]
fn a_picture_s_mean_colour_as_a_vector() {
    for (embedding, of_config) in [
        ("projection", json!("projection")),
        ("simple_projection", json!("simple_projection")),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        train(
            folder,
            &format!("--conditioning vector --vector-embedding {embedding} --checkpointing-steps 1"),
        )
        .ok();
        let config = config(folder);
        assert_eq!(config["_class_name"], "UNet2DConditionModel");
        assert_eq!(config["class_embed_type"], of_config);
        assert_eq!(config["projection_class_embeddings_input_dim"], 1);
        assert_eq!(config["conditioning_vector"], "colour");

        let draw = |words: &[&str], output: &str| {
            sample(folder, &[words, &["--output", output]].concat()).ok();
            fs::read(folder.join(output).join("0000.png")).unwrap()
        };
        let bright = draw(&["--vector", "0.9"], "bright");
        assert_eq!(draw(&["--vector", "0.9"], "again"), bright);
        assert_ne!(draw(&["--vector", "-0.9"], "dark"), bright);
        assert_ne!(
            draw(&["--vector", "0.9", "--guidance-scale", "3"], "leant"),
            bright
        );
        // Half of it white and half black, so that its mean is no rounded number.
        let mut pixels = vec![255; 32];
        pixels.resize(64, 0);
        let half = Picture::new(8, 8, Channels::Grey, pixels).unwrap();
        grid::write_png(folder.join("picture.png"), &half, &[]).unwrap();
        assert_eq!(
            draw(&["--vector-of", "picture.png"], "of"),
            draw(&["--vector", "0"], "as")
        );

        sample(folder, &["--vector", "0.8,0.1"]).refused(1, &["[1, 2]", "1]"]);
        sample(folder, &["--vector", "loud"]).refused(2, &["loud"]);
        sample(folder, &["--class", "3"]).refused(1, &["knows no classes"]);
        sample(folder, &["--vector-of", "nowhere.png"]).refused(1, &["nowhere.png"]);
    }
}

#[test]
fn clip_s_embedding_of_a_picture_as_a_vector() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    support::pictures(folder);
    let clip = small_clip();
    let data = "--train-data-dir pictures --model digits --channels rgb --resolution 8 --conditioning vector";
    train(folder, &format!("{data} --vector clip --vector-clip {clip}")).ok();
    let config = config(folder);
    assert_eq!(config["projection_class_embeddings_input_dim"], 24);
    assert_eq!(config["conditioning_vector"], "clip");
    let picture = folder.join("run/samples.png").display().to_string();
    sample(folder, &["--vector-of", &picture, "--clip", &clip]).ok();
    sample(folder, &["--vector-of", &picture]).refused(1, &["--clip"]);
}

/// Pictures of 8x8, whose left half is light where they have `left`, and whose right half is where they have `right`.
fn halves(folder: &Path) {
    let pictures = folder.join("pictures");
    fs::create_dir(&pictures).unwrap();
    let mut lines = "file_name,left,right,mood\n".to_string();
    for index in 0..16u8 {
        let has = |bit: u8| index >> bit & 1 == 1;
        let light = |column: usize| if has(u8::from(column >= 4)) { 240 } else { 15 };
        let pixels = (0..64).map(|i| light(i % 8) - index % 5).collect();
        let picture = Picture::new(8, 8, Channels::Grey, pixels).unwrap();
        grid::write_png(pictures.join(format!("{index}.png")), &picture, &[]).unwrap();
        lines += &format!("{index}.png,{},{},fine\n", u8::from(has(0)), has(1));
    }
    fs::write(pictures.join("metadata.csv"), lines).unwrap();
}

const HALVES: &str = "--train-data-dir pictures --model digits --channels grey --resolution 8 --conditioning attributes \
                      --attribute-columns left,right";

#[test]
fn attributes_are_learned_each_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    halves(folder);
    let flags = "--max-train-steps 250 --train-batch-size 16 --eval-batch-size 4 --ddpm-num-inference-steps 10 --learning-rate 2e-3 \
                 --lr-warmup-steps 20 --prediction-type v_prediction --ddpm-beta-schedule squaredcos_cap_v2 --seed 1";
    line(folder, &format!("train {flags} {HALVES} --output-dir run")).ok();
    let light = |list: &str| {
        let flags = "sample run --count 4 --steps 20 --scheduler ddim --guidance-scale 2 --overwrite --output out --attributes";
        let ran = langevin(folder, flags.split(' ').chain([list]));
        ran.ok();
        let drawn =
            (0..4).map(|number| data::read_picture(folder.join(format!("out/{number:04}.png"))).unwrap());
        let drawn: Vec<Picture> = drawn.collect();
        let mean = |columns: std::ops::Range<usize>| {
            let pixels = drawn
                .iter()
                .flat_map(|picture| picture.pixels().iter().enumerate());
            let half: Vec<f64> = pixels
                .filter(|(i, _)| columns.contains(&(i % 8)))
                .map(|(_, &p)| f64::from(p))
                .collect();
            half.iter().sum::<f64>() / half.len() as f64 > 127.5
        };
        [mean(0..4), mean(4..8)]
    };
    for (list, halves) in [
        ("left", [true, false]),
        ("right", [false, true]),
        ("right,left", [true; 2]),
        ("none", [false; 2]),
    ] {
        assert_eq!(light(list), halves, "{list}");
    }
}

#[test]
fn attributes_are_asked_for_by_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    halves(folder);
    train(folder, &format!("{HALVES} --attribute-dropout 0.3")).ok();
    let config = config(folder);
    assert_eq!(config["class_embed_type"], "projection");
    assert_eq!(config["projection_class_embeddings_input_dim"], 3);
    assert_eq!(config["conditioning_attributes"], json!(["left", "right"]));
    let card = fs::read_to_string(folder.join("run/README.md")).unwrap();
    assert!(card.contains("langevin sample . --attributes left"), "{card}");

    let drawn = |words: &[&str]| {
        sample(folder, &[words, &["--output", "drawn", "--overwrite"]].concat()).ok();
        fs::read(folder.join("drawn/0000.png")).unwrap()
    };
    // Seed and steps are written into a picture, and so is what it was asked for.
    let text =
        String::from_utf8_lossy(&drawn(&["--attributes", "right", "--guidance-scale", "3"])).into_owned();
    assert!(text.contains("attributes\0right"), "{text}");
    assert_ne!(drawn(&["--attributes", "left"]), drawn(&["--attributes", "none"]));
    sample(folder, &["--attributes", "left", "--attributes", "left, right"]).ok();
    sample(folder, &[]).ok();
    sample(folder, &["--attributes", "left,beard"])
        .refused(1, &["`beard`", "knows left, right", "--attributes"]);
    sample(folder, &["--attributes", ""]).refused(1, &["there is no attribute ``"]);
    sample(folder, &["--class", "3"]).refused(1, &["knows no classes"]);
    sample(folder, &["--vector", "1,0,1"]).refused(1, &["told none"]);
    let info = line(folder, "info run").ok().out;
    assert!(info.contains("attributes 2: left, right"), "{info}");

    // It goes on as what it is, and as nothing else.
    let on = |flags: &str| {
        line(
            folder,
            &format!(
                "train --pretrained run --train-data-dir pictures --max-train-steps 1 --eval-batch-size 1 --ddpm-num-inference-steps 1 {flags}"
            ),
        )
    };
    on("--output-dir on").ok();
    on("--output-dir other --attribute-columns right,left").refused(1, &["--attribute-columns"]);
    line(folder, "sample on --count 1 --steps 1 --attributes right").ok();

    // A configuration that its weights contradict.
    let path = folder.join("run/unet/config.json");
    let mut broken = config.clone();
    for (names, why) in [
        (json!(["left"]), "1 attributes"),
        (json!(["left", "left"]), "`left` twice"),
        (json!("left,right"), "is no list of names"),
        (json!(["a,b", "c"]), "no comma"),
    ] {
        broken["conditioning_attributes"] = names;
        fs::write(&path, broken.to_string()).unwrap();
        sample(folder, &[]).refused(1, &[why]);
    }
}

#[test]
fn attributes_that_are_not_there_are_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    halves(folder);
    let data = "--train-data-dir pictures --model digits --channels grey --resolution 8";
    for (flags, parts) in [
        (
            "--conditioning attributes",
            &["--attribute-columns", "smiling,glasses"][..],
        ),
        (
            "--attribute-columns left",
            &["--attribute-columns", "--conditioning is `none`"],
        ),
        ("--attribute-dropout 0.1", &["attribute_dropout"]),
        (
            "--conditioning attributes --attribute-columns left --attribute-dropout 2",
            &["attribute_dropout"],
        ),
        (
            "--conditioning attributes --attribute-columns left,up",
            &["metadata.csv", "no column `up`"],
        ),
        (
            "--conditioning attributes --attribute-columns left,left",
            &["`left` twice"],
        ),
        (
            "--conditioning attributes --attribute-columns left,",
            &["not empty"],
        ),
        (
            "--conditioning attributes --attribute-columns mood",
            &["line 2", "`mood` fine", "1 or true"],
        ),
    ] {
        train(folder, &format!("{data} {flags}")).refused(1, parts);
    }
    train(
        folder,
        "--dataset-name digits --conditioning attributes --attribute-columns left",
    )
    .refused(1, &["digits", "no columns", "--attribute-columns"]);
    // A cell that is empty, and a row of JSON that lacks it.
    let pictures = folder.join("pictures");
    fs::write(pictures.join("metadata.csv"), "file_name,left\n0.png,1\n1.png,\n").unwrap();
    let left = format!("{data} --conditioning attributes --attribute-columns left");
    train(folder, &left).refused(1, &["line 3", "has no `left`"]);
    fs::remove_file(pictures.join("metadata.csv")).unwrap();
    fs::write(
        pictures.join("metadata.jsonl"),
        "{\"file_name\": \"0.png\", \"left\": true}\n{\"file_name\": \"1.png\"}\n",
    )
    .unwrap();
    train(folder, &left).refused(1, &["line 2", "has no `left`"]);
    assert!(!folder.join("run").exists());
}

#[test]
fn what_a_model_is_told_it_is_told_when_it_is_trained_on() {
    let captions = "--train-data-dir pictures --model digits --channels grey --resolution 8";
    let digits = "--dataset-name digits --model digits --channels grey --resolution 8";
    let text = ["text_encoder/model.safetensors", "tokenizer/vocab.json"];
    let captions = format!("{captions} --conditioning cross-attention");
    let with = |conditioning: &str| format!("{digits} --conditioning {conditioning}");
    let none: &[&str] = &[];
    // How it is trained, what else stays, how it is drawn from, and what it cannot be told.
    for (flags, kept, told, other, why) in [
        (captions, &text[..], "--prompt 3", "none", "cannot be told that"),
        (
            with("channels --class-emb-size 3"),
            none,
            "--class 3",
            "class",
            "cannot be told that",
        ),
        (
            with("channels --class-emb-size one-hot"),
            none,
            "--class 3",
            "vector",
            "cannot be told a vector",
        ),
        (
            with("vector --vector-embedding simple_projection"),
            none,
            "--vector 0.5",
            "none",
            "cannot be told that",
        ),
        (
            with("class --conditioning-image edges"),
            none,
            "--class 3",
            "cross-attention",
            "no captions",
        ),
        (
            with("class-timestep"),
            none,
            "--class 3",
            "vector",
            "leave --conditioning out",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        captioned(folder);
        train(folder, &flags).ok();
        let before = config(folder);
        let weights = |run: &str| read_tensors(folder.join(run).join("unet").join(FILE_NAME)).unwrap();
        let file = |run: &str, name: &str| fs::read(folder.join(run).join(name)).unwrap();
        let first = weights("run");
        fs::rename(folder.join("run"), folder.join("first")).unwrap();

        let data = &flags[..flags.find(" --model").unwrap()];
        let on = format!("{data} --pretrained first --train-only conv_out");
        train(folder, &on).ok();
        assert_eq!(config(folder), before, "{flags}");
        let second = weights("run");
        assert!(first.keys().eq(second.keys()));
        for (name, tensor) in &first {
            assert_eq!(
                second[name] == *tensor,
                !name.contains("conv_out"),
                "{flags}: {name}"
            );
        }
        for name in kept {
            assert_eq!(file("run", name), file("first", name), "{name}");
        }
        let picture = folder.join("pictures/3.png").display().to_string();
        let mut words: Vec<&str> = told.split(' ').collect();
        if flags.contains("conditioning-image") {
            words.extend(["--conditioning-image", &picture]);
        }
        sample(folder, &words).ok();

        train(
            folder,
            &format!("{on} --overwrite-output-dir --conditioning {other}"),
        )
        .refused(1, &[why]);
        if flags.contains("cross-attention") {
            // The text encoder learns too, unless it is left out.
            train(
                folder,
                &format!("{data} --pretrained first --overwrite-output-dir"),
            )
            .ok();
            assert_ne!(file("run", text[0]), file("first", text[0]));
            let other = format!("{on} --overwrite-output-dir --text-encoder first/text_encoder");
            train(folder, &other).refused(1, &["leave it out"]);
            // Without captions there is nothing to tell it.
            let other = "--dataset-name digits --pretrained first --overwrite-output-dir";
            train(folder, other).refused(1, &["has no captions"]);
        }
        if flags.contains("one-hot") {
            let other = format!("{on} --overwrite-output-dir --class-emb-size 3");
            train(folder, &other).refused(1, &["has 10 channels for a class, and would have 3"]);
        }
        if flags.contains("vector") {
            let other = format!("{on} --overwrite-output-dir --vector-embedding projection");
            train(folder, &other).refused(1, &["leave --vector and --vector-embedding out"]);
        }
        if flags.contains("edges") {
            let shown = format!("{on} --overwrite-output-dir --conditioning-image mask");
            train(folder, &shown).refused(1, &["is shown `edges`", "leave --conditioning-image out"]);
        }
        assert_eq!(weights("first"), first);
    }
}

#[test]
fn what_cannot_be_is_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (flags, code, part) in [
        ("--conditioning none --class-emb-size 3", 1, "class_emb_size"),
        ("--caption-dropout 0.1", 1, "caption_dropout"),
        ("--image-dropout 0.1", 1, "image_dropout"),
        ("--conditioning-image mask --image-dropout 2", 1, "image_dropout"),
        ("--conditioning-image grey", 1, "pictures are grey"),
        ("--conditioning-image downscale:3", 1, "downscale:3"),
        ("--conditioning-image sepia", 1, "no columns"),
        ("--conditioning-image sepia:2", 2, "downscale:FACTOR"),
        ("--conditioning channels --class-emb-size 0", 2, "one-hot"),
        ("--conditioning cross-attention", 1, "no captions"),
        ("--conditioning vector --vector clip", 1, "vector_clip"),
        ("--conditioning vector --vector-clip nowhere", 1, "vector_clip"),
        ("--conditioning vector --vector shape", 2, "colour, clip"),
        ("--conditioning vector --vector-dropout 1.5", 1, "vector_dropout"),
        ("--conditioning vector --vector-embedding identity", 1, "as it is"),
        ("--vector-dropout 0.1", 1, "vector_dropout"),
        (
            "--text-encoder small --conditioning cross-attention --model basic-unet",
            1,
            "basic-unet",
        ),
    ] {
        train(folder, flags).refused(code, &[part]);
    }
    captioned(folder);
    let data = "--train-data-dir pictures --model digits --channels grey --resolution 8";
    train(
        folder,
        &format!("{data} --conditioning cross-attention --text-encoder nowhere"),
    )
    .refused(1, &["nowhere"]);
    let vector = "--conditioning vector --vector clip --vector-clip";
    train(folder, &format!("{data} {vector} nowhere")).refused(1, &["nowhere"]);
    assert!(!folder.join("run").exists());
}
