//! Transformed kernels, in the order in which products read them.

use super::planes::Planes;
use super::transform::{OfKernel, both};
use crate::parallel::{self, Shared};
use crate::scratch::Scratch;
use crate::simd::{Isa, Kernel, Simd, load};
use std::ops::Range;

/// Depth that is transformed at a time: with a panel of AVX-512 295 KB, which the second-level cache holds.
pub(super) const DEPTH_CHUNK: usize = 32;

/// A layer's kernels as the right-hand matrices of products.
#[derive(Clone, Copy)]
pub(super) struct Kernels<'a> {
    /// `[3, 3, in_channels, out_channels]`
    pub values: &'a [f32],
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
    pub fn depth(&self) -> usize {
        if self.turned {
            self.out_channels
        } else {
            self.in_channels
        }
    }

    /// Channels of the result.
    pub fn width(&self) -> usize {
        if self.turned {
            self.in_channels
        } else {
            self.out_channels
        }
    }

    /// Panels of the result.
    pub fn panels(&self, isa: Isa) -> usize {
        self.width().div_ceil(isa.panel_columns())
    }

    /// Transforms and packs all of them, on all threads.
    pub fn pack(&self, isa: Isa) -> Packed {
        let (depth, columns) = (self.depth(), isa.panel_columns());
        let chunks = depth.div_ceil(DEPTH_CHUNK);
        let planes = Planes::new(self.panels(isa) * depth * columns);
        let mut values = planes.scratch();
        let to = Shared::new(values.values_mut());
        let worth = self.values.len() > parallel::GRAIN;
        parallel::for_each(self.panels(isa) * chunks, worth, |task| {
            let (panel, start) = (task / chunks, task % chunks * DEPTH_CHUNK);
            isa.run(Pack {
                kernels: self,
                depth: start..depth.min(start + DEPTH_CHUNK),
                panel,
                to,
                start: (panel * depth + start) * columns,
                planes,
            });
        });
        Packed { values, planes }
    }
}

/// Transforms the kernels of a panel from some depth to some other, and writes them to `[planes, depth, panel columns]`
/// from index `start` of `to` on.
pub(super) struct Pack<'a> {
    pub kernels: &'a Kernels<'a>,
    pub depth: Range<usize>,
    pub panel: usize,
    /// No other task writes where this one does.
    pub to: Shared<'a>,
    pub start: usize,
    pub planes: Planes,
}

impl Kernel for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let columns = S::PANEL_VECTORS * S::LANES;
        let len = self.depth.len() * columns;
        assert!(len <= self.planes.step, "room for every plane");
        let (to, _end) = (
            self.to.at(self.start),
            self.to
                .at(self.start + self.planes.len() - self.planes.step + len),
        );
        let first = self.panel * columns;
        for v in 0..S::PANEL_VECTORS {
            let column = first + v * S::LANES;
            let n = self.kernels.width().saturating_sub(column).min(S::LANES);
            // SAFETY: rows of `columns` values from `to` on end where `_end` was found to be within the slice, and `n`
            // channels from `column` on are there.
            unsafe {
                let to = to.add(v * S::LANES);
                if self.kernels.turned {
                    self.turned(s, column, n, to);
                } else {
                    self.plain(s, column, n, to);
                }
            }
        }
    }
}

impl Pack<'_> {
    /// # Safety
    /// `n` out-channels from `column` on are there, and `to` has a row for each of `depth` in each plane.
    #[inline(always)]
    unsafe fn plain<S: Simd>(&self, s: S, column: usize, n: usize, to: *mut f32) {
        let (depth, width) = (self.kernels.in_channels, self.kernels.out_channels);
        for (row, channel) in self.depth.clone().enumerate() {
            let from = self
                .kernels
                .values
                .as_ptr()
                .wrapping_add(channel * width + column);
            // SAFETY: the caller's promise; nine matrices of `depth` rows of `width` values are the layer's kernels.
            unsafe {
                self.write(
                    s,
                    #[inline(always)]
                    |i, j| load(s, from.wrapping_add((i * 3 + j) * depth * width), n),
                    to.add(row * S::PANEL_VECTORS * S::LANES),
                );
            }
        }
    }

    /// Square blocks of in-channels by out-channels are transposed, so that lanes are in-channels.
    ///
    /// # Safety
    /// `n` in-channels from `column` on are there, and `to` has a row for each of `depth` in each plane.
    #[inline(always)]
    unsafe fn turned<S: Simd>(&self, s: S, column: usize, n: usize, to: *mut f32) {
        let (width, depth) = (self.kernels.in_channels, self.kernels.out_channels);
        // `[taps, out-channels, in-channels]`, as large as 16 lanes need.
        let mut block = [0.0f32; 9 * 16 * 16];
        for first in self.depth.clone().step_by(S::LANES) {
            let rows = S::LANES.min(self.depth.end - first);
            for tap in 0..9 {
                let from = &self.kernels.values[(tap * width + column.min(width)) * depth..];
                let to = &mut block[tap * S::LANES * S::LANES..][..S::LANES * S::LANES];
                if n == S::LANES && rows == S::LANES {
                    // SAFETY: `LANES` in-channels from `column` on have as many out-channels from `first` on.
                    unsafe { s.transpose(from.as_ptr().add(first), depth, to.as_mut_ptr(), S::LANES) };
                    continue;
                }
                to.fill(0.0);
                for (lane, from) in from.chunks(depth).take(n).enumerate() {
                    for row in 0..rows {
                        to[row * S::LANES + lane] = from[first + row];
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
                        to.add(row * S::PANEL_VECTORS * S::LANES),
                    );
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
