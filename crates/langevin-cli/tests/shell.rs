//! What shells and programs read: completions, manual pages, JSON.

mod support;

use std::fs;

use support::{line, names};

/// The commands, as the help lists them.
fn commands() -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let help = line(folder.path(), "--help").ok().out;
    let list = help
        .split("Commands:")
        .nth(1)
        .unwrap()
        .split("Options:")
        .next()
        .unwrap();
    let commands: Vec<String> = list
        .lines()
        // Deeper lines go on with what is said of a command.
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .map(|line| line.split_whitespace().next().unwrap().to_string())
        .collect();
    assert!(commands.len() > 20, "{commands:?}");
    commands
}

#[test]
fn every_shell_completes_every_command() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = line(folder.path(), &format!("completions {shell}")).ok();
        for command in commands() {
            assert!(script.out.contains(&command), "{shell}: {command}");
        }
        assert!(script.out.contains("negative-prompt"), "{shell}");
        assert_eq!(script.err, "");
    }
    line(folder.path(), "completions tcsh").refused(2, &["tcsh", "bash"]);
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    line(folder.path(), "man share/man1").ok();
    let pages = names(&folder.path().join("share/man1"));
    for command in commands() {
        assert!(pages.contains(&format!("langevin-{command}.1")), "{pages:?}");
    }
    let page = fs::read_to_string(folder.path().join("share/man1/langevin-sample.1")).unwrap();
    assert!(page.starts_with(".ie") && page.contains("guidance"), "{page}");
    fs::write(folder.path().join("file"), "").unwrap();
    line(folder.path(), "man file").refused(1, &["file"]);
}

#[test]
fn samplers_and_runs_are_lists_for_programs() {
    let folder = tempfile::tempdir().unwrap();
    let samplers = line(folder.path(), "schedulers --json").ok().json();
    let ddim = samplers
        .as_array()
        .unwrap()
        .iter()
        .find(|s| s["name"] == "ddim")
        .unwrap();
    assert_eq!(ddim["class"], "DDIMScheduler");
    assert_eq!(ddim["draws_noise"], false);

    let run = folder.path().join("runs/digits-1");
    fs::create_dir_all(&run).unwrap();
    let config = serde_json::to_string(&langevin::training::TrainingConfig::digits()).unwrap();
    fs::write(run.join("training.json"), config).unwrap();
    fs::write(
        run.join("metrics.jsonl"),
        "{\"step\":3,\"epoch\":0,\"loss\":0.5,\"lr\":0.1}\n",
    )
    .unwrap();
    let runs = line(folder.path(), "runs --json").ok().json();
    assert_eq!(runs[0]["dataset"], "digits");
    assert_eq!(
        (runs[0]["steps"].as_u64(), runs[0]["state"].as_str()),
        (Some(3), Some("stopped"))
    );
    fs::create_dir(folder.path().join("empty")).unwrap();
    assert_eq!(
        line(folder.path(), "runs empty --json").ok().json(),
        serde_json::json!([])
    );
}
