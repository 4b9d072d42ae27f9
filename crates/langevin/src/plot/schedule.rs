//! A noise schedule: signal and noise by timestep, the logarithm of their ratio, and the steps that a sampler takes down it.

use std::path::Path;

use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{Drawn, GRID_LINE, INK, LINE, MUTED, SIZE, font, px, scale::Axis, write_plot};
use crate::{
    Error, Result,
    schedulers::{AnyScheduler, Scheduler},
};

const NOISE: RGBColor = RGBColor(208, 89, 32);
/// A sampler's steps are drawn as dots; of more than this many, every so-manieth.
const DOTS: usize = 250;

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
        let (signal, noise) = match scheduler {
            // x_t = (1 - σ) x_0 + σ ε with σ = t / T.
            AnyScheduler::FlowMatchEulerDiscrete(_) | AnyScheduler::FlowMatchHeunDiscrete(_) => (0..train)
                .map(|t| t as f64 / train as f64)
                .map(|sigma| (1.0 - sigma, sigma))
                .unzip(),
            _ if alphas_cumprod.is_empty() => {
                return Err(Error::Config(format!(
                    "a {} has no table of signal and noise by timestep, so there is no schedule to draw",
                    scheduler.class_name()
                )));
            }
            _ => alphas_cumprod
                .iter()
                .map(|&alpha| (f64::from(alpha).sqrt(), (1.0 - f64::from(alpha)).sqrt()))
                .unzip(),
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

/// A curve of a panel: its colour, its points, and whether the loop's steps are marked on it.
pub(super) struct Curve {
    pub colour: RGBColor,
    pub points: Vec<(f64, f64)>,
    pub name: Option<&'static str>,
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

/// A panel with a name, what is on its axes, its curves, and marks on them at some places across.
pub(super) fn panel(
    area: &DrawingArea<BitMapBackend<'_>, Shift>,
    name: &str,
    [across, up]: [&str; 2],
    curves: &[Curve],
    marks: &[f64],
) -> Drawn {
    let all = || curves.iter().flat_map(|curve| curve.points.iter());
    let (x_axis, y_axis) = (Axis::around(all().map(|p| p.0)), Axis::around(all().map(|p| p.1)));
    let mut chart = ChartBuilder::on(area)
        .margin_left(px(12))
        .margin_right(px(14))
        .caption(name, font(20).color(&MUTED))
        .x_label_area_size(px(58))
        .y_label_area_size(px(74))
        .build_cartesian_2d(x_axis, y_axis)?;
    chart
        .configure_mesh()
        .axis_style(GRID_LINE.stroke_width(px(1) as u32))
        .bold_line_style(GRID_LINE.stroke_width(px(1) as u32))
        .light_line_style(TRANSPARENT)
        .label_style(font(17).color(&INK))
        .axis_desc_style(font(18).color(&MUTED))
        .x_desc(across)
        .y_desc(up)
        .set_all_tick_mark_size(px(4))
        .draw()?;
    for curve in curves {
        let stroke = curve.colour.stroke_width(px(2) as u32);
        let pieces = curve
            .points
            .windows(2)
            .map(|pair| PathElement::new([pair[0], pair[1]], stroke));
        chart.draw_series(pieces)?;
        let stride = marks.len().div_ceil(DOTS).max(1);
        let marked = marks
            .iter()
            .step_by(stride)
            .filter_map(|&at| value_at(&curve.points, at));
        chart.draw_series(marked.map(|place| Circle::new(place, px(4), curve.colour.filled())))?;
        if let Some(name) = curve.name
            && let Some(&(x, y)) = curve.points.get(curve.points.len() / 8)
        {
            // On the side that the curve turns away from.
            let rises = curve.points.last().is_some_and(|last| last.1 > y);
            let (place, down) = if rises {
                (VPos::Top, px(6))
            } else {
                (VPos::Bottom, -px(6))
            };
            let style = font(18).color(&curve.colour).pos(Pos::new(HPos::Left, place));
            chart.draw_series([EmptyElement::at((x, y)) + Text::new(name, (px(12), down), style)])?;
        }
    }
    Ok(())
}

/// The point of a curve at `x`, between its points linearly.
fn value_at(points: &[(f64, f64)], x: f64) -> Option<(f64, f64)> {
    let after = points.partition_point(|point| point.0 < x);
    let &(right, above) = points.get(after)?;
    if right == x || after == 0 {
        return (right == x).then_some((x, above));
    }
    let (left, below) = points[after - 1];
    let share = (x - left) / (right - left);
    Some((x, below + share * (above - below)))
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

    #[test]
    fn marks_are_on_the_curve() {
        let points = [(0.0, 0.0), (10.0, 20.0)];
        assert_eq!(value_at(&points, 2.5), Some((2.5, 5.0)));
        assert_eq!(value_at(&points, 10.0), Some((10.0, 20.0)));
        assert_eq!((value_at(&points, -1.0), value_at(&points, 11.0)), (None, None));
    }
}
