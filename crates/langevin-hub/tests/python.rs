//! Python's own client and this one: the same Hub, the same cache.

mod support;

use std::{fs, path::Path, time::Duration};

use langevin_hub::{Hub, ModelFiles, RepoKind, Settings, Silent};
use support::{Server, WRITER, python};

const INDEX: &[u8] = br#"{"_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}"#;

fn pipeline(server: &Server) -> (String, Vec<u8>) {
    let weights: Vec<u8> = (0..300_000u32).map(|i| (i % 253) as u8).collect();
    let files: [(&str, &[u8]); 5] = [
        ("README.md", b"# A model\n"),
        ("model_index.json", INDEX),
        ("scheduler/scheduler_config.json", b"{}"),
        ("unet/config.json", b"{\"a name with spaces\": 1}"),
        ("unet/diffusion_pytorch_model.safetensors", &weights),
    ];
    (server.add("models/me/faces", "main", &files), weights)
}

fn settings(server: &Server, home: &Path) -> Settings {
    Settings {
        retry_after: Duration::from_millis(1),
        ..Settings::new(&server.endpoint, home.join("hub"))
    }
}

/// The loopback Hub is one for Python's client: it downloads from it, with names that must be encoded, on a branch with a slash in
/// its name, and uploads to it, by parts too.
#[test]
fn pythons_client_takes_the_loopback_hub_for_one() {
    let Some(program) = python::python("huggingface_hub") else {
        return;
    };
    let (server, home) = (Server::start(), tempfile::tempdir().unwrap());
    server.state().page = 3;
    let (commit, weights) = pipeline(&server);
    server.add(
        "datasets/me/data",
        "refs/convert/parquet",
        &[("default/train/0000 é.parquet", b"PAR1")],
    );
    let script = r#"
import os
from huggingface_hub import snapshot_download, hf_hub_download, HfApi, create_repo, upload_folder, model_info
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError, GatedRepoError
folder = snapshot_download("me/faces")
print(os.path.basename(folder), os.path.getsize(folder + "/unet/diffusion_pytorch_model.safetensors"))
print(open(hf_hub_download("me/data", "default/train/0000 é.parquet", repo_type="dataset", revision="refs/convert/parquet")).read())
for call, error in [
    (lambda: model_info("me/none"), RepositoryNotFoundError),
    (lambda: model_info("me/faces", revision="v9"), RevisionNotFoundError),
    (lambda: hf_hub_download("me/faces", "none.json"), EntryNotFoundError),
    (lambda: hf_hub_download("me/gated", "x.json"), GatedRepoError),
]:
    try:
        call()
    except error:
        print(error.__name__)
os.environ["HF_TOKEN"] = "hf_writer"
os.makedirs(os.environ["HF_HOME"] + "/up/unet", exist_ok=True)
for name, text in [("README.md", "a card"), ("unet/model.safetensors", "w" * 250), ("empty.bin", "")]:
    open(os.environ["HF_HOME"] + "/up/" + name, "w").write(text)
create_repo("me/new", private=True)
create_repo("me/new", private=True, exist_ok=True)
commit = upload_folder(repo_id="me/new", folder_path=os.environ["HF_HOME"] + "/up")
print(commit.oid)
"#;
    server.add("models/me/gated", "main", &[("x.json", b"{}")]);
    server.state().repos.get_mut("models/me/gated").unwrap().gated = true;
    server.state().chunk_size = Some(100);
    let said = python::run(&program, script, &server.endpoint, home.path(), &[]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], format!("{commit} {}", weights.len()));
    assert_eq!(lines[1], "PAR1");
    let errors = [
        "RepositoryNotFoundError",
        "RevisionNotFoundError",
        "EntryNotFoundError",
        "GatedRepoError",
    ];
    assert_eq!(lines[2..6], errors);
    let state = server.state();
    let repo = &state.repos["models/me/new"];
    assert!(repo.private);
    assert_eq!(repo.refs["main"], lines[6]);
    let files = repo.files("main").unwrap();
    let is_large: Vec<(&str, bool)> = files
        .iter()
        .map(|(path, object)| (path.as_str(), object.lfs))
        .collect();
    assert_eq!(
        is_large,
        [
            (".gitattributes", false),
            ("README.md", false),
            ("empty.bin", false),
            ("unet/model.safetensors", true)
        ]
    );
}

#[test]
fn what_python_pulled_is_read_offline() {
    let Some(program) = python::python("huggingface_hub") else {
        return;
    };
    let (server, home) = (Server::start(), tempfile::tempdir().unwrap());
    let (commit, weights) = pipeline(&server);
    let script = r#"
from huggingface_hub import snapshot_download
print(snapshot_download("me/faces"))
"#;
    let theirs = python::run(&program, script, &server.endpoint, home.path(), &[]);
    let before = server.state().requests.len();
    let offline = Hub::new(Settings {
        offline: true,
        ..settings(&server, home.path())
    })
    .unwrap();
    let ours = offline
        .pull_model(&"me/faces".parse().unwrap(), &ModelFiles::default(), &Silent)
        .unwrap();
    assert_eq!(ours, Path::new(theirs.trim()));
    assert_eq!(
        fs::read(ours.join("unet/diffusion_pytorch_model.safetensors")).unwrap(),
        weights
    );
    let pinned = format!("me/faces@{commit}").parse().unwrap();
    assert_eq!(
        offline
            .pull_model(&pinned, &ModelFiles::default(), &Silent)
            .unwrap(),
        ours
    );
    assert_eq!(server.state().requests.len(), before);
    // With a network, nothing is downloaded again.
    let online = Hub::new(settings(&server, home.path())).unwrap();
    online
        .pull_model(&"me/faces".parse().unwrap(), &ModelFiles::default(), &Silent)
        .unwrap();
    assert!(
        server.state().requests[before..]
            .iter()
            .all(|(_, request)| request.path.starts_with("/api/"))
    );
}

#[test]
fn what_is_pulled_python_reads_offline() {
    let Some(program) = python::python("huggingface_hub") else {
        return;
    };
    let (server, home) = (Server::start(), tempfile::tempdir().unwrap());
    let (commit, weights) = pipeline(&server);
    server.add(
        "datasets/me/data",
        "main",
        &[("data/train.parquet", b"PAR1"), ("README.md", b"x")],
    );
    let hub = Hub::new(settings(&server, home.path())).unwrap();
    let ours = hub
        .pull_model(&"me/faces".parse().unwrap(), &ModelFiles::default(), &Silent)
        .unwrap();
    let data = hub
        .open(RepoKind::Dataset, &"me/data".parse().unwrap(), &Silent)
        .unwrap();
    data.fetch(&["data/train.parquet"], &Silent).unwrap();
    let script = r#"
import os
from huggingface_hub import snapshot_download, hf_hub_download, scan_cache_dir, try_to_load_from_cache
folder = snapshot_download("me/faces")
print(folder)
print(os.path.getsize(hf_hub_download("me/faces", "unet/diffusion_pytorch_model.safetensors")))
print(open(hf_hub_download("me/data", "data/train.parquet", repo_type="dataset")).read())
cache = scan_cache_dir()
print(sorted((repo.repo_type, repo.repo_id, repo.nb_files) for repo in cache.repos), len(cache.warnings))
"#;
    let before = server.state().requests.len();
    let said = python::run(
        &program,
        script,
        &server.endpoint,
        home.path(),
        &[("HF_HUB_OFFLINE", "1")],
    );
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(Path::new(lines[0]), ours);
    assert!(lines[0].ends_with(&commit));
    assert_eq!(lines[1], weights.len().to_string());
    assert_eq!(lines[2], "PAR1");
    assert_eq!(
        lines[3],
        "[('dataset', 'me/data', 1), ('model', 'me/faces', 5)] 0"
    );
    assert_eq!(server.state().requests.len(), before);
    // With a network, it downloads nothing that is there.
    python::run(
        &program,
        r#"
from huggingface_hub import snapshot_download
snapshot_download("me/faces")
"#,
        &server.endpoint,
        home.path(),
        &[("HF_TOKEN", WRITER)],
    );
    assert!(
        server.state().requests[before..]
            .iter()
            .all(|(port, _)| *port == "hub")
    );
    assert!(
        server
            .asked("hub", "GET", "resolve-cache")
            .iter()
            .all(|request| request.header("user-agent").unwrap().starts_with("langevin"))
    );
}

#[test]
fn a_download_that_broke_off_is_no_whole_one() {
    let Some(program) = python::python("huggingface_hub") else {
        return;
    };
    let (server, home) = (Server::start(), tempfile::tempdir().unwrap());
    let (commit, _) = pipeline(&server);
    // What Python's client leaves where it is stopped before the weights.
    let script = r#"
from huggingface_hub import snapshot_download
snapshot_download("me/faces", allow_patterns=["*.json"])
"#;
    python::run(&program, script, &server.endpoint, home.path(), &[]);
    let tree = |home: &Path| {
        let path = home.join(format!("hub/models--me--faces/trees/{commit}.json"));
        serde_json::from_slice::<serde_json::Value>(&fs::read(path).unwrap()).unwrap()
    };
    let theirs = tree(home.path());
    let offline = |home: &Path| {
        Hub::new(Settings {
            offline: true,
            ..settings(&server, home)
        })
        .unwrap()
    };
    let name = "me/faces".parse().unwrap();
    let wanted = ModelFiles::default();
    let error = offline(home.path())
        .pull_model(&name, &wanted, &Silent)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("unet/diffusion_pytorch_model.safetensors of me/faces is not in the cache"),
        "{error}"
    );
    // Without the card, a model is one.
    let script = r#"
from huggingface_hub import snapshot_download
print(snapshot_download("me/faces", ignore_patterns=["README.md"]))
"#;
    let theirs_is_at = python::run(&program, script, &server.endpoint, home.path(), &[]);
    let ours = offline(home.path()).pull_model(&name, &wanted, &Silent).unwrap();
    assert_eq!(Path::new(theirs_is_at.trim()), ours);
    // The other way round.
    let home = tempfile::tempdir().unwrap();
    let online = Hub::new(settings(&server, home.path())).unwrap();
    let snapshot = online.open(RepoKind::Model, &name, &Silent).unwrap();
    let folder = snapshot.fetch(&["unet/config.json"], &Silent).unwrap();
    assert_eq!(tree(home.path()), theirs);
    let script = r#"
from huggingface_hub import snapshot_download, get_cached_repo_tree
from huggingface_hub.errors import IncompleteSnapshotError
print(snapshot_download("me/faces", allow_patterns="unet/*.json"))
print(sorted(file.path for file in get_cached_repo_tree("me/faces")))
try:
    snapshot_download("me/faces")
except IncompleteSnapshotError as error:
    print("4 file(s) are missing" in str(error))
"#;
    let offline = [("HF_HUB_OFFLINE", "1")];
    let said = python::run(&program, script, &server.endpoint, home.path(), &offline);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(Path::new(lines[0]), folder);
    assert!(
        lines[1].contains("'unet/diffusion_pytorch_model.safetensors'"),
        "{said}"
    );
    assert_eq!(lines[2], "True");
}

/// Without a network, diffusers asks the listing which files there should be; those that were not pulled must not be among them.
#[test]
fn diffusers_finds_all_that_it_wants_of_what_was_pulled() {
    let Some(program) = python::python("huggingface_hub, diffusers, torch") else {
        return;
    };
    let (server, home) = (Server::start(), tempfile::tempdir().unwrap());
    pipeline(&server);
    let more: [(&str, &[u8]); 6] = [
        (".gitattributes", b"*.safetensors filter=lfs\n"),
        ("samples.png", b"a picture"),
        ("training.json", b"{}"),
        ("unet/diffusion_pytorch_model.bin", b"a pickle"),
        ("unet/diffusion_pytorch_model.fp16.safetensors", b"half"),
        ("unet/model.onnx", b"another format"),
    ];
    server.add("models/me/faces", "main", &more);
    let hub = Hub::new(settings(&server, home.path())).unwrap();
    let ours = hub
        .pull_model(&"me/faces".parse().unwrap(), &ModelFiles::default(), &Silent)
        .unwrap();
    let script = r#"
from diffusers import DiffusionPipeline
print(DiffusionPipeline.download("me/faces"))
"#;
    let offline = [("HF_HUB_OFFLINE", "1")];
    let said = python::run(&program, script, &server.endpoint, home.path(), &offline);
    assert_eq!(Path::new(said.lines().last().unwrap()), ours);
}
