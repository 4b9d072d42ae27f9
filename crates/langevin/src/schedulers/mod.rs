//! Noise schedules and samplers: one file a scheduler, each reading as its paper's algorithm.
//!
//! Mirrors `diffusers.schedulers`. A scheduler knows nothing of a model: it owns the table of noise levels, hands out the
//! timesteps of a sampling loop, and turns a model's prediction at one of them into the sample at the next.

mod any;
mod class;
mod config;
mod consistency_models;
mod ddim;
mod ddim_inverse;
mod ddpm;
mod deis_multistep;
mod discrete;
mod distilled;
mod dpm_loop;
mod dpm_solver;
mod dpm_update;
mod dpmsolver_multistep;
mod dpmsolver_multistep_inverse;
mod dpmsolver_sde;
mod dpmsolver_singlestep;
mod edm;
mod edm_dpmsolver_multistep;
mod edm_euler;
mod euler_ancestral_discrete;
mod euler_discrete;
mod flow;
mod flow_match_euler_discrete;
mod flow_match_heun_discrete;
mod heun_discrete;
mod ipndm;
mod k_dpm_2_ancestral_discrete;
mod k_dpm_2_discrete;
mod lcm;
mod lms_discrete;
mod names;
pub mod noise_schedule;
mod options;
mod pndm;
mod position;
mod prediction;
mod quantile;
mod repaint;
mod sasolver;
mod sde_ve;
mod sigma_loop;
mod sigmas;
mod spacing;
mod tcd;
mod unclip;
mod unipc_multistep;

pub use any::SCHEDULER_CONFIG;
pub use class::{ModelKind, SchedulerClass, SchedulerFacts};
pub use config::{ConfigMap, SchedulerConfig};
pub use dpm_solver::SolverPrediction;
pub use dpm_update::{AlgorithmType, SolverType};
pub use edm::SigmaSchedule;
pub use names::SamplerName;
pub use noise_schedule::{BetaSchedule, NoiseLevel, NoiseSchedule};
pub use options::{GivenLoop, LoopOptions, StepOptions};
pub use prediction::PredictionType;
pub(crate) use prediction::predicted_noise_at;
pub use sigmas::FinalSigmas;
pub use spacing::TimestepSpacing;

use burn::tensor::{Device, Tensor};

use crate::{Error, Result, random::Generator};

// Every class, in the order in which help lists the samplers: those for models with a noise schedule, those for other models,
// and what does not draw pictures from noise.
any::scheduler_classes! {
    ddpm: DDPM(DDPMScheduler, DDPMConfig, VarianceType);
    ddim: DDIM(DDIMScheduler, DDIMConfig);
    pndm: PNDM(PNDMScheduler, PNDMConfig);
    lms_discrete: LMSDiscrete(LMSDiscreteScheduler, LMSDiscreteConfig);
    euler_discrete: EulerDiscrete(EulerDiscreteScheduler, EulerDiscreteConfig, InterpolationType, TimestepType);
    euler_ancestral_discrete: EulerAncestralDiscrete(EulerAncestralDiscreteScheduler, EulerAncestralDiscreteConfig);
    heun_discrete: HeunDiscrete(HeunDiscreteScheduler, HeunDiscreteConfig);
    k_dpm_2_discrete: KDPM2Discrete(KDPM2DiscreteScheduler, KDPM2DiscreteConfig);
    k_dpm_2_ancestral_discrete: KDPM2AncestralDiscrete(KDPM2AncestralDiscreteScheduler, KDPM2AncestralDiscreteConfig);
    dpmsolver_multistep: DPMSolverMultistep(DPMSolverMultistepScheduler, DPMSolverMultistepConfig);
    dpmsolver_singlestep: DPMSolverSinglestep(DPMSolverSinglestepScheduler, DPMSolverSinglestepConfig);
    dpmsolver_sde: DPMSolverSDE(DPMSolverSDEScheduler, DPMSolverSDEConfig);
    deis_multistep: DEISMultistep(DEISMultistepScheduler, DEISMultistepConfig, DeisAlgorithm, DeisSolver);
    unipc_multistep: UniPCMultistep(UniPCMultistepScheduler, UniPCMultistepConfig, BhSolver);
    sasolver: SASolver(SASolverScheduler, SASolverConfig, SaAlgorithm);
    lcm: LCM(LCMScheduler, LCMConfig);
    tcd: TCD(TCDScheduler, TCDConfig);
    flow_match_euler_discrete:
        FlowMatchEulerDiscrete(FlowMatchEulerDiscreteScheduler, FlowMatchEulerDiscreteConfig, TimeShiftType);
    flow_match_heun_discrete: FlowMatchHeunDiscrete(FlowMatchHeunDiscreteScheduler, FlowMatchHeunDiscreteConfig);
    edm_euler: EDMEuler(EDMEulerScheduler, EDMEulerConfig);
    edm_dpmsolver_multistep: EDMDPMSolverMultistep(EDMDPMSolverMultistepScheduler, EDMDPMSolverMultistepConfig);
    consistency_models: CMStochasticIterative(CMStochasticIterativeScheduler, CMStochasticIterativeConfig);
    ipndm: IPNDM(IPNDMScheduler, IPNDMConfig);
    sde_ve: ScoreSdeVe(ScoreSdeVeScheduler, ScoreSdeVeConfig, SdeVeStep);
    unclip: UnCLIP(UnCLIPScheduler, UnCLIPConfig);
    repaint: RePaint(RePaintScheduler, RePaintConfig);
    ddim_inverse: DDIMInverse(DDIMInverseScheduler, DDIMInverseConfig);
    dpmsolver_multistep_inverse:
        DPMSolverMultistepInverse(DPMSolverMultistepInverseScheduler, DPMSolverMultistepInverseConfig);
}

/// What [`Scheduler::step`] gives.
#[derive(Clone, Debug)]
pub struct StepOutput {
    /// x_{t-1}: the sample at the next, less noisy timestep. Shape of the sample.
    pub previous: Tensor<4>,
    /// x̂_0: the clean sample that the prediction implies, after clipping where the config asks for it.
    pub predicted_clean: Tensor<4>,
}

/// A noise schedule together with the rule that walks down it. Mirrors `diffusers.SchedulerMixin`.
///
/// Samples are `[batch, channels, height, width]`; timesteps are numbers of the training schedule
/// (`0..num_train_timesteps`), whole for the discrete schedulers and fractional for some others. A step is made of
/// differentiable operations on the prediction and the sample.
///
/// ```
/// use burn::tensor::Device;
/// use langevin::{
///     random::Generator,
///     schedulers::{DDPMConfig, DDPMScheduler, Scheduler, StepOptions},
/// };
///
/// let mut scheduler = DDPMScheduler::new(DDPMConfig::default())?;
/// scheduler.set_timesteps(10)?;
///
/// let mut generator = Generator::new(0);
/// let mut x = generator.randn_tensor([1, 3, 8, 8], &Device::default());
/// for t in scheduler.timesteps().to_vec() {
///     let input = scheduler.scale_model_input(x.clone(), t)?;
///     let prediction = input * 0.5; // a model's guess of the noise in it
///     let mut options = StepOptions { generator: Some(&mut generator), ..StepOptions::default() };
///     x = scheduler.step(prediction, t, x, &mut options)?.previous;
/// }
/// assert!(x.abs().max().into_scalar::<f32>() <= 1.0);
/// # Ok::<(), langevin::Error>(())
/// ```
pub trait Scheduler: CloneScheduler + Send {
    /// Spreads `num_inference_steps` steps over the schedule and resets whatever earlier steps left behind.
    ///
    /// # Errors
    /// If the number is zero or more than the schedule has.
    fn set_timesteps(&mut self, num_inference_steps: usize) -> Result<()>;

    /// The same with all that may be said about a loop, such as its timesteps themselves.
    ///
    /// # Errors
    /// As [`Self::set_timesteps`], and if something is set that this scheduler has no use for.
    fn set_loop(&mut self, options: &LoopOptions) -> Result<()> {
        options.only("this scheduler", &[])?;
        self.set_timesteps(options.number("this scheduler")?)
    }

    /// Says that the next loop begins at this step and not with the first, as a loop from a picture with noise does.
    /// Schedulers that know by the timestep where they are have no use for it.
    fn set_begin_index(&mut self, index: usize) {
        let _ = index;
    }

    /// The timesteps of the loop, from the noisiest to the cleanest; each is one call of the model.
    fn timesteps(&self) -> &[f64];

    /// The noise levels σ of the loop's steps, with the one that the last leads to; empty for schedulers that do not
    /// work in σ.
    fn sigmas(&self) -> &[f32] {
        &[]
    }

    /// The sample as the model wants to see it at timestep `t`; most schedulers return it unchanged.
    fn scale_model_input(&mut self, sample: Tensor<4>, t: f64) -> Result<Tensor<4>> {
        let _ = t;
        Ok(sample)
    }

    /// One step of the loop: from the sample `x` at timestep `t` and the model's `prediction` there to the next sample.
    ///
    /// # Errors
    /// If the shapes do not agree, `t` is not a timestep of the loop, or noise is needed and there is no generator.
    fn step(
        &mut self,
        prediction: Tensor<4>,
        t: f64,
        x: Tensor<4>,
        options: &mut StepOptions<'_>,
    ) -> Result<StepOutput>;

    /// Draws x_t from q(x_t | x_0) with the given `noise`: `timesteps` holds one timestep a picture of the batch.
    ///
    /// # Errors
    /// If there are not as many timesteps as pictures, or one is beyond the schedule.
    fn add_noise(&self, x0: Tensor<4>, noise: Tensor<4>, timesteps: &[usize]) -> Result<Tensor<4>>;

    /// The pictures with as much `noise` as at timestep `t` of the loop, from which a loop can begin there.
    ///
    /// # Errors
    /// If the shapes differ, or `t` is not a timestep of the loop or the schedule.
    fn add_noise_at(&self, x0: Tensor<4>, noise: Tensor<4>, t: f64) -> Result<Tensor<4>> {
        let [batch, ..] = x0.dims();
        if t.fract() != 0.0 || t < 0.0 {
            return Err(Error::Config(format!(
                "timestep {t} is not one of the schedule's"
            )));
        }
        self.add_noise(x0, noise, &vec![t as usize; batch])
    }

    /// How much signal and how much noise the sample at timestep `t` of the loop or the schedule holds: what
    /// [`Self::add_noise_at`] mixes there, which the provided method asks.
    ///
    /// # Errors
    /// As [`Self::add_noise_at`].
    fn level(&self, t: f64) -> Result<NoiseLevel> {
        let device = Device::default();
        let number = |value: f32| Tensor::<4>::full([1, 1, 1, 1], value, &device);
        let mixed = |x0, noise| {
            Ok(self
                .add_noise_at(number(x0), number(noise), t)?
                .into_scalar::<f32>())
        };
        Ok(NoiseLevel {
            signal: mixed(1.0, 0.0)?,
            noise: mixed(0.0, 1.0)?,
        })
    }

    /// x̂_0, the clean sample that the model's `prediction` at timestep `t` implies for the sample `x`, without a step being
    /// taken: [`StepOutput::predicted_clean`] of a step with no options. Differentiable in both tensors.
    ///
    /// The provided method takes that step with a copy, which is right for every scheduler, and needed where the clean sample
    /// follows from earlier predictions too. Others compute it.
    ///
    /// # Errors
    /// As [`Self::step`].
    fn predicted_clean(&self, prediction: &Tensor<4>, t: f64, x: &Tensor<4>) -> Result<Tensor<4>> {
        // What a stochastic step draws comes after its clean sample, so that any generator will do.
        let mut generator = Generator::new(0);
        let mut options = StepOptions {
            generator: Some(&mut generator),
            ..StepOptions::default()
        };
        let output = self
            .boxed_clone()
            .step(prediction.clone(), t, x.clone(), &mut options)?;
        Ok(output.predicted_clean)
    }

    /// The velocity v = √ᾱ_t ε - √(1 - ᾱ_t) x_0 that a model with v-prediction learns, with one timestep a picture
    /// (Salimans and Ho 2022, appendix D). `sample` is x_0.
    ///
    /// # Errors
    /// As [`Self::add_noise`].
    fn get_velocity(&self, sample: Tensor<4>, noise: Tensor<4>, timesteps: &[usize]) -> Result<Tensor<4>> {
        noise_schedule::velocity(self.alphas_cumprod(), sample, noise, timesteps)
    }

    /// The standard deviation that the initial noise is multiplied with.
    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    /// Whether a step takes what a model says of its variance, in as many channels behind its prediction; where it does not, whoever asks
    /// the model leaves that out.
    fn takes_variance(&self) -> bool {
        false
    }

    /// How many times the model is called for one step of the schedule.
    fn order(&self) -> usize {
        1
    }

    /// How many timesteps the schedule was trained with.
    fn num_train_timesteps(&self) -> usize;

    /// ᾱ_t for every training timestep, in float32 as diffusers computes it. Length [`Self::num_train_timesteps`]; empty
    /// for schedulers that know no such table.
    fn alphas_cumprod(&self) -> &[f32] {
        &[]
    }
}

/// A scheduler that can be copied as it stands, so that a step can be looked at before it is taken. Every [`Scheduler`] that is
/// [`Clone`] is one.
pub trait CloneScheduler {
    /// A copy in the same state.
    fn boxed_clone(&self) -> Box<dyn Scheduler>;
}

impl<S: Scheduler + Clone + 'static> CloneScheduler for S {
    fn boxed_clone(&self) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }
}

/// An error that names both tensors unless their shapes are the same.
pub(crate) fn same_shape(one: &str, a: &Tensor<4>, other: &str, b: &Tensor<4>) -> Result<()> {
    if a.dims() == b.dims() {
        return Ok(());
    }
    Err(Error::Shape(format!(
        "{one} has shape {:?} and {other} {:?}, which must be the same",
        a.dims(),
        b.dims()
    )))
}
