//! `classes.json`: the names of a class-conditional model's classes.
//!
//! Diffusers has no place for them; a file of its own at the pipeline's root is one that it overlooks.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Error, Result, files};

/// The name of the file at a pipeline's root.
pub const CLASSES: &str = "classes.json";

/// What the classes of a model stand for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classes {
    /// The classes' names, in the order of their numbers.
    #[serde(rename = "classes")]
    pub names: Vec<String>,
    /// The number that stands for "no class told", where the model was trained with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub null_class: Option<usize>,
}

impl Classes {
    /// Reads the file of the pipeline in `folder`; `None` where it has none.
    ///
    /// # Errors
    /// If the file cannot be read, or contradicts a model of `num_class_embeds` classes.
    pub fn load(folder: impl AsRef<Path>, num_class_embeds: Option<usize>) -> Result<Option<Self>> {
        let path = folder.as_ref().join(CLASSES);
        if !path.exists() {
            return Ok(None);
        }
        let classes: Self = files::read_json(&path)?;
        let Some(known) = num_class_embeds else {
            return Err(Error::file(path, "names classes, but the model takes none"));
        };
        if classes.names.len() > known || classes.null_class.is_some_and(|class| class >= known) {
            return Err(Error::file(
                path,
                format!("names more classes than the {known} that the model has"),
            ));
        }
        Ok(Some(classes))
    }

    /// Writes the file into a pipeline's folder.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        files::write_json(folder.as_ref().join(CLASSES), self)
    }

    /// The number of the class that somebody calls `class`: by its name, or by its number; `none` is the null class.
    ///
    /// # Errors
    /// If there is no such class, with those that there are.
    pub fn find(&self, class: &str) -> Result<usize> {
        let by_name = self.names.iter().position(|name| name == class);
        let by_number = || class.parse().ok().filter(|&number| number < self.names.len());
        let none = || self.null_class.filter(|_| class == "none");
        by_name.or_else(by_number).or_else(none).ok_or_else(|| {
            let shown = 20;
            let names = self
                .names
                .iter()
                .take(shown)
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(", ");
            let more = self.names.len().saturating_sub(shown);
            let rest = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            Error::Config(format!(
                "there is no class `{class}`; the model knows {names}{rest}"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Classes {
        Classes {
            names: ["cat", "dog", "0"].map(String::from).to_vec(),
            null_class: Some(3),
        }
    }

    #[test]
    fn classes_survive_their_file() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Classes::load(folder.path(), Some(4)).unwrap(), None);
        three().save(folder.path()).unwrap();
        assert_eq!(Classes::load(folder.path(), Some(4)).unwrap(), Some(three()));
    }

    #[test]
    fn a_file_that_the_model_contradicts_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        three().save(folder.path()).unwrap();
        assert!(Classes::load(folder.path(), Some(3)).is_err());
        assert!(Classes::load(folder.path(), None).is_err());
    }

    #[test]
    fn a_name_goes_before_a_number() {
        assert_eq!(three().find("dog").unwrap(), 1);
        assert_eq!(three().find("1").unwrap(), 1);
        assert_eq!(three().find("0").unwrap(), 2);
        let message = three().find("cow").unwrap_err().to_string();
        assert!(message.contains("cat, dog"), "{message}");
        assert!(three().find("3").is_err());
    }

    #[test]
    fn none_is_the_null_class_where_there_is_one() {
        assert_eq!(three().find("none").unwrap(), 3);
        let without = Classes {
            null_class: None,
            ..three()
        };
        assert!(without.find("none").is_err());
    }
}
