//! A1111's names of what enlarges a picture between its two passes.

use crate::options::UpscaleBy;

/// Ours and theirs; of several the first is written. What else differs in theirs differs in making pictures smaller alone.
const NAMES: [(UpscaleBy, &str); 6] = [
    (UpscaleBy::Lanczos, "Lanczos"),
    (UpscaleBy::Latent, "Latent"),
    (UpscaleBy::Latent, "Latent (antialiased)"),
    (UpscaleBy::LatentBicubic, "Latent (bicubic)"),
    (UpscaleBy::LatentNearest, "Latent (nearest)"),
    (UpscaleBy::LatentNearest, "Latent (nearest-exact)"),
];

/// What they call one of ours.
pub(super) fn written(by: UpscaleBy) -> &'static str {
    NAMES
        .iter()
        .find(|(ours, _)| *ours == by)
        .map_or("Lanczos", |(_, theirs)| theirs)
}

/// What A1111 calls `name`, in whatever case, of the ways to enlarge a picture between two passes; `None` for those that are not here.
pub fn upscaler_of_a1111(name: &str) -> Option<UpscaleBy> {
    NAMES
        .iter()
        .find(|(_, theirs)| theirs.eq_ignore_ascii_case(name))
        .map(|(ours, _)| *ours)
}
