//! `langevin space`.

mod program;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use langevin::{files::write_atomically, pipelines::MODEL_INDEX, training::card::shell_word};

use crate::{commands::push, hub, terminal};

/// What `--help` begins with.
pub(crate) const LONG_ABOUT: &str = "\
Write a folder that is a Hugging Face Space: a page on which everybody can draw with a model.

The Space is one of the Docker kind, and runs `langevin serve`. Models that are folders here are copied into it; models of \
the Hub are named in it, and pulled when it starts. `langevin push DIR ORG/NAME --space` publishes it.";

const EXAMPLES: &str = "\
Examples:
  langevin space my-space runs/digits-1
  langevin space my-space ORG/digits --title Digits
  langevin push my-space ORG/my-space --space";

/// The folder of the models that are copied.
const MODELS: &str = "models";
/// The port that a Space's page is expected on.
const PORT: u16 = 7860;

/// What the user typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SpaceArgs {
    /// The folder to write
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// The models: runs or pipelines, or names of the Hub
    #[arg(required = true, value_name = "MODEL")]
    pub models: Vec<String>,
    /// What the page is called [the first model's name]
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
    /// The langevin program for Linux that the Space runs [this one]
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
    /// Write into a folder that already has something in it
    #[arg(long)]
    pub overwrite: bool,
}

/// Writes the Space.
pub(crate) fn run(args: SpaceArgs) -> Result<()> {
    let folder = &args.folder;
    check_folder(folder, args.overwrite)?;
    let models = args
        .models
        .iter()
        .map(|text| Model::of(text))
        .collect::<Result<Vec<_>>>()?;
    for (index, model) in models.iter().enumerate() {
        if models[..index]
            .iter()
            .any(|other| other.argument == model.argument)
        {
            bail!("two models would be called {} in the Space", model.argument);
        }
    }
    let program = program::find(args.program.as_deref())?;
    // Models of an earlier time would be pushed with those of this one.
    let stale = folder.join(MODELS);
    if stale.is_dir() {
        let of_it = |model: &Model| {
            model
                .copied_from
                .as_ref()
                .and_then(|from| from.canonicalize().ok())
        };
        let place = stale
            .canonicalize()
            .with_context(|| format!("cannot read {}", stale.display()))?;
        if let Some(from) = models
            .iter()
            .filter_map(of_it)
            .find(|from| from.starts_with(&place))
        {
            bail!(
                "{}: is in the folder that is written anew; copy it elsewhere first",
                from.display()
            );
        }
        if !folder.join("Dockerfile").is_file() {
            bail!(
                "{}: would be removed, and is no part of a Space: write the Space into another folder",
                stale.display()
            );
        }
        fs::remove_dir_all(&stale).with_context(|| format!("cannot remove {}", stale.display()))?;
    }
    for model in &models {
        if let Some(from) = &model.copied_from {
            copy_model(from, &folder.join(&model.argument))?;
        }
    }
    copy(&program, &folder.join(program::NAME))?;
    let title = args.title.as_deref().unwrap_or(&models[0].name);
    write(&folder.join("README.md"), &readme(title, &models))?;
    write(&folder.join("Dockerfile"), &dockerfile(&models))?;
    write(
        &folder.join(".gitattributes"),
        "langevin filter=lfs diff=lfs merge=lfs -text\n*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
    )?;
    terminal::print_line(&format!("a Space in {}", folder.display()))?;
    let shown = shell_word(&folder.display().to_string());
    terminal::print_line(&format!("next      langevin push {shown} ORG/NAME --space"))?;
    if models.iter().any(|model| model.copied_from.is_none()) {
        terminal::note(
            "a private or gated model of the Hub is pulled there only if the Space has a secret HF_TOKEN, with a token that may read \
             it: Settings, Variables and secrets, of the Space's page",
        );
    }
    Ok(())
}

/// A model of the Space.
struct Model {
    /// What it is called.
    name: String,
    /// What `langevin serve` is given there.
    argument: String,
    /// The folder that it is copied from; `None` for one of the Hub.
    copied_from: Option<PathBuf>,
}

impl Model {
    fn of(text: &str) -> Result<Self> {
        if let Some(name) = hub::remote(text) {
            let (_, name) = name?;
            return Ok(Self {
                name: name.id.rsplit('/').next().unwrap_or(&name.id).to_string(),
                argument: name.to_string(),
                copied_from: None,
            });
        }
        let path = PathBuf::from(text);
        if !path.join(MODEL_INDEX).is_file() {
            bail!("{text}: holds no pipeline: there is no {MODEL_INDEX} in it");
        }
        let name = push::last_part(&path);
        // The name becomes a folder's and a word in a Dockerfile.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let word: String = name.chars().map(|c| if plain(c) { c } else { '-' }).collect();
        Ok(Self {
            argument: match word.trim_start_matches(['.', '-']) {
                "" => format!("{MODELS}/model"),
                word => format!("{MODELS}/{word}"),
            },
            name,
            copied_from: Some(path),
        })
    }
}

fn check_folder(folder: &Path, overwrite: bool) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let mut entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    if !overwrite && entries.next().is_some() {
        bail!(
            "{}: there is something in that folder; add --overwrite to write into it",
            folder.display()
        );
    }
    Ok(())
}

/// Copies what of a run would be published.
fn copy_model(from: &Path, to: &Path) -> Result<()> {
    let published = push::of_model(from, "")?;
    for (path, name) in &published.files {
        copy(path, &to.join(name))?;
    }
    Ok(())
}

/// Copies a file into its place at once, whatever was there: the file itself, or a link to another.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let cannot = || format!("cannot copy {} to {}", from.display(), to.display());
    let mut source = fs::File::open(from).with_context(cannot)?;
    write_atomically(to, |file| io::copy(&mut source, file).map(drop)).with_context(cannot)?;
    let permissions = source.metadata().with_context(cannot)?.permissions();
    fs::set_permissions(to, permissions).with_context(cannot)
}

fn write(path: &Path, text: &str) -> Result<()> {
    Ok(write_atomically(path, |file| file.write_all(text.as_bytes()))?)
}

/// The Space's card, whose YAML says how it is run.
fn readme(title: &str, models: &[Model]) -> String {
    let from_hub: Vec<&str> = models
        .iter()
        .filter(|model| model.copied_from.is_none())
        .map(|model| model.argument.split('@').next().unwrap_or_default())
        .collect();
    let named = if from_hub.is_empty() {
        String::new()
    } else {
        let lines: String = from_hub.iter().map(|id| format!("- {id}\n")).collect();
        format!("models:\n{lines}")
    };
    // Every JSON string is one of YAML.
    let quoted = serde_json::Value::from(title);
    format!(
        "---\ntitle: {quoted}\nemoji: 🌫️\ncolorFrom: indigo\ncolorTo: gray\nsdk: docker\napp_port: {PORT}\npinned: false\n{named}---\n\n\
         # {title}\n\nA page to draw pictures on, with a diffusion model that runs on a CPU. `Dockerfile` starts `langevin serve`.\n"
    )
}

fn dockerfile(models: &[Model]) -> String {
    let mut command = vec![format!("/usr/local/bin/{}", program::NAME), "serve".into()];
    command.extend(models.iter().map(|model| model.argument.clone()));
    command.extend(["--host", "0.0.0.0", "--port"].map(String::from));
    command.push(PORT.to_string());
    let has_own = models.iter().any(|model| model.copied_from.is_some());
    let copy = if has_own {
        "COPY --chown=user models models\n"
    } else {
        ""
    };
    format!(
        "FROM {image}\n\n\
         COPY {program} /usr/local/bin/{program}\n\
         # Spaces run as the user of this number.\n\
         RUN chmod 755 /usr/local/bin/{program} && useradd --create-home --uid 1000 user\n\n\
         USER user\nENV HF_HOME=/home/user/.cache/huggingface\nWORKDIR /home/user/app\n{copy}\n\
         EXPOSE {PORT}\nCMD {command}\n",
        image = program::IMAGE,
        program = program::NAME,
        command = serde_json::Value::from(command),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_one_that_docker_reads() {
        let models = [
            Model {
                name: "digits-1".into(),
                argument: "models/digits-1".into(),
                copied_from: Some("runs/digits-1".into()),
            },
            Model {
                name: "cats".into(),
                argument: "org/cats@v1".into(),
                copied_from: None,
            },
        ];
        let text = dockerfile(&models);
        let command = text.lines().find_map(|line| line.strip_prefix("CMD ")).unwrap();
        assert_eq!(
            serde_json::from_str::<Vec<String>>(command).unwrap(),
            [
                "/usr/local/bin/langevin",
                "serve",
                "models/digits-1",
                "org/cats@v1",
                "--host",
                "0.0.0.0",
                "--port",
                "7860"
            ]
        );
        assert!(text.contains("COPY --chown=user models models\n"));
        assert!(!dockerfile(&models[1..]).contains("COPY --chown"));
        let card = readme("A \"title\": yes", &models);
        assert!(
            card.starts_with("---\ntitle: \"A \\\"title\\\": yes\"\n"),
            "{card}"
        );
        assert!(
            card.contains("\nsdk: docker\napp_port: 7860\n") && card.contains("models:\n- org/cats\n---"),
            "{card}"
        );
    }
}
