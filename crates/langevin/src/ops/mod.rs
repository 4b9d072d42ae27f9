//! Fused differentiable operations over Burn tensors, channels last.
