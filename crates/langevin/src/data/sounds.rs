//! A folder or archive of sounds: each is cut into slices, whose spectrograms are the pictures.

use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use super::{
    Dataset, Example, Fingerprint, Group, ImageFolder,
    medium::{Hear, heard},
    out_of_range,
    sound::SoundReader,
};
use crate::{Error, Result, random::Generator};

/// Files that stay open.
const OPEN: usize = 4;

/// Sounds in a folder and its sub-folders, with classes, captions and metadata as an [`ImageFolder`] has them. A sound is decoded in
/// pieces where they are asked for, so that it may be hours long.
///
/// A file that cannot be opened counts as one picture, which cannot be read.
pub struct SoundFolder {
    folder: ImageFolder,
    hear: Arc<dyn Hear>,
    /// The slices of each file.
    groups: Vec<Group>,
    readers: Mutex<Vec<(usize, SoundReader)>>,
}

impl SoundFolder {
    /// Looks at the files' lengths.
    pub(super) fn new(folder: ImageFolder, hear: Arc<dyn Hear>) -> Self {
        let count = |file: usize| -> u64 {
            let reader = folder.sound(file, hear.rate());
            reader.map_or(1, |reader| hear.slices(reader.len()).max(1))
        };
        let counts: Vec<u64> = (0..folder.len()).into_par_iter().map(count).collect();
        let mut end = 0;
        let bytes = 2 * hear.slice_samples() as u64;
        let group = |count: u64| {
            let first = end;
            end += usize::try_from(count).unwrap_or(0);
            Group {
                pictures: first..end,
                bytes: count.saturating_mul(bytes),
            }
        };
        let groups = counts.into_iter().map(group).collect();
        Self {
            folder,
            hear,
            groups,
            readers: Mutex::default(),
        }
    }

    /// The file of a picture, and which of its slices it is.
    fn place(&self, index: usize) -> Result<(usize, u64)> {
        let file = self.groups.partition_point(|group| group.pictures.end <= index);
        match self.groups.get(file) {
            Some(group) => Ok((file, (index - group.pictures.start) as u64)),
            None => Err(out_of_range(self.name(), index, self.len())),
        }
    }

    fn example(&self, index: usize, generator: Option<&mut Generator>) -> Result<Example> {
        let (file, slice) = self.place(index)?;
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let held = readers
            .iter()
            .position(|(other, _)| *other == file)
            .map(|place| readers.remove(place));
        drop(readers);
        let mut reader = match held {
            Some((_, reader)) => reader,
            None => self.folder.sound(file, self.hear.rate())?,
        };
        let name = self.folder.path(file).unwrap_or_default();
        let picture = heard(self.hear.as_ref(), &mut reader, slice, generator, &name)?;
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.truncate(OPEN - 1);
        readers.insert(0, (file, reader));
        drop(readers);
        self.folder.described(file, picture)
    }
}

impl Dataset for SoundFolder {
    fn len(&self) -> usize {
        self.groups.last().map_or(0, |group| group.pictures.end)
    }

    fn get(&self, index: usize) -> Result<Example> {
        self.example(index, None)
    }

    fn cut(&self, index: usize, generator: &mut Generator) -> Option<Result<Example>> {
        Some(self.example(index, Some(generator)))
    }

    fn class(&self, index: usize) -> Result<Option<usize>> {
        self.folder.class(self.place(index)?.0)
    }

    fn class_names(&self) -> Option<&[String]> {
        self.folder.class_names()
    }

    fn name(&self) -> &str {
        self.folder.name()
    }

    fn description(&self) -> String {
        format!(
            "{}, {} sounds in slices",
            self.folder.description(),
            self.folder.len()
        )
    }

    fn groups(&self) -> Option<&[Group]> {
        Some(&self.groups)
    }

    fn left_out(&self) -> Vec<String> {
        self.folder.left_out()
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        let files = self.folder.fingerprint()?;
        Ok(files.with(&self.hear.described(), self.len()))
    }
}

/// A sound by itself is a data set of its slices too; `None` where it is no sound's file.
///
/// # Errors
/// If it cannot be read.
pub(super) fn of_file(path: &std::path::Path, hear: &Arc<dyn Hear>) -> Result<SoundFolder> {
    let folder = path
        .parent()
        .filter(|folder| *folder != std::path::Path::new(""))
        .unwrap_or(std::path::Path::new("."));
    let name = path.file_name().ok_or_else(|| Error::file(path, "is no file"))?;
    let folder = ImageFolder::of_sound(folder, name.as_ref())?;
    Ok(SoundFolder::new(folder, Arc::clone(hear)))
}
