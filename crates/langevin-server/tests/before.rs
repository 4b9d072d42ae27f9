//! Bodies of requests and links of the page from an earlier state of the program: they are drawn to the same pictures.

mod support;

use std::{env, fs, path::PathBuf, process::Command};

use langevin::{data::read_picture, device::default_device, pipelines::LoadOptions};
use langevin_server::{Models, ServerOptions};
use serde_json::Value;
use support::{
    Server,
    browser::{Browser, MISSING},
};

/// What an earlier state of the program left, for the tests of the program too.
fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../langevin-cli/tests/fixtures/before")
}

/// Each with its `name`, its `link` and the `body` that the page made of the link.
fn requests() -> Vec<Value> {
    serde_json::from_slice(&fs::read(fixtures().join("requests.json")).unwrap()).unwrap()
}

/// A server of the models that the requests name.
fn server() -> Server {
    let mut models = Models::default();
    for name in ["class", "channels", "text", "vector", "ddpm"] {
        models
            .load(
                name,
                fixtures().join(name),
                &LoadOptions::default(),
                &default_device(),
            )
            .unwrap();
    }
    Server::with(tempfile::tempdir().unwrap(), models, ServerOptions::default())
}

/// Whether this process computes with the portable kernels, whose pictures are the same everywhere. Kernels are chosen once per process:
/// where these are others, the test runs in a process of its own.
fn is_portable(test: &str) -> bool {
    const VARIABLE: &str = "LANGEVIN_ISA";
    if env::var(VARIABLE).is_ok_and(|kernels| kernels == "portable") {
        return true;
    }
    let mut again = Command::new(env::current_exe().unwrap());
    again
        .args(["--exact", test, "--nocapture"])
        .env(VARIABLE, "portable");
    assert!(again.status().unwrap().success());
    false
}

#[test]
fn bodies_are_drawn_as_before() {
    if !is_portable("bodies_are_drawn_as_before") {
        return;
    }
    let server = server();
    for request in requests() {
        let name = request["name"].as_str().unwrap();
        let before = read_picture(fixtures().join(format!("drawn/request-{name}.png"))).unwrap();
        let now = server
            .generate("image/png", &request["body"])
            .expect(200)
            .picture();
        assert!(now == before, "another picture: {request}");
    }
}

#[test]
fn links_are_drawn_as_their_bodies() {
    let server = server();
    let Some(browser) = Browser::open(1280, 900) else {
        println!("{MISSING}");
        return;
    };
    for request in requests() {
        // The picture that a drawing began with is not in its link.
        if !request["body"]["init_image"].is_null() {
            continue;
        }
        browser.go("about:blank");
        browser.go(&format!(
            "http://{}/#{}",
            server.address,
            request["link"].as_str().unwrap()
        ));
        browser.until("document.documentElement.dataset.ready");
        browser.click("#generate");
        browser.until("document.getElementById('status').textContent.startsWith('Done')");
        let shown =
            browser.run("return [...document.querySelectorAll('#pictures img')].map((img) => img.src);");
        let answer = server
            .generate("application/json", &request["body"])
            .expect(200)
            .json();
        let pictures = answer["pictures"].as_array().unwrap();
        assert_eq!(shown.as_array().unwrap().len(), pictures.len(), "{request}");
        for (shown, picture) in shown.as_array().unwrap().iter().zip(pictures) {
            let png = picture["png"].as_str().unwrap();
            assert_eq!(*shown, format!("data:image/png;base64,{png}"), "{request}");
        }
    }
}
