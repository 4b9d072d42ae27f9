//! Help, and the manners of a command-line program.

mod support;

use std::{
    io::Read,
    process::Stdio,
    time::{Duration, Instant},
};

use support::{command, line};

#[test]
fn help_has_examples_and_is_instant() {
    let folder = tempfile::tempdir().unwrap();
    // The best of a few: other tests run beside it.
    let asked = (0..5).map(|_| {
        let started = Instant::now();
        (line(folder.path(), "--help").ok(), started.elapsed())
    });
    let (help, took) = asked.min_by_key(|(_, took)| *took).unwrap();
    assert!(took < Duration::from_secs(1), "{took:?}");
    for part in ["langevin train", "langevin sample", "Examples:"] {
        assert!(help.out.contains(part), "{}", help.out);
    }
    for name in [
        "train",
        "sample",
        "info",
        "evaluate",
        "invert",
        "edit",
        "interpolate",
        "convert",
        "pull",
        "push",
        "list",
        "remove",
        "space",
    ] {
        let help = line(folder.path(), &format!("{name} --help")).ok();
        assert!(
            help.out.contains(&format!("Usage: langevin {name}")),
            "{}",
            help.out
        );
    }
}

#[test]
fn nothing_is_coloured_where_nobody_watches() {
    let folder = tempfile::tempdir().unwrap();
    for args in ["--help", "train --nonsense", "train --dry-run"] {
        let ran = line(folder.path(), args);
        assert!(!ran.out.contains('\x1b') && !ran.err.contains('\x1b'), "{args}");
    }
}

#[test]
fn without_arguments_there_is_help_and_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    let ran = line(folder.path(), "");
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("Usage: langevin"), "{}", ran.err);
}

#[cfg(unix)]
#[test]
fn a_reader_that_has_gone_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = command(folder.path(), ["train", "--dry-run"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    assert_eq!(said, "");
}
