//! What somebody calls things, as a pipeline's numbers, and what is written into a picture about how it was drawn.

use super::{Classes, Pipeline};
use crate::{
    Error, Result,
    conditioning::ClassCondition,
    guidance::{ClassifierFree, Guide, GuideMaker},
};

impl Pipeline {
    /// The classes that can be asked for, with their names; those of a model from elsewhere, which has no names, are called by their
    /// numbers. `None` where the model is unconditional.
    pub fn known_classes(&self) -> Option<Classes> {
        self.condition::<ClassCondition>().map(ClassCondition::known)
    }

    /// The numbers of the classes that somebody asks for by name or number; all that there are where nothing is asked for; none for
    /// an unconditional model.
    ///
    /// # Errors
    /// If the model knows no such class, or none at all.
    pub fn class_numbers(&self, asked: &[String]) -> Result<Vec<i64>> {
        let Some(classes) = self.known_classes() else {
            return match asked.first() {
                None => Ok(Vec::new()),
                Some(class) => Err(Error::Config(format!(
                    "the class `{class}` was asked for, but the model is unconditional: it knows no classes"
                ))),
            };
        };
        let numbers = if asked.is_empty() {
            (0..classes.names.len()).collect()
        } else {
            let find = |class: &String| classes.find(class);
            asked.iter().map(find).collect::<Result<Vec<usize>>>()?
        };
        Ok(numbers.into_iter().map(|number| number as i64).collect())
    }

    /// What guides and pictures are made with for this model: no mask and no CLIP yet.
    ///
    /// # Errors
    /// If its configuration does not say how large its pictures are.
    pub fn guide_maker(&self) -> Result<GuideMaker> {
        Ok(GuideMaker {
            channels: self.model.config().in_channels(),
            size: self.size()?.into(),
            device: self.model.device(),
            mask: None,
            clip: None,
            cuts: 0,
        })
    }
}

/// How a picture was drawn, for its file.
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    /// The generator's seed.
    pub seed: u64,
    /// The scheduler's class.
    pub scheduler: &'a str,
    /// Denoising steps.
    pub steps: usize,
    /// The model's name or folder.
    pub model: &'a str,
    /// DDIM's η or TCD's γ, where it is not the sampler's own.
    pub eta: Option<f64>,
    /// The texts that were drawn.
    pub prompts: &'a [String],
    /// Classifier-free guidance.
    pub guidance: ClassifierFree,
    /// Losses that led it.
    pub guides: &'a [Guide],
    /// The part of the steps that was walked from an initial picture.
    pub strength: Option<f64>,
}

impl Facts<'_> {
    /// Keywords and what they say, as [`grid::write_png`](crate::grid::write_png) takes them.
    pub fn texts(&self) -> Vec<(&'static str, String)> {
        let guides: Vec<String> = self.guides.iter().map(ToString::to_string).collect();
        let filled = |text: String| Some(text).filter(|text| !text.is_empty());
        let scale = self.guidance.is_on().then(|| self.guidance.scale.to_string());
        [
            ("seed", Some(self.seed.to_string())),
            ("scheduler", Some(self.scheduler.to_string())),
            ("steps", Some(self.steps.to_string())),
            ("model", Some(self.model.to_string())),
            ("eta", self.eta.map(|eta| eta.to_string())),
            ("prompts", filled(self.prompts.join("; "))),
            ("guidance scale", scale),
            ("guides", filled(guides.join(" "))),
            ("strength", self.strength.map(|strength| strength.to_string())),
        ]
        .into_iter()
        .filter_map(|(keyword, text)| Some((keyword, text?)))
        .collect()
    }
}
