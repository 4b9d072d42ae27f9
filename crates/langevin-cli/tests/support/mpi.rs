//! Processes of MPI that tests start, look at and end.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output},
    thread,
    time::{Duration, Instant},
};

use langevin::{
    data::{Channels, Picture},
    grid,
};
use tempfile::TempDir;

use super::{command, names};

/// Whether there is an mpirun; says so where there is none.
pub(crate) fn has_mpirun() -> bool {
    let found = Command::new("mpirun").arg("--version").output().is_ok();
    if !found {
        eprintln!("there is no mpirun: processes of MPI are not tested");
    }
    found
}

/// Whether it is Open MPI's, which has flags of its own.
pub(crate) fn is_open_mpi() -> bool {
    let version = Command::new("mpirun").arg("--version").output().unwrap();
    String::from_utf8_lossy(&version.stdout).contains("Open MPI")
}

/// A folder with pictures of two classes and a small model for them.
pub(crate) fn scene() -> TempDir {
    let scene = tempfile::tempdir().unwrap();
    for i in 0..21 {
        let pixels = (0..16 * 16 * 3)
            .map(|at| ((at * (7 + i) + i * 40) % 256) as u8)
            .collect();
        let picture = Picture::new(16, 16, Channels::Rgb, pixels).unwrap();
        let path = scene
            .path()
            .join(format!("pictures/{}/{i:02}.png", ["a", "b"][i % 2]));
        grid::write_png(&path, &picture, &[]).unwrap();
        fs::write(path.with_extension("txt"), format!("a cat, number {i}")).unwrap();
    }
    let model = r#"{"_class_name": "UNet2DModel", "dropout": 0.1, "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4,
        "sample_size": 8, "attention_head_dim": 8, "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"]}"#;
    fs::write(scene.path().join("model.json"), model).unwrap();
    scene
}

/// The line that starts words on so many processes.
pub(crate) fn launcher(scene: &Path, processes: usize, words: &str) -> Command {
    let line = format!("launch --num-processes {processes} {words}");
    command(scene, line.split_whitespace())
}

/// The same, run to its end, which must be a good one.
pub(crate) fn launch(scene: &Path, processes: usize, words: &str) -> Output {
    let output = launcher(scene, processes, words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words} on {processes}: {said}");
    output
}

/// The files of weights, averages and moments below a folder, with their bytes.
pub(crate) fn tensors(run: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for name in names(run) {
        let path = run.join(&name);
        if path.is_dir() {
            let inside = tensors(&path).into_iter();
            found.extend(inside.map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else if name.ends_with(".safetensors") || name == "state.json" {
            found.push((name, fs::read(&path).unwrap()));
        }
    }
    found
}

/// Whether two runs left the same bytes.
pub(crate) fn same(one: &Path, other: &Path) {
    let (a, b) = (tensors(one), tensors(other));
    let names = |all: &[(String, Vec<u8>)]| all.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert!(!a.is_empty());
    assert_eq!(names(&a), names(&b));
    for ((name, a), (_, b)) in a.iter().zip(&b) {
        assert!(a == b, "{name} differs in {}", other.display());
    }
}

/// The processes of a command that name a folder, by their numbers in the system.
pub(crate) fn running(subcommand: &str, folder: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let runs = |id: &String| {
        let line = fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let words: Vec<&str> = line.split('\0').collect();
        words.get(1) == Some(&subcommand) && words.contains(&folder)
    };
    let mut ids: Vec<String> = ids.filter(runs).collect();
    ids.sort_by_key(|id| id.parse::<u64>().unwrap_or(0));
    ids
}

/// Sends a process a signal.
pub(crate) fn signal(name: &str, id: &str) {
    assert!(
        Command::new("kill")
            .args([format!("-{name}"), id.into()])
            .status()
            .unwrap()
            .success()
    );
}

/// Whether it ended well, which it must do in time.
pub(crate) fn ended_within(child: &mut Child, limit: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(status) = child.try_wait().unwrap() {
            return status.success();
        }
        thread::sleep(Duration::from_millis(50));
    }
    child.kill().unwrap();
    panic!("the processes did not end within {limit:?}");
}
