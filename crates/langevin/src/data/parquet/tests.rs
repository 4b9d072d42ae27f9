//! What parquet files give, as the Hub has them and hostile.

use std::{fs, io::Cursor};

use parquet::{
    basic::{Compression, GzipLevel, ZstdLevel},
    data_type::{ByteArray, ByteArrayType, Int64Type},
    file::{metadata::KeyValue, properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};

use super::*;
use crate::data::{DatasetSummary, Loader, LoaderConfig, Transform, open_with};

const SCHEMA: &str = "message schema {
    optional group image { optional binary bytes; optional binary path (UTF8); }
    optional binary text (UTF8);
    optional int64 label;
}";
const FEATURES: &str = r#"{"info": {"features": {"image": {"_type": "Image"}, "text": {"dtype": "string", "_type": "Value"},
    "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}"#;

/// A grey PNG of 2x1 pixels, the first of which is `value`.
fn png(value: u8) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let image = image::GrayImage::from_raw(2, 1, vec![value, 0]).unwrap();
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// A row: picture, caption, class.
type Row = (Option<Vec<u8>>, Option<&'static str>, Option<i64>);

/// How a test's file is written.
struct Written {
    compression: Compression,
    features: Option<&'static str>,
    /// The rows of each row group.
    groups: Vec<Vec<Row>>,
}

impl Default for Written {
    fn default() -> Self {
        let row = |value: u8| (Some(png(value)), Some("a picture"), Some(i64::from(value % 2)));
        Self {
            compression: Compression::SNAPPY,
            features: Some(FEATURES),
            groups: vec![(0..5).map(row).collect(), (5..7).map(row).collect()],
        }
    }
}

impl Written {
    fn bytes(&self) -> Vec<u8> {
        let metadata = self
            .features
            .map(|features| vec![KeyValue::new("huggingface".to_string(), features.to_string())]);
        let properties = WriterProperties::builder()
            .set_compression(self.compression)
            .set_key_value_metadata(metadata)
            .build();
        let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
        let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
        for rows in &self.groups {
            let mut group = writer.next_row_group().unwrap();
            let mut texts = |values: Vec<Option<Vec<u8>>>, level: i16| {
                let levels: Vec<i16> = values
                    .iter()
                    .map(|v| if v.is_some() { level } else { level - 1 })
                    .collect();
                let values: Vec<ByteArray> = values.into_iter().flatten().map(ByteArray::from).collect();
                let mut column = group.next_column().unwrap().unwrap();
                column
                    .typed::<ByteArrayType>()
                    .write_batch(&values, Some(&levels), None)
                    .unwrap();
                column.close().unwrap();
            };
            texts(rows.iter().map(|row| row.0.clone()).collect(), 2);
            texts(
                (0..rows.len())
                    .map(|i| Some(format!("{i}.png").into_bytes()))
                    .collect(),
                2,
            );
            texts(
                rows.iter()
                    .map(|row| row.1.map(|text| text.as_bytes().to_vec()))
                    .collect(),
                1,
            );
            let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.2.is_some())).collect();
            let labels: Vec<i64> = rows.iter().filter_map(|row| row.2).collect();
            let mut column = group.next_column().unwrap().unwrap();
            column
                .typed::<Int64Type>()
                .write_batch(&labels, Some(&levels), None)
                .unwrap();
            column.close().unwrap();
            group.close().unwrap();
        }
        writer.into_inner().unwrap()
    }

    fn file(&self) -> tempfile::TempPath {
        file(&self.bytes())
    }
}

fn file(bytes: &[u8]) -> tempfile::TempPath {
    let file = tempfile::Builder::new().suffix(".parquet").tempfile().unwrap();
    fs::write(file.path(), bytes).unwrap();
    file.into_temp_path()
}

fn open(path: impl AsRef<Path>) -> Result<Box<dyn Dataset>> {
    open_with(path.as_ref().to_str().unwrap(), &OpenOptions::default())
}

fn refused(path: impl AsRef<Path>) -> String {
    open(path).err().expect("should be refused").to_string()
}

#[test]
fn pictures_captions_and_classes_come_with_every_codec() {
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::ZSTD(ZstdLevel::default()),
    ] {
        let path = Written {
            compression,
            ..Written::default()
        }
        .file();
        let data = open(&path).unwrap();
        assert_eq!(data.len(), 7);
        assert_eq!(data.class_names().unwrap(), ["cat", "dog"]);
        for index in [6, 0, 5, 4] {
            let example = data.get(index).unwrap();
            assert_eq!(example.picture.pixels(), [index as u8, 0], "{compression:?}");
            assert_eq!(example.caption.as_deref(), Some("a picture"));
            assert_eq!(example.class, Some(index % 2));
        }
        assert!(data.get(7).unwrap_err().to_string().contains("which has 7"));
        let groups = data.groups().unwrap();
        assert_eq!(
            (groups[0].pictures.clone(), groups[1].pictures.clone()),
            (0..5, 5..7)
        );
        assert!(groups.iter().all(|group| group.bytes > 0));
    }
}

#[test]
fn classes_without_names_are_numbered_and_unknown_ones_are_none() {
    let labels = |labels: [Option<i64>; 3], features| {
        let groups = vec![labels.map(|label| (Some(png(0)), None, label)).to_vec()];
        Written {
            features,
            groups,
            ..Written::default()
        }
        .file()
    };
    let path = labels([Some(2), Some(0), Some(-1)], None);
    let data = open(&path).unwrap();
    assert_eq!(data.class_names().unwrap(), ["0", "1", "2"]);
    let classes: Vec<_> = (0..3).map(|i| data.get(i).unwrap().class).collect();
    assert_eq!(classes, [Some(2), Some(0), None]);
    assert_eq!(
        open(labels([None, None, None], None)).unwrap().class_names(),
        None
    );
    let path = labels([Some(1), None, Some(5)], Some(FEATURES));
    let data = open(&path).unwrap();
    assert_eq!(data.get(1).unwrap().class, None);
    let error = data.get(2).unwrap_err().to_string();
    assert!(
        error.contains("row 2 (2.png) has the class 5, and there are 2"),
        "{error}"
    );
    assert!(refused(labels([Some(1 << 40), None, None], None)).contains("too many"));
}

#[test]
fn a_broken_picture_is_named_and_the_others_come() {
    let mut groups = Written::default().groups;
    groups[0][3].0 = Some(b"this is text".to_vec());
    groups[1][1].0 = None;
    let path = Written {
        groups,
        ..Written::default()
    }
    .file();
    let data: Arc<dyn Dataset> = open(&path).unwrap().into();
    let error = data.get(3).unwrap_err().to_string();
    assert!(
        error.contains(".parquet: row 3 (3.png) is not a picture"),
        "{error}"
    );
    let error = data.get(6).unwrap_err().to_string();
    assert!(error.contains("row 6 (1.png) holds no picture"), "{error}");
    let loader = Loader::new(Arc::clone(&data), Transform::new(1), LoaderConfig::default()).unwrap();
    let read: usize = loader.epoch(0).map(|batch| batch.unwrap().shape[0]).sum();
    assert_eq!((read, loader.skipped()), (5, 2));
    assert_eq!(DatasetSummary::of(data.as_ref()).broken.len(), 2);
}

/// A folder with files of one row each at the given paths, whose captions are the paths, and a README.
fn repository(paths: &[&'static str], readme: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for path in paths {
        let groups = vec![vec![(Some(png(0)), Some(*path), Some(0))]];
        fs::create_dir_all(root.path().join(path).parent().unwrap()).unwrap();
        fs::write(
            root.path().join(path),
            Written {
                groups,
                ..Written::default()
            }
            .bytes(),
        )
        .unwrap();
    }
    fs::write(root.path().join("README.md"), readme).unwrap();
    root
}

#[test]
fn a_folder_is_read_as_the_hubs() {
    let root = repository(
        &[
            "data/train-00000-of-00002.parquet",
            "data/train-00001-of-00002.parquet",
            "data/test-00000-of-00001.parquet",
        ],
        "# A data set\n",
    );
    let captions = |config: Option<&str>, split: &str| -> Result<Vec<String>> {
        let options = OpenOptions {
            config: config.map(String::from),
            split: split.into(),
            ..OpenOptions::default()
        };
        let data = open_with(root.path().to_str().unwrap(), &options)?;
        Ok((0..data.len())
            .map(|i| data.get(i).unwrap().caption.unwrap())
            .collect())
    };
    assert_eq!(
        captions(None, "train").unwrap(),
        [
            "data/train-00000-of-00002.parquet",
            "data/train-00001-of-00002.parquet"
        ]
    );
    assert_eq!(
        captions(Some("default"), "test").unwrap(),
        ["data/test-00000-of-00001.parquet"]
    );
    let error = captions(None, "validation").unwrap_err().to_string();
    assert!(
        error.contains(root.path().to_str().unwrap()) && error.contains("there are test, train"),
        "{error}"
    );
    assert!(
        captions(Some("x"), "train")
            .unwrap_err()
            .to_string()
            .contains("no configuration `x`")
    );

    let readme = "---\nconfigs:\n- config_name: all\n  data_files: data/*.parquet\n---\n";
    fs::write(root.path().join("README.md"), readme).unwrap();
    assert_eq!(captions(None, "train").unwrap().len(), 3);
    fs::write(root.path().join("README.md"), "---\nconfigs: {\n---\n").unwrap();
    assert!(
        captions(None, "train")
            .unwrap_err()
            .to_string()
            .contains("README.md: has YAML")
    );
}

#[test]
fn shards_must_name_the_same_classes() {
    let root = repository(&["train-a.parquet"], "");
    let features = r#"{"info": {"features": {"label": {"names": ["dog", "cat"], "_type": "ClassLabel"}}}}"#;
    let other = Written {
        features: Some(features),
        ..Written::default()
    };
    fs::write(root.path().join("train-b.parquet"), other.bytes()).unwrap();
    let error = refused(&root);
    assert!(error.contains("train-b.parquet: names other classes"), "{error}");
}

#[test]
fn files_without_pictures_say_what_was_looked_for() {
    assert!(
        refused(
            Written {
                groups: vec![],
                ..Written::default()
            }
            .file()
        )
        .contains("it has no rows")
    );
    let schema = Arc::new(parse_message_type("message schema { required int64 label; }").unwrap());
    let writer = SerializedFileWriter::new(Vec::new(), schema, Arc::default()).unwrap();
    let error = refused(file(&writer.into_inner().unwrap()));
    assert!(
        error.contains("has no column of pictures") && error.contains("there are label"),
        "{error}"
    );
    assert!(refused(file(b"PAR1 and no footer PAR1")).contains("is a damaged parquet file"));
}

#[test]
fn a_damaged_row_group_costs_its_own_pictures_only() {
    let whole = Written {
        compression: Compression::UNCOMPRESSED,
        ..Written::default()
    }
    .bytes();
    // The first page's header begins after the magic number: its sizes and all become nonsense.
    let mut damaged = whole.clone();
    damaged[4..12].fill(0xFF);
    let path = file(&damaged);
    let data = open(&path).unwrap();
    for index in 0..5 {
        let error = data.get(index).unwrap_err().to_string();
        assert!(error.contains("has a column"), "{error}");
    }
    assert_eq!(data.get(6).unwrap().picture.pixels(), [6, 0]);
}

#[test]
fn pages_that_claim_more_than_they_hold_are_refused_without_the_memory() {
    // A page of a picture column claims 2 GiB: the size is the header's second field.
    let whole = Written {
        compression: Compression::SNAPPY,
        ..Written::default()
    }
    .bytes();
    assert_eq!(whole[4..7], [0x15, 0x04, 0x15], "a dictionary page comes first");
    let end = 7 + whole[7..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    let mut bomb = whole.clone();
    bomb.splice(7..end, [0xFE, 0xFF, 0xFF, 0xFF, 0x0F]);
    let path = file(&bomb);
    let error = open(&path).and_then(|data| data.get(0)).unwrap_err().to_string();
    assert!(error.contains("more memory than a row group"), "{error}");
}

#[test]
fn gzipped_pages_that_inflate_to_more_than_they_claim_are_refused() {
    use std::io::Write as _;
    let whole = Written {
        compression: Compression::GZIP(GzipLevel::default()),
        ..Written::default()
    }
    .bytes();
    // The first gzipped page is replaced by zeros that take as much room, and inflate to far more than is claimed.
    let start = whole.windows(3).position(|w| w == [0x1F, 0x8B, 0x08]).unwrap();
    let next = start
        + 3
        + whole[start + 3..]
            .windows(3)
            .position(|w| w == [0x1F, 0x8B, 0x08])
            .unwrap();
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    zipped.write_all(&vec![0; 40_000]).unwrap();
    let zipped = zipped.finish().unwrap();
    assert!(
        zipped.len() < next - start,
        "{} in {}",
        zipped.len(),
        next - start
    );
    let mut bomb = whole.clone();
    bomb[start..start + zipped.len()].copy_from_slice(&zipped);
    let path = file(&bomb);
    let error = open(&path).and_then(|data| data.get(0)).unwrap_err().to_string();
    assert!(
        error.contains("inflates to more") || error.contains("damaged page"),
        "{error}"
    );
}

#[test]
fn a_second_column_of_pictures_is_read_where_it_is_asked_for() {
    let schema = "message schema { required binary image; required binary img; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for first in [10, 20] {
        let values: Vec<ByteArray> = (first..first + 3).map(|value| png(value).into()).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column
            .typed::<ByteArrayType>()
            .write_batch(&values, None, None)
            .unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    let path = file(&writer.into_inner().unwrap());
    let with = |column: &str| {
        let options = OpenOptions {
            conditioning_column: Some(column.into()),
            ..OpenOptions::default()
        };
        open_with(path.to_str().unwrap(), &options)
    };
    let value = |picture: &Picture| picture.pixels()[0];
    for (column, picture, conditioning) in [("img", 12, 22), ("image", 22, 12)] {
        let example = with(column).unwrap().get(2).unwrap();
        assert_eq!(value(&example.picture), picture);
        assert_eq!(example.conditioning.as_ref().map(value), Some(conditioning));
    }
    assert_eq!(open(&path).unwrap().get(0).unwrap().conditioning, None);
    let options = OpenOptions {
        caption_column: Some("blip".into()),
        ..OpenOptions::default()
    };
    let message = open_with(path.to_str().unwrap(), &options)
        .err()
        .unwrap()
        .to_string();
    assert!(
        message.contains("no column `blip` of texts: there are image, img"),
        "{message}"
    );
    let message = with("lines").err().expect("no such column").to_string();
    assert!(
        message.contains("`lines`") && message.contains("image, img"),
        "{message}"
    );
}

#[test]
fn a_split_that_nobody_labelled_has_no_classes() {
    let row = |label| (Some(png(1)), None, label);
    let written = |labels: [Option<i64>; 2]| Written {
        groups: vec![labels.map(row).to_vec()],
        ..Written::default()
    };
    for labels in [[Some(-1), Some(-1)], [None, Some(-1)]] {
        let path = written(labels).file();
        assert_eq!(open(&path).unwrap().class_names(), None);
    }
    let path = written([Some(-1), Some(1)]).file();
    let data = open(&path).unwrap();
    assert_eq!(data.class_names().unwrap(), ["cat", "dog"]);
    assert_eq!((data.class(0).unwrap(), data.class(1).unwrap()), (None, Some(1)));
}

/// Files that pyarrow wrote with six pictures in three classes, packed in ways of its own.
#[test]
fn pyarrows_codecs_and_encodings_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/unsupported");
    let plain = open(folder.join("delta-text.parquet")).unwrap();
    for (name, feature) in [
        ("brotli", cfg!(feature = "brotli")),
        ("lz4", cfg!(feature = "lz4")),
        ("delta-length-pictures", true),
        ("delta-text", true),
        ("split-label", true),
    ] {
        let path = folder.join(name).with_extension("parquet");
        if !feature {
            let message = refused(path);
            assert!(
                message.contains("compressed by") && message.contains("is not supported"),
                "{message}"
            );
            continue;
        }
        let data = open(path).unwrap();
        assert_eq!((data.len(), data.class_names().unwrap().len()), (6, 3), "{name}");
        for index in 0..6 {
            let (one, other) = (data.get(index).unwrap(), plain.get(index).unwrap());
            assert_eq!((one.picture.height(), one.class), (24, other.class), "{name}");
            assert!(one.caption.is_some() && one.caption == other.caption, "{name}");
        }
    }
}

#[test]
fn what_is_not_used_of_a_repository_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/unsupported/delta-text.parquet");
    for name in ["train-00000-of-00001.parquet", "test-00000-of-00001.parquet"] {
        fs::copy(&source, data.join(name)).unwrap();
    }
    let left_out = ParquetDataset::open_folder(folder.path(), &OpenOptions::default())
        .unwrap()
        .left_out();
    assert_eq!(
        left_out,
        ["1 parquet file is of other splits or configurations, and left out"]
    );
}

#[test]
fn a_column_of_sounds_is_heard_where_that_is_asked_for() {
    use crate::{
        codec::{Mel, MelConfig},
        data::{Channels, Crop, sound::Sound},
    };
    let wav = |hertz: f32| {
        let samples = (0..40_000).map(|i| (i as f32 * hertz * 3e-4 + 1e-8 * (i * i) as f32).sin());
        let sound = Sound {
            rate: 22_050,
            samples: samples.collect(),
        };
        Some(sound.wav())
    };
    let written = Written {
        features: Some(
            r#"{"info": {"features": {"image": {"_type": "Audio"}, "text": {"dtype": "string", "_type": "Value"},
            "label": {"names": ["high", "low"], "_type": "ClassLabel"}}}}"#,
        ),
        groups: vec![vec![
            (wav(440.0), Some("high"), Some(0)),
            (Some(b"no sound".to_vec()), Some("nothing"), Some(0)),
            (wav(220.0), None, Some(1)),
        ]],
        ..Written::default()
    };
    let file = written.file();
    let message = refused(&file);
    assert!(message.contains("`image` holds sounds: `codec` mel"), "{message}");
    let mel = MelConfig {
        x_res: 16,
        y_res: 16,
        ..MelConfig::default()
    };
    let options = OpenOptions {
        medium: Medium::Sounds(Arc::new(Mel::new(mel).unwrap())),
        ..OpenOptions::default()
    };
    let data: Arc<dyn Dataset> = Arc::from(open_with(file.to_str().unwrap(), &options).unwrap());
    let first = data.get(0).unwrap();
    assert_eq!((first.picture.height(), first.picture.width()), (16, 16));
    assert_eq!((first.class, first.caption.as_deref()), (Some(0), Some("high")));
    let broken = data.get(1).unwrap_err().to_string();
    assert!(broken.contains("row 1"), "{broken}");
    // Anywhere in a sound, anew in every epoch, as the course has it.
    let transform = Transform {
        crop: Crop::Random,
        channels: Channels::Grey,
        ..Transform::new(16)
    };
    let loader = Loader::new(Arc::clone(&data), transform, LoaderConfig::default()).unwrap();
    let epoch = |number| loader.epoch(number).next().unwrap().unwrap();
    assert_eq!(epoch(1).indices.len(), 2);
    assert_ne!(epoch(1).pixels, epoch(2).pixels);
    // Pictures are no sounds.
    let pictures = Written::default().file();
    let message = open_with(pictures.to_str().unwrap(), &options)
        .err()
        .unwrap()
        .to_string();
    assert!(message.contains("`image` holds pictures"), "{message}");
}
