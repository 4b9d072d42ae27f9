//! What the cache holds, and taking some of it away.

mod support;

use std::{fs, path::Path};

use langevin_hub::{CachedRepo, Error, Hub, RepoId, RepoKind, RepoName, Settings, Silent};
use support::Server;

fn name(text: &str) -> RepoName {
    text.parse().unwrap()
}

fn fetch(hub: &Hub, kind: RepoKind, text: &str, files: &[&str]) {
    hub.open(kind, &name(text), &Silent)
        .unwrap()
        .fetch(files, &Silent)
        .unwrap();
}

fn model(text: &str) -> RepoId {
    name(text).of_kind(RepoKind::Model)
}

fn listed(hub: &Hub) -> Vec<(String, Vec<usize>)> {
    let files = |repo: &CachedRepo| repo.revisions.iter().map(|revision| revision.files).collect();
    hub.cached()
        .unwrap()
        .iter()
        .map(|repo| (repo.repo.folder_name(), files(repo)))
        .collect()
}

#[test]
fn what_is_there_is_listed_and_removed() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    let first = server.add(
        "models/me/faces",
        "main",
        &[("both", &[1; 1000]), ("first", &[2; 500])],
    );
    let second = server.add("models/me/faces", "main", &[("second", &[3; 300])]);
    server.add(
        "datasets/me/data",
        "refs/convert/parquet",
        &[("a.parquet", &[4; 70])],
    );
    let hub = Hub::new(Settings::new(&server.endpoint, cache.path())).unwrap();
    assert!(
        Hub::new(Settings::new(&server.endpoint, cache.path().join("none")))
            .unwrap()
            .cached()
            .unwrap()
            .is_empty()
    );
    fetch(
        &hub,
        RepoKind::Model,
        &format!("me/faces@{first}"),
        &["both", "first"],
    );
    fetch(&hub, RepoKind::Model, "me/faces", &["both", "second"]);
    fetch(
        &hub,
        RepoKind::Dataset,
        "me/data@refs/convert/parquet",
        &["a.parquet"],
    );
    // What is nobody's, and what is broken, is passed over.
    fs::create_dir_all(cache.path().join("something else")).unwrap();
    fs::create_dir_all(cache.path().join("models--me--faces/snapshots/no commit")).unwrap();
    assert_eq!(
        listed(&hub),
        [
            ("models--me--faces".to_string(), vec![2, 2]),
            ("datasets--me--data".to_string(), vec![1])
        ]
    );
    let all = hub.cached().unwrap();
    let refs = |commit: &str| {
        all[0]
            .revisions
            .iter()
            .find(|revision| revision.commit == commit)
            .unwrap()
            .refs
            .clone()
    };
    assert_eq!((refs(&second), refs(&first)), (vec!["main".to_string()], vec![]));
    // With two listings.
    assert!((1800..2600).contains(&all[0].size), "{}", all[0].size);
    assert_eq!(all[1].revisions[0].refs, ["refs/convert/parquet"]);

    // One commit: what the other needs stays.
    let removed = hub
        .remove(&model("me/faces"), &name(&format!("me/faces@{first}")))
        .unwrap();
    assert_eq!(removed.revisions, 1);
    assert!((500..900).contains(&removed.bytes), "{}", removed.bytes);
    let folder = cache.path().join("models--me--faces/snapshots").join(&second);
    assert_eq!(fs::read(folder.join("both")).unwrap(), [1; 1000]);
    let said = hub
        .remove(&model("me/faces"), &name(&format!("me/faces@{first}")))
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("not in the cache") && said.contains("langevin list"),
        "{said}"
    );
    // The rest.
    let removed = hub.remove(&model("me/faces"), &name("me/faces@main")).unwrap();
    assert_eq!(removed.revisions, 1);
    assert!(!cache.path().join("models--me--faces").exists());
    assert!(!cache.path().join(".locks/models--me--faces").exists());
    assert!(hub.remove(&model("me/faces"), &name("me/faces")).is_err());
    assert_eq!(listed(&hub), [("datasets--me--data".to_string(), vec![1])]);
    assert!(
        left_over(cache.path()).is_empty(),
        "{:?}",
        left_over(cache.path())
    );
}

fn left_over(cache: &Path) -> Vec<String> {
    let names = fs::read_dir(cache)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(".langevin")).collect()
}

#[test]
fn what_another_program_downloads_stays() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    let first = server.add(
        "models/me/faces",
        "main",
        &[("a.bin", &[1; 100]), ("b.bin", &[2; 100])],
    );
    server.add(
        "models/me/faces",
        "main",
        &[("a.bin", &[3; 100]), ("b.bin", &[4; 100])],
    );
    let hub = Hub::new(Settings::new(&server.endpoint, cache.path())).unwrap();
    fetch(
        &hub,
        RepoKind::Model,
        &format!("me/faces@{first}"),
        &["a.bin", "b.bin"],
    );
    fetch(&hub, RepoKind::Model, "me/faces", &["a.bin"]);
    let hash = support::repos::sha256(&[1; 100]);
    let lock = cache.path().join(format!(".locks/models--me--faces/{hash}.lock"));
    let held = fs::File::create(&lock).unwrap();
    held.lock().unwrap();
    let removed = hub
        .remove(&model("me/faces"), &name(&format!("me/faces@{first}")))
        .unwrap();
    let blobs = cache.path().join("models--me--faces/blobs");
    assert!(removed.bytes >= 100 && blobs.join(&hash).is_file());
    assert!(!blobs.join(support::repos::sha256(&[2; 100])).exists());
    let busy = hub.remove(&model("me/faces"), &name("me/faces")).unwrap_err();
    assert!(
        matches!(busy, Error::Busy(_)) && busy.to_string().contains("nothing was removed"),
        "{busy}"
    );
    assert!(blobs.is_dir());
    drop(held);
    hub.remove(&model("me/faces"), &name("me/faces")).unwrap();
    assert!(listed(&hub).is_empty());
}

#[cfg(unix)]
#[test]
fn what_python_shares_between_repositories_is_told() {
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub::new(Settings::new("http://127.0.0.1:1", cache.path())).unwrap();
    let (hash, commit) = ("ab".repeat(32), "c".repeat(40));
    let repo = cache.path().join("models--gpt2");
    for folder in [
        cache.path().join("blobs/ab"),
        repo.join("blobs"),
        repo.join("snapshots").join(&commit),
    ] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(cache.path().join("blobs/ab").join(&hash), [0; 700]).unwrap();
    fs::write(repo.join("snapshots").join(&commit).join("config.json"), "{}").unwrap();
    let link = std::os::unix::fs::symlink::<String, _>;
    link(format!("../../blobs/ab/{hash}"), repo.join("blobs/etag")).unwrap();
    link(
        "../../blobs/etag".into(),
        repo.join("snapshots").join(&commit).join("a.bin"),
    )
    .unwrap();
    let cached = hub.cached().unwrap();
    assert_eq!((cached[0].repo.id.as_str(), cached[0].size), ("gpt2", 2));
    assert_eq!(cached[0].revisions[0].size, 702);
    assert_eq!(hub.shared_bytes(), 700);
    // An old name has no organisation, and is removed as any.
    let old = RepoName {
        id: "gpt2".into(),
        revision: None,
    };
    let removed = hub.remove(&old.of_kind(RepoKind::Model), &old).unwrap();
    assert_eq!((removed.bytes, removed.shared), (2, 700));
    assert_eq!(hub.shared_bytes(), 700);
}
