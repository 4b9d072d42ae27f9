//! `mel_config.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Error, Result, error::require, files, models::DIFFUSERS_VERSION, named::named_enum};

/// The file of a [`MelConfig`] in its folder.
pub const MEL_CONFIG: &str = "mel_config.json";

named_enum! {
    /// How strengths become brightness.
    #[derive(Default)]
    pub enum Spectrogram: "a kind of spectrogram" {
        /// The power's decibels below the slice's loudest, over Slaney's scale: diffusers' `Mel`.
        #[default]
        Decibels = "decibels",
        /// The fourth root of the magnitude, dark where it is loud, over HTK's scale, the lowest band at the bottom: Riffusion's.
        Riffusion = "riffusion",
    }
}

/// How sounds become pictures. Mirrors the configuration of diffusers' `Mel`, with its defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MelConfig {
    /// How many columns a slice's picture has.
    pub x_res: usize,
    /// How many bands, and so rows.
    pub y_res: usize,
    /// Samples a second.
    pub sample_rate: u32,
    /// Samples in a window.
    pub n_fft: usize,
    /// Samples from column to column.
    pub hop_length: usize,
    /// The decibels that brightness spans.
    pub top_db: f64,
    /// Griffin and Lim's rounds on the way back.
    pub n_iter: usize,
    /// What is shown. diffusers knows the first kind alone, and no such field.
    #[serde(skip_serializing_if = "is_usual")]
    pub spectrogram: Spectrogram,
}

fn is_usual(kind: &Spectrogram) -> bool {
    *kind == Spectrogram::default()
}

impl Default for MelConfig {
    fn default() -> Self {
        Self {
            x_res: 256,
            y_res: 256,
            sample_rate: 22_050,
            n_fft: 2048,
            hop_length: 512,
            top_db: 80.0,
            n_iter: 32,
            spectrogram: Spectrogram::Decibels,
        }
    }
}

impl MelConfig {
    /// Riffusion's (Forsgren and Martiros 2022): 512 bands up to 10 kHz of sounds at 44.1 kHz, 5.12 s in 512 columns of 10 ms.
    pub fn riffusion() -> Self {
        Self {
            x_res: 512,
            y_res: 512,
            sample_rate: 44_100,
            n_fft: 17_640,
            hop_length: 441,
            spectrogram: Spectrogram::Riffusion,
            ..Self::default()
        }
    }

    /// Reads [`MEL_CONFIG`] in a folder.
    ///
    /// # Errors
    /// If it cannot be read, or is none.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self> {
        let path = folder.as_ref().join(MEL_CONFIG);
        let config: Self = serde_json::from_value(files::read_json(&path)?).map_err(|e| {
            Error::file(
                &path,
                format!("is not the configuration of a mel spectrogram: {e}"),
            )
        })?;
        config.check().map_err(|e| Error::file(&path, e.to_string()))?;
        Ok(config)
    }

    /// Writes it into a folder, as diffusers does.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        #[derive(Serialize)]
        struct File<'a> {
            #[serde(rename = "_class_name")]
            class: &'static str,
            #[serde(rename = "_diffusers_version")]
            version: &'static str,
            #[serde(flatten)]
            config: &'a MelConfig,
        }
        let mut value = serde_json::to_value(File {
            class: "Mel",
            version: DIFFUSERS_VERSION,
            config: self,
        })
        .map_err(|e| Error::Config(format!("the configuration cannot be written as JSON: {e}")))?;
        if let Some(entries) = value.as_object_mut() {
            // A whole number, as Python's.
            if self.top_db.fract() == 0.0 {
                entries.insert("top_db".into(), (self.top_db as i64).into());
            }
            entries.sort_keys();
        }
        files::write_json(folder.as_ref().join(MEL_CONFIG), &value)
    }

    /// Refuses numbers that make no sense, or sizes that would take memory out of proportion.
    ///
    /// # Errors
    /// If there are some.
    pub fn check(&self) -> Result<()> {
        let most = 1 << 16;
        let within = |name: &str, value: usize, least: usize| {
            require((least..=most).contains(&value), || {
                format!("`{name}` is {value}; it must be between {least} and {most}")
            })
        };
        within("x_res", self.x_res, 2)?;
        within("y_res", self.y_res, 2)?;
        require(self.x_res * self.y_res <= 1 << 26, || {
            format!(
                "a spectrogram of {} columns and {} bands is too large",
                self.x_res, self.y_res
            )
        })?;
        within("n_fft", self.n_fft, 16)?;
        within("hop_length", self.hop_length, 1)?;
        within("n_iter", self.n_iter, 0)?;
        let window = match self.spectrogram {
            Spectrogram::Decibels => self.n_fft,
            Spectrogram::Riffusion => self.n_fft / 4,
        };
        require(self.hop_length <= window, || {
            format!(
                "`hop_length` is {}, and a window has {window} samples: what lies between windows would be lost",
                self.hop_length
            )
        })?;
        require((1000..=768_000).contains(&self.sample_rate), || {
            format!(
                "`sample_rate` is {}; it must be between 1000 and 768000",
                self.sample_rate
            )
        })?;
        require(self.top_db.is_finite() && self.top_db > 0.0, || {
            format!("`top_db` is {}; it must be above 0", self.top_db)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_written_as_diffusers_writes_it() {
        let folder = tempfile::tempdir().unwrap();
        let config = MelConfig {
            x_res: 64,
            y_res: 64,
            ..MelConfig::default()
        };
        config.save(folder.path()).unwrap();
        let text = std::fs::read_to_string(folder.path().join(MEL_CONFIG)).unwrap();
        let expected = "{\n  \"_class_name\": \"Mel\",\n  \"_diffusers_version\": \"0.42.1\",\n  \"hop_length\": 512,\n  \"n_fft\": 2048,\n  \
                        \"n_iter\": 32,\n  \"sample_rate\": 22050,\n  \"top_db\": 80,\n  \"x_res\": 64,\n  \"y_res\": 64\n}\n";
        assert_eq!(text, expected);
        assert_eq!(MelConfig::load(folder.path()).unwrap(), config);
        MelConfig::riffusion().save(folder.path()).unwrap();
        assert_eq!(MelConfig::load(folder.path()).unwrap(), MelConfig::riffusion());
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        for config in [
            MelConfig {
                x_res: 0,
                ..MelConfig::default()
            },
            MelConfig {
                y_res: 1 << 40,
                ..MelConfig::default()
            },
            MelConfig {
                hop_length: 4096,
                ..MelConfig::default()
            },
            MelConfig {
                sample_rate: 0,
                ..MelConfig::default()
            },
            MelConfig {
                top_db: f64::NAN,
                ..MelConfig::default()
            },
        ] {
            assert!(config.check().is_err(), "{config:?}");
        }
    }
}
