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
use support::{langevin, line, names};
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
