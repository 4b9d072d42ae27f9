//! The messages of an event file: what of TensorBoard's `event.proto`, `summary.proto` and the hparams plugin's
//! `plugin_data.proto` and `api.proto` is written here, with their field numbers.

use std::collections::BTreeMap;

use prost::Message;
use serde_json::Value as Json;

/// `tensorboard.Event`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    pub wall_time: f64,
    #[prost(int64, tag = "2")]
    pub step: i64,
    #[prost(string, optional, tag = "3")]
    pub file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    pub summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    pub session_log: Option<SessionLog>,
}

/// `tensorboard.SessionLog`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionLog {
    /// `tensorboard.SessionLog.SessionStatus`: 1 is the start of a session.
    #[prost(int32, tag = "1")]
    pub status: i32,
}

/// `tensorboard.Summary`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Summary {
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<SummaryValue>,
}

/// `tensorboard.Summary.Value`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SummaryValue {
    #[prost(string, tag = "1")]
    pub tag: String,
    #[prost(float, optional, tag = "2")]
    pub simple_value: Option<f32>,
    #[prost(message, optional, tag = "4")]
    pub image: Option<Image>,
    #[prost(message, optional, tag = "6")]
    pub audio: Option<Audio>,
    #[prost(message, optional, tag = "9")]
    pub metadata: Option<SummaryMetadata>,
}

/// `tensorboard.Summary.Image`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Image {
    #[prost(int32, tag = "1")]
    pub height: i32,
    #[prost(int32, tag = "2")]
    pub width: i32,
    /// Channels: 1 or 3.
    #[prost(int32, tag = "3")]
    pub colorspace: i32,
    /// A PNG.
    #[prost(bytes = "vec", tag = "4")]
    pub encoded_image_string: Vec<u8>,
}

/// `tensorboard.Summary.Audio`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Audio {
    #[prost(float, tag = "1")]
    pub sample_rate: f32,
    #[prost(int64, tag = "2")]
    pub num_channels: i64,
    #[prost(int64, tag = "3")]
    pub length_frames: i64,
    /// A WAV file.
    #[prost(bytes = "vec", tag = "4")]
    pub encoded_audio_string: Vec<u8>,
    #[prost(string, tag = "5")]
    pub content_type: String,
}

/// `tensorboard.SummaryMetadata`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SummaryMetadata {
    #[prost(message, optional, tag = "1")]
    pub plugin_data: Option<PluginData>,
}

/// `tensorboard.SummaryMetadata.PluginData`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PluginData {
    #[prost(string, tag = "1")]
    pub plugin_name: String,
    /// A message of the plugin's.
    #[prost(bytes = "vec", tag = "2")]
    pub content: Vec<u8>,
}

/// `tensorboard.hparams.HParamsPluginData`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HParams {
    #[prost(message, optional, tag = "2")]
    pub experiment: Option<Experiment>,
    #[prost(message, optional, tag = "3")]
    pub session_start_info: Option<SessionStart>,
    #[prost(message, optional, tag = "4")]
    pub session_end_info: Option<SessionEnd>,
}

/// `tensorboard.hparams.Experiment`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Experiment {
    #[prost(message, repeated, tag = "4")]
    pub hparam_infos: Vec<HParamInfo>,
    #[prost(message, repeated, tag = "5")]
    pub metric_infos: Vec<MetricInfo>,
}

/// `tensorboard.hparams.HParamInfo`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HParamInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    /// `tensorboard.hparams.DataType`.
    #[prost(int32, tag = "4")]
    pub data_type: i32,
}

/// `tensorboard.hparams.MetricInfo`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct MetricInfo {
    #[prost(message, optional, tag = "1")]
    pub name: Option<MetricName>,
}

/// `tensorboard.hparams.MetricName`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct MetricName {
    #[prost(string, tag = "2")]
    pub tag: String,
}

/// `tensorboard.hparams.SessionStartInfo`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionStart {
    #[prost(btree_map = "string, message", tag = "1")]
    pub hparams: BTreeMap<String, Value>,
    #[prost(double, tag = "5")]
    pub start_time_secs: f64,
}

/// `tensorboard.hparams.SessionEndInfo`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionEnd {
    /// `tensorboard.hparams.Status`: 1 is success, 2 failure.
    #[prost(int32, tag = "1")]
    pub status: i32,
    #[prost(double, tag = "2")]
    pub end_time_secs: f64,
}

/// `google.protobuf.Value`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Value {
    #[prost(double, optional, tag = "2")]
    pub number: Option<f64>,
    #[prost(string, optional, tag = "3")]
    pub string: Option<String>,
    #[prost(bool, optional, tag = "4")]
    pub boolean: Option<bool>,
}

impl SummaryValue {
    /// One number.
    pub(super) fn scalar(tag: &str, value: f32) -> Self {
        Self {
            tag: tag.into(),
            simple_value: Some(value),
            ..Self::default()
        }
    }

    /// One picture.
    pub(super) fn image(tag: &str, image: Image) -> Self {
        Self {
            tag: tag.into(),
            image: Some(image),
            ..Self::default()
        }
    }

    /// One sound.
    pub(super) fn audio(tag: &str, audio: Audio) -> Self {
        Self {
            tag: tag.into(),
            audio: Some(audio),
            ..Self::default()
        }
    }

    fn hparams(tag: &str, content: &HParams) -> Self {
        let plugin_data = PluginData {
            plugin_name: "hparams".into(),
            content: content.encode_to_vec(),
        };
        Self {
            tag: tag.into(),
            metadata: Some(SummaryMetadata {
                plugin_data: Some(plugin_data),
            }),
            ..Self::default()
        }
    }
}

/// What the hparams plugin is told of a run when it begins: which parameters there are, and the values of this run's.
pub(super) fn hyper_parameters(config: &Json, start_time_secs: f64) -> [SummaryValue; 2] {
    let named: Vec<(String, i32, Value)> = config
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| {
            let (data_type, value) = typed(value)?;
            Some((name.clone(), data_type, value))
        })
        .collect();
    let hparam_infos = named.iter().map(|(name, data_type, _)| HParamInfo {
        name: name.clone(),
        data_type: *data_type,
    });
    let loss = MetricName { tag: "loss".into() };
    let experiment = Experiment {
        hparam_infos: hparam_infos.collect(),
        metric_infos: vec![MetricInfo { name: Some(loss) }],
    };
    let start = SessionStart {
        hparams: named.into_iter().map(|(name, _, value)| (name, value)).collect(),
        start_time_secs,
    };
    [
        SummaryValue::hparams(
            "_hparams_/experiment",
            &HParams {
                experiment: Some(experiment),
                ..HParams::default()
            },
        ),
        SummaryValue::hparams(
            "_hparams_/session_start_info",
            &HParams {
                session_start_info: Some(start),
                ..HParams::default()
            },
        ),
    ]
}

/// What the plugin is told when a run is over.
pub(super) fn session_end(well: bool, end_time_secs: f64) -> SummaryValue {
    let end = SessionEnd {
        status: if well { 1 } else { 2 },
        end_time_secs,
    };
    SummaryValue::hparams(
        "_hparams_/session_end_info",
        &HParams {
            session_end_info: Some(end),
            ..HParams::default()
        },
    )
}

/// A value with the plugin's number of its type; `None` for what is not set. Lists and the like become their JSON.
fn typed(value: &Json) -> Option<(i32, Value)> {
    const STRING: i32 = 1;
    const BOOL: i32 = 2;
    const FLOAT64: i32 = 3;
    let empty = Value::default();
    Some(match value {
        Json::Null => return None,
        Json::Bool(boolean) => (
            BOOL,
            Value {
                boolean: Some(*boolean),
                ..empty
            },
        ),
        Json::Number(number) => (
            FLOAT64,
            Value {
                number: number.as_f64(),
                ..empty
            },
        ),
        Json::String(string) => (
            STRING,
            Value {
                string: Some(string.clone()),
                ..empty
            },
        ),
        Json::Array(_) | Json::Object(_) => (
            STRING,
            Value {
                string: Some(value.to_string()),
                ..empty
            },
        ),
    })
}
