//! `langevin sample`.

mod animation;
mod args;
mod draw;
mod output;
mod refine;

use anyhow::{Result, bail};
use langevin::{Pipeline, Request, generate::Plan, grid, ops::in_pool, ops::set_exact_convolution};

pub use args::{LONG_ABOUT, SampleArgs};
pub use draw::Drawing;
pub use output::{Facts, Output};

use self::animation::Animation;
use crate::{hub, stop::Stop, terminal};

/// How many pictures are drawn where nobody says; of latents, whose pictures take long, one for each prompt.
const USUAL_COUNT: usize = 16;

/// Draws pictures and writes them.
pub fn run(args: SampleArgs) -> Result<()> {
    set_exact_convolution(args.exact_convolution);
    // Everything that can be wrong is found out before the first step.
    let output = Output::of(&args.output, args.overwrite)?;
    let mut animation = args.animate.as_deref().map(Animation::of).transpose()?;
    let device = args.device.open()?;
    let pipeline = args.loading.load(&args.path, &device)?;
    let mut request = resolve(args.request.0, &pipeline)?;
    let plan = if args.refiner.is_some() {
        request.denoising_end = Some(args.refiner_start.unwrap_or(refine::USUAL_START));
        Plan::of(&pipeline, &refine::base(&request))?
    } else {
        Plan::of(&pipeline, &request)?
    };
    let stop = Stop::on_signals()?;
    for notice in plan.notices() {
        terminal::say(notice);
    }
    terminal::say(&plan.to_string());
    let batches = plan.count().div_ceil(plan.batch_size());
    let mut drawing = Drawing::new(batches, &stop, animation.as_mut());
    let facts = Facts::of(&plan, &args.path.display().to_string());
    let pictures = match &args.refiner {
        Some(refiner) => {
            let base = in_pool(|| plan.samples(&pipeline, &mut drawing))?;
            // One of the two models at a time takes memory enough.
            drop((pipeline, plan));
            let load = || args.loading.load(refiner, &device);
            refine::run(base, request, load, &mut Drawing::new(batches, &stop, None))?
        }
        None => in_pool(|| plan.run(&pipeline, &mut drawing))?,
    };
    drop(drawing);
    let Some(pictures) = pictures else {
        bail!("stopped before the pictures were done; nothing was written")
    };
    output.write(&pictures, &facts)?;
    if let Some(animation) = animation {
        animation.write(grid::columns(pictures.len()))?;
    }
    let what = if pictures.len() == 1 {
        "1 picture".into()
    } else {
        format!("{} pictures", pictures.len())
    };
    terminal::print(&format!("{what} in {}", args.output.display()))?;
    if let Some(path) = &args.animate {
        terminal::print(&format!("animation in {}", path.display()))?;
    }
    Ok(())
}

/// What was typed, with what the program fills in: pictures of all classes in turn, and folders in place of the Hub's names.
fn resolve(mut request: Request, pipeline: &Pipeline) -> Result<Request> {
    let is_latent = pipeline.codec().is_latent();
    if !is_latent {
        request.count = request.count.or(Some(USUAL_COUNT));
    }
    if request.class.is_empty() && !is_latent {
        request.class = pipeline.every_class();
    }
    request.clip = request.clip.map(|path| hub::model(&path)).transpose()?;
    Ok(request)
}
