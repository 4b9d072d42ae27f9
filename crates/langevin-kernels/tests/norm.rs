//! Group normalisation against plain sums in `f64`, on every instruction set.

mod common;

use common::{assert_close, assert_same_bits, instruction_sets, random, wide, with_thread_counts};
use langevin_kernels::norm::{
    GroupNormGradients, GroupNormParameters, GroupNormShape, group_norm_backward, group_norm_forward,
};

struct Layer {
    shape: GroupNormShape,
    x: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    film: Option<[Vec<f32>; 2]>,
    silu: bool,
    gy: Vec<f32>,
}

const EPS: f32 = 1e-5;

/// y, mean and rstd, gx, ggamma, gbeta, gscale, gshift
type Results<T> = [Vec<T>; 7];
const NAMES: [&str; 7] = ["y", "mean_rstd", "gx", "ggamma", "gbeta", "gscale", "gshift"];

impl Layer {
    fn new(batch: usize, pixels: usize, channels: usize, groups: usize, film: bool, silu: bool) -> Self {
        let len = batch * pixels * channels;
        Self {
            shape: GroupNormShape {
                batch,
                pixels,
                channels,
                groups,
            },
            x: random(len, 1).iter().map(|x| 1.5 * x + 0.5).collect(),
            gamma: random(channels, 2),
            beta: random(channels, 3),
            film: film.then(|| [random(batch * channels, 4), random(batch * channels, 5)]),
            silu,
            gy: random(len, 6),
        }
    }

    fn run(&self) -> Results<f32> {
        let GroupNormShape {
            batch,
            channels,
            groups,
            ..
        } = self.shape;
        let nan = |len| vec![f32::NAN; len];
        let parameters = GroupNormParameters {
            eps: EPS,
            gamma: &self.gamma,
            beta: &self.beta,
            scale: self.film.as_ref().map(|film| &film[0][..]),
            shift: self.film.as_ref().map(|film| &film[1][..]),
            silu: self.silu,
        };
        let (mut y, mut stats, mut gx) = (nan(self.x.len()), nan(batch * groups * 2), nan(self.x.len()));
        let (mut gamma, mut beta) = (nan(channels), nan(channels));
        let (mut scale, mut shift) = (nan(batch * channels), nan(batch * channels));
        group_norm_forward(&self.shape, Some(&self.x), &parameters, &mut y, &mut stats);
        // In x's own place, it is the same.
        let (mut in_place, mut same_stats) = (self.x.clone(), nan(stats.len()));
        group_norm_forward(&self.shape, None, &parameters, &mut in_place, &mut same_stats);
        assert_same_bits("y in place", &in_place, &y);
        assert_same_bits("its statistics", &same_stats, &stats);
        let gradients = GroupNormGradients {
            x: &mut gx,
            gamma: &mut gamma,
            beta: &mut beta,
            scale: Some(&mut scale),
            shift: Some(&mut shift),
        };
        group_norm_backward(
            &self.shape,
            &self.x,
            &stats,
            &parameters,
            Some(&self.gy),
            gradients,
        );
        // In the gradient's own place, it is the same.
        let mut in_place = self.gy.clone();
        let [mut g1, mut g2] = [(); 2].map(|()| vec![0.0; channels]);
        let place = GroupNormGradients {
            x: &mut in_place,
            gamma: &mut g1,
            beta: &mut g2,
            scale: None,
            shift: None,
        };
        group_norm_backward(&self.shape, &self.x, &stats, &parameters, None, place);
        assert_same_bits("gx in place", &in_place, &gx);
        [y, stats, gx, gamma, beta, scale, shift]
    }

    fn truth(&self) -> Results<f64> {
        let GroupNormShape {
            batch,
            pixels,
            channels: c,
            groups,
        } = self.shape;
        let (x, gy, gamma, beta) = (wide(&self.x), wide(&self.gy), wide(&self.gamma), wide(&self.beta));
        let film = |i: usize| {
            self.film
                .as_ref()
                .map_or(vec![0.0; batch * c], |film| wide(&film[i]))
        };
        let (scale, shift) = (film(0), film(1));
        let cg = c / groups;
        let count = (pixels * cg) as f64;
        let zeros = |len: usize| vec![0.0; len];
        let (mut y, mut stats, mut gx) = (zeros(x.len()), vec![], zeros(x.len()));
        let (mut ggamma, mut gbeta) = (zeros(c), zeros(c));
        let (mut gscale, mut gshift) = (zeros(batch * c), zeros(batch * c));
        for (n, g) in (0..batch).flat_map(|n| (0..groups).map(move |g| (n, g))) {
            let elements: Vec<(usize, usize)> = (0..pixels)
                .flat_map(|p| (g * cg..(g + 1) * cg).map(move |j| ((n * pixels + p) * c + j, j)))
                .collect();
            let mean = elements.iter().map(|e| x[e.0]).sum::<f64>() / count;
            let variance = elements.iter().map(|e| (x[e.0] - mean).powi(2)).sum::<f64>() / count;
            let rstd = 1.0 / (variance + f64::from(EPS)).sqrt();
            stats.extend([mean, rstd]);
            let (mut d_mean, mut dx_mean) = (0.0, 0.0);
            let mut slopes = vec![];
            for &(e, j) in &elements {
                let normalised = (x[e] - mean) * rstd;
                let inner = normalised * gamma[j] + beta[j];
                let z = inner * (1.0 + scale[n * c + j]) + shift[n * c + j];
                let s = 1.0 / (1.0 + (-z).exp());
                y[e] = if self.silu { z * s } else { z };
                let d = gy[e] * if self.silu { s * (1.0 + z * (1.0 - s)) } else { 1.0 };
                gshift[n * c + j] += d;
                gscale[n * c + j] += d * inner;
                ggamma[j] += d * (1.0 + scale[n * c + j]) * normalised;
                gbeta[j] += d * (1.0 + scale[n * c + j]);
                let slope = d * (1.0 + scale[n * c + j]) * gamma[j];
                d_mean += slope / count;
                dx_mean += slope * normalised / count;
                slopes.push((e, slope, normalised));
            }
            for (e, slope, normalised) in slopes {
                gx[e] = rstd * (slope - d_mean - normalised * dx_mean);
            }
        }
        [y, stats, gx, ggamma, gbeta, gscale, gshift]
    }
}

fn shapes() -> Vec<Layer> {
    let mut layers = vec![];
    for (film, silu) in [(false, false), (false, true), (true, false), (true, true)] {
        layers.push(Layer::new(2, 64, 64, 32, film, silu));
        layers.push(Layer::new(3, 49, 30, 5, film, silu));
        layers.push(Layer::new(1, 1024, 96, 32, film, silu));
        layers.push(Layer::new(9, 4, 128, 4, film, silu));
        layers.push(Layer::new(2, 35, 7, 7, film, silu));
        layers.push(Layer::new(4, 1, 33, 3, film, silu));
    }
    layers
}

#[test]
fn agrees_with_plain_sums() {
    for layer in shapes() {
        let truth = layer.truth();
        for isa in instruction_sets() {
            let results = isa.limit(|| layer.run());
            for ((name, values), truth) in NAMES.iter().zip(&results).zip(&truth) {
                let what = format!(
                    "{name} of {:?}, film {}, {isa:?}",
                    layer.shape,
                    layer.film.is_some()
                );
                assert_close(&what, values, truth, 3e-6);
            }
        }
    }
}

#[test]
fn keeps_its_accuracy_far_from_zero() {
    for (mean, std) in [(10.0, 1.0), (-300.0, 0.5)] {
        let mut layer = Layer::new(1, 4096, 64, 8, false, false);
        layer.x = random(layer.x.len(), 9).iter().map(|x| std * x + mean).collect();
        // What the statistics add to the error of the values themselves, which are rounded at the mean's size.
        let truth = layer.truth();
        for isa in instruction_sets() {
            let results = isa.limit(|| layer.run());
            for (i, (&value, &truth)) in results[1].iter().zip(&truth[1]).enumerate() {
                let error = (f64::from(value) / truth - 1.0).abs();
                assert!(
                    error < 1e-6,
                    "statistic {i}: {value}, should be {truth} ({isa:?})"
                );
            }
            assert_close("y", &results[0], &truth[0], 1e-6 * f64::from(mean.abs() / std));
        }
    }
}

#[test]
fn gives_the_same_bits_with_any_number_of_threads_and_alone() {
    for batch in [1, 6] {
        let layer = Layer::new(batch, 900, 72, 12, true, true);
        with_thread_counts("group norm", || layer.run().concat());
        let [y, _, gx, ..] = layer.run();
        let part = |values: &[f32]| values[values.len() - values.len() / batch..].to_vec();
        let alone = Layer {
            shape: GroupNormShape {
                batch: 1,
                ..layer.shape
            },
            x: part(&layer.x),
            gamma: layer.gamma.clone(),
            beta: layer.beta.clone(),
            film: layer.film.as_ref().map(|film| [part(&film[0]), part(&film[1])]),
            silu: true,
            gy: part(&layer.gy),
        };
        let [y1, _, gx1, ..] = alone.run();
        assert_same_bits("y", &y1, &part(&y));
        assert_same_bits("gx", &gx1, &part(&gx));
    }
}
