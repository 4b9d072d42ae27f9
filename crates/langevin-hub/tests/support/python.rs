//! Python's own client, where there is one.

use std::{path::Path, process::Command};

/// The interpreter that has `modules`: that of `LANGEVIN_PYTHON`, or `python3`. `None` where it has not, which is said.
pub(crate) fn python(modules: &str) -> Option<String> {
    let named = std::env::var("LANGEVIN_PYTHON").ok();
    let program = named.clone().unwrap_or_else(|| "python3".into());
    let check = Command::new(&program)
        .args(["-c", &format!("import {modules}")])
        .output();
    if check.is_ok_and(|output| output.status.success()) {
        return Some(program);
    }
    assert!(named.is_none(), "LANGEVIN_PYTHON has no {modules}");
    eprintln!("skipped: {program} has no {modules}; LANGEVIN_PYTHON may name an interpreter that has it");
    None
}

/// Runs a script with a Hub and a home of the Hub's files, and gives what it printed.
pub(crate) fn run(
    program: &str,
    script: &str,
    endpoint: &str,
    hf_home: &Path,
    variables: &[(&str, &str)],
) -> String {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars() {
        if name.starts_with("HF_") || name.starts_with("HUGGING") || name.ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    let output = command
        .args(["-c", script])
        .env("HF_ENDPOINT", endpoint)
        .env("HF_HOME", hf_home)
        // The loopback Hub stores by LFS, as the Hub does for clients without Xet.
        .env("HF_HUB_DISABLE_XET", "1")
        .env("HF_HUB_DISABLE_TELEMETRY", "1")
        .env("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        .env("HF_HUB_DISABLE_UPDATE_CHECK", "1")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said
}
