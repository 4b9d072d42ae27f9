//! The passes over slices, resampling and the optimiser, against plain loops.

mod common;

use common::{
    assert_close, assert_close_at_least, assert_same_bits, instruction_sets, random, wide, with_thread_counts,
};
use langevin_kernels::elementwise::*;
use langevin_kernels::gated::{geglu_backward, geglu_forward};
use langevin_kernels::optimizer::{AdamW, adamw_step, ema_step};
use langevin_kernels::resample::{UpsampleShape, upsample_nearest_backward, upsample_nearest_forward};
use langevin_kernels::simd::Isa;

const LENGTHS: [usize; 6] = [0, 1, 15, 16, 33, 70_001];

#[test]
fn silu_and_its_slope() {
    for len in LENGTHS {
        let x: Vec<f32> = random(len, 1).iter().map(|x| 8.0 * x).collect();
        let gy = random(len, 2);
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let y_truth: Vec<f64> = wide(&x).iter().map(|x| x * sigmoid(*x)).collect();
        let slope = |x: f64| sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x)));
        let gx_truth: Vec<f64> = wide(&x)
            .iter()
            .zip(wide(&gy))
            .map(|(x, g)| g * slope(*x))
            .collect();
        for isa in instruction_sets() {
            let (mut y, mut gx) = (vec![f32::NAN; len], vec![f32::NAN; len]);
            isa.limit(|| {
                silu_forward(&x, &mut y);
                silu_backward(&x, &gy, &mut gx);
            });
            assert_close("silu", &y, &y_truth, 3e-7);
            assert_close("silu's gradient", &gx, &gx_truth, 1e-6);
        }
    }
}

/// Φ of the normal distribution, by the series of its integral (Abramowitz & Stegun 26.2.11).
fn below(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= x * x / f64::from(2 * n + 1);
        sum += term;
    }
    0.5 + sum * density(x)
}

fn density(x: f64) -> f64 {
    (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

#[test]
fn the_gate_of_geglu() {
    for (rows, width) in [(0, 3), (1, 1), (3, 15), (2, 16), (5, 33), (300, 700)] {
        let x: Vec<f32> = random(2 * rows * width, 1).iter().map(|x| 2.0 * x).collect();
        let gy = random(rows * width, 2);
        let (mut y_truth, mut gx_truth) = (vec![0.0; rows * width], vec![0.0; 2 * rows * width]);
        for (i, y) in y_truth.iter_mut().enumerate() {
            let (row, column) = (i / width, i % width);
            let place = 2 * row * width + column;
            let (a, b, g) = (f64::from(x[place]), f64::from(x[place + width]), f64::from(gy[i]));
            *y = a * b * below(b);
            gx_truth[place] = g * b * below(b);
            gx_truth[place + width] = g * a * (below(b) + b * density(b));
        }
        for isa in instruction_sets() {
            let (mut y, mut gx) = (vec![f32::NAN; rows * width], vec![f32::NAN; 2 * rows * width]);
            isa.limit(|| {
                geglu_forward(width, &x, &mut y);
                geglu_backward(width, &x, &gy, &mut gx);
            });
            assert_close_at_least("the gate", &y, &y_truth, 2e-6, 1.0);
            assert_close_at_least("its gradient", &gx, &gx_truth, 2e-6, 1.0);
        }
    }
}

#[test]
fn the_gate_of_geglu_is_shut_far_below_zero_and_open_far_above() {
    let gates = [-1e30, -1e3, -30.0, -7.0, 7.0, 30.0, 1e3, 1e30, f32::NAN];
    let x: Vec<f32> = gates.iter().flat_map(|&gate| [1.0, gate]).collect();
    for isa in instruction_sets() {
        let mut y = [0.0; 9];
        isa.limit(|| geglu_forward(1, &x, &mut y));
        for (y, gate) in y.into_iter().zip(gates) {
            let off = (y - gate.max(0.0)).abs() / gate.abs().max(1.0);
            assert!(
                gate.is_nan() == y.is_nan() && (gate.is_nan() || off < 1e-6),
                "{gate}: {y} with {isa:?}"
            );
        }
    }
}

#[test]
fn sums_and_products() {
    for len in LENGTHS {
        let (a, b) = (random(len, 1), random(len, 2));
        let squares: f64 = wide(&a).iter().map(|a| a * a).sum();
        for isa in instruction_sets() {
            isa.limit(|| {
                let mut y = vec![f32::NAN; len];
                add(&a, &b, &mut y);
                assert!((0..len).all(|i| y[i] == a[i] + b[i]));
                scale_in_place(&mut y, 0.3);
                assert!((0..len).all(|i| y[i] == (a[i] + b[i]) * 0.3));
                assert!((sum_of_squares(&a) - squares).abs() <= 1e-6 * squares);
            });
        }
    }
    let x = random(200_000, 3);
    with_thread_counts("sum of squares", || vec![sum_of_squares(&x) as f32]);
}

#[test]
fn channels_join_and_split() {
    for (rows, ca, cb) in [(1, 1, 1), (7, 3, 5), (900, 64, 32), (4, 0, 3)] {
        let (a, b) = (random(rows * ca, 1), random(rows * cb, 2));
        let mut y = vec![f32::NAN; a.len() + b.len()];
        concat_channels(rows, &a, &b, &mut y);
        for (i, &y) in y.iter().enumerate() {
            let (row, channel) = (i / (ca + cb), i % (ca + cb));
            let truth = if channel < ca {
                a[row * ca + channel]
            } else {
                b[row * cb + channel - ca]
            };
            assert_eq!(y, truth);
        }
        let (mut a2, mut b2) = (vec![f32::NAN; a.len()], vec![f32::NAN; b.len()]);
        split_channels(rows, &y, &mut a2, &mut b2);
        assert_same_bits("a", &a, &a2);
        assert_same_bits("b", &b, &b2);
    }
}

#[test]
fn nearest_neighbours() {
    // Columns that `torch.nn.functional.interpolate(torch.arange(size), size=out, mode="nearest")` shows.
    for (size, sources) in [
        (2, vec![0, 0, 1, 1]),
        (3, vec![0, 0, 1, 1, 2]),
        (4, vec![0, 0, 1, 1, 2, 2, 3]),
        (7, vec![0, 1, 3, 5]),
        (3, vec![0, 0, 0, 1, 1, 2, 2]),
        (
            10,
            vec![0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9],
        ),
    ] {
        let shape = UpsampleShape {
            batch: 2,
            height: 3,
            width: size,
            channels: 5,
            out_height: 6,
            out_width: sources.len(),
        };
        let x = random(2 * 3 * size * 5, 1);
        let mut y = vec![f32::NAN; 2 * 6 * sources.len() * 5];
        upsample_nearest_forward(&shape, &x, &mut y);
        let gy = random(y.len(), 2);
        let (mut gx, mut gx_truth) = (vec![f32::NAN; x.len()], vec![0.0; x.len()]);
        upsample_nearest_backward(&shape, &gy, &mut gx);
        for (i, y) in y.iter().enumerate() {
            let (channel, pixel) = (i % 5, i / 5);
            let (ox, oy, n) = (
                pixel % sources.len(),
                pixel / sources.len() % 6,
                pixel / sources.len() / 6,
            );
            let j = ((n * 3 + oy / 2) * size + sources[ox]) * 5 + channel;
            assert_eq!(*y, x[j]);
            gx_truth[j] += f64::from(gy[i]);
        }
        assert_close("gx", &gx, &gx_truth, 1e-6);
    }
    let shape = UpsampleShape::twice(3, 20, 20, 40);
    let gy = random(3 * 40 * 40 * 40, 3);
    with_thread_counts("upsampling", || {
        let mut gx = vec![0.0; 3 * 20 * 20 * 40];
        upsample_nearest_backward(&shape, &gy, &mut gx);
        gx
    });
}

#[test]
fn adamw_follows_its_definition() {
    for (beta1, len) in [(0.9, 40_003), (0.3, 20)] {
        let (mut param, start) = (random(len, 1), random(len, 1));
        let (mut m, mut v) = (vec![0.0; len], vec![0.0; len]);
        let (mut p64, mut m64, mut v64) = (wide(&start), vec![0.0; len], vec![0.0; len]);
        for step in 1..=5u64 {
            let hyper = AdamW {
                learning_rate: 1e-2,
                beta1,
                beta2: 0.99,
                eps: 1e-8,
                weight_decay: 0.1,
                step,
                gradient_factor: 0.5,
            };
            let grad = random(len, 10 + step);
            adamw_step(&hyper, &mut param, &grad, &mut m, &mut v);
            for i in 0..len {
                let g = 0.5 * f64::from(grad[i]);
                p64[i] *= 1.0 - 1e-2 * 0.1;
                m64[i] = beta1 * m64[i] + (1.0 - beta1) * g;
                v64[i] = 0.99 * v64[i] + 0.01 * g * g;
                let (c1, c2) = (1.0 - beta1.powi(step as i32), 1.0 - 0.99f64.powi(step as i32));
                p64[i] -= 1e-2 * (m64[i] / c1) / ((v64[i] / c2).sqrt() + 1e-8);
            }
        }
        assert_close("parameters", &param, &p64, 1e-6);
        assert_close("mean", &m, &m64, 1e-6);
        assert_close("mean of squares", &v, &v64, 1e-6);
    }
}

/// The parameters after these four steps with
/// `torch.optim.AdamW([p], lr=lr, betas=betas, eps=eps, weight_decay=decay, foreach=False, fused=False)`, PyTorch 2.x, AVX-512.
#[test]
fn adamw_is_torchs_to_the_bit() {
    #[rustfmt::skip]
    let cases = [
        ([1e-3, 0.95, 0.999, 1e-8, 1e-6], [
            0xbf3f7b8b, 0xbe32d4bc, 0x3ecfa224, 0xbf18675d, 0xbc9af4cf, 0x3f1093ec, 0xbee15c4e, 0x3e0f9bc4, 0x3f37a4d0, 0xbe91a45d,
            0x3e9943cf, 0xbf34a6a3, 0xbe0003ee, 0x3ee762a4, 0xbf0ccbe3, 0x3d0ae6b8, 0x3f1b6155, 0xbec7d1ad, 0x3e3ef800, 0x3f433b6d,
        ]),
        ([1e-2, 0.3, 0.99, 1e-6, 0.1], [
            0xbf3ee01c, 0xbe407d35, 0x3ec2ad4c, 0xbf191474, 0xbd3fa471, 0x3f1086d7, 0xbee70802, 0x3df1b132, 0x3f3614ec, 0xbe9f1417,
            0x3e9b049a, 0xbf36e619, 0xbe130bea, 0x3ee5b940, 0xbf131645, 0x3d273b14, 0x3f181c71, 0xbecf52b8, 0x3e3e8f93, 0x3f3bc4b6u32,
        ]),
    ];
    // Without fused multiply-add the mean of the gradients is rounded twice.
    for isa in instruction_sets().filter(|&isa| isa > Isa::Portable) {
        for ([learning_rate, beta1, beta2, eps, weight_decay], truth) in cases {
            let mut param: Vec<f32> = (0..20).map(|i| (i * 37 % 101) as f32 / 64.0 - 0.75).collect();
            let (mut m, mut v) = (vec![0.0; 20], vec![0.0; 20]);
            for step in 1..=4 {
                let grad: Vec<f32> = (0..20)
                    .map(|i| ((i * 53 + step * 17) % 89) as f32 / 128.0 - 0.3125)
                    .collect();
                let hyper = AdamW {
                    learning_rate,
                    beta1,
                    beta2,
                    eps,
                    weight_decay,
                    step,
                    gradient_factor: 1.0,
                };
                isa.limit(|| adamw_step(&hyper, &mut param, &grad, &mut m, &mut v));
            }
            assert_same_bits("parameters", &param, &truth.map(f32::from_bits));
        }
    }
}

#[test]
fn the_moving_average_is_torchs_to_the_bit() {
    let (param, start) = (random(1000, 1), random(1000, 2));
    let mut shadow = start.clone();
    ema_step(0.9, &mut shadow, &param);
    let rate = (1.0f64 - 0.9) as f32;
    for i in 0..1000 {
        assert_eq!(shadow[i], start[i] - rate * (start[i] - param[i]));
    }
}
