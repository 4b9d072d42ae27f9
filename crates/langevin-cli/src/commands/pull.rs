//! `langevin pull`.

use anyhow::Result;
use clap::Args;
use langevin::data::OpenOptions;
use langevin_hub::{ModelFiles, RepoKind};

use crate::{
    hub::{self, Names},
    terminal,
    transfer::Transfer,
};

/// What `--help` begins with.
pub(crate) const LONG_ABOUT: &str = "\
Download a model or a data set from the Hugging Face Hub into the standard cache.

Only what is needed comes: of a model one version of its weights, of a data set one split of one configuration. What is \
there already is not downloaded again, and Python's libraries use the same cache. Every command that takes a model or a \
data set pulls by itself where it is given ORG/NAME or ORG/NAME@REVISION; this one does it beforehand. HF_HOME, \
HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE are honoured.";

const EXAMPLES: &str = "\
Examples:
  langevin pull google/ddpm-cat-256
  langevin pull huggan/smithsonian_butterflies_subset --dataset
  langevin pull ORG/NAME@v1.0 --variant fp16";

/// What the user typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PullArgs {
    /// The repository: ORG/NAME, with @REVISION for a branch, a tag or a commit
    #[arg(value_name = "ORG/NAME")]
    pub name: String,
    /// It is a data set [a model, or where there is none of that name, a data set]
    #[arg(long)]
    pub dataset: bool,
    /// Of a model: the variant of the weights, as in diffusion_pytorch_model.fp16.safetensors [the plain ones]
    #[arg(long, value_name = "NAME")]
    pub variant: Option<String>,
    /// Of a data set: which of its configurations [the default one]
    #[arg(long, value_name = "NAME")]
    pub dataset_config_name: Option<String>,
    /// Of a data set: the part [train]
    #[arg(long, value_name = "NAME")]
    pub split: Option<String>,
    /// Every file of the repository
    #[arg(long, conflicts_with_all = ["variant", "dataset_config_name", "split"])]
    pub all: bool,
}

/// Pulls, and prints where it is.
pub(crate) fn run(args: PullArgs) -> Result<()> {
    let names = Names::default();
    let of_data = args.dataset || args.dataset_config_name.is_some() || args.split.is_some();
    let asked = of_data.then_some(RepoKind::Dataset);
    let (kind, name) = hub::name(
        &args.name,
        asked.or(args.variant.is_some().then_some(RepoKind::Model)),
    )?;
    let kind = match kind {
        Some(kind) => kind,
        None => names.kind(&name)?,
    };
    let folder = if args.all || kind == RepoKind::Space {
        let (hub, progress) = (names.hub()?, Transfer::pulling());
        let snapshot = hub.open(kind, &name, &progress)?;
        let files: Vec<&str> = snapshot.files().into_iter().map(|(path, _)| path).collect();
        snapshot.fetch(&files, &progress)?
    } else if kind == RepoKind::Dataset {
        let default = OpenOptions::default();
        let options = OpenOptions {
            config: args.dataset_config_name,
            split: args.split.unwrap_or(default.split),
            ..default
        };
        names.pull_dataset(&name, &options)?
    } else {
        let wanted = ModelFiles {
            variant: args.variant,
            ..ModelFiles::default()
        };
        names.hub()?.pull_model(&name, &wanted, &Transfer::pulling())?
    };
    Ok(terminal::print_line(&folder.display().to_string())?)
}
