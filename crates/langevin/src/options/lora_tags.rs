//! LoRA named in a prompt, as A1111 has them: `<lora:NAME:SCALE>`.

use crate::{Error, Result, weights::lora::LoraScale};

/// A LoRA that a prompt names.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraTag {
    /// Its name: that of a file in a folder of them, without the extension.
    pub name: String,
    /// How strongly it is applied.
    pub scale: LoraScale,
}

/// What such a tag begins with. A1111 has the second one for LyCORIS' files.
const BEGINNINGS: [&str; 2] = ["<lora:", "<lyco:"];

/// Takes the LoRA that a prompt names out of it: `<lora:NAME>`, `<lora:NAME:SCALE>`, `<lora:NAME:TEXT SCALE:UNET SCALE>`, where `te=` and `unet=`
/// may stand before a scale. The rest of the prompt stays as it is. They are to be taken before anything else reads the prompt.
///
/// ```
/// use langevin::options::take_loras;
///
/// let (prompt, loras) = take_loras("a house, <lora:pixel-art:0.8> (snow:1.2)")?;
/// assert_eq!(prompt, "a house,  (snow:1.2)");
/// assert_eq!((loras[0].name.as_str(), &loras[0].scale), ("pixel-art", &0.8.into()));
/// # Ok::<(), langevin::Error>(())
/// ```
///
/// # Errors
/// If a tag has no end or no name, or a scale that is no finite number.
pub fn take_loras(prompt: &str) -> Result<(String, Vec<LoraTag>)> {
    let (mut rest, mut kept, mut tags) = (prompt, String::new(), Vec::new());
    while let Some(start) = beginning_in(rest) {
        let wrong = |why: &str| {
            Error::option(
                &["prompt"],
                format!("`prompt` holds `{}`, {why}", beginning(&rest[start..])),
            )
        };
        let inside = &rest[start + BEGINNINGS[0].len()..];
        let (tag, after) = inside
            .split_once('>')
            .ok_or_else(|| wrong("which does not end in `>`"))?;
        tags.push(tag_of(tag).map_err(|why| wrong(&why))?);
        kept.push_str(&rest[..start]);
        rest = after;
    }
    kept.push_str(rest);
    Ok((kept, tags))
}

/// Where the first tag of a text begins.
fn beginning_in(text: &str) -> Option<usize> {
    let mut places = text.match_indices('<').map(|(place, _)| place);
    places.find(|place| BEGINNINGS.iter().any(|begin| text[*place..].starts_with(begin)))
}

/// Whether a prompt names a LoRA.
pub(crate) fn names_lora(prompt: &str) -> bool {
    beginning_in(prompt).is_some()
}

/// What stands between a tag's beginning and its end. The error is a part of a sentence.
fn tag_of(tag: &str) -> Result<LoraTag, String> {
    let mut words = tag.split(':');
    let name = words.next().unwrap_or_default().trim();
    if name.is_empty() {
        return Err("which names no LoRA".into());
    }
    let (mut text, mut unet, mut place) = (None, None, 0);
    for word in words {
        let (key, number) = match word.split_once('=') {
            Some((key, number)) => (key.trim(), number),
            None => {
                place += 1;
                let key = *["te", "unet"].get(place - 1).unwrap_or(&"");
                (key, word)
            }
        };
        let scale = number
            .trim()
            .parse::<f64>()
            .ok()
            .filter(|scale| scale.is_finite());
        let scale = scale.ok_or_else(|| format!("where `{word}` is no finite number"))?;
        match key {
            "te" => text = Some(scale),
            "unet" => unet = Some(scale),
            _ => {
                return Err(format!(
                    "where `{word}` has no meaning: a LoRA has a scale, or one for texts (te) and one for the UNet (unet)"
                ));
            }
        }
    }
    // As in A1111, the first scale holds for both where there is no other.
    let text = text.unwrap_or(1.0);
    let unet = unet.unwrap_or(text);
    let mut scale = LoraScale::from(unet);
    if (text - unet).abs() > 0.0 {
        scale = scale.with("text_encoder", text).with("text_encoder_2", text);
    }
    Ok(LoraTag {
        name: name.into(),
        scale,
    })
}

/// The beginning of a text that may be long.
fn beginning(text: &str) -> String {
    const SHOWN: usize = 60;
    let shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        format!("{shown}…")
    } else {
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_taken_and_everything_else_stays() {
        let (prompt, tags) =
            take_loras("<lora:a b>x <lyco:c:-0.5> [y:<lora:d:te=0.2:unet=0.7>:3] <e> <lora:f:1:0>").unwrap();
        assert_eq!(prompt, "x  [y::3] <e> ");
        let scales: Vec<(&str, String)> = tags
            .iter()
            .map(|tag| (tag.name.as_str(), tag.scale.to_string()))
            .collect();
        let of = |text: &str| text.to_string();
        assert_eq!(
            scales,
            [
                ("a b", of("1")),
                ("c", of("-0.5")),
                ("d", of("0.7 (text_encoder 0.2, text_encoder_2 0.2)")),
                ("f", of("0 (text_encoder 1, text_encoder_2 1)")),
            ]
        );
        assert_eq!(
            take_loras("plain <text>").unwrap(),
            ("plain <text>".into(), Vec::new())
        );
    }

    #[test]
    fn what_is_no_tag_is_said() {
        for (prompt, why) in [
            ("<lora:a", "end in"),
            ("<lora::1>", "names no"),
            ("<lora:a:x>", "`x` is no finite"),
            ("<lora:a:nan>", "`nan` is no finite"),
            ("<lora:a:1:1:8>", "no meaning"),
            ("<lora:a:dyn=8>", "no meaning"),
        ] {
            let error = take_loras(prompt).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("`prompt`"), "{error}");
        }
    }
}
