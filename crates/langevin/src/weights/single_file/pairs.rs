//! Two names for the same layers: those of the program that a model was trained with, and diffusers'.

use std::collections::HashMap;

/// What parts of a layer are called, originally and now; a part that is not in it has one name.
pub(super) type Inner = &'static [(&'static str, &'static str)];

/// A layer's original name, its present one, and what is called otherwise inside of it.
pub(super) struct Pair {
    pub original: String,
    pub present: String,
    pub inner: Inner,
}

impl Pair {
    /// A pair of names.
    pub(super) fn new(original: impl Into<String>, present: impl Into<String>, inner: Inner) -> Self {
        Self {
            original: original.into(),
            present: present.into(),
            inner,
        }
    }
}

/// Gives names of the one kind those of the other.
pub(super) struct Translator {
    layers: HashMap<String, (String, Inner)>,
    to_present: bool,
}

impl Translator {
    /// From original names to present ones.
    pub(super) fn to_present(pairs: Vec<Pair>) -> Self {
        let layer = |pair: Pair| (pair.original, (pair.present, pair.inner));
        Self {
            layers: pairs.into_iter().map(layer).collect(),
            to_present: true,
        }
    }

    /// From present names to original ones.
    pub(super) fn to_original(pairs: Vec<Pair>) -> Self {
        let layer = |pair: Pair| (pair.present, (pair.original, pair.inner));
        Self {
            layers: pairs.into_iter().map(layer).collect(),
            to_present: false,
        }
    }

    /// The other name of a parameter; `None` where it is of no known layer.
    pub(super) fn name(&self, name: &str) -> Option<String> {
        let ends = name.match_indices('.').map(|(at, _)| at);
        // The longest first: `label_emb` and `label_emb.0.0` are different layers.
        let mut ends: Vec<usize> = ends.take(6).collect();
        ends.reverse();
        let (end, (layer, inner)) = ends
            .into_iter()
            .find_map(|end| Some((end, self.layers.get(&name[..end])?)))?;
        let rest = &name[end + 1..];
        let (part, parameter) = rest.rsplit_once('.').unwrap_or(("", rest));
        let other = inner.iter().find_map(|(original, present)| {
            let (from, to) = if self.to_present {
                (original, present)
            } else {
                (present, original)
            };
            (*from == part).then_some(*to)
        });
        Some(match other.unwrap_or(part) {
            "" => format!("{layer}.{parameter}"),
            part => format!("{layer}.{part}.{parameter}"),
        })
    }
}
