//! The IP-Adapters that requests may name: those of a folder that the server was started with, by one plain name each.

use std::path::{Path, PathBuf};

use langevin::{
    Error, Pipeline, Result,
    device::Device,
    models::{
        ImageEncoder, IpAdapter, IpAdapterConfig, IpAdapterModel,
        ip_adapter::{ENDINGS, encoder_of},
    },
};

use crate::shelf::{Keeps, Kept, One, Room, Shelf, stem};

/// How many stay loaded. What sees pictures for them is the larger part, and they have it in common.
const KEPT: usize = 2;

/// The IP-Adapters of a folder: its files by their names without their endings, each with the image encoder beside it. One is loaded when a
/// request first names it, and those that were named last stay.
#[derive(Debug)]
pub struct IpAdapters {
    shelf: Shelf<About>,
    kept: Kept<IpAdapterModel>,
    device: Device,
}

#[derive(Debug)]
struct About {
    config: IpAdapterConfig,
    encoder: PathBuf,
}

impl About {
    fn of(file: &Path) -> Result<Self> {
        let config = IpAdapterConfig::at(file)?;
        let encoder = encoder_of(file, &config)?;
        Ok(Self { config, encoder })
    }
}

impl IpAdapters {
    /// Those of a folder, of whose weights nothing is read yet.
    ///
    /// # Errors
    /// If the folder cannot be read, or two of them would have one name.
    pub fn of(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        Ok(Self {
            shelf: Shelf::of(folder.as_ref(), |path| stem(path, &ENDINGS), About::of)?,
            kept: Kept::new(KEPT),
            device: device.clone(),
        })
    }

    /// What in the folder is no IP-Adapter, and why.
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
    pub(crate) fn for_pipeline(&self, pipeline: &Pipeline) -> Vec<&str> {
        let model = pipeline.model.config();
        let fitting = self
            .shelf
            .iter()
            .filter(|(_, entry)| entry.about.config.check_fits(&model).is_ok());
        fitting.map(|(name, _)| name).collect()
    }

    /// The adapter of a name, which is loaded where it is not there.
    ///
    /// # Errors
    /// If there is none of this name, its weights are broken, or there is no room for it.
    pub(crate) fn get(&self, name: &str, room: Room<'_>) -> Result<IpAdapterModel> {
        let entry = self.shelf.get(name).ok_or_else(|| unknown(name))?;
        let (file, encoder) = (&entry.path, &entry.about.encoder);
        let what = format!("the IP-Adapter `{name}`");
        let load = |others: &[One<IpAdapterModel>]| {
            let has_same = |one: &&One<IpAdapterModel>| {
                self.shelf
                    .get(&one.name)
                    .is_some_and(|other| other.about.encoder == *encoder)
            };
            let bytes = IpAdapter::bytes_at(file)?;
            // What sees pictures for another one sees them for this one too.
            if let Some(other) = others.iter().find(has_same) {
                room(bytes, &what)?;
                let beside = other.value.encoder.clone();
                let adapter = IpAdapterModel::with_encoder(file, beside, &self.device)?;
                return Ok((adapter, bytes));
            }
            let bytes = bytes.saturating_add(ImageEncoder::bytes_at(encoder)?);
            room(bytes, &what)?;
            Ok((IpAdapterModel::open(file, Some(encoder), &self.device)?, bytes))
        };
        self.kept
            .get(name, load)
            .map_err(|error| self.shelf.hiding(encoder, self.shelf.hiding(file, error)))
    }
}

impl Keeps for IpAdapters {
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
        &["ip_adapter"],
        format!(
            "there is no IP-Adapter `{name}` on this server; GET /api/models lists each model's `ip_adapters`"
        ),
    )
}
