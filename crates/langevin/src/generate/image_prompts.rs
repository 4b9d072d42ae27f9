//! The picture prompts of a request: which IP-Adapters they mean, and what those make of their pictures.

use crate::{
    Error, Request, Result,
    conditioning::Pair,
    data::ImageInput,
    models::{AnyModelConfig, ImagePrompts, IpAdapterModel},
    options::IpAdapterInput,
    pipelines::Pipeline,
};

/// Loads the IP-Adapter that a request calls so, with what sees its pictures.
pub type IpAdapterLoader<'a> = &'a dyn Fn(&str) -> Result<IpAdapterModel>;

/// The error where a name means nothing.
pub(super) fn unknown(name: &str) -> Error {
    Error::option(&["ip_adapter"], format!("there is no IP-Adapter `{name}`"))
}

/// The adapters of a request, in its order.
pub(super) struct Adapters(Vec<IpAdapterModel>);

impl Adapters {
    /// Those that the request names; each is loaded once.
    ///
    /// # Errors
    /// If there is none of a name, or one is made for another model.
    pub(super) fn of(request: &Request, pipeline: &Pipeline, load: IpAdapterLoader<'_>) -> Result<Self> {
        if request.image_encoder.is_some() && request.ip_adapter.is_empty() {
            return Err(Error::option(
                &["image_encoder", "ip_adapter"],
                "`image_encoder` does nothing without `ip_adapter`",
            ));
        }
        let mut all = Vec::with_capacity(request.ip_adapter.len());
        for input in &request.ip_adapter {
            check(input)?;
            let model = load(&input.model)?;
            model.adapter.config().check_fits(&pipeline.model.config())?;
            all.push(model);
        }
        Ok(Self(all))
    }

    /// Lets a request's pictures lead beside its texts, one row per picture of `pair`.
    ///
    /// # Errors
    /// If a picture cannot be read, or a part that has a scale is no part of the model.
    pub(super) fn put_into(
        self,
        request: &Request,
        pipeline: &Pipeline,
        pair: &mut Pair,
        rows: usize,
    ) -> Result<()> {
        let AnyModelConfig::Condition(unet) = pipeline.model.config() else {
            return Ok(());
        };
        if self.0.is_empty() {
            return Ok(());
        }
        let attentions = unet.cross_attentions();
        let device = pipeline.model.device();
        let (mut towards, mut away) = (ImagePrompts::default(), ImagePrompts::default());
        for (input, model) in request.ip_adapter.iter().zip(self.0) {
            let is_part = |part: &&String| {
                let own = IpAdapterInput {
                    scale: 0.0,
                    parts: [((*part).clone(), 1.0)].into(),
                    ..IpAdapterInput::new("", input.picture.clone())
                };
                attentions
                    .iter()
                    .flatten()
                    .all(|attention| own.scale_in(&attention.path) == 0.0)
            };
            if let Some(part) = input.parts.keys().find(is_part) {
                let paths: Vec<&str> = attentions.iter().flatten().map(|one| one.path.as_str()).collect();
                return Err(Error::option(
                    &["ip_adapter"],
                    format!(
                        "`ip_adapter` has a scale for `{part}`, where the model has no cross-attention; it has {}",
                        paths.join(", ")
                    ),
                ));
            }
            let pictures = model.encoder.prepare(&input.picture.read_all()?, &device)?;
            let seen = model.adapter.see(&model.encoder, pictures)?;
            let scale =
                |attention: &crate::models::unet2d_condition::CrossAttention| input.scale_in(&attention.path);
            towards = towards.and(model.adapter.prompts(seen.towards, &attentions, scale)?)?;
            away = away.and(model.adapter.prompts(seen.away, &attentions, scale)?)?;
        }
        let (towards, away) = (towards.repeated(rows), away.repeated(rows));
        if let Some(between) = &mut pair.between {
            // What is shown of a picture without a text is shown without these too.
            between.images = Some(away.clone());
        }
        for also in pair.parts.iter_mut().flat_map(|parts| &mut parts.also) {
            also.images = Some(towards.clone());
        }
        pair.towards.images = Some(towards);
        pair.away.images = Some(away);
        Ok(())
    }
}

fn check(input: &IpAdapterInput) -> Result<()> {
    let mut numbers = input.parts.values().chain([&input.scale]);
    if let Some(number) = numbers.find(|number| !number.is_finite()) {
        return Err(Error::option(
            &["ip_adapter"],
            format!("`ip_adapter` has a scale of {number}: it must be a finite number"),
        ));
    }
    if matches!(input.picture, ImageInput::Tensor(_)) {
        return Err(Error::option(
            &["ip_adapter"],
            "`ip_adapter` is shown pictures of 8 bits, and not a tensor",
        ));
    }
    Ok(())
}
