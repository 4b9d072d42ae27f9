//! Pseudo numerical methods for diffusion models (Liu et al. 2022). Mirrors `diffusers.PNDMScheduler`.

use std::collections::VecDeque;

use burn::tensor::Tensor;

use super::{
    NoiseSchedule, PredictionType, Scheduler, StepOptions, StepOutput, class::scheduler_class,
    noise_schedule::table_methods, position, prediction::predicted_clean, same_shape,
};
use crate::{Error, Result};

/// How many predictions the multistep rule looks at, and how many steps the Runge–Kutta rule takes to have one less.
const ORDER: usize = 4;
/// How many calls of the model a Runge–Kutta step is.
const STAGES: usize = 4;

scheduler_class! {
    /// The configuration of a [`PNDMScheduler`], with diffusers' names and defaults.
    pub struct PNDMConfig for PNDMScheduler {
        ..noise(0.0001, 0.02, Linear),
        /// Whether to begin without Runge–Kutta steps: with one step that is done twice, and multistep rules of rising
        /// order (Stable Diffusion's way).
        skip_prk_steps: bool = false,
        /// Whether the last step leads to ᾱ = 1, or to ᾱ of timestep 0.
        set_alpha_to_one: bool = false,
        /// What the model predicts: the noise or the velocity.
        prediction_type: PredictionType = PredictionType::default(),
        ..steps(Leading),
    }

    facts {}

    samplers {
        "pndm", "2", false, "pseudo linear multistep, Stable Diffusion's first";
    }
}

/// The least ᾱ of a schedule. Mixed predictions grow like 1/√ᾱ, and the clean samples that they imply once more.
const LEAST_SIGNAL: f32 = 1e-20;

/// The linear multistep method of fourth order, in the transfer part of DDIM (Liu et al. 2022, algorithm 2). Its first three
/// steps are pseudo Runge–Kutta steps of four calls of the model each, or steps of lower order.
#[derive(Clone, Debug)]
pub struct PNDMScheduler {
    config: PNDMConfig,
    noise: NoiseSchedule,
    /// ᾱ after the last step.
    final_alpha_cumprod: f32,
    /// How far a step goes.
    stride: usize,
    timesteps: Vec<f64>,
    /// How many of the timesteps, from the first, are of Runge–Kutta steps.
    runge_kutta: usize,
    /// How many calls of the loop are done.
    calls: usize,
    /// The last predictions at the beginning of a step, the latest first.
    predictions: VecDeque<Tensor<4>>,
    /// Where the step in progress began, while it is made of more than one call of the model.
    start: Option<Tensor<4>>,
    /// The sum of a Runge–Kutta step's weighted predictions so far.
    sum: Option<Tensor<4>>,
}

impl PNDMScheduler {
    /// A scheduler whose loop visits every training timestep, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense; the error names it.
    pub fn new(config: PNDMConfig) -> Result<Self> {
        if config.prediction_type == PredictionType::Sample {
            return Err(Error::Config(
                "PNDMScheduler mixes predictions of several timesteps, which have to be the noise or the velocity: \
                 prediction_type is sample"
                    .to_owned(),
            ));
        }
        let noise = NoiseSchedule::new(config.noise_options())?;
        if let Some(t) = noise
            .alphas_cumprod()
            .iter()
            .position(|&alpha| alpha < LEAST_SIGNAL)
        {
            return Err(Error::Config(format!(
                "PNDMScheduler divides by the share of signal, of which its schedule leaves {:e} at timestep {t}: less than \
                 {LEAST_SIGNAL:e}, the least with which float32 does not overflow",
                noise.alphas_cumprod()[t]
            )));
        }
        let final_alpha_cumprod = if config.set_alpha_to_one {
            1.0
        } else {
            noise.alphas_cumprod()[0]
        };
        let every = (0..config.num_train_timesteps).rev().collect();
        let mut scheduler = Self {
            config,
            noise,
            final_alpha_cumprod,
            stride: 1,
            timesteps: Vec::new(),
            runge_kutta: 0,
            calls: 0,
            predictions: VecDeque::new(),
            start: None,
            sum: None,
        };
        scheduler.begin(every, 1)?;
        Ok(scheduler)
    }

    /// Begins a loop of steps from these timesteps, which fall.
    fn begin(&mut self, steps: Vec<usize>, stride: usize) -> Result<()> {
        let mut calls = Vec::new();
        if self.config.skip_prk_steps || (steps.len() < ORDER && self.timesteps.is_empty()) {
            // The first step is done twice: its end is visited a second time.
            calls.push(steps[0]);
            calls.extend(steps.get(1));
            calls.extend(&steps[1..]);
            self.runge_kutta = 0;
        } else {
            if steps.len() < ORDER {
                return Err(Error::Config(format!(
                    "PNDMScheduler needs at least {ORDER} steps to begin with Runge-Kutta steps, and {} were asked for; \
                     skip_prk_steps does without them",
                    steps.len()
                )));
            }
            // A step from a to b calls the model at a, twice half way, and at b.
            for pair in steps[..ORDER].windows(2) {
                let half_way = pair[1] + stride / 2;
                calls.extend([pair[0], half_way, half_way, pair[1]]);
            }
            self.runge_kutta = calls.len();
            calls.extend(&steps[ORDER - 1..]);
        }
        self.timesteps = calls.into_iter().map(|t| t as f64).collect();
        self.stride = stride;
        self.calls = 0;
        self.predictions.clear();
        self.start = None;
        self.sum = None;
        Ok(())
    }

    /// Whether the call is the one that does the first step again.
    fn is_repeated(&self, call: usize) -> bool {
        self.runge_kutta == 0 && call == 1
    }

    /// One call of a Runge–Kutta step: where it leads from, and the prediction by which it does (Liu et al. 2022, eq. 13).
    fn runge_kutta(
        &mut self,
        prediction: Tensor<4>,
        x: Tensor<4>,
        call: usize,
    ) -> Result<(Tensor<4>, Tensor<4>)> {
        let stage = call % STAGES;
        if stage == 0 {
            self.predictions.push_front(prediction.clone());
            self.start = Some(x.clone());
            self.sum = Some(prediction.clone() * (1.0 / 6.0));
            return Ok((x, prediction));
        }
        let (Some(start), Some(sum)) = (self.start.clone(), self.sum.take()) else {
            return Err(Error::Config(format!(
                "a loop cannot begin at timestep {}, in the middle of a Runge-Kutta step",
                self.timesteps[call]
            )));
        };
        if stage + 1 < STAGES {
            self.sum = Some(sum + prediction.clone() * (1.0 / 3.0));
            return Ok((start, prediction));
        }
        self.start = None;
        Ok((start, sum + prediction * (1.0 / 6.0)))
    }

    /// One call of a multistep step: where it leads from, and the prediction by which it does (Liu et al. 2022, eq. 12, and
    /// the rules of lower order).
    fn multistep(&mut self, prediction: Tensor<4>, x: Tensor<4>, call: usize) -> (Tensor<4>, Tensor<4>) {
        if self.is_repeated(call) {
            return match (self.start.take(), self.predictions.front()) {
                // The first step once more, by the mean of the predictions at both of its ends.
                (Some(start), Some(first)) => (start, (prediction + first.clone()) / 2.0),
                _ => (x, prediction),
            };
        }
        if call == 0 {
            self.start = Some(x.clone());
        }
        self.predictions.push_front(prediction);
        self.predictions.truncate(ORDER);
        let e: Vec<_> = self.predictions.iter().cloned().collect();
        let mixed = match e.as_slice() {
            [e0] => e0.clone(),
            [e0, e1] => (e0.clone() * 3.0 - e1.clone()) / 2.0,
            [e0, e1, e2] => (e0.clone() * 23.0 - e1.clone() * 16.0 + e2.clone() * 5.0) / 12.0,
            [e0, e1, e2, e3, ..] => {
                (e0.clone() * 55.0 - e1.clone() * 59.0 + e2.clone() * 37.0 - e3.clone() * 9.0) * (1.0 / 24.0)
            }
            [] => x.zeros_like(),
        };
        (x, mixed)
    }

    /// ᾱ of a timestep, or the one after the last step where it is below 0.
    fn alpha_cumprod(&self, t: i64) -> f32 {
        usize::try_from(t).map_or(self.final_alpha_cumprod, |t| self.noise.alphas_cumprod()[t])
    }

    /// DDIM's step from one noise level to another (Liu et al. 2022, eq. 11).
    fn transfer(&self, x: Tensor<4>, prediction: Tensor<4>, from: i64, to: i64) -> StepOutput {
        let (alpha_prod, alpha_prod_prev) = (self.alpha_cumprod(from), self.alpha_cumprod(to));
        let (beta_prod, beta_prod_prev) = (1.0 - alpha_prod, 1.0 - alpha_prod_prev);
        let kind = self.config.prediction_type;
        let clean = predicted_clean(kind, &prediction, &x, alpha_prod, false);
        if alpha_prod == alpha_prod_prev {
            // No way to go, and without noise a quotient of two zeros.
            return StepOutput {
                previous: x,
                predicted_clean: clean,
            };
        }
        let noise = match kind {
            PredictionType::VPrediction => prediction * alpha_prod.sqrt() + x.clone() * beta_prod.sqrt(),
            _ => prediction,
        };
        let divisor = alpha_prod * beta_prod_prev.sqrt() + (alpha_prod * beta_prod * alpha_prod_prev).sqrt();
        let previous =
            x * (alpha_prod_prev / alpha_prod).sqrt() - noise * (alpha_prod_prev - alpha_prod) / divisor;
        StepOutput {
            previous,
            predicted_clean: clean,
        }
    }
}

impl Scheduler for PNDMScheduler {
    fn set_timesteps(&mut self, num_inference_steps: usize) -> Result<()> {
        let config = &self.config;
        let train = config.num_train_timesteps;
        let steps = config
            .timestep_spacing
            .timesteps(train, num_inference_steps, config.steps_offset)?;
        self.begin(steps, train / num_inference_steps)
    }

    fn step(
        &mut self,
        prediction: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        _options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        same_shape("the prediction", &prediction, "the sample", &x)?;
        position::index_of(&self.timesteps, t)?;
        // Calls are counted, as in diffusers: a loop that begins with a picture does its own first step twice.
        let call = self.calls;
        let (t, stride) = (t as i64, self.stride as i64);
        let (from, to) = if call < self.runge_kutta {
            let ahead = if call.is_multiple_of(2) { stride / 2 } else { 0 };
            (self.timesteps[call / STAGES * STAGES] as i64, t - ahead)
        } else if self.is_repeated(call) {
            (t + stride, t)
        } else {
            (t, t - stride)
        };
        let (x, mixed) = if call < self.runge_kutta {
            self.runge_kutta(prediction, x, call)?
        } else {
            self.multistep(prediction, x, call)
        };
        let output = self.transfer(x, mixed, from, to);
        self.calls += 1;
        Ok(output)
    }

    // The clean sample is of a mixture with earlier predictions, and of where the step began: what a copied step knows.
    table_methods!();
}
