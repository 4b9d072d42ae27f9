//! The denoising as it happens, as frames of an animation.

use crate::pipelines::{Sampling, Step};
use crate::{Result, data::Picture, grid};

/// At most so many frames: a loop of a thousand steps is shown in as much time as one of fifty.
const FRAMES: usize = 60;

/// Frames of one or several loops of equal length, each a grid of all their pictures: the noise first, the finished pictures last.
#[derive(Clone, Debug, Default)]
pub struct Animation {
    /// For each frame, the pictures of all loops so far.
    frames: Vec<Vec<Picture>>,
}

impl Animation {
    /// How long a frame stays, in milliseconds.
    pub const FRAME_MS: u32 = 60;
    /// How long the last one does.
    pub const LAST_FRAME_MS: u32 = 2000;

    /// Takes the noise that a loop begins with.
    ///
    /// # Errors
    /// If the samples make no pictures.
    pub fn begin(&mut self, sampling: &Sampling<'_>) -> Result<()> {
        self.frames.resize(sampling.total().min(FRAMES) + 1, Vec::new());
        self.frames[0].extend(sampling.pictures()?);
        Ok(())
    }

    /// Takes the sample after a step, if it is one of those to be shown.
    ///
    /// # Errors
    /// If the samples make no pictures.
    pub fn show(&mut self, step: &Step<'_>) -> Result<()> {
        let shown = self.frames.len().saturating_sub(1);
        let frame = (step.index + 1) * shown / step.total;
        if frame > step.index * shown / step.total {
            self.frames[frame].extend(step.pictures()?);
        }
        Ok(())
    }

    /// The frames, each one grid of all pictures, or the picture itself where there is one, large enough to be seen.
    ///
    /// # Errors
    /// If there are no pictures, or `columns` is 0.
    pub fn grids(&self, columns: usize) -> Result<Vec<Picture>> {
        let frames = self.frames.iter();
        frames
            .map(|pictures| match pictures.as_slice() {
                [one] => grid::enlarge(one, grid::visible_scale(one)),
                all => grid::side_by_side(all, columns),
            })
            .collect()
    }
}
