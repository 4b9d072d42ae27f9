//! The modules of a model that a LoRA file may name, by every spelling that files have for them.

use std::collections::HashMap;

use crate::weights::{
    Checkpoint,
    single_file::{Component, original_names},
};

/// What models' parameters are called and shaped, and how their modules are spelled.
///
/// Full stops and underscores are one here: `down_blocks_0_attentions_0_proj_in` cannot be split without knowing which modules there are, and
/// half-converted files mix both.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    modules: HashMap<(Component, String), String>,
    shapes: HashMap<(Component, String), Vec<usize>>,
    components: Vec<Component>,
    /// What the UNet's modules were called where it was trained.
    originals: HashMap<String, String>,
}

impl Targets {
    /// Adds a component's parameters, as a checkpoint has them.
    pub fn add<'a>(
        &mut self,
        component: Component,
        parameters: impl IntoIterator<Item = (&'a str, &'a [usize])>,
    ) {
        self.components.push(component);
        let mut names = Vec::new();
        for (name, shape) in parameters {
            self.shapes.insert((component, name.to_string()), shape.to_vec());
            names.push(name);
        }
        if component == Component::Unet {
            // First, so that diffusers' own names win.
            for (original, present) in original_names(&names) {
                self.spell(component, module(&original), module(&present));
                let (original, present) = (module(&original).to_string(), module(&present).to_string());
                self.originals.insert(present, original);
            }
        }
        for name in names {
            let module = module(name);
            self.spell(component, module, module);
            if component != Component::Unet {
                // With and without, as versions of transformers have it.
                self.spell(component, &format!("text_model.{module}"), module);
                if let Some(bare) = module.strip_prefix("text_model.") {
                    self.spell(component, bare, module);
                }
            }
        }
    }

    /// Adds a component's parameters.
    pub fn add_checkpoint(&mut self, component: Component, weights: &Checkpoint) {
        let parameters = weights.names();
        self.add(
            component,
            parameters.filter_map(|name| Some((name, weights.get(name)?.shape.as_slice()))),
        );
    }

    fn spell(&mut self, component: Component, spelling: &str, module: &str) {
        self.modules
            .insert((component, spelling.replace('.', "_")), module.to_string());
    }

    /// The module that a file spells so.
    pub(super) fn find(&self, component: Option<Component>, spelling: &str) -> Option<(Component, &str)> {
        let spelling = spelling.replace('.', "_");
        let candidates = self.components.iter().copied();
        candidates
            .filter(|candidate| component.is_none_or(|component| component == *candidate))
            .find_map(|candidate| {
                let module = self.modules.get(&(candidate, spelling.clone()))?;
                Some((candidate, module.as_str()))
            })
    }

    /// The shape of a parameter.
    pub(super) fn shape(&self, component: Component, parameter: &str) -> Option<&[usize]> {
        let shape = self.shapes.get(&(component, parameter.to_string()))?;
        Some(shape)
    }

    /// What one of the UNet's modules was called where it was trained.
    pub(super) fn original(&self, module: &str) -> Option<String> {
        self.originals.get(module).cloned()
    }

    /// Whether it is Stable Diffusion XL, or made as it is.
    pub(super) fn is_xl(&self) -> bool {
        let of_sizes = |(component, name): &(Component, String)| {
            *component == Component::Unet && name.starts_with("add_embedding.")
        };
        self.components.contains(&Component::TextEncoder2) || self.shapes.keys().any(of_sizes)
    }

    /// How long the vectors are that the UNet looks at, where it looks at a sequence.
    pub(super) fn context(&self) -> Option<usize> {
        let mut looks = self.shapes.iter().filter(|((component, name), _)| {
            *component == Component::Unet && name.ends_with(".attn2.to_k.weight")
        });
        looks.next().and_then(|(_, shape)| shape.get(1).copied())
    }
}

/// The module of a parameter.
fn module(parameter: &str) -> &str {
    parameter.rsplit_once('.').map_or(parameter, |(module, _)| module)
}
