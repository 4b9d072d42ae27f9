//! `langevin remove`.

use anyhow::{Result, bail};
use clap::Args;
use langevin_hub::{RepoKind, RepoName};

use crate::{
    hub::{self, Names},
    terminal::{self, bytes},
};

const EXAMPLES: &str = "\
Examples:
  langevin remove google/ddpm-cat-256
  langevin remove huggan/smithsonian_butterflies_subset --dataset
  langevin remove ORG/NAME@v1.0";

/// What the user typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RemoveArgs {
    /// The repository: ORG/NAME, with @REVISION for one commit of it alone
    #[arg(value_name = "ORG/NAME")]
    pub name: String,
    /// It is a data set [whichever of that name is in the cache]
    #[arg(long)]
    pub dataset: bool,
}

/// Removes, and says how much is free now.
pub(crate) fn run(args: RemoveArgs) -> Result<()> {
    let hub = Names::default().hub()?;
    let asked = args.dataset.then_some(RepoKind::Dataset);
    // A few old repositories, such as gpt2, have names that are none any more; what is in the cache can be removed.
    let (id, revision) = match args.name.split_once('@') {
        Some((id, revision)) => (id, Some(revision.to_string())),
        None => (args.name.as_str(), None),
    };
    let is_old = !id.contains('/') && hub.cached()?.iter().any(|repo| repo.repo.id == id);
    let (kind, name) = if is_old {
        let id = id.to_string();
        (asked, RepoName { id, revision })
    } else {
        hub::name(&args.name, asked)?
    };
    let kind = match kind {
        Some(kind) => kind,
        None => {
            let cached = hub.cached()?;
            let of_name: Vec<RepoKind> = cached
                .iter()
                .filter(|repo| repo.repo.id == name.id)
                .map(|repo| repo.repo.kind)
                .collect();
            match of_name.as_slice() {
                [only] => *only,
                [] => RepoKind::Model,
                _ => bail!(
                    "the cache has a model and a data set of the name {}: add --dataset, or write hf://models/{}",
                    name.id,
                    name.id
                ),
            }
        }
    };
    let removed = hub.remove(&name.of_kind(kind), &name)?;
    terminal::print_line(&format!("removed {name}: {} free", bytes(removed.bytes)))?;
    if removed.shared > 0 {
        terminal::note(&format!(
            "{} of it lie in {}, which Python's client shares between repositories: `hf cache prune` removes what none needs",
            bytes(removed.shared),
            hub.settings().cache.join("blobs").display()
        ));
    }
    Ok(())
}
