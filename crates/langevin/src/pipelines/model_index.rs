//! `model_index.json`: what a pipeline's folder holds.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Map, Value, json};

use super::PipelineClass;
use crate::{
    Error, Result, files,
    models::{AnyModelConfig, DIFFUSERS_VERSION, weights::CONFIG_NAME},
    schedulers::{AnyScheduler, SCHEDULER_CONFIG},
};

/// The name of the file at a pipeline's root.
pub const MODEL_INDEX: &str = "model_index.json";

/// A pipeline's class and its components. Mirrors what `DiffusionPipeline.save_pretrained` writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelIndex {
    /// The pipeline's class, such as `DDPMPipeline`.
    pub class_name: String,
    /// For each component's name, and so its folder's: the Python library and the class.
    pub components: BTreeMap<String, Component>,
    /// The pipeline's other settings, passed through as they were found.
    pub settings: BTreeMap<String, Value>,
}

/// What a component is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// The Python package, such as `diffusers`.
    pub library: String,
    /// The class within it, such as `UNet2DModel`.
    pub class_name: String,
}

impl ModelIndex {
    /// An index of a pipeline with these components: names and classes.
    pub fn new<'a>(class_name: &str, components: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let component = |class_name: &str| {
            let library = match AnyModelConfig::library_of(class_name) {
                Some(library) => library,
                None if ["CLIP", "DPT"].iter().any(|start| class_name.starts_with(start)) => "transformers",
                // Where the class stands among diffusers' modules.
                None if class_name == "StableDiffusionSafetyChecker" => "stable_diffusion",
                None => "diffusers",
            };
            Component {
                library: library.into(),
                class_name: class_name.into(),
            }
        };
        Self {
            class_name: class_name.into(),
            components: components
                .into_iter()
                .map(|(name, class)| (name.into(), component(class)))
                .collect(),
            settings: BTreeMap::new(),
        }
    }

    /// Reads the index of the pipeline in `folder`. Components that the pipeline does without (`[null, null]`) are left
    /// out. Where there is none, but the files of a model and of a scheduler lie side by side, it is what an index of
    /// them would say.
    ///
    /// # Errors
    /// If there is no such file, or it is not an index.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let path = folder.join(MODEL_INDEX);
        if !folder.exists() {
            return Err(Error::file(folder, "there is no such folder or file"));
        }
        if !path.is_file() {
            if folder.join(CONFIG_NAME).is_file() && folder.join(SCHEDULER_CONFIG).is_file() {
                return Self::of_parts(folder);
            }
            return Err(Error::file(
                folder,
                format!("holds no pipeline: there is no {MODEL_INDEX} in it"),
            ));
        }
        Self::of_value(files::read_json(&path)?, &path)
    }

    /// The index that a file holds.
    ///
    /// # Errors
    /// If it is none.
    pub fn of_value(value: Value, path: &Path) -> Result<Self> {
        let Value::Object(entries) = value else {
            return Err(Error::file(
                path,
                "is not a pipeline's index: it should be a JSON object",
            ));
        };
        let Some(Value::String(class_name)) = entries.get("_class_name") else {
            return Err(Error::file(
                path,
                "is not a pipeline's index: `_class_name` should name its class",
            ));
        };
        let mut index = Self::new(class_name, []);
        for (name, value) in &entries {
            match value {
                _ if name.starts_with('_') => {}
                // Components are folders: whoever joins their names need not look at them again.
                Value::Array(_) if !files::is_plain_name(name) => {
                    let message =
                        format!("names a component `{name}`, which is no name of a folder beside it");
                    return Err(Error::file(path, message));
                }
                Value::Array(pair) => match pair.as_slice() {
                    [Value::String(library), Value::String(class_name)] => {
                        let component = Component {
                            library: library.clone(),
                            class_name: class_name.clone(),
                        };
                        index.components.insert(name.clone(), component);
                    }
                    [Value::Null, Value::Null] => {}
                    _ => {
                        let message =
                            format!("the component `{name}` should be a library and a class: two strings");
                        return Err(Error::file(path, message));
                    }
                },
                setting => {
                    index.settings.insert(name.clone(), setting.clone());
                }
            }
        }
        Ok(index)
    }

    /// The index of the model and the scheduler whose files lie in `folder`.
    fn of_parts(folder: &Path) -> Result<Self> {
        let model = AnyModelConfig::load(folder.join(CONFIG_NAME))?.class_name();
        let scheduler = AnyScheduler::load(folder)?;
        let pipeline = PipelineClass::of(&scheduler).name;
        let components = [("unet", model), ("scheduler", scheduler.class_name())];
        Ok(Self::new(pipeline, components))
    }

    /// The class of the component `name`.
    ///
    /// # Errors
    /// If the pipeline in `folder` has no such component.
    pub fn component(&self, name: &str, folder: &Path) -> Result<&Component> {
        self.components.get(name).ok_or_else(|| {
            Error::file(
                folder.join(MODEL_INDEX),
                format!("names no component `{name}`, which a {} needs", self.class_name),
            )
        })
    }

    /// Writes the index into `folder`, with sorted keys as diffusers does.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let mut entries = Map::new();
        entries.insert("_class_name".into(), json!(self.class_name));
        entries.insert("_diffusers_version".into(), json!(DIFFUSERS_VERSION));
        for (name, component) in &self.components {
            entries.insert(name.clone(), json!([component.library, component.class_name]));
        }
        entries.extend(self.settings.clone());
        entries.sort_keys();
        files::write_json(folder.as_ref().join(MODEL_INDEX), &entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN_BY_DIFFUSERS: &str = include_str!("../../tests/reference/pipelines/ddpm/model_index.json");

    fn folder_with(text: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(MODEL_INDEX), text).unwrap();
        folder
    }

    #[test]
    fn an_index_is_written_byte_for_byte_as_diffusers_writes_it() {
        let read = ModelIndex::load(folder_with(WRITTEN_BY_DIFFUSERS).path()).unwrap();
        assert_eq!(
            read,
            ModelIndex::new(
                "DDPMPipeline",
                [("unet", "UNet2DModel"), ("scheduler", "DDPMScheduler")]
            )
        );
        let folder = tempfile::tempdir().unwrap();
        read.save(folder.path()).unwrap();
        assert_eq!(
            std::fs::read_to_string(folder.path().join(MODEL_INDEX)).unwrap(),
            WRITTEN_BY_DIFFUSERS
        );
    }

    #[test]
    fn absent_components_and_settings_are_told_apart() {
        let text =
            r#"{"_class_name": "P", "_name_or_path": "x", "safety_checker": [null, null], "clip": true}"#;
        let index = ModelIndex::load(folder_with(text).path()).unwrap();
        assert!(index.components.is_empty());
        assert_eq!(index.settings["clip"], json!(true));
    }

    #[test]
    fn what_is_not_an_index_is_said_to_be_none() {
        for (text, part) in [
            ("[]", "JSON object"),
            ("{}", "_class_name"),
            (r#"{"_class_name": "P", "unet": ["diffusers"]}"#, "`unet`"),
            (
                r#"{"_class_name": "P", "../x": ["a", "B"]}"#,
                "`../x`, which is no name",
            ),
            (r#"{"_class_name": "P", "/etc": ["a", "B"]}"#, "`/etc`"),
            (
                r#"{"_class_name": "P", "..\\x": [null, null]}"#,
                "no name of a folder",
            ),
            (r#"{"_class_name": "P", "C:x": ["a", "B"]}"#, "`C:x`"),
            (r#"{"_class_name": "P", ".git": ["a", "B"]}"#, "`.git`"),
            ("{", "not the JSON expected"),
        ] {
            let message = ModelIndex::load(folder_with(text).path())
                .unwrap_err()
                .to_string();
            assert!(message.contains(part), "{message}");
        }
        let empty = tempfile::tempdir().unwrap();
        assert!(
            ModelIndex::load(empty.path())
                .unwrap_err()
                .to_string()
                .contains("holds no pipeline")
        );
        assert!(
            ModelIndex::load(empty.path().join("x"))
                .unwrap_err()
                .to_string()
                .contains("no such folder")
        );
    }
}
