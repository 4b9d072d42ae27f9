//! How a pipeline is loaded: flags of every command that draws with one.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use langevin::{
    Lora, Pipeline, Request,
    conditioning::EmbeddingFile,
    device::Device,
    models::{AnyControl, IpAdapterModel},
    pipelines::LoadOptions,
    weights::{lora, single_file::Kind},
};

use crate::hub;

/// What is loaded of a pipeline, and what in place of its parts.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "The model")]
pub(crate) struct Loading {
    /// The variant of the weights, as in diffusion_pytorch_model.fp16.safetensors [the plain ones]
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// What a single file is a checkpoint of, where it cannot tell [what its names and shapes say]
    #[arg(long, value_name = "KIND")]
    kind: Option<Kind>,
    /// Another autoencoder in place of the pipeline's own
    #[arg(long, alias = "vae", value_name = "FOLDER|FILE")]
    codec: Option<PathBuf>,
    /// Encode and decode in tiles: less memory, and seams that may show [only where a picture is very large]
    #[arg(long)]
    vae_tiling: bool,
    /// A tiny autoencoder for previews and animations
    #[arg(long, value_name = "FOLDER")]
    preview_vae: Option<PathBuf>,
    /// A LoRA to put on the model: a file or ORG/NAME of the Hub, and how strongly after a colon [1]; several add up
    #[arg(long, value_name = "FILE[:SCALE]")]
    lora: Vec<Lora>,
    /// Leave out the safety checker that the pipeline comes with
    #[arg(long)]
    no_safety_checker: bool,
    /// A file of learned vectors (textual inversion), and the word for it in prompts [the file's own]; several may be given
    #[arg(long, value_name = "FILE[:TOKEN]")]
    embedding: Vec<EmbeddingFile>,
    /// A folder of such files: the words of all that fit the model are learned
    #[arg(long, value_name = "FOLDER")]
    embedding_dir: Option<PathBuf>,
    /// Whether depths are given, so that nothing need estimate them.
    #[arg(skip)]
    depths_given: bool,
}

/// LoRA and learned words that a picture's settings name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Additions {
    pub loras: Vec<Lora>,
    pub embeddings: Vec<EmbeddingFile>,
}

impl Loading {
    /// With these, where none of their kind are named.
    pub(crate) fn add(&mut self, additions: Additions) {
        if self.lora.is_empty() {
            self.lora = additions.loras;
        }
        if self.embedding.is_empty() {
            self.embedding = additions.embeddings;
        }
    }

    /// The folder of learned words that is named.
    pub(crate) fn embedding_dir(&self) -> Option<&Path> {
        self.embedding_dir.as_deref()
    }

    /// For a request that gives depths, or does not.
    pub(crate) fn with_depths(self, depths_given: bool) -> Self {
        Self { depths_given, ..self }
    }

    /// Loads the pipeline of a folder, a single file, or a name of the Hub.
    ///
    /// # Errors
    /// If there is none, or a part of it is missing or broken.
    pub(crate) fn load(&self, path: &Path, device: &Device) -> Result<Pipeline> {
        Ok(Pipeline::load_with(self.folder(path)?, &self.options()?, device)?)
    }

    /// The ControlNet or T2I-Adapter of a folder, a single file, or a name of the Hub.
    ///
    /// # Errors
    /// If there is none, or a part of it is missing or broken.
    pub(crate) fn control(name: &str, device: &Device) -> langevin::Result<AnyControl> {
        let path =
            hub::model(Path::new(name)).map_err(|error| langevin::Error::Config(format!("{error:#}")))?;
        AnyControl::open(path, device)
    }

    /// The IP-Adapter of a file, or of a file in a repository of the Hub, as in h94/IP-Adapter/models/ip-adapter_sd15.safetensors, with its
    /// image encoder.
    ///
    /// # Errors
    /// If there is none, or a part of it is missing or broken.
    pub(crate) fn ip_adapter(
        name: &str,
        encoder: Option<&Path>,
        device: &Device,
    ) -> langevin::Result<IpAdapterModel> {
        let told = |error: anyhow::Error| langevin::Error::Config(format!("{error:#}"));
        let encoder = encoder.map(hub::model).transpose().map_err(told)?;
        let file = hub::ip_adapter(Path::new(name), encoder.is_none()).map_err(told)?;
        IpAdapterModel::open(file, encoder.as_deref(), device)
    }

    /// The folder of a pipeline; of one of the Hub's, what is large and not wanted is not pulled.
    ///
    /// # Errors
    /// If it cannot be pulled.
    pub(crate) fn folder(&self, path: &Path) -> Result<PathBuf> {
        let mut without = Vec::new();
        if self.no_safety_checker {
            without.push("safety_checker");
        }
        if self.depths_given {
            without.push("depth_estimator");
        }
        if self.codec.is_some() {
            without.extend(["vae", "vqvae"]);
        }
        hub::pipeline_with(path, self.variant.as_deref(), &without)
    }

    /// What the flags mean, with folders in place of the Hub's names.
    ///
    /// # Errors
    /// If what a name stands for cannot be had.
    pub(crate) fn options(&self) -> Result<LoadOptions> {
        let named = |path: &Option<PathBuf>| path.as_deref().map(hub::model).transpose();
        Ok(LoadOptions {
            variant: self.variant.clone(),
            kind: self.kind,
            codec: named(&self.codec)?,
            preview_codec: named(&self.preview_vae)?,
            tiled_codec: self.vae_tiling,
            without_safety_checker: self.no_safety_checker,
            embeddings: self.embedding.clone(),
            embedding_folder: self.embedding_dir.clone(),
            without_depth_estimator: self.depths_given,
            loras: in_folders(&self.lora)?,
            ..LoadOptions::default()
        })
    }

    /// The same for a refiner, which what is for the base model does not fit.
    pub(crate) fn without_loras(&self) -> Self {
        Self {
            lora: Vec::new(),
            ..self.clone()
        }
    }

    /// Takes the LoRA that prompts name out of them, and puts those of a folder on the model too. They hold for the whole call, so all prompts
    /// must name the same.
    ///
    /// # Errors
    /// If there is no such LoRA in the folder.
    pub(crate) fn take_tags(&mut self, folder: &Path, request: &mut Request) -> Result<()> {
        request.take_lora_tags()?;
        for tag in std::mem::take(&mut request.loras) {
            self.lora
                .push(Lora::new(lora::named(folder, &tag.name)?, tag.scales()));
        }
        Ok(())
    }
}

/// LoRA with files or folders in place of names of the Hub.
///
/// # Errors
/// If one cannot be pulled.
pub(crate) fn in_folders(loras: &[Lora]) -> Result<Vec<Lora>> {
    let in_folder = |lora: &Lora| Ok(Lora::new(hub::lora(&lora.path)?, lora.scale.clone()));
    loras.iter().map(in_folder).collect()
}
