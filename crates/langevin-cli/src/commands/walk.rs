//! The way between a picture and the noise it comes from, which `invert`, `edit` and `interpolate` go.

use std::path::Path;

use anyhow::{Result, bail};
use burn::tensor::{Device, Tensor};
use langevin::{Pipeline, Request, generate::Plan, pipelines::Sampling, random::Generator};

use crate::{hub, progress::Progress, stop::Stop};

/// Loads a pipeline of pictures.
pub fn load(path: &Path, device: &Device) -> Result<Pipeline> {
    let pipeline = Pipeline::load(hub::pipeline(path)?, device)?;
    if pipeline.codec().is_latent() {
        bail!(
            "{}: a {} denoises latents; the way from a picture to its noise and back is there for models that denoise pictures themselves",
            path.display(),
            pipeline.class().name
        );
    }
    Ok(pipeline)
}

/// One of what was given for each picture; nothing where nothing was.
pub fn one_each<T: Clone>(what: &str, given: Vec<T>, pictures: usize) -> Result<Vec<T>> {
    if matches!(given.len(), 0 | 1) || given.len() == pictures {
        return Ok(given);
    }
    bail!(
        "{} {what} were given for {pictures} pictures; one for all or one each is right",
        given.len()
    )
}

/// Walks `pipeline`'s loop as `request` says, from `sample` at step `from` up to step `to`, or to its end.
pub fn walk(
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
