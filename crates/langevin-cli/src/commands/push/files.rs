//! What of a folder is published, and what is left out of its texts: paths of this machine are nobody else's.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use langevin::{
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
/// What weights at the root begin with.
const WEIGHTS: [&str; 4] = ["diffusion_pytorch_model", "model.", "model-", "pytorch_model"];
/// The average of the weights, which no index names.
const AVERAGE: &str = "unet_ema";

/// A pipeline's or a model's files.
///
/// # Errors
/// If the folder holds neither, or cannot be read.
pub fn of_model(folder: &Path, id: &str) -> Result<Push> {
    let is_pipeline = folder.join(MODEL_INDEX).is_file();
    if !is_pipeline && !folder.join(CONFIG_NAME).is_file() {
        bail!(
            "{}: holds no pipeline and no model: there is neither a {MODEL_INDEX} nor a {CONFIG_NAME} in it",
            folder.display()
        );
    }
    let mut push = Push::default();
    if is_pipeline {
        for component in ModelIndex::load(folder)?
            .components
            .into_keys()
            .chain([AVERAGE.into()])
        {
            // Early pipelines have every file at their root.
            if folder.join(&component).is_dir() {
                add_below(&mut push, folder, &component)?;
            }
        }
    }
    for name in names(folder)? {
        let path = folder.join(&name);
        let is_weights = WEIGHTS.iter().any(|stem| name.starts_with(stem))
            && [".safetensors", ".bin", ".index.json"]
                .iter()
                .any(|end| name.ends_with(end));
        let is_picture = [".png", ".gif"].iter().any(|end| name.ends_with(end));
        if !path.is_file() || name.starts_with('.') {
            continue;
        } else if name == MODEL_CARD {
            push.texts.push((name, for_hub(&read(&path)?, id)));
        } else if name == RUN_CONFIG {
            push.texts.push((name, without_paths(&read(&path)?)?));
        } else if ABOUT.contains(&name.as_str()) || is_weights || is_picture {
            push.files.push((path, name));
        }
    }
    Ok(push)
}

/// All of a Space's files.
///
/// # Errors
/// If the folder is no Space, or cannot be read.
pub fn of_space(folder: &Path) -> Result<Push> {
    if !folder.join("Dockerfile").is_file() {
        bail!(
            "{}: is no Space: there is no Dockerfile in it; `langevin space` writes one",
            folder.display()
        );
    }
    let mut push = Push::default();
    for name in names(folder)? {
        if name.starts_with('.') && name != ".gitattributes" {
            continue;
        }
        if folder.join(&name).is_dir() {
            add_below(&mut push, folder, &name)?;
        } else {
            push.files.push((folder.join(&name), name));
        }
    }
    Ok(push)
}

/// Adds the files below a folder, but for hidden ones, which are not finished or not meant.
fn add_below(push: &mut Push, root: &Path, within: &str) -> Result<()> {
    for name in names(&root.join(within))? {
        if name.starts_with('.') {
            continue;
        }
        let path = format!("{within}/{name}");
        let whole = root.join(&path);
        if whole.is_dir() {
            add_below(push, root, &path)?;
        } else {
            push.files.push((whole, path));
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

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
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
pub fn last_part(path: &Path) -> String {
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
