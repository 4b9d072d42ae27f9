//! The built-in data set: 1,797 handwritten digits of 8x8 pixels, ten classes. Its source and licence are in
//! `digits/README.md` beside this file.

use super::{IdxDataset, idx::read_idx};
use crate::{Error, Result};

const IMAGES: &[u8] = include_bytes!("digits/train-images-idx3-ubyte.gz");
const LABELS: &[u8] = include_bytes!("digits/train-labels-idx1-ubyte.gz");

/// The built-in digits: grey, 8x8, classes named `0` to `9`.
///
/// # Errors
/// Only if the program itself was damaged.
pub fn digits() -> Result<IdxDataset> {
    let read = || {
        let description = "built-in: handwritten digits, 8x8 grey (UCI, CC BY 4.0)".to_string();
        IdxDataset::new(
            "digits".into(),
            description,
            read_idx(IMAGES)?,
            Some(read_idx(LABELS)?),
        )
    };
    read().map_err(|message| Error::file("digits", message))
}

#[cfg(test)]
mod tests {
    use crate::data::{Dataset, digits};

    #[test]
    fn the_digits_are_scikit_learns() {
        let digits = digits().unwrap();
        assert_eq!(digits.len(), 1797);
        assert_eq!(
            digits.class_names().unwrap(),
            ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
        );
        // np.bincount(load_digits().target)
        let mut counts = [0; 10];
        for index in 0..digits.len() {
            counts[digits.get(index).unwrap().class.unwrap()] += 1;
        }
        assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        // load_digits().images[0][0] is [0, 0, 5, 13, 9, 1, 0, 0], out of 16.
        let first = digits.get(0).unwrap().picture;
        assert_eq!((first.height(), first.width()), (8, 8));
        assert_eq!(first.pixels()[..8], [0, 0, 80, 207, 143, 16, 0, 0]);
    }
}
