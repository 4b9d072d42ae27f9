//! DPM-Solver++ for the stochastic differential equation, singlestep of second order, as k-diffusion's `sample_dpmpp_sde`
//! (Lu et al. 2022, *DPM-Solver++*). Mirrors `diffusers.DPMSolverSDEScheduler`.

use burn::tensor::{Tensor, TensorData};

use super::{
    GivenLoop, PredictionType, Scheduler, SchedulerConfig, StepOptions, StepOutput,
    class::scheduler_class,
    discrete::{Discrete, discrete_methods},
    same_shape,
    sigma_loop::{SigmaLoop, ancestral, clean_at, scaled, twice},
};
use crate::{Error, Result, random::brownian::BrownianTree};

scheduler_class! {
    /// The configuration of a [`DPMSolverSDEScheduler`], with diffusers' names and defaults.
    pub struct DPMSolverSDEConfig for DPMSolverSDEScheduler {
        ..noise(0.00085, 0.012, Linear),
        /// What the model predicts. Diffusers' class does not know `sample`.
        prediction_type: PredictionType = PredictionType::default(),
        ..discrete_sigmas,
        /// The seed of the noise. Without one it is drawn from the generator of the loop's first step.
        noise_sampler_seed: Option<u64> = None,
        ..steps(Linspace),
    }

    facts {}

    samplers {
        "dpm-sde", "noise", true, "DPM-Solver++ for the reverse diffusion: two calls a step";
    }
}

/// DPM-Solver++ by way of the midpoint in log σ, with fresh noise in both halves of a step. Each step but the last, which is
/// Euler's, calls the model twice.
///
/// The noise is that of one Brownian motion in σ for the whole loop, so that loops of the same seed and different numbers of
/// steps see the same motion. It is torchsde's `BrownianTree` on a CPU, number for number; the seed is
/// `noise_sampler_seed`, which in diffusers has to be set for that too: without it, diffusers draws the seed from PyTorch's
/// global generator, and this from the one that the first step is given.
#[derive(Clone, Debug)]
pub struct DPMSolverSDEScheduler {
    config: DPMSolverSDEConfig,
    discrete: Discrete,
    motion: Option<BrownianTree>,
    /// Where the step in progress began and σ half way, after its first half.
    half: Option<(Tensor<4>, f32)>,
}

impl DPMSolverSDEScheduler {
    /// A scheduler whose loop visits every training timestep, until [`Scheduler::set_timesteps`] says otherwise.
    ///
    /// # Errors
    /// If a value of the config makes no sense, or two do not go together; the error names it.
    pub fn new(config: DPMSolverSDEConfig) -> Result<Self> {
        let discrete = config.discrete()?;
        let (timesteps, sigmas) = discrete.every_timestep();
        let mut scheduler = Self {
            config,
            discrete,
            motion: None,
            half: None,
        };
        scheduler.begin(&timesteps, &sigmas);
        Ok(scheduler)
    }

    fn begin(&mut self, timesteps: &[f64], sigmas: &[f64]) {
        let table = self.discrete.table();
        let mut visited = vec![timesteps[0]];
        for (pair, &t) in sigmas.windows(2).zip(&timesteps[1..]) {
            let middle = (0.5 * (pair[0].ln() + pair[1].ln())).exp();
            visited.extend([table.timestep(middle), t]);
        }
        let sigmas = twice(sigmas).map(|&sigma| sigma as f32).chain([0.0]).collect();
        self.discrete.steps = SigmaLoop::new(visited, sigmas);
        self.motion = None;
        self.half = None;
    }

    /// Standard normal noise between two levels: the motion from the one to the other, as wide as one.
    fn noise(
        &mut self,
        from: f32,
        to: f32,
        like: &Tensor<4>,
        options: &mut StepOptions<'_>,
    ) -> Result<Tensor<4>> {
        let size = like.dims().iter().product();
        let mut motion = match self.motion.take() {
            Some(motion) if motion.size() == size => motion,
            Some(_) => {
                return Err(Error::Shape(
                    "the sample changed its size in the middle of a loop, whose noise is of one size"
                        .to_owned(),
                ));
            }
            None => self.begin_motion(size, options)?,
        };
        let width = (to - from).abs().sqrt();
        // Downwards in σ, and so back in the motion's time. Between equal levels nothing moves.
        let scale = if width > 0.0 { -1.0 / width } else { 0.0 };
        let mut values = motion.increments(to.into(), from.into());
        values.iter_mut().for_each(|increment| *increment *= scale);
        self.motion = Some(motion);
        Ok(Tensor::from_data(
            TensorData::new(values, like.dims()),
            &like.device(),
        ))
    }

    fn begin_motion(&self, size: usize, options: &mut StepOptions<'_>) -> Result<BrownianTree> {
        let seed = match (self.config.noise_sampler_seed, options.generator.as_deref_mut()) {
            (Some(seed), _) => seed,
            // Below 2⁶³, so not negative.
            (None, Some(generator)) => generator.randint(0, i64::MAX, 1)[0].unsigned_abs(),
            (None, None) => {
                return Err(Error::Config(
                    "DPMSolverSDEScheduler draws noise, but has no noise_sampler_seed and was given no generator".to_owned(),
                ));
            }
        };
        let sigmas = self
            .discrete
            .steps
            .sigmas()
            .iter()
            .copied()
            .filter(|&sigma| sigma > 0.0);
        let (min, max) = sigmas.fold((f32::INFINITY, 0.0_f32), |(min, max), sigma| {
            (min.min(sigma), max.max(sigma))
        });
        Ok(BrownianTree::new(seed, min.into(), max.into(), size))
    }
}

/// -ln σ, rounded as PyTorch rounds it.
fn time(sigma: f32) -> f32 {
    -(f64::from(sigma).ln() as f32)
}

/// The inverse of [`time`].
fn level(time: f32) -> f32 {
    f64::from(-time).exp() as f32
}

impl Scheduler for DPMSolverSDEScheduler {
    fn set_timesteps(&mut self, num_inference_steps: usize) -> Result<()> {
        let class_name = DPMSolverSDEConfig::CLASS_NAME;
        let (timesteps, sigmas) = self
            .discrete
            .spread(class_name, GivenLoop::Steps(num_inference_steps))?;
        self.begin(&timesteps, &sigmas);
        Ok(())
    }

    fn scale_model_input(&mut self, sample: Tensor<4>, t: f64) -> Result<Tensor<4>> {
        match &self.half {
            Some((_, middle)) => Ok(scaled(sample, *middle)),
            None => self.discrete.steps.scale_model_input(sample, t),
        }
    }

    fn step(
        &mut self,
        prediction: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        options: &mut StepOptions<'_>,
    ) -> Result<StepOutput> {
        let clean = self.predicted_clean(&prediction, t, &x)?;
        let (sigma, sigma_next) = self.discrete.steps.halves(t, self.half.is_some())?;
        if sigma_next == 0.0 {
            // x + (0 - σ) (x - x̂_0) / σ
            let derivative = (x.clone() - clean.clone()) / sigma;
            self.discrete.steps.advance();
            return Ok(StepOutput {
                previous: x + derivative * -sigma,
                predicted_clean: clean,
            });
        }
        let (start, end) = (time(sigma), time(sigma_next));
        let middle = start + (end - start) * 0.5;
        let is_first = self.half.is_none();
        let (from, to) = match self.half.take() {
            None => (x.clone(), middle),
            Some((sample, _)) => (sample, end),
        };

        // σ_down / σ x + (1 - σ_down / σ) x̂_0 + σ_up ε: the exact solution for a constant x̂_0 (Lu et al. 2022, eq. 9), here
        // the one half way for the whole step.
        let (down, up) = ancestral(level(start), level(to));
        let up = up.min(level(to));
        let down_time = time(down);
        let previous =
            from.clone() * (level(down_time) / level(start)) - clean.clone() * (start - down_time).exp_m1();
        let noise = self.noise(level(start), level(to), &x, options)?;
        let previous = previous + noise * options.s_noise * up;
        if is_first {
            self.half = Some((from, level(to)));
        }
        self.discrete.steps.advance();
        Ok(StepOutput {
            previous,
            predicted_clean: clean,
        })
    }

    fn predicted_clean(&self, prediction: &Tensor<4>, t: f64, x: &Tensor<4>) -> Result<Tensor<4>> {
        same_shape("the prediction", prediction, "the sample", x)?;
        let sigma = match &self.half {
            Some((_, middle)) => *middle,
            None => self.discrete.steps.sigma_at(t)?,
        };
        Ok(clean_at(self.config.prediction_type, prediction, x, sigma))
    }

    fn order(&self) -> usize {
        2
    }

    discrete_methods!();
}
