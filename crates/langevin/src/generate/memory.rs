//! What a request takes of memory, before it is begun.

use crate::{Error, Result, Size, codec::Codec, data::free_memory, pipelines::Pipeline};

/// How many tensors of a UNet's first level are there at once, its deeper ones and what lies between counted in. Measured on Stable
/// Diffusion 1.5 at 512x512.
const TENSORS: u64 = 32;
/// What ControlNets and T2I-Adapters add to each level is there beside it: the sum, and what one of them computes. Of Stable Diffusion's four
/// levels with three outputs each, that is some six of the first level's.
const ADDED_TENSORS: u64 = 2 * 6;
/// Requests that take no more are not held up by an estimate.
const SMALL: u64 = 1 << 30;

/// How often the model looks at each picture in a step.
pub(super) fn calls(guided: bool, edited: bool) -> usize {
    match (guided, edited) {
        (false, _) => 1,
        (true, false) => 2,
        // Towards the text, towards the picture that is edited, and away from both.
        (true, true) => 3,
    }
}

/// Refuses pictures that, drawn together, take more memory than is free: `rows` is how many the model is asked for at once, and `controlled`
/// whether networks add to what it computes. What networks' own weights take is taken already.
///
/// # Errors
/// If they would not fit.
pub(super) fn check(pipeline: &Pipeline, size: Size, rows: usize, controlled: bool) -> Result<()> {
    let (Some(channels), Some(free)) = (pipeline.model.config().first_channels(), free_memory()) else {
        return Ok(());
    };
    let needed = estimate(pipeline.codec().latent_shape(size), channels, rows, controlled);
    if needed <= SMALL || needed <= free {
        return Ok(());
    }
    Err(Error::option(
        &["size", "batch_size"],
        format!(
            "pictures of {size}, {rows} asked for at once with guidance counted twice, take about {} beside the model, and {} are free: ask \
             for smaller ones by `size`, or fewer together by `batch_size`",
            gibibytes(needed),
            gibibytes(free)
        ),
    ))
}

/// The bytes that one guided picture of this side takes beside the networks, drawn and decoded.
pub(crate) fn drawing(pipeline: &Pipeline, side: usize) -> u64 {
    let size = Size {
        height: side,
        width: side,
    };
    let codec = pipeline.codec();
    let channels = pipeline.model.config().first_channels().unwrap_or_default();
    let denoised = estimate(codec.latent_shape(size), channels, calls(true, false), false);
    denoised.max(codec.decoding_bytes(size))
}

/// Bytes for `rows` samples of this shape.
fn estimate([_, height, width]: [usize; 3], channels: usize, rows: usize, controlled: bool) -> u64 {
    let tensors = TENSORS + if controlled { ADDED_TENSORS } else { 0 };
    let factors = [height, width, channels, rows, size_of::<f32>()].map(|factor| factor as u64);
    factors.into_iter().fold(tensors, u64::saturating_mul)
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1_u32 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edited_picture_is_looked_at_three_times() {
        let all = [(false, false), (false, true), (true, false), (true, true)];
        assert_eq!(all.map(|(guided, edited)| calls(guided, edited)), [1, 1, 2, 3]);
    }

    #[test]
    fn stable_diffusion_takes_what_was_measured() {
        let guided = estimate([4, 64, 64], 320, 2, false);
        assert!((250 << 20..450 << 20).contains(&guided), "{guided}");
        assert_eq!(estimate([4, usize::MAX, 64], 320, 2, false), u64::MAX);
        assert!(estimate([4, 64, 64], 320, 2, true) > guided + (100 << 20));
    }
}
