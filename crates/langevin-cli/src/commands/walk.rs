//! The way between a picture and the noise it comes from, which `invert`, `edit` and `interpolate` go.

use anyhow::{Result, bail};
use burn::tensor::Tensor;
use langevin::{
    Pipeline, Request,
    codec::Codec,
    generate::{Inversion, Plan},
    pipelines::Sampling,
    random::Generator,
};

use crate::{progress::Progress, stop::Stop};

/// One of what was given for each picture; nothing where nothing was.
pub(crate) fn one_each<T: Clone>(what: &str, given: Vec<T>, pictures: usize) -> Result<Vec<T>> {
    if matches!(given.len(), 0 | 1) || given.len() == pictures {
        return Ok(given);
    }
    bail!(
        "{} {what} were given for {pictures} pictures; one for all or one each is right",
        given.len()
    )
}

/// Walks `pipeline`'s loop as `request` says, from `sample` at step `from` up to step `to`, or to its end.
fn walk(
    request: &Request,
    pipeline: &Pipeline,
    sample: &Tensor<4>,
    from: usize,
    to: Option<usize>,
    stop: &Stop,
) -> Result<Tensor<4>> {
    let [pictures, ..] = sample.dims();
    let request = Request {
        count: Some(pictures),
        batch_size: pictures,
        ..request.clone()
    };
    // The loops draw no noise, and what they would begin with is replaced.
    let mut unused = Generator::new(0);
    let sampling = Plan::of(pipeline, &request)?.batch(pipeline, 0..pictures, &mut unused)?;
    if to == Some(from) || from == sampling.total() {
        return Ok(sample.clone());
    }
    let sampling = sampling.starting_at(sample.clone(), from)?;
    let walked = to.map_or(sampling.total(), |to| to - from);
    steps(sampling, walked, stop)
}

fn steps(mut sampling: Sampling<'_>, steps: usize, stop: &Stop) -> Result<Tensor<4>> {
    let mut bar = Progress::new("step", steps);
    while sampling.done() < steps {
        let Some(step) = sampling.next() else { break };
        step?;
        bar.update(sampling.done(), String::new);
        if stop.requested() {
            bail!("stopped before the end; nothing was written");
        }
    }
    if sampling.done() == sampling.total() {
        Ok(sampling.finish()?)
    } else {
        Ok(sampling.sample().clone())
    }
}

/// How far guidance goes on the way between a picture's latents and their noise where nobody says: the course's.
const USUAL_LATENT_SCALE: f64 = 3.5;

/// The way of one pipeline: of pictures by DDIM's own timesteps, of latents as the course goes it.
pub(crate) struct Way<'a> {
    pipeline: &'a Pipeline,
    steps: usize,
    stop: &'a Stop,
}

impl<'a> Way<'a> {
    /// In so many steps.
    pub(crate) fn new(pipeline: &'a Pipeline, steps: usize, stop: &'a Stop) -> Self {
        Self {
            pipeline,
            steps,
            stop,
        }
    }

    fn is_latent(&self) -> bool {
        self.pipeline.codec().is_latent()
    }

    /// A request in so many steps, and of latents with the usual guidance where it names none.
    fn request(&self, request: &Request) -> Request {
        let mut request = Request {
            steps: Some(self.steps),
            ..request.clone()
        };
        if self.is_latent() {
            request.guidance.scale = request.guidance.scale.or(Some(USUAL_LATENT_SCALE));
        }
        request
    }

    /// Pictures as the model has them.
    pub(crate) fn encode(&self, pictures: Tensor<4>) -> Result<Tensor<4>> {
        let codec = self.pipeline.codec();
        Ok(codec.scale(codec.encode(pictures)?.mode()))
    }

    /// What the model has as pictures.
    pub(crate) fn decode(&self, samples: Tensor<4>) -> Result<Tensor<4>> {
        Ok(self.pipeline.codec().decode(samples)?)
    }

    /// What the drawing's step `start` begins with so that the samples come out.
    pub(crate) fn invert(&self, request: &Request, samples: Tensor<4>, start: usize) -> Result<Tensor<4>> {
        let request = self.request(request);
        if !self.is_latent() {
            // The step that ends where drawing's step `start` begins is the one before as many as are left out.
            let inverse = self.pipeline.clone().inverse()?;
            return walk(
                &request,
                &inverse,
                &samples,
                0,
                Some(self.steps - start),
                self.stop,
            );
        }
        let inversion = Inversion::new(self.pipeline, self.steps)?;
        let mut watched = Watched::new(self.steps, self.stop);
        let inverted = inversion.invert(&request, samples, &mut |done| watched.update(done))?;
        Ok(Inversion::beginning(&stopped(inverted)?, start)?)
    }

    /// The samples after the steps from `from` up to `to`, or to the end.
    pub(crate) fn draw(
        &self,
        request: &Request,
        samples: &Tensor<4>,
        from: usize,
        to: Option<usize>,
    ) -> Result<Tensor<4>> {
        let request = self.request(request);
        if !self.is_latent() {
            let ddim = self.pipeline.clone().unbounded_ddim()?;
            return walk(&request, &ddim, samples, from, to, self.stop);
        }
        let walked = to.unwrap_or(self.steps).saturating_sub(from);
        if walked == 0 {
            return Ok(samples.clone());
        }
        let inversion = Inversion::new(self.pipeline, self.steps)?;
        let mut watched = Watched::new(walked, self.stop);
        // No further than is asked for.
        let drawn = inversion.draw(&request, samples.clone(), from, walked, &mut |done| {
            watched.update(done)
        })?;
        match stopped(drawn)?.pop() {
            Some(last) => Ok(last),
            None => Ok(samples.clone()),
        }
    }
}

/// A progress bar, and Ctrl-C.
struct Watched<'a> {
    bar: Progress,
    stop: &'a Stop,
}

impl<'a> Watched<'a> {
    fn new(steps: usize, stop: &'a Stop) -> Self {
        Self {
            bar: Progress::new("step", steps),
            stop,
        }
    }

    fn update(&mut self, done: usize) -> bool {
        self.bar.update(done, String::new);
        !self.stop.requested()
    }
}

fn stopped<T>(walked: Option<T>) -> Result<T> {
    match walked {
        Some(walked) => Ok(walked),
        None => bail!("stopped before the end; nothing was written"),
    }
}
