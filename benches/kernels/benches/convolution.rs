//! Speed of convolutions and linear layers: `cargo bench --manifest-path benches/kernels/Cargo.toml --bench convolution -- [PART OF A NAME]`.
//!
//! An element of the throughput is a floating-point operation, so that Gelem/s are GFLOP/s: a multiply-add counts as two, and every tap
//! of the kernel counts, those in the padding and those that Winograd saves too.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kernel_benches::{brief, run, values};
use langevin_kernels::conv::{
    Algorithm, Conv2dShape, Residual, conv2d_forward, conv2d_input_gradient, conv2d_weight_gradient,
};
use std::hint::black_box;

fn square(batch: usize, size: usize, from: usize, to: usize, kernel: usize, stride: usize) -> Conv2dShape {
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

fn layers() -> Vec<(String, Conv2dShape)> {
    let name = |shape: &Conv2dShape| {
        let Conv2dShape {
            batch,
            height,
            in_channels: from,
            out_channels: to,
            kernel: [kernel, _],
            stride: [stride, _],
            ..
        } = shape;
        format!("{kernel}x{kernel} stride {stride} {from} to {to} at {height}x{height} batch {batch}")
    };
    let pictures = [
        square(16, 32, 64, 64, 3, 1),
        square(1, 32, 64, 64, 3, 1),
        square(16, 16, 128, 128, 3, 1),
        square(1, 16, 128, 128, 3, 1),
        square(16, 8, 256, 256, 3, 1),
        square(1, 8, 256, 256, 3, 1),
        square(64, 4, 256, 256, 3, 1),
        square(1, 4, 256, 256, 3, 1),
        square(128, 2, 128, 128, 3, 1),
        square(16, 16, 128, 128, 3, 2),
        square(16, 32, 3, 64, 3, 1),
        square(16, 32, 64, 3, 3, 1),
        square(16, 32, 192, 64, 1, 1),
        square(16, 8, 256, 256, 1, 1),
    ];
    let rows = |rows, from, to| {
        (
            format!("linear {from} to {to} of {rows}"),
            Conv2dShape::linear(rows, from, to),
        )
    };
    let mut layers: Vec<_> = pictures.map(|shape| (name(&shape), shape)).into();
    layers.extend([rows(2048, 2048, 2048), rows(16, 256, 256), rows(1, 512, 512)]);
    layers
}

fn convolution(c: &mut Criterion) {
    for (name, shape) in layers() {
        let (x, weight) = (values(shape.input_len()), values(shape.weight_len()));
        let (gy, bias) = (values(shape.output_len()), values(shape.out_channels));
        let (mut y, mut gx, mut gw, mut gb) = (gy.clone(), x.clone(), weight.clone(), bias.clone());
        let taps = shape.kernel[0] * shape.kernel[1];
        let flop = 2 * shape.output_len() * taps * shape.in_channels;
        // Other layers have one algorithm.
        let both = [Algorithm::Fastest, Algorithm::Exact];
        let algorithms = if shape.kernel == [3, 3] && shape.stride == [1, 1] {
            &both[..]
        } else {
            &both[..1]
        };
        for &algorithm in algorithms {
            let mut group = c.benchmark_group(format!("{name}/{algorithm:?}"));
            group.throughput(Throughput::Elements(flop as u64));
            group.bench_function("forward", |b| {
                run(b, || {
                    let y = black_box(&mut y);
                    conv2d_forward(&shape, algorithm, &x, &weight, Some(&bias), Residual::None, y);
                });
            });
            group.bench_function("input gradient", |b| {
                run(b, || {
                    conv2d_input_gradient(&shape, algorithm, &gy, &weight, black_box(&mut gx))
                });
            });
            group.bench_function("weight gradient", |b| {
                run(b, || {
                    conv2d_weight_gradient(&shape, algorithm, &x, &gy, black_box(&mut gw), Some(&mut gb))
                });
            });
            group.finish();
        }
    }
}

criterion_group! {
    name = benches;
    config = brief();
    targets = convolution
}
criterion_main!(benches);
