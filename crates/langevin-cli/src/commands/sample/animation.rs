//! The denoising as it happens, as an animated GIF.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use langevin::{
    data::Picture,
    grid,
    pipelines::{Sampling, Step, to_pictures},
};

use crate::commands::side_by_side;

/// At most so many frames: a loop of a thousand steps is shown in as much time as one of fifty.
const FRAMES: usize = 60;

/// How long a frame stays, and how long the last.
const FRAME_MS: u32 = 60;
const LAST_FRAME_MS: u32 = 2000;

/// Frames on their way into a GIF.
pub struct Animation {
    path: PathBuf,
    /// For each frame, the pictures of all batches so far. The first frame is noise, the last the finished pictures.
    frames: Vec<Vec<Picture>>,
}

impl Animation {
    /// An animation that is to be written to `path`.
    pub fn of(path: &Path) -> Result<Self> {
        if path
            .extension()
            .is_none_or(|extension| !extension.eq_ignore_ascii_case("gif"))
        {
            bail!("--animate {}: the name must end in .gif", path.display());
        }
        Ok(Self {
            path: path.to_path_buf(),
            frames: Vec::new(),
        })
    }

    /// Takes the noise that a batch begins with.
    pub fn begin(&mut self, sampling: &Sampling<'_>) -> Result<()> {
        self.frames.resize(sampling.total().min(FRAMES) + 1, Vec::new());
        self.frames[0].extend(to_pictures(sampling.sample())?);
        Ok(())
    }

    /// Takes the sample after a step, if it is one of those to be shown.
    pub fn show(&mut self, step: &Step<'_>) -> Result<()> {
        let shown = self.frames.len() - 1;
        let frame = (step.index + 1) * shown / step.total;
        if frame > step.index * shown / step.total {
            self.frames[frame].extend(to_pictures(step.sample)?);
        }
        Ok(())
    }

    /// Writes the GIF: each frame one grid of all pictures.
    pub fn write(&self, columns: usize) -> Result<()> {
        let grids = self.frames.iter().map(|pictures| side_by_side(pictures, columns));
        let grids = grids.collect::<langevin::Result<Vec<Picture>>>()?;
        Ok(grid::write_gif(&self.path, &grids, FRAME_MS, LAST_FRAME_MS)?)
    }
}
