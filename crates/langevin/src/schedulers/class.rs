//! What a scheduler class is besides its rule: its config, what is known of it, and the names of its samplers.

use super::{SamplerName, Scheduler, SchedulerConfig};

/// What kind of model a class samples: a sampler fits a model if both are of the same kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelKind {
    /// Asked at the whole timesteps of a table of noise levels.
    Timesteps,
    /// Asked for the velocity of a flow.
    Flow,
    /// Asked at logarithms of σ, preconditioned as Karras et al. 2022 do.
    Edm,
    /// Asked at logarithms of σ, as consistency models are.
    Consistency,
    /// Asked at times from 0 to 1.
    ContinuousTime,
    /// Asked for the score under a noise that grows without bound.
    Score,
}

impl ModelKind {
    /// The models of this kind, for messages.
    pub(super) fn description(self) -> &'static str {
        match self {
            Self::Timesteps => "models that are asked at whole timesteps of a noise schedule",
            Self::Flow => "flows, models that predict the velocity from noise to data",
            Self::Edm => "models that are preconditioned as Karras et al. 2022 do (EDM)",
            Self::Consistency => "consistency models",
            Self::ContinuousTime => "models that are asked at times from 0 to 1",
            Self::Score => "models of the score under a noise that grows without bound (SDE-VE)",
        }
    }
}

/// What is known of a scheduler class.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SchedulerFacts {
    /// What kind of model it samples.
    pub model: ModelKind,
    /// Whether it samples flows too, where its config says so by `use_flow_sigmas`.
    pub also_flows: bool,
    /// How many steps a loop has whose caller names no number, where the schedule has as many.
    pub usual_steps: usize,
    /// Whether steps take a share of fresh noise that a caller may set, see [`StepOptions::eta`](super::StepOptions::eta).
    pub takes_eta: bool,
    /// Why it makes no pictures from noise with another class's model, if so: the predicate of a sentence.
    pub no_sampler: Option<&'static str>,
    /// Its samplers by name, first the one that is the class with its defaults.
    pub samplers: &'static [SamplerName],
}

impl SchedulerFacts {
    /// What holds for most classes.
    pub(super) const fn of(samplers: &'static [SamplerName]) -> Self {
        Self {
            model: ModelKind::Timesteps,
            also_flows: false,
            usual_steps: 50,
            takes_eta: false,
            no_sampler: None,
            samplers,
        }
    }
}

/// One class of schedulers: the type of its config, and what is known of it.
pub trait SchedulerClass: Scheduler + Sized {
    /// Its configuration, with diffusers' names and defaults.
    type Config: SchedulerConfig;

    /// What is known of it.
    const FACTS: SchedulerFacts;
}

/// Defines one scheduler class but for its rule: its config, every field once with its default beside it, as in diffusers'
/// signatures; what is known of it ([`SchedulerFacts`](super::SchedulerFacts), where it is not the usual); and its samplers by name
/// ([`SamplerName`](super::SamplerName)). Fields that many classes have stand here, in groups that begin with `..`, in diffusers'
/// order, which is that of the files.
macro_rules! scheduler_class {
    (
        $(#[$meta:meta])*
        pub struct $config:ident for $scheduler:ident { $($fields:tt)* }

        facts { $($fact:ident: $value:expr),* $(,)? }

        samplers {
            $($name:literal $({ $($key:literal: $setting:literal),+ })?, $order:literal, $stochastic:literal, $about:literal;)+
        }
    ) => {
        scheduler_class!(@fields { $(#[$meta])* pub struct $config for $scheduler } [] [] $($fields)*);

        impl $scheduler {
            /// A scheduler that shares what it can with another class's config: diffusers' `from_config`.
            ///
            /// # Errors
            /// As [`Self::new`].
            pub fn from_config(other: &$crate::schedulers::ConfigMap) -> $crate::Result<Self> {
                Self::new($crate::schedulers::config::convert(other)?)
            }

            /// The configuration that this was built from.
            pub fn config(&self) -> &$config {
                &self.config
            }
        }

        impl $crate::schedulers::SchedulerClass for $scheduler {
            type Config = $config;

            const FACTS: $crate::schedulers::SchedulerFacts = $crate::schedulers::SchedulerFacts {
                $($fact: $value,)*
                ..$crate::schedulers::SchedulerFacts::of(&[$($crate::schedulers::SamplerName {
                    name: $name,
                    class_name: stringify!($scheduler),
                    settings: &[$($(($key, $setting)),+)?],
                    order: $order,
                    is_stochastic: $stochastic,
                    about: $about,
                }),+])
            };
        }
    };

    (@fields $head:tt $done:tt $groups:tt ..noise($start:literal, $end:literal, $schedule:ident), $($rest:tt)*) => {
        scheduler_class!(@fields $head $done $groups ..betas($start, $end, $schedule), ..trained_betas, $($rest)*);
    };
    (@fields $head:tt $done:tt $groups:tt ..betas($start:literal, $end:literal, $schedule:ident), $($rest:tt)*) => {
        scheduler_class!(@fields $head $done $groups
            /// How many timesteps the model was trained with.
            num_train_timesteps: usize = 1000,
            /// The first β.
            beta_start: f64 = $start,
            /// The last β.
            beta_end: f64 = $end,
            /// How β goes from the first to the last.
            beta_schedule: $crate::schedulers::BetaSchedule = $crate::schedulers::BetaSchedule::$schedule,
            $($rest)*
        );
    };
    (@fields $head:tt $done:tt [$($group:ident)*] ..trained_betas, $($rest:tt)*) => {
        scheduler_class!(@fields $head $done [$($group)* noise]
            /// Every β, in place of those that the three keys above describe.
            trained_betas: Option<Vec<f64>> = None,
            $($rest)*
        );
    };
    (@fields $head:tt $done:tt $groups:tt ..steps($spacing:ident), $($rest:tt)*) => {
        scheduler_class!(@fields $head $done $groups
            /// How the steps of a loop are spread.
            timestep_spacing: $crate::schedulers::TimestepSpacing = $crate::schedulers::TimestepSpacing::$spacing,
            /// What is added to the timesteps of the leading spacing.
            steps_offset: usize = 0,
            $($rest)*
        );
    };
    (@fields $head:tt $done:tt [$($group:ident)*] ..discrete_sigmas, $($rest:tt)*) => {
        scheduler_class!(@fields $head $done [$($group)* discrete] ..sigma_spacing, $($rest)*);
    };
    (@fields $head:tt $done:tt [$($group:ident)*] ..sigma_spacing, $($rest:tt)*) => {
        scheduler_class!(@fields $head $done [$($group)* sigma_spacing] ..sigma_flags, $($rest)*);
    };
    (@fields $head:tt $done:tt $groups:tt ..sigma_flags, $($rest:tt)*) => {
        scheduler_class!(@fields $head $done $groups
            /// Whether the noise levels of a loop are spread as in Karras et al. 2022.
            use_karras_sigmas: bool = false,
            /// Whether the noise levels of a loop are spread evenly in log σ.
            use_exponential_sigmas: bool = false,
            /// Whether the noise levels of a loop are spread by the quantiles of a beta distribution (Lee et al. 2024).
            use_beta_sigmas: bool = false,
            $($rest)*
        );
    };
    (@fields $head:tt $done:tt [$($group:ident)*] ..thresholding, $($rest:tt)*) => {
        scheduler_class!(@fields $head $done [$($group)* thresholding]
            /// Whether to threshold the predicted clean sample dynamically.
            thresholding: bool = false,
            /// The quantile that dynamic thresholding looks at.
            dynamic_thresholding_ratio: f64 = 0.995,
            /// The largest threshold of dynamic thresholding.
            sample_max_value: f64 = 1.0,
            $($rest)*
        );
    };
    (@fields $head:tt $done:tt [$($group:ident)*] ..flow, $($rest:tt)*) => {
        scheduler_class!(@fields $head $done [$($group)* solver]
            /// Whether the model is a flow, whose samples are (1 - σ) x_0 + σ ε.
            use_flow_sigmas: bool = false,
            /// How far a flow's noise levels are moved towards the noise; 1 leaves them.
            flow_shift: f64 = 1.0,
            $($rest)*
        );
    };
    (@fields $head:tt $done:tt $groups:tt ..dynamic_shifting, $($rest:tt)*) => {
        scheduler_class!(@fields $head $done $groups
            /// Whether a loop's `mu` may take the place of `flow_shift`, as its exponential.
            use_dynamic_shifting: bool = false,
            /// How `mu` shifts.
            time_shift_type: $crate::schedulers::TimeShiftType = $crate::schedulers::TimeShiftType::Exponential,
            $($rest)*
        );
    };
    (@fields $head:tt $done:tt $groups:tt ..least_lambda, $($rest:tt)*) => {
        scheduler_class!(@fields $head $done $groups
            /// The least λ that a loop visits; the schedule's timesteps with more noise are left out.
            #[serde(with = "crate::schedulers::config::python_float")]
            lambda_min_clipped: f64 = f64::NEG_INFINITY,
            /// Whether the model predicts a variance in a second half of its channels, which these solvers leave aside:
            /// `learned` or `learned_range`. Other values, which DDPM has, mean that it does not.
            variance_type: Option<$crate::schedulers::VarianceType> = None,
            $($rest)*
        );
    };
    (@fields $head:tt $done:tt $groups:tt ..edm_levels, $($rest:tt)*) => {
        scheduler_class!(@fields $head $done $groups
            /// The lowest noise level of a loop, above the final one.
            sigma_min: f64 = 0.002,
            /// The highest noise level, where a loop begins.
            sigma_max: f64 = 80.0,
            /// The standard deviation of the data.
            sigma_data: f64 = 0.5,
            /// How the noise levels are spread between the two.
            sigma_schedule: $crate::schedulers::SigmaSchedule = $crate::schedulers::SigmaSchedule::Karras,
            /// How many noise levels the loop has before it is set.
            num_train_timesteps: usize = 1000,
            /// What the network in the preconditioned model gives: EDM's F (`epsilon`), or its negative (`v_prediction`).
            prediction_type: $crate::schedulers::PredictionType = $crate::schedulers::PredictionType::Epsilon,
            /// ρ of Karras's spacing: higher spends more steps on low noise.
            rho: f64 = 7.0,
            $($rest)*
        );
    };
    (@fields $head:tt $done:tt $groups:tt ..distilled, $($rest:tt)*) => {
        scheduler_class!(@fields $head $done $groups
            ..noise(0.00085, 0.012, ScaledLinear),
            /// How many timesteps the model was distilled on: a loop visits some of these.
            original_inference_steps: usize = 50,
            /// Whether to clip the predicted clean sample, which LCM alone does.
            clip_sample: bool = false,
            /// The largest absolute value that clipping leaves.
            clip_sample_range: f64 = 1.0,
            /// Kept for other classes: no step of this one leads beyond timestep 0.
            set_alpha_to_one: bool = true,
            /// Kept for other classes: the timesteps are those that the model was distilled on.
            steps_offset: usize = 0,
            /// What the model predicts.
            prediction_type: $crate::schedulers::PredictionType = $crate::schedulers::PredictionType::Epsilon,
            /// Whether to threshold the predicted clean sample dynamically, in place of clipping it; LCM alone does.
            thresholding: bool = false,
            /// The quantile that dynamic thresholding looks at.
            dynamic_thresholding_ratio: f64 = 0.995,
            /// The largest threshold of dynamic thresholding.
            sample_max_value: f64 = 1.0,
            /// Kept for other classes: the timesteps are those that the model was distilled on.
            timestep_spacing: $crate::schedulers::TimestepSpacing = $crate::schedulers::TimestepSpacing::Leading,
            /// What the timestep is multiplied with in LCM's boundary condition; more makes the consistency function rely on
            /// the model earlier.
            timestep_scaling: f64 = 10.0,
            /// Whether the schedule is moved to end without any signal.
            rescale_betas_zero_snr: bool = false,
            $($rest)*
        );
    };
    (
        @fields $head:tt [$($done:tt)*] $groups:tt
        $(#[$meta:meta])* $field:ident: $type:ty = $default:expr, $($rest:tt)*
    ) => {
        scheduler_class!(@fields $head [$($done)* { $(#[$meta])* $field: $type = $default }] $groups $($rest)*);
    };
    (
        @fields { $(#[$meta:meta])* pub struct $config:ident for $scheduler:ident }
        [$({ $(#[$field_meta:meta])* $field:ident: $type:ty = $default:expr })*] [$($group:ident)*]
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct $config {
            $( $(#[$field_meta])* pub $field: $type, )*
            /// Keys of the file that this class does not know, which are written back.
            #[serde(flatten)]
            pub extra: $crate::schedulers::ConfigMap,
        }

        impl Default for $config {
            fn default() -> Self {
                Self {
                    $( $field: $default, )*
                    extra: $crate::schedulers::ConfigMap::new(),
                }
            }
        }

        impl $crate::schedulers::SchedulerConfig for $config {
            const CLASS_NAME: &'static str = stringify!($scheduler);

            fn extra_mut(&mut self) -> &mut $crate::schedulers::ConfigMap {
                &mut self.extra
            }
        }

        impl $config {
            $( scheduler_class!(@method $group); )*
        }
    };

    (@method noise) => {
        /// What the config says about its noise, but for `rescale_betas_zero_snr`, which not every class has.
        pub(super) fn noise_options(&self) -> $crate::schedulers::noise_schedule::NoiseOptions<'_> {
            $crate::schedulers::noise_schedule::NoiseOptions {
                num_train_timesteps: self.num_train_timesteps,
                beta_start: self.beta_start,
                beta_end: self.beta_end,
                beta_schedule: self.beta_schedule,
                trained_betas: self.trained_betas.as_deref(),
                rescale_betas_zero_snr: false,
            }
        }
    };
    (@method sigma_spacing) => {
        /// How σ is spread, where that is not by the timesteps.
        pub(super) fn sigma_spacing(&self) -> $crate::Result<Option<$crate::schedulers::sigmas::SigmaSpacing>> {
            $crate::schedulers::sigmas::SigmaSpacing::chosen(
                <Self as $crate::schedulers::SchedulerConfig>::CLASS_NAME,
                self.use_karras_sigmas,
                self.use_exponential_sigmas,
                self.use_beta_sigmas,
            )
        }
    };
    (@method discrete) => {
        /// The tables of a scheduler in σ, and no loop yet.
        pub(super) fn discrete(&self) -> $crate::Result<$crate::schedulers::discrete::Discrete> {
            $crate::schedulers::discrete::Discrete::new(
                <Self as $crate::schedulers::SchedulerConfig>::CLASS_NAME,
                self.noise_options(),
                $crate::schedulers::discrete::Spreading::new(
                    self.timestep_spacing,
                    self.steps_offset,
                    self.sigma_spacing()?,
                ),
            )
        }
    };
    (@method thresholding) => {
        /// The bounds on the predicted clean sample.
        pub(super) fn bounds(&self) -> $crate::schedulers::prediction::Bounds {
            $crate::schedulers::prediction::Bounds::thresholding(
                self.thresholding,
                self.dynamic_thresholding_ratio,
                self.sample_max_value,
            )
        }
    };
    (@method solver) => {
        /// What all solvers in λ read alike; what a class has of its own is set over it.
        pub(super) fn solver(&self) -> $crate::schedulers::dpm_loop::SolverOptions<'_> {
            $crate::schedulers::dpm_loop::SolverOptions {
                spread: $crate::schedulers::dpm_loop::SpreadFlags {
                    karras: self.use_karras_sigmas,
                    exponential: self.use_exponential_sigmas,
                    beta: self.use_beta_sigmas,
                    lu: false,
                    flow: self.use_flow_sigmas,
                    flow_shift: self.flow_shift,
                },
                sigma_min: $crate::schedulers::dpm_loop::foreign_sigma(&self.extra, "sigma_min"),
                sigma_max: $crate::schedulers::dpm_loop::foreign_sigma(&self.extra, "sigma_max"),
                prediction_type: self.prediction_type,
                bounds: self.bounds(),
                ..$crate::schedulers::dpm_loop::SolverOptions::new(
                    <Self as $crate::schedulers::SchedulerConfig>::CLASS_NAME,
                    self.noise_options(),
                )
            }
        }
    };
}

pub(super) use scheduler_class;
