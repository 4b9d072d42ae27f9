//! Pictures that follow others, with the ControlNets of a folder that the server was started with.

mod support;

use std::{fs, path::PathBuf, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use langevin::{
    Pipeline, Request,
    data::{Channels, Picture},
    device::default_device,
    grid,
    models::{ControlNetConfig, ControlNetModel, Model, unet2d_condition::PerLevel},
    options::ControlInput,
    pipelines::{LoadOptions, pack},
    random::Generator,
    weights::Precision,
};
use langevin_server::{Controls, Models, ServerOptions};
use serde_json::{Value, json};
use support::{
    Server,
    browser::{Browser, MISSING},
};

fn reference(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../langevin/tests/reference")
        .join(path)
}

/// A folder of ControlNets and of what is none, and a server with it.
fn server() -> Server {
    let folder = tempfile::tempdir().unwrap();
    let nets = folder.path().join("nets");
    for (name, from) in [("edges", "net_a"), ("depth", "net_b")] {
        support::copy(&reference("controlnet/models").join(from), &nets.join(name));
    }
    // One of another base, as a single file; and a file that is broken.
    let config = ControlNetConfig {
        block_out_channels: vec![32; 4],
        cross_attention_dim: PerLevel::All(768),
        conditioning_embedding_out_channels: vec![4, 8, 8, 16],
        ..ControlNetConfig::default()
    };
    let other = ControlNetModel::new(&config, &default_device(), &mut Generator::new(1)).unwrap();
    let (unpacked, file) = (folder.path().join("other"), nets.join("other.safetensors"));
    other.save(&unpacked).unwrap();
    pack(&unpacked, &file, None, None, Precision::Stored, &[]).unwrap();
    fs::write(nets.join("broken.safetensors"), b"no weights").unwrap();
    fs::write(nets.join("README.md"), b"not looked at").unwrap();
    let controls = Controls::of(&nets, &default_device()).unwrap();
    assert_eq!(controls.len(), 3);
    let [broken] = controls.passed_over() else {
        panic!("{:?}", controls.passed_over());
    };
    assert!(broken.contains("broken.safetensors"), "{broken}");

    let mut models = Models::default();
    let load = LoadOptions::default();
    models
        .load("sd2", reference("sd/models/sd2"), &load, &default_device())
        .unwrap();
    models
        .load("plain", reference("pipelines/ddim"), &load, &default_device())
        .unwrap();
    let options = ServerOptions {
        controls: Some(Arc::new(controls)),
        ..ServerOptions::default()
    };
    Server::with(folder, models, options)
}

fn picture() -> Picture {
    let pixels = (0..32 * 32 * 3).map(|i| if i / 96 % 12 < 5 { 230 } else { 20 });
    Picture::new(32, 32, Channels::Rgb, pixels.collect()).unwrap()
}

fn encoded() -> String {
    STANDARD.encode(grid::png_bytes(&picture()).unwrap())
}

#[test]
fn controls_are_named_and_draw_as_the_library_does() {
    let server = server();
    let models = server.get("/api/models").json();
    let controls = |number: usize| models["models"][number]["controls"].clone();
    assert_eq!((controls(0), controls(1)), (json!(["depth", "edges"]), json!([])));

    let asked = |control: Value| json!({ "model": "sd2", "prompt": "a tree", "steps": 3, "seed": 2, "control": control });
    let drawn = |control: Value| {
        server
            .generate("image/png", &asked(control))
            .expect(200)
            .picture()
    };
    let request = |name: &str| {
        let network = reference("controlnet/models").join(name);
        Request {
            prompt: vec!["a tree".into()],
            steps: Some(3),
            seed: 2,
            control: vec![ControlInput::new(network.to_str().unwrap(), picture())],
            ..Request::default()
        }
    };
    let pipeline = Pipeline::load(reference("sd/models/sd2"), &default_device()).unwrap();
    let alone = |request: &Request| pipeline.generate(request).unwrap().remove(0);
    let edges = drawn(json!({ "model": "edges", "picture": encoded() }));
    assert_eq!(edges, alone(&request("net_a")));
    let depth = drawn(json!([{ "model": "depth", "picture": encoded(), "scale": 0.5, "end": 0.7 }]));
    let mut weaker = request("net_b");
    (weaker.control[0].scale, weaker.control[0].end) = (Some(0.5), 0.7);
    assert_eq!(depth, alone(&weaker));
    let mut body = asked(json!({ "model": "edges", "picture": encoded() }));
    body["guess_mode"] = json!(true);
    body["control_preprocess"] = json!("invert");
    let guessed = server.generate("image/png", &body).expect(200).picture();
    let guessing = Request {
        guess_mode: true,
        control_preprocess: vec!["invert".parse().unwrap()],
        ..request("net_a")
    };
    assert_eq!(guessed, alone(&guessing));
    // More than stay loaded, in turn.
    assert_eq!(edges, drawn(json!({ "model": "edges", "picture": encoded() })));
}

#[test]
fn nothing_but_a_name_of_the_folder_is_taken() {
    let server = server();
    let refused = |control: Value, parts: &[&str]| {
        let asked = json!({ "model": "sd2", "prompt": "a tree", "steps": 2, "control": control });
        server.generate("image/png", &asked).refused(422, parts);
    };
    let path = reference("controlnet/models/net_a").display().to_string();
    let names = [
        path.as_str(),
        "../nets/edges",
        "nets/edges",
        "./edges",
        "",
        "broken",
        "README",
    ];
    for name in names {
        let control = json!({ "model": name, "picture": encoded() });
        refused(control, &["there is no ControlNet", name]);
    }
    refused(
        json!({ "model": "other", "picture": encoded() }),
        &["made for another model"],
    );
    refused(json!({ "picture": encoded() }), &["no ControlNet of its own"]);
    refused(json!({ "model": "edges" }), &["picture"]);
    refused(
        json!({ "model": "edges", "picture": "edges.png" }),
        &["control", "base64"],
    );
    let wide = json!({ "model": "edges", "picture": encoded(), "strength": 1 });
    refused(wide, &["strength"]);
    let scaled = |scale: f64| json!({ "model": "edges", "picture": encoded(), "scale": scale });
    refused(scaled(1e9), &["control is 1000000000", "1000"]);
    refused(
        json!([scaled(1.0), scaled(1.0), scaled(1.0), scaled(1.0), scaled(1.0)]),
        &["control lists 5", "4"],
    );
    let asked = json!({ "model": "plain", "steps": 2, "control": scaled(1.0) });
    server
        .generate("image/png", &asked)
        .refused(422, &["ControlNet", "UNet2DModel"]);
}

#[test]
fn a_server_without_a_folder_knows_none() {
    let mut models = Models::default();
    let path = reference("sd/models/sd2");
    models
        .load("sd2", path, &LoadOptions::default(), &default_device())
        .unwrap();
    let server = Server::with(tempfile::tempdir().unwrap(), models, ServerOptions::default());
    let path = reference("controlnet/models/net_a").display().to_string();
    for name in ["edges", &path] {
        let control = json!({ "model": name, "picture": encoded() });
        let asked = json!({ "prompt": "a tree", "steps": 2, "control": control });
        server
            .generate("image/png", &asked)
            .refused(422, &["there is no ControlNet"]);
    }
}

#[test]
fn a_picture_is_followed_on_the_page() {
    let server = server();
    let Some(browser) = Browser::open(1280, 900) else {
        println!("{MISSING}");
        return;
    };
    let path = server.folder.path().join("edges.png");
    grid::write_png(&path, &picture(), &[]).unwrap();
    let page = format!(
        "http://{}/#model=sd2&seed=2&steps=3&prompt=a+tree",
        server.address
    );
    browser.go(&page);
    browser.until("document.documentElement.dataset.ready");
    let choices =
        "return [...document.getElementById('settings').elements.control.options].map(({ value }) => value);";
    assert_eq!(browser.run(choices), json!(["depth", "edges"]));
    let body = || browser.wait_for("import('/page/settings.js').then(({ request }) => request())");
    // Without a picture nothing is followed.
    assert!(body().get("control").is_none());
    browser.run("document.getElementById('details-control').open = true;");
    browser.keys("[name=control_image]", path.to_str().unwrap());
    browser.until("document.querySelector('.chosen[data-of=control_image] img').naturalWidth === 32");
    browser.set("control", "edges");
    browser.set("control_preprocess", "invert");
    browser.set("control_scale", "0.5");
    browser.run("document.getElementById('settings').requestSubmit();");
    browser.until("document.querySelectorAll('#gallery li').length === 1");
    let asked = body();
    let control = &asked["control"];
    assert_eq!(
        (&control["model"], &control["scale"], &asked["control_preprocess"]),
        (&json!("edges"), &json!(0.5), &json!("invert"))
    );
    let drawn = server.generate("application/json", &asked).expect(200).json();
    let shown = browser.run("return document.querySelector('#gallery img').src;");
    let expected = format!(
        "data:image/png;base64,{}",
        drawn["pictures"][0]["png"].as_str().unwrap()
    );
    assert_eq!(shown, expected);

    // The gallery brings the picture back; a link does not, and says so.
    browser.click("[data-of=control_image] button");
    assert!(body().get("control").is_none());
    browser.click("#gallery button");
    assert!(browser.text("#shown-facts").contains("ControlNetedges"));
    browser.click("#shown [data-do=reuse]");
    browser.until("document.querySelector('.chosen[data-of=control_image] img').naturalWidth === 32");
    assert_eq!(body(), asked);
    let link = browser.run("return location.href;");
    browser.go("about:blank");
    browser.go(link.as_str().unwrap());
    browser.until("document.documentElement.dataset.ready");
    assert!(browser.text("#alert").contains("Follow a picture"));
    // A model of pictures has none of it.
    browser.set("model", "plain");
    assert_eq!(
        browser.run("return document.getElementById('details-control').hidden;"),
        json!(true)
    );
    let log = browser.log();
    let heard = log
        .as_array()
        .unwrap()
        .iter()
        .filter(|line| line["level"] != "DEBUG");
    assert_eq!(heard.count(), 0, "{log}");
    if let Some(folder) = std::env::var_os("LANGEVIN_SCREENSHOTS") {
        browser.go(&page);
        browser.until("document.documentElement.dataset.ready");
        browser.run("document.getElementById('details-control').open = true;");
        browser.keys("[name=control_image]", path.to_str().unwrap());
        browser.until("document.querySelector('.chosen[data-of=control_image] img').naturalWidth === 32");
        browser.run("document.getElementById('details-control').scrollIntoView();");
        fs::write(
            PathBuf::from(folder).join("control.png"),
            browser.screenshot(false),
        )
        .unwrap();
    }
}
