//! What a picture says of how it was drawn, and what a file of weights is.

use std::{fs, path::Path};

use anyhow::Result;
use langevin::{
    conditioning::EmbeddingFile,
    data::sound::SoundReader,
    settings::{Program, Settings},
    weights::{FileHashes, single_file::SingleFile},
};

use super::pipeline::line;
use crate::terminal::{self, bytes};

/// How much of a hash others show of a model, and of a LoRA.
const SHOWN: [usize; 2] = [10, 12];

/// Prints how long a sound is.
pub(super) fn describe_sound(path: &Path) -> Result<()> {
    let reader = SoundReader::open(path, None)?;
    terminal::print_line(&format!("{}: a sound", path.display()))?;
    line("length", &format!("{:.2} s", reader.seconds()))?;
    line(
        "samples",
        &format!(
            "{} at {} Hz",
            terminal::thousands(usize::try_from(reader.len())?),
            reader.rate()
        ),
    )
}

/// Prints what a PNG says of itself.
pub(super) fn describe_picture(path: &Path) -> Result<()> {
    let Some(settings) = Settings::read(path)? else {
        terminal::print_line(&format!(
            "{}: a picture that says nothing about how it was drawn",
            path.display()
        ))?;
        return Ok(());
    };
    let program = match settings.program {
        Program::Langevin => "this program",
        Program::A1111 => "AUTOMATIC1111's web UI, or as it writes",
        Program::Comfy => "ComfyUI",
    };
    terminal::print_line(&format!(
        "{}: a picture, with its settings by {program}",
        path.display()
    ))?;
    for (name, value) in &settings.facts {
        line(&name.to_lowercase(), &value.replace('\n', " "))?;
    }
    if settings.request.is_some() {
        line(
            "drawn again by",
            &format!("langevin sample --like {}", path.display()),
        )?;
    }
    for notice in &settings.notices {
        line("but", notice)?;
    }
    Ok(())
}

/// Prints the hashes of a file of weights, and what it is where that can be told.
pub(super) fn describe_weights(path: &Path) -> Result<()> {
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
    terminal::print_line(&format!("{}: {what}, {}", path.display(), bytes(size)))?;
    let hashes = FileHashes::of(path)?;
    line("SHA-256", &hashes.sha256)?;
    line(
        "model hash",
        &format!("{} (A1111, AutoV2)", &hashes.sha256[..SHOWN[0]]),
    )?;
    if let Some(weights) = &hashes.weights {
        line(
            "LoRA hash",
            &format!("{} (AutoV3, without the header)", &weights[..SHOWN[1]]),
        )?;
    }
    line("old hash", &format!("{} (A1111, AutoV1)", hashes.first))?;
    Ok(())
}
