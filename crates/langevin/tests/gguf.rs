//! GGUF: every type of its blocks against llama.cpp's package, files that are written, and files that are odd or hostile.

use std::{fs, path::PathBuf};

use langevin::weights::{
    Checkpoint, Precision, read_tensors,
    single_file::{self, Component, Kind, Markers, SingleFile},
};
use tempfile::TempDir;

fn reference(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/reference")
        .join(path)
}

#[test]
fn every_type_is_read_as_the_package_reads_it() {
    let expected = read_tensors(reference("gguf/types.safetensors")).unwrap();
    let mut file = Checkpoint::open(reference("gguf/types.gguf")).unwrap();
    let names: Vec<String> = file.names().map(String::from).collect();
    assert_eq!(names.len(), 12);
    for name in &names {
        let expected = &expected[name];
        assert_eq!(file.get(name).unwrap().shape, expected.shape, "{name}");
        assert_eq!(file.read(name).unwrap(), expected.values, "{name}");
    }
    let said = file.to_string();
    assert!(said.starts_with("GGUF of f16, q2_k, q3_k, q4_0"), "{said}");
}

/// A Stable Diffusion pipeline's weights, as a file of a kind in a folder of its own.
fn written(name: &str, precision: Precision) -> (TempDir, PathBuf) {
    let base = reference("sd_training/base");
    let weights = [
        (Component::Unet, Checkpoint::in_folder(base.join("unet")).unwrap()),
        (Component::Vae, Checkpoint::in_folder(base.join("vae")).unwrap()),
        (
            Component::TextEncoder,
            Checkpoint::named(base.join("text_encoder"), None, &langevin::weights::TRANSFORMERS).unwrap(),
        ),
    ];
    let weights: Vec<_> = weights
        .iter()
        .map(|(component, weights)| (*component, weights))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    single_file::write(&path, Kind::Sd1, &weights, Markers::default(), precision).unwrap();
    (folder, path)
}

#[test]
fn what_is_written_as_it_is_comes_back_bit_for_bit() {
    for precision in [Precision::Stored, Precision::Float16, Precision::Bfloat16] {
        let (_a, gguf) = written("model.gguf", precision);
        let (_b, safetensors) = written("model.safetensors", precision);
        let (gguf, other) = (
            SingleFile::open(gguf).unwrap(),
            SingleFile::open(safetensors).unwrap(),
        );
        assert_eq!(gguf.kind(), other.kind());
        assert_eq!(gguf.components(), other.components());
        for component in gguf.components() {
            let mut read = gguf.component(component).unwrap();
            let mut other = other.component(component).unwrap();
            let names: Vec<String> = other.names().map(String::from).collect();
            assert!(!names.is_empty());
            for name in names {
                assert_eq!(read.get(&name), other.get(&name), "{name}");
                assert_eq!(read.read(&name).unwrap(), other.read(&name).unwrap(), "{name}");
            }
        }
    }
}

#[test]
fn eight_bits_are_of_matrices_and_half_as_large() {
    let (_a, small) = written("model.gguf", Precision::Q8_0);
    let (_b, large) = written("model.safetensors", Precision::Stored);
    let (gguf, other) = (
        SingleFile::open(&small).unwrap(),
        SingleFile::open(&large).unwrap(),
    );
    assert!(gguf.format().contains("q8_0"), "{}", gguf.format());
    let mut changed = 0;
    for component in other.components() {
        let mut read = gguf.component(component).unwrap();
        let mut other = other.component(component).unwrap();
        let names: Vec<String> = other.names().map(String::from).collect();
        for name in names {
            let (read, expected) = (read.read(&name).unwrap(), other.read(&name).unwrap());
            let largest = expected.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
            for (x, y) in read.iter().zip(&expected) {
                assert!((x - y).abs() <= largest / 127.0 * 0.57, "{name}: {x} {y}");
            }
            if read != expected {
                changed += 1;
                let matrix = other.get(&name).unwrap().shape.len() == 2;
                assert!(matrix && !name.contains("embed"), "{name}");
            }
        }
    }
    // Of this small model's matrices three have rows of whole blocks.
    assert_eq!(changed, 3);
    let size = |path: &PathBuf| fs::metadata(path).unwrap().len();
    assert!(size(&small) < size(&large));
    let refused = single_file::write(
        small.with_extension("safetensors"),
        Kind::Sd1,
        &[],
        Markers::default(),
        Precision::Q8_0,
    );
    assert!(refused.unwrap_err().to_string().contains(".gguf"));
}

/// The package's bytes of the same numbers.
#[test]
fn eight_bits_are_rounded_as_the_package_rounds_them() {
    let values = read_tensors(reference("gguf/types.safetensors")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("diffusion_pytorch_model.safetensors");
    let mut tensor = values["values"].clone();
    tensor.name = "post_quant_conv.weight".into();
    langevin::weights::write_tensors(&source, &[tensor]).unwrap();
    let weights = Checkpoint::open(&source).unwrap();
    let path = folder.path().join("a.gguf");
    single_file::write(
        &path,
        Kind::Vae,
        &[(Component::Vae, &weights)],
        Markers::default(),
        Precision::Q8_0,
    )
    .unwrap();
    let mut read = Checkpoint::open(&path).unwrap();
    let name = read.names().next().unwrap().to_string();
    assert_eq!(read.read(&name).unwrap(), values["q8_0.weight"].values);
}

/// A header, piece by piece.
#[derive(Default)]
struct Header(Vec<u8>);

impl Header {
    fn of(tensors: u64, keys: u64) -> Self {
        let mut header = Self(b"GGUF".to_vec());
        header.0.extend(3_u32.to_le_bytes());
        header.number(tensors).number(keys)
    }

    fn number(mut self, number: u64) -> Self {
        self.0.extend(number.to_le_bytes());
        self
    }

    fn small(mut self, number: u32) -> Self {
        self.0.extend(number.to_le_bytes());
        self
    }

    fn text(self, text: &str) -> Self {
        let mut longer = self.number(text.len() as u64);
        longer.0.extend(text.as_bytes());
        longer
    }

    /// A tensor's name, sides (innermost first), type and place.
    fn tensor(self, name: &str, sides: &[u64], kind: u32, offset: u64) -> Self {
        let header = self.text(name).small(sides.len() as u32);
        let header = sides.iter().fold(header, |header, side| header.number(*side));
        header.small(kind).number(offset)
    }

    fn refused(self, part: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gguf");
        fs::write(&path, &self.0).unwrap();
        match Checkpoint::open(&path) {
            Ok(file) => panic!("{part}: {file}"),
            Err(error) => assert!(error.to_string().contains(part), "{part}: {error}"),
        }
    }
}

#[test]
fn hostile_headers_are_one_sentence() {
    Header::default().small(0x4655_4747).refused("ends in its header");
    Header(b"GGUF".to_vec())
        .small(1)
        .number(0)
        .number(0)
        .refused("version 1");
    Header(b"GGUF".to_vec())
        .small(3_u32.swap_bytes())
        .number(0)
        .number(0)
        .refused("big-endian");
    Header::of(u64::MAX, 0).refused("tensors");
    Header::of(0, u64::MAX).refused("keys");
    Header::of(1, 0).number(u64::MAX).refused("name of");
    Header::of(1, 0).number(100).refused("ends in its header");
    // A text, a list and a list in lists of lists that are longer than the file.
    Header::of(0, 1)
        .text("a")
        .small(8)
        .number(u64::MAX)
        .refused("ends in its header");
    Header::of(0, 1)
        .text("a")
        .small(9)
        .small(4)
        .number(1 << 60)
        .refused("ends in its header");
    let deep = (0..9).fold(Header::of(0, 1).text("a").small(9), |header, _| {
        header.small(9).number(1)
    });
    deep.refused("has a value of the type 9");
    Header::of(0, 1).text("a").small(77).refused("type 77");
    for alignment in [0_u32, 3, 1 << 31] {
        Header::of(0, 1)
            .text("general.alignment")
            .small(4)
            .small(alignment)
            .refused("power of two");
    }
    Header::of(0, 1)
        .text("split.count")
        .small(2)
        .refused("ends in its header");
    let mut split = Header::of(0, 1).text("split.count").small(2);
    split.0.extend(4_u16.to_le_bytes());
    split.refused("one of 4 files");
    Header::of(1, 0).tensor("a", &[1; 9], 0, 0).refused("9 axes");
    Header::of(1, 0)
        .tensor("a", &[32], 16, 0)
        .refused("ggml's type 16");
    Header::of(1, 0)
        .tensor("a", &[33], 8, 0)
        .refused("no whole blocks");
    for sides in [[1 << 40, 1 << 40, 1], [0, 1 << 40, 1 << 40]] {
        Header::of(1, 0).tensor("a", &sides, 0, 0).refused("too large");
    }
    Header::of(1, 0)
        .tensor("a", &[32], 8, u64::MAX)
        .refused("does not lie in it");
    Header::of(1, 0)
        .tensor("a", &[32], 8, 0)
        .refused("does not lie in it");
    Header::of(2, 0)
        .tensor("a", &[0], 0, 0)
        .tensor("a", &[0], 0, 0)
        .refused("two tensors");
    let shape = |sides: &[u64]| {
        let header = Header::of(1, 1)
            .text("comfy.gguf.orig_shape.a")
            .small(9)
            .small(10);
        let header = header.number(sides.len() as u64);
        sides.iter().fold(header, |header, side| header.number(*side))
    };
    shape(&[3]).tensor("a", &[4], 0, 0).refused("other numbers");
    shape(&[u64::MAX, 2])
        .tensor("a", &[4], 0, 0)
        .refused("other numbers");
}

/// Whatever byte of a small file is another, and wherever it ends: a sentence or numbers, and no panic.
#[test]
fn damaged_files_are_no_panic() {
    let whole = fs::read(reference("gguf/types.gguf")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gguf");
    let read = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        if let Ok(mut file) = Checkpoint::open(&path) {
            let names: Vec<String> = file.names().map(String::from).collect();
            for name in names {
                let _ = file.read(&name);
            }
        }
    };
    for length in (0..1400).step_by(7).chain([whole.len() - 1]) {
        read(&whole[..length]);
    }
    for place in (0..1200).step_by(3) {
        let mut damaged = whole.clone();
        damaged[place] ^= 0xff;
        read(&damaged);
    }
}
