//! Whether there is room in memory for a network beside a model, before it is loaded.

use std::path::Path;

use crate::{
    Error, Result,
    data::{bytes_in_words, free_memory},
};

/// Networks that take no more are not held up by an estimate.
const SMALL: u64 = 256 << 20;

/// Refuses a network whose weights take more than is free.
///
/// # Errors
/// If they would not fit.
pub(super) fn room_for(bytes: u64, path: &Path) -> Result<()> {
    match free_memory() {
        Some(free) if bytes > SMALL && bytes > free => Err(no_room(bytes, free, path)),
        _ => Ok(()),
    }
}

fn no_room(bytes: u64, free: u64, path: &Path) -> Error {
    let message = format!(
        "takes {} of memory once it is loaded, and {} are free beside what is loaded already",
        bytes_in_words(bytes),
        bytes_in_words(free)
    );
    Error::file(path, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_named_with_both_sizes() {
        let path = Path::new("canny");
        assert!(room_for(1 << 20, path).is_ok());
        if free_memory().is_some() {
            let why = room_for(u64::MAX, path).unwrap_err().to_string();
            assert!(why.contains("canny") && why.contains("are free"), "{why}");
        }
        let why = no_room(1_445_157_124, 900_000_000, path).to_string();
        assert!(
            why.contains("takes 1.4 GB of memory") && why.contains("900.0 MB are free"),
            "{why}"
        );
    }
}
