use super::{
    messages::{Experiment, HParamInfo, HParams, SessionStart, Summary, Value},
    *,
};
use crate::{data::Channels, training::trackers::scalars::tests::report};

/// What `scripts/tracker_fixtures.py` writes with TensorBoard.
fn events() -> Vec<Event> {
    let summary = |wall_time, step, values| Event {
        wall_time,
        step,
        summary: Some(Summary { values }),
        ..Event::default()
    };
    let config =
        serde_json::json!({"learning_rate": 0.001, "model": "digits", "use_ema": true, "unset": null});
    let [experiment, _] = messages::hyper_parameters(&config, 3.5);
    // The fixture has one value: the order of a map's is nobody's to promise.
    let [_, start] = messages::hyper_parameters(&serde_json::json!({"learning_rate": 0.001}), 3.5);
    let png: Vec<u8> = (0..768).map(|i| i as u8).collect();
    let image = Image {
        height: 16,
        width: 24,
        colorspace: 3,
        encoded_image_string: png,
    };
    vec![
        Event {
            wall_time: 3.5,
            file_version: Some(FILE_VERSION.into()),
            ..Event::default()
        },
        summary(3.5, 0, vec![experiment]),
        summary(3.5, 0, vec![start]),
        summary(
            4.0,
            7,
            vec![
                SummaryValue::scalar("loss", 0.5),
                SummaryValue::scalar("lr", 0.001),
            ],
        ),
        summary(4.25, 300, vec![SummaryValue::image("samples", image)]),
        summary(4.5, 0, vec![messages::session_end(true, 4.5)]),
    ]
}

#[test]
fn the_bytes_are_tensorboards_own() {
    let written: Vec<u8> = events()
        .iter()
        .flat_map(|event| framing::record(&event.encode_to_vec()))
        .collect();
    let expected = include_bytes!("../../../../tests/reference/trackers/events.tfevents");
    assert!(
        written == expected,
        "{} bytes differ from TensorBoard's {}, first at {:?}",
        written.len(),
        expected.len(),
        written.iter().zip(expected).position(|(a, b)| a != b)
    );
}

#[test]
fn hyper_parameters_keep_their_types() {
    let config = serde_json::json!({"a": 1, "b": "x", "c": false, "d": null, "e": ["x", "y"]});
    let [experiment, start] = messages::hyper_parameters(&config, 0.0);
    let content = |value: SummaryValue| {
        let plugin = value.metadata.unwrap().plugin_data.unwrap();
        HParams::decode(plugin.content.as_slice()).unwrap()
    };
    let infos = content(experiment)
        .experiment
        .map(|Experiment { hparam_infos, .. }| hparam_infos);
    let types: Vec<(String, i32)> = infos
        .unwrap()
        .into_iter()
        .map(|HParamInfo { name, data_type }| (name, data_type))
        .collect();
    let expected = [("a", 3), ("b", 1), ("c", 2), ("e", 1)].map(|(name, kind)| (name.to_string(), kind));
    assert_eq!(types, expected);
    let SessionStart { hparams, .. } = content(start).session_start_info.unwrap();
    let list = Value {
        string: Some(r#"["x","y"]"#.into()),
        ..Value::default()
    };
    assert_eq!(hparams.get("e"), Some(&list));
}

#[test]
fn two_runs_of_a_moment_have_two_files() {
    let folder = tempfile::tempdir().unwrap();
    let config = serde_json::json!({});
    let mut first = TensorBoard::create(folder.path(), &config, None).unwrap();
    let second = TensorBoard::create(folder.path(), &config, None).unwrap();
    assert_ne!(first.path(), second.path());
    let before = fs::metadata(first.path()).unwrap().len();
    first.update(&report(1)).unwrap();
    let picture = Picture::new(1, 1, Channels::Grey, vec![9]).unwrap();
    first.picture("samples", 1, &picture).unwrap();
    first.finish(true).unwrap();
    assert!(fs::metadata(first.path()).unwrap().len() > before + 100);
}

/// As `SummaryWriter(purge_step=7)` begins its file, by TensorBoard's own writer (`scripts/tracker_fixtures.py`).
#[test]
fn a_run_that_goes_on_says_from_which_step() {
    let event = |step, file_version: Option<&str>, session_log| Event {
        wall_time: 3.5,
        step,
        file_version: file_version.map(String::from),
        session_log,
        ..Event::default()
    };
    let start = SessionLog {
        status: SESSION_START,
    };
    let written: Vec<u8> = [
        event(0, Some(FILE_VERSION), None),
        event(7, Some(FILE_VERSION), None),
        event(7, None, Some(start)),
    ]
    .iter()
    .flat_map(|event| framing::record(&event.encode_to_vec()))
    .collect();
    assert!(written == include_bytes!("../../../../tests/reference/trackers/resumed.tfevents"));

    let folder = tempfile::tempdir().unwrap();
    let config = serde_json::json!({});
    let resumed = TensorBoard::create(folder.path(), &config, Some(7)).unwrap();
    let bytes = fs::read(resumed.path()).unwrap();
    // A length of eight bytes, a sum of four, the event, a sum of four.
    let mut events = Vec::new();
    let mut rest = &bytes[..];
    while rest.len() > 12 {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        events.push(Event::decode(&rest[12..12 + length]).unwrap());
        rest = &rest[16 + length..];
    }
    assert_eq!((events[1].step, events[2].step), (7, 7));
    assert_eq!(events[2].session_log, Some(SessionLog { status: 1 }));
}
