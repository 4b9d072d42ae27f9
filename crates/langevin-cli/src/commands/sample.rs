//! `langevin sample`.

mod animation;
mod args;
mod draw;
mod hash;
mod like;
mod output;
mod refine;
mod vary;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use burn::tensor::Tensor;
use langevin::{
    Pipeline, Request,
    codec::MEL_CONFIG,
    device::Device,
    generate::{Aids, Plan},
    grid,
    ops::{Algorithm, Precision, convolving, in_pool},
    pipelines::Latents,
    settings::ModelName,
};

pub(crate) use args::{LONG_ABOUT, SampleArgs};
pub(crate) use draw::Drawing;
use hash::Hash;
pub(crate) use output::{Facts, Output, is_written_sound, refuse_existing};

use self::animation::Animation;
use crate::{hub, loading::Loading, processes::Processes, stop::Stop, terminal};

/// How many pictures are drawn where nobody says; of latents, whose pictures take long, one for each prompt.
const USUAL_COUNT: usize = 16;

/// Draws pictures and writes them; the processes of a world share the drawing, and the first writes.
pub(crate) fn run(args: SampleArgs, processes: &mut Processes) -> Result<()> {
    let algorithm = match args.exact_convolution {
        true => Algorithm::Exact,
        false => Algorithm::Fastest,
    };
    convolving(algorithm, || sample(args, processes))
}

fn sample(args: SampleArgs, processes: &mut Processes) -> Result<()> {
    let output_path = match &args.output {
        Some(path) => path.clone(),
        None => usual_output(args.path.as_deref().is_some_and(draws_sounds)),
    };
    // Everything that can be wrong is found out before the first step.
    let latents_only = is_latents(&output_path);
    let checked = check(&args, &output_path, latents_only, processes.is_first());
    let Checked {
        output,
        mut animation,
    } = processes.agree(checked)?;
    let found = Found::of(args);
    let mut found = processes.agree(found)?;
    // The first pulls what the others then find.
    processes.first_then_others(|| found.pull())?;
    let sounds_asked = !latents_only && is_written_sound(&output_path);
    let loaded = found.load(sounds_asked, &output_path);
    let (pipeline, device) = processes.agree(loaded)?;
    let Found { args, request, path } = found;
    // Read through while pictures are drawn.
    let hashes = processes.is_first() && !args.no_metadata && pipeline.codec().is_latent();
    let hash = hashes.then(|| Hash::of(&path, &pipeline));
    if let Some(axes) = &args.vary {
        let model = ModelName::of(path.display().to_string());
        let shown = (!args.no_metadata).then_some(&model);
        return vary::run(axes, &request, &pipeline, &output_path, shown, processes);
    }
    let mut request = request;
    let planned = planned(&args, &mut request, &pipeline, &device);
    let plan = processes.agree(planned)?;
    // Texts are encoded; what encoded them takes up to a third of the memory.
    let pipeline = pipeline.without_conditions();
    let stop = stop_on_signals(processes)?;
    for notice in plan.notices() {
        terminal::say(notice);
    }
    if let Some(advice) = plan.precision().advice().filter(|_| pipeline.codec().is_latent()) {
        terminal::say(advice);
    }
    terminal::say(&plan.to_string());
    if let Some(folder) = &args.keep_control {
        let written = match processes.is_first() {
            true => write_control_pictures(&plan, folder),
            false => Ok(()),
        };
        processes.agree(written)?;
    }
    let batches = plan.count().div_ceil(plan.batch_size());
    let mut drawing = Drawing::new(batches, &stop, animation.as_mut());
    let stopped = || anyhow!("stopped before the pictures were done; nothing was written");
    if latents_only {
        let samples = plan.samples_among(&pipeline, processes.world(), &mut drawing)?;
        drop(drawing);
        let samples = processes.agree(samples.ok_or_else(stopped))?;
        return match processes.is_first() {
            true => write_latents(samples, &plan, &output_path),
            false => Ok(()),
        };
    }
    let model = path.display().to_string();
    let drawn = plan.clone();
    let sounding = processes.agree(plan.sounding(&pipeline).map_err(Into::into))?;
    let pictures = match &args.refiner {
        Some(refiner) => {
            let base = plan.samples_among(&pipeline, processes.world(), &mut drawing)?;
            let base = processes.agree(base.ok_or_else(stopped))?;
            // One of the two models at a time takes memory enough.
            drop((pipeline, plan));
            let load = || args.loading.without_loras().load(refiner, &device);
            let mut drawing = Drawing::new(batches, &stop, None);
            refine::run(base, request, load, processes, &mut drawing)?
        }
        None => plan.run_among(&pipeline, processes.world(), &mut drawing)?,
    };
    drop(drawing);
    let pictures = processes.agree(pictures.ok_or_else(stopped))?;
    let Some(output) = output else {
        // Another process writes.
        return Ok(());
    };
    let facts = match args.no_metadata {
        true => Facts::none(),
        false => Facts::of(
            &drawn,
            &match hash {
                Some(hash) => hash.name(model),
                None => ModelName::of(model),
            },
        ),
    };
    let sounds = match (&output, &sounding) {
        (Output::Grid(_), _) | (_, None) => Vec::new(),
        (_, Some(sounding)) => in_pool(|| sounding.sounds(&pictures))?,
    };
    output.write(&pictures, &sounds, &facts)?;
    if let Some(animation) = animation {
        animation.write(grid::columns(pictures.len()))?;
    }
    let kind = if sounds.is_empty() { "picture" } else { "sound" };
    let what = match pictures.len() {
        1 => format!("1 {kind}"),
        count => format!("{count} {kind}s"),
    };
    terminal::print(&format!("{what} in {}", output_path.display()))?;
    if let Some(path) = &args.animate {
        terminal::print(&format!("animation in {}", path.display()))?;
    }
    Ok(())
}

/// Where the process that writes is to write.
struct Checked {
    /// `None` where latents are written, or nothing is.
    output: Option<Output>,
    animation: Option<Animation>,
}

/// Refuses flags that do not go together, and an output that is in the way.
fn check(args: &SampleArgs, path: &Path, latents_only: bool, writes: bool) -> Result<Checked> {
    if args.exact_convolution && args.request.0.precision == Precision::Bf16 {
        bail!("--exact-convolution and --precision bf16 exclude each other: leave one out");
    }
    if latents_only && args.refiner.is_some() {
        bail!(
            "--output {}: a refiner's end is pictures; name a picture, or leave out --refiner",
            path.display()
        );
    }
    if !writes {
        return Ok(Checked {
            output: None,
            animation: None,
        });
    }
    Ok(Checked {
        output: match latents_only {
            true => refuse_existing(path, args.overwrite).map(|()| None)?,
            false => Some(Output::of(path, args.overwrite)?),
        },
        animation: args.animate.as_deref().map(Animation::of).transpose()?,
    })
}

/// What is asked for, and of which model.
struct Found {
    args: SampleArgs,
    request: Request,
    path: PathBuf,
}

impl Found {
    fn of(mut args: SampleArgs) -> Result<Self> {
        let (mut request, path, additions) = like::resolve(&args)?;
        args.loading.add(additions);
        if let Some(folder) = &args.lora_dir {
            args.loading.take_tags(folder, &mut request)?;
        }
        args.loading = args.loading.with_depths(request.depth.is_some());
        Ok(Self { args, request, path })
    }

    /// Pulls what is named of the Hub and is not here.
    fn pull(&self) -> Result<()> {
        self.args.loading.folder(&self.path)?;
        self.args.loading.options()?;
        if let Some(refiner) = &self.args.refiner {
            self.args.loading.without_loras().folder(refiner)?;
        }
        let clip = self.request.clip.as_deref();
        let encoder = self.request.image_encoder.as_deref();
        for path in clip.into_iter().chain(encoder) {
            hub::model(path)?;
        }
        for name in self
            .request
            .control
            .iter()
            .filter_map(|control| control.model.as_deref())
        {
            hub::model(Path::new(name))?;
        }
        for adapter in &self.request.ip_adapter {
            hub::ip_adapter(Path::new(&adapter.model), encoder.is_none())?;
        }
        Ok(())
    }

    /// Loads the pipeline, and resolves what is asked of it.
    fn load(&mut self, sounds_asked: bool, output: &Path) -> Result<(Pipeline, Device)> {
        let device = self.args.device.open()?;
        let pipeline = self.args.loading.load(&self.path, &device)?;
        if sounds_asked && pipeline.mel().is_none() {
            bail!(
                "--output {}: a {} draws pictures, and no sounds: name a picture or a folder",
                output.display(),
                pipeline.class().name
            );
        }
        self.request = resolve(std::mem::take(&mut self.request), &pipeline, sounds_asked)?;
        if self.request.upscale.is_some() && self.args.animate.is_some() {
            bail!("--animate shows one pass, and with --upscale there are two: leave one of them out");
        }
        Ok((pipeline, device))
    }
}

/// What the request means for the pipeline; of two models, for the first.
fn planned(args: &SampleArgs, request: &mut Request, pipeline: &Pipeline, device: &Device) -> Result<Plan> {
    let load_control = |name: &str| Loading::control(name, device);
    let encoder = request.image_encoder.clone();
    let load_ip_adapter = |name: &str| Loading::ip_adapter(name, encoder.as_deref(), device);
    let aids = Aids {
        controls: &load_control,
        ip_adapters: &load_ip_adapter,
        ..Aids::default()
    };
    if args.refiner.is_some() {
        request.denoising_end = Some(args.refiner_start.unwrap_or(refine::USUAL_START));
        return Ok(Plan::with(pipeline, &refine::base(request), aids)?);
    }
    Ok(Plan::with(pipeline, request, aids)?)
}

/// The signals that end a drawing; where a launcher passes another one on, that too.
pub(crate) fn stop_on_signals(processes: &Processes) -> Result<Stop> {
    let stop = Stop::on_signals()?;
    #[cfg(unix)]
    if processes.size() > 1 {
        stop.on_user_signal()?;
    }
    Ok(stop)
}

/// Where pictures or sounds go if nobody says: the first of `samples.png`, `samples-2.png` … that is not there yet.
fn usual_output(are_sounds: bool) -> PathBuf {
    let ending = if are_sounds { "wav" } else { "png" };
    let names = std::iter::once("samples".to_string()).chain((2..).map(|n| format!("samples-{n}")));
    names
        .map(|name| PathBuf::from(format!("{name}.{ending}")))
        .find(|path| !path.exists() && !path.with_extension("png").exists())
        .unwrap_or_default()
}

/// Whether a folder holds a pipeline that draws sounds, by its looks.
fn draws_sounds(path: &Path) -> bool {
    path.join("mel").join(MEL_CONFIG).is_file()
}

/// Writes what the plan's ControlNets are shown; it can be looked at while pictures are drawn.
fn write_control_pictures(plan: &Plan, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for (number, picture) in plan.control_pictures().iter().enumerate() {
        grid::write_png(folder.join(format!("control-{}.png", number + 1)), picture, &[])?;
    }
    terminal::say(&format!(
        "what the ControlNets are shown is in {}",
        folder.display()
    ));
    Ok(())
}

/// Whether a name is that of a file of latents: what a loop ends with, before it is decoded.
fn is_latents(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors"))
}

fn write_latents(samples: Vec<Tensor<4>>, plan: &Plan, path: &Path) -> Result<()> {
    Latents {
        values: Tensor::cat(samples, 0),
        steps: plan.steps(),
        classes: Vec::new(),
    }
    .save(path)?;
    terminal::print(&format!("latents in {}", path.display()))?;
    Ok(())
}

/// What was typed, with what the program fills in: pictures of all classes in turn, and folders in place of the Hub's names.
fn resolve(mut request: Request, pipeline: &Pipeline, sounds_asked: bool) -> Result<Request> {
    let is_latent = pipeline.codec().is_latent();
    if !is_latent {
        let usual = match request.seeds.len() {
            // A file for each that is asked for.
            0 if sounds_asked => request.class.len().max(1),
            0 => USUAL_COUNT,
            seeds => seeds,
        };
        request.count = request.count.or(Some(usual));
    }
    if request.class.is_empty() && !is_latent {
        request.class = pipeline.every_class();
    }
    request.clip = request.clip.map(|path| hub::model(&path)).transpose()?;
    Ok(request)
}
