use std::io::Cursor;

use super::*;
use crate::data::{OpenOptions, open, open_with};

/// A header of the oldest format, with its sum.
fn header(name: &str, size: u64, kind: u8) -> [u8; 512] {
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[124..136].copy_from_slice(format!("{size:011o} ").as_bytes());
    header[156] = kind;
    header[148..156].copy_from_slice(&[b' '; 8]);
    let sum: u64 = header.iter().map(|&byte| u64::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// An archive of these files.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in files {
        bytes.extend(header(name, content.len() as u64, b'0'));
        bytes.extend(*content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn png(value: u8) -> Vec<u8> {
    let picture = crate::data::Picture::new(1, 1, crate::data::Channels::Grey, vec![value]).unwrap();
    crate::grid::png_bytes(&picture).unwrap()
}

fn names(bytes: &[u8]) -> Result<Vec<String>, String> {
    let found = members(&mut Cursor::new(bytes), bytes.len() as u64)?;
    Ok(found.into_iter().map(|(name, ..)| name).collect())
}

/// What GNU tar wrote in its three formats, of a folder with a file whose path has 130 letters and one of six.
#[test]
fn what_gnu_tar_writes_is_read() {
    for format in ["ustar", "gnu", "pax"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/tar/{format}.tar"));
        let archive = TarFiles::open(&path).unwrap();
        let long = format!("{}/{}/long.txt", "a".repeat(60), "b".repeat(60));
        let paths: Vec<String> = archive.paths().map(|path| path.display().to_string()).collect();
        assert_eq!(paths, [&long, "short/x.txt"], "{format}");
        assert_eq!(archive.read(Path::new(&long)).unwrap(), b"long name", "{format}");
        assert_eq!(
            archive.read(Path::new("short/x.txt")).unwrap(),
            b"short",
            "{format}"
        );
    }
}

#[test]
fn damaged_archives_are_refused_and_never_larger_than_they_are() {
    let whole = archive(&[("a.png", &[1; 700]), ("b.png", &[2])]);
    assert_eq!(names(&whole).unwrap(), ["a.png", "b.png"]);
    assert!(is_tar(&whole) && !is_tar(&whole[1..]) && !is_tar(&[0; 512]));
    // Without the end that programs write, and with it cut anywhere.
    assert_eq!(names(&whole[..whole.len() - 1024]).unwrap().len(), 2);
    assert!(names(&whole[..900]).unwrap_err().contains("cut off"));
    let mut broken = whole.clone();
    broken[512 + 1024 + 3] ^= 1;
    assert!(names(&broken).unwrap_err().contains("no file begins"));
    for (size, kind) in [(u64::from(u32::MAX), b'0'), (1 << 30, b'x'), (1 << 32, b'L')] {
        let lying = [header("a", size, kind).as_slice(), &[0; 1024]].concat();
        assert!(names(&lying).is_err(), "{kind}");
    }
    // GNU's numbers of more digits.
    let mut field = [0u8; 12];
    (field[0], field[11]) = (0x80, 9);
    assert_eq!(number(&field), Some(9));
    field[0] = 0xFF;
    assert_eq!(number(&field), None);
    // A name that leads out of the archive is no file of it.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.tar");
    std::fs::write(&path, archive(&[("../x.png", &png(1)), ("a/y.png", &png(2))])).unwrap();
    assert_eq!(open(path.to_str().unwrap()).unwrap().len(), 1);
}

#[test]
fn an_archive_of_a_folder_is_read_as_the_folder_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pets.tar");
    let files: [(&str, &[u8]); 4] = [
        ("./cat/1.png", &png(1)),
        ("./dog/2.png", &png(2)),
        ("./dog/2.txt", b"a dog\n"),
        ("./._dog", b"x"),
    ];
    std::fs::write(&path, archive(&files)).unwrap();
    let data = open(path.to_str().unwrap()).unwrap();
    assert_eq!(
        (data.name(), data.class_names().unwrap()),
        ("pets", &["cat".to_string(), "dog".into()][..])
    );
    let dog = data.get(1).unwrap();
    assert_eq!(
        (dog.class, dog.caption.as_deref(), dog.picture.pixels()),
        (Some(1), Some("a dog"), &[2][..])
    );
}

#[test]
fn shards_have_a_column_for_each_ending() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let write =
        |name: &str, files: &[(&str, &[u8])]| std::fs::write(data.join(name), archive(files)).unwrap();
    let (first, second, mask) = (png(1), png(2), png(9));
    let (p, c, j, m) = ("000.png", "000.cls", "000.json", "000.seg.png");
    write(
        "train-00000.tar",
        &[
            (p, &first),
            (c, b"7\n"),
            (j, br#"{"caption": "one", "score": NaN}"#),
            (m, &mask),
            ("000.npy", b"x"),
        ],
    );
    write(
        "train-00001.tar",
        &[(p, &second), (c, b"0"), ("000.txt", b"two"), (m, &mask)],
    );
    write("test-00000.tar", &[(p, &first), (c, b"1")]);
    std::fs::write(
        folder.path().join("labels.json"),
        r#"["a", "b", "c", "d", "e", "f", "g", "h"]"#,
    )
    .unwrap();

    let open_as = |column: Option<&str>, split: &str| {
        let options = OpenOptions {
            split: split.into(),
            conditioning_column: column.map(String::from),
            ..OpenOptions::default()
        };
        open_with(folder.path().to_str().unwrap(), &options)
    };
    let train = open_as(None, "train").unwrap();
    assert_eq!(train.len(), 2);
    assert_eq!(train.class_names().unwrap()[7], "h");
    let one = train.get(0).unwrap();
    assert_eq!(
        (one.class, one.caption.as_deref(), one.picture.pixels()),
        (Some(7), Some("one"), &[1][..])
    );
    let two = train.get(1).unwrap();
    assert_eq!(
        (two.class, two.caption.as_deref(), two.picture.pixels()),
        (Some(0), Some("two"), &[2][..])
    );
    let left_out = train.left_out().join("; ");
    for part in ["`test` with 1 picture", "`seg.png`", "1 .npy"] {
        assert!(left_out.contains(part), "{part}: {left_out}");
    }
    assert!(
        !left_out.contains(".cls") && !left_out.contains(".json"),
        "{left_out}"
    );

    let asked = |column: &str| {
        let options = OpenOptions {
            caption_column: Some(column.into()),
            ..OpenOptions::default()
        };
        open_with(folder.path().to_str().unwrap(), &options).unwrap()
    };
    assert_eq!(asked("caption").get(0).unwrap().caption.as_deref(), Some("one"));
    assert_eq!(asked("txt").get(1).unwrap().caption.as_deref(), Some("two"));
    assert!(asked("blip").get(0).unwrap_err().to_string().contains("`blip`"));

    assert_eq!(open_as(None, "test").unwrap().len(), 1);
    let pairs = open_as(Some("seg.png"), "train").unwrap();
    assert_eq!(pairs.get(1).unwrap().conditioning.unwrap().pixels(), [9]);
    let message = open_as(Some("depth.png"), "train").err().unwrap().to_string();
    assert!(message.contains("ends in .depth.png"), "{message}");
    assert_ne!(
        train.fingerprint().unwrap(),
        open_as(None, "test").unwrap().fingerprint().unwrap()
    );
}

#[test]
fn classes_in_json_are_read_and_dots_in_names_are_no_columns() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.tar");
    let files: [(&str, &[u8]); 5] = [
        ("IMG.2020.png", &png(1)),
        ("IMG.2021.png", &png(2)),
        (
            "IMG.2021.json",
            br#"{"label": "owl", "prompt": "an owl", "url": "x"}"#,
        ),
        ("IMG.2020.json", br#"{"label": "cat", "prompt": "a cat"}"#),
        ("notes.pdf", b""),
    ];
    std::fs::write(&path, archive(&files)).unwrap();
    let data = open(path.to_str().unwrap()).unwrap();
    assert_eq!(data.class_names().unwrap(), ["cat", "owl"]);
    let owl = data.get(1).unwrap();
    assert_eq!((owl.class, owl.caption.as_deref()), (Some(1), Some("an owl")));
    // One that is packed is no IDX file.
    let packed = folder.path().join("x.tar.gz");
    std::fs::write(&packed, [0x1F, 0x8B, 8, 0]).unwrap();
    let message = open(packed.to_str().unwrap()).err().unwrap().to_string();
    assert!(message.contains("compressed tar archive"), "{message}");
}
