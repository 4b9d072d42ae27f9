//! Training: the step, the optimiser, learning-rate schedules, EMA and the trainer around them.

pub mod choices;
pub mod config;
pub mod ema;
pub mod gradients;
pub mod lr_schedule;
pub mod observer;
pub mod optimizer;
pub mod trainer;
mod validate;

pub use choices::{ConditioningKind, LrSchedulerType, ModelSource};
pub use config::{METRICS, RUN_CONFIG, TrainingConfig};
pub use observer::{Estimate, Observer, Outcome, Progress, RunInfo, Silent};
pub use trainer::Trainer;
