//! The messages of a `.wandb` file: what of the wandb package's `wandb_internal.proto` is written here, with its field
//! numbers.

use prost::{Message, Oneof};

use super::Moment;

/// `wandb_internal.Record`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Record {
    /// Counted from 1.
    #[prost(int64, tag = "1")]
    pub num: i64,
    #[prost(oneof = "Content", tags = "2, 3, 6, 17, 18, 21")]
    pub content: Option<Content>,
    #[prost(message, optional, tag = "200")]
    pub info: Option<RecordInfo>,
}

/// What a record is about.
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Content {
    #[prost(message, tag = "2")]
    History(HistoryRecord),
    #[prost(message, tag = "3")]
    Summary(Items),
    #[prost(message, tag = "6")]
    Files(FilesRecord),
    #[prost(message, tag = "17")]
    Run(RunRecord),
    #[prost(message, tag = "18")]
    Exit(RunExitRecord),
    #[prost(message, tag = "21")]
    Header(HeaderRecord),
}

/// `wandb_internal._RecordInfo`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RecordInfo {
    #[prost(string, tag = "1")]
    pub stream_id: String,
}

/// `wandb_internal.HeaderRecord`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HeaderRecord {
    #[prost(message, optional, tag = "1")]
    pub version_info: Option<VersionInfo>,
}

/// `wandb_internal.VersionInfo`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct VersionInfo {
    #[prost(string, tag = "1")]
    pub producer: String,
    /// The oldest version of the package that can read the file.
    #[prost(string, tag = "2")]
    pub min_consumer: String,
}

/// `wandb_internal.RunRecord`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RunRecord {
    #[prost(string, tag = "1")]
    pub run_id: String,
    #[prost(string, tag = "2")]
    pub entity: String,
    #[prost(string, tag = "3")]
    pub project: String,
    #[prost(message, optional, tag = "4")]
    pub config: Option<Items>,
    #[prost(string, tag = "8")]
    pub display_name: String,
    /// The first step of this part of the run, where it goes on.
    #[prost(int64, tag = "14")]
    pub starting_step: i64,
    #[prost(message, optional, tag = "17")]
    pub start_time: Option<Timestamp>,
    #[prost(bool, tag = "18")]
    pub resumed: bool,
}

/// `wandb_internal.ConfigRecord` and `wandb_internal.SummaryRecord`, which are the same on the wire.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Items {
    #[prost(message, repeated, tag = "1")]
    pub update: Vec<Item>,
}

/// `wandb_internal.ConfigItem`, `SummaryItem` and `HistoryItem`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Item {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "16")]
    pub value_json: String,
}

/// `wandb_internal.HistoryRecord`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HistoryRecord {
    #[prost(message, repeated, tag = "1")]
    pub item: Vec<Item>,
    #[prost(message, optional, tag = "2")]
    pub step: Option<HistoryStep>,
}

/// `wandb_internal.HistoryStep`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HistoryStep {
    #[prost(int64, tag = "1")]
    pub num: i64,
}

/// `wandb_internal.FilesRecord`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct FilesRecord {
    #[prost(message, repeated, tag = "1")]
    pub files: Vec<FilesItem>,
}

/// `wandb_internal.FilesItem`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct FilesItem {
    /// Under the run's `files`.
    #[prost(string, tag = "1")]
    pub path: String,
    /// `wandb_internal.FilesItem.FileType`: 1 is the run's own, 2 media.
    #[prost(int32, tag = "3")]
    pub file_type: i32,
}

/// `wandb_internal.RunExitRecord`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RunExitRecord {
    #[prost(int32, tag = "1")]
    pub exit_code: i32,
    /// In seconds.
    #[prost(int32, tag = "2")]
    pub runtime: i32,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Timestamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl From<Moment> for Timestamp {
    fn from(moment: Moment) -> Self {
        Self {
            seconds: moment.seconds as i64,
            nanos: moment.nanos as i32,
        }
    }
}

/// Names and JSON values as items.
pub(super) fn items<'a>(pairs: impl IntoIterator<Item = (&'a String, &'a serde_json::Value)>) -> Vec<Item> {
    let items = pairs.into_iter().map(|(key, value)| Item {
        key: key.clone(),
        value_json: value.to_string(),
    });
    items.collect()
}
