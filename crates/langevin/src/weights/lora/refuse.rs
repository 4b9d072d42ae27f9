//! What is said of a file that is refused whole.

use std::borrow::Cow;

use crate::{
    Error,
    weights::{
        Checkpoint,
        single_file::{Kind, SingleFile},
    },
};

/// How long the vectors are that known models look at.
const CONTEXTS: [(usize, &str); 4] = [
    (768, "Stable Diffusion 1"),
    (1024, "Stable Diffusion 2"),
    (1280, "the refiner of Stable Diffusion XL"),
    (2048, "Stable Diffusion XL"),
];

/// The error of a file in which no name is that of a LoRA.
pub(super) fn not_a_lora(file: &Checkpoint) -> Error {
    let has = |name: &str| file.names().any(|known| known.contains(name));
    let kind = SingleFile::open(file.path()).ok().map(|file| file.kind());
    let is_control = matches!(kind, Some(Kind::ControlNet | Kind::ControlNetXl)) || has("lora_controlnet");
    let message = if is_control {
        "is a ControlNet, not a LoRA".to_string()
    } else if let Some(kind) = kind {
        format!("is a whole model (of the kind {kind}), not a LoRA: name it as the model itself")
    } else if ["emb_params", "string_to_param", "clip_l", "clip_g"]
        .iter()
        .any(|name| file.names().any(|known| known == *name))
    {
        "is an embedding (textual inversion), not a LoRA".into()
    } else if has(".oft_blocks") || has(".oft_diag") || has(".on_input") || has("glora") || has(".a1.weight")
    {
        "holds changes of a kind that is not there yet (OFT, IA3 or GLoRA); LoRA, LoCon, LoHa, LoKr, DoRA and whole differences are".into()
    } else {
        let first = file.names().next().map_or_else(
            || "it is empty".into(),
            |name| Cow::from(format!("the first name in it is `{}`", shortened(name))),
        );
        format!("holds no LoRA of a style that is known here: {first}")
    };
    Error::file(file.path(), message)
}

/// The error of a file whose text is not as wide as the model's.
pub(super) fn other_base(file: &Checkpoint, theirs: usize, ours: usize) -> Error {
    let of = |width: usize| {
        let known = CONTEXTS.iter().find(|(context, _)| *context == width);
        known.map_or_else(String::new, |(_, name)| format!(", as {name} does"))
    };
    let message = format!(
        "is a LoRA for another base model: its own looks at texts as vectors of {theirs} numbers{}, and this one at vectors of {ours}{}",
        of(theirs),
        of(ours)
    );
    Error::file(file.path(), message)
}

/// The error of a file of which nothing fits.
pub(super) fn fits_nowhere(file: &Checkpoint, modules: usize, misfits: &[String]) -> Error {
    let said = file
        .metadata("ss_base_model_version")
        .or_else(|| file.metadata("modelspec.architecture"));
    let base = said.map_or_else(String::new, |base| {
        format!("; its header says that it is for `{}`", shortened(&base))
    });
    let first = misfits.first().map_or("nothing", String::as_str);
    let message = format!(
        "fits nowhere in this model, so it is for another one: of its {modules} modules none does ({}){base}",
        shortened(first)
    );
    Error::file(file.path(), message)
}

/// A text of a file, which may be of any length and hold anything.
pub(super) fn shortened(text: &str) -> String {
    const LONGEST: usize = 160;
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let short: String = plain.clone().take(LONGEST).collect();
    match plain.count() {
        0..=LONGEST => short,
        _ => format!("{short}…"),
    }
}
