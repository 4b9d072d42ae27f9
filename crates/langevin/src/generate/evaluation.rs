//! What evaluating a pipeline needs: pictures drawn from it, and the real ones as its model sees them.

use super::{Plan, Watch};
use crate::{
    Error, Request, Result,
    data::{
        Dataset, Picture, Transform,
        evaluate::{Agreement, nearest_neighbours},
    },
    ops::in_pool,
    options::ClassName,
    pipelines::Pipeline,
    random::Generator,
    world::{Team, World},
};

/// Pictures, and of what class each is, where that is known.
#[derive(Clone, Debug, Default)]
pub struct PictureSet {
    /// All of one size, with the same channels.
    pub pictures: Vec<Picture>,
    /// One a picture.
    pub classes: Vec<Option<usize>>,
}

/// Draws pictures as `request` says, but for its count and its classes: `samples` of every one of so many `classes`, class after class,
/// or of none where that is `None`. The processes of a world draw them together, and each has all. `None` where the `watch` of one ended it.
///
/// # Errors
/// If the request does not fit the pipeline, or a step fails.
pub fn draw_set(
    pipeline: &Pipeline,
    classes: Option<usize>,
    samples: usize,
    request: &Request,
    world: &mut dyn World,
    watch: &mut (dyn Watch + Send),
) -> Result<Option<PictureSet>> {
    let classes: Vec<Option<usize>> = match classes {
        None => vec![None; samples],
        Some(classes) => (0..classes)
            .flat_map(|class| vec![Some(class); samples])
            .collect(),
    };
    if classes.is_empty() {
        return Err(Error::Config("the number of samples must be at least 1".into()));
    }
    let request = Request {
        count: Some(classes.len()),
        class: classes
            .iter()
            .flatten()
            .map(|&class| ClassName::Number(class))
            .collect(),
        ..request.clone()
    };
    let planned = in_pool(|| Plan::of(pipeline, &request));
    let plan = Team::new(world).agree(planned)?;
    let drawn = plan.run_among(pipeline, world, watch)?;
    Ok(drawn.map(|pictures| PictureSet { pictures, classes }))
}

/// At most `most` pictures of the data set, evenly apart, as a model that draws pictures like `like` sees them.
///
/// # Errors
/// If one cannot be read.
pub fn real_set(dataset: &dyn Dataset, like: &Picture, most: usize) -> Result<PictureSet> {
    let transform = Transform {
        channels: like.channels(),
        ..Transform::new(like.height())
    };
    let [channels, height, width] = transform.shape();
    // Drawn from by random crops and flips only, of which this transform has none.
    let mut generator = Generator::new(0);
    let mut set = PictureSet::default();
    let count = dataset.len().min(most);
    for place in 0..count {
        let example = dataset.get(place * dataset.len() / count)?;
        let values = transform.apply(example.picture, &mut generator)?;
        set.pictures
            .push(Picture::from_chw(&values, channels, height, width)?);
        set.classes.push(example.class);
    }
    Ok(set)
}

/// How many classes the model and the data have in common: all of the data's. `None` where the model is unconditional.
///
/// # Errors
/// If the model has classes, and they are not those of the data.
pub fn shared_classes(pipeline: &Pipeline, dataset: &dyn Dataset) -> Result<Option<usize>> {
    let Some(known) = pipeline.model.config().num_class_embeds() else {
        return Ok(None);
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
    Ok(Some(names.len()))
}

/// Lets the `neighbours` real pictures nearest to each drawn one vote on what it shows.
///
/// # Errors
/// If the two are not pictures of one size, or there are fewer real ones with a class than neighbours.
pub fn agreement(
    drawn: &PictureSet,
    real: &PictureSet,
    classes: usize,
    neighbours: usize,
) -> Result<Agreement> {
    agreement_in(drawn, real, classes, neighbours, Picture::to_chw)
}

/// The same with those that are nearest in other features than the pixels.
///
/// # Errors
/// As [`agreement`].
pub fn agreement_in(
    drawn: &PictureSet,
    real: &PictureSet,
    classes: usize,
    neighbours: usize,
    features: impl Fn(&Picture) -> Vec<f32>,
) -> Result<Agreement> {
    let known = real.pictures.iter().zip(&real.classes);
    let (rows, labels): (Vec<Vec<f32>>, Vec<usize>) = known
        .filter_map(|(picture, class)| Some((features(picture), (*class)?)))
        .unzip();
    let asked: Vec<usize> = drawn.classes.iter().copied().flatten().collect();
    let queries: Vec<Vec<f32>> = drawn.pictures.iter().map(&features).collect();
    let width = queries.first().map_or(0, Vec::len);
    let judged = nearest_neighbours(&rows.concat(), &labels, &queries.concat(), width, neighbours)?;
    Agreement::new(&asked, &judged, classes)
}
