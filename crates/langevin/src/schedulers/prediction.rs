//! From what a model predicts to the clean sample and the noise that it implies, and the bounds put on the former.

use burn::tensor::Tensor;

use crate::{Error, Result, named::named_enum};

named_enum! {
    /// The three things that diffusion models predict. The names in files are diffusers'.
    #[derive(Default)]
    pub enum PredictionType: "a kind of prediction" {
        /// The noise ε in the sample.
        #[default]
        Epsilon = "epsilon",
        /// The clean sample x_0.
        Sample = "sample",
        /// The velocity v = √ᾱ ε - √(1 - ᾱ) x_0 (Salimans and Ho 2022, appendix D).
        VPrediction = "v_prediction",
    }
}

/// What a config says about keeping the predicted clean sample in range, under diffusers' names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub clip_sample: bool,
    pub clip_sample_range: f64,
    pub thresholding: bool,
    pub dynamic_thresholding_ratio: f64,
    pub sample_max_value: f64,
}

impl Bounds {
    /// The bounds of a class that thresholds but does not clip.
    pub(super) fn thresholding(
        thresholding: bool,
        dynamic_thresholding_ratio: f64,
        sample_max_value: f64,
    ) -> Self {
        Self {
            clip_sample: false,
            clip_sample_range: 1.0,
            thresholding,
            dynamic_thresholding_ratio,
            sample_max_value,
        }
    }

    /// The bounds of a class that clips but does not threshold.
    pub(super) fn clipping(clip_sample: bool, clip_sample_range: f64) -> Self {
        Self {
            clip_sample,
            clip_sample_range,
            thresholding: false,
            dynamic_thresholding_ratio: 1.0,
            sample_max_value: 1.0,
        }
    }

    /// Checks the values that will be used.
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |name: &str, value: f64, right: &str| {
            Err(Error::Config(format!(
                "{name} is {value}, but it must be {right}"
            )))
        };
        if self.thresholding && !(0.0..=1.0).contains(&self.dynamic_thresholding_ratio) {
            return refuse(
                "dynamic_thresholding_ratio",
                self.dynamic_thresholding_ratio,
                "between 0 and 1",
            );
        }
        let positive = |value: f64| value > 0.0 && value.is_finite();
        if self.thresholding && !positive(self.sample_max_value) {
            return refuse("sample_max_value", self.sample_max_value, "above 0");
        }
        if self.clip_sample && !positive(self.clip_sample_range) {
            return refuse("clip_sample_range", self.clip_sample_range, "above 0");
        }
        Ok(())
    }

    /// Whether anything bounds the clean sample.
    pub(super) fn are_set(&self) -> bool {
        self.clip_sample || self.thresholding
    }

    /// The clean sample, thresholded or clipped where the config asks for it.
    pub(super) fn apply(&self, clean: Tensor<4>) -> Tensor<4> {
        if self.thresholding {
            self.threshold(clean)
        } else if self.clip_sample {
            clean.clamp(-self.clip_sample_range, self.clip_sample_range)
        } else {
            clean
        }
    }

    /// x̂_0 as [`predicted_clean`] gives it, within these bounds.
    pub(super) fn predicted_clean(
        &self,
        kind: PredictionType,
        prediction: &Tensor<4>,
        x: &Tensor<4>,
        alpha_prod: f32,
    ) -> Tensor<4> {
        self.apply(predicted_clean(kind, prediction, x, alpha_prod, self.are_set()))
    }

    /// Dynamic thresholding (Saharia et al. 2022, section 2.3): each picture is clipped to a high quantile s of its
    /// absolute values, where that is above 1, and divided by it.
    fn threshold(&self, clean: Tensor<4>) -> Tensor<4> {
        let shape = clean.dims();
        let [batch, channels, height, width] = shape;
        let flat = clean.reshape([batch, channels * height * width]);
        let quantile = quantile(flat.clone().abs(), self.dynamic_thresholding_ratio as f32);
        // In this order, so that a maximum below 1 wins, as in torch.clamp.
        let s = quantile.clamp_min(1.0).clamp_max(self.sample_max_value);
        (flat.min_pair(s.clone()).max_pair(-s.clone()) / s).reshape(shape)
    }
}

/// `torch.quantile(values, q, dim=1, keepdim=True)`: `[rows, n]` to `[rows, 1]`, between two values linearly.
fn quantile(values: Tensor<2>, q: f32) -> Tensor<2> {
    let [_, n] = values.dims();
    let rank = q * (n - 1) as f32;
    // Rounding can put the rank of a long row above its last place.
    let below = (rank as usize).min(n - 1);
    let weight = rank - below as f32;
    let sorted = values.sort(1);
    let low = sorted.clone().narrow(1, below, 1);
    let high = sorted.narrow(1, (below + 1).min(n - 1), 1);
    let difference = high - low.clone();
    low + difference * weight
}

/// x̂_0, the clean sample that `prediction` implies at `x` where ᾱ_t is `alpha_prod` (Ho et al. 2020, eq. 15, and
/// Salimans and Ho 2022 for the velocity). `bounded` says whether the result will be clipped.
pub(crate) fn predicted_clean(
    kind: PredictionType,
    prediction: &Tensor<4>,
    x: &Tensor<4>,
    alpha_prod: f32,
    bounded: bool,
) -> Tensor<4> {
    let (signal_rate, noise_rate) = (alpha_prod.sqrt(), (1.0 - alpha_prod).sqrt());
    match kind {
        PredictionType::Epsilon => {
            // Where no signal is left diffusers divides by zero, and what comes out is infinite or not a number. Under a
            // bound the infinities are right, and the tiny divisor keeps them; without one, the noise level at
            // which diffusers' Euler scheduler stops in this case keeps the numbers in proportion.
            let least = if bounded { 1e-20 } else { 2_f32.powi(-12) };
            let divisor = if alpha_prod > 0.0 { signal_rate } else { least };
            (x.clone() - prediction.clone() * noise_rate) / divisor
        }
        PredictionType::Sample => prediction.clone(),
        PredictionType::VPrediction => x.clone() * signal_rate - prediction.clone() * noise_rate,
    }
}

/// ε̂, the noise that `prediction` implies; `clean` is x̂_0 as [`predicted_clean`] gave it, before any bound.
pub(crate) fn predicted_noise(
    kind: PredictionType,
    prediction: Tensor<4>,
    x: &Tensor<4>,
    clean: &Tensor<4>,
    alpha_prod: f32,
) -> Tensor<4> {
    match kind {
        PredictionType::Epsilon => prediction,
        PredictionType::Sample => noise_between(clean, x, alpha_prod),
        PredictionType::VPrediction => prediction * alpha_prod.sqrt() + x.clone() * (1.0 - alpha_prod).sqrt(),
    }
}

/// ε̂, the noise that `prediction` implies at `x` and the whole timestep `t` of a schedule.
///
/// # Errors
/// If `t` is none of the schedule's.
pub(crate) fn predicted_noise_at(
    kind: PredictionType,
    prediction: Tensor<4>,
    x: &Tensor<4>,
    alphas_cumprod: &[f32],
    t: f64,
) -> Result<Tensor<4>> {
    let alpha_prod = (t.fract() == 0.0 && t >= 0.0)
        .then(|| alphas_cumprod.get(t as usize))
        .flatten()
        .ok_or_else(|| Error::Config(format!("timestep {t} is not one of the schedule's")))?;
    let clean = predicted_clean(kind, &prediction, x, *alpha_prod, false);
    Ok(predicted_noise(kind, prediction, x, &clean, *alpha_prod))
}

/// The noise that leads from `clean` to `x`.
pub(crate) fn noise_between(clean: &Tensor<4>, x: &Tensor<4>, alpha_prod: f32) -> Tensor<4> {
    // A timestep without noise has none to tell, and a share of zero in what is made of it: any finite value will do.
    let noise_rate = (1.0 - alpha_prod).sqrt().max(1e-12);
    (x.clone() - clean.clone() * alpha_prod.sqrt()) / noise_rate
}

/// `a / b` for two levels of the schedule, and 0 where `b` is 0 and diffusers' result would not be a number.
pub(crate) fn ratio(a: f32, b: f32) -> f32 {
    if b == 0.0 { 0.0 } else { a / b }
}
