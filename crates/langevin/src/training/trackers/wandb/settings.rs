//! What the environment asks of Weights & Biases, by the wandb package's variables.

use std::{env, path::PathBuf};

use crate::{Error, Result};

/// The project of runs that name none.
const PROJECT: &str = "langevin";

/// Where a run is kept and what it is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WandbSettings {
    /// `WANDB_MODE=disabled`: nothing is written.
    pub disabled: bool,
    /// `WANDB_PROJECT`.
    pub project: String,
    /// `WANDB_ENTITY`, the user or team; empty is the one who uploads.
    pub entity: String,
    /// `WANDB_NAME`, in place of the run folder's.
    pub name: Option<String>,
    /// `WANDB_DIR`, the folder that gets a folder `wandb`, in place of the run's.
    pub dir: Option<PathBuf>,
}

impl WandbSettings {
    /// Reads the variables.
    ///
    /// # Errors
    /// If `WANDB_MODE` is no mode of the package's.
    pub fn from_environment() -> Result<Self> {
        Self::from_variables(|name| env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let disabled = match set("WANDB_MODE").as_deref() {
            // A run is kept here and uploaded later in every mode but one; who opens the tracker says so.
            None | Some("offline" | "online" | "dryrun" | "run" | "shared") => false,
            Some("disabled") => true,
            Some(other) => {
                return Err(Error::Config(format!(
                    "WANDB_MODE is `{other}`; it may be offline, online or disabled"
                )));
            }
        };
        Ok(Self {
            disabled,
            project: set("WANDB_PROJECT").unwrap_or_else(|| PROJECT.into()),
            entity: set("WANDB_ENTITY").unwrap_or_default(),
            name: set("WANDB_NAME"),
            dir: set("WANDB_DIR").map(PathBuf::from),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Result<WandbSettings> {
        WandbSettings::from_variables(|name| {
            let pair = pairs.iter().find(|(known, _)| *known == name);
            pair.map(|(_, value)| (*value).to_string())
        })
    }

    #[test]
    fn variables_are_honoured() {
        let unset = with(&[("WANDB_MODE", "")]).unwrap();
        assert_eq!(
            (unset.project.as_str(), unset.disabled, &unset.dir),
            ("langevin", false, &None)
        );
        let set = with(&[
            ("WANDB_PROJECT", "faces"),
            ("WANDB_DIR", "/logs"),
            ("WANDB_MODE", "offline"),
        ]);
        let set = set.unwrap();
        assert_eq!((set.project.as_str(), set.dir), ("faces", Some("/logs".into())));
        assert!(with(&[("WANDB_MODE", "disabled")]).unwrap().disabled);
        let message = with(&[("WANDB_MODE", "ofline")]).unwrap_err().to_string();
        assert!(
            message.contains("ofline") && message.contains("offline"),
            "{message}"
        );
    }
}
