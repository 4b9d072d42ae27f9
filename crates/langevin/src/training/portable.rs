//! A configuration that means the same on another machine.

use std::path::{Path, PathBuf};

use super::{CodecSource, ModelSource, TextEncoderSource, TrainingConfig};
use crate::files::cached_repository;

impl TrainingConfig {
    /// The same with `ORG/NAME@COMMIT` in place of every path into this machine's cache of the Hugging Face Hub: what is written down,
    /// and may be pushed, names the repository. Whoever reads it pulls that again.
    pub fn portable(&self) -> Self {
        Self {
            dataset_name: self.dataset_name.as_deref().map(named),
            pretrained: self.pretrained.as_deref().map(pinned),
            model: match &self.model {
                ModelSource::Config(path) => ModelSource::Config(pinned(path)),
                preset => preset.clone(),
            },
            text_encoder: match &self.text_encoder {
                TextEncoderSource::Folder(folder) => TextEncoderSource::Folder(pinned(folder)),
                small => small.clone(),
            },
            vector_clip: self.vector_clip.as_deref().map(pinned),
            codec: self.codec.as_ref().map(|codec| match codec {
                CodecSource::Autoencoder(folder) => CodecSource::Autoencoder(pinned(folder)),
                other => other.clone(),
            }),
            ..self.clone()
        }
    }
}

fn named(path: &str) -> String {
    cached_repository(path).map_or_else(|| path.to_string(), |repository| repository.pinned())
}

fn pinned(path: &Path) -> PathBuf {
    cached_repository(path).map_or_else(|| path.to_path_buf(), |repository| repository.pinned().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn paths_into_the_cache_become_names() {
        let path = |kind: &str, name: &str| format!("/home/me/hub/{kind}--org--{name}/snapshots/{COMMIT}");
        let config = TrainingConfig {
            dataset_name: Some(format!("{}/data/train.zip", path("datasets", "faces"))),
            pretrained: Some(path("models", "ddpm").into()),
            model: ModelSource::Config(path("models", "ddpm").into()),
            text_encoder: TextEncoderSource::Folder(format!("{}/text_encoder", path("models", "sd")).into()),
            vector_clip: Some(path("models", "clip").into()),
            ..TrainingConfig::script()
        };
        assert_eq!(config.model.short_name(), "ddpm");
        let portable = config.portable();
        let text = serde_json::to_string(&portable).unwrap();
        assert!(!text.contains("/home/me"), "{text}");
        assert_eq!(portable.dataset_name, Some(format!("org/faces@{COMMIT}")));
        assert_eq!(portable.pretrained, Some(format!("org/ddpm@{COMMIT}").into()));
        assert_eq!(portable.vector_clip, Some(format!("org/clip@{COMMIT}").into()));
        assert_eq!(portable.text_encoder, format!("org/sd@{COMMIT}").into());
        assert_eq!(portable.portable(), portable);
        let local = TrainingConfig {
            dataset_name: Some("pictures/snapshots/main".into()),
            ..TrainingConfig::digits()
        };
        assert_eq!(local.portable(), local);
    }
}
