//! Losses as a command line names them.

use std::{fmt, path::PathBuf, str::FromStr};

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::{Axis, Brightness, ClipLoss, Colour, GuidanceLoss, KnownRegion, Similarity, Symmetry};
use crate::{
    Error, Result, Size,
    data::{Channels, ImageInput, Picture, Transform, read_picture},
    models::clip::ClipModel,
    named::Named,
    random::Generator,
};

/// The forms of a guide, for messages and help.
const FORMS: &str =
    "colour:#1AE680, brightness:0.8, symmetry, symmetry:horizontal, picture:FILE or known:FILE";

/// A built-in loss by its name, with its scale: `colour:#1AE680`, `symmetry@10`.
///
/// ```
/// use langevin::guidance::Guide;
///
/// let guide: Guide = "color:#1AE680@40".parse()?;
/// assert_eq!(guide.to_string(), "colour:#1AE680@40");
/// # Ok::<(), langevin::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Guide {
    kind: Kind,
    /// What the gradient is multiplied by.
    pub scale: f64,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Colour(Colour),
    Brightness(Brightness),
    Symmetry(Symmetry),
    Picture(PathBuf),
    Known(PathBuf),
    ClipText(String),
    ClipPicture(PathBuf),
}

impl Kind {
    /// A scale at which it shows at 16x16 pixels and does not take over, where it follows the signal.
    fn usual_scale(&self) -> f64 {
        match self {
            Self::Colour(_) => 25.0,
            Self::Brightness(_) => 20.0,
            Self::Symmetry(_) => 40.0,
            Self::Picture(_) => 30.0,
            Self::Known(_) => 100.0,
            Self::ClipText(_) | Self::ClipPicture(_) => 50.0,
        }
    }
}

/// What guides are made with: the size of the pictures and where they are computed.
#[derive(Clone, Debug)]
pub struct GuideMaker {
    /// Channels of the pictures, 1 or 3.
    pub channels: usize,
    /// Their size.
    pub size: Size,
    /// Where they are.
    pub device: Device,
    /// The picture that says what is to be painted (white) and what is known (black), for `known`.
    pub mask: Option<ImageInput>,
    /// CLIP, for `clip` and `clip-picture`.
    pub clip: Option<ClipModel>,
    /// How many cut-outs CLIP looks at.
    pub cuts: usize,
}

impl Guide {
    /// Whether it names a file: such a guide must not come from somebody who may not read this machine's files.
    pub fn names_a_file(&self) -> bool {
        matches!(
            self.kind,
            Kind::Picture(_) | Kind::Known(_) | Kind::ClipPicture(_)
        )
    }

    /// Whether it needs a mask that says what is known.
    pub fn needs_mask(&self) -> bool {
        matches!(self.kind, Kind::Known(_))
    }

    /// Whether CLIP judges it.
    pub fn needs_clip(&self) -> bool {
        matches!(self.kind, Kind::ClipText(_) | Kind::ClipPicture(_))
    }
}

impl GuideMaker {
    /// The loss of a guide.
    ///
    /// # Errors
    /// If a file cannot be read or does not fit.
    pub fn make(&self, guide: &Guide) -> Result<Box<dyn GuidanceLoss>> {
        Ok(match &guide.kind {
            Kind::Colour(_) if self.channels != 3 => {
                return Err(Error::Config(format!(
                    "{guide}: the model draws in shades of grey, which no colour can guide"
                )));
            }
            Kind::Colour(colour) => Box::new(*colour),
            Kind::Brightness(brightness) => Box::new(*brightness),
            Kind::Symmetry(symmetry) => Box::new(*symmetry),
            Kind::Picture(path) => Box::new(Similarity {
                picture: self.picture(&read_picture(path)?)?,
            }),
            Kind::Known(path) => {
                let (picture, mask) = self.masked(&ImageInput::File(path.clone()))?;
                Box::new(KnownRegion { picture, mask })
            }
            Kind::ClipText(text) => Box::new(ClipLoss::text(self.clip(guide)?, text)?.with_cuts(self.cuts)),
            Kind::ClipPicture(path) => {
                let picture = self.picture(&read_picture(path)?)?;
                Box::new(ClipLoss::picture(self.clip(guide)?, picture)?.with_cuts(self.cuts))
            }
        })
    }

    fn clip(&self, guide: &Guide) -> Result<ClipModel> {
        self.clip.clone().ok_or_else(|| {
            Error::option(&["clip"], format!(
                "{guide}: needs a CLIP model, a folder as transformers or open_clip keep it: name it by `clip`"
            ))
        })
    }

    /// A picture at the model's size, `[1, channels, height, width]` in -1..1; what is too long is cropped on both sides.
    ///
    /// # Errors
    /// If the model's pictures are not square.
    pub fn picture(&self, picture: &Picture) -> Result<Tensor<4>> {
        self.tensor(picture, self.channels)
    }

    /// A picture that a request brings along as [`Self::picture`] gives it; tensors are taken as they are.
    ///
    /// # Errors
    /// If it cannot be read or decoded.
    pub fn image(&self, image: &ImageInput) -> Result<Tensor<4>> {
        match image {
            ImageInput::Tensor(pictures) => Ok(pictures.clone()),
            image => self.picture(&image.read()?),
        }
    }

    /// The same, and the mask of what is known of it, `[1, 1, height, width]`: 1 where the mask's picture is black, 0 where it is white.
    ///
    /// # Errors
    /// If there is no mask, one of the two cannot be read, or they differ in size.
    pub fn masked(&self, image: &ImageInput) -> Result<(Tensor<4>, Tensor<4>)> {
        let mask_image = self.mask.as_ref().ok_or_else(|| {
            Error::Config(format!(
                "a mask must say what is known of {image}: a picture that is black there and white where to paint"
            ))
        })?;
        if let (ImageInput::Tensor(picture), ImageInput::Tensor(mask)) = (image, mask_image) {
            return Ok((picture.clone(), mask.clone() * -1.0 + 1.0));
        }
        let (picture, mask) = (image.read()?, mask_image.read()?);
        if (picture.height(), picture.width()) != (mask.height(), mask.width()) {
            return Err(Error::Shape(format!(
                "the mask {mask_image} is of {}x{} pixels, but the picture {image} is of {}x{}: they must be of one size",
                mask.width(),
                mask.height(),
                picture.width(),
                picture.height()
            )));
        }
        // A pixel that was partly white when it was larger is to be painted.
        let known = (self.tensor(&mask, 1)?.lower_elem(-0.999)).float();
        Ok((self.picture(&picture)?, known))
    }

    fn tensor(&self, picture: &Picture, channels: usize) -> Result<Tensor<4>> {
        let Size { height, width } = self.size;
        if height != width {
            return Err(Error::Unsupported(format!(
                "pictures can be brought to square sizes, and the model's is {width}x{height}"
            )));
        }
        let channels = Channels::from_count(channels)
            .ok_or_else(|| Error::Shape(format!("a picture has 1 or 3 channels, and not {channels}")))?;
        let transform = Transform {
            channels,
            ..Transform::new(height)
        };
        // Nothing is drawn: the transform crops in the middle and mirrors nothing.
        let values = transform.apply(picture.clone(), &mut Generator::new(0))?;
        let shape = [1, channels.count(), height, width];
        Ok(Tensor::from_data(TensorData::new(values, shape), &self.device))
    }
}

/// A number that is finite as float32, in which the sample moves.
fn finite(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number| (*number as f32).is_finite())
}

impl TryFrom<String> for Guide {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Guide> for String {
    fn from(guide: Guide) -> Self {
        guide.to_string()
    }
}

impl FromStr for Guide {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // A path may have an @ of its own; what follows the last is a scale only if it is a number.
        let scaled = text
            .rsplit_once('@')
            .and_then(|(rest, scale)| Some((rest, finite(scale)?)));
        let (rest, scale) = scaled.map_or((text, None), |(rest, scale)| (rest, Some(scale)));
        let (name, value) = rest.split_once(':').unwrap_or((rest, ""));
        let kind = match name {
            "colour" | "color" => Kind::Colour(Colour { rgb: rgb(value)? }),
            "brightness" => Kind::Brightness(Brightness {
                target: brightness(value)?,
            }),
            "symmetry" if value.is_empty() => Kind::Symmetry(Symmetry {
                axis: Axis::default(),
            }),
            "symmetry" => Kind::Symmetry(Symmetry {
                axis: Axis::from_name(value)?,
            }),
            "picture" | "known" | "clip-picture" if value.is_empty() => {
                return Err(Error::Config(format!(
                    "`{text}`: a file must follow, as in {name}:photo.png"
                )));
            }
            "clip" if value.is_empty() => {
                return Err(Error::Config(format!(
                    "`{text}`: a text must follow, as in clip:red rose"
                )));
            }
            "clip" => Kind::ClipText(value.into()),
            "clip-picture" => Kind::ClipPicture(value.into()),
            "picture" => Kind::Picture(value.into()),
            "known" => Kind::Known(value.into()),
            _ => return Err(Error::Config(format!("`{text}` is no guide; a guide is {FORMS}"))),
        };
        Ok(Self {
            scale: scale.unwrap_or(kind.usual_scale()),
            kind,
        })
    }
}

/// Reads `#1AE680`, or the same without its `#`.
fn rgb(text: &str) -> Result<[u8; 3]> {
    let digits = text.strip_prefix('#').unwrap_or(text);
    let number = (digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
        .then(|| u32::from_str_radix(digits, 16).ok())
        .flatten();
    let [_, red, green, blue] = number
        .ok_or_else(|| {
            Error::Config(format!(
                "`{text}` is not a colour: it is written #RRGGBB, as in #1AE680"
            ))
        })?
        .to_be_bytes();
    Ok([red, green, blue])
}

fn brightness(text: &str) -> Result<f64> {
    let value = text.parse::<f64>().ok();
    value.filter(|value| (0.0..=1.0).contains(value)).ok_or_else(|| {
        Error::Config(format!(
            "`{text}` is not a brightness: it goes from 0 (black) to 1 (white)"
        ))
    })
}

impl fmt::Display for Guide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Colour(Colour {
                rgb: [red, green, blue],
            }) => write!(f, "colour:#{red:02X}{green:02X}{blue:02X}")?,
            Kind::Brightness(brightness) => write!(f, "brightness:{}", brightness.target)?,
            Kind::Symmetry(symmetry) => write!(f, "symmetry:{}", symmetry.axis)?,
            Kind::Picture(path) => write!(f, "picture:{}", path.display())?,
            Kind::Known(path) => write!(f, "known:{}", path.display())?,
            Kind::ClipText(text) => write!(f, "clip:{text}")?,
            Kind::ClipPicture(path) => write!(f, "clip-picture:{}", path.display())?,
        }
        write!(f, "@{}", self.scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guides_are_read_and_written() {
        for (text, written) in [
            ("colour:#1AE680", "colour:#1AE680@25"),
            ("color:1ae680@-2.5", "colour:#1AE680@-2.5"),
            ("brightness:0.25", "brightness:0.25@20"),
            ("symmetry", "symmetry:vertical@40"),
            ("symmetry:horizontal@3", "symmetry:horizontal@3"),
            ("picture:a@b.png", "picture:a@b.png@30"),
            ("known:a:b.png@1e2", "known:a:b.png@100"),
            ("clip:red rose@8", "clip:red rose@8"),
            ("clip-picture:rose.png", "clip-picture:rose.png@50"),
        ] {
            assert_eq!(text.parse::<Guide>().unwrap().to_string(), written);
        }
    }

    #[test]
    fn guides_that_name_files_are_known() {
        for (text, names_a_file, needs_clip) in [
            ("colour:#1AE680", false, false),
            ("brightness:0.25", false, false),
            ("symmetry", false, false),
            ("clip:a.png", false, true),
            ("picture:a.png", true, false),
            ("known:a.png", true, false),
            ("clip-picture:a.png", true, true),
        ] {
            let guide = text.parse::<Guide>().unwrap();
            assert_eq!(
                (guide.names_a_file(), guide.needs_clip()),
                (names_a_file, needs_clip),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_guide_is_told_what_is() {
        for (text, part) in [
            ("colr:#123456", "colour:#1AE680"),
            ("", "colour:#1AE680"),
            ("colour:#12345", "#RRGGBB"),
            ("colour:#äöü", "#RRGGBB"),
            ("brightness:2", "0 (black)"),
            ("symmetry:diagonal", "vertical, horizontal"),
            ("picture:", "file"),
            ("known", "file"),
            ("clip-picture", "file"),
            ("clip", "text"),
        ] {
            let message = text.parse::<Guide>().unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}
