//! Training: the step, the optimiser, learning-rate schedules, EMA and the trainer around them.

pub mod average;
pub mod card;
pub mod checkpoints;
pub mod choices;
mod class_pictures;
mod codec_run;
mod codec_source;
mod command;
pub mod config;
mod dataset;
pub mod ema;
mod ended;
pub mod gradients;
mod latent;
mod latent_space;
mod latents;
pub mod learner;
mod length;
pub mod lock;
mod loss_curve;
pub mod lr_schedule;
mod memory;
pub mod model;
mod noise;
pub mod observer;
pub mod optimizer;
mod options;
mod pace;
mod places;
mod portable;
mod pretrained;
mod report;
mod run;
mod run_folder;
pub mod runs;
pub mod samples;
mod setup;
mod shelf;
mod slots;
mod sound;
pub mod state;
pub mod step;
mod tags;
mod templates;
pub mod trackers;
pub mod trainee;
pub mod trainer;
mod tuned_card;
mod validate;

pub use choices::{
    ConditioningKind, LearnableProperty, LrSchedulerType, MixedPrecision, ResumeFrom, TextEncoderSource,
    VectorEmbedding,
};
pub use codec_source::{AutoencoderSource, CodecSource};
pub use config::{METRICS, RUN_CONFIG, TrainingConfig};
pub use ended::ended;
pub use lock::RunLock;
pub use loss_curve::LossCurve;
pub use model::ModelSource;
pub use observer::{Drawn, Estimate, Observer, Outcome, Progress, RunInfo, Silent, UpdateReport};
pub use optimizer::OptimizerKind;
pub use sound::DataCodec;
pub use state::SavedRun;
pub use trackers::TrackerKind;
pub use trainee::{AnyTrainee, Full, Latent, Trainee, TraineeKind};
pub use trainer::Trainer;
