//! A picture that drawn ones are to follow, and the network that sees to it.

use std::{convert::Infallible, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::data::ImageInput;

/// A control: the model of it, a picture, and how strongly and during which part of the steps it leads.
///
/// As text it is `MODEL=PICTURE[:SCALE[:START:END]]`, with numbers behind the last colons; without `MODEL=` it is the next of the
/// pipeline's own. In JSON it is an object with these fields.
///
/// ```
/// use langevin::options::ControlInput;
///
/// let control: ControlInput = "control_v11p_sd15_canny=edges.png:0.8:0:0.5".parse()?;
/// assert_eq!(control.model.as_deref(), Some("control_v11p_sd15_canny"));
/// assert_eq!((control.scale, control.start, control.end), (Some(0.8), 0.0, 0.5));
/// # Ok::<(), std::convert::Infallible>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlInput {
    /// The ControlNet: the name of one of the pipeline's own, such as `controlnet` or `controlnet_1`, or a folder or a file. `None` is
    /// the next of the pipeline's own.
    #[serde(default)]
    pub model: Option<String>,
    /// The picture that it is shown: edges, depths, a pose.
    pub picture: ImageInput,
    /// How strongly it leads; `None` is what is usual for the pipeline: 1, or less from a picture.
    #[serde(default)]
    pub scale: Option<f64>,
    /// The part of the steps before it leads, 0 to 1.
    #[serde(default)]
    pub start: f64,
    /// The part of the steps after which it leads no more, 0 to 1.
    #[serde(default = "all")]
    pub end: f64,
}

fn all() -> f64 {
    1.0
}

impl ControlInput {
    /// The control of this model by a picture, in all steps and as strongly as is usual.
    pub fn new(model: impl Into<String>, picture: impl Into<ImageInput>) -> Self {
        Self {
            model: Some(model.into()),
            picture: picture.into(),
            scale: None,
            start: 0.0,
            end: all(),
        }
    }
}

impl FromStr for ControlInput {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let (model, rest) = match text.split_once('=') {
            Some((model, rest)) => (Some(model.to_string()), rest),
            None => (None, text),
        };
        // What is no number belongs to the picture's name.
        let (mut picture, mut numbers) = (rest, Vec::new());
        while let Some((before, last)) = picture.rsplit_once(':')
            && let Ok(number) = last.parse::<f64>()
            && numbers.len() < 3
        {
            numbers.insert(0, number);
            picture = before;
        }
        let (scale, [start, end]) = match numbers.as_slice() {
            [] => (None, [0.0, all()]),
            [scale] => (Some(*scale), [0.0, all()]),
            // Without an end it lasts.
            [scale, start] => (Some(*scale), [*start, all()]),
            [scale, start, end, ..] => (Some(*scale), [*start, *end]),
        };
        Ok(Self {
            model,
            picture: ImageInput::File(picture.into()),
            scale,
            start,
            end,
        })
    }
}

impl fmt::Display for ControlInput {
    /// What messages and pictures' files call it: its model, and what is not usual about it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.model.as_deref().unwrap_or("the pipeline's own"))?;
        if let Some(scale) = self.scale {
            write!(f, ":{scale}")?;
        }
        if (self.start, self.end) != (0.0, all()) {
            let scale = if self.scale.is_none() { ":" } else { "" };
            write!(f, "{scale}:{}:{}", self.start, self.end)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<String>, String, Option<f64>, f64, f64) {
        let Ok(control) = text.parse::<ControlInput>();
        let picture = control.picture.to_string();
        (control.model, picture, control.scale, control.start, control.end)
    }

    #[test]
    fn numbers_stand_behind_the_last_colons() {
        let some = |text: &str| Some(text.to_string());
        assert_eq!(
            read("canny=edges.png"),
            (some("canny"), "edges.png".into(), None, 0.0, 1.0)
        );
        assert_eq!(
            read("canny=edges.png:0.5"),
            (some("canny"), "edges.png".into(), Some(0.5), 0.0, 1.0)
        );
        assert_eq!(
            read("canny=a:b.png:1:0.2:0.7"),
            (some("canny"), "a:b.png".into(), Some(1.0), 0.2, 0.7)
        );
        assert_eq!(
            read("edges.png:0.5:0.1"),
            (None, "edges.png".into(), Some(0.5), 0.1, 1.0)
        );
        assert_eq!(
            read("C=C:\\edges.png"),
            (some("C"), "C:\\edges.png".into(), None, 0.0, 1.0)
        );
    }

    #[test]
    fn a_picture_says_what_is_not_usual() {
        let shown = |text: &str| {
            let Ok(control) = text.parse::<ControlInput>();
            control.to_string()
        };
        assert_eq!(shown("canny=a.png"), "canny");
        assert_eq!(shown("canny=a.png:0.5"), "canny:0.5");
        assert_eq!(shown("canny=a.png:0.5:0:0.7"), "canny:0.5:0:0.7");
    }
}
