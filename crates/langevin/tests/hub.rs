//! A data set that Hugging Face `datasets` wrote, against what `datasets` and Pillow read in it. `hub/make.py` made both.
#![cfg(feature = "parquet")]

use std::path::{Path, PathBuf};

use langevin::data::{self, Alpha, Channels, Dataset, OpenOptions};
use safetensors::SafeTensors;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hub")
}

fn open(alpha: Alpha) -> Box<dyn Dataset> {
    let options = OpenOptions {
        alpha,
        ..OpenOptions::default()
    };
    data::open_with(folder().to_str().unwrap(), &options).unwrap()
}

#[test]
fn pictures_are_those_of_datasets_and_pillow() {
    let bytes = std::fs::read(folder().join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let said: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder().join("expected.json")).unwrap()).unwrap();
    let mut compared = 0;
    for (alpha, key) in [(Alpha::Drop, "drop"), (Alpha::White, "white")] {
        let dataset = open(alpha);
        assert_eq!(dataset.len(), said["names"].as_array().unwrap().len());
        for index in 0..dataset.len() {
            let name = said["names"][index].as_str().unwrap();
            let picture = dataset.get(index).unwrap().picture.into_channels(Channels::Rgb);
            let expected = expected.tensor(&format!("{index}.{key}")).unwrap();
            assert_eq!(
                [picture.height(), picture.width(), 3],
                expected.shape(),
                "{name}, {key}"
            );
            let difference = picture
                .pixels()
                .iter()
                .zip(expected.data())
                .map(|(a, b)| a.abs_diff(*b))
                .max();
            // JPEG leaves the last bits of its inverse transform to the decoder; all else is exact.
            let allowed = if name.ends_with(".jpg") { 2 } else { 0 };
            assert!(
                difference.unwrap() <= allowed,
                "{name}, {key}: off by {difference:?}"
            );
            compared += 1;
        }
    }
    assert_eq!(compared, 2 * 19);
}

#[test]
fn captions_and_classes_are_those_of_datasets() {
    let said: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder().join("expected.json")).unwrap()).unwrap();
    let dataset = open(Alpha::White);
    assert_eq!(serde_json::json!(dataset.class_names().unwrap()), said["classes"]);
    for index in 0..dataset.len() {
        let example = dataset.get(index).unwrap();
        assert_eq!(serde_json::json!(example.caption), said["text"][index]);
        let class = example.class.map_or(-1, |class| class as i64);
        assert_eq!(class, said["label"][index]);
    }
    // `datasets` was told to write seven rows a row group.
    let groups: Vec<_> = dataset
        .groups()
        .unwrap()
        .iter()
        .map(|group| group.pictures.clone())
        .collect();
    assert_eq!(groups, [0..7, 7..14, 14..19]);
}

#[test]
fn the_emoji_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets/emoji");
    let emoji = data::open(folder.to_str().unwrap()).unwrap();
    assert_eq!((emoji.name(), emoji.len()), ("emoji", 1870));
    assert_eq!(emoji.class_names().unwrap().len(), 9);
    let summary = data::DatasetSummary::of(emoji.as_ref());
    assert_eq!(
        (summary.captions, summary.colour, summary.broken.len()),
        (1870, 1870, 0)
    );
    assert_eq!(summary.largest, Some((64, 64)));
}
