//! The layers of Stable Diffusion 1.5 at 512x512 and two pictures, by float32's products and by bf16's:
//! `cargo bench --manifest-path benches/kernels/Cargo.toml --bench latent -- [PART OF A NAME]`.
//!
//! Gelem/s are GFLOP/s, counted as in `convolution`; of GEGLU's gate they are GB/s. Where the processor has no instructions for bf16, its rows are
//! float32's again; `LANGEVIN_ISA=avx512-bf16` holds one with AMX to AVX-512's.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kernel_benches::{brief, run, values};
use langevin_kernels::{
    attention::{AttentionShape, attention_forward, attention_forward_bf16},
    conv::{Algorithm, Conv2dShape, Residual, conv2d_forward},
    gated::geglu_forward,
};
use std::hint::black_box;

fn layers(c: &mut Criterion) {
    for (batch, size, from, to, kernel, stride) in [
        (2, 64, 320, 320, 1, 1),
        (2, 64, 320, 2560, 1, 1),
        (2, 32, 640, 640, 1, 1),
        (2, 16, 1280, 1280, 1, 1),
        (2, 16, 1280, 10240, 1, 1),
        (2, 64, 320, 320, 3, 1),
        (2, 32, 640, 640, 3, 1),
        (2, 16, 1280, 1280, 3, 1),
        (2, 8, 1280, 1280, 3, 1),
        (2, 64, 320, 320, 3, 2),
        (1, 512, 128, 128, 3, 1),
        (1, 256, 256, 256, 3, 1),
        (1, 128, 512, 512, 3, 1),
    ] {
        let shape = Conv2dShape {
            batch,
            height: size,
            width: size,
            in_channels: from,
            out_channels: to,
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [[kernel / 2; 2]; 2],
        };
        let (x, weight, bias) = (values(shape.input_len()), values(shape.weight_len()), values(to));
        let mut y = values(shape.output_len());
        let name = format!("{kernel}x{kernel} stride {stride} {from} to {to} at {size}x{size} batch {batch}");
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(
            (2 * shape.output_len() * kernel * kernel * from) as u64,
        ));
        for algorithm in [Algorithm::Fastest, Algorithm::Bf16] {
            group.bench_function(format!("{algorithm:?}"), |b| {
                run(b, || {
                    let y = black_box(&mut y);
                    conv2d_forward(&shape, algorithm, &x, &weight, Some(&bias), Residual::None, y);
                });
            });
        }
        group.finish();
    }
}

fn attention(c: &mut Criterion) {
    for (queries, keys, heads, head_dim) in [
        (4096, 4096, 8, 40),
        (4096, 77, 8, 40),
        (1024, 1024, 8, 80),
        (256, 256, 8, 160),
        (4096, 4096, 5, 64),
    ] {
        let shape = AttentionShape {
            batch: 2,
            queries,
            keys,
            heads,
            head_dim,
            causal: false,
        };
        let [q, k, v] = [queries, keys, keys].map(|tokens| values(2 * tokens * heads * head_dim));
        let (mut out, mut lse) = (q.clone(), values(2 * heads * queries));
        let scale = (head_dim as f32).powf(-0.5);
        let mut group = c.benchmark_group(format!(
            "attention of {heads} heads of {head_dim}, {queries} to {keys}"
        ));
        group.throughput(Throughput::Elements(
            (8 * queries * keys * heads * head_dim) as u64,
        ));
        for (name, forward) in [
            (
                "Float32",
                attention_forward as fn(&AttentionShape, f32, &[f32], &[f32], &[f32], &mut [f32], &mut [f32]),
            ),
            ("Bf16", attention_forward_bf16),
        ] {
            group.bench_function(name, |b| {
                run(b, || {
                    forward(&shape, scale, &q, &k, &v, black_box(&mut out), &mut lse)
                });
            });
        }
        group.finish();
    }
}

fn gate(c: &mut Criterion) {
    let (rows, width) = (2 * 4096, 1280);
    let (x, mut y) = (values(2 * rows * width), values(rows * width));
    let mut group = c.benchmark_group("gate of GEGLU");
    group.throughput(Throughput::BytesDecimal(
        (3 * rows * width * size_of::<f32>()) as u64,
    ));
    group.bench_function("forward", |b| {
        run(b, || geglu_forward(width, &x, black_box(&mut y)))
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = brief();
    targets = layers, attention, gate
}
criterion_main!(benches);
