//! A LoRA that is put on a model.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::{Error, Result, weights::lora::LoraScale};

/// A LoRA to put on a model, and how strongly: `FILE[:SCALE]`, where a number after the last colon is the scale.
///
/// ```
/// use langevin::Lora;
///
/// let lora: Lora = "styles/pixel-art.safetensors:0.8".parse()?;
/// assert_eq!((lora.name().as_str(), lora.scale), ("pixel-art", 0.8.into()));
/// # Ok::<(), langevin::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// The file, or a folder with one.
    pub path: PathBuf,
    /// How strongly it is applied.
    pub scale: LoraScale,
}

impl Lora {
    /// A LoRA with a scale: 1 is as strongly as it was trained.
    pub fn new(path: impl Into<PathBuf>, scale: impl Into<LoraScale>) -> Self {
        Self {
            path: path.into(),
            scale: scale.into(),
        }
    }

    /// What it is called: its file's name without the extension.
    pub fn name(&self) -> String {
        name_of(&self.path)
    }
}

/// What a LoRA in a file is called.
fn name_of(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or(path.as_os_str());
    stem.to_string_lossy().into_owned()
}

impl FromStr for Lora {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (path, scale) = match text.rsplit_once(':') {
            Some((path, number)) => match number.parse::<f64>() {
                Ok(scale) => (path, scale),
                Err(_) => (text, 1.0),
            },
            None => (text, 1.0),
        };
        if path.is_empty() || !scale.is_finite() {
            return Err(Error::option(
                &["lora"],
                format!("`lora` is `{text}`: it must be a file, or a file, a colon and a finite number"),
            ));
        }
        Ok(Self::new(path, scale))
    }
}

/// `pixel-art:0.8`.
impl fmt::Display for Lora {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name(), self.scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_after_the_last_colon_is_the_scale() {
        for (text, path, scale) in [
            ("a.safetensors", "a.safetensors", 1.0),
            ("a.safetensors:-0.5", "a.safetensors", -0.5),
            (r"C:\loras\a.safetensors", r"C:\loras\a.safetensors", 1.0),
            (r"C:\loras\a.safetensors:.7", r"C:\loras\a.safetensors", 0.7),
            ("org/name:2", "org/name", 2.0),
            ("a:b", "a:b", 1.0),
        ] {
            assert_eq!(text.parse::<Lora>().unwrap(), Lora::new(path, scale), "{text}");
        }
        for text in ["", ":1", "a:inf", "a:nan"] {
            assert!(
                text.parse::<Lora>().unwrap_err().to_string().contains("`lora`"),
                "{text}"
            );
        }
    }
}
