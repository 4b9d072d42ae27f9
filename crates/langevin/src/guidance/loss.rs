//! Guidance by a loss: at every step, move the sample so that a loss of the predicted clean picture falls.
//!
//! Works with any model, unconditional ones too. The diffusion course's second unit introduces it with a colour and with CLIP;
//! diffusion posterior sampling (Chung et al. 2023) is the same with a measurement.

use burn::tensor::Tensor;

use crate::{Error, Result, named::named_enum, random::Generator};

/// How far clean pictures are from what is wanted.
///
/// A closure over the pictures is one; so a loss of one's own is a line:
///
/// ```
/// use burn::tensor::Tensor;
/// use langevin::guidance::{LossGuidance, Through};
///
/// let dark = |clean: Tensor<4>| clean.mean_dims(&[1, 2, 3]).flatten::<1>(0, 3);
/// let guidance = LossGuidance::new(Through::Clean).with(dark, 20.0);
/// ```
pub trait GuidanceLoss: Send {
    /// The loss of each picture, `[batch]`, of `clean`, `[batch, channels, height, width]` in about -1..1, by differentiable
    /// operations. What is random in it is drawn from `generator`.
    ///
    /// # Errors
    /// If the pictures are not of the kind that it judges.
    fn loss(&self, clean: Tensor<4>, generator: &mut Generator) -> Result<Tensor<1>>;

    /// What it is called in messages.
    fn name(&self) -> String {
        "the guidance loss".into()
    }
}

impl<F: Fn(Tensor<4>) -> Tensor<1> + Send> GuidanceLoss for F {
    fn loss(&self, clean: Tensor<4>, _: &mut Generator) -> Result<Tensor<1>> {
        Ok(self(clean))
    }
}

impl GuidanceLoss for Box<dyn GuidanceLoss> {
    fn loss(&self, clean: Tensor<4>, generator: &mut Generator) -> Result<Tensor<1>> {
        (**self).loss(clean, generator)
    }

    fn name(&self) -> String {
        (**self).name()
    }
}

named_enum! {
    /// What the gradient at the sample goes through.
    #[derive(Default)]
    pub enum Through: "a way for the gradient" {
        /// The predicted clean picture alone, the model's prediction held: the course's first variant, which costs next to nothing.
        #[default]
        Clean = "clean",
        /// The model as well: the course's second variant. It costs a backward through the model, and keeps closer to what
        /// the model would draw.
        Model = "model",
    }
}

named_enum! {
    /// How the scale changes with the noise that is left, where ᾱ goes from 0 (noise) to 1 (clean).
    #[derive(Default)]
    pub enum GuidanceSchedule: "a schedule of the guidance scale" {
        /// The same at every step.
        #[default]
        Constant = "constant",
        /// ᾱ: most at the end.
        Signal = "signal",
        /// √ᾱ, as in the course's CLIP guidance.
        RootSignal = "root-signal",
        /// √(1 - ᾱ): most at the beginning.
        RootNoise = "root-noise",
    }
}

impl GuidanceSchedule {
    /// What the scale is multiplied by where the share of signal is `alpha_cumprod`.
    pub fn factor(self, alpha_cumprod: f64) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Signal => alpha_cumprod,
            Self::RootSignal => alpha_cumprod.sqrt(),
            Self::RootNoise => (1.0 - alpha_cumprod).max(0.0).sqrt(),
        }
    }
}

/// Losses with their scales, and how their gradient is used. Several add up.
pub struct LossGuidance {
    losses: Vec<(Box<dyn GuidanceLoss>, f64)>,
    through: Through,
    schedule: GuidanceSchedule,
    max_norm: Option<f64>,
    generator: Generator,
}

impl LossGuidance {
    /// Guidance without a loss yet.
    pub fn new(through: Through) -> Self {
        Self {
            losses: Vec::new(),
            through,
            schedule: GuidanceSchedule::default(),
            max_norm: None,
            generator: Generator::new(0),
        }
    }

    /// With another loss: at each step the sample moves by `scale` times minus its gradient.
    pub fn with(mut self, loss: impl GuidanceLoss + 'static, scale: f64) -> Self {
        self.losses.push((Box::new(loss), scale));
        self
    }

    /// With the scales following a schedule.
    pub fn with_schedule(mut self, schedule: GuidanceSchedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// With no step moving a picture by more than this Euclidean norm.
    pub fn with_max_norm(mut self, max_norm: f64) -> Self {
        self.max_norm = Some(max_norm);
        self
    }

    /// With what is random in the losses drawn from another generator than one of seed 0.
    pub fn with_generator(mut self, generator: Generator) -> Self {
        self.generator = generator;
        self
    }

    /// What the gradient goes through.
    pub fn through(&self) -> Through {
        self.through
    }

    /// How to move the sample `x`, a [`leaf`] of shape `[batch, channels, height, width]`, at `timestep`. `clean` is the
    /// predicted clean picture as it was computed from that leaf; `alpha_cumprod` tells the share of the signal there.
    ///
    /// # Errors
    /// If a loss has another shape than one number per picture, is not a number, or does not depend on the sample.
    pub fn shift(
        &mut self,
        x: &Tensor<4>,
        clean: Tensor<4>,
        timestep: f64,
        alpha_cumprod: impl FnOnce() -> Result<f64>,
    ) -> Result<Tensor<4>> {
        let factor = match self.schedule {
            GuidanceSchedule::Constant => 1.0,
            schedule => schedule.factor(alpha_cumprod()?),
        };
        let mut total = None;
        for (loss, scale) in &self.losses {
            let of_pictures = loss.loss(clean.clone(), &mut self.generator)?;
            check(&of_pictures, &clean, &loss.name(), timestep)?;
            let scaled = of_pictures.sum() * (scale * factor);
            total = Some(match total {
                Some(total) => total + scaled,
                None => scaled,
            });
        }
        let Some(total) = total else {
            return Ok(x.clone().without_autodiff().zeros_like());
        };
        let shift = -gradient(&total, x)?;
        if !shift.clone().abs().sum().into_scalar::<f32>().is_finite() {
            return Err(Error::NotFinite(format!(
                "the gradient of the guidance loss is not a number at timestep {timestep}"
            )));
        }
        Ok(match self.max_norm {
            Some(max_norm) => bounded(shift, max_norm),
            None => shift,
        })
    }
}

/// The sample as a leaf to differentiate at: what is computed from it can be given to [`gradient`].
pub fn leaf(x: &Tensor<4>) -> Tensor<4> {
    x.clone().without_autodiff().autodiff().require_grad()
}

/// The gradient of `loss`, `[1]`, at the [`leaf`] `x`: of its shape, outside autodiff.
///
/// # Errors
/// If the loss does not depend on `x`.
pub fn gradient(loss: &Tensor<1>, x: &Tensor<4>) -> Result<Tensor<4>> {
    let backward = || loss.is_tracked().then(|| loss.backward());
    backward().and_then(|gradients| x.grad(&gradients)).ok_or_else(|| {
        Error::Config(
            "the guidance loss does not change with the sample, so there is no way to go; where a model predicts the \
             picture itself, the gradient has to go through the model"
                .into(),
        )
    })
}

/// Refuses losses that are not one finite number a picture.
fn check(loss: &Tensor<1>, clean: &Tensor<4>, name: &str, timestep: f64) -> Result<()> {
    let [batch, ..] = clean.dims();
    if loss.dims() != [batch] {
        return Err(Error::Shape(format!(
            "{name} has the shape {:?} for {batch} pictures; it must be one number per picture",
            loss.dims()
        )));
    }
    if loss.clone().sum().into_scalar::<f32>().is_finite() {
        return Ok(());
    }
    Err(Error::NotFinite(format!(
        "{name} is not a finite number at timestep {timestep}: the loss is broken there, or its scale drove the sample away"
    )))
}

/// Each picture's shift, shortened to `max_norm` where it is longer.
fn bounded(shift: Tensor<4>, max_norm: f64) -> Tensor<4> {
    let norm = shift.clone().square().sum_dims(&[1, 2, 3]).sqrt();
    // Where there is no shift there is nothing to shorten, and the quotient would not be a number.
    let factor = (norm.clamp_min(1e-12).recip() * max_norm).clamp_max(1.0);
    shift * factor
}
