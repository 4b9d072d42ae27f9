//! Training: the step, the optimiser, learning-rate schedules, EMA and the trainer around them.

pub mod ema;
pub mod lr_schedule;
