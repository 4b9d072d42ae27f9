//! The program that a Space runs: this one, where it is one for Linux, and what it needs there.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::terminal;

/// What it is called in the Space.
pub(super) const NAME: &str = "langevin";
/// The system that it runs on.
pub(super) const IMAGE: &str = "debian:trixie-slim";
/// The version of the C library in that system: 2.41.
const LIBRARY: u32 = 41;

/// The program: the one that is named, or this one.
///
/// # Errors
/// If it cannot be read, or is not one for Linux on x86-64, which is what Spaces run.
pub(super) fn find(named: Option<&Path>) -> Result<PathBuf> {
    let path = match named {
        Some(path) => path.to_path_buf(),
        None => std::env::current_exe()
            .context("it is not known where this program lies; name it with --program")?,
    };
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    if !is_for_spaces(&bytes) {
        bail!(
            "{}: is no program for Linux on x86-64, which is what a Space runs: build langevin there, and name it with --program",
            path.display()
        );
    }
    if let Some(needed) = library(&bytes).filter(|&needed| needed > LIBRARY) {
        terminal::note(&format!(
            "{} needs version 2.{needed} of the C library, and {IMAGE} has 2.{LIBRARY}: build it on an older system, or change the \
             first line of the Dockerfile",
            path.display()
        ));
    }
    Ok(path)
}

/// Whether these are the bytes of an ELF file of 64 bits for x86-64.
fn is_for_spaces(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7FELF\x02\x01") && bytes.get(18..20) == Some(&[0x3E, 0])
}

/// The latest `GLIBC_2.N` that the file names.
fn library(bytes: &[u8]) -> Option<u32> {
    const MARK: &[u8] = b"GLIBC_2.";
    let versions = bytes
        .windows(MARK.len() + 3)
        .filter(|window| window.starts_with(MARK));
    versions
        .filter_map(|window| {
            let digits = window[MARK.len()..].iter().take_while(|b| b.is_ascii_digit());
            String::from_utf8(digits.copied().collect()).ok()?.parse().ok()
        })
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_says_what_it_is_and_needs() {
        let mut elf = b"\x7FELF\x02\x01\x01".to_vec();
        elf.resize(18, 0);
        elf.extend([0x3E, 0]);
        assert!(is_for_spaces(&elf) && !is_for_spaces(b"MZ") && !is_for_spaces(b"\x7FELF\x02\x01"));
        elf.extend(b"xxGLIBC_2.2.5\0GLIBC_2.39\0GLIBC_2.4\0GLIBC_PRIVATE\0");
        assert_eq!(library(&elf), Some(39));
        assert_eq!(library(b"GLIBC_2"), None);
    }
}
