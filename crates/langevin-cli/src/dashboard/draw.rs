//! What the dashboard shows, and where.

use std::time::Instant;

use langevin::{
    data::Picture,
    training::{Progress, RunInfo},
};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize},
    symbols::Marker,
    text::{Line, Span},
    widgets::{Axis, Block, BorderType, Chart, Dataset, GraphType, LineGauge, Padding, Paragraph},
};

use super::pictures::{Colours, Samples};
use crate::terminal::{self, duration, thousands};

/// Columns that the numbers take.
const NUMBERS: u16 = 30;
/// Rows that samples take at least, and lines that were said.
const SAMPLES: u16 = 8;
const SAID: u16 = 3;
/// The running mean's reach: it is this part of all steps, to either side.
const REACH: usize = 40;
/// The part of the losses that the curve's axis spans: a few early ones, often huge, would flatten all others.
const SPANNED: f64 = 0.98;

/// What is known of the run.
pub(super) struct View {
    title: String,
    colours: Colours,
    started: Instant,
    /// The loss of every step since the dashboard was opened, the first of which was this one.
    losses: Vec<f64>,
    first_step: usize,
    latest: Option<Progress>,
    samples: Option<(usize, Vec<Picture>)>,
}

impl View {
    pub(super) fn new(info: &RunInfo, colours: Colours) -> Self {
        Self {
            title: terminal::plain(&format!(
                "{} ({} parameters) on {}",
                info.model,
                thousands(info.parameters),
                info.dataset
            ))
            .into_owned(),
            colours,
            started: Instant::now(),
            losses: vec![],
            first_step: 0,
            latest: None,
            samples: None,
        }
    }

    pub(super) fn step(&mut self, progress: &Progress) {
        if self.losses.is_empty() {
            self.first_step = progress.step;
        }
        self.losses.push(progress.loss);
        self.latest = Some(*progress);
    }

    pub(super) fn samples(&mut self, step: usize, pictures: Vec<Picture>) {
        self.samples = Some((step, pictures));
    }

    pub(super) fn draw(&self, frame: &mut Frame) {
        let said = terminal::held(usize::from(SAID));
        let rows = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Fill(3),
            Constraint::Fill(2),
            Constraint::Length(said.len() as u16),
        ]);
        let [title, gauge, middle, bottom, last] = rows.areas(frame.area());
        let middle = if self.pictures_area(bottom).is_some() {
            middle
        } else {
            middle.union(bottom)
        };
        frame.render_widget(self.heading(title.width), title);
        self.draw_gauge(frame, gauge);
        let [curve, numbers] =
            Layout::horizontal([Constraint::Fill(1), Constraint::Length(NUMBERS)]).areas(middle);
        self.draw_curve(frame, curve);
        self.draw_numbers(frame, numbers);
        if let Some(area) = self.pictures_area(bottom) {
            self.draw_samples(frame, area);
        }
        frame.render_widget(Paragraph::new(said.join("\n")).style(self.faint()), last);
    }

    /// Where samples go, if they can be shown at all.
    fn pictures_area(&self, bottom: Rect) -> Option<Rect> {
        (self.colours.shows_pictures() && bottom.height >= SAMPLES).then_some(bottom)
    }

    /// A style in a colour, where there are any.
    fn style(&self, colour: Color) -> Style {
        match self.colours {
            Colours::None => Style::new(),
            _ => Style::new().fg(colour),
        }
    }

    fn faint(&self) -> Style {
        self.style(Color::DarkGray)
    }

    fn block(&self, title: String) -> Block<'static> {
        Block::bordered()
            .border_type(BorderType::Rounded)
            .border_style(self.faint())
            .title(title)
    }

    fn heading(&self, width: u16) -> Line<'_> {
        let hint = "q ends the run";
        let room = usize::from(width).saturating_sub(self.title.chars().count() + 2);
        Line::from_iter([
            format!(" {}", self.title).bold(),
            Span::styled(format!("{hint:>room$}"), self.faint()),
        ])
    }

    fn draw_gauge(&self, frame: &mut Frame, area: Rect) {
        let (done, label) = match &self.latest {
            Some(at) => {
                let part = at.step as f64 / at.steps.max(1) as f64;
                let (step, steps) = (thousands(at.step), thousands(at.steps));
                (
                    part,
                    format!(" step {step} of {steps}, epoch {} of {}", at.epoch, at.epochs),
                )
            }
            None => (0.0, " the first step is on its way".into()),
        };
        let gauge = LineGauge::default()
            .ratio(done.clamp(0.0, 1.0))
            .label(label)
            .filled_symbol("━")
            .unfilled_symbol(if self.colours == Colours::None { " " } else { "━" })
            .filled_style(self.style(Color::Cyan))
            .unfilled_style(self.faint());
        frame.render_widget(gauge, area);
    }

    fn draw_numbers(&self, frame: &mut Frame, area: Rect) {
        let elapsed = duration(self.started.elapsed().as_secs_f64());
        let lines: Vec<Line> = match &self.latest {
            None => vec![],
            Some(at) => [
                ("loss", format!("{:.4}", at.loss)),
                ("mean loss", format!("{:.4}", recent_mean(&self.losses))),
                ("learning rate", format!("{:.2e}", at.learning_rate)),
                ("pictures/s", format!("{:.1}", at.pictures_per_second)),
                ("running for", elapsed),
                ("left", duration(at.seconds_left)),
            ]
            .into_iter()
            .map(|(name, value)| {
                Line::from_iter([
                    Span::styled(format!("{name:<14}"), self.faint()),
                    Span::raw(value),
                ])
            })
            .collect(),
        };
        let block = self.block(" run ".into()).padding(Padding::horizontal(1));
        frame.render_widget(Paragraph::new(lines).block(block), area);
    }

    fn draw_curve(&self, frame: &mut Frame, area: Rect) {
        // A letter has two points from left to right; two borders and the labels take some.
        let columns = usize::from(area.width).saturating_sub(10).max(8) * 2;
        let raw = self.points(&self.losses, columns);
        let smooth = self.points(&running_mean(&self.losses), columns);
        let (low, high) = span(&self.losses);
        let last = (self.first_step + self.losses.len().max(2) - 1) as f64;
        let middle = (low + high) / 2.0;
        let labels = [low, middle, high].map(|value| format!("{value:.3}"));
        let ends = [self.first_step as f64, last].map(|step| thousands(step as usize));
        let line = |points, colour| {
            Dataset::default()
                .marker(Marker::Braille)
                .graph_type(GraphType::Line)
                .style(self.style(colour))
                .data(points)
        };
        let mut datasets = vec![line(&smooth, Color::Cyan)];
        if self.colours != Colours::None {
            datasets.insert(0, line(&raw, Color::DarkGray));
        }
        let chart = Chart::new(datasets)
            .block(self.block(" loss, each step and running mean ".into()))
            .x_axis(
                Axis::default()
                    .style(self.faint())
                    .bounds([self.first_step as f64, last])
                    .labels(ends),
            )
            .y_axis(
                Axis::default()
                    .style(self.faint())
                    .bounds([low, high])
                    .labels(labels),
            );
        frame.render_widget(chart, area);
    }

    /// Losses as points of the chart: the means of as many stretches of steps as there are columns.
    fn points(&self, losses: &[f64], columns: usize) -> Vec<(f64, f64)> {
        let stretch = losses.len().div_ceil(columns).max(1);
        let (low, high) = span(&self.losses);
        let point = |(index, stretch_losses): (usize, &[f64])| {
            let mean = stretch_losses.iter().sum::<f64>() / stretch_losses.len() as f64;
            let step = self.first_step + (index * stretch + stretch_losses.len() / 2).min(losses.len() - 1);
            // The chart leaves out what is beyond its bounds, and with it the line to its neighbours.
            (step as f64, mean.clamp(low, high))
        };
        losses.chunks(stretch).enumerate().map(point).collect()
    }

    fn draw_samples(&self, frame: &mut Frame, area: Rect) {
        let title = match &self.samples {
            Some((step, _)) => format!(" samples after step {} ", thousands(*step)),
            None => " samples ".into(),
        };
        let block = self.block(title).padding(Padding::horizontal(1));
        let inside = block.inner(area);
        frame.render_widget(block, area);
        match &self.samples {
            Some((_, pictures)) => frame.render_widget(
                Samples {
                    pictures,
                    colours: self.colours,
                },
                inside,
            ),
            None => frame.render_widget(
                Paragraph::new("none yet; --log-samples-every N draws some every N steps")
                    .style(self.faint()),
                inside,
            ),
        }
    }
}

/// The mean over the last steps.
fn recent_mean(losses: &[f64]) -> f64 {
    let recent = &losses[losses.len().saturating_sub(50)..];
    recent.iter().sum::<f64>() / recent.len().max(1) as f64
}

/// The mean of each loss and its neighbours on both sides.
fn running_mean(losses: &[f64]) -> Vec<f64> {
    let reach = losses.len() / REACH;
    let mut sums = vec![0.0];
    for loss in losses {
        sums.push(sums[sums.len() - 1] + loss);
    }
    (0..losses.len())
        .map(|i| {
            let (start, end) = (i.saturating_sub(reach), (i + reach + 1).min(losses.len()));
            (sums[end] - sums[start]) / (end - start) as f64
        })
        .collect()
}

/// From the smallest loss to where nearly all of them are below.
fn span(losses: &[f64]) -> (f64, f64) {
    let mut sorted = losses.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (Some(&low), true) = (sorted.first(), sorted.len() > 1) else {
        let only = sorted.first().copied().unwrap_or(0.5);
        return (only - 0.5, only + 0.5);
    };
    let high = sorted[((sorted.len() - 1) as f64 * SPANNED) as usize];
    (low, if high > low { high } else { low + 1e-3 })
}

#[cfg(test)]
mod tests;
