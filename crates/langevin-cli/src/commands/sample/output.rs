//! Where the pictures go: one grid, or a folder with a file for each picture.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use langevin::{
    data::{
        Picture, is_picture_name,
        sound::{Sound, is_sound_name},
    },
    generate::Plan,
    grid,
    pipelines::MODEL_INDEX,
    settings::ModelName,
};

/// What the files say about how pictures were drawn: keywords and texts.
#[derive(Debug)]
pub(crate) struct Facts {
    /// About all of them.
    pub whole: Vec<(&'static str, String)>,
    /// About each, where they have seeds of their own.
    pub each: Vec<Vec<(&'static str, String)>>,
}

impl Facts {
    /// Nothing.
    pub(crate) fn none() -> Self {
        Self {
            whole: Vec::new(),
            each: Vec::new(),
        }
    }

    /// Of a plan's pictures, by this model.
    pub(crate) fn of(plan: &Plan, model: &ModelName) -> Self {
        let own = if plan.has_own_seeds() { plan.count() } else { 0 };
        Self {
            whole: all(plan, model, None),
            each: (0..own).map(|number| all(plan, model, Some(number))).collect(),
        }
    }
}

/// The facts of one picture or of all, and what others read.
fn all(plan: &Plan, model: &ModelName, number: Option<usize>) -> Vec<(&'static str, String)> {
    let mut texts = plan.facts(&model.path, number);
    texts.extend(plan.settings(model, number));
    texts
}

/// What `--output` means.
#[derive(Debug)]
pub(crate) enum Output {
    /// One picture of all of them.
    Grid(PathBuf),
    /// A folder of `0000.png` and so on, with a sound beside each where there are sounds.
    Folder(PathBuf),
    /// A sound, with its spectrogram beside it; of several, each has a number.
    Sounds(PathBuf),
}

impl Output {
    /// Reads the name, and checks that nothing is in the way.
    pub(crate) fn of(path: &Path, overwrite: bool) -> Result<Self> {
        if is_picture_name(path) {
            if path.is_dir() {
                bail!(
                    "--output {}: is a folder, where a picture is to be written",
                    path.display()
                );
            }
            refuse_existing(path, overwrite)?;
            return Ok(Self::Grid(path.to_path_buf()));
        }
        if is_written_sound(path) {
            refuse_existing(path, overwrite)?;
            refuse_existing(&path.with_extension("png"), overwrite)?;
            return Ok(Self::Sounds(path.to_path_buf()));
        }
        if is_sound_name(path) {
            bail!("--output {}: sounds are written as .wav or .flac", path.display());
        }
        if path.exists() && !path.is_dir() {
            bail!(
                "--output {}: is a file, where a folder is to be written",
                path.display()
            );
        }
        if path.join(MODEL_INDEX).exists() {
            bail!(
                "--output {}: holds a run; name another folder for the pictures",
                path.display()
            );
        }
        if path.is_dir()
            && !overwrite
            && fs::read_dir(path)
                .with_context(|| format!("cannot read {}", path.display()))?
                .next()
                .is_some()
        {
            bail!(
                "--output {}: there is something in that folder; add --overwrite to write into it",
                path.display()
            );
        }
        Ok(Self::Folder(path.to_path_buf()))
    }

    /// Writes the pictures with the facts about them: one that is large enough to be seen as it is, several or a tiny one as a grid. A new
    /// folder appears with all of them or not at all.
    pub(crate) fn write(&self, pictures: &[Picture], sounds: &[Sound], facts: &Facts) -> Result<()> {
        match self {
            Self::Sounds(path) => write_sounds(path, pictures, sounds, facts),
            Self::Grid(path) => match pictures {
                [one] if grid::visible_scale(one) == 1 => Ok(grid::write_picture(path, one, &facts.whole)?),
                _ => {
                    let grid = grid::side_by_side(pictures, grid::columns(pictures.len()))?;
                    Ok(grid::write_picture(path, &grid, &facts.whole)?)
                }
            },
            Self::Folder(folder) if folder.exists() => write_all(folder, pictures, sounds, facts),
            Self::Folder(folder) => {
                let parent = folder
                    .parent()
                    .filter(|p| !p.as_os_str().is_empty())
                    .unwrap_or(Path::new("."));
                let cannot = |action: &str| format!("cannot {action} {}", folder.display());
                fs::create_dir_all(parent).with_context(|| cannot("create"))?;
                let aside = tempfile::Builder::new().prefix(".langevin-").tempdir_in(parent);
                let aside = aside.with_context(|| cannot("write"))?;
                // A temporary folder is private; one made inside is as public as any other.
                let staged = aside.path().join("pictures");
                fs::create_dir(&staged).with_context(|| cannot("write"))?;
                write_all(&staged, pictures, sounds, facts)?;
                fs::rename(&staged, folder).with_context(|| cannot("write"))
            }
        }
    }
}

/// Refuses to write over a file, unless that is asked for.
pub(crate) fn refuse_existing(path: &Path, overwrite: bool) -> Result<()> {
    if path.exists() && !overwrite {
        bail!(
            "--output {}: is there already; add --overwrite to replace it",
            path.display()
        );
    }
    Ok(())
}

/// Whether a name is that of a sound of a kind that is written.
pub(crate) fn is_written_sound(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| {
        ["wav", "flac"]
            .iter()
            .any(|known| ending.eq_ignore_ascii_case(known))
    })
}

/// Each sound with its spectrogram: `new.wav` and `new.png`, then `new-2.wav` and so on.
fn write_sounds(path: &Path, pictures: &[Picture], sounds: &[Sound], facts: &Facts) -> Result<()> {
    let stem = path
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let ending = path
        .extension()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    for (index, (picture, sound)) in pictures.iter().zip(sounds).enumerate() {
        let name = match index {
            0 => stem.clone(),
            index => format!("{stem}-{}", index + 1),
        };
        let facts = facts.each.get(index).unwrap_or(&facts.whole);
        sound.write(path.with_file_name(format!("{name}.{ending}")))?;
        grid::write_png(path.with_file_name(format!("{name}.png")), picture, facts)?;
    }
    Ok(())
}

fn write_all(folder: &Path, pictures: &[Picture], sounds: &[Sound], facts: &Facts) -> Result<()> {
    for (index, sound) in sounds.iter().enumerate() {
        sound.write(folder.join(format!("{index:04}.wav")))?;
    }
    for (index, picture) in pictures.iter().enumerate() {
        let facts = facts.each.get(index).unwrap_or(&facts.whole);
        grid::write_png(folder.join(format!("{index:04}.png")), picture, facts)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_decides() {
        assert!(matches!(
            Output::of(Path::new("a/b.PNG"), false).unwrap(),
            Output::Grid(_)
        ));
        assert!(matches!(
            Output::of(Path::new("a/b"), false).unwrap(),
            Output::Folder(_)
        ));
        assert!(matches!(
            Output::of(Path::new("b.jpg"), false).unwrap(),
            Output::Grid(_)
        ));
        assert!(matches!(
            Output::of(Path::new("b.v2"), false).unwrap(),
            Output::Folder(_)
        ));
    }

    #[test]
    fn what_is_in_the_way_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Output::of(folder.path(), false).is_ok());
        fs::write(folder.path().join("mine.txt"), "x").unwrap();
        assert!(
            Output::of(folder.path(), false)
                .unwrap_err()
                .to_string()
                .contains("--overwrite")
        );
        assert!(Output::of(folder.path(), true).is_ok());
        assert!(Output::of(&folder.path().join("mine.txt"), true).is_err());
        let picture = folder.path().join("mine.png");
        assert!(Output::of(&picture, false).is_ok());
        fs::write(&picture, "x").unwrap();
        let message = Output::of(&picture, false).unwrap_err().to_string();
        assert!(message.contains("--overwrite"), "{message}");
        assert!(Output::of(&picture, true).is_ok());
        fs::write(folder.path().join(MODEL_INDEX), "{}").unwrap();
        assert!(
            Output::of(folder.path(), true)
                .unwrap_err()
                .to_string()
                .contains("a run")
        );
    }
}
