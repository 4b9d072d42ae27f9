//! What the names of weights' files say: whose they are, their format, their version, and whether they are one of several files.

/// The names that weights begin with, by library, in the order in which they are looked for in a folder.
const STEMS: [(Library, &str); 5] = [
    (Library::Diffusers, "diffusion_pytorch_model"),
    (Library::Transformers, "model"),
    (Library::Transformers, "pytorch_model"),
    (Library::OpenClip, "open_clip_model"),
    (Library::OpenClip, "open_clip_pytorch_model"),
];

/// The library that writes such files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Library {
    Diffusers,
    Transformers,
    OpenClip,
}

/// What a name says. Files of which it says the same belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Weights<'a> {
    library: Library,
    /// Such as `fp16`.
    pub variant: Option<&'a str>,
    pickle: bool,
    stem: &'a str,
    /// Whether it is a shard or the index of shards.
    whole: bool,
}

impl<'a> Weights<'a> {
    /// What a file's name says; `None` where it is not one of weights.
    pub(crate) fn of(name: &'a str) -> Option<Self> {
        let (head, rest) = name.split_once('.')?;
        let (stem, is_shard) = without_shard(head);
        let words: Vec<&str> = rest.split('.').collect();
        let (format, variant, whole) = match words.as_slice() {
            [format] => (*format, None, !is_shard),
            [variant, format] => {
                let (variant, is_shard_of_variant) = without_shard(variant);
                (*format, Some(variant), !is_shard && !is_shard_of_variant)
            }
            [format, "index", "json"] => (*format, None, false),
            [format, "index", variant, "json"] | [format, variant, "index", "json"] => {
                (*format, Some(*variant), false)
            }
            _ => return None,
        };
        let (library, known) = STEMS.into_iter().find(|(_, known)| *known == stem)?;
        let pickle = match format {
            "safetensors" => false,
            "bin" => true,
            _ => return None,
        };
        // Transformers calls pickles `pytorch_model` and nothing else so.
        let is_possible = match known {
            "model" | "open_clip_model" => !pickle,
            "pytorch_model" => pickle,
            _ => true,
        };
        is_possible.then_some(Self {
            library,
            variant,
            pickle,
            stem,
            whole,
        })
    }
}

/// A name without `-00001-of-00002` at its end.
fn without_shard(name: &str) -> (&str, bool) {
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    let parts = name
        .rsplit_once("-of-")
        .filter(|(_, count)| is_number(count))
        .and_then(|(rest, _)| rest.rsplit_once('-'))
        .filter(|(_, number)| is_number(number));
    parts.map_or((name, false), |(stem, _)| (stem, true))
}

/// The weights of a folder to use: of the first library that has any, the variant that is asked for, else the plain ones, else the
/// first variant; safetensors before pickles, several files before one.
pub(crate) fn best<'a>(known: &[(Weights<'a>, &str)], variant: Option<&str>) -> Option<Weights<'a>> {
    let rank = |weights: &Weights<'a>| match weights.variant {
        found if found.is_some() && found == variant => 0,
        None => 1,
        Some(_) => 2,
    };
    // An index without its shards, or shards without an index, would be of no use.
    let is_usable = |weights: &Weights| {
        let same = known.iter().filter(|(other, _)| other == weights);
        weights.whole || {
            let names: Vec<&str> = same.map(|(_, name)| *name).collect();
            let indices = names.iter().filter(|name| name.ends_with(".json")).count();
            indices > 0 && names.len() > indices
        }
    };
    let all = known.iter().map(|(weights, _)| *weights);
    all.filter(is_usable).min_by_key(|weights| {
        (
            weights.library,
            rank(weights),
            weights.variant,
            weights.pickle,
            weights.whole,
            weights.stem,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_format_variant_and_shards() {
        let read = |name| Weights::of(name).map(|w| (w.library, w.variant, w.pickle, w.whole));
        use Library::{Diffusers, OpenClip, Transformers};
        for (name, expected) in [
            ("diffusion_pytorch_model.bin", Some((Diffusers, None, true, true))),
            (
                "diffusion_pytorch_model.fp16.safetensors",
                Some((Diffusers, Some("fp16"), false, true)),
            ),
            (
                "diffusion_pytorch_model-00001-of-00002.safetensors",
                Some((Diffusers, None, false, false)),
            ),
            (
                "model.fp16-00001-of-00002.safetensors",
                Some((Transformers, Some("fp16"), false, false)),
            ),
            (
                "model.safetensors.index.fp16.json",
                Some((Transformers, Some("fp16"), false, false)),
            ),
            (
                "pytorch_model.bin.index.json",
                Some((Transformers, None, true, false)),
            ),
            ("open_clip_pytorch_model.bin", Some((OpenClip, None, true, true))),
            ("model.bin", None),
            ("pytorch_model.safetensors", None),
            ("model.onnx", None),
            ("flax_model.msgpack", None),
            ("lora.safetensors", None),
            ("config.json", None),
        ] {
            assert_eq!(read(name), expected, "{name}");
        }
    }

    #[test]
    fn an_index_without_shards_is_passed_over() {
        let names = ["model.safetensors.index.json", "pytorch_model.bin"];
        let known: Vec<(Weights, &str)> = names
            .iter()
            .map(|name| (Weights::of(name).unwrap(), *name))
            .collect();
        assert_eq!(best(&known, None), Weights::of("pytorch_model.bin"));
    }
}
