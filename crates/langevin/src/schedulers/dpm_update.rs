//! The update rules of DPM-Solver (Lu et al. 2022a) and DPM-Solver++ (Lu et al. 2022b), deterministic and stochastic, of orders 1
//! to 3.
//!
//! All of them integrate x' = (linear part) + (model's output) exactly in the linear part, and take the output for a polynomial
//! in λ: D0 is its value, D1 and D2 are its first and second derivatives times powers of the step h.

use burn::tensor::Tensor;

use super::{
    FinalSigmas, StepOptions,
    dpm_solver::{History, Level, Predicted, phi, weighted_sum},
    same_shape,
};
use crate::{Error, Result, named::named_enum};

named_enum! {
    /// Which equation DPM-Solver integrates: for the noise or for the clean sample, and the probability-flow equation or the
    /// reverse diffusion.
    #[derive(Default)]
    pub enum AlgorithmType: "an algorithm of DPM-Solver" {
        /// The probability-flow equation with the model's noise (Lu et al. 2022a).
        Dpm = "dpmsolver",
        /// The probability-flow equation with the model's clean sample (Lu et al. 2022b).
        #[default]
        #[serde(alias = "deis")]
        DpmPlusPlus = "dpmsolver++",
        /// The reverse diffusion with the model's noise.
        SdeDpm = "sde-dpmsolver",
        /// The reverse diffusion with the model's clean sample (Lu et al. 2022b, section 5).
        SdeDpmPlusPlus = "sde-dpmsolver++",
    }
}

impl AlgorithmType {
    /// Whether steps add fresh noise.
    pub fn is_stochastic(self) -> bool {
        matches!(self, Self::SdeDpm | Self::SdeDpmPlusPlus)
    }

    /// Whether the model's output is taken as noise, not as a clean sample.
    pub fn needs_noise(self) -> bool {
        matches!(self, Self::Dpm | Self::SdeDpm)
    }
}

named_enum! {
    /// How a second-order step of DPM-Solver weighs the slope of the model's output.
    #[derive(Default)]
    pub enum SolverType: "a solver of DPM-Solver" {
        /// By half the weight of the value, which is right at the step's middle.
        #[default]
        #[serde(alias = "logrho", alias = "bh1", alias = "bh2")]
        Midpoint = "midpoint",
        /// By the exact integral of a line.
        Heun = "heun",
    }
}

/// Which rule a step follows.
#[derive(Clone, Copy, Debug)]
pub(super) struct DpmUpdate {
    pub algorithm: AlgorithmType,
    pub solver: SolverType,
}

/// What a step makes of x, D0, D1, D2 and fresh noise.
struct Weights {
    sample: f64,
    value: f64,
    /// Of D1, halved value and exact integral.
    slope: f64,
    exact_slope: f64,
    curvature: f64,
    noise: f64,
}

impl DpmUpdate {
    /// Refuses an order that there is no rule for, and equations for the noise where a loop ends without any.
    pub(super) fn check(&self, class_name: &str, order: usize, last: FinalSigmas) -> Result<()> {
        let most = if self.algorithm == AlgorithmType::SdeDpm {
            2
        } else {
            3
        };
        if order == 0 || order > most {
            return Err(Error::Config(format!(
                "solver_order is {order}, but {class_name} has 1 to {most} for {}",
                self.algorithm
            )));
        }
        if self.algorithm.needs_noise() && last == FinalSigmas::Zero {
            return Err(Error::Config(format!(
                "{class_name}: algorithm_type {} integrates in the noise, of which none is left where final_sigmas_type is \
                 zero; it needs sigma_min",
                self.algorithm
            )));
        }
        Ok(())
    }

    /// What a stochastic step adds, given or drawn.
    pub(super) fn draw_noise(
        &self,
        class_name: &str,
        x: &Tensor<4>,
        options: &mut StepOptions<'_>,
    ) -> Result<Option<Tensor<4>>> {
        if !self.algorithm.is_stochastic() {
            return Ok(None);
        }
        match options.variance_noise.take() {
            Some(given) => {
                same_shape("the variance noise", &given, "the sample", x)?;
                Ok(Some(given))
            }
            None => options.draw_noise(class_name, x).map(Some),
        }
    }

    /// The model's output as the equation has it, and the clean sample that it implies.
    pub(super) fn output(
        &self,
        predicted: &Predicted,
        prediction: Tensor<4>,
        x: &Tensor<4>,
        at: Level,
    ) -> (Tensor<4>, Tensor<4>) {
        if self.algorithm.needs_noise() {
            predicted.noise(prediction, x, at)
        } else {
            let clean = predicted.clean(&prediction, x, at);
            (clean.clone(), clean)
        }
    }

    /// The weights of a step from level `s` to level `t`.
    fn weights(&self, s: Level, t: Level) -> Weights {
        let h = t.lambda - s.lambda;
        let midpoint = self.solver == SolverType::Midpoint;
        let (sample, value, exact_slope, curvature, noise) = match self.algorithm {
            // x_t = σ_t/σ_s x - α_t (e^{-h} - 1) D0 + α_t h φ_2(-h) D1 + α_t h φ_3(-h) D2 (Lu et al. 2022b, section 4)
            AlgorithmType::DpmPlusPlus => (
                t.sigma / s.sigma,
                -t.alpha * (-h).exp_m1(),
                t.alpha * h * phi(2, -h),
                t.alpha * h * phi(3, -h),
                0.0,
            ),
            // x_t = α_t/α_s x - σ_t (e^h - 1) D0 - σ_t h φ_2(h) D1 - σ_t h φ_3(h) D2 (Lu et al. 2022a, section 3)
            AlgorithmType::Dpm => (
                t.alpha / s.alpha,
                -t.sigma * h.exp_m1(),
                -t.sigma * h * phi(2, h),
                -t.sigma * h * phi(3, h),
                0.0,
            ),
            // x_t = σ_t/σ_s e^{-h} x + α_t (1 - e^{-2h}) D0 + … + σ_t √(1 - e^{-2h}) ε (Lu et al. 2022b, section 5)
            AlgorithmType::SdeDpmPlusPlus => (
                t.sigma / s.sigma * (-h).exp(),
                -t.alpha * (-2.0 * h).exp_m1(),
                t.alpha * 2.0 * h * phi(2, -2.0 * h),
                // The exact integral has +1/2 here. Diffusers has -1/2, which leaves a third-order step an error of the
                // second order, and a seed gives its numbers.
                t.alpha * (-phi(2, -2.0 * h) - 0.5),
                t.sigma * (-(-2.0 * h).exp_m1()).max(0.0).sqrt(),
            ),
            // x_t = α_t/α_s x - 2 σ_t (e^h - 1) D0 - … + σ_t √(e^{2h} - 1) ε (the same section)
            AlgorithmType::SdeDpm => (
                t.alpha / s.alpha,
                -2.0 * t.sigma * h.exp_m1(),
                -2.0 * t.sigma * h * phi(2, h),
                -2.0 * t.sigma * h * phi(3, h),
                t.sigma * (2.0 * h).exp_m1().max(0.0).sqrt(),
            ),
        };
        Weights {
            sample,
            value,
            slope: if midpoint { 0.5 * value } else { exact_slope },
            exact_slope,
            curvature,
            noise,
        }
    }

    /// A step of at most this order from the newest of `history`, where the sample is `x`, to level `t`.
    pub(super) fn multistep(
        &self,
        order: usize,
        x: Tensor<4>,
        history: &History,
        t: Level,
        noise: Option<Tensor<4>>,
    ) -> Tensor<4> {
        let Some(&(s0, _)) = history.get(0) else {
            return x;
        };
        let h = t.lambda - s0.lambda;
        if h == 0.0 {
            return x;
        }
        let w = self.weights(s0, t);
        let behind = |back| history.get(back).map(|(level, _)| *level);
        // What D0, D1 and D2 hold of the outputs m0, m1 and m2 (Lu et al. 2022b, section 4.2).
        let of_outputs = match (if h.is_finite() { order } else { 1 }, behind(1), behind(2)) {
            (3.., Some(s1), Some(s2)) => {
                let (r0, r1) = ((s0.lambda - s1.lambda) / h, (s1.lambda - s2.lambda) / h);
                let d1_0 = [1.0 / r0, -1.0 / r0, 0.0];
                let d1_1 = [0.0, 1.0 / r1, -1.0 / r1];
                let d1 = combine(1.0 + r0 / (r0 + r1), d1_0, -r0 / (r0 + r1), d1_1);
                let d2 = combine(1.0 / (r0 + r1), d1_0, -1.0 / (r0 + r1), d1_1);
                combine(
                    1.0,
                    combine(w.value, [1.0, 0.0, 0.0], w.exact_slope, d1),
                    w.curvature,
                    d2,
                )
            }
            (2.., Some(s1), _) => {
                let r0 = (s0.lambda - s1.lambda) / h;
                combine(w.value, [1.0, 0.0, 0.0], w.slope, [1.0 / r0, -1.0 / r0, 0.0])
            }
            _ => [w.value, 0.0, 0.0],
        };
        self.assemble(x, &w, history, of_outputs, noise)
    }

    /// A step from the oldest of `block`, where the sample was `x`, to level `t`, with all outputs of the block: the last of
    /// the steps within a step that a singlestep solver does.
    pub(super) fn singlestep(
        &self,
        x: Tensor<4>,
        block: &History,
        t: Level,
        noise: Option<Tensor<4>>,
    ) -> Tensor<4> {
        let order = block.len();
        let Some(&(base, _)) = order.checked_sub(1).and_then(|oldest| block.get(oldest)) else {
            return x;
        };
        let h = t.lambda - base.lambda;
        if h == 0.0 {
            return x;
        }
        let w = self.weights(base, t);
        // What D0, D1 and D2 hold of the outputs, newest first (Lu et al. 2022a, section 3.2).
        let of_outputs = match (if h.is_finite() { order } else { 1 }, block.get(0), block.get(1)) {
            (3, Some((s0, _)), Some((s1, _))) => {
                let (r0, r1) = ((s0.lambda - base.lambda) / h, (s1.lambda - base.lambda) / h);
                let d1_0 = [0.0, 1.0 / r1, -1.0 / r1];
                let d1_1 = [1.0 / r0, 0.0, -1.0 / r0];
                let value = [0.0, 0.0, w.value];
                if self.solver == SolverType::Midpoint {
                    combine(1.0, value, w.exact_slope, d1_1)
                } else {
                    let d1 = combine(r0 / (r0 - r1), d1_0, -r1 / (r0 - r1), d1_1);
                    let d2 = combine(-2.0 / (r0 - r1), d1_0, 2.0 / (r0 - r1), d1_1);
                    combine(1.0, combine(1.0, value, w.exact_slope, d1), w.curvature, d2)
                }
            }
            (2, Some((s0, _)), _) => {
                let r0 = (s0.lambda - base.lambda) / h;
                combine(w.value, [0.0, 1.0, 0.0], w.slope, [1.0 / r0, -1.0 / r0, 0.0])
            }
            _ => {
                let mut of_oldest = [0.0; 3];
                of_oldest[order - 1] = w.value;
                of_oldest
            }
        };
        self.assemble(x, &w, block, of_outputs, noise)
    }

    fn assemble(
        &self,
        x: Tensor<4>,
        weights: &Weights,
        history: &History,
        of_outputs: [f64; 3],
        noise: Option<Tensor<4>>,
    ) -> Tensor<4> {
        let outputs = of_outputs.into_iter().zip(history.newest_first().map(|(_, m)| m));
        let noises = noise.as_ref().map(|noise| (weights.noise, noise));
        weighted_sum(x * weights.sample, outputs.chain(noises))
    }
}

/// p a + q b.
fn combine(p: f64, a: [f64; 3], q: f64, b: [f64; 3]) -> [f64; 3] {
    std::array::from_fn(|i| p * a[i] + q * b[i])
}
