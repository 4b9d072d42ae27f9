//! How large pictures are.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The longest side of a picture.
const LARGEST: usize = 1 << 16;

/// A picture's height and width, in pixels; `WIDTHxHEIGHT` as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size {
    /// How many rows.
    pub height: usize,
    /// How many columns.
    pub width: usize,
}

impl Size {
    /// A square.
    pub fn square(side: usize) -> Self {
        Self {
            height: side,
            width: side,
        }
    }
}

impl From<[usize; 2]> for Size {
    /// Height, then width, as diffusers' configurations have them.
    fn from([height, width]: [usize; 2]) -> Self {
        Self { height, width }
    }
}

impl From<Size> for [usize; 2] {
    fn from(size: Size) -> Self {
        [size.height, size.width]
    }
}

impl fmt::Display for Size {
    /// Width first, as pictures' sizes are said.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

impl TryFrom<String> for Size {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.to_string()
    }
}

impl FromStr for Size {
    type Err = Error;

    /// Reads `WIDTHxHEIGHT`, or one number for a square.
    fn from_str(text: &str) -> Result<Self> {
        let side = |text: &str| {
            let side = text.trim().parse().ok();
            side.filter(|side: &usize| (1..=LARGEST).contains(side))
        };
        let size = match text.split_once(['x', 'X']) {
            Some((width, height)) => side(width)
                .zip(side(height))
                .map(|(width, height)| Self { height, width }),
            None => side(text).map(Self::square),
        };
        size.ok_or_else(|| {
            Error::Config(format!(
                "`{text}` is not a size: it is written WIDTHxHEIGHT, as in 640x512, with sides of at most {LARGEST}"
            ))
        })
    }
}

/// A place in a picture: rows from the top and columns from the left; `TOP,LEFT` as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Offset {
    /// Rows from the top.
    pub top: usize,
    /// Columns from the left.
    pub left: usize,
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.top, self.left)
    }
}

impl TryFrom<String> for Offset {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Offset> for String {
    fn from(offset: Offset) -> Self {
        offset.to_string()
    }
}

impl FromStr for Offset {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers = text.split_once(',').and_then(|(top, left)| {
            let number = |text: &str| text.trim().parse().ok().filter(|&n: &usize| n <= LARGEST);
            Some((number(top)?, number(left)?))
        });
        numbers.map(|(top, left)| Self { top, left }).ok_or_else(|| {
            Error::Config(format!(
                "`{text}` is not a place in a picture: it is written TOP,LEFT, as in 0,64"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        let wide: Size = "640x512".parse().unwrap();
        assert_eq!((wide.height, wide.width), (512, 640));
        assert_eq!(wide.to_string(), "640x512");
        assert_eq!("64".parse::<Size>().unwrap(), Size::square(64));
        for text in ["", "x", "0x8", "8x", "-1x3", "65537x8", "1.5x2", "axb"] {
            let message = text.parse::<Size>().unwrap_err().to_string();
            assert!(message.contains("WIDTHxHEIGHT"), "{message}");
        }
    }
}
