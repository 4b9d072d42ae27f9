//! How much each timestep counts under every weighting of the loss.

use std::path::Path;

use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{
    Drawn, LINE, MUTED, SIZE, font,
    panel::{Curve, panel},
    px, write_plot,
};
use crate::{
    Result,
    objectives::{DdpmObjective, LossWeighting, PredictionType, Weighting},
    schedulers::Scheduler,
};

/// The weightings that are drawn, each in its colour. The script's own is one of the first two.
const SHOWN: [(LossWeighting, RGBColor); 5] = [
    (LossWeighting::Uniform, RGBColor(128, 134, 146)),
    (LossWeighting::Snr, LINE),
    (LossWeighting::MinSnr, RGBColor(208, 89, 32)),
    (LossWeighting::SoftMinSnr, RGBColor(46, 140, 87)),
    (LossWeighting::P2, RGBColor(135, 74, 173)),
];

/// Draws the weights by timestep of a scheduler's table into the PNG at `path`, by their decimal logarithm, in a panel for
/// each thing that a model may predict.
///
/// # Errors
/// If the scheduler has no table, or the file cannot be written.
pub fn weighting_plot(
    path: impl AsRef<Path>,
    scheduler: &dyn Scheduler,
    gamma: Option<f64>,
    title: &str,
) -> Result<()> {
    let panels = [
        ("predicting the noise", PredictionType::Epsilon),
        ("predicting the picture", PredictionType::Sample),
        ("predicting the velocity", PredictionType::VPrediction),
    ];
    let mut all = Vec::with_capacity(panels.len());
    for (name, kind) in panels {
        let mut curves = Vec::with_capacity(SHOWN.len());
        for (rule, colour) in SHOWN {
            let objective = DdpmObjective::new(scheduler, kind, Weighting { rule, gamma })?;
            let mut points = Vec::with_capacity(scheduler.num_train_timesteps());
            for t in 0..scheduler.num_train_timesteps() {
                let weight = objective.weight(t)?.unwrap_or(1.0).log10();
                if weight.is_finite() {
                    points.push((t as f64, weight));
                }
            }
            let name = None;
            curves.push(Curve { colour, points, name });
        }
        all.push((name, curves));
    }
    write_plot(path.as_ref(), title, |root| draw(root, &all))
}

fn draw(root: &DrawingArea<BitMapBackend<'_>, Shift>, panels: &[(&str, Vec<Curve>)]) -> Drawn {
    legend(root)?;
    let mut rest = root.margin(px(70), px(14), px(20), px(28));
    for (name, curves) in panels {
        let (area, right) = rest.split_horizontally(px((SIZE.0 - 48) / 3));
        panel(&area, name, ["timestep", "log10 of the weight"], curves, &[])?;
        rest = right;
    }
    Ok(())
}

/// Top right: which colour is which rule.
fn legend(root: &DrawingArea<BitMapBackend<'_>, Shift>) -> Drawn {
    let mut x = px(SIZE.0 - 720);
    for (rule, colour) in SHOWN {
        let stroke = colour.stroke_width(px(3) as u32);
        root.draw(&PathElement::new([(x, px(38)), (x + px(28), px(38))], stroke))?;
        let style = font(18).color(&MUTED).pos(Pos::new(HPos::Left, VPos::Center));
        root.draw(&Text::new(rule.to_string(), (x + px(36), px(37)), style))?;
        x += px(140);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data::read_picture,
        schedulers::{BetaSchedule, DDPMConfig, DDPMScheduler, EDMEulerConfig, EDMEulerScheduler},
    };

    #[test]
    fn every_weighting_is_drawn_in_its_colour() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.png");
        for beta_schedule in [BetaSchedule::Linear, BetaSchedule::SquaredcosCapV2] {
            let scheduler = DDPMScheduler::new(DDPMConfig {
                beta_schedule,
                ..DDPMConfig::default()
            });
            weighting_plot(&path, &scheduler.unwrap(), None, "Weights").unwrap();
            let picture = read_picture(&path).unwrap();
            for (rule, RGBColor(r, g, b)) in SHOWN {
                let near = |a: u8, b: u8| a.abs_diff(b) < 12;
                let pixels = picture.pixels().chunks_exact(3);
                let count = pixels
                    .filter(|p| near(p[0], r) && near(p[1], g) && near(p[2], b))
                    .count();
                assert!(count > 500, "{rule}: {count}");
            }
        }
        let edm = EDMEulerScheduler::new(EDMEulerConfig::default()).unwrap();
        assert!(weighting_plot(&path, &edm, None, "Weights").is_err());
    }
}
