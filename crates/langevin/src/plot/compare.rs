//! Several runs in one plot.

use std::path::Path;

use plotters::{coord::Shift, prelude::*, style::text_anchor};

use super::{Drawn, LINE, Line, MUTED, SIZE, finite, font, panels, px, scale::smoothed, write_plot};
use crate::Result;

/// The lines' colours, told apart with any kind of colour vision (Okabe and Ito's, the first exchanged for the plots' own).
const COLOURS: [RGBColor; 7] = [
    LINE,
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(60, 60, 60),
];

/// One run's values.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// What the legend calls it.
    pub name: String,
    /// Pairs of step and value in the order of their steps.
    pub points: Vec<(u64, f64)>,
}

/// Draws the running means of several runs' values of `what`, such as `loss`, into the PNG at `path`, on a linear and on a
/// logarithmic axis. After seven runs the colours begin again.
///
/// # Errors
/// If the file cannot be written.
pub fn compare_plot(path: impl AsRef<Path>, what: &str, curves: &[Curve]) -> Result<()> {
    let lines: Vec<Line> = curves
        .iter()
        .zip(COLOURS.into_iter().cycle())
        .map(|(curve, colour)| Line {
            raw: vec![],
            smooth: smoothed(&finite(&curve.points)),
            colour,
        })
        .collect();
    write_plot(path.as_ref(), &format!("{what}, running means"), |root| {
        legend(root, curves)?;
        panels(root, what, &lines)
    })
}

/// Top right, from right to left, the runs' names beside their colours.
fn legend(root: &DrawingArea<BitMapBackend<'_>, Shift>, curves: &[Curve]) -> Drawn {
    /// Left of it is the title.
    const LEFTMOST: usize = 360;
    let font = font(18);
    let mut x = px(SIZE.0 - 32);
    for (index, curve) in curves.iter().enumerate().rev() {
        let (width, _) = font.box_size(&curve.name)?;
        let start = x - width as i32 - px(36);
        if start < px(LEFTMOST) {
            break;
        }
        let stroke = COLOURS[index % COLOURS.len()].stroke_width(px(3) as u32);
        root.draw(&PathElement::new(
            [(start, px(38)), (start + px(28), px(38))],
            stroke,
        ))?;
        let style = font.color(&MUTED).pos(text_anchor::Pos::new(
            text_anchor::HPos::Left,
            text_anchor::VPos::Center,
        ));
        root.draw(&Text::new(curve.name.clone(), (start + px(36), px(37)), style))?;
        x = start - px(24);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::read_picture;

    #[test]
    fn every_run_has_a_line_of_its_colour() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loss.png");
        let curves = [("fast", 0.9), ("slow", 0.99)].map(|(name, rate): (&str, f64)| Curve {
            name: name.into(),
            points: (0..300)
                .map(|step| (step, rate.powi(step as i32) + 0.01))
                .collect(),
        });
        compare_plot(&path, "loss", &curves).unwrap();
        let picture = read_picture(&path).unwrap();
        for RGBColor(r, g, b) in &COLOURS[..2] {
            let near = |p: &&[u8]| p[0].abs_diff(*r) < 16 && p[1].abs_diff(*g) < 16 && p[2].abs_diff(*b) < 16;
            assert!(picture.pixels().chunks_exact(3).filter(near).count() > 500);
        }
        assert!(!picture.pixels().chunks_exact(3).any(|p| p == [0, 158, 115]));
    }
}
