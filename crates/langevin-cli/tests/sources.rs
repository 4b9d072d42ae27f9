//! Every kind of data set, as `langevin info` and `langevin train --dry-run` meet it.

mod support;

use std::{fs, io::Write, path::Path};

use langevin::{
    data::{Channels, Picture},
    grid,
};
use support::{Ran, langevin, line};

/// The parquet repository that Hugging Face `datasets` wrote.
fn hub() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../langevin/tests/hub")
}

fn info(folder: &Path, path: &Path, flags: &[&str]) -> Ran {
    let flags = flags.iter().map(AsRef::as_ref);
    langevin(
        folder,
        ["info".as_ref(), path.as_os_str()].into_iter().chain(flags),
    )
}

fn dry_run(folder: &Path, path: &Path, flags: &str) -> Ran {
    let name = path.to_str().unwrap();
    line(folder, &format!("train --dry-run --dataset_name={name} {flags}"))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap();
}

#[test]
fn a_hub_repository_is_described_and_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let ran = info(folder.path(), &hub(), &["--grid", "grid.png"]).ok();
    for part in [
        "parquet files in",
        "split train",
        "pictures  19",
        "24x16, ",
        "drawing (15), photo (3)",
        "captions  18",
    ] {
        assert!(ran.out.contains(part), "{part} is not in {}", ran.out);
    }
    assert!(folder.path().join("grid.png").exists());
    let file = hub().join("data/train-00000-of-00001.parquet");
    assert!(info(folder.path(), &file, &[]).ok().out.contains("parquet file "));
    let config = dry_run(
        folder.path(),
        &hub(),
        "--conditioning class --alpha drop --cache --strict",
    )
    .ok()
    .json();
    assert_eq!(
        [
            &config["split"],
            &config["alpha"],
            &config["cache"],
            &config["strict"]
        ],
        [
            &serde_json::json!("train"),
            &"drop".into(),
            &true.into(),
            &true.into()
        ]
    );
    assert_eq!(config["dataset_config_name"], serde_json::Value::Null);
    dry_run(folder.path(), &hub(), "--split=test").refused(1, &["no split `test`", "there are train"]);
    dry_run(folder.path(), &hub(), "--dataset_config_name=large").refused(1, &["no configuration `large`"]);
    dry_run(folder.path(), &hub(), "--dataset_config_name=default").ok();
    info(folder.path(), &hub(), &["--split", "test"]).refused(1, &["no split `test`"]);
}

#[test]
fn configurations_are_chosen_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let shard = hub().join("data/train-00000-of-00001.parquet");
    for config in ["balanced", "letters"] {
        copy(
            &shard,
            &folder
                .path()
                .join("set")
                .join(config)
                .join("train-00000-of-00001.parquet"),
        );
    }
    let set = Path::new("set");
    dry_run(folder.path(), set, "").refused(1, &["choose one of balanced, letters"]);
    let config = dry_run(folder.path(), set, "--dataset-config-name letters")
        .ok()
        .json();
    assert_eq!(config["dataset_config_name"], "letters");
    let ran = info(folder.path(), set, &["--dataset_config_name", "letters"]).ok();
    assert!(ran.out.contains("configuration letters"), "{}", ran.out);
}

#[test]
fn idx_files_are_described_and_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, shape: &[u8], data: &[u8]| {
        let mut bytes = vec![0, 0, 8, shape.len() as u8];
        bytes.extend(shape.iter().flat_map(|&size| u32::from(size).to_be_bytes()));
        bytes.extend(data);
        let path = folder.path().join("mnist").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    let set = Path::new("mnist");
    write("train-images-idx3-ubyte", &[3, 2, 2], &[7; 12]);
    write("train-labels-idx1-ubyte", &[3], &[0, 1, 1]);
    write("t10k-images-idx3-ubyte", &[1, 2, 2], &[7; 4]);
    let ran = info(folder.path(), set, &[]).ok();
    for part in ["IDX files in mnist", "pictures  3", "2x2, grey", "0 (1), 1 (2)"] {
        assert!(ran.out.contains(part), "{}", ran.out);
    }
    let ran = info(folder.path(), set, &["--split", "test"]).ok();
    assert!(ran.out.contains("pictures  1"), "{}", ran.out);
    dry_run(folder.path(), set, "--channels grey").ok();
    dry_run(folder.path(), &set.join("train-images-idx3-ubyte"), "").ok();
    dry_run(folder.path(), &set.join("train-labels-idx1-ubyte"), "").refused(1, &["train-labels-idx1-ubyte"]);
    dry_run(folder.path(), set, "--split=validation")
        .refused(1, &["no IDX files of the split", "train and test"]);
    write("train-labels-idx1-ubyte", &[2], &[0, 1]);
    dry_run(folder.path(), set, "")
        .refused(1, &["train-images-idx3-ubyte: holds 3 pictures, but the labels"]);
}

/// A zip archive with a picture of each of two classes, and one that is none.
fn archive(path: &Path) {
    let mut writer = zip::ZipWriter::new(fs::File::create(path).unwrap());
    let picture = tempfile::NamedTempFile::with_suffix(".png").unwrap();
    grid::write_png(
        picture.path(),
        &Picture::new(2, 2, Channels::Grey, vec![9; 4]).unwrap(),
        &[],
    )
    .unwrap();
    let png = fs::read(picture.path()).unwrap();
    for (name, bytes) in [
        ("set/cat/1.png", &png[..]),
        ("set/dog/2.png", &png[..]),
        ("set/dog/3.png", b"text"),
    ] {
        writer
            .start_file(name, zip::write::SimpleFileOptions::default())
            .unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn zip_archives_are_described_and_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let set = Path::new("set.zip");
    archive(&folder.path().join(set));
    let ran = info(folder.path(), set, &[]).refused(1, &["a picture is broken"]);
    for part in [
        "zip archive of pictures set.zip",
        "pictures  3",
        "cat (1), dog (1)",
        "set.zip/set/dog/3.png: is not a picture",
    ] {
        assert!(ran.out.contains(part), "{}", ran.out);
    }
    dry_run(folder.path(), set, "--conditioning=class").ok();
    assert_eq!(support::names(folder.path()), ["set.zip"], "nothing is unpacked");
    let whole = fs::read(folder.path().join(set)).unwrap();
    fs::write(folder.path().join(set), &whole[..100]).unwrap();
    dry_run(folder.path(), set, "").refused(1, &["set.zip: cannot be read as a zip archive"]);
}

#[test]
fn what_is_no_data_set_is_told_what_would_be() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("notes.txt"), "text").unwrap();
    dry_run(folder.path(), Path::new("notes.txt"), "")
        .refused(1, &["notes.txt: is a file, but no data set", "zip"]);
    dry_run(folder.path(), Path::new("nowhere"), "").refused(1, &["nowhere", "looked for in"]);
    fs::create_dir(folder.path().join("empty")).unwrap();
    dry_run(folder.path(), Path::new("empty"), "").refused(1, &["empty: holds no picture", "png, jpg"]);
    fs::write(folder.path().join("broken.parquet"), "PAR1 broken").unwrap();
    dry_run(folder.path(), Path::new("broken.parquet"), "")
        .refused(1, &["broken.parquet: is a damaged parquet"]);
    dry_run(folder.path(), Path::new("digits"), "--split=test").refused(1, &["digits has no splits"]);
    dry_run(folder.path(), Path::new("digits"), "--alpha=grey").refused(2, &["white, black, drop"]);
}

/// A model that trains in a moment.
fn small_model(folder: &Path) {
    fs::write(
        folder.join("small.json"),
        r#"{"_class_name": "UNet2DModel", "in_channels": 3, "out_channels": 3, "block_out_channels": [8], "norm_num_groups": 4,
            "layers_per_block": 1, "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}"#,
    )
    .unwrap();
}

#[test]
fn broken_pictures_are_skipped_named_and_counted_or_end_a_strict_run() {
    let folder = tempfile::tempdir().unwrap();
    small_model(folder.path());
    archive(&folder.path().join("set.zip"));
    let train = "train --dataset_name=set.zip --model=small.json --resolution=8 --num_epochs=2 --lr_warmup_steps=1 \
                 --ddpm_num_inference_steps=2 --eval_batch_size=1 --save_images_epochs=0 --cache";
    let ran = line(folder.path(), &format!("{train} --output_dir=run")).ok();
    for part in [
        "skipping picture 2 of set: set.zip/set/dog/3.png: is not a picture",
        "1 picture could not be read and was left out",
        "keeping 3 pictures in memory, resized: 0.6 kB",
    ] {
        assert_eq!(ran.err.matches(part).count(), 1, "{part}: {}", ran.err);
    }
    line(folder.path(), &format!("{train} --output_dir=strict --strict"))
        .refused(1, &["set.zip/set/dog/3.png: is not a picture"]);
}

#[test]
fn a_class_conditional_run_on_a_hub_repository_can_be_asked_for_a_class() {
    let folder = tempfile::tempdir().unwrap();
    small_model(folder.path());
    let ran = line(
        folder.path(),
        &format!(
            "train --dataset_name={} --conditioning=class --model=small.json --resolution=8 --max_train_steps=3 --output_dir=run \
             --lr_warmup_steps=1 --ddpm_num_inference_steps=2 --eval_batch_size=2 --save_images_epochs=0",
            hub().display()
        ),
    )
    .ok();
    assert!(ran.err.contains("19 pictures of 2 classes"), "{}", ran.err);
    line(
        folder.path(),
        "sample run --class photo --count 1 --steps 2 --output photo.png",
    )
    .ok();
    assert!(folder.path().join("photo.png").exists());
}
