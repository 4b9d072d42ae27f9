//! `langevin evaluate`.

mod support;

use std::path::Path;

use langevin::{
    data::read_picture,
    models::weights::{NamedTensor, write_tensors},
    random::Generator,
};
use support::{line, names, small_model};

/// A file with all of Inception's tensors, of random numbers.
fn inception(path: &Path) {
    let shapes = include_str!("../../langevin/tests/reference/inception/shapes.txt");
    let mut generator = Generator::new(0);
    let tensor = |line: &str| {
        let mut words = line.split(' ');
        let name = words.next().unwrap().to_string();
        let shape: Vec<usize> = words.map(|side| side.parse().unwrap()).collect();
        let fan_in: usize = shape[1..].iter().product();
        let scale = (2.0 / fan_in as f32).sqrt();
        let drawn = generator.randn(shape.iter().product());
        let values = match shape.len() {
            4 => drawn.into_iter().map(|z| z * scale).collect(),
            _ => drawn.into_iter().map(|z| 1.0 + 0.01 * z).collect(),
        };
        NamedTensor { name, shape, values }
    };
    let tensors: Vec<NamedTensor> = shapes.lines().map(tensor).collect();
    write_tensors(path, &tensors).unwrap();
}

#[test]
fn samples_are_compared_with_real_pictures() {
    let folder = tempfile::tempdir().unwrap();
    for (run, conditioning) in [("plain", "none"), ("classes", "class")] {
        let model = small_model(folder.path(), 1, conditioning == "class");
        let args = format!(
            "train --dataset-name digits --model {model} --channels grey --conditioning {conditioning} --output-dir {run} \
             --train-batch-size 4 --eval-batch-size 10 --ddpm-num-inference-steps 2 --max-train-steps 1"
        );
        line(folder.path(), &args).ok();
    }
    let args = "--steps 2 --samples 40 --samples-per-class 4 --real-pictures 300 --neighbours near.png";
    let plain = line(folder.path(), &format!("evaluate plain {args}")).ok();
    assert!(plain.out.starts_with("Fréchet distance "), "{}", plain.out);
    assert!(
        plain.out.contains("40 samples against 300 pictures") && plain.out.contains("precision "),
        "{}",
        plain.out
    );
    assert!(
        plain.out.contains("`pixels+gradients` (not FID)"),
        "{}",
        plain.out
    );
    assert!(plain.err.contains("take more than 192"), "{}", plain.err);
    // The same figures for a program.
    let json = line(folder.path(), &format!("evaluate plain {args} --json")).ok();
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    let said = format!(
        "Fréchet distance {:.4}: ",
        json["frechet_distance"].as_f64().unwrap()
    );
    assert!(plain.out.starts_with(&said), "{said} {}", plain.out);
    assert_eq!(
        (&json["samples"], &json["features"]),
        (&40.into(), &"pixels+gradients".into())
    );
    assert!(
        json["recall"].is_number() && json.get("classes").is_none(),
        "{json}"
    );
    // Ten samples, each with six neighbours.
    let picture = read_picture(folder.path().join("near.png")).unwrap();
    assert_eq!((picture.width(), picture.height()), (7 * 66 + 2, 10 * 66 + 2));

    let classes = line(folder.path(), &format!("evaluate classes {args}")).ok();
    assert!(
        classes.out.contains("of 40 samples show the class asked for"),
        "{}",
        classes.out
    );
    assert_eq!(classes.out.lines().count(), 10 + 1 + 2 + 1, "{}", classes.out);
    // Inception's features: with weights of chance they say nothing, and are as many and as finite.
    inception(&folder.path().join("inception.safetensors"));
    let args = "--steps 2 --samples 20 --real-pictures 20 --inception";
    let fid = line(
        folder.path(),
        &format!("evaluate plain {args} inception.safetensors"),
    )
    .ok();
    assert!(
        fid.out.starts_with("FID ") && !fid.out.contains("not FID"),
        "{}",
        fid.out
    );
    assert!(
        fid.out
            .contains("20 samples against 20 pictures, in the 2048 features `inception-2015-12-05 pool3`"),
        "{}",
        fid.out
    );
    assert!(fid.err.contains("take more than 2048"), "{}", fid.err);
    let weights = "plain/unet/diffusion_pytorch_model.safetensors";
    line(folder.path(), &format!("evaluate plain {args} {weights}"))
        .refused(1, &[weights, "lacks Conv2d_1a_3x3.conv.weight"]);
    line(folder.path(), &format!("evaluate plain {args} nowhere.pth")).refused(1, &["nowhere.pth"]);
    std::fs::remove_file(folder.path().join("inception.safetensors")).unwrap();

    // Before anything is drawn.
    line(folder.path(), "evaluate plain --samples 3").refused(1, &["3 samples are too few", "--samples"]);
    line(folder.path(), "evaluate plain --real-pictures 2").refused(1, &["2 real pictures are too few"]);
    line(folder.path(), "evaluate plain --neighbours near.jpg")
        .refused(1, &["--neighbours near.jpg", ".png"]);
    assert_eq!(
        names(folder.path()),
        ["classes", "near.png", "plain", "small.json"]
    );
}
