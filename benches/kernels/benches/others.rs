//! Speed of everything but convolutions: `cargo bench --manifest-path benches/kernels/Cargo.toml --bench others -- [PART OF A NAME]`.
//!
//! Attention is told in floating-point operations, so that Gelem/s are GFLOP/s; whatever is bound by memory, in the bytes that it has to read
//! and write once, in GB/s. Sizes are those of the course's UNet at batch 16.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kernel_benches::{brief, run, values};
use langevin_kernels::{
    attention::{AttentionShape, attention_backward, attention_forward},
    elementwise::{add, concat_channels, silu_backward, silu_forward, split_channels, sum_of_squares},
    norm::{
        GroupNormGradients, GroupNormParameters, GroupNormShape, group_norm_backward, group_norm_forward,
    },
    optimizer::{AdamW, adamw_step, ema_step},
    per_picture::{add_per_picture, sum_positions},
    resample::{UpsampleShape, upsample_nearest_backward, upsample_nearest_forward},
};
use std::hint::black_box;

/// The activations of a block at 32x32.
const ACTIVATIONS: usize = 16 * 32 * 32 * 64;

/// `count` passes over `len` numbers.
fn passes(count: usize, len: usize) -> Throughput {
    Throughput::BytesDecimal((count * len * size_of::<f32>()) as u64)
}

fn attention(c: &mut Criterion) {
    for (heads, head_dim, tokens, batch) in [(8, 8, 196, 128), (8, 32, 64, 16), (8, 40, 1024, 2)] {
        let shape = AttentionShape {
            batch,
            queries: tokens,
            keys: tokens,
            heads,
            head_dim,
            causal: false,
        };
        let len = batch * tokens * heads * head_dim;
        let ([q, k, v, gout], rows) = ([(); 4].map(|()| values(len)), batch * heads * tokens);
        let (mut out, mut log_sum_exp) = (values(len), values(rows));
        let ([mut gq, mut gk, mut gv], scale) = ([(); 3].map(|()| values(len)), (head_dim as f32).powf(-0.5));
        let product = 2 * rows * tokens * head_dim;
        let mut group = c.benchmark_group(format!(
            "attention of {heads} heads of {head_dim} over {tokens} batch {batch}"
        ));
        group.throughput(Throughput::Elements(2 * product as u64));
        group.bench_function("forward", |b| {
            run(b, || {
                attention_forward(&shape, scale, &q, &k, &v, black_box(&mut out), &mut log_sum_exp)
            });
        });
        // The scores again, and four products of gradients.
        group.throughput(Throughput::Elements(5 * product as u64));
        group.bench_function("backward", |b| {
            run(b, || {
                let gq = black_box(&mut gq);
                attention_backward(
                    &shape,
                    scale,
                    &q,
                    &k,
                    &v,
                    &out,
                    &log_sum_exp,
                    &gout,
                    gq,
                    &mut gk,
                    &mut gv,
                );
            });
        });
        group.finish();
    }
}

fn norm(c: &mut Criterion) {
    for (name, groups, pixels, channels, silu) in [
        ("group norm and SiLU of 64 channels at 32x32", 32, 1024, 64, true),
        ("group norm and SiLU of 256 channels at 8x8", 32, 64, 256, true),
        ("layer norm of 320", 1, 1, 320, false),
    ] {
        let batch = ACTIVATIONS / (pixels * channels);
        let shape = GroupNormShape {
            batch,
            pixels,
            channels,
            groups,
        };
        let len = batch * pixels * channels;
        let [x, gy, gamma, beta] = [len, len, channels, channels].map(values);
        let [mut y, mut gx, mut mean_rstd, mut ggamma, mut gbeta] =
            [len, len, 2 * batch * groups, channels, channels].map(values);
        let parameters = GroupNormParameters {
            eps: 1e-5,
            gamma: &gamma,
            beta: &beta,
            scale: None,
            shift: None,
            silu,
        };
        let mut group = c.benchmark_group(name);
        group.throughput(passes(2, len));
        group.bench_function("forward", |b| {
            run(b, || {
                group_norm_forward(&shape, Some(&x), &parameters, black_box(&mut y), &mut mean_rstd)
            });
        });
        group.throughput(passes(3, len));
        group.bench_function("backward", |b| {
            run(b, || {
                let gradients = GroupNormGradients {
                    x: black_box(&mut gx),
                    gamma: &mut ggamma,
                    beta: &mut gbeta,
                    scale: None,
                    shift: None,
                };
                group_norm_backward(&shape, &x, &mean_rstd, &parameters, Some(&gy), gradients);
            });
        });
        group.finish();
    }
}

fn elementwise(c: &mut Criterion) {
    let ([x, gy], mut y) = ([(); 2].map(|()| values(ACTIVATIONS)), values(ACTIVATIONS));
    let mut group = c.benchmark_group("elementwise");
    group.throughput(passes(2, ACTIVATIONS));
    group.bench_function("SiLU", |b| run(b, || silu_forward(&x, black_box(&mut y))));
    group.throughput(passes(3, ACTIVATIONS));
    group.bench_function("SiLU backward", |b| {
        run(b, || silu_backward(&x, &gy, black_box(&mut y)));
    });
    group.bench_function("sum", |b| run(b, || add(&x, &gy, black_box(&mut y))));
    group.throughput(passes(1, ACTIVATIONS));
    group.bench_function("sum of squares", |b| run(b, || sum_of_squares(black_box(&x))));
    group.finish();
}

fn layout(c: &mut Criterion) {
    let shape = UpsampleShape::twice(16, 16, 16, 128);
    let (small, large) = (16 * 16 * 16 * 128, 16 * 32 * 32 * 128);
    let ([mut x, mut y], vector) = ([small, large].map(values), values(16 * 128));
    let mut group = c.benchmark_group("layout");
    group.throughput(passes(5, small));
    group.bench_function("nearest upsampling", |b| {
        run(b, || upsample_nearest_forward(&shape, &x, black_box(&mut y)));
    });
    group.bench_function("nearest upsampling backward", |b| {
        run(b, || upsample_nearest_backward(&shape, &y, black_box(&mut x)));
    });
    let rows = 16 * 32 * 32;
    let [mut left, mut right] = [64, 64].map(|channels| values(rows * channels));
    group.throughput(passes(2, large));
    group.bench_function("join of channels", |b| {
        run(b, || concat_channels(rows, &left, &right, black_box(&mut y)));
    });
    group.bench_function("join of channels backward", |b| {
        run(b, || split_channels(rows, &y, black_box(&mut left), &mut right));
    });
    group.bench_function("a vector a picture", |b| {
        run(b, || add_per_picture(128, &vector, black_box(&mut y)));
    });
    let mut sums = vector.clone();
    group.throughput(passes(1, large));
    group.bench_function("a vector a picture backward", |b| {
        run(b, || sum_positions(128, &y, black_box(&mut sums)));
    });
    group.finish();
}

fn optimizer(c: &mut Criterion) {
    // The course's UNet has so many parameters.
    let len = 18_536_323;
    let [mut parameter, gradient, mut first, mut second] = [(); 4].map(|()| values(len));
    second.iter_mut().for_each(|value| *value *= *value);
    let hyper = AdamW {
        learning_rate: 1e-4,
        beta1: 0.95,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 1e-6,
        step: 10,
        gradient_factor: 0.5,
    };
    let mut group = c.benchmark_group("optimiser");
    group.throughput(passes(7, len));
    group.bench_function("AdamW", |b| {
        run(b, || {
            adamw_step(
                &hyper,
                black_box(&mut parameter),
                &gradient,
                &mut first,
                &mut second,
            )
        });
    });
    group.throughput(passes(3, len));
    group.bench_function("moving average", |b| {
        run(b, || ema_step(0.999, black_box(&mut first), &parameter));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = brief();
    targets = attention, norm, elementwise, layout, optimizer
}
criterion_main!(benches);
