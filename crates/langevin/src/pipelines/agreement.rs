//! How often a class-conditional pipeline draws what it is asked for, as real pictures judge it.

use super::{AnyPipeline, SampleOptions, to_pictures};
use crate::{
    Error, Result,
    data::{
        Dataset, Transform,
        evaluate::{Agreement, nearest_neighbours},
    },
    guidance::ClassifierFree,
    random::Generator,
};

/// What is drawn and how it is judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AgreementOptions {
    /// Pictures drawn of each class.
    pub samples_per_class: usize,
    /// Pictures drawn together.
    pub batch_size: usize,
    /// Denoising steps.
    pub num_inference_steps: usize,
    /// The generator's seed.
    pub seed: u64,
    /// How many real pictures vote on a drawn one.
    pub neighbours: usize,
    /// Classifier-free guidance towards the classes.
    pub guidance: ClassifierFree,
}

impl Default for AgreementOptions {
    fn default() -> Self {
        Self {
            samples_per_class: 50,
            batch_size: 100,
            num_inference_steps: 50,
            seed: 0,
            neighbours: 5,
            guidance: ClassifierFree::default(),
        }
    }
}

/// Draws pictures of every class of `dataset`, and lets the real pictures nearest to each vote on what it shows.
///
/// `watch` is told after every step how many are done, of how many; `false` ends the measurement, which then is `None`.
///
/// # Errors
/// If the pipeline is not class-conditional, the data set has no classes, or their classes differ.
pub fn agreement(
    pipeline: &AnyPipeline,
    dataset: &dyn Dataset,
    options: &AgreementOptions,
    mut watch: impl FnMut(usize, usize) -> bool,
) -> Result<Option<Agreement>> {
    let classes = shared_classes(pipeline, dataset)?;
    let asked: Vec<usize> = (0..classes)
        .flat_map(|class| vec![class; options.samples_per_class])
        .collect();
    if options.batch_size == 0 || asked.is_empty() {
        return Err(Error::Config(
            "the batch size and the samples per class must be at least 1".into(),
        ));
    }
    let mut generator = Generator::new(options.seed);
    let steps = asked.len().div_ceil(options.batch_size) * pipeline.calls(options.num_inference_steps)?;
    let (mut drawn, mut done) = (Vec::new(), 0);
    for batch in asked.chunks(options.batch_size) {
        let call = SampleOptions {
            batch_size: batch.len(),
            num_inference_steps: Some(options.num_inference_steps),
            classes: Some(batch.iter().map(|&class| class as i64).collect()),
            guidance: options.guidance,
            ..SampleOptions::default()
        };
        let mut sampling = pipeline.sample(&call, &mut generator)?;
        while let Some(step) = sampling.next() {
            step?;
            done += 1;
            if !watch(done, steps) {
                return Ok(None);
            }
        }
        drawn.extend(to_pictures(&sampling.finish()?)?);
    }
    let Some(first) = drawn.first() else {
        return Ok(None);
    };
    let (features, labels) = real(
        dataset,
        Transform {
            channels: first.channels(),
            ..Transform::new(first.height())
        },
    )?;
    let queries: Vec<f32> = drawn.iter().flat_map(|picture| picture.to_chw()).collect();
    let width = queries.len() / drawn.len();
    let judged = nearest_neighbours(&features, &labels, &queries, width, options.neighbours)?;
    Agreement::new(&asked, &judged, classes).map(Some)
}

/// How many classes the model and the data have in common: all of the data's, or it is an error.
fn shared_classes(pipeline: &AnyPipeline, dataset: &dyn Dataset) -> Result<usize> {
    let Some(known) = pipeline.model().config().num_class_embeds() else {
        return Err(Error::Config(
            "the model is unconditional: it cannot be asked for a class".into(),
        ));
    };
    let names = dataset
        .class_names()
        .ok_or_else(|| Error::Config(format!("the data set {} has no classes", dataset.name())))?;
    let differ = match pipeline.classes() {
        Some(classes) => classes.names != names,
        // A model from elsewhere has numbers only.
        None => names.len() > known,
    };
    if differ {
        return Err(Error::Config(format!(
            "the model was not trained on the classes of {}",
            dataset.name()
        )));
    }
    Ok(names.len())
}

/// Every picture of the data set as the model would see it, in rows, with its class.
fn real(dataset: &dyn Dataset, transform: Transform) -> Result<(Vec<f32>, Vec<usize>)> {
    let (mut features, mut labels) = (Vec::new(), Vec::new());
    // Drawn from by random crops and flips only, of which this transform has none.
    let mut generator = Generator::new(0);
    for index in 0..dataset.len() {
        let example = dataset.get(index)?;
        if let Some(class) = example.class {
            features.extend(transform.apply(example.picture, &mut generator)?);
            labels.push(class);
        }
    }
    Ok((features, labels))
}
