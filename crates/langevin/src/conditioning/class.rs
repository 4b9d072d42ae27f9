//! A picture's class: one of a table that the model has learned, as channels, or as a number embedded like a timestep.
//!
//! Diffusers has no place for the names of classes; `classes.json`, a file of its own at the pipeline's root, is one that it overlooks.

use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::{
    Ask, Call, Condition, ConditionKind, Examples, Pair, Pretrained, RunSource, Source, check_dropout,
    would_be,
};
use crate::{
    Error, Result,
    error::require,
    files,
    models::{AnyModelConfig, ClassChannels, Components, Conditioning, ModelInputs},
    options::{ClassName, Request, SampleOptions},
    random::Generator,
    training::{ConditioningKind, TrainingConfig},
};

/// How a model takes a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClassInput {
    /// A learned vector, added to the time embedding.
    Table,
    /// Its number, embedded as a timestep is.
    Timestep,
    /// Channels beside the picture's.
    Channels(ClassChannels),
}

/// One class per picture.
#[derive(Clone, Debug)]
pub struct ClassCondition {
    /// How many the model tells apart, the null class included.
    known: usize,
    /// Their names, where they are known.
    names: Option<Classes>,
    input: ClassInput,
}

impl ClassCondition {
    /// For a model that tells `known` classes apart, the null class included, of which some or all have names.
    pub fn new(known: usize, names: Option<Classes>) -> Self {
        Self {
            known,
            names,
            input: ClassInput::Table,
        }
    }

    /// The names, as the pipeline's folder has them.
    pub fn names(&self) -> Option<&Classes> {
        self.names.as_ref()
    }

    /// The classes that can be asked for, with their names; those of a model from elsewhere, which has no names, are called by their
    /// numbers.
    pub fn known(&self) -> Classes {
        self.names.clone().unwrap_or_else(|| Classes {
            names: (0..self.known).map(|number| number.to_string()).collect(),
            null_class: None,
        })
    }

    /// The error where a model without classes is asked for one.
    pub(crate) fn unconditional(class: &ClassName) -> Error {
        Error::Config(format!(
            "the class `{class}` was asked for, but the model is unconditional: it knows no classes"
        ))
    }

    /// The number of a class by its name or number.
    pub(crate) fn number(&self, class: &ClassName) -> Result<i64> {
        let number = match class {
            ClassName::Number(number) => *number,
            ClassName::Name(name) => self.known().find(name)?,
        };
        // One that is too large for the model is refused with the call.
        Ok(i64::try_from(number).unwrap_or(i64::MAX))
    }

    fn null(&self) -> Option<usize> {
        self.names.as_ref()?.null_class
    }

    /// The same class for every picture.
    fn all(&self, class: usize, call: &Call<'_>) -> Result<Tensor<1, Int>> {
        // Bounded by the model's number of classes, so far below the limit of any integer.
        self.numbers(&vec![class as i64; call.options.batch_size], call)
    }

    /// The class embedding's input, checked against the model.
    fn numbers(&self, numbers: &[i64], call: &Call<'_>) -> Result<Tensor<1, Int>> {
        let batch = call.options.batch_size;
        if numbers.len() != batch {
            return Err(Error::Shape(format!(
                "{} classes were given for a batch of {batch}; there must be one per picture",
                numbers.len()
            )));
        }
        let within = |&number: &i64| usize::try_from(number).is_ok_and(|number| number < self.known);
        if let Some(number) = numbers.iter().find(|number| !within(number)) {
            return Err(Error::Config(format!(
                "there is no class {number}; the model knows 0 to {}",
                self.known - 1
            )));
        }
        Ok(tensor(numbers.to_vec(), call.device))
    }
}

fn tensor(numbers: Vec<i64>, device: &Device) -> Tensor<1, Int> {
    let count = numbers.len();
    Tensor::from_data(TensorData::new(numbers, [count]), device)
}

fn of_classes(classes: Tensor<1, Int>) -> Conditioning {
    Conditioning {
        classes: Some(classes),
        ..Conditioning::default()
    }
}

impl Condition for ClassCondition {
    fn fit(&self, inputs: &mut ModelInputs) {
        inputs.num_classes = Some(self.known);
        match self.input {
            ClassInput::Table => {}
            ClassInput::Timestep => inputs.class_timestep = true,
            ClassInput::Channels(channels) => inputs.class_channels = Some(channels),
        }
    }

    fn of_call(&self, call: &Call<'_>) -> Result<Pair> {
        let options = call.options;
        let towards = match (&options.classes, self.null()) {
            (Some(numbers), _) => self.numbers(numbers, call)?,
            (None, Some(null)) => self.all(null, call)?,
            (None, None) => {
                return Err(Error::Config(format!(
                    "the model is class-conditional and has no null class: a class, 0 to {}, must be given",
                    self.known - 1
                )));
            }
        };
        let away = match (&options.negative_classes, self.null()) {
            _ if !options.guidance.is_on() => towards.clone(),
            (Some(numbers), _) => self.numbers(numbers, call)?,
            (None, Some(null)) => self.all(null, call)?,
            (None, None) => {
                return Err(Error::Config(
                    "the model has no null class, so classifier-free guidance needs classes to lead away from".into(),
                ));
            }
        };
        Ok(Pair {
            towards: of_classes(towards),
            away: of_classes(away),
            ..Pair::default()
        })
    }

    /// The null class in place of a picture's own, and of one that is not known.
    fn of_batch(
        &self,
        examples: &Examples<'_>,
        dropout: f64,
        generator: &mut Generator,
    ) -> Result<Conditioning> {
        let classes = examples.classes.ok_or_else(|| {
            Error::option(
                &["conditioning"],
                "the data set names no class for a picture: use `conditioning` none",
            )
        })?;
        let null = self.known as i64 - 1;
        let draws = generator.rand(classes.len());
        let kept = classes.iter().zip(draws);
        let kept = kept.map(|(&class, u)| {
            if f64::from(u) < dropout || class < 0 {
                null
            } else {
                class
            }
        });
        Ok(of_classes(tensor(kept.collect(), &examples.clean.device())))
    }

    fn save(&self, folder: &Path) -> Result<Vec<(&'static str, &'static str)>> {
        if let Some(names) = &self.names {
            names.save(folder)?;
        }
        Ok(Vec::new())
    }
}

impl ConditionKind for ClassCondition {
    fn of_pipeline(source: &Source<'_>) -> Result<Option<Self>> {
        let known = source.config.num_class_embeds();
        let names = match source.components {
            Some(components) => {
                let is_transformer = matches!(source.config, AnyModelConfig::DiT(_));
                Classes::of_components(components, known, is_transformer)?
            }
            None => None,
        };
        Ok(known.map(|known| Self::new(known, names)))
    }

    fn of_run(source: &RunSource<'_>, _: &mut Generator) -> Result<Option<(Self, f64)>> {
        let config = source.config;
        let input = match config.conditioning {
            ConditioningKind::Class => ClassInput::Table,
            ConditioningKind::ClassTimestep => ClassInput::Timestep,
            ConditioningKind::Channels => ClassInput::Channels(config.class_emb_size),
            _ => return Ok(None),
        };
        let names = source.dataset.class_names().ok_or_else(|| {
            Error::option(
                &["conditioning"],
                format!(
                    "the data set {} has no classes, which `conditioning` {} needs: put the pictures of each class into a folder of \
                     its own, or add a `label` column to metadata.jsonl",
                    source.dataset.name(),
                    config.conditioning
                ),
            )
        })?;
        let names = Classes {
            names: names.to_vec(),
            null_class: Some(names.len()),
        };
        let condition = Self {
            known: names.names.len() + 1,
            names: Some(names),
            input,
        };
        Ok(Some((condition, config.class_dropout())))
    }

    fn check(config: &TrainingConfig) -> Result<()> {
        let kind = config.conditioning;
        check_dropout(
            ("class_dropout", config.class_dropout),
            kind.tells_classes(),
            || would_be(ConditioningKind::Class, config),
        )?;
        require(
            config.class_emb_size == ClassChannels::default() || kind == ConditioningKind::Channels,
            || {
                format!(
                    "`class_emb_size` is the size of a class's channels, and `conditioning` is `{kind}`, not `channels`"
                )
            },
        )
    }

    fn of_pretrained(model: &Pretrained<'_>, config: &mut TrainingConfig) -> Result<bool> {
        config.conditioning = match model.config {
            AnyModelConfig::ClassChannels(own) => {
                config.class_emb_size = own.class_emb_size;
                ConditioningKind::Channels
            }
            AnyModelConfig::Condition(_) => return Ok(false),
            model if model.num_class_embeds().is_some() => ConditioningKind::Class,
            _ => return Ok(false),
        };
        Ok(true)
    }

    fn rows(request: &Request) -> Vec<usize> {
        vec![request.class.len()]
    }

    fn ask(condition: Option<&Self>, ask: &Ask<'_>, options: &mut SampleOptions) -> Result<()> {
        let request = ask.request;
        let Some(condition) = condition else {
            return match request.class.first() {
                None => Ok(()),
                Some(class) => Err(Self::unconditional(class)),
            };
        };
        let number = |class: &ClassName| condition.number(class);
        let classes = request.class.iter().map(number).collect::<Result<Vec<i64>>>()?;
        options.classes = ask.turns(&classes);
        let negative = request.negative_class.as_ref().map(number).transpose()?;
        options.negative_classes = negative.map(|class| vec![class; ask.rows]);
        Ok(())
    }

    fn refuse(options: &SampleOptions) -> Result<()> {
        match options.classes {
            Some(_) => Err(Error::Config(
                "classes were given, but the model knows none: it is unconditional".into(),
            )),
            None => Ok(()),
        }
    }
}

/// The setting of a diffusion transformer's index that names its classes.
const LABELS: &str = "id2label";
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

    /// The classes of a pipeline: its file's, or those that the index of a diffusion transformer names, which has a null class after
    /// them.
    fn of_components(
        components: &dyn Components,
        num_class_embeds: Option<usize>,
        is_transformer: bool,
    ) -> Result<Option<Self>> {
        if let Some(classes) = Self::load(components.path(), num_class_embeds)? {
            return Ok(Some(classes));
        }
        let Some(known) = num_class_embeds.filter(|_| is_transformer) else {
            return Ok(None);
        };
        let labels = components.setting(LABELS);
        let name = |number: usize| {
            let label = labels.and_then(|labels| labels.get(number.to_string())?.as_str());
            // Of several words for one thing the first.
            let first = label.and_then(|label| label.split(',').next());
            first.map_or_else(|| number.to_string(), |name| name.trim().to_string())
        };
        Ok(Some(Self {
            names: (0..known.saturating_sub(1)).map(name).collect(),
            null_class: known.checked_sub(1),
        }))
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
