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

use anyhow::{Context, Result, bail};
use burn::tensor::Tensor;
use langevin::{
    Pipeline, Request,
    codec::MEL_CONFIG,
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
use crate::{hub, loading::Loading, stop::Stop, terminal};

/// How many pictures are drawn where nobody says; of latents, whose pictures take long, one for each prompt.
const USUAL_COUNT: usize = 16;

/// Draws pictures and writes them.
pub(crate) fn run(args: SampleArgs) -> Result<()> {
    let algorithm = match args.exact_convolution {
        true => Algorithm::Exact,
        false => Algorithm::Fastest,
    };
    convolving(algorithm, || sample(args))
}

fn sample(mut args: SampleArgs) -> Result<()> {
    let output_path = match &args.output {
        Some(path) => path.clone(),
        None => usual_output(args.path.as_deref().is_some_and(draws_sounds)),
    };
    if args.exact_convolution && args.request.0.precision == Precision::Bf16 {
        bail!("--exact-convolution and --precision bf16 exclude each other: leave one out");
    }
    // Everything that can be wrong is found out before the first step.
    let latents_only = is_latents(&output_path);
    if latents_only && args.refiner.is_some() {
        bail!(
            "--output {}: a refiner's end is pictures; name a picture, or leave out --refiner",
            output_path.display()
        );
    }
    let output = match latents_only {
        true => refuse_existing(&output_path, args.overwrite).map(|()| None)?,
        false => Some(Output::of(&output_path, args.overwrite)?),
    };
    let mut animation = args.animate.as_deref().map(Animation::of).transpose()?;
    let (mut request, path, additions) = like::resolve(&args)?;
    args.loading.add(additions);
    let device = args.device.open()?;
    if let Some(folder) = &args.lora_dir {
        args.loading.take_tags(folder, &mut request)?;
    }
    let loading = args.loading.clone().with_depths(request.depth.is_some());
    let pipeline = loading.load(&path, &device)?;
    // Read through while pictures are drawn.
    let hash = (!args.no_metadata && pipeline.codec().is_latent()).then(|| Hash::of(&path, &pipeline));
    let sounds_asked = matches!(output, Some(Output::Sounds(_)));
    if sounds_asked && pipeline.mel().is_none() {
        bail!(
            "--output {}: a {} draws pictures, and no sounds: name a picture or a folder",
            output_path.display(),
            pipeline.class().name
        );
    }
    let mut request = resolve(request, &pipeline, sounds_asked)?;
    if request.upscale.is_some() && animation.is_some() {
        bail!("--animate shows one pass, and with --upscale there are two: leave one of them out");
    }
    let load_control = |name: &str| Loading::control(name, &device);
    let encoder = request.image_encoder.clone();
    let load_ip_adapter = |name: &str| Loading::ip_adapter(name, encoder.as_deref(), &device);
    let aids = Aids {
        controls: &load_control,
        ip_adapters: &load_ip_adapter,
        ..Aids::default()
    };
    if let Some(axes) = &args.vary {
        let model = ModelName::of(path.display().to_string());
        return vary::run(
            axes,
            &request,
            &pipeline,
            &output_path,
            (!args.no_metadata).then_some(&model),
        );
    }
    let plan = if args.refiner.is_some() {
        request.denoising_end = Some(args.refiner_start.unwrap_or(refine::USUAL_START));
        Plan::with(&pipeline, &refine::base(&request), aids)?
    } else {
        Plan::with(&pipeline, &request, aids)?
    };
    // Texts are encoded; what encoded them takes up to a third of the memory.
    let pipeline = pipeline.without_conditions();
    let stop = Stop::on_signals()?;
    for notice in plan.notices() {
        terminal::say(notice);
    }
    if let Some(advice) = plan.precision().advice().filter(|_| pipeline.codec().is_latent()) {
        terminal::say(advice);
    }
    terminal::say(&plan.to_string());
    if let Some(folder) = &args.keep_control {
        write_control_pictures(&plan, folder)?;
    }
    let batches = plan.count().div_ceil(plan.batch_size());
    let mut drawing = Drawing::new(batches, &stop, animation.as_mut());
    let Some(output) = output else {
        let samples = in_pool(|| plan.samples(&pipeline, &mut drawing))?;
        drop(drawing);
        return write_latents(samples, &plan, &output_path);
    };
    let model = path.display().to_string();
    let drawn = plan.clone();
    let sounding = plan.sounding(&pipeline)?;
    let pictures = match &args.refiner {
        Some(refiner) => {
            let base = in_pool(|| plan.samples(&pipeline, &mut drawing))?;
            // One of the two models at a time takes memory enough.
            drop((pipeline, plan));
            let load = || args.loading.without_loras().load(refiner, &device);
            refine::run(base, request, load, &mut Drawing::new(batches, &stop, None))?
        }
        None => in_pool(|| plan.run(&pipeline, &mut drawing))?,
    };
    drop(drawing);
    let Some(pictures) = pictures else {
        bail!("stopped before the pictures were done; nothing was written")
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

fn write_latents(samples: Option<Vec<Tensor<4>>>, plan: &Plan, path: &Path) -> Result<()> {
    let Some(samples) = samples else {
        bail!("stopped before the end; nothing was written")
    };
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
