//! The pictures of some of a data set's classes.

use super::{Dataset, Example, Fingerprint, Group, out_of_range};
use crate::{Error, Result, random::Generator};

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
        let mut chosen = vec![false; known.len()];
        for text in classes {
            let found = named(text, known).map_err(|unknown| {
                Error::Config(format!(
                    "{of} has no class \"{unknown}\"; its classes are {}",
                    listed(known)
                ))
            })?;
            found.into_iter().for_each(|class| chosen[class] = true);
        }
        let names: Vec<String> = known
            .iter()
            .zip(&chosen)
            .filter(|(_, chosen)| **chosen)
            .map(|(name, _)| name.clone())
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

/// The classes that a text names: one by its whole name, else several with commas between them. Each is a name, as it is or in quotes, or
/// a number where there is no such name. A name that has commas itself is found too; of several that are possible, the longest.
///
/// # Errors
/// The part that names none.
fn named(text: &str, known: &[String]) -> Result<Vec<usize>, String> {
    let whole = |name: &str| known.iter().position(|known| known == name);
    if let Some(class) = whole(text.trim()) {
        return Ok(vec![class]);
    }
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (class, length) = first_named(rest, &whole)?;
        let class = class.or_else(|| {
            rest[..length]
                .trim()
                .parse()
                .ok()
                .filter(|&class| class < known.len())
        });
        found.push(class.ok_or_else(|| rest[..length].trim().to_string())?);
        rest = rest[length..]
            .trim_start()
            .strip_prefix(',')
            .unwrap_or_default()
            .trim_start();
    }
    Ok(found)
}

/// The first class that a list names, if it is one, and how long its name is there.
///
/// # Errors
/// The name, where it is in quotes and no class, or its quotes do not end.
fn first_named(list: &str, whole: &impl Fn(&str) -> Option<usize>) -> Result<(Option<usize>, usize), String> {
    if let Some(quote) = list.chars().next().filter(|c| matches!(c, '"' | '\''))
        && let Some(end) = list[1..].find(quote)
        && matches!(list[end + 2..].trim_start().chars().next(), None | Some(','))
    {
        let name = &list[1..=end];
        return whole(name)
            .map(|class| (Some(class), end + 2))
            .ok_or_else(|| name.to_string());
    }
    let ends = list.match_indices(',').map(|(at, _)| at).chain([list.len()]);
    let named = ends
        .clone()
        .filter_map(|end| Some((whole(list[..end].trim())?, end)))
        .last();
    let first = ends.clone().next().unwrap_or(list.len());
    Ok(named.map_or((None, first), |(class, end)| (Some(class), end)))
}

/// The names of classes, or the first of very many.
fn listed(names: &[String]) -> String {
    const MOST: usize = 50;
    match names.len().saturating_sub(MOST) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names[..MOST].join(", ")),
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

    fn caption(&self, index: usize) -> Result<Option<String>> {
        self.whole.caption(self.place(index)?)
    }

    fn size(&self, index: usize) -> Result<[usize; 2]> {
        self.whole.size(self.place(index)?)
    }

    fn cut(&self, index: usize, generator: &mut Generator) -> Option<Result<Example>> {
        let place = match self.place(index) {
            Ok(place) => place,
            Err(error) => return Some(Err(error)),
        };
        let example = self.whole.cut(place, generator)?;
        Some(example.map(|example| Example {
            class: self.renumbered(example.class),
            ..example
        }))
    }

    fn class(&self, index: usize) -> Result<Option<usize>> {
        Ok(self.renumbered(self.whole.class(self.place(index)?)?))
    }

    fn folder(&self, index: usize) -> Option<String> {
        self.whole.folder(*self.indices.get(index)?)
    }

    fn class_names(&self) -> Option<&[String]> {
        Some(&self.names)
    }

    fn left_out(&self) -> Vec<String> {
        self.whole.left_out()
    }

    /// That of the whole, which its chosen classes make a part of.
    fn fingerprint(&self) -> Result<Fingerprint> {
        Ok(Fingerprint {
            pictures: self.len(),
            classes: self.names.clone(),
            ..self.whole.fingerprint()?
        })
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
    fn classes_are_named_with_commas_in_quotes_and_by_number() {
        let known = ["cock", "tench, Tinca tinca", "tench", "7", "a \"b\""].map(String::from);
        let found = |text: &str| named(text, &known);
        assert_eq!(found("tench, Tinca tinca"), Ok(vec![1]));
        assert_eq!(found("cock,tench, Tinca tinca , tench"), Ok(vec![0, 1, 2]));
        assert_eq!(found("'tench, Tinca tinca',\"cock\""), Ok(vec![1, 0]));
        assert_eq!(found("a \"b\""), Ok(vec![4]));
        // A name counts before a number.
        assert_eq!(found("7,0, 2,"), Ok(vec![3, 0, 2]));
        assert_eq!(found("5"), Err("5".into()));
        assert_eq!(found("tench, Tinca"), Err("Tinca".into()));
        assert_eq!(found("'tench, x'"), Err("tench, x".into()));
        assert_eq!(found("\"cock"), Err("\"cock".into()));
        assert_eq!(found("größe, é"), Err("größe".into()));
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
