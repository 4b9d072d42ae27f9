//! What happens where the Hub, the network or the way to it has trouble with a request that is none for a file.

mod support;

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    time::{Duration, Instant},
};

use langevin_hub::{Error, Hub, ModelFiles, Push, RepoKind, RepoName, Settings, Silent};
use support::{Notes, Server, Trouble, WRITER};

fn name(text: &str) -> RepoName {
    text.parse().unwrap()
}

fn settings(endpoint: &str, cache: &Path) -> Settings {
    Settings {
        token: Some(WRITER.into()),
        retry_after: Duration::from_millis(1),
        retries: 2,
        ..Settings::new(endpoint, cache)
    }
}

fn hub(server: &Server, cache: &Path) -> Hub {
    Hub::new(settings(&server.endpoint, cache)).unwrap()
}

fn model(server: &Server) {
    let files: [(&str, &[u8]); 3] = [
        ("config.json", b"{}"),
        ("README.md", b"# A"),
        ("diffusion_pytorch_model.safetensors", &[5; 4000]),
    ];
    server.add("models/me/faces", "main", &files);
}

/// Files of both kinds, in a folder.
fn run(folder: &Path) -> Push {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("a.safetensors"), vec![3; 250]).unwrap();
    Push {
        summary: "A run".into(),
        files: vec![(folder.join("a.safetensors"), "a.safetensors".into())],
        texts: vec![("README.md".into(), "# A".into())],
        ..Push::default()
    }
}

#[test]
fn a_host_that_is_not_known_is_told_at_once_and_the_cache_used() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    model(&server);
    let wanted = ModelFiles::default();
    let folder = hub(&server, cache.path())
        .pull_model(&name("me/faces"), &wanted, &Silent)
        .unwrap();
    // With the waits that a user has.
    let nowhere = Hub::new(Settings {
        token: None,
        ..Settings::new("https://hub.invalid", cache.path())
    });
    let (nowhere, notes, began) = (nowhere.unwrap(), Notes::default(), Instant::now());
    assert_eq!(
        nowhere.pull_model(&name("me/faces"), &wanted, &notes).unwrap(),
        folder
    );
    let error = nowhere
        .pull_model(&name("me/others"), &wanted, &Silent)
        .unwrap_err();
    assert!(matches!(error, Error::Network(_)), "{error}");
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    let said = notes.said();
    assert!(
        said.len() == 1 && said[0].contains("going on with what the cache has"),
        "{said:?}"
    );
}

#[test]
fn an_address_that_speaks_no_tls_is_not_tried_again() {
    let cache = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let secure = format!("https://{}", listener.local_addr().unwrap());
    // A server that speaks plain HTTP on that port.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let notes = Notes::default();
    let error = Hub::new(settings(&secure, cache.path()))
        .unwrap()
        .pull_model(&name("me/faces"), &ModelFiles::default(), &notes)
        .unwrap_err()
        .to_string();
    assert!(error.contains("no secure connection"), "{error}");
    assert!(notes.said().is_empty(), "{:?}", notes.said());
}

#[test]
fn listings_are_asked_for_again() {
    for trouble in [
        Trouble::Status(503, "Service Unavailable"),
        Trouble::Status(429, "Too many"),
        Trouble::Cut(7),
    ] {
        for path in ["/revision/", "/tree/"] {
            let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
            model(&server);
            server.trouble("GET", path, trouble.clone(), 2);
            let (hub, notes) = (hub(&server, cache.path()), Notes::default());
            hub.pull_model(&name("me/faces"), &ModelFiles::default(), &notes)
                .unwrap();
            let said = notes.said();
            assert!(
                said.len() == 2 && said[1].contains("trying again (2 of 2)"),
                "{said:?}"
            );
        }
    }
}

#[test]
fn the_hub_is_left_alone_for_as_long_as_it_asks() {
    for (trouble, path) in [
        (Trouble::Limit(1), "/tree/"),
        (Trouble::RetryAfter(1), "/resolve/"),
    ] {
        let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
        let bytes: Vec<[u8; 100]> = (0..8).map(|i| [i; 100]).collect();
        let names: Vec<String> = (0..8).map(|i| format!("{i}.bin")).collect();
        let files: Vec<(&str, &[u8])> = names
            .iter()
            .map(String::as_str)
            .zip(bytes.iter().map(|b| &b[..]))
            .collect();
        server.add("models/me/many", "main", &files);
        let times = if path == "/tree/" { 1 } else { 8 };
        server.trouble("GET", path, trouble, times);
        let (hub, notes, began) = (hub(&server, cache.path()), Notes::default(), Instant::now());
        let snapshot = hub.open(RepoKind::Model, &name("me/many"), &notes).unwrap();
        let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
        let folder = snapshot.fetch(&wanted, &notes).unwrap();
        assert!(folder.join("7.bin").is_file());
        assert!(began.elapsed() >= Duration::from_secs(1));
        let said = notes.said();
        let told = "the Hub asks for fewer requests: going on in 1 s";
        assert!(
            !said.is_empty() && said.len() <= times && said.iter().all(|said| said == told),
            "{said:?}"
        );
    }
    // Nobody waits for an hour.
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    model(&server);
    server.trouble("GET", "/tree/", Trouble::Limit(3600), 1);
    let error = hub(&server, cache.path())
        .pull_model(&name("me/faces"), &ModelFiles::default(), &Silent)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("fewer requests") && error.contains("60 min"),
        "{error}"
    );
}

#[test]
fn a_push_goes_on_after_troubles_that_pass() {
    for trouble in [
        Trouble::Status(503, "Service Unavailable"),
        Trouble::Limit(0),
        Trouble::Cut(3),
    ] {
        for (method, path) in [
            ("POST", "/repos/create"),
            ("POST", "/preupload/"),
            ("POST", "/objects/batch"),
            ("PUT", "/upload/"),
            ("POST", "/complete_multipart/"),
            ("POST", "/api/verify"),
        ] {
            let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
            server.state().chunk_size = Some(100);
            server.trouble(method, path, trouble.clone(), 1);
            let hub = hub(&server, folder.path());
            let pushed = hub
                .push(&name("me/mine"), &run(&folder.path().join("run")), &Silent)
                .unwrap_or_else(|error| panic!("{trouble:?} {path}: {error}"));
            assert_eq!(pushed.files, 2);
            let state = server.state();
            assert_eq!(state.repos["models/me/mine"].refs["main"], pushed.commit.unwrap());
        }
    }
}

#[test]
fn a_commit_is_not_made_twice() {
    let push_with = |trouble| {
        let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
        server.trouble("POST", "/commit/", trouble, 1);
        let (hub, push) = (hub(&server, folder.path()), run(&folder.path().join("run")));
        let first = hub.push(&name("me/mine"), &push, &Silent);
        let again = hub.push(&name("me/mine"), &push, &Silent).unwrap();
        let log = server.state().repos["models/me/mine"].log.clone();
        (first, again, log)
    };
    // What the Hub did not look at is sent again.
    let (first, again, log) = push_with(Trouble::Limit(0));
    assert!(first.is_ok() && again.commit.is_none() && log.len() == 2);
    let (first, again, log) = push_with(Trouble::Status(500, "Internal trouble"));
    let said = first.unwrap_err().to_string();
    assert!(said.contains("Internal trouble"), "{said}");
    assert!(again.commit.is_some() && log.len() == 2);
    let (first, again, log) = push_with(Trouble::Cut(5));
    let said = first.unwrap_err().to_string();
    assert!(said.contains("it may have made it"), "{said}");
    assert!(again.commit.is_none() && log.len() == 2);
}

#[test]
fn a_repository_that_cannot_be_made_may_be_there() {
    let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
    let hub = hub(&server, folder.path());
    let make = |id: &str, notes: &Notes| hub.make_repository(&name(id), RepoKind::Space, true, notes);
    // A plan has to be paid for where there is none.
    server.trouble(
        "POST",
        "/repos/create",
        Trouble::Status(402, "Docker Spaces need PRO"),
        2,
    );
    let said = make("me/page", &Notes::default()).unwrap_err().to_string();
    assert!(
        said.contains("to be paid") && said.contains("Docker Spaces need PRO"),
        "{said}"
    );
    server.add("spaces/me/page", "main", &[("Dockerfile", b"")]);
    let page = make("me/page", &Notes::default()).unwrap();
    assert_eq!(page, format!("{}/spaces/me/page", server.endpoint));
    // Two statuses of the same number mean different things.
    let busy = "Cannot create repo: another conflicting operation is in progress";
    server.trouble("POST", "/repos/create", Trouble::Status(409, busy), 1);
    let notes = Notes::default();
    make("me/other", &notes).unwrap();
    assert!(
        notes.said()[0].contains("conflicting operation"),
        "{:?}",
        notes.said()
    );
    assert!(server.state().repos["spaces/me/other"].private);
    make("me/other", &Notes::default()).unwrap();
    server.trouble("POST", "/repos/create", Trouble::Status(409, busy), 9);
    let said = make("me/third", &Notes::default()).unwrap_err().to_string();
    assert!(said.contains("conflicting operation"), "{said}");
}

#[test]
fn a_repository_with_another_name_is_pushed_to() {
    let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
    let hub = hub(&server, folder.path());
    server.add("models/me/new", "main", &[("x.txt", b"x")]);
    server.trouble("POST", "/preupload/", Trouble::Moved("me/old", "me/new"), 1);
    server.trouble("POST", "/commit/", Trouble::Moved("me/old", "me/new"), 1);
    hub.push(&name("me/old"), &run(&folder.path().join("run")), &Silent)
        .unwrap();
    assert_eq!(server.state().repos["models/me/new"].log, ["test", "A run"]);
}

#[test]
fn a_token_that_may_only_read_is_told_before_anything_else() {
    let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
    server.state().role = Some("read");
    let said = hub(&server, folder.path())
        .check_push(&Silent)
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("may only read") && said.contains("settings/tokens"),
        "{said}"
    );
    server.state().role = Some("fineGrained");
    assert_eq!(hub(&server, folder.path()).check_push(&Silent).unwrap(), "me");
}

#[test]
fn a_part_without_a_receipt_is_none() {
    let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
    server.state().chunk_size = Some(100);
    server.trouble("PUT", "/upload/", Trouble::Without("ETag"), 1);
    let error = hub(&server, folder.path())
        .push(&name("me/mine"), &run(&folder.path().join("run")), &Silent)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("part 1 of a.safetensors") && error.contains("ETag"),
        "{error}"
    );
}

#[test]
fn access_that_is_disabled_is_no_matter_of_tokens() {
    let (server, cache) = (Server::start(), tempfile::tempdir().unwrap());
    model(&server);
    server.trouble(
        "GET",
        "/revision/",
        Trouble::Status(403, "Access to this resource is disabled."),
        1,
    );
    let said = hub(&server, cache.path())
        .pull_model(&name("me/faces"), &ModelFiles::default(), &Silent)
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("has disabled access") && !said.contains("HF_TOKEN"),
        "{said}"
    );
}

/// A server with a certificate that nobody signed, until it is dropped; `None` where there is no `openssl`.
struct Unsigned(std::process::Child, u16);

impl Unsigned {
    fn start(folder: &Path) -> Option<Self> {
        let openssl = || {
            let mut command = std::process::Command::new("openssl");
            let quiet = std::process::Stdio::null;
            command
                .stdin(quiet())
                .stdout(quiet())
                .stderr(quiet())
                .current_dir(folder);
            command
        };
        let request = "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost \
                       -addext subjectAltName=DNS:localhost";
        let made = openssl().args(request.split_whitespace()).status();
        if !made.is_ok_and(|status| status.success()) {
            eprintln!("skipped: there is no openssl that makes a certificate");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let serve = format!("s_server -accept {port} -cert cert.pem -key key.pem -www");
        let server = Self(openssl().args(serve.split_whitespace()).spawn().ok()?, port);
        for _ in 0..100 {
            if std::net::TcpStream::connect(("localhost", port)).is_ok() {
                return Some(server);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("openssl does not listen");
    }
}

impl Drop for Unsigned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_certificate_that_is_refused_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = Unsigned::start(folder.path()) else {
        return;
    };
    let endpoint = format!("https://localhost:{}", server.1);
    let notes = Notes::default();
    let said = Hub::new(settings(&endpoint, &folder.path().join("cache")))
        .unwrap()
        .pull_model(&name("me/faces"), &ModelFiles::default(), &notes)
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("is not trusted") && said.contains("SSL_CERT_FILE"),
        "{said}"
    );
    assert!(notes.said().is_empty(), "{:?}", notes.said());
}
