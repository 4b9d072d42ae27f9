//! What a data set's examples are: pictures, or sounds that pictures are made of.

use std::{fmt::Debug, path::Path, sync::Arc};

use super::{
    Picture,
    decode::is_picture_name,
    sound::{SoundReader, is_sound_name},
    store::Listing,
};
use crate::{Error, Result, random::Generator};

/// Makes pictures of sounds, slice by slice.
pub trait Hear: Debug + Send + Sync {
    /// Samples a second, as it wants them.
    fn rate(&self) -> u32;

    /// How many samples a picture shows.
    fn slice_samples(&self) -> usize;

    /// How many pictures so many samples make, one at least.
    fn slices(&self, samples: u64) -> u64;

    /// The picture of samples, which silence fills up where they are too few.
    ///
    /// # Errors
    /// If one of them is not a number.
    fn hear(&self, samples: &[f32]) -> Result<Picture>;

    /// What all pictures follow from, besides the sounds.
    fn described(&self) -> String;
}

/// What a data set is read as.
#[derive(Clone, Debug, Default)]
pub enum Medium {
    /// Pictures, where nothing but these could be meant.
    #[default]
    Unsaid,
    /// Pictures.
    Pictures,
    /// Sounds, as pictures.
    Sounds(Arc<dyn Hear>),
}

impl PartialEq for Medium {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sounds(one), Self::Sounds(other)) => one.described() == other.described(),
            (one, other) => std::mem::discriminant(one) == std::mem::discriminant(other),
        }
    }
}

impl Eq for Medium {}

impl Medium {
    /// Puts what is read among a listing's files in the place of its pictures.
    ///
    /// # Errors
    /// If it is not said, and could be either.
    pub(super) fn choose(&self, root: &Path, listing: &mut Listing) -> Result<()> {
        let (pictures, sounds) = (listing.pictures.len(), listing.sounds.len());
        let refused = |what: String| Err(Error::option(&["codec"], format!("{}: {what}", root.display())));
        // Beside tables, files are previews of what stands in these.
        let has_tables = !listing.parquet.is_empty();
        match self {
            Self::Unsaid if pictures > 0 && sounds > 0 && !has_tables => refused(format!(
                "holds {pictures} pictures and {sounds} sounds: say by `codec` which to read, pixels for the pictures or mel for the sounds"
            )),
            Self::Unsaid if sounds > 0 && listing.tars.is_empty() && !has_tables => refused(format!(
                "holds {sounds} sounds and no picture: `codec` mel makes spectrograms of them"
            )),
            Self::Unsaid | Self::Pictures => {
                listing.others.append(&mut listing.sounds);
                Ok(())
            }
            Self::Sounds(_) => {
                listing.others.append(&mut listing.pictures);
                listing.pictures.append(&mut listing.sounds);
                Ok(())
            }
        }
    }

    /// Whether a file of this name is read.
    pub(super) fn wants(&self, path: &Path) -> bool {
        match self {
            Self::Sounds(_) => is_sound_name(path),
            _ => is_picture_name(path),
        }
    }

    /// What the examples are called, one and several.
    pub(super) fn words(&self) -> (&'static str, &'static str) {
        match self {
            Self::Sounds(_) => ("sound", "sounds"),
            _ => ("picture", "pictures"),
        }
    }
}

/// The picture of a slice, or where a generator is given of a stretch that it places anywhere.
///
/// # Errors
/// If it cannot be read, or is silent: a spectrogram shows how loud a sound is beside its loudest, and of silence nothing.
pub(super) fn heard(
    hear: &dyn Hear,
    reader: &mut SoundReader,
    slice: u64,
    generator: Option<&mut Generator>,
    name: &Path,
) -> Result<Picture> {
    let size = hear.slice_samples() as u64;
    let spare = reader.len().saturating_sub(size);
    let from = match generator {
        Some(generator) if spare > 0 => {
            let most = i64::try_from(spare).unwrap_or(i64::MAX - 1);
            generator.randint(0, most + 1, 1)[0].unsigned_abs()
        }
        _ => slice * size,
    };
    let samples = reader.read(from, hear.slice_samples())?;
    if samples.iter().all(|sample| *sample == 0.0) {
        let at = from as f64 / f64::from(hear.rate());
        return Err(Error::file(
            name,
            format!("is silent from {at:.1} s on, where there is nothing to learn from"),
        ));
    }
    hear.hear(&samples)
        .map_err(|error| Error::file(name, error.to_string()))
}
