//! The LoRA of a request: which files they mean, and what lies beside the model's weights because of them.

use std::borrow::Cow;

use crate::{
    Error, Request, Result,
    conditioning::Pair,
    nn::{Lent, LentRows, Strength, lending},
    options::LoraInput,
    pipelines::{LentLora, Pipeline},
    weights::lora::LoraScale,
};

/// Loads the LoRA that a request calls so, for the pipeline that it is drawn with.
pub type LoraLoader<'a> = &'a dyn Fn(&str) -> Result<LentLora>;

/// The error where a name means nothing.
pub(super) fn unknown(name: &str) -> Error {
    Error::option(&["loras"], format!("there is no LoRA `{name}`"))
}

/// The LoRA of a request, in its order, and how strongly each is applied.
pub(super) struct Loras(Vec<(LentLora, LoraScale)>);

impl Loras {
    /// Those that the request names; each is loaded once.
    ///
    /// # Errors
    /// If there is none of a name, one does not fit the model, or a scale is no finite number.
    pub(super) fn of(request: &Request, load: LoraLoader<'_>) -> Result<Self> {
        let one = |input: &LoraInput| {
            let scale = input.scales();
            if let Some(number) = scale.numbers().find(|number| !number.is_finite()) {
                return Err(Error::option(
                    &["loras"],
                    format!("`loras` has the scale {number}: it must be a finite number"),
                ));
            }
            Ok((load(&input.name)?, scale))
        };
        request.loras.iter().map(one).collect::<Result<_>>().map(Self)
    }

    /// The pipeline as it is drawn with them.
    ///
    /// # Errors
    /// If one was loaded for another pipeline.
    pub(super) fn on<'p>(&self, pipeline: &'p Pipeline) -> Result<Cow<'p, Pipeline>> {
        match self.0.as_slice() {
            [] => Ok(Cow::Borrowed(pipeline)),
            lent => pipeline.with_lent(lent).map(Cow::Owned),
        }
    }

    /// Encodes texts with what lies beside the text encoders.
    pub(super) fn encoding<R>(&self, encode: impl FnOnce() -> R) -> R {
        // In the order of their names, as beside the UNet.
        let mut lent: Vec<Lent> = Vec::with_capacity(self.0.len());
        for (lora, scale) in &self.0 {
            let (adapters, strength) = lora.on_texts(scale);
            lent.push(Lent {
                adapters,
                strength: Strength::Even(strength),
            });
        }
        lent.sort_by(|a, b| a.adapters.key().cmp(b.adapters.key()));
        lending(lent, encode)
    }

    /// Lets them lie beside the UNet, in each row of what pictures are drawn with.
    pub(super) fn put_into(&self, pair: &mut Pair, rows: usize) {
        if self.0.is_empty() {
            return;
        }
        let lent = LentRows::even(self.0.iter().map(|(lora, scale)| lora.on_unet(scale)), rows);
        let also = pair.parts.iter_mut().flat_map(|parts| &mut parts.also);
        for told in [&mut pair.towards, &mut pair.away]
            .into_iter()
            .chain(&mut pair.between)
            .chain(also)
        {
            told.lent = Some(lent.clone());
        }
    }

    /// What of their files does not fit the model, in a line each.
    pub(super) fn notices(&self) -> impl Iterator<Item = String> {
        self.0.iter().filter_map(|(lora, _)| lora.notice())
    }
}
