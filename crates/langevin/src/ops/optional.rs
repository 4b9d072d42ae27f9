//! An optional tensor that Burn can carry across its dispatch, which knows no `Option`.

use burn::backend::{Backend, Dispatch, ExtensionType, tensor::FloatTensor};
use burn::tensor::Tensor;

/// A tensor, or none.
#[derive(ExtensionType)]
pub(crate) enum Optional<B: Backend> {
    /// None.
    Absent,
    /// The tensor.
    Present(FloatTensor<B>),
}

impl<B: Backend> Optional<B> {
    /// As an [`Option`].
    pub(super) fn into_option(self) -> Option<FloatTensor<B>> {
        match self {
            Self::Absent => None,
            Self::Present(tensor) => Some(tensor),
        }
    }
}

impl<B: Backend> From<Option<FloatTensor<B>>> for Optional<B> {
    fn from(tensor: Option<FloatTensor<B>>) -> Self {
        tensor.map_or(Self::Absent, Self::Present)
    }
}

/// An optional public tensor on its way to the dispatch.
pub(super) fn dispatch<const D: usize>(tensor: Option<Tensor<D>>) -> Optional<Dispatch> {
    tensor.map_or(Optional::Absent, |t| Optional::Present(t.into_dispatch()))
}
