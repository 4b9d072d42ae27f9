//! `langevin evaluate`.

mod support;

use langevin::data::read_picture;
use support::{line, names, small_model};

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
        plain.out.contains("40 samples against 300 pictures"),
        "{}",
        plain.out
    );
    assert!(
        plain.out.contains("`pixels+gradients` (not FID)"),
        "{}",
        plain.out
    );
    assert!(plain.err.contains("draw more than 192"), "{}", plain.err);
    // Ten samples, each with six neighbours.
    let picture = read_picture(folder.path().join("near.png")).unwrap();
    assert_eq!((picture.width(), picture.height()), (7 * 66 + 2, 10 * 66 + 2));

    let classes = line(folder.path(), &format!("evaluate classes {args}")).ok();
    assert!(
        classes.out.contains("of 40 samples show the class asked for"),
        "{}",
        classes.out
    );
    assert_eq!(classes.out.lines().count(), 10 + 1 + 1 + 1, "{}", classes.out);
    line(folder.path(), "evaluate plain --neighbours near.jpg")
        .refused(1, &["--neighbours near.jpg", ".png"]);
    assert_eq!(
        names(folder.path()),
        ["classes", "near.png", "plain", "small.json"]
    );
}
