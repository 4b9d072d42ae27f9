//! Every command line in the README, the documentation and the help texts is one that the program takes.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use clap::{CommandFactory, Parser};

use crate::{cli::Cli, flags, launch};

/// A line as a shell splits it, without what it says to the shell.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut quote = None;
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '\\') => word.get_or_insert_default().extend(characters.next()),
            (None, '#') if word.is_none() => break,
            (None, ';' | '|' | '>' | '&') => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The command lines of a text, each with the number of the line that it begins in.
fn commands(text: &str, fenced: bool) -> Vec<(usize, String)> {
    let (mut commands, mut inside, mut open) = (Vec::new(), !fenced, None::<(usize, String)>);
    for (number, line) in text.lines().enumerate() {
        if fenced && line.trim_start().starts_with("```") {
            inside = line.trim_start().starts_with("```sh") && !inside;
            continue;
        }
        let line = line.trim();
        let begun = match open.take() {
            Some((number, before)) => Some((number, format!("{before} {line}"))),
            None if inside && line.starts_with("langevin ") => Some((number + 1, line.to_string())),
            None => None,
        };
        let Some((number, line)) = begun else { continue };
        match line.strip_suffix('\\') {
            Some(line) => open = Some((number, line.trim_end().to_string())),
            None => commands.push((number, line)),
        }
    }
    commands
}

/// Why a line is none that the program takes.
fn refused(line: &str) -> Option<String> {
    let words: Vec<OsString> = words(line).into_iter().map(OsString::from).collect();
    let launched = match launch::unwrap(words) {
        Ok(launched) => launched,
        Err(error) => return Some(error.to_string()),
    };
    match Cli::try_parse_from(flags::to_kebab_case(launched.args)) {
        Ok(_) => None,
        Err(error) if !error.use_stderr() => None,
        Err(error) => Some(error.to_string()),
    }
}

fn check(place: &str, text: &str, fenced: bool) -> usize {
    let commands = commands(text, fenced);
    for (number, line) in &commands {
        if let Some(why) = refused(line) {
            panic!("{place}, line {number}: {line}\n{why}");
        }
    }
    commands.len()
}

#[test]
fn commands_in_the_documentation_are_taken() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let docs = fs::read_dir(root.join("docs")).unwrap().flatten();
    let mut pages: Vec<PathBuf> = docs.map(|entry| entry.path()).collect();
    pages.retain(|page| page.extension().is_some_and(|ending| ending == "md"));
    pages.push(root.join("README.md"));
    pages.sort();
    let count = |page: &PathBuf| {
        check(
            &page.display().to_string(),
            &fs::read_to_string(page).unwrap(),
            true,
        )
    };
    let found: usize = pages.iter().map(count).sum();
    assert!(found > 150, "{found}");
}

#[test]
fn examples_in_the_help_texts_are_taken() {
    let mut found = 0;
    for command in Cli::command().get_subcommands() {
        if let Some(text) = command.get_after_help() {
            found += check(command.get_name(), &text.to_string(), false);
        }
    }
    assert!(found > 60, "{found}");
}

/// The lists of words in a value whose first is the program.
fn lists(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Array(all) if all.first().is_some_and(|first| first == "langevin") => {
            let words = all.iter().map(|word| format!("'{}'", word.as_str().unwrap()));
            found.push(words.collect::<Vec<_>>().join(" "));
        }
        serde_json::Value::Array(all) => all.iter().for_each(|value| lists(value, found)),
        serde_json::Value::Object(all) => all.values().for_each(|value| lists(value, found)),
        _ => {}
    }
}

#[test]
fn files_for_clusters_are_of_their_kinds_and_their_commands_are_taken() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cluster");
    let (mut kinds, mut found) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(&folder).unwrap().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap();
        match entry.path().extension().and_then(|ending| ending.to_str()) {
            Some("yaml") => {
                for document in text.split("\n---\n") {
                    let value: serde_json::Value = serde_saphyr::from_str(document).unwrap();
                    assert!(value["apiVersion"].is_string() && value["metadata"]["name"] == "langevin");
                    kinds.push(value["kind"].as_str().unwrap().to_string());
                    lists(&value, &mut found);
                }
            }
            Some("slurm") => {
                let bare = text.replace("srun --mpi=pmix ", "").replace(" || exit", "");
                found.extend(commands(&bare, false).into_iter().map(|(_, line)| line));
            }
            _ => {}
        }
    }
    kinds.sort();
    assert_eq!(
        kinds,
        [
            "Deployment",
            "HorizontalPodAutoscaler",
            "Ingress",
            "MPIJob",
            "PodMonitor",
            "Service"
        ]
    );
    assert_eq!(found.len(), 3, "{found:?}");
    for line in found {
        assert_eq!(refused(&line), None, "{line}");
    }
}

#[test]
fn lines_are_split_as_a_shell_splits_them() {
    let line = r#"langevin sample 'a b' --prompt "it's" a\ b ''  # no more"#;
    assert_eq!(
        words(line),
        ["langevin", "sample", "a b", "--prompt", "it's", "a b", ""]
    );
    let text = "```sh\nlangevin a \\\n  b\n```\n```text\nlangevin c\n```\n";
    assert_eq!(commands(text, true), [(2, "langevin a b".to_string())]);
    assert!(refused("langevin sample RUN --no-such-flag").is_some());
}
