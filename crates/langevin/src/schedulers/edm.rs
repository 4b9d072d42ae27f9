//! The framework of Karras et al. 2022 that the EDM schedulers work in: which noise levels a loop visits, and how a model is
//! preconditioned.

use burn::tensor::Tensor;

use super::{PredictionType, noise_schedule::linspace};
use crate::{Error, Result, named::named_enum};

named_enum! {
    /// How an EDM loop's noise levels are spread between the highest and the lowest.
    #[derive(Default)]
    pub enum SigmaSchedule: "a spacing of noise levels" {
        /// Evenly in σ^(1/ρ) (Karras et al. 2022, eq. 5).
        #[default]
        Karras = "karras",
        /// Evenly in log σ.
        Exponential = "exponential",
    }
}

/// The highest and the lowest noise level of a loop, and how the others are spread between them.
#[derive(Clone, Copy, Debug)]
pub(super) struct EdmLevels {
    pub schedule: SigmaSchedule,
    pub sigma_min: f64,
    pub sigma_max: f64,
    pub rho: f64,
}

impl EdmLevels {
    /// Refuses levels that are none, or in the wrong order.
    pub(super) fn check(&self) -> Result<()> {
        let Self {
            sigma_min,
            sigma_max,
            rho,
            ..
        } = *self;
        if !(sigma_min > 0.0 && sigma_min < sigma_max && sigma_max.is_finite()) {
            return Err(Error::Config(format!(
                "sigma_min is {sigma_min} and sigma_max {sigma_max}, but 0 < sigma_min < sigma_max must hold"
            )));
        }
        if !(rho > 0.0 && rho.is_finite()) {
            return Err(Error::Config(format!("rho is {rho}, but it must be above 0")));
        }
        Ok(())
    }

    /// The `n` levels, falling, in float32 as diffusers computes them.
    pub(super) fn falling(&self, n: usize) -> Vec<f32> {
        match self.schedule {
            SigmaSchedule::Karras => {
                let (min, max) = (
                    self.sigma_min.powf(1.0 / self.rho),
                    self.sigma_max.powf(1.0 / self.rho),
                );
                let ramp = linspace(0.0, 1.0, n).into_iter();
                ramp.map(|at| (max as f32 + at * (min - max) as f32).powf(self.rho as f32))
                    .collect()
            }
            // Diffusers' only level would be the lowest, where there is nothing left to do.
            SigmaSchedule::Exponential if n == 1 => vec![self.sigma_max as f32],
            SigmaSchedule::Exponential => {
                let rising = linspace(self.sigma_min.ln(), self.sigma_max.ln(), n).into_iter();
                rising.rev().map(f32::exp).collect()
            }
        }
    }
}

/// The timestep that a model is given for a noise level (Karras et al. 2022, table 1: c_noise).
pub(super) fn timestep(sigma: f32) -> f64 {
    f64::from(0.25 * sigma.ln())
}

/// How a raw network is wrapped into a denoiser (Karras et al. 2022, eq. 7 and table 1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Preconditioning {
    sigma_data: f32,
    /// c_out's sign.
    sign: f32,
}

impl Preconditioning {
    /// # Errors
    /// If the deviation is not above 0, or the model predicts something else.
    pub(super) fn new(class_name: &str, sigma_data: f64, kind: PredictionType) -> Result<Self> {
        if !(sigma_data > 0.0 && sigma_data.is_finite()) {
            return Err(Error::Config(format!(
                "sigma_data is {sigma_data}, but it must be above 0"
            )));
        }
        let sign = match kind {
            PredictionType::Epsilon => 1.0,
            PredictionType::VPrediction => -1.0,
            PredictionType::Sample => {
                return Err(Error::Config(format!(
                    "prediction_type is sample, but {class_name}'s preconditioned model has epsilon and v_prediction"
                )));
            }
        };
        Ok(Self {
            sigma_data: sigma_data as f32,
            sign,
        })
    }

    /// c_in x.
    pub(super) fn input(&self, x: Tensor<4>, sigma: f32) -> Tensor<4> {
        x * (1.0 / (sigma * sigma + self.sigma_data * self.sigma_data).sqrt())
    }

    /// x̂_0 = c_skip x + c_out F.
    pub(super) fn clean(&self, prediction: &Tensor<4>, x: &Tensor<4>, sigma: f32) -> Tensor<4> {
        let data = self.sigma_data;
        let square = sigma * sigma + data * data;
        let (skip, out) = (data * data / square, self.sign * sigma * data / square.sqrt());
        x.clone() * skip + prediction.clone() * out
    }
}
