//! Transformed kernels, in the order in which products read them.

use super::planes::Planes;
use super::transform::{OfKernel, both};
use crate::Stored;
use crate::bf16::Values;
use crate::parallel::{self, Shared};
use crate::scratch::Scratch;
use crate::simd::{Isa, Kernel, Simd};
use crate::stored::with_values;
use std::ops::Range;

/// Depth that is transformed at a time, at most.
pub(super) const DEPTH_CHUNK: usize = 32;

/// Depth of a task, where all kernels are transformed first: whole cache lines of both layouts.
const PACK_DEPTH: usize = 16;

/// How far ahead rows of weights are asked for. Nine short stretches at a time are more than the processor foresees by itself.
const ROWS_AHEAD: usize = 2;

/// A layer's kernels as the right-hand matrices of products.
#[derive(Clone, Copy)]
pub(super) struct Kernels<'a> {
    /// `[3, 3, in_channels, out_channels]`
    pub values: Stored<'a>,
    pub in_channels: usize,
    pub out_channels: usize,
    /// Whether they are turned by 180° and transposed, for the input's gradient.
    pub turned: bool,
}

/// All of a layer's kernels: `[planes, panels, depth, panel columns]`.
pub(super) struct Packed {
    pub values: Scratch,
    pub planes: Planes,
}

impl Kernels<'_> {
    /// Channels that are summed.
    pub(super) fn depth(&self) -> usize {
        if self.turned {
            self.out_channels
        } else {
            self.in_channels
        }
    }

    /// Channels of the result.
    pub(super) fn width(&self) -> usize {
        if self.turned {
            self.in_channels
        } else {
            self.out_channels
        }
    }

    /// Panels of the result.
    pub(super) fn panels(&self, isa: Isa) -> usize {
        self.width().div_ceil(isa.panel_columns())
    }

    /// Transforms and packs all of them, on all threads.
    pub(super) fn pack(&self, isa: Isa) -> Packed {
        let (depth, columns, panels) = (self.depth(), isa.panel_columns(), self.panels(isa));
        let planes = Planes::new(panels * depth * columns);
        let mut values = planes.scratch();
        let to = Shared::new(values.values_mut());
        let worth = self.values.len() > parallel::GRAIN;
        parallel::for_each(depth.div_ceil(PACK_DEPTH), worth, |task| {
            let start = task * PACK_DEPTH;
            isa.run(Pack {
                kernels: self,
                depth: start..depth.min(start + PACK_DEPTH),
                panels: 0..panels,
                to,
                start: start * columns,
                panel_step: depth * columns,
                planes,
            });
        });
        Packed { values, planes }
    }
}

/// Transforms the kernels of some panels from some depth to some other, and writes them to `[planes, panels, depth, panel columns]`
/// from index `start` of `to` on, planes and panels their steps apart.
///
/// Weights are read row by row, all panels of a row at once: at a picture at a time they come from memory, of which single cache
/// lines far apart would be the slowest use.
pub(super) struct Pack<'a> {
    pub kernels: &'a Kernels<'a>,
    pub depth: Range<usize>,
    pub panels: Range<usize>,
    /// No other task writes where this one does.
    pub to: Shared<'a>,
    pub start: usize,
    pub panel_step: usize,
    pub planes: Planes,
}

impl Kernel for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let columns = S::PANEL_VECTORS * S::LANES;
        let (rows, panels) = (self.depth.len(), self.panels.len());
        if rows == 0 || panels == 0 {
            return;
        }
        let last = (panels - 1) * self.panel_step + rows * columns;
        assert!(
            rows * columns <= self.panel_step && last <= self.planes.step,
            "room for every panel and plane"
        );
        let (to, _end) = (
            self.to.at(self.start),
            self.to
                .at(self.start + self.planes.len() - self.planes.step + last),
        );
        // SAFETY: each plane has rows of whole panels from `to` on, of which the last ends where `_end` was found to be within
        // the slice.
        unsafe {
            with_values!(self.kernels.values, |values| {
                if self.kernels.turned {
                    self.turned(s, values, to);
                } else {
                    self.plain(s, values, to);
                }
            });
        }
    }
}

impl Pack<'_> {
    /// The columns of each vector: its first, how many of them there are, and where it goes in a row of `to`.
    #[inline(always)]
    fn vectors<S: Simd>(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        let (width, step, first) = (self.kernels.width(), self.panel_step, self.panels.start);
        (0..self.panels.len() * S::PANEL_VECTORS).map(
            #[inline(always)]
            move |i| {
                let (panel, vector) = (i / S::PANEL_VECTORS, i % S::PANEL_VECTORS);
                let column = (first * S::PANEL_VECTORS + i) * S::LANES;
                let n = width.saturating_sub(column).min(S::LANES);
                (column, n, panel * step + vector * S::LANES)
            },
        )
    }

    /// # Safety
    /// `to` has a row for each of `depth` in each panel and plane.
    #[inline(always)]
    unsafe fn plain<S: Simd, V: Values>(&self, s: S, values: V, to: *mut f32) {
        let (depth, width) = (self.kernels.in_channels, self.kernels.out_channels);
        for (row, channel) in self.depth.clone().enumerate() {
            for (column, n, place) in self.vectors::<S>() {
                let from = channel * width + column;
                for tap in 0..9 {
                    values.prefetch(s, from + (tap * depth + ROWS_AHEAD) * width);
                }
                // SAFETY: the caller's promise; nine matrices of `depth` rows of `width` values are the layer's kernels.
                unsafe {
                    self.write(
                        s,
                        #[inline(always)]
                        |i, j| match n {
                            0 => s.zero(),
                            _ => values.load(s, from + (i * 3 + j) * depth * width, n),
                        },
                        to.add(place + row * S::PANEL_VECTORS * S::LANES),
                    );
                }
            }
        }
    }

    /// Square blocks of in-channels by out-channels are transposed, so that lanes are in-channels.
    ///
    /// # Safety
    /// `to` has a row for each of `depth` in each panel and plane.
    #[inline(always)]
    unsafe fn turned<S: Simd, V: Values>(&self, s: S, values: V, to: *mut f32) {
        let (width, depth) = (self.kernels.in_channels, self.kernels.out_channels);
        // `[taps, out-channels, in-channels]`, as large as 16 lanes need.
        let mut block = [0.0f32; 9 * 16 * 16];
        for (column, n, place) in self.vectors::<S>() {
            for first in self.depth.clone().step_by(S::LANES) {
                let rows = S::LANES.min(self.depth.end - first);
                for tap in 0..9 {
                    let from = (tap * width + column.min(width)) * depth;
                    let to = &mut block[tap * S::LANES * S::LANES..][..S::LANES * S::LANES];
                    if n == S::LANES && rows == S::LANES {
                        // SAFETY: `LANES` in-channels from `column` on have as many out-channels from `first` on.
                        unsafe { values.transpose(s, from + first, depth, to.as_mut_ptr(), S::LANES) };
                        continue;
                    }
                    to.fill(0.0);
                    for lane in 0..n {
                        for row in 0..rows {
                            to[row * S::LANES + lane] = values.value(from + lane * depth + first + row);
                        }
                    }
                }
                for row in 0..rows {
                    let block = block[row * S::LANES..].as_ptr();
                    // SAFETY: each tap's block has `LANES` rows of as many values, and the caller promises `to`.
                    unsafe {
                        let row = first - self.depth.start + row;
                        self.write(
                            s,
                            #[inline(always)]
                            |i, j| s.load(block.add((8 - i * 3 - j) * S::LANES * S::LANES)),
                            to.add(place + row * S::PANEL_VECTORS * S::LANES),
                        );
                    }
                }
            }
        }
    }

    /// # Safety
    /// `to` has a vector in each plane.
    #[inline(always)]
    unsafe fn write<S: Simd>(&self, s: S, load: impl Fn(usize, usize) -> S::F, to: *mut f32) {
        both::<S, OfKernel, 3, 6>(
            s,
            load,
            #[inline(always)]
            |i, j, value| {
                // SAFETY: the caller's promise.
                unsafe { s.store(to.add((i * 6 + j) * self.planes.step), value) }
            },
        );
    }
}
