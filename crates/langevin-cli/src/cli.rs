//! The commands and what introduces them.

use clap::{Parser, Subcommand};

use crate::commands::{
    completions::{self, CompletionsArgs},
    convert::{self, ConvertArgs},
    edit::{self, EditArgs},
    evaluate::{self, EvaluateArgs},
    info::InfoArgs,
    interpolate::{self, InterpolateArgs},
    invert::{self, InvertArgs},
    launch::{self, LaunchArgs},
    list::ListArgs,
    man::{self, ManArgs},
    plot::PlotArgs,
    plot_schedule::PlotScheduleArgs,
    plot_weighting::PlotWeightingArgs,
    pull::{self, PullArgs},
    push::{self, PushArgs},
    remove::RemoveArgs,
    runs::RunsArgs,
    sample::{self, SampleArgs},
    schedulers::SchedulersArgs,
    serve::{self, ServeArgs},
    space::{self, SpaceArgs},
    train::{self, TrainArgs},
};

const EXAMPLES: &str = "\
Examples:
  langevin train
      Train on the built-in handwritten digits: two minutes on two cores.
  langevin sample runs/digits-1 --class 3 --count 16 --output three.png
      Draw sixteen threes as one picture.
  langevin train --train-data-dir pictures --resolution 32 --model course-butterflies
      Train on a folder of pictures.
  langevin train --dataset_name=pictures --resolution=64 --train_batch_size=32 --use_ema
      The flags of diffusers' train_unconditional.py, as they are written there. A whole line that
      begins with `accelerate launch train_unconditional.py`, or with `python finetune_model.py`
      as the course has it, may be pasted after `langevin`.
  langevin sample runs/digits-1 --scheduler unipc --steps 10
      Draw with another sampler; `langevin schedulers` lists them.
  langevin serve runs/digits-1
      Open a page to draw with in a browser.
  langevin info runs/digits-1
      Say what is in a folder.
  langevin sample google/ddpm-cat-256 --count 1 --scheduler ddim
      Draw with a model of the Hugging Face Hub; wherever a model or a data set is named, ORG/NAME may stand.
  langevin push runs/digits-1 ORG/digits
      Publish a run there.

`langevin COMMAND --help` says more about a command.";

/// Train diffusion models and draw pictures from them, in the file formats of Hugging Face diffusers.
#[derive(Parser, Debug)]
#[command(
    name = "langevin",
    version,
    arg_required_else_help = true,
    after_help = EXAMPLES,
    disable_help_subcommand = true,
    // As argparse has it: of a flag that is given twice, the last holds.
    args_override_self = true,
    max_term_width = 110
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Train a model on pictures
    #[command(long_about = train::LONG_ABOUT)]
    Train(Box<TrainArgs>),
    /// Start a command as several processes
    #[command(long_about = launch::LONG_ABOUT)]
    Launch(LaunchArgs),
    /// Draw pictures from a trained model
    #[command(long_about = sample::LONG_ABOUT)]
    Sample(Box<SampleArgs>),
    /// Describe a model, a run or a data set
    Info(InfoArgs),
    /// Measure how good a model's samples are
    #[command(long_about = evaluate::LONG_ABOUT)]
    Evaluate(EvaluateArgs),
    /// Find the noise that a model draws given pictures from
    #[command(long_about = invert::LONG_ABOUT)]
    Invert(InvertArgs),
    /// Draw pictures again as if they showed something else
    #[command(long_about = edit::LONG_ABOUT)]
    Edit(EditArgs),
    /// Draw what lies between two pictures or seeds
    #[command(long_about = interpolate::LONG_ABOUT)]
    Interpolate(InterpolateArgs),
    /// Write a checkpoint of any format as a present-day pipeline
    #[command(long_about = convert::LONG_ABOUT)]
    Convert(ConvertArgs),
    /// Open a page to draw with, and an API
    #[command(long_about = serve::LONG_ABOUT)]
    Serve(ServeArgs),
    /// List training runs
    Runs(RunsArgs),
    /// Draw the losses of one or several runs
    Plot(PlotArgs),
    /// Download a model or a data set from the Hugging Face Hub
    #[command(long_about = pull::LONG_ABOUT)]
    Pull(PullArgs),
    /// Publish a run or a pipeline on the Hub
    #[command(long_about = push::LONG_ABOUT)]
    Push(PushArgs),
    /// List what the cache of the Hub holds
    List(ListArgs),
    /// Remove a model or a data set from the cache of the Hub
    Remove(RemoveArgs),
    /// Write a folder that is a Hugging Face Space with a model's page
    #[command(long_about = space::LONG_ABOUT)]
    Space(SpaceArgs),
    /// List the samplers
    Schedulers(SchedulersArgs),
    /// Draw a noise schedule, and the steps that a sampler would take
    PlotSchedule(PlotScheduleArgs),
    /// Draw how much each timestep counts under the weightings of the loss
    PlotWeighting(PlotWeightingArgs),
    /// Print what makes a shell complete a command's words
    #[command(long_about = completions::LONG_ABOUT)]
    Completions(CompletionsArgs),
    /// Write the manual pages
    #[command(long_about = man::LONG_ABOUT)]
    Man(ManArgs),
}
