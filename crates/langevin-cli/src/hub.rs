//! Names of the Hugging Face Hub where a model or a data set is named: a path that is there is meant, else `ORG/NAME[@REVISION]` is
//! pulled into the cache, and the folder there is what everything else is given.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use langevin::{
    data::{OpenOptions, Unread, repository_files},
    models::{IpAdapterConfig, ip_adapter::encoder_of},
    pipelines::PipelineClass,
    training::{ModelSource, TextEncoderSource},
};
use langevin_hub::{
    CONVERTED, Error, Hub, ModelFiles, ModelPart, RepoKind, RepoName, Settings, Snapshot, TokenSource,
};

use crate::transfer::Transfer;

/// What may stand before a name, to say that it is no path.
const SCHEME: &str = "hf://";

/// How names are resolved: as the environment says, but for what a command's flags say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// Another cache.
    pub cache: Option<PathBuf>,
    /// Another token.
    pub token: Option<String>,
}

/// The folder of a model or a pipeline.
///
/// # Errors
/// If it is a name of the Hub and cannot be pulled.
pub(crate) fn model(path: &Path) -> Result<PathBuf> {
    Names::default().model(path, &ModelFiles::default())
}

/// The folder of a pipeline that is to be run: of one that cannot be, no weights are pulled.
///
/// # Errors
/// If it is a name of the Hub and cannot be pulled, or is a pipeline of a class that is not there yet.
pub(crate) fn pipeline(path: &Path) -> Result<PathBuf> {
    pipeline_with(path, None, &[])
}

/// The same with a variant of the weights, and without some of the components.
///
/// # Errors
/// As [`pipeline`].
pub(crate) fn pipeline_with(path: &Path, variant: Option<&str>, without: &[&str]) -> Result<PathBuf> {
    let wanted = ModelFiles {
        variant: variant.map(str::to_owned),
        classes: PipelineClass::all().map(|class| class.name.to_string()).collect(),
        without: without.iter().map(ToString::to_string).collect(),
        ..ModelFiles::default()
    };
    Names::default().model(path, &wanted)
}

/// The folder of a pipeline's scheduler, or what is no name of the Hub.
///
/// # Errors
/// If it is a name of the Hub and cannot be pulled.
pub(crate) fn scheduler(path: &Path) -> Result<PathBuf> {
    let wanted = ModelFiles {
        part: ModelPart::Scheduler,
        ..ModelFiles::default()
    };
    Names::default().model(path, &wanted)
}

/// The file of a LoRA, or the folder that it lies in.
///
/// # Errors
/// If it is a name of the Hub and cannot be pulled.
pub(crate) fn lora(path: &Path) -> Result<PathBuf> {
    let wanted = ModelFiles {
        part: ModelPart::Lora,
        ..ModelFiles::default()
    };
    Names::default().model(path, &wanted)
}

/// The file of an IP-Adapter: `ORG/NAME/FOLDER/FILE` is a file of a repository, which is pulled, with the image encoder that it was made with
/// where that is wanted.
///
/// # Errors
/// If it is a name of the Hub and cannot be pulled.
pub(crate) fn ip_adapter(path: &Path, with_encoder: bool) -> Result<PathBuf> {
    let typed = path.to_str().unwrap_or_default();
    let bare = typed.strip_prefix(SCHEME).unwrap_or(typed);
    let parts: Vec<&str> = bare.splitn(3, '/').collect();
    let [org, name, file] = parts.as_slice() else {
        return Ok(path.to_path_buf());
    };
    let local = bare == typed && (path.exists() || Path::new(org).is_dir());
    let Ok(repository) = format!("{org}/{name}").parse::<RepoName>() else {
        return Ok(path.to_path_buf());
    };
    if local {
        return Ok(path.to_path_buf());
    }
    let (hub, progress) = (Names::default().hub()?, Transfer::pulling());
    let snapshot = hub
        .open(RepoKind::Model, &repository, &progress)
        .with_context(|| no_path(typed))?;
    let files = snapshot.files();
    let encoders: Vec<&str> = files
        .iter()
        .filter_map(|(path, _)| path.strip_suffix("image_encoder/config.json"))
        .collect();
    let configs: Vec<String> = encoders
        .iter()
        .map(|folder| format!("{folder}image_encoder/config.json"))
        .collect();
    let mut needed = vec![*file];
    if with_encoder {
        needed.extend(configs.iter().map(String::as_str));
    }
    let folder = snapshot.fetch(&needed, &progress)?;
    let pulled = folder.join(file);
    if !with_encoder {
        return Ok(pulled);
    }
    let config = IpAdapterConfig::at(&pulled)?;
    let encoder = encoder_of(&pulled, &config)?;
    let encoder = encoder.canonicalize().unwrap_or(encoder);
    let weights = ["model.safetensors", "pytorch_model.bin"]
        .into_iter()
        .find_map(|weights| {
            let mut all = files.iter().map(|(path, _)| *path);
            all.find(|path| {
                path.strip_suffix(weights).is_some_and(|rest| {
                    folder
                        .join(rest)
                        .canonicalize()
                        .is_ok_and(|found| found == encoder)
                })
            })
        });
    let weights = weights.with_context(|| format!("{repository} has no weights in {}", encoder.display()))?;
    snapshot.fetch(&[weights], &progress)?;
    Ok(pulled)
}

/// The path of a data set.
///
/// # Errors
/// If it is a name of the Hub and cannot be pulled, or holds no such data.
pub(crate) fn dataset(name: &str, options: &OpenOptions) -> Result<String> {
    Names::default().dataset(name, options)
}

impl Names {
    /// The Hub that is meant.
    ///
    /// # Errors
    /// If the environment makes no sense.
    pub(crate) fn hub(&self) -> Result<Hub> {
        let mut settings = Settings::from_env()?;
        if let Some(cache) = &self.cache {
            settings.cache.clone_from(cache);
        }
        if self.token.is_some() {
            settings.token.clone_from(&self.token);
            settings.token_source = TokenSource::Given;
        }
        Ok(Hub::new(settings)?)
    }

    /// The folder of what is wanted of a model.
    ///
    /// # Errors
    /// If it is a name of the Hub and cannot be pulled.
    pub(crate) fn model(&self, path: &Path, wanted: &ModelFiles) -> Result<PathBuf> {
        let Some(typed) = path.to_str() else {
            return Ok(path.to_path_buf());
        };
        let Some(name) = remote(typed) else {
            return Ok(path.to_path_buf());
        };
        let (_, name) = name?;
        self.hub()?
            .pull_model(&name, wanted, &Transfer::pulling())
            .with_context(|| no_path(typed))
    }

    /// The model of a configuration: one that is built in, a file, or a repository's.
    ///
    /// # Errors
    /// As [`Names::model`].
    pub(crate) fn model_config(&self, source: &ModelSource) -> Result<ModelSource> {
        let ModelSource::Config(path) = source else {
            return Ok(source.clone());
        };
        let wanted = ModelFiles {
            part: ModelPart::Config,
            ..ModelFiles::default()
        };
        Ok(ModelSource::Config(self.model(path, &wanted)?))
    }

    /// The text encoder: the small one, a folder, or a repository's.
    ///
    /// # Errors
    /// As [`Names::model`].
    pub(crate) fn text_encoder(&self, source: &TextEncoderSource) -> Result<TextEncoderSource> {
        let TextEncoderSource::Folder(path) = source else {
            return Ok(source.clone());
        };
        let wanted = ModelFiles {
            part: ModelPart::TextEncoder,
            ..ModelFiles::default()
        };
        Ok(TextEncoderSource::Folder(self.model(path, &wanted)?))
    }

    /// The path of a data set: the folder of a repository's files, or the archive among them.
    ///
    /// # Errors
    /// If it is a name of the Hub and cannot be pulled, or holds no such data.
    pub(crate) fn dataset(&self, text: &str, options: &OpenOptions) -> Result<String> {
        let Some(name) = remote(text) else {
            return Ok(text.to_string());
        };
        let (_, name) = name?;
        let path = self.pull_dataset(&name, options).with_context(|| no_path(text))?;
        let shown = path.display().to_string();
        path.into_os_string()
            .into_string()
            .map_err(|_| anyhow!("{shown}: is not a name in UTF-8"))
    }

    /// Pulls the files of a data set that are needed; what cannot be read as it is, as the Hub has converted it.
    ///
    /// # Errors
    /// If the repository cannot be pulled, or holds no such data.
    pub(crate) fn pull_dataset(&self, name: &RepoName, options: &OpenOptions) -> Result<PathBuf> {
        let (hub, progress) = (self.hub()?, Transfer::pulling());
        let (unread, was_read) = match hub.open(RepoKind::Dataset, name, &progress) {
            Ok(snapshot) => match fetch_dataset(&snapshot, name, options, &progress)? {
                Ok(path) => return Ok(path),
                Err(Unread(why)) => {
                    let unread = anyhow!(
                        "the data set {name} {why}; the Hub has not converted it to parquet files either, so it cannot be read"
                    );
                    (unread, true)
                }
            },
            // Of a repository that is read as it was converted, nothing else is in the cache.
            Err(error @ (Error::NotCached(_) | Error::Network(_))) => (error.into(), false),
            Err(error) => return Err(error.into()),
        };
        if name.revision.is_some() {
            return Err(unread);
        }
        let converted = RepoName {
            revision: Some(CONVERTED.into()),
            ..name.clone()
        };
        match hub.open(RepoKind::Dataset, &converted, &progress) {
            Ok(snapshot) => fetch_dataset(&snapshot, &converted, options, &progress)?.map_err(|_| unread),
            Err(Error::NoSuchRevision(_)) => Err(unread),
            Err(error) if was_read => Err(error.into()),
            Err(_) => Err(unread),
        }
    }

    /// Which kind of repository a name is that may be either: a model, or else a data set.
    ///
    /// # Errors
    /// If it is neither.
    pub(crate) fn kind(&self, name: &RepoName) -> Result<RepoKind> {
        let (hub, progress) = (self.hub()?, Transfer::pulling());
        let Err(first) = hub.open(RepoKind::Model, name, &progress) else {
            return Ok(RepoKind::Model);
        };
        if !matches!(first, Error::NoSuchRepository(_) | Error::NotCached(_)) {
            return Err(first.into());
        }
        match hub.open(RepoKind::Dataset, name, &progress) {
            Ok(_) => Ok(RepoKind::Dataset),
            Err(Error::NoSuchRepository(_)) => Err(first).context("there is no data set of that name either"),
            Err(_) => Err(first.into()),
        }
    }
}

/// Fetches what of a commit makes up the data, or says why there is nothing of the kind.
fn fetch_dataset(
    snapshot: &Snapshot,
    name: &RepoName,
    options: &OpenOptions,
    progress: &Transfer,
) -> Result<Result<PathBuf, Unread>> {
    const CARD: &str = "README.md";
    // Without a network, the card may not be there, and data may be read without it.
    let card = match snapshot.has(CARD).then(|| snapshot.read(CARD, progress)) {
        Some(Err(Error::NotCached(_))) | None => None,
        Some(card) => Some(card?),
    };
    let chosen = repository_files(&name.to_string(), &snapshot.files(), card.as_deref(), options);
    let chosen = if snapshot.is_cached() {
        chosen.context("of what the cache has of it")?
    } else {
        chosen?
    };
    let chosen = match chosen {
        Ok(chosen) => chosen,
        Err(unread) => return Ok(Err(unread)),
    };
    let files = chosen.files.iter().map(String::as_str);
    let files: Vec<&str> = files.filter(|file| *file != CARD || card.is_some()).collect();
    let folder = snapshot.fetch(&files, progress)?;
    Ok(Ok(match chosen.opened {
        Some(file) => folder.join(file),
        None => folder,
    }))
}

/// The repository that a text means, and its kind where it says that; `None` where it is a path, or no name.
///
/// `hf://ORG/NAME` and `hf://datasets/ORG/NAME` always mean the Hub. Otherwise what is there as a path is meant, and what would lie in a
/// folder that is there: a run whose number is mistyped is not looked for on the Hub.
pub(crate) fn remote(text: &str) -> Option<Result<(Option<RepoKind>, RepoName)>> {
    if let Some(rest) = text.strip_prefix(SCHEME) {
        let kinds = RepoKind::ALL.into_iter();
        let mut prefixed =
            kinds.filter_map(|kind| Some((kind, rest.strip_prefix(kind.plural())?.strip_prefix('/')?)));
        let (kind, id) = match prefixed.next() {
            Some((kind, id)) if id.contains('/') => (Some(kind), id),
            _ => (None, rest),
        };
        return Some(id.parse().map(|name| (kind, name)).map_err(Into::into));
    }
    let path = Path::new(text);
    if path.exists()
        || path
            .parent()
            .is_some_and(|folder| folder != Path::new("") && folder.is_dir())
    {
        return None;
    }
    text.parse().ok().map(|name| Ok((None, name)))
}

fn no_path(typed: &str) -> String {
    match typed.strip_prefix(SCHEME) {
        Some(name) => format!("pulling {name}"),
        None => format!("`{typed}` is no path here, so it is looked for on the Hub"),
    }
}

/// The name that a command which only knows the Hub is given.
///
/// # Errors
/// If it is none, or of another kind than `kind`.
pub(crate) fn name(text: &str, kind: Option<RepoKind>) -> Result<(Option<RepoKind>, RepoName)> {
    let (said, name) = match text.strip_prefix(SCHEME) {
        Some(_) => match remote(text) {
            Some(name) => name?,
            None => bail!("`{text}` is no name of a repository"),
        },
        None => (None, text.parse()?),
    };
    match (said, kind) {
        (Some(said), Some(kind)) if said != kind => {
            bail!("`{text}` is a {}, not a {}", said.spoken(), kind.spoken())
        }
        (said, kind) => Ok((kind.or(said), name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_remote(text: &str) -> bool {
        remote(text).is_some()
    }

    #[test]
    fn paths_are_paths_and_names_are_names() {
        // Tests run in the crate's folder.
        assert!(!is_remote("src/hub.rs") && !is_remote("src/none") && !is_remote("src"));
        assert!(!is_remote("digits") && !is_remote("./a/b") && !is_remote("/a/b") && !is_remote("a/b/c"));
        assert!(is_remote("google/ddpm-cat-256") && is_remote("google/ddpm-cat-256@v1"));
    }

    #[test]
    fn a_scheme_says_that_it_is_no_path() {
        let read = |text: &str| remote(text).unwrap().map(|(kind, name)| (kind, name.to_string()));
        assert_eq!(read("hf://src/none").unwrap(), (None, "src/none".into()));
        assert_eq!(
            read("hf://datasets/org/faces@v1").unwrap(),
            (Some(RepoKind::Dataset), "org/faces@v1".into())
        );
        assert_eq!(
            read("hf://datasets/faces").unwrap(),
            (None, "datasets/faces".into())
        );
        assert!(read("hf://faces").is_err());
        assert!(name("hf://datasets/a/b", Some(RepoKind::Model)).is_err());
        assert_eq!(
            name("a/b", Some(RepoKind::Space)).unwrap().0,
            Some(RepoKind::Space)
        );
    }
}
