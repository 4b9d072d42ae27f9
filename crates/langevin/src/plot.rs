//! The loss plot.
