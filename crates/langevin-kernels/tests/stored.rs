//! Weights of 16 bits: the bits that the same weights in float32 give, on every instruction set, by every way in which a layer is computed.

mod common;

use common::{assert_same_bits, instruction_sets, random};
use langevin_kernels::conv::{Algorithm, Conv2dShape, Residual, conv2d_forward, conv2d_input_gradient};
use langevin_kernels::simd::Isa;
use langevin_kernels::{Bf16Unit, Stored};

fn widened(weight: Stored) -> Vec<f32> {
    let mut wide = vec![f32::NAN; weight.len()];
    weight.widen(&mut wide);
    wide
}

/// IEEE 754's half precision by its definition.
fn of_bits(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * 2f64.powi(-24),
        0x1f if fraction == 0.0 => f64::INFINITY,
        0x1f => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    };
    if bits & 0x8000 != 0 { -magnitude } else { magnitude }
}

#[test]
fn every_value_of_half_precision_is_widened_exactly() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    for isa in instruction_sets() {
        // By whole vectors, and with a part of one at the end.
        for len in [all.len(), 40_003] {
            let wide = isa.limit(|| widened(Stored::Float16(&all[..len])));
            for (&bits, value) in all.iter().zip(wide) {
                let truth = of_bits(bits) as f32;
                let same = if truth.is_nan() {
                    // Quietly, with its sign and fraction.
                    let quiet = u32::from(bits & 0x8000) << 16 | 0x7fc0_0000 | u32::from(bits & 0x3ff) << 13;
                    value.to_bits() == quiet
                } else {
                    value.to_bits() == truth.to_bits()
                };
                assert!(same, "{bits:04x} became {value:e}, should be {truth:e} ({isa:?})");
            }
        }
    }
}

/// Bits of finite values, of magnitudes that a layer has and of subnormal ones.
fn halves(len: usize) -> Vec<u16> {
    let large = random(len, 7);
    let bits = |(i, value): (usize, &f32)| {
        let bits = value.to_bits();
        let (sign, fraction) = ((bits >> 16) as u16 & 0x8000, (bits >> 9) as u16 & 0x3ff);
        let exponent = [0, 9, 12, 13, 14, 11, 10][i % 7];
        sign | exponent << 10 | fraction
    };
    large.iter().enumerate().map(bits).collect()
}

fn layer(batch: usize, size: usize, from: usize, to: usize, kernel: usize, stride: usize) -> Conv2dShape {
    Conv2dShape {
        batch,
        height: size,
        width: size,
        in_channels: from,
        out_channels: to,
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding: [[kernel / 2; 2]; 2],
    }
}

fn run(shape: &Conv2dShape, algorithm: Algorithm, weight: Stored) -> [Vec<f32>; 2] {
    let (x, gy) = (random(shape.input_len(), 1), random(shape.output_len(), 2));
    let bias = random(shape.out_channels, 3);
    let (mut y, mut gx) = (
        vec![f32::NAN; shape.output_len()],
        vec![f32::NAN; shape.input_len()],
    );
    conv2d_forward(shape, algorithm, &x, weight, Some(&bias), Residual::None, &mut y);
    conv2d_input_gradient(shape, algorithm, &gy, weight, &mut gx);
    [y, gx]
}

fn check(shape: &Conv2dShape, algorithm: Algorithm, isa: Isa) {
    let bits = halves(shape.weight_len());
    for weight in [Stored::Float16(&bits), Stored::Bfloat16(&bits)] {
        let name = format!(
            "{shape:?} by {algorithm:?} with {isa:?}, {:?}",
            std::mem::discriminant(&weight)
        );
        let wide = widened(weight);
        let truth = run(shape, algorithm, Stored::from(&wide));
        let [y, gx] = run(shape, algorithm, weight);
        assert_same_bits(&format!("y of {name}"), &y, &truth[0]);
        assert_same_bits(&format!("gx of {name}"), &gx, &truth[1]);
        assert!(y.iter().any(|&y| y != 0.0) || y.is_empty());
    }
}

#[test]
fn layers_come_to_the_bits_of_float32_weights() {
    let shapes = [
        // Winograd, with few tiles and with many, and channels that fill no vector.
        layer(1, 8, 40, 70, 3, 1),
        layer(2, 8, 160, 144, 3, 1),
        layer(3, 21, 19, 67, 3, 1),
        layer(2, 32, 64, 128, 3, 1),
        // Plain sums: strides, few channels, narrow results.
        layer(2, 9, 24, 40, 3, 2),
        layer(2, 8, 4, 33, 3, 1),
        layer(2, 8, 64, 4, 3, 1),
        layer(1, 7, 33, 3, 3, 1),
        layer(2, 6, 33, 65, 1, 1),
        // Linear layers of one row, of a few, which float32 weights are read in place for, and of many.
        Conv2dShape::linear(1, 40, 64),
        Conv2dShape::linear(2, 37, 41),
        Conv2dShape::linear(12, 130, 96),
        Conv2dShape::linear(700, 96, 72),
        Conv2dShape::linear(5, 48, 1),
        Conv2dShape::linear(0, 8, 8),
    ];
    for isa in instruction_sets() {
        for shape in &shapes {
            isa.limit(|| {
                check(shape, Algorithm::Fastest, isa);
                check(shape, Algorithm::Exact, isa);
            });
        }
    }
}

#[test]
fn products_of_bf16_come_to_the_bits_of_float32_weights() {
    let shapes = [
        layer(2, 9, 40, 70, 3, 1),
        layer(2, 9, 33, 24, 3, 2),
        layer(2, 16, 64, 37, 1, 1),
        Conv2dShape::linear(1, 320, 64),
        Conv2dShape::linear(300, 1100, 100),
    ];
    let units = Bf16Unit::ALL
        .iter()
        .filter(|&&unit| Some(unit) <= Bf16Unit::available());
    for (shape, unit) in shapes
        .iter()
        .flat_map(|shape| units.clone().map(move |u| (shape, u)))
    {
        Bf16Unit::limit(Some(*unit), || check(shape, Algorithm::Bf16, Isa::available()));
    }
}
