//! What a request says, as it is written.

use serde::{Deserialize, Serialize};

/// The body of `POST /api/generate`. Every field may be left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenerateRequest {
    /// The model's name; the first one's by default.
    pub model: Option<String>,
    /// The sampler; the model's own by default.
    pub sampler: Option<String>,
    /// Denoising steps; the sampler's usual number by default.
    pub steps: Option<usize>,
    /// The first picture's seed; each further picture has the next one. 0 by default.
    pub seed: u64,
    /// How many pictures; 1 by default.
    pub count: Option<usize>,
    /// The class to draw, by name or number, or `none`; pictures take turns in all classes by default.
    #[serde(rename = "class")]
    pub class: Option<String>,
    /// The class to lead away from.
    pub negative_class: Option<String>,
    /// The text to draw.
    pub prompt: Option<String>,
    /// The text to lead away from.
    pub negative_prompt: Option<String>,
    /// The vector of a picture that the model is told; none by default.
    pub vector: Vec<f32>,
    /// Classifier-free guidance; 1, the default, is none.
    pub guidance_scale: Option<f64>,
    /// How much of the unguided contrast is given back, 0 to 1.
    pub guidance_rescale: Option<f64>,
    /// DDIM's η or TCD's γ.
    pub eta: Option<f64>,
    /// Losses that lead every step, such as `colour:#1AE680@25`, `brightness:0.8`, `symmetry`, `clip:a red rose`.
    pub guide: Vec<String>,
    /// What their gradient goes through: `clean` or `model`.
    pub guide_through: Option<String>,
    /// How their scale changes: `constant`, `signal`, `root-signal` or `root-noise`; `signal` by default.
    pub guide_schedule: Option<String>,
    /// A picture to begin with under noise, in base64 or as a `data:` URL.
    pub init_image: Option<String>,
    /// The part of the steps that is walked from it, above 0 to 1; 0.6 by default.
    pub strength: Option<f64>,
    /// The picture that a model is shown which colours, sharpens or the like, in base64 or as a `data:` URL.
    pub conditioning_image: Option<String>,
    /// How many moments of the denoising an event stream shows; 24 by default.
    pub previews: Option<usize>,
}
