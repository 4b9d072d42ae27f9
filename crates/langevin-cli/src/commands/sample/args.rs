//! The flags of `langevin sample`, as they are typed.

use std::path::PathBuf;

use clap::Args;
use langevin::device::DeviceName;

use crate::flags::scheduler;

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
  langevin sample my-model --count 100 --output pictures --animate denoising.gif";

/// What the user typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct SampleArgs {
    /// The run or pipeline
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
    /// Where to compute: cpu, or vulkan, vulkan:N, webgpu, webgpu:N, metal, cuda, cuda:N where they are built in
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceName::CPU)]
    pub device: DeviceName,
    /// The sampler, in place of the pipeline's own; `langevin schedulers` lists them
    #[arg(long, value_parser = scheduler(), hide_possible_values = true, value_name = "NAME")]
    pub scheduler: Option<String>,
    /// ddim and tcd: how much noise a step adds, 0 for none to 1 for as much as ddpm [ddim: 0, tcd: 0.3]
    #[arg(long, value_name = "ETA")]
    pub eta: Option<f64>,
    /// The class to draw, by name or number; given several times, pictures take turns [all in turn]
    #[arg(long, value_name = "CLASS")]
    pub class: Vec<String>,
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
