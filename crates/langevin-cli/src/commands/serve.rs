//! `langevin serve`.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use langevin::{
    device::{Device, DeviceName},
    guidance::ClipLoss,
    models::clip::ClipModel,
    pipelines::LoadOptions,
};
use langevin_server::{Controls, IpAdapters, Limits, Loras, Models, ServerOptions, serve};

use crate::{hub, loading::Loading, stop::Stop, terminal};

/// What `--help` begins with.
pub(crate) const LONG_ABOUT: &str = "\
Open a page to draw with in a browser, and an HTTP API under it.

Everything that the page needs is in this program. The API is described at /docs. A first Ctrl-C or SIGTERM takes no more \
requests and finishes those that wait; a second one ends at once.";

const EXAMPLES: &str = "\
Examples:
  langevin serve runs/digits-1
  langevin serve runs/digits-1 emoji --runs runs --port 8080
  langevin serve stable-diffusion-v1-5 dreamshaper.safetensors --vae-tiling
  langevin serve checkpoints --max-memory 12GiB
  langevin serve faces=models/celebahq --clip clip-vit-base-patch32
  langevin serve stable-diffusion-v1-5 --control-dir controlnets
  langevin serve stable-diffusion-v1-5 --lora-dir loras --embedding-dir words
  LANGEVIN_API_KEY=secret langevin serve emoji --host 0.0.0.0";

/// The variable that may hold the key, where a command line would show it to everybody on the machine.
const KEY_VARIABLE: &str = "LANGEVIN_API_KEY";

/// What the user typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArgs {
    /// The runs, pipelines, single files or ORG/NAME of the Hub, or folders of several; NAME=MODEL gives one another name than its folder's or
    /// file's
    #[arg(required = true, value_name = "MODEL")]
    pub models: Vec<String>,
    /// How they are loaded
    #[command(flatten)]
    pub loading: Loading,
    /// The address to listen at: 127.0.0.1 for this machine alone, 0.0.0.0 for all
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub host: String,
    /// The port; 0 for any that is free
    #[arg(long, value_name = "PORT", default_value_t = 7860)]
    pub port: u16,
    /// Where to compute: cpu, or vulkan, vulkan:N, wgpu, wgpu:N, metal, cuda, cuda:N where they are built in
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceName::CPU)]
    pub device: DeviceName,
    /// Show the training runs in this folder, and follow those that go on
    #[arg(long, value_name = "FOLDER")]
    pub runs: Option<PathBuf>,
    /// A CLIP model for guidance by a text: a folder of transformers', or an open_clip checkpoint
    #[arg(long, value_name = "FOLDER")]
    pub clip: Option<PathBuf>,
    /// Let requests name the ControlNets and T2I-Adapters of this folder: its subfolders, and its single files without their endings
    #[arg(long, value_name = "FOLDER")]
    pub control_dir: Option<PathBuf>,
    /// Let requests name the IP-Adapters of this folder, its files without their endings; their image encoder lies in image_encoder in it
    #[arg(long, value_name = "FOLDER")]
    pub ip_adapter_dir: Option<PathBuf>,
    /// Let requests name the LoRA of this folder, in prompts as <lora:NAME:0.8> or in `loras`: its files without their endings, and folders with one
    #[arg(long, value_name = "FOLDER")]
    pub lora_dir: Option<PathBuf>,
    /// Write nothing into pictures about how they were drawn; else prompts are in them
    #[arg(long)]
    pub no_metadata: bool,
    /// Random cut-outs that CLIP looks at in each step; 0 for the whole picture
    #[arg(long, value_name = "N", default_value_t = ClipLoss::USUAL_CUTS)]
    pub cuts: usize,
    /// Pictures drawn at once
    #[arg(long, value_name = "N", default_value_t = ServerOptions::default().batch_size, help_heading = "Limits")]
    pub batch_size: usize,
    /// Requests that may wait; further ones are answered by 429
    #[arg(long, value_name = "N", default_value_t = ServerOptions::default().queue, help_heading = "Limits")]
    pub queue: usize,
    /// The most memory that models take together, such as 12GiB; the least used are let go for others [what is free]
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    pub max_memory: Option<Memory>,
    /// The most steps of a request
    #[arg(long, value_name = "N", default_value_t = Limits::default().steps, help_heading = "Limits")]
    pub max_steps: usize,
    /// The most pictures of a request
    #[arg(long, value_name = "N", default_value_t = Limits::default().count, help_heading = "Limits")]
    pub max_count: usize,
    /// The longest side of a picture that is sent, in pixels
    #[arg(long, value_name = "N", default_value_t = Limits::default().side, help_heading = "Limits")]
    pub max_side: u32,
    /// The longest side of a picture that is drawn from latents, in pixels
    #[arg(long, value_name = "N", default_value_t = Limits::default().size, help_heading = "Limits")]
    pub max_size: usize,
    /// The largest body of a request, in bytes
    #[arg(long, value_name = "N", default_value_t = Limits::default().body, help_heading = "Limits")]
    pub max_body: usize,
    /// The key that callers of the API must send [the variable LANGEVIN_API_KEY, or none]
    #[arg(long, value_name = "KEY", help_heading = "Access")]
    pub api_key: Option<String>,
    /// Let pages of this origin (scheme, host and port, as browsers write it) call the API; * for all
    #[arg(long, value_name = "ORIGIN", help_heading = "Access")]
    pub allow_origin: Option<String>,
}

/// Serves until it is asked to end.
pub(crate) fn run(args: ServeArgs) -> Result<()> {
    let device = args.device.open()?;
    let options = resolve(&args)?;
    let options = ServerOptions {
        clip: args
            .clip
            .as_ref()
            .map(|path| -> Result<_> { Ok(ClipModel::load(hub::model(path)?, &device)?) })
            .transpose()?,
        controls: args
            .control_dir
            .as_ref()
            .map(|folder| controls(folder, &device))
            .transpose()?,
        ip_adapters: args
            .ip_adapter_dir
            .as_ref()
            .map(|folder| ip_adapters(folder, &device))
            .transpose()?,
        loras: args.lora_dir.as_deref().map(loras).transpose()?,
        ..options
    };
    // Before the models, which take longer to load than an address that is taken takes to be found out.
    let listener = TcpListener::bind((args.host.as_str(), args.port))
        .with_context(|| format!("cannot listen at {}:{}", args.host, args.port))?;
    let loading = args.loading.options()?;
    let models = load(&args, &loading, &device)?;
    let address = listener.local_addr().context("cannot tell the address")?;
    if !address.ip().is_loopback() && options.api_key.is_none() {
        terminal::note(
            "whoever reaches this address can draw with these models; --api-key lets in those who know it",
        );
    }
    let stop = Stop::on_signals()?;
    terminal::print(&format!("open http://{address}, or read http://{address}/docs"))?;
    Ok(serve(listener, models, options, move || stop.requested())?)
}

/// The ControlNets of a folder, of which there must be one.
fn controls(folder: &Path, device: &Device) -> Result<Arc<Controls>> {
    let controls = Controls::of(folder, device)?;
    for why in controls.passed_over() {
        terminal::note(&format!("passed over in --control-dir: {why}"));
    }
    if controls.is_empty() {
        bail!(
            "--control-dir {}: holds no ControlNet and no T2I-Adapter: folders of diffusers' and single files are looked for in it",
            folder.display()
        );
    }
    Ok(Arc::new(controls))
}

/// The IP-Adapters of a folder, of which there must be one.
fn ip_adapters(folder: &Path, device: &Device) -> Result<Arc<IpAdapters>> {
    let adapters = IpAdapters::of(folder, device)?;
    for why in adapters.passed_over() {
        terminal::note(&format!("passed over in --ip-adapter-dir: {why}"));
    }
    if adapters.is_empty() {
        bail!(
            "--ip-adapter-dir {}: holds no IP-Adapter: files are looked for in it, and the image encoder in image_encoder below it",
            folder.display()
        );
    }
    Ok(Arc::new(adapters))
}

/// The LoRA of a folder, of which there must be one.
fn loras(folder: &Path) -> Result<Arc<Loras>> {
    let loras = Loras::of(folder)?;
    if loras.is_empty() {
        bail!(
            "--lora-dir {}: holds no LoRA: files are looked for in it, and folders with one",
            folder.display()
        );
    }
    Ok(Arc::new(loras))
}

/// The models that are named, the first of them loaded. The others are as well, where they fit; those of a folder of models, and what does
/// not fit, once somebody asks for them.
fn load(args: &ServeArgs, loading: &LoadOptions, device: &Device) -> Result<Models> {
    let mut models = match args.max_memory {
        Some(Memory(bytes)) => Models::default().with_max_memory(bytes),
        None => Models::default(),
    };
    for model in &args.models {
        let (name, path) = named(model);
        let several = if path.is_dir() {
            Models::in_folder(&path)?
        } else {
            Vec::new()
        };
        if !is_model(&path) && !several.is_empty() {
            for (name, path) in several {
                // One that cannot be served does not keep the others from it.
                if let Err(error) = models.add(&name, &path, loading, device) {
                    terminal::note(&format!("{} is left out: {error}", path.display()));
                }
            }
            continue;
        }
        let folder = args.loading.folder(&path)?;
        if models.is_empty() || models.has_room(&folder, loading)? {
            models.load(&name, folder, loading, device)?;
        } else {
            models.add(&name, folder, loading, device)?;
        }
    }
    if models.is_empty() {
        bail!("none of the models can be served");
    }
    Ok(models)
}

/// Whether a folder is a pipeline or a run itself.
fn is_model(folder: &Path) -> bool {
    ["model_index.json", "training.json", "config.json"]
        .iter()
        .any(|file| folder.join(file).is_file())
}

/// An amount of memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Memory(u64);

impl FromStr for Memory {
    type Err = String;

    /// Reads a number with a unit, as in `8GiB`, `500MB` or `0.5G`.
    fn from_str(text: &str) -> Result<Self, String> {
        let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let factor: f64 = match unit.to_ascii_lowercase().as_str() {
            "k" | "kib" => 1024.0,
            "m" | "mib" => 1024_f64.powi(2),
            "g" | "gib" => 1024_f64.powi(3),
            "t" | "tib" => 1024_f64.powi(4),
            "kb" => 1e3,
            "mb" => 1e6,
            "gb" => 1e9,
            "tb" => 1e12,
            _ => {
                return Err(format!(
                    "`{text}` is no amount of memory: it is written as in 8GiB or 500MB"
                ));
            }
        };
        let number = number
            .trim()
            .parse::<f64>()
            .ok()
            .filter(|number| number.is_finite() && *number > 0.0);
        let number = number
            .ok_or_else(|| format!("`{text}` is no amount of memory: it is more than nothing, as in 8GiB"))?;
        Ok(Self((number * factor) as u64))
    }
}

/// What the flags mean, but for CLIP and ControlNets.
fn resolve(args: &ServeArgs) -> Result<ServerOptions> {
    for (flag, value) in [
        ("--batch-size", args.batch_size),
        ("--queue", args.queue),
        ("--max-steps", args.max_steps),
        ("--max-count", args.max_count),
        ("--max-side", args.max_side as usize),
        ("--max-size", args.max_size),
        ("--max-body", args.max_body),
    ] {
        if value == 0 {
            bail!("{flag} is 0; it must be at least 1");
        }
    }
    if let Some(folder) = args.runs.as_ref().filter(|folder| !folder.is_dir()) {
        bail!(
            "--runs {}: is no folder; name the one that the runs are in",
            folder.display()
        );
    }
    let api_key = match (&args.api_key, std::env::var(KEY_VARIABLE)) {
        (Some(key), _) => Some(key.clone()),
        (None, Ok(key)) => Some(key),
        (None, Err(std::env::VarError::NotPresent)) => None,
        // A key that cannot be read must not read as none.
        (None, Err(error)) => bail!("{KEY_VARIABLE}: {error}"),
    };
    if let Some(origin) = args.allow_origin.as_ref().filter(|origin| origin.ends_with('/')) {
        bail!(
            "--allow-origin {origin}: an origin has no path, so leave the last / out, or no page will have it"
        );
    }
    if api_key.as_ref().is_some_and(String::is_empty) {
        bail!("the API key is empty, which would let everybody in: give one, or none at all");
    }
    Ok(ServerOptions {
        limits: Limits {
            steps: args.max_steps,
            count: args.max_count,
            side: args.max_side,
            size: args.max_size,
            body: args.max_body,
            ..Limits::default()
        },
        queue: args.queue,
        batch_size: args.batch_size,
        api_key,
        allow_origin: args.allow_origin.clone(),
        runs: args.runs.clone(),
        cuts: args.cuts,
        no_metadata: args.no_metadata,
        ..ServerOptions::default()
    })
}

/// A model's name, and where it lies: `NAME=PATH`, or a path whose last part is the name, of a file without its ending.
fn named(model: &str) -> (String, PathBuf) {
    let path = PathBuf::from(model);
    match model.split_once('=') {
        // A folder or a file may have such a sign in its own name.
        Some((name, other)) if !path.exists() => (name.to_string(), PathBuf::from(other)),
        _ => {
            // Also of `.` and `..`, whose last part is elsewhere.
            let whole = path.canonicalize().unwrap_or(path.clone());
            // As it is called, wherever a link leads.
            let name = if path.is_file() {
                path.file_stem()
            } else {
                whole.file_name()
            };
            let name = name.unwrap_or_default().to_string_lossy().into_owned();
            (name, path)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_a_number_with_a_unit() {
        let of = |text: &str| text.parse::<Memory>().ok().map(|Memory(bytes)| bytes);
        assert_eq!(of("8GiB"), Some(8 << 30));
        assert_eq!(of("0.5g"), Some(512 << 20));
        assert_eq!(of("500 MB"), Some(500_000_000));
        for wrong in ["8", "GiB", "-1GiB", "0GiB", "8GiBs", "nanGiB", ""] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_model_is_called_as_its_folder_or_as_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("a=b");
        std::fs::create_dir(&inside).unwrap();
        let text = inside.display().to_string();
        assert_eq!(named(&text), ("a=b".into(), inside.clone()));
        assert_eq!(
            named("digits=runs/digits-1"),
            ("digits".into(), "runs/digits-1".into())
        );
        assert_eq!(named("nowhere/digits-1/").0, "digits-1");
        let file = folder.path().join("shaper.v2.safetensors");
        std::fs::write(&file, "").unwrap();
        assert_eq!(named(&file.display().to_string()), ("shaper.v2".into(), file));
    }
}
