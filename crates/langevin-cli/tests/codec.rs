//! Autoencoders that are trained, and models of their latents from nothing.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use langevin::{
    data::{Channels, Picture},
    grid,
};
use support::{line, names};
use tempfile::TempDir;

/// A folder with pictures of two classes, with captions.
fn scene() -> TempDir {
    let scene = tempfile::tempdir().unwrap();
    for (class, shift) in [("cats", 30), ("dogs", 150)] {
        fs::create_dir_all(scene.path().join("pets").join(class)).unwrap();
        for i in 0..3 {
            let pixels = (0..16 * 16 * 3).map(|n| ((n * 5 + shift + 20 * i) % 256) as u8);
            let picture = Picture::new(16, 16, Channels::Rgb, pixels.collect()).unwrap();
            let path = scene.path().join(format!("pets/{class}/{i}.png"));
            grid::write_png(&path, &picture, &[]).unwrap();
            fs::write(path.with_extension("txt"), format!("{class}, number {i}")).unwrap();
        }
    }
    scene
}

const SHORT: &str = "--train-data-dir pets --resolution 16 --train-batch-size 4 --eval-batch-size 2 --quiet";

fn bytes(path: PathBuf) -> Vec<u8> {
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn same(a: &Path, b: &Path, file: &str) {
    assert!(bytes(a.join(file)) == bytes(b.join(file)), "{file} differs");
}

#[test]
fn an_autoencoder_is_trained_goes_on_to_the_byte_and_is_used() {
    let scene = scene();
    let folder = scene.path();
    let flags =
        format!("train {SHORT} --trainee codec --use-ema --gradient-accumulation-steps 2 --random-flip");
    line(folder, &format!("{flags} --max-train-steps 4 --output-dir whole")).ok();
    line(
        folder,
        &format!("{flags} --max-train-steps 2 --checkpointing-steps 2 --output-dir parts"),
    )
    .ok();
    line(
        folder,
        "train --resume-from-checkpoint parts --max-train-steps 4 --quiet",
    )
    .ok();
    same(
        &folder.join("whole"),
        &folder.join("parts"),
        "diffusion_pytorch_model.safetensors",
    );
    let left = names(&folder.join("whole"));
    for name in [
        "config.json",
        "README.md",
        "samples.png",
        "samples-trained.png",
        "metrics.jsonl",
    ] {
        assert!(
            left.iter().any(|found| found == name),
            "{name} is not in {left:?}"
        );
    }
    let card = fs::read_to_string(folder.join("whole/README.md")).unwrap();
    assert!(
        card.contains("AutoencoderKL.from_pretrained") && card.contains("PSNR"),
        "{card}"
    );
    // It has no noise to tell of.
    assert!(!card.contains("noise schedule"), "{card}");
    // It is over, and says so.
    let again = line(
        folder,
        &format!("{flags} --max-train-steps 4 --output-dir whole --resume-from-checkpoint latest"),
    );
    assert!(again.ok().out.contains("is done"), "it is trained anew");
    // One that goes on with it by itself has no pipeline to be drawn with.
    let on = format!("train {SHORT} --trainee codec --pretrained whole --max-train-steps 1 --output-dir on");
    let said = line(folder, &on).ok().out;
    assert!(
        said.contains("langevin train") && said.contains("--codec on"),
        "{said}"
    );
    // A model of its latents, from nothing.
    let latents = format!(
        "train {SHORT} --codec whole --model latent --conditioning class --max-train-steps 2 --ddpm-num-inference-steps 2 \
         --output-dir latents"
    );
    line(folder, &latents).ok();
    let index = fs::read_to_string(folder.join("latents/model_index.json")).unwrap();
    assert!(
        index.contains("LDMPipeline") && index.contains("AutoencoderKL"),
        "{index}"
    );
    line(
        folder,
        "sample latents --class dogs --count 2 --steps 2 --output drawn.png",
    )
    .ok();
    let drawn = langevin::data::read_picture(folder.join("drawn.png")).unwrap();
    assert!(drawn.height() >= 16);
}

#[test]
fn a_latent_model_of_ones_own_comes_out_of_one_run_whenever_it_is_stopped() {
    let scene = scene();
    let folder = scene.path();
    let flags = format!(
        "train {SHORT} --codec train --codec-train-steps 4 --conditioning cross-attention --checkpointing-steps 2 \
         --ddpm-num-inference-steps 2 --max-train-steps 4"
    );
    line(folder, &format!("{flags} --output-dir whole")).ok();
    let index = fs::read_to_string(folder.join("whole/model_index.json")).unwrap();
    for part in [
        "StableDiffusionPipeline",
        "AutoencoderKL",
        "UNet2DConditionModel",
        "CLIPTextModel",
    ] {
        assert!(index.contains(part), "{part} is not in {index}");
    }
    // As if it had been killed after the autoencoder's second step.
    line(folder, &format!("{flags} --output-dir parts")).ok();
    for name in names(&folder.join("parts")) {
        let path = folder.join("parts").join(&name);
        match (name.as_str(), path.is_dir()) {
            ("training.json" | "codec", _) => {}
            (_, true) => fs::remove_dir_all(path).unwrap(),
            (_, false) => fs::remove_file(path).unwrap(),
        }
    }
    let codec = folder.join("parts/codec");
    let first = TempDir::new_in(folder).unwrap();
    let killed = format!(
        "train {SHORT} --trainee codec --max-train-steps 4 --checkpointing-steps 2 --learning-rate 1e-3 --center-crop --use-ema \
         --ema-max-decay 0.999 --lr-warmup-steps 0 --output-dir {}",
        first.path().join("codec").display()
    );
    line(folder, &killed).ok();
    for name in names(&codec) {
        if !["training.json", "metrics.jsonl"].contains(&name.as_str()) {
            let path = codec.join(&name);
            match path.is_dir() {
                true => fs::remove_dir_all(path).unwrap(),
                false => fs::remove_file(path).unwrap(),
            }
        }
    }
    copy(
        &first.path().join("codec/checkpoint-2"),
        &codec.join("checkpoint-2"),
    );
    line(
        folder,
        &format!("{flags} --output-dir parts --resume-from-checkpoint latest"),
    )
    .ok();
    for file in [
        "vae/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
    ] {
        same(&folder.join("whole"), &folder.join("parts"), file);
    }
    // And after the model's second.
    fs::remove_dir_all(folder.join("parts/checkpoint-4")).unwrap();
    line(folder, "train --resume-from-checkpoint parts --quiet").ok();
    same(
        &folder.join("whole"),
        &folder.join("parts"),
        "unet/diffusion_pytorch_model.safetensors",
    );
    // What it is asked for where it is measured: the captions of the data, and so their classes.
    let measured = line(folder, "evaluate whole --data pets --samples 6 --steps 2 --json").ok();
    let figures: serde_json::Value = serde_json::from_str(&measured.out).unwrap();
    let each = |name: &str| serde_json::json!([name, 3]);
    let found = figures["classes"].as_array().unwrap().iter();
    let found: Vec<_> = found
        .map(|class| serde_json::json!([class["name"], class["samples"]]))
        .collect();
    assert_eq!(found, [each("cats"), each("dogs")]);
    // It is a base as any other, for all that is trained on top.
    line(
        folder,
        &format!("train {SHORT} --pretrained whole --trainee lora --max-train-steps 1 --ddpm-num-inference-steps 2 --output-dir lora"),
    )
    .ok();
    line(
        folder,
        "sample whole --lora lora --prompt cats --steps 2 --output drawn.png",
    )
    .ok();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to),
            false => fs::copy(entry.path(), to).map(drop).unwrap(),
        }
    }
}

#[test]
fn what_makes_no_autoencoder_is_a_sentence() {
    let scene = scene();
    let folder = scene.path();
    for (flags, said) in [
        (
            "--codec no-such-folder",
            "there is no codec `no-such-folder`: there are pixels, mel, riffusion and train",
        ),
        ("--codec pets", "config.json"),
        ("--codec train --resolution 18", "4x4 pixels"),
        ("--codec train --conditioning-image grey", "latents"),
        ("--codec train --codec-model nothing", "tiny and small"),
        ("--codec train --codec-train-steps 0", "at least 1"),
        ("--codec train --kl-weight=-1", "--kl-weight"),
        ("--kl-weight 1e-3", "--codec train"),
        ("--codec-batch-size 2", "--codec train"),
        ("--trainee codec --codec train", "--codec"),
        (
            "--trainee codec --prediction-type v_prediction",
            "--prediction-type",
        ),
        ("--trainee codec --conditioning class", "--conditioning"),
        (
            "--trainee codec --gradient-checkpointing",
            "--gradient-checkpointing",
        ),
    ] {
        let asked = format!("train {SHORT} {flags} --output-dir run");
        line(folder, &asked).refused(1, &[said]);
        assert!(!folder.join("run").exists(), "{flags} left a folder");
    }
}
