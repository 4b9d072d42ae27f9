//! Several labels of a picture at once, such as what CelebA says of a face: multi-hot, through the projection in the place of the class
//! embedding (`class_embed_type: projection` of diffusers' `UNet2DConditionModel`).

use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;

use super::{
    Ask, Call, Condition, ConditionKind, Examples, Pair, Pretrained, RunSource, Source, check_dropout,
    dropped, of_vector, would_be,
};
use crate::{
    Error, Result,
    models::{
        AnyModelConfig, Conditioning, ModelInputs, VectorInput, unet2d_condition::ConditionClassEmbedType,
    },
    options::{Request, SampleOptions},
    random::Generator,
    training::{ConditioningKind, TrainingConfig},
};

/// Says in a model's configuration which attributes it knows, in the order of its vector's numbers.
const NOTE: &str = "conditioning_attributes";
/// What a request calls a picture that has none of them.
const NONE: &str = "none";
/// How many names an error lists at most.
const SHOWN: usize = 20;

/// Which attributes each picture has.
///
/// The model's vector has a 1 for each attribute that a picture has, and one number more: 1 where attributes are given, 0 where they
/// are withheld, as for classifier-free guidance. Otherwise a picture that has none of them would look like one of which nothing is known.
#[derive(Clone, Debug)]
pub struct AttributesCondition {
    names: Vec<String>,
}

impl AttributesCondition {
    /// The attributes' names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Which attributes a list such as `smiling,glasses` names; `none` is a picture that has none of them.
    ///
    /// # Errors
    /// If there is no such attribute, with those that there are.
    pub fn find(&self, list: &str) -> Result<Vec<bool>> {
        let mut has = vec![false; self.names.len()];
        if list.trim() == NONE {
            return Ok(has);
        }
        for asked in list.split(',').map(str::trim) {
            let place = self.names.iter().position(|name| name == asked);
            has[place.ok_or_else(|| self.unknown(asked))?] = true;
        }
        Ok(has)
    }

    /// The list that [`Self::find`] reads so.
    pub(crate) fn list(&self, has: &[bool]) -> String {
        let names = self.names.iter().zip(has);
        let had: Vec<&str> = names
            .filter(|(_, has)| **has)
            .map(|(name, _)| name.as_str())
            .collect();
        if had.is_empty() {
            NONE.into()
        } else {
            had.join(",")
        }
    }

    fn unknown(&self, asked: &str) -> Error {
        let shown = self.names.iter().take(SHOWN).map(String::as_str);
        let shown = shown.collect::<Vec<_>>().join(", ");
        let rest = match self.names.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Error::option(
            &["attributes"],
            format!("`attributes`: there is no attribute `{asked}`; the model knows {shown}{rest}"),
        )
    }

    /// How many numbers the vector has.
    fn dimension(&self) -> usize {
        self.names.len() + 1
    }

    fn vectors(&self, pictures: &[Vec<bool>], device: &Device) -> Tensor<2> {
        let number = |has: &bool| f32::from(u8::from(*has));
        let row = |has: &Vec<bool>| has.iter().map(number).chain([1.0]).collect::<Vec<f32>>();
        let values: Vec<f32> = pictures.iter().flat_map(row).collect();
        Tensor::from_data(
            TensorData::new(values, [pictures.len(), self.dimension()]),
            device,
        )
    }
}

impl Condition for AttributesCondition {
    fn fit(&self, inputs: &mut ModelInputs) {
        inputs.vector = Some(VectorInput {
            note: (NOTE, self.names.clone().into()),
            dimension: self.dimension(),
            embedding: ConditionClassEmbedType::Projection,
        });
    }

    fn of_call(&self, call: &Call<'_>) -> Result<Pair> {
        let batch = call.options.batch_size;
        let nothing = Tensor::zeros([batch, self.dimension()], call.device);
        let towards = match &call.options.attributes {
            None => nothing.clone(),
            Some(given) => {
                if given.len() != batch || given.iter().any(|has| has.len() != self.names.len()) {
                    return Err(Error::Shape(format!(
                        "attributes were given for {} pictures in a batch of {batch}; there must be {} for each",
                        given.len(),
                        self.names.len()
                    )));
                }
                self.vectors(given, call.device)
            }
        };
        Ok(Pair {
            towards: of_vector(towards),
            away: of_vector(nothing),
            ..Pair::default()
        })
    }

    /// Zeros in place of a picture's own.
    fn of_batch(
        &self,
        examples: &Examples<'_>,
        dropout: f64,
        generator: &mut Generator,
    ) -> Result<Conditioning> {
        let attributes = examples.attributes;
        if attributes.iter().any(|has| has.len() != self.names.len()) {
            return Err(Error::option(
                &["attribute_columns"],
                "the data set was opened without the columns of `attribute_columns`",
            ));
        }
        let vectors = self.vectors(attributes, &examples.clean.device());
        Ok(of_vector(dropped(vectors, dropout, generator)))
    }
}

impl ConditionKind for AttributesCondition {
    fn of_pipeline(source: &Source<'_>) -> Result<Option<Self>> {
        let Some(names) = noted(source.config)? else {
            return Ok(None);
        };
        let condition = Self { names };
        let numbers = source.config.vector_dim().unwrap_or_default();
        if numbers != condition.dimension() {
            return Err(Error::Config(format!(
                "the model's configuration names {} attributes (`{NOTE}`), which are a vector of {} numbers, and the model takes one of \
                 {numbers}",
                condition.names.len(),
                condition.dimension()
            )));
        }
        Ok(Some(condition))
    }

    fn of_run(source: &RunSource<'_>, _: &mut Generator) -> Result<Option<(Self, f64)>> {
        let config = source.config;
        let names = config.attribute_columns.clone();
        let is_asked = config.conditioning == ConditioningKind::Attributes;
        Ok(is_asked.then(|| (Self { names }, config.attribute_dropout.unwrap_or(0.1))))
    }

    fn check(config: &TrainingConfig) -> Result<()> {
        let is_asked = config.conditioning == ConditioningKind::Attributes;
        let columns = &config.attribute_columns;
        let wrong = |message: String| Err(Error::option(&["attribute_columns", "conditioning"], message));
        check_dropout(("attribute_dropout", config.attribute_dropout), is_asked, || {
            would_be(ConditioningKind::Attributes, config)
        })?;
        if is_asked && columns.is_empty() {
            return wrong("`conditioning` attributes needs `attribute_columns`: the data's columns, such as smiling,glasses".into());
        }
        if !is_asked && !columns.is_empty() {
            return wrong(format!(
                "`attribute_columns` has nothing to condition: {}",
                would_be(ConditioningKind::Attributes, config)
            ));
        }
        check_names(columns).or_else(|message| wrong(format!("`attribute_columns` {message}")))
    }

    fn of_pretrained(model: &Pretrained<'_>, config: &mut TrainingConfig) -> Result<bool> {
        let (Some(names), AnyModelConfig::Condition(own)) = (noted(model.config)?, model.config) else {
            return Ok(false);
        };
        let is_it = own.class_embed_type == Some(ConditionClassEmbedType::Projection) && !model.has_text;
        if is_it {
            config.attribute_columns = names;
            config.conditioning = ConditioningKind::Attributes;
        }
        Ok(is_it)
    }

    fn rows(request: &Request) -> Vec<usize> {
        vec![request.attributes.len()]
    }

    fn ask(condition: Option<&Self>, ask: &Ask<'_>, options: &mut SampleOptions) -> Result<()> {
        let lists = &ask.request.attributes;
        if lists.is_empty() {
            return Ok(());
        }
        let condition = condition.ok_or_else(|| {
            Error::option(
                &["attributes"],
                "`attributes`: the model knows none; one that is trained with the conditioning `attributes` does",
            )
        })?;
        let sets = lists.iter().map(|list| condition.find(list));
        options.attributes = ask.turns(&sets.collect::<Result<Vec<_>>>()?);
        Ok(())
    }

    fn refuse(options: &SampleOptions) -> Result<()> {
        match options.attributes {
            Some(_) => Err(Error::Config(
                "attributes were given, but the model knows none".into(),
            )),
            None => Ok(()),
        }
    }
}

/// The attributes that a model's configuration names, if it names any.
fn noted(config: &AnyModelConfig) -> Result<Option<Vec<String>>> {
    let Some((NOTE, value)) = config.vector_note() else {
        return Ok(None);
    };
    let names = value.as_array().and_then(|names| {
        let names = names.iter().map(Value::as_str);
        names
            .map(|name| Some(name?.to_string()))
            .collect::<Option<Vec<_>>>()
    });
    let wrong = |why: &str| Error::Config(format!("the model's configuration has a `{NOTE}` that {why}"));
    let names = names.ok_or_else(|| wrong("is no list of names"))?;
    check_names(&names).map_err(|why| wrong(&why))?;
    Ok(Some(names))
}

/// Refuses names that a request could not tell apart; the error is the end of a sentence.
fn check_names(names: &[String]) -> Result<(), String> {
    for (place, name) in names.iter().enumerate() {
        if name.trim() != name || name.is_empty() || name == NONE || name.contains(',') {
            return Err(format!(
                "names \"{name}\": a name is not empty, not `{NONE}`, and has no comma in it nor space around it"
            ));
        }
        if names[..place].contains(name) {
            return Err(format!("names `{name}` twice"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::default_device;

    fn three() -> AttributesCondition {
        AttributesCondition {
            names: ["smiling", "glasses", "hat"].map(String::from).to_vec(),
        }
    }

    #[test]
    fn lists_are_read_and_written() {
        let condition = three();
        for (list, has) in [
            ("smiling,hat", [true, false, true]),
            ("hat, smiling", [true, false, true]),
            ("none", [false; 3]),
            ("glasses", [false, true, false]),
        ] {
            assert_eq!(condition.find(list).unwrap(), has, "{list}");
            assert_eq!(condition.find(&condition.list(&has)).unwrap(), has);
        }
        for list in ["beard", "smiling,", "", "smiling,none", "Smiling"] {
            let message = condition.find(list).unwrap_err().to_string();
            assert!(
                message.contains("the model knows smiling, glasses, hat"),
                "{message}"
            );
        }
    }

    #[test]
    fn none_of_them_is_not_nothing_known() {
        let vectors = three().vectors(&[vec![true, false, true], vec![false; 3]], &default_device());
        let values: Vec<f32> = vectors.into_data().try_into_vec().unwrap();
        assert_eq!(values, [1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn names_that_cannot_be_told_apart_are_refused() {
        let check =
            |names: &[&str]| check_names(&names.iter().map(|name| (*name).into()).collect::<Vec<_>>());
        check(&["a", "b c", "ä"]).unwrap();
        for names in [&["a", "a"][..], &["none"], &[""], &["a,b"], &[" a"]] {
            check(names).unwrap_err();
        }
    }
}
