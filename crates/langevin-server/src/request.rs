//! What a request says, as it is written.

use langevin::Request;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::refusal::Refusal;

/// What `scheduler` was called first, and may still be.
const SAMPLER: &str = "sampler";

/// The body of `POST /api/generate`. Every field may be left out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GenerateRequest {
    /// The model's name; the first one's by default.
    pub model: Option<String>,
    /// How many moments of the denoising an event stream shows; 24 by default.
    pub previews: Option<usize>,
    /// The pictures that are asked for.
    #[serde(flatten)]
    pub request: Request,
}

impl GenerateRequest {
    /// Reads a body. `null` stands for a field that is left out.
    ///
    /// # Errors
    /// If it is no JSON object, has a field that there is not, or one of another type.
    pub(crate) fn read(body: &[u8]) -> Result<Self, Refusal> {
        let body: Value = serde_json::from_slice(body)
            .map_err(|error| Refusal::bad_request(format!("the body is not JSON: {error}")))?;
        let Value::Object(mut fields) = body else {
            return Err(Refusal::unprocessable(
                "a request is a JSON object, such as {\"steps\": 50}",
            ));
        };
        fields.retain(|_, value| !value.is_null());
        let known = serde_json::to_value(Self::default()).unwrap_or_default();
        let is_known = |field: &str| field == SAMPLER || known.get(field).is_some();
        if let Some(field) = fields.keys().find(|field| !is_known(field)) {
            return Err(Refusal::unprocessable(format!(
                "there is no field `{field}`; /docs lists those that there are"
            )));
        }
        serde_json::from_value(Value::Object(fields))
            .map_err(|error| Refusal::unprocessable(format!("the request is not as /docs has it: {error}")))
    }
}
