//! What a request says, as it is written.

use langevin::Request;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    refusal::Refusal,
    schema::{self, RequestSchema},
};

/// The body of `POST /api/generate`. Every field may be left out.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GenerateRequest {
    /// The model's name [the first one's].
    pub model: Option<String>,
    /// How many moments of the denoising an event stream shows, 0 for no progress at all [24 of them].
    pub previews: Option<usize>,
    /// The pictures that are asked for.
    #[serde(flatten)]
    pub request: Request,
}

/// A request, with the names of the fields that were given.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) request: GenerateRequest,
    pub(crate) given: Vec<String>,
}

impl Read {
    /// Reads a body. `null` stands for a field that is left out.
    ///
    /// # Errors
    /// If it is no JSON object, or has a field that is not as the schema has it.
    pub(crate) fn of(body: &[u8], schema: &RequestSchema) -> Result<Self, Refusal> {
        Self::of_fields(object(body)?, schema)
    }

    /// Reads the fields of a body.
    ///
    /// # Errors
    /// If there is one that is not as the schema has it.
    pub(crate) fn of_fields(mut fields: Map<String, Value>, schema: &RequestSchema) -> Result<Self, Refusal> {
        fields.retain(|_, value| !value.is_null());
        schema.check(&mut fields)?;
        let given = fields.keys().cloned().collect();
        let request = serde_json::from_value(Value::Object(fields.clone()));
        let request = request.map_err(|error| schema::unreadable(&fields, &error))?;
        Ok(Self { request, given })
    }
}

/// The fields of a body.
///
/// # Errors
/// If it is no JSON object.
pub(crate) fn object(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("the body is not JSON: {error}")))?;
    match body {
        Value::Object(fields) => Ok(fields),
        _ => {
            let message = "a request is a JSON object, such as {\"steps\": 50}";
            Err(Refusal::unprocessable(message).with_field("body"))
        }
    }
}
