use super::{
    messages::{Item, Timestamp},
    *,
};
use crate::{data::Channels, training::trackers::scalars::tests::report};

fn item(key: &str, value_json: &str) -> Item {
    Item {
        key: key.into(),
        value_json: value_json.into(),
    }
}

/// What `scripts/tracker_fixtures.py` writes with the wandb package.
fn contents() -> Vec<Content> {
    let history = |step, key: &str, value: &str| {
        Content::History(HistoryRecord {
            item: vec![item(key, value)],
            step: Some(HistoryStep { num: step }),
        })
    };
    let file = |path: &str, file_type| {
        let path = path.to_string();
        Content::Files(FilesRecord {
            files: vec![FilesItem { path, file_type }],
        })
    };
    vec![
        Content::Run(RunRecord {
            run_id: "abcd1234".into(),
            entity: "me".into(),
            project: "langevin".into(),
            config: Some(Items {
                update: vec![item("learning_rate", "0.001"), item("model", "\"digits\"")],
            }),
            display_name: "digits-1".into(),
            starting_step: 0,
            resumed: false,
            start_time: Some(Timestamp {
                seconds: 3,
                nanos: 500_000_000,
            }),
        }),
        history(7, "loss", "0.5"),
        Content::Summary(Items {
            update: vec![item("loss", "0.5")],
        }),
        file("media/images/a.png", MEDIA_FILE),
        file("wandb-metadata.json", OWN_FILE),
        history(8, "long", &"1".repeat(70_000)),
        history(8, "long", &"1".repeat(27_852)),
        Content::Exit(RunExitRecord {
            exit_code: 1,
            runtime: 60,
        }),
    ]
}

#[test]
fn the_bytes_are_the_packages_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.wandb");
    let mut log = Log::create(path.clone(), "abcd1234".into()).unwrap();
    for content in contents() {
        log.write(content).unwrap();
    }
    let written = fs::read(path).unwrap();
    let expected = include_bytes!("../../../../tests/reference/trackers/run.wandb");
    assert!(
        written == expected,
        "{} bytes differ from the package's {}, first at {:?}",
        written.len(),
        expected.len(),
        written.iter().zip(expected).position(|(a, b)| a != b)
    );
}

#[test]
fn a_run_has_the_packages_files() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("digits-1");
    let settings = WandbSettings::default();
    let mut wandb = Wandb::create(
        &settings,
        &run,
        &json!({"learning_rate": 0.001, "model": "digits"}),
        None,
    )
    .unwrap();
    wandb.update(&report(1)).unwrap();
    let picture = Picture::new(2, 3, Channels::Grey, vec![9; 6]).unwrap();
    wandb.picture("samples", 1, &picture).unwrap();
    wandb.finish(true).unwrap();

    let inside = wandb
        .folder()
        .strip_prefix(run.join("wandb"))
        .unwrap()
        .to_str()
        .unwrap();
    let id = inside.rsplit('-').next().unwrap();
    assert!(inside.starts_with("offline-run-2") && id.len() == 8, "{inside}");
    assert!(wandb.folder().join(format!("run-{id}.wandb")).exists());
    let files = wandb.folder().join("files");
    let config = fs::read_to_string(files.join("config.yaml")).unwrap();
    assert!(config.contains("\nmodel:\n  value: \"digits\"\n"), "{config}");
    let summary: Json = crate::files::read_json(files.join("wandb-summary.json")).unwrap();
    assert_eq!((&summary["loss"], &summary["_step"]), (&json!(0.5), &json!(1)));
    let image = files.join(summary["samples"]["path"].as_str().unwrap());
    assert_eq!(crate::data::read_picture(image).unwrap(), picture);
}

#[test]
fn digests_are_sha_256() {
    // printf abc | sha256sum
    assert_eq!(
        sha256(b"abc"),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

#[test]
fn a_run_that_goes_on_is_the_same_run() {
    let folder = tempfile::tempdir().unwrap();
    let create =
        |goes_on_at| Wandb::create(&WandbSettings::default(), folder.path(), &json!({}), goes_on_at).unwrap();
    // Nothing was there before.
    let first = create(Some(5));
    assert!(
        !first.resumed && first.sync_line().starts_with("wandb sync /"),
        "{}",
        first.sync_line()
    );
    // Names say the second at which a run began.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let second = create(Some(7));
    assert_eq!(first.log.id, second.log.id);
    assert!(
        second.sync_line().starts_with("wandb sync --append "),
        "{}",
        second.sync_line()
    );
    let bytes = fs::read(second.folder().join(format!("run-{}.wandb", second.log.id))).unwrap();
    // Field 14, a number: 7; field 18, a truth value: true.
    for field in [&[0x70, 7][..], &[0x90, 0x01, 1]] {
        assert!(
            bytes.windows(field.len()).any(|window| window == field),
            "{field:?}"
        );
    }
    assert_ne!(create(None).log.id, first.log.id);
}
