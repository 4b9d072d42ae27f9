//! The schema of a request: what the description of the API shows, and what every request is held to.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Number, Value, json};

use crate::{
    loras,
    options::ServerOptions,
    refusal::{Refusal, SAMPLER},
    request::GenerateRequest,
};

/// Controls of a request, each of which asks another network in every step, and picture prompts.
const MOST_CONTROLS: usize = 4;
/// More numbers than any vector that a model is told has.
const MOST_NUMBERS: usize = 1 << 14;
/// Texts are said again up to so many characters.
const SAID: usize = 60;

/// The fields of a request.
#[derive(Clone, Debug)]
pub(crate) struct RequestSchema {
    fields: Map<String, Value>,
}

impl RequestSchema {
    /// The library's schema of a request, with the limits of a server.
    pub(crate) fn new(options: &ServerOptions) -> Self {
        let mut generator = SchemaGenerator::new(SchemaSettings::draft2020_12());
        let schema = GenerateRequest::json_schema(&mut generator).to_value();
        let mut fields = match schema {
            Value::Object(mut schema) => match schema.remove("properties") {
                Some(Value::Object(fields)) => fields,
                _ => Map::new(),
            },
            _ => Map::new(),
        };
        if let Some(scheduler) = fields.get("scheduler").cloned() {
            fields.insert(SAMPLER.into(), scheduler);
        }
        let limits = &options.limits;
        for (field, keyword, limit) in [
            ("steps", "maximum", limits.steps),
            ("original_inference_steps", "maximum", limits.steps),
            ("count", "maximum", limits.count),
            ("previews", "maximum", limits.previews),
            ("mask_crop", "maximum", limits.side as usize),
            ("timesteps", "maxItems", limits.steps),
            ("guide", "maxItems", limits.guides),
            ("control", "maxItems", MOST_CONTROLS),
            ("ip_adapter", "maxItems", MOST_CONTROLS),
            ("loras", "maxItems", loras::KEPT),
            ("upscale_steps", "maximum", limits.steps),
            ("vector", "maxItems", MOST_NUMBERS),
            ("encoding", "maxItems", MOST_NUMBERS),
        ] {
            if let Some(field) = fields.get_mut(field) {
                field[keyword] = limit.into();
            }
        }
        for field in fields.values_mut() {
            let is_picture = field.get("contentEncoding").is_some();
            if types(field).contains(&"array") && field.get("maxItems").is_none() {
                field["maxItems"] = limits.count.into();
            }
            if types(field).contains(&"string") && !is_picture {
                field["maxLength"] = limits.text.into();
            }
            if !is_picture
                && let Some(items) = field
                    .get_mut("items")
                    .filter(|items| types(items).contains(&"string"))
            {
                items["maxLength"] = limits.text.into();
            }
        }
        Self { fields }
    }

    /// The schema as the description of the API has it.
    pub(crate) fn to_value(&self) -> Value {
        json!({ "type": "object", "additionalProperties": false, "properties": self.fields })
    }

    /// Whether there is a field of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// Holds the fields of a request to the schema. A whole number that is written with a fraction, as `20.0`, becomes one without.
    ///
    /// # Errors
    /// If there is a field that there is not, or one that is not as the schema has it; the refusal names it.
    pub(crate) fn check(&self, fields: &mut Map<String, Value>) -> Result<(), Refusal> {
        for (name, value) in fields {
            let schema = self.fields.get(name).ok_or_else(|| {
                let message = format!(
                    "there is no field `{}`; /docs lists those that there are",
                    shortened(name)
                );
                Refusal::unprocessable(message).with_field(shortened(name))
            })?;
            check(name, value, schema, "")?;
        }
        Ok(())
    }
}

/// The types that a schema allows.
fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Holds a value to a schema; `which` says which of a list it is.
fn check(field: &str, value: &mut Value, schema: &Value, which: &str) -> Result<(), Refusal> {
    let refuse = |message: String| Refusal::unprocessable(message).with_field(field.to_string());
    let types = types(schema);
    if types.contains(&"integer")
        && let Some(whole) = whole(value)
    {
        *value = whole;
    }
    let given: &Value = value;
    let fits = |kind: &&str| match given {
        Value::Null => *kind == "null",
        Value::Bool(_) => *kind == "boolean",
        Value::String(_) => *kind == "string",
        Value::Array(_) => *kind == "array",
        Value::Object(_) => *kind == "object",
        Value::Number(number) => *kind == "number" || (*kind == "integer" && !number.is_f64()),
    };
    if !types.is_empty() && !types.iter().any(fits) {
        return Err(refuse(format!(
            "{which}{field} is {}, and not {}",
            expected(schema),
            shown(value)
        )));
    }
    match value {
        Value::Number(number) => check_number(field, number, schema, which),
        Value::String(text) => {
            let length = text.chars().count();
            if let Some(limit) = schema["maxLength"]
                .as_u64()
                .filter(|&limit| length as u64 > limit)
            {
                let message = format!(
                    "{which}{field} has {length} characters, and may have {limit} at most on this server"
                );
                return Err(Refusal::unprocessable(message).with_limit(field.to_string(), limit));
            }
            Ok(())
        }
        Value::Array(all) => {
            let (listed, limit) = (all.len(), schema["maxItems"].as_u64());
            if let Some(limit) = limit.filter(|&limit| listed as u64 > limit) {
                let message = format!("{field} lists {listed}, and may list {limit} at most on this server");
                return Err(Refusal::unprocessable(message).with_limit(field.to_string(), limit));
            }
            let mut each = all.iter_mut().enumerate();
            each.try_for_each(|(i, one)| {
                check(field, one, &schema["items"], &format!("number {} of ", i + 1))
            })
        }
        Value::Object(fields) => {
            let limit = schema["maxProperties"].as_u64();
            if let Some(limit) = limit.filter(|&limit| fields.len() as u64 > limit) {
                let message = format!(
                    "{which}{field} has {} fields, and may have {limit} at most on this server",
                    fields.len()
                );
                return Err(Refusal::unprocessable(message).with_limit(field.to_string(), limit));
            }
            let known = &schema["properties"];
            // Whatever they are called.
            let others = schema
                .get("additionalProperties")
                .filter(|others| others.is_object());
            for (name, value) in fields.iter_mut() {
                let Some(schema) = known.get(name).or(others) else {
                    let name = shortened(name);
                    return Err(refuse(format!(
                        "{which}{field} has no field `{name}`; /docs lists those that there are"
                    )));
                };
                check(field, value, schema, &format!("{name} of {which}"))?;
            }
            let needed = schema["required"].as_array().into_iter().flatten();
            match needed
                .filter_map(Value::as_str)
                .find(|name| !fields.contains_key(*name))
            {
                Some(name) => Err(refuse(format!("{which}{field} has no `{name}`, which it needs"))),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// A number with a fraction of 0 as one without, where there is such.
fn whole(value: &Value) -> Option<Value> {
    let number = value.as_f64().filter(|_| value.is_f64())?;
    let is_whole = number.fract() == 0.0 && (0.0..u64::MAX as f64).contains(&number);
    is_whole.then(|| Value::from(number as u64))
}

fn check_number(field: &str, number: &Number, schema: &Value, which: &str) -> Result<(), Refusal> {
    let value = number.as_f64().unwrap_or(f64::NAN);
    let bound = |keyword: &str| schema[keyword].as_f64();
    let (least, above) = (bound("minimum"), bound("exclusiveMinimum"));
    let (most, below) = (bound("maximum"), bound("exclusiveMaximum"));
    let too_little = least.is_some_and(|least| value < least) || above.is_some_and(|above| value <= above);
    let too_much = most.is_some_and(|most| value > most) || below.is_some_and(|below| value >= below);
    let too_long = schema["format"] == "float" && value.abs() > f64::from(f32::MAX);
    if !too_little && !too_much && !too_long {
        return Ok(());
    }
    let is_whole = types(schema).contains(&"integer");
    if let (true, true, Some(limit)) = (is_whole, too_much, schema["maximum"].as_u64()) {
        return Err(Refusal::beyond(
            field.to_string(),
            format!("{which}{number}"),
            limit,
        ));
    }
    let range = match (least, above, most, below) {
        (Some(least), _, Some(most), _) if !is_whole => format!("{least} to {most}"),
        (_, Some(above), Some(most), _) => format!("above {above} to {most}"),
        (Some(least), _, _, Some(below)) => format!("{least} to below {below}"),
        (_, Some(above), _, Some(below)) => format!("above {above} and below {below}"),
        (Some(least), ..) => format!("{least} or more"),
        (_, Some(above), ..) => format!("above {above}"),
        _ => "smaller".into(),
    };
    let message = format!("{which}{field} is {number}, and may be {range} on this server");
    Err(Refusal::unprocessable(message).with_field(field.to_string()))
}

/// What a value of this schema is, in words.
fn expected(schema: &Value) -> String {
    let is_picture = schema.get("contentEncoding").is_some();
    let is_sound = schema.get("contentMediaType").is_some();
    let word = |kind: &&str| match *kind {
        "integer" => Some("a whole number".to_string()),
        "number" => Some("a number".into()),
        "boolean" => Some("true or false".into()),
        "string" if is_sound => Some("a sound in base64".into()),
        "string" if is_picture => Some("a picture in base64".into()),
        "string" => Some("a text".into()),
        "array" => Some("a list".into()),
        "object" => Some("an object".into()),
        _ => None,
    };
    let words: Vec<String> = types(schema).iter().filter_map(word).collect();
    words.join(" or ")
}

/// A value as a message says it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(is) => is.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text `{}`", shortened(text)),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SAID) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}

/// The field of a request that cannot be read, and why: the first that cannot be by itself.
pub(crate) fn unreadable(fields: &Map<String, Value>, error: &serde_json::Error) -> Refusal {
    let alone = fields.iter().find_map(|(name, value)| {
        let alone = Map::from_iter([(name.clone(), value.clone())]);
        let error = serde_json::from_value::<GenerateRequest>(Value::Object(alone)).err()?;
        Some(Refusal::unprocessable(format!("{name}: {error}")).with_field(name.clone()))
    });
    alone.unwrap_or_else(|| Refusal::unprocessable(format!("the request is not as /docs has it: {error}")))
}
