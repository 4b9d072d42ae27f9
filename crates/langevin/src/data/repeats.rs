//! Folders as trainers of adapters keep their pictures: `10_corgi dog` holds pictures of a corgi, ten of each in an epoch, and what stands behind
//! the number is the caption of those that have none.

use super::{Dataset, Example, Fingerprint, out_of_range};
use crate::{Error, Result};

/// A data set with such folders, without classes.
pub struct Repeated {
    whole: Box<dyn Dataset>,
    /// Where each picture stands in the whole, and which folder it lies in.
    places: Vec<(usize, Option<usize>)>,
    /// What the folders' names say.
    captions: Vec<String>,
    said: Vec<String>,
}

/// Pictures of an epoch, at most.
const MOST: usize = 10_000_000;

/// How often, and the words, of a folder's name.
fn parts(name: &str) -> Option<(usize, &str)> {
    let (count, words) = name.split_once('_')?;
    let count: usize = count.parse().ok()?;
    (count > 0 && count <= 100_000).then_some((count, words.trim()))
}

impl Repeated {
    /// The data set with each picture as often as its folder says, and once where that says nothing; as it is where none says anything.
    ///
    /// # Errors
    /// If the pictures are too many then.
    pub fn of(whole: Box<dyn Dataset>) -> Result<Box<dyn Dataset>> {
        let mut folders: Vec<(String, usize)> = Vec::new();
        let mut places = Vec::new();
        for index in 0..whole.len() {
            let name = whole.folder(index).filter(|name| parts(name).is_some());
            let folder = name.map(|name| {
                let known = folders.iter().rposition(|(known, _)| *known == name);
                let folder = known.unwrap_or_else(|| {
                    folders.push((name, 0));
                    folders.len() - 1
                });
                folders[folder].1 += 1;
                folder
            });
            let name = folder.map(|folder| folders[folder].0.as_str());
            let count = name.and_then(parts).map_or(1, |(count, _)| count);
            if places.len() + count > MOST {
                return Err(Error::Config(format!(
                    "the folders of {} repeat their pictures more than {MOST} times in all: make their numbers smaller",
                    whole.name()
                )));
            }
            places.extend(std::iter::repeat_n((index, folder), count));
        }
        if folders.is_empty() {
            return Ok(whole);
        }
        let said = folders.iter().map(|(name, pictures)| {
            let (count, words) = parts(name).unwrap_or((1, name));
            format!("the {pictures} pictures of `{name}` count {count} times in an epoch, and `{words}` is their caption where they have none of their own")
        });
        let captions = folders.iter().filter_map(|(name, _)| parts(name));
        Ok(Box::new(Self {
            places,
            captions: captions.map(|(_, words)| words.to_string()).collect(),
            said: said.collect(),
            whole,
        }))
    }

    fn place(&self, index: usize) -> Result<(usize, Option<usize>)> {
        let place = self.places.get(index).copied();
        place.ok_or_else(|| out_of_range(self.name(), index, self.places.len()))
    }
}

impl Dataset for Repeated {
    fn len(&self) -> usize {
        self.places.len()
    }

    fn get(&self, index: usize) -> Result<Example> {
        let (index, folder) = self.place(index)?;
        let example = self.whole.get(index)?;
        let words = folder.and_then(|folder| self.captions.get(folder));
        Ok(Example {
            class: None,
            caption: example.caption.or_else(|| words.cloned()),
            ..example
        })
    }

    fn caption(&self, index: usize) -> Result<Option<String>> {
        let (index, folder) = self.place(index)?;
        let words = folder.and_then(|folder| self.captions.get(folder));
        Ok(self.whole.caption(index)?.or_else(|| words.cloned()))
    }

    fn size(&self, index: usize) -> Result<[usize; 2]> {
        self.whole.size(self.place(index)?.0)
    }

    fn original(&self, index: usize) -> usize {
        self.places.get(index).map_or(index, |(original, _)| *original)
    }

    fn class(&self, _: usize) -> Result<Option<usize>> {
        Ok(None)
    }

    fn class_names(&self) -> Option<&[String]> {
        None
    }

    fn name(&self) -> &str {
        self.whole.name()
    }

    fn description(&self) -> String {
        self.whole.description()
    }

    fn is_small(&self) -> bool {
        self.whole.is_small()
    }

    fn left_out(&self) -> Vec<String> {
        let mut all = self.said.clone();
        all.extend(self.whole.left_out());
        all
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        Ok(Fingerprint {
            pictures: self.len(),
            ..self.whole.fingerprint()?
        })
    }
}
