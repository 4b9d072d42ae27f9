//! One call of a pipeline, in numbers and tensors.

use burn::tensor::Tensor;

use super::Embeddings;
use crate::{Offset, Size, conditioning::PromptSyntax, guidance::ClassifierFree};

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
    /// Which of the model's attributes each picture has. `None` says nothing of them, and is right for any other model.
    pub attributes: Option<Vec<Vec<bool>>>,
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
    /// The texts of a second text encoder, one per picture. `None` is the first one's.
    pub second_prompts: Option<Vec<String>>,
    /// The same of what guidance leads away from.
    pub negative_second_prompts: Option<Vec<String>>,
    /// How many of a text encoder's last layers are left out; `None` is none, in diffusers' way of counting.
    pub clip_skip: Option<usize>,
    /// How weights, schedules and the like are written in the texts.
    pub prompt_syntax: PromptSyntax,
    /// What texts come to, in place of texts.
    pub embeddings: Option<Embeddings>,
    /// The embeddings of pictures for a model that draws others like them, `[1 or batch, length, dimension]`.
    pub image_embeddings: Option<Tensor<3>>,
    /// The encoding of a sound, `[1, length, dimension]`, for a model that is told one.
    pub encoding: Option<Tensor<3>>,
    /// What a model that takes sizes is given.
    pub sizes: SizeOptions,
    /// How closely an edited picture follows the one that is edited, where guidance is on.
    pub image_guidance_scale: Option<f64>,
    /// The guidance scale that a distilled model is given; guidance itself is then off.
    pub distilled_guidance: Option<f64>,
}

/// What Stable Diffusion XL is given of a picture's size and making (Podell et al. 2023, section 2.2). `None` is diffusers' default.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)] // The names are diffusers'.
pub struct SizeOptions {
    pub original_size: Option<Size>,
    pub crops_coords_top_left: Option<Offset>,
    pub target_size: Option<Size>,
    pub negative_original_size: Option<Size>,
    pub negative_crops_coords_top_left: Option<Offset>,
    pub negative_target_size: Option<Size>,
    pub aesthetic_score: Option<f64>,
    pub negative_aesthetic_score: Option<f64>,
    /// Whether the call begins with a picture: diffusers' pipelines for these take one negative size without the other, and the place
    /// of the cut from what is asked for.
    pub from_picture: bool,
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
            attributes: None,
            prompts: None,
            conditioning_image: None,
            vectors: None,
            guidance: ClassifierFree::default(),
            negative_classes: None,
            negative_prompts: None,
            second_prompts: None,
            negative_second_prompts: None,
            clip_skip: None,
            prompt_syntax: PromptSyntax::Plain,
            embeddings: None,
            image_embeddings: None,
            encoding: None,
            sizes: SizeOptions::default(),
            image_guidance_scale: None,
            distilled_guidance: None,
        }
    }
}
