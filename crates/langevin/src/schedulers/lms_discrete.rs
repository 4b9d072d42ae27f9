//! The linear multistep method on the probability flow in σ, as k-diffusion's `sample_lms`. Mirrors
//! `diffusers.LMSDiscreteScheduler`.

use std::collections::VecDeque;

use burn::tensor::Tensor;

use super::{
    GivenLoop, PredictionType, Scheduler, SchedulerConfig, StepOptions, StepOutput,
    class::scheduler_class,
    discrete::{Discrete, discrete_methods},
    same_shape,
    sigma_loop::{SigmaLoop, clean_at},
};
use crate::{Error, Result};

scheduler_class! {
    /// The configuration of an [`LMSDiscreteScheduler`], with diffusers' names and defaults.
    pub struct LMSDiscreteConfig for LMSDiscreteScheduler {
        ..noise(0.0001, 0.02, Linear),
        /// What the model predicts.
        prediction_type: PredictionType = PredictionType::default(),
        ..discrete_sigmas,
        ..steps(Linspace),
    }

    facts {}

    samplers {
        "lms", "4", false, "linear multistep in sigma";
    }
}

/// The Adams–Bashforth method for steps of any width: the derivatives of the last steps, four by default
/// ([`StepOptions::order`]), are continued as a polynomial over the next.
///
/// A loop that begins in the middle needs [`Scheduler::set_begin_index`]: without it, it weighs its first
/// derivatives as if there had been others before, as diffusers does.
#[derive(Clone, Debug)]
pub struct LMSDiscreteScheduler {
    config: LMSDiscreteConfig,
    discrete: Discrete,
    /// The last step's first.
    derivatives: VecDeque<Tensor<4>>,
    begin: usize,
}

impl LMSDiscreteScheduler {
    /// A scheduler whose loop visits every training timestep, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense, or two do not go together; the error names it.
    pub fn new(config: LMSDiscreteConfig) -> Result<Self> {
        let discrete = config.discrete()?;
        let (timesteps, sigmas) = discrete.every_timestep();
        let mut scheduler = Self {
            config,
            discrete,
            derivatives: VecDeque::new(),
            begin: 0,
        };
        scheduler.restart(&timesteps, &sigmas);
        Ok(scheduler)
    }

    fn restart(&mut self, timesteps: &[f64], sigmas: &[f64]) {
        let timesteps = timesteps.iter().map(|&t| f64::from(t as f32)).collect();
        let sigmas = sigmas.iter().map(|&sigma| sigma as f32).chain([0.0]).collect();
        self.discrete.steps = SigmaLoop::new(timesteps, sigmas);
        self.derivatives.clear();
        self.begin = 0;
    }
}

/// The weight of the derivative `which` steps ago, of `order` of them, in the step that begins at the last of `sigmas`
/// but one and ends at the last: the integral over the step of the Lagrange polynomial that is 1 there and 0 at the
/// others. `sigmas` holds the levels of the derivatives, the oldest first, and where the step ends.
fn weight(sigmas: &[f64], which: usize) -> f64 {
    let (end, levels) = match sigmas.split_last() {
        Some((end, levels)) => (*end, levels),
        None => return 0.0,
    };
    let newest = levels.len() - 1;
    let (own, start) = (levels[newest - which], levels[newest]);
    // The polynomial in σ - start, its constant first.
    let mut polynomial = vec![1.0];
    for (ago, &level) in levels.iter().rev().enumerate() {
        if ago == which {
            continue;
        }
        let mut product = vec![0.0; polynomial.len() + 1];
        for (power, coefficient) in polynomial.iter().enumerate() {
            let coefficient = coefficient / (own - level);
            product[power] += coefficient * (start - level);
            product[power + 1] += coefficient;
        }
        polynomial = product;
    }
    let width = end - start;
    polynomial
        .iter()
        .enumerate()
        .map(|(power, coefficient)| {
            let power = power as i32 + 1;
            coefficient * width.powi(power) / f64::from(power)
        })
        .sum()
}

impl Scheduler for LMSDiscreteScheduler {
    fn set_timesteps(&mut self, num_inference_steps: usize) -> Result<()> {
        let class_name = LMSDiscreteConfig::CLASS_NAME;
        let (timesteps, sigmas) = self
            .discrete
            .spread(class_name, GivenLoop::Steps(num_inference_steps))?;
        self.restart(&timesteps, &sigmas);
        Ok(())
    }

    fn scale_model_input(&mut self, sample: Tensor<4>, t: f64) -> Result<Tensor<4>> {
        self.discrete.steps.scale_model_input(sample, t)
    }

    fn step(
        &mut self,
        prediction: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        same_shape("the prediction", &prediction, "the sample", &x)?;
        if options.order == 0 {
            return Err(Error::Config(
                "order is 0, but a step needs at least one derivative".to_owned(),
            ));
        }
        let step = self.discrete.steps.step(t)?;
        let sigmas = self.discrete.steps.sigmas();
        let sigma = sigmas[step];
        let clean = self.predicted_clean(&prediction, t, &x)?;
        self.derivatives.push_front((x.clone() - clean.clone()) / sigma);
        self.derivatives.truncate(options.order);

        // Between equal levels there is nothing to learn from a derivative, and a difference of 0 to divide by.
        let mut order = options.order.min(step + 1 - self.begin.min(step));
        order = (1..order)
            .find(|&k| sigmas[step - k] <= sigmas[step + 1 - k])
            .unwrap_or(order);
        let levels: Vec<f64> = sigmas[step + 1 - order..=step + 1]
            .iter()
            .map(|&sigma| sigma.into())
            .collect();

        // x + Σ_j (∫ l_j dσ) d_{i-j}
        let mut previous = x;
        for (which, derivative) in self.derivatives.iter().take(order).enumerate() {
            previous = previous + derivative.clone() * weight(&levels, which);
        }
        self.discrete.steps.advance();
        Ok(StepOutput {
            previous,
            predicted_clean: clean,
        })
    }

    fn set_begin_index(&mut self, index: usize) {
        self.begin = index;
        self.discrete.steps.begin_at(index);
    }

    fn predicted_clean(&self, prediction: &Tensor<4>, t: f64, x: &Tensor<4>) -> Result<Tensor<4>> {
        same_shape("the prediction", prediction, "the sample", x)?;
        let sigma = self.discrete.steps.sigma_at(t)?;
        Ok(clean_at(self.config.prediction_type, prediction, x, sigma))
    }

    discrete_methods!(but set_begin_index);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_steps_have_the_weights_of_adams_and_bashforth() {
        let levels = [4.0, 3.0, 2.0, 1.0, 0.0];
        for (which, expected) in [55.0, -59.0, 37.0, -9.0].into_iter().enumerate() {
            assert!((weight(&levels, which) + expected / 24.0).abs() < 1e-12);
        }
        assert!((weight(&[1.5, 1.0], 0) + 0.5).abs() < 1e-12);
    }
}
