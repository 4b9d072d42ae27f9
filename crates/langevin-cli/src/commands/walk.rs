//! The way between a picture and the noise it comes from, which `invert`, `edit` and `interpolate` go.

use anyhow::{Result, bail};
use burn::tensor::Tensor;
use langevin::{
    guidance::ClassifierFree,
    pipelines::{Pipeline, SampleOptions, Sampling},
    random::Generator,
};

use crate::{progress::Progress, stop::Stop};

/// One class a picture: the null class where none is named.
pub fn classes_for_each(pipeline: &Pipeline, asked: &[String], pictures: usize) -> Result<Option<Vec<i64>>> {
    if asked.is_empty() {
        return Ok(None);
    }
    one_each("classes", pipeline.class_numbers(asked)?, pictures)
}

/// One of what was given for each picture; `None` where nothing was.
pub fn one_each<T: Clone>(what: &str, given: Vec<T>, pictures: usize) -> Result<Option<Vec<T>>> {
    match given.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(vec![one.clone(); pictures])),
        _ if given.len() == pictures => Ok(Some(given)),
        _ => bail!(
            "{} {what} were given for {pictures} pictures; one for all or one each is right",
            given.len()
        ),
    }
}

/// What a walk between picture and latent tells the model.
pub struct Told {
    /// One class a picture; the null class where there is none.
    pub classes: Option<Vec<i64>>,
    /// One text a picture; the empty text where there is none.
    pub prompts: Option<Vec<String>>,
    /// Guidance towards them.
    pub guidance: ClassifierFree,
    /// The steps of the whole loop.
    pub steps: usize,
}

impl Told {
    /// Walks `pipeline`'s loop from `sample` at step `from` up to step `to`, or to its end.
    pub fn walk(
        &self,
        pipeline: &Pipeline,
        sample: &Tensor<4>,
        from: usize,
        to: Option<usize>,
        stop: &Stop,
    ) -> Result<Tensor<4>> {
        // The loops draw no noise, and what they would begin with is replaced.
        let mut unused = Generator::new(0);
        let options = SampleOptions {
            batch_size: sample.dims()[0],
            num_inference_steps: Some(self.steps),
            classes: self.classes.clone(),
            prompts: self.prompts.clone(),
            guidance: self.guidance,
            ..SampleOptions::default()
        };
        let sampling = pipeline.sample(&options, &mut unused)?;
        if to == Some(from) || from == sampling.total() {
            return Ok(sample.clone());
        }
        let sampling = sampling.starting_at(sample.clone(), from)?;
        let walked = to.map_or(sampling.total(), |to| to - from);
        walk(sampling, walked, stop)
    }
}

fn walk(mut sampling: Sampling<'_>, steps: usize, stop: &Stop) -> Result<Tensor<4>> {
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
