//! Plots as PNG files: losses on a linear and on a logarithmic axis, a noise schedule with a sampler's steps, and how much
//! each timestep counts.

mod compare;
mod labelled;
mod panel;
mod scale;
mod schedule;
mod weighting;

pub use compare::{Curve, compare_plot};
pub use labelled::labelled;
pub use schedule::{ScheduleCurves, schedule_plot};
pub use weighting::weighting_plot;

use std::path::Path;

use plotters::{
    coord::Shift,
    prelude::*,
    style::{FontStyle, register_font, text_anchor},
};

use crate::{
    Error, Result,
    data::{Channels, Picture},
    grid::write_png,
};
use scale::{Axis, smoothed, thinned};

/// Width and height of the picture, in pixels.
const SIZE: (usize, usize) = (1600, 640);
/// Everything is drawn this many times larger and then averaged: the drawing library has hard edges.
const OVERSAMPLING: usize = 2;
/// Horizontal places for raw values in a panel: more of them are drawn as their extremes.
const COLUMNS: usize = 600;

const FONT: &str = "langevin";
const INK: RGBColor = RGBColor(38, 44, 56);
const MUTED: RGBColor = RGBColor(110, 118, 132);
const GRID_LINE: RGBColor = RGBColor(228, 231, 237);
const LINE: RGBColor = RGBColor(31, 92, 190);
const RAW: RGBColor = RGBColor(186, 207, 242);

type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

/// Draws `losses`, pairs of step and value in the order of their steps, into the PNG at `path`: each value faintly,
/// and over them their running mean. What is not finite is left out; what is not positive, on the logarithmic axis.
///
/// # Errors
/// If the file cannot be written.
pub fn loss_plot(path: impl AsRef<Path>, losses: &[(u64, f64)], title: &str) -> Result<()> {
    let path = path.as_ref();
    let raw = finite(losses);
    let line = Line {
        smooth: smoothed(&raw),
        raw,
        colour: LINE,
    };
    write_plot(path, title, |root| {
        legend(root)?;
        panels(root, "loss", &[line])
    })
}

/// The points with a finite value.
fn finite(points: &[(u64, f64)]) -> Vec<(f64, f64)> {
    let points = points.iter().filter(|(_, value)| value.is_finite());
    points.map(|&(step, value)| (step as f64, value)).collect()
}

/// What a panel shows of one run.
struct Line {
    /// Every value, drawn faintly in the colour for it; may be left empty.
    raw: Vec<(f64, f64)>,
    /// Their running mean.
    smooth: Vec<(f64, f64)>,
    colour: RGBColor,
}

/// Draws a titled plot into the PNG at `path`.
fn write_plot(
    path: &Path,
    title: &str,
    draw: impl FnOnce(&DrawingArea<BitMapBackend<'_>, Shift>) -> Drawn,
) -> Result<()> {
    let large = (SIZE.0 * OVERSAMPLING, SIZE.1 * OVERSAMPLING);
    let mut pixels = vec![0; large.0 * large.1 * 3];
    let fill = || -> Drawn {
        register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)
            .map_err(|_| "the built-in font is damaged")?;
        let size = (large.0 as u32, large.1 as u32);
        let root = BitMapBackend::with_buffer(&mut pixels, size).into_drawing_area();
        root.fill(&WHITE)?;
        let place = (px(32), px(22));
        root.draw(&Text::new(title.to_string(), place, font(28).color(&INK)))?;
        draw(&root)?;
        root.present()?;
        Ok(())
    };
    fill().map_err(|e| Error::file(path, format!("the plot cannot be drawn: {e}")))?;
    let picture = Picture::new(SIZE.1, SIZE.0, Channels::Rgb, averaged(&pixels, large.0))?;
    write_png(path, &picture, &[("Title", title.to_string())])
}

/// The mean of each square of `OVERSAMPLING` x `OVERSAMPLING` pixels of an RGB picture.
fn averaged(pixels: &[u8], width: usize) -> Vec<u8> {
    let n = OVERSAMPLING;
    let mean = |row: usize, column: usize, c: usize| {
        let square = (0..n * n).map(|i| pixels[((row * n + i / n) * width + column * n + i % n) * 3 + c]);
        (square.map(usize::from).sum::<usize>() / (n * n)) as u8
    };
    let places = (0..SIZE.1).flat_map(|row| (0..SIZE.0).map(move |column| (row, column)));
    places
        .flat_map(|(row, column)| [0, 1, 2].map(|c| mean(row, column, c)))
        .collect()
}

/// A length in the final picture's pixels, in those drawn.
fn px(length: usize) -> i32 {
    (length * OVERSAMPLING) as i32
}

fn font(size: usize) -> FontDesc<'static> {
    (FONT, f64::from(px(size))).into_font()
}

/// The same lines of `what` on both axes, which fit all of them.
fn panels(root: &DrawingArea<BitMapBackend<'_>, Shift>, what: &str, lines: &[Line]) -> Drawn {
    let body = root.margin(px(70), px(14), px(20), px(28));
    let (left, right) = body.split_horizontally(px(SIZE.0 / 2 - 24));
    let shown = |line: &Line| {
        if line.raw.is_empty() {
            line.smooth.clone()
        } else {
            line.raw.clone()
        }
    };
    let all: Vec<(f64, f64)> = lines.iter().flat_map(shown).collect();
    let steps = Axis::steps(&all);
    let (linear, logarithmic) = (Axis::linear(&all), Axis::logarithmic(&all));
    panel(&left, what, lines, "linear axis", [&steps, &linear])?;
    panel(&right, what, lines, "logarithmic axis", [&steps, &logarithmic])
}

/// Top right: what the two lines are.
fn legend(root: &DrawingArea<BitMapBackend<'_>, Shift>) -> Drawn {
    let mut x = px(SIZE.0 - 312);
    for (name, colour, width, advance) in [("each step", RAW, 2, 150), ("running mean", LINE, 3, 0)] {
        let stroke = colour.stroke_width(px(width) as u32);
        root.draw(&PathElement::new([(x, px(38)), (x + px(28), px(38))], stroke))?;
        let style = font(18).color(&MUTED).pos(text_anchor::Pos::new(
            text_anchor::HPos::Left,
            text_anchor::VPos::Center,
        ));
        root.draw(&Text::new(name, (x + px(36), px(37)), style))?;
        x += px(advance);
    }
    Ok(())
}

fn panel(
    area: &DrawingArea<BitMapBackend<'_>, Shift>,
    what: &str,
    lines: &[Line],
    name: &str,
    [steps, axis]: [&Axis; 2],
) -> Drawn {
    let mut chart = ChartBuilder::on(area)
        .margin_left(px(12))
        .margin_right(px(14))
        .caption(name, font(20).color(&MUTED))
        .x_label_area_size(px(58))
        .y_label_area_size(px(84))
        .build_cartesian_2d(steps.clone(), axis.clone())?;
    chart
        .configure_mesh()
        .axis_style(GRID_LINE.stroke_width(px(1) as u32))
        .bold_line_style(GRID_LINE.stroke_width(px(1) as u32))
        .light_line_style(TRANSPARENT)
        .label_style(font(17).color(&INK))
        .axis_desc_style(font(18).color(&MUTED))
        .x_desc("step")
        .y_desc(what)
        .set_all_tick_mark_size(px(4))
        .draw()?;
    for Line { raw, smooth, colour } in lines {
        chart.draw_series(line(&thinned(raw, COLUMNS), axis, RAW.stroke_width(px(1) as u32)))?;
        chart.draw_series(line(
            &thinned(smooth, COLUMNS),
            axis,
            colour.stroke_width(px(2) as u32),
        ))?;
        if let [(step, loss)] = smooth[..] {
            let dot = axis
                .place(loss)
                .map(|place| Circle::new((step, place), px(5), colour.filled()));
            chart.draw_series(dot)?;
        }
    }
    if lines.iter().all(|line| line.smooth.is_empty()) {
        let middle = (steps.middle(), axis.middle());
        let centred = text_anchor::Pos::new(text_anchor::HPos::Center, text_anchor::VPos::Center);
        chart.draw_series([Text::new(
            "no values yet",
            middle,
            font(20).color(&MUTED).pos(centred),
        )])?;
    }
    Ok(())
}

/// A line through points, piece by piece: where one long stroke turns sharply, its corners would stick far out. What
/// is beyond the axis is left out.
fn line(
    points: &[(f64, f64)],
    axis: &Axis,
    style: ShapeStyle,
) -> impl Iterator<Item = PathElement<(f64, f64)>> {
    points.windows(2).filter_map(move |pair| {
        let [(from, a), (to, b)] = [pair[0], pair[1]];
        let visible = axis.shows(a) || axis.shows(b);
        let ends = visible.then(|| Some([(from, axis.place(a)?), (to, axis.place(b)?)]))??;
        Some(PathElement::new(ends, style))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::read_picture;

    /// The plot of `losses`, and how many pixels have about the colour of the smoothed line.
    fn plot(losses: &[(u64, f64)]) -> (Picture, usize) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loss.png");
        loss_plot(&path, losses, "Loss of a test").unwrap();
        let picture = read_picture(&path).unwrap();
        let is_line = |p: &&[u8]| p[0] < 70 && p[1] < 120 && p[2] > 160;
        let blue = picture.pixels().chunks_exact(3).filter(is_line).count();
        (picture, blue)
    }

    #[test]
    fn any_values_are_drawn() {
        let (empty, legend) = plot(&[]);
        assert_eq!((empty.width(), empty.height()), SIZE);
        let cases: [&[(u64, f64)]; 8] = [
            &[(0, 0.5)],
            &[(3, 0.5), (4, 0.4)],
            &[(0, 0.0)],
            &[(0, 1.0), (1, 1.0), (2, 1.0)],
            &[(0, 1e300), (1, 1e-300), (2, 1.0)],
            &[(0, 1e300), (1, -1e300)],
            &[(7, 0.1), (7, 0.2)],
            &[
                (0, f64::NAN),
                (1, 0.3),
                (2, f64::INFINITY),
                (3, 0.2),
                (u64::MAX, 0.1),
            ],
        ];
        for case in cases {
            let (_, blue) = plot(case);
            assert!(
                blue > legend,
                "{case:?}: {blue} pixels of the line, {legend} in the legend"
            );
        }
        for nothing in [(0, f64::NAN), (0, f64::INFINITY), (9, f64::NEG_INFINITY)] {
            assert_eq!(plot(&[nothing]).1, legend);
        }
        plot(&[(0, f64::MAX), (1, f64::MIN)]);
    }

    #[test]
    fn the_title_is_in_the_file_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loss.png");
        loss_plot(&path, &[], "Verlust").unwrap();
        let text = crate::grid::read_png_text(&path).unwrap();
        assert_eq!(text, [("Title".to_string(), "Verlust".to_string())]);
    }
}
