//! The generator against `torch_cpu_rng.safetensors`: every key found there.

mod support;

use langevin::random::Generator;
use support::{Outcome, Report, Stored, largest_difference};

#[test]
fn generator_draws_what_pytorch_draws() {
    let mut report = Report::new();
    for (key, stored) in support::read_tensors("torch_cpu_rng.safetensors") {
        report.case(&key, compare(&key, &stored));
    }
    report.finish();
}

/// Keys are `KIND.SEED` or `KIND.SEED.SIZE`; a size is one number or a shape such as `4x3x8x8`.
fn compare(key: &str, stored: &Stored) -> Result<Outcome, String> {
    let mut parts = key.split('.');
    let kind = parts.next().unwrap_or_default();
    let seed = parts
        .next()
        .and_then(|seed| seed.parse().ok())
        .ok_or("has no seed in its name")?;
    let mut generator = Generator::new(seed);
    let n = stored.values.len();

    if let Some(high) = kind.strip_prefix("randint") {
        let high = high
            .parse()
            .map_err(|e| format!("has no upper limit in its name: {e}"))?;
        return exactly(&generator.randint(0, high, n), &stored.integers);
    }
    match kind {
        "rand" | "rand_shape" => exactly(&generator.rand(n), &stored.f32()),
        "rand_f64" => exactly(&generator.rand_f64(n), &stored.values),
        "randperm" => {
            let order: Vec<_> = generator.randperm(n).into_iter().map(|i| i as i64).collect();
            exactly(&order, &stored.integers)
        }
        "randn" | "randn_shape" => close(&generator.randn(n), stored),
        "randn_f64" => {
            let found = generator.randn_f64(n);
            let differences = found.iter().zip(&stored.values).map(|(a, b)| (a - b).abs());
            support::within("", differences.fold(0.0, f64::max), 1e-6).map(|()| Outcome::Ran)
        }
        // Draws of 5, 16, 3 and 40 from one generator.
        "randn_seq" => {
            let found: Vec<f32> = [5, 16, 3, 40]
                .into_iter()
                .flat_map(|n| generator.randn(n))
                .collect();
            close(&found, stored)
        }
        _ => Ok(Outcome::NotSupported(kind.to_owned())),
    }
}

fn exactly<T: PartialEq>(found: &[T], expected: &[T]) -> Result<Outcome, String> {
    if found == expected {
        Ok(Outcome::Ran)
    } else {
        Err("is not equal".to_owned())
    }
}

fn close(found: &[f32], stored: &Stored) -> Result<Outcome, String> {
    support::within("", largest_difference(found, &stored.f32()), 1e-6).map(|()| Outcome::Ran)
}
