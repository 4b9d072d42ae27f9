//! A sampling loop in σ: what every sampler of this family keeps beside its update rule.

use burn::tensor::{Tensor, TensorData};

use super::{
    PredictionType, StepOptions, TimestepSpacing,
    position::{Position, index_of},
    same_shape,
};
use crate::{Error, Result};

/// The timesteps of a loop, the noise level of each step and the one after the last, and where the loop stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct SigmaLoop {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    position: Position,
}

impl SigmaLoop {
    /// A loop at its beginning. `sigmas` has at least one value more than `timesteps`.
    pub(super) fn new(timesteps: Vec<f64>, sigmas: Vec<f32>) -> Self {
        debug_assert!(sigmas.len() > timesteps.len());
        Self {
            timesteps,
            sigmas,
            position: Position::default(),
        }
    }

    pub(super) fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    pub(super) fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// The highest σ, and so the standard deviation of a pure noise beside which the signal counts as none; `leading`
    /// timesteps do not reach that far, so that the signal counts too.
    pub(super) fn init_noise_sigma(&self, spacing: TimestepSpacing) -> f64 {
        let max = self.sigmas.iter().copied().fold(0.0, f32::max);
        match spacing {
            TimestepSpacing::Linspace | TimestepSpacing::Trailing => max.into(),
            TimestepSpacing::Leading => (max * max + 1.0).sqrt().into(),
        }
    }

    /// Which step the call at timestep `t` is, see [`Position::find`].
    pub(super) fn step(&mut self, t: f64) -> Result<usize> {
        self.position.find(&self.timesteps, t)
    }

    /// Which step the call at timestep `t` is, for whoever only looks.
    ///
    /// # Errors
    /// If `t` is not where the loop stands.
    pub(super) fn at(&self, t: f64) -> Result<usize> {
        self.position.at(&self.timesteps, t)
    }

    /// σ of the step that the call at `t` is, for whoever only looks.
    ///
    /// # Errors
    /// If `t` is not where the loop stands.
    pub(super) fn sigma_at(&self, t: f64) -> Result<f32> {
        Ok(self.sigmas[self.at(t)?])
    }

    /// σ of the step that the call at `t` is, and σ of the next.
    pub(super) fn levels(&mut self, t: f64) -> Result<(f32, f32)> {
        let step = self.step(t)?;
        Ok((self.sigmas[step], self.sigmas[step + 1]))
    }

    /// σ where the step begins that the call at `t` is one half of, and σ where it ends, in a loop that calls the model
    /// twice a step.
    ///
    /// # Errors
    /// If `t` is not where the loop stands, or a loop is set to begin half way through a step.
    pub(super) fn halves(&mut self, t: f64, is_second: bool) -> Result<(f32, f32)> {
        let step = self.step(t)?;
        match (step % 2 == 1, is_second) {
            (false, false) => Ok((self.sigmas[step], self.sigmas[step + 1])),
            (true, true) => Ok((self.sigmas[step - 1], self.sigmas[step])),
            _ => Err(Error::Config(format!(
                "a loop cannot begin at step {step}, timestep {t}: this scheduler calls the model twice a step, and that \
                 is half way through one"
            ))),
        }
    }

    /// Counts a step.
    pub(super) fn advance(&mut self) {
        self.position.advance();
    }

    /// Says at which step the loop will begin.
    pub(super) fn begin_at(&mut self, index: usize) {
        self.position.begin_at(index);
    }

    /// The sample at timestep `t` with a standard deviation of 1, as models are trained.
    pub(super) fn scale_model_input(&mut self, sample: Tensor<4>, t: f64) -> Result<Tensor<4>> {
        let step = self.step(t)?;
        Ok(scaled(sample, self.sigmas[step]))
    }

    /// σ at timestep `t`, for adding noise: of the step where the loop is set to begin, or of the one that is at `t`;
    /// for a timestep of none, `otherwise` says.
    pub(super) fn level_of_noise(&self, t: f64, otherwise: impl FnOnce(f64) -> Option<f32>) -> Result<f32> {
        let step = match self.position.of_noise() {
            Some(step) => Ok(step),
            None => index_of(&self.timesteps, t),
        };
        match step {
            Ok(step) => self.sigmas.get(step).copied().ok_or_else(|| {
                Error::Config(format!(
                    "the loop was told to begin at step {step}, beyond its last"
                ))
            }),
            Err(error) => otherwise(t).ok_or(error),
        }
    }
}

/// The methods of [`Scheduler`](super::Scheduler) that every scheduler in σ with the fields `config` and `steps`, and without a
/// table by whole timesteps, has in common.
macro_rules! sigma_loop_methods {
    ($config:ident) => {
        fn set_timesteps(&mut self, num_inference_steps: usize) -> Result<()> {
            self.set_loop(&LoopOptions::steps(num_inference_steps))
        }

        fn set_begin_index(&mut self, index: usize) {
            self.steps.begin_at(index);
        }

        fn timesteps(&self) -> &[f64] {
            self.steps.timesteps()
        }

        fn sigmas(&self) -> &[f32] {
            self.steps.sigmas()
        }

        fn add_noise(&self, _x0: Tensor<4>, _noise: Tensor<4>, _timesteps: &[usize]) -> Result<Tensor<4>> {
            Err($crate::schedulers::options::no_whole_timesteps(
                $config::CLASS_NAME,
            ))
        }

        fn add_noise_at(&self, x0: Tensor<4>, noise: Tensor<4>, t: f64) -> Result<Tensor<4>> {
            let sigma = self.steps.level_of_noise(t, |_| None)?;
            let [batch, ..] = x0.dims();
            $crate::schedulers::sigma_loop::add_noise(x0, noise, vec![sigma; batch])
        }

        fn level(&self, t: f64) -> Result<$crate::schedulers::NoiseLevel> {
            let sigma = self.steps.level_of_noise(t, |_| None)?;
            Ok($crate::schedulers::NoiseLevel::of_sigma(sigma))
        }

        fn num_train_timesteps(&self) -> usize {
            self.config.num_train_timesteps
        }
    };
}

pub(super) use sigma_loop_methods;

/// x / √(σ² + 1): a sample in σ with a standard deviation of 1.
pub(crate) fn scaled(sample: Tensor<4>, sigma: f32) -> Tensor<4> {
    sample / (sigma * sigma + 1.0).sqrt()
}

/// x̂_0, the clean sample that `prediction` implies at `x`, a sample in σ (Karras et al. 2022, table 1).
pub(crate) fn clean_at(kind: PredictionType, prediction: &Tensor<4>, x: &Tensor<4>, sigma: f32) -> Tensor<4> {
    match kind {
        PredictionType::Epsilon => x.clone() - prediction.clone() * sigma,
        PredictionType::Sample => prediction.clone(),
        PredictionType::VPrediction => {
            let square = sigma * sigma + 1.0;
            prediction.clone() * (-sigma / square.sqrt()) + x.clone() / square
        }
    }
}

/// The first value once and every other twice: where the calls are of a method that calls the model twice a step.
pub(crate) fn twice<T>(values: &[T]) -> impl Iterator<Item = &T> {
    values.iter().flat_map(|value| [value, value]).skip(1)
}

/// Half way between two levels in log σ, in float32 as `torch.lerp` computes it. Half way to 0 is 0.
pub(crate) fn midpoint(from: f32, to: f32) -> f32 {
    if from == 0.0 || to == 0.0 {
        return 0.0;
    }
    let (from, to) = (from.ln(), to.ln());
    (to - (to - from) * 0.5).exp()
}

/// x_0 + σ ε, with one σ a picture.
pub(crate) fn add_noise(x0: Tensor<4>, noise: Tensor<4>, sigmas: Vec<f32>) -> Result<Tensor<4>> {
    same_shape("the noise", &noise, "the pictures", &x0)?;
    let [batch, ..] = x0.dims();
    if sigmas.len() != batch {
        return Err(Error::Shape(format!(
            "{} timesteps were given for {batch} pictures; each picture has one",
            sigmas.len()
        )));
    }
    let column = Tensor::from_data(TensorData::new(sigmas, [batch, 1, 1, 1]), &x0.device());
    Ok(x0 + noise * column)
}

/// The sample with noise added from σ up to σ̂, and σ̂, as [`StepOptions::s_churn`] asks for (Karras et al. 2022, algorithm
/// 2, lines 4 to 6). `steps` is how many noise levels the loop has, but one.
///
/// # Errors
/// If an option makes no sense, or noise is needed and there is no generator.
pub(crate) fn churn(
    class_name: &str,
    x: Tensor<4>,
    sigma: f32,
    steps: usize,
    options: &mut StepOptions<'_>,
) -> Result<(Tensor<4>, f32)> {
    for (name, value) in [("s_churn", options.s_churn), ("s_noise", options.s_noise)] {
        if !(value >= 0.0 && value.is_finite()) {
            return Err(Error::Config(format!(
                "{name} is {value}, but it must be 0 or more"
            )));
        }
    }
    let within = (options.s_tmin..=options.s_tmax).contains(&f64::from(sigma));
    let gamma = (options.s_churn / steps as f64).min(std::f64::consts::SQRT_2 - 1.0);
    if !within || gamma <= 0.0 {
        return Ok((x, sigma));
    }
    let sigma_hat = sigma * (gamma + 1.0) as f32;
    let noise = options.draw_noise(class_name, &x)? * options.s_noise;
    let x = x + noise * (sigma_hat * sigma_hat - sigma * sigma).max(0.0).sqrt();
    Ok((x, sigma_hat))
}

/// σ after a step from σ `from` to `to` of which a part is fresh noise as large as DDPM's, and that noise's standard
/// deviation: σ_down and σ_up, whose squares sum to that of `to` (Song et al. 2021, eq. 16 with η = 1).
pub(crate) fn ancestral(from: f32, to: f32) -> (f32, f32) {
    let (from_square, to_square) = (from * from, to * to);
    let up_square = to_square * (from_square - to_square) / from_square;
    if !up_square.is_finite() {
        // The squares do not fit float32.
        let (wide_from, wide_to) = (f64::from(from), f64::from(to));
        let down = wide_to * wide_to / wide_from;
        return (
            down as f32,
            (wide_to * wide_to - down * down).max(0.0).sqrt() as f32,
        );
    }
    let up = up_square.max(0.0).sqrt();
    let down_square = to_square - up * up;
    // Far above `to`, rounding leaves nothing of the difference, or less; diffusers takes the root all the same. What it
    // stands for is to² / from.
    let down = if down_square > 0.0 {
        down_square.sqrt()
    } else {
        to * (to / from)
    };
    (down, up)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_noise_and_what_is_left_make_up_the_level() {
        for (from, to) in [
            (14.6, 8.4),
            (1.0, 0.1),
            (20_000.0, 0.02),
            (1e30, 1e20),
            (3.0, 3.0),
            (2.0, 0.0),
        ] {
            let (down, up) = ancestral(from, to);
            assert!(down.is_finite() && up.is_finite(), "{from} {to}: {down} {up}");
            let sum = f64::from(down).hypot(f64::from(up));
            assert!(
                (sum - f64::from(to)).abs() <= 1e-6 * f64::from(to),
                "{from} {to}: {sum}"
            );
            assert!(
                (down - to * (to / from)).abs() <= 1e-3 * to,
                "{from} {to}: {down}"
            );
        }
    }
}
