//! Canny's edges (Canny 1986), to the bit as OpenCV's `Canny(picture, low, high)` finds them: Sobel's derivatives over 3x3 pixels, the
//! sum of their absolute values, ridges of that, and hysteresis.

use crate::data::{Channels, Picture};

/// tan 22.5° in 15-bit fixed point, as OpenCV rounds it.
const TAN_22: i64 = 13_573;
const SHIFT: u32 = 15;

/// How much a picture changes at a pixel: rightwards, downwards, and the sum of both without their signs.
#[derive(Clone, Copy, Default)]
struct Slope {
    x: i32,
    y: i32,
    norm: i32,
}

/// The edges of a picture, white on black: pixels on a ridge of more than `high`, and those of more than `low` that touch them. Of a
/// picture in colours, the channel that changes most counts.
pub(super) fn canny(picture: &Picture, low: f64, high: f64) -> Picture {
    let (low, high) = (low.min(high).floor() as i32, low.max(high).floor() as i32);
    let slopes = Slopes::of(picture);
    let (height, width) = (picture.height(), picture.width());
    let is_ridge: Vec<bool> = (0..height * width)
        .map(|place| slopes.is_ridge(place / width, place % width, low))
        .collect();
    let mut edges = vec![0; height * width];
    let strong = |&place: &usize| is_ridge[place] && slopes.all[place].norm > high;
    let mut found: Vec<usize> = (0..height * width).filter(strong).collect();
    for &place in &found {
        edges[place] = 255;
    }
    // From each edge to the weaker ones beside it.
    while let Some(place) = found.pop() {
        let (y, x) = (place / width, place % width);
        for row in y.saturating_sub(1)..(y + 2).min(height) {
            for column in x.saturating_sub(1)..(x + 2).min(width) {
                let beside = row * width + column;
                if is_ridge[beside] && edges[beside] == 0 {
                    edges[beside] = 255;
                    found.push(beside);
                }
            }
        }
    }
    Picture::from_parts(height, width, Channels::Grey, edges)
}

struct Slopes {
    height: usize,
    width: usize,
    all: Vec<Slope>,
}

impl Slopes {
    /// Sobel's derivatives; beyond its edges a picture goes on as it ends.
    fn of(picture: &Picture) -> Self {
        let (height, width) = (picture.height(), picture.width());
        let channels = picture.channels().count();
        let mut all = Vec::with_capacity(height * width);
        for y in 0..height {
            let rows = [y.saturating_sub(1), y, (y + 1).min(height - 1)].map(|y| picture.row(y));
            for x in 0..width {
                let columns = [x.saturating_sub(1), x, (x + 1).min(width - 1)];
                let mut steepest = Slope::default();
                for channel in 0..channels {
                    let at = |row: usize, column: usize| {
                        i32::from(rows[row][columns[column] * channels + channel])
                    };
                    let right = |row| at(row, 2) - at(row, 0);
                    let down = |column| at(2, column) - at(0, column);
                    let (x, y) = (
                        right(0) + 2 * right(1) + right(2),
                        down(0) + 2 * down(1) + down(2),
                    );
                    let norm = x.abs() + y.abs();
                    // The first of several that are as steep.
                    if channel == 0 || norm > steepest.norm {
                        steepest = Slope { x, y, norm };
                    }
                }
                all.push(steepest);
            }
        }
        Self { height, width, all }
    }

    /// The norm at a pixel beside another; 0 outside.
    fn norm(&self, y: usize, x: usize, [down, right]: [isize; 2]) -> i32 {
        match (y.checked_add_signed(down), x.checked_add_signed(right)) {
            (Some(y), Some(x)) if y < self.height && x < self.width => self.all[y * self.width + x].norm,
            _ => 0,
        }
    }

    /// Whether the norm is more than `low` and the largest across the edge, whose direction is one of four.
    fn is_ridge(&self, y: usize, x: usize, low: i32) -> bool {
        let slope = self.all[y * self.width + x];
        if slope.norm <= low {
            return false;
        }
        let beside = |offset| self.norm(y, x, offset);
        let (across, along) = (
            i64::from(slope.x.abs()) * TAN_22,
            i64::from(slope.y.abs()) << SHIFT,
        );
        if along < across {
            return slope.norm > beside([0, -1]) && slope.norm >= beside([0, 1]);
        }
        // tan 67.5° is tan 22.5° and 2.
        if along > across + (i64::from(slope.x.abs()) << (SHIFT + 1)) {
            return slope.norm > beside([-1, 0]) && slope.norm >= beside([1, 0]);
        }
        let side = if (slope.x ^ slope.y) < 0 { -1 } else { 1 };
        slope.norm > beside([-1, -side]) && slope.norm > beside([1, side])
    }
}
