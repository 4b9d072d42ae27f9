//! Guidance: telling a model at sampling time what to draw.
//!
//! [`ClassifierFree`] guidance asks a conditional model twice, told and untold, and goes further the way that the telling
//! makes; [`Guided`] is the denoiser that does so. [`LossGuidance`] works with any model: at every step it moves the
//! sample so that a [`GuidanceLoss`] of the predicted clean picture falls.

mod classifier_free;
mod clip;
mod cutouts;
mod loss;
mod losses;
mod spec;

pub(crate) use classifier_free::Question;
pub use classifier_free::{ClassifierFree, Guided, Interval};
pub use clip::{ClipLoss, great_circle};
pub use cutouts::cutout;
pub use loss::{GuidanceLoss, GuidanceSchedule, LossGuidance, Through, gradient, leaf};
pub(crate) use losses::fits;
pub use losses::{Axis, Brightness, Colour, KnownRegion, Similarity, Symmetry};
pub use spec::{Guide, GuideMaker};
