//! Multi-head attention without a stored score matrix.

use burn::backend::{
    Backend, Dispatch, Flex,
    autodiff::{
        Autodiff,
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    backend_extension,
    flex::FlexTensor,
    tensor::FloatTensor,
};
use burn::tensor::Tensor;
use langevin_kernels::attention;

use super::{
    flex,
    kept::{Kept, KeptAs, Packing, kept_as},
    precision::{Precision, precision},
};

/// What an attention does besides its tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionOptions {
    /// How many heads share the last dimension.
    pub heads: usize,
    /// What the scores are multiplied with before the softmax.
    pub scale: f32,
    /// Whether a query sees only the keys up to its own place; there are then as many queries as keys.
    pub causal: bool,
}

/// `softmax(scale · q kᵀ) v` in every head (Vaswani et al. 2017, eq. 1).
///
/// Keeps `q`, `k`, `v`, the result (as [`keeping`](super::keeping) says) and the logarithm of each row's sum for the backward, which
/// computes the scores anew; what is kept as bf16 is rounded before the forward, whose scores are then the same.
///
/// # Shapes
/// - `q` and the result: `[batch, queries, heads · head dimension]`
/// - `k`: `[batch, keys, heads · head dimension]`
/// - `v`: as `k`
pub fn attention(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, options: AttentionOptions) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::multi_head_attention(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        options,
    ))
}

/// The forward, dispatched to the tensor's backend.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub(crate) trait AttentionOps: Backend {
    fn multi_head_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        options: AttentionOptions,
    ) -> FloatTensor<Self>;
}

/// Queries, keys and values.
pub(super) type Qkv<B> = [FloatTensor<B>; 3];

/// The forward that also returns what the backward needs, and the backward.
pub(crate) trait AttentionGradients: Packing {
    /// The result, and the logarithm of the sum of exponentials of every row: `[batch, heads, queries]`.
    fn attention_with_log_sums(
        qkv: &Qkv<Self>,
        options: AttentionOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
    fn attention_gradient(
        qkv: Qkv<Self>,
        output: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        options: AttentionOptions,
    ) -> Qkv<Self>;
}

impl<B: AttentionOps + AttentionGradients, C: CheckpointStrategy> AttentionOps for Autodiff<B, C> {
    fn multi_head_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        options: AttentionOptions,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct AttentionBackward;
        impl<B: AttentionGradients> Backward<B, 3> for AttentionBackward {
            type State = ([Kept<B>; 3], Kept<B>, FloatTensor<B>, AttentionOptions);
            fn backward(
                self,
                ops: Ops<Self::State, 3>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let gradient = grads.consume::<B>(&ops.node);
                let (qkv, output, log_sums, options) = ops.state;
                let qkv = qkv.map(|kept| kept.get());
                let gradients = B::attention_gradient(qkv, output.get(), log_sums, gradient, options);
                for (node, gradient) in ops.parents.into_iter().zip(gradients) {
                    if let Some(node) = node {
                        grads.register::<B>(node.id, gradient);
                    }
                }
            }
        }
        let (nodes, ids) = ([q.node(), k.node(), v.node()], [q.id(), k.id(), v.id()]);
        let qkv = [q.into_primitive(), k.into_primitive(), v.into_primitive()];
        match AttentionBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let kept: [Kept<B>; 3] = std::array::from_fn(|i| Kept::new(&qkv[i], ids[i]));
                let qkv = match kept_as() {
                    KeptAs::Float32 => qkv,
                    KeptAs::Bf16 => kept.each_ref().map(Kept::get),
                };
                let (output, log_sums) = B::attention_with_log_sums(&qkv, options);
                prep.finish((kept, Kept::own(output.clone()), log_sums, options), output)
            }
            OpsKind::UnTracked(prep) => {
                let [q, k, v] = qkv;
                prep.finish(B::multi_head_attention(q, k, v, options))
            }
        }
    }
}

impl AttentionOps for Flex {
    fn multi_head_attention(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        options: AttentionOptions,
    ) -> FlexTensor {
        let qkv = [q, k, v];
        // Without a graph nothing is kept, but the numbers are those of a forward that keeps.
        let qkv = match kept_as() {
            KeptAs::Float32 => qkv,
            KeptAs::Bf16 => qkv.map(|x| Flex::unpack(Flex::pack(x))),
        };
        Flex::attention_with_log_sums(&qkv, options).0
    }
}

fn shape_of(qkv: &Qkv<Flex>, options: AttentionOptions) -> attention::AttentionShape {
    let [batch, queries, width] = flex::dims(&qkv[0]);
    let [_, keys, _] = flex::dims(&qkv[1]);
    attention::AttentionShape {
        batch,
        queries,
        keys,
        heads: options.heads,
        head_dim: width / options.heads,
        causal: options.causal,
    }
}

impl AttentionGradients for Flex {
    fn attention_with_log_sums(qkv: &Qkv<Self>, options: AttentionOptions) -> (FlexTensor, FlexTensor) {
        let qkv = qkv.clone().map(flex::contiguous);
        let shape = shape_of(&qkv, options);
        let mut output = flex::room(qkv[0].layout().num_elements());
        let mut log_sums = flex::room(shape.batch * shape.heads * shape.queries);
        let [q, k, v] = [0, 1, 2].map(|i| flex::floats(&qkv[i]));
        let forward = match precision() {
            Precision::Float32 => attention::attention_forward,
            Precision::Bf16 => attention::attention_forward_bf16,
        };
        forward(&shape, options.scale, q, k, v, &mut output, &mut log_sums);
        (
            flex::tensor(output, flex::dims::<3>(&qkv[0])),
            flex::tensor(log_sums, [shape.batch, shape.heads, shape.queries]),
        )
    }

    fn attention_gradient(
        qkv: Qkv<Self>,
        output: FlexTensor,
        log_sums: FlexTensor,
        gradient: FlexTensor,
        options: AttentionOptions,
    ) -> Qkv<Self> {
        let qkv = qkv.map(flex::contiguous);
        let gradient = flex::contiguous(gradient);
        let shape = shape_of(&qkv, options);
        let [q, k, v] = [0, 1, 2].map(|i| flex::floats(&qkv[i]));
        let mut gradients = [0, 1, 2].map(|i| flex::room(qkv[i].layout().num_elements()));
        let [gq, gk, gv] = &mut gradients;
        attention::attention_backward(
            &shape,
            options.scale,
            q,
            k,
            v,
            flex::floats(&output),
            flex::floats(&log_sums),
            flex::floats(&gradient),
            gq,
            gk,
            gv,
        );
        let [gq, gk, gv] = gradients;
        let (query_shape, key_shape) = (flex::dims::<3>(&qkv[0]), flex::dims::<3>(&qkv[1]));
        [
            flex::tensor(gq, query_shape),
            flex::tensor(gk, key_shape),
            flex::tensor(gv, key_shape),
        ]
    }
}
