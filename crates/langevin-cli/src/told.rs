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
