//! LoRA that requests name, of a folder that the server was started with, and learned words of another.

mod support;

use std::{fs, path::PathBuf, sync::Arc, thread};

use langevin::{
    Lora, Pipeline, Request,
    conditioning::PromptSyntax,
    data::{Picture, decode_picture},
    device::default_device,
    generate::Plan,
    grid,
    options::LoraInput,
    pipelines::{LoadOptions, loaded_bytes},
    settings::{Settings, addition_hash},
};
use langevin_server::{Controls, Loras, Models, ServerOptions};
use serde_json::{Value, json};
use support::{
    Answer, Server,
    browser::{Browser, MISSING, axe},
};

fn reference(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../langevin/tests/reference")
        .join(path)
}

fn file(name: &str) -> PathBuf {
    reference("lora/files").join(name)
}

/// A folder of LoRA: two that fit, one in a folder of its own, one of another base, one that is merged alone, and what is none.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let loras = folder.path().join("loras");
    fs::create_dir_all(loras.join("trained")).unwrap();
    for (from, to) in [
        ("kohya.safetensors", "pixel-art.safetensors"),
        ("peft_metadata_conv.safetensors", "ink v1.5.safetensors"),
        (
            "diffusers_unet_text.safetensors",
            "trained/pytorch_lora_weights.safetensors",
        ),
        ("sdxl_kohya.safetensors", "xl.safetensors"),
        ("loha.safetensors", "loha.safetensors"),
    ] {
        fs::copy(file(from), loras.join(to)).unwrap();
    }
    fs::write(loras.join("broken.safetensors"), b"no weights").unwrap();
    fs::write(loras.join("README.md"), b"not looked at").unwrap();
    let words = folder.path().join("words");
    fs::create_dir_all(&words).unwrap();
    for name in ["a1111.safetensors", "sdxl_clip_l_clip_g.safetensors"] {
        fs::copy(reference("lora/textual_inversion").join(name), words.join(name)).unwrap();
    }
    folder
}

fn server_with(load: &LoadOptions, change: impl FnOnce(&mut ServerOptions)) -> Server {
    let folder = folder();
    let mut models = Models::default();
    for (name, path) in [("sd", "sd/models/sd1"), ("plain", "pipelines/ddim")] {
        let load = if name == "sd" {
            load.clone()
        } else {
            LoadOptions::default()
        };
        models
            .load(name, reference(path), &load, &default_device())
            .unwrap();
    }
    let mut options = ServerOptions {
        loras: Some(Arc::new(Loras::of(folder.path().join("loras")).unwrap())),
        ..ServerOptions::default()
    };
    change(&mut options);
    Server::with(folder, models, options)
}

fn server() -> Server {
    server_with(&LoadOptions::default(), |_| {})
}

fn asked(loras: Value) -> Value {
    json!({ "model": "sd", "prompt": "a cat", "negative_prompt": "blurry", "steps": 3, "seed": 5, "loras": loras })
}

/// The same as the library draws it.
fn request(loras: &[(&str, f64)]) -> Request {
    Request {
        prompt: vec!["a cat".into()],
        negative_prompt: vec!["blurry".into()],
        steps: Some(3),
        seed: 5,
        loras: loras
            .iter()
            .map(|(name, scale)| LoraInput::new(file(name).display().to_string(), *scale))
            .collect(),
        ..Request::default()
    }
}

fn alone(request: &Request) -> Picture {
    let pipeline = Pipeline::load(reference("sd/models/sd1"), &default_device()).unwrap();
    pipeline.generate(request).unwrap().remove(0)
}

fn drawn(server: &Server, body: &Value) -> Picture {
    server.generate("image/png", body).expect(200).picture()
}

#[test]
fn a_request_is_drawn_with_its_lora_whatever_others_are_drawn_with() {
    let server = server();
    let models = server.get("/api/models").json();
    let loras = |number: usize| models["models"][number]["loras"].clone();
    assert_eq!(
        (loras(0), loras(1)),
        (json!(["ink v1.5", "pixel-art", "trained"]), json!([]))
    );

    // By the names that they have there, in whose order they are added up.
    let mut two = request(&[("", -0.7), ("", 0.4)]);
    for (lora, name) in two.loras.iter_mut().zip(["ink v1.5", "pixel-art"]) {
        let path = server.folder.path().join(format!("loras/{name}.safetensors"));
        lora.name = path.display().to_string();
    }
    let cases = [
        (json!([]), request(&[])),
        (
            json!([{ "name": "pixel-art" }]),
            request(&[("kohya.safetensors", 1.0)]),
        ),
        (
            json!([{ "name": "pixel-art", "scale": 0.4 }, { "name": "ink v1.5", "scale": -0.7 }]),
            two,
        ),
        (
            json!({ "name": "trained", "scale": 2 }),
            request(&[("diffusers_unet_text.safetensors", 2.0)]),
        ),
    ];
    let expected: Vec<Picture> = cases.iter().map(|(_, request)| alone(request)).collect();
    assert!(expected.iter().skip(1).all(|picture| *picture != expected[0]));
    // As merged into the weights, but for rounding.
    let options = LoadOptions {
        loras: vec![Lora::new(file("kohya.safetensors"), 1.0)],
        ..LoadOptions::default()
    };
    let merged = Pipeline::load_with(reference("sd/models/sd1"), &options, &default_device()).unwrap();
    let merged = merged.generate(&request(&[])).unwrap().remove(0);
    let off = merged.pixels().iter().zip(expected[1].pixels());
    let off = off.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(off <= 1, "{off}");
    // All at once, several times.
    thread::scope(|scope| {
        for turn in 0..8 {
            let (server, cases, expected) = (&server, &cases, &expected);
            scope.spawn(move || {
                let number = turn % cases.len();
                assert_eq!(
                    drawn(server, &asked(cases[number].0.clone())),
                    expected[number],
                    "{number}"
                );
            });
        }
    });
    // What was drawn with them is not in the model.
    assert_eq!(drawn(&server, &asked(json!([]))), expected[0]);
}

#[test]
fn prompts_name_lora_as_a1111_writes_them() {
    let server = server();
    let mut body = asked(json!([]));
    body["prompt"] = json!("a cat<lora:pixel-art:0.4>");
    assert_eq!(
        drawn(&server, &body),
        alone(&request(&[("kohya.safetensors", 0.4)]))
    );
    body["prompt"] = json!("<lyco:pixel-art:0.4:0>a cat");
    let texts_alone = drawn(&server, &body);
    let mut library = request(&[("kohya.safetensors", 0.0)]);
    library.loras[0].parts = [
        ("text_encoder".to_string(), 0.4),
        ("text_encoder_2".to_string(), 0.4),
    ]
    .into();
    assert_eq!(texts_alone, alone(&library));
    // In its own API, with the weights that its prompts have.
    let body = json!({
        "prompt": "a (cat:1.2) <lora:ink v1.5:0.5>", "negative_prompt": "[blurry]", "steps": 3, "seed": 5, "cfg_scale": 7.5,
        "width": 32, "height": 32, "sampler_name": "Euler"
    });
    let headers = [
        ("Content-Type", "application/json"),
        ("Accept", "application/json"),
    ];
    let answer = server
        .call("POST", "/sdapi/v1/txt2img", &headers, body.to_string().as_bytes())
        .expect(200)
        .json();
    let png = base64::Engine::decode(
        &base64::engine::general_purpose::STANDARD,
        answer["images"][0].as_str().unwrap(),
    );
    let mut library = Request {
        prompt: vec!["a (cat:1.2) ".into()],
        negative_prompt: vec!["[blurry]".into()],
        prompt_syntax: PromptSyntax::A1111,
        scheduler: Some("euler".into()),
        size: Some("32x32".parse().unwrap()),
        ..request(&[("peft_metadata_conv.safetensors", 0.5)])
    };
    library.guidance.scale = Some(7.5);
    assert_eq!(
        decode_picture(&png.unwrap(), 4096, "it").unwrap(),
        alone(&library)
    );
    let names = server.get("/sdapi/v1/loras").expect(200).json();
    let names: Vec<&str> = names
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["broken", "ink v1.5", "loha", "pixel-art", "trained", "xl"]
    );
    assert!(!server.get("/sdapi/v1/loras").text().contains('/'), "no folders");

    let tagged = |prompt: &str| {
        let mut body = asked(json!([]));
        body["prompt"] = json!(prompt);
        server.generate("image/png", &body)
    };
    assert_eq!(
        tagged("a <lora:none:1>").refused(422, &["there is no LoRA `none`", "each model's loras"])["field"],
        "loras"
    );
    assert_eq!(
        tagged("a <lora:pixel-art:much>").refused(422, &["no finite number"])["field"],
        "prompt"
    );
    assert_eq!(
        tagged("a <lora:pixel-art").refused(422, &["does not end in `>`"])["field"],
        "prompt"
    );
    let many = "<lora:pixel-art:0.01>".repeat(17);
    assert_eq!(
        tagged(&many).refused(422, &["loras lists 17", "16 at most"])["field"],
        "loras"
    );
    let mut negative = asked(json!([]));
    negative["negative_prompt"] = json!("<lora:pixel-art>");
    server
        .generate("image/png", &negative)
        .refused(422, &["only prompt may name some"]);
}

#[test]
fn nothing_but_a_name_of_the_folder_is_taken() {
    let server = server();
    let folder = server.folder.path().display().to_string();
    let refused = |loras: Value, parts: &[&str]| {
        let answer = server.generate("image/png", &asked(loras)).refused(422, parts);
        assert!(!answer["error"].as_str().unwrap().contains(&folder), "{answer}");
        answer
    };
    let path = file("kohya.safetensors").display().to_string();
    for name in [
        path.as_str(),
        "../loras/pixel-art",
        "pixel-art.safetensors",
        "./pixel-art",
        "trained/",
        ".",
        "",
        "README",
    ] {
        let answer = refused(json!({ "name": name }), &["there is no LoRA", "on this server"]);
        assert_eq!(answer["field"], "loras");
    }
    refused(
        json!({ "name": "loha" }),
        &["loha.safetensors", "is a LoHa", "by `lora`"],
    );
    refused(json!({ "name": "xl" }), &["xl.safetensors", "another"]);
    refused(json!({ "name": "broken" }), &["broken.safetensors"]);
    refused(
        json!({ "name": "pixel-art", "scale": 1e9 }),
        &["scale of", "-1000 to 1000"],
    );
    refused(json!({ "scale": 1 }), &["has no `name`"]);
    refused(json!({ "name": "pixel-art", "path": "x" }), &["no field `path`"]);
    refused(
        json!({ "name": "pixel-art", "parts": { "unet": "all" } }),
        &["unet", "a number"],
    );
    refused(
        json!(vec![json!({ "name": "pixel-art" }); 17]),
        &["17", "16 at most"],
    );
    let with_parts = json!({ "name": "pixel-art", "parts": { "unet": 0, "text_encoder": 0.5 } });
    assert_ne!(
        drawn(&server, &asked(with_parts)),
        drawn(&server, &asked(json!([])))
    );
    let plain = json!({ "model": "plain", "steps": 2, "loras": { "name": "pixel-art" } });
    server
        .generate("image/png", &plain)
        .refused(422, &["loras is for pipelines with a UNet"]);

    let without = Server::latent(ServerOptions::default());
    without
        .generate("image/png", &asked(json!({ "name": "pixel-art" })))
        .refused(422, &["there is no LoRA `pixel-art` on this server"]);
}

/// The texts of a PNG.
fn texts(server: &Server, body: &Value) -> Vec<(String, String)> {
    let png = server.generate("image/png", body).expect(200).body;
    let path = server.folder.path().join("drawn.png");
    fs::write(&path, png).unwrap();
    grid::read_png_text(path).unwrap()
}

#[test]
fn pictures_name_lora_and_words_by_hashes_and_without_folders() {
    let load = LoadOptions {
        loras: vec![Lora::new(file("kohya.safetensors"), 0.3)],
        embedding_folder: Some(folder().keep().join("words")),
        ..LoadOptions::default()
    };
    let server = server_with(&load, |_| {});
    let words = server.get("/api/models/sd").json()["embeddings"].clone();
    assert_eq!(words, json!(["a1111"]), "those of XL do not fit");
    let mut body = asked(json!([{ "name": "ink v1.5", "scale": 0.5 }]));
    body["prompt"] = json!("a1111 of a cat");
    let texts = texts(&server, &body);
    for (key, text) in &texts {
        assert!(!text.contains('/') && !text.contains("\\\\"), "{key}: {text}");
    }
    let parameters = &texts.iter().find(|(key, _)| key == "parameters").unwrap().1;
    assert!(
        parameters.starts_with("a1111 of a cat <lora:kohya:0.3> <lora:ink v1.5:0.5>\n"),
        "{parameters}"
    );
    let hash = |path: PathBuf, is_lora| addition_hash(path, is_lora).unwrap();
    let [kohya, ink] =
        ["kohya", "peft_metadata_conv"].map(|name| hash(file(&format!("{name}.safetensors")), true));
    let expected = format!(
        "Lora hashes: \"kohya: {}, ink v1.5: {}\"",
        &kohya[..12],
        &ink[..12]
    );
    assert!(parameters.contains(&expected), "{parameters}");
    let word = hash(reference("lora/textual_inversion/a1111.safetensors"), false);
    assert!(
        parameters.contains(&format!("a1111: {}", &word[..12])),
        "{parameters}"
    );
    let settings = Settings::of_texts(&texts).unwrap().unwrap();
    let named: Vec<String> = settings
        .loras
        .iter()
        .map(|lora| lora.path.display().to_string())
        .collect();
    assert_eq!(named, ["kohya.safetensors", "ink v1.5.safetensors"]);
    assert_eq!(settings.loras[1].hash.as_deref(), Some(ink.as_str()));
    assert_eq!(settings.embeddings.len(), 1);

    // What is loaded by now is named all the same.
    assert_eq!(self::texts(&server, &body), texts);

    // A text without the word names no file of it, and without settings nothing is named.
    let plain = self::texts(&server, &asked(json!([])));
    assert!(
        plain
            .iter()
            .all(|(_, text)| !text.contains("TI hashes") && !text.contains("a1111.safetensors"))
    );
    let silent = server_with(&load, |options| options.no_metadata = true);
    assert!(self::texts(&silent, &body).is_empty());
}

#[test]
fn a_lora_that_is_on_the_model_is_not_asked_for_again() {
    let on_it = folder().keep().join("loras/pixel-art.safetensors");
    let load = LoadOptions {
        loras: vec![Lora::new(on_it, 0.4)],
        ..LoadOptions::default()
    };
    let server = server_with(&load, |_| {});
    for loras in [
        json!([]),
        json!([{ "name": "trained", "scale": 0.5 }]),
        // Once more, beside what is on it.
        json!([{ "name": "pixel-art", "scale": 0.5 }]),
    ] {
        let drawn = server.generate("image/png", &asked(loras.clone())).expect(200);
        let said = read(&server, &drawn.body).expect(200).json();
        assert_eq!(said["notices"], json!([]));
        let again = said["request"].get("loras").cloned().unwrap_or(json!([]));
        assert_eq!(again, loras, "{said}");
        let mut again = said["request"].clone();
        again["model"] = json!("sd");
        let again = server.generate("image/png", &again).expect(200);
        assert_eq!(again.picture(), drawn.picture());
    }
}

#[test]
fn a_lora_of_what_is_no_number_is_refused() {
    let server = server_with(&LoadOptions::default(), |options| {
        let folder = folder().keep();
        let mut tensors = langevin::weights::read_tensors(file("kohya.safetensors")).unwrap();
        let down = tensors
            .values_mut()
            .find(|tensor| tensor.name.ends_with("lora_down.weight"));
        down.unwrap().values[0] = f32::INFINITY;
        let tensors: Vec<_> = tensors.into_values().collect();
        langevin::weights::write_tensors(folder.join("loras/broken-numbers.safetensors"), &tensors).unwrap();
        options.loras = Some(Arc::new(Loras::of(folder.join("loras")).unwrap()));
    });
    server
        .generate("image/png", &asked(json!([{ "name": "broken-numbers" }])))
        .refused(422, &["broken-numbers.safetensors", "not finite"]);
    let plain = server.generate("image/png", &asked(json!([]))).expect(200);
    assert_eq!(plain.picture(), alone(&request(&[])));
}

#[test]
fn a_learned_word_of_a_folder_is_drawn() {
    let words = folder().keep().join("words");
    let load = LoadOptions {
        embedding_folder: Some(words.clone()),
        ..LoadOptions::default()
    };
    let server = server_with(&load, |_| {});
    let mut body = asked(json!([]));
    body["prompt"] = json!("a cat in the manner of a1111");
    let pipeline = Pipeline::load_with(
        reference("sd/models/sd1"),
        &LoadOptions {
            embeddings: vec![
                words
                    .join("a1111.safetensors")
                    .display()
                    .to_string()
                    .parse()
                    .unwrap(),
            ],
            ..LoadOptions::default()
        },
        &default_device(),
    )
    .unwrap();
    let library = Request {
        prompt: vec!["a cat in the manner of a1111".into()],
        ..request(&[])
    };
    let expected = pipeline.generate(&library).unwrap().remove(0);
    assert_ne!(expected, alone(&library));
    assert_eq!(drawn(&server, &body), expected);
}

#[test]
fn what_there_is_no_room_for_is_refused_and_models_go_first() {
    let folder = folder();
    let path = reference("sd/models/sd1");
    let load = LoadOptions::default();
    let one = loaded_bytes(&path, &load).unwrap();
    let mut models = Models::default().with_max_memory(2 * one + 1000);
    for name in ["sd", "other"] {
        models.load(name, &path, &load, &default_device()).unwrap();
    }
    let nets = folder.path().join("nets");
    support::copy(&reference("controlnet/models/net_a"), &nets.join("edges"));
    let options = ServerOptions {
        loras: Some(Arc::new(Loras::of(folder.path().join("loras")).unwrap())),
        controls: Some(Arc::new(Controls::of(&nets, &default_device()).unwrap())),
        ..ServerOptions::default()
    };
    let server = Server::with(folder, models, options);
    let loaded = |number: usize| server.get("/api/models").json()["models"][number]["loaded"].clone();
    assert_eq!((loaded(0), loaded(1)), (json!(true), json!(true)));
    // The other model is let go of for it.
    drawn(&server, &asked(json!({ "name": "pixel-art" })));
    assert_eq!((loaded(0), loaded(1)), (json!(true), json!(false)));
    // Then the LoRA for the other model.
    let mut other = asked(json!([]));
    other["model"] = json!("other");
    drawn(&server, &other);
    assert_eq!(loaded(1), json!(true));

    let folder = self::folder();
    let mut models = Models::default().with_max_memory(one + 1000);
    models.load("sd", &path, &load, &default_device()).unwrap();
    let options = ServerOptions {
        loras: Some(Arc::new(Loras::of(folder.path().join("loras")).unwrap())),
        controls: Some(Arc::new(Controls::of(&nets, &default_device()).unwrap())),
        ..ServerOptions::default()
    };
    let full = Server::with(folder, models, options);
    full.generate("image/png", &asked(json!({ "name": "pixel-art" })))
        .refused(503, &["the LoRA `pixel-art` takes", "which are not free"]);
    let png = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        grid::png_bytes(&alone(&request(&[]))).unwrap(),
    );
    let mut followed = asked(json!([]));
    followed["control"] = json!({ "model": "edges", "picture": png });
    full.generate("image/png", &followed)
        .refused(503, &["the ControlNet `edges` takes", "which are not free"]);
    // What needs no more than there is goes on.
    drawn(&full, &asked(json!([])));
}

#[test]
fn a_plan_of_the_library_lends_by_path() {
    let pipeline = Pipeline::load(reference("sd/models/sd1"), &default_device()).unwrap();
    let plan = Plan::of(&pipeline, &request(&[("kohya.safetensors", 0.5)])).unwrap();
    assert_eq!(
        plan.facts("sd", None)
            .iter()
            .find(|(key, _)| *key == "lora")
            .unwrap()
            .1,
        "kohya:0.5"
    );
}

/// Reads the settings of a PNG by the server.
fn read(server: &Server, png: &[u8]) -> Answer {
    server.call("POST", "/api/settings", &[("Content-Type", "image/png")], png)
}

/// A PNG of one grey pixel with a text in it.
fn with_text(folder: &std::path::Path, keyword: &str, text: &str) -> Vec<u8> {
    let path = folder.join("text.png");
    let picture = Picture::new(1, 1, langevin::data::Channels::Grey, vec![90]).unwrap();
    grid::write_png(&path, &picture, &[(keyword, text.to_string())]).unwrap();
    fs::read(path).unwrap()
}

const A1111: &str = "a (lighthouse:1.2) <lora:pixel-art:0.8> <lora:gone:0.5>\nNegative prompt: blur\nSteps: 4, Sampler: Euler a, \
    CFG scale: 5, Seed: 7, Size: 32x48, Model: sd, Lora hashes: \"pixel-art: 0123456789ab, gone: fedcba987654\", Version: v1.9.4";

#[test]
fn the_settings_of_a_picture_draw_it_again() {
    let server = server();
    let mut body = asked(
        json!([{ "name": "pixel-art", "scale": 0.4 }, { "name": "trained", "parts": { "text_encoder": 0.0 } }]),
    );
    body["size"] = json!("32x48");
    let drawn = server.generate("image/png", &body).expect(200);
    let said = read(&server, &drawn.body).expect(200).json();
    assert_eq!(
        (&said["program"], &said["model"], &said["notices"]),
        (&json!("langevin"), &json!("sd"), &json!([]))
    );
    let mut again = said["request"].clone();
    again["model"] = said["model"].clone();
    assert_eq!(again["loras"][1]["parts"], json!({ "text_encoder": 0.0 }));
    let again = server.generate("image/png", &again).expect(200);
    assert_eq!(again.picture(), drawn.picture());

    let folder = server.folder.path();
    let said = read(&server, &with_text(folder, "parameters", A1111))
        .expect(200)
        .json();
    assert_eq!(
        (&said["program"], &said["model"]),
        (&json!("A1111"), &json!("sd"))
    );
    let request = &said["request"];
    assert_eq!(request["prompt"], json!(["a (lighthouse:1.2)"]));
    assert_eq!(
        (
            &request["prompt_syntax"],
            &request["scheduler"],
            &request["size"],
            &request["seeds"]
        ),
        (&json!("a1111"), &json!("euler-a"), &json!("32x48"), &json!([7]))
    );
    assert_eq!(request["loras"], json!([{ "name": "pixel-art", "scale": 0.8 }]));
    let notices = said["notices"].to_string();
    assert!(
        notices.contains("the LoRA gone (fedcba987654), which is not here"),
        "{notices}"
    );
    assert!(
        notices.contains("pixel-art here is another one") && notices.contains("was 0123456789ab"),
        "{notices}"
    );
    server.generate("image/png", request).expect(200);

    // Of other programs and of none, and what is no picture.
    let comfy = r#"{"3": {"class_type": "KSampler", "inputs": {"seed": 5}}}"#;
    for (keyword, text, part) in [
        ("prompt", comfy, "not enough to draw it again"),
        ("Title", "a lighthouse", "nothing about how it was drawn"),
        ("langevin", "{", "settings in the picture are broken"),
        (
            "langevin",
            r#"{"request": {"steps": "many"}}"#,
            "settings in the picture are broken",
        ),
    ] {
        read(&server, &with_text(folder, keyword, text)).refused(422, &[part]);
    }
    for junk in [
        &b"not a picture"[..],
        &drawn.body[..40],
        &[0xff, 0xd8, 0xff, 0xe0, 0, 16],
        b"",
    ] {
        read(&server, junk).refused(422, &["is not a whole PNG"]);
    }
    server
        .call("POST", "/api/settings", &[("Content-Type", "image/jpeg")], b"x")
        .refused(415, &["image/png"]);
    // What a picture says of files is not looked for.
    let own = json!({ "request": { "prompt": "x", "loras": [{ "name": "/etc/passwd" }] }, "pictures": { "init_image": "/etc/passwd" },
        "loras": [{ "path": "/etc/passwd", "scale": { "all": 1.0, "parts": [] }, "hash": null }] });
    let said = read(&server, &with_text(folder, "langevin", &own.to_string()))
        .expect(200)
        .json();
    assert_eq!(said["request"], json!({ "prompt": ["x"] }));
    assert!(
        said["notices"]
            .to_string()
            .contains("the LoRA passwd, which is not here"),
        "{said}"
    );
}

#[test]
fn a_lora_is_chosen_on_the_page_and_a_dropped_png_fills_the_form() {
    let server = server();
    let Some(browser) = Browser::open(1280, 900) else {
        println!("{MISSING}");
        return;
    };
    browser.go(&format!(
        "http://{}/#model=sd&seed=5&steps=3&prompt=a+cat",
        server.address
    ));
    browser.until("document.documentElement.dataset.ready");
    let body = || browser.wait_for("import('/page/settings.js').then(({ request }) => request())");
    assert!(body()["loras"].is_null());
    browser.run("document.getElementById('details-loras').open = true;");
    browser.click("#lora-add");
    browser.click("#lora-add");
    let choices =
        "return [...document.querySelectorAll('#lora-rows select')[0].options].map(({ value }) => value);";
    assert_eq!(browser.run(choices), json!(["ink v1.5", "pixel-art", "trained"]));
    browser.run(
        "const [select] = document.querySelectorAll('#lora-rows select'), [scale] = document.querySelectorAll('#lora-rows input');
         select.value = 'pixel-art'; scale.value = '0.4';
         for (const one of [select, scale]) one.dispatchEvent(new Event('input', { bubbles: true }));",
    );
    browser.click("#lora-rows > :nth-child(2) button");
    assert_eq!(body()["loras"], json!([{ "name": "pixel-art", "scale": 0.4 }]));
    browser.run("document.getElementById('settings').requestSubmit();");
    browser.until("document.querySelectorAll('#gallery li').length === 1");
    let asked = body();
    let drawn = server.generate("application/json", &asked).expect(200).json();
    let png = drawn["pictures"][0]["png"].as_str().unwrap().to_string();
    let shown = browser.run("return document.querySelector('#gallery img').src;");
    assert_eq!(shown, format!("data:image/png;base64,{png}"));
    browser.click("#gallery button");
    assert!(browser.text("#shown-facts").contains("pixel-art (0.4)"));
    browser.click("#shown [data-do=close]");
    // A link brings it back, and says what there is not.
    let link = browser.run("return location.href;").as_str().unwrap().to_string();
    browser.go("about:blank");
    browser.go(&link.replace("pixel-art", "none"));
    browser.until("document.documentElement.dataset.ready");
    assert!(browser.text("#alert").contains("no LoRA “none”"));
    browser.go("about:blank");
    browser.go(&link);
    browser.until("document.documentElement.dataset.ready");
    assert_eq!(body(), asked);

    // The picture's own file, chosen, gives the same request again.
    let own = server.generate("image/png", &asked).expect(200).body;
    let path = server.folder.path().join("own.png");
    fs::write(&path, own).unwrap();
    browser.go("about:blank");
    browser.go(&format!("http://{}/", server.address));
    browser.until("document.documentElement.dataset.ready");
    browser.keys("#settings-of", path.to_str().unwrap());
    browser.until("!document.getElementById('settings-said').hidden");
    let said = browser.text("#settings-said");
    assert_eq!(said, "The settings of “own.png” (langevin) are in the form.");
    let again = body();
    for field in ["model", "prompt", "seed", "steps", "loras", "guidance_scale"] {
        assert_eq!(again[field], asked[field], "{field}");
    }
    let again = server.generate("application/json", &again).expect(200).json();
    assert_eq!(again["pictures"][0]["seed"], drawn["pictures"][0]["seed"]);

    // One of A1111's is dropped beside the form.
    let a1111 = with_text(server.folder.path(), "parameters", A1111);
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, a1111);
    browser.run(&format!(
        "window.put = (name, type, base64) => {{
           const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
           const dataTransfer = new DataTransfer();
           dataTransfer.items.add(new File([bytes], name, {{ type }}));
           document.getElementById('settings-said').textContent = '';
           const target = document.getElementById('pictures');
           for (const kind of ['dragover', 'drop']) target.dispatchEvent(new DragEvent(kind, {{ dataTransfer, bubbles: true, cancelable: true }}));
         }};
         window.put('theirs.png', 'image/png', '{encoded}');"
    ));
    browser.until("document.getElementById('settings-said').textContent.includes('theirs.png')");
    let said = browser.text("#settings-said");
    assert!(
        said.contains("(A1111)") && said.contains("It was drawn with the LoRA gone (fedcba987654)"),
        "{said}"
    );
    let theirs = body();
    assert!(theirs["seeds"].is_null(), "the dice changes the seed: {theirs}");
    assert_eq!(
        (
            &theirs["prompt"],
            &theirs["negative_prompt"],
            &theirs["sampler"],
            &theirs["size"],
            &theirs["prompt_syntax"]
        ),
        (
            &json!("a (lighthouse:1.2)"),
            &json!("blur"),
            &json!("euler-a"),
            &json!("32x48"),
            &json!("a1111")
        )
    );
    assert_eq!(
        (&theirs["seed"], &theirs["guidance_scale"], &theirs["loras"]),
        (
            &json!(7),
            &json!(5),
            &json!([{ "name": "pixel-art", "scale": 0.8 }])
        )
    );
    server.generate("image/png", &theirs).expect(200);
    // Others give a line, and leave the form as it is.
    for (name, kind, base64, part) in [
        ("photo.jpg", "image/jpeg", "/9j/4AAQ", "is no PNG"),
        ("cut.png", "image/png", "iVBORw0KGgo=", "not a whole PNG"),
        (
            "plain.png",
            "image/png",
            png_of_nothing().as_str(),
            "nothing about how it was drawn",
        ),
    ] {
        browser.run(&format!("window.put('{name}', '{kind}', '{base64}');"));
        browser.until(&format!(
            "document.getElementById('settings-said').textContent.includes('{part}')"
        ));
        assert_eq!(body(), theirs);
    }
    if let Some(axe) = axe() {
        browser.run("document.getElementById('details-loras').open = true;");
        browser.run(&axe);
        let found = browser.wait_for(
            "axe.run().then(({ violations }) => violations.filter(({ impact }) => ['serious', 'critical'].includes(impact)).map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html)}`))",
        );
        assert_eq!(found, json!([]));
    }
    if let Some(folder) = std::env::var_os("LANGEVIN_SCREENSHOTS") {
        browser.run("document.getElementById('details-loras').scrollIntoView();");
        fs::write(PathBuf::from(folder).join("loras.png"), browser.screenshot(false)).unwrap();
    }
    // A model of pictures has none of it.
    browser.set("model", "plain");
    browser.until("document.getElementById('details-loras').hidden");
    let log = browser.log();
    let heard = log.as_array().unwrap().iter();
    // The refusals above are told of by the browser itself.
    let heard = heard.filter(|line| line["level"] != "DEBUG" && !line["message"].to_string().contains("422"));
    assert_eq!(heard.count(), 0, "{log}");
}

/// A PNG that says nothing, in base64.
fn png_of_nothing() -> String {
    let picture = Picture::new(1, 1, langevin::data::Channels::Grey, vec![90]).unwrap();
    base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        grid::png_bytes(&picture).unwrap(),
    )
}

#[test]
fn settings_are_compared_on_the_page() {
    let server = server();
    let Some(browser) = Browser::open(1280, 900) else {
        println!("{MISSING}");
        return;
    };
    browser.go(&format!(
        "http://{}/#model=sd&seed=5&steps=3&prompt=a+cat",
        server.address
    ));
    browser.until("document.documentElement.dataset.ready");
    browser.run("document.getElementById('details-compare').open = true;");
    let asked = |text: &str| {
        browser.run(&format!(
            "document.getElementById('settings').elements.compare.value = '{text}';"
        ));
        browser.click("#compare-draw");
    };
    for (text, part) in [
        ("", "Say what is compared"),
        ("steps", "no setting with its values"),
        ("steps=2,3; steps=4", "there twice"),
        ("steps=1,2,3,4,5,6,7; seed=1,2,3,4,5,6", "42 pictures"),
        ("colour=red", "no setting “colour”"),
        ("steps=2,many", "steps is a whole number"),
    ] {
        asked(text);
        browser.until(&format!(
            "document.getElementById('compare-said').textContent.toLowerCase().includes('{}')",
            part.to_lowercase()
        ));
    }
    assert_eq!(
        browser.run("return document.querySelectorAll('#gallery li').length;"),
        json!(0)
    );
    asked("guidance-scale=3,7.5; steps=2,3,4");
    browser.until("document.querySelectorAll('#gallery li').length === 1");
    browser.until("document.getElementById('compare-said').textContent.includes('all 6')");
    // Each cell is what its settings give alone.
    let whole = browser.run("return document.querySelector('#gallery img').src;");
    let whole = whole.as_str().unwrap().split_once(',').unwrap().1.to_string();
    let whole = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, whole).unwrap();
    let whole = decode_picture(&whole, 4096, "it").unwrap();
    let base = browser.wait_for("import('/page/settings.js').then(({ request }) => request())");
    let mut found = 0;
    for scale in [3.0, 7.5] {
        for steps in [2, 3, 4] {
            let mut body = base.clone();
            body["guidance_scale"] = json!(scale);
            body["steps"] = json!(steps);
            found += usize::from(holds(&whole, &drawn(&server, &body)));
        }
    }
    assert_eq!(found, 6);
    if let Some(folder) = std::env::var_os("LANGEVIN_SCREENSHOTS") {
        browser.click("#gallery button");
        fs::write(
            PathBuf::from(folder).join("compare.png"),
            browser.screenshot(false),
        )
        .unwrap();
    }
    let log = browser.log();
    let heard = log.as_array().unwrap().iter();
    let heard = heard.filter(|line| line["level"] != "DEBUG" && !line["message"].to_string().contains("422"));
    assert_eq!(heard.count(), 0, "{log}");
}

/// Whether a picture stands in a larger one, four times as large.
fn holds(whole: &Picture, part: &Picture) -> bool {
    let channels = whole.pixels().len() / (whole.height() * whole.width());
    let at = |y: usize, x: usize| &whole.pixels()[(y * whole.width() + x) * channels..][..3];
    let rows = 0..whole.height().saturating_sub(4 * part.height()) + 1;
    rows.into_iter().any(|top| {
        (0..whole.width().saturating_sub(4 * part.width()) + 1).any(|left| {
            (0..part.height()).all(|y| {
                (0..part.width()).all(|x| {
                    let own = &part.pixels()[(y * part.width() + x) * 3..][..3];
                    at(top + 4 * y, left + 4 * x) == own
                })
            })
        })
    })
}
