//! One call of a pipeline, in numbers and tensors.

use burn::tensor::Tensor;

use crate::guidance::ClassifierFree;

/// What a call of a pipeline is given. The keyword arguments of diffusers' pipeline calls.
#[derive(Clone, Debug)]
pub struct SampleOptions {
    /// Pictures drawn together.
    pub batch_size: usize,
    /// Denoising steps; `None` is the pipeline's own default, such as 1000 for DDPM and 50 for DDIM.
    pub num_inference_steps: Option<usize>,
    /// DDIM's η: 0, its default, is deterministic, 1 adds as much noise as DDPM. TCD's γ, 0.3 by default. Others overlook it.
    pub eta: Option<f64>,
    /// DDIM: derive the noise direction from the clipped predicted clean sample. DDPM overlooks it.
    ///
    /// Always so under guidance, which drives the prediction beyond the range that is clipped to: what clipping took from the
    /// picture would otherwise come back, negated, as noise. (Without clipping it makes no difference.)
    pub use_clipped_model_output: bool,
    /// One class per picture. `None` is the null class of a class-conditional model, and right for any other.
    pub classes: Option<Vec<i64>>,
    /// One text per picture. `None` is the empty text of a model that looks at texts, and right for any other.
    pub prompts: Option<Vec<String>>,
    /// The picture beside the noisy one, for a model that takes one.
    pub conditioning_image: Option<ConditioningImage>,
    /// The vectors of a model that takes one, `[1 or batch, dimension]`. `None` is zeros, and right for any other.
    pub vectors: Option<Tensor<2>>,
    /// Classifier-free guidance towards classes and texts. Off by default.
    pub guidance: ClassifierFree,
    /// The classes that guidance leads away from, one per picture. `None` is the null class.
    pub negative_classes: Option<Vec<i64>>,
    /// The texts that guidance leads away from, one per picture. `None` is the empty text.
    pub negative_prompts: Option<Vec<String>>,
}

/// The picture that a model is shown beside the noisy one, for one drawn picture or for each.
#[derive(Clone, Debug)]
pub struct ConditioningImage {
    /// `[1 or batch, channels, height, width]` in -1..1: what colours, sharpness and the like are taken from.
    pub picture: Tensor<4>,
    /// `[1, 1, height, width]`, 1 where the model is to paint: for models that are shown a mask.
    pub mask: Option<Tensor<4>>,
    /// Whether the picture is blurred, small or an edge drawing already, and is shown as it is.
    pub as_is: bool,
}

impl Default for SampleOptions {
    fn default() -> Self {
        Self {
            batch_size: 1,
            num_inference_steps: None,
            eta: None,
            use_clipped_model_output: false,
            classes: None,
            prompts: None,
            conditioning_image: None,
            vectors: None,
            guidance: ClassifierFree::default(),
            negative_classes: None,
            negative_prompts: None,
        }
    }
}
