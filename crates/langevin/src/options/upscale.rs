//! A second pass at a larger size.

use crate::named::named_enum;

named_enum! {
    /// How pictures come to the size of the second pass.
    pub enum UpscaleBy: "a way to enlarge pictures" {
        /// As pictures, by Lanczos's filter.
        Lanczos = "lanczos",
        /// As latents, along straight lines between their pixels.
        Latent = "latent",
        /// As latents, by cubic curves.
        LatentBicubic = "latent-bicubic",
        /// As latents, each pixel so many times.
        LatentNearest = "latent-nearest",
    }
}
