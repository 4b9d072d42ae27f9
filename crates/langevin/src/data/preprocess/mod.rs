//! What is made of a picture before a ControlNet is shown it, where that needs no network of its own.

mod blur;
mod canny;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{Channels, Picture};
use crate::{Error, Result};

/// OpenCV's users' thresholds, and those of the ControlNets for Canny's edges.
const USUAL_THRESHOLDS: [f64; 2] = [100.0, 200.0];
/// That of the ControlNets for blurred pictures.
const USUAL_SIGMA: f64 = 9.0;
/// More than any picture needs, and as much as is quick.
const MOST_SIGMA: f64 = 100.0;

/// What is made of a picture: one step after another, as text joined by `+`.
///
/// ```
/// use langevin::data::Preprocess;
///
/// let preprocess: Preprocess = "blur:2+canny:50:150".parse()?;
/// assert_eq!(preprocess.to_string(), "blur:2+canny:50:150");
/// # Ok::<(), langevin::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Preprocess(Vec<Step>);

/// One step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    /// Edges, white on black, by two thresholds.
    Canny(f64, f64),
    /// Blurred by a Gaussian of this standard deviation, in pixels.
    Blur(f64),
    /// In shades of grey.
    Grey,
    /// Black for white and white for black.
    Invert,
}

impl Preprocess {
    /// What it makes of a picture: one of the same size.
    pub fn apply(&self, picture: Picture) -> Picture {
        self.0.iter().fold(picture, |picture, step| step.apply(picture))
    }
}

impl Step {
    fn apply(self, picture: Picture) -> Picture {
        match self {
            Self::Canny(low, high) => canny::canny(&picture, low, high),
            Self::Blur(sigma) => blur::blur(&picture, sigma),
            Self::Grey => picture.into_channels(Channels::Grey),
            Self::Invert => {
                let (height, width, channels) = (picture.height(), picture.width(), picture.channels());
                let pixels = picture.into_pixels().into_iter().map(|value| 255 - value);
                Picture::from_parts(height, width, channels, pixels.collect())
            }
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Canny(low, high) if [*low, *high] == USUAL_THRESHOLDS => f.write_str("canny"),
            Self::Canny(low, high) => write!(f, "canny:{low}:{high}"),
            Self::Blur(USUAL_SIGMA) => f.write_str("blur"),
            Self::Blur(sigma) => write!(f, "blur:{sigma}"),
            Self::Grey => f.write_str("grey"),
            Self::Invert => f.write_str("invert"),
        }
    }
}

impl fmt::Display for Preprocess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let steps: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&steps.join("+"))
    }
}

impl FromStr for Step {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::option(
                &["control_preprocess"],
                format!(
                    "`{text}` is nothing that is made of a control's picture: there are canny, or canny:LOW:HIGH with thresholds from 0 \
                     such as canny:100:200, blur, or blur:SIGMA up to {MOST_SIGMA} such as blur:9, grey, invert, and none"
                ),
            )
        };
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let numbers: Vec<f64> = parts
            .map(|part| {
                let number = part.parse::<f64>().ok();
                number.filter(|number| number.is_finite() && *number >= 0.0)
            })
            .collect::<Option<_>>()
            .ok_or_else(wrong)?;
        match (name, numbers.as_slice()) {
            ("canny", []) => Ok(Self::Canny(USUAL_THRESHOLDS[0], USUAL_THRESHOLDS[1])),
            ("canny", [low, high]) => Ok(Self::Canny(*low, *high)),
            ("blur", []) => Ok(Self::Blur(USUAL_SIGMA)),
            ("blur", [sigma]) if *sigma > 0.0 && *sigma <= MOST_SIGMA => Ok(Self::Blur(*sigma)),
            ("grey" | "gray", []) => Ok(Self::Grey),
            ("invert", []) => Ok(Self::Invert),
            _ => Err(wrong()),
        }
    }
}

impl FromStr for Preprocess {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "none" => Ok(Self::default()),
            steps => steps.split('+').map(str::parse).collect::<Result<_>>().map(Self),
        }
    }
}

impl TryFrom<String> for Preprocess {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Preprocess> for String {
    fn from(preprocess: Preprocess) -> Self {
        preprocess.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_and_written() {
        for text in ["canny", "canny:50:150", "blur", "blur:2.5", "grey+invert", "none"] {
            assert_eq!(text.parse::<Preprocess>().unwrap().to_string(), text);
        }
        assert_eq!(
            "canny:100:200".parse::<Preprocess>().unwrap().to_string(),
            "canny"
        );
        for text in [
            "",
            "edges",
            "canny:1",
            "canny:a:b",
            "canny:-1:2",
            "blur:0",
            "blur:1e9",
            "grey:1",
            "invert+",
            "blur:NaN",
        ] {
            let message = text.parse::<Preprocess>().unwrap_err().to_string();
            assert!(message.contains("canny:100:200"), "{message}");
        }
    }
}
