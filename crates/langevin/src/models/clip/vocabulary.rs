//! CLIP's own vocabulary, which the program carries: single files of Stable Diffusion come without one. Its source and licence are in
//! `vocabulary/README.md` beside this file.

use std::io::Read;

use flate2::read::GzDecoder;

use super::bpe::{self, Pieces};
use crate::{Error, Result};

const MERGES: &[u8] = include_bytes!("vocabulary/merges.txt.gz");

/// The pieces with their numbers, and the merges that make them.
///
/// # Errors
/// Only if the program itself was damaged.
pub(super) fn clip(special: [&str; 2]) -> Result<Pieces> {
    let mut text = String::new();
    GzDecoder::new(MERGES).read_to_string(&mut text).map_err(|e| {
        Error::file(
            "merges.txt.gz",
            format!("the vocabulary in the program is damaged: {e}"),
        )
    })?;
    let merges = merges(&text);
    Ok((bpe::vocabulary(&merges, special), merges))
}

/// The merges of a `merges.txt`, whose first line names the format.
pub(super) fn merges(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter(|line| !line.starts_with("#version"))
        .filter_map(|line| line.split_once(' '))
        .map(|(a, b)| (a.to_string(), b.to_string()))
        .collect()
}
