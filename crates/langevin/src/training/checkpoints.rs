//! The checkpoints in a run's folder: `checkpoint-N`, after N optimiser steps, each whole or not there at all.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{RUN_CONFIG, ResumeFrom, TrainingConfig, lock, state::STATE};
use crate::{Error, Result, files};

/// What the names of checkpoints begin with, as in the training script.
pub(super) const PREFIX: &str = "checkpoint-";
/// What the names of everything unfinished begin with.
const UNFINISHED: &str = ".langevin-";

/// The checkpoints in a folder, oldest first, each with the optimiser steps that were done.
pub fn all(folder: impl AsRef<Path>) -> Vec<(usize, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let step = entry.file_name().to_str()?.strip_prefix(PREFIX)?.parse().ok()?;
            Some((step, entry.path()))
        })
        .collect();
    found.sort();
    found
}

/// The checkpoint that a configuration asks to resume from; `None` where it asks for none, or for the latest of a run
/// that has none yet, which then starts from the beginning.
///
/// # Errors
/// If there is no such checkpoint, or the latest is asked for and no folder is named.
pub fn asked_for(config: &TrainingConfig) -> Result<Option<PathBuf>> {
    let latest = |folder: &Path| all(folder).pop().map(|(_, path)| path);
    match (&config.resume_from_checkpoint, &config.output_dir) {
        (None, _) => Ok(None),
        (Some(ResumeFrom::Latest), None) => Err(Error::option(
            &["output_dir"],
            "the latest checkpoint is looked for in the run's folder: name it with `output_dir`",
        )),
        (Some(ResumeFrom::Latest), Some(folder)) => Ok(latest(folder)),
        (Some(ResumeFrom::Path(path)), folder) => {
            // The script takes the name of a checkpoint in the run's folder; a run's folder stands for its latest.
            let in_folder = folder.as_ref().map(|folder| folder.join(path));
            let candidates = [Some(path.clone()), in_folder];
            let found = candidates.into_iter().flatten().find_map(|path| {
                if path.join(STATE).is_file() {
                    Some(path)
                } else {
                    latest(&path)
                }
            });
            found.map(Some).ok_or_else(|| {
                if path.join(RUN_CONFIG).is_file() {
                    return Error::option(
                        &["pretrained"],
                        format!(
                            "{}: is a run that left no checkpoint to go on from: start a new one from its weights with \
                             `pretrained`, if it has ended",
                            path.display()
                        ),
                    );
                }
                Error::file(
                    path,
                    format!("is no checkpoint: it would be a folder `{PREFIX}N` with a file {STATE}, or a run's folder with such"),
                )
            })
        }
    }
}

/// The folder of the run that a checkpoint belongs to.
pub fn run_of(checkpoint: &Path) -> PathBuf {
    match checkpoint.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Whether two paths are one folder.
pub(super) fn same_folder(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

/// Writes a checkpoint through `fill`, which is given an empty folder, unless there is one of this step: the rest of the
/// run follows from that as well. It gets its name when all of it is on disk, so
/// that whatever happens, a power cut included, leaves it whole or not there. Then the oldest are removed, down to `limit`.
///
/// # Errors
/// If something cannot be written; the checkpoints that were there before then still are.
pub(super) fn write(
    folder: &Path,
    step: usize,
    limit: Option<usize>,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let path = folder.join(format!("{PREFIX}{step}"));
    if path.exists() {
        return Ok(path);
    }
    let aside = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .tempdir_in(folder)
        .map_err(|e| Error::io("write into", folder, e))?;
    // Temporary folders are private; one made inside is as public as any other.
    let staged = aside.path().join("staged");
    fs::create_dir(&staged).map_err(|e| Error::io("create", &staged, e))?;
    fill(&staged)?;
    sync_folders(&staged)?;
    // Files are synced as they are written, and now their names; what is not on disk is not renamed.
    fs::rename(&staged, &path).map_err(|e| Error::io("write", &path, e))?;
    files::sync_folder(folder)?;
    keep_newest(folder, limit)?;
    Ok(path)
}

/// Removes the oldest checkpoints of a folder, down to `limit`, but never the last one; without a limit, none.
pub(super) fn keep_newest(folder: &Path, limit: Option<usize>) -> Result<()> {
    let Some(limit) = limit else { return Ok(()) };
    let there = all(folder);
    for (_, old) in &there[..there.len().saturating_sub(limit.max(1))] {
        remove(old)?;
    }
    Ok(())
}

/// Syncs a folder and those in it.
fn sync_folders(folder: &Path) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(|e| Error::io("read", folder, e))?;
    for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
        sync_folders(&entry.path())?;
    }
    files::sync_folder(folder)
}

/// Removes a checkpoint. It loses its name first: half a checkpoint never looks like one.
pub(super) fn remove(checkpoint: &Path) -> Result<()> {
    let folder = run_of(checkpoint);
    let removing = || -> std::io::Result<()> {
        let aside = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(&folder)?;
        fs::rename(checkpoint, aside.path().join("old"))?;
        aside.close()
    };
    removing().map_err(|e| Error::io("remove", checkpoint, e))
}

/// Removes those of a run that is replaced, or that one leaves behind which goes on from the step `kept`.
pub(super) fn remove_later(folder: &Path, kept: Option<usize>) -> Result<()> {
    for (step, path) in all(folder) {
        if kept.is_none_or(|kept| step > kept) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Removes what runs that were killed had not finished in a folder and those in it.
pub(super) fn tidy(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, is_folder) = (entry.path(), entry.file_type().is_ok_and(|kind| kind.is_dir()));
        // What cannot be removed is in nobody's way.
        let _ = match entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            true if is_folder => fs::remove_dir_all(path),
            true => fs::remove_file(path),
            false if is_folder => {
                tidy(&path);
                Ok(())
            }
            false => Ok(()),
        };
    }
}

/// A folder that holds something is a run's only if that run may be replaced or is to be resumed, and then only where
/// nothing that came after the checkpoint would be lost.
pub(super) fn check_folder(config: &TrainingConfig, folder: &Path, resumed: Option<&Path>) -> Result<()> {
    if config.overwrite_output_dir {
        return Ok(());
    }
    if let Some(checkpoint) = resumed
        && same_folder(&run_of(checkpoint), folder)
    {
        return match all(folder).pop() {
            Some((_, latest)) if !same_folder(&latest, checkpoint) => Err(Error::option(
                &["output_dir", "overwrite_output_dir"],
                format!(
                    "{}: is newer than {}, from where the run would write anew: resume from it, name another folder with \
                     `output_dir`, or add `overwrite_output_dir` to have it removed",
                    latest.display(),
                    checkpoint.display()
                ),
            )),
            _ => Ok(()),
        };
    }
    // A run that was killed before its first checkpoint starts again.
    let begun = config.resume_from_checkpoint.is_some() && folder.join(RUN_CONFIG).is_file();
    let occupied = fs::read_dir(folder).is_ok_and(|entries| {
        let mut names = entries.flatten().map(|entry| entry.file_name());
        names.any(|name| name != lock::NAME && !name.to_string_lossy().starts_with(UNFINISHED))
    });
    if occupied && !begun {
        return Err(Error::option(
            &["overwrite_output_dir"],
            format!(
                "{}: is not empty: name another folder, or add `overwrite_output_dir` to replace the run in it",
                folder.display()
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn put(folder: &Path, step: usize, limit: Option<usize>) -> Result<PathBuf> {
        write(folder, step, limit, |at| files::write_json(at.join(STATE), &step))
    }

    #[test]
    fn the_oldest_go_beyond_the_limit_and_ten_comes_after_nine() {
        let folder = tempfile::tempdir().unwrap();
        for step in [9, 10, 11, 100] {
            put(folder.path(), step, Some(2)).unwrap();
        }
        assert_eq!(names(folder.path()), ["checkpoint-100", "checkpoint-11"]);
        let latest = all(folder.path()).pop().unwrap();
        assert_eq!(latest, (100, folder.path().join("checkpoint-100")));
    }

    #[test]
    fn what_cannot_be_filled_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), 1, None).unwrap();
        let failed = write(folder.path(), 2, Some(1), |at| {
            files::write_json(at.join("half"), &1)?;
            Err(Error::Config("the disk is full".into()))
        });
        assert!(failed.is_err());
        assert_eq!(names(folder.path()), ["checkpoint-1"]);
    }

    #[test]
    fn a_checkpoint_is_asked_for_in_four_ways() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        fs::create_dir(&run).unwrap();
        for step in [5, 20] {
            put(&run, step, None).unwrap();
        }
        let found = |from: ResumeFrom, output_dir: Option<&Path>| {
            asked_for(&TrainingConfig {
                resume_from_checkpoint: Some(from),
                output_dir: output_dir.map(Path::to_path_buf),
                ..TrainingConfig::digits()
            })
        };
        let [five, twenty] = [5, 20].map(|step| Some(run.join(format!("checkpoint-{step}"))));
        assert_eq!(found(ResumeFrom::Latest, Some(&run)).unwrap(), twenty);
        assert_eq!(
            found(ResumeFrom::Path("checkpoint-5".into()), Some(&run)).unwrap(),
            five
        );
        assert_eq!(found(ResumeFrom::Path(run.clone()), None).unwrap(), twenty);
        assert_eq!(
            found(ResumeFrom::Path(run.join("checkpoint-5")), None).unwrap(),
            five
        );
        assert_eq!(found(ResumeFrom::Latest, Some(folder.path())).unwrap(), None);
        assert!(
            found(ResumeFrom::Latest, None)
                .unwrap_err()
                .to_string()
                .contains("`output_dir`")
        );
        let missing = found(ResumeFrom::Path(run.join("checkpoint-6")), None).unwrap_err();
        assert!(missing.to_string().contains("is no checkpoint"), "{missing}");
    }

    #[test]
    fn what_was_not_finished_is_tidied_away_and_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(".langevin-abc")).unwrap();
        fs::write(folder.path().join(".langevin-abc/x"), "half").unwrap();
        check_folder(&TrainingConfig::digits(), folder.path(), None).unwrap();
        tidy(folder.path());
        assert!(names(folder.path()).is_empty());
    }
}
