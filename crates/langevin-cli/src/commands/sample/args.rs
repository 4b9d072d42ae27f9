//! The flags of `langevin sample`, as they are typed.

use std::path::PathBuf;

use clap::Args;
use langevin::device::DeviceName;

use crate::{
    commands::guidance::{ClassifierFreeArgs, LossArgs},
    flags::scheduler,
};

/// What `--help` begins with.
pub const LONG_ABOUT: &str = "\
Draw pictures from a trained model.

One generator, seeded with --seed, draws everything in the order in which diffusers' pipeline call does: the same \
seed, steps and batch size give the same pictures there and here.";

const EXAMPLES: &str = "\
Examples:
  langevin sample runs/digits-1
  langevin sample runs/digits-1 --class 3 --steps 50 --scheduler ddim --seed 7 --output 3.png
  langevin sample runs/digits-1 --scheduler dpm++2m-karras --steps 20
  langevin sample my-model --count 100 --output pictures --animate denoising.gif
  langevin sample runs/digits-1 --class 3 --guidance-scale 3
  langevin sample my-model --guide colour:#1AE680 --guide symmetry@20
  langevin sample my-model --init-image photo.png --strength 0.5
  langevin sample my-model --inpaint photo.png --mask mask.png";

/// What the user typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct SampleArgs {
    /// The run or pipeline, or ORG/NAME of the Hugging Face Hub
    pub path: PathBuf,
    /// How many pictures
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub count: usize,
    /// Pictures drawn together
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub batch_size: usize,
    /// Denoising steps [ddpm: 1000, lcm and tcd: 4, others: 50]
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// The seed that everything random comes from
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Where to compute: cpu, or vulkan, vulkan:N, wgpu, wgpu:N, metal, cuda, cuda:N where they are built in
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceName::CPU)]
    pub device: DeviceName,
    /// The sampler, in place of the pipeline's own; `langevin schedulers` lists them
    #[arg(long, value_parser = scheduler(), hide_possible_values = true, value_name = "NAME")]
    pub scheduler: Option<String>,
    /// ddim and tcd: how much noise a step adds, 0 for none to 1 for as much as ddpm [ddim: 0, tcd: 0.3]
    #[arg(long, value_name = "ETA")]
    pub eta: Option<f64>,
    /// The class to draw, by name or number, or none; given several times, pictures take turns [all in turn]
    #[arg(long, value_name = "CLASS")]
    pub class: Vec<String>,
    /// The text to draw, for a model that looks at texts; given several times, pictures take turns
    #[arg(long, value_name = "TEXT")]
    pub prompt: Vec<String>,
    /// The picture to colour, sharpen or paint in, for a model that is shown one; with --mask where it paints under a mask
    #[arg(long, value_name = "PICTURE")]
    pub conditioning_image: Option<PathBuf>,
    /// Show the conditioning picture as it is: it is blurred, small or an edge drawing already
    #[arg(long, requires = "conditioning_image")]
    pub conditioning_as_is: bool,
    /// Draw with this picture's vector, for a model that is told one; --clip where it is CLIP's
    #[arg(long, value_name = "PICTURE")]
    pub vector_of: Option<PathBuf>,
    /// Draw with this vector, such as the colour 0.8,-0.2,-1
    #[arg(
        long,
        value_delimiter = ',',
        allow_hyphen_values = true,
        value_name = "NUMBERS",
        conflicts_with = "vector_of"
    )]
    pub vector: Vec<f32>,
    /// The text to lead away from with --guidance-scale [the empty text]
    #[arg(long, value_name = "TEXT", help_heading = "Guidance")]
    pub negative_prompt: Option<String>,
    /// The class to lead away from with --guidance-scale [the null class]
    #[arg(long, value_name = "CLASS", help_heading = "Guidance")]
    pub negative_class: Option<String>,
    #[command(flatten)]
    pub guidance: ClassifierFreeArgs,
    #[command(flatten)]
    pub losses: LossArgs,
    /// Begin with this picture under noise, in place of noise alone
    #[arg(long, value_name = "PICTURE", help_heading = "From a picture")]
    pub init_image: Option<PathBuf>,
    /// The part of the steps that is walked from --init-image, above 0 to 1 [0.6]
    #[arg(
        long,
        value_name = "PART",
        requires = "init_image",
        help_heading = "From a picture"
    )]
    pub strength: Option<f64>,
    /// Paint the white part of --mask anew in this picture, by RePaint's sampler
    #[arg(long, value_name = "PICTURE", conflicts_with_all = ["init_image", "scheduler"], help_heading = "From a picture")]
    pub inpaint: Option<PathBuf>,
    /// A picture's name (.png and others) for one grid, any other for a folder of pictures
    #[arg(long, short, value_name = "PATH", default_value = "samples.png")]
    pub output: PathBuf,
    /// Write into a folder that already has something in it
    #[arg(long)]
    pub overwrite: bool,
    /// Convolve by plain sums: slower, and exact to the last places
    #[arg(long)]
    pub exact_convolution: bool,
    /// Also show the denoising as an animated GIF
    #[arg(long, value_name = "GIF")]
    pub animate: Option<PathBuf>,
}
