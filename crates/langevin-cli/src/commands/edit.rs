//! `langevin edit`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use burn::tensor::Tensor;
use clap::Args;
use langevin::{
    Request,
    data::{is_picture_name, read_picture},
    device::DeviceName,
    guidance::ClassifierFree,
    ops::in_pool,
    options::ClassName,
    pipelines::{Latents, Pipeline, to_pictures},
};

use super::{
    sample::{Facts, Output},
    walk::Way,
};
use crate::{flags::Options, hub, stop::Stop, terminal};

/// What `--help` begins with.
pub(crate) const LONG_ABOUT: &str = "\
Draw pictures again as if they showed something else.

The pictures are inverted while the model is told what they show (--source-class, --source-prompt), up to where step --start-step of \
drawing begins; from there they are drawn again, told what they should show (--class, --prompt) and guided by --guidance-scale. The later the \
start, the more of the picture stays.";

const EXAMPLES: &str = "\
Examples:
  langevin edit emoji smile.png --source-class smileys --class animals --guidance-scale 3
  langevin edit emoji latents.safetensors --class flags --start-step 10";

/// What the user typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EditArgs {
    /// The run or pipeline, or ORG/NAME of the Hugging Face Hub
    pub path: PathBuf,
    /// A picture, or the latents that `langevin invert` wrote
    #[arg(value_name = "PICTURE OR LATENTS")]
    pub input: PathBuf,
    /// What it should show
    #[arg(long, value_name = "CLASS")]
    pub class: Option<ClassName>,
    /// What it shows now [what the latents say; the null class]
    #[arg(long, value_name = "CLASS")]
    pub source_class: Option<ClassName>,
    /// A text about what it should show, for a model that looks at texts
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// A text about what it shows now [the empty text]
    #[arg(long, value_name = "TEXT")]
    pub source_prompt: Option<String>,
    /// Steps of the whole way [what the latents say; 50]
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// The step from which the change is drawn, from 0 [a third of the steps]
    #[arg(long, value_name = "N")]
    pub start_step: Option<usize>,
    /// A picture's name for one grid, any other for a folder of pictures
    #[arg(long, short, value_name = "PATH", default_value = "edited.png")]
    pub output: PathBuf,
    /// Write into a folder that already has something in it
    #[arg(long)]
    pub overwrite: bool,
    /// Where to compute: cpu, or vulkan, vulkan:N, wgpu, wgpu:N, metal, cuda, cuda:N where they are built in
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceName::CPU)]
    pub device: DeviceName,
    #[command(flatten)]
    pub guidance: Options<ClassifierFree>,
}

/// Inverts, changes and draws again.
pub(crate) fn run(args: EditArgs) -> Result<()> {
    let output = Output::of(&args.output, args.overwrite)?;
    let pipeline = Pipeline::load(hub::pipeline(&args.path)?, &args.device.open()?)?;
    if args.class.is_none() && args.prompt.is_none() {
        bail!("--class, or --prompt for a model that looks at texts, must say what the picture should show");
    }
    let given = Given::read(&args, &pipeline)?;
    let steps = given.steps(args.steps)?;
    let start = args.start_step.unwrap_or(steps / 3);
    if start >= steps {
        bail!("--start-step {start} is none of {steps} steps, which are counted from 0");
    }
    let request = |class: Vec<ClassName>, prompt: &Option<String>, guidance| Request {
        class,
        prompt: prompt.iter().cloned().collect(),
        guidance,
        ..Request::default()
    };
    let source_class = match (&args.source_class, &given) {
        (None, Given::Latents(latents)) => latents.class_names(),
        (class, _) => class.iter().cloned().collect(),
    };
    let source = request(source_class, &args.source_prompt, ClassifierFree::default());
    let target = request(
        args.class.iter().cloned().collect(),
        &args.prompt,
        args.guidance.0,
    );
    let stop = Stop::on_signals()?;
    let way = Way::new(&pipeline, steps, &stop);
    let edited = in_pool(|| -> Result<_> {
        let begun = match &given {
            Given::Picture(picture) => way.invert(&source, way.encode(picture.clone())?, start)?,
            Given::Latents(latents) => way.draw(&source, &latents.values, 0, Some(start))?,
        };
        way.decode(way.draw(&target, &begun, start, None)?)
    })?;
    let facts = Facts {
        whole: vec![
            ("steps", steps.to_string()),
            ("start step", start.to_string()),
            ("model", args.path.display().to_string()),
        ],
        each: Vec::new(),
    };
    output.write(&to_pictures(&edited)?, &[], &facts)?;
    terminal::print(&format!("edited in {}", args.output.display()))?;
    Ok(())
}

/// What is to be edited.
enum Given {
    /// `[1, channels, height, width]` in -1..1.
    Picture(Tensor<4>),
    Latents(Latents),
}

impl Given {
    fn read(args: &EditArgs, pipeline: &Pipeline) -> Result<Self> {
        if is_picture_name(&args.input) {
            let picture = pipeline.guide_maker()?.picture(&read_picture(&args.input)?)?;
            return Ok(Self::Picture(picture));
        }
        Ok(Self::Latents(Latents::load(
            &args.input,
            &pipeline.model.device(),
        )?))
    }

    fn steps(&self, asked: Option<usize>) -> Result<usize> {
        match (self, asked) {
            (Self::Latents(latents), Some(steps)) if steps != latents.steps => bail!(
                "--steps {steps}: the latents were found in {} steps, and are drawn from in as many",
                latents.steps
            ),
            (Self::Latents(latents), _) => Ok(latents.steps),
            (Self::Picture(_), asked) => Ok(asked.unwrap_or(langevin::pipelines::USUAL_DDIM_STEPS)),
        }
    }
}
