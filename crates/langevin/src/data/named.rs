//! What a card in a README.md says of a folder of pictures: which of them a configuration and a split are made of.

use super::{OpenOptions, store::Listing};

/// Keeps of a listing what the text of a card names, with the metadata above it; whether the card names the files of the split itself, so
/// that folders' names no longer decide. Without the feature `parquet`, cards are not read.
///
/// # Errors
/// The part of a sentence that follows the repository's name, if there is no such configuration or split.
#[cfg(feature = "parquet")]
pub(super) fn keep_named(
    listing: &mut Listing,
    card: &str,
    options: &OpenOptions,
) -> Result<Option<bool>, String> {
    use std::{
        collections::HashSet,
        path::{Path, PathBuf},
    };

    use super::parquet::{layout::Named, named_by};

    let all = [&listing.pictures, &listing.tars, &listing.metadata];
    let all: Vec<PathBuf> = all.into_iter().flatten().cloned().collect();
    let Some(named) = named_by(&all, card, options)? else {
        return Ok(None);
    };
    let is_split = matches!(named, Named::Files(_));
    let files: HashSet<PathBuf> = match named {
        Named::Folder(folder) => all.into_iter().filter(|path| path.starts_with(&folder)).collect(),
        Named::Files(files) => files.into_iter().collect(),
    };
    let before = listing.pictures.len() + listing.tars.len();
    listing.pictures.retain(|path| files.contains(path));
    listing.tars.retain(|path| files.contains(path));
    listing.unnamed = before - listing.pictures.len() - listing.tars.len();
    let folders: HashSet<&Path> = listing
        .pictures
        .iter()
        .flat_map(|path| path.ancestors().skip(1))
        .collect();
    listing
        .metadata
        .retain(|path| files.contains(path) || path.parent().is_some_and(|folder| folders.contains(folder)));
    Ok(Some(is_split))
}

#[cfg(not(feature = "parquet"))]
pub(super) fn keep_named(_: &mut Listing, _: &str, _: &OpenOptions) -> Result<Option<bool>, String> {
    Ok(None)
}
