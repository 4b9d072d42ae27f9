//! What a picture says of how it was drawn, and what a file of weights is.

use std::{fs, path::Path};

use anyhow::Result;
use langevin::{
    conditioning::EmbeddingFile,
    data::sound::SoundReader,
    settings::{Program, Settings},
    weights::{FileHashes, single_file::SingleFile},
};

use serde_json::{Map, Value};

use super::Described;
use crate::terminal::{self, bytes};

/// How much of a hash others show of a model, and of a LoRA.
const SHOWN: [usize; 2] = [10, 12];

/// How long a sound is.
pub(super) fn describe_sound(path: &Path) -> Result<Described> {
    let reader = SoundReader::open(path, None)?;
    let mut said = Described::of("sound", format!("{}: a sound", path.display()));
    let (seconds, samples, rate) = (reader.seconds(), usize::try_from(reader.len())?, reader.rate());
    said.line("length", format!("{seconds:.2} s"));
    said.line(
        "samples",
        format!("{} at {rate} Hz", terminal::thousands(samples)),
    );
    said.tell("seconds", seconds);
    said.tell("samples", samples);
    said.tell("sample_rate", rate);
    Ok(said)
}

/// What a PNG says of itself.
pub(super) fn describe_picture(path: &Path) -> Result<Described> {
    let Some(settings) = Settings::read(path)? else {
        let headline = format!(
            "{}: a picture that says nothing about how it was drawn",
            path.display()
        );
        return Ok(Described::of("picture", headline));
    };
    let (program, short) = match settings.program {
        Program::Langevin => ("this program", "langevin"),
        Program::A1111 => ("AUTOMATIC1111's web UI, or as it writes", "a1111"),
        Program::Comfy => ("ComfyUI", "comfyui"),
    };
    let headline = format!("{}: a picture, with its settings by {program}", path.display());
    let mut said = Described::of("picture", headline);
    said.tell("program", short);
    let facts = settings.facts.iter();
    let facts = facts.map(|(name, value)| (name.to_lowercase(), Value::from(value.as_str())));
    said.tell("settings", facts.collect::<Map<_, _>>());
    for (name, value) in &settings.facts {
        said.line(&name.to_lowercase(), value.replace('\n', " "));
    }
    if settings.request.is_some() {
        said.line(
            "drawn again by",
            format!("langevin sample --like {}", path.display()),
        );
    }
    said.tell("can_be_drawn_again", settings.request.is_some());
    for notice in &settings.notices {
        said.line("but", notice.clone());
    }
    said.tell("notices", settings.notices.clone());
    Ok(said)
}

/// The hashes of a file of weights, and what it is where that can be told.
pub(super) fn describe_weights(path: &Path) -> Result<Described> {
    let size = fs::metadata(path)?.len();
    let file = EmbeddingFile {
        path: path.to_path_buf(),
        token: None,
    };
    let what = match file.widths() {
        Ok(widths) => {
            let widths: Vec<String> = widths.iter().map(ToString::to_string).collect();
            format!("a learned word, vectors of {} numbers", widths.join(" and "))
        }
        Err(_) => match SingleFile::open(path) {
            Ok(file) => {
                let components: Vec<String> = file.components().iter().map(ToString::to_string).collect();
                format!("{} of {} ({})", components.join(", "), file.kind(), file.format())
            }
            Err(_) => "weights".into(),
        },
    };
    let headline = format!("{}: {what}, {}", path.display(), bytes(size));
    let mut said = Described::of("weights", headline);
    let hashes = FileHashes::of(path)?;
    said.line("SHA-256", hashes.sha256.clone());
    said.line(
        "model hash",
        format!("{} (A1111, AutoV2)", &hashes.sha256[..SHOWN[0]]),
    );
    if let Some(weights) = &hashes.weights {
        said.line(
            "LoRA hash",
            format!("{} (AutoV3, without the header)", &weights[..SHOWN[1]]),
        );
    }
    said.line("old hash", format!("{} (A1111, AutoV1)", hashes.first));
    said.tell("what", what);
    said.tell("bytes", size);
    said.tell("sha256", hashes.sha256);
    said.tell("auto_v1", hashes.first);
    said.tell("auto_v3", hashes.weights);
    Ok(said)
}
