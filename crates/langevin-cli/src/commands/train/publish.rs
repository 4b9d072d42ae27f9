//! Publishing a run on the Hub when it is over, by the flags of the script.

use std::path::Path;

use anyhow::{Context, Result};
use langevin::training::card::shell_word;
use langevin_hub::{RepoKind, RepoName};

use super::args::HubArgs;
use crate::{
    commands::push::{Publication, last_part},
    hub::Names,
    terminal,
    transfer::Transfer,
};

/// Where a run is to be published.
#[derive(Debug)]
pub(super) struct Publish {
    names: Names,
    id: Option<String>,
    private: bool,
}

/// Where a run will be published, by a token that the Hub knows.
#[derive(Debug)]
pub(super) struct Checked {
    publish: Publish,
    /// Whose token it is.
    user: String,
}

/// How names are resolved, and whether the run is published; a note for each flag that does nothing without another.
///
/// # Errors
/// If the repository's name is none.
pub(super) fn resolve(args: &HubArgs, notes: &mut Vec<String>) -> Result<(Names, Option<Publish>)> {
    let names = Names {
        cache: args.cache_dir.clone(),
        token: args.hub_token.clone(),
    };
    let private = args.hub_private_repo.unwrap_or(false);
    if args.push_to_hub != Some(true) {
        let without_effect = [
            ("--hub-model-id", args.hub_model_id.is_some()),
            ("--hub-private-repo", private),
        ];
        let given = without_effect.into_iter().filter(|(_, given)| *given);
        notes.extend(given.map(|(flag, _)| format!("{flag} has no effect without --push-to-hub")));
        return Ok((names, None));
    }
    if let Some(id) = &args.hub_model_id {
        in_namespace(id, "me").context("--hub-model-id")?;
    }
    let publish = Publish {
        names: names.clone(),
        id: args.hub_model_id.clone(),
        private,
    };
    Ok((names, Some(publish)))
}

/// The repository that a name without an `ORG/` means: the user's own.
fn in_namespace(id: &str, user: &str) -> Result<RepoName> {
    let whole = if id.contains('/') {
        id.to_string()
    } else {
        format!("{user}/{id}")
    };
    Ok(whole.parse()?)
}

impl Publish {
    /// Asks the Hub whose token it is.
    ///
    /// # Errors
    /// If there is no token, or the Hub does not know it, says that it may only read, or cannot be reached.
    pub(super) fn check(self) -> Result<Checked> {
        let hub = self.names.hub()?;
        let user = hub.check_push(&Transfer::pushing()).context("--push-to-hub")?;
        Ok(Checked { publish: self, user })
    }
}

impl Checked {
    /// Makes the repository of a run in `folder`, as the script does before it trains: what the token may not do is told before hours
    /// of training.
    ///
    /// # Errors
    /// If the Hub does not make it.
    pub(super) fn make(&self, folder: &Path) -> Result<()> {
        let name = self.name(folder)?;
        let hub = self.publish.names.hub()?;
        let page = hub
            .make_repository(&name, RepoKind::Model, self.publish.private, &Transfer::pushing())
            .context("--push-to-hub")?;
        terminal::say(&format!("the run will be published as {page}"));
        Ok(())
    }

    fn name(&self, folder: &Path) -> Result<RepoName> {
        let id = self.publish.id.clone().unwrap_or_else(|| last_part(folder));
        in_namespace(&id, &self.user)
    }

    /// Pushes the run in `folder`.
    ///
    /// # Errors
    /// If the Hub does not take it; the error says how to try again.
    pub(super) fn run(&self, folder: &Path) -> Result<()> {
        let name = self.name(folder)?;
        let publication = Publication {
            folder,
            name: &name,
            kind: RepoKind::Model,
            private: self.publish.private,
            message: None,
        };
        publication.push(&self.publish.names).with_context(|| {
            format!(
                "the run is whole, and not published; `langevin push {} {name}` tries again",
                shell_word(&folder.display().to_string())
            )
        })
    }
}
