//! Where a pipeline is loaded from: its folder, or one file with all of its weights.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use burn::tensor::Device;
use serde_json::Value;

use super::{
    Held, MODEL_INDEX, ModelIndex, PipelineClass, Role,
    classes::CLASSES,
    folder::{SEVERAL_CONTROLS, component_folder, control_folder},
};
use crate::{
    Error, Result,
    codec::Mel,
    files,
    models::{
        AnyControl, AnyModelConfig, Checkpoint, ClipTokenizer, Components, ControlNetConfig, ModelConfig,
        T2IAdapterConfig,
    },
    named::Named,
    schedulers::{AnyScheduler, SCHEDULER_CONFIG},
    weights::{
        CONFIG_NAME, DIFFUSERS, FileNames, TRANSFORMERS,
        lora::LoraFit,
        single_file::{Component, Kind, SingleFile},
    },
};

/// A pipeline whose index has been read, and whose weights have not.
pub(crate) struct PipelineSource {
    index: ModelIndex,
    class: &'static PipelineClass,
    place: Place,
    /// What is put on the weights as they are read.
    pub(super) loras: Vec<LoraFit>,
    /// Whether what they change is rounded to the type that it is stored in.
    pub(super) rounds: bool,
    /// What weights are held as.
    pub(super) held: Held,
}

/// Where the components lie.
enum Place {
    Folder { path: PathBuf, variant: Option<String> },
    // There is one.
    File(Box<PipelineFile>),
}

/// A single file, with the configurations that its shapes tell.
struct PipelineFile {
    file: SingleFile,
    configs: BTreeMap<&'static str, Value>,
}

impl PipelineSource {
    /// Reads the index of the pipeline in a folder, of whose weights a variant is meant where one is named, or makes one of what a file
    /// holds, which is a checkpoint of this kind where one is named.
    ///
    /// # Errors
    /// If there is none, it is of a class that is not there yet, or a component that it names is missing.
    pub(crate) fn open(path: &Path, variant: Option<&str>, kind: Option<Kind>) -> Result<Self> {
        if path.is_file() {
            return Self::of_file(path, kind);
        }
        let index = ModelIndex::load(path)?;
        Ok(Self {
            class: class_of(&index, &path.join(MODEL_INDEX))?,
            index,
            place: Place::Folder {
                path: path.to_path_buf(),
                variant: variant.map(str::to_owned),
            },
            loras: Vec::new(),
            rounds: false,
            held: Held::Stored,
        })
    }

    fn of_file(path: &Path, kind: Option<Kind>) -> Result<Self> {
        let file = SingleFile::open(path)?;
        let file = match kind {
            Some(kind) => file.of_kind(kind),
            None => file,
        };
        let index = file.model_index().ok_or_else(|| {
            let held: Vec<String> = file.components().iter().map(ToString::to_string).collect();
            Error::file(
                path,
                format!("holds no UNet, and so no pipeline; it holds {}", held.join(", ")),
            )
        })?;
        let index = ModelIndex::of_value(index, path)?;
        Ok(Self {
            class: class_of(&index, path)?,
            index,
            place: Place::File(Box::new(PipelineFile {
                configs: file.configs()?,
                file,
            })),
            loras: Vec::new(),
            rounds: false,
            held: Held::Stored,
        })
    }

    /// Refuses a folder that lacks what its index names and a call needs; of its codec it needs nothing where there is another.
    ///
    /// # Errors
    /// If it does.
    pub(super) fn check(&self, has_other_codec: bool) -> Result<()> {
        let Place::Folder { path, .. } = &self.place else {
            return Ok(());
        };
        for (name, _) in self.class.components {
            self.index.component(name, path)?;
        }
        let spared = self.codec_name().filter(|_| has_other_codec);
        let needed =
            |name: &str| self.class.latent.is_some() && !SPARED.contains(&name) && spared != Some(name);
        let absent = |name: &&String| needed(name) && !component_folder(path, name).is_dir();
        match self.index.components.keys().find(absent) {
            Some(name) => Err(Error::file(
                path,
                format!("has no folder `{name}`, which {MODEL_INDEX} names: part of the pipeline is missing"),
            )),
            None => Ok(()),
        }
    }

    /// Refuses a folder that lacks a component which its index names.
    ///
    /// # Errors
    /// If it does.
    pub(super) fn require(&self, name: &str) -> Result<()> {
        if self.index.components.contains_key(name) && !self.has(name) {
            let message = format!(
                "has no folder `{name}`, which {MODEL_INDEX} names: add it, or leave it out when loading"
            );
            return Err(Error::file(self.path(), message));
        }
        Ok(())
    }

    /// The row of the class table that its index names.
    pub(crate) fn class(&self) -> &'static PipelineClass {
        self.class
    }

    /// The pipeline's settings.
    pub(super) fn settings(&self) -> &BTreeMap<String, Value> {
        &self.index.settings
    }

    /// The name of the component of a role, and the class that the index gives it.
    fn component(&self, role: Role) -> Result<(&'static str, &str)> {
        let name = self.class.component(role).ok_or_else(|| {
            Error::Unsupported(format!("a {} has no component of this kind", self.class.name))
        })?;
        let class_name = &self.index.component(name, self.path())?.class_name;
        // As the exports for another framework call theirs.
        Ok((name, class_name.strip_prefix("Flax").unwrap_or(class_name)))
    }

    /// The configuration of its model.
    ///
    /// # Errors
    /// If the file is missing or broken, or the folder holds another model than the index says.
    pub(crate) fn model_config(&self) -> Result<AnyModelConfig> {
        let (name, class_name) = self.component(Role::Denoiser)?;
        let (value, path) = self.config(name)?;
        let config = AnyModelConfig::of_value(value, &path)?;
        if config.class_name() != class_name {
            let message = format!(
                "names a {class_name}, but the folder `{name}` holds a {}",
                config.class_name()
            );
            return Err(Error::file(self.path().join(MODEL_INDEX), message));
        }
        Ok(config)
    }

    /// A scheduler of it, where its class has one of this role.
    ///
    /// # Errors
    /// If the file is missing or broken, or it is none that the pipeline's class can have.
    pub(crate) fn scheduler(&self, role: Role) -> Result<AnyScheduler> {
        let (name, class_name) = self.component(role)?;
        // Early configurations do not all name their class, and where two do, diffusers goes by the index.
        let scheduler = match &self.place {
            Place::Folder { path, .. } => AnyScheduler::load_as(class_name, component_folder(path, name))?,
            Place::File(file) => match file.configs.get(name) {
                Some(Value::Object(config)) => {
                    AnyScheduler::of_class(class_name, config.clone(), self.path())?
                }
                _ => {
                    return Err(Error::file(
                        self.path(),
                        format!("tells nothing of its {SCHEDULER_CONFIG}"),
                    ));
                }
            },
        };
        match self.class.sampler {
            Some(sampler) => scheduler.convert(sampler),
            None => Ok(scheduler),
        }
    }

    /// The component that lies between pictures and its model's space, where there is one.
    pub(super) fn codec_name(&self) -> Option<&'static str> {
        self.class.component(Role::Codec)
    }

    /// What lies between its pictures and sounds, where its class has sounds.
    ///
    /// # Errors
    /// If the configuration is missing or broken.
    pub(super) fn mel(&self) -> Result<Option<Mel>> {
        let component = self.class.component(Role::Sound);
        component
            .map(|name| Mel::load(component_folder(self.path(), name)))
            .transpose()
    }

    /// What lets its pictures follow another; none where its class has none.
    ///
    /// # Errors
    /// If one is missing or broken.
    pub(super) fn controls(&self, device: &Device) -> Result<Vec<AnyControl>> {
        let folders = self.control_folders()?;
        let load = |folder: &String| AnyControl::load(self, folder, device);
        folders.iter().map(load).collect()
    }

    /// Where they lie.
    fn control_folders(&self) -> Result<Vec<String>> {
        let Some(component) = self.class.component(Role::Control) else {
            return Ok(Vec::new());
        };
        let class_name = self.index.component(component, self.path())?.class_name.as_str();
        let single = [ControlNetConfig::CLASS, T2IAdapterConfig::CLASS];
        if single.contains(&class_name) {
            Ok(vec![component.to_string()])
        } else if SEVERAL_CONTROLS.contains(&class_name) {
            Ok(self.several_folders(component))
        } else {
            let message = format!(
                "names a {class_name} as its `{component}`, which is not there yet; a {} is, and a {}",
                single.join(" and a "),
                SEVERAL_CONTROLS.join(" and a ")
            );
            Err(Error::file(self.path().join(MODEL_INDEX), message))
        }
    }

    /// The folders of a component of several networks.
    fn several_folders(&self, component: &str) -> Vec<String> {
        let mut folders = vec![component.to_string()];
        // As diffusers named them before its version 0.28: controlnet, controlnet_1, controlnet_1_2.
        let mut old = component.to_string();
        for number in 1.. {
            old = format!("{old}_{number}");
            let names = [control_folder(component, number), old.clone()];
            match names.into_iter().find(|name| self.path().join(name).is_dir()) {
                Some(name) => folders.push(name),
                None => break,
            }
        }
        folders
    }

    /// Its model's weights.
    ///
    /// # Errors
    /// If there are none, or a file of them is not whole.
    pub(super) fn model_weights(&self) -> Result<Checkpoint> {
        let (name, _) = self.component(Role::Denoiser)?;
        self.weights(name, &DIFFUSERS)
    }

    /// How many bytes the weights of its other components take once they are loaded.
    pub(super) fn other_bytes(&self, without_safety_checker: bool) -> u64 {
        let denoiser = self.class.component(Role::Denoiser);
        let is_wanted = |name: &&String| {
            Some(name.as_str()) != denoiser && !(without_safety_checker && name.as_str() == "safety_checker")
        };
        let bytes = |name: &String| {
            // Schedulers and tokenizers have none.
            let found = [&DIFFUSERS, &TRANSFORMERS].map(|names| self.weights(name, names).ok());
            found
                .into_iter()
                .flatten()
                .next()
                .map_or(0, |weights| weights.loaded_bytes())
        };
        // The index names one of several controls.
        let controls = self.control_folders().unwrap_or_default();
        let named = self.index.components.keys();
        let more = controls
            .iter()
            .filter(|folder| !self.index.components.contains_key(*folder));
        named.filter(is_wanted).chain(more).map(bytes).sum()
    }
}

/// The row of the class table that an index names.
fn class_of(index: &ModelIndex, path: &Path) -> Result<&'static PipelineClass> {
    let held = |name: &str| index.components.contains_key(name);
    PipelineClass::with_components(&index.class_name, held).ok_or_else(|| {
        let mut names: Vec<&str> = CLASSES.iter().map(|class| class.name).collect();
        names.dedup();
        Error::Unsupported(format!(
            "{}: a {} is not there yet; a {} are",
            path.display(),
            index.class_name,
            names.join(" and a ")
        ))
    })
}

/// Components that a pipeline does without here, or that are looked for only where they are wanted.
const SPARED: [&str; 5] = [
    "safety_checker",
    "feature_extractor",
    "depth_estimator",
    "image_encoder",
    "watermarker",
];

impl Components for PipelineSource {
    fn has(&self, name: &str) -> bool {
        // Models of before there was a text encoder in the index have its folder alone.
        let named = self.index.components.contains_key(name) || self.class.latent.is_none();
        match &self.place {
            Place::Folder { path, .. } => named && path.join(name).is_dir(),
            Place::File(file) => {
                let tokenizers = file.file.tokenizers();
                let is_tokenizer = tokenizers.iter().any(|(tokenizer, _)| *tokenizer == name);
                named && (is_tokenizer || file.configs.contains_key(name))
            }
        }
    }

    fn config(&self, name: &str) -> Result<(Value, PathBuf)> {
        match &self.place {
            Place::Folder { path, .. } => {
                let path = component_folder(path, name).join(CONFIG_NAME);
                Ok((files::read_json(&path)?, path))
            }
            Place::File(file) => match file.configs.get(name) {
                Some(config) => Ok((config.clone(), self.path().to_path_buf())),
                None => Err(Error::file(
                    self.path(),
                    format!("holds no {name}, which a {} needs", self.class.name),
                )),
            },
        }
    }

    fn weights(&self, name: &str, names: &FileNames) -> Result<Checkpoint> {
        let mut checkpoint = self.plain_weights(name, names)?;
        checkpoint = match self.held {
            Held::Stored => checkpoint.keeping_types(),
            Held::Float32 => checkpoint,
            Held::Bf16 => checkpoint.in_bf16(),
        };
        if self.rounds {
            checkpoint = checkpoint.rounding();
        }
        if let Ok(component) = Component::from_name(name) {
            for lora in &self.loras {
                lora.apply(component, &mut checkpoint);
            }
        }
        Ok(checkpoint)
    }

    fn tokenizer(&self, name: &str) -> Result<ClipTokenizer> {
        match &self.place {
            Place::Folder { path, .. } => ClipTokenizer::load(path.join(name)),
            Place::File(file) => {
                let tokenizers = file.file.tokenizers();
                let padding = tokenizers.iter().find(|(tokenizer, _)| *tokenizer == name);
                ClipTokenizer::of_clip(padding.map_or("<|endoftext|>", |(_, padding)| padding))
            }
        }
    }

    fn setting(&self, name: &str) -> Option<&Value> {
        self.index.settings.get(name)
    }

    fn path(&self) -> &Path {
        match &self.place {
            Place::Folder { path, .. } => path,
            Place::File(file) => file.file.path(),
        }
    }
}

impl PipelineSource {
    /// A component's weights without what is put on them.
    fn plain_weights(&self, name: &str, names: &FileNames) -> Result<Checkpoint> {
        let (path, variant) = match &self.place {
            Place::Folder { path, variant } => (path, variant),
            Place::File(file) => return file.file.component(Component::from_name(name)?),
        };
        let folder = component_folder(path, name);
        let main = self.class.component(Role::Denoiser) == Some(name);
        match variant.as_deref() {
            // A component without the variant has its plain weights; the model itself must have it.
            Some(variant) if !main => match Checkpoint::named(&folder, Some(variant), names) {
                Ok(checkpoint) => Ok(checkpoint),
                Err(_) => Checkpoint::named(&folder, None, names),
            },
            variant => Checkpoint::named(&folder, variant, names),
        }
    }
}
