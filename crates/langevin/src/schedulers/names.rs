//! The samplers by the names that people know them by, and which of them fit a model.

use serde_json::{Value, json};

use super::{AnyScheduler, ConfigMap, Scheduler};
use crate::{Error, Result};

/// A sampler as a command names it: a class with some of its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SamplerName {
    /// The short name.
    pub name: &'static str,
    /// The class, as `_class_name` has it.
    pub class_name: &'static str,
    /// Settings of the class that the name stands for, each with its value as JSON.
    settings: &'static [(&'static str, &'static str)],
    /// How the error falls: with which power of the step's length, or by how much noise is drawn.
    pub order: &'static str,
    /// Whether steps draw noise.
    pub is_stochastic: bool,
    /// What it is, in a line.
    pub about: &'static str,
}

/// What a model was trained to be asked: a sampler fits if it asks the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// At the whole timesteps of a table of noise levels.
    Timesteps,
    /// For the velocity of a flow.
    Flow,
    /// At logarithms of σ, preconditioned as Karras et al. 2022 do.
    Edm,
    /// At logarithms of σ, as consistency models are.
    Consistency,
    /// At times from 0 to 1.
    Times,
    /// For the score under a noise that grows without bound.
    Score,
}

impl Asked {
    fn by_class(class_name: &str) -> Self {
        match class_name {
            "FlowMatchEulerDiscreteScheduler" | "FlowMatchHeunDiscreteScheduler" => Self::Flow,
            "EDMEulerScheduler" | "EDMDPMSolverMultistepScheduler" => Self::Edm,
            "CMStochasticIterativeScheduler" => Self::Consistency,
            "IPNDMScheduler" => Self::Times,
            "ScoreSdeVeScheduler" => Self::Score,
            _ => Self::Timesteps,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Timesteps => "models that are asked at whole timesteps of a noise schedule",
            Self::Flow => "flows, models that predict the velocity from noise to data",
            Self::Edm => "models that are preconditioned as Karras et al. 2022 do (EDM)",
            Self::Consistency => "consistency models",
            Self::Times => "models that are asked at times from 0 to 1",
            Self::Score => "models of the score under a noise that grows without bound (SDE-VE)",
        }
    }
}

/// Classes that also sample flows, where their config says so.
const ALSO_FLOWS: [&str; 5] = [
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "SASolverScheduler",
];

/// Keys that say what the model is, which another sampler has to keep even where nobody set them.
const OF_THE_MODEL: [&str; 6] = [
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
];

macro_rules! samplers {
    ($($name:literal, $class:ident $({ $($key:literal: $value:literal),+ })?, $order:literal, $noise:literal, $about:literal;)+) => {
        &[$(SamplerName {
            name: $name,
            class_name: stringify!($class),
            settings: &[$($(($key, $value)),+)?],
            order: $order,
            is_stochastic: $noise,
            about: $about,
        }),+]
    };
}

impl SamplerName {
    /// Every sampler by name: those for models with a noise schedule, those for other models, and what does not draw pictures
    /// from noise.
    pub const ALL: &'static [Self] = samplers! {
        "ddpm", DDPMScheduler, "noise", true, "ancestral sampling; with hundreds of steps the surest";
        "ddim", DDIMScheduler, "1", false, "deterministic; --eta adds noise";
        "pndm", PNDMScheduler, "2", false, "pseudo linear multistep, Stable Diffusion's first";
        "lms", LMSDiscreteScheduler, "4", false, "linear multistep in sigma";
        "euler", EulerDiscreteScheduler, "1", false, "Euler's method in sigma";
        "euler-a", EulerAncestralDiscreteScheduler, "noise", true, "Euler's method with fresh noise in each step";
        "heun", HeunDiscreteScheduler, "2", false, "Heun's method: two calls a step";
        "dpm2", KDPM2DiscreteScheduler, "2", false, "the midpoint method: two calls a step";
        "dpm2-a", KDPM2AncestralDiscreteScheduler, "noise", true, "the midpoint method with fresh noise in each step";
        "dpm++2m", DPMSolverMultistepScheduler, "2", false, "DPM-Solver++, multistep: good in 15 to 25 steps";
        "dpm++2m-karras", DPMSolverMultistepScheduler { "use_karras_sigmas": "true" }, "2", false,
            "the same with Karras's noise levels";
        "dpm++2m-sde", DPMSolverMultistepScheduler { "algorithm_type": "\"sde-dpmsolver++\"" }, "noise", true,
            "the same for the reverse diffusion";
        "dpm++2m-sde-karras", DPMSolverMultistepScheduler {
            "algorithm_type": "\"sde-dpmsolver++\"", "use_karras_sigmas": "true"
        }, "noise", true, "both";
        "dpm++3m", DPMSolverMultistepScheduler { "solver_order": "3" }, "2", false,
            "DPM-Solver++ with three outputs a step";
        "dpm++2s", DPMSolverSinglestepScheduler, "2", false, "DPM-Solver++, singlestep: a step takes up two calls";
        "dpm-sde", DPMSolverSDEScheduler, "noise", true, "DPM-Solver++ for the reverse diffusion: two calls a step";
        "deis", DEISMultistepScheduler, "2", false, "exponential integrator with polynomials in log sigma";
        "unipc", UniPCMultistepScheduler, "3", false, "predictor and corrector: good in 10 steps";
        "sa-solver", SASolverScheduler, "noise", true, "stochastic Adams: noise in the middle of the schedule alone";
        "lcm", LCMScheduler, "noise", true, "for models distilled to latent consistency: 1 to 8 steps";
        "tcd", TCDScheduler, "noise", true, "for models distilled to trajectory consistency: 1 to 8 steps";
        "flow-euler", FlowMatchEulerDiscreteScheduler, "1", false, "for flows: Euler's method";
        "flow-heun", FlowMatchHeunDiscreteScheduler, "2", false, "for flows: Heun's method, two calls a step";
        "edm-euler", EDMEulerScheduler, "1", false, "for EDM's models: Euler's method";
        "edm-dpm++2m", EDMDPMSolverMultistepScheduler, "2", false, "for EDM's models: DPM-Solver++, multistep";
        "cm", CMStochasticIterativeScheduler, "noise", true, "for consistency models: 1 or 2 steps";
        "ipndm", IPNDMScheduler, "1", false, "for models asked at times from 0 to 1: linear multistep";
        "sde-ve", ScoreSdeVeScheduler, "noise", true, "for scores under exploding noise: predictor, and Langevin correctors";
        "unclip", UnCLIPScheduler, "noise", true, "for unCLIP's priors and decoders: ancestral sampling";
        "repaint", RePaintScheduler, "noise", true, "paints the unknown part of a picture: `langevin sample --inpaint`";
        "ddim-inverse", DDIMInverseScheduler, "1", false, "from a picture to its noise: `langevin invert`";
        "dpm++2m-inverse", DPMSolverMultistepInverseScheduler, "2", false, "from a picture to its noise; in the library";
    };

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

    /// Why this one draws no pictures from noise with another class's model, if so.
    fn is_no_sampler(&self) -> Option<&'static str> {
        match self.class_name {
            "DDIMInverseScheduler" | "DPMSolverMultistepInverseScheduler" => {
                Some("goes from a picture to its noise, and so draws none")
            }
            "RePaintScheduler" => {
                Some("paints the unknown part of a picture, and needs that picture with its mask")
            }
            "UnCLIPScheduler" => Some("samples unCLIP's priors and decoders alone"),
            _ => None,
        }
    }
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
    /// The sampler of a name ([`SamplerName::ALL`], or a class's name) for the model that this scheduler belongs to: with its noise
    /// schedule and its kind of prediction, and whatever else the two configs share.
    ///
    /// # Errors
    /// If there is no such sampler, or it does not fit the model or draws no pictures from noise; the error says why.
    pub fn for_model(&self, name: &str) -> Result<Self> {
        let sampler = Self::named(name)?;
        match sampler.is_no_sampler() {
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

    /// Refuses a sampler that asks a model other things than this scheduler does, and tells one that can sample flows that it is
    /// to do so.
    fn check_fit(&self, sampler: &SamplerName, config: &mut ConfigMap) -> Result<()> {
        let (name, own) = (sampler.name, self.class_name());
        let (model, theirs) = (self.asks(config), Asked::by_class(sampler.class_name));
        if model == theirs {
            if model == Asked::Flow {
                share(config, "flow_shift", "shift");
            }
            return Ok(());
        }
        if model == Asked::Flow && ALSO_FLOWS.contains(&sampler.class_name) {
            share(config, "shift", "flow_shift");
            set(config, "use_flow_sigmas", json!(true));
            set(config, "prediction_type", json!("flow_prediction"));
            return Ok(());
        }
        Err(Error::Config(format!(
            "{name} does not fit this model: it samples {}, and the model, which comes with a {own}, is one of the {}",
            theirs.words(),
            model.words()
        )))
    }

    fn asks(&self, config: &ConfigMap) -> Asked {
        if config.get("use_flow_sigmas") == Some(&json!(true)) {
            Asked::Flow
        } else {
            Asked::by_class(self.class_name())
        }
    }

    /// Whether steps take a share of fresh noise that a caller may set: DDIM's η and TCD's γ.
    pub fn takes_eta(&self) -> bool {
        matches!(self, Self::DDIM(_) | Self::TCD(_))
    }

    /// How many steps a loop has whose caller names no number: diffusers' 1000 for ancestral sampling, 4 for the samplers of
    /// distilled models, 50 for others; or all that the schedule has, if they are fewer.
    pub fn usual_steps(&self) -> usize {
        let usual = match self {
            Self::DDPM(_) | Self::ScoreSdeVe(_) => 1000,
            Self::LCM(_) | Self::TCD(_) => 4,
            Self::CMStochasticIterative(_) => 1,
            _ => 50,
        };
        usual.min(self.num_train_timesteps())
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
