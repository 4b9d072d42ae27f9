//! Whether two data sets are the same one: a few hashes, made without decoding a picture.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What a data set consists of, in short. Two that are equal hold pictures of the same names and sizes in the same order, with the same
/// classes and captions.
///
/// Names are relative to the data set, so one that was moved stays the same. The pictures themselves are not read, but for those that
/// are in memory anyway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The number of pictures.
    pub pictures: usize,
    /// The names of the classes; empty where there are none.
    pub classes: Vec<String>,
    /// Of the pictures' names and sizes, in order.
    pub names: String,
    /// Of the pictures' classes.
    pub labels: String,
    /// Of the pictures' captions.
    pub captions: String,
}

impl Fingerprint {
    /// The same of pictures that are made of these in a way that is described so, `pictures` of them.
    pub(super) fn with(self, described: &str, pictures: usize) -> Self {
        let mut taking = Fingerprinting::default();
        text(&mut taking.names, &self.names);
        text(&mut taking.names, described);
        Self {
            pictures,
            names: taking.finish(0, None).names,
            ..self
        }
    }

    /// What differs in another data set, as the end of a sentence about it; `None` where nothing does.
    ///
    /// Classes and captions count only where a model is given them.
    pub fn difference(&self, other: &Self, classes: bool, captions: bool) -> Option<String> {
        if other.pictures != self.pictures {
            return Some(format!(
                "they are {} pictures, and were {}",
                other.pictures, self.pictures
            ));
        }
        if classes && other.classes != self.classes {
            let at = |names: &[String], class: usize| {
                names
                    .get(class)
                    .map_or_else(|| "not there".into(), |name| format!("\"{name}\""))
            };
            let first = (0..self.classes.len().max(other.classes.len()))
                .find(|&class| self.classes.get(class) != other.classes.get(class))
                .unwrap_or(0);
            return Some(format!(
                "their classes have other names: class {first} is {}, and was {}",
                at(&other.classes, first),
                at(&self.classes, first)
            ));
        }
        if other.names != self.names {
            return Some("they are pictures of other names or sizes, or in another order".into());
        }
        if classes && other.labels != self.labels {
            return Some("pictures have other classes than they had".into());
        }
        (captions && other.captions != self.captions)
            .then(|| "pictures have other captions than they had".into())
    }
}

/// Takes a data set in, picture by picture.
#[derive(Default)]
pub(super) struct Fingerprinting {
    names: Sha256,
    labels: Sha256,
    captions: Sha256,
}

impl Fingerprinting {
    /// A file's name, its size, and whatever else says which file it is.
    pub(super) fn file(&mut self, name: &str, size: u64, more: &[u8]) {
        text(&mut self.names, name);
        self.names.update(size.to_le_bytes());
        self.names.update(more);
    }

    /// The next picture's class.
    pub(super) fn class(&mut self, class: Option<usize>) {
        let number = class.map_or(-1, |class| class as i64);
        self.labels.update(number.to_le_bytes());
    }

    /// The next picture's caption.
    pub(super) fn caption(&mut self, caption: Option<&str>) {
        self.captions.update([u8::from(caption.is_some())]);
        text(&mut self.captions, caption.unwrap_or_default());
    }

    /// What it came to, for so many pictures and these classes.
    pub(super) fn finish(self, pictures: usize, classes: Option<&[String]>) -> Fingerprint {
        let hex = |hash: Sha256| {
            hash.finalize()[..16]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect()
        };
        Fingerprint {
            pictures,
            classes: classes.unwrap_or_default().to_vec(),
            names: hex(self.names),
            labels: hex(self.labels),
            captions: hex(self.captions),
        }
    }
}

/// A text with its length, so that no two texts run into one.
fn text(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str], classes: &[usize], captions: &[&str], class_names: &[&str]) -> Fingerprint {
        let mut taking = Fingerprinting::default();
        names.iter().for_each(|name| taking.file(name, 7, &[]));
        classes.iter().for_each(|&class| taking.class(Some(class)));
        captions.iter().for_each(|caption| taking.caption(Some(caption)));
        let class_names: Vec<String> = class_names.iter().map(ToString::to_string).collect();
        taking.finish(names.len(), Some(&class_names))
    }

    #[test]
    fn what_differs_is_named_and_what_is_not_used_does_not_count() {
        let one = of(&["a", "bc"], &[0, 1], &["x", "y"], &["cat", "dog"]);
        let said = |other: &Fingerprint| one.difference(other, true, true);
        assert_eq!(said(&one), None);
        let renamed = of(&["a", "bc"], &[0, 1], &["x", "y"], &["cat", "wolf"]);
        let message = said(&renamed).unwrap();
        assert!(
            message.contains("class 1 is \"wolf\", and was \"dog\""),
            "{message}"
        );
        assert_eq!(one.difference(&renamed, false, true), None);
        // The same letters, divided otherwise.
        assert!(
            said(&of(&["ab", "c"], &[0, 1], &["x", "y"], &["cat", "dog"]))
                .unwrap()
                .contains("names or sizes")
        );
        assert!(
            said(&of(&["a", "bc"], &[1, 0], &["x", "y"], &["cat", "dog"]))
                .unwrap()
                .contains("other classes")
        );
        let recaptioned = of(&["a", "bc"], &[0, 1], &["x", "z"], &["cat", "dog"]);
        assert!(said(&recaptioned).unwrap().contains("captions"));
        assert_eq!(one.difference(&recaptioned, true, false), None);
        assert!(
            said(&of(&["a"], &[0], &["x"], &["cat", "dog"]))
                .unwrap()
                .contains("1 pictures, and were 2")
        );
    }
}
