//! Pushing: what arrives, what does not travel twice, and what a push without the right to it says.

mod support;

use std::{fs, path::Path, time::Duration};

use langevin_hub::{Error, Hub, ModelFiles, Push, RepoKind, RepoName, Settings, Silent};
use support::{READER, Server, WRITER, python, repos::sha256};

fn hub(server: &Server, cache: &Path, token: Option<&str>) -> Hub {
    Hub::new(Settings {
        token: token.map(String::from),
        retry_after: Duration::from_millis(1),
        retries: 1,
        ..Settings::new(&server.endpoint, cache)
    })
    .unwrap()
}

fn name(text: &str) -> RepoName {
    text.parse().unwrap()
}

/// A run's folder and what is pushed of it.
fn run(folder: &Path) -> Push {
    let weights: Vec<u8> = (0..250_000u32).map(|i| (i % 241) as u8).collect();
    let index = r#"{"_class_name": "P", "unet": ["diffusers", "UNet2DModel"]}"#;
    fs::create_dir_all(folder.join("unet")).unwrap();
    fs::write(folder.join("model_index.json"), index).unwrap();
    fs::write(folder.join("unet/config.json"), "{}").unwrap();
    fs::write(folder.join("unet/diffusion_pytorch_model.safetensors"), weights).unwrap();
    fs::write(folder.join("empty.bin"), "").unwrap();
    let file = |path: &str| (folder.join(path), path.to_string());
    Push {
        private: true,
        summary: "Upload a run".into(),
        files: vec![
            file("model_index.json"),
            file("unet/config.json"),
            file("unet/diffusion_pytorch_model.safetensors"),
            file("empty.bin"),
        ],
        texts: vec![("README.md".into(), "---\nlicense: mit\n---\n# Ours\n".into())],
        ..Push::default()
    }
}

#[test]
fn a_push_makes_a_repository_that_a_pull_gives_back() {
    // Whole, and in parts.
    for chunk_size in [None, Some(100_000)] {
        let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
        server.state().chunk_size = chunk_size;
        let push = run(&folder.path().join("run"));
        let hub = hub(&server, &folder.path().join("cache"), Some(WRITER));
        let pushed = hub.push(&name("me/mine"), &push, &Silent).unwrap();
        assert_eq!(pushed.page, format!("{}/me/mine", server.endpoint));
        assert_eq!(pushed.files, 5);
        {
            let state = server.state();
            let repo = &state.repos["models/me/mine"];
            assert!(repo.private);
            assert_eq!(repo.refs["main"], pushed.commit.clone().unwrap());
            assert_eq!(repo.log, ["initial commit", "Upload a run"]);
            let files = repo.files("main").unwrap();
            assert!(files["unet/diffusion_pytorch_model.safetensors"].lfs && !files["empty.bin"].lfs);
            assert_eq!(files["README.md"].bytes.as_slice(), push.texts[0].1.as_bytes());
        }
        // The token is for the Hub alone.
        assert!(
            server
                .asked("store", "PUT", "upload")
                .iter()
                .all(|request| request.header("authorization").is_none())
        );
        assert_eq!(
            server.asked("store", "PUT", "upload").len(),
            if chunk_size.is_some() { 3 } else { 1 }
        );
        let back = hub
            .pull_model(&name("me/mine"), &ModelFiles::default(), &Silent)
            .unwrap();
        let weights = "unet/diffusion_pytorch_model.safetensors";
        assert_eq!(
            sha256(&fs::read(back.join(weights)).unwrap()),
            sha256(&fs::read(folder.path().join("run").join(weights)).unwrap())
        );
        // A second time, nothing travels; then one file that is another.
        let again = hub.push(&name("me/mine"), &push, &Silent).unwrap();
        assert_eq!((again.commit, again.files), (None, 0));
        fs::write(folder.path().join("run/unet/config.json"), "{\"a\": 1}").unwrap();
        let again = hub.push(&name("me/mine"), &push, &Silent).unwrap();
        assert_eq!(again.files, 1);
        let state = server.state();
        assert_eq!(
            state.repos["models/me/mine"].files("main").unwrap()["unet/config.json"]
                .bytes
                .as_slice(),
            b"{\"a\": 1}"
        );
    }
}

#[test]
fn who_may_not_push_is_told_before_anything_travels() {
    let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
    let push = run(folder.path());
    let cache = folder.path().join("cache");
    let refused = |token| {
        hub(&server, &cache, token)
            .push(&name("me/mine"), &push, &Silent)
            .unwrap_err()
    };
    let error = refused(None);
    assert!(
        matches!(error, Error::Token(_)) && error.to_string().contains("HF_TOKEN"),
        "{error}"
    );
    assert!(server.state().requests.is_empty());
    let error = refused(Some(READER));
    assert!(
        error
            .to_string()
            .contains("the token that was given needs the right"),
        "{error}"
    );
    let error = refused(Some("hf_wrong"));
    assert!(
        error
            .to_string()
            .contains("does not know the token that was given"),
        "{error}"
    );
    assert!(server.asked("store", "PUT", "").is_empty());
    assert!(server.state().repos.is_empty());
    let writer = hub(&server, &cache, Some(WRITER));
    assert_eq!(writer.check_push(&Silent).unwrap(), "me");
    let error = hub(&server, &cache, Some("hf_wrong"))
        .check_push(&Silent)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("does not know the token that was given"),
        "{error}"
    );
    let error = writer.push(&name("me/mine@v1"), &push, &Silent).unwrap_err();
    assert!(error.to_string().contains("main branch"), "{error}");
}

#[test]
fn names_that_lead_out_of_a_repository_do_not_travel() {
    let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
    let hub = hub(&server, &folder.path().join("cache"), Some(WRITER));
    for path in ["../x", "/x", "a/../x", "C:x", "a\\x", "", "x\0"] {
        let mut push = run(&folder.path().join("run"));
        push.texts.push((path.into(), "x".into()));
        let error = hub.push(&name("me/mine"), &push, &Silent).unwrap_err();
        assert!(
            matches!(&error, Error::Name(said) if said.contains("nothing was pushed")),
            "{error}"
        );
        assert!(server.state().repos.is_empty());
    }
}

#[test]
fn a_space_is_made_for_docker() {
    let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
    let push = Push {
        kind: RepoKind::Space,
        summary: "A page".into(),
        texts: vec![("Dockerfile".into(), "FROM scratch\n".into())],
        ..Push::default()
    };
    let pushed = hub(&server, folder.path(), Some(WRITER))
        .push(&name("me/page"), &push, &Silent)
        .unwrap();
    assert_eq!(pushed.page, format!("{}/spaces/me/page", server.endpoint));
    assert_eq!(
        server.state().repos["spaces/me/page"].sdk.as_deref(),
        Some("docker")
    );
}

#[test]
fn python_reads_what_was_pushed() {
    let Some(program) = python::python("huggingface_hub") else {
        return;
    };
    let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
    let push = run(&folder.path().join("run"));
    hub(&server, &folder.path().join("cache"), Some(WRITER))
        .push(&name("me/mine"), &push, &Silent)
        .unwrap();
    let script = r#"
import hashlib
from huggingface_hub import snapshot_download, ModelCard
folder = snapshot_download("me/mine")
print(hashlib.sha256(open(folder + "/unet/diffusion_pytorch_model.safetensors", "rb").read()).hexdigest())
print(ModelCard.load(folder + "/README.md").data.license)
"#;
    let said = python::run(
        &program,
        script,
        &server.endpoint,
        &folder.path().join("theirs"),
        &[("HF_TOKEN", READER)],
    );
    let weights = fs::read(folder.path().join("run/unet/diffusion_pytorch_model.safetensors")).unwrap();
    assert_eq!(said.lines().collect::<Vec<_>>(), [sha256(&weights), "mit".into()]);
}
