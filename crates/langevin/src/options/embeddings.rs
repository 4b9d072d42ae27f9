//! What texts come to, where somebody has computed it already.

use burn::tensor::Tensor;

/// A text encoder's answers, in place of texts. Each has one row for all pictures, or one for each.
#[derive(Clone, Debug)]
pub struct Embeddings {
    /// What is asked for, `[1 or count, length, dimension]`: diffusers' `prompt_embeds`.
    pub towards: Tensor<3>,
    /// What guidance leads away from, of the same shape: `negative_prompt_embeds`.
    pub away: Option<Tensor<3>>,
    /// Stable Diffusion XL: the texts as one vector, `[1 or count, dimension]`: `pooled_prompt_embeds`.
    pub pooled: Option<Tensor<2>>,
    /// The same of what guidance leads away from: `negative_pooled_prompt_embeds`.
    pub pooled_away: Option<Tensor<2>>,
}
