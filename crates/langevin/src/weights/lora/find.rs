//! The LoRA of a folder: a repository's, or what a training run left.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{Error, Result, weights::Checkpoint};

/// What diffusers and PEFT call theirs.
const USUAL: [&str; 4] = [
    "pytorch_lora_weights.safetensors",
    "adapter_model.safetensors",
    "pytorch_lora_weights.bin",
    "adapter_model.bin",
];

/// The file that a path means: itself, or of a folder the one that is called as usual, or else the only one that there is.
///
/// # Errors
/// If there is none, or one of several would have to be chosen.
pub fn file_of(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_path_buf());
    }
    let usual = USUAL.iter().map(|name| path.join(name));
    if let Some(found) = usual.into_iter().find(|found| found.is_file()) {
        return Ok(found);
    }
    let entries = fs::read_dir(path).map_err(|e| Error::io("read", path, e))?;
    let names = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut found: Vec<String> = names.filter(|name| name.ends_with(".safetensors")).collect();
    found.sort();
    match found.as_slice() {
        [one] => Ok(path.join(one)),
        [] => Err(Error::file(
            path,
            format!("has no LoRA in it: neither {} nor another .safetensors", USUAL[0]),
        )),
        [first, second, ..] => Err(Error::file(
            path,
            format!("has several files that may be the LoRA, such as {first} and {second}: name one of them"),
        )),
    }
}

/// Whether a file is called as the ones of many repositories are.
pub fn has_usual_name(file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| USUAL.contains(&name))
}

/// What a LoRA's file calls itself; nothing where it cannot be read or does not say.
pub fn titles(file: &Path) -> Vec<String> {
    let Ok(file) = Checkpoint::open(file) else {
        return Vec::new();
    };
    let keys = ["ss_output_name", "modelspec.title", "modelspec.architecture"];
    keys.iter().filter_map(|key| file.metadata(key)).collect()
}

/// The hash that a LoRA's header notes of what it holds, by sd-scripts and those who follow it.
pub fn header_hash(file: &Path) -> Option<String> {
    let noted = Checkpoint::open(file).ok()?.metadata("sshs_model_hash")?;
    let is_hash = noted.len() >= 8 && noted.chars().all(|digit| digit.is_ascii_hexdigit());
    is_hash.then_some(noted)
}

/// The endings that a LoRA's file may have.
pub const LORA_ENDINGS: [&str; 4] = ["safetensors", "pt", "ckpt", "bin"];

/// The names of the LoRA in a folder: its files without their endings, and folders with one in them, sorted.
///
/// # Errors
/// If the folder cannot be read.
pub fn names_in(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).map_err(|e| Error::io("read", folder, e))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            let ending = path.extension().and_then(|ending| ending.to_str());
            let is_one = match path.is_dir() {
                true => {
                    return file_of(&path)
                        .ok()
                        .and_then(|_| entry.file_name().into_string().ok());
                }
                false => ending.is_some_and(|ending| LORA_ENDINGS.contains(&ending)),
            };
            is_one.then(|| Some(path.file_stem()?.to_str()?.to_string()))?
        })
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// The LoRA of this name in a folder: a file without its ending, or a folder with one in it. A name is one part of a path, and no path.
///
/// # Errors
/// If there is none, with some of those that there are.
pub fn named(folder: &Path, name: &str) -> Result<PathBuf> {
    const SHOWN: usize = 5;
    let is_part = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0', ':']);
    if !is_part {
        let message = format!(
            "`{}` is no name of a LoRA: it is one part of a path, without a full stop before it",
            name.escape_debug()
        );
        return Err(Error::Config(message));
    }
    // Full stops are common in names, so endings are put behind them.
    let files = LORA_ENDINGS
        .iter()
        .map(|ending| folder.join(format!("{name}.{ending}")));
    if let Some(found) = files.into_iter().find(|path| path.is_file()) {
        return Ok(found);
    }
    let inside = folder.join(name);
    if inside.is_dir() {
        return file_of(&inside);
    }
    let there = names_in(folder)?;
    let more = match there.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let shown = match there.as_slice() {
        [] => "it holds none".into(),
        names => format!("there are {}{more}", names[..names.len().min(SHOWN)].join(", ")),
    };
    Err(Error::file(
        folder,
        format!("there is no LoRA `{name}` in it: {shown}"),
    ))
}
