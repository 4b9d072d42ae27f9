//! Drawing on processes of MPI, and two machines: whatever draws and trains, the files are those of one process. Where there is no mpirun, or no way
//! to make network namespaces, these tests say so and pass.
#![cfg(feature = "mpi")]

mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use support::{
    command,
    mpi::{has_mpirun, is_open_mpi, launch, launcher, running, same, scene, signal},
    names,
};

const TRAIN: &str = "train --train-data-dir pictures --model model.json --conditioning class --resolution 8 --train-batch-size 2 --num-slots 4 \
    --lr-scheduler constant --lr-warmup-steps 0 --eval-batch-size 4 --ddpm-num-inference-steps 2 --save-images-epochs 0 --save-model-epochs 0 \
    --max-train-steps 3 --checkpointing-steps 0";

/// All files of a folder, with their bytes.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| {
        let bytes = fs::read(folder.join(&name)).unwrap();
        (name, bytes)
    };
    names(folder).into_iter().map(read).collect()
}

#[test]
fn drawings_and_figures_are_those_of_one_process() {
    if !has_mpirun() {
        return;
    }
    let scene = scene();
    let folder = scene.path();
    launch(folder, 2, &format!("{TRAIN} --output-dir run"));
    let sd = Path::new(env!("CARGO_MANIFEST_DIR")).join("../langevin/tests/reference/sd/models/sd1");
    let sd = sd.canonicalize().unwrap().display().to_string();
    let lines = [
        // One batch, which is shared by its rows; several small ones, whose noise comes from one generator; a folder, a grid, latents, a GIF.
        "sample run --count 7 --steps 3 --output OUT/grid.png".to_string(),
        "sample run --count 7 --batch-size 2 --scheduler ddpm --steps 4 --output OUT/folder".into(),
        "sample run --count 3 --batch-size 1 --steps 3 --output OUT/latents.safetensors".into(),
        "sample run --class a --count 2 --guidance-scale 3 --steps 3 --output OUT/moving.png --animate OUT/moving.gif".into(),
        format!("sample {sd} --prompt boat --seeds 1,2,3 --steps 2 --scheduler euler-a --output OUT/seeds"),
        format!("sample {sd} --prompt boat --steps 2 --vary steps=1,2;scheduler=euler,ddim --output OUT/vary.png"),
    ];
    for line in &lines {
        let mut found = Vec::new();
        for processes in [1, 2, 3] {
            let out = folder.join("out");
            fs::create_dir_all(&out).unwrap();
            // In one place, since files and lines name it.
            let output = launch(folder, processes, &line.replace("OUT", "out"));
            let mut left = files_below(&out);
            left.push(("what was printed".into(), output.stdout));
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(said.matches("drawing ").count() <= 1, "{line}: {said}");
            fs::remove_dir_all(&out).unwrap();
            found.push(left);
        }
        for (processes, other) in found.iter().enumerate() {
            for ((name, one), (_, bytes)) in found[0].iter().zip(other) {
                // What is said before the numbers is in no order.
                let from = if name.ends_with(".safetensors") {
                    one.len() - 3 * 3 * 8 * 8 * 4
                } else {
                    0
                };
                let (one, bytes) = (&one[from..], &bytes[from..]);
                assert!(one == bytes, "{line} on {}: {name}", processes + 1);
            }
            assert_eq!(other.len(), found[0].len(), "{line}");
            assert!(other.len() > 1, "{line} wrote nothing");
        }
    }
    let figures = "evaluate run --data pictures --samples-per-class 4 --real-pictures 21 --steps 2 --batch-size 3 --json";
    let alone = launch(folder, 1, figures).stdout;
    assert!(String::from_utf8_lossy(&alone).contains("frechet_distance"));
    for processes in [2, 3] {
        assert!(launch(folder, processes, figures).stdout == alone);
    }
}

fn files_below(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let (folders, plain): (Vec<_>, Vec<_>) = names(folder)
        .into_iter()
        .partition(|name| folder.join(name).is_dir());
    let mut found: Vec<_> = plain
        .into_iter()
        .map(|name| {
            let bytes = fs::read(folder.join(&name)).unwrap();
            (name, bytes)
        })
        .collect();
    for name in folders {
        let inside = files(&folder.join(&name)).into_iter();
        found.extend(inside.map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
    }
    found
}

#[test]
fn one_that_fails_or_is_killed_ends_all() {
    if !has_mpirun() {
        return;
    }
    let scene = scene();
    let folder = scene.path();
    launch(folder, 1, &format!("{TRAIN} --output-dir run"));
    let refused = |words: &str, parts: &[&str]| {
        let start = Instant::now();
        let output = launcher(folder, 3, words).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{words}: {said}");
        assert!(start.elapsed() < Duration::from_secs(20), "{words}");
        for part in parts {
            assert_eq!(said.matches(part).count(), 1, "{words}: {said}");
        }
    };
    refused("sample nowhere --output x.png", &["no such folder"]);
    refused("sample run --output run", &["holds a run"]);
    refused("evaluate run --data pictures --samples-per-class 1", &["too few"]);
    // Each another model: by an mpirun of other words for each.
    let mpirun = command(folder, ["--version"]);
    let own = mpirun.get_program().to_str().unwrap().to_string();
    launch(folder, 1, &format!("{TRAIN} --seed 5 --output-dir other"));
    let line = |run: &str| format!("-n 1 {own} sample {run} --count 2 --steps 2 --output both.png");
    let mut words: Vec<String> = Vec::new();
    if is_open_mpi() {
        words.extend(["--allow-run-as-root", "--oversubscribe"].map(String::from));
    }
    words.extend(
        format!("{} : {}", line("run"), line("other"))
            .split_whitespace()
            .map(String::from),
    );
    let output = Command::new("mpirun")
        .current_dir(folder)
        .args(words)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains("process 1 cannot draw with process 0"),
        "{said}"
    );
    assert!(!folder.join("both.png").exists());
    // One of them is killed in the middle.
    let mut child = launcher(
        folder,
        3,
        "sample run --count 8 --steps 1000 --scheduler ddpm --output killed.png",
    )
    .stdout(Stdio::null())
    .stderr(Stdio::null())
    .spawn()
    .unwrap();
    while running("sample", "killed.png").len() < 3 {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        thread::sleep(Duration::from_millis(10));
    }
    signal("KILL", &running("sample", "killed.png")[1]);
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(10), "the others go on");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(running("sample", "killed.png").is_empty() && !folder.join("killed.png").exists());
}

/// Two network namespaces with a cable between them, which are gone when this is.
struct Machines {
    names: [String; 2],
    folder: tempfile::TempDir,
}

impl Machines {
    /// `None` where this system does not let them be made, or MPI's launcher is another one than Open MPI's.
    fn made() -> Option<Self> {
        if !is_open_mpi() {
            return None;
        }
        let id = std::process::id();
        let machines = Self {
            names: ["a", "b"].map(|name| format!("lv{id}{name}")),
            folder: tempfile::tempdir().ok()?,
        };
        let [a, b] = &machines.names;
        let (va, vb) = (format!("va{id}"), format!("vb{id}"));
        let lines = [
            format!("netns add {a}"),
            format!("netns add {b}"),
            format!("link add {va} netns {a} type veth peer name {vb} netns {b}"),
            format!("-n {a} addr add 10.231.7.1/24 dev {va}"),
            format!("-n {b} addr add 10.231.7.2/24 dev {vb}"),
            format!("-n {a} link set {va} up"),
            format!("-n {b} link set {vb} up"),
            format!("-n {a} link set lo up"),
            format!("-n {b} link set lo up"),
        ];
        for line in lines {
            let made = Command::new("ip")
                .args(line.split_whitespace())
                .stderr(Stdio::null())
                .status();
            if !made.is_ok_and(|status| status.success()) {
                return None;
            }
        }
        // What ssh does between machines: its first word is the machine, the rest a line for that one's shell.
        let agent = format!(
            "#!/bin/sh\ncase $1 in 10.231.7.1) on={a};; *) on={b};; esac\nshift\nexec ip netns exec $on unshare --uts \
             sh -c 'hostname \"$0\"; exec sh -c \"$*\"' $on \"$@\"\n"
        );
        fs::write(machines.agent(), agent).ok()?;
        fs::set_permissions(machines.agent(), fs::Permissions::from_mode(0o755)).ok()?;
        let works = machines.on_first(&["true".into()]).stderr(Stdio::null()).status();
        works.is_ok_and(|status| status.success()).then_some(machines)
    }

    fn agent(&self) -> std::path::PathBuf {
        self.folder.path().join("agent")
    }

    /// A line on the first of them, which has a name of its own.
    fn on_first(&self, words: &[String]) -> Command {
        let mut command = Command::new("ip");
        let first = &self.names[0];
        command
            .args(["netns", "exec", first, "unshare", "--uts", "sh", "-c"])
            .args(["hostname \"$0\" && exec \"$@\"", first])
            .args(words)
            .env("OMPI_MCA_plm_rsh_agent", self.agent())
            .env("HF_HUB_OFFLINE", "1");
        command
    }

    /// Bytes that the second one was sent over the cable.
    fn received(&self) -> u64 {
        let second = &self.names[1];
        let output = Command::new("ip")
            .args(["netns", "exec", second, "cat", "/proc/net/dev"])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text
            .lines()
            .find(|line| line.trim_start().starts_with("vb"))
            .unwrap();
        let counts = line.split(':').nth(1).unwrap();
        counts.split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip")
                .args(["netns", "del", name])
                .stderr(Stdio::null())
                .status();
        }
    }
}

#[test]
fn two_machines_leave_the_bytes_of_one() {
    if !has_mpirun() {
        return;
    }
    let Some(machines) = Machines::made() else {
        eprintln!("network namespaces cannot be made here: two machines are not tested");
        return;
    };
    let scene = scene();
    let folder = scene.path();
    launch(folder, 1, &format!("{TRAIN} --use-ema --output-dir one"));
    launch(
        folder,
        1,
        "sample one --count 5 --steps 2 --output one.png --no-metadata",
    );
    fs::write(folder.join("hosts"), "10.231.7.1 slots=2\n10.231.7.2 slots=2\n").unwrap();
    let own = command(folder, ["--version"])
        .get_program()
        .to_str()
        .unwrap()
        .to_string();
    let both = |processes: usize, words: &str| {
        let line = format!("{own} launch --num-processes {processes} --hostfile hosts {words}");
        let words: Vec<String> = line.split_whitespace().map(String::from).collect();
        let output = machines.on_first(&words).current_dir(folder).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{line}: {said}");
        said
    };
    let before = machines.received();
    // Two on each machine, and then one on each with the checkpoint of the four.
    let said = both(
        4,
        &format!("{TRAIN} --use-ema --checkpointing-steps 2 --max-train-steps 2 --output-dir two"),
    );
    assert!(said.contains("bytes were sent"), "{said}");
    fs::write(folder.join("hosts"), "10.231.7.1 slots=1\n10.231.7.2 slots=1\n").unwrap();
    both(
        2,
        &format!("{TRAIN} --use-ema --resume-from-checkpoint latest --output-dir two"),
    );
    let weights =
        |run: &str| fs::read(folder.join(run).join("unet/diffusion_pytorch_model.safetensors")).unwrap();
    assert!(weights("one") == weights("two"));
    both(2, "sample two --count 5 --steps 2 --output two.png --no-metadata");
    assert!(fs::read(folder.join("one.png")).unwrap() == fs::read(folder.join("two.png")).unwrap());
    let sent = machines.received() - before;
    assert!(
        sent > 20_000,
        "{sent} bytes went over the cable, so this was one machine"
    );
    // One on the other machine is killed: all end, and start again.
    let words = format!(
        "{own} launch --num-processes 2 --max-restarts 1 --hostfile hosts {TRAIN} --checkpointing-steps 5 --max-train-steps 150"
    );
    launch(
        folder,
        1,
        &format!("{TRAIN} --checkpointing-steps 5 --max-train-steps 150 --output-dir alone"),
    );
    let words: Vec<String> = format!("{words} --output-dir killed")
        .split_whitespace()
        .map(String::from)
        .collect();
    let mut child = machines
        .on_first(&words)
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while langevin::training::checkpoints::all(folder.join("killed")).len() < 2 {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        thread::sleep(Duration::from_millis(10));
    }
    signal("KILL", running("train", "killed").last().unwrap());
    assert!(support::mpi::ended_within(&mut child, Duration::from_secs(120)));
    same(&folder.join("alone"), &folder.join("killed"));
}
