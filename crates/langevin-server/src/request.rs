//! What a request says, as it is written.

use langevin::Request;
use serde::{Deserialize, Serialize};

/// The body of `POST /api/generate`. Every field may be left out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenerateRequest {
    /// The model's name; the first one's by default.
    pub model: Option<String>,
    /// How many moments of the denoising an event stream shows; 24 by default.
    pub previews: Option<usize>,
    /// The pictures that are asked for.
    #[serde(flatten)]
    pub request: Request,
}
