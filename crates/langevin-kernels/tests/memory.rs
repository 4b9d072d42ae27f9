//! Every kernel touches its slices and nothing else: each slice ends where a page begins that may not be touched, or begins where
//! such a page ends. Masked loads and stores are caught too, which sanitizers pass over.
//!
//! Under Miri, which checks the portable kernels more strictly (`scripts/check-kernels.sh`), slices are plain ones.

mod common;

use common::{instruction_sets, random};
use langevin_kernels::attention::{
    AttentionShape, attention_backward, attention_forward, attention_forward_bf16,
};
use langevin_kernels::bf16;
use langevin_kernels::conv::{
    Algorithm, Conv2dShape, Residual, conv2d_forward, conv2d_input_gradient, conv2d_weight_gradient,
};
use langevin_kernels::elementwise;
use langevin_kernels::norm::{
    GroupNormGradients, GroupNormParameters, GroupNormShape, group_norm_backward, group_norm_backward_bf16,
    group_norm_forward, group_norm_forward_bf16,
};
use langevin_kernels::optimizer::{AdamW, adamw_step, ema_step};
use langevin_kernels::per_picture;
use langevin_kernels::resample::{UpsampleShape, upsample_nearest_backward, upsample_nearest_forward};
use langevin_kernels::{Bf16Unit, Stored};

/// On which side of the values the forbidden page lies.
#[derive(Clone, Copy, Debug)]
enum Guard {
    Before,
    After,
}

#[cfg(all(unix, not(miri)))]
mod guarded {
    use super::Guard;
    use std::ops::{Deref, DerefMut};

    /// Values beside a page that may not be touched.
    pub(crate) struct Guarded<T> {
        mapping: *mut libc::c_void,
        size: usize,
        values: *mut T,
        len: usize,
    }

    impl<T: Copy> Guarded<T> {
        pub(crate) fn new(guard: Guard, from: &[T]) -> Self {
            // SAFETY: it only asks for a number.
            let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
            let bytes = size_of_val(from).next_multiple_of(page);
            let size = bytes + page;
            // SAFETY: a new private mapping, of which one page is taken away again; `from` fits into the rest.
            unsafe {
                let protection = libc::PROT_READ | libc::PROT_WRITE;
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                let mapping = libc::mmap(std::ptr::null_mut(), size, protection, flags, -1, 0);
                assert!(mapping != libc::MAP_FAILED, "memory for {size} bytes");
                let (forbidden, start) = match guard {
                    Guard::Before => (mapping, mapping.byte_add(page)),
                    Guard::After => {
                        let end = mapping.byte_add(bytes);
                        (end, end.byte_sub(size_of_val(from)))
                    }
                };
                assert_eq!(libc::mprotect(forbidden, page, libc::PROT_NONE), 0);
                let values: *mut T = start.cast();
                values.copy_from_nonoverlapping(from.as_ptr(), from.len());
                Self {
                    mapping,
                    size,
                    values,
                    len: from.len(),
                }
            }
        }
    }

    impl<T> Deref for Guarded<T> {
        type Target = [T];
        fn deref(&self) -> &[T] {
            // SAFETY: its own values.
            unsafe { std::slice::from_raw_parts(self.values, self.len) }
        }
    }

    impl<T> DerefMut for Guarded<T> {
        fn deref_mut(&mut self) -> &mut [T] {
            // SAFETY: its own values.
            unsafe { std::slice::from_raw_parts_mut(self.values, self.len) }
        }
    }

    impl<T> Drop for Guarded<T> {
        fn drop(&mut self) {
            // SAFETY: mapped with this size by `new`.
            unsafe { libc::munmap(self.mapping, self.size) };
        }
    }
}

#[cfg(not(all(unix, not(miri))))]
mod guarded {
    use super::Guard;

    pub struct Guarded;

    impl Guarded {
        #[allow(clippy::new_ret_no_self)]
        pub fn new<T: Copy>(_: Guard, from: &[T]) -> Box<[T]> {
            from.into()
        }
    }
}

use guarded::Guarded;

fn conv(guard: Guard, shape: &Conv2dShape, algorithm: Algorithm) {
    let values = |len, seed| Guarded::new(guard, &random(len, seed));
    let (x, weight) = (values(shape.input_len(), 1), values(shape.weight_len(), 2));
    let (bias, residual) = (values(shape.out_channels, 3), values(shape.output_len(), 4));
    let (mut y, mut gx) = (values(shape.output_len(), 5), values(shape.input_len(), 6));
    let (mut gw, mut gb) = (values(shape.weight_len(), 7), values(shape.out_channels, 8));
    conv2d_forward(
        shape,
        algorithm,
        &x,
        &weight[..],
        Some(&bias),
        Residual::Of(&residual),
        &mut y,
    );
    conv2d_forward(shape, algorithm, &x, &weight[..], None, Residual::InPlace, &mut y);
    conv2d_input_gradient(shape, algorithm, &residual, &weight[..], &mut gx);
    // Of 16 bits, which read as small numbers whatever they are.
    let halves: Vec<u16> = weight
        .iter()
        .map(|value| (value.to_bits() >> 18) as u16)
        .collect();
    let halves = Guarded::new(guard, &halves);
    for weight in [Stored::Float16(&halves), Stored::Bfloat16(&halves)] {
        conv2d_forward(shape, algorithm, &x, weight, None, Residual::None, &mut y);
        conv2d_input_gradient(shape, algorithm, &residual, weight, &mut gx);
    }
    let mut wide = values(shape.weight_len(), 9);
    Stored::Float16(&halves).widen(&mut wide);
    conv2d_weight_gradient(shape, algorithm, &x, &residual, &mut gw, Some(&mut gb));
    assert!(
        [&y, &gx, &gw, &gb]
            .iter()
            .all(|v| v.iter().all(|v| v.is_finite())),
        "{shape:?}"
    );
}

fn norm(guard: Guard, shape: &GroupNormShape, silu: bool) {
    let values = |len, seed| Guarded::new(guard, &random(len, seed));
    let (len, film) = (
        shape.batch * shape.pixels * shape.channels,
        shape.batch * shape.channels,
    );
    let (x, gy, gamma, beta) = (
        values(len, 1),
        values(len, 2),
        values(shape.channels, 3),
        values(shape.channels, 4),
    );
    let (scale, shift) = (values(film, 5), values(film, 6));
    let (mut y, mut stats) = (values(len, 7), values(shape.batch * shape.groups * 2, 8));
    let (mut gx, mut ggamma, mut gbeta) = (
        values(len, 9),
        values(shape.channels, 10),
        values(shape.channels, 11),
    );
    let (mut gscale, mut gshift) = (values(film, 12), values(film, 13));
    let parameters = GroupNormParameters {
        eps: 1e-5,
        gamma: &gamma,
        beta: &beta,
        scale: Some(&scale),
        shift: Some(&shift),
        silu,
    };
    group_norm_forward(shape, Some(&x), &parameters, &mut y, &mut stats);
    group_norm_forward(shape, None, &parameters, &mut y, &mut stats);
    let gradients = GroupNormGradients {
        x: &mut gx,
        gamma: &mut ggamma,
        beta: &mut gbeta,
        scale: Some(&mut gscale),
        shift: Some(&mut gshift),
    };
    group_norm_backward(shape, &x, &stats, &parameters, Some(&gy), gradients);
    if len.is_multiple_of(2) {
        let mut kept = values(len / 2, 14);
        let halves = Some(halves_mut(&mut kept));
        group_norm_forward_bf16(shape, Some(&x), &parameters, &mut y, &mut stats, halves);
        let gradients = GroupNormGradients {
            x: &mut gx,
            gamma: &mut ggamma,
            beta: &mut gbeta,
            scale: Some(&mut gscale),
            shift: Some(&mut gshift),
        };
        let way = Some(&mut y[..]);
        group_norm_backward_bf16(
            shape,
            halves_mut(&mut kept),
            &stats,
            &parameters,
            None,
            gradients,
            way,
        );
    }
    assert!(y.iter().chain(gx.iter()).all(|v| v.is_finite()), "{shape:?}");
}

/// The memory of values as twice as many of half the size.
fn halves_mut(values: &mut [f32]) -> &mut [u16] {
    // SAFETY: the same memory; every pattern of bits is a value of both types, and the alignment is less.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), 2 * values.len()) }
}

fn attend(guard: Guard, shape: &AttentionShape) {
    let values = |len, seed| Guarded::new(guard, &random(len, seed));
    let width = shape.heads * shape.head_dim;
    let (queries, keys) = (
        shape.batch * shape.queries * width,
        shape.batch * shape.keys * width,
    );
    let (q, k, v, gout) = (
        values(queries, 1),
        values(keys, 2),
        values(keys, 3),
        values(queries, 4),
    );
    let (mut out, mut lse) = (
        values(queries, 5),
        values(shape.batch * shape.heads * shape.queries, 6),
    );
    let (mut gq, mut gk, mut gv) = (values(queries, 7), values(keys, 8), values(keys, 9));
    attention_forward(shape, 0.5, &q, &k, &v, &mut out, &mut lse);
    attention_backward(
        shape, 0.5, &q, &k, &v, &out, &lse, &gout, &mut gq, &mut gk, &mut gv,
    );
    assert!(out.iter().chain(gk.iter()).all(|v| v.is_finite()), "{shape:?}");
}

fn passes(guard: Guard, len: usize) {
    let values = |len, seed| Guarded::new(guard, &random(len, seed));
    let (a, b, mut c) = (values(len, 1), values(len, 2), values(len, 3));
    elementwise::silu_forward(&a, &mut c);
    elementwise::silu_backward(&a, &b, &mut c);
    elementwise::add(&a, &b, &mut c);
    elementwise::scale_in_place(&mut c, 0.5);
    assert!(elementwise::sum_of_squares(&a).is_finite());
    let (twice, mut packed) = (values(2 * len, 9), values(len, 10));
    bf16::pack(&twice, halves_mut(&mut packed));
    let mut back = values(2 * len, 11);
    bf16::unpack(halves_mut(&mut packed), &mut back);
    let (mut joined, mut first, mut second) = (values(2 * len, 4), values(len, 5), values(len, 6));
    elementwise::concat_channels(1, &a, &b, &mut joined);
    elementwise::split_channels(1, &joined, &mut first, &mut second);
    assert!(*first == *a && *second == *b);
    let (mut m, mut v) = (
        Guarded::new(guard, &vec![0.0; len]),
        Guarded::new(guard, &vec![0.0; len]),
    );
    let hyper = AdamW {
        learning_rate: 0.1,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.1,
        step: 1,
        gradient_factor: 1.0,
    };
    adamw_step(&hyper, &mut c, &a, &mut m, &mut v);
    ema_step(0.9, &mut first, &c);
    if len > 0 {
        let mut pictures = values(3 * len, 7);
        per_picture::add_per_picture(len, &a, &mut pictures);
        per_picture::sum_positions(len, &pictures, &mut second);
        let shape = UpsampleShape::twice(1, 1, 1, len);
        let mut large = values(4 * len, 8);
        upsample_nearest_forward(&shape, &a, &mut large);
        upsample_nearest_backward(&shape, &large, &mut second);
    }
}

#[test]
fn kernels_stay_within_their_slices() {
    let small = cfg!(miri);
    let square = |batch, size, from, to, kernel: usize, stride| Conv2dShape {
        batch,
        height: size,
        width: size,
        in_channels: from,
        out_channels: to,
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding: [[kernel / 2; 2]; 2],
    };
    let mut convolutions = vec![
        square(2, 4, 17, 19, 3, 1),
        square(1, 5, 3, 9, 3, 1),
        square(1, 3, 9, 3, 3, 2),
        square(1, 4, 9, 1, 3, 1),
        Conv2dShape::linear(7, 5, 11),
    ];
    if !small {
        convolutions.extend([
            square(70, 4, 33, 35, 3, 1),
            square(11, 29, 16, 17, 3, 1),
            square(3, 14, 64, 70, 3, 1),
            square(40, 8, 40, 20, 3, 2),
            Conv2dShape::linear(1000, 37, 41),
        ]);
    }
    for (guard, isa) in [Guard::Before, Guard::After]
        .into_iter()
        .flat_map(|g| instruction_sets().map(move |i| (g, i)))
    {
        isa.limit(|| {
            for shape in &convolutions {
                conv(guard, shape, Algorithm::Fastest);
                conv(guard, shape, Algorithm::Exact);
            }
            for (pixels, channels, groups) in [(3, 6, 2), (5, 20, 4), (4, 32, 1)] {
                let shape = GroupNormShape {
                    batch: 2,
                    pixels,
                    channels,
                    groups,
                };
                norm(guard, &shape, true);
                norm(guard, &shape, false);
            }
            for (queries, keys, head_dim) in [(3, 5, 3), (17, 2, 8), (33, 9, 20), (35, 35, 4)] {
                attend(
                    guard,
                    &AttentionShape {
                        batch: 2,
                        queries,
                        keys,
                        heads: 2,
                        head_dim,
                        causal: queries == keys,
                    },
                );
            }
            for len in [0, 1, 7, 8, 9, 31, 33] {
                passes(guard, len);
            }
        });
    }
}

#[test]
fn products_of_bf16_stay_within_their_slices() {
    let layer = |size: [usize; 2], channels: [usize; 2], kernel: usize, stride| Conv2dShape {
        batch: 2,
        height: size[0],
        width: size[1],
        in_channels: channels[0],
        out_channels: channels[1],
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding: [[kernel / 2; 2]; 2],
    };
    let units = Bf16Unit::ALL
        .iter()
        .filter(|&&unit| Some(unit) <= Bf16Unit::available());
    for (guard, &unit) in [Guard::Before, Guard::After]
        .into_iter()
        .flat_map(|g| units.clone().map(move |u| (g, u)))
    {
        Bf16Unit::limit(Some(unit), || {
            for shape in [
                layer([5, 7], [25, 19], 3, 1),
                layer([6, 5], [40, 4], 3, 2),
                layer([17, 9], [33, 65], 1, 1),
                Conv2dShape::linear(45, 1100, 37),
                Conv2dShape::linear(1, 24, 4),
            ] {
                conv(guard, &shape, Algorithm::Bf16);
            }
            for (queries, keys, head_dim) in [(3, 17, 16), (33, 300, 40), (40, 31, 17)] {
                let shape = AttentionShape {
                    batch: 2,
                    queries,
                    keys,
                    heads: 2,
                    head_dim,
                    causal: false,
                };
                let values = |len, seed| Guarded::new(guard, &random(len, seed));
                let (of_queries, of_keys) = (4 * queries * head_dim, 4 * keys * head_dim);
                let (q, k, v) = (values(of_queries, 1), values(of_keys, 2), values(of_keys, 3));
                let (mut out, mut lse) = (values(of_queries, 4), values(4 * queries, 5));
                attention_forward_bf16(&shape, 0.5, &q, &k, &v, &mut out, &mut lse);
                assert!(out.iter().chain(lse.iter()).all(|v| v.is_finite()), "{shape:?}");
            }
        });
    }
}
