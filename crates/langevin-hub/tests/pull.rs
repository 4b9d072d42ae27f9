//! Pulling: which files come, where they lie, and what happens where something goes wrong.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use langevin_hub::{Error, Hub, ModelFiles, ModelPart, Progress, RepoKind, RepoName, Settings, Silent};
use support::{READER, Server, WRITER, hub::Fault};

/// A little pipeline, with more than is needed.
fn pipeline(server: &Server, id: &str, weights: &[u8]) -> String {
    server.add(
        &format!("models/{id}"),
        "main",
        &[
            ("README.md", b"---\nlicense: mit\n---\n# A model\n"),
            ("model_index.json", br#"{"_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}"#),
            ("scheduler/scheduler_config.json", b"{}"),
            ("unet/config.json", b"{\"a\": 1}"),
            ("unet/diffusion_pytorch_model.bin", b"a pickle"),
            ("unet/diffusion_pytorch_model.fp16.safetensors", b"half"),
            ("unet/diffusion_pytorch_model.safetensors", weights),
            ("unet/model.onnx", b"another format"),
            ("old.ckpt", b"an older format"),
        ],
    )
}

fn settings(server: &Server, cache: &Path) -> Settings {
    Settings {
        retry_after: Duration::from_millis(1),
        retries: 2,
        timeout: Duration::from_secs(5),
        ..Settings::new(&server.endpoint, cache)
    }
}

fn hub(server: &Server, cache: &Path) -> Hub {
    Hub::new(settings(server, cache)).unwrap()
}

fn name(text: &str) -> RepoName {
    text.parse().unwrap()
}

fn pull(hub: &Hub, text: &str) -> Result<PathBuf, Error> {
    hub.pull_model(&name(text), &ModelFiles::default(), &Silent)
}

fn message(hub: &Hub, text: &str) -> String {
    pull(hub, text).unwrap_err().to_string()
}

/// All files below a folder, links too, by their paths.
fn below(folder: &Path) -> Vec<String> {
    fn walk(root: &Path, folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() {
                walk(root, &path, found);
            } else {
                found.push(
                    path.strip_prefix(root)
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .replace('\\', "/"),
                );
            }
        }
    }
    let mut found = Vec::new();
    if folder.is_dir() {
        walk(folder, folder, &mut found);
    }
    found.sort();
    found
}

/// Every blob is what its name says, and nothing is left over.
fn assert_whole(cache: &Path) {
    for path in below(cache) {
        if let Some((_, blob)) = path.split_once("blobs/") {
            let bytes = fs::read(cache.join(&path)).unwrap();
            let hashes = [support::repos::sha256(&bytes), support::repos::git_hash(&bytes)];
            assert!(hashes.contains(&blob.to_string()), "{path} holds other bytes");
        }
        if path.contains("snapshots/") {
            assert!(cache.join(&path).exists(), "{path} leads nowhere");
        }
    }
}

#[test]
fn a_pipeline_comes_with_the_files_that_it_needs() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    server.state().page = 4; // The listing comes in several pages.
    let weights = vec![7; 3_000_000];
    let commit = pipeline(&server, "me/faces", &weights);
    let folder = pull(&hub(&server, cache.path()), "me/faces").unwrap();
    assert_eq!(
        folder,
        cache.path().join("models--me--faces/snapshots").join(&commit)
    );
    assert_eq!(
        below(&folder),
        [
            "README.md",
            "model_index.json",
            "scheduler/scheduler_config.json",
            "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors"
        ]
    );
    let file = folder.join("unet/diffusion_pytorch_model.safetensors");
    assert_eq!(fs::read(&file).unwrap(), weights);
    if cfg!(unix) {
        let target = fs::read_link(&file).unwrap();
        let expected = format!("../../../blobs/{}", support::repos::sha256(&weights));
        assert_eq!(target, Path::new(&expected));
    }
    assert_eq!(
        fs::read_to_string(cache.path().join("models--me--faces/refs/main")).unwrap(),
        commit
    );
    assert_whole(cache.path());
    // A second time nothing comes.
    let before = server.state().requests.len();
    pull(&hub(&server, cache.path()), "me/faces").unwrap();
    let asked: Vec<String> = server.state().requests[before..]
        .iter()
        .map(|(_, r)| r.path.clone())
        .collect();
    assert!(
        asked.iter().all(|path| path.starts_with("/api/models/me/faces/")),
        "{asked:?}"
    );
}

#[test]
fn a_branch_a_tag_and_a_commit_are_revisions() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    let first = pipeline(&server, "me/faces", b"first");
    let second = pipeline(&server, "me/faces", b"second");
    let hub = hub(&server, cache.path());
    let tagged = pipeline(&server, "me/other", b"x");
    server
        .state()
        .repos
        .get_mut("models/me/other")
        .unwrap()
        .refs
        .insert("v1".into(), tagged.clone());
    let weights = |folder: PathBuf| {
        fs::read_to_string(folder.join("unet/diffusion_pytorch_model.safetensors")).unwrap()
    };
    assert_eq!(
        weights(pull(&hub, &format!("me/faces@{first}")).unwrap()),
        "first"
    );
    assert_eq!(weights(pull(&hub, "me/faces").unwrap()), "second");
    assert!(pull(&hub, "me/other@v1").unwrap().ends_with(&tagged));
    assert!(pull(&hub, "me/faces@main").unwrap().ends_with(&second));
    let said = message(&hub, "me/faces@v9");
    assert!(said.contains("me/faces has no such revision"), "{said}");
    assert_whole(cache.path());
}

#[test]
fn what_is_in_the_cache_is_read_without_a_network() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    let commit = pipeline(&server, "me/faces", b"weights");
    let online = pull(&hub(&server, cache.path()), "me/faces").unwrap();
    let offline = Hub::new(Settings {
        offline: true,
        ..settings(&server, cache.path())
    })
    .unwrap();
    let before = server.state().requests.len();
    assert_eq!(pull(&offline, "me/faces").unwrap(), online);
    assert_eq!(pull(&offline, &format!("me/faces@{commit}")).unwrap(), online);
    let said = message(&offline, "me/others");
    assert!(
        said.contains("me/others is not in the cache") && said.contains("HF_HUB_OFFLINE"),
        "{said}"
    );
    assert!(said.contains("langevin pull me/others"), "{said}");
    assert_eq!(server.state().requests.len(), before);
    // Nobody listens there.
    let nowhere = Hub::new(Settings {
        retries: 0,
        endpoint: "http://127.0.0.1:1".into(),
        ..settings(&server, cache.path())
    })
    .unwrap();
    let notes = Notes::default();
    assert_eq!(
        nowhere
            .pull_model(&name("me/faces"), &ModelFiles::default(), &notes)
            .unwrap(),
        online
    );
    assert!(
        notes
            .text()
            .contains("going on with what the cache has of me/faces"),
        "{}",
        notes.text()
    );
    let said = message(&nowhere, "me/others");
    assert!(
        said.contains("cannot be reached") && said.contains("not in the cache"),
        "{said}"
    );
}

#[test]
fn a_cache_with_a_part_of_a_model_says_so_offline() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    pipeline(&server, "me/faces", b"weights");
    let online = hub(&server, cache.path());
    let snapshot = online.open(RepoKind::Model, &name("me/faces"), &Silent).unwrap();
    snapshot
        .fetch(
            &[
                "model_index.json",
                "scheduler/scheduler_config.json",
                "unet/config.json",
            ],
            &Silent,
        )
        .unwrap();
    let offline = Hub::new(Settings {
        offline: true,
        ..settings(&server, cache.path())
    })
    .unwrap();
    let error = pull(&offline, "me/faces").unwrap_err();
    assert!(matches!(error, Error::NotCached(_)), "{error}");
    assert!(
        error
            .to_string()
            .contains("unet/diffusion_pytorch_model.safetensors of me/faces is not in the cache"),
        "{error}"
    );
    // As far as it can be told where no listing lies beside the snapshot.
    fs::remove_dir_all(cache.path().join("models--me--faces/trees")).unwrap();
    let error = pull(&offline, "me/faces").unwrap_err();
    assert!(
        error.to_string().contains("unet of me/faces is not in the cache"),
        "{error}"
    );
}

#[test]
fn repositories_that_do_not_show_themselves_are_told_apart() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    pipeline(&server, "me/private", b"x");
    server.state().repos.get_mut("models/me/private").unwrap().private = true;
    pipeline(&server, "me/gated", b"x");
    server.state().repos.get_mut("models/me/gated").unwrap().gated = true;
    let with = |token: Option<&str>| {
        Hub::new(Settings {
            token: token.map(String::from),
            ..settings(&server, cache.path())
        })
        .unwrap()
    };
    for missing in ["me/private", "me/nothing"] {
        let error = pull(&with(None), missing).unwrap_err();
        assert!(matches!(error, Error::NoSuchRepository(_)), "{error}");
        let said = error.to_string();
        assert!(
            said.contains(&format!("there is no model {missing}")) && said.contains("HF_TOKEN"),
            "{said}"
        );
    }
    let said = message(&with(Some(READER)), "me/nothing");
    assert!(
        said.contains("or the token that was given may not see it"),
        "{said}"
    );
    let said = message(&with(Some("hf_wrong")), "me/private");
    assert!(said.contains("does not know the token that was given"), "{said}");
    let error = pull(&with(None), "me/gated").unwrap_err();
    assert!(matches!(error, Error::Gated(_)), "{error}");
    let page = format!("{}/me/gated", server.endpoint);
    assert!(
        error.to_string().contains(&page) && error.to_string().contains("HF_TOKEN"),
        "{error}"
    );
    let said = message(&with(Some(READER)), "me/gated");
    assert!(said.contains("has no access") && said.contains(&page), "{said}");
    assert!(!below(cache.path()).iter().any(|path| path.contains("snapshots")));
    pull(&with(Some(READER)), "me/private").unwrap();
    pull(&with(Some(WRITER)), "me/gated").unwrap();
    // The token is for the Hub, not for the store of large files.
    assert!(!server.asked("store", "GET", "objects").is_empty());
    assert!(
        server
            .asked("store", "GET", "")
            .iter()
            .all(|request| request.header("authorization").is_none())
    );
    assert_whole(cache.path());
}

#[test]
fn a_broken_connection_goes_on_where_it_broke_off() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    let weights: Vec<u8> = (0..2_000_000u32).map(|i| (i % 251) as u8).collect();
    pipeline(&server, "me/faces", &weights);
    server.fault(".safetensors", Fault::Cut(700_000), 2);
    let progress = Notes::default();
    let hub = hub(&server, cache.path());
    let folder = hub
        .pull_model(&name("me/faces"), &ModelFiles::default(), &progress)
        .unwrap();
    assert_eq!(
        fs::read(folder.join("unet/diffusion_pytorch_model.safetensors")).unwrap(),
        weights
    );
    let ranges: Vec<Option<String>> = server
        .asked("store", "GET", ".safetensors")
        .iter()
        .map(|request| request.header("range").map(String::from))
        .collect();
    let [None, Some(second), Some(third)] = ranges.as_slice() else {
        panic!("{ranges:?}")
    };
    assert_eq!(
        (second.as_str(), third.as_str()),
        ("bytes=700000-", "bytes=1400000-")
    );
    assert_eq!(progress.there(), progress.expected());
    assert_whole(cache.path());
}

#[test]
fn a_network_that_is_gone_leaves_what_came_for_the_next_time() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    let weights: Vec<u8> = (0..2_000_000u32).map(|i| (i % 249) as u8).collect();
    pipeline(&server, "me/faces", &weights);
    server.fault(".safetensors", Fault::Cut(500_000), 1);
    server.fault(".safetensors", Fault::Cut(0), 99);
    let error = pull(&hub(&server, cache.path()), "me/faces").unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, Error::Network(_)), "{said}");
    assert!(
        said.contains("dropped while unet/diffusion_pytorch_model.safetensors of me/faces"),
        "{said}"
    );
    assert!(
        said.contains("500000 of 2000000 bytes") && said.contains("run the same again"),
        "{said}"
    );
    let left: Vec<String> = below(cache.path())
        .into_iter()
        .filter(|path| path.ends_with(".incomplete"))
        .collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(
        !below(cache.path()).iter().any(|path| path.contains("snapshots")),
        "nothing has a name yet"
    );
    server.state().faults.clear();
    let before = server.asked("store", "GET", ".safetensors").len();
    let folder = pull(&hub(&server, cache.path()), "me/faces").unwrap();
    assert_eq!(
        fs::read(folder.join("unet/diffusion_pytorch_model.safetensors")).unwrap(),
        weights
    );
    let after = server.asked("store", "GET", ".safetensors");
    assert_eq!(after[before].header("range"), Some("bytes=500000-"));
    assert!(
        !below(cache.path())
            .iter()
            .any(|path| path.ends_with(".incomplete"))
    );
    assert_whole(cache.path());
}

#[test]
fn bytes_with_another_hash_are_not_kept() {
    for file in [
        "unet/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
    ] {
        let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
        pipeline(&server, "me/faces", &[5; 100_000]);
        server.fault(file, Fault::Damage, 1);
        // One after the other: of what else is on its way when one fails, a part may stay.
        let one_by_one = Hub::new(Settings {
            at_a_time: 1,
            ..settings(&server, cache.path())
        })
        .unwrap();
        let error = pull(&one_by_one, "me/faces").unwrap_err();
        assert!(matches!(error, Error::Hash(_)), "{error}");
        let said = error.to_string();
        assert!(
            said.contains(file) && said.contains("run the same again"),
            "{said}"
        );
        assert!(
            !below(cache.path())
                .iter()
                .any(|path| path.ends_with(".incomplete"))
        );
        assert_whole(cache.path());
        pull(&hub(&server, cache.path()), "me/faces").unwrap();
        assert_whole(cache.path());
    }
}

#[test]
fn what_was_left_may_be_of_no_use() {
    let weights: Vec<u8> = (0..1_000_000u32).map(|i| (i % 247) as u8).collect();
    // Other bytes, more bytes than there are, and a store that knows no ranges.
    for (left, fault) in [
        (vec![0; 400_000], None),
        (vec![0; 1_000_000], None),
        (vec![0; 1_500_000], None),
        (weights[..400_000].to_vec(), Some(Fault::NoRanges)),
    ] {
        let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
        pipeline(&server, "me/faces", &weights);
        let blobs = cache.path().join("models--me--faces/blobs");
        fs::create_dir_all(&blobs).unwrap();
        let incomplete = blobs.join(format!("{}.incomplete", support::repos::sha256(&weights)));
        fs::write(incomplete, left).unwrap();
        if let Some(fault) = fault {
            server.fault(".safetensors", fault, 1);
        }
        let progress = Notes::default();
        let hub = hub(&server, cache.path());
        let folder = hub
            .pull_model(&name("me/faces"), &ModelFiles::default(), &progress)
            .unwrap();
        assert_eq!(
            fs::read(folder.join("unet/diffusion_pytorch_model.safetensors")).unwrap(),
            weights
        );
        assert_eq!(progress.there(), progress.expected());
        assert_whole(cache.path());
    }
}

#[test]
fn trouble_at_the_hub_passes_or_is_told() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    pipeline(&server, "me/faces", b"weights");
    server.fault("config.json", Fault::Status(503), 2);
    pull(&hub(&server, cache.path()), "me/faces").unwrap();
    pipeline(&server, "me/others", b"other weights");
    server.fault(".safetensors", Fault::Status(500), 99);
    let said = message(&hub(&server, cache.path()), "me/others");
    assert!(
        said.contains("has trouble (status 500)") && said.contains("Internal trouble"),
        "{said}"
    );
    assert_whole(cache.path());
}

#[test]
fn two_programs_download_a_file_once() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    pipeline(&server, "me/faces", &vec![9; 4_000_000]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| pull(&hub(&server, cache.path()), "me/faces").unwrap());
        }
    });
    assert_eq!(server.asked("store", "GET", ".safetensors").len(), 1);
    assert_whole(cache.path());
}

/// Another program, which has no lock on it, empties the file that comes.
struct Empties<'a>(&'a Path, AtomicU64);

impl Progress for Empties<'_> {
    fn advance(&self, bytes: u64) {
        if bytes > 0 && self.1.fetch_add(1, Ordering::Relaxed) == 0 {
            for path in below(self.0).iter().filter(|path| path.ends_with(".incomplete")) {
                let file = fs::OpenOptions::new().write(true).open(self.0.join(path));
                file.unwrap().set_len(0).unwrap();
            }
        }
    }
}

#[test]
fn a_file_with_a_hole_does_not_take_its_place() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    let weights: Vec<u8> = (0..2_000_000u32).map(|i| (i % 251) as u8).collect();
    server.add("models/me/faces", "main", &[("a.safetensors", &weights)]);
    let hub = hub(&server, cache.path());
    let snapshot = hub.open(RepoKind::Model, &name("me/faces"), &Silent).unwrap();
    server.fault("a.safetensors", Fault::Cut(900_000), 1);
    let emptied = snapshot.fetch(&["a.safetensors"], &Empties(cache.path(), AtomicU64::new(0)));
    assert!(matches!(emptied, Err(Error::Hash(_))), "{emptied:?}");
    assert!(!below(cache.path()).iter().any(|path| path.contains("blobs/")));
    // Where there can be no lock, everything is looked at twice.
    let lock = format!(
        ".locks/models--me--faces/{}.lock",
        support::repos::sha256(&weights)
    );
    fs::remove_file(cache.path().join(&lock)).unwrap();
    fs::create_dir_all(cache.path().join(&lock)).unwrap();
    let emptied = snapshot.fetch(&["a.safetensors"], &Empties(cache.path(), AtomicU64::new(0)));
    assert!(matches!(emptied, Err(Error::Hash(_))), "{emptied:?}");
    let folder = snapshot.fetch(&["a.safetensors"], &Silent).unwrap();
    assert_eq!(fs::read(folder.join("a.safetensors")).unwrap(), weights);
    assert_whole(cache.path());
}

#[test]
fn of_a_pipeline_that_will_not_do_the_index_alone_comes() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    pipeline(&server, "me/faces", b"weights");
    let hub = hub(&server, cache.path());
    let wanted = |class: &str| ModelFiles {
        classes: vec![class.into()],
        ..ModelFiles::default()
    };
    let error = hub
        .pull_model(&name("me/faces"), &wanted("DDIMPipeline"), &Silent)
        .unwrap_err();
    assert!(matches!(error, Error::Unsupported(_)), "{error}");
    assert!(error.to_string().contains("is a DDPMPipeline"), "{error}");
    assert_eq!(server.asked("hub", "GET", "/resolve/").len(), 1);
    // And of one whose noise schedule is wanted, its scheduler.
    let schedule = ModelFiles {
        part: ModelPart::Scheduler,
        ..ModelFiles::default()
    };
    let folder = hub.pull_model(&name("me/faces"), &schedule, &Silent).unwrap();
    assert_eq!(below(&folder), ["scheduler/scheduler_config.json"]);
    hub.pull_model(&name("me/faces"), &wanted("DDPMPipeline"), &Silent)
        .unwrap();
}

#[test]
fn a_card_that_is_no_utf8_is_read() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    server.add("datasets/me/data", "main", &[("README.md", b"# Gr\xfc\xdfe")]);
    let hub = hub(&server, cache.path());
    let snapshot = hub.open(RepoKind::Dataset, &name("me/data"), &Silent).unwrap();
    assert_eq!(
        snapshot.read("README.md", &Silent).unwrap(),
        "# Gr\u{fffd}\u{fffd}e"
    );
}

#[test]
fn where_there_are_no_links_there_are_copies() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    pipeline(&server, "me/faces", b"weights");
    let hub = Hub::new(Settings {
        symlinks: false,
        ..settings(&server, cache.path())
    })
    .unwrap();
    let folder = pull(&hub, "me/faces").unwrap();
    let file = folder.join("unet/diffusion_pytorch_model.safetensors");
    assert!(!file.is_symlink() && fs::read(&file).unwrap() == b"weights");
    #[cfg(unix)]
    assert_eq!(
        std::os::unix::fs::MetadataExt::nlink(&fs::metadata(&file).unwrap()),
        2
    );
    // Where there are no links at all, a snapshot has the only copy, and it will do.
    fs::remove_dir_all(cache.path().join("models--me--faces/blobs")).unwrap();
    let before = server.state().requests.len();
    assert_eq!(pull(&hub, "me/faces").unwrap(), folder);
    assert!(
        server.state().requests[before..]
            .iter()
            .all(|(_, request)| request.path.starts_with("/api/"))
    );
}

#[test]
fn a_listing_cannot_write_outside_of_the_cache() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    server.add(
        "datasets/me/evil",
        "main",
        &[("../../escaped", b"x"), ("fine", b"y")],
    );
    let hub = hub(&server, cache.path());
    let snapshot = hub.open(RepoKind::Dataset, &name("me/evil"), &Silent).unwrap();
    let error = snapshot.fetch(&["../../escaped"], &Silent).unwrap_err();
    assert!(error.to_string().contains("no path within it"), "{error}");
    snapshot.fetch(&["fine"], &Silent).unwrap();
    assert!(!below(cache.path()).iter().any(|path| path.ends_with("escaped")));
}

/// Counts bytes, and keeps notes.
#[derive(Default)]
struct Notes {
    expected: AtomicU64,
    there: AtomicU64,
    notes: Mutex<String>,
}

impl Notes {
    fn expected(&self) -> u64 {
        self.expected.load(Ordering::Relaxed)
    }

    fn there(&self) -> u64 {
        self.there.load(Ordering::Relaxed)
    }

    fn text(&self) -> String {
        self.notes.lock().unwrap().clone()
    }
}

impl Progress for Notes {
    fn begin(&self, _: &str, _: usize, bytes: u64) {
        self.expected.fetch_add(bytes, Ordering::Relaxed);
    }

    fn advance(&self, bytes: u64) {
        self.there.fetch_add(bytes, Ordering::Relaxed);
    }

    fn back(&self, bytes: u64) {
        self.there.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn note(&self, text: &str) {
        self.notes.lock().unwrap().push_str(text);
    }
}

/// Paths as `folder/{a,b}`, one after another.
fn spelled(lists: &[&str]) -> Vec<String> {
    let each = |list: &&str| match list.split_once('{') {
        Some((folder, names)) => names
            .trim_end_matches('}')
            .split(',')
            .map(|name| format!("{folder}{name}"))
            .collect(),
        None => vec![(*list).to_string()],
    };
    lists.iter().flat_map(each).collect()
}

/// The layouts of repositories that people draw with, as they stand on the Hub, and what is pulled of each.
#[test]
fn of_real_layouts_no_more_comes_than_is_drawn_with() {
    const TOKENIZER: &str = "{merges.txt,special_tokens_map.json,tokenizer_config.json,vocab.json}";
    let tokenizer = |folder: &str| format!("{folder}/{TOKENIZER}");
    let (first, second) = (tokenizer("tokenizer"), tokenizer("tokenizer_2"));
    struct Layout<'a> {
        id: &'a str,
        class: &'a str,
        files: Vec<&'a str>,
        components: &'a [&'a str],
        variant: Option<&'a str>,
        without: &'a [&'a str],
        pulled: Vec<&'a str>,
    }
    let stable = [
        "feature_extractor",
        "safety_checker",
        "scheduler",
        "text_encoder",
        "tokenizer",
        "unet",
        "vae",
    ];
    let v1_5 = vec![
        ".gitattributes",
        "README.md",
        "model_index.json",
        "v1-5-pruned-emaonly.{ckpt,safetensors}",
        "v1-5-pruned.{ckpt,safetensors}",
        "v1-inference.yaml",
        "feature_extractor/preprocessor_config.json",
        "safety_checker/{config.json,model.fp16.safetensors,model.safetensors,pytorch_model.bin,pytorch_model.fp16.bin}",
        "scheduler/scheduler_config.json",
        "text_encoder/{config.json,model.fp16.safetensors,model.safetensors,pytorch_model.bin,pytorch_model.fp16.bin}",
        first.as_str(),
        "unet/{config.json,diffusion_pytorch_model.bin,diffusion_pytorch_model.fp16.bin,diffusion_pytorch_model.fp16.safetensors,diffusion_pytorch_model.non_ema.bin,diffusion_pytorch_model.non_ema.safetensors,diffusion_pytorch_model.safetensors}",
        "vae/{config.json,diffusion_pytorch_model.bin,diffusion_pytorch_model.fp16.bin,diffusion_pytorch_model.fp16.safetensors,diffusion_pytorch_model.safetensors}",
    ];
    let small = |rest: Vec<&'static str>| {
        let all = ["README.md", "model_index.json", "scheduler/scheduler_config.json"];
        all.into_iter().chain(rest).collect::<Vec<_>>()
    };
    let layouts = [
        Layout {
            id: "stable-diffusion-v1-5/stable-diffusion-v1-5",
            class: "StableDiffusionPipeline",
            files: v1_5.clone(),
            components: &stable,
            variant: None,
            without: &[],
            pulled: [
                small(vec![
                    "feature_extractor/preprocessor_config.json",
                    "safety_checker/{config.json,model.safetensors}",
                    "text_encoder/{config.json,model.safetensors}",
                    "unet/{config.json,diffusion_pytorch_model.safetensors}",
                    "vae/{config.json,diffusion_pytorch_model.safetensors}",
                ]),
                vec![first.as_str()],
            ]
            .concat(),
        },
        Layout {
            id: "stable-diffusion-v1-5/half",
            class: "StableDiffusionPipeline",
            files: v1_5,
            components: &stable,
            variant: Some("fp16"),
            without: &["safety_checker"],
            pulled: [
                small(vec![
                    "feature_extractor/preprocessor_config.json",
                    "text_encoder/{config.json,model.fp16.safetensors}",
                    "unet/{config.json,diffusion_pytorch_model.fp16.safetensors}",
                    "vae/{config.json,diffusion_pytorch_model.fp16.safetensors}",
                ]),
                vec![first.as_str()],
            ]
            .concat(),
        },
        Layout {
            id: "stabilityai/stable-diffusion-xl-base-1.0",
            class: "StableDiffusionXLPipeline",
            files: vec![
                ".gitattributes",
                "01.png",
                "LICENSE.md",
                "README.md",
                "comparison.png",
                "model_index.json",
                "pipeline.png",
                "sd_xl_base_1.0.safetensors",
                "sd_xl_base_1.0_0.9vae.safetensors",
                "sd_xl_offset_example-lora_1.0.safetensors",
                "scheduler/scheduler_config.json",
                "text_encoder/{config.json,flax_model.msgpack,model.fp16.safetensors,model.onnx,model.safetensors,openvino_model.bin,openvino_model.xml}",
                "text_encoder_2/{config.json,flax_model.msgpack,model.fp16.safetensors,model.onnx,model.onnx_data,model.safetensors,openvino_model.bin,openvino_model.xml}",
                first.as_str(),
                second.as_str(),
                "unet/{config.json,diffusion_flax_model.msgpack,diffusion_pytorch_model.fp16.safetensors,diffusion_pytorch_model.safetensors,model.onnx,model.onnx_data,openvino_model.bin,openvino_model.xml}",
                "vae/{config.json,diffusion_flax_model.msgpack,diffusion_pytorch_model.fp16.safetensors,diffusion_pytorch_model.safetensors}",
                "vae_1_0/{config.json,diffusion_pytorch_model.fp16.safetensors,diffusion_pytorch_model.safetensors}",
                "vae_decoder/{config.json,model.onnx,openvino_model.bin,openvino_model.xml}",
                "vae_encoder/{config.json,model.onnx,openvino_model.bin,openvino_model.xml}",
            ],
            components: &[
                "scheduler",
                "text_encoder",
                "text_encoder_2",
                "tokenizer",
                "tokenizer_2",
                "unet",
                "vae",
            ],
            variant: None,
            without: &[],
            pulled: [
                small(vec![
                    "text_encoder/{config.json,model.safetensors}",
                    "text_encoder_2/{config.json,model.safetensors}",
                    "unet/{config.json,diffusion_pytorch_model.safetensors}",
                    "vae/{config.json,diffusion_pytorch_model.safetensors}",
                ]),
                vec![first.as_str(), second.as_str()],
            ]
            .concat(),
        },
        Layout {
            id: "stabilityai/stable-diffusion-2-depth",
            class: "StableDiffusionDepth2ImgPipeline",
            files: vec![
                ".gitattributes",
                "512-depth-ema.{ckpt,safetensors}",
                "README.md",
                "depth2image.png",
                "model_index.json",
                "depth_estimator/{config.json,pytorch_model.bin,pytorch_model.fp16.bin,model.safetensors,model.fp16.safetensors}",
                "feature_extractor/preprocessor_config.json",
                "scheduler/scheduler_config.json",
                "text_encoder/{config.json,model.fp16.safetensors,model.safetensors,pytorch_model.bin,pytorch_model.fp16.bin}",
                first.as_str(),
                "unet/{config.json,diffusion_pytorch_model.bin,diffusion_pytorch_model.fp16.bin,diffusion_pytorch_model.fp16.safetensors,diffusion_pytorch_model.safetensors}",
                "vae/{config.json,diffusion_pytorch_model.bin,diffusion_pytorch_model.fp16.bin,diffusion_pytorch_model.fp16.safetensors,diffusion_pytorch_model.safetensors}",
            ],
            components: &[
                "depth_estimator",
                "feature_extractor",
                "scheduler",
                "text_encoder",
                "tokenizer",
                "unet",
                "vae",
            ],
            variant: None,
            without: &["depth_estimator"],
            pulled: [
                small(vec![
                    "feature_extractor/preprocessor_config.json",
                    "text_encoder/{config.json,model.safetensors}",
                    "unet/{config.json,diffusion_pytorch_model.safetensors}",
                    "vae/{config.json,diffusion_pytorch_model.safetensors}",
                ]),
                vec![first.as_str()],
            ]
            .concat(),
        },
        // Pickles alone, and no checker.
        Layout {
            id: "segmind/tiny-sd",
            class: "StableDiffusionPipeline",
            files: vec![
                ".gitattributes",
                "README.md",
                "grid.png",
                "model_index.json",
                "feature_extractor/preprocessor_config.json",
                "scheduler/scheduler_config.json",
                "text_encoder/{config.json,pytorch_model.bin}",
                first.as_str(),
                "unet/{config.json,diffusion_pytorch_model.bin}",
                "vae/{config.json,diffusion_pytorch_model.bin}",
            ],
            components: &[
                "feature_extractor",
                "scheduler",
                "text_encoder",
                "tokenizer",
                "unet",
                "vae",
            ],
            variant: None,
            without: &[],
            pulled: [
                small(vec![
                    "feature_extractor/preprocessor_config.json",
                    "text_encoder/{config.json,pytorch_model.bin}",
                    "unet/{config.json,diffusion_pytorch_model.bin}",
                    "vae/{config.json,diffusion_pytorch_model.bin}",
                ]),
                vec![first.as_str()],
            ]
            .concat(),
        },
    ];
    for layout in layouts {
        let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
        let entries: Vec<String> = layout
            .components
            .iter()
            .map(|component| format!(r#""{component}": ["diffusers", "Some"]"#))
            .collect();
        let index = format!(
            r#"{{"_class_name": "{}", {}, "image_encoder": [null, null]}}"#,
            layout.class,
            entries.join(", ")
        );
        let paths = spelled(&layout.files);
        let files: Vec<(&str, &[u8])> = paths
            .iter()
            .map(|path| match path.as_str() {
                "model_index.json" => ("model_index.json", index.as_bytes()),
                path => (path, path.as_bytes()),
            })
            .collect();
        server.add(&format!("models/{}", layout.id), "main", &files);
        let wanted = ModelFiles {
            variant: layout.variant.map(String::from),
            without: layout.without.iter().map(|name| (*name).to_string()).collect(),
            ..ModelFiles::default()
        };
        let folder = hub(&server, cache.path())
            .pull_model(&name(layout.id), &wanted, &Silent)
            .unwrap();
        let mut expected = spelled(&layout.pulled);
        expected.sort();
        assert_eq!(below(&folder), expected, "{}", layout.id);
    }
}
