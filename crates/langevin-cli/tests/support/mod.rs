//! Running the binary, and what it said.

// Each test target includes this file and uses a part of it.
#![allow(dead_code)]

#[cfg(feature = "mpi")]
pub(crate) mod mpi;
pub(crate) mod serving;

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use langevin::{
    data::{Channels, Picture},
    grid,
};

/// What a run of the binary came to.
pub(crate) struct Ran {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub out: String,
    /// What it said on the standard error.
    pub err: String,
}

impl Ran {
    /// The run, which must have succeeded.
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.err);
        self
    }

    /// The error, which must be one of `code`, in one or two lines, and contain each of `parts`.
    pub(crate) fn refused(self, code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out, self.err);
        let lines: Vec<&str> = self
            .err
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert_eq!(lines.len(), 1, "{}", self.err);
        for part in parts {
            assert!(self.err.contains(part), "`{part}` is not in: {}", self.err);
        }
        self
    }

    /// What was printed, as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}", self.out))
    }
}

/// The command, not yet started: in `folder`, with nothing to read from.
pub(crate) fn command(folder: &Path, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_langevin"));
    command.current_dir(folder).args(args).stdin(Stdio::null());
    // Tests ask nothing of the Hub but of one on loopback.
    command
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HOME", folder.join("hf-home"));
    command
}

/// Runs the binary in `folder`.
pub(crate) fn langevin(folder: &Path, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ran {
    let output = command(folder, args).output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs a command line without quotes in `folder`.
pub(crate) fn line(folder: &Path, text: &str) -> Ran {
    langevin(folder, text.split_whitespace())
}

/// What a script among `tests/python` prints as JSON, run by the interpreter that `LANGEVIN_PYTHON` names; `None` where none
/// is named, or it has not what the script needs.
pub(crate) fn python(script: &str, argument: &Path) -> Option<serde_json::Value> {
    let interpreter = std::env::var("LANGEVIN_PYTHON").ok()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/python")
        .join(script);
    let output = Command::new(interpreter)
        .arg(script)
        .arg(argument)
        .output()
        .ok()?;
    if output.status.code() == Some(77) {
        return None;
    }
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// A pipeline that diffusers saved: `ddpm`, `ddim` or `ddim_eta`.
pub(crate) fn reference_pipeline(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../langevin/tests/reference/pipelines")
        .join(name)
}

/// The names in a folder, in order.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Copies a folder with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in names(from) {
        let (source, target) = (from.join(&name), to.join(&name));
        if source.is_dir() {
            copy(&source, &target)
        } else {
            fs::copy(&source, &target).map(drop).unwrap()
        }
    }
}

/// A tiny model, as a configuration file.
pub(crate) fn small_model(folder: &Path, channels: usize, classes: bool) -> &'static str {
    let classes = if classes { r#""num_class_embeds": 3,"# } else { "" };
    let text = format!(
        r#"{{"_class_name": "UNet2DModel", "in_channels": {channels}, "out_channels": {channels}, {classes}
            "block_out_channels": [8, 8], "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 8,
            "down_block_types": ["DownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "UpBlock2D"]}}"#
    );
    fs::write(folder.join("small.json"), text).unwrap();
    "small.json"
}

/// Twelve pictures of two classes, in colour, of different sizes.
pub(crate) fn pictures(folder: &Path) {
    for i in 0..12 {
        let class = if i % 2 == 0 { "dark" } else { "light" };
        let (height, width) = (12 + i, 20 - i);
        let pixels = vec![if i % 2 == 0 { 20 } else { 230 }; height * width * 3];
        let picture = Picture::new(height, width, Channels::Rgb, pixels).unwrap();
        grid::write_png(
            folder.join("pictures").join(class).join(format!("{i:02}.png")),
            &picture,
            &[],
        )
        .unwrap();
    }
}

/// A disk that is full after `kilobytes`, by the shell's limit on the size of a file: writing past it fails as on a full disk.
#[cfg(unix)]
pub(crate) fn on_a_full_disk(folder: &Path, kilobytes: usize, args: &str) -> (i32, String) {
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" {args}", kilobytes * 2);
    let output = Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_langevin")])
        .current_dir(folder)
        .output()
        .unwrap();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8(output.stderr).unwrap(),
    )
}
