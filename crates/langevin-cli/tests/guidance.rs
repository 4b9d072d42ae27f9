//! Guidance, inversion, editing and the rest that begins with a picture, on pipelines that diffusers saved.

mod support;

use std::{fs, path::Path};

use langevin::{
    data::{Channels, Picture, read_picture},
    device::default_device,
    grid,
    models::{Model, UNet2DConfig, UNet2DModel, unet2d::SampleSize},
    pipelines::{Classes, Latents, Pipeline},
    random::Generator,
};
use support::{Ran, line, names, reference_pipeline};

/// A command line in `folder`, in which the reference pipeline `ddim` is `MODEL`.
fn with_model(folder: &Path, text: &str) -> Ran {
    let model = reference_pipeline("ddim");
    let words = text.split_whitespace();
    let words = words.map(|word| {
        if word == "MODEL" {
            model.clone().into_os_string()
        } else {
            word.into()
        }
    });
    support::langevin(folder, words)
}

/// Saves an untrained model of two classes and a null class as `conditional`.
fn conditional(folder: &Path) {
    let config = UNet2DConfig {
        sample_size: Some(SampleSize::Square(8)),
        in_channels: 1,
        out_channels: 1,
        block_out_channels: vec![8, 8],
        norm_num_groups: Some(4),
        num_class_embeds: Some(3),
        down_block_types: UNet2DConfig::default().down_block_types[..2].to_vec(),
        up_block_types: UNet2DConfig::default().up_block_types[2..].to_vec(),
        layers_per_block: 1,
        ..UNet2DConfig::default()
    };
    let scheduler = Pipeline::load(reference_pipeline("ddim"), &default_device())
        .unwrap()
        .scheduler;
    let pipeline = Pipeline::new(
        UNet2DModel::new(&config, &default_device(), &mut Generator::new(0))
            .unwrap()
            .into(),
        scheduler,
        Some(Classes {
            names: vec!["cat".into(), "dog".into()],
            null_class: Some(2),
        }),
    )
    .unwrap();
    pipeline.save(folder.join("conditional")).unwrap();
}

/// Writes a picture of one colour.
fn write(folder: &Path, name: &str, side: usize, rgb: [u8; 3]) {
    let picture = Picture::new(side, side, Channels::Rgb, rgb.repeat(side * side)).unwrap();
    grid::write_picture(folder.join(name), &picture, &[]).unwrap();
}

/// The mean distance of a picture's pixels to a colour.
fn distance(path: &Path, rgb: [u8; 3]) -> f64 {
    let pixels = read_picture(path).unwrap().into_pixels();
    let off = pixels
        .iter()
        .zip(rgb.iter().cycle())
        .map(|(a, b)| f64::from(a.abs_diff(*b)));
    off.sum::<f64>() / pixels.len() as f64
}

/// Saves the reference pipeline as if its model predicted velocities, as `velocity`: untrained as it is, its predicted noise would
/// put every predicted picture far out of range, where clipping leaves no slope.
fn of_velocities(folder: &Path) {
    let pipeline = Pipeline::load(reference_pipeline("ddim"), &default_device()).unwrap();
    pipeline.save(folder.join("velocity")).unwrap();
    let config = folder.join("velocity/scheduler/scheduler_config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("epsilon", "v_prediction")).unwrap();
}

#[test]
fn a_colour_guides_samples_to_it() {
    let folder = tempfile::tempdir().unwrap();
    of_velocities(folder.path());
    for (name, flags) in [
        ("plain", ""),
        ("clean", "--guide color:#1AE680@100"),
        (
            "model",
            "--guide color:#1AE680@100 --guide-through model --guide symmetry@5",
        ),
        (
            "bound",
            "--guide colour:#1AE680@100 --guide-clip 1e-6 --guide-schedule root-signal",
        ),
    ] {
        with_model(
            folder.path(),
            &format!("sample velocity --count 2 --steps 10 --output {name} {flags}"),
        )
        .ok();
    }
    let green = |name: &str| distance(&folder.path().join(name).join("0000.png"), [0x1A, 0xE6, 0x80]);
    assert!(
        green("clean") < 0.8 * green("plain"),
        "{} {}",
        green("clean"),
        green("plain")
    );
    assert!(green("model") < 0.8 * green("plain"));
    assert!(green("bound") > 0.5 * green("plain"));
    let texts = grid::read_png_text(folder.path().join("model/0000.png")).unwrap();
    let guides = texts.into_iter().find(|(key, _)| key == "guides").unwrap().1;
    assert_eq!(guides, "colour:#1AE680@100 symmetry:vertical@5");
}

#[test]
fn classes_are_guided_by_scale() {
    let folder = tempfile::tempdir().unwrap();
    conditional(folder.path());
    for (name, flags) in [
        ("plain", "--class cat"),
        ("one", "--class cat --guidance-scale 1"),
        ("three", "--class cat --guidance-scale 3"),
        ("null", "--class cat --guidance-scale 3 --negative-class none"),
        ("dog", "--class cat --guidance-scale 3 --negative-class dog"),
        (
            "never",
            "--class cat --guidance-scale 3 --guidance-interval 2000:3000",
        ),
        (
            "rescaled",
            "--class cat --guidance-scale 3 --guidance-rescale 0.7 --guidance-interval 0:1",
        ),
    ] {
        let sample = format!("sample conditional --count 1 --steps 4 --output {name}.png {flags}");
        line(folder.path(), &sample).ok();
    }
    let pixels = |name: &str| {
        read_picture(folder.path().join(format!("{name}.png")))
            .unwrap()
            .into_pixels()
    };
    assert_eq!(pixels("plain"), pixels("one"));
    assert_eq!(pixels("three"), pixels("null"));
    for name in ["plain", "dog", "rescaled"] {
        assert_ne!(pixels("three"), pixels(name), "{name}");
    }
    // Outside the interval nothing is guided, but that DDIM's noise is the clipped picture's.
    assert_ne!(pixels("three"), pixels("never"));
}

#[test]
fn guidance_that_cannot_be_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    conditional(folder.path());
    write(folder.path(), "a.png", 16, [9; 3]);
    write(folder.path(), "small.png", 8, [9; 3]);
    let refused = |text: &str, code: i32, part: &str| {
        with_model(
            folder.path(),
            &format!("{text} --count 1 --steps 4 --output x.png"),
        )
        .refused(code, &[part]);
    };
    refused("sample MODEL --guidance-scale 3", 1, "unconditional");
    refused(
        "sample conditional --negative-class dog",
        1,
        "guidance scale of 1",
    );
    refused(
        "sample conditional --guidance-scale 3 --negative-class cow",
        1,
        "cat, dog",
    );
    refused(
        "sample conditional --guidance-scale 3 --guidance-rescale 2",
        1,
        "between 0 and 1",
    );
    refused("sample conditional --guidance-rescale 0.5", 1, "--guidance-scale");
    refused("sample conditional --guidance-interval 9:1", 2, "0.2:0.8");
    refused("sample conditional --guide colour:#1AE680", 1, "shades of grey");
    refused("sample MODEL --guide colr:red", 2, "colour:#1AE680");
    refused("sample MODEL --guide colour:red", 2, "#RRGGBB");
    refused("sample MODEL --guide-through model", 1, "--guide");
    refused("sample MODEL --guide symmetry --guide-clip 0", 1, "above 0");
    refused("sample MODEL --guide picture:none.png", 1, "none.png");
    refused("sample MODEL --guide known:a.png", 1, "mask");
    refused(
        "sample MODEL --guide known:a.png --mask small.png",
        1,
        "must be of one size",
    );
    refused("sample MODEL --inpaint a.png", 1, "mask");
    refused(
        "sample MODEL --inpaint a.png --mask small.png",
        1,
        "must be of one size",
    );
    refused(
        "sample MODEL --init-image a.png --strength 2",
        1,
        "above 0 and at most 1",
    );
    refused(
        "sample MODEL --init-image a.png --strength 0.1",
        1,
        "leaves none of 4 steps",
    );
    refused("sample MODEL --strength 0.5", 1, "--init-image");
    assert_eq!(names(folder.path()), ["a.png", "conditional", "small.png"]);
}

#[test]
fn a_picture_can_be_begun_with_and_painted_in() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.png", 32, [200, 30, 30]);
    write(folder.path(), "black.png", 32, [0; 3]);
    let sample = |flags: &str| {
        with_model(
            folder.path(),
            &format!("sample MODEL --count 1 --output out --overwrite {flags}"),
        )
        .ok();
        distance(&folder.path().join("out/0000.png"), [200, 30, 30])
    };
    let (near, far) = (
        sample("--steps 20 --init-image a.png --strength 0.05"),
        sample("--steps 20 --init-image a.png --strength 1"),
    );
    assert!(near < 20.0 && near < far, "{near} {far}");
    // All of it is known.
    let painted = sample("--steps 4 --inpaint a.png --mask black.png");
    assert!(painted <= 1.0, "{painted}");
}

#[test]
fn pictures_are_inverted_and_edited() {
    let folder = tempfile::tempdir().unwrap();
    conditional(folder.path());
    write(folder.path(), "a.png", 8, [100; 3]);
    write(folder.path(), "b.png", 20, [180; 3]);
    let ran = line(
        folder.path(),
        "invert conditional a.png b.png --class cat --class dog --steps 6 --output l.safetensors --grid grid.png",
    )
    .ok();
    assert!(ran.out.contains("reconstruction error"), "{}", ran.out);
    let latents = Latents::load(folder.path().join("l.safetensors"), &default_device()).unwrap();
    assert_eq!(
        (latents.values.dims(), latents.steps, latents.classes),
        ([2, 1, 8, 8], 6, vec![0, 1])
    );

    let edit = |flags: &str, output: &str| {
        line(
            folder.path(),
            &format!("edit conditional {flags} --output {output}.png"),
        )
        .ok();
        read_picture(folder.path().join(format!("{output}.png")))
            .unwrap()
            .into_pixels()
    };
    let changed = edit(
        "a.png --source-class cat --class dog --steps 6 --start-step 2 --guidance-scale 3",
        "changed",
    );
    let late = edit(
        "a.png --source-class cat --class dog --steps 6 --start-step 5",
        "late",
    );
    assert_ne!(changed, late);
    edit("l.safetensors --class dog --start-step 3", "both");

    let refused = |text: &str, part: &str| line(folder.path(), text).refused(1, &[part]);
    refused("edit conditional a.png", "--class");
    refused("edit conditional a.png --class cow", "cat, dog");
    refused(
        "edit conditional a.png --class dog --steps 4 --start-step 4",
        "--start-step 4",
    );
    refused("edit conditional l.safetensors --class dog --steps 7", "6 steps");
    refused(
        "edit conditional conditional/model_index.json --class dog",
        "model_index.json",
    );
    refused(
        "invert conditional a.png b.png a.png --class cat --class dog",
        "one for all",
    );
    refused("invert conditional nowhere.png", "nowhere.png");
}

#[test]
fn the_way_between_is_a_row_or_an_animation() {
    let folder = tempfile::tempdir().unwrap();
    conditional(folder.path());
    write(folder.path(), "a.png", 8, [100; 3]);
    let between = |flags: &str| {
        line(
            folder.path(),
            &format!("interpolate conditional {flags} --steps 3"),
        )
    };
    between("1 2 --class cat --frames 3").ok();
    let row = read_picture(folder.path().join("between.png")).unwrap();
    assert!(row.width() > 2 * row.height());
    between("a.png 7 --frames 4 --output way.gif").ok();
    assert!(
        fs::read(folder.path().join("way.gif"))
            .unwrap()
            .starts_with(b"GIF89a")
    );
    between("1 2 --frames 1").refused(1, &["--frames"]);
    between("1 2 --output way").refused(1, &["--output"]);
    between("1 nowhere.png").refused(1, &["nowhere.png"]);
}
