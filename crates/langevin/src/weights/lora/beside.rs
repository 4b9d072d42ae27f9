//! What of a LoRA file lies beside a model's layers, in place of being merged into their weights: changes that are a product of two matrices.

use super::{Component, LoraFile, Misfit, Module, Targets, dora, edit::padded, formula, key::Part};
use crate::{Error, Result};

/// A file's changes of a model, as factors.
pub struct Beside {
    /// One for each layer that it changes.
    pub modules: Vec<BesideModule>,
    /// What of the file does not fit, and why: parts of sentences.
    pub misfits: Vec<String>,
}

/// The change of one layer's weight: `scale · up · down`.
pub struct BesideModule {
    /// The component that the layer is in.
    pub component: Component,
    /// The layer's path in it.
    pub module: String,
    /// `[rank, in, kernel height, kernel width]`, row-major.
    pub down: Vec<f32>,
    /// `[out, rank]`, row-major.
    pub up: Vec<f32>,
    /// Alpha by the rank.
    pub scale: f64,
}

impl LoraFile {
    /// What of it lies beside the layers of a model that has these parameters.
    ///
    /// # Errors
    /// As [`Self::fit`], or if a change of it is none of low rank: LoHa, LoKr, DoRA, whole differences, and those of biases and normalisations.
    pub fn beside(&self, targets: &Targets) -> Result<Beside> {
        let mut modules = Vec::new();
        let (_, misfits) = self.each_fitting(targets, |module, place| {
            modules.push(self.beside_layer(module, place, targets)?);
            Ok(())
        })?;
        Ok(Beside { modules, misfits })
    }

    /// Whether it is such a file, by its names and shapes, of which alone this reads.
    ///
    /// # Errors
    /// As [`Self::beside`].
    pub fn check_beside(&self, targets: &Targets) -> Result<()> {
        let fitting = self.each_fitting(targets, |module, place| {
            self.is_beside(module, place, targets).map(drop)
        });
        fitting.map(drop)
    }

    /// The formula of a module that can lie beside its layer, and the shape of the weight there.
    fn is_beside<'t>(
        &self,
        module: &Module,
        (component, target): (Component, &str),
        targets: &'t Targets,
    ) -> Result<(Box<dyn formula::Formula>, &'t [usize]), Misfit> {
        let parts = &module.parts;
        if [Part::UpBias, Part::DiffBias, Part::NormBias]
            .into_iter()
            .any(|part| parts.has(part))
        {
            return Err(self.merged_only(module, "change of a bias"));
        }
        let formula = formula::of(parts)?.ok_or_else(|| "has nothing that changes a weight".to_string())?;
        let shape = targets
            .shape(component, &format!("{target}.weight"))
            .ok_or_else(|| "has no weight in the model".to_string())?;
        self.check_shape(formula.shape(), shape, target, targets)?;
        if dora(parts, shape)?.is_some() {
            return Err(self.merged_only(module, "DoRA"));
        }
        match formula.low_rank() {
            Err(kind) => Err(self.merged_only(module, kind)),
            Ok(_) => Ok((formula, shape)),
        }
    }

    fn beside_layer(
        &self,
        module: &Module,
        (component, target): (Component, &str),
        targets: &Targets,
    ) -> Result<BesideModule, Misfit> {
        let (formula, shape) = self.is_beside(module, (component, target), targets)?;
        let scale = self.own_scale(module, component, Some(formula.as_ref()))?;
        let low_rank = formula
            .low_rank()
            .map_err(|kind| self.merged_only(module, kind))?;
        let factors = low_rank.factors(&module.parts).map_err(Misfit::File)?;
        let columns: usize = shape.iter().skip(1).product();
        Ok(BesideModule {
            component,
            module: target.to_string(),
            down: padded(factors.down, [factors.rank, columns]),
            up: factors.up,
            scale,
        })
    }

    /// The error where a file is for merging alone.
    fn merged_only(&self, module: &Module, kind: &str) -> Misfit {
        Misfit::File(Error::file(
            self.path(),
            format!(
                "{} is a {kind}, and only changes of low rank can lie beside a model's layers: put it on the model as that is loaded, by `lora`, \
                 which merges it",
                module.name()
            ),
        ))
    }
}
