//! The table of pipeline classes: what diffusers calls them, and what they consist of.

use crate::schedulers::AnyScheduler;

/// What a component is in its pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What denoises.
    Denoiser,
    /// The noise schedule and the rule of its steps.
    Scheduler,
}

/// A row of the table: a class of diffusers' pipelines.
#[derive(Debug)]
pub struct PipelineClass {
    /// Its name in a pipeline's index.
    pub name: &'static str,
    /// The components that it cannot do without: their names, and so their folders', and what they are.
    pub components: &'static [(&'static str, Role)],
    /// The sampler that it has whatever its folder holds; `None` where it takes any.
    pub sampler: Option<&'static str>,
    /// Whether a pipeline with this scheduler is of this class. The last row that says yes names it.
    holds: fn(&AnyScheduler) -> bool,
}

/// A UNet and a scheduler.
const UNET_AND_SCHEDULER: &[(&str, Role)] = &[("unet", Role::Denoiser), ("scheduler", Role::Scheduler)];

/// Every class that there is.
pub(super) static CLASSES: [PipelineClass; 2] = [
    PipelineClass {
        name: "DDPMPipeline",
        components: UNET_AND_SCHEDULER,
        sampler: None,
        holds: |_| true,
    },
    PipelineClass {
        name: "DDIMPipeline",
        components: UNET_AND_SCHEDULER,
        sampler: Some("ddim"),
        holds: |scheduler| matches!(scheduler, AnyScheduler::DDIM(_)),
    },
];

impl PipelineClass {
    /// Every class that there is.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        CLASSES.iter()
    }

    /// The class of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        CLASSES.iter().find(|class| class.name == name)
    }

    /// The class of a pipeline with this scheduler.
    pub fn of(scheduler: &AnyScheduler) -> &'static Self {
        let mut classes = CLASSES.iter().rev();
        // The first row holds any.
        classes
            .find(|class| (class.holds)(scheduler))
            .unwrap_or(&CLASSES[0])
    }

    /// The name of the component of this role.
    pub fn component(&self, role: Role) -> Option<&'static str> {
        let component = self.components.iter().find(|(_, of)| *of == role);
        component.map(|(name, _)| *name)
    }
}
