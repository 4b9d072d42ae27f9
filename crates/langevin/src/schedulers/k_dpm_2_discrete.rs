//! DPM-Solver-2 in σ: a second-order method by way of the midpoint, as k-diffusion's `sample_dpm_2` (Karras et al. 2022,
//! algorithm 3, and Lu et al. 2022). Mirrors `diffusers.KDPM2DiscreteScheduler`.

use burn::tensor::Tensor;

use super::{
    PredictionType, Scheduler, SchedulerConfig, StepOptions, StepOutput,
    class::scheduler_class,
    discrete::{Discrete, discrete_methods},
    same_shape,
    sigma_loop::{SigmaLoop, clean_at, midpoint, scaled, twice},
};
use crate::Result;

scheduler_class! {
    /// The configuration of a [`KDPM2DiscreteScheduler`], with diffusers' names and defaults.
    pub struct KDPM2DiscreteConfig for KDPM2DiscreteScheduler {
        ..noise(0.00085, 0.012, Linear),
        ..discrete_sigmas,
        /// What the model predicts. Diffusers' class does not know `sample`.
        prediction_type: PredictionType = PredictionType::default(),
        ..steps(Linspace),
    }

    facts {}

    samplers {
        "dpm2", "2", false, "the midpoint method: two calls a step";
    }
}

/// The midpoint method in σ: a trial step to the geometric mean of two noise levels, whose derivative is then followed all
/// the way. Each step but the last, which is Euler's, calls the model twice.
#[derive(Clone, Debug)]
pub struct KDPM2DiscreteScheduler {
    config: KDPM2DiscreteConfig,
    discrete: Discrete,
    /// σ half way between those of a step, once for each of the step's two calls.
    midpoints: Vec<f32>,
    /// Where the step in progress began, after its first half.
    sample: Option<Tensor<4>>,
}

impl KDPM2DiscreteScheduler {
    /// A scheduler whose loop visits every training timestep, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense, or two do not go together; the error names it.
    pub fn new(config: KDPM2DiscreteConfig) -> Result<Self> {
        let discrete = config.discrete()?;
        let (timesteps, sigmas) = discrete.every_timestep();
        let mut scheduler = Self {
            config,
            discrete,
            midpoints: Vec::new(),
            sample: None,
        };
        scheduler.begin(&timesteps, &sigmas);
        Ok(scheduler)
    }

    fn begin(&mut self, timesteps: &[f64], sigmas: &[f64]) {
        let levels: Vec<f32> = sigmas.iter().map(|&sigma| sigma as f32).collect();
        let between = levels.windows(2).map(|pair| midpoint(pair[1], pair[0]));
        // Half way to 0 is 0.
        let between: Vec<f32> = between.chain([0.0]).collect();

        let table = self.discrete.table();
        let mut visited = vec![timesteps[0]];
        for (&sigma, &t) in between.iter().zip(&timesteps[1..]) {
            visited.extend([f64::from(table.timestep_f32(sigma)), t]);
        }
        self.midpoints = between.iter().flat_map(|&sigma| [sigma; 2]).collect();
        // As in diffusers, with more zeros at the end than are used.
        let sigmas = twice(&levels).copied().chain([0.0; 3]).collect();
        self.discrete.steps = SigmaLoop::new(visited, sigmas);
        self.sample = None;
    }

    /// σ where the model is asked at timestep `t`: where a step begins, or its midpoint.
    fn asked_at(&self, t: f64) -> Result<f32> {
        let step = self.discrete.steps.at(t)?;
        Ok(match self.sample {
            Some(_) => self.midpoints[step],
            None => self.discrete.steps.sigmas()[step],
        })
    }
}

impl Scheduler for KDPM2DiscreteScheduler {
    fn set_timesteps(&mut self, num_inference_steps: usize) -> Result<()> {
        let class_name = KDPM2DiscreteConfig::CLASS_NAME;
        let (timesteps, sigmas) = self.discrete.spread_rounded(class_name, num_inference_steps)?;
        self.begin(&timesteps, &sigmas);
        Ok(())
    }

    fn scale_model_input(&mut self, sample: Tensor<4>, t: f64) -> Result<Tensor<4>> {
        self.discrete.steps.step(t)?;
        Ok(scaled(sample, self.asked_at(t)?))
    }

    fn step(
        &mut self,
        prediction: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        _options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        let clean = self.predicted_clean(&prediction, t, &x)?;
        let (sigma, sigma_next) = self.discrete.steps.halves(t, self.sample.is_some())?;
        let step = self.discrete.steps.step(t)?;
        let sigma_mid = self.midpoints[step];
        let here = if self.sample.is_some() { sigma_mid } else { sigma };
        let derivative = (x.clone() - clean.clone()) / here;

        let previous = match self.sample.take() {
            // To the midpoint ...
            None => {
                self.sample = Some(x.clone());
                x + derivative * (sigma_mid - sigma)
            }
            // ... and with the derivative there from the beginning to the end.
            Some(start) => start + derivative * (sigma_next - sigma),
        };
        self.discrete.steps.advance();
        Ok(StepOutput {
            previous,
            predicted_clean: clean,
        })
    }

    fn predicted_clean(&self, prediction: &Tensor<4>, t: f64, x: &Tensor<4>) -> Result<Tensor<4>> {
        same_shape("the prediction", prediction, "the sample", x)?;
        let sigma = self.asked_at(t)?;
        Ok(clean_at(self.config.prediction_type, prediction, x, sigma))
    }

    fn order(&self) -> usize {
        2
    }

    discrete_methods!();
}
