//! `langevin serve`: its address, its flags, and its end.

mod support;

use std::{
    fs,
    io::Write,
    net::TcpStream,
    path::Path,
    time::{Duration, Instant},
};

use support::{
    langevin, reference_pipeline,
    serving::{Serving, read},
};
use tempfile::tempdir;

#[test]
fn it_serves_under_its_limits_and_its_key() {
    let folder = tempdir().unwrap();
    fs::create_dir(folder.path().join("runs")).unwrap();
    let serving = Serving::start(folder.path(), &["--max-steps", "7", "--runs", "runs"]);
    let page = String::from_utf8_lossy(&read(serving.send("GET /", ""))).into_owned();
    assert!(
        page.starts_with("HTTP/1.1 200") && page.contains("<title>Langevin</title>"),
        "{page}"
    );
    let models = String::from_utf8_lossy(&read(serving.send("GET /api/models", ""))).into_owned();
    assert!(
        models.contains("\"name\":\"ddpm\"") && models.contains("\"steps\":7"),
        "{models}"
    );
    let runs = String::from_utf8_lossy(&read(serving.send("GET /api/runs", ""))).into_owned();
    assert!(runs.starts_with("HTTP/1.1 200") && runs.ends_with("[]"), "{runs}");
    let beyond = read(serving.send("POST /api/generate", r#"{"steps": 8}"#));
    assert!(beyond.starts_with(b"HTTP/1.1 422"));
    // The key came from the environment.
    let mut stranger = TcpStream::connect(&serving.address).unwrap();
    stranger
        .write_all(b"GET /api/models HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        .unwrap();
    assert!(read(stranger).starts_with(b"HTTP/1.1 401"));
}

#[test]
fn it_serves_stable_diffusion_as_it_is_told_to_load_it() {
    let folder = tempdir().unwrap();
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../langevin/tests/reference/sd/models");
    let model = format!("art={}", models.join("sd1").display());
    let other = models.join("lcm").display().to_string();
    let serving = Serving::of(&model, folder.path(), &["--max-size", "40", "--vae", &other]);
    let models = String::from_utf8_lossy(&read(serving.send("GET /api/models", ""))).into_owned();
    for part in [
        "\"name\":\"art\"",
        "\"pipeline\":\"StableDiffusionPipeline\"",
        "\"size\":40",
    ] {
        assert!(models.contains(part), "{part}: {models}");
    }
    let draw = |size: &str| {
        let body = format!(r#"{{"prompt": "a tree", "steps": 1, "size": "{size}"}}"#);
        read(serving.send("POST /api/generate", &body))
    };
    let beyond = String::from_utf8_lossy(&draw("48")).into_owned();
    assert!(
        beyond.starts_with("HTTP/1.1 422") && beyond.contains("\"field\":\"size\""),
        "{beyond}"
    );
    let drawn = draw("40x32");
    assert!(drawn.starts_with(b"HTTP/1.1 200") && drawn.windows(4).any(|four| four == b"IEND"));
    // Another autoencoder draws other pictures of the same latents.
    let plain = Serving::of(&model, folder.path(), &[]);
    let body = r#"{"prompt": "a tree", "steps": 1, "size": "40x32"}"#;
    let png = |answer: &[u8]| {
        answer
            .windows(4)
            .position(|four| four == b"IHDR")
            .map(|at| answer[at..].to_vec())
    };
    assert_ne!(png(&drawn), png(&read(plain.send("POST /api/generate", body))));
}

#[cfg(unix)]
#[test]
fn a_termination_signal_lets_it_finish() {
    let folder = tempdir().unwrap();
    let mut serving = Serving::start(folder.path(), &[]);
    let asked = serving.send(
        "POST /api/generate",
        r#"{"steps": 300, "sampler": "ddim", "count": 3}"#,
    );
    // It has begun once somebody else is told so.
    let since = Instant::now();
    while !String::from_utf8_lossy(&read(serving.send("GET /api/queue", ""))).contains("\"running\":1") {
        assert!(since.elapsed() < Duration::from_secs(60));
    }
    serving.signal("-TERM");
    let answer = read(asked);
    assert!(answer.starts_with(b"HTTP/1.1 200") && answer.windows(4).any(|four| four == b"IEND"));
    assert!(serving.child.wait().unwrap().success());
}

#[test]
fn what_cannot_be_served_is_refused() {
    let folder = tempdir().unwrap();
    let model = reference_pipeline("ddpm").display().to_string();
    let refused = |args: &[&str], part: &str| {
        let all: Vec<&str> = ["serve", "--port", "0"].iter().chain(args).copied().collect();
        langevin(folder.path(), all).refused(1, &[part]);
    };
    refused(&["nowhere"], "nowhere");
    refused(&[&model, &model], "`ddpm`");
    refused(&[&model, "--queue", "0"], "--queue is 0");
    refused(&[&model, "--runs", "nowhere"], "--runs nowhere");
    refused(&[&model, "--api-key", ""], "the API key is empty");
    refused(&[&model, "--host", "not a host"], "cannot listen");
    refused(&[&model, "--clip", "nowhere"], "nowhere");
    refused(&[&model, "--max-size", "0"], "--max-size is 0");
    refused(&[&model, "--vae", "nowhere"], "nowhere");
    fs::write(folder.path().join("broken.safetensors"), "no weights").unwrap();
    refused(&["broken.safetensors"], "broken.safetensors");
}
