//! What zip archives give, whole and hostile.

use std::io::{Cursor, Write};

use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::*;
use crate::data::{Dataset, ImageFolder, OpenOptions, open};

fn png() -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image::GrayImage::new(1, 1)
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

/// An archive of files; what ends in `.png` and has no content is a picture of one pixel.
fn archive(files: &[(&str, &str)]) -> tempfile::TempPath {
    let file = tempfile::Builder::new().suffix(".zip").tempfile().unwrap();
    let mut writer = ZipWriter::new(file.as_file());
    for (place, (name, text)) in files.iter().enumerate() {
        let method = [CompressionMethod::Stored, CompressionMethod::Deflated][place % 2];
        writer
            .start_file(*name, SimpleFileOptions::default().compression_method(method))
            .unwrap();
        let content = if text.is_empty() {
            png()
        } else {
            text.as_bytes().to_vec()
        };
        writer.write_all(&content).unwrap();
    }
    writer.finish().unwrap();
    file.into_temp_path()
}

fn folder(path: &Path) -> Result<ImageFolder> {
    ImageFolder::open_zip(path, &OpenOptions::default())
}

#[test]
fn an_archive_is_read_as_the_folder_it_was_made_of() {
    let path = archive(&[
        ("set/train/cat/1.png", ""),
        ("set/train/dog/2.png", ""),
        ("set/test/cat/3.png", ""),
        ("__MACOSX/set/train/cat/._1.png", "x"),
        ("set/train/cat/.hidden.png", "x"),
    ]);
    let data = open(path.to_str().unwrap()).unwrap();
    assert_eq!(data.len(), 2);
    assert_eq!(data.class_names().unwrap(), ["cat", "dog"]);
    assert_eq!(data.get(1).unwrap().class, Some(1));
    assert!(data.description().contains("zip"), "{}", data.description());
}

#[test]
fn metadata_in_an_archive_names_captions_and_classes() {
    let path = archive(&[
        (
            "a/metadata.jsonl",
            "{\"file_name\": \"x.png\", \"text\": \"an x\", \"label\": 1}\n",
        ),
        ("a/labels.json", "[\"no\", \"yes\"]"),
        ("a/x.png", ""),
    ]);
    let example = folder(&path).unwrap().get(0).unwrap();
    assert_eq!(
        (example.caption.as_deref(), example.class),
        (Some("an x"), Some(1))
    );
    let path = archive(&[("metadata.csv", "file_name\n../x.png\n"), ("x.png", "")]);
    let error = folder(&path).err().unwrap().to_string();
    assert!(
        error.contains("line 2 names ../x.png, which is not there"),
        "{error}"
    );
}

#[test]
fn names_that_lead_out_are_passed_over() {
    let path = archive(&[
        ("../../evil.png", ""),
        ("/etc/evil.png", ""),
        ("good.png", ""),
        ("a/../b.png", ""),
    ]);
    let data = folder(&path).unwrap();
    assert_eq!(data.len(), 1);
    assert!(data.path(0).unwrap().ends_with("good.png"));
}

#[test]
fn an_archive_without_pictures_says_what_was_looked_for() {
    let error = folder(&archive(&[("notes.txt", "x")])).err().unwrap().to_string();
    assert!(error.contains("holds no picture (looked for png"), "{error}");
}

#[test]
fn broken_archives_and_entries_are_named() {
    let path = archive(&[("a.png", ""), ("b.png", "this is text")]);
    let error = folder(&path).unwrap().get(1).unwrap_err().to_string();
    assert!(error.contains("b.png: is not a picture"), "{error}");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = folder(&path).err().unwrap().to_string();
    assert!(error.contains("cannot be read as a zip archive"), "{error}");
    // A byte of the stored picture changed: its checksum is wrong.
    let mut changed = whole.clone();
    let place = whole.windows(4).position(|w| w == b"IDAT").unwrap();
    changed[place] ^= 1;
    std::fs::write(&path, changed).unwrap();
    let error = folder(&path).unwrap().get(0).unwrap_err().to_string();
    assert!(error.contains("a.png") && error.contains("damaged"), "{error}");
}

#[test]
fn a_bomb_is_refused_at_the_limit() {
    let file = tempfile::Builder::new().suffix(".zip").tempfile().unwrap();
    let mut writer = ZipWriter::new(file.as_file());
    writer
        .start_file("bomb.png", SimpleFileOptions::default().large_file(true))
        .unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..=MAX_BYTES >> 20 {
        writer.write_all(&zeros).unwrap();
    }
    writer.finish().unwrap();
    let path = file.into_temp_path();
    assert!(std::fs::metadata(&path).unwrap().len() < 2 << 20);
    let error = folder(&path).unwrap().get(0).unwrap_err().to_string();
    assert!(error.contains("unpacks to more than 512 MiB"), "{error}");
}

#[test]
fn names_are_read_as_windows_and_others_write_them() {
    let path = archive(&[
        ("train\\cat\\1.png", ""),
        ("./train/dog/2.png", ""),
        ("train\\empty\\", "x"),
        ("..\\train\\cat\\3.png", ""),
        ("C:\\train\\cat\\4.png", ""),
        ("/train/cat/5.png", ""),
    ]);
    let data = open(path.to_str().unwrap()).unwrap();
    assert_eq!(
        (data.len(), data.class_names().unwrap()),
        (2, &["cat".to_string(), "dog".to_string()][..])
    );
    let path = archive(&[("./metadata.csv", "file_name\n./1.png\n"), ("./1.png", "")]);
    assert_eq!(folder(&path).unwrap().len(), 1);
}

/// The archive's bytes with the number at `offset` of each entry in its central directory changed.
fn with_number(path: &Path, offset: usize, number: &[u8]) {
    let mut bytes = std::fs::read(path).unwrap();
    for at in 0..bytes.len() - 4 {
        if bytes[at..].starts_with(b"PK\x01\x02") {
            bytes[at + offset..at + offset + number.len()].copy_from_slice(number);
        }
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_packed_otherwise_is_said_once_not_to_be_supported() {
    let path = archive(&[("a.png", ""), ("b.png", "")]);
    // Bzip2's number.
    with_number(&path, 10, &[12, 0]);
    let error = folder(&path).err().unwrap().to_string();
    assert!(
        error.contains("is not supported: a.png in it is packed by") && error.contains("stored and deflated"),
        "{error}"
    );
    let path = archive(&[("a.png", "")]);
    with_number(&path, 8, &[1, 0]);
    let error = folder(&path).err().unwrap().to_string();
    assert!(error.contains("is encrypted"), "{error}");
    // What nobody looks at breaks nothing.
    let path = archive(&[("a.bin", ""), ("b.png", "")]);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(4).position(|four| four == b"PK\x01\x02").unwrap();
    bytes[at + 10] = 12;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(folder(&path).unwrap().len(), 1);
}

#[test]
fn files_that_share_their_bytes_are_refused() {
    let path = archive(&[("a.png", ""), ("b.png", "")]);
    let size = std::fs::metadata(&path).unwrap().len() as u32;
    with_number(&path, 20, &(size / 2 + 1).to_le_bytes());
    let error = folder(&path).err().unwrap().to_string();
    assert!(error.contains("share their bytes"), "{error}");
}

#[test]
fn kinds_that_are_not_supported_are_not_called_damaged() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/unsupported");
    for name in ["bzip2.zip", "lzma.zip"] {
        let error = folder(&root.join(name)).err().unwrap().to_string();
        assert!(
            error.contains("is not supported") && !error.contains("damaged"),
            "{error}"
        );
    }
    let error = crate::data::read_picture(root.join("zstd.tif"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("not supported") && !error.contains("damaged"),
        "{error}"
    );
}
