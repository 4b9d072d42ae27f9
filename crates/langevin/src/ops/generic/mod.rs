//! The operations made of Burn's own, for backends that have no kernels of ours.
//!
//! Each file has the forward and the gradients of one operation (the small ones share a file), written for any backend;
//! [`super::cube`] makes them those of the GPU backends, and a test holds them to the kernels on the CPU.

mod attention;
mod conv;
mod norm;
mod optimizer;
mod plain;
mod small;

pub(super) use attention::{attention_gradient, attention_with_log_sums};
pub(super) use conv::{conv2d, conv2d_input_gradient, conv2d_weight_gradient};
pub(super) use norm::{group_norm_gradient, group_norm_with_statistics};
pub(super) use optimizer::{adamw_step, moving_average_step, sum_of_squares};
pub(super) use small::{
    add_per_picture, concat_channels, geglu, geglu_gradient, silu, silu_gradient, split_channels,
    sum_positions, upsample_nearest, upsample_nearest_gradient,
};

#[cfg(test)]
mod tests;
