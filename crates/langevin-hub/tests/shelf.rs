//! What the cache holds, and taking some of it away.

mod support;

use std::{fs, path::Path};

use langevin_hub::{CachedRepo, Hub, RepoId, RepoKind, RepoName, Settings, Silent};
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
    assert!((1800..1900).contains(&all[0].size), "{}", all[0].size);
    assert_eq!(all[1].revisions[0].refs, ["refs/convert/parquet"]);

    // One commit: what the other needs stays.
    let removed = hub
        .remove(&model("me/faces"), &name(&format!("me/faces@{first}")))
        .unwrap();
    assert_eq!((removed.revisions, removed.bytes), (1, 500));
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
