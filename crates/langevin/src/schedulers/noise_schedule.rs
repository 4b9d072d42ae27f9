//! How noisy each training timestep is: the β tables and their cumulative products, in float32 as PyTorch computes them.

use crate::{Error, Result, named::named_enum};
use burn::tensor::{Tensor, TensorData};

/// More timesteps than any schedule has; a configuration that asks for more is taken for a mistake.
pub(super) const MOST_TIMESTEPS: usize = 1_000_000;

/// What diffusers leaves of ᾱ where it should be 0 but is divided by: the square of float16's least positive number.
const LEAST_SIGNAL: f32 = 1.0 / (1 << 24) as f32;

/// The largest β of the schedules that are defined by ᾱ.
const MAX_BETA: f64 = 0.999;

named_enum! {
    /// The shape of the β table. The names in files are diffusers'.
    #[derive(Default)]
    pub enum BetaSchedule: "a noise schedule" {
        /// Evenly from `beta_start` to `beta_end` (Ho et al. 2020).
        #[default]
        Linear = "linear",
        /// Evenly between the square roots, then squared: Stable Diffusion's.
        ScaledLinear = "scaled_linear",
        /// ᾱ(t) = cos²((t + 0.008) / 1.008 · π/2), each β at most 0.999 (Nichol and Dhariwal 2021, eq. 17).
        SquaredcosCapV2 = "squaredcos_cap_v2",
        /// A sigmoid over [-6, 6] between `beta_start` and `beta_end` (GeoDiff).
        Sigmoid = "sigmoid",
        /// ᾱ from a Laplace distribution of the log signal-to-noise ratio.
        Laplace = "laplace",
        /// ᾱ(t) = exp(-12 t), each β at most 0.999.
        Exp = "exp",
    }
}

/// What a scheduler's config says about its noise, under diffusers' names.
#[derive(Clone, Copy, Debug)]
pub struct NoiseOptions<'a> {
    /// How many timesteps the table has.
    pub num_train_timesteps: usize,
    /// The first β of the schedules that are given by their ends.
    pub beta_start: f64,
    /// The last β of the schedules that are given by their ends.
    pub beta_end: f64,
    /// The shape of the table.
    pub beta_schedule: BetaSchedule,
    /// The table itself, in place of all of the above but its length.
    pub trained_betas: Option<&'a [f64]>,
    /// Whether to move the table so that the last timestep holds no signal at all.
    pub rescale_betas_zero_snr: bool,
}

impl NoiseOptions<'_> {
    /// The same with `rescale_betas_zero_snr` as given.
    pub(super) fn rescaled(self, rescale_betas_zero_snr: bool) -> Self {
        Self {
            rescale_betas_zero_snr,
            ..self
        }
    }
}

/// How much of the clean picture and how much of the noise a noisy sample holds: x = signal · x_0 + noise · ε.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseLevel {
    /// The factor of the clean picture.
    pub signal: f32,
    /// The factor of the noise, whose standard deviation is 1.
    pub noise: f32,
}

impl NoiseLevel {
    /// A sample with a standard deviation of 1: √ᾱ x_0 + √(1 - ᾱ) ε.
    pub(super) fn of_alpha_cumprod(alpha_cumprod: f32) -> Self {
        Self {
            signal: alpha_cumprod.sqrt(),
            noise: (1.0 - alpha_cumprod).sqrt(),
        }
    }

    /// A sample in σ: x_0 + σ ε.
    pub(super) fn of_sigma(sigma: f32) -> Self {
        Self {
            signal: 1.0,
            noise: sigma,
        }
    }

    /// ᾱ: the share of the signal in the sample's variance, from 0 (noise) to 1 (clean).
    pub fn alpha_cumprod(self) -> f64 {
        let (signal, noise) = (f64::from(self.signal).powi(2), f64::from(self.noise).powi(2));
        signal / (signal + noise)
    }
}

/// The table of noise levels of a discrete schedule.
#[derive(Clone, Debug)]
pub struct NoiseSchedule {
    betas: Vec<f32>,
    alphas_cumprod: Vec<f32>,
}

impl NoiseSchedule {
    /// Computes the table.
    ///
    /// # Errors
    /// If it would be empty or longer than a million, if a β is not in [0, 1), or if `trained_betas` has another length.
    pub fn new(options: NoiseOptions<'_>) -> Result<Self> {
        let n = options.num_train_timesteps;
        check_length("num_train_timesteps", n)?;
        let mut betas = match options.trained_betas {
            Some(betas) if betas.len() != n => {
                return Err(Error::Config(format!(
                    "trained_betas holds {} values, but num_train_timesteps is {n}; they must agree",
                    betas.len()
                )));
            }
            Some(betas) => betas.iter().map(|&beta| beta as f32).collect(),
            None => betas(options)?,
        };
        if let Some(t) = betas.iter().position(|beta| !(0.0..1.0).contains(beta)) {
            return Err(Error::Config(format!(
                "the beta of timestep {t} is {}, but every beta is at least 0 and below 1",
                betas[t]
            )));
        }
        if options.rescale_betas_zero_snr {
            betas = rescale_zero_terminal_snr(&betas)?;
        }
        let alphas_cumprod = cumprod(betas.iter().map(|beta| 1.0 - beta));
        Ok(Self {
            betas,
            alphas_cumprod,
        })
    }

    /// The table for the schedulers that divide by ᾱ: where the schedule is moved to end without any signal, ᾱ of the last
    /// timestep is 2⁻²⁴, as diffusers has it for them.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(super) fn with_signal(options: NoiseOptions<'_>) -> Result<Self> {
        let mut noise = Self::new(options)?;
        if let Some(last) = noise
            .alphas_cumprod
            .last_mut()
            .filter(|_| options.rescale_betas_zero_snr)
        {
            *last = LEAST_SIGNAL;
        }
        Ok(noise)
    }

    /// β_t for every timestep.
    pub fn betas(&self) -> &[f32] {
        &self.betas
    }

    /// ᾱ_t for every timestep: the product of 1 - β up to it.
    pub fn alphas_cumprod(&self) -> &[f32] {
        &self.alphas_cumprod
    }

    /// How many timesteps the table has.
    pub fn num_train_timesteps(&self) -> usize {
        self.betas.len()
    }

    /// ᾱ at a timestep that came as a number.
    ///
    /// # Errors
    /// As [`Self::index`].
    pub(super) fn alpha_cumprod(&self, t: f64) -> Result<f32> {
        Ok(self.alphas_cumprod[self.index(t)?])
    }

    /// The place in the table of a timestep that came as a number.
    ///
    /// # Errors
    /// If it is not whole or not in the table.
    pub fn index(&self, t: f64) -> Result<usize> {
        let n = self.num_train_timesteps();
        if t.fract() == 0.0 && (0.0..n as f64).contains(&t) {
            return Ok(t as usize);
        }
        Err(Error::Config(format!(
            "timestep {t} is not one of the schedule's, which are 0 to {}",
            n - 1
        )))
    }
}

/// The methods of [`Scheduler`](super::Scheduler) that every scheduler with a table `noise` and whole `timesteps` has in common.
macro_rules! table_methods {
    () => {
        fn timesteps(&self) -> &[f64] {
            &self.timesteps
        }

        fn add_noise(&self, x0: Tensor<4>, noise: Tensor<4>, timesteps: &[usize]) -> Result<Tensor<4>> {
            $crate::schedulers::noise_schedule::add_noise(self.alphas_cumprod(), x0, noise, timesteps)
        }

        fn level(&self, t: f64) -> Result<$crate::schedulers::NoiseLevel> {
            self.noise
                .alpha_cumprod(t)
                .map($crate::schedulers::NoiseLevel::of_alpha_cumprod)
        }

        fn num_train_timesteps(&self) -> usize {
            self.noise.num_train_timesteps()
        }

        fn alphas_cumprod(&self) -> &[f32] {
            self.noise.alphas_cumprod()
        }
    };
}

pub(super) use table_methods;

/// Refuses a number of timesteps that no schedule has.
pub(crate) fn check_length(name: &str, n: usize) -> Result<()> {
    if n == 0 || n > MOST_TIMESTEPS {
        return Err(Error::Config(format!(
            "{name} is {n}, but a schedule has 1 to {MOST_TIMESTEPS} timesteps"
        )));
    }
    Ok(())
}

/// √ᾱ and √(1 - ᾱ) of each picture's timestep, `[batch, 1, 1, 1]`, checked against the pictures' shape.
///
/// # Errors
/// If there are not as many timesteps as pictures, or one is beyond the table.
pub(crate) fn signal_and_noise(
    alphas_cumprod: &[f32],
    timesteps: &[usize],
    pictures: &Tensor<4>,
) -> Result<(Tensor<4>, Tensor<4>)> {
    let [batch, ..] = pictures.dims();
    if alphas_cumprod.is_empty() {
        return Err(Error::Config(
            "this scheduler has no table of noise levels by whole timesteps, which training needs".to_owned(),
        ));
    }
    if timesteps.len() != batch {
        return Err(Error::Shape(format!(
            "{} timesteps were given for {batch} pictures; each picture has one",
            timesteps.len()
        )));
    }
    if let Some(t) = timesteps.iter().find(|&&t| t >= alphas_cumprod.len()) {
        return Err(Error::Config(format!(
            "timestep {t} is beyond the schedule's last, {}",
            alphas_cumprod.len() - 1
        )));
    }
    let column = |f: fn(f32) -> f32| {
        let values: Vec<f32> = timesteps.iter().map(|&t| f(alphas_cumprod[t])).collect();
        Tensor::from_data(TensorData::new(values, [batch, 1, 1, 1]), &pictures.device())
    };
    Ok((column(f32::sqrt), column(|alpha| (1.0 - alpha).sqrt())))
}

/// x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε, with one timestep a picture (Ho et al. 2020, eq. 4).
///
/// # Errors
/// If the shapes differ, there are not as many timesteps as pictures, or one is beyond the table.
pub fn add_noise(
    alphas_cumprod: &[f32],
    x0: Tensor<4>,
    noise: Tensor<4>,
    timesteps: &[usize],
) -> Result<Tensor<4>> {
    super::same_shape("the noise", &noise, "the pictures", &x0)?;
    let (signal_rate, noise_rate) = signal_and_noise(alphas_cumprod, timesteps, &x0)?;
    Ok(signal_rate * x0 + noise_rate * noise)
}

/// v = √ᾱ_t ε - √(1 - ᾱ_t) x_0, with one timestep a picture (Salimans and Ho 2022, appendix D).
///
/// # Errors
/// As [`add_noise`].
pub fn velocity(
    alphas_cumprod: &[f32],
    x0: Tensor<4>,
    noise: Tensor<4>,
    timesteps: &[usize],
) -> Result<Tensor<4>> {
    super::same_shape("the noise", &noise, "the sample", &x0)?;
    let (signal_rate, noise_rate) = signal_and_noise(alphas_cumprod, timesteps, &x0)?;
    Ok(signal_rate * noise - noise_rate * x0)
}

fn betas(options: NoiseOptions<'_>) -> Result<Vec<f32>> {
    let NoiseOptions {
        num_train_timesteps: n,
        beta_start: start,
        beta_end: end,
        ..
    } = options;
    let by_ends = !matches!(
        options.beta_schedule,
        BetaSchedule::SquaredcosCapV2 | BetaSchedule::Laplace | BetaSchedule::Exp
    );
    for (name, beta) in [("beta_start", start), ("beta_end", end)] {
        if by_ends && !(0.0..1.0).contains(&beta) {
            return Err(Error::Config(format!(
                "{name} is {beta}, but every beta is at least 0 and below 1"
            )));
        }
    }
    Ok(match options.beta_schedule {
        BetaSchedule::Linear => linspace(start, end, n),
        BetaSchedule::ScaledLinear => linspace(start.sqrt(), end.sqrt(), n)
            .into_iter()
            .map(|root| root * root)
            .collect(),
        BetaSchedule::SquaredcosCapV2 => betas_for_alpha_bar(n, |t| {
            let cos = ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos();
            cos * cos
        }),
        BetaSchedule::Sigmoid => {
            let (range, start) = ((end - start) as f32, start as f32);
            linspace(-6.0, 6.0, n)
                .into_iter()
                .map(|x| sigmoid(x) * range + start)
                .collect()
        }
        BetaSchedule::Laplace => betas_for_alpha_bar(n, |t| {
            let log_snr = -0.5 * 1_f64.copysign(0.5 - t) * (1.0 - 2.0 * (0.5 - t).abs() + 1e-6).ln();
            let snr = log_snr.exp();
            (snr / (1.0 + snr)).sqrt()
        }),
        BetaSchedule::Exp => betas_for_alpha_bar(n, |t| (t * -12.0).exp()),
    })
}

/// The β between neighbouring values of ᾱ, a function of time in [0, 1]; computed in float64, as in diffusers.
fn betas_for_alpha_bar(n: usize, alpha_bar: impl Fn(f64) -> f64) -> Vec<f32> {
    let beta = |i: usize| {
        let (t1, t2) = (i as f64 / n as f64, (i + 1) as f64 / n as f64);
        (1.0 - alpha_bar(t2) / alpha_bar(t1)).min(MAX_BETA) as f32
    };
    (0..n).map(beta).collect()
}

/// `torch.linspace` in float32: the first half counts up from `start`, the second down from `end`.
pub(super) fn linspace(start: f64, end: f64, n: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    if n == 1 {
        return vec![start];
    }
    let step = (end - start) / (n - 1) as f32;
    let at = |i: usize| {
        if i < n / 2 {
            step.mul_add(i as f32, start)
        } else {
            step.mul_add(-((n - 1 - i) as f32), end)
        }
    };
    (0..n).map(at).collect()
}

/// `torch.sigmoid` in float32, up to its last bit.
fn sigmoid(x: f32) -> f32 {
    (1.0 / (1.0 + f64::from(-x).exp())) as f32
}

/// `torch.cumprod` in float32: accumulated in float64, each value rounded.
fn cumprod(values: impl Iterator<Item = f32>) -> Vec<f32> {
    let mut product = 1_f64;
    values
        .map(|value| {
            product *= f64::from(value);
            product as f32
        })
        .collect()
}

/// The betas moved so that √ᾱ ends at 0 and still begins where it began (Lin et al. 2023, algorithm 1).
fn rescale_zero_terminal_snr(betas: &[f32]) -> Result<Vec<f32>> {
    let mut roots = cumprod(betas.iter().map(|beta| 1.0 - beta));
    roots.iter_mut().for_each(|value| *value = value.sqrt());
    let (first, last) = (roots[0], roots[roots.len() - 1]);
    if first <= last {
        return Err(Error::Config(
            "rescale_betas_zero_snr needs a schedule whose noise grows, and this one's does not".to_owned(),
        ));
    }
    let scale = first / (first - last);
    let alphas_bar: Vec<f32> = roots
        .into_iter()
        .map(|root| {
            let root = (root - last) * scale;
            root * root
        })
        .collect();
    // A schedule that reaches zero before its end leaves 0 / 0, where no signal is left to divide: then β is 1.
    let ratio = |pair: &[f32]| if pair[0] > 0.0 { pair[1] / pair[0] } else { 0.0 };
    let alphas = std::iter::once(alphas_bar[0]).chain(alphas_bar.windows(2).map(ratio));
    Ok(alphas.map(|alpha| 1.0 - alpha).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(beta_schedule: BetaSchedule) -> NoiseOptions<'static> {
        NoiseOptions {
            num_train_timesteps: 1000,
            beta_start: 1e-4,
            beta_end: 0.02,
            beta_schedule,
            trained_betas: None,
            rescale_betas_zero_snr: false,
        }
    }

    /// FNV-1a over the 32-bit words.
    fn hash(values: &[f32]) -> u64 {
        values.iter().fold(0xcbf2_9ce4_8422_2325, |hash, value| {
            (hash ^ u64::from(value.to_bits())).wrapping_mul(1_099_511_628_211)
        })
    }

    fn hashes(options: NoiseOptions<'_>) -> (u64, u64) {
        let schedule = NoiseSchedule::new(options).unwrap();
        (hash(schedule.betas()), hash(schedule.alphas_cumprod()))
    }

    // The hashes are those of the tables of diffusers' DDPMScheduler under PyTorch 2.15: equal bits.

    #[test]
    fn linear_tables_have_pytorchs_bits() {
        let linear = options(BetaSchedule::Linear);
        assert_eq!(hashes(linear), (0x8762_1fa3_2045_3815, 0x7c4c_5383_e09b_2bd1));
        let short = NoiseOptions {
            num_train_timesteps: 37,
            ..linear
        };
        assert_eq!(hashes(short), (0x2157_03fe_774b_51d7, 0xeb3d_b726_2d8f_d260));
    }

    #[test]
    fn a_rescaled_schedule_ends_without_signal() {
        // Not to the last bit: PyTorch takes square roots of rows by a library that rounds some of them otherwise.
        let linear = options(BetaSchedule::Linear);
        let schedule = NoiseSchedule::new(NoiseOptions {
            rescale_betas_zero_snr: true,
            ..linear
        })
        .unwrap();
        let alphas_cumprod = schedule.alphas_cumprod();
        for (t, expected) in [(0, 0.999_9_f32), (500, 0.075_246_2)] {
            assert!(
                (alphas_cumprod[t] / expected - 1.0).abs() < 1e-6,
                "{}",
                alphas_cumprod[t]
            );
        }
        assert_eq!((alphas_cumprod[999], schedule.betas()[999]), (0.0, 1.0));
    }

    #[test]
    fn scaled_linear_tables_have_pytorchs_bits() {
        let options = NoiseOptions {
            beta_start: 0.00085,
            beta_end: 0.012,
            ..options(BetaSchedule::ScaledLinear)
        };
        assert_eq!(hashes(options), (0x98ec_8295_febe_f962, 0x6fa3_0677_e0e3_9d2e));
    }

    #[test]
    fn the_cosine_schedule_is_half_way_down_in_the_middle() {
        // Divided in whole numbers, i / n is 0, and ᾱ stays 1 up to the last timestep.
        let cosine = options(BetaSchedule::SquaredcosCapV2);
        assert_eq!(hashes(cosine), (0x1dbb_f387_057b_16fe, 0xdeac_658a_583c_1c6d));
        let schedule = NoiseSchedule::new(cosine).unwrap();
        let alphas_cumprod = schedule.alphas_cumprod();
        assert!(
            (alphas_cumprod[500] - 0.492_285_04).abs() < 1e-6,
            "{}",
            alphas_cumprod[500]
        );
        assert!((alphas_cumprod[0] - 0.999_958_7).abs() < 1e-6);
        assert!((alphas_cumprod[999] - 2.428_735e-9).abs() < 1e-15);
        assert!(alphas_cumprod.windows(2).all(|pair| pair[1] < pair[0]));
        assert_eq!(schedule.betas()[999], 0.999);
    }

    #[test]
    fn schedules_with_exponentials_agree_with_pytorch() {
        // The exponential's last bit is the mathematics library's own.
        for (schedule, expected) in [
            (BetaSchedule::Sigmoid, [0.999_850_8, 0.298_887_58, 3.968_182e-5]),
            (BetaSchedule::Laplace, [0.978_846_25, 0.707_283_44, 0.031_622_775]),
        ] {
            let schedule = NoiseSchedule::new(options(schedule)).unwrap();
            for (t, expected) in [0, 500, 999].into_iter().zip(expected) {
                let found = schedule.alphas_cumprod()[t];
                assert!(
                    (found / expected - 1.0_f32).abs() < 1e-6,
                    "{found} is not {expected}"
                );
            }
        }
    }

    #[test]
    fn impossible_tables_are_refused() {
        let refused = |options: NoiseOptions<'_>| NoiseSchedule::new(options).unwrap_err().to_string();
        let linear = options(BetaSchedule::Linear);
        assert!(
            refused(NoiseOptions {
                num_train_timesteps: 0,
                ..linear
            })
            .contains("is 0")
        );
        assert!(
            refused(NoiseOptions {
                num_train_timesteps: usize::MAX,
                ..linear
            })
            .contains("1000000")
        );
        assert!(
            refused(NoiseOptions {
                beta_end: 2.0,
                ..linear
            })
            .contains("beta_end is 2")
        );
        assert!(
            refused(NoiseOptions {
                beta_start: f64::NAN,
                ..linear
            })
            .contains("beta_start is NaN")
        );
        assert!(
            refused(NoiseOptions {
                trained_betas: Some(&[0.1, 0.2]),
                ..linear
            })
            .contains("2 values")
        );
        let two = NoiseOptions {
            num_train_timesteps: 2,
            ..linear
        };
        assert!(
            refused(NoiseOptions {
                trained_betas: Some(&[0.1, -0.2]),
                ..two
            })
            .contains("timestep 1 is -0.2")
        );
        let one = NoiseOptions {
            num_train_timesteps: 1,
            rescale_betas_zero_snr: true,
            ..linear
        };
        assert!(refused(one).contains("noise grows"));
    }
}
