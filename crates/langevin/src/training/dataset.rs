//! The data set that a run trains on.

use super::{TrainingConfig, config::DIGITS};
use crate::{
    Error, Result,
    data::{self, Dataset, OpenOptions, Repeated},
    models::ImageCondition,
};

impl TrainingConfig {
    /// The run's data set. Where the model denoises latents, sub-folders called `10_name class` are no classes, see [`Repeated`].
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open_dataset(&self) -> Result<Box<dyn Dataset>> {
        let dataset = data::open_with(&self.dataset()?, &self.open_options())?;
        match self.latent_base()? {
            Some(_) => Repeated::of(dataset),
            None => Ok(dataset),
        }
    }

    /// How the data set is opened.
    pub fn open_options(&self) -> OpenOptions {
        OpenOptions {
            config: self.dataset_config_name.clone(),
            split: self.split.clone(),
            alpha: self.alpha,
            conditioning_column: match &self.conditioning_image {
                Some(ImageCondition::Column(name)) => Some(name.clone()),
                _ => None,
            },
            caption_column: self.caption_column.clone(),
            attribute_columns: self.attribute_columns.clone(),
            medium: self.medium(),
            only_classes: self.only_classes.clone(),
        }
    }

    /// What [`data::open_with`] is to be given: the built-in data set's name, or a path.
    ///
    /// # Errors
    /// If nothing says so, or two fields say so.
    pub fn dataset(&self) -> Result<String> {
        match (self.dataset_name.as_deref(), &self.train_data_dir) {
            (None, None) => Err(Error::Config(format!(
                "no data set is named; `dataset_name` may be `{DIGITS}` or the path of a folder of pictures"
            ))),
            // Hugging Face's name for "whatever is in train_data_dir".
            (None | Some("imagefolder"), Some(folder)) => match folder.to_str() {
                Some(DIGITS) => Ok(format!("./{DIGITS}")),
                Some(path) => Ok(path.to_string()),
                None => Err(Error::file(folder, "is not a name in UTF-8")),
            },
            (Some(name), Some(folder)) => Err(Error::Config(format!(
                "`dataset_name` says `{name}` and `train_data_dir` says `{}`; name one of them",
                folder.display()
            ))),
            (Some(name), None) => Ok(name.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_data_set_is_named_once() {
        let named = |name: Option<&str>, folder: Option<&str>| {
            let (dataset_name, train_data_dir) = (name.map(String::from), folder.map(PathBuf::from));
            TrainingConfig {
                dataset_name,
                train_data_dir,
                ..TrainingConfig::script()
            }
            .dataset()
        };
        assert_eq!(named(Some("digits"), None).unwrap(), "digits");
        assert_eq!(named(None, Some("pictures")).unwrap(), "pictures");
        assert_eq!(named(None, Some("digits")).unwrap(), "./digits");
        assert_eq!(named(Some("imagefolder"), Some("pictures")).unwrap(), "pictures");
        assert!(named(Some("digits"), Some("pictures")).is_err());
        assert!(named(None, None).is_err());
    }
}
