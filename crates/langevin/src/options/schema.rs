//! What the options of a request are in JSON, as JSON Schema: types that are written as texts, and lists that may be one.
//!
//! The rest follows from [`Request`](super::Request) itself: a field's sentence, type and range stand with it. `x-needs` names what a
//! pipeline must have for a field to be of use, for whoever makes a form of it; a field without it is of use to all.

use std::{borrow::Cow, marker::PhantomData};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::{ClassName, ControlInput, IpAdapterInput, LoraInput};
use crate::{
    Offset, Size,
    data::{ImageInput, Preprocess, sound::SoundInput},
    guidance::{Guide, Interval},
};

/// One of something, or a list that pictures take in turn.
pub(super) struct OneOrMany<T>(PhantomData<T>);

/// Gives a type the schema that stands beside it.
macro_rules! schemas {
    ($( $type:ty = $schema:tt; )+) => {
        $(
            impl JsonSchema for $type {
                fn schema_name() -> Cow<'static, str> {
                    stringify!($type).into()
                }

                fn inline_schema() -> bool {
                    true
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!($schema)
                }
            }
        )+
    };
}

schemas! {
    Size = { "type": "string", "pattern": "^[0-9]+(x[0-9]+)?$", "examples": ["512x768", "512"] };
    Offset = { "type": "string", "pattern": "^[0-9]+,[0-9]+$", "examples": ["0,64"] };
    Interval = { "type": "string", "pattern": "^[0-9.]+:[0-9.]+$", "examples": ["200:800", "0.2:0.8"] };
    Guide = { "type": "string", "examples": ["colour:#1AE680", "symmetry@10"] };
    ClassName = { "type": ["string", "integer"], "minimum": 0 };
    Preprocess = { "type": "string", "examples": ["canny", "blur:9"] };
    ControlInput = {
        "type": "object",
        "additionalProperties": false,
        "required": ["picture"],
        "properties": {
            "model": {
                "type": ["string", "null"],
                "maxLength": 1000,
                "description": "The ControlNet's name, one of the model's `controls`; the next of the model's own by default."
            },
            "picture": {
                "type": ["string", "array"],
                "items": { "type": "string" },
                "contentEncoding": "base64",
                "description": "What the ControlNet is shown, such as edges, or several, which the drawn pictures take in turn."
            },
            "scale": {
                "type": ["number", "null"],
                "minimum": -1000,
                "maximum": 1000,
                "description": "How strongly it leads [1, or less from a picture]."
            },
            "start": { "type": "number", "minimum": 0, "maximum": 1, "description": "The part of the steps before it leads [0]." },
            "end": { "type": "number", "minimum": 0, "maximum": 1, "description": "The part of the steps after which it leads no more [1]." }
        }
    };
    IpAdapterInput = {
        "type": "object",
        "additionalProperties": false,
        "required": ["model", "picture"],
        "properties": {
            "model": {
                "type": "string",
                "maxLength": 1000,
                "description": "The IP-Adapter's name, one of the model's `ip_adapters`."
            },
            "picture": {
                "type": ["string", "array"],
                "items": { "type": "string" },
                "contentEncoding": "base64",
                "description": "What to draw like, or several pictures that are seen together."
            },
            "scale": { "type": "number", "minimum": -1000, "maximum": 1000, "description": "How strongly it leads [1]." },
            "parts": {
                "type": "object",
                "maxProperties": 100,
                "additionalProperties": { "type": "number", "minimum": -1000, "maximum": 1000 },
                "description": "Another scale in some of the model's cross-attentions, by the beginnings of their paths."
            }
        }
    };
    LoraInput = {
        "type": "object",
        "additionalProperties": false,
        "required": ["name"],
        "properties": {
            "name": { "type": "string", "maxLength": 1000, "description": "The LoRA's name, one of the model's `loras`." },
            "scale": { "type": "number", "minimum": -1000, "maximum": 1000, "description": "How strongly it is applied [1]." },
            "parts": {
                "type": "object",
                "maxProperties": 100,
                "additionalProperties": { "type": "number", "minimum": -1000, "maximum": 1000 },
                "description": "Another scale for parts of the model, by the beginnings of their paths, such as text_encoder."
            }
        }
    };
    SoundInput = { "type": "string", "contentEncoding": "base64", "contentMediaType": "audio/*" };
    ImageInput = { "type": ["string", "array"], "items": { "type": "string" }, "contentEncoding": "base64" };
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let items = T::json_schema(generator);
        let mut one = items.clone();
        let types = match one.get("type") {
            Some(Value::Array(types)) => types.clone(),
            Some(other) => vec![other.clone()],
            None => Vec::new(),
        };
        one.insert(
            "type".into(),
            types.into_iter().chain([json!("array"), json!("null")]).collect(),
        );
        one.insert("items".into(), items.to_value());
        one
    }
}
