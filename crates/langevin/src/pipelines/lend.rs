//! LoRA that are lent to a pipeline: beside its weights for one request, where others are drawn with other ones.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use burn::module::{Module, ParamId};

use super::{FewSteps, Pipeline};
use crate::{
    Error, Lora, Result,
    conditioning::TextCondition,
    models::{AnyModel, UNet2DConditionModel},
    nn::{AdaptedLayer, Adapter, LentAdapters},
    weights::{
        layers_with_weights,
        lora::{BesideModule, LoraFile, LoraScale, Targets, file_of, misfits_in_words},
        shapes,
        single_file::Component,
    },
};

/// The components whose layers a LoRA may lie beside, in the order of a pipeline's text encoders.
const TEXT_ENCODERS: [Component; 2] = [Component::TextEncoder, Component::TextEncoder2];

/// A LoRA for one pipeline, as it is loaded; its copies are the same tensors.
#[derive(Clone, Debug)]
pub struct LentLora {
    path: PathBuf,
    unet: LentPart,
    texts: LentPart,
    /// The weight of the model's first layer, which tells models apart.
    of: ParamId,
    /// What it makes of the model, where it is one for few steps.
    few_steps: Option<FewSteps>,
    misfits: Vec<String>,
}

/// Its adapters for the UNet, or for the text encoders, and whose they are.
#[derive(Clone, Debug)]
struct LentPart {
    adapters: Arc<LentAdapters>,
    places: Arc<HashMap<ParamId, (Component, String)>>,
}

/// A layer, by its component and its path there.
type Layers = HashMap<(Component, String), (AdaptedLayer, ParamId)>;

impl Pipeline {
    /// Loads a LoRA to be lent to this pipeline, see [`Request::loras`](crate::Request::loras). Only changes of low rank can be; others are merged
    /// as the pipeline is loaded ([`LoadOptions::loras`](super::LoadOptions::loras)).
    ///
    /// # Errors
    /// If it cannot be read, is no LoRA, fits nowhere or holds another kind of change, or the pipeline has no UNet that looks at texts.
    pub fn lend(&self, path: impl AsRef<Path>) -> Result<LentLora> {
        let path = path.as_ref();
        let (targets, layers) = self.changeable()?;
        let file = LoraFile::open(file_of(path)?)?;
        let beside = file.beside(&targets)?;
        let device = self.model.device();
        let (mut unet, mut texts) = (Vec::new(), Vec::new());
        let mut places = HashMap::new();
        for module in beside.modules {
            let BesideModule {
                component,
                module,
                down,
                up,
                scale,
            } = module;
            let Some((layer, weight)) = layers.get(&(component, module.clone())) else {
                return Err(Error::file(
                    path,
                    format!("changes {module}, beside which nothing can lie"),
                ));
            };
            let mut adapter = Adapter::of(layer, down, up, &device);
            adapter.scale = scale as f32;
            places.insert(*weight, (component, module));
            match component {
                Component::Unet => unet.push((*weight, adapter)),
                _ => texts.push((*weight, adapter)),
            }
        }
        // Wherever its folder lies, it is added up in the same place among others.
        let name = path.file_name().unwrap_or(path.as_os_str());
        let key = format!("{} {}", name.to_string_lossy(), path.display());
        let places = Arc::new(places);
        let part = |adapters| LentPart {
            adapters: Arc::new(LentAdapters::new(key.clone(), adapters)),
            places: places.clone(),
        };
        Ok(LentLora {
            path: path.to_path_buf(),
            unet: part(unet),
            texts: part(texts),
            of: self.unet()?.conv_in.weight.id,
            few_steps: FewSteps::of_lora_at(path),
            misfits: beside.misfits,
        })
    }

    /// Whether a LoRA can be lent to this pipeline, by its names and shapes, of which alone this reads.
    ///
    /// # Errors
    /// As [`Self::lend`].
    pub fn check_lend(&self, path: impl AsRef<Path>) -> Result<()> {
        let (targets, _) = self.changeable()?;
        LoraFile::open(file_of(path.as_ref())?)?.check_beside(&targets)
    }

    /// Which of these LoRA can be lent to this pipeline.
    pub fn can_lend(&self, paths: &[&Path]) -> Vec<bool> {
        let Ok((targets, _)) = self.changeable() else {
            return vec![false; paths.len()];
        };
        let check = |path: &&Path| LoraFile::open(file_of(path)?)?.check_beside(&targets);
        paths.iter().map(|path| check(path).is_ok()).collect()
    }

    /// What LoRA may change of it, and the layers that this is of.
    fn changeable(&self) -> Result<(Targets, Layers)> {
        let (mut targets, mut layers) = (Targets::default(), Layers::new());
        add(Component::Unet, self.unet()?, &mut targets, &mut layers);
        let texts = self.condition::<TextCondition>();
        let encoders = texts.into_iter().flat_map(TextCondition::encoders);
        for (component, encoder) in TEXT_ENCODERS.into_iter().zip(encoders) {
            add(component, encoder, &mut targets, &mut layers);
        }
        Ok((targets, layers))
    }

    fn unet(&self) -> Result<&UNet2DConditionModel> {
        match &self.model {
            AnyModel::Condition(unet) => Ok(unet),
            _ => Err(Error::option(
                &["loras"],
                format!(
                    "`loras` is for pipelines with a UNet that looks at texts, and a {} has none",
                    self.class().name
                ),
            )),
        }
    }

    /// The same as it is drawn with these beside its weights: what its pictures' files name, and the sampler and steps that a LoRA of few
    /// steps wants.
    ///
    /// # Errors
    /// If one was lent to another pipeline.
    pub(crate) fn with_lent(&self, lent: &[(LentLora, LoraScale)]) -> Result<Self> {
        let of = self.unet()?.conv_in.weight.id;
        if let Some((other, _)) = lent.iter().find(|(lora, _)| lora.of != of) {
            return Err(Error::Config(format!(
                "the LoRA {} was loaded for another model than the one that is drawn with",
                other.path.display()
            )));
        }
        let counts = |scale: &LoraScale| scale.numbers().any(|number| number != 0.0);
        let few = lent
            .iter()
            .find_map(|(lora, scale)| lora.few_steps.filter(|_| counts(scale)));
        let loras = lent
            .iter()
            .map(|(lora, scale)| Lora::new(&lora.path, scale.clone()));
        self.clone().quickened_by(loras.collect(), few)
    }
}

/// Adds a component's layers.
fn add<M: Module>(component: Component, module: &M, targets: &mut Targets, layers: &mut Layers) {
    let shapes = shapes(module);
    targets.add(
        component,
        shapes
            .iter()
            .map(|(name, shape)| (name.as_str(), shape.as_slice())),
    );
    let found = layers_with_weights(module).into_iter();
    layers.extend(found.map(|(layer, weight)| ((component, layer.name.clone()), (layer, weight))));
}

impl LentLora {
    /// Its file, or the folder with it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One line about what of the file does not fit the pipeline; `None` where all of it does.
    pub fn notice(&self) -> Option<String> {
        let notice = misfits_in_words(self.places(), &self.misfits)?;
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        Some(format!("{}: {notice}", name.to_string_lossy()))
    }

    fn places(&self) -> usize {
        self.unet.adapters.len() + self.texts.adapters.len()
    }

    /// The bytes that it takes.
    pub fn bytes(&self) -> u64 {
        let parameters = self.unet.adapters.num_parameters() + self.texts.adapters.num_parameters();
        parameters.saturating_mul(size_of::<f32>()) as u64
    }

    /// What lies beside the UNet at this scale, and how strongly.
    pub(crate) fn on_unet(&self, scale: &LoraScale) -> (Arc<LentAdapters>, f32) {
        self.unet.at(scale)
    }

    /// What lies beside the text encoders.
    pub(crate) fn on_texts(&self, scale: &LoraScale) -> (Arc<LentAdapters>, f32) {
        self.texts.at(scale)
    }
}

impl LentPart {
    /// The adapters and one strength for all of them: of its own where parts of the model have other scales than others.
    fn at(&self, scale: &LoraScale) -> (Arc<LentAdapters>, f32) {
        let of = |weight: &ParamId| {
            let place = self.places.get(weight);
            place.map_or(0.0, |(component, module)| scale.of(*component, module))
        };
        let mut scales = self.adapters.weights().map(of);
        let first = scales.next().unwrap_or(0.0);
        if scales.all(|other| other == first) {
            return (self.adapters.clone(), first as f32);
        }
        let key = format!("{} {scale}", self.adapters.key());
        (Arc::new(self.adapters.scaled(key, of)), 1.0)
    }
}
