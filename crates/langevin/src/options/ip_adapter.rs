//! Pictures as prompts, and the IP-Adapter that makes prompts of them.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, data::ImageInput};

/// A picture prompt: an IP-Adapter, one or several pictures that are seen together, and how strongly they lead.
///
/// As text it is `MODEL=PICTURE[,PICTURE…][:SCALE]`, with a number behind the last colon. In JSON it is an object with these fields.
///
/// ```
/// use langevin::options::IpAdapterInput;
///
/// let prompt: IpAdapterInput = "ip-adapter_sd15.safetensors=cat.png:0.6".parse()?;
/// assert_eq!((prompt.model.as_str(), prompt.scale), ("ip-adapter_sd15.safetensors", 0.6));
/// # Ok::<(), langevin::Error>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpAdapterInput {
    /// The IP-Adapter: a file, or what a program calls one.
    pub model: String,
    /// What it sees; several pictures are one prompt together.
    pub picture: ImageInput,
    /// How strongly it leads: 1 as strongly as it was trained.
    #[serde(default = "all")]
    pub scale: f64,
    /// Another scale in some of the model's cross-attentions, whose paths begin so: `{"up_blocks.0.attentions.1": 1}` with a scale of 0
    /// leads by style alone in Stable Diffusion XL. The longest beginning counts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, f64>,
}

fn all() -> f64 {
    1.0
}

impl IpAdapterInput {
    /// A picture as a prompt by this adapter, at full strength.
    pub fn new(model: impl Into<String>, picture: impl Into<ImageInput>) -> Self {
        Self {
            model: model.into(),
            picture: picture.into(),
            scale: all(),
            parts: BTreeMap::new(),
        }
    }

    /// How strongly it leads in the cross-attention of this path.
    pub fn scale_in(&self, path: &str) -> f64 {
        let begins = |part: &str| {
            path.strip_prefix(part)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let parts = self.parts.iter().filter(|(part, _)| begins(part));
        parts
            .max_by_key(|(part, _)| part.len())
            .map_or(self.scale, |(_, scale)| *scale)
    }
}

impl FromStr for IpAdapterInput {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || {
            Error::option(
                &["ip_adapter"],
                format!("`ip_adapter` is `{text}`: it must be MODEL=PICTURE, or MODEL=PICTURE:SCALE"),
            )
        };
        let (model, rest) = text.split_once('=').ok_or_else(wrong)?;
        let (pictures, scale) = match rest.rsplit_once(':') {
            Some((pictures, number)) => match number.parse::<f64>() {
                Ok(scale) => (pictures, scale),
                Err(_) => (rest, all()),
            },
            None => (rest, all()),
        };
        if model.is_empty() || pictures.is_empty() || !scale.is_finite() {
            return Err(wrong());
        }
        let mut files: Vec<ImageInput> = pictures
            .split(',')
            .map(|file| ImageInput::File(file.into()))
            .collect();
        let picture = match files.len() {
            1 => files.remove(0),
            _ => ImageInput::Several(files),
        };
        Ok(Self {
            scale,
            ..Self::new(model, picture)
        })
    }
}

impl fmt::Display for IpAdapterInput {
    /// What messages and pictures' files call it: its model, and how strongly it leads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.model)?;
        if self.scale != all() || !self.parts.is_empty() {
            write!(f, ":{}", self.scale)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_behind_the_last_colon_is_the_scale() {
        let read = |text: &str| {
            text.parse::<IpAdapterInput>()
                .map(|read| (read.picture.to_string(), read.scale))
        };
        assert_eq!(read("a.bin=cat.png").unwrap(), ("cat.png".into(), 1.0));
        assert_eq!(
            read("a.bin=C:\\cat.png:0.5").unwrap(),
            ("C:\\cat.png".into(), 0.5)
        );
        assert!(matches!(
            "a.bin=cat.png,dog.png".parse::<IpAdapterInput>().unwrap().picture,
            ImageInput::Several(all) if all.len() == 2
        ));
        for wrong in ["cat.png", "=cat.png", "a.bin=", "a.bin=cat.png:inf"] {
            assert!(
                read(wrong).unwrap_err().to_string().contains("MODEL=PICTURE"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn the_longest_beginning_of_a_path_counts() {
        let mut prompt = IpAdapterInput::new("a", ImageInput::File("a.png".into()));
        prompt.scale = 0.0;
        prompt.parts.insert("up_blocks.0".into(), 0.5);
        prompt.parts.insert("up_blocks.0.attentions.1".into(), 1.0);
        assert_eq!(
            prompt.scale_in("up_blocks.0.attentions.1.transformer_blocks.0"),
            1.0
        );
        assert_eq!(
            prompt.scale_in("up_blocks.0.attentions.10.transformer_blocks.0"),
            0.5
        );
        assert_eq!(
            prompt.scale_in("mid_block.attentions.0.transformer_blocks.0"),
            0.0
        );
    }
}
