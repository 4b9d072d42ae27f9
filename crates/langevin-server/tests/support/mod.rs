//! A server with tiny models, and a client that knows as much of HTTP as the tests need.

// Each test target includes this file and uses a part of it.
#![allow(dead_code)]

pub(crate) mod browser;

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use langevin::{
    data::{Picture, decode_picture},
    device::default_device,
    models::{
        AnyModelConfig, ModelInputs, ModelPreset, UNet2DConfig, VectorInput, unet2d::SampleSize,
        unet2d_condition::ConditionClassEmbedType,
    },
    pipelines::{Classes, LoadOptions, Pipeline, SampleOptions, to_pictures},
    random::Generator,
    schedulers::{DDPMConfig, DDPMScheduler},
    training::ModelSource,
};
use langevin_server::{Models, ServerOptions, serve};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A pipeline of a tiny model of 8x8 pixels: `grey` with two classes and a null class, any other unconditional and in colour.
pub(crate) fn save_model(folder: &Path, grey: bool) {
    let config = UNet2DConfig {
        sample_size: Some(SampleSize::Square(8)),
        in_channels: if grey { 1 } else { 3 },
        out_channels: if grey { 1 } else { 3 },
        num_class_embeds: grey.then_some(3),
        block_out_channels: vec![8, 8],
        layers_per_block: 1,
        norm_num_groups: Some(4),
        down_block_types: UNet2DConfig::default().down_block_types[..2].to_vec(),
        up_block_types: UNet2DConfig::default().up_block_types[2..].to_vec(),
        ..UNet2DConfig::default()
    };
    let model = AnyModelConfig::UNet2D(config)
        .build(&default_device(), &mut Generator::new(1))
        .unwrap();
    let classes = grey.then(|| Classes {
        names: vec!["dark".into(), "light".into()],
        null_class: Some(2),
    });
    let scheduler = DDPMScheduler::new(DDPMConfig::default()).unwrap().into();
    Pipeline::new(model, scheduler, classes)
        .unwrap()
        .save(folder)
        .unwrap();
}

/// Saves an untrained model of colour pictures that takes a vector, as its configuration says it.
fn save_told_model(folder: &Path, note: (&'static str, Value)) {
    let inputs = ModelInputs {
        vector: Some(VectorInput {
            note,
            dimension: 3,
            embedding: ConditionClassEmbedType::Projection,
        }),
        ..ModelInputs::default()
    };
    let model = ModelSource::Preset(ModelPreset::Digits)
        .config()
        .and_then(|config| config.made_with(8, 3, &inputs))
        .and_then(|config| config.build(&default_device(), &mut Generator::new(1)))
        .unwrap();
    let scheduler = DDPMScheduler::new(DDPMConfig::default()).unwrap().into();
    Pipeline::new(model, scheduler, None)
        .unwrap()
        .save(folder)
        .unwrap();
}

/// The folder of a tiny pipeline of the library's tests.
pub(crate) fn latent_model(name: &str) -> Option<PathBuf> {
    let path = match name {
        "sd" => "sd/models/sd1",
        "paint" => "sd/models/inpaint9",
        "lcm" => "sd/models/lcm",
        "xl" => "sdxl/models/base",
        _ => return None,
    };
    Some(reference().join(path))
}

fn reference() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../langevin/tests/reference")
}

/// Writes the pipeline `sd` with a safety checker.
fn save_safe_model(folder: &Path) {
    let models = reference().join("sd/models");
    for from in ["sd1", "sd1_safe"] {
        copy(&models.join(from), folder);
    }
    let index = folder.join("model_index.json");
    let mut components: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    components["safety_checker"] = json!(["stable_diffusion", "StableDiffusionSafetyChecker"]);
    components["feature_extractor"] = json!(["transformers", "CLIPImageProcessor"]);
    fs::write(index, components.to_string()).unwrap();
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let there = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &there);
        } else {
            fs::copy(entry.path(), there).unwrap();
        }
    }
}

/// A server on a port of its own, which ends with this value.
pub(crate) struct Server {
    pub address: SocketAddr,
    pub folder: TempDir,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// A server of the models `grey` and `colour`.
    pub(crate) fn start(options: ServerOptions) -> Self {
        Self::of(|_| options)
    }

    /// The same, with options that may know its folder.
    pub(crate) fn of(options: impl FnOnce(&Path) -> ServerOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = options(folder.path());
        let mut models = Models::default();
        for (name, grey) in [("grey", true), ("colour", false)] {
            save_model(&folder.path().join(name), grey);
            models
                .load(
                    name,
                    folder.path().join(name),
                    &LoadOptions::default(),
                    &default_device(),
                )
                .unwrap();
        }
        Self::with(folder, models, options)
    }

    /// A server of a model `told`, that is told a colour.
    pub(crate) fn told() -> Self {
        Self::of_told(("conditioning_vector", "colour".into()))
    }

    /// The same of one that knows the attributes `smiling` and `hat`.
    pub(crate) fn with_attributes() -> Self {
        Self::of_told(("conditioning_attributes", json!(["smiling", "hat"])))
    }

    fn of_told(note: (&'static str, Value)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut models) = (folder.path().join("told"), Models::default());
        save_told_model(&path, note);
        models
            .load("told", &path, &LoadOptions::default(), &default_device())
            .unwrap();
        Self::with(folder, models, ServerOptions::default())
    }

    /// A server of tiny pipelines of latents with random weights: `sd` from words, `paint` in a picture, `lcm` in few steps, `xl` with two
    /// text encoders, and `safe`, which is `sd` with a safety checker.
    pub(crate) fn latent(options: ServerOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        save_safe_model(&folder.path().join("safe"));
        let mut models = Models::default();
        for name in ["sd", "paint", "lcm", "xl", "safe"] {
            let path = latent_model(name).unwrap_or_else(|| folder.path().join(name));
            models
                .load(name, path, &LoadOptions::default(), &default_device())
                .unwrap();
        }
        Self::with(folder, models, options)
    }

    /// A server of these models.
    pub(crate) fn with(folder: TempDir, models: Models, options: ServerOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            serve(listener, models, options, move || stopped.load(Ordering::Relaxed)).unwrap();
        });
        Self {
            address,
            folder,
            stop,
            thread: Some(thread),
        }
    }

    /// Asks it to end, as a termination signal does.
    pub(crate) fn request_stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn end(mut self) {
        self.request_stop();
        self.thread.take().unwrap().join().unwrap();
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], b"")
    }

    /// Posts a request for pictures in a form.
    pub(crate) fn generate(&self, accept: &str, body: &Value) -> Answer {
        let headers = [("Content-Type", "application/json"), ("Accept", accept)];
        self.call("POST", "/api/generate", &headers, body.to_string().as_bytes())
    }

    pub(crate) fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        call(self.address, method, path, headers, body)
    }

    /// Sends a request for pictures and does not wait for the answer.
    pub(crate) fn send(&self, accept: &str, body: &Value) -> TcpStream {
        let headers = [("Content-Type", "application/json"), ("Accept", accept)];
        send(
            self.address,
            "POST",
            "/api/generate",
            &headers,
            body.to_string().as_bytes(),
        )
    }

    /// What `GET /api/queue` says in a field.
    pub(crate) fn queue(&self, field: &str) -> u64 {
        self.get("/api/queue").json()[field].as_u64().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.request_stop();
    }
}

/// Waits until something holds, at most half a minute.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < Duration::from_secs(30), "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// The answer, which must have this status.
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// The error's sentence; the answer must have this status, and the sentence each of `parts`.
    pub(crate) fn refused(self, status: u16, parts: &[&str]) -> Value {
        let answer = self.expect(status);
        let json = answer.json();
        let message = json["error"].as_str().unwrap().to_string();
        for part in parts {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
        json
    }

    /// The picture of a PNG.
    pub(crate) fn picture(&self) -> Picture {
        assert_eq!(self.header("content-type"), Some("image/png"), "{}", self.text());
        decode_picture(&self.body, 4096, "the answer").unwrap()
    }

    /// Server-sent events: names and data.
    pub(crate) fn events(&self) -> Vec<(String, Value)> {
        assert_eq!(self.header("content-type"), Some("text/event-stream"));
        let text = self.text();
        let events = text.split("\n\n").filter(|event| event.contains("data: "));
        let field = |event: &str, name: &str| {
            let line = event.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no `{name}` in: {event}"))
                .to_string()
        };
        events
            .map(|event| {
                let data = serde_json::from_str(&field(event, "data: ")).unwrap();
                (field(event, "event: "), data)
            })
            .collect()
    }
}

pub(crate) fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    if !headers.iter().any(|(name, _)| *name == "Host") {
        head.push_str(&format!("Host: {address}\r\n"));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    // A server that refuses a body need not have read it.
    let _ = stream.write_all(body);
    stream
}

/// One call, with the whole answer.
pub(crate) fn call(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    receive(send(address, method, path, headers, body))
}

/// Reads the answer of a connection to its end.
pub(crate) fn receive(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let mut part = [0; 65536];
    // Up to the end, or as much as was announced: chromedriver keeps connections open whatever it is told.
    while whole_length(&bytes).is_none_or(|length| bytes.len() < length) {
        let read = stream.read(&mut part).unwrap();
        if read == 0 {
            break;
        }
        bytes.extend(&part[..read]);
    }
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    let mut answer = Answer {
        status,
        headers,
        body: bytes[end + 4..].to_vec(),
    };
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = unchunked(&answer.body);
    }
    answer
}

/// How long an answer is with its head, where that is known.
fn whole_length(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:").map(str::trim))?;
    Some(end + 4 + length.parse::<usize>().ok()?)
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        whole.extend(&bytes[end + 2..end + 2 + size]);
        bytes = &bytes[end + 2 + size + 2..];
    }
    whole
}

/// What the library draws alone, by its plain loop: the oracle of what a server draws in company.
pub(crate) fn alone(
    folder: &Path,
    sampler: &str,
    steps: usize,
    seed: u64,
    options: SampleOptions,
) -> Picture {
    let pipeline = Pipeline::load(folder, &default_device()).unwrap();
    let pipeline = pipeline.with_scheduler(sampler).unwrap();
    let options = SampleOptions {
        batch_size: 1,
        num_inference_steps: Some(steps),
        ..options
    };
    let mut generator = Generator::new(seed);
    let sample = pipeline
        .sample(&options, &mut generator)
        .unwrap()
        .finish()
        .unwrap();
    to_pictures(&sample).unwrap().remove(0)
}
