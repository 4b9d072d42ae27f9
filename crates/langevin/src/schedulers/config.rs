//! Scheduler configs as files: what is missing takes the default, what is unknown is kept, and what one class knows passes
//! to another. Mirrors `diffusers.ConfigMixin`.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{Error, Result, models::DIFFUSERS_VERSION};

/// A config as JSON holds it: keys and values.
pub type ConfigMap = serde_json::Map<String, Value>;

const CLASS_NAME: &str = "_class_name";
const VERSION: &str = "_diffusers_version";
/// Where a config in memory lists the keys that nobody set. They do not pass to another class, whose defaults may differ,
/// and the list itself is not written to files, which hold every value.
const USED_DEFAULTS: &str = "_use_default_values";
/// Other keys that diffusers keeps in memory alone.
const UNWRITTEN: [&str; 2] = ["_ignore_files", "_pre_quantization_dtype"];

/// The config of one scheduler class.
pub trait SchedulerConfig: Serialize + DeserializeOwned + Default {
    /// The name of the class in diffusers, as `_class_name` has it.
    const CLASS_NAME: &'static str;

    /// The keys that this class does not know: kept for those that do, and written back.
    fn extra_mut(&mut self) -> &mut ConfigMap;
}

/// Reads a class's config from the map of a file.
///
/// # Errors
/// If a key that the class knows has a value that it does not; the error names both.
pub(super) fn read<C: SchedulerConfig>(mut map: ConfigMap) -> Result<C> {
    for key in [CLASS_NAME, VERSION, USED_DEFAULTS].iter().chain(&UNWRITTEN) {
        map.remove(*key);
    }
    let mut missing = Vec::new();
    for (key, default) in known_keys::<C>()? {
        match map.get_mut(&key) {
            Some(value) => as_python(&default, value),
            None => missing.push(Value::String(key)),
        }
    }
    let mut config: C =
        serde_json::from_value(Value::Object(map.clone())).map_err(|error| culprit::<C>(map, &error))?;
    config
        .extra_mut()
        .insert(USED_DEFAULTS.to_owned(), Value::Array(missing));
    Ok(config)
}

/// Makes of a value what it is to Python where `default` stands else: nothing is a no, and 1.0 is 1.
fn as_python(default: &Value, value: &mut Value) {
    let whole = value
        .as_f64()
        .filter(|number| number.fract() == 0.0 && (0.0..1e9).contains(number));
    match (default, whole) {
        (Value::Bool(_), _) if value.is_null() => *value = false.into(),
        (Value::Number(default), Some(whole)) if default.is_u64() => *value = (whole as u64).into(),
        _ => {}
    }
}

/// The config in memory: every key that the class knows, those that it keeps for others, and which nobody set. Where that
/// was not recorded when the config was read, it is those that have the default's value.
pub(super) fn in_memory<C: SchedulerConfig>(config: &C) -> Result<ConfigMap> {
    let mut map = to_map(config)?;
    if !map.contains_key(USED_DEFAULTS) {
        let defaults = known_keys::<C>()?
            .into_iter()
            .filter(|(key, value)| map.get(key) == Some(value));
        let names = defaults.map(|(key, _)| Value::String(key)).collect();
        map.insert(USED_DEFAULTS.to_owned(), Value::Array(names));
    }
    map.insert(CLASS_NAME.to_owned(), C::CLASS_NAME.into());
    map.insert(VERSION.to_owned(), DIFFUSERS_VERSION.into());
    Ok(map)
}

/// The config as diffusers writes it to a file.
pub(super) fn written(mut in_memory: ConfigMap) -> ConfigMap {
    for key in [USED_DEFAULTS].iter().chain(&UNWRITTEN) {
        in_memory.remove(*key);
    }
    in_memory
}

/// The config of class `C` that shares what it can with another class's: diffusers' `from_config`.
///
/// # Errors
/// As [`read`].
pub(super) fn convert<C: SchedulerConfig>(other: &ConfigMap) -> Result<C> {
    let unset = other
        .get(USED_DEFAULTS)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let set = other
        .iter()
        .filter(|(key, _)| !unset.iter().any(|name| name == *key));
    read(set.map(|(key, value)| (key.clone(), value.clone())).collect())
}

/// The keys of class `C` with their defaults.
fn known_keys<C: SchedulerConfig>() -> Result<ConfigMap> {
    to_map(&C::default())
}

fn to_map<C: SchedulerConfig>(config: &C) -> Result<ConfigMap> {
    match serde_json::to_value(config) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Error::Config(format!(
            "the config of {} is not an object",
            C::CLASS_NAME
        ))),
        Err(e) => Err(Error::Config(format!(
            "the config of {} cannot be written: {e}",
            C::CLASS_NAME
        ))),
    }
}

/// Which key it was that did not fit: the first that does not on its own.
fn culprit<C: SchedulerConfig>(map: ConfigMap, error: &serde_json::Error) -> Error {
    let class = C::CLASS_NAME;
    for (key, value) in map {
        let message = format!("{class}: {key} is {value}, which does not fit");
        if let Err(error) = serde_json::from_value::<C>(Value::Object([(key, value)].into_iter().collect())) {
            return Error::Config(format!("{message}: {error}"));
        }
    }
    Error::Config(format!("{class}: {error}"))
}

/// Numbers that Python writes to JSON as `Infinity`, `-Infinity` and `NaN`, which JSON does not have. Between file and struct
/// they are strings of these words.
pub(super) mod python_float {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() {
            return serializer.serialize_f64(*value);
        }
        serializer.serialize_str(match value {
            value if value.is_nan() => "NaN",
            value if *value > 0.0 => "Infinity",
            _ => "-Infinity",
        })
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(f64),
            Word(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(number) => Ok(number),
            Written::Word(word) => match word.as_str() {
                "Infinity" => Ok(f64::INFINITY),
                "-Infinity" => Ok(f64::NEG_INFINITY),
                _ => Err(D::Error::custom(format!("`{word}` is not a number"))),
            },
        }
    }
}

/// What Python writes for numbers that JSON does not have.
const PYTHON_NUMBERS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// JSON as Python reads it, with numbers that JSON does not have made strings.
pub(super) fn quote_python_numbers(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_string = false;
    while let Some(next) = rest.chars().next() {
        if !in_string && let Some(word) = PYTHON_NUMBERS.iter().find(|word| rest.starts_with(**word)) {
            quoted.push('"');
            quoted.push_str(word);
            quoted.push('"');
            rest = &rest[word.len()..];
            continue;
        }
        let mut taken = next.len_utf8();
        match next {
            '"' => in_string = !in_string,
            '\\' => taken += rest[taken..].chars().next().map_or(0, char::len_utf8),
            _ => {}
        }
        quoted.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    quoted
}

/// JSON as Python writes it, from JSON in which these numbers are strings.
pub(super) fn unquote_python_numbers(text: &str) -> String {
    // Within a string of JSON there is no bare quotation mark, so that this cannot be part of one.
    PYTHON_NUMBERS.iter().fold(text.to_owned(), |text, word| {
        text.replace(&format!(": \"{word}\""), &format!(": {word}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_json_lacks_pass_through_and_strings_stay() {
        let python = r#"{"a": -Infinity, "b": [NaN, 1], "c": "it is \"Infinity\" here", "d": Infinity}"#;
        let quoted = quote_python_numbers(python);
        let map: ConfigMap = serde_json::from_str(&quoted).unwrap();
        assert_eq!(map["a"], "-Infinity");
        assert_eq!(map["b"][0], "NaN");
        assert_eq!(map["c"], "it is \"Infinity\" here");
        assert_eq!(
            unquote_python_numbers(r#"{"a": "-Infinity", "b": 1}"#),
            r#"{"a": -Infinity, "b": 1}"#
        );
    }
}
