//! The samplers by the names that people know them by, and which of them fit a model.

use serde_json::{Value, json};

use super::{AnyScheduler, ConfigMap, ModelKind, Scheduler, SchedulerFacts};
use crate::{Error, Result};

/// A sampler as a command names it: a class with some of its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SamplerName {
    /// The short name.
    pub name: &'static str,
    /// The class, as `_class_name` has it.
    pub class_name: &'static str,
    /// Settings of the class that the name stands for, each with its value as JSON.
    pub(super) settings: &'static [(&'static str, &'static str)],
    /// How the error falls: with which power of the step's length, or by how much noise is drawn.
    pub order: &'static str,
    /// Whether steps draw noise.
    pub is_stochastic: bool,
    /// What it is, in a line.
    pub about: &'static str,
}

/// Keys that say what the model is, which another sampler has to keep even where nobody set them.
const OF_THE_MODEL: [&str; 6] = [
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
];

impl SamplerName {
    /// The sampler of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        Self::ALL.iter().find(|sampler| sampler.name == name)
    }

    /// The config with what the name stands for set.
    fn set(&self, config: &mut ConfigMap) {
        for (key, value) in self.settings {
            let value = serde_json::from_str(value).unwrap_or(Value::Null);
            set(config, key, value);
        }
    }
}

/// How many samplers the classes have together.
pub(super) const fn count(by_class: &[&[SamplerName]]) -> usize {
    let (mut count, mut class) = (0, 0);
    while class < by_class.len() {
        count += by_class[class].len();
        class += 1;
    }
    count
}

/// The samplers of all classes, one after the other; `N` is their [`count`].
pub(super) const fn joined<const N: usize>(by_class: &[&[SamplerName]]) -> [SamplerName; N] {
    let mut all = [by_class[0][0]; N];
    let (mut next, mut class) = (0, 0);
    while class < by_class.len() {
        let mut i = 0;
        while i < by_class[class].len() {
            all[next] = by_class[class][i];
            next += 1;
            i += 1;
        }
        class += 1;
    }
    all
}

/// Sets a key, so that it passes to other classes as well.
fn set(config: &mut ConfigMap, key: &str, value: Value) {
    mark_as_set(config, key);
    config.insert(key.to_owned(), value);
}

/// Takes a key from the list of those that nobody set.
fn mark_as_set(config: &mut ConfigMap, key: &str) {
    if let Some(unset) = config
        .get_mut("_use_default_values")
        .and_then(Value::as_array_mut)
    {
        unset.retain(|name| name != key);
    }
}

impl AnyScheduler {
    /// The short name of the sampler that it is: of its class's, the one with most of the settings that it has.
    pub fn sampler_name(&self) -> Option<&'static str> {
        let config = self.config().ok()?;
        let has = |sampler: &&SamplerName| {
            let mut settings = sampler.settings.iter();
            settings.all(|(key, value)| {
                serde_json::from_str::<Value>(value).is_ok_and(|value| config.get(*key) == Some(&value))
            })
        };
        let own = SamplerName::ALL
            .iter()
            .filter(|sampler| sampler.class_name == self.class_name());
        own.filter(has)
            .max_by_key(|sampler| sampler.settings.len())
            .map(|sampler| sampler.name)
    }

    /// The sampler of a name ([`SamplerName::ALL`], or a class's name) for the model that this scheduler belongs to: with its noise
    /// schedule and its kind of prediction, and whatever else the two configs share.
    ///
    /// # Errors
    /// If there is no such sampler, or it does not fit the model or draws no pictures from noise; the error says why.
    pub fn for_model(&self, name: &str) -> Result<Self> {
        let sampler = Self::named(name)?;
        match SchedulerFacts::of_class(sampler.class_name)?.no_sampler {
            Some(reason) if sampler.class_name != self.class_name() => Err(Error::Config(format!(
                "{name} does not fit this model: it {reason}"
            ))),
            _ => self.fitted(sampler),
        }
    }

    /// Like [`Self::for_model`], for what begins with a picture: `ddim-inverse`, `dpm++2m-inverse`, `repaint`.
    ///
    /// # Errors
    /// If there is none of that name, or it does not fit the model; the error says why.
    pub fn for_pictures(&self, name: &str) -> Result<Self> {
        self.fitted(Self::named(name)?)
    }

    /// The same with predicted clean samples left as they are, neither clipped nor thresholded.
    ///
    /// # Errors
    /// If the config cannot be written down.
    pub fn unbounded(&self) -> Result<Self> {
        let mut config = self.config()?;
        for key in ["clip_sample", "thresholding"] {
            if config.contains_key(key) {
                set(&mut config, key, json!(false));
            }
        }
        Self::from_other(self.class_name(), &config)
    }

    /// The same with settings that a pipeline insists on, whatever its file says; those that the class does not have are passed over.
    ///
    /// # Errors
    /// If the values do not fit the class.
    pub fn insisting(&self, settings: &[(&str, Value)]) -> Result<Self> {
        let mut config = self.config()?;
        for (key, value) in settings {
            if config.get(*key).is_some_and(|found| found != value) {
                set(&mut config, key, value.clone());
            }
        }
        Self::from_other(self.class_name(), &config)
    }

    fn named(name: &str) -> Result<&'static SamplerName> {
        let by_class = || SamplerName::ALL.iter().find(|sampler| sampler.class_name == name);
        SamplerName::find(name).or_else(by_class).ok_or_else(|| {
            let names: Vec<_> = SamplerName::ALL.iter().map(|sampler| sampler.name).collect();
            Error::Config(format!("`{name}` is no sampler; there are {}", names.join(", ")))
        })
    }

    fn fitted(&self, sampler: &SamplerName) -> Result<Self> {
        let mut config = self.config()?;
        for key in OF_THE_MODEL {
            mark_as_set(&mut config, key);
        }
        if sampler.class_name != self.class_name() {
            self.check_fit(sampler, &mut config)?;
        }
        sampler.set(&mut config);
        Self::from_other(sampler.class_name, &config)
            .map_err(|error| Error::Config(format!("{} does not fit this model: {error}", sampler.name)))
    }

    /// Refuses a sampler of another kind of model than this scheduler's, and sets one that can sample flows to do so where this
    /// one samples a flow.
    fn check_fit(&self, sampler: &SamplerName, config: &mut ConfigMap) -> Result<()> {
        let (name, own) = (sampler.name, self.class_name());
        let facts = SchedulerFacts::of_class(sampler.class_name)?;
        let (model, theirs) = (self.kind_by(config), facts.model);
        if model == theirs {
            if model == ModelKind::Flow {
                share(config, "flow_shift", "shift");
            }
            return Ok(());
        }
        if model == ModelKind::Flow && facts.also_flows {
            share(config, "shift", "flow_shift");
            set(config, "use_flow_sigmas", json!(true));
            set(config, "prediction_type", json!("flow_prediction"));
            return Ok(());
        }
        Err(Error::Config(format!(
            "{name} does not fit this model: it samples {}, and the model, which comes with a {own}, is one of the {}",
            theirs.description(),
            model.description()
        )))
    }

    /// What kind of model this scheduler samples as it is configured: a class that also samples flows may be set to do so.
    ///
    /// # Errors
    /// If the config cannot be written down.
    pub fn model_kind(&self) -> Result<ModelKind> {
        Ok(self.kind_by(&self.config()?))
    }

    fn kind_by(&self, config: &ConfigMap) -> ModelKind {
        if config.get("use_flow_sigmas") == Some(&json!(true)) {
            ModelKind::Flow
        } else {
            self.facts().model
        }
    }

    /// Whether steps take a share of fresh noise that a caller may set, [`StepOptions::eta`](super::StepOptions::eta).
    pub fn takes_eta(&self) -> bool {
        self.facts().takes_eta
    }

    /// How many steps a loop has whose caller names no number: as many as is usual for the class (1000 for ancestral sampling
    /// as in diffusers, a few for samplers of distilled models, 50 for others); or all that the schedule has, if they are
    /// fewer.
    pub fn usual_steps(&self) -> usize {
        self.facts().usual_steps.min(self.num_train_timesteps())
    }
}

/// Hands what one class calls `from` to another that calls it `to`.
fn share(config: &mut ConfigMap, from: &str, to: &str) {
    if let Some(value) = config.get(from).cloned() {
        set(config, to, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedulers::{
        DDPMConfig, DDPMScheduler, FlowMatchEulerDiscreteConfig, FlowMatchEulerDiscreteScheduler,
    };

    #[test]
    fn every_class_has_a_name_and_every_name_a_class() {
        for (short, class) in AnyScheduler::NAMES {
            assert_eq!(SamplerName::find(short).unwrap().class_name, *class);
        }
        for sampler in SamplerName::ALL {
            let known = AnyScheduler::NAMES
                .iter()
                .any(|(_, class)| *class == sampler.class_name);
            assert!(known, "{sampler:?}");
            let same = SamplerName::ALL.iter().filter(|other| other.name == sampler.name);
            assert_eq!(same.count(), 1, "{sampler:?}");
            for (_, value) in sampler.settings {
                assert!(serde_json::from_str::<Value>(value).is_ok(), "{value}");
            }
        }
    }

    #[test]
    fn names_stand_for_settings() {
        let ddpm = AnyScheduler::from(DDPMScheduler::new(DDPMConfig::default()).unwrap());
        let karras = ddpm.for_model("dpm++2m-karras").unwrap().to_json().unwrap();
        assert_eq!(karras["use_karras_sigmas"], true);
        assert_eq!(karras["algorithm_type"], "dpmsolver++");
        let sde = ddpm.for_model("dpm++2m-sde").unwrap().to_json().unwrap();
        assert_eq!(sde["algorithm_type"], "sde-dpmsolver++");
        // Heun's class has other defaults, but the model's schedule is what it is.
        let heun = ddpm.for_model("heun").unwrap();
        assert_eq!(heun.alphas_cumprod(), ddpm.alphas_cumprod());
        assert_eq!(
            ddpm.for_model("LCMScheduler").unwrap().alphas_cumprod(),
            ddpm.alphas_cumprod()
        );
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_reason() {
        let ddpm = AnyScheduler::from(DDPMScheduler::new(DDPMConfig::default()).unwrap());
        for (name, reason) in [
            ("flow-euler", "it samples flows"),
            ("edm-euler", "EDM"),
            ("ipndm", "times from 0 to 1"),
            ("cm", "consistency models"),
            ("sde-ve", "score"),
            ("ddim-inverse", "goes from a picture to its noise"),
            ("repaint", "mask"),
            ("unclip", "unCLIP"),
            ("eulerr", "is no sampler; there are ddpm, ddim"),
        ] {
            let message = ddpm.for_model(name).unwrap_err().to_string();
            assert!(message.contains(reason), "{name}: {message}");
        }
        let flow = FlowMatchEulerDiscreteConfig {
            shift: 3.0,
            ..FlowMatchEulerDiscreteConfig::default()
        };
        let flow = AnyScheduler::from(FlowMatchEulerDiscreteScheduler::new(flow).unwrap());
        assert!(
            flow.for_model("ddim")
                .unwrap_err()
                .to_string()
                .contains("one of the flows")
        );
        let solver = flow.for_model("dpm++2m").unwrap();
        let config = solver.to_json().unwrap();
        assert_eq!(config["prediction_type"], "flow_prediction");
        assert_eq!(config["flow_shift"], 3.0);
        let back = solver.for_model("flow-heun").unwrap().to_json().unwrap();
        assert_eq!(back["shift"], 3.0);
    }
}
