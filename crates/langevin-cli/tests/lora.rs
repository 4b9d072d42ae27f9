//! `--lora`, `--lora-dir` and what `langevin convert` makes of LoRA, on a tiny Stable Diffusion.

mod support;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use langevin::data::read_picture;
use safetensors::SafeTensors;
use support::{Ran, langevin, line};

fn stored(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../langevin/tests/reference")
        .join(path)
}

fn lora(name: &str) -> String {
    stored("lora/files").join(name).display().to_string()
}

/// Two steps of a pipeline from a prompt, with more words.
fn sample(folder: &Path, pipeline: &Path, prompt: &str, words: &[&str]) -> Ran {
    let pipeline = pipeline.display().to_string();
    let brief = [
        "sample",
        &pipeline,
        "--steps",
        "2",
        "--output",
        "one",
        "--overwrite",
        "--prompt",
        prompt,
    ];
    langevin(folder, brief.iter().chain(words))
}

/// The pixels of its picture.
fn drawn(folder: &Path, pipeline: &Path, prompt: &str, words: &[&str]) -> Vec<u8> {
    sample(folder, pipeline, prompt, words).ok();
    read_picture(folder.join("one/0000.png")).unwrap().into_pixels()
}

fn sd1() -> PathBuf {
    stored("sd/models/sd1")
}

#[test]
fn a_lora_changes_pictures_and_its_scale_counts() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |words: &[&str]| drawn(folder.path(), &sd1(), "a cat", words);
    let (file, half) = (
        lora("kohya.safetensors"),
        format!("{}:0.5", lora("kohya.safetensors")),
    );
    let (plain, whole) = (draw(&[]), draw(&["--lora", &file]));
    assert_ne!(plain, whole);
    assert_ne!(draw(&["--lora", &half]), whole);
    assert_eq!(draw(&["--lora", &format!("{file}:0")]), plain);
    // Twice by halves is once, up to rounding.
    let twice = draw(&["--lora", &half, "--lora", &half]);
    assert!(twice.iter().zip(&whole).all(|(a, b)| a.abs_diff(*b) <= 1));
    // The picture says it.
    let bytes = fs::read(folder.path().join("one/0000.png")).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("kohya:0.5; kohya:0.5"), "the facts do not name it");
}

#[test]
fn prompts_name_lora_of_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let files = stored("lora/files").display().to_string();
    let named = |prompt: &str, words: &[&str]| sample(folder.path(), &sd1(), prompt, words);
    let tagged = drawn(
        folder.path(),
        &sd1(),
        "a <lora:kohya:0.5>cat",
        &["--lora-dir", &files],
    );
    let half = format!("{}:0.5", lora("kohya.safetensors"));
    assert_eq!(tagged, drawn(folder.path(), &sd1(), "a cat", &["--lora", &half]));
    named("a <lora:kohya:0.5> cat", &[]).refused(1, &["kohya", "--lora-dir"]);
    for name in ["..", "../files/kohya", "/etc/passwd", "a\\b", ".hidden"] {
        named(&format!("<lora:{name}>"), &["--lora-dir", &files]).refused(1, &["is no name of a LoRA"]);
    }
    named("<lora:none>", &["--lora-dir", &files])
        .refused(1, &["there is no LoRA `none`", "there are diffusers_unet_text"]);
    named("<lora:kohya:much>", &["--lora-dir", &files]).refused(1, &["`much` is no finite number"]);
    named("a cat", &["--lora-dir", &files, "--prompt", "<lora:kohya>"]).refused(1, &["name other LoRA"]);
}

#[test]
fn a_picture_with_two_lora_and_a_word_is_drawn_again_from_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (styles, words) = (folder.join("styles"), folder.join("words"));
    fs::create_dir_all(&styles).unwrap();
    fs::create_dir_all(&words).unwrap();
    fs::copy(lora("kohya.safetensors"), styles.join("pixel-art.safetensors")).unwrap();
    fs::copy(
        lora("peft_metadata_conv.safetensors"),
        styles.join("ink v1.5.safetensors"),
    )
    .unwrap();
    fs::copy(
        stored("lora/textual_inversion/a1111.safetensors"),
        words.join("my-cat.safetensors"),
    )
    .unwrap();
    fs::copy(
        stored("lora/textual_inversion/sdxl_clip_l_clip_g.safetensors"),
        words.join("for-xl.safetensors"),
    )
    .unwrap();
    fs::copy(lora("kohya.safetensors"), words.join("no-word.safetensors")).unwrap();
    let pixels = |name: &str| read_picture(folder.join(name)).unwrap().into_pixels();
    let model = sd1().display().to_string();
    let prompt = "my-cat <lora:pixel-art:0.8> in <lora:ink v1.5:-0.5:0.3> snow";
    let draw = |words: &[&str]| {
        let brief = [
            "sample", &model, "--steps", "2", "--seeds", "4", "--prompt", prompt,
        ];
        langevin(folder, brief.iter().chain(words))
    };
    let first = [
        "--lora-dir",
        "styles",
        "--embedding-dir",
        "words",
        "--output",
        "one.png",
    ];
    let ran = draw(&first).ok();
    // What does not fit is passed over, and said.
    for name in ["for-xl", "no-word"] {
        assert!(
            ran.err.contains("passed over") && ran.err.contains(name),
            "{}",
            ran.err
        );
    }
    let texts: BTreeMap<String, String> = langevin::grid::read_png_text(folder.join("one.png"))
        .unwrap()
        .into_iter()
        .collect();
    let parameters = &texts["parameters"];
    assert!(
        parameters.starts_with("my-cat  in  snow <lora:pixel-art:0.8> <lora:ink v1.5:0.3>\n"),
        "{parameters}"
    );
    for part in [
        "Lora hashes: \"pixel-art: ",
        ", ink v1.5: ",
        "TI hashes: ",
        "my-cat: ",
    ] {
        assert!(parameters.contains(part), "{part} is not in {parameters}");
    }
    assert!(!texts["langevin"].contains("for-xl"), "{}", texts["langevin"]);

    let again = |words: &[&str]| langevin(folder, ["sample", "--like", "one.png"].iter().chain(words));
    let ran = again(&["--output", "two.png"]).ok();
    assert!(!ran.err.contains("left out"), "{}", ran.err);
    assert_eq!(pixels("one.png"), pixels("two.png"));
    // The folder with the word may be named again all the same.
    let ran = again(&["--embedding-dir", "words", "--output", "three.png"]).ok();
    assert!(!ran.err.contains("my-cat"), "{}", ran.err);
    assert_eq!(pixels("one.png"), pixels("three.png"));

    // They have moved: a line names each with its hash, and folders bring them back.
    fs::rename(&styles, folder.join("elsewhere")).unwrap();
    fs::rename(&words, folder.join("others")).unwrap();
    let ran = again(&["--output", "without.png"]).ok();
    for name in [
        "pixel-art.safetensors (",
        "ink v1.5.safetensors (",
        "my-cat.safetensors (",
    ] {
        assert!(
            ran.err.contains(name) && ran.err.contains("is not here and is left out"),
            "{}",
            ran.err
        );
    }
    assert!(ran.err.contains("--lora-dir names a folder"), "{}", ran.err);
    assert_ne!(pixels("one.png"), pixels("without.png"));
    let folders = ["--lora-dir", "elsewhere", "--embedding-dir", "others"];
    let ran = again(&[&folders[..], &["--output", "found.png"]].concat()).ok();
    assert!(!ran.err.contains("left out"), "{}", ran.err);
    assert_eq!(pixels("one.png"), pixels("found.png"));

    // A picture that has A1111's text alone names them by their tags.
    let picture = read_picture(folder.join("one.png")).unwrap();
    let text = vec![("parameters", parameters.clone())];
    langevin::grid::write_png(folder.join("theirs.png"), &picture, &text).unwrap();
    let theirs = |words: &[&str]| {
        langevin(
            folder,
            ["sample", &model, "--like", "theirs.png", "--overwrite"]
                .iter()
                .chain(words),
        )
    };
    // Their tags have one scale.
    let same = "my-cat  in  snow <lora:pixel-art:0.8> <lora:ink v1.5:0.3>";
    draw(
        &[
            &folders[..],
            &["--prompt-syntax", "plain", "--output", "unused.png"],
        ]
        .concat(),
    )
    .ok();
    let brief = [
        "sample", &model, "--steps", "2", "--seeds", "4", "--prompt", same, "--output", "tags.png",
    ];
    langevin(folder, brief.iter().chain(&folders)).ok();
    theirs(&[&folders[..], &["--output", "by-tags.png"]].concat()).ok();
    assert_eq!(pixels("tags.png"), pixels("by-tags.png"));
    let ran = theirs(&["--output", "by-tags.png"]).ok();
    assert!(
        ran.err.contains("the LoRA pixel-art (") && ran.err.contains("left out"),
        "{}",
        ran.err
    );
    // Another file under the name.
    fs::copy(
        lora("kohya_every_alpha.safetensors"),
        folder.join("elsewhere/pixel-art.safetensors"),
    )
    .unwrap();
    let ran = theirs(&[&folders[..], &["--output", "by-tags.png"]].concat()).ok();
    assert!(
        ran.err
            .contains("is another LoRA than the picture was drawn with"),
        "{}",
        ran.err
    );
    draw(&["--embedding-dir", "nowhere", "--output", "x.png"]).refused(1, &["nowhere"]);
}

#[test]
fn what_does_not_fit_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let named = |lora: &str| sample(folder.path(), &sd1(), "a cat", &["--lora", lora]);
    named(&lora("sdxl_kohya.safetensors")).refused(1, &["sdxl_kohya", "another"]);
    named(&stored("lora/files/none.safetensors").display().to_string()).refused(1, &["none.safetensors"]);
    named(&format!("{}:nan", lora("kohya.safetensors"))).refused(2, &["finite number"]);
    let embedding = stored("lora/textual_inversion/a1111.safetensors")
        .display()
        .to_string();
    named(&embedding).refused(1, &["is an embedding (textual inversion), not a LoRA"]);
    let ddim = stored("pipelines/ddim").display().to_string();
    let file = lora("kohya.safetensors");
    langevin(folder.path(), ["sample", &ddim, "--lora", &file])
        .refused(1, &["kohya.safetensors", "fits nowhere"]);
}

#[test]
fn what_is_merged_draws_the_same_without_the_lora() {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("{}:0.7", lora("loha.safetensors"));
    let put_on = drawn(folder.path(), &sd1(), "a cat", &["--lora", &file]);
    let base = sd1().display().to_string();
    langevin(folder.path(), ["convert", &base, "merged", "--lora", &file]).ok();
    assert_eq!(
        drawn(folder.path(), &folder.path().join("merged"), "a cat", &[]),
        put_on
    );

    // As a single file, and from a single file; --config brings the tiny tokenizer and scheduler.
    line(
        folder.path(),
        &format!("convert {base} merged.safetensors --single-file --lora {file}"),
    )
    .ok();
    line(
        folder.path(),
        &format!("convert {base} plain.safetensors --single-file"),
    )
    .ok();
    line(
        folder.path(),
        &format!("convert plain.safetensors again.safetensors --single-file --lora {file}"),
    )
    .ok();
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert_eq!(
        tensors(&read("merged.safetensors")),
        tensors(&read("again.safetensors"))
    );
    assert_ne!(
        tensors(&read("merged.safetensors")),
        tensors(&read("plain.safetensors"))
    );
    line(
        folder.path(),
        &format!("convert plain.safetensors unpacked --config {base} --lora {file}"),
    )
    .ok();
    assert_eq!(
        drawn(folder.path(), &folder.path().join("unpacked"), "a cat", &[]),
        put_on
    );
    line(
        folder.path(),
        "convert plain.safetensors x.safetensors --single-file",
    )
    .refused(1, &["--lora"]);
}

fn tensors(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let all = file.tensors().into_iter();
    all.map(|(name, view)| (name, view.data().to_vec())).collect()
}

fn names(folder: &Path, file: &str) -> Vec<String> {
    tensors(&fs::read(folder.join(file)).unwrap())
        .into_keys()
        .collect()
}

#[test]
fn styles_are_changed_and_draw_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let convert = |words: &str| line(folder.path(), &format!("convert {words}"));
    let draw = |pipeline: &Path, file: &str| drawn(folder.path(), pipeline, "a cat", &["--lora", file]);
    // Alphas, convolutions and header alphas survive; every way there and back.
    for (model, file) in [
        ("sd/models/sd1", "kohya.safetensors"),
        ("sd/models/sd1", "peft_metadata_conv.safetensors"),
        ("sd/models/sd1", "diffusers_unet_text.safetensors"),
        ("sdxl/models/base", "sdxl_kohya.safetensors"),
    ] {
        let (model, file) = (stored(model), lora(file));
        let before = draw(&model, &file);
        for style in ["peft", "diffusers", "kohya"] {
            convert(&format!(
                "{file} {style}.safetensors --lora-style {style} --overwrite --config {}",
                model.display()
            ))
            .ok();
            assert!(
                close(&draw(&model, &format!("{style}.safetensors")), &before),
                "{file} as {style}"
            );
        }
        convert(&format!(
            "peft.safetensors back.safetensors --lora-style kohya --overwrite --config {}",
            model.display()
        ))
        .ok();
        assert!(
            close(&draw(&model, "back.safetensors"), &before),
            "{file} and back"
        );
    }
    // XL has the names of sd-scripts: original blocks, and text encoders by number.
    let back = names(folder.path(), "back.safetensors");
    for begin in [
        "lora_unet_input_blocks_",
        "lora_unet_middle_block_1_",
        "lora_te1_text_model_",
        "lora_te2_text_model_",
    ] {
        assert!(
            back.iter().any(|name| name.starts_with(begin)),
            "{begin}: {back:?}"
        );
    }
    // Without the model, by the words that names are made of.
    convert(&format!(
        "{} by-words.safetensors --lora-style peft",
        lora("kohya.safetensors")
    ))
    .ok();
    convert(&format!(
        "{} by-model.safetensors --lora-style peft --config {}",
        lora("kohya.safetensors"),
        sd1().display()
    ))
    .ok();
    assert_eq!(
        names(folder.path(), "by-words.safetensors"),
        names(folder.path(), "by-model.safetensors")
    );
    // DoRA has names in both; LoHa in one.
    convert(&format!(
        "{} dora.safetensors --lora-style peft",
        lora("dora_kohya.safetensors")
    ))
    .ok();
    assert!(close(
        &draw(&sd1(), "dora.safetensors"),
        &draw(&sd1(), &lora("dora_kohya.safetensors"))
    ));
    convert(&format!(
        "{} x.safetensors --lora-style peft",
        lora("loha.safetensors")
    ))
    .refused(1, &["hada_w1_a", "peft"]);
    convert(&format!(
        "{} dora.safetensors --lora-style peft",
        lora("dora_kohya.safetensors")
    ))
    .refused(1, &["--overwrite"]);
    convert(&format!("{} x.bin --lora-style peft", lora("kohya.safetensors"))).refused(1, &[".safetensors"]);
}

/// Whether two pictures are the same but for rounding.
fn close(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.abs_diff(*b) <= 1)
}
