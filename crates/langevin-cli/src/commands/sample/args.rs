//! The flags of `langevin sample`, as they are typed.

use std::path::PathBuf;

use clap::Args;
use langevin::{Request, device::DeviceName};

use crate::{flags::Options, loading::Loading};

/// What `--help` begins with.
pub(crate) const LONG_ABOUT: &str = "\
Draw pictures from a trained model, or from a prompt with a pipeline of the Stable Diffusion family.

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
  langevin sample my-model --inpaint photo.png --mask mask.png
  langevin sample stable-diffusion-v1-5/stable-diffusion-v1-5 --prompt 'a lighthouse at dusk' \\
      --negative-prompt blurry --scheduler dpm++2m-karras --steps 20 --output lighthouse.png
  langevin sample dreamshaper_8.safetensors --prompt 'a castle' --init-image photo.jpg
  langevin sample dreamshaper_8.safetensors --lora pixel-art.safetensors:0.8 --prompt 'a castle, pixel art'
  langevin sample stable-diffusion-v1-5/stable-diffusion-v1-5 --prompt 'a castle' \\
      --control lllyasviel/control_v11p_sd15_canny=edges.png:0.8
  langevin sample sd15 --prompt 'a castle' --vary 'steps=10,20,40; scheduler=euler,unipc' --output both.png
  langevin sample --like lighthouse.png --seeds 43 --output another.png
  langevin sample sdxl-base --refiner sdxl-refiner --prompt 'a castle'";

/// What the user typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SampleArgs {
    /// The run or pipeline, a single file of Stable Diffusion, or ORG/NAME of the Hugging Face Hub [with --like: the picture's]
    #[arg(required_unless_present = "like")]
    pub path: Option<PathBuf>,
    #[command(flatten)]
    pub request: Options<Request>,
    /// Draw again what a PNG says of itself, with whatever else is said here: one of this program's, or of A1111's
    #[arg(long, value_name = "PNG")]
    pub like: Option<PathBuf>,
    /// XL: the pipeline that draws the last part of the steps
    #[arg(long, value_name = "PATH", help_heading = "Stable Diffusion XL")]
    pub refiner: Option<PathBuf>,
    /// The part of the noise, from the cleanest, at which the refiner goes on [0.8]
    #[arg(
        long,
        value_name = "PART",
        requires = "refiner",
        help_heading = "Stable Diffusion XL"
    )]
    pub refiner_start: Option<f64>,
    /// Also write what the ControlNets are shown into this folder, one picture for each
    #[arg(long, value_name = "FOLDER", requires = "control", help_heading = "Control")]
    pub keep_control: Option<PathBuf>,
    /// Where to compute: cpu, or vulkan, vulkan:N, wgpu, wgpu:N, metal, cuda, cuda:N where they are built in
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceName::CPU)]
    pub device: DeviceName,
    /// A picture's name (.png and others) for one grid, .safetensors for latents that are not decoded, any other for a folder of pictures
    /// [samples.png, or samples-2.png and so on where that is there]
    #[arg(long, short, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// Write over a file that is there, or into a folder that already has something in it
    #[arg(long)]
    pub overwrite: bool,
    /// Convolve by plain sums: slower, and exact to the last places
    #[arg(long)]
    pub exact_convolution: bool,
    /// Draw every combination of some options, from one seed, as one labelled picture; values with commas stand between |
    #[arg(
        long,
        value_name = "OPTION=VALUES; …",
        value_parser = super::vary::Axes::read,
        conflicts_with_all = ["refiner", "animate", "count"]
    )]
    pub vary: Option<super::vary::Axes>,
    /// Write nothing into the pictures about how they were drawn
    #[arg(long)]
    pub no_metadata: bool,
    /// Also show the denoising as an animated GIF
    #[arg(long, value_name = "GIF")]
    pub animate: Option<PathBuf>,
    /// The folder of the LoRA that prompts name, as in <lora:NAME:0.8>
    #[arg(long, value_name = "FOLDER")]
    pub lora_dir: Option<PathBuf>,
    // Last, since its heading holds for what follows.
    #[command(flatten)]
    pub loading: Loading,
}
