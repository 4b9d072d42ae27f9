//! Transforms against torchvision's `Resize` (Pillow, antialiased), `CenterCrop`, flip, `ToTensor` and `Normalize`:
//! the cases of the reference folder's `transforms`.
//!
//! A key of `expected.safetensors` is a picture's name without its ending, a dot, and what was done:
//! `resizeN_center_normalize` is `Resize(N)`, `CenterCrop(N)`, `ToTensor()`, `Normalize([0.5], [0.5])`;
//! `resize_exactN` the same with `Resize((N, N))` and no crop; `flip` mirrors at the picture's own size and stays in
//! [0, 1].

mod support;

use langevin::{
    data::{Alpha, Channels, Picture, Resize, Transform, read_picture_with},
    random::Generator,
};
use support::{Outcome, Report, Stored, largest_difference, read_tensors, reference, within};

/// One level of 8 bits, with room for float32's rounding. It holds in [-1, 1] too, where a level is twice that:
/// there a single pixel that is off by one fails.
const TOLERANCE: f64 = 1.0 / 255.0 + 1e-6;

#[test]
fn transforms_equal_torchvisions() {
    let mut report = Report::new();
    for (key, expected) in read_tensors("transforms/expected.safetensors") {
        report.case(&key, compare(&key, &expected));
    }
    report.finish();
}

fn compare(key: &str, expected: &Stored) -> Result<Outcome, String> {
    let (name, steps) = key.split_once('.').ok_or("is not NAME.STEPS")?;
    let path = reference().join("transforms").join(format!("{name}.png"));
    let picture = read_picture_with(path, Alpha::Drop).map_err(|e| e.to_string())?;
    let channels = match expected.shape.first() {
        Some(1) => Channels::Grey,
        _ => Channels::Rgb,
    };
    let Some(found) = apply(steps, picture.into_channels(channels)) else {
        return Ok(Outcome::NotSupported(format!("the transform {steps}")));
    };
    within("a pixel", largest_difference(&found, &expected.f32()), TOLERANCE)?;
    Ok(Outcome::Ran)
}

/// What the steps make of a picture, or `None` if they are none of the known ones.
fn apply(steps: &str, picture: Picture) -> Option<Vec<f32>> {
    if steps == "flip" {
        return Some(
            picture
                .flip()
                .to_chw()
                .into_iter()
                .map(|x| x / 2.0 + 0.5)
                .collect(),
        );
    }
    let (resize, resolution) = match steps.strip_prefix("resize_exact") {
        Some(side) => (Resize::Square, side),
        None => (
            Resize::ShorterSide,
            steps.strip_prefix("resize")?.strip_suffix("_center_normalize")?,
        ),
    };
    let transform = Transform {
        resize,
        channels: picture.channels(),
        ..Transform::new(resolution.parse().ok()?)
    };
    transform.apply(picture, &mut Generator::new(0)).ok()
}
