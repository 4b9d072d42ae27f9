//! Models that are loaded when somebody asks for them, and let go where others need the memory.

mod support;

use std::{fs, path::Path, thread};

use langevin::{
    device::default_device,
    pipelines::{LoadOptions, SampleOptions, loaded_bytes},
};
use langevin_server::{Models, ServerOptions};
use serde_json::json;
use support::{Server, alone, latent_model, save_model, until};

/// A server of the models in a folder, which may take so many times the memory of the largest.
fn server(names: &[&str], times: f64) -> Server {
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        save_model(&folder.path().join("models").join(name), *name == "grey");
    }
    let largest = names
        .iter()
        .map(|name| bytes(&folder.path().join("models").join(name)))
        .max();
    let models = of_folder(folder.path(), (largest.unwrap() as f64 * times) as u64);
    Server::with(folder, models, ServerOptions::default())
}

fn bytes(path: &Path) -> u64 {
    loaded_bytes(path, &LoadOptions::default()).unwrap()
}

fn of_folder(folder: &Path, most: u64) -> Models {
    let mut models = Models::default().with_max_memory(most);
    for (name, path) in Models::in_folder(folder.join("models")).unwrap() {
        models
            .add(&name, path, &LoadOptions::default(), &default_device())
            .unwrap();
    }
    models
}

fn loaded(server: &Server) -> Vec<String> {
    let models = server.get("/api/models").expect(200).json()["models"].clone();
    let models = models.as_array().unwrap().iter();
    let loaded = models.filter(|model| model["loaded"] == json!(true));
    loaded
        .map(|model| model["name"].as_str().unwrap().to_string())
        .collect()
}

#[test]
fn a_model_is_loaded_when_it_is_asked_for() {
    let server = server(&["colour", "grey", "third"], 100.0);
    let list = server.get("/api/models").expect(200).json();
    assert_eq!(
        list["models"],
        json!([
            { "name": "colour", "loaded": false }, { "name": "grey", "loaded": false }, { "name": "third", "loaded": false }
        ])
    );
    let grey = server.get("/api/models/grey").expect(200).json();
    assert_eq!(
        (&grey["classes"], &grey["loaded"]),
        (&json!(["dark", "light"]), &json!(true))
    );
    assert_eq!(server.get("/api/models").json()["models"][1], grey);
    assert_eq!(loaded(&server), ["grey"]);
    server
        .get("/api/models/nobody")
        .refused(404, &["there is no model `nobody`", "grey"]);
    server
        .get("/api/models/..%2Fgrey")
        .refused(404, &["there is no model"]);

    let drawn = server
        .generate(
            "image/png",
            &json!({ "model": "third", "sampler": "ddim", "steps": 3, "seed": 4 }),
        )
        .expect(200)
        .picture();
    let folder = server.folder.path().join("models/third");
    assert_eq!(drawn, alone(&folder, "ddim", 3, 4, SampleOptions::default()));
    // Nothing was in need of memory.
    assert_eq!(loaded(&server), ["grey", "third"]);
}

#[test]
fn the_one_that_was_used_longest_ago_makes_room() {
    let server = server(&["a", "b", "c"], 2.5);
    let draw = |model: &str| {
        let request = json!({ "model": model, "sampler": "ddim", "steps": 2 });
        server.generate("image/png", &request).expect(200);
        // It is let go of a moment after the answer.
        until("nothing is drawn", || server.queue("running") == 0);
    };
    draw("a");
    draw("b");
    draw("a");
    assert_eq!(loaded(&server), ["a", "b"]);
    draw("c");
    assert_eq!(loaded(&server), ["a", "c"]);
    // What is known of it stays known.
    assert_eq!(server.get("/api/models").json()["models"][1]["channels"], 3);
}

#[test]
fn many_callers_of_more_models_than_fit_all_get_their_pictures() {
    let server = server(&["a", "b", "c"], 1.5);
    thread::scope(|scope| {
        for caller in 0..9_u64 {
            let server = &server;
            scope.spawn(move || {
                for turn in 0..4 {
                    let model = ["a", "b", "c"][((caller + turn) % 3) as usize];
                    let request = json!({ "model": model, "sampler": "euler", "steps": 3, "seed": caller });
                    let drawn = server.generate("image/png", &request).expect(200).picture();
                    let folder = server.folder.path().join("models").join(model);
                    assert_eq!(
                        drawn,
                        alone(&folder, "euler", 3, caller, SampleOptions::default()),
                        "{request}"
                    );
                }
            });
        }
    });
    assert_eq!(loaded(&server).len(), 1);
}

#[test]
fn what_cannot_be_had_is_refused_in_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["small", "broken"] {
        save_model(&folder.path().join("models").join(name), false);
    }
    let models = of_folder(folder.path(), bytes(&folder.path().join("models/small")) - 1);
    let server = Server::with(folder, models, ServerOptions::default());
    let answer = server
        .get("/api/models/small")
        .refused(503, &["`small`", "GiB", "--max-memory"]);
    assert_eq!(answer["field"], "model");

    let folder = tempfile::tempdir().unwrap();
    save_model(&folder.path().join("models/broken"), false);
    let models = of_folder(folder.path(), u64::MAX);
    let weights = folder
        .path()
        .join("models/broken/unet/diffusion_pytorch_model.safetensors");
    fs::write(weights, "nothing").unwrap();
    let server = Server::with(folder, models, ServerOptions::default());
    // The paths of this machine are for its log.
    let answer = server
        .generate("image/png", &json!({}))
        .refused(500, &["`broken` cannot be loaded"]);
    assert!(!answer["error"].as_str().unwrap().contains('/'), "{answer}");
    server.get("/health").expect(200);
}

#[test]
fn names_come_from_folders_and_files_and_are_plain() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["b", "a.b", ".hidden", "no:name"] {
        save_model(&folder.path().join(name), false);
    }
    for file in ["z.safetensors", "z.ckpt", "notes.txt"] {
        fs::write(folder.path().join(file), "").unwrap();
    }
    fs::create_dir(folder.path().join("empty")).unwrap();
    let found = Models::in_folder(folder.path()).unwrap();
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a.b", "b", "z", "z.safetensors"]);
    let mut models = Models::default();
    let mut add = |name: &str| {
        models.add(
            name,
            folder.path().join("b"),
            &LoadOptions::default(),
            &default_device(),
        )
    };
    for wrong in ["", "..", "a/b", "a\\b", ".b"] {
        assert!(
            add(wrong).unwrap_err().to_string().contains("plain name"),
            "{wrong}"
        );
    }
    add("b").unwrap();
    assert!(add("b").is_err());
    // A pipeline of latents counts all of its parts.
    let sd = latent_model("sd").unwrap();
    let unet: u64 = fs::metadata(sd.join("unet/diffusion_pytorch_model.safetensors"))
        .unwrap()
        .len();
    assert!(bytes(&sd) > unet, "{} and {unet}", bytes(&sd));
}
