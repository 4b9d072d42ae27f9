//! bf16 against the definition of rounding to the nearest, and the normalisation that keeps its input so.

mod common;

use common::{assert_close, assert_same_bits, instruction_sets, random, wide};
use langevin_kernels::bf16::{pack, unpack};
use langevin_kernels::norm::{
    GroupNormGradients, GroupNormParameters, GroupNormShape, group_norm_backward, group_norm_backward_bf16,
    group_norm_forward, group_norm_forward_bf16,
};

fn packed(x: &[f32]) -> Vec<u16> {
    let mut y = vec![0xaaaa; x.len()];
    pack(x, &mut y);
    y
}

fn unpacked(x: &[u16]) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.len()];
    unpack(x, &mut y);
    y
}

#[test]
fn rounds_to_the_nearest_and_ties_to_even() {
    let cases: [(u32, u16); 17] = [
        // One, and the largest below the tie above it, the tie (to even: down), and just above.
        (0x3f80_0000, 0x3f80),
        (0x3f80_7fff, 0x3f80),
        (0x3f80_8000, 0x3f80),
        (0x3f80_8001, 0x3f81),
        // A tie above an odd value goes up.
        (0x3f81_8000, 0x3f82),
        // Into the next exponent.
        (0x3fff_8000, 0x4000),
        (0xbf80_8001, 0xbf81),
        (0x0000_0000, 0x0000),
        (0x8000_0000, 0x8000),
        // The smallest subnormals: the tie at half of bf16's, and above it.
        (0x0000_8000, 0x0000),
        (0x0000_8001, 0x0001),
        // Beyond the largest.
        (0x7f7f_ffff, 0x7f80),
        (0x7f80_0000, 0x7f80),
        (0xff80_0000, 0xff80),
        // Not a number, also where rounding would carry its fraction away, or into the sign.
        (0x7f80_0001, 0x7fc0),
        (0x7fff_ffff, 0x7fff),
        (0xffc0_1234, 0xffc0),
    ];
    let x: Vec<f32> = cases.iter().map(|&(bits, _)| f32::from_bits(bits)).collect();
    for isa in instruction_sets() {
        for (y, (bits, truth)) in isa.limit(|| packed(&x)).into_iter().zip(cases) {
            assert_eq!(y, truth, "{bits:x} became {y:x} ({isa:?})");
        }
    }
}

#[test]
fn is_the_nearest_of_all_values_on_every_instruction_set() {
    for len in [0, 1, 7, 8, 9, 16, 33, 100_001] {
        let x: Vec<f32> = random(len, 5).iter().map(|x| x * x * x * 1e3).collect();
        let first = packed(&x);
        for (&x, &y) in x.iter().zip(&first) {
            let value = |bits: u16| f64::from(f32::from_bits(u32::from(bits) << 16));
            let error = |bits: u16| (value(bits) - f64::from(x)).abs();
            assert!(
                error(y) <= error(y.wrapping_add(1)) && error(y) <= error(y.wrapping_sub(1)),
                "{x} became {}",
                value(y)
            );
        }
        let back = unpacked(&first);
        // What is bf16 already is exact, there and back.
        assert_eq!(packed(&back), first);
        for isa in instruction_sets() {
            isa.limit(|| {
                assert!(packed(&x) == first, "{isa:?}");
                assert_same_bits("unpacked", &unpacked(&first), &back);
            });
        }
    }
}

struct Results {
    y: Vec<f32>,
    statistics: Vec<f32>,
    /// Of x, gamma and beta.
    gradients: [Vec<f32>; 3],
}

/// A forward and a backward, with `x` kept as bf16 or not. `kept` is what was kept.
fn norm(
    shape: &GroupNormShape,
    parameters: &GroupNormParameters,
    x: &[f32],
    gy: &[f32],
    kept: Option<&mut [u16]>,
) -> Results {
    let nan = |len| vec![f32::NAN; len];
    let mut y = nan(x.len());
    let mut statistics = nan(shape.batch * shape.groups * 2);
    let [mut gx, mut ggamma, mut gbeta] = [x.len(), shape.channels, shape.channels].map(nan);
    let gradients = GroupNormGradients {
        x: &mut gx,
        gamma: &mut ggamma,
        beta: &mut gbeta,
        scale: None,
        shift: None,
    };
    match kept {
        None => {
            group_norm_forward(shape, Some(x), parameters, &mut y, &mut statistics);
            group_norm_backward(shape, x, &statistics, parameters, Some(gy), gradients);
        }
        Some(kept) => {
            group_norm_forward_bf16(shape, Some(x), parameters, &mut y, &mut statistics, Some(kept));
            // In x's own place, and with nothing kept, it is the same.
            let (mut in_place, mut same) = (x.to_vec(), nan(statistics.len()));
            group_norm_forward_bf16(shape, None, parameters, &mut in_place, &mut same, None);
            assert_same_bits("y in place", &in_place, &y);
            assert_same_bits("its statistics", &same, &statistics);
            let mut again = nan(x.len());
            let way = Some(&mut again[..]);
            group_norm_backward_bf16(shape, kept, &statistics, parameters, Some(gy), gradients, way);
            assert_same_bits("the result on the way back", &again, &y);
        }
    }
    Results {
        y,
        statistics,
        gradients: [gx, ggamma, gbeta],
    }
}

#[test]
fn a_normalisation_normalises_what_it_keeps() {
    for (batch, pixels, channels, groups) in
        [(2, 64, 64, 32), (3, 49, 30, 5), (1, 1024, 96, 32), (4, 1, 33, 3)]
    {
        let shape = GroupNormShape {
            batch,
            pixels,
            channels,
            groups,
        };
        let (x, gy) = (
            random(batch * pixels * channels, 1),
            random(batch * pixels * channels, 2),
        );
        let (gamma, beta) = (random(channels, 3), random(channels, 4));
        for silu in [false, true] {
            let parameters = GroupNormParameters {
                eps: 1e-5,
                gamma: &gamma,
                beta: &beta,
                scale: None,
                shift: None,
                silu,
            };
            for isa in instruction_sets() {
                isa.limit(|| {
                    let mut kept = vec![0; x.len()];
                    let whole = norm(&shape, &parameters, &x, &gy, None);
                    let half = norm(&shape, &parameters, &x, &gy, Some(&mut kept));
                    assert_eq!(kept, packed(&x));
                    // Statistics are those of x as it is.
                    assert_same_bits("statistics", &half.statistics, &whole.statistics);
                    // bf16 has eight bits of precision; one pixel of few channels can come near zero variance.
                    let tolerance = if pixels == 1 { 0.05 } else { 0.01 };
                    assert_close("y", &half.y, &wide(&whole.y), tolerance);
                    for (half, whole) in half.gradients.iter().zip(&whole.gradients) {
                        assert_close("a gradient", half, &wide(whole), tolerance);
                    }
                    assert!(half.y != whole.y);
                });
            }
        }
    }
}
