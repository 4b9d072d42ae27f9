//! All components of a pipeline in one file, in the layout of the programs that Stable Diffusion was trained with (CompVis,
//! Stability): what people download as `.safetensors` and `.ckpt`.
//!
//! [`SingleFile`] reads one: each component is a [`Checkpoint`] under the names of diffusers and transformers, whose tensors are read at their
//! place in the file. [`write()`] makes one of components.

mod clip;
mod config;
mod controlnet;
mod foreign;
mod index;
mod kind;
mod pairs;
mod schedule;
mod unet;
mod vae;
mod write;

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

pub use self::{
    kind::Kind,
    write::{Markers, write},
};
use super::{Checkpoint, checkpoint::Part};
use crate::{
    Error, Result,
    named::{Named, named_enum},
};

named_enum! {
    /// A component that such a file can hold; its name is that of its folder in a pipeline.
    #[derive(PartialOrd, Ord)]
    pub enum Component: "a component of a single file" {
        /// A `UNet2DConditionModel`.
        Unet = "unet",
        /// An `AutoencoderKL`.
        Vae = "vae",
        /// A `CLIPTextModel`.
        TextEncoder = "text_encoder",
        /// A `CLIPTextModelWithProjection`.
        TextEncoder2 = "text_encoder_2",
        /// A `ControlNetModel`.
        ControlNet = "controlnet",
    }
}

/// How the names of such files end.
pub const ENDINGS: [&str; 4] = ["safetensors", "ckpt", "gguf", "pt"];

/// Whether a path is that of a file with such an ending.
pub fn is_named(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default();
    path.is_file() && ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known))
}

/// How a component's parameters are named in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    /// As where it was trained.
    Original,
    /// As in diffusers or transformers.
    Present,
}

/// Where components lie: what their names begin with, how what follows begins in one of them, and how they are named.
const PLACES: &[(Component, &str, &str, Naming)] = &[
    (Component::Unet, "model.diffusion_model.", "", Naming::Original),
    (Component::Unet, "", "output_blocks.", Naming::Original),
    (Component::Unet, "", "up_blocks.", Naming::Present),
    (Component::Vae, "first_stage_model.", "", Naming::Original),
    (Component::Vae, "vae.", "", Naming::Original),
    (Component::Vae, "", "decoder.up.", Naming::Original),
    (Component::Vae, "", "decoder.up_blocks.", Naming::Present),
    (
        Component::TextEncoder,
        "cond_stage_model.transformer.",
        "",
        Naming::Present,
    ),
    (
        Component::TextEncoder,
        "conditioner.embedders.0.transformer.",
        "",
        Naming::Present,
    ),
    (
        Component::TextEncoder,
        "cond_stage_model.model.",
        "",
        Naming::Original,
    ),
    (
        Component::TextEncoder2,
        "conditioner.embedders.1.model.",
        "",
        Naming::Original,
    ),
    (
        Component::TextEncoder2,
        "conditioner.embedders.0.model.",
        "",
        Naming::Original,
    ),
    (Component::ControlNet, "control_model.", "", Naming::Original),
    (Component::ControlNet, "", "input_hint_block.", Naming::Original),
    (
        Component::ControlNet,
        "",
        "controlnet_cond_embedding.",
        Naming::Present,
    ),
];

/// A component's parameters: the part of a stored tensor that each is.
type Parts = Vec<(String, Part)>;

/// An open single file, of which only names, types and shapes have been read.
///
/// ```no_run
/// # fn main() -> langevin::Result<()> {
/// use langevin::weights::single_file::{Component, SingleFile};
///
/// let file = SingleFile::open("v1-5-pruned-emaonly.safetensors")?;
/// println!("{} with {:?}", file.kind(), file.components());
/// let unet = file.component(Component::Unet)?;
/// # Ok(())
/// # }
/// ```
pub struct SingleFile {
    file: Checkpoint,
    kind: Kind,
    with_ema: bool,
}

impl SingleFile {
    /// Opens a `.safetensors`, `.gguf`, `.ckpt` or `.pt`, and tells its kind. Nothing of a pickle is executed.
    ///
    /// # Errors
    /// If it cannot be read or is not whole, or is no checkpoint of the Stable Diffusion family; what else it is is then said where that is known.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let file = Checkpoint::open(path)?;
        let kind = kind::recognise(&file)?;
        Ok(Self {
            file,
            kind,
            with_ema: false,
        })
    }

    /// The same file as one of this kind: what a file cannot tell, such as that a model of version 2 predicts noise, a user can.
    pub fn of_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// The same file with the moving average of the UNet's weights in place of the weights, where both are in it.
    ///
    /// # Errors
    /// If the file holds no such average.
    pub fn with_ema(mut self) -> Result<Self> {
        if self.file.names_below(unet::EMA).next().is_none() {
            let message = "holds no moving average beside its weights: no name begins with `model_ema.`";
            return Err(Error::file(self.path(), message));
        }
        self.with_ema = true;
        Ok(self)
    }

    /// Its format and the types of its numbers, for a sentence.
    pub fn format(&self) -> String {
        self.file.to_string()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// What it is a checkpoint of.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The components that it holds.
    pub fn components(&self) -> Vec<Component> {
        components(&self.file)
    }

    /// The weights of a component, under the names that diffusers or transformers give them. What belongs to no component (schedule tables,
    /// `position_ids`, losses, moving averages, markers) is left out.
    ///
    /// # Errors
    /// If the file does not hold it, or not all of it, or holds it in numbers of a type that is not supported.
    pub fn component(&self, component: Component) -> Result<Checkpoint> {
        let found = component_of(&self.file, component, self.kind, self.with_ema)?;
        found.check_types()?;
        Ok(found)
    }

    /// The configurations of its components and its schedulers, by their folders' names: what the tensors' shapes tell, and otherwise what is known
    /// of the kind.
    ///
    /// # Errors
    /// As [`Self::component`], and if a component's tensors make no model.
    pub fn configs(&self) -> Result<BTreeMap<&'static str, Value>> {
        config::of(self)
    }

    /// The pipeline's `model_index.json`; `None` where the file holds no UNet and so no pipeline.
    pub fn model_index(&self) -> Option<Value> {
        index::of(self)
    }

    /// The tokenizers that belong to it, and what each pads with: its folder's name and the token. All have CLIP's vocabulary.
    pub fn tokenizers(&self) -> Vec<(&'static str, &'static str)> {
        index::tokenizers(self)
    }
}

/// The names that a UNet's parameters had where it was trained, each with diffusers' name of it.
pub(super) fn original_names(present: &[&str]) -> Vec<(String, String)> {
    let has_text_time = present.iter().any(|name| name.starts_with("add_embedding."));
    let structure = unet::Structure::of_present(present.iter().copied());
    let translator = pairs::Translator::to_original(structure.pairs(has_text_time));
    let pair = |name: &&str| Some((translator.name(name)?, (*name).to_string()));
    present.iter().filter_map(pair).collect()
}

/// The other name of a module of Stable Diffusion's own UNet, or of XL's: the one that it had where it was trained, or diffusers'. `None` where
/// it is none that there is.
pub(super) fn standard_name(module: &str, is_xl: bool, to_original: bool) -> Option<String> {
    let pairs = unet::Structure::standard(is_xl).pairs(is_xl);
    let translator = match to_original {
        true => pairs::Translator::to_original(pairs),
        false => pairs::Translator::to_present(pairs),
    };
    let name = translator.name(&format!("{module}.weight"))?;
    Some(name.strip_suffix(".weight").unwrap_or(&name).to_string())
}

/// The components that a file holds.
fn components(file: &Checkpoint) -> Vec<Component> {
    let all = Component::ALL.iter().copied();
    all.filter(|component| place_of(file, *component).is_some())
        .collect()
}

/// Where a component lies in a file.
fn place_of(file: &Checkpoint, component: Component) -> Option<(&'static str, Naming)> {
    // Old programs leave their position ids where a refiner's first encoder would be.
    let is_there = |begin: &str| {
        file.names_below(begin)
            .any(|name| !name.ends_with("position_ids"))
    };
    PLACES
        .iter()
        .filter(|(of, ..)| *of == component)
        .find(|(_, prefix, begin, _)| is_there(&format!("{prefix}{begin}")))
        .map(|(_, prefix, _, naming)| (*prefix, *naming))
}

/// A component of a file of some kind.
fn component_of(file: &Checkpoint, component: Component, kind: Kind, with_ema: bool) -> Result<Checkpoint> {
    let broken = |message: String| Error::file(file.path(), message);
    let Some((prefix, naming)) = place_of(file, component) else {
        let there: Vec<String> = components(file).iter().map(ToString::to_string).collect();
        let message = format!("holds no {component}; there are {}", there.join(", "));
        return Err(broken(message));
    };
    let below = Below::new(file, prefix);
    let mut parts = match (component, naming) {
        (Component::TextEncoder | Component::TextEncoder2, Naming::Present) => clip::of_transformers(&below),
        (Component::TextEncoder | Component::TextEncoder2, Naming::Original) => {
            clip::of_open_clip(&below, component, kind).map_err(broken)?
        }
        (_, Naming::Present) => below.as_they_are(),
        (Component::Unet, Naming::Original) => unet::parts(&below, kind).map_err(broken)?,
        (Component::ControlNet, Naming::Original) => controlnet::parts(&below, kind).map_err(broken)?,
        (Component::Vae, Naming::Original) => vae::parts(&below),
    };
    if with_ema && component == Component::Unet {
        unet::take_ema(file, &mut parts).map_err(broken)?;
    }
    Ok(file.of_parts(parts))
}

/// The tensors of a file whose names begin with a prefix.
struct Below<'a> {
    file: &'a Checkpoint,
    prefix: &'a str,
}

impl<'a> Below<'a> {
    fn new(file: &'a Checkpoint, prefix: &'a str) -> Self {
        Self { file, prefix }
    }

    /// Their names without the prefix.
    fn names(&self) -> impl Iterator<Item = &'a str> {
        let prefix = self.prefix;
        self.file
            .names_below(prefix)
            .filter_map(move |name| name.strip_prefix(prefix))
    }

    /// The shape of one.
    fn shape(&self, name: &str) -> Vec<usize> {
        let stored = self.file.get(&format!("{}{name}", self.prefix));
        stored.map(|stored| stored.shape.clone()).unwrap_or_default()
    }

    /// One as it is.
    fn whole(&self, name: &str) -> Part {
        Part {
            of: format!("{}{name}", self.prefix),
            shape: self.shape(name),
            first: 0,
            transposed: false,
        }
    }

    /// All under the names that they have.
    fn as_they_are(&self) -> Parts {
        self.names()
            .map(|name| (name.to_string(), self.whole(name)))
            .collect()
    }

    /// All under other names; `None` leaves one out, which is said.
    fn renamed(&self, name: impl Fn(&str) -> Option<String>) -> Parts {
        let mut parts = vec![];
        for old in self.names() {
            match name(old) {
                Some(new) => parts.push((new, self.whole(old))),
                None => tracing::warn!("{}: passed over {}{old}", self.file.path().display(), self.prefix),
            }
        }
        parts
    }
}
