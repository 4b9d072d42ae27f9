//! A panel of curves over timesteps, which plots of schedules and of weights are made of.

use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{Drawn, GRID_LINE, INK, MUTED, font, px, scale::Axis};

/// Marks are drawn as dots; of more than this many, every so-manieth.
const DOTS: usize = 250;

/// A curve of a panel: its colour, its points, and its name, where it is written beside it.
pub(super) struct Curve {
    pub colour: RGBColor,
    pub points: Vec<(f64, f64)>,
    pub name: Option<&'static str>,
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
    use super::value_at;

    #[test]
    fn marks_are_on_the_curve() {
        let points = [(0.0, 0.0), (10.0, 20.0)];
        assert_eq!(value_at(&points, 2.5), Some((2.5, 5.0)));
        assert_eq!(value_at(&points, 10.0), Some((10.0, 20.0)));
        assert_eq!((value_at(&points, -1.0), value_at(&points, 11.0)), (None, None));
    }
}
