//! The guidance scale, for a model that was distilled to take it (Meng et al. 2023): one call in place of two.

use burn::tensor::Tensor;

use super::{Ask, Call, Condition, ConditionKind, Examples, Pair, RunSource, Source};
use crate::{
    Error, Result,
    models::{AnyModelConfig, Conditioning, ModelInputs},
    options::{Request, SampleOptions},
    random::Generator,
};

/// One scale per picture.
#[derive(Clone, Copy, Debug)]
pub struct DistilledGuidance;

impl Condition for DistilledGuidance {
    fn fit(&self, _: &mut ModelInputs) {}

    fn is_guided(&self) -> bool {
        false
    }

    fn of_call(&self, call: &Call<'_>) -> Result<Pair> {
        let scale = call.options.distilled_guidance.unwrap_or(1.0);
        Ok(Pair::both(Conditioning {
            guidance_scale: Some(Tensor::full([call.options.batch_size], scale, call.device)),
            ..Conditioning::default()
        }))
    }

    fn of_batch(&self, _: &Examples<'_>, _: f64, _: &mut Generator) -> Result<Conditioning> {
        Err(Error::Unsupported(
            "a model that takes the guidance scale cannot be trained yet".into(),
        ))
    }
}

impl ConditionKind for DistilledGuidance {
    fn of_pipeline(source: &Source<'_>) -> Result<Option<Self>> {
        Ok(match source.config {
            AnyModelConfig::Condition(config) => config.time_cond_proj_dim.map(|_| Self),
            _ => None,
        })
    }

    fn of_run(_: &RunSource<'_>, _: &mut Generator) -> Result<Option<(Self, f64)>> {
        Ok(None)
    }

    fn rows(_: &Request) -> Vec<usize> {
        Vec::new()
    }

    /// The scale is this model's, and nothing is guided.
    fn ask(condition: Option<&Self>, _: &Ask<'_>, options: &mut SampleOptions) -> Result<()> {
        if condition.is_some() {
            options.distilled_guidance = Some(options.guidance.scale());
            options.guidance.scale = None;
            options.negative_prompts = None;
            options.negative_second_prompts = None;
        }
        Ok(())
    }

    fn refuse(_: &SampleOptions) -> Result<()> {
        Ok(())
    }
}
