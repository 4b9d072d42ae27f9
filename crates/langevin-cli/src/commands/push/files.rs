//! What of a folder is published, and what is left out of its texts: paths of this machine are nobody else's. Of a model go the files
//! that are called as a model's are; and nothing goes that only a link leads to.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use langevin::{
    files::Inside,
    models::weights::CONFIG_NAME,
    pipelines::{CLASSES, MODEL_INDEX, ModelIndex},
    schedulers::SCHEDULER_CONFIG,
    training::{
        METRICS, RUN_CONFIG,
        card::{MODEL_CARD, for_hub},
    },
};
use langevin_hub::Push;
use serde_json::Value;

use crate::terminal;

/// The files at the root of a run or a model that say something about it.
const ABOUT: [&str; 7] = [
    MODEL_INDEX,
    CONFIG_NAME,
    SCHEDULER_CONFIG,
    CLASSES,
    METRICS,
    "tokenizer.json",
    "preprocessor_config.json",
];
/// What weights begin with.
const WEIGHTS: [&str; 5] = [
    "diffusion_pytorch_model",
    "model.",
    "model-",
    "pytorch_model",
    "open_clip_",
];
/// The vocabularies of tokenizers that are no JSON.
const VOCABULARIES: [&str; 4] = ["merges.txt", "vocab.txt", "spiece.model", "tokenizer.model"];
/// The average of the weights, which no index names.
const AVERAGE: &str = "unet_ema";

/// A folder of which files are published.
struct Source<'a> {
    folder: &'a Path,
    inside: Inside,
    push: Push,
}

impl<'a> Source<'a> {
    fn of(folder: &'a Path) -> Result<Self> {
        Ok(Self {
            folder,
            inside: Inside::of(folder)?,
            push: Push::default(),
        })
    }

    /// Where the file or folder `name` is, which lies in the folder indeed.
    ///
    /// # Errors
    /// If it is a link that leads elsewhere.
    fn place(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        let is_inside = self.inside.holds(&path);
        if !is_inside.with_context(|| format!("cannot read {}", path.display()))? {
            bail!(
                "{}: is a link that leads out of {}, and only what lies there is taken: put what it leads to in its place",
                path.display(),
                self.folder.display()
            );
        }
        Ok(path)
    }

    fn take(&mut self, name: String) -> Result<()> {
        self.push.files.push((self.place(&name)?, name));
        Ok(())
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.place(name)?;
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }
}

/// A pipeline's or a model's files.
///
/// # Errors
/// If the folder holds neither, or cannot be read.
pub(crate) fn of_model(folder: &Path, id: &str) -> Result<Push> {
    let is_pipeline = folder.join(MODEL_INDEX).is_file();
    if !is_pipeline && !folder.join(CONFIG_NAME).is_file() {
        bail!(
            "{}: holds no pipeline and no model: there is neither a {MODEL_INDEX} nor a {CONFIG_NAME} in it",
            folder.display()
        );
    }
    let mut source = Source::of(folder)?;
    let components = if is_pipeline {
        source.place(MODEL_INDEX)?;
        ModelIndex::load(folder)?.components
    } else {
        BTreeMap::new()
    };
    for component in components.into_keys().chain([AVERAGE.into()]) {
        // Early pipelines have every file at their root.
        if folder.join(&component).is_dir() {
            for name in names(&source.place(&component)?)? {
                if is_of_component(&name) && folder.join(&component).join(&name).is_file() {
                    source.take(format!("{component}/{name}"))?;
                }
            }
        }
    }
    let has_card = folder.join(MODEL_CARD).is_file();
    let card = has_card.then(|| source.read(MODEL_CARD)).transpose()?;
    for name in names(folder)? {
        let is_shown = || {
            let is_picture = [".png", ".gif", ".wav"].iter().any(|end| name.ends_with(end));
            is_picture && (is_of_run(&name) || card.as_ref().is_some_and(|card| card.contains(&name)))
        };
        if !folder.join(&name).is_file() || name.starts_with('.') {
            continue;
        } else if name == RUN_CONFIG {
            let config = without_paths(&source.read(&name)?)?;
            source.push.texts.push((name, config));
        } else if ABOUT.contains(&name.as_str()) || is_weights(&name) || is_shown() {
            source.take(name)?;
        }
    }
    if let Some(card) = card {
        source.push.texts.push((MODEL_CARD.into(), for_hub(&card, id)));
    }
    Ok(source.push)
}

/// Whether a file in a component's folder is one of a model's, a scheduler's or a tokenizer's.
fn is_of_component(name: &str) -> bool {
    let is_known = is_weights(name)
        || [".json", ".safetensors"].iter().any(|end| name.ends_with(end))
        || VOCABULARIES.contains(&name);
    is_known && !name.starts_with('.')
}

fn is_weights(name: &str) -> bool {
    WEIGHTS.iter().any(|stem| name.starts_with(stem))
        && [".safetensors", ".bin", ".index.json"]
            .iter()
            .any(|end| name.ends_with(end))
}

/// Whether a picture is called as those are that a run draws of itself.
fn is_of_run(name: &str) -> bool {
    name == "loss.png" || name.starts_with("samples.") || name.starts_with("samples-")
}

/// All of a Space's files.
///
/// # Errors
/// If the folder is no Space, or cannot be read.
pub(super) fn of_space(folder: &Path) -> Result<Push> {
    if !folder.join("Dockerfile").is_file() {
        bail!(
            "{}: is no Space: there is no Dockerfile in it; `langevin space` writes one",
            folder.display()
        );
    }
    let mut source = Source::of(folder)?;
    add_below(&mut source, "")?;
    Ok(source.push)
}

/// Adds the files below a folder, but for hidden ones, which are not finished or not meant.
fn add_below(source: &mut Source, within: &str) -> Result<()> {
    for name in names(&source.folder.join(within))? {
        let path = if within.is_empty() {
            name.clone()
        } else {
            format!("{within}/{name}")
        };
        if name.starts_with('.') && path != ".gitattributes" {
            continue;
        }
        let place = source.place(&path)?;
        if !place.is_dir() {
            source.take(path)?;
        } else if place.is_symlink() {
            // What it leads to goes under its own name, and may be a folder that this one lies in.
            terminal::note(&format!(
                "{}: is a link to a folder, and is left out",
                place.display()
            ));
        } else {
            add_below(source, &path)?;
        }
    }
    Ok(())
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let cannot = || format!("cannot read {}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(cannot)? {
        let name = entry.with_context(cannot)?.file_name();
        let Some(name) = name.to_str() else {
            bail!("{}: is not a name in UTF-8", folder.join(&name).display())
        };
        names.push(name.to_string());
    }
    names.sort();
    Ok(names)
}

/// A configuration whose absolute paths are cut down to their last part.
fn without_paths(text: &str) -> Result<String> {
    let mut value: Value = serde_json::from_str(text).with_context(|| format!("{RUN_CONFIG} is not JSON"))?;
    for entry in value
        .as_object_mut()
        .into_iter()
        .flat_map(|entries| entries.values_mut())
    {
        if let Value::String(text) = entry
            && Path::new(text.as_str()).is_absolute()
        {
            *text = last_part(Path::new(text.as_str()));
        }
    }
    Ok(format!("{value:#}\n"))
}

/// What a folder is called.
pub(crate) fn last_part(path: &Path) -> String {
    let whole: PathBuf = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    whole
        .file_name()
        .map_or_else(|| "a model".into(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "{}").unwrap();
        }
        folder
    }

    fn pushed(push: &Push) -> Vec<&str> {
        let files = push.files.iter().map(|(_, name)| name.as_str());
        let mut names: Vec<&str> = files
            .chain(push.texts.iter().map(|(name, _)| name.as_str()))
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn of_a_run_the_pipeline_goes_and_the_checkpoints_stay() {
        let run = folder(&[
            ".langevin-1",
            "README.md",
            "checkpoint-5/unet/config.json",
            "classes.json",
            "images.safetensors",
            "logs/events.out",
            "loss.png",
            "metrics.jsonl",
            "notes.txt",
            "samples.png",
            "samples/step-5.png",
            "scheduler/scheduler_config.json",
            "training.json",
            "unet/.tmp",
            "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors",
        ]);
        let index = r#"{"_class_name": "P", "scheduler": ["diffusers", "S"], "unet": ["diffusers", "U"]}"#;
        fs::write(run.path().join(MODEL_INDEX), index).unwrap();
        let inside = run.path().join("pictures").display().to_string();
        let config = serde_json::json!({ "train_data_dir": inside, "seed": 1, "output_dir": "runs/a" });
        fs::write(run.path().join(RUN_CONFIG), config.to_string()).unwrap();
        let push = of_model(run.path(), "a/b").unwrap();
        assert_eq!(
            pushed(&push),
            [
                "README.md",
                "classes.json",
                "loss.png",
                "metrics.jsonl",
                "model_index.json",
                "samples.png",
                "scheduler/scheduler_config.json",
                "training.json",
                "unet/config.json",
                "unet/diffusion_pytorch_model.safetensors",
            ]
        );
        let (_, config) = push.texts.iter().find(|(name, _)| name == RUN_CONFIG).unwrap();
        let config: Value = serde_json::from_str(config).unwrap();
        assert_eq!(
            config,
            serde_json::json!({ "train_data_dir": "pictures", "seed": 1, "output_dir": "runs/a" })
        );
    }

    #[test]
    fn only_what_belongs_to_a_model_goes() {
        let model = folder(&[
            "model/README.md",
            "model/holiday.png",
            "model/shown.png",
            "model/.git/config",
            "model/unet/.env",
            "model/unet/config.json",
            "model/unet/deep/config.json",
            "model/unet/diary.txt",
            "model/unet/diffusion_pytorch_model.safetensors",
            "model/unet/key.bin",
            "model/unet/merges.txt",
            "private/secret.json",
        ]);
        let root = model.path().join("model");
        fs::write(root.join("README.md"), "![a](shown.png)").unwrap();
        let write = |component: &str| {
            let index = serde_json::json!({ "_class_name": "P", "unet": ["a", "B"], component: ["a", "B"] });
            fs::write(root.join(MODEL_INDEX), index.to_string()).unwrap();
            of_model(&root, "a/b")
        };
        assert_eq!(
            pushed(&write("vae").unwrap()),
            [
                "README.md",
                "model_index.json",
                "shown.png",
                "unet/config.json",
                "unet/diffusion_pytorch_model.safetensors",
                "unet/merges.txt",
            ]
        );
        let absolute = model.path().join("private").display().to_string();
        for component in [
            "../private",
            &absolute,
            ".git",
            "..",
            "unet/../../private",
            "..\\private",
            "C:private",
        ] {
            let message = write(component).unwrap_err().to_string();
            assert!(message.contains("no name of a folder beside it"), "{message}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_that_lead_out_are_refused_and_circles_end() {
        use std::os::unix::fs::symlink;
        let root = folder(&[
            "secret/config.json",
            "model/config.json",
            "space/Dockerfile",
            "space/models/a/config.json",
        ]);
        let [model, space] = ["model", "space"].map(|name| root.path().join(name));
        let secret = root.path().join("secret/config.json");
        for (name, target) in [
            ("model_index.json", &secret),
            ("README.md", &secret),
            ("loss.png", &secret),
        ] {
            symlink(target, model.join(name)).unwrap();
            let message = of_model(&model, "a/b").unwrap_err().to_string();
            assert!(message.contains("leads out of"), "{message}");
            fs::remove_file(model.join(name)).unwrap();
        }
        fs::write(
            model.join(MODEL_INDEX),
            r#"{"_class_name": "P", "unet": ["a", "B"]}"#,
        )
        .unwrap();
        symlink("../secret", model.join("unet")).unwrap();
        assert!(
            of_model(&model, "a/b")
                .unwrap_err()
                .to_string()
                .contains("leads out of")
        );
        fs::remove_file(model.join("unet")).unwrap();
        fs::create_dir(model.join("unet")).unwrap();
        symlink("..", model.join("unet/up")).unwrap();
        symlink("../config.json", model.join("unet/config.json")).unwrap();
        assert_eq!(
            pushed(&of_model(&model, "a/b").unwrap()),
            ["config.json", "model_index.json", "unet/config.json"]
        );
        symlink("..", space.join("models/up")).unwrap();
        assert_eq!(
            pushed(&of_space(&space).unwrap()),
            ["Dockerfile", "models/a/config.json"]
        );
        symlink("../../secret", space.join("models/b")).unwrap();
        assert!(of_space(&space).unwrap_err().to_string().contains("leads out of"));
    }

    #[cfg(unix)]
    #[test]
    fn a_model_in_the_cache_is_taken_through_its_links() {
        let cache = folder(&[]);
        let repository = cache.path().join("models--a--b");
        let snapshot = repository.join("snapshots").join("0".repeat(40));
        for folder in [&repository.join("blobs"), &snapshot] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(repository.join("blobs/1"), "{}").unwrap();
        std::os::unix::fs::symlink("../../blobs/1", snapshot.join("config.json")).unwrap();
        assert_eq!(pushed(&of_model(&snapshot, "a/b").unwrap()), ["config.json"]);
    }

    #[test]
    fn a_model_goes_alone_and_other_folders_not_at_all() {
        let model = folder(&["config.json", "diffusion_pytorch_model.safetensors", "data/a.png"]);
        let push = of_model(model.path(), "a/b").unwrap();
        assert_eq!(
            pushed(&push),
            ["config.json", "diffusion_pytorch_model.safetensors"]
        );
        let other = folder(&["a.txt"]);
        assert!(
            of_model(other.path(), "a/b")
                .unwrap_err()
                .to_string()
                .contains("no pipeline and no model")
        );
        assert!(
            of_space(other.path())
                .unwrap_err()
                .to_string()
                .contains("no Dockerfile")
        );
        let space = folder(&["Dockerfile", "README.md", "models/a/config.json", ".git/config"]);
        assert_eq!(
            pushed(&of_space(space.path()).unwrap()),
            ["Dockerfile", "README.md", "models/a/config.json"]
        );
    }
}
