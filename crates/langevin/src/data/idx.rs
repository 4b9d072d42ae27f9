//! IDX files, the format of MNIST: a short header, then bytes; often gzipped.

use std::{
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;

use super::{
    Channels, Dataset, Example, Fingerprint, Picture,
    fingerprint::Fingerprinting,
    metadata, out_of_range,
    paths::{folder_name, is_file_beside},
    split,
};
use crate::{Error, Result, files};

/// The most data that a file may hold once unpacked (EMNIST, the largest of the kind, has 0.64 GB).
const MAX_BYTES: usize = 1 << 30;

/// What gzipped files begin with.
pub(super) const GZIP: &[u8] = &[0x1F, 0x8B];
/// What an IDX file of unsigned bytes in three dimensions begins with.
pub(super) const IDX_PICTURES: &[u8] = &[0, 0, 8, 3];

/// An array of bytes with its shape.
pub(super) struct IdxArray {
    /// The sizes of its dimensions, the outermost first.
    pub shape: Vec<usize>,
    /// The values, the last dimension contiguous.
    pub data: Vec<u8>,
}

/// Reads an IDX file of unsigned bytes, gzipped or not; the error is the part of a sentence that follows the
/// file's name. Memory grows with the data that is there, not with what the header claims.
pub(super) fn read_idx(mut reader: impl Read) -> Result<IdxArray, String> {
    let mut magic = [0; 2];
    reader
        .read_exact(&mut magic)
        .map_err(|e| format!("is not an IDX file: {e}"))?;
    let unread = magic.chain(reader);
    if magic == GZIP {
        read_plain(MultiGzDecoder::new(unread))
    } else {
        read_plain(unread)
    }
}

fn read_plain(mut reader: impl Read) -> Result<IdxArray, String> {
    let mut head = [0; 4];
    reader
        .read_exact(&mut head)
        .map_err(|e| format!("is not an IDX file: {e}"))?;
    let [0, 0, kind, dimensions] = head else {
        return Err("is not an IDX file: it does not start with two zero bytes".into());
    };
    if kind != 0x08 {
        return Err(format!(
            "holds IDX values of type {kind:#04x}, where unsigned bytes (0x08) are read"
        ));
    }
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        let mut size = [0; 4];
        reader
            .read_exact(&mut size)
            .map_err(|e| format!("has an incomplete IDX header: {e}"))?;
        shape.push(u32::from_be_bytes(size) as usize);
    }
    let claimed = shape
        .iter()
        .try_fold(1usize, |n, &size| n.checked_mul(size))
        .filter(|&n| n <= MAX_BYTES && !shape.is_empty())
        .ok_or_else(|| format!("claims the shape {shape:?}, which is not between one dimension and 1 GiB"))?;
    let mut data = Vec::new();
    reader
        .take(claimed as u64 + 1)
        .read_to_end(&mut data)
        .map_err(|e| format!("cannot be read: {e}"))?;
    if data.len() != claimed {
        let there = if data.len() > claimed {
            "more".to_string()
        } else {
            format!("only {}", data.len())
        };
        return Err(format!(
            "claims {claimed} values (shape {shape:?}), but holds {there}"
        ));
    }
    Ok(IdxArray { shape, data })
}

/// Grey pictures of one size with their classes, from a pair of IDX files. Held in memory.
#[derive(Clone, Debug)]
pub struct IdxDataset {
    name: String,
    description: String,
    count: usize,
    height: usize,
    width: usize,
    pixels: Vec<u8>,
    labels: Option<Vec<u8>>,
    class_names: Option<Vec<String>>,
}

impl IdxDataset {
    /// Joins pictures `[count, height, width]` and labels `[count]`; the classes are named by their numbers.
    pub(super) fn new(
        name: String,
        description: String,
        images: IdxArray,
        labels: Option<IdxArray>,
    ) -> Result<Self, String> {
        let [count, height, width] = images.shape[..] else {
            return Err(format!(
                "has the shape {:?}, where pictures have three dimensions",
                images.shape
            ));
        };
        if height == 0 || width == 0 || count == 0 {
            return Err(format!("holds no picture: its shape is {:?}", images.shape));
        }
        if let Some(labels) = &labels
            && labels.shape != [count]
        {
            return Err(format!(
                "holds {count} pictures, but the labels have the shape {:?}",
                labels.shape
            ));
        }
        let labels = labels.map(|l| l.data);
        let class_names = labels
            .as_ref()
            .and_then(|l| l.iter().max())
            .map(|&last| (0..=last).map(|class| class.to_string()).collect());
        Ok(Self {
            name,
            description,
            count,
            height,
            width,
            pixels: images.data,
            labels,
            class_names,
        })
    }

    /// Opens the files of a folder that holds IDX files as MNIST's are named, or `None` if it holds none: for the split
    /// `train` `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, for `test` those that begin with `t10k`; with
    /// `.idx3-ubyte` in place of `-idx3-ubyte` too, and with or without `.gz`. A `labels.json` beside them names the
    /// classes.
    ///
    /// # Errors
    /// If a file cannot be read, is not what its header claims, pictures and labels do not match, or the folder holds
    /// the files of other splits only.
    pub fn find(folder: impl AsRef<Path>, split: &str) -> Result<Option<Self>> {
        let folder = folder.as_ref();
        let pictures_of =
            |(split, stem)| Some((split, find_file(folder, &format!("{stem}-images"), "idx3")?));
        let there: Vec<(&str, PathBuf)> = SPLITS.into_iter().filter_map(pictures_of).collect();
        if there.is_empty() {
            return Ok(None);
        }
        let wanted = split::canonical(split);
        let Some((_, pictures)) = there.iter().find(|(split, _)| *split == wanted) else {
            let there: Vec<&str> = there.iter().map(|(split, _)| *split).collect();
            return Err(Error::file(
                folder,
                format!(
                    "holds no IDX files of the split `{split}`; there are those of {}",
                    there.join(" and ")
                ),
            ));
        };
        let description = format!("IDX files in {}, split {wanted}", folder.display());
        Self::read(pictures, folder_name(folder), description).map(Some)
    }

    /// Opens a file of pictures, with the labels of the file that is called the same but for `labels` in place of
    /// `images` and `idx1` in place of `idx3`, if there is one.
    ///
    /// # Errors
    /// As [`IdxDataset::find`].
    pub fn open(file: impl AsRef<Path>) -> Result<Self> {
        let file = file.as_ref();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let name = name.split(['.', '-']).next().unwrap_or("pictures").to_string();
        Self::read(file, name, format!("IDX file {}", file.display()))
    }

    fn read(pictures: &Path, name: String, description: String) -> Result<Self> {
        let labels = labels_beside(pictures).map(|path| read_file(&path)).transpose()?;
        let mut dataset = Self::new(name, description, read_file(pictures)?, labels)
            .map_err(|message| Error::file(pictures, message))?;
        let names_file = pictures.with_file_name("labels.json");
        if let Some(numbered) = &dataset.class_names
            && is_file_beside(&names_file)
        {
            let names = metadata::names(&names_file, &files::read_text(&names_file)?)?;
            if names.len() < numbered.len() {
                return Err(Error::file(
                    names_file,
                    format!(
                        "names {} classes, where the labels have {}",
                        names.len(),
                        numbered.len()
                    ),
                ));
            }
            dataset.class_names = Some(names);
        }
        Ok(dataset)
    }
}

/// The splits of MNIST and its like, and what their files' names begin with.
const SPLITS: [(&str, &str); 2] = [(split::TRAIN, "train"), ("test", "t10k")];

/// The file `{stem}-{kind}-ubyte`, as MNIST's first mirror named it, or `{stem}.{kind}-ubyte`, as later ones do.
fn find_file(folder: &Path, stem: &str, kind: &str) -> Option<PathBuf> {
    file_names(stem, kind)
        .into_iter()
        .map(|name| folder.join(name))
        .find(|path| is_file_beside(path))
}

/// The names that a file may have, in the order in which they are looked for.
fn file_names(stem: &str, kind: &str) -> Vec<String> {
    let names = ["-", "."].map(|joint| format!("{stem}{joint}{kind}-ubyte"));
    let zipped = names.clone().map(|name| format!("{name}.gz"));
    names.into_iter().chain(zipped).collect()
}

/// The files of a split in a folder of which `has` says what is in it: pictures, labels and the names of these; none where there are
/// no pictures of that split.
pub(super) fn files_of(split: &str, has: &dyn Fn(&str) -> bool) -> Vec<String> {
    let Some((_, stem)) = SPLITS.into_iter().find(|(known, _)| *known == split) else {
        return Vec::new();
    };
    let first = |part: &str, kind| {
        file_names(&format!("{stem}-{part}"), kind)
            .into_iter()
            .find(|name| has(name))
    };
    let Some(pictures) = first("images", "idx3") else {
        return Vec::new();
    };
    let names = Some("labels.json".to_string()).filter(|name| has(name));
    [Some(pictures), first("labels", "idx1"), names]
        .into_iter()
        .flatten()
        .collect()
}

/// The labels' file that goes with one of pictures, gzipped or not.
fn labels_beside(pictures: &Path) -> Option<PathBuf> {
    let name = pictures.file_name()?.to_str()?;
    let plain = name.strip_suffix(".gz").unwrap_or(name);
    let labels = plain.replace("images", "labels").replace("idx3", "idx1");
    let other = |name: String| Some(pictures.with_file_name(name)).filter(|path| is_file_beside(path));
    (labels != plain)
        .then(|| other(labels.clone()).or_else(|| other(format!("{labels}.gz"))))
        .flatten()
}

fn read_file(path: &Path) -> Result<IdxArray> {
    let file = files::open(path)?;
    read_idx(BufReader::new(file)).map_err(|message| Error::file(path, message))
}

impl Dataset for IdxDataset {
    fn len(&self) -> usize {
        self.count
    }

    fn get(&self, index: usize) -> Result<Example> {
        if index >= self.count {
            return Err(out_of_range(&self.name, index, self.count));
        }
        let size = self.height * self.width;
        let pixels = self.pixels[index * size..(index + 1) * size].to_vec();
        Ok(Example {
            picture: Picture::new(self.height, self.width, Channels::Grey, pixels)?,
            class: self.labels.as_ref().map(|labels| usize::from(labels[index])),
            caption: None,
            conditioning: None,
            attributes: Vec::new(),
        })
    }

    fn class_names(&self) -> Option<&[String]> {
        self.class_names.as_deref()
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn description(&self) -> String {
        self.description.clone()
    }

    fn is_small(&self) -> bool {
        true
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        let mut taking = Fingerprinting::default();
        taking.file("", self.pixels.len() as u64, &self.pixels);
        let labels = self.labels.iter().flatten();
        labels.for_each(|&label| taking.class(Some(label.into())));
        Ok(taking.finish(self.count, self.class_names()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn idx(shape: &[u32], data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, shape.len() as u8];
        bytes.extend(shape.iter().flat_map(|s| s.to_be_bytes()));
        bytes.extend(data);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    fn error(bytes: &[u8]) -> String {
        read_idx(bytes).err().expect("should be refused")
    }

    #[test]
    fn plain_and_gzipped_files_are_the_same() {
        let bytes = idx(&[2, 1, 3], &[1, 2, 3, 4, 5, 6]);
        for bytes in [gzip(&bytes), bytes] {
            let array = read_idx(&bytes[..]).unwrap();
            assert_eq!((array.shape, array.data), (vec![2, 1, 3], vec![1, 2, 3, 4, 5, 6]));
        }
    }

    #[test]
    fn headers_that_lie_are_refused() {
        assert!(
            error(&idx(&[2, 2, 2], &[0; 7])).contains("claims 8 values (shape [2, 2, 2]), but holds only 7")
        );
        assert!(error(&idx(&[2, 2, 2], &[0; 9])).contains("but holds more"));
        assert!(error(&idx(&[u32::MAX; 3], &[])).contains("claims the shape"));
        assert!(error(&idx(&[u32::MAX, u32::MAX, u32::MAX, 0], &[])).contains("claims the shape"));
        assert!(error(&idx(&[1 << 30], &[])).contains("but holds only 0"));
        assert!(error(&idx(&[], &[])).contains("claims the shape []"));
        assert!(error(&[0, 0, 8, 200, 0, 0]).contains("incomplete IDX header"));
        assert!(error(&[0, 0, 0x0D, 1, 0, 0, 0, 0]).contains("0x0d"));
        assert!(error(b"\x89PNG\r\n").contains("not an IDX file"));
        assert!(error(&[0]).contains("not an IDX file"));
        let whole = gzip(&idx(&[100], &[7; 100]));
        assert!(error(&whole[..whole.len() - 12]).contains("deflate"));
    }

    #[test]
    fn a_folder_of_idx_files_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let find = |split: &str| IdxDataset::find(&folder, split);
        assert!(find("train").unwrap().is_none());
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        write("train-images-idx3-ubyte", &idx(&[2, 1, 2], &[1, 2, 3, 4]));
        assert_eq!(find("train").unwrap().unwrap().class_names(), None);
        write("train-labels-idx1-ubyte.gz", &gzip(&idx(&[2], &[0, 3])));
        let data = super::super::open(folder.path().to_str().unwrap()).unwrap();
        assert_eq!(data.class_names().unwrap(), ["0", "1", "2", "3"]);
        let example = data.get(1).unwrap();
        assert_eq!((example.picture.pixels(), example.class), (&[3, 4][..], Some(3)));
        assert!(data.get(2).unwrap_err().to_string().contains("which has 2"));
        assert!(
            find("test")
                .unwrap_err()
                .to_string()
                .contains("no IDX files of the split `test`")
        );
        write("labels.json", br#"["boot", "bag"]"#);
        assert!(find("train").unwrap_err().to_string().contains("names 2 classes"));
        write("labels.json", br#"["boot", "bag", "coat", "shirt"]"#);
        assert_eq!(find("train").unwrap().unwrap().class_names().unwrap()[3], "shirt");
        write("train-labels-idx1-ubyte", &idx(&[3], &[0, 1, 2]));
        let error = find("train").unwrap_err().to_string();
        assert!(
            error.contains("train-images-idx3-ubyte: holds 2 pictures, but the labels"),
            "{error}"
        );
    }

    #[test]
    fn the_test_split_and_single_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        write("t10k-images.idx3-ubyte.gz", &gzip(&idx(&[1, 1, 2], &[1, 2])));
        write("t10k-labels.idx1-ubyte", &idx(&[1], &[2]));
        let test = IdxDataset::find(&folder, "test").unwrap().unwrap();
        assert_eq!((test.len(), test.get(0).unwrap().class), (1, Some(2)));
        assert!(IdxDataset::find(&folder, "train").is_err());
        let file = folder.path().join("t10k-images.idx3-ubyte.gz");
        let alone = super::super::open(file.to_str().unwrap()).unwrap();
        assert_eq!((alone.name(), alone.get(0).unwrap().class), ("t10k", Some(2)));
        let labels = folder.path().join("t10k-labels.idx1-ubyte");
        let error = IdxDataset::open(labels).unwrap_err().to_string();
        assert!(
            error.contains("has the shape [1], where pictures have three"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            _ = read_idx(&bytes[..]);
            let mut headed = vec![0, 0, 8];
            headed.extend(&bytes);
            if let Ok(array) = read_idx(&headed[..]) {
                _ = IdxDataset::new(String::new(), String::new(), array, None);
            }
        }
    }
}
