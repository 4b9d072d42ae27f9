//! LoRA files: small changes of a model's weights, which people put on top of it.
//!
//! [`LoraFile`] reads one of any style in the wild, [`Targets`] are the parameters that a model has, and [`LoraFile::fit`] brings both
//! together: a change for each parameter, made where a [`Checkpoint`] reads it. The formulas are the published ones (LoRA, LoCon, LoHa, LoKr, DoRA,
//! whole differences), and alpha is each module's own. Where diffusers drops some of that (alphas of attention layers, `dora_scale`, files with a
//! foreign key), it is not what is followed here.

mod alpha;
mod beside;
mod edit;
mod find;
mod formula;
mod key;
mod refuse;
mod scale;
mod spelling;
mod style;
mod targets;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use self::{
    alpha::Configurations,
    edit::{Dora, VectorEdit, WeightEdit},
    formula::{Parts, count},
    key::Part,
};
pub use self::{
    beside::{Beside, BesideModule},
    find::{LORA_ENDINGS, file_of, has_usual_name, header_hash, named, names_in, titles},
    scale::LoraScale,
    style::LoraStyle,
    targets::Targets,
};
use super::{Checkpoint, Edit, single_file::Component};
use crate::{Error, Result};

/// An open LoRA file, of which only names, shapes and alphas are read.
///
/// ```no_run
/// # fn main() -> langevin::Result<()> {
/// use langevin::weights::lora::LoraFile;
///
/// let file = LoraFile::open("pixel-art.safetensors")?;
/// println!("{} modules", file.len());
/// # Ok(())
/// # }
/// ```
pub struct LoraFile {
    file: Arc<Checkpoint>,
    modules: Vec<Module>,
    /// Names that are of no style.
    foreign: Vec<String>,
    configurations: Configurations,
}

/// What a file has of one module.
struct Module {
    component: Option<Component>,
    /// As the file spells it.
    spelling: String,
    parts: Parts,
}

/// A change of a component's parameter of this name.
type Change = (Component, String, Arc<dyn Edit>);

/// What of a file changes which parameters of a model.
pub struct LoraFit {
    edits: Vec<Change>,
    modules: usize,
    misfits: Vec<String>,
}

impl LoraFile {
    /// Opens a `.safetensors`, `.bin`, `.pt` or `.ckpt`. Nothing of a pickle is executed.
    ///
    /// # Errors
    /// If it cannot be read or is not whole, or holds no LoRA; what else it holds is then said where that is known.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let file = Arc::new(Checkpoint::open(path)?);
        let header = file.metadata(Configurations::HEADER);
        let configurations = Configurations::of(file.path(), header.as_deref())?;
        // By names without full stops: half-converted files spell one module in two ways.
        let mut modules: BTreeMap<(Option<Component>, String), Module> = BTreeMap::new();
        let mut foreign = Vec::new();
        for name in file.names() {
            let Some(key) = style::key(name) else {
                foreign.push(name.to_string());
                continue;
            };
            let module = modules
                .entry((key.component, key.module.replace('.', "_")))
                .or_insert_with(|| Module {
                    component: key.component,
                    spelling: key.module,
                    parts: Parts::new(file.clone()),
                });
            if !module.parts.add(key.part, name) {
                foreign.push(name.to_string());
            }
        }
        if modules.is_empty() {
            return Err(refuse::not_a_lora(&file));
        }
        Ok(Self {
            modules: modules.into_values().collect(),
            file,
            foreign,
            configurations,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// How many modules it names.
    pub fn len(&self) -> usize {
        self.modules.len()
    }

    /// Whether it names none, which cannot be.
    pub fn is_empty(&self) -> bool {
        self.modules.is_empty()
    }

    /// What it changes of a model that has these parameters.
    ///
    /// # Errors
    /// If nothing in it fits, it is for another base model, or a number in it or of the scale is not finite.
    pub fn fit(&self, targets: &Targets, scale: &LoraScale) -> Result<LoraFit> {
        if let Some(number) = scale.numbers().find(|number| !number.is_finite()) {
            let message = format!("`lora` has the scale {number}: it must be a finite number");
            return Err(Error::option(&["lora"], message));
        }
        let mut edits = Vec::new();
        let (modules, misfits) = self.each_fitting(targets, |module, place| {
            edits.extend(self.edits(module, place, targets, scale)?);
            Ok(())
        })?;
        Ok(LoraFit {
            edits,
            modules,
            misfits,
        })
    }

    /// Goes through the modules that a model has: how many of them are taken, and what does not fit.
    fn each_fitting(
        &self,
        targets: &Targets,
        mut take: impl FnMut(&Module, (Component, &str)) -> Result<(), Misfit>,
    ) -> Result<(usize, Vec<String>)> {
        let foreign = self.foreign.iter();
        let mut misfits: Vec<String> = foreign
            .map(|name| format!("{} is of no style of LoRA files", refuse::shortened(name)))
            .collect();
        let mut modules = 0;
        let mut taken = BTreeSet::new();
        for module in &self.modules {
            let found = targets.find(module.component, &module.spelling);
            let Some((component, target)) = found else {
                misfits.push(format!("there is no {}", module.name()));
                continue;
            };
            if !taken.insert((component, target)) {
                misfits.push(format!("{} is there under another name too", module.name()));
                continue;
            }
            match take(module, (component, target)) {
                Ok(()) => modules += 1,
                Err(Misfit::Module(why)) => misfits.push(format!("{} {why}", module.name())),
                Err(Misfit::File(error)) => return Err(error),
            }
        }
        if modules == 0 {
            return Err(refuse::fits_nowhere(&self.file, self.modules.len(), &misfits));
        }
        Ok((modules, misfits))
    }

    /// The changes of a module's parameters.
    fn edits(
        &self,
        module: &Module,
        (component, target): (Component, &str),
        targets: &Targets,
        scale: &LoraScale,
    ) -> Result<Vec<Change>, Misfit> {
        let parts = &module.parts;
        let [weight_name, bias_name] = ["weight", "bias"].map(|parameter| format!("{target}.{parameter}"));
        let mut edits: Vec<Change> = Vec::new();
        let weight = scale.of(component, target);
        let shared = Arc::new(parts.clone());
        let formula = formula::of(parts)?;
        let own = self.own_scale(module, component, formula.as_deref())?;
        if let Some(formula) = formula {
            let Some(shape) = targets.shape(component, &weight_name) else {
                return Err("has no weight in the model".to_string().into());
            };
            self.check_shape(formula.shape(), shape, target, targets)?;
            edits.push((
                component,
                weight_name,
                Arc::new(WeightEdit {
                    dora: dora(parts, shape)?,
                    formula: formula.into(),
                    parts: shared.clone(),
                    scale: own,
                    weight,
                }),
            ));
        }
        for (part, factor) in [(Part::UpBias, own), (Part::DiffBias, 1.0), (Part::NormBias, 1.0)] {
            let Some(shape) = parts.shape(part) else {
                continue;
            };
            match targets.shape(component, &bias_name) {
                Some(bias) if count(bias) == count(shape) => {}
                bias => {
                    let why = format!("changes a bias of {shape:?}, where the model has {bias:?}");
                    return Err(why.into());
                }
            }
            let edit = VectorEdit {
                parts: shared.clone(),
                part,
                factor: factor * weight,
            };
            edits.push((component, bias_name.clone(), Arc::new(edit)));
        }
        if edits.is_empty() {
            return Err("has nothing that changes a weight".to_string().into());
        }
        Ok(edits)
    }

    /// The file's scale of a module: alpha by the rank.
    fn own_scale(
        &self,
        module: &Module,
        component: Component,
        formula: Option<&dyn formula::Formula>,
    ) -> Result<f64, Misfit> {
        let rank = formula.and_then(formula::Formula::rank);
        let place = (component, module.spelling.as_str());
        alpha::scale(&module.parts, rank, place, &self.configurations)
            .map_err(|why| Misfit::File(Error::file(self.path(), format!("{} {why}", module.name()))))
    }

    /// Refuses a change of another shape than the weight's.
    fn check_shape(
        &self,
        [rows, columns]: [usize; 2],
        shape: &[usize],
        target: &str,
        targets: &Targets,
    ) -> Result<(), Misfit> {
        let (outputs, inputs) = (
            shape.first().copied().unwrap_or(1),
            count(shape.get(1..).unwrap_or(&[])),
        );
        let taps = count(shape.get(2..).unwrap_or(&[]));
        // See `WeightEdit`: the first channels are the same in a model that sees more.
        let is_narrower = target == "conv_in" && columns < inputs && columns.is_multiple_of(taps);
        if rows == outputs && (columns == inputs || is_narrower) {
            return Ok(());
        }
        let is_context = target.ends_with(".attn2.to_k") || target.ends_with(".attn2.to_v");
        if let (true, Some(context)) = (is_context && columns != inputs, targets.context()) {
            return Err(Misfit::File(refuse::other_base(&self.file, columns, context)));
        }
        Err(
            format!("changes a weight of {rows} x {columns}, where the model has {outputs} x {inputs}")
                .into(),
        )
    }
}

impl Module {
    /// What a user can look for in the file: the names of its tensors without what they begin and end with.
    fn name(&self) -> String {
        refuse::shortened(&self.spelling)
    }
}

impl LoraFit {
    /// How many of the file's modules the model has.
    pub fn modules(&self) -> usize {
        self.modules
    }

    /// What of the file does not fit, and why: parts of sentences.
    pub fn misfits(&self) -> &[String] {
        &self.misfits
    }

    /// Changes the parameters of a component's checkpoint from now on, as they are read.
    pub fn apply(&self, component: Component, checkpoint: &mut Checkpoint) {
        for (of, name, edit) in &self.edits {
            if *of == component {
                checkpoint.edit(name, edit.clone());
            }
        }
    }

    /// One line about what does not fit; `None` where all of it does.
    pub fn notice(&self) -> Option<String> {
        misfits_in_words(self.modules, &self.misfits)
    }
}

/// One line about what of a file does not fit, of which so many modules do; `None` where all of it does.
pub(crate) fn misfits_in_words(fitting: usize, misfits: &[String]) -> Option<String> {
    const SHOWN: usize = 3;
    let all = misfits.len();
    if all == 0 {
        return None;
    }
    let shown = misfits[..all.min(SHOWN)].join("; ");
    let more = match all.saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    Some(format!(
        "{fitting} of its modules are applied, and {all} of its names do not fit: {shown}{more}"
    ))
}

/// Why a module is not applied.
enum Misfit {
    /// A part of a sentence about it; the others may fit.
    Module(String),
    /// The whole file is refused.
    File(Error),
}

impl From<String> for Misfit {
    fn from(why: String) -> Self {
        Self::Module(why)
    }
}

/// Which DoRA a module's parts are of, if any. The error is a part of a sentence.
fn dora(parts: &Parts, weight: &[usize]) -> Result<Option<Dora>, String> {
    let (outputs, inputs) = (
        weight.first().copied().unwrap_or(1),
        weight.get(1).copied().unwrap_or(1),
    );
    if let Some(shape) = parts.shape(Part::Magnitude) {
        return match count(shape) == outputs {
            true => Ok(Some(Dora::Outputs)),
            false => Err(format!("has magnitudes {shape:?} for {outputs} outputs")),
        };
    }
    match parts.shape(Part::DoraScale) {
        None => Ok(None),
        // `[outputs, 1]`, or `[1, inputs]` in files that normalise the other axis.
        Some(shape) if count(shape) == outputs && shape.first() == Some(&outputs) => {
            Ok(Some(Dora::OutputsOfWhole))
        }
        Some(shape) if count(shape) == inputs && shape.get(1) == Some(&inputs) => {
            Ok(Some(Dora::InputsOfWhole))
        }
        Some(shape) => Err(format!(
            "has dora_scale {shape:?} for a weight of {outputs} x {inputs}"
        )),
    }
}
