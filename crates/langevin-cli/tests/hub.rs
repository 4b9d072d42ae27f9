//! The program and the Hugging Face Hub, against one on loopback: names where models and data sets are named, pulling and pushing,
//! the cache.

#[path = "../../langevin-hub/tests/support/mod.rs"]
mod loopback;
mod support;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use langevin::data::read_picture;
use loopback::{Server, WRITER, python};
use support::{Ran, names, pictures, reference_pipeline, small_model};

/// A Hub, and a user's folder with a cache of their own.
struct World {
    server: Server,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self {
            server: Server::start(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn with(&self, line: &str, variables: &[(&str, &str)]) -> Ran {
        let mut command = support::command(self.path(), line.split_whitespace());
        for (name, _) in std::env::vars() {
            if name.starts_with("HF_") || name.starts_with("HUGGING") || name.ends_with("_proxy") {
                command.env_remove(name);
            }
        }
        let output = command
            .env_remove("HF_HUB_OFFLINE")
            .env("HF_ENDPOINT", &self.server.endpoint)
            .env("HF_HOME", self.path().join("home"))
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn online(&self, line: &str) -> Ran {
        self.with(line, &[])
    }

    fn offline(&self, line: &str) -> Ran {
        self.with(line, &[("HF_HUB_OFFLINE", "1")])
    }

    fn writing(&self, line: &str) -> Ran {
        self.with(line, &[("HF_TOKEN", WRITER)])
    }

    /// A repository with the files below a folder, on a branch.
    fn publish(&self, repo: &str, branch: &str, folder: &Path) -> String {
        let mut found = Vec::new();
        collect(folder, folder, &mut found);
        let files: Vec<(&str, &[u8])> = found
            .iter()
            .map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
            .collect();
        self.server.add(repo, branch, &files)
    }

    /// The paths of the files that were downloaded.
    fn downloaded(&self) -> Vec<String> {
        let state = self.server.state();
        let mut paths: Vec<String> = state
            .requests
            .iter()
            .filter_map(|(port, request)| {
                Some((*port, request.path.split_once("/resolve/")?.1.split_once('/')?.1))
            })
            .filter(|(port, _)| *port == "hub")
            .map(|(_, path)| path.to_string())
            .collect();
        paths.sort();
        paths.dedup();
        paths
    }

    fn forget_requests(&self) {
        self.server.state().requests.clear();
    }
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for name in names(folder) {
        let path = folder.join(name);
        if path.is_dir() {
            collect(root, &path, found);
        } else {
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .replace('\\', "/");
            found.push((name, fs::read(&path).unwrap()));
        }
    }
}

fn parquet() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../langevin/tests/hub/data/train-00000-of-00001.parquet")
}

#[test]
fn a_model_of_the_hub_draws_what_its_folder_draws() {
    let world = World::new();
    world.publish("models/me/ddpm", "main", &reference_pipeline("ddpm"));
    let draw = "--count 2 --steps 3 --seed 5 --output";
    let local = format!("sample {} {draw} local.png", reference_pipeline("ddpm").display());
    world.online(&local).ok();
    let ran = world.online(&format!("sample me/ddpm {draw} hub.png")).ok();
    assert!(
        ran.err.contains("pulling") && ran.err.contains("of me/ddpm"),
        "{}",
        ran.err
    );
    assert_eq!(
        world.downloaded(),
        [
            "call.json",
            "model_index.json",
            "scheduler/scheduler_config.json",
            "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors"
        ]
    );
    let read = |name: &str| read_picture(world.path().join(name)).unwrap();
    assert_eq!(read("hub.png"), read("local.png"));
    // Once it is there, without a network too, and by its commit.
    world.forget_requests();
    world.offline(&format!("sample me/ddpm {draw} again.png")).ok();
    assert_eq!(read("again.png"), read("local.png"));
    assert!(world.server.state().requests.is_empty());
    world.offline("info me/ddpm").ok();
    world.offline("sample me/none").refused(
        1,
        &[
            "`me/none` is no path here",
            "HF_HUB_OFFLINE",
            "langevin pull me/none",
        ],
    );
    world
        .online("sample me/none")
        .refused(1, &["there is no model me/none", "HF_TOKEN"]);
    // What would lie in a folder that is there is no name of the Hub, unless it is said to be.
    world.forget_requests();
    fs::create_dir(world.path().join("me")).unwrap();
    world.online("sample me/ddpm").refused(1, &["no such folder"]);
    assert!(world.server.state().requests.is_empty());
    world
        .online(&format!("sample hf://me/ddpm {draw} scheme.png"))
        .ok();
    world.online("convert hf://me/ddpm converted").ok();
    assert!(
        world
            .path()
            .join("converted/unet/diffusion_pytorch_model.safetensors")
            .is_file()
    );
}

#[test]
fn data_sets_of_every_layout_are_read() {
    let world = World::new();
    let bytes = fs::read(parquet()).unwrap();
    pictures(world.path());
    let folder = world.path().join("pictures");
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let mut found = Vec::new();
    collect(&folder, &folder, &mut found);
    for (name, bytes) in &found {
        zip.start_file(name, zip::write::SimpleFileOptions::default())
            .unwrap();
        zip.write_all(bytes).unwrap();
    }
    let zip = zip.finish().unwrap().into_inner();
    let add = |name: &str, branch: &str, files: &[(&str, &[u8])]| {
        world.server.add(&format!("datasets/me/{name}"), branch, files);
    };
    let (train, test) = (
        "data/train-00000-of-00001.parquet",
        "data/test-00000-of-00001.parquet",
    );
    add(
        "shards",
        "main",
        &[
            (train, &bytes),
            (test, b"not asked for"),
            ("README.md", b"# Data\n"),
        ],
    );
    add(
        "configs",
        "main",
        &[
            ("a/train-00000-of-00001.parquet", &bytes),
            ("b/train-00000-of-00001.parquet", b"another"),
        ],
    );
    let card =
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: odd/p*\n---\n";
    add(
        "card",
        "main",
        &[
            ("odd/p1.parquet", &bytes),
            ("odd/q2.parquet", b"no"),
            ("README.md", card.as_bytes()),
        ],
    );
    add("zipped", "main", &[("images.zip", &zip), ("README.md", b"x")]);
    add(
        "script",
        "main",
        &[("script.py", b"import os"), ("images.tgz", b"tar")],
    );
    add(
        "script",
        "refs/convert/parquet",
        &[
            ("default/train/0000.parquet", &bytes),
            ("default/test/0000.parquet", b"no"),
        ],
    );
    add("nothing", "main", &[("notes.txt", b"x")]);
    // A preview beside the data is not what is trained on, and of several archives none is meant.
    let preview = &found[0].1;
    let tar = vec![0; preview.len() + 1];
    add(
        "preview",
        "main",
        &[("preview.png", preview), ("train.tgz", &tar)],
    );
    add("archives", "main", &[("a.zip", &zip), ("b.zip", &zip)]);
    for name in ["preview", "archives"] {
        add(
            name,
            "refs/convert/parquet",
            &[("default/train/0000.parquet", &bytes)],
        );
    }
    add("unread", "main", &[("preview.png", preview), ("train.tgz", &tar)]);
    add("unclear", "main", &[("a.zip", &zip), ("b.zip", &zip)]);
    world.publish("datasets/me/folder", "main", &folder);
    for (name, flags, came, pictures) in [
        ("shards", "", vec!["README.md", train], 19),
        (
            "configs",
            "--dataset-config-name a",
            vec!["a/train-00000-of-00001.parquet"],
            19,
        ),
        ("card", "", vec!["README.md", "odd/p1.parquet"], 19),
        ("zipped", "", vec!["README.md", "images.zip"], 12),
        ("script", "", vec!["default/train/0000.parquet"], 19),
        ("preview", "", vec!["default/train/0000.parquet"], 19),
        ("archives", "", vec!["default/train/0000.parquet"], 19),
        (
            "folder",
            "",
            found.iter().map(|(name, _)| name.as_str()).collect(),
            12,
        ),
    ] {
        world.forget_requests();
        let ran = world.online(&format!("info me/{name} {flags}")).ok();
        assert!(
            ran.out.contains(&format!("pictures  {pictures}")),
            "{name}: {}",
            ran.out
        );
        assert!(ran.out.contains(name), "{name}: {}", ran.out);
        assert_eq!(world.downloaded(), came, "{name}");
        let ran = world
            .offline(&format!("train --dry-run --dataset_name=me/{name} {flags}"))
            .ok();
        let named = ran.json()["dataset_name"].as_str().unwrap().to_string();
        assert!(named.starts_with(&format!("me/{name}@")), "{named}");
        assert_eq!(
            world
                .offline(&format!("info hf://datasets/{named} {flags}"))
                .ok()
                .code,
            0
        );
    }
    world
        .online("info me/configs")
        .refused(1, &["the data set me/configs has several configurations", "a, b"]);
    world
        .online("info me/shards --split dev")
        .refused(1, &["no split `dev`", "test, train"]);
    world
        .online("info me/nothing --split train")
        .refused(1, &["the data set me/nothing holds no parquet files"]);
    world
        .online("info me/unread --split train")
        .refused(1, &["fewer bytes of pictures", "train.tgz"]);
    world
        .online("info me/unclear --split train")
        .refused(1, &["several zip archives", "a.zip, b.zip"]);
    world.online("info me/none").refused(
        1,
        &["no data set of that name either", "there is no model me/none"],
    );
}

#[test]
fn a_run_on_the_hubs_data_and_model_is_published_and_goes_on() {
    let world = World::new();
    let data = world.server.add(
        "datasets/me/shards",
        "main",
        &[("data/train-00000-of-00001.parquet", &fs::read(parquet()).unwrap())],
    );
    let base = world.publish("models/me/base", "main", &reference_pipeline("ddpm"));
    let flags = "--dataset_name=me/shards --start_model=me/base --resolution=16 --train_batch_size=8 --quiet \
                 --ddpm_num_inference_steps=2 --save_images_epochs=0 --max_train_steps=2 --checkpointing_steps=2";
    // Whether it can be published is found out first.
    let publish = "--push_to_hub --hub_model_id=mine --hub_private_repo";
    let ran = world.online(&format!("train {flags} --output_dir=out {publish}"));
    ran.refused(1, &["--push-to-hub", "HF_TOKEN"]);
    world.server.state().role = Some("read");
    let ran = world.online(&format!(
        "train {flags} --output_dir=out {publish} --hub_token={WRITER}"
    ));
    ran.refused(1, &["--push-to-hub", "may only read"]);
    world.server.state().role = None;
    assert!(
        world.downloaded().is_empty(),
        "data came before it was known who publishes"
    );
    assert!(!world.path().join("out").exists());
    let ran = world
        .online(&format!(
            "train {flags} --output_dir=out {publish} --hub_token={WRITER}"
        ))
        .ok();
    let page = format!("{}/me/mine", world.server.endpoint);
    // It was made before training, and found when it was over.
    assert_eq!(world.server.asked("hub", "POST", "/api/repos/create").len(), 2);
    assert!(ran.out.contains(&page), "{}", ran.out);
    let (repo, config) = {
        let state = world.server.state();
        let repo = state.repos["models/me/mine"].clone();
        let text = repo.files("main").unwrap()["training.json"].bytes.to_vec();
        (repo, String::from_utf8(text).unwrap())
    };
    assert!(repo.private);
    let files = repo.files("main").unwrap();
    let there: Vec<&str> = files.keys().map(String::as_str).collect();
    for file in [
        "README.md",
        "loss.png",
        "metrics.jsonl",
        "model_index.json",
        "samples.png",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ] {
        assert!(there.contains(&file), "{file} is not in {there:?}");
    }
    assert!(
        !there.iter().any(|path| path.starts_with("checkpoint")),
        "{there:?}"
    );
    // It names repositories, and no path of this machine.
    assert!(
        config.contains(&format!("me/shards@{data}")) && config.contains(&format!("me/base@{base}")),
        "{config}"
    );
    let home = world.path().file_name().unwrap().to_str().unwrap();
    let card = String::from_utf8(files["README.md"].bytes.to_vec()).unwrap();
    assert!(card.contains("--hub_token=TOKEN"), "{card}");
    assert!(
        files
            .values()
            .all(|file| !String::from_utf8_lossy(&file.bytes).contains(WRITER)),
        "the token was published"
    );
    assert!(!config.contains(home) && !card.contains(home), "{config}\n{card}");
    assert!(
        card.contains("datasets:\n- me/shards\nbase_model: me/base\n"),
        "{card}"
    );
    assert!(
        card.contains("langevin sample me/mine") && card.contains("from_pretrained(\"me/mine\")"),
        "{card}"
    );
    // What was published draws, and the run goes on from its checkpoint, without a network.
    world
        .writing("sample me/mine --count 1 --steps 2 --output mine.png")
        .ok();
    let resume =
        "train --resume-from-checkpoint out/checkpoint-2 --max_train_steps 3 --quiet --save_images_epochs=0";
    let ran = world.offline(resume).ok();
    assert!(ran.out.contains("trained for 3 steps"), "{}", ran.out);
    let ran = world.offline(&format!("{resume} --dataset_name=me/others"));
    ran.refused(1, &["me/others is not in the cache"]);
    // A name of its own, under the user's.
    let ran = world
        .writing(&format!("train {flags} --output_dir=named --push_to_hub"))
        .ok();
    assert!(ran.out.contains("/me/named"), "{}", ran.out);
    assert!(!world.server.state().repos["models/me/named"].private);
}

#[test]
fn flags_of_the_hub_that_do_nothing_are_told() {
    let world = World::new();
    let ran = world
        .offline("train --dry-run --hub_model_id=me/x --hub_private_repo")
        .ok();
    let notes: Vec<&str> = ran.err.lines().collect();
    assert_eq!(notes.len(), 2, "{}", ran.err);
    assert!(
        notes
            .iter()
            .all(|note| note.ends_with("has no effect without --push-to-hub")),
        "{}",
        ran.err
    );
    world
        .offline("train --dry-run --push_to_hub --hub_model_id=a/b/c")
        .refused(1, &["--hub-model-id", "ORG/NAME"]);
    world
        .offline("train --push_to_hub --hub_token=x")
        .refused(1, &["HF_HUB_OFFLINE"]);
}

#[test]
fn configurations_and_parts_come_without_the_rest() {
    let world = World::new();
    world.publish("models/me/base", "main", &reference_pipeline("ddpm"));
    let ran = world
        .online("train --dry-run --model_config_name_or_path=me/base --cache_dir=kept")
        .ok();
    assert!(
        ran.json()["model"].as_str().unwrap().starts_with("me/base@"),
        "{}",
        ran.out
    );
    assert_eq!(world.downloaded(), ["unet/config.json"]);
    assert!(world.path().join("kept/models--me--base").is_dir());
    small_model(world.path(), 3, false);
    world.online("train --dry-run --model=small.json").ok();
}

#[test]
fn the_cache_is_filled_listed_and_emptied() {
    let world = World::new();
    world.publish("models/me/ddpm", "main", &reference_pipeline("ddpm"));
    let bytes = fs::read(parquet()).unwrap();
    world.server.add(
        "datasets/me/data",
        "main",
        &[("data/train-00000-of-00001.parquet", &bytes)],
    );
    world.server.add(
        "datasets/me/ddpm",
        "main",
        &[("data/train-00000-of-00001.parquet", &bytes)],
    );
    let ran = world.online("list").ok();
    assert!(
        ran.out.is_empty() && ran.err.contains("there is nothing in"),
        "{}",
        ran.err
    );
    let ran = world.online("pull me/ddpm").ok();
    let folder = Path::new(ran.out.trim());
    assert!(folder.starts_with(world.path().join("home/hub")) && folder.join("model_index.json").is_file());
    let ran = world.online("pull me/data").ok();
    assert!(ran.out.contains("datasets--me--data"), "{}", ran.out);
    world.online("pull me/ddpm --dataset").ok();
    world.online("pull hf://datasets/me/ddpm --split train").ok();
    world
        .online("pull me/ddpm --variant fp16")
        .refused(1, &["no variant `fp16`"]);
    world
        .online("pull me/none")
        .refused(1, &["there is no model me/none"]);
    world.online("pull digits").refused(1, &["ORG/NAME"]);
    let ran = world.offline("list --revisions").ok();
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines.len(), 6, "{}", ran.out);
    assert!(
        lines[0].starts_with("model     me/ddpm")
            && lines[0].contains("1.8 MB")
            && lines[0].contains("main, "),
        "{}",
        ran.out
    );
    assert!(lines[1].contains("5 files, 1.8 MB  main"), "{}", ran.out);
    assert!(lines[2].starts_with("data set  me/data"), "{}", ran.out);
    world.offline("remove me/ddpm").refused(1, &["add --dataset"]);
    let ran = world.offline("remove hf://models/me/ddpm").ok();
    assert!(ran.out.contains("removed me/ddpm: 1.8 MB free"), "{}", ran.out);
    world.offline("remove me/ddpm").ok();
    world
        .offline("remove me/ddpm")
        .refused(1, &["not in the cache", "langevin list"]);
    assert_eq!(world.offline("list").ok().out.lines().count(), 1);
    world.online("pull me/ddpm --all").ok();
    // An old name, without an organisation, which Python's client pulled.
    let old = world.path().join("home/hub/models--gpt2/blobs");
    fs::create_dir_all(&old).unwrap();
    fs::write(old.join("a"), [0; 10]).unwrap();
    let ran = world.offline("remove gpt2").ok();
    assert!(ran.out.contains("removed gpt2"), "{}", ran.out);
    world.offline("remove gpt2").refused(1, &["ORG/NAME"]);
}

#[test]
fn pushing_says_what_went_and_what_did_not() {
    let world = World::new();
    let run = reference_pipeline("ddpm").display().to_string();
    world
        .online(&format!("push {run} me/mine"))
        .refused(1, &["HF_TOKEN"]);
    world
        .writing("push nowhere me/mine")
        .refused(1, &["no such folder"]);
    world
        .writing("push . me/mine")
        .refused(1, &["holds no pipeline and no model"]);
    let ran = world
        .writing(&format!("push {run} me/mine --private --message first"))
        .ok();
    assert_eq!(
        ran.out,
        format!("4 files pushed: {}/me/mine\n", world.server.endpoint)
    );
    let ran = world.writing(&format!("push {run} me/mine")).ok();
    assert!(ran.out.starts_with("nothing had changed: "), "{}", ran.out);
    let state = world.server.state();
    assert_eq!(state.repos["models/me/mine"].log, ["initial commit", "first"]);
    assert!(state.repos["models/me/mine"].private);
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn a_space_is_written_and_pushed() {
    let world = World::new();
    let run = reference_pipeline("ddpm").display().to_string();
    let ran = world
        .offline(&format!("space page {run} me/other@v1 --title Faces"))
        .ok();
    assert!(
        ran.out.contains("langevin push page ORG/NAME --space"),
        "{}",
        ran.out
    );
    let page = world.path().join("page");
    assert_eq!(
        names(&page),
        [".gitattributes", "Dockerfile", "README.md", "langevin", "models"]
    );
    let card = fs::read_to_string(page.join("README.md")).unwrap();
    assert!(
        card.starts_with("---\ntitle: \"Faces\"\n") && card.contains("\nsdk: docker\n"),
        "{card}"
    );
    assert!(card.contains("models:\n- me/other\n"), "{card}");
    let docker = fs::read_to_string(page.join("Dockerfile")).unwrap();
    let command = r#"CMD ["/usr/local/bin/langevin","serve","models/ddpm","me/other@v1","--host","0.0.0.0","--port","7860"]"#;
    assert!(docker.contains(command), "{docker}");
    let weights = "unet/diffusion_pytorch_model.safetensors";
    assert_eq!(
        fs::read(page.join("models/ddpm").join(weights)).unwrap(),
        fs::read(reference_pipeline("ddpm").join(weights)).unwrap()
    );
    // The copy is a pipeline.
    world.offline("info page/models/ddpm").ok();
    assert!(ran.err.contains("HF_TOKEN"), "{}", ran.err);
    // What was there from before does not stay.
    fs::create_dir_all(page.join("models/old")).unwrap();
    world
        .offline("space page page/models/ddpm --overwrite")
        .refused(1, &["copy it elsewhere"]);
    let ran = world
        .offline(&format!("space page {run} me/other@v1 --title Faces --overwrite"))
        .ok();
    assert_eq!(names(&page.join("models")), ["ddpm"], "{}", ran.out);
    world
        .offline(&format!("space page {run}"))
        .refused(1, &["--overwrite"]);
    world
        .offline("space other pictures")
        .refused(1, &["holds no pipeline"]);
    fs::write(world.path().join("windows.exe"), "MZ").unwrap();
    world
        .offline(&format!("space other {run} --program windows.exe"))
        .refused(1, &["no program for Linux", "--program"]);
    assert!(!world.path().join("other").exists());
    // The program itself is large; another stands for it.
    fs::write(page.join("langevin"), "a program").unwrap();
    let ran = world.writing("push page me/page --space").ok();
    assert!(ran.out.contains("/spaces/me/page"), "{}", ran.out);
    assert_eq!(
        world.server.state().repos["spaces/me/page"].sdk.as_deref(),
        Some("docker")
    );
}

/// A pipeline whose index names, besides its own, a component outside of it.
fn reaching_out(folder: &Path, component: &str) -> PathBuf {
    let model = folder.join("model");
    let mut found = Vec::new();
    collect(
        &reference_pipeline("ddpm"),
        &reference_pipeline("ddpm"),
        &mut found,
    );
    for (name, bytes) in found {
        let path = model.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let index = model.join("model_index.json");
    let mut written: serde_json::Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    written[component] = serde_json::json!(["diffusers", "UNet2DModel"]);
    fs::write(index, written.to_string()).unwrap();
    model
}

#[test]
fn a_model_whose_index_names_other_folders_is_neither_pushed_nor_copied() {
    let world = World::new();
    let private = world.path().join("private");
    fs::create_dir(&private).unwrap();
    let secret = private.join("secret.json");
    fs::write(&secret, "mine").unwrap();
    let absolute = private.display().to_string();
    for component in ["../private", &absolute, "..\\private", "C:private", ".."] {
        let model = reaching_out(world.path(), component);
        world
            .writing("push model me/mine")
            .refused(1, &["no name of a folder beside it"]);
        world
            .offline("space page model")
            .refused(1, &["no name of a folder beside it"]);
        assert!(!world.path().join("page/models/private").exists());
        assert_eq!(fs::read_to_string(&secret).unwrap(), "mine");
        assert!(!world.server.state().repos.contains_key("models/me/mine"));
        // The same from the Hub, of which nothing comes.
        world.publish("models/me/theirs", "main", &model);
        world.forget_requests();
        world
            .online("sample me/theirs --output x.png")
            .refused(1, &["no name of a folder"]);
        assert_eq!(world.downloaded(), ["model_index.json"]);
        fs::remove_dir_all(world.path().join("home")).unwrap();
    }
}

#[test]
fn a_space_does_not_empty_what_it_is_made_of() {
    let world = World::new();
    let run = reference_pipeline("ddpm").display().to_string();
    // A folder of models that no Space of ours has.
    fs::create_dir_all(world.path().join("mine/models/a")).unwrap();
    world
        .offline(&format!("space mine {run} --overwrite"))
        .refused(1, &["is no part of a Space"]);
    assert_eq!(names(&world.path().join("mine/models")), ["a"]);
    // The program that is already in its place.
    world.offline(&format!("space page {run}")).ok();
    let program = world.path().join("page/langevin");
    let size = fs::metadata(&program).unwrap().len();
    world
        .offline(&format!("space page {run} --overwrite --program page/langevin"))
        .ok();
    assert_eq!(fs::metadata(&program).unwrap().len(), size);
}

#[test]
fn python_and_this_program_share_a_cache() {
    let Some(program) = python::python("huggingface_hub, diffusers, torch") else {
        return;
    };
    let world = World::new();
    let home = world.path().join("home");
    world.publish("models/me/theirs", "main", &reference_pipeline("ddpm"));
    world.publish("models/me/ours", "main", &reference_pipeline("ddim"));
    // Theirs, pulled by diffusers, is drawn with here.
    let pull = "from diffusers import DiffusionPipeline\nDiffusionPipeline.from_pretrained('me/theirs')";
    python::run(&program, pull, &world.server.endpoint, &home, &[]);
    world
        .offline("sample me/theirs --count 1 --steps 2 --output theirs.png")
        .ok();
    // Ours, pulled here, is what diffusers draws with.
    world.online("pull me/ours").ok();
    world.forget_requests();
    let draw = r#"
import torch
from diffusers import DDIMPipeline
pipeline = DDIMPipeline.from_pretrained("me/ours")
picture = pipeline(batch_size=1, num_inference_steps=2, generator=torch.manual_seed(0), output_type="np").images
print(picture.shape, float(picture.mean()))
"#;
    let said = python::run(
        &program,
        draw,
        &world.server.endpoint,
        &home,
        &[("HF_HUB_OFFLINE", "1")],
    );
    assert!(said.contains("(1, "), "{said}");
    assert!(world.server.state().requests.is_empty());
}

#[test]
fn what_cannot_be_run_is_told_before_it_is_pulled() {
    let world = World::new();
    let index = br#"{"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}"#;
    let files: [(&str, &[u8]); 3] = [
        ("model_index.json", index),
        ("transformer/config.json", b"{}"),
        ("transformer/diffusion_pytorch_model.safetensors", &[0; 100]),
    ];
    world.server.add("models/me/large", "main", &files);
    world
        .online("sample me/large --count 1")
        .refused(1, &["is a FluxPipeline", "DDPMPipeline or DDIMPipeline"]);
    assert_eq!(world.downloaded(), ["model_index.json"]);
    world.online("pull me/large").ok();
}

#[test]
fn the_noise_schedule_of_a_model_of_the_hub_is_drawn() {
    let world = World::new();
    world.publish("models/me/ddpm", "main", &reference_pipeline("ddpm"));
    world.online("plot-schedule me/ddpm --output schedule.png").ok();
    assert!(world.path().join("schedule.png").is_file());
    assert_eq!(world.downloaded(), ["scheduler/scheduler_config.json"]);
}
