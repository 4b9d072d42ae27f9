//! Convolution against a plain sum in `f64`, on every instruction set, and the same bits whatever runs beside it.

mod common;

use common::{assert_close_at_least, assert_same_bits, instruction_sets, random, with_thread_counts};
use langevin_kernels::conv::{
    Algorithm, Conv2dShape, Residual, conv2d_forward, conv2d_input_gradient, conv2d_weight_gradient,
};
use proptest::prelude::*;

/// Calls `f(input index, weight index, output index)` for each product of the convolution.
fn each_product(s: &Conv2dShape, mut f: impl FnMut(usize, usize, usize)) {
    let (oh, ow) = (s.out_height(), s.out_width());
    for n in 0..s.batch {
        for (oy, ox) in (0..oh).flat_map(|oy| (0..ow).map(move |ox| (oy, ox))) {
            for (ky, kx) in (0..s.kernel[0]).flat_map(|ky| (0..s.kernel[1]).map(move |kx| (ky, kx))) {
                let iy = (oy * s.stride[0] + ky) as isize - s.padding[0][0] as isize;
                let ix = (ox * s.stride[1] + kx) as isize - s.padding[1][0] as isize;
                if iy < 0 || ix < 0 || iy >= s.height as isize || ix >= s.width as isize {
                    continue;
                }
                let i = ((n * s.height + iy as usize) * s.width + ix as usize) * s.in_channels;
                let w = (ky * s.kernel[1] + kx) * s.in_channels;
                let o = ((n * oh + oy) * ow + ox) * s.out_channels;
                for c in 0..s.in_channels {
                    for k in 0..s.out_channels {
                        f(i + c, (w + c) * s.out_channels + k, o + k);
                    }
                }
            }
        }
    }
}

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Fastest, Algorithm::Exact];

struct Layer {
    shape: Conv2dShape,
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
    gy: Vec<f32>,
}

/// The results of all three passes: y, gx, gw, gb.
type Results<T> = [Vec<T>; 4];

impl Layer {
    fn new(shape: Conv2dShape) -> Self {
        Self {
            shape,
            x: random(shape.input_len(), 1),
            weight: random(shape.weight_len(), 2),
            bias: random(shape.out_channels, 3),
            residual: random(shape.output_len(), 4),
            gy: random(shape.output_len(), 5),
        }
    }

    /// The results, and the largest root of a result's sum of squared terms: about what a sum comes to, unless its terms happen to cancel.
    fn truth(&self) -> (Results<f64>, [f64; 4]) {
        let s = &self.shape;
        let mut truth: Results<f64> =
            [s.output_len(), s.input_len(), s.weight_len(), s.out_channels].map(|n| vec![0.0; n]);
        let mut squares = truth.clone();
        let mut add = |result: usize, i: usize, term: f64| {
            truth[result][i] += term;
            squares[result][i] += term * term;
        };
        for i in 0..s.output_len() {
            add(0, i, f64::from(self.residual[i]));
            add(0, i, f64::from(self.bias[i % s.out_channels]));
            add(3, i % s.out_channels, f64::from(self.gy[i]));
        }
        each_product(s, |i, w, o| {
            let (x, weight, gy) = (
                f64::from(self.x[i]),
                f64::from(self.weight[w]),
                f64::from(self.gy[o]),
            );
            add(0, o, x * weight);
            add(1, i, gy * weight);
            add(2, w, gy * x);
        });
        let roots = squares.map(|squares| squares.into_iter().fold(0.0, f64::max).sqrt());
        (truth, roots)
    }

    fn run(&self, algorithm: Algorithm) -> Results<f32> {
        let s = &self.shape;
        let nan = |len| vec![f32::NAN; len];
        let (mut y, mut gx) = (nan(s.output_len()), nan(s.input_len()));
        let (mut gw, mut gb) = (nan(s.weight_len()), nan(s.out_channels));
        conv2d_forward(
            s,
            algorithm,
            &self.x,
            &self.weight,
            Some(&self.bias),
            Residual::Of(&self.residual),
            &mut y,
        );
        // In the residual's own place, it is the same.
        let mut in_place = self.residual.clone();
        conv2d_forward(
            s,
            algorithm,
            &self.x,
            &self.weight,
            Some(&self.bias),
            Residual::InPlace,
            &mut in_place,
        );
        assert_same_bits("y in place", &in_place, &y);
        conv2d_input_gradient(s, algorithm, &self.gy, &self.weight, &mut gx);
        conv2d_weight_gradient(s, algorithm, &self.x, &self.gy, &mut gw, Some(&mut gb));
        [y, gx, gw, gb]
    }

    fn check(&self) {
        let (truth, roots) = self.truth();
        for (isa, algorithm) in instruction_sets().flat_map(|isa| ALGORITHMS.map(|a| (isa, a))) {
            let results = isa.limit(|| self.run(algorithm));
            // Winograd's errors, where it runs.
            let tolerances = match algorithm {
                Algorithm::Exact => [3e-6; 4],
                Algorithm::Fastest | Algorithm::Bf16 => [1e-5, 3e-5, 3e-5, 3e-6],
            };
            let names = ["y", "gx", "gw", "gb"];
            for (i, name) in names.into_iter().enumerate() {
                assert_close_at_least(
                    &format!("{name} of {:?} with {isa:?}, {algorithm:?}", self.shape),
                    &results[i],
                    &truth[i],
                    tolerances[i],
                    roots[i],
                );
            }
        }
    }
}

fn square(batch: usize, size: usize, from: usize, to: usize, kernel: usize, stride: usize) -> Conv2dShape {
    let padding = [[(kernel - 1) / 2, kernel / 2]; 2];
    Conv2dShape {
        batch,
        height: size,
        width: size,
        in_channels: from,
        out_channels: to,
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding,
    }
}

fn shapes() -> Vec<Conv2dShape> {
    let mut shapes = vec![];
    for (from, to) in [
        (1, 1),
        (1, 32),
        (3, 64),
        (64, 3),
        (16, 16),
        (11, 33),
        (96, 40),
        (48, 1),
        (7, 5),
        (33, 4),
        (130, 65),
    ] {
        shapes.push(square(2, 8, from, to, 3, 1));
        shapes.push(square(3, 5, from, to, 1, 1));
        shapes.push(Conv2dShape::linear(13, from, to));
    }
    for size in [1, 2, 4, 7, 20] {
        shapes.push(square(9, size, 24, 40, 3, 1));
    }
    // Winograd: channels that fill no vector and no panel, tiles beyond the edge, few and many tiles and channels.
    for (batch, size, from, to) in [
        (1, 4, 16, 16),
        (1, 4, 160, 144),
        (3, 7, 19, 67),
        (2, 13, 70, 30),
        (5, 16, 33, 48),
        (9, 31, 20, 17),
        (70, 4, 40, 100),
    ] {
        shapes.push(square(batch, size, from, to, 3, 1));
    }
    for padding in [[[0, 0], [0, 0]], [[2, 1], [0, 2]]] {
        shapes.push(Conv2dShape {
            height: 12,
            padding,
            ..square(3, 18, 24, 36, 3, 1)
        });
    }
    for (kernel, stride) in [(3, 2), (3, 3), (5, 1), (5, 2), (4, 2), (2, 2), (1, 2)] {
        shapes.push(square(2, 9, 16, 24, kernel, stride));
        shapes.push(square(10, 6, 5, 35, kernel, stride));
    }
    // diffusers' `Downsample2D` with padding 0 pads by one pixel at the bottom and on the right.
    shapes.push(Conv2dShape {
        padding: [[0, 1], [0, 1]],
        ..square(2, 8, 32, 32, 3, 2)
    });
    shapes.push(Conv2dShape {
        padding: [[2, 0], [1, 3]],
        ..square(2, 6, 9, 17, 3, 1)
    });
    shapes.push(Conv2dShape {
        kernel: [1, 3],
        padding: [[0, 0], [1, 1]],
        ..square(3, 6, 20, 17, 3, 1)
    });
    shapes.push(Conv2dShape {
        height: 3,
        width: 40,
        stride: [1, 2],
        ..square(2, 6, 20, 17, 3, 1)
    });
    // Padding wider than the kernel: some outputs see nothing but padding.
    shapes.push(Conv2dShape {
        padding: [[4, 4], [4, 4]],
        ..square(1, 2, 8, 8, 3, 1)
    });
    shapes.push(Conv2dShape {
        batch: 0,
        ..square(1, 4, 8, 8, 3, 1)
    });
    shapes
}

#[test]
fn agree_with_plain_sums() {
    for shape in shapes() {
        Layer::new(shape).check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agree_with_plain_sums_at_any_shape(
        batch in 1usize..12, height in 1usize..10, width in 1usize..10,
        in_channels in 1usize..40, out_channels in 1usize..40,
        kernel in prop::array::uniform2(1usize..5), stride in prop::array::uniform2(1usize..4),
        padding in prop::array::uniform2(prop::array::uniform2(0usize..3)),
    ) {
        let fits = |size: usize, axis: usize| kernel[axis] <= size + padding[axis][0] + padding[axis][1];
        prop_assume!(fits(height, 0) && fits(width, 1));
        let shape = Conv2dShape { batch, height, width, in_channels, out_channels, kernel, stride, padding };
        Layer::new(shape).check();
    }
}

/// Shapes that are large enough to be split over threads.
fn large_shapes() -> Vec<Conv2dShape> {
    vec![
        square(10, 8, 72, 96, 3, 1),
        square(3, 33, 16, 40, 3, 1),
        square(2, 32, 64, 3, 3, 1),
        square(5, 32, 3, 64, 3, 1),
        square(9, 17, 32, 48, 3, 2),
        square(40, 2, 128, 128, 3, 1),
        square(16, 4, 256, 192, 3, 1),
        square(40, 14, 64, 48, 3, 1),
        square(1, 30, 72, 200, 3, 1),
        Conv2dShape::linear(3000, 100, 70),
    ]
}

#[test]
fn give_the_same_bits_with_any_number_of_threads() {
    for shape in large_shapes() {
        let layer = Layer::new(shape);
        for algorithm in ALGORITHMS {
            with_thread_counts(&format!("{shape:?}, {algorithm:?}"), || {
                layer.run(algorithm).concat()
            });
        }
    }
}

#[test]
fn give_a_picture_the_same_bits_alone_and_in_a_batch() {
    let shapes = large_shapes().into_iter().chain(shapes()).filter(|s| s.batch > 1);
    for (shape, algorithm) in shapes.flat_map(|shape| ALGORITHMS.map(|a| (shape, a))) {
        let layer = Layer::new(shape);
        let [y, gx, ..] = layer.run(algorithm);
        let (ylen, xlen) = (y.len() / shape.batch, gx.len() / shape.batch);
        for n in [0, 1, shape.batch - 1] {
            let part = |values: &[f32], len: usize| values[n * len..(n + 1) * len].to_vec();
            let alone = Layer {
                shape: Conv2dShape { batch: 1, ..shape },
                x: part(&layer.x, xlen),
                weight: layer.weight.clone(),
                bias: layer.bias.clone(),
                residual: part(&layer.residual, ylen),
                gy: part(&layer.gy, ylen),
            };
            let [y1, gx1, ..] = alone.run(algorithm);
            assert_same_bits(&format!("y of picture {n} of {shape:?}"), &y1, &part(&y, ylen));
            assert_same_bits(&format!("gx of picture {n} of {shape:?}"), &gx1, &part(&gx, xlen));
        }
    }
}

#[test]
#[should_panic(expected = "the weight does not fit")]
fn a_wrong_length_panics() {
    let shape = Conv2dShape::linear(2, 3, 4);
    conv2d_forward(
        &shape,
        Algorithm::Fastest,
        &[0.0; 6],
        &[0.0; 11],
        None,
        Residual::None,
        &mut [0.0; 8],
    );
}
