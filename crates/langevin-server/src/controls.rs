//! The ControlNets that requests may name: those of a folder that the server was started with, by one plain name each.

use std::path::Path;

use langevin::{
    Error, Pipeline, Result,
    device::Device,
    models::{AnyControl, AnyControlConfig},
};

use crate::shelf::{Keeps, Kept, Room, Shelf, stem};

/// How many stay loaded: as many as one request usually names, since each takes a third of its base's memory.
const KEPT: usize = 2;
/// The endings of single files.
const ENDINGS: [&str; 5] = ["safetensors", "pth", "pt", "ckpt", "bin"];

/// The ControlNets and T2I-Adapters of a folder: its subfolders, and its single files by their names without their endings. A network is
/// loaded when a request first names it, and those that were named last stay.
#[derive(Debug)]
pub struct Controls {
    shelf: Shelf<AnyControlConfig>,
    kept: Kept<AnyControl>,
    device: Device,
}

impl Controls {
    /// Those of a folder, of which only configurations are read.
    ///
    /// # Errors
    /// If the folder cannot be read, or two of them would have one name.
    pub fn of(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        Ok(Self {
            shelf: Shelf::of(folder.as_ref(), name_of, |path| AnyControlConfig::at(path))?,
            kept: Kept::new(KEPT),
            device: device.clone(),
        })
    }

    /// What in the folder is no ControlNet, and why.
    pub fn passed_over(&self) -> &[String] {
        self.shelf.passed_over()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.shelf.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of those that are made for a pipeline.
    pub(crate) fn for_pipeline<'a>(&'a self, pipeline: &'a Pipeline) -> impl Iterator<Item = &'a str> {
        let fitting = self
            .shelf
            .iter()
            .filter(|(_, entry)| pipeline.check_control(&entry.about).is_ok());
        fitting.map(|(name, _)| name)
    }

    /// The network of a name, which is loaded where it is not there.
    ///
    /// # Errors
    /// If there is none of this name, its weights are broken, or there is no room for it.
    pub(crate) fn get(&self, name: &str, room: Room<'_>) -> Result<AnyControl> {
        let entry = self.shelf.get(name).ok_or_else(|| unknown(name))?;
        let load = || {
            let bytes = AnyControl::bytes_at(&entry.path)?;
            room(bytes, &format!("the ControlNet `{name}`"))?;
            Ok((AnyControl::open(&entry.path, &self.device)?, bytes))
        };
        self.kept
            .get(name, |_| load())
            .map_err(|error| self.shelf.hiding(&entry.path, error))
    }
}

impl Keeps for Controls {
    fn bytes(&self) -> u64 {
        self.kept.bytes()
    }

    fn let_go(&self) -> bool {
        self.kept.let_go()
    }
}

/// The error where a request names what is not there.
pub(crate) fn unknown(name: &str) -> Error {
    Error::option(
        &["control"],
        format!(
            "there is no ControlNet `{name}` on this server; GET /api/models lists each model's `controls`"
        ),
    )
}

/// What requests call an entry of the folder; `None` for what is no network by its looks.
fn name_of(path: &Path) -> Option<String> {
    if path.is_file() {
        return stem(path, &ENDINGS);
    }
    let is_one = path.join("config.json").is_file();
    is_one.then(|| Some(path.file_name()?.to_str()?.to_string()))?
}
