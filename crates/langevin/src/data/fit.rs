//! Pictures brought to a size that is not theirs, as diffusers' `VaeImageProcessor` does.

use super::{Arithmetic, Channels, Filter, Picture, resized};
use crate::{Result, named::named_enum};

named_enum! {
    /// What is done where the proportions differ.
    pub enum Fit: "a way to bring a picture to a size" {
        /// Both sides become what they should be.
        Stretch = "stretch",
        /// The picture fits inside, and its edges are drawn out over what is left.
        Inside = "fill",
        /// The picture covers all, and what is too much is cut off.
        Cover = "crop",
    }
}

impl Fit {
    /// The picture of this size, by Lanczos's filter.
    ///
    /// # Errors
    /// If a side is zero, or it would take more than 512 MiB.
    pub fn resize(self, picture: Picture, height: usize, width: usize) -> Result<Picture> {
        let lanczos =
            |picture, height, width| resized(picture, height, width, Filter::Lanczos, Arithmetic::Pillow);
        if self == Self::Stretch {
            return lanczos(picture, height, width);
        }
        // Which side decides: compared as ratios of width to height, as diffusers does.
        let ratio = width as f64 / height as f64;
        let own = picture.width() as f64 / picture.height() as f64;
        let across = |picture: &Picture| picture.width() * height / picture.height();
        let down = |picture: &Picture| picture.height() * width / picture.width();
        let inside = self == Self::Inside;
        let part_width = if (inside && ratio < own) || (!inside && ratio > own) {
            width
        } else {
            across(&picture)
        };
        let part_height = if (inside && ratio >= own) || (!inside && ratio <= own) {
            height
        } else {
            down(&picture)
        };
        let part = lanczos(picture, part_height.max(1), part_width.max(1))?;
        let mut whole = Picture::filled(height, width, part.channels(), 0);
        let top = (height / 2) as isize - (part.height() / 2) as isize;
        let left = (width / 2) as isize - (part.width() / 2) as isize;
        whole.paste(&part, top, left);
        if inside {
            fill(&mut whole, &part, top.max(0) as usize, left.max(0) as usize);
        }
        Ok(whole)
    }
}

/// Draws the edges of `part`, which lies at a place of `whole`, out over the bands beside it: Pillow's `resize` of a box without
/// height or width, which comes to a sum of the two outermost rows or columns.
fn fill(whole: &mut Picture, part: &Picture, top: usize, left: usize) {
    let (height, width) = (part.height(), part.width());
    if top > 0 {
        let (first, last) = (edge(part.row(0), part.row(1.min(height - 1))), {
            let from = height.saturating_sub(2);
            edge(part.row(height - 1), part.row(from))
        });
        for y in 0..whole.height() {
            let row = match y {
                y if y < top => &first,
                y if y >= top + height => &last,
                _ => continue,
            };
            whole.row_mut(y).copy_from_slice(row);
        }
    } else if left > 0 {
        let c = part.channels().count();
        for y in 0..whole.height().min(height) {
            let row = part.row(y);
            let pixel = |x: usize| &row[x * c..][..c];
            let first = edge(pixel(0), pixel(1.min(width - 1)));
            let last = edge(pixel(width - 1), pixel(width.saturating_sub(2)));
            let out = whole.row_mut(y);
            for (x, pixel) in out.chunks_exact_mut(c).enumerate() {
                if x < left {
                    pixel.copy_from_slice(&first);
                } else if x >= left + width {
                    pixel.copy_from_slice(&last);
                }
            }
        }
    }
}

/// The cubic filter half a pixel beyond the outermost one, where nothing lies further out.
fn edge(outermost: &[u8], next: &[u8]) -> Vec<u8> {
    const OUTERMOST: f64 = 0.5625 / 0.5;
    const NEXT: f64 = -0.0625 / 0.5;
    outermost
        .iter()
        .zip(next)
        .map(|(&a, &b)| {
            (f64::from(a) * OUTERMOST + f64::from(b) * NEXT)
                .round()
                .clamp(0.0, 255.0) as u8
        })
        .collect()
}

/// The mask of a picture: 1 where it is at least half white, `[height, width]` row by row.
pub fn binary(mask: Picture) -> Vec<f32> {
    let grey = mask.into_channels(Channels::Grey);
    let white = |&value: &u8| if f32::from(value) / 255.0 >= 0.5 { 1.0 } else { 0.0 };
    grey.pixels().iter().map(white).collect()
}
