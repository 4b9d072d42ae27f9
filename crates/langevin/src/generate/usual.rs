//! What a call does where its request does not say.

use crate::{
    Request,
    conditioning::DistilledGuidance,
    guidance::ClassifierFree,
    pipelines::Pipeline,
    schedulers::{AnyScheduler, Scheduler},
};

/// What a call does where its request does not say. A single file of a model of a few steps says nothing of them, so its name does.
pub(super) struct Usual {
    pub(super) steps: usize,
    guidance_scale: Option<f64>,
    pub(super) control_scale: f64,
}

impl Usual {
    /// What it is for this request.
    pub(super) fn of(request: &Request, pipeline: &Pipeline, scheduler: &AnyScheduler) -> Self {
        let Some(latent) = pipeline.usage(!request.control.is_empty()) else {
            return Self {
                steps: match request.inpaint {
                    Some(_) => pipeline.repaint_steps(),
                    None => scheduler.usual_steps(),
                },
                guidance_scale: None,
                control_scale: 1.0,
            };
        };
        let usage = match (&request.inpaint, &request.init_image) {
            (Some(_), _) => latent.inpaint,
            (None, Some(_)) => latent.picture,
            (None, None) => latent.draw,
        };
        let few = pipeline.unsaid_few_steps();
        Self {
            steps: few
                .map_or(usage.steps, |few| few.steps())
                .min(scheduler.num_train_timesteps()),
            guidance_scale: Some(few.map_or(usage.guidance_scale, |_| 1.0)),
            control_scale: usage.control_scale,
        }
    }

    /// The guidance; of latent classes a scale of at most 1 is none, but where the model is given the scale itself.
    pub(super) fn guidance(&self, asked: ClassifierFree, pipeline: &Pipeline) -> ClassifierFree {
        let scale = asked.scale.or(self.guidance_scale);
        let is_given = pipeline.condition::<DistilledGuidance>().is_some();
        let none = self.guidance_scale.is_some() && !is_given && scale.is_some_and(|scale| scale <= 1.0);
        ClassifierFree {
            scale: scale.filter(|_| !none),
            ..asked
        }
    }

    /// One for each prompt or seed, or one.
    pub(super) fn count(&self, request: &Request, pipeline: &Pipeline) -> usize {
        if pipeline.class().latent.is_none() {
            return request.seeds.len().max(1);
        }
        request.prompt.len().max(request.seeds.len()).max(1)
    }
}
