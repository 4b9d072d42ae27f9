//! Picture by picture, where a batch would take too much memory.

use burn::tensor::Tensor;

use crate::Result;

/// What `one` makes of each picture or latent of a batch alone, one after another, put together again: as much memory as for one. It is the
/// same to the bit as the batch at once. Mirrors `use_slicing` of diffusers' autoencoders.
///
/// ```no_run
/// # fn main() -> langevin::Result<()> {
/// # use langevin::{device::default_device, models::{AutoencoderKL, Model, autoencoder::one_by_one}};
/// # let vae = AutoencoderKL::load("vae", &default_device())?;
/// # let latents = burn::tensor::Tensor::<4>::zeros([8, 4, 64, 64], &default_device());
/// let pictures = one_by_one(latents, |latents| vae.decode(latents))?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As `one`.
pub fn one_by_one(x: Tensor<4>, mut one: impl FnMut(Tensor<4>) -> Result<Tensor<4>>) -> Result<Tensor<4>> {
    let [batch, ..] = x.dims();
    if batch <= 1 {
        return one(x);
    }
    let each = (0..batch).map(|picture| one(x.clone().narrow(0, picture, 1)));
    Ok(Tensor::cat(each.collect::<Result<_>>()?, 0))
}
