//! What is written into a picture about how it was drawn.

use crate::{
    Lora, Size,
    guidance::{ClassifierFree, Guide},
    options::{ControlInput, IpAdapterInput},
};

/// How a picture was drawn, for its file.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts<'a> {
    /// The generator's seed, or each picture's.
    pub seed: String,
    /// The scheduler's class.
    pub scheduler: &'a str,
    /// Denoising steps.
    pub steps: usize,
    /// The model's name or folder.
    pub model: &'a str,
    /// DDIM's η or TCD's γ, where it is not the sampler's own.
    pub eta: Option<f64>,
    /// What was put on the model's weights.
    pub loras: &'a [Lora],
    /// The attributes that pictures were to have.
    pub attributes: &'a [String],
    /// The texts that were drawn.
    pub prompts: &'a [String],
    /// The texts that guidance led away from.
    pub negative_prompts: &'a [String],
    /// The size, where it is not the model's own alone.
    pub size: Option<Size>,
    /// How many of the text encoder's last layers were left out.
    pub clip_skip: Option<usize>,
    /// Classifier-free guidance.
    pub guidance: ClassifierFree,
    /// Losses that led it.
    pub guides: &'a [Guide],
    /// How it was drawn on at a larger size.
    pub upscale: Option<String>,
    /// The part of the steps that was walked from an initial picture.
    pub strength: Option<f64>,
    /// What the picture followed.
    pub controls: &'a [ControlInput],
    /// What it was drawn like.
    pub image_prompts: &'a [IpAdapterInput],
}

impl Facts<'_> {
    /// Keywords and what they say, as [`grid::write_png`](crate::grid::write_png) takes them.
    pub(super) fn texts(&self) -> Vec<(&'static str, String)> {
        let guides: Vec<String> = self.guides.iter().map(ToString::to_string).collect();
        let loras: Vec<String> = self.loras.iter().map(ToString::to_string).collect();
        let controls: Vec<String> = self.controls.iter().map(ToString::to_string).collect();
        let image_prompts: Vec<String> = self.image_prompts.iter().map(ToString::to_string).collect();
        let filled = |text: String| Some(text).filter(|text| !text.is_empty());
        let scale = self.guidance.is_on().then(|| self.guidance.scale().to_string());
        [
            ("seed", Some(self.seed.clone())),
            ("scheduler", Some(self.scheduler.to_string())),
            ("steps", Some(self.steps.to_string())),
            ("model", Some(self.model.to_string())),
            ("lora", filled(loras.join("; "))),
            ("eta", self.eta.map(|eta| eta.to_string())),
            ("attributes", filled(self.attributes.join("; "))),
            ("prompts", filled(self.prompts.join("; "))),
            ("negative prompts", filled(self.negative_prompts.join("; "))),
            ("size", self.size.map(|size| size.to_string())),
            ("clip skip", self.clip_skip.map(|layers| layers.to_string())),
            ("upscale", self.upscale.clone()),
            ("guidance scale", scale),
            ("guides", filled(guides.join(" "))),
            ("strength", self.strength.map(|strength| strength.to_string())),
            ("controls", filled(controls.join("; "))),
            ("ip-adapters", filled(image_prompts.join("; "))),
        ]
        .into_iter()
        .filter_map(|(keyword, text)| Some((keyword, text?)))
        .collect()
    }
}
