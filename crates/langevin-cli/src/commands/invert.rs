//! `langevin invert`.

use std::path::PathBuf;

use anyhow::Result;
use burn::tensor::Tensor;
use clap::Args;
use langevin::{
    Request,
    data::read_picture,
    device::DeviceName,
    grid,
    guidance::ClassifierFree,
    ops::in_pool,
    options::ClassName,
    pipelines::{Latents, Pipeline, to_pictures},
};

use super::{
    sample::refuse_existing,
    walk::{Way, one_each},
};
use crate::{flags::Options, hub, stop::Stop, terminal};

/// What `--help` begins with.
pub(crate) const LONG_ABOUT: &str = "\
Find the noise that a model draws given pictures from.

DDIM without noise of its own can be run backwards, from a picture to the latent that it comes from. The latents go into a \
file that `langevin edit` and `langevin interpolate` take; how well the pictures are drawn from them again is printed.";

/// What the user typed.
#[derive(Args, Debug)]
pub(crate) struct InvertArgs {
    /// The run or pipeline, or ORG/NAME of the Hugging Face Hub
    pub path: PathBuf,
    /// The pictures, brought to the model's size
    #[arg(required = true, value_name = "PICTURE")]
    pub pictures: Vec<PathBuf>,
    /// What a picture shows, once for all or once a picture [the null class]
    #[arg(long, value_name = "CLASS")]
    pub class: Vec<ClassName>,
    /// A text about the picture, once for all or once a picture, for a model that looks at texts [the empty text]
    #[arg(long, value_name = "TEXT")]
    pub prompt: Vec<String>,
    /// Steps of the inversion, and of drawing from it
    #[arg(long, value_name = "N", default_value_t = langevin::pipelines::USUAL_DDIM_STEPS)]
    pub steps: usize,
    /// The file of latents to write
    #[arg(long, short, value_name = "FILE", default_value = "latents.safetensors")]
    pub output: PathBuf,
    /// Write over a file that is there
    #[arg(long)]
    pub overwrite: bool,
    /// Also show the pictures, and below them what is drawn from their latents
    #[arg(long, value_name = "PICTURE")]
    pub grid: Option<PathBuf>,
    /// Where to compute: cpu, or vulkan, vulkan:N, wgpu, wgpu:N, metal, cuda, cuda:N where they are built in
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceName::CPU)]
    pub device: DeviceName,
    #[command(flatten)]
    pub guidance: Options<ClassifierFree>,
}

/// Inverts the pictures, draws them again, and writes the latents.
pub(crate) fn run(args: InvertArgs) -> Result<()> {
    refuse_existing(&args.output, args.overwrite)?;
    let pipeline = Pipeline::load(hub::pipeline(&args.path)?, &args.device.open()?)?;
    let maker = pipeline.guide_maker()?;
    let pictures = args
        .pictures
        .iter()
        .map(|path| maker.picture(&read_picture(path)?))
        .collect::<langevin::Result<Vec<_>>>()?;
    let stop = Stop::on_signals()?;
    let way = Way::new(&pipeline, args.steps, &stop);
    let pictures = Tensor::cat(pictures, 0);
    let count = args.pictures.len();
    let request = Request {
        class: one_each("classes", args.class.clone(), count)?,
        prompt: one_each("prompts", args.prompt.clone(), count)?,
        guidance: args.guidance.0,
        ..Request::default()
    };
    // Which class each picture is of, as the latents' file says it.
    let classes = request.class.iter().map(|class| pipeline.class_number(class));
    let classes: Vec<i64> = classes.collect::<langevin::Result<_>>()?;
    let classes = classes.iter().copied().cycle().take(count).collect();
    let (latents, again) = in_pool(|| -> Result<_> {
        let latents = way.invert(&request, way.encode(pictures.clone())?, 0)?;
        let again = way.draw(&request, &latents, 0, None)?;
        Ok((latents, way.decode(again)?))
    })?;

    let error = (again.clone().clamp(-1.0, 1.0) - pictures.clone()).abs().mean();
    Latents {
        values: latents,
        steps: args.steps,
        classes,
    }
    .save(&args.output)?;
    if let Some(path) = &args.grid {
        let columns = args.pictures.len();
        let shown = to_pictures(&Tensor::cat(vec![pictures, again], 0))?;
        grid::write_picture(path, &grid::side_by_side(&shown, columns)?, &[])?;
        terminal::print_line(&format!("pictures and reconstructions in {}", path.display()))?;
    }
    terminal::print_line(&format!(
        "reconstruction error {:.4}: the mean absolute difference, of values from -1 to 1",
        error.into_scalar::<f32>()
    ))?;
    terminal::print_line(&format!("latents in {}", args.output.display()))?;
    Ok(())
}
