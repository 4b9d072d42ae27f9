//! PyTorch's CPU generator, bit for bit.

/// A source of random numbers that draws what `torch.Generator().manual_seed(seed)` draws on a CPU.
#[derive(Clone, Debug)]
pub struct Generator {}
