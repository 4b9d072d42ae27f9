//! The flags of `langevin train`: the options of a run, and what the program itself is told.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches, builder::StringValueParser};
use langevin::{
    device::DeviceName,
    training::{ModelSource, TrainingConfig},
};

/// What `--help` begins with.
pub(crate) const LONG_ABOUT: &str = "\
Train a model on pictures.

Without a data set, this trains on the built-in handwritten digits with a recipe made for them. With one, the defaults \
are those of diffusers' train_unconditional.py, given in brackets. Flags are taken in --kebab-case and in the script's \
--snake_case; `--dry-run` shows what they come to.";

const EXAMPLES: &str = "\
Examples:
  langevin train
  langevin train --train-data-dir pictures --model course-butterflies --num-epochs 50
  langevin train --pretrained stable-diffusion-v1-5/stable-diffusion-v1-5 --trainee lora --train-data-dir corgi \
    --instance-prompt 'a photo of ccorgi dog' --max-train-steps 400
  langevin train --train-data-dir songs --codec mel --resolution 64 --conditioning class
  langevin train --dataset_name=pictures --resolution=64 --train_batch_size=32 --learning_rate=1e-4
  langevin accelerate launch train_unconditional.py --dataset_name=pictures --output_dir=my-model";

/// The headings of the help, in order.
const HEADINGS: [&str; 9] = [
    "Data",
    "Sound",
    "Model",
    "Fine-tuning",
    "Training",
    "Optimiser",
    "Noise",
    "Output",
    "Hub",
];

/// What the user typed.
#[derive(Debug)]
pub(crate) struct TrainArgs {
    /// Of the options of a run, which stand with [`TrainingConfig`], all but the trackers.
    pub options: ArgMatches,
    /// The trackers, by name; there may be `all` and `none` among them.
    pub trackers: Option<Vec<String>>,
    /// What is no option of a run.
    pub program: ProgramArgs,
}

impl TrainArgs {
    /// Whether an option was typed.
    pub(crate) fn has(&self, option: &str) -> bool {
        self.options.contains_id(option)
    }

    /// An option as it was typed.
    pub(crate) fn get<T: Clone + Send + Sync + 'static>(&self, option: &str) -> Option<&T> {
        self.options.get_one(option)
    }
}

impl Args for TrainArgs {
    fn augment_args(command: Command) -> Command {
        let options = TrainingConfig::augment_args_for_update(Command::new("train"))
            .mut_arg(TRACKERS, |arg| arg.value_parser(StringValueParser::new()));
        let with_program = ProgramArgs::augment_args(options);
        let mut args: Vec<Arg> = with_program.get_arguments().cloned().collect();
        args.sort_by_key(|arg| {
            HEADINGS
                .iter()
                .position(|&heading| arg.get_help_heading() == Some(heading))
        });
        command.args(args).after_help(EXAMPLES)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for TrainArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        Self::from_arg_matches_mut(&mut matches.clone())
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, Error> {
        Ok(Self {
            program: ProgramArgs::from_arg_matches_mut(matches)?,
            trackers: matches.remove_many(TRACKERS).map(Iterator::collect),
            options: std::mem::take(matches),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The option that is read here: its flag takes `all` and `none` too.
const TRACKERS: &str = "report_to";

/// Flags that are no options of a run.
#[derive(Args, Debug)]
pub(crate) struct ProgramArgs {
    /// A diffusers model configuration: a config.json, its folder, or ORG/NAME of the Hub
    #[arg(long, value_name = "PATH", help_heading = "Model", conflicts_with_all = ["model", "pretrained"])]
    pub model_config_name_or_path: Option<ModelSource>,
    /// Where to train: cpu, or vulkan, vulkan:N, wgpu, wgpu:N, metal, cuda, cuda:N where they are built in [cpu]
    #[arg(long, value_name = "DEVICE", help_heading = "Training")]
    pub device: Option<DeviceName>,
    /// Show a bar in place of the dashboard
    #[arg(long, visible_alias = "plain", help_heading = "Output")]
    pub no_dashboard: bool,
    /// Show nothing while training
    #[arg(long, short, help_heading = "Output")]
    pub quiet: bool,
    /// Print what the flags come to, as JSON, and train nothing
    #[arg(long, help_heading = "Output")]
    pub dry_run: bool,

    #[command(flatten)]
    pub hub: HubArgs,
    #[command(flatten)]
    pub script: ScriptArgs,
}

/// Flags about the Hugging Face Hub.
#[derive(Args, Debug)]
#[command(next_help_heading = "Hub")]
pub(crate) struct HubArgs {
    /// Publish the run on the Hub when it is over
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub push_to_hub: Option<bool>,
    /// The repository to publish it in [the name of the run's folder, under your own]
    #[arg(long, value_name = "ORG/NAME")]
    pub hub_model_id: Option<String>,
    /// The token [HF_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    pub hub_token: Option<String>,
    /// Make the repository a private one, if it is made now
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub hub_private_repo: Option<bool>,
    /// Where models and data sets of the Hub are kept [the standard cache]
    #[arg(long, value_name = "FOLDER")]
    pub cache_dir: Option<PathBuf>,
}

/// Flags of the script that have no effect here; not in the help.
#[derive(Args, Debug)]
pub(crate) struct ScriptArgs {
    #[arg(long, hide = true)]
    pub enable_xformers_memory_efficient_attention: bool,
    #[arg(long, hide = true)]
    pub preserve_input_precision: bool,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub local_rank: Option<String>,
}
