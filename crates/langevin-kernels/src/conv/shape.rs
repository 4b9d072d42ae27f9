//! The sizes of a convolution.

/// The sizes of a convolution layer and its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv2dShape {
    /// Number of pictures.
    pub batch: usize,
    /// Height of the input.
    pub height: usize,
    /// Width of the input.
    pub width: usize,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Vertical and horizontal step between output pixels.
    pub stride: [usize; 2],
    /// Zero padding: `[[top, bottom], [left, right]]`.
    pub padding: [[usize; 2]; 2],
}

impl Conv2dShape {
    /// A linear layer from `in_features` to `out_features` on `rows` rows: a 1x1 convolution.
    pub const fn linear(rows: usize, in_features: usize, out_features: usize) -> Self {
        Self {
            batch: rows,
            height: 1,
            width: 1,
            in_channels: in_features,
            out_channels: out_features,
            kernel: [1, 1],
            stride: [1, 1],
            padding: [[0, 0], [0, 0]],
        }
    }

    /// Height of the output.
    ///
    /// # Panics
    /// If the kernel is higher than the padded input, or the stride is zero.
    pub const fn out_height(&self) -> usize {
        out_size(self.height, self.kernel[0], self.stride[0], self.padding[0])
    }

    /// Width of the output.
    ///
    /// # Panics
    /// If the kernel is wider than the padded input, or the stride is zero.
    pub const fn out_width(&self) -> usize {
        out_size(self.width, self.kernel[1], self.stride[1], self.padding[1])
    }

    /// Number of values in the input.
    pub const fn input_len(&self) -> usize {
        self.batch * self.height * self.width * self.in_channels
    }

    /// Number of values in the weight.
    pub const fn weight_len(&self) -> usize {
        self.taps() * self.in_channels * self.out_channels
    }

    /// Number of values in the output.
    pub const fn output_len(&self) -> usize {
        self.batch * self.out_height() * self.out_width() * self.out_channels
    }

    /// Number of positions in the kernel.
    pub(crate) const fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    pub(crate) fn check(&self, x: usize, weight: usize, y: usize) {
        assert_eq!(x, self.input_len(), "the input does not fit {self:?}");
        assert_eq!(weight, self.weight_len(), "the weight does not fit {self:?}");
        assert_eq!(y, self.output_len(), "the output does not fit {self:?}");
    }
}

const fn out_size(size: usize, kernel: usize, stride: usize, padding: [usize; 2]) -> usize {
    let padded = size + padding[0] + padding[1];
    assert!(
        kernel > 0 && kernel <= padded,
        "the kernel must fit into the padded input"
    );
    assert!(stride > 0, "the stride must not be zero");
    (padded - kernel) / stride + 1
}
