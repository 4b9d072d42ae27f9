//! A noise schedule: signal and noise by timestep, the logarithm of their ratio, and the steps that a sampler takes down it.

use std::path::Path;

use plotters::{coord::Shift, prelude::*};

use super::{
    Drawn, LINE, SIZE,
    panel::{Curve, panel},
    px, write_plot,
};
use crate::{
    Error, Result,
    schedulers::{AnyScheduler, ModelKind, Scheduler},
};

const NOISE: RGBColor = RGBColor(208, 89, 32);

/// What [`schedule_plot`] draws: a schedule by timestep, and the steps of a loop.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleCurves {
    /// √ᾱ_t, the share of signal, of every timestep from 0 on.
    pub signal: Vec<f64>,
    /// √(1 - ᾱ_t), the share of noise.
    pub noise: Vec<f64>,
    /// Where the loop asks the model, in the order in which it does.
    pub timesteps: Vec<f64>,
}

impl ScheduleCurves {
    /// The schedule of a scheduler, and the loop that it is set to.
    ///
    /// # Errors
    /// If the scheduler has no table of noise levels by timestep.
    pub fn of(scheduler: &AnyScheduler) -> Result<Self> {
        let alphas_cumprod = scheduler.alphas_cumprod();
        let train = scheduler.num_train_timesteps();
        let (signal, noise) = if scheduler.model_kind()? == ModelKind::Flow {
            // x_t = (1 - σ) x_0 + σ ε with σ = t / T.
            (0..train)
                .map(|t| t as f64 / train as f64)
                .map(|sigma| (1.0 - sigma, sigma))
                .unzip()
        } else if alphas_cumprod.is_empty() {
            return Err(Error::Config(format!(
                "a {} has no table of signal and noise by timestep, so there is no schedule to draw",
                scheduler.class_name()
            )));
        } else {
            alphas_cumprod
                .iter()
                .map(|&alpha| (f64::from(alpha).sqrt(), (1.0 - f64::from(alpha)).sqrt()))
                .unzip()
        };
        Ok(Self {
            signal,
            noise,
            timesteps: scheduler.timesteps().to_vec(),
        })
    }

    /// ln (α² / σ²) at each timestep where it is finite.
    fn log_snr(&self) -> Vec<(f64, f64)> {
        let rates = self.signal.iter().zip(&self.noise).enumerate();
        rates
            .map(|(t, (signal, noise))| (t as f64, 2.0 * (signal.ln() - noise.ln())))
            .filter(|(_, ratio)| ratio.is_finite())
            .collect()
    }
}

/// Draws a schedule into the PNG at `path`, as three panels: signal and noise, the logarithm of the signal-to-noise ratio, and
/// the timesteps that the loop visits, which the first two also mark on their curves.
///
/// # Errors
/// If the file cannot be written.
pub fn schedule_plot(path: impl AsRef<Path>, curves: &ScheduleCurves, title: &str) -> Result<()> {
    write_plot(path.as_ref(), title, |root| draw(root, curves))
}

fn draw(root: &DrawingArea<BitMapBackend<'_>, Shift>, curves: &ScheduleCurves) -> Drawn {
    let body = root.margin(px(70), px(14), px(20), px(28));
    let third = px((SIZE.0 - 48) / 3);
    let (left, rest) = body.split_horizontally(third);
    let (middle, right) = rest.split_horizontally(third);

    let by_timestep = |values: &[f64]| {
        values
            .iter()
            .enumerate()
            .map(|(t, &value)| (t as f64, value))
            .collect()
    };
    let rates = [
        Curve {
            colour: LINE,
            points: by_timestep(&curves.signal),
            name: Some("signal"),
        },
        Curve {
            colour: NOISE,
            points: by_timestep(&curves.noise),
            name: Some("noise"),
        },
    ];
    let steps = &curves.timesteps;
    panel(
        &left,
        "signal and noise",
        ["timestep", "share in the sample"],
        &rates,
        steps,
    )?;
    let ratio = [Curve {
        colour: LINE,
        points: curves.log_snr(),
        name: None,
    }];
    panel(
        &middle,
        "signal-to-noise ratio",
        ["timestep", "log SNR"],
        &ratio,
        steps,
    )?;

    let calls: Vec<(f64, f64)> = steps
        .iter()
        .enumerate()
        .map(|(i, &t)| ((i + 1) as f64, t))
        .collect();
    let places: Vec<f64> = calls.iter().map(|(call, _)| *call).collect();
    let walk = [Curve {
        colour: LINE,
        points: calls,
        name: None,
    }];
    panel(
        &right,
        "steps of the sampler",
        ["call of the model", "timestep"],
        &walk,
        &places,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data::read_picture,
        schedulers::{
            DDPMConfig, DDPMScheduler, EDMDPMSolverMultistepConfig, EDMDPMSolverMultistepScheduler,
            FlowMatchEulerDiscreteConfig, FlowMatchEulerDiscreteScheduler,
        },
    };

    #[test]
    fn every_kind_of_schedule_is_drawn() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("schedule.png");
        let rescaled = DDPMConfig {
            rescale_betas_zero_snr: true,
            ..DDPMConfig::default()
        };
        let schedulers = [
            AnyScheduler::from(DDPMScheduler::new(DDPMConfig::default()).unwrap()),
            DDPMScheduler::new(rescaled).unwrap().into(),
            FlowMatchEulerDiscreteScheduler::new(FlowMatchEulerDiscreteConfig::default())
                .unwrap()
                .into(),
        ];
        for mut scheduler in schedulers {
            for steps in [1, 2, 20, 1000] {
                scheduler.set_timesteps(steps).unwrap();
                let curves = ScheduleCurves::of(&scheduler).unwrap();
                assert_eq!(curves.timesteps.len(), steps);
                schedule_plot(&path, &curves, "A schedule").unwrap();
                let picture = read_picture(&path).unwrap();
                assert_eq!((picture.width(), picture.height()), SIZE);
                // Both curves have their colour somewhere.
                let of_colour = |[r, g, b]: [u8; 3]| {
                    let near = |a: u8, b: u8| a.abs_diff(b) < 12;
                    let pixels = picture.pixels().chunks_exact(3);
                    pixels
                        .filter(|p| near(p[0], r) && near(p[1], g) && near(p[2], b))
                        .count()
                };
                assert!(of_colour([31, 92, 190]) > 1000 && of_colour([208, 89, 32]) > 500);
            }
        }
    }

    #[test]
    fn a_scheduler_without_timesteps_is_refused() {
        let edm = EDMDPMSolverMultistepScheduler::new(EDMDPMSolverMultistepConfig::default()).unwrap();
        let message = ScheduleCurves::of(&edm.into()).unwrap_err().to_string();
        assert!(message.contains("no table of signal and noise"), "{message}");
    }
}
