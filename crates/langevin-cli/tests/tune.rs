//! Training on top of a tiny Stable Diffusion pipeline: each kind of trainee end to end, what it leaves, and that it goes on to the byte.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use langevin::{
    data::{Channels, Picture},
    grid,
};
use support::{langevin, line, names, reference_pipeline};
use tempfile::TempDir;

/// The pipeline that all is trained on.
fn base(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../langevin/tests/reference/sd_training");
    folder.join(name).canonicalize().unwrap().display().to_string()
}

/// A folder with pictures that are easily told apart: some with captions beside them, pairs, and as other trainers name folders.
fn scene() -> TempDir {
    let scene = tempfile::tempdir().unwrap();
    let picture = |path: &str, height: usize, width: usize, seed: usize| {
        let pixels = (0..height * width * 3)
            .map(|i| ((i * (7 + seed) + seed * 40) % 256) as u8)
            .collect();
        let picture = Picture::new(height, width, Channels::Rgb, pixels).unwrap();
        grid::write_png(scene.path().join(path), &picture, &[]).unwrap();
    };
    for i in 0..4 {
        picture(&format!("dog/{i}.png"), 20 + i, 16 + 2 * i, i);
        picture(&format!("texts/{i}.png"), 16, 16, i);
        fs::write(
            scene.path().join(format!("texts/{i}.txt")),
            format!("a cat, number {i}"),
        )
        .unwrap();
        picture(&format!("pairs/{i}.png"), 16, 16, i);
        picture(&format!("pairs/shown/{i}.png"), 16, 16, i + 9);
    }
    let rows: String = (0..4)
        .map(|i| format!("{i}.png,shown/{i}.png,a cat {i}\n"))
        .collect();
    fs::write(
        scene.path().join("pairs/metadata.csv"),
        format!("file_name,shown_file_name,text\n{rows}"),
    )
    .unwrap();
    picture("kohya/3_cat toy/a.png", 16, 16, 1);
    picture("kohya/2_dog/b.png", 16, 16, 2);
    scene
}

const SHORT: &str = "--resolution 16 --ddpm-num-inference-steps 2 --eval-batch-size 1 --quiet";

fn bytes(path: PathBuf) -> Vec<u8> {
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Trains for four steps at once, and for two and then the rest, into `whole` and `parts`; both must have left the same file.
fn same_in_parts(scene: &TempDir, flags: &str, file: &str) {
    let folder = scene.path();
    line(
        folder,
        &format!("train {flags} {SHORT} --max-train-steps 4 --output-dir whole"),
    )
    .ok();
    let parts = format!("train {flags} {SHORT} --checkpointing-steps 2 --output-dir parts");
    line(folder, &format!("{parts} --max-train-steps 2")).ok();
    line(
        folder,
        "train --resume-from-checkpoint parts --max-train-steps 4 --quiet",
    )
    .ok();
    assert!(
        bytes(folder.join("whole").join(file)) == bytes(folder.join("parts").join(file)),
        "{file}: a run in parts ends otherwise: {flags}"
    );
}

#[test]
fn a_lora_is_trained_goes_on_to_the_byte_and_is_drawn_with() {
    let scene = scene();
    let folder = scene.path();
    let flags = format!(
        "--pretrained {} --trainee lora --train-data-dir dog --instance-prompt cat --train-text-encoder --text-encoder-lr 1e-3 \
         --learning-rate 1e-2 --lora-dropout 0.1 --random-flip --gradient-accumulation-steps 2 --output-kohya-format",
        base("base")
    );
    same_in_parts(&scene, &flags, "pytorch_lora_weights.safetensors");
    let run = names(&folder.join("whole"));
    for name in [
        "pytorch_lora_weights.safetensors",
        "pytorch_lora_weights_kohya.safetensors",
        "README.md",
        "training.json",
        "metrics.jsonl",
        "samples.png",
    ] {
        assert!(run.iter().any(|found| found == name), "{name} is not in {run:?}");
    }
    // What is not trained is in no checkpoint.
    let checkpoint = fs::read_dir(folder.join("parts/checkpoint-2")).unwrap();
    let size: u64 = checkpoint
        .flatten()
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert!(size < 200_000, "{size}");
    let trained = names(&folder.join("parts/checkpoint-2/trained"));
    assert_eq!(trained, ["trained.safetensors"]);
    // It is drawn with, and in both files it is the same.
    let draw = |lora: &str, output: &str| {
        let base = base("base");
        let asked = format!("sample {base} --prompt cat --steps 2 --seed 3 --output {output}");
        let asked = match lora {
            "" => asked,
            lora => format!("{asked} --lora {lora}"),
        };
        line(folder, &asked).ok();
        let picture = langevin::data::read_picture(folder.join(output)).unwrap();
        picture.pixels().to_vec()
    };
    let (plain, run) = (draw("", "plain.png"), draw("whole", "run.png"));
    let kohya = draw("whole/pytorch_lora_weights_kohya.safetensors", "kohya.png");
    assert!(plain != run, "the LoRA changes nothing");
    let difference = run.iter().zip(&kohya).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(difference <= Some(1), "{difference:?}");
}

#[test]
fn a_dora_learns_lengths_and_is_drawn_with() {
    let scene = scene();
    let folder = scene.path();
    let base = base("base");
    let flags = format!(
        "--pretrained {base} --trainee lora --use-dora --train-data-dir dog --instance-prompt cat --train-text-encoder \
         --learning-rate 1e-2 --lora-alpha 2 --lora-dropout 0.1 --lora-targets to_q,conv1 --gradient-checkpointing --output-kohya-format"
    );
    let file = "pytorch_lora_weights.safetensors";
    same_in_parts(&scene, &flags, file);
    let whole = bytes(folder.join("whole").join(file));
    let names = safetensors::SafeTensors::deserialize(&whole).unwrap();
    let lengths = names
        .names()
        .into_iter()
        .filter(|name| name.ends_with(".lora_magnitude_vector"));
    assert!(lengths.count() > 10);
    let draw = |lora: &str, output: &str| {
        let asked = format!("sample {base} --lora {lora} --prompt cat --steps 2 --seed 3 --output {output}");
        line(folder, &asked).ok();
        langevin::data::read_picture(folder.join(output))
            .unwrap()
            .pixels()
            .to_vec()
    };
    let (run, kohya) = (
        draw("whole", "run.png"),
        draw("whole/pytorch_lora_weights_kohya.safetensors", "kohya.png"),
    );
    let difference = run.iter().zip(&kohya).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(difference <= Some(1), "{difference:?}");
    let plain = format!(
        "train {} {SHORT} --max-train-steps 1 --output-dir plain",
        flags.replace("--use-dora", "")
    );
    line(folder, &plain).ok();
    assert!(draw("plain", "plain.png") != run);
}

#[test]
fn class_pictures_are_drawn_once_and_trained_on() {
    let scene = scene();
    let folder = scene.path();
    let flags = format!(
        "--pretrained {} --trainee lora --train-data-dir dog --instance-prompt cat --class-prompt dog --num-class-images 3 \
         --class-data-dir dogs --train-batch-size 2",
        base("base")
    );
    line(
        folder,
        &format!("train {flags} {SHORT} --max-train-steps 1 --output-dir first"),
    )
    .ok();
    assert_eq!(
        names(&folder.join("dogs")),
        ["drawn-00000.png", "drawn-00001.png", "drawn-00002.png"]
    );
    let second = bytes(folder.join("dogs/drawn-00001.png"));
    fs::remove_file(folder.join("dogs/drawn-00001.png")).unwrap();
    same_in_parts(&scene, &flags, "pytorch_lora_weights.safetensors");
    assert!(
        second == bytes(folder.join("dogs/drawn-00001.png")),
        "what was interrupted goes on"
    );
    // One that is broken is left out, with a word.
    fs::write(folder.join("dogs/broken.png"), "no picture").unwrap();
    let noisy = SHORT.replace("--quiet", "--plain");
    let ran = line(
        folder,
        &format!("train {flags} {noisy} --max-train-steps 2 --output-dir broken"),
    )
    .ok();
    assert!(
        ran.err.contains("1 of the pictures of the class cannot be read"),
        "{}",
        ran.err
    );
}

#[test]
fn a_word_is_learned_and_drawn_with() {
    let scene = scene();
    let folder = scene.path();
    let flags = format!(
        "--pretrained {} --trainee embedding --placeholder-token <toy> --initializer-token cat --num-vectors 2 --train-data-dir dog",
        base("base")
    );
    same_in_parts(&scene, &flags, "learned_embeds.safetensors");
    let base = base("base");
    line(
        folder,
        &format!("sample {base} --embedding whole/learned_embeds.safetensors --prompt <toy> --steps 2 --overwrite --output toy.png"),
    )
    .ok();
    for (flags, parts) in [
        (
            "--placeholder-token cat --initializer-token cat",
            ["vocabulary already", "another word"],
        ),
        (
            "--placeholder-token <toy> --initializer-token catcatcat",
            ["tokens of the vocabulary", "another word"],
        ),
        ("--placeholder-token <toy>", ["--initializer-token", "begins as"]),
        // An empty word would be found at every place of a text.
        (
            "--placeholder-token= --initializer-token cat",
            ["--placeholder-token", "1 to"],
        ),
        (
            "--placeholder-token <toy> --initializer-token cat --num-vectors 5000",
            ["--num-vectors", "from 1 to"],
        ),
    ] {
        let refused = format!(
            "train --pretrained {base} --trainee embedding --train-data-dir dog {flags} {SHORT} --output-dir no"
        );
        line(folder, &refused).refused(1, &parts);
    }
    assert!(!folder.join("no").exists(), "what is refused leaves nothing");
}

#[test]
fn a_word_of_xl_has_a_file_for_each_of_its_encoders() {
    let scene = scene();
    let folder = scene.path();
    let base = base("base_xl");
    let ran = line(
        folder,
        &format!(
            "train --pretrained {base} --trainee embedding --placeholder-token <toy> --initializer-token cat --train-data-dir dog \
             --resolution 16 --ddpm-num-inference-steps 2 --eval-batch-size 1 --plain --max-train-steps 1 --output-dir run"
        ),
    )
    .ok();
    let files = ["learned_embeds.safetensors", "learned_embeds_2.safetensors"];
    let flags = files.map(|file| format!("--embedding run/{file}"));
    let both = flags.join(" ");
    let said = ran.out.clone() + &ran.err;
    assert!(said.contains(&both), "{said}");
    assert!(
        fs::read_to_string(folder.join("run/README.md"))
            .unwrap()
            .contains(files[1])
    );
    let draw = |flags: &str| {
        line(
            folder,
            &format!("sample {base} {flags} --prompt <toy> --steps 2 --overwrite --output toy.png"),
        )
    };
    draw(&both).ok();
    for one in &flags {
        draw(one).refused(1, &["text encoders", "`<toy>`"]);
    }
}

#[test]
fn a_controlnet_and_an_editor_are_trained_and_drawn_with() {
    let scene = scene();
    let folder = scene.path();
    let base = base("base");
    let shown = "--train-data-dir pairs --conditioning-image shown";
    same_in_parts(
        &scene,
        &format!(
            "--pretrained {base} --trainee controlnet {shown} --caption-dropout 0.5 --learning-rate 1e-3"
        ),
        "diffusion_pytorch_model.safetensors",
    );
    line(
        folder,
        &format!("sample {base} --control whole=pairs/0.png --prompt cat --steps 2 --output drawn.png"),
    )
    .ok();
    fs::remove_dir_all(folder.join("whole")).unwrap();
    fs::remove_dir_all(folder.join("parts")).unwrap();
    same_in_parts(
        &scene,
        &format!("--pretrained {base} --trainee pix2pix {shown} --use-ema"),
        "unet/diffusion_pytorch_model.safetensors",
    );
    line(
        folder,
        "sample whole --init-image pairs/0.png --prompt cat --steps 2 --output edited.png",
    )
    .ok();
    let refused = format!(
        "train --pretrained {base} --trainee controlnet {shown} --validation-image no.png {SHORT} --output-dir no"
    );
    line(folder, &refused).refused(1, &["no.png"]);
    assert!(!folder.join("no").exists(), "before anything is written");
    let refused = format!("train --pretrained {base} --trainee controlnet --train-data-dir dog {SHORT}");
    line(folder, &refused).refused(1, &["--conditioning-image", "controlnet"]);
}

#[test]
fn the_whole_pipeline_is_trained_and_drawn_with() {
    let scene = scene();
    let folder = scene.path();
    for (name, text) in [("base", "--train-text-encoder"), ("base_xl", "")] {
        let flags = format!(
            "--pretrained {} --train-data-dir texts {text} --use-ema --snr-gamma 5 --gradient-checkpointing",
            base(name)
        );
        same_in_parts(&scene, &flags, "unet/diffusion_pytorch_model.safetensors");
        line(
            folder,
            &format!("sample whole --prompt cat --steps 2 --output {name}.png"),
        )
        .ok();
        fs::remove_dir_all(folder.join("whole")).unwrap();
        fs::remove_dir_all(folder.join("parts")).unwrap();
    }
}

#[test]
fn tags_are_shuffled_timesteps_biased_and_pairs_rectified() {
    let scene = scene();
    let folder = scene.path();
    let base = base("base");
    for i in 0..4 {
        fs::write(folder.join(format!("texts/{i}.txt")), "cat, toy, dog, a, b, c").unwrap();
    }
    let plain = format!("--pretrained {base} --trainee lora --train-data-dir texts --learning-rate 1e-2");
    let flags = "--shuffle-tags --keep-tags 1 --timestep-bias-strategy later --timestep-bias-multiplier 4 --dream-training --gradient-checkpointing";
    let file = "pytorch_lora_weights.safetensors";
    same_in_parts(&scene, &format!("{plain} {flags}"), file);
    let with = bytes(folder.join("whole").join(file));
    let same = |flags: &str| {
        let line_of = format!(
            "train {plain} {flags} {SHORT} --max-train-steps 4 --output-dir whole --overwrite-output-dir"
        );
        line(folder, &line_of).ok();
        bytes(folder.join("whole").join(file)) == with
    };
    assert!(same(flags));
    // None of them does nothing.
    for left_out in [
        "--shuffle-tags --keep-tags 1",
        "--dream-training",
        "--timestep-bias-strategy later --timestep-bias-multiplier 4",
    ] {
        assert!(!same(&flags.replace(left_out, "")), "{left_out}");
    }
    for (flags, parts) in [
        ("--keep-tags 1", ["--keep-tags", "--shuffle-tags"]),
        (
            "--shuffle-tags --instance-prompt cat",
            ["--shuffle-tags", "another"],
        ),
        (
            "--timestep-bias-portion 0.5",
            ["--timestep-bias-strategy", "none"],
        ),
        (
            "--timestep-bias-strategy range --timestep-bias-end 2000",
            ["--timestep-bias-end", "1000"],
        ),
        (
            "--dream-detail-preservation 2",
            ["--dream-detail-preservation", "--dream-training"],
        ),
        (
            "--dream-training --prediction-type v_prediction",
            ["--dream-training", "predict noise"],
        ),
    ] {
        line(folder, &format!("train {plain} {flags} {SHORT} --output-dir no")).refused(1, &parts);
    }
    assert!(!folder.join("no").exists());
}

#[test]
fn folders_of_other_trainers_count_as_they_say() {
    let scene = scene();
    let folder = scene.path();
    let flags = format!(
        "--pretrained {} --trainee lora --train-data-dir kohya",
        base("base")
    );
    let ran = line(
        folder,
        &format!(
            "train {flags} {} --num-epochs 1 --output-dir run",
            SHORT.replace("--quiet", "--plain")
        ),
    )
    .ok();
    assert!(ran.err.contains("`cat toy` is their caption"), "{}", ran.err);
    let metrics = fs::read_to_string(folder.join("run/metrics.jsonl")).unwrap();
    assert_eq!(
        metrics.lines().count(),
        5,
        "three times one picture, and twice the other"
    );
    // Without a caption there is nothing to learn from.
    let flags = format!(
        "--pretrained {} --trainee lora --train-data-dir dog",
        base("base")
    );
    line(folder, &format!("train {flags} {SHORT} --output-dir none"))
        .refused(1, &["no caption", "--instance-prompt"]);
    // The most usual of such trees has one folder, and its pictures may lie beside others.
    fs::create_dir_all(folder.join("one/2_cat toy")).unwrap();
    fs::copy(
        folder.join("kohya/2_dog/b.png"),
        folder.join("one/2_cat toy/b.png"),
    )
    .unwrap();
    let one = flags.replace("--train-data-dir dog", "--train-data-dir one");
    let noisy = SHORT.replace("--quiet", "--plain");
    let ran = line(
        folder,
        &format!("train {one} {noisy} --num-epochs 1 --output-dir one-run"),
    )
    .ok();
    assert!(ran.err.contains("`cat toy` is their caption"), "{}", ran.err);
    let metrics = fs::read_to_string(folder.join("one-run/metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().count(), 2);
    // A folder's number is anybody's.
    let picture = bytes(folder.join("kohya/2_dog/b.png"));
    fs::create_dir_all(folder.join("often/100000_dog")).unwrap();
    for i in 0..101 {
        fs::write(folder.join(format!("often/100000_dog/{i}.png")), &picture).unwrap();
    }
    let flags = flags.replace("--train-data-dir dog", "--train-data-dir often");
    line(folder, &format!("train {flags} {SHORT} --output-dir none"))
        .refused(1, &["more than 10000000 times", "numbers smaller"]);
    assert!(!folder.join("none").exists(), "what is refused leaves nothing");
}

#[test]
fn pictures_of_all_proportions_are_trained_on_in_buckets() {
    let scene = scene();
    let folder = scene.path();
    for (number, (height, width)) in [(16, 32), (16, 32), (32, 16), (9, 9), (40, 16), (16, 33), (300, 8)]
        .into_iter()
        .enumerate()
    {
        let pixels = (0..height * width * 3).map(|i| ((i * (5 + number)) % 251) as u8);
        let picture = Picture::new(height, width, Channels::Rgb, pixels.collect()).unwrap();
        fs::create_dir_all(folder.join("mixed")).unwrap();
        grid::write_png(folder.join(format!("mixed/{number}.png")), &picture, &[]).unwrap();
    }
    let buckets = "--enable-bucket --min-bucket-reso 8 --max-bucket-reso 32 --bucket-reso-steps 8";
    let flags = |base_name: &str, more: &str| {
        format!(
            "--pretrained {} --trainee lora --train-data-dir mixed --instance-prompt cat --train-batch-size 2 {buckets} {more}",
            base(base_name)
        )
    };
    // Batches, slots and cuts come back as they were.
    for (base_name, more) in [
        ("base", "--gradient-accumulation-steps 2"),
        ("base", "--num-slots 2 --random-flip --center-crop=false"),
        (
            "base_xl",
            "--class-prompt dog --num-class-images 2 --class-data-dir texts",
        ),
    ] {
        same_in_parts(
            &scene,
            &flags(base_name, more),
            "pytorch_lora_weights.safetensors",
        );
        fs::remove_dir_all(folder.join("whole")).unwrap();
        fs::remove_dir_all(folder.join("parts")).unwrap();
    }
    let noisy = SHORT.replace("--quiet", "--plain");
    let ran = line(
        folder,
        &format!(
            "train {} {noisy} --num-epochs 1 --output-dir run",
            flags("base", "")
        ),
    )
    .ok();
    assert!(
        ran.err.contains("brought to 4 sizes, and an epoch has 5 batches") && ran.err.contains("16x16: 3"),
        "{}",
        ran.err
    );
    let metrics = fs::read_to_string(folder.join("run/metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().count(), 5);
    // Never larger: three pictures have sizes of their own.
    let shrunk = flags("base", "--bucket-no-upscale");
    let ran = line(
        folder,
        &format!("train {shrunk} {noisy} --num-epochs 1 --output-dir shrunk"),
    )
    .ok();
    assert!(ran.err.contains("8x8: 1"), "{}", ran.err);
    for (more, parts) in [
        ("--resize square", ["--enable-bucket", "square"]),
        ("--resolution 64", ["--max-bucket-reso", "64"]),
        ("--bucket-reso-steps 3", ["--bucket-reso-steps", "2"]),
    ] {
        let text = format!("train {} {SHORT} {more} --output-dir no", flags("base", "")).replace(
            "--resolution 16 ",
            if more.contains("resolution") {
                ""
            } else {
                "--resolution 16 "
            },
        );
        let text = match more.contains("steps") {
            true => text.replacen("--bucket-reso-steps 8", "", 1),
            false => text,
        };
        line(folder, &text).refused(1, &parts);
    }
    let alone = format!(
        "train --pretrained {} --trainee lora --train-data-dir mixed --dry-run",
        base("base")
    );
    line(folder, &format!("{alone} --max-bucket-reso 64"))
        .refused(1, &["--max-bucket-reso", "--enable-bucket"]);
    line(folder, "train --train-data-dir mixed --enable-bucket --dry-run")
        .refused(1, &["--enable-bucket", "latent"]);
}

#[test]
fn latents_and_texts_are_kept_on_a_disk_and_never_wrong() {
    let scene = scene();
    let folder = scene.path();
    let run = |more: &str, output: &str| {
        let flags = format!(
            "--pretrained {} --trainee lora --train-data-dir texts --learning-rate 1e-2 --max-train-steps 8 {more}",
            base("base")
        );
        let noisy = SHORT.replace("--quiet", "--plain");
        line(
            folder,
            &format!("train {flags} {noisy} --output-dir {output} --overwrite-output-dir"),
        )
        .ok()
        .err
    };
    let lora = |output: &str| bytes(folder.join(output).join("pytorch_lora_weights.safetensors"));
    let kept = || -> Vec<String> { names(&folder.join("kept")) };
    let of = |kind: &str| kept().iter().filter(|name| name.starts_with(kind)).count();
    const DISK: &str = "--cache-latents-to-disk kept";
    run("", "plain");
    let said = run(DISK, "first");
    assert!(
        said.contains("kept in kept, ") && said.contains("in all, and in memory"),
        "{said}"
    );
    assert_eq!((of("latents-"), of("text-")), (4, 4));
    let times = || {
        kept()
            .iter()
            .map(|name| {
                fs::metadata(folder.join("kept").join(name))
                    .unwrap()
                    .modified()
                    .unwrap()
            })
            .collect::<Vec<_>>()
    };
    let before = times();
    run(DISK, "second");
    assert!(times() == before, "what is there is not computed again");
    assert!(lora("first") == lora("plain") && lora("second") == lora("plain"));
    // A file that is cut, one that is another's, one of no numbers: each is computed again.
    let files: Vec<PathBuf> = kept().iter().map(|name| folder.join("kept").join(name)).collect();
    let whole: Vec<Vec<u8>> = files.iter().map(|file| bytes(file.clone())).collect();
    fs::write(&files[0], &whole[0][..whole[0].len() / 2]).unwrap();
    fs::write(&files[1], &whole[6]).unwrap();
    let mut broken = whole[2].clone();
    let end = broken.len();
    broken[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&files[2], broken).unwrap();
    fs::write(&files[6], b"").unwrap();
    run(DISK, "mended");
    assert!(lora("mended") == lora("plain"));
    assert!(files.iter().map(|file| bytes(file.clone())).collect::<Vec<_>>() == whole);
    // Another picture of the same name, another text, another size.
    fs::copy(folder.join("dog/3.png"), folder.join("texts/0.png")).unwrap();
    fs::write(folder.join("texts/1.txt"), "another cat").unwrap();
    run("", "plain");
    run(DISK, "changed");
    assert!(lora("changed") == lora("plain"));
    assert_eq!((of("latents-"), of("text-")), (5, 5));
    run(&format!("{DISK} --random-flip"), "mirrored");
    assert!(of("latents-") <= 9);
    // Another autoencoder and other encoders.
    let xl = format!(
        "train --pretrained {} --trainee lora --train-data-dir texts {DISK} {SHORT} --max-train-steps 4",
        base("base_xl")
    );
    let before = kept().len();
    line(folder, &format!("{xl} --output-dir xl")).ok();
    assert_eq!(kept().len(), before + 8);
    line(folder, &format!("{xl} --output-dir no --center-crop=false"))
        .refused(1, &["--cache-latents-to-disk", "--center-crop"]);
}

/// What others' trainers leave people alone with.
#[test]
fn what_people_run_into() {
    let scene = scene();
    let folder = scene.path();
    let pretrained = base("base");
    let lora = |flags: &str, output: &str| {
        format!("train --pretrained {pretrained} --trainee lora {flags} {SHORT} --output-dir {output}")
    };
    // A learning rate of 10: it ends with a sentence, or with numbers, and never with a file of none.
    let wild = line(
        folder,
        &lora(
            "--train-data-dir dog --instance-prompt cat --learning-rate 10 --max-train-steps 30",
            "wild",
        ),
    );
    if wild.code != 0 {
        assert!(wild.err.contains("lower learning rate"), "{}", wild.err);
    }
    let tensors =
        langevin::weights::read_tensors(folder.join("wild/pytorch_lora_weights.safetensors")).unwrap();
    assert!(
        tensors
            .values()
            .all(|tensor| tensor.values.iter().all(|value| value.is_finite()))
    );
    // One picture, and more in a batch than there are.
    fs::create_dir_all(folder.join("one")).unwrap();
    fs::copy(folder.join("dog/0.png"), folder.join("one/0.png")).unwrap();
    for (more, buckets) in [
        ("one-run", ""),
        (
            "one-bucket",
            "--enable-bucket --min-bucket-reso 8 --bucket-reso-steps 8",
        ),
    ] {
        let flags = format!(
            "--train-data-dir one --instance-prompt cat --train-batch-size 8 --num-epochs 2 {buckets}"
        );
        line(folder, &lora(&flags, more)).ok();
        let metrics = fs::read_to_string(folder.join(more).join("metrics.jsonl")).unwrap();
        assert_eq!(metrics.lines().count(), 2);
    }
    // An empty caption is none.
    fs::write(folder.join("texts/2.txt"), "  \n").unwrap();
    line(folder, &lora("--train-data-dir texts", "empty"))
        .refused(1, &["picture 2 has no caption", "--instance-prompt"]);
    assert!(!folder.join("empty").exists());
    // A base of another kind.
    let pixels = reference_pipeline("ddpm").canonicalize().unwrap();
    let other = format!(
        "train --pretrained {} --trainee lora --train-data-dir dog --instance-prompt cat --dry-run",
        pixels.display()
    );
    line(folder, &other).refused(1, &["on top of a latent pipeline", "--pretrained"]);
    line(
        folder,
        "train --pretrained dog --trainee lora --train-data-dir dog --dry-run",
    )
    .refused(1, &["model_index.json"]);
    // Shuffled tags have encodings of their own, and no other latents.
    fs::write(folder.join("texts/2.txt"), "a, b, c, d").unwrap();
    let shuffled = "--train-data-dir texts --shuffle-tags --cache-latents-to-disk kept --num-epochs 3";
    line(folder, &lora(shuffled, "shuffled")).ok();
    let kept = names(&folder.join("kept"));
    assert_eq!(kept.iter().filter(|name| name.starts_with("latents-")).count(), 4);
    // The same pictures as another kind of file are the same latents.
    for i in 0..4 {
        let path = folder.join(format!("texts/{i}.png"));
        let picture = langevin::data::read_picture(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let (height, width) = (picture.height() as u32, picture.width() as u32);
        let mut bmp = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
        bmp.extend(width.to_le_bytes());
        bmp.extend(height.to_le_bytes());
        bmp.extend([1, 0, 24, 0]);
        bmp.extend([0; 24]);
        // From below, blue first; sixteen pixels are whole words.
        for row in picture.pixels().chunks_exact(3 * width as usize).rev() {
            bmp.extend(
                row.chunks_exact(3)
                    .flat_map(|pixel| [pixel[2], pixel[1], pixel[0]]),
            );
        }
        fs::write(path.with_extension("bmp"), bmp).unwrap();
    }
    line(folder, &lora(shuffled, "converted")).ok();
    let kept = names(&folder.join("kept"));
    assert_eq!(kept.iter().filter(|name| name.starts_with("latents-")).count(), 4);
    // Several processes keep a share of the moments each, which these optimisers cannot.
    let prodigy = "--train-data-dir dog --instance-prompt cat --optimizer prodigy";
    line(
        folder,
        &lora(
            &format!("{prodigy} --train-text-encoder --text-encoder-lr 0.5"),
            "no",
        ),
    )
    .refused(1, &["text_encoder_lr", "prodigy"]);
    line(
        folder,
        &lora(
            "--train-data-dir dog --instance-prompt cat --prodigy-d-coef 2",
            "no",
        ),
    )
    .refused(1, &["prodigy_d_coef", "prodigy"]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let scene = scene();
    let folder = scene.path();
    let base = base("base");
    let tuned = format!("train --pretrained {base} --train-data-dir dog --dry-run");
    for (text, parts) in [
        (
            "train --train-data-dir dog --trainee lora --dry-run".into(),
            ["--pretrained", "latent"],
        ),
        (
            "train --train-data-dir dog --instance-prompt cat --dry-run".into(),
            ["--instance-prompt", "--pretrained"],
        ),
        (format!("{tuned} --rank 8"), ["--rank", "lora"]),
        (format!("{tuned} --trainee lora --rank 0"), ["rank", "at least 1"]),
        (
            format!("{tuned} --num-class-images 5"),
            ["--num-class-images", "--class-prompt"],
        ),
        (
            format!("{tuned} --trainee controlnet --class-prompt dog --conditioning-image shown"),
            ["--class-prompt", "controlnet"],
        ),
    ] {
        line(folder, &text).refused(1, &parts);
    }
    let target = format!(
        "train --pretrained {base} --train-data-dir dog --instance-prompt cat --trainee lora --lora-targets to_x {SHORT}"
    );
    line(folder, &target).refused(1, &["to_x", "to_q"]);
    let odd = format!(
        "train --pretrained {base} --train-data-dir dog --instance-prompt cat --trainee lora --resolution 15"
    );
    line(folder, &odd).refused(1, &["--resolution", "15"]);
}

#[test]
fn a_pasted_line_trains() {
    let scene = scene();
    let folder = scene.path();
    let base = format!("--pretrained_model_name_or_path={}", base("base"));
    let args = [
        "accelerate",
        "launch",
        "train_dreambooth_lora.py",
        &base,
        "--instance_data_dir=dog",
        "--output_dir=run",
        "--instance_prompt=a photo of cat",
        "--resolution=16",
        "--train_batch_size=1",
        "--gradient_accumulation_steps=1",
        "--checkpointing_steps=100",
        "--learning_rate=1e-4",
        "--report_to=wandb",
        "--lr_scheduler=constant",
        "--lr_warmup_steps=0",
        "--max_train_steps=2",
        "--validation_prompt=cat",
        "--validation_epochs=50",
        "--num_validation_images=1",
        "--seed=0",
        "--use_8bit_adam",
    ];
    let ran = langevin(folder, args).ok();
    assert!(ran.err.contains("--use_8bit_adam has no effect"), "{}", ran.err);
    assert!(folder.join("run/pytorch_lora_weights.safetensors").is_file());
}
