//! `langevin push`.

mod files;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
pub(crate) use files::{last_part, of_model};
use langevin_hub::{Pushed, RepoKind, RepoName};

use crate::{
    hub::{self, Names},
    terminal,
    transfer::Transfer,
};

/// What `--help` begins with.
pub(crate) const LONG_ABOUT: &str = "\
Publish a run or a pipeline on the Hugging Face Hub.

The pipeline goes there with the run's model card, its grid of samples, its plot, its configuration and its numbers; its \
checkpoints and logs stay. The repository is made if there is none, and what it has already does not travel again. \
HF_TOKEN must hold a token that may write.";

const EXAMPLES: &str = "\
Examples:
  langevin push runs/digits-1 ORG/digits
  langevin push runs/digits-1 ORG/digits --private
  langevin push my-space ORG/my-space --space";

/// What the user typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PushArgs {
    /// The run's, pipeline's or model's folder
    pub folder: PathBuf,
    /// The repository
    #[arg(value_name = "ORG/NAME")]
    pub name: String,
    /// Let only you and your organisation see it, if it is made now
    #[arg(long)]
    pub private: bool,
    /// The folder is a Space, as `langevin space` writes it
    #[arg(long)]
    pub space: bool,
    /// The commit's summary [Upload NAME with langevin]
    #[arg(long, value_name = "TEXT")]
    pub message: Option<String>,
}

/// Pushes, and prints the page.
pub(crate) fn run(args: PushArgs) -> Result<()> {
    let kind = if args.space {
        RepoKind::Space
    } else {
        RepoKind::Model
    };
    let (_, name) = hub::name(&args.name, Some(kind))?;
    let publication = Publication {
        folder: &args.folder,
        name: &name,
        kind,
        private: args.private,
        message: args.message.as_deref(),
    };
    publication.push(&Names::default())
}

/// A folder that is to be published.
pub(crate) struct Publication<'a> {
    /// The folder.
    pub folder: &'a Path,
    /// Where it goes.
    pub name: &'a RepoName,
    /// What it is.
    pub kind: RepoKind,
    /// Whether a repository that is made now is private.
    pub private: bool,
    /// The commit's summary.
    pub message: Option<&'a str>,
}

impl Publication<'_> {
    /// Pushes the folder, and says where it is.
    ///
    /// # Errors
    /// If it holds nothing of the kind, or the Hub does not take it.
    pub(crate) fn push(&self, names: &Names) -> Result<()> {
        if !self.folder.is_dir() {
            bail!("{}: there is no such folder", self.folder.display());
        }
        let mut push = match self.kind {
            RepoKind::Space => files::of_space(self.folder)?,
            _ => of_model(self.folder, &self.name.id)?,
        };
        push.kind = self.kind;
        push.private = self.private;
        push.summary = self.message.map_or_else(
            || format!("Upload {} with langevin", last_part(self.folder)),
            String::from,
        );
        let pushed = names.hub()?.push(self.name, &push, &Transfer::pushing())?;
        report(&pushed)
    }
}

fn report(pushed: &Pushed) -> Result<()> {
    let what = match (&pushed.commit, pushed.files) {
        (None, _) => "nothing had changed".into(),
        (Some(_), 1) => "1 file pushed".into(),
        (Some(_), count) => format!("{count} files pushed"),
    };
    Ok(terminal::print_line(&format!("{what}: {}", pushed.page))?)
}
