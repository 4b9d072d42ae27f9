//! `langevin list`.

use std::time::SystemTime;

use anyhow::Result;
use clap::Args;
use langevin_hub::{CachedRepo, CachedRevision};
use serde_json::{Value, json};

use crate::{
    hub::Names,
    terminal::{self, bytes, duration},
};

/// What the user typed.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Show the commits of each
    #[arg(long)]
    pub revisions: bool,
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// Prints a line a repository.
pub(crate) fn run(args: ListArgs) -> Result<()> {
    let hub = Names::default().hub()?;
    let repos = hub.cached()?;
    let cache = hub.settings().cache.display();
    if args.json {
        let repos: Vec<Value> = repos.iter().map(as_json).collect();
        return Ok(terminal::print_json(&repos.into())?);
    }
    if repos.is_empty() {
        terminal::note(&format!("there is nothing in {cache}"));
        return Ok(());
    }
    let width = repos
        .iter()
        .map(|repo| repo.repo.id.chars().count())
        .max()
        .unwrap_or(0);
    for repo in &repos {
        let (kind, size) = (repo.repo.kind.spoken(), bytes(repo.size));
        terminal::print_line(&format!(
            "{kind:8}  {:width$}  {size:>8}  {}",
            repo.repo.id,
            state(repo)
        ))?;
        for revision in repo.revisions.iter().filter(|_| args.revisions) {
            terminal::print_line(&format!("          {}", describe(revision)))?;
        }
    }
    let shared = hub.shared_bytes();
    let total = repos.iter().map(|repo| repo.size).sum::<u64>() + shared;
    let of_them = match shared {
        0 => String::new(),
        shared => format!(
            ", {} of them in its folder blobs, which Python's client shares between repositories",
            bytes(shared)
        ),
    };
    terminal::say(&format!("{} in {cache}{of_them}", bytes(total)));
    Ok(())
}

fn as_json(repo: &CachedRepo) -> Value {
    let revisions = repo.revisions.iter().map(|revision| {
        json!({
            "commit": revision.commit,
            "refs": revision.refs,
            "files": revision.files,
            "bytes": revision.size,
        })
    });
    json!({
        "kind": repo.repo.kind.spoken(),
        "name": repo.repo.id,
        "bytes": repo.size,
        "modified": repo.modified.map(terminal::unix_seconds),
        "revisions": revisions.collect::<Vec<_>>(),
    })
}

/// The branches that are known, and how long ago something came.
fn state(repo: &CachedRepo) -> String {
    let mut refs: Vec<&str> = repo
        .revisions
        .iter()
        .flat_map(|revision| &revision.refs)
        .map(String::as_str)
        .collect();
    refs.sort_unstable();
    let refs = match (refs.as_slice(), repo.revisions.len()) {
        ([], 0) => "nothing whole".to_string(),
        ([], 1) => "1 commit".to_string(),
        ([], count) => format!("{count} commits"),
        (refs, _) => refs.join(", "),
    };
    let ago = repo
        .modified
        .and_then(|then| SystemTime::now().duration_since(then).ok());
    match ago {
        Some(ago) => format!("{refs}, {} ago", duration(ago.as_secs_f64())),
        None => refs,
    }
}

fn describe(revision: &CachedRevision) -> String {
    let refs = if revision.refs.is_empty() {
        String::new()
    } else {
        format!("  {}", revision.refs.join(", "))
    };
    format!(
        "{}  {} files, {}{refs}",
        revision.commit,
        revision.files,
        bytes(revision.size)
    )
}
