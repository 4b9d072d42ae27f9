//! A scheduler of whichever class a file names.

use std::path::Path;

use burn::tensor::Tensor;

use super::{AnyScheduler, ConfigMap, LoopOptions, NoiseLevel, Scheduler, StepOptions, StepOutput, config};
use crate::{Error, Result, files};

/// The name of the file in a scheduler's folder.
pub const SCHEDULER_CONFIG: &str = "scheduler_config.json";

/// The registry: makes [`AnyScheduler`], its names and [`SamplerName::ALL`](super::SamplerName::ALL) of one row per class: its
/// module, its variant, its scheduler and config, and other types of the module that are public.
macro_rules! scheduler_classes {
    ($($module:ident: $variant:ident($scheduler:ident, $config:ident $(, $other:ident)*);)+) => {
        $(pub use $module::{$scheduler, $config $(, $other)*};)+

        /// One of the schedulers that this library has, read from and written to `scheduler_config.json` by its `_class_name`.
        ///
        /// ```
        /// use langevin::schedulers::{AnyScheduler, DDPMConfig, DDPMScheduler, Scheduler};
        ///
        /// let trained_with = AnyScheduler::from(DDPMScheduler::new(DDPMConfig::default())?);
        /// let mut scheduler = trained_with.convert("ddim")?;
        /// scheduler.set_timesteps(50)?;
        /// assert_eq!(scheduler.class_name(), "DDIMScheduler");
        /// assert_eq!(scheduler.timesteps()[0], 980.0);
        /// # Ok::<(), langevin::Error>(())
        /// ```
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub enum AnyScheduler {
            $(
                #[doc = concat!("[`", stringify!($scheduler), "`]")]
                $variant($scheduler),
            )+
        }

        impl AnyScheduler {
            /// What there is: the short name of each, as commands take it, and the class name that files have.
            pub const NAMES: &'static [(&'static str, &'static str)] =
                &[$((<$scheduler as SchedulerClass>::FACTS.samplers[0].name, $config::CLASS_NAME)),+];

            /// The scheduler of a `scheduler_config.json`'s content.
            ///
            /// # Errors
            /// If `_class_name` is missing or not a class that this library has, or a value makes no sense.
            pub fn from_json(map: ConfigMap) -> Result<Self> {
                let name = map.get("_class_name").and_then(|name| name.as_str()).ok_or_else(|| {
                    Error::Config("a scheduler's config needs a _class_name, such as DDPMScheduler".to_owned())
                })?;
                match name {
                    $($config::CLASS_NAME => {
                        Ok(Self::$variant($scheduler::new(config::read(map)?)?))
                    })+
                    _ => Err(any::unsupported(name)),
                }
            }

            /// The scheduler of another class, by its short or class name, that shares what it can with this one's config:
            /// diffusers' `from_config`.
            ///
            /// # Errors
            /// If there is no such class, or it cannot be built from the config.
            pub fn convert(&self, name: &str) -> Result<Self> {
                Self::from_other(name, &self.config()?)
            }

            /// The scheduler of a class from another's config in memory.
            pub(super) fn from_other(name: &str, other: &ConfigMap) -> Result<Self> {
                let of_short = Self::NAMES.iter().find(|(short, _)| *short == name);
                match of_short.map_or(name, |(_, class)| *class) {
                    $($config::CLASS_NAME => Ok(Self::$variant($scheduler::from_config(other)?)),)+
                    _ => Err(any::unsupported(name)),
                }
            }

            /// The name of the class, as `_class_name` has it.
            pub fn class_name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $config::CLASS_NAME,)+
                }
            }

            /// What is known of the class.
            pub fn facts(&self) -> &'static SchedulerFacts {
                match self {
                    $(Self::$variant(_) => &<$scheduler as SchedulerClass>::FACTS,)+
                }
            }

            /// The config in memory, to build another class's scheduler from: all of its keys, those kept for other
            /// classes, and under `_use_default_values` those that nobody set.
            ///
            /// # Errors
            /// If a value cannot be expressed as JSON.
            pub fn config(&self) -> Result<ConfigMap> {
                match self {
                    $(Self::$variant(scheduler) => config::in_memory(scheduler.config()),)+
                }
            }

            pub(super) fn inner(&self) -> &dyn Scheduler {
                match self {
                    $(Self::$variant(scheduler) => scheduler,)+
                }
            }

            pub(super) fn inner_mut(&mut self) -> &mut dyn Scheduler {
                match self {
                    $(Self::$variant(scheduler) => scheduler,)+
                }
            }
        }

        $(impl From<$scheduler> for AnyScheduler {
            fn from(scheduler: $scheduler) -> Self {
                Self::$variant(scheduler)
            }
        })+

        impl SchedulerFacts {
            /// What is known of the class of this name.
            ///
            /// # Errors
            /// If there is none.
            pub fn of_class(class_name: &str) -> Result<Self> {
                match class_name {
                    $($config::CLASS_NAME => Ok(<$scheduler as SchedulerClass>::FACTS),)+
                    _ => Err(any::unsupported(class_name)),
                }
            }
        }

        impl SamplerName {
            /// Every sampler by name, in the order in which help lists them.
            pub const ALL: &'static [Self] = &{
                const BY_CLASS: &[&[SamplerName]] = &[$(<$scheduler as SchedulerClass>::FACTS.samplers),+];
                names::joined::<{ names::count(BY_CLASS) }>(BY_CLASS)
            };
        }
    };
}

pub(super) use scheduler_classes;

impl AnyScheduler {
    /// Reads `scheduler_config.json`; `path` is that file or the folder that holds it.
    ///
    /// # Errors
    /// If the file cannot be read, or as [`Self::from_json`]; each error names the file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let mut path = path.as_ref().to_path_buf();
        if path.is_dir() {
            path.push(SCHEDULER_CONFIG);
        }
        Self::from_json(read_map(&path)?).map_err(|error| named(&path, error))
    }

    /// Reads `scheduler_config.json` as that of the class `class_name`, whichever it names: what another class knows is
    /// kept, what this one misses takes its default. Mirrors `class_name.from_pretrained`.
    ///
    /// # Errors
    /// If the file cannot be read, or as [`Self::from_json`]; each error names the file.
    pub fn load_as(class_name: &str, folder: impl AsRef<Path>) -> Result<Self> {
        let path = folder.as_ref().join(SCHEDULER_CONFIG);
        Self::of_class(class_name, read_map(&path)?, &path)
    }

    /// The same of a config in memory that is said to come from `path`.
    ///
    /// # Errors
    /// As [`Self::load_as`].
    pub fn of_class(class_name: &str, mut config: ConfigMap, path: &Path) -> Result<Self> {
        config.insert("_class_name".to_owned(), class_name.into());
        Self::from_json(config).map_err(|error| named(path, error))
    }

    /// Writes `scheduler_config.json` into `folder`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let path = folder.as_ref().join(SCHEDULER_CONFIG);
        let text = config::unquote_python_numbers(&files::to_json(&path, &self.to_json()?)?);
        files::write_atomically(path, |w| w.write_all(text.as_bytes()))
    }

    /// The content of `scheduler_config.json`, as diffusers writes it.
    ///
    /// # Errors
    /// If a value cannot be expressed as JSON.
    pub fn to_json(&self) -> Result<ConfigMap> {
        Ok(config::written(self.config()?))
    }
}

/// The content of a scheduler's file, as [`AnyScheduler::from_json`] takes it.
fn read_map(path: &Path) -> Result<ConfigMap> {
    let text = config::quote_python_numbers(&files::read_text(path)?);
    serde_json::from_str(&text).map_err(|e| Error::file(path, format!("is not the JSON expected: {e}")))
}

/// The error with the file that it is about.
fn named(path: &Path, error: Error) -> Error {
    match error {
        Error::Unsupported(message) => Error::Unsupported(format!("{}: {message}", path.display())),
        other => Error::file(path, other.to_string()),
    }
}

pub(super) fn unsupported(name: &str) -> Error {
    let mut classes = AnyScheduler::NAMES.to_vec();
    classes.sort_unstable();
    let names: Vec<_> = classes.into_iter().map(|(_, class)| class).collect();
    Error::Unsupported(format!(
        "the scheduler {name} is not supported; those that are: {}",
        names.join(", ")
    ))
}

impl Scheduler for AnyScheduler {
    fn set_timesteps(&mut self, num_inference_steps: usize) -> Result<()> {
        self.inner_mut().set_timesteps(num_inference_steps)
    }

    fn set_loop(&mut self, options: &LoopOptions) -> Result<()> {
        self.inner_mut().set_loop(options)
    }

    fn set_begin_index(&mut self, index: usize) {
        self.inner_mut().set_begin_index(index);
    }

    fn timesteps(&self) -> &[f64] {
        self.inner().timesteps()
    }

    fn takes_variance(&self) -> bool {
        self.inner().takes_variance()
    }

    fn sigmas(&self) -> &[f32] {
        self.inner().sigmas()
    }

    fn scale_model_input(&mut self, sample: Tensor<4>, t: f64) -> Result<Tensor<4>> {
        self.inner_mut().scale_model_input(sample, t)
    }

    fn step(
        &mut self,
        prediction: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        self.inner_mut().step(prediction, t, x, options)
    }

    fn add_noise(&self, x0: Tensor<4>, noise: Tensor<4>, timesteps: &[usize]) -> Result<Tensor<4>> {
        self.inner().add_noise(x0, noise, timesteps)
    }

    fn add_noise_at(&self, x0: Tensor<4>, noise: Tensor<4>, t: f64) -> Result<Tensor<4>> {
        self.inner().add_noise_at(x0, noise, t)
    }

    fn level(&self, t: f64) -> Result<NoiseLevel> {
        self.inner().level(t)
    }

    fn predicted_clean(&self, prediction: &Tensor<4>, t: f64, x: &Tensor<4>) -> Result<Tensor<4>> {
        self.inner().predicted_clean(prediction, t, x)
    }

    fn get_velocity(&self, sample: Tensor<4>, noise: Tensor<4>, timesteps: &[usize]) -> Result<Tensor<4>> {
        self.inner().get_velocity(sample, noise, timesteps)
    }

    fn init_noise_sigma(&self) -> f64 {
        self.inner().init_noise_sigma()
    }

    fn order(&self) -> usize {
        self.inner().order()
    }

    fn num_train_timesteps(&self) -> usize {
        self.inner().num_train_timesteps()
    }

    fn alphas_cumprod(&self) -> &[f32] {
        self.inner().alphas_cumprod()
    }
}
