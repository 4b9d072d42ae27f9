//! Speed of convolutions and linear layers: `cargo bench -p langevin-kernels`, with shapes' names to choose some.
//!
//! Prints GFLOP/s, a multiply-add counted as two and every tap of the kernel counted, those in the padding too.

use langevin_kernels::conv::{
    Algorithm, Conv2dShape, conv2d_forward, conv2d_input_gradient, conv2d_weight_gradient,
};
use std::hint::black_box;
use std::time::{Duration, Instant};

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

/// The fastest call in 0.15 s: the machine may be busy with other things too.
fn time(mut f: impl FnMut()) -> f64 {
    f();
    f();
    let mut times = vec![];
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(150) || times.len() < 5 {
        let start = Instant::now();
        f();
        times.push(start.elapsed().as_secs_f64());
    }

    times.into_iter().fold(f64::INFINITY, f64::min)
}

fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let mut layers = vec![];
    for (size, channels) in [(32, 64), (16, 128), (8, 256)] {
        for batch in [16, 1] {
            layers.push((
                format!("3x3 {channels} ch {size}² batch {batch}"),
                square(batch, size, channels, channels, 3, 1),
            ));
        }
    }
    for (batch, size, channels) in [
        (64, 8, 64),
        (64, 8, 128),
        (64, 4, 128),
        (64, 4, 256),
        (64, 2, 256),
        (128, 2, 128),
        (1, 4, 256),
    ] {
        layers.push((
            format!("3x3 {channels} ch {size}² batch {batch}"),
            square(batch, size, channels, channels, 3, 1),
        ));
    }
    layers.push(("3x3 512→512 8² batch 4".into(), square(4, 8, 512, 512, 3, 1)));
    layers.push((
        "3x3 stride 2 128 ch 16² batch 16".into(),
        square(16, 16, 128, 128, 3, 2),
    ));
    layers.push((
        "3x3 stride 2 128 ch 8² batch 64".into(),
        square(64, 8, 128, 128, 3, 2),
    ));
    layers.push(("3x3 3→64 32² batch 16".into(), square(16, 32, 3, 64, 3, 1)));
    layers.push(("3x3 64→3 32² batch 16".into(), square(16, 32, 64, 3, 3, 1)));
    layers.push(("3x3 1→64 8² batch 64".into(), square(64, 8, 1, 64, 3, 1)));
    layers.push(("3x3 64→1 8² batch 64".into(), square(64, 8, 64, 1, 3, 1)));
    layers.push(("1x1 192→64 32² batch 16".into(), square(16, 32, 192, 64, 1, 1)));
    layers.push(("1x1 256→256 8² batch 16".into(), square(16, 8, 256, 256, 1, 1)));
    layers.push((
        "linear 2048→2048 x 2048".into(),
        Conv2dShape::linear(2048, 2048, 2048),
    ));
    layers.push(("linear 256→256 x 16".into(), Conv2dShape::linear(16, 256, 256)));
    layers.push(("linear 512→512 x 1".into(), Conv2dShape::linear(1, 512, 512)));

    println!(
        "{:45} {:>8} {:>8} {:>8}   GFLOP/s",
        "", "forward", "input", "weight"
    );
    let each = layers
        .into_iter()
        .flat_map(|(name, shape)| [Algorithm::Fastest, Algorithm::Exact].map(|a| (name.clone(), shape, a)));
    for (name, shape, algorithm) in each {
        if !chosen.is_empty() && !chosen.iter().any(|c| name.contains(c.as_str())) {
            continue;
        }
        let values = |len: usize| {
            (0..len)
                .map(|i| (i % 37) as f32 * 0.05 - 0.9)
                .collect::<Vec<f32>>()
        };
        let (x, weight, mut y) = (
            values(shape.input_len()),
            values(shape.weight_len()),
            values(shape.output_len()),
        );
        let (gy, mut gx, mut gw) = (y.clone(), x.clone(), weight.clone());
        let mut gb = vec![0.0; shape.out_channels];
        let bias = gb.clone();
        let flop = 2.0 * (shape.output_len() * shape.kernel[0] * shape.kernel[1] * shape.in_channels) as f64;
        let forward = time(|| {
            conv2d_forward(
                &shape,
                algorithm,
                &x,
                &weight,
                Some(&bias),
                None,
                black_box(&mut y),
            )
        });
        let input = time(|| conv2d_input_gradient(&shape, algorithm, &gy, &weight, black_box(&mut gx)));
        let grad =
            time(|| conv2d_weight_gradient(&shape, algorithm, &x, &gy, black_box(&mut gw), Some(&mut gb)));
        let rate = |time: f64| flop / time / 1e9;
        println!(
            "{name:36} {algorithm:8?} {:8.0} {:8.0} {:8.0}   forward {:.3} ms",
            rate(forward),
            rate(input),
            rate(grad),
            forward * 1e3
        );
    }
}
