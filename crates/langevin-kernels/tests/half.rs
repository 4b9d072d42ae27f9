//! Products of bf16 values: against sums in `f64` of the values rounded to bf16, by every unit of the processor, with the same bits whatever runs
//! beside them. On a processor that has no unit there is nothing to compute, and that is what is checked.

mod common;

use common::{assert_close, assert_close_at_least, assert_same_bits, random, with_thread_counts};
use langevin_kernels::attention::{AttentionShape, attention_forward_bf16};
use langevin_kernels::conv::{Algorithm, Conv2dShape, Residual, conv2d_forward, conv2d_input_gradient};
use langevin_kernels::{Bf16Unit, Stored};

/// Every unit that this machine has.
fn units() -> impl Iterator<Item = Bf16Unit> {
    Bf16Unit::ALL
        .iter()
        .copied()
        .filter(|&unit| Some(unit) <= Bf16Unit::available())
}

/// To the nearest bf16 value, ties to even.
fn rounded(values: &[f32]) -> Vec<f32> {
    let round = |v: &f32| {
        let bits = v.to_bits();
        f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
    };
    values.iter().map(round).collect()
}

struct Layer {
    shape: Conv2dShape,
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

impl Layer {
    fn new(shape: Conv2dShape) -> Self {
        Self {
            shape,
            x: random(shape.input_len(), 1),
            weight: random(shape.weight_len(), 2),
            bias: random(shape.out_channels, 3),
            residual: random(shape.output_len(), 4),
        }
    }

    /// The sums in `f64`, and the largest root of a sum of squared terms.
    fn truth(&self, x: &[f32], weight: &[f32]) -> (Vec<f64>, f64) {
        let s = &self.shape;
        let (height, width) = (s.out_height(), s.out_width());
        let (mut truth, mut root) = (vec![0.0; s.output_len()], 0.0f64);
        for (i, truth) in truth.iter_mut().enumerate() {
            let (pixel, k) = (i / s.out_channels, i % s.out_channels);
            let (n, oy, ox) = (pixel / (height * width), pixel / width % height, pixel % width);
            let (mut sum, mut squares) = (f64::from(self.bias[k]) + f64::from(self.residual[i]), 1.0);
            for tap in 0..s.kernel[0] * s.kernel[1] {
                let y = (oy * s.stride[0] + tap / s.kernel[1]).wrapping_sub(s.padding[0][0]);
                let x_ = (ox * s.stride[1] + tap % s.kernel[1]).wrapping_sub(s.padding[1][0]);
                if y >= s.height || x_ >= s.width {
                    continue;
                }
                for c in 0..s.in_channels {
                    let a = x[((n * s.height + y) * s.width + x_) * s.in_channels + c];
                    let b = weight[(tap * s.in_channels + c) * s.out_channels + k];
                    sum += f64::from(a) * f64::from(b);
                    squares += (f64::from(a) * f64::from(b)).powi(2);
                }
            }
            *truth = sum;
            root = root.max(squares.sqrt());
        }
        (truth, root)
    }

    fn run(&self) -> Vec<f32> {
        let mut y = vec![f32::NAN; self.shape.output_len()];
        conv2d_forward(
            &self.shape,
            Algorithm::Bf16,
            &self.x,
            &self.weight,
            Some(&self.bias),
            Residual::Of(&self.residual),
            &mut y,
        );
        y
    }

    fn check(&self) {
        let (exact, root) = self.truth(&rounded(&self.x), &rounded(&self.weight));
        let (unrounded, _) = self.truth(&self.x, &self.weight);
        for unit in units() {
            let y = Bf16Unit::limit(Some(unit), || self.run());
            let name = format!("{:?} by {unit:?}", self.shape);
            // What gains nothing stays float32: few channels, and without AMX what Winograd computes.
            let is_winograd =
                unit == Bf16Unit::Avx512 && self.shape.kernel == [3, 3] && self.shape.stride == [1, 1];
            let stays = is_winograd || self.shape.in_channels < 24;
            if !stays {
                assert_close_at_least(&name, &y, &exact, 3e-6, root);
            }
            // Each factor is off by 2^-9 at most: a few thousandths of the terms' root.
            assert_close_at_least(&name, &y, &unrounded, 1e-2, root);
            let mut in_place = self.residual.clone();
            Bf16Unit::limit(Some(unit), || {
                let (bias, residual) = (Some(&self.bias[..]), Residual::InPlace);
                conv2d_forward(
                    &self.shape,
                    Algorithm::Bf16,
                    &self.x,
                    &self.weight,
                    bias,
                    residual,
                    &mut in_place,
                );
            });
            assert_same_bits(&name, &in_place, &y);
        }
        let none = Bf16Unit::limit(None, || self.run());
        let mut fastest = self.residual.clone();
        let (bias, residual) = (Some(&self.bias[..]), Residual::InPlace);
        conv2d_forward(
            &self.shape,
            Algorithm::Fastest,
            &self.x,
            &self.weight,
            bias,
            residual,
            &mut fastest,
        );
        assert_same_bits("without a unit", &none, &fastest);
    }
}

/// The gradient of the input in `f64`, and the largest root of a sum of squared terms.
fn input_gradient(s: &Conv2dShape, gy: &[f32], weight: &[f32]) -> (Vec<f64>, f64) {
    let (height, width) = (s.out_height(), s.out_width());
    let (mut gx, mut squares) = (vec![0.0; s.input_len()], vec![1.0f64; s.input_len()]);
    for (i, &gy) in gy.iter().enumerate() {
        let (pixel, k) = (i / s.out_channels, i % s.out_channels);
        let (n, oy, ox) = (pixel / (height * width), pixel / width % height, pixel % width);
        for tap in 0..s.kernel[0] * s.kernel[1] {
            let y = (oy * s.stride[0] + tap / s.kernel[1]).wrapping_sub(s.padding[0][0]);
            let x = (ox * s.stride[1] + tap % s.kernel[1]).wrapping_sub(s.padding[1][0]);
            if y >= s.height || x >= s.width {
                continue;
            }
            for c in 0..s.in_channels {
                let term = f64::from(gy) * f64::from(weight[(tap * s.in_channels + c) * s.out_channels + k]);
                let place = ((n * s.height + y) * s.width + x) * s.in_channels + c;
                gx[place] += term;
                squares[place] += term * term;
            }
        }
    }
    (gx, squares.into_iter().fold(0.0, f64::max).sqrt())
}

#[test]
fn gradients_of_inputs_are_sums_of_rounded_values() {
    let uneven = Conv2dShape {
        kernel: [2, 3],
        padding: [[0, 1], [2, 0]],
        ..layer(2, [6, 9], [20, 40], 1, 1, 0)
    };
    // Depth is what the layer has of outputs.
    for shape in layers().into_iter().chain([uneven]) {
        let gy = random(shape.output_len(), 5);
        let weight = random(shape.weight_len(), 6);
        let (exact, root) = input_gradient(&shape, &rounded(&gy), &rounded(&weight));
        let (unrounded, _) = input_gradient(&shape, &gy, &weight);
        for unit in units() {
            let run = |weight: Stored<'_>| {
                let mut gx = vec![f32::NAN; shape.input_len()];
                Bf16Unit::limit(Some(unit), || {
                    conv2d_input_gradient(&shape, Algorithm::Bf16, &gy, weight, &mut gx);
                });
                gx
            };
            let gx = run(Stored::Float32(&weight));
            let name = format!("gradient of {shape:?} by {unit:?}");
            let is_winograd = unit == Bf16Unit::Avx512 && shape.kernel == [3, 3];
            let pads_more = shape.padding[0][0] >= shape.kernel[0];
            let few = shape.out_channels < 24 || shape.in_channels < 4;
            if !(is_winograd || pads_more || few || shape.stride != [1, 1]) {
                assert_close_at_least(&name, &gx, &exact, 3e-6, root);
            }
            assert_close_at_least(&name, &gx, &unrounded, 1e-2, root);
            // Weights of 16 bits give what they give in float32.
            let halves: Vec<u16> = rounded(&weight)
                .iter()
                .map(|v| (v.to_bits() >> 16) as u16)
                .collect();
            let (wide, halves) = (rounded(&weight), Stored::Bfloat16(&halves));
            assert_same_bits(&name, &run(halves), &run(Stored::Float32(&wide)));
        }
    }
}

fn layer(
    batch: usize,
    size: [usize; 2],
    channels: [usize; 2],
    kernel: usize,
    stride: usize,
    padding: usize,
) -> Conv2dShape {
    Conv2dShape {
        batch,
        height: size[0],
        width: size[1],
        in_channels: channels[0],
        out_channels: channels[1],
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding: [[padding; 2]; 2],
    }
}

fn layers() -> Vec<Conv2dShape> {
    vec![
        // Linear layers: fewer rows than a block, tails of rows, columns and depth, several parts of the depth.
        Conv2dShape::linear(1, 64, 32),
        Conv2dShape::linear(17, 40, 33),
        Conv2dShape::linear(70, 100, 9),
        Conv2dShape::linear(1200, 33, 70),
        Conv2dShape::linear(40, 2100, 64),
        // Pictures: 1x1, 3x3 with and without padding, few channels, strides, 5x5, odd sizes.
        layer(2, [5, 7], [48, 40], 1, 1, 0),
        layer(2, [8, 8], [64, 40], 3, 1, 1),
        layer(1, [17, 21], [40, 35], 3, 1, 1),
        layer(2, [6, 5], [32, 16], 3, 1, 0),
        layer(2, [9, 8], [4, 40], 3, 1, 1),
        layer(1, [9, 12], [40, 24], 3, 2, 1),
        layer(1, [6, 6], [32, 8], 1, 2, 0),
        layer(1, [7, 9], [24, 12], 5, 1, 2),
        layer(1, [4, 4], [1300, 40], 3, 1, 1),
        layer(1, [9, 7], [32, 40], 1, 1, 1),
    ]
}

#[test]
fn sums_are_those_of_rounded_values() {
    for shape in layers() {
        Layer::new(shape).check();
    }
}

#[test]
fn uneven_padding_and_kernels() {
    let shape = Conv2dShape {
        kernel: [2, 3],
        padding: [[0, 1], [2, 0]],
        ..layer(2, [6, 9], [40, 20], 1, 1, 0)
    };
    Layer::new(shape).check();
    let shape = Conv2dShape {
        stride: [1, 2],
        padding: [[1, 0], [0, 1]],
        ..layer(2, [8, 8], [40, 20], 3, 2, 0)
    };
    Layer::new(shape).check();
}

#[test]
fn bits_depend_on_neither_threads_nor_batch() {
    for unit in units() {
        for shape in [
            layer(3, [16, 16], [64, 70], 3, 1, 1),
            layer(3, [20, 20], [64, 200], 1, 1, 0),
            layer(3, [8, 8], [1100, 96], 3, 1, 1),
            layer(3, [17, 16], [40, 64], 3, 2, 1),
        ] {
            let all = Layer::new(shape);
            let name = format!("{shape:?} by {unit:?}");
            // Threads of the pool do not know what this one is held to; the unit is chosen before they begin.
            let y = with_thread_counts(&name, || Bf16Unit::limit(Some(unit), || all.run()));
            let (of_x, of_y) = (shape.input_len() / 3, shape.output_len() / 3);
            for n in 0..3 {
                let alone = Layer {
                    shape: Conv2dShape { batch: 1, ..shape },
                    x: all.x[n * of_x..][..of_x].to_vec(),
                    weight: all.weight.clone(),
                    bias: all.bias.clone(),
                    residual: all.residual[n * of_y..][..of_y].to_vec(),
                };
                let alone = Bf16Unit::limit(Some(unit), || alone.run());
                assert_same_bits(&name, &alone, &y[n * of_y..][..of_y]);
            }
        }
    }
}

/// `out` and `log_sum_exp` of plain sums in `f64`.
fn attention_truth(shape: &AttentionShape, scale: f64, [q, k, v]: [&[f32]; 3]) -> [Vec<f64>; 2] {
    let AttentionShape {
        batch,
        queries,
        keys,
        heads,
        head_dim: d,
        ..
    } = *shape;
    let width = heads * d;
    let (mut out, mut lse) = (
        vec![0.0; batch * queries * width],
        vec![0.0; batch * heads * queries],
    );
    for (n, h) in (0..batch).flat_map(|n| (0..heads).map(move |h| (n, h))) {
        let at = |of: &[f32], row: usize, c: usize| f64::from(of[row * width + h * d + c]);
        for query in 0..queries {
            let row = n * queries + query;
            let scores: Vec<f64> = (0..keys)
                .map(|key| {
                    scale
                        * (0..d)
                            .map(|c| at(q, row, c) * at(k, n * keys + key, c))
                            .sum::<f64>()
                })
                .collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
            lse[(n * heads + h) * queries + query] = largest + sum.ln();
            for c in 0..d {
                let weighted = scores
                    .iter()
                    .enumerate()
                    .map(|(key, s)| (s - largest).exp() * at(v, n * keys + key, c));
                out[row * width + h * d + c] = weighted.sum::<f64>() / sum;
            }
        }
    }
    [out, lse]
}

fn attention(shape: &AttentionShape, scale: f32, [q, k, v]: [&[f32]; 3]) -> [Vec<f32>; 2] {
    let (mut out, mut lse) = (
        vec![f32::NAN; q.len()],
        vec![f32::NAN; shape.batch * shape.heads * shape.queries],
    );
    attention_forward_bf16(shape, scale, q, k, v, &mut out, &mut lse);
    [out, lse]
}

#[test]
fn attention_is_that_of_plain_sums() {
    for (batch, queries, keys, heads, head_dim) in [
        (2, 40, 77, 2, 40),
        (1, 70, 300, 2, 64),
        (1, 33, 16, 1, 80),
        (2, 9, 513, 1, 160),
        (1, 64, 64, 3, 16),
        (1, 5, 256, 1, 17),
    ] {
        let shape = AttentionShape {
            batch,
            queries,
            keys,
            heads,
            head_dim,
            causal: false,
        };
        let (of_queries, of_keys) = (
            batch * queries * heads * head_dim,
            batch * keys * heads * head_dim,
        );
        let (q, k, v) = (random(of_queries, 1), random(of_keys, 2), random(of_keys, 3));
        let scale = 1.0 / (head_dim as f32).sqrt();
        let [out, lse] = attention_truth(&shape, scale.into(), [&q, &k, &v]);
        for unit in units() {
            let [found, found_lse] = Bf16Unit::limit(Some(unit), || attention(&shape, scale, [&q, &k, &v]));
            let name = format!("{shape:?} by {unit:?}");
            // Rounding factors and weights takes 2^-9 each; scores are off by as much of their size.
            assert_close(&format!("out of {name}"), &found, &out, 1e-2);
            assert_close(&format!("lse of {name}"), &found_lse, &lse, 1e-2);
        }
    }
}

#[test]
fn scores_that_grow_from_key_to_key_are_no_matter() {
    // The largest score is the last, and far above those before it; what was summed first must vanish.
    let shape = AttentionShape {
        batch: 1,
        queries: 3,
        keys: 600,
        heads: 1,
        head_dim: 16,
        causal: false,
    };
    let q = vec![1.0; 3 * 16];
    let k: Vec<f32> = (0..600 * 16).map(|i| (i / 16) as f32).collect();
    let v: Vec<f32> = (0..600 * 16)
        .map(|i| if i / 16 == 599 { 1.0 } else { -1000.0 })
        .collect();
    for unit in units() {
        let [out, _] = Bf16Unit::limit(Some(unit), || attention(&shape, 1.0, [&q, &k, &v]));
        // Neighbouring keys of 512 to 1024 are equal as bf16 in fours.
        assert!(
            out.iter().all(|&out| out.is_finite() && out < 0.0),
            "{unit:?}: {out:?}"
        );
        let k: Vec<f32> = (0..600 * 16)
            .map(|i| if i / 16 == 599 { 40.0 } else { 0.0 })
            .collect();
        let [out, _] = Bf16Unit::limit(Some(unit), || attention(&shape, 1.0, [&q, &k, &v]));
        assert!(
            out.iter().all(|&out| (out - 1.0).abs() < 1e-5),
            "{unit:?}: {out:?}"
        );
    }
}

#[test]
fn bits_of_attention_depend_on_neither_threads_nor_batch() {
    let shape = AttentionShape {
        batch: 3,
        queries: 300,
        keys: 300,
        heads: 2,
        head_dim: 40,
        causal: false,
    };
    let len = 3 * 300 * 80;
    let (q, k, v) = (random(len, 1), random(len, 2), random(len, 3));
    for unit in units() {
        let name = format!("{shape:?} by {unit:?}");
        let run = || Bf16Unit::limit(Some(unit), || attention(&shape, 0.2, [&q, &k, &v]).concat());
        let all = with_thread_counts(&name, run);
        for n in 0..3 {
            let part = |of: &[f32]| of[n * len / 3..][..len / 3].to_vec();
            let (q, k, v) = (part(&q), part(&k), part(&v));
            let shape = AttentionShape { batch: 1, ..shape };
            let [out, lse] = Bf16Unit::limit(Some(unit), || attention(&shape, 0.2, [&q, &k, &v]));
            assert_same_bits(&name, &out, &all[n * len / 3..][..len / 3]);
            assert_same_bits(&name, &lse, &all[len + n * 600..][..600]);
        }
    }
}
