//! A class, as somebody calls it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A class by its name, or by its number among the model's. In JSON a string or a number.
///
/// As text it is a name; what is no name but a number is the class of that number, and `none` is the null class, see
/// [`Classes::find`](crate::conditioning::Classes::find).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ClassName {
    /// The class of this number.
    Number(usize),
    /// The class of this name.
    Name(String),
}

impl FromStr for ClassName {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::Name(text.into()))
    }
}

impl From<&str> for ClassName {
    fn from(name: &str) -> Self {
        Self::Name(name.into())
    }
}

impl From<usize> for ClassName {
    fn from(number: usize) -> Self {
        Self::Number(number)
    }
}

impl fmt::Display for ClassName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}
