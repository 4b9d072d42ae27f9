//! What a request means: everything in it checked against the model and the limits, before it waits.

use langevin::{
    Request, Size,
    generate::{Aids, Plan},
    pipelines::Sampling,
    settings::ModelName,
};

use crate::{
    bounds, controls,
    models::{Model, Models},
    options::ServerOptions,
    pictures,
    refusal::Refusal,
    request::GenerateRequest,
};

/// Moments of the denoising that are shown where nobody says.
const USUAL_PREVIEWS: usize = 24;

/// Pictures to be drawn.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// The model's number.
    pub model: usize,
    pub plan: Plan,
    pub count: usize,
    pub size: Size,
    /// The classes that the pictures take turns in; none for an unconditional model.
    classes: Vec<i64>,
    pub previews: usize,
}

impl Order {
    /// What a request means on a server with these models. It decodes pictures and begins a loop, so it is work for a thread
    /// that may block.
    ///
    /// # Errors
    /// If it asks for more than the limits, or for what the model cannot do.
    pub(crate) fn of(
        asked: &GenerateRequest,
        models: &Models,
        options: &ServerOptions,
    ) -> Result<Self, Refusal> {
        bounds::check_texts(asked, options.limits.text)?;
        let number = match &asked.model {
            None => 0,
            Some(name) => models.find(name).ok_or_else(|| unknown_model(name, models))?,
        };
        let model = models
            .get(number)
            .ok_or_else(|| Refusal::unprocessable("this server has no model"))?;
        let mut request = asked.request.clone();
        // So that a sampler that is not there is found out before the rest.
        model.sampler(request.scheduler.as_deref())?;
        let count = request.count.unwrap_or(1);
        request.count = Some(count);
        bounds::check(asked, count, model, options)?;
        check_guides(&request, options)?;
        pictures::decode(&mut request, options)?;
        bounds::check_decoded(&request, count, model, options)?;
        if request.class.is_empty() {
            request.class = model.pipeline.every_class();
        }
        request.cuts = options.cuts;
        let classes = request
            .class
            .iter()
            .map(|class| model.pipeline.class_number(class));
        let classes = classes.collect::<langevin::Result<_>>()?;
        // What cannot be begun is refused now and not when its turn has come.
        let load_control = |name: &str| match &options.controls {
            Some(controls) => controls.get(name),
            None => Err(controls::unknown(name)),
        };
        let aids = Aids {
            clip: options.clip.clone(),
            controls: &load_control,
        };
        let plan = Plan::with(&model.pipeline, &request, aids)?;
        // Where nobody said how many, the model's class or the sampler did.
        if plan.steps() > options.limits.steps {
            return Err(Refusal::beyond(
                "steps",
                plan.steps(),
                options.limits.steps as u64,
            ));
        }
        Ok(Self {
            model: number,
            plan,
            count,
            size: bounds::drawn(&request, model),
            classes,
            previews: asked.previews.unwrap_or(USUAL_PREVIEWS),
        })
    }

    /// The loop that draws picture `number` of the order, with a generator of its own.
    pub(crate) fn start<'m>(&self, model: &'m Model, number: usize) -> langevin::Result<Sampling<'m>> {
        self.plan.picture(&model.pipeline, number)
    }

    /// The seed of a picture of the order.
    pub(crate) fn seed_of(&self, number: usize) -> u64 {
        self.plan.seed_of(number)
    }

    /// The name of a picture's class.
    pub(crate) fn class_name(&self, model: &Model, number: usize) -> Option<String> {
        let class = *self.classes.get(number % self.classes.len().max(1))?;
        let class = usize::try_from(class).ok()?;
        let classes = model.pipeline.known_classes()?;
        let is_null = classes.null_class == Some(class);
        classes
            .names
            .get(class)
            .cloned()
            .or_else(|| is_null.then(|| "none".into()))
    }

    /// What the file of a picture says about how it was drawn.
    pub(crate) fn texts(&self, model: &Model, number: usize) -> Vec<(&'static str, String)> {
        let mut texts = self.plan.facts(&model.name, Some(number));
        texts.extend(self.plan.settings(&ModelName::of(&model.name), Some(number)));
        if let Some(class) = self.class_name(model, number) {
            texts.push(("class", class));
        }
        texts
    }
}

pub(crate) fn unknown_model(name: &str, models: &Models) -> Refusal {
    let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
    Refusal::unprocessable(format!(
        "there is no model `{name}` on this server; there are {}",
        names.join(", ")
    ))
}

/// Refuses guides that name a file of this machine, or need what the server was not started with.
fn check_guides(request: &Request, options: &ServerOptions) -> Result<(), Refusal> {
    for guide in &request.guide {
        if guide.names_a_file() {
            return Err(Refusal::unprocessable(format!(
                "`{guide}` names a file, and a request may not; colour, brightness, symmetry and clip can guide here"
            )));
        }
        if guide.needs_clip() && options.clip.is_none() {
            return Err(Refusal::unprocessable(format!(
                "`{guide}` needs CLIP, which this server was not started with (--clip)"
            )));
        }
    }
    Ok(())
}
