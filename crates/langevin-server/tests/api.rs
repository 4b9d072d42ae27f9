//! The API: what it draws, what it refuses, and that its description is true.

mod support;

use std::{collections::BTreeSet, fs, thread, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use burn::tensor::Tensor;
use langevin::{
    Request, Size,
    conditioning::PromptSyntax,
    data::{Channels, Picture, decode_picture},
    device::default_device,
    grid,
    guidance::ClassifierFree,
    pipelines::{Pipeline, SampleOptions},
    settings::Settings,
    training::RunLock,
};
use langevin_server::{GenerateRequest, Limits, ServerOptions};
use serde_json::{Value, json};
use support::{Server, alone, latent_model, receive, until};

fn server() -> Server {
    Server::start(ServerOptions::default())
}

fn of_class(class: i64) -> SampleOptions {
    SampleOptions {
        classes: Some(vec![class]),
        ..SampleOptions::default()
    }
}

#[test]
fn a_picture_is_what_the_library_draws() {
    let server = server();
    let grey = server.folder.path().join("grey");
    let answer = server.generate(
        "image/png",
        &json!({ "class": "light", "sampler": "ddim", "steps": 5, "seed": 7 }),
    );
    assert_eq!(
        answer.expect(200).picture(),
        alone(&grey, "ddim", 5, 7, of_class(1))
    );

    // The model is found by its name, and its own sampler draws noise in each step.
    let answer = server.generate("*/*", &json!({ "model": "colour", "steps": 5, "seed": 8 }));
    let colour = server.folder.path().join("colour");
    assert_eq!(
        answer.expect(200).picture(),
        alone(&colour, "ddpm", 5, 8, SampleOptions::default())
    );

    let answer = server.generate(
        "image/png",
        &json!({ "class": "dark", "negative_class": "light", "guidance_scale": 3.0, "sampler": "unipc", "steps": 4 }),
    );
    let guided = SampleOptions {
        guidance: ClassifierFree::of_scale(3.0),
        negative_classes: Some(vec![1]),
        ..of_class(0)
    };
    assert_eq!(answer.expect(200).picture(), alone(&grey, "unipc", 4, 0, guided));
}

#[test]
fn several_pictures_have_seeds_of_their_own_and_take_turns_in_classes() {
    let server = server();
    let grey = server.folder.path().join("grey");
    let request = json!({ "sampler": "euler-a", "steps": 4, "seed": 3, "count": 5 });
    let answer = server.generate("application/json", &request).expect(200).json();
    let pictures = answer["pictures"].as_array().unwrap();
    assert_eq!((pictures.len(), answer["model"].as_str()), (5, Some("grey")));
    let mut all = Vec::new();
    for (number, picture) in pictures.iter().enumerate() {
        let (seed, class) = (3 + number as u64, (number % 2) as i64);
        assert_eq!(picture["seed"], seed);
        assert_eq!(picture["class"], ["dark", "light"][number % 2]);
        let png = STANDARD.decode(picture["png"].as_str().unwrap()).unwrap();
        let drawn = decode_picture(&png, 64, "it").unwrap();
        assert_eq!(
            drawn,
            alone(&grey, "euler-a", 4, seed, of_class(class)),
            "seed {seed}"
        );
        all.push(drawn);
    }
    let whole = server.generate("image/png", &request).expect(200).picture();
    assert_eq!(whole, grid::side_by_side(&all, 3).unwrap());
}

#[test]
fn a_file_says_how_it_was_drawn() {
    let server = server();
    let request =
        json!({ "class": "light", "sampler": "ddim", "steps": 3, "seed": 9, "guide": ["brightness:0.8@10"] });
    let answer = server.generate("image/png", &request).expect(200);
    let path = server.folder.path().join("drawn.png");
    fs::write(&path, &answer.body).unwrap();
    let texts = grid::read_png_text(&path).unwrap();
    for (keyword, text) in [
        ("seed", "9"),
        ("scheduler", "DDIMScheduler"),
        ("steps", "3"),
        ("model", "grey"),
        ("guides", "brightness:0.8@10"),
        ("class", "light"),
    ] {
        assert!(
            texts.contains(&(keyword.into(), text.into())),
            "{keyword}: {texts:?}"
        );
    }
}

#[test]
fn events_tell_the_way_and_end_in_the_picture() {
    let server = server();
    let request = json!({ "class": "dark", "sampler": "ddim", "steps": 12, "count": 2, "previews": 6 });
    let answer = server.generate("text/event-stream", &request).expect(200);
    let events = answer.events();
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..2], ["queued", "started"]);
    let description = server.get("/api/openapi.json").json();
    let told = |schema: &str, data: &Value| {
        let properties = &description["components"]["schemas"][schema]["properties"];
        let keys =
            |value: &Value| -> BTreeSet<String> { value.as_object().unwrap().keys().cloned().collect() };
        assert_eq!(keys(properties), keys(data), "{schema}");
    };
    for (name, data) in &events {
        match name.as_str() {
            "queued" => told("Queued", data),
            "progress" => {
                told("Progress", data);
                let previews = data["previews"].as_array().unwrap();
                previews.iter().for_each(|preview| told("Preview", preview));
            }
            "picture" => told("Picture", data),
            "done" => told("Done", data),
            name => assert_eq!(name, "started"),
        }
    }
    assert_eq!(names.last(), Some(&"done"));
    assert_eq!(names.iter().filter(|name| **name == "picture").count(), 2);

    let progress: Vec<&Value> = events
        .iter()
        .filter(|(name, _)| name == "progress")
        .map(|(_, data)| data)
        .collect();
    let done: Vec<u64> = progress
        .iter()
        .map(|data| data["done"].as_u64().unwrap())
        .collect();
    assert!(
        done.is_sorted() && done.iter().all(|&done| done <= 24),
        "{done:?}"
    );
    assert!(
        progress
            .iter()
            .all(|data| data["total"] == 24 && data["seconds_left"].as_f64().unwrap() >= 0.0)
    );
    let previews: Vec<&Value> = progress
        .iter()
        .flat_map(|data| data["previews"].as_array().unwrap())
        .collect();
    // Each moment shows both pictures.
    assert!(!previews.is_empty() && previews.len() <= 12, "{}", previews.len());
    for preview in &previews {
        for which in ["sample", "clean"] {
            let png = STANDARD.decode(preview[which].as_str().unwrap()).unwrap();
            let picture = decode_picture(&png, 64, which).unwrap();
            assert_eq!((picture.height(), picture.width()), (8, 8));
        }
    }
    let grey = server.folder.path().join("grey");
    let last = events
        .iter()
        .rfind(|(name, data)| name == "picture" && data["number"] == 1)
        .unwrap();
    let png = STANDARD.decode(last.1["png"].as_str().unwrap()).unwrap();
    assert_eq!(
        decode_picture(&png, 64, "it").unwrap(),
        alone(&grey, "ddim", 12, 1, of_class(0))
    );
}

#[test]
fn the_way_out_of_the_noise_is_a_gif() {
    let server = server();
    let answer = server
        .generate("image/gif", &json!({ "sampler": "ddim", "steps": 4, "count": 2 }))
        .expect(200);
    assert_eq!(answer.header("content-type"), Some("image/gif"));
    assert!(answer.body.starts_with(b"GIF89a"));
    let first = decode_picture(&answer.body, 4096, "the animation").unwrap();
    assert_eq!((first.height(), first.width()), (68, 134));
}

#[test]
fn a_picture_can_be_begun_with() {
    let server = server();
    let colour = Picture::new(20, 30, Channels::Rgb, vec![200; 1800]).unwrap();
    let encoded = STANDARD.encode(grid::png_bytes(&colour).unwrap());
    let draw = |image: Value, strength: f64| {
        let request = json!({ "model": "colour", "sampler": "ddim", "steps": 10, "init_image": image, "strength": strength });
        server.generate("image/png", &request)
    };
    let plain = draw(encoded.clone().into(), 0.3).expect(200).picture();
    let url = draw(format!("data:image/png;base64,{encoded}").into(), 0.3)
        .expect(200)
        .picture();
    assert_eq!(plain, url);
    assert_ne!(plain, draw(encoded.into(), 1.0).expect(200).picture());
    draw("no picture".into(), 0.5).refused(422, &["init_image", "base64"]);
    draw(STANDARD.encode("no picture").into(), 0.5).refused(422, &["init_image is not a picture"]);
    draw(STANDARD.encode(grid::png_bytes(&colour).unwrap()).into(), 0.01)
        .refused(422, &["leaves none of 10 steps"]);
}

#[test]
fn limits_are_answered_with_the_limit() {
    let server = Server::start(ServerOptions {
        limits: Limits {
            steps: 20,
            count: 3,
            side: 64,
            body: 100_000,
            ..Limits::default()
        },
        ..ServerOptions::default()
    });
    let draw = |request: Value| server.generate("image/png", &request);
    for (request, limit) in [
        (json!({ "steps": 21 }), 20),
        (json!({ "steps": 2, "count": 4 }), 3),
    ] {
        assert_eq!(draw(request).refused(422, &["at most"])["limit"], limit);
    }
    // The sampler's usual number would be a thousand.
    assert_eq!(draw(json!({})).refused(422, &["steps is 1000"])["field"], "steps");
    assert_eq!(
        draw(json!({ "steps": 2, "previews": 101 })).refused(422, &["previews"])["limit"],
        100
    );
    draw(json!({ "steps": 2, "prompt": "a".repeat(1001) }))
        .refused(422, &["prompt has 1001 characters", "1000"]);
    draw(json!({ "steps": 0 })).refused(422, &["steps is 0"]);
    draw(json!({ "steps": 2, "count": 0 })).refused(422, &["count is 0"]);

    let large = Picture::new(65, 2, Channels::Grey, vec![0; 130]).unwrap();
    let encoded = STANDARD.encode(grid::png_bytes(&large).unwrap());
    draw(json!({ "steps": 2, "init_image": encoded })).refused(422, &["init_image", "64 pixels"]);
    draw(json!({ "steps": 2, "init_image": "A".repeat(100_001) })).refused(413, &["100000 bytes"]);
    draw(json!({ "steps": 2, "sampler": "ddim" })).expect(200);
}

#[test]
fn what_makes_no_sense_is_refused_in_a_sentence() {
    let server = server();
    let draw = |request: Value| server.generate("image/png", &request);
    draw(json!({ "model": "nobody" })).refused(422, &["`nobody`", "grey, colour"]);
    draw(json!({ "sampler": "euler-b" })).refused(422, &["euler-b", "euler"]);
    draw(json!({ "sampler": "flow-euler" })).refused(422, &["does not fit"]);
    draw(json!({ "class": "cow" })).refused(422, &["`cow`", "dark, light"]);
    draw(json!({ "model": "colour", "class": "dark" })).refused(422, &["unconditional"]);
    draw(json!({ "model": "colour", "guidance_scale": 3 })).refused(422, &["unconditional"]);
    draw(json!({ "prompt": "a cow" })).refused(422, &["takes no text"]);
    draw(json!({ "eta": 0.5, "sampler": "euler" })).refused(422, &["ddim and tcd"]);
    draw(json!({ "strength": 0.5 })).refused(422, &["init_image"]);
    draw(json!({ "guide": ["colr:#123456"] })).refused(422, &["colour:#1AE680"]);
    draw(json!({ "guide": ["clip:a cow"] })).refused(422, &["--clip"]);
    draw(json!({ "guide": ["symmetry"], "guide_through": "walls" })).refused(422, &["clean, model"]);
    draw(json!({ "guide": ["brightness:1@1e39"] })).refused(422, &["brightness", "1@1e39"]);
    let too_strong = ["brightness:1@3e38"; 8];
    draw(json!({ "model": "colour", "sampler": "euler", "steps": 5, "guide": too_strong }))
        .refused(422, &["not a finite number"]);
    draw(json!({ "size": "9x8" })).refused(422, &["size is 9x8", "divisible by 2", "8x8 or 10x8"]);
    draw(json!({ "size": 8 })).refused(422, &["8"]);
    draw(json!({ "size": "60000x60000" })).refused(422, &["size", "16 at most"]);
    draw(json!({ "size": "4000000000x4000000000" })).refused(422, &["size", "65536"]);
    draw(json!({ "size": "16x8", "steps": 2, "sampler": "ddim" })).expect(200);
    draw(json!({ "class": vec!["dark"; 65] })).refused(422, &["class lists 65", "64 at most"]);
    draw(json!([])).refused(422, &["JSON object"]);
    draw(json!({ "stepz": 3 })).refused(422, &["stepz"]);
    draw(json!({ "steps": "many" })).refused(422, &["many"]);
    let json = [("Content-Type", "application/json")];
    server
        .call("POST", "/api/generate", &json, b"{\"steps\":")
        .refused(400, &["not JSON"]);
    server
        .call("POST", "/api/generate", &[], b"{}")
        .refused(415, &["application/json"]);
    server
        .generate("text/html", &json!({}))
        .refused(406, &["image/png"]);
    server
        .call("PUT", "/api/generate", &[], b"")
        .refused(405, &["method"]);
    server.get("/nowhere").refused(404, &["/docs"]);
    server.get("/api/runs").refused(404, &["--runs"]);
    server
        .get("/api/schedule?steps=x")
        .refused(422, &["invalid digit"]);
}

#[test]
fn names_never_become_paths() {
    let server = Server::of(|folder| {
        let run = folder.join("runs/one");
        fs::create_dir_all(&run).unwrap();
        fs::write(folder.join("runs/secret.png"), "secret").unwrap();
        fs::write(folder.join("secret.png"), "secret").unwrap();
        ServerOptions {
            runs: Some(folder.join("runs")),
            ..ServerOptions::default()
        }
    });
    let inside = server.folder.path().join("grey").display().to_string();
    for name in ["../grey", "./grey", inside.as_str(), "/etc", "grey/", ""] {
        server
            .generate("image/png", &json!({ "model": name }))
            .refused(422, &["there is no model"]);
    }
    fs::write(server.folder.path().join("a.png"), "x").unwrap();
    let file = server.folder.path().join("a.png").display().to_string();
    for guide in ["picture", "known", "clip-picture"] {
        let guide = format!("{guide}:{file}");
        server
            .generate("image/png", &json!({ "guide": [guide] }))
            .refused(422, &["names a file"]);
    }
    for path in ["..", "..%2F..", "one%2F..%2F..", "nobody"] {
        server.get(&format!("/api/runs/{path}")).expect(404);
        server
            .get(&format!("/api/runs/{path}/pictures/secret.png"))
            .expect(404);
    }
    for picture in [
        "..%2Fsecret.png",
        "..%2F..%2Fsecret.png",
        "samples-..%2F..%2Fsecret.png",
    ] {
        server
            .get(&format!("/api/runs/one/pictures/{picture}"))
            .expect(404);
    }
    server.get("/page/..%2Fsrc%2Flib.rs").expect(404);
}

#[test]
fn a_key_keeps_strangers_out() {
    let server = Server::start(ServerOptions {
        api_key: Some("open sesame".into()),
        ..ServerOptions::default()
    });
    for path in [
        "/api/models",
        "/api/queue",
        "/api/schedule",
        "/api/runs",
        "/metrics",
    ] {
        server.get(path).refused(401, &["Authorization: Bearer KEY"]);
    }
    server
        .generate("image/png", &json!({}))
        .refused(401, &["API key"]);
    let with = |key: &str| {
        let value = format!("Bearer {key}");
        server
            .call("GET", "/api/models", &[("Authorization", &value)], b"")
            .status
    };
    assert_eq!(
        [with("open sesame"), with("open"), with(""), with("open sesame!")],
        [200, 401, 401, 401]
    );
    // What says nothing about models is open: a load balancer has no key, and the page asks for it.
    for path in ["/", "/docs", "/health", "/api/openapi.json"] {
        server.get(path).expect(200);
    }
}

#[test]
fn without_a_key_other_names_of_this_machine_are_refused() {
    let call = |server: &Server, path: &str, host: &str| server.call("GET", path, &[("Host", host)], b"");
    let open = Server::start(ServerOptions::default());
    for path in ["/", "/api/models", "/metrics"] {
        call(&open, path, "evil.example:7860").refused(403, &["localhost", "--api-key", "--allow-origin"]);
    }
    call(&open, "/api/models", "localhost:7860").expect(200);
    let named = Server::start(ServerOptions {
        allow_origin: Some("https://pictures.example".into()),
        ..ServerOptions::default()
    });
    call(&named, "/api/models", "pictures.example").expect(200);
    call(&named, "/api/models", "evil.example").expect(403);
    // A key is what a page of another name does not know.
    let keyed = Server::start(ServerOptions {
        api_key: Some("open sesame".into()),
        ..ServerOptions::default()
    });
    call(&keyed, "/", "pictures.example").expect(200);
    call(&keyed, "/api/models", "pictures.example").expect(401);
}

#[test]
fn other_origins_are_let_in_only_where_asked() {
    let origin = ("Origin", "https://a.example");
    let preflight = [origin, ("Access-Control-Request-Method", "POST")];
    let server = server();
    let answer = server.call("GET", "/api/models", &[origin], b"");
    assert_eq!(answer.header("access-control-allow-origin"), None);
    server
        .call("OPTIONS", "/api/generate", &preflight, b"")
        .expect(405);

    let server = Server::start(ServerOptions {
        allow_origin: Some("https://a.example".into()),
        ..ServerOptions::default()
    });
    let answer = server.call("GET", "/api/models", &[origin], b"");
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://a.example")
    );
    let answer = server
        .call("OPTIONS", "/api/generate", &preflight, b"")
        .expect(204);
    assert!(
        answer
            .header("access-control-allow-headers")
            .unwrap()
            .contains("Content-Type")
    );
    let answer = server.call("GET", "/api/models", &[("Origin", "https://b.example")], b"");
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[test]
fn every_answer_is_strict_about_what_browsers_may_do() {
    let server = server();
    for path in ["/", "/docs", "/api/models", "/nowhere"] {
        let answer = server.get(path);
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.contains("default-src 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    // Nothing on the page comes from anywhere else.
    for path in ["/", "/docs", "/page/app.js", "/page/style.css"] {
        let text = server.get(path).expect(200).text();
        assert!(!text.contains("https://") && !text.contains("//cdn"), "{path}");
    }
}

#[test]
fn a_full_queue_says_when_to_come_again_and_the_gone_give_up_their_places() {
    let server = Server::start(ServerOptions {
        queue: 1,
        batch_size: 1,
        ..ServerOptions::default()
    });
    let long = json!({ "steps": 1000, "count": 64, "seed": 1 });
    let running = server.send("text/event-stream", &long);
    until("the first is being drawn", || server.queue("running") == 1);
    let waiting = server.send("image/png", &long);
    until("the second waits", || server.queue("waiting") == 1);
    let refused = server.generate("image/png", &long);
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=120).contains(&seconds));
    refused.refused(429, &["1 requests are waiting"]);

    // Whoever hangs up is forgotten, whether it waits or is drawn.
    drop(waiting);
    until("the one that waited is forgotten", || {
        server.queue("waiting") == 0
    });
    let cancelled = |count: usize| {
        let line = format!("langevin_orders_total{{outcome=\"cancelled\"}} {count}\n");
        server.get("/metrics").text().contains(&line)
    };
    assert!(cancelled(1));
    drop(running);
    until("the one that was drawn is forgotten", || {
        server.queue("running") == 0
    });
    assert!(cancelled(2));
    server
        .generate("image/png", &json!({ "sampler": "ddim", "steps": 2 }))
        .expect(200);
}

#[test]
fn the_end_waits_for_what_was_asked() {
    let server = Server::start(ServerOptions {
        batch_size: 1,
        ..ServerOptions::default()
    });
    let request = json!({ "steps": 300, "sampler": "ddim", "count": 2 });
    let asked: Vec<_> = (0..3).map(|_| server.send("image/png", &request)).collect();
    until("all are there", || {
        server.queue("running") + server.queue("waiting") == 3
    });
    server.request_stop();
    // Who asks meanwhile is told so, and not left before a closed door.
    until("it takes no more", || {
        server.get("/health").json()["status"] == "draining"
    });
    let refused = server.generate("image/png", &request);
    assert!(refused.header("retry-after").is_some());
    refused.refused(503, &["about to end"]);
    for stream in asked {
        receive(stream).expect(200).picture();
    }
    let since = std::time::Instant::now();
    server.end();
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}

#[test]
fn a_model_can_be_told_a_vector() {
    let server = Server::told();
    let model = &server.get("/api/models").json()["models"][0];
    assert_eq!(model["vector"], json!({ "of": "colour", "numbers": 3 }));
    let description = server.get("/api/openapi.json").json();
    let described = &description["components"]["schemas"]["Vector"]["properties"];
    assert_eq!(described.as_object().unwrap().len(), 2);
    let draw = |vector: Value, scale: f64| {
        let request = json!({ "sampler": "ddim", "steps": 3, "vector": vector, "guidance_scale": scale });
        server.generate("image/png", &request)
    };
    let drawn = draw(json!([1.0, -0.5, -1.0]), 2.0).expect(200).picture();
    let options = SampleOptions {
        vectors: Some(Tensor::from_data([[1.0, -0.5, -1.0]], &default_device())),
        guidance: ClassifierFree {
            scale: Some(2.0),
            ..ClassifierFree::default()
        },
        ..SampleOptions::default()
    };
    assert_eq!(
        drawn,
        alone(&server.folder.path().join("told"), "ddim", 3, 0, options)
    );
    assert_ne!(drawn, draw(json!([-1.0, -0.5, 1.0]), 2.0).expect(200).picture());
    draw(json!([]), 1.0).expect(200);
    draw(json!([1.0]), 1.0).refused(422, &["[1, 1]", "3]"]);
    draw(json!("red"), 1.0).refused(422, &["red"]);
}

#[test]
fn a_model_can_be_asked_for_attributes() {
    let server = Server::with_attributes();
    let model = &server.get("/api/models").json()["models"][0];
    assert_eq!(model["attributes"], json!(["smiling", "hat"]));
    assert_eq!(model["vector"], Value::Null);
    let draw = |attributes: Value| {
        let request = json!({ "sampler": "ddim", "steps": 3, "attributes": attributes, "guidance_scale": 2 });
        server.generate("image/png", &request)
    };
    for (asked, has) in [
        ("hat", [false, true]),
        ("hat,smiling", [true; 2]),
        ("none", [false; 2]),
    ] {
        let options = SampleOptions {
            attributes: Some(vec![has.to_vec()]),
            guidance: ClassifierFree {
                scale: Some(2.0),
                ..ClassifierFree::default()
            },
            ..SampleOptions::default()
        };
        let alone = alone(&server.folder.path().join("told"), "ddim", 3, 0, options);
        assert_eq!(draw(json!(asked)).expect(200).picture(), alone);
        assert_eq!(draw(json!([asked])).expect(200).picture(), alone);
    }
    draw(Value::Null).expect(200);
    draw(json!([])).expect(200);
    draw(json!("beard")).refused(422, &["`beard`", "smiling, hat"]);
    draw(json!(1)).refused(422, &["1"]);
    draw(json!("x".repeat(100_000))).refused(422, &["attributes", "characters"]);
    draw(json!(vec!["hat"; 1000])).refused(422, &["attributes"]);
    // A model that knows none.
    let other = Server::told();
    let request = json!({ "steps": 1, "attributes": "hat" });
    other
        .generate("image/png", &request)
        .refused(422, &["attributes", "knows none"]);
}

#[test]
fn requests_of_all_kinds_go_together_and_come_out_as_alone() {
    let server = server();
    let samplers = [
        "ddpm",
        "ddim",
        "euler-a",
        "heun",
        "dpm++2m-karras",
        "unipc",
        "dpm-sde",
        "sa-solver",
    ];
    let path = server.folder.path();
    thread::scope(|scope| {
        for (number, sampler) in samplers.into_iter().cycle().take(24).enumerate() {
            let server = &server;
            scope.spawn(move || {
                let (seed, steps) = (number as u64, 5 + number % 7);
                let grey = !number.is_multiple_of(3);
                let scale = if grey && number.is_multiple_of(2) {
                    2.5
                } else {
                    1.0
                };
                let mut request = json!({
                    "model": if grey { "grey" } else { "colour" },
                    "sampler": sampler, "steps": steps, "seed": seed, "guidance_scale": scale
                });
                let mut options = SampleOptions::default();
                if grey {
                    request["class"] = "light".into();
                    options = SampleOptions {
                        guidance: ClassifierFree::of_scale(scale),
                        ..of_class(1)
                    };
                }
                let drawn = server.generate("image/png", &request).expect(200).picture();
                let folder = path.join(if grey { "grey" } else { "colour" });
                assert_eq!(drawn, alone(&folder, sampler, steps, seed, options), "{request}");
            });
        }
    });
    // They did go together: there were fewer rounds than steps.
    let text = server.get("/metrics").text();
    let count = |name: &str| -> f64 {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {text}"))
            .parse()
            .unwrap()
    };
    assert_eq!(count("langevin_pictures_total"), 24.0);
    assert!(
        count("langevin_rounds_total") < 0.7 * count("langevin_steps_total"),
        "{text}"
    );
}

/// What the library draws of a request alone.
fn generated(model: &str, request: &Request) -> Picture {
    let pipeline = Pipeline::load(latent_model(model).unwrap(), &default_device()).unwrap();
    pipeline.generate(request).unwrap().remove(0)
}

/// A picture with something in it, and a mask of its left half.
fn picture_and_mask(height: usize, width: usize) -> [Picture; 2] {
    let colours = (0..height * width).flat_map(|i| [(i % 251) as u8, (i / 7 % 256) as u8, 90]);
    let halves = (0..height * width).map(|i| if i % width < width / 2 { 255 } else { 0 });
    [
        Picture::new(height, width, Channels::Rgb, colours.collect()).unwrap(),
        Picture::new(height, width, Channels::Grey, halves.collect()).unwrap(),
    ]
}

fn filled(height: usize, width: usize, value: u8) -> Picture {
    Picture::new(height, width, Channels::Rgb, vec![value; height * width * 3]).unwrap()
}

fn encoded(picture: &Picture) -> String {
    STANDARD.encode(grid::png_bytes(picture).unwrap())
}

#[test]
fn pictures_from_words_are_the_library_s() {
    let server = Server::latent(ServerOptions::default());
    let request = Request {
        prompt: vec!["a lighthouse".into()],
        negative_prompt: vec!["blur".into()],
        steps: Some(4),
        seed: 3,
        size: Some("48x32".parse().unwrap()),
        ..Request::default()
    };
    let asked = json!({ "model": "sd", "prompt": "a lighthouse", "negative_prompt": "blur", "steps": 4, "seed": 3, "size": "48x32" });
    let drawn = server.generate("image/png", &asked).expect(200).picture();
    assert_eq!((drawn.width(), drawn.height()), (48, 32));
    assert_eq!(drawn, generated("sd", &request));

    // Two texts, two encoders, what the class usually does, and seeds of one's own.
    let asked = json!({
        "model": "xl", "prompt": ["a hill", "a sea"], "prompt_2": "at night", "negative_prompt": ["fog"], "steps": 2, "count": 2,
        "seeds": [5, 9], "original_size": "64x64", "crop_top_left": "0,8", "target_size": "32x32"
    });
    let pictures = server.generate("application/json", &asked).expect(200).json();
    for (number, (prompt, seed)) in [("a hill", 5), ("a sea", 9)].into_iter().enumerate() {
        let request = Request {
            prompt: vec![prompt.into()],
            prompt_2: vec!["at night".into()],
            negative_prompt: vec!["fog".into()],
            steps: Some(2),
            seed,
            original_size: Some(Size::square(64)),
            crop_top_left: Some("0,8".parse().unwrap()),
            target_size: Some(Size::square(32)),
            ..Request::default()
        };
        let picture = &pictures["pictures"][number];
        assert_eq!(
            (picture["seed"].as_u64(), picture["flagged"].as_bool()),
            (Some(seed), Some(false))
        );
        let png = STANDARD.decode(picture["png"].as_str().unwrap()).unwrap();
        assert_eq!(
            decode_picture(&png, 64, "it").unwrap(),
            generated("xl", &request),
            "{prompt}"
        );
    }
    // A class in few steps, by timesteps of one's own too.
    let asked = json!({ "model": "lcm", "prompt": "a tree", "original_inference_steps": 40, "seed": 1 });
    let request = Request {
        prompt: vec!["a tree".into()],
        original_inference_steps: Some(40),
        seed: 1,
        ..Request::default()
    };
    let drawn = server.generate("image/png", &asked).expect(200).picture();
    assert_eq!(drawn, generated("lcm", &request));
}

#[test]
fn prompts_may_be_written_as_elsewhere() {
    let server = Server::latent(ServerOptions::default());
    let prompt = "a [cat:(dog:1.2):0.5] AND snow :0.5";
    let request = Request {
        prompt: vec![prompt.into()],
        prompt_syntax: PromptSyntax::A1111,
        steps: Some(4),
        ..Request::default()
    };
    let asked = json!({ "model": "sd", "prompt": prompt, "prompt_syntax": "a1111", "steps": 4 });
    let drawn = server.generate("image/png", &asked).expect(200).picture();
    assert_eq!(drawn, generated("sd", &request));
    let wrong = json!({ "model": "sd", "prompt": "x", "prompt_syntax": "midjourney" });
    server
        .generate("image/png", &wrong)
        .refused(422, &["prompt syntax", "a1111"]);

    let texts = |server: &Server| {
        let answer = server.generate("application/json", &asked).expect(200).json();
        let png = STANDARD
            .decode(answer["pictures"][0]["png"].as_str().unwrap())
            .unwrap();
        let path = server.folder.path().join("drawn.png");
        fs::write(&path, png).unwrap();
        grid::read_png_text(&path).unwrap()
    };
    let all = texts(&server);
    let settings = Settings::of_texts(&all).unwrap().unwrap();
    let again = settings.request.unwrap();
    assert_eq!(again.prompt, [prompt]);
    let drawn_again = generated("sd", &again);
    assert_eq!(drawn_again, drawn);
    let silent = Server::latent(ServerOptions {
        no_metadata: true,
        ..ServerOptions::default()
    });
    assert!(texts(&silent).is_empty());

    let tokens = |query: &str| server.get(&format!("/api/tokens?{query}"));
    let text = "model=sd&syntax=a1111&text=a%20(cat:1.2)%20BREAK%20a%20a";
    let found = tokens(text).expect(200).json();
    assert_eq!(found["room"], 75);
    assert_eq!(found["chunks"][1]["tokens"], 2);
    assert_eq!(found["chunks"][1]["text"], "a a");
    let long = "a%20".repeat(100);
    let found = tokens(&format!("model=sd&text={long}")).expect(200).json();
    assert_eq!(found["chunks"][0]["tokens"], 75);
    assert!(found["unseen"].as_str().unwrap().starts_with("a a"), "{found}");
    tokens(&format!("model=sd&text={}", "a".repeat(1001))).refused(422, &["1000"]);
    tokens("model=none&text=a").refused(422, &["none"]);
    tokens("model=sd&text=a&syntax=x").refused(422, &["prompt syntax"]);
}

#[test]
fn pictures_are_drawn_anew_whole_or_in_part() {
    let server = Server::latent(ServerOptions::default());
    let [picture, mask] = picture_and_mask(32, 32);
    let begun = Request {
        prompt: vec!["a tree".into()],
        steps: Some(4),
        seed: 2,
        ..Request::default()
    };
    let asked = json!({ "model": "sd", "prompt": "a tree", "steps": 4, "seed": 2, "init_image": encoded(&picture), "strength": 0.5 });
    let drawn = server.generate("image/png", &asked).expect(200).picture();
    let request = Request {
        init_image: Some(picture.clone().into()),
        strength: Some(0.5),
        ..begun.clone()
    };
    assert_eq!(drawn, generated("sd", &request));
    for model in ["sd", "paint"] {
        let asked = json!({
            "model": model, "prompt": "a tree", "steps": 4, "seed": 2, "inpaint": encoded(&picture), "mask": encoded(&mask), "mask_crop": 2
        });
        let drawn = server.generate("image/png", &asked).expect(200).picture();
        let request = Request {
            inpaint: Some(picture.clone().into()),
            mask: Some(mask.clone().into()),
            mask_crop: Some(2),
            ..begun.clone()
        };
        assert_eq!(drawn, generated(model, &request), "{model}");
        // What is not painted is as it was.
        let right = |picture: &Picture| picture.crop(0, 30, 32, 2);
        assert_eq!(right(&drawn), right(&picture), "{model}");
    }
    // Each picture may begin with one of its own.
    let other = filled(32, 32, 200);
    let asked = json!({
        "model": "sd", "prompt": "a tree", "steps": 4, "seeds": [2], "count": 2, "strength": 0.5,
        "init_image": [encoded(&picture), encoded(&other)]
    });
    let both = server.generate("application/json", &asked).expect(200).json();
    let png = |number: usize| both["pictures"][number]["png"].as_str().unwrap().to_string();
    assert_ne!(png(0), png(1));
    let first = STANDARD.decode(png(0)).unwrap();
    assert_eq!(
        decode_picture(&first, 64, "it").unwrap(),
        generated("sd", &request)
    );
}

#[test]
fn latents_are_shown_on_the_way() {
    let server = Server::latent(ServerOptions::default());
    let asked = json!({ "model": "sd", "prompt": "a tree", "steps": 4, "previews": 4 });
    let answer = server.generate("text/event-stream", &asked).expect(200);
    let previews: Vec<Value> = answer
        .events()
        .into_iter()
        .filter(|(name, _)| name == "progress")
        .flat_map(|(_, data)| data["previews"].as_array().unwrap().clone())
        .collect();
    assert!(!previews.is_empty());
    for preview in previews {
        let png = STANDARD.decode(preview["clean"].as_str().unwrap()).unwrap();
        let picture = decode_picture(&png, 64, "the preview").unwrap();
        assert_eq!(picture.channels(), Channels::Rgb);
        assert_eq!(picture.height(), picture.width());
    }
}

#[test]
fn what_latents_cannot_be_is_refused_with_its_field() {
    let server = Server::latent(ServerOptions {
        limits: Limits {
            size: 64,
            count: 4,
            steps: 60,
            ..Limits::default()
        },
        ..ServerOptions::default()
    });
    let [picture, mask] = picture_and_mask(32, 32);
    let large = encoded(&filled(16, 80, 200));
    let refused = |request: Value, field: &str, parts: &[&str]| {
        let answer = server.generate("image/png", &request).refused(422, parts);
        assert_eq!(answer["field"], field, "{request}: {answer}");
    };
    refused(json!({ "size": "33x32" }), "size", &["divisible by 2"]);
    refused(
        json!({ "size": "96x32" }),
        "size",
        &["size is 96x32", "64 at most"],
    );
    refused(
        json!({ "init_image": large }),
        "size",
        &["80x16", "init_image", "64 a side"],
    );
    refused(
        json!({ "init_image": vec![encoded(&picture); 5] }),
        "init_image",
        &["lists 5"],
    );
    refused(
        json!({ "inpaint": encoded(&picture), "mask": encoded(&mask), "strength": 1.5 }),
        "strength",
        &["strength"],
    );
    refused(json!({ "inpaint": encoded(&picture) }), "mask", &["white there"]);
    refused(
        json!({ "mask": encoded(&mask) }),
        "mask",
        &["does nothing without"],
    );
    refused(
        json!({ "inpaint": "?", "mask": encoded(&mask) }),
        "inpaint",
        &["not in base64"],
    );
    refused(
        json!({ "model": "paint" }),
        "inpaint",
        &["paints in a part of a picture"],
    );
    refused(json!({ "prompt_2": "x" }), "prompt_2", &["two text encoders"]);
    refused(json!({ "clip_skip": 101 }), "clip_skip", &["100 at most"]);
    refused(json!({ "clip_skip": 50 }), "clip_skip", &["layers"]);
    refused(json!({ "aesthetic_score": 11 }), "aesthetic_score", &["0 to 10"]);
    refused(
        json!({ "guidance_scale": 1e9 }),
        "guidance_scale",
        &["-1000 to 1000"],
    );
    refused(json!({ "timesteps": [1e12] }), "timesteps", &["100000"]);
    refused(json!({ "timesteps": vec![1; 61] }), "timesteps", &["lists 61"]);
    refused(json!({ "seeds": [1, 2, 3, 4, 5] }), "seeds", &["lists 5"]);
    refused(json!({ "prompt_2": vec!["x"; 5] }), "prompt_2", &["lists 5"]);
    refused(json!({ "noise_level": 20 }), "noise_level", &["enlarge"]);
    refused(json!({ "depth": encoded(&mask) }), "depth", &["shown depths"]);
    refused(
        json!({ "image_guidance_scale": 2 }),
        "image_guidance_scale",
        &["edit"],
    );
    refused(
        json!({ "original_inference_steps": 61 }),
        "original_inference_steps",
        &["60 at most"],
    );
    refused(json!({ "mask_crop": 5000 }), "mask_crop", &["4096 at most"]);
    // What is kept until all are drawn, and what an animation keeps, has room too.
    let of = |count: usize, size: usize| json!({ "steps": 1, "count": count, "size": size.to_string() });
    let answer = server.generate("image/gif", &of(2, 64));
    assert_eq!(
        answer.refused(422, &["1 pictures of 64x64 at most"])["field"],
        "count"
    );
    let narrow = Server::latent(ServerOptions {
        limits: Limits {
            size: 8,
            ..Limits::default()
        },
        ..ServerOptions::default()
    });
    let answer = narrow.generate("image/png", &json!({ "prompt": "x" }));
    assert_eq!(answer.refused(422, &["32x32", "8 a side"])["field"], "size");
    let answer = narrow.generate("image/png", &of(17, 8));
    assert_eq!(
        answer.refused(422, &["17 pictures of 8x8", "16 at most"])["field"],
        "count"
    );
    // The class's own number counts too.
    let server = Server::latent(ServerOptions {
        limits: Limits {
            steps: 20,
            ..Limits::default()
        },
        ..ServerOptions::default()
    });
    let answer = server.generate("image/png", &json!({ "prompt": "x" }));
    answer.refused(422, &["steps is 50", "20 at most"]);
}

#[test]
fn models_say_what_they_can_be_told() {
    let server = Server::latent(ServerOptions::default());
    let models = server.get("/api/models").json()["models"].clone();
    let of = |name: &str| {
        models
            .as_array()
            .unwrap()
            .iter()
            .find(|model| model["name"] == name)
            .unwrap()
    };
    let (sd, paint, lcm, xl) = (of("sd"), of("paint"), of("lcm"), of("xl"));
    assert_eq!(
        (
            &sd["pipeline"],
            &sd["latent"],
            &sd["prompt"],
            &sd["prompt_2"],
            &sd["divisor"]
        ),
        (
            &json!("StableDiffusionPipeline"),
            &json!(true),
            &json!(true),
            &json!(false),
            &json!(2)
        )
    );
    assert_eq!(
        sd["usual"]["draw"],
        json!({ "steps": 50, "guidance_scale": 7.5, "strength": 1.0 })
    );
    assert_eq!(sd["usual"]["picture"]["strength"], 0.8);
    assert_eq!(
        (&sd["init_image"], &sd["inpaint"], &sd["needs_picture"]),
        (&json!("start"), &json!(true), &json!(false))
    );
    assert_eq!(
        (&paint["init_image"], &paint["needs_picture"]),
        (&Value::Null, &json!(true))
    );
    assert_eq!(
        (&lcm["usual"]["draw"]["steps"], &lcm["negative_prompt"]),
        (&json!(4), &json!(false))
    );
    assert_eq!((&xl["prompt_2"], &xl["sizes"]), (&json!(true), &json!(true)));
    assert_eq!(
        (&sd["safety_checker"], &of("safe")["safety_checker"]),
        (&json!(false), &json!(true))
    );
    let description = server.get("/api/openapi.json").json();
    let schemas = &description["components"]["schemas"];
    let keys = |value: &Value| -> BTreeSet<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(keys(&schemas["Usual"]["properties"]), keys(&sd["usual"]));
    assert_eq!(keys(&schemas["Usage"]["properties"]), keys(&sd["usual"]["draw"]));
}

#[test]
fn flagged_pictures_are_black_and_said_to_be_so() {
    let server = Server::latent(ServerOptions::default());
    let asked = json!({ "model": "safe", "prompt": "a tree", "steps": 2, "count": 4 });
    let answer = server.generate("application/json", &asked).expect(200).json();
    let plain = server
        .generate(
            "application/json",
            &json!({ "model": "sd", "prompt": "a tree", "steps": 2, "count": 4 }),
        )
        .expect(200)
        .json();
    let pipeline = Pipeline::load(server.folder.path().join("safe"), &default_device()).unwrap();
    for number in 0..4 {
        let picture = |answer: &Value| {
            let png = STANDARD
                .decode(answer["pictures"][number]["png"].as_str().unwrap())
                .unwrap();
            decode_picture(&png, 64, "it").unwrap()
        };
        let unchecked = picture(&plain);
        let expected = pipeline
            .safety()
            .unwrap()
            .flags(std::slice::from_ref(&unchecked))
            .unwrap()[0];
        assert_eq!(answer["pictures"][number]["flagged"], expected);
        let black = filled(32, 32, 0);
        assert_eq!(picture(&answer), if expected { black } else { unchecked });
    }
}

#[test]
fn the_description_is_true() {
    let server = server();
    let description = server.get("/api/openapi.json").expect(200).json();
    assert_eq!(description["info"]["version"], env!("CARGO_PKG_VERSION"));
    let schemas = &description["components"]["schemas"];
    let keys = |value: &Value| -> BTreeSet<String> { value.as_object().unwrap().keys().cloned().collect() };
    let of_schema = |name: &str| keys(&schemas[name]["properties"]);

    let request = serde_json::to_value(GenerateRequest::default()).unwrap();
    // `sampler` is what `scheduler` was called first.
    let mut fields = keys(&request);
    fields.insert("sampler".into());
    assert_eq!(of_schema("GenerateRequest"), fields);
    let limits = serde_json::to_value(Limits::default()).unwrap();
    assert_eq!(of_schema("Limits"), keys(&limits));
    let models = server.get("/api/models").json();
    assert_eq!(of_schema("ModelList"), keys(&models));
    assert_eq!(of_schema("Model"), keys(&models["models"][0]));
    assert_eq!(of_schema("Sampler"), keys(&models["models"][0]["samplers"][0]));
    assert_eq!(of_schema("Queue"), keys(&server.get("/api/queue").json()));
    assert_eq!(of_schema("Health"), keys(&server.get("/health").json()));
    let schedule = server.get("/api/schedule?sampler=ddim&steps=5").json();
    assert_eq!(of_schema("Schedule"), keys(&schedule));
    assert_eq!(of_schema("Place"), keys(&schedule["calls"][0]));
    assert_eq!(schedule["calls"].as_array().unwrap().len(), 5);
    let png = grid::png_bytes_with(
        &filled(8, 8, 0),
        &[(
            "parameters",
            "x\nSteps: 2, Sampler: DDIM, Seed: 1, CFG scale: 1".into(),
        )],
    );
    let headers = [("Content-Type", "image/png")];
    let said = server
        .call("POST", "/api/settings", &headers, &png.unwrap())
        .expect(200)
        .json();
    assert_eq!(of_schema("PictureSettings"), keys(&said));
    let drawn = server
        .generate("application/json", &json!({ "sampler": "ddim", "steps": 2 }))
        .json();
    assert_eq!(of_schema("Pictures"), keys(&drawn));
    assert_eq!(of_schema("Picture"), keys(&drawn["pictures"][0]));
    let refused = server.generate("image/png", &json!({ "steps": 1001 })).json();
    assert_eq!(of_schema("Error"), keys(&refused));

    // Every address that is described is there, and takes the methods that are described and no other.
    for (path, methods) in description["paths"].as_object().unwrap() {
        let path = path.replace("{run}", "one").replace("{picture}", "a.png");
        for method in ["GET", "POST", "PUT", "DELETE"] {
            let answer = server.call(method, &path, &[], b"");
            let is_described = methods.get(method.to_lowercase()).is_some();
            assert_eq!(
                answer.status != 405,
                is_described,
                "{method} {path}: {}",
                answer.status
            );
        }
    }
    // Every reference leads somewhere.
    let text = description.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.get(name).is_some(), "{name}");
    }
}

/// Values that are none of those that a field may have, as its schema tells.
fn beyond(schema: &Value) -> Vec<Value> {
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let is = |kind: &str| types.contains(&kind);
    let mut wrong = vec![json!({}), json!({ "a": 1 })];
    if !is("boolean") {
        wrong.push(json!(true));
    }
    if !is("string") {
        wrong.push(json!("many"));
    }
    if !is("integer") && !is("number") {
        wrong.push(json!(8));
    }
    if is("integer") && !is("number") {
        wrong.extend([json!(1.5), json!(-1), json!(1e300)]);
    }
    if !is("array") {
        wrong.push(json!([1, 2]));
    }
    let number = |keyword: &str| schema[keyword].as_f64();
    if let Some(least) = number("minimum") {
        wrong.push(json!(least - 1.0));
    }
    if let Some(most) = number("maximum") {
        wrong.push(json!(most + 1.0));
    }
    wrong.extend(number("exclusiveMinimum").map(|bound| json!(bound)));
    wrong.extend(number("exclusiveMaximum").map(|bound| json!(bound)));
    if let Some(limit) = schema["maxLength"].as_u64() {
        wrong.push(json!("a".repeat(limit as usize + 1)));
    }
    if schema.get("enum").is_some() || schema.get("pattern").is_some() {
        wrong.extend([json!("walls"), json!(""), json!("1x1x1")]);
    }
    if let Some(limit) = schema["maxItems"].as_u64() {
        let one = if schema["items"]["type"] == "string" {
            json!("a")
        } else {
            json!(1)
        };
        wrong.push(json!(vec![one; limit as usize + 1]));
    }
    if is("array") {
        wrong.extend(beyond(&schema["items"]).into_iter().map(|one| json!([one])));
    }
    if schema.get("contentEncoding").is_some() {
        wrong.extend([json!("?"), json!("AAAA"), json!(["?"])]);
    }
    wrong
}

#[test]
fn every_field_is_held_to_its_schema() {
    let server = server();
    let description = server.get("/api/openapi.json").expect(200).json();
    let fields = description["components"]["schemas"]["GenerateRequest"]["properties"]
        .as_object()
        .unwrap();
    assert!(fields.len() > 45, "{}", fields.len());
    let mut driven = 0;
    for (field, schema) in fields {
        assert!(
            schema["description"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{field}"
        );
        for value in beyond(schema) {
            let mut request = json!({});
            request[field] = value.clone();
            let answer = server.generate("image/png", &request);
            let shown: String = format!("{field}: {value}").chars().take(120).collect();
            let refused = answer.refused(422, &[]);
            assert_eq!(refused["field"], *field, "{shown}: {refused}");
            // In words that somebody knows who writes JSON, not Rust.
            let message = refused["error"].as_str().unwrap();
            let names = [
                "usize",
                "u64",
                "f64",
                "f32",
                "expected",
                "invalid type",
                "variant",
                "struct",
                "untagged",
            ];
            for name in names {
                assert!(!message.contains(name), "{shown}: {message}");
            }
            assert!(message.chars().count() < 400, "{shown}: {message}");
            driven += 1;
        }
    }
    println!("{driven} values of {} fields", fields.len());
    // Limits are those of the server.
    assert_eq!(fields["steps"]["maximum"], Limits::default().steps);
    assert_eq!(fields["count"]["maximum"], Limits::default().count);
    // A field that there is not, and a body that is no object.
    assert_eq!(
        server
            .generate("*/*", &json!({ "stepz": 3 }))
            .refused(422, &["stepz"])["field"],
        "stepz"
    );
    for body in [json!([]), json!("steps"), json!(3), json!(null)] {
        assert_eq!(
            server.generate("*/*", &body).refused(422, &["JSON object"])["field"],
            "body"
        );
    }
}

#[test]
fn numbers_and_names_are_taken_as_callers_write_them() {
    let server = server();
    let draw = |request: Value| server.generate("image/png", &request).expect(200).picture();
    let whole = draw(json!({ "class": 1, "sampler": "ddim", "steps": 2, "seed": 5 }));
    assert_eq!(
        whole,
        draw(json!({ "class": "1", "scheduler": "ddim", "steps": 2.0, "seed": 5.0 }))
    );
    assert_eq!(
        whole,
        draw(json!({ "class": ["light"], "sampler": "ddim", "steps": 2, "seed": 5, "guidance_scale": null }))
    );
    // A field is called as the caller called it.
    for field in ["sampler", "scheduler"] {
        let mut request = json!({});
        request[field] = "euler-b".into();
        assert_eq!(
            server.generate("*/*", &request).refused(422, &["euler-b"])["field"],
            field
        );
    }
    // Each of these is about one field, whatever the library calls it.
    for (request, field) in [
        (json!({ "model": "nobody" }), "model"),
        (json!({ "class": "cow" }), "class"),
        (json!({ "model": "colour", "class": "dark" }), "class"),
        (
            json!({ "negative_class": "cow", "guidance_scale": 3 }),
            "negative_class",
        ),
        (json!({ "guide": ["clip:a cow"] }), "guide"),
        (json!({ "guide": ["colr:#123456"] }), "guide"),
        (json!({ "prompt": "a cow" }), "prompt"),
        (json!({ "eta": 0.5, "sampler": "euler" }), "eta"),
        (json!({ "strength": 0.5 }), "strength"),
        (json!({ "size": "9x8" }), "size"),
        (json!({ "steps": 2000, "timesteps": [3, 2] }), "steps"),
    ] {
        let refused = server.generate("*/*", &request).refused(422, &[]);
        assert_eq!(refused["field"], field, "{request}: {refused}");
    }
    for (query, field) in [
        ("steps=x", "steps"),
        ("steps=5000", "steps"),
        ("sampler=euler-b", "sampler"),
        ("model=x", "model"),
    ] {
        let refused = server.get(&format!("/api/schedule?{query}")).refused(422, &[]);
        assert_eq!(refused["field"], field, "{query}: {refused}");
    }
}

#[test]
fn a_run_is_shown_as_it_goes() {
    let server = Server::of(|folder| {
        let run = folder.join("runs/digits-1");
        fs::create_dir_all(run.join("samples")).unwrap();
        let config = langevin::training::TrainingConfig::default();
        fs::write(run.join("training.json"), serde_json::to_string(&config).unwrap()).unwrap();
        let line = |step: u64| format!("{{\"step\":{step},\"loss\":{}}}\n", 1.0 / step as f64);
        fs::write(
            run.join("metrics.jsonl"),
            (1..=1500).map(line).collect::<String>(),
        )
        .unwrap();
        let picture = Picture::new(2, 2, Channels::Grey, vec![0; 4]).unwrap();
        for name in ["samples/step-000100.png", "loss.png"] {
            grid::write_png(run.join(name), &picture, &[]).unwrap();
        }
        ServerOptions {
            runs: Some(folder.join("runs")),
            ..ServerOptions::default()
        }
    });
    let goes_on = RunLock::acquire(&server.folder.path().join("runs/digits-1")).unwrap();
    let runs = server.get("/api/runs").expect(200).json();
    drop(goes_on);
    assert_eq!(runs[0]["name"], "digits-1");
    assert_eq!(
        (runs[0]["steps"].as_u64(), runs[0]["state"].as_str()),
        (Some(1500), Some("running"))
    );
    let run = server.get("/api/runs/digits-1").expect(200).json();
    let losses = run["losses"].as_array().unwrap();
    assert!(
        losses.len() <= 600 && losses.last().unwrap()[0] == 1500,
        "{}",
        losses.len()
    );
    assert_eq!(losses[0][0], 3);
    assert!((losses[0][1].as_f64().unwrap() - (1.0 + 0.5 + 1.0 / 3.0) / 3.0).abs() < 1e-12);
    let pictures = run["pictures"].as_array().unwrap();
    assert_eq!(pictures.len(), 1);
    assert_eq!(pictures[0]["name"], "samples-step-000100.png");
    let picture = server
        .get("/api/runs/digits-1/pictures/samples-step-000100.png")
        .expect(200)
        .picture();
    assert_eq!(picture.height(), 2);
    server
        .get("/api/runs/digits-1/pictures/nothing.png")
        .refused(404, &["nothing.png"]);
}

#[test]
fn what_comes_to_nothing_is_refused_before_anything_is_drawn() {
    let server = Server::latent(ServerOptions::default());
    // More steps than could be walked in the time that this takes.
    let asked = json!({ "model": "sd", "prompt": "x", "steps": 900, "upscale": 2, "upscale_strength": 1e-9 });
    let since = std::time::Instant::now();
    let refused = server
        .generate("image/png", &asked)
        .refused(422, &["upscale_strength"]);
    assert_eq!(refused["field"], "upscale_strength");
    let asked = json!({ "model": "sd", "prompt": "x", "steps": 900 });
    server
        .generate("audio/wav", &asked)
        .refused(406, &["draws pictures, and no sounds"]);
    assert!(since.elapsed().as_secs() < 20, "{:?}", since.elapsed());
    let metrics = server.get("/metrics").text();
    let steps = metrics
        .lines()
        .find(|line| line.starts_with("langevin_steps_total"));
    assert!(steps.is_some_and(|line| line.ends_with(" 0")), "{steps:?}");
}
