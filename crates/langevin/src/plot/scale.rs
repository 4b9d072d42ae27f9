//! Ranges, ticks and labels of the loss plot's axes, and what of many values is drawn.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// About as many ticks as an axis has.
const TICKS: f64 = 6.0;
/// The part of the values that a linear axis shows: a few early ones, often huge, would flatten all others.
const SHOWN: f64 = 0.99;
/// The smoothing window is this part of all values, to either side.
const WINDOW: usize = 60;
/// Decades below the largest value that a logarithmic axis shows at most.
const DECADES: f64 = 12.0;

/// One axis: what it spans and where its ticks are, both in the axis' own units (logarithms on a logarithmic one).
#[derive(Clone)]
pub(super) struct Axis {
    range: Range<f64>,
    ticks: Vec<f64>,
    logarithmic: bool,
}

impl Axis {
    /// The horizontal axis of steps.
    pub(super) fn steps(losses: &[(f64, f64)]) -> Self {
        let (first, last) = extremes(losses.iter().map(|&(step, _)| step)).unwrap_or((0.0, 1.0));
        let range = if last > first {
            first..last
        } else {
            first..first + 1.0
        };
        let ticks = ticks(&range, 1.0);
        Self {
            range,
            ticks,
            logarithmic: false,
        }
    }

    /// From the smallest to the largest value, with a little room.
    pub(super) fn around(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = extremes(values).unwrap_or((0.0, 1.0));
        let room = if high > low { 0.04 * (high - low) } else { 0.5 };
        let range = low - room..high + room;
        let ticks = ticks(&range, 0.0);
        Self {
            range,
            ticks,
            logarithmic: false,
        }
    }

    /// From zero, or the smallest value where some are negative, to where nearly all values are seen.
    pub(super) fn linear(losses: &[(f64, f64)]) -> Self {
        let mut values: Vec<f64> = losses.iter().map(|&(_, loss)| loss).collect();
        values.sort_by(f64::total_cmp);
        let most = ((values.len() as f64 * SHOWN) as usize).min(values.len().saturating_sub(1));
        let (lowest, highest) = (
            values.first().map_or(0.0, |&v| v),
            values.get(most).map_or(1.0, |&v| v),
        );
        // Far below it, because the difference of two of the largest numbers there are is infinite.
        let limit = f64::MAX / 4.0;
        let (bottom, top) = (lowest.clamp(-limit, 0.0), highest.clamp(-limit, limit));
        let top = if top > bottom {
            top + 0.05 * (top - bottom)
        } else {
            bottom + 1.0
        };
        let range = bottom..top;
        let ticks = ticks(&range, 0.0);
        Self {
            range,
            ticks,
            logarithmic: false,
        }
    }

    /// From the smallest to the largest positive value, with a little room; in powers of ten.
    pub(super) fn logarithmic(losses: &[(f64, f64)]) -> Self {
        let logarithms = losses
            .iter()
            .filter(|&&(_, loss)| loss > 0.0)
            .map(|&(_, loss)| loss.log10());
        let (low, high) = extremes(logarithms).unwrap_or((-1.0, 0.0));
        let low = low.max(high - DECADES);
        let room = (0.05 * (high - low)).max(0.05);
        let range = low - room..high + room;
        let ticks = logarithmic_ticks(&range);
        Self {
            range,
            ticks,
            logarithmic: true,
        }
    }

    /// Where a loss stands on the axis, moved to its end if it is beyond; `None` if it has no place there.
    pub(super) fn place(&self, loss: f64) -> Option<f64> {
        self.position(loss)
            .map(|place| place.clamp(self.range.start, self.range.end))
    }

    /// Whether a loss is within the axis' range.
    pub(super) fn shows(&self, loss: f64) -> bool {
        self.position(loss)
            .is_some_and(|place| place >= self.range.start && place <= self.range.end)
    }

    fn position(&self, loss: f64) -> Option<f64> {
        match self.logarithmic {
            true => (loss > 0.0).then(|| loss.log10()),
            false => Some(loss),
        }
    }

    /// The middle, in the axis' own units.
    pub(super) fn middle(&self) -> f64 {
        (self.range.start + self.range.end) / 2.0
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let part = (value - self.range.start) / (self.range.end - self.range.start);
        limit.0 + (part * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, tick: &f64) -> String {
        format_value(if self.logarithmic {
            10f64.powf(*tick)
        } else {
            *tick
        })
    }
}

fn extremes(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |found, v| match found {
        None => Some((v, v)),
        Some((low, high)) => Some((v.min(low), v.max(high))),
    })
}

/// Round numbers (1, 2 or 5 times a power of ten, and at least `smallest_step`, apart) within the range.
fn ticks(range: &Range<f64>, smallest_step: f64) -> Vec<f64> {
    let rough = (range.end - range.start) / TICKS;
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|factor| factor * power >= rough)
        .unwrap_or(10.0);
    let step = (factor * power).max(smallest_step);
    let first = (range.start / step).ceil();
    let tick = |i: u8| (first + f64::from(i)) * step;
    (0..16).map(tick).take_while(|&tick| tick <= range.end).collect()
}

/// Logarithms of round numbers: powers of ten where there are enough of them, else also 2 and 5 times these, else
/// what a linear axis would have.
fn logarithmic_ticks(range: &Range<f64>) -> Vec<f64> {
    let (first, last) = (range.start.floor() as i32, range.end.ceil() as i32);
    let every = |factors: &[f64]| -> Vec<f64> {
        let all = (first..=last).flat_map(|power| factors.iter().map(move |f| f64::from(power) + f.log10()));
        all.filter(|tick| range.contains(tick)).collect()
    };
    let decades = every(&[1.0]);
    if decades.len() >= 4 {
        let stride = decades.len().div_ceil(8);
        return decades.into_iter().step_by(stride).collect();
    }
    let finer = every(&[1.0, 2.0, 5.0]);
    if finer.len() >= 3 {
        return finer;
    }
    let linear = 10f64.powf(range.start)..10f64.powf(range.end);
    ticks(&linear, 0.0)
        .into_iter()
        .filter(|&tick| tick > 0.0)
        .map(f64::log10)
        .collect()
}

/// A number as short as a reader wants it: `0.05`, `20000`, `3e-7`.
fn format_value(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e7).contains(&size) {
        let text = format!("{value:.2e}");
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        return format!("{}e{power}", trim_zeros(digits));
    }
    // Enough digits for three that count.
    let decimals = if size == 0.0 {
        0
    } else {
        (3 - size.log10().floor() as i32).max(0) as usize
    };
    trim_zeros(&format!("{value:.decimals$}")).to_string()
}

fn trim_zeros(digits: &str) -> &str {
    if digits.contains('.') {
        digits.trim_end_matches('0').trim_end_matches('.')
    } else {
        digits
    }
}

/// The mean of the neighbours of each value, taken twice so that it is smooth. It does not lag behind, as a moving
/// average of past values would.
pub(super) fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = points.len() / WINDOW;
    running_mean(&running_mean(points, reach), reach)
}

/// The mean over `reach` values to either side. Near the start, where losses fall steeply, over as many fewer on
/// both; near the end over those that there are.
fn running_mean(points: &[(f64, f64)], reach: usize) -> Vec<(f64, f64)> {
    let sums: Vec<f64> = std::iter::once(0.0)
        .chain(points.iter().scan(0.0, |sum, &(_, value)| {
            *sum += value;
            Some(*sum)
        }))
        .collect();
    let mean = |(i, &(step, value)): (usize, &(f64, f64))| {
        let reach = reach.min(i);
        let (start, end) = (i - reach, (i + reach + 1).min(points.len()));
        let mean = if reach == 0 {
            value
        } else {
            (sums[end] - sums[start]) / (end - start) as f64
        };
        (step, mean)
    };
    points.iter().enumerate().map(mean).collect()
}

/// At most about twice `columns` points: of each run of consecutive ones its smallest and its largest, in order.
pub(super) fn thinned(points: &[(f64, f64)], columns: usize) -> Vec<(f64, f64)> {
    if points.len() <= 2 * columns {
        return points.to_vec();
    }
    let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
    let extremes = |run: &[(f64, f64)]| {
        let (low, high) = (
            run.iter().min_by(by_value).copied(),
            run.iter().max_by(by_value).copied(),
        );
        let mut pair: Vec<(f64, f64)> = low.into_iter().chain(high).collect();
        pair.sort_by(|a, b| a.0.total_cmp(&b.0));
        pair
    };
    points
        .chunks(points.len().div_ceil(columns))
        .flat_map(extremes)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(values: &[f64]) -> Vec<(f64, f64)> {
        values
            .iter()
            .zip(0..)
            .map(|(&loss, step)| (f64::from(step), loss))
            .collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        let labels = |axis: Axis| axis.ticks.iter().map(|t| axis.format_ext(t)).collect::<Vec<_>>();
        let falling = losses(&[0.9, 0.4, 0.1, 0.05]);
        assert_eq!(labels(Axis::linear(&falling)), ["0", "0.2", "0.4", "0.6", "0.8"]);
        assert_eq!(
            labels(Axis::logarithmic(&falling)),
            ["0.05", "0.1", "0.2", "0.5", "1"]
        );
        assert_eq!(
            labels(Axis::logarithmic(&losses(&[1e-6, 1.0]))),
            ["1e-6", "1e-5", "0.0001", "0.001", "0.01", "0.1", "1"]
        );
        assert_eq!(
            labels(Axis::steps(&[(0.0, 1.0), (12_000.0, 1.0)])),
            ["0", "2000", "4000", "6000", "8000", "10000", "12000"]
        );
        assert_eq!(labels(Axis::steps(&[(0.0, 1.0), (2.0, 1.0)])), ["0", "1", "2"]);
        assert!(labels(Axis::logarithmic(&losses(&[0.5]))).len() >= 2);
        assert_eq!(labels(Axis::linear(&[])), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
    }

    #[test]
    fn a_few_huge_values_do_not_flatten_the_rest() {
        let mut values = vec![0.1; 1000];
        values[0] = 50.0;
        let axis = Axis::linear(&losses(&values));
        assert!(axis.range.end < 0.2, "{:?}", axis.range);
        assert_eq!(axis.place(50.0), Some(axis.range.end));
    }

    #[test]
    fn what_is_not_positive_has_no_place_on_a_logarithmic_axis() {
        let axis = Axis::logarithmic(&losses(&[0.0, -1.0, 0.1]));
        assert_eq!((axis.place(0.0), axis.place(-1.0)), (None, None));
        assert_eq!(axis.place(0.1), Some(-1.0));
    }

    #[test]
    fn the_running_mean_keeps_constants_and_lines_up_to_the_end() {
        let constant = losses(&[2.0; 300]);
        assert_eq!(smoothed(&constant), constant);
        let line: Vec<_> = (0..300).map(|i| (f64::from(i), 2.0 * f64::from(i))).collect();
        for (found, expected) in smoothed(&line).iter().zip(&line).take(280) {
            assert!((found.1 - expected.1).abs() < 1e-9);
        }
    }

    #[test]
    fn thinning_keeps_extremes_and_order() {
        let mut values = vec![1.0; 10_000];
        values[5_000] = 9.0;
        values[7_777] = -9.0;
        let thin = thinned(&losses(&values), 100);
        assert!(thin.len() <= 200 && thin.is_sorted_by(|a, b| a.0 <= b.0));
        assert!(thin.contains(&(5_000.0, 9.0)) && thin.contains(&(7_777.0, -9.0)));
    }
}
