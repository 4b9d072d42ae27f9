//! Folders as trainers of adapters keep their pictures: `10_corgi dog` holds pictures of a corgi, ten of each in an epoch, and what stands behind
//! the number is the caption of those that have none.

use super::{Dataset, Example, Fingerprint, out_of_range};
use crate::{Error, Result};

/// A data set whose classes are such folders, without classes.
pub struct Repeated {
    whole: Box<dyn Dataset>,
    /// Where each picture stands in the whole.
    indices: Vec<usize>,
    captions: Vec<String>,
    /// Whether all pictures are in one such folder.
    is_leaf: bool,
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
    /// The data set with each picture as often as its folder says; as it is where a folder says nothing of the kind.
    ///
    /// # Errors
    /// If a picture's folder cannot be read.
    pub fn of(whole: Box<dyn Dataset>) -> Result<Box<dyn Dataset>> {
        // One that holds the pictures itself counts too: whoever names it means it.
        let own = [whole.name().to_string()];
        let is_leaf = whole.class_names().is_none();
        let names = whole.class_names().unwrap_or(&own);
        let folders: Option<Vec<(usize, String)>> = names
            .iter()
            .map(|name| parts(name).map(|(count, words)| (count, words.to_string())))
            .collect();
        let Some(folders) = folders.filter(|folders| !folders.is_empty()) else {
            return Ok(whole);
        };
        let mut indices = Vec::new();
        let mut pictures = vec![0; folders.len()];
        for index in 0..whole.len() {
            let class = match is_leaf {
                true => Some(0),
                false => whole.class(index)?.filter(|&class| class < folders.len()),
            };
            let count = class.map_or(1, |class| folders[class].0);
            if let Some(class) = class {
                pictures[class] += 1;
            }
            if indices.len() + count > MOST {
                return Err(Error::Config(format!(
                    "the folders of {} repeat their pictures more than {MOST} times in all: make their numbers smaller",
                    whole.name()
                )));
            }
            indices.extend(std::iter::repeat_n(index, count));
        }
        let said = folders
            .iter()
            .zip(pictures)
            .map(|((count, words), pictures)| {
                format!("the {pictures} pictures of `{count}_{words}` count {count} times in an epoch, and `{words}` is their caption where they have none of their own")
            })
            .collect();
        Ok(Box::new(Self {
            whole,
            indices,
            captions: folders.into_iter().map(|(_, words)| words).collect(),
            is_leaf,
            said,
        }))
    }
}

impl Dataset for Repeated {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn get(&self, index: usize) -> Result<Example> {
        let place = self.indices.get(index).copied();
        let place = place.ok_or_else(|| out_of_range(self.name(), index, self.indices.len()))?;
        let example = self.whole.get(place)?;
        let class = if self.is_leaf { Some(0) } else { example.class };
        let words = class.and_then(|class| self.captions.get(class));
        Ok(Example {
            class: None,
            caption: example.caption.or_else(|| words.cloned()),
            ..example
        })
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
