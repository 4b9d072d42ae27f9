//! Where `--animate` puts the denoising as it happens.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use langevin::{generate, grid};

/// Frames on their way into a GIF.
pub(crate) struct Animation {
    path: PathBuf,
    /// What has been drawn so far.
    pub frames: generate::Animation,
}

impl Animation {
    /// An animation that is to be written to `path`.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        if path
            .extension()
            .is_none_or(|extension| !extension.eq_ignore_ascii_case("gif"))
        {
            bail!("--animate {}: the name must end in .gif", path.display());
        }
        Ok(Self {
            path: path.to_path_buf(),
            frames: generate::Animation::default(),
        })
    }

    /// Writes the GIF: each frame one grid of all pictures.
    pub(crate) fn write(&self, columns: usize) -> Result<()> {
        let (frame_ms, last_ms) = (generate::Animation::FRAME_MS, generate::Animation::LAST_FRAME_MS);
        let grids = self.frames.grids(columns)?;
        Ok(grid::write_gif(&self.path, &grids, frame_ms, last_ms)?)
    }
}
