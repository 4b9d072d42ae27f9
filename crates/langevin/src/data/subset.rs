//! The pictures of some of a data set's classes.

use super::{Dataset, Example, Group, out_of_range};
use crate::{Error, Result};

/// A data set's pictures of chosen classes, in its order. The classes are numbered anew, in the data set's order too.
pub struct ClassSubset {
    whole: Box<dyn Dataset>,
    /// Where each picture stands in the whole.
    indices: Vec<usize>,
    /// The new number of each of the whole's classes.
    numbers: Vec<Option<usize>>,
    names: Vec<String>,
    groups: Option<Vec<Group>>,
}

impl ClassSubset {
    /// Reads which class each picture has, and keeps those of the named ones.
    ///
    /// # Errors
    /// [`Error::Config`] if the data set has no classes or none of such a name, or if no picture is left; whatever
    /// keeps a picture's class from being read.
    pub fn new(whole: Box<dyn Dataset>, classes: &[String]) -> Result<Self> {
        let of = format!("the data set {}", whole.name());
        let Some(known) = whole.class_names() else {
            return Err(Error::Config(format!(
                "{of} has no classes to choose among with `only_classes`"
            )));
        };
        if let Some(unknown) = classes.iter().find(|name| !known.contains(name)) {
            return Err(Error::Config(format!(
                "{of} has no class \"{unknown}\"; its classes are {}",
                known.join(", ")
            )));
        }
        let names: Vec<String> = known
            .iter()
            .filter(|name| classes.contains(name))
            .cloned()
            .collect();
        let number = |name: &String| names.iter().position(|chosen| chosen == name);
        let numbers: Vec<Option<usize>> = known.iter().map(number).collect();
        let mut indices = vec![];
        for index in 0..whole.len() {
            let class = whole.class(index)?;
            if class
                .and_then(|class| numbers.get(class).copied().flatten())
                .is_some()
            {
                indices.push(index);
            }
        }
        if indices.is_empty() {
            return Err(Error::Config(format!(
                "{of} has no picture of {}",
                classes.join(", ")
            )));
        }
        let groups = whole.groups().map(|groups| shrunk(groups, &indices));
        Ok(Self {
            whole,
            indices,
            numbers,
            names,
            groups,
        })
    }

    fn place(&self, index: usize) -> Result<usize> {
        let place = self.indices.get(index).copied();
        place.ok_or_else(|| out_of_range(self.name(), index, self.indices.len()))
    }

    fn renumbered(&self, class: Option<usize>) -> Option<usize> {
        class.and_then(|class| self.numbers.get(class).copied().flatten())
    }
}

/// The groups with only the pictures at `indices`, by their new indices. Reading one still means reading all of it.
fn shrunk(groups: &[Group], indices: &[usize]) -> Vec<Group> {
    let new = |old: usize| indices.partition_point(|&index| index < old);
    let group = |group: &Group| Group {
        pictures: new(group.pictures.start)..new(group.pictures.end),
        bytes: group.bytes,
    };
    groups
        .iter()
        .map(group)
        .filter(|group| !group.pictures.is_empty())
        .collect()
}

impl Dataset for ClassSubset {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn get(&self, index: usize) -> Result<Example> {
        let example = self.whole.get(self.place(index)?)?;
        Ok(Example {
            class: self.renumbered(example.class),
            ..example
        })
    }

    fn class(&self, index: usize) -> Result<Option<usize>> {
        Ok(self.renumbered(self.whole.class(self.place(index)?)?))
    }

    fn class_names(&self) -> Option<&[String]> {
        Some(&self.names)
    }

    fn name(&self) -> &str {
        self.whole.name()
    }

    fn description(&self) -> String {
        format!("{}, only {}", self.whole.description(), self.names.join(", "))
    }

    fn is_small(&self) -> bool {
        self.whole.is_small()
    }

    fn groups(&self) -> Option<&[Group]> {
        self.groups.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::digits;

    fn only(classes: &[&str]) -> Result<ClassSubset> {
        let classes: Vec<String> = classes.iter().map(|&name| name.into()).collect();
        ClassSubset::new(Box::new(digits()?), &classes)
    }

    #[test]
    fn it_has_the_pictures_of_its_classes_in_their_order() {
        let (whole, some) = (digits().unwrap(), only(&["7", "3"]).unwrap());
        // np.bincount(load_digits().target)[[3, 7]]
        assert_eq!(some.len(), 183 + 179);
        assert_eq!(some.class_names().unwrap(), ["3", "7"]);
        assert!(some.description().ends_with(", only 3, 7"));
        let wanted: Vec<Example> = (0..whole.len())
            .map(|index| whole.get(index).unwrap())
            .filter(|example| matches!(example.class, Some(3 | 7)))
            .collect();
        for (index, wanted) in wanted.into_iter().enumerate() {
            let got = some.get(index).unwrap();
            assert_eq!(got.picture, wanted.picture);
            assert_eq!(got.class, Some(usize::from(wanted.class == Some(7))));
            assert_eq!(some.class(index).unwrap(), got.class);
        }
        assert!(some.get(some.len()).is_err());
    }

    #[test]
    fn classes_that_are_not_there_are_named_with_those_that_are() {
        let message = only(&["3", "three"]).err().expect("no such class").to_string();
        assert!(
            message.contains("\"three\"") && message.contains("0, 1, 2"),
            "{message}"
        );
    }

    #[test]
    fn groups_keep_to_the_pictures_that_are_left() {
        let group = |pictures: std::ops::Range<usize>| Group { pictures, bytes: 7 };
        let groups = [group(0..4), group(4..6), group(6..9)];
        assert_eq!(shrunk(&groups, &[1, 3, 6, 7, 8]), [group(0..2), group(2..5)]);
    }
}
