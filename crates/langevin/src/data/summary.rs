//! What a data set holds, found out by reading all of it: for `langevin info`.

use std::{fmt, path::PathBuf};

use rayon::prelude::*;

use super::{Channels, Dataset, left_out};
use crate::Error;

/// The most classes that are listed one by one.
const MOST: usize = 50;

/// Counts and sizes of a data set, and its broken pictures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatasetSummary {
    /// The data set's name.
    pub name: String,
    /// What and where it is.
    pub description: String,
    /// How many pictures there are, broken ones included.
    pub count: usize,
    /// Height and width of the picture with the fewest pixels.
    pub smallest: Option<(usize, usize)>,
    /// Height and width of the picture with the most pixels.
    pub largest: Option<(usize, usize)>,
    /// How many pictures are grey.
    pub grey: usize,
    /// How many pictures are in colour.
    pub colour: usize,
    /// The classes by name, each with its number of readable pictures; empty if there are none.
    pub classes: Vec<(String, usize)>,
    /// How many pictures have a caption.
    pub captions: usize,
    /// What is there and not used, as sentences.
    pub left_out: Vec<String>,
    /// The pictures that cannot be read, each with the reason.
    pub broken: Vec<(PathBuf, String)>,
}

/// What one picture adds.
struct Seen {
    size: (usize, usize),
    channels: Channels,
    class: Option<usize>,
    has_caption: bool,
}

impl DatasetSummary {
    /// Reads and decodes every picture, on all cores.
    pub fn of(dataset: &dyn Dataset) -> Self {
        let look = |index: usize| {
            let example = dataset.get(index)?;
            Ok(Seen {
                size: (example.picture.height(), example.picture.width()),
                channels: example.picture.channels(),
                class: example.class,
                has_caption: example.caption.is_some(),
            })
        };
        // In stretches, so that a data set that is read in groups has few of them in memory at a time.
        const STRETCH: usize = 256;
        let mut seen: Vec<Result<Seen, Error>> = Vec::with_capacity(dataset.len());
        for first in (0..dataset.len()).step_by(STRETCH) {
            let stretch = first..(first + STRETCH).min(dataset.len());
            seen.par_extend(stretch.into_par_iter().map(look));
        }
        let names = dataset.class_names().unwrap_or_default();
        let mut summary = Self {
            name: dataset.name().to_string(),
            description: dataset.description(),
            count: dataset.len(),
            left_out: dataset.left_out(),
            classes: names.iter().map(|name| (name.clone(), 0)).collect(),
            ..Self::default()
        };
        let mut without_class = 0;
        for (index, seen) in seen.into_iter().enumerate() {
            match seen {
                Ok(seen) => {
                    summary.add(&seen);
                    without_class += usize::from(!names.is_empty() && seen.class.is_none());
                }
                Err(Error::File { path, message }) => summary.broken.push((path, message)),
                Err(Error::Io { path, source, .. }) => summary.broken.push((path, source.to_string())),
                Err(other) => summary
                    .broken
                    .push((format!("picture {index}").into(), other.to_string())),
            }
        }
        if without_class > 0 {
            let pictures = left_out::pictures(without_class);
            summary.left_out.push(format!("{pictures} without a class"));
        }
        summary
    }

    fn add(&mut self, seen: &Seen) {
        let area = |(height, width): (usize, usize)| height * width;
        if self.smallest.is_none_or(|size| area(seen.size) < area(size)) {
            self.smallest = Some(seen.size);
        }
        if self.largest.is_none_or(|size| area(seen.size) > area(size)) {
            self.largest = Some(seen.size);
        }
        match seen.channels {
            Channels::Grey => self.grey += 1,
            Channels::Rgb => self.colour += 1,
        }
        if let Some((_, count)) = seen.class.and_then(|class| self.classes.get_mut(class)) {
            *count += 1;
        }
        self.captions += usize::from(seen.has_caption);
    }
}

/// Several lines for a person, without a final line break. Sizes are given as width x height.
impl fmt::Display for DatasetSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({})\n  pictures  {}",
            self.name, self.description, self.count
        )?;
        if let (Some((h, w)), Some((to_h, to_w))) = (self.smallest, self.largest) {
            write!(f, "\n  size      {w}x{h}")?;
            if (h, w) != (to_h, to_w) {
                write!(f, " to {to_w}x{to_h}")?;
            }
            match (self.grey, self.colour) {
                (_, 0) => write!(f, ", grey")?,
                (0, _) => write!(f, ", colour")?,
                (grey, colour) => write!(f, ", {grey} grey and {colour} in colour")?,
            }
        }
        if !self.classes.is_empty() {
            let classes: Vec<_> = self
                .classes
                .iter()
                .map(|(name, count)| format!("{name} ({count})"))
                .collect();
            write!(
                f,
                "\n  classes   {}: {}",
                classes.len(),
                classes[..classes.len().min(MOST)].join(", ")
            )?;
            if classes.len() > MOST {
                let counts = self.classes.iter().map(|(_, count)| *count);
                let (fewest, most) = (counts.clone().min().unwrap_or(0), counts.max().unwrap_or(0));
                let empty = self.classes.iter().filter(|(_, count)| *count == 0).count();
                write!(
                    f,
                    " and {} more, of {fewest} to {most} pictures",
                    classes.len() - MOST
                )?;
                if empty > 0 {
                    write!(f, "; {empty} without any")?;
                }
            }
        }
        if self.captions > 0 {
            write!(f, "\n  captions  {}", self.captions)?;
        }
        for sentence in &self.left_out {
            write!(f, "\n  left out  {sentence}")?;
        }
        if !self.broken.is_empty() {
            write!(f, "\n  broken    {}", self.broken.len())?;
            for (path, reason) in &self.broken {
                write!(f, "\n    {}: {reason}", path.display())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{ImageFolder, digits};

    #[test]
    fn the_digits_are_described() {
        let summary = DatasetSummary::of(&digits().unwrap());
        assert_eq!((summary.count, summary.grey, summary.colour), (1797, 1797, 0));
        assert_eq!((summary.smallest, summary.largest), (Some((8, 8)), Some((8, 8))));
        assert_eq!(summary.classes[3], ("3".to_string(), 183));
        let text = summary.to_string();
        assert!(
            text.contains("size      8x8, grey\n  classes   10: 0 (178), 1 (182)"),
            "{text}"
        );
        assert!(!text.contains("broken") && !text.contains("captions"));
    }

    #[test]
    fn broken_files_are_listed_with_their_reasons() {
        let root = tempfile::tempdir().unwrap();
        image::RgbImage::new(3, 2)
            .save(root.path().join("a.png"))
            .unwrap();
        image::GrayImage::new(5, 4)
            .save(root.path().join("b.bmp"))
            .unwrap();
        std::fs::write(root.path().join("c.png"), "text").unwrap();
        let summary = DatasetSummary::of(&ImageFolder::open(&root).unwrap());
        assert_eq!((summary.smallest, summary.largest), (Some((2, 3)), Some((4, 5))));
        assert_eq!(summary.broken.len(), 1);
        assert!(summary.broken[0].0.ends_with("c.png") && summary.broken[0].1.contains("not a picture"));
        let text = summary.to_string();
        assert!(
            text.contains("3x2 to 5x4") && text.contains("\n  broken    1\n"),
            "{text}"
        );
    }
}
