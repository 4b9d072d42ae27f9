//! What a folder of pictures gives, in the cases that users' folders come in.

use std::fs;

use super::*;
use crate::data::paths::sort_key;

/// A folder with one-pixel pictures at the paths that end in `.png`, and texts elsewhere.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if text.is_empty() {
            image::GrayImage::new(1, 1).save(path).unwrap();
        } else {
            fs::write(path, text).unwrap();
        }
    }
    root
}

fn pictures(paths: &[&str]) -> tempfile::TempDir {
    folder(&paths.iter().map(|&p| (p, "")).collect::<Vec<_>>())
}

/// Each picture's path below the root, with its class's name.
fn found(root: &tempfile::TempDir) -> Vec<(String, Option<String>)> {
    let data = ImageFolder::open(root).unwrap();
    (0..data.len())
        .map(|i| {
            let class = data
                .get(i)
                .unwrap()
                .class
                .map(|c| data.class_names().unwrap()[c].clone());
            (sort_key(data.path(i).unwrap().strip_prefix(root).unwrap()), class)
        })
        .collect()
}

fn paths(root: &tempfile::TempDir) -> Vec<String> {
    found(root).into_iter().map(|(path, _)| path).collect()
}

fn error(root: &tempfile::TempDir) -> String {
    ImageFolder::open(root)
        .err()
        .expect("should be refused")
        .to_string()
}

#[test]
fn sub_folders_are_classes_if_all_pictures_lie_equally_deep() {
    let root = pictures(&["dog/b.PNG", "cat/a.png", "cat/c.bmp"]);
    let expected = [("cat/a.png", "cat"), ("cat/c.bmp", "cat"), ("dog/b.PNG", "dog")];
    assert_eq!(
        found(&root),
        expected.map(|(p, c)| (p.to_string(), Some(c.to_string())))
    );
    assert_eq!(
        ImageFolder::open(&root).unwrap().class_names().unwrap(),
        ["cat", "dog"]
    );
    for unlabelled in [
        &["dog/b.png", "a.png"][..],
        &["dog/a.png", "dog/b.png"],
        &["a/x/1.png", "b/2.png"],
    ] {
        assert_eq!(
            ImageFolder::open(pictures(unlabelled)).unwrap().class_names(),
            None,
            "{unlabelled:?}"
        );
    }
}

#[test]
fn the_order_is_that_of_paths_with_slashes() {
    assert_eq!(
        paths(&pictures(&["a/1.png", "a-b/2.png", "a.png"])),
        ["a-b/2.png", "a.png", "a/1.png"]
    );
}

#[test]
fn only_the_training_split_is_read() {
    let root = pictures(&[
        "train/cat/1.png",
        "train/dog/2.png",
        "test/cat/3.png",
        "valid/owl/4.png",
    ]);
    assert_eq!(paths(&root), ["train/cat/1.png", "train/dog/2.png"]);
    // As in datasets, classes are those of all splits together.
    assert_eq!(
        ImageFolder::open(&root).unwrap().class_names().unwrap(),
        ["cat", "dog", "owl"]
    );
    let root = pictures(&["data/my-train-set/1.png", "data/test_1/3.png"]);
    assert_eq!(found(&root), [("data/my-train-set/1.png".to_string(), None)]);
    let root = pictures(&["test/1.png", "val/2.png"]);
    let message = error(&root);
    assert!(
        message.contains("no pictures of the split `train`") && message.contains("called test, validation"),
        "{message}"
    );
    assert_eq!(paths(&pictures(&["trainer/1.png", "latest/2.png"])).len(), 2);
}

#[test]
fn another_split_is_read_where_it_is_asked_for() {
    let root = pictures(&[
        "train/cat/1.png",
        "train/dog/2.png",
        "dev/cat/3.png",
        "test/dog/4.png",
    ]);
    let open = |split: &str| {
        let options = OpenOptions {
            split: split.into(),
            ..OpenOptions::default()
        };
        ImageFolder::open_folder(&root, &options)
    };
    for split in ["validation", "dev"] {
        let data = open(split).unwrap();
        assert_eq!(data.len(), 1);
        assert!(data.path(0).unwrap().ends_with("dev/cat/3.png"));
        assert_eq!(data.class_names().unwrap(), ["cat", "dog"]);
    }
    let error = open("extra").err().unwrap().to_string();
    assert!(error.contains("called test, train, validation"), "{error}");
    let plain = pictures(&["1.png"]);
    let options = OpenOptions {
        split: "test".into(),
        ..OpenOptions::default()
    };
    let error = ImageFolder::open_folder(&plain, &options)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("all is `train`"), "{error}");
}

#[test]
fn a_split_s_word_among_classes_is_a_class() {
    let root = pictures(&["apple/1.png", "bicycle/2.png", "train/3.png", "rocket/4.png"]);
    let data = ImageFolder::open(&root).unwrap();
    assert_eq!(data.len(), 4);
    assert_eq!(
        data.class_names().unwrap(),
        ["apple", "bicycle", "rocket", "train"]
    );
    // Within a split too; and a folder of other things beside splits makes no classes of them.
    let root = pictures(&[
        "train/bus/1.png",
        "train/car/2.png",
        "train/train/3.png",
        "test/bus/4.png",
    ]);
    assert_eq!(paths(&root).len(), 3);
    for others in [
        &["extra/3.png"][..],
        &["test/2.png", "extra/3.png", "masks/4.png"],
    ] {
        assert_eq!(
            paths(&pictures(&[&["train/1.png"], others].concat())),
            ["train/1.png"]
        );
    }
}

#[test]
fn captions_lie_beside_pictures_as_trainers_of_adapters_have_them() {
    let root = folder(&[
        ("a.png", ""),
        ("a.txt", " a cat,\nsitting \n"),
        ("b.png", ""),
        ("b.txt", "\n"),
        ("c.png", ""),
    ]);
    let captions = |root: &tempfile::TempDir| -> Vec<Option<String>> {
        let data = ImageFolder::open(root).unwrap();
        (0..data.len())
            .map(|index| data.get(index).unwrap().caption)
            .collect()
    };
    assert_eq!(captions(&root), [Some("a cat,\nsitting".into()), None, None]);
    fs::write(
        root.path().join("metadata.csv"),
        "file_name,prompt\na.png,x\nc.png,\n",
    )
    .unwrap();
    fs::write(root.path().join("c.txt"), "z").unwrap();
    assert_eq!(captions(&root), [Some("x".into()), Some("z".into())]);
}

#[test]
fn json_beside_pictures_is_metadata_if_it_is_of_them() {
    let root = folder(&[
        ("a/1.png", ""),
        ("b/2.png", ""),
        ("metadata.json", r#"{"version": 3}"#),
    ]);
    assert_eq!(
        ImageFolder::open(&root).unwrap().class_names().unwrap(),
        ["a", "b"]
    );
    fs::write(
        root.path().join("metadata.json"),
        r#"[{"file_name": "a/1.png", "caption": "x"}]"#,
    )
    .unwrap();
    assert_eq!(
        ImageFolder::open(&root)
            .unwrap()
            .get(0)
            .unwrap()
            .caption
            .as_deref(),
        Some("x")
    );
    fs::write(root.path().join("metadata.jsonl"), r#"{"file_name": "b/2.png"}"#).unwrap();
    assert_eq!(paths(&root), ["b/2.png"]);
}

#[test]
fn a_training_run_among_pictures_is_no_data() {
    let root = folder(&[
        ("cat/1.png", ""),
        ("dog/2.png", ""),
        ("dog/training.json", "{}"),
        ("runs/pictures-1/loss.png", ""),
        ("runs/pictures-1/training.json", "{}"),
        ("runs/pictures-1/metrics.jsonl", "{}"),
        ("runs/pictures-1/samples/step-1.png", ""),
    ]);
    assert_eq!(paths(&root), ["cat/1.png", "dog/2.png"]);
    assert_eq!(
        ImageFolder::open(&root).unwrap().class_names().unwrap(),
        ["cat", "dog"]
    );
}

#[test]
fn hidden_files_and_other_files_are_passed_over() {
    let root = folder(&[
        ("a.png", ""),
        (".b.png", ""),
        (".c/d.png", ""),
        ("__x/e.png", ""),
        ("README.md", "x"),
    ]);
    assert_eq!(paths(&root), ["a.png"]);
}

#[test]
fn metadata_gives_captions_and_classes_and_decides_what_is_read() {
    let lines = "{\"file_name\": \"z.png\", \"text\": \"a z\", \"label\": 1}\n{\"file_name\": \"s/a.png\", \"label\": 0}\n";
    let root = folder(&[
        ("metadata.jsonl", lines),
        ("labels.json", "[\"first\", \"second\", \"third\"]"),
        ("z.png", ""),
        ("s/a.png", ""),
        ("unlisted.png", ""),
    ]);
    let data = ImageFolder::open(&root).unwrap();
    assert_eq!(data.class_names().unwrap(), ["first", "second", "third"]);
    let example = data.get(0).unwrap();
    assert_eq!(
        (example.caption.as_deref(), example.class),
        (Some("a z"), Some(1))
    );
    assert_eq!(paths(&root), ["z.png", "s/a.png"]);
}

#[test]
fn metadata_of_other_splits_is_left_out() {
    let root = folder(&[
        ("train/metadata.csv", "file_name,text\n1.png,one\n"),
        ("train/1.png", ""),
        ("test/metadata.csv", "file_name,text\n2.png,two\n"),
        ("test/2.png", ""),
    ]);
    assert_eq!(paths(&root), ["train/1.png"]);
    let root = folder(&[
        (
            "metadata.csv",
            "file_name,text\ntrain/1.png,one\ntest/2.png,two\n",
        ),
        ("train/1.png", ""),
        ("test/2.png", ""),
    ]);
    assert_eq!(paths(&root), ["train/1.png"]);
}

#[test]
fn broken_metadata_names_file_and_line() {
    let root = folder(&[
        ("metadata.jsonl", "{\"file_name\": \"a.png\"}\n{\"file_name\": \n"),
        ("a.png", ""),
    ]);
    let message = error(&root);
    assert!(
        message.contains("metadata.jsonl: line 2 is not a JSON object"),
        "{message}"
    );
    let root = folder(&[("metadata.csv", "file_name\na.png\nb.png\n"), ("a.png", "")]);
    assert!(error(&root).contains("metadata.csv: line 3 names b.png, which is not there"));
    let root = folder(&[
        ("metadata.csv", "file_name\n"),
        ("metadata.jsonl", "\n"),
        ("a.png", ""),
    ]);
    assert!(error(&root).contains("keep one"));
    let root = folder(&[("metadata.csv", "file_name\n"), ("a.png", "")]);
    assert!(error(&root).contains("no picture in its metadata"));
    let root = folder(&[("metadata.parquet", "x"), ("a.png", "")]);
    assert!(error(&root).contains("metadata.parquet: is metadata as parquet"));
}

#[test]
fn an_empty_folder_says_what_was_looked_for() {
    let message = error(&folder(&[("notes.txt", "x")]));
    assert!(
        message.contains("holds no picture (looked for png, jpg"),
        "{message}"
    );
}

#[test]
fn broken_pictures_are_found_only_when_read() {
    let root = folder(&[("a.png", "this is text"), ("b.png", "")]);
    let data = ImageFolder::open(&root).unwrap();
    assert!(
        data.get(0)
            .unwrap_err()
            .to_string()
            .contains("a.png: is not a picture")
    );
    assert!(data.get(1).is_ok());
    assert!(data.get(2).is_err());
}

#[cfg(unix)]
#[test]
fn links_are_followed_but_not_in_circles() {
    let root = pictures(&["a/1.png", "b/2.png"]);
    std::os::unix::fs::symlink("..", root.path().join("a/up")).unwrap();
    std::os::unix::fs::symlink("gone.png", root.path().join("a/lost.png")).unwrap();
    let data = ImageFolder::open(&root).unwrap();
    assert_eq!(data.len(), 3);
    assert!(data.get(1).unwrap_err().to_string().contains("lost.png"));
}

#[test]
fn metadata_names_nothing_outside_of_its_folder() {
    let private = pictures(&["private.png"]);
    let absolute = private.path().join("private.png").display().to_string();
    for name in [
        "../private.png",
        "a/../../private.png",
        "..\\private.png",
        "C:private.png",
        &absolute,
    ] {
        let root = pictures(&["private.png", "set/a/1.png"]);
        let set = root.path().join("set");
        for (file, text) in [
            ("metadata.csv", format!("file_name\na/1.png\n{name}\n")),
            (
                "metadata.jsonl",
                format!("\n{}\n", serde_json::json!({ "file_name": name })),
            ),
        ] {
            fs::write(set.join(file), text).unwrap();
            let message = ImageFolder::open(&set).err().unwrap().to_string();
            fs::remove_file(set.join(file)).unwrap();
            assert!(
                message.contains(&format!("names {name}, which is not there: a name leads to")),
                "{message}"
            );
        }
        let column = format!("file_name,edges_file_name\na/1.png,{name}\n");
        fs::write(set.join("metadata.csv"), column).unwrap();
        let options = OpenOptions {
            conditioning_column: Some("edges".into()),
            ..OpenOptions::default()
        };
        let message = ImageFolder::open_folder(&set, &options)
            .err()
            .unwrap()
            .to_string();
        assert!(message.contains("and nowhere else"), "{message}");
    }
    // As people write them.
    let root = folder(&[
        ("metadata.csv", "file_name\n./a/1.png\na\\2.png\n"),
        ("a/1.png", ""),
        ("a/2.png", ""),
    ]);
    assert_eq!(paths(&root), ["a/1.png", "a/2.png"]);
}

#[test]
fn captions_are_read_from_the_column_that_is_asked_for() {
    let pictures = [("1.png", ""), ("2.png", ""), ("1.txt", "beside")];
    let tables = [
        ("metadata.csv", "file_name,text,blip\n1.png,a,x\n2.png,b,\n"),
        (
            "metadata.jsonl",
            "{\"file_name\": \"1.png\", \"text\": \"a\", \"blip\": \"x\"}\n{\"file_name\": \"2.png\", \"text\": \"b\", \"blip\": null}\n",
        ),
    ];
    let open = |root: &tempfile::TempDir, column: Option<&str>| {
        let options = OpenOptions {
            caption_column: column.map(String::from),
            ..OpenOptions::default()
        };
        ImageFolder::open_folder(root.path(), &options)
    };
    let captions = |folder: &ImageFolder| -> Vec<Option<String>> {
        folder
            .entries
            .iter()
            .map(|entry| folder.caption(entry).unwrap())
            .collect()
    };
    for table in tables {
        let root = folder(&[&pictures[..], &[table]].concat());
        let text = |text: &str| Some(text.to_string());
        assert_eq!(captions(&open(&root, None).unwrap()), [text("a"), text("b")]);
        // What it lacks is not made up for by a file beside the picture.
        assert_eq!(captions(&open(&root, Some("blip")).unwrap()), [text("x"), None]);
        let message = open(&root, Some("vit")).err().unwrap().to_string();
        assert!(message.contains("`vit`"), "{message}");
    }
    let message = open(&folder(&pictures), Some("blip")).err().unwrap().to_string();
    assert!(
        message.contains("has no columns") && message.contains("`blip`"),
        "{message}"
    );
}

#[cfg(unix)]
#[test]
fn links_that_lead_out_are_not_followed() {
    use std::os::unix::fs::symlink;
    let private = pictures(&["private.png", "more/private.png"]);
    fs::write(private.path().join("names.json"), r#"["other"]"#).unwrap();
    let root = pictures(&["a/1.png", "b/2.png"]);
    symlink(private.path().join("private.png"), root.path().join("a/out.png")).unwrap();
    symlink(private.path().join("more"), root.path().join("c")).unwrap();
    symlink(private.path(), root.path().join("b/up")).unwrap();
    symlink("../b/2.png", root.path().join("a/in.png")).unwrap();
    assert_eq!(paths(&root), ["a/1.png", "a/in.png", "b/2.png"]);
    fs::write(root.path().join("metadata.csv"), "file_name\na/out.png\n").unwrap();
    assert!(error(&root).contains("line 2 names a/out.png, which is not there"));
    fs::write(root.path().join("metadata.csv"), "file_name,label\na/1.png,0\n").unwrap();
    symlink(private.path().join("names.json"), root.path().join("labels.json")).unwrap();
    assert_eq!(ImageFolder::open(&root).unwrap().class_names().unwrap(), ["0"]);
}

#[cfg(unix)]
#[test]
fn a_deep_tree_is_looked_through() {
    let root = pictures(&["a.png"]);
    let deep: String = std::iter::repeat_n("d/", 1500).collect();
    fs::create_dir_all(root.path().join(&deep)).unwrap();
    assert_eq!(paths(&root), ["a.png"]);
}

#[cfg(unix)]
#[test]
fn a_folder_that_may_not_be_read_is_an_error_that_names_it() {
    use std::os::unix::fs::PermissionsExt;
    let root = pictures(&["a/1.png", "b/2.png"]);
    let locked = root.path().join("b");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    // An administrator may read everything.
    if fs::read_dir(&locked).is_err() {
        assert!(error(&root).starts_with(&format!("cannot read {}", locked.display())));
    }
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn what_is_not_used_is_said() {
    let root = folder(&[
        (
            "train/metadata.jsonl",
            "{\"file_name\": \"1.png\", \"text\": \"a\", \"width\": 3, \"caption\": \"b\"}\n",
        ),
        ("train/1.png", ""),
        ("train/2.png", ""),
        ("test/3.png", ""),
        ("train/x.avif", "x"),
        ("train/notes.txt", "x"),
        ("README.md", "# pictures"),
    ]);
    let said = ImageFolder::open(&root).unwrap().left_out().join("; ");
    for part in [
        "2 pictures are in the folder and not in the metadata",
        "not used: `caption`, `width`",
        "2 files are passed over: 1 .avif, 1 .txt",
        "convert them to PNG",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let splits = pictures(&["train/a/1.png", "train/b/2.png", "test/a/3.png", "extra/a/4.png"]);
    let said = ImageFolder::open(&splits).unwrap().left_out().join("; ");
    assert!(
        said.contains("`test` with 1 picture") && said.contains("1 picture in no split's folder"),
        "{said}"
    );
    let uneven = pictures(&["a/1.png", "b/c/2.png"]);
    let said = ImageFolder::open(&uneven).unwrap().left_out().join("; ");
    assert!(said.contains("at different depths"), "{said}");
    let part = pictures(&["a/1.png", "a/2.png", "test/b.png"]);
    let data = ImageFolder::open(&part).unwrap();
    assert!(
        data.len() == 3 && data.left_out()[0].contains("called test are part of it"),
        "{:?}",
        data.left_out()
    );
    // Endings in capitals, and the others of the same formats.
    assert_eq!(pictures_of(&["a.JFIF", "c.PNG"]), 2);
    let message = error(&folder(&[
        ("data.tar", "x"),
        ("b.arrow", "x"),
        ("x-images-idx3-ubyte", "x"),
    ]));
    assert!(message.contains("tar"), "{message}");
    let message = error(&folder(&[
        ("data.zip", "x"),
        ("b.arrow", "x"),
        ("train-images", "x"),
    ]));
    for part in ["1 .zip", "1 .arrow", "1 without an ending", "named itself"] {
        assert!(message.contains(part), "{message}");
    }
}

fn pictures_of(paths: &[&str]) -> usize {
    ImageFolder::open(pictures(paths)).unwrap().len()
}

#[cfg(feature = "parquet")]
#[test]
fn a_card_says_which_pictures_a_split_has() {
    let card = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: one/**\n  - split: rest\n    \
                path: [two/*.png]\n- config_name: all\n  data_dir: two\n---\n# Pictures\n";
    let root = folder(&[
        ("README.md", card),
        ("one/cat/1.png", ""),
        ("one/dog/2.png", ""),
        ("two/metadata.csv", "file_name,text\n3.png,three\n"),
        ("two/3.png", ""),
    ]);
    let open = |config: Option<&str>, split: &str| {
        let options = OpenOptions {
            config: config.map(String::from),
            split: split.into(),
            ..OpenOptions::default()
        };
        crate::data::open_with(root.path().to_str().unwrap(), &options)
    };
    let train = open(None, "train").unwrap();
    assert_eq!((train.len(), train.class_names().unwrap().len()), (2, 2));
    assert!(
        train.left_out()[0].contains("1 left out"),
        "{:?}",
        train.left_out()
    );
    assert_eq!(open(None, "rest").unwrap().len(), 1);
    assert_eq!(open(Some("all"), "train").unwrap().len(), 1);
    let refused = |config, split| open(config, split).err().unwrap().to_string();
    assert!(refused(None, "test").contains("no split `test`; there are train, rest"));
    assert!(refused(Some("other"), "train").contains("no configuration `other`"));
}
