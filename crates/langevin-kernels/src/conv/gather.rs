//! Which input pixels an output pixel sums, axis by axis.

use super::Conv2dShape;

/// One axis of a gather: the destinations along it that share one list of kernel taps.
///
/// A forward convolution has one such class. An input gradient with stride `s` has `s`: a pixel is reached only by the
/// taps of its own residue, so classes make no product with a zero that the stride put there.
#[derive(Debug, PartialEq)]
pub(super) struct Axis {
    /// Destination coordinates.
    pub positions: Vec<usize>,
    /// Taps, in the order in which they are summed.
    pub taps: Vec<usize>,
    /// `[positions, taps]`: the source coordinate, or none in the padding.
    pub sources: Vec<Option<usize>>,
}

impl Axis {
    fn new(positions: Vec<usize>, taps: Vec<usize>, source: impl Fn(usize, usize) -> Option<usize>) -> Self {
        let source = &source;
        let sources = positions
            .iter()
            .flat_map(|&p| taps.iter().map(move |&t| source(p, t)))
            .collect();
        Self {
            positions,
            taps,
            sources,
        }
    }

    /// Axis `axis` of a convolution: output pixels from input pixels.
    pub(super) fn forward(shape: &Conv2dShape, axis: usize) -> Self {
        let (input, output) = sizes(shape, axis);
        let (stride, before) = (shape.stride[axis], shape.padding[axis][0]);
        Self::new(
            (0..output).collect(),
            (0..shape.kernel[axis]).collect(),
            |p, t| (p * stride + t).checked_sub(before).filter(|&i| i < input),
        )
    }

    /// The classes of axis `axis` of an input gradient: input pixels from output pixels.
    pub(super) fn gradient(shape: &Conv2dShape, axis: usize) -> Vec<Self> {
        let (input, output) = sizes(shape, axis);
        let (stride, before) = (shape.stride[axis], shape.padding[axis][0]);
        (0..stride)
            .map(|residue| {
                let positions = (0..input).filter(|p| (p + before) % stride == residue).collect();
                let taps = (residue..shape.kernel[axis]).step_by(stride).collect();
                Self::new(positions, taps, |p, t| {
                    (p + before)
                        .checked_sub(t)
                        .map(|i| i / stride)
                        .filter(|&o| o < output)
                })
            })
            .filter(|class| !class.positions.is_empty())
            .collect()
    }
}

fn sizes(shape: &Conv2dShape, axis: usize) -> (usize, usize) {
    match axis {
        0 => (shape.height, shape.out_height()),
        _ => (shape.width, shape.out_width()),
    }
}

/// The rows of an implicit matrix: one for each destination pixel of a class, in the order in which tiles take them.
///
/// On small maps the pictures of a block run fastest, so that the rows of a tile are one pixel of several pictures
/// and a tap in the padding is skipped for all: at 8x8 that is 16 % of the taps of a 3x3 kernel, at 2x2 56 %. Elsewhere
/// a tile's rows are neighbours in the picture. A row's own sum is the same in either order.
pub(super) struct Rows<'a> {
    pub y: &'a Axis,
    pub x: &'a Axis,
    pub batch: usize,
    /// Height and width of the source.
    pub source: [usize; 2],
    /// Height and width of the destination.
    pub destination: [usize; 2],
    /// Pictures of a block.
    pub block: usize,
}

impl Rows<'_> {
    pub(super) fn len(&self) -> usize {
        self.batch * self.y.positions.len() * self.x.positions.len()
    }

    pub(super) fn taps(&self) -> usize {
        self.y.taps.len() * self.x.taps.len()
    }

    /// Whether row `i` is destination pixel `i` and reads source pixel `i` and no other, as in a linear layer.
    pub(super) fn is_plain(&self) -> bool {
        let plain = |axis: &Axis, size: usize| {
            let mut sources = axis.sources.iter().enumerate();
            axis.taps.len() == 1
                && axis.positions.len() == size
                && sources.all(|(i, &source)| source == Some(i))
        };
        let [height, width] = self.destination;
        self.block == 1 && self.source == self.destination && plain(self.y, height) && plain(self.x, width)
    }

    /// Row `i`: its picture, and its index into the positions of both axes.
    fn place(&self, i: usize) -> [usize; 3] {
        let width = self.x.positions.len();
        let pixels = self.y.positions.len() * width;
        let first = i / (self.block * pixels) * self.block;
        let pictures = self.block.min(self.batch - first);
        let i = i - first * pixels;
        let position = i / pictures;
        [first + i % pictures, position / width, position % width]
    }

    /// The destination pixel of row `i`.
    pub(super) fn destination(&self, i: usize) -> usize {
        let [n, y, x] = self.place(i);
        (n * self.destination[0] + self.y.positions[y]) * self.destination[1] + self.x.positions[x]
    }

    /// Calls `f(tap, source pixel)` for each tap of row `i`, in order; taps are numbered within the class.
    pub(super) fn sources(&self, i: usize, mut f: impl FnMut(usize, Option<usize>)) {
        let [n, y, x] = self.place(i);
        let (ty, tx) = (self.y.taps.len(), self.x.taps.len());
        for (j, y) in self.y.sources[y * ty..][..ty].iter().enumerate() {
            for (k, x) in self.x.sources[x * tx..][..tx].iter().enumerate() {
                let pixel = match (y, x) {
                    (Some(y), Some(x)) => Some((n * self.source[0] + y) * self.source[1] + x),
                    _ => None,
                };
                f(j * tx + k, pixel);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stride_of_two_splits_the_input_into_classes_by_parity() {
        let shape = Conv2dShape {
            batch: 1,
            height: 4,
            width: 4,
            in_channels: 1,
            out_channels: 1,
            kernel: [3, 3],
            stride: [2, 2],
            padding: [[0, 1], [0, 1]],
        };
        let classes = Axis::gradient(&shape, 0);
        assert_eq!(classes[0].positions, [0, 2]);
        assert_eq!(classes[0].taps, [0, 2]);
        assert_eq!(classes[0].sources, [Some(0), None, Some(1), Some(0)]);
        assert_eq!(classes[1].positions, [1, 3]);
        assert_eq!(classes[1].taps, [1]);
        assert_eq!(classes[1].sources, [Some(0), Some(1)]);
    }

    #[test]
    fn rows_of_a_linear_layer_are_plain() {
        let plain = |shape: Conv2dShape, block| {
            let (y, x) = (Axis::forward(&shape, 0), Axis::forward(&shape, 1));
            let rows = Rows {
                y: &y,
                x: &x,
                batch: shape.batch,
                source: [shape.height, shape.width],
                destination: [shape.out_height(), shape.out_width()],
                block,
            };
            let each = (0..rows.len()).all(|i| {
                let mut sources = vec![];
                rows.sources(i, |_, pixel| sources.push(pixel));
                rows.destination(i) == i && sources == [Some(i)]
            });
            // Pictures that have one pixel lie in order in blocks too, which nobody asks for.
            assert!(rows.is_plain() == each || block > 1, "{shape:?}");
            rows.is_plain()
        };
        let linear = Conv2dShape::linear(5, 3, 2);
        let pictures = Conv2dShape {
            height: 2,
            width: 4,
            ..linear
        };
        assert!(plain(linear, 1) && plain(pictures, 1));
        assert!(!plain(pictures, 4));
        for (stride, padding) in [
            ([1, 2], [[0; 2]; 2]),
            ([1, 1], [[1, 0], [0, 0]]),
            ([1, 1], [[0, 0], [0, 1]]),
        ] {
            let shape = Conv2dShape {
                stride,
                padding,
                ..pictures
            };
            assert!(!plain(shape, 1));
        }
        let shape = Conv2dShape {
            kernel: [1, 3],
            padding: [[0, 0], [1, 1]],
            ..pictures
        };
        assert!(!plain(shape, 1));
    }

    #[test]
    fn blocks_of_pictures_visit_every_pixel_once() {
        let shape = Conv2dShape::linear(1, 1, 1);
        let shape = Conv2dShape {
            batch: 11,
            height: 3,
            width: 2,
            ..shape
        };
        let (y, x) = (Axis::forward(&shape, 0), Axis::forward(&shape, 1));
        for block in [1, 4, 8] {
            let rows = Rows {
                y: &y,
                x: &x,
                batch: 11,
                source: [3, 2],
                destination: [3, 2],
                block,
            };
            let mut seen: Vec<_> = (0..rows.len()).map(|i| rows.destination(i)).collect();
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..66));
        }
    }
}
