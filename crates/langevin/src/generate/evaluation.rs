//! What evaluating a pipeline needs: pictures drawn from it, and the real ones as its model sees them.

use super::{Plan, Watch};
use crate::{
    Error, Request, Result,
    conditioning::TextCondition,
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

/// What the pictures of an evaluation are asked to show.
#[derive(Clone, Debug, PartialEq)]
pub enum Subjects {
    /// Whatever the model draws by itself: so many pictures.
    Anything(usize),
    /// So many `samples` of every one of so many `classes`, class after class.
    Classes {
        /// How many there are.
        classes: usize,
        /// Of each.
        samples: usize,
    },
    /// A picture of each caption.
    Captions {
        /// Captions of pictures of the data, each with the class of its picture, where that is known.
        captions: Vec<(String, Option<usize>)>,
        /// How many classes the data have, where they have some.
        classes: Option<usize>,
    },
}

impl Subjects {
    /// What a pipeline can be asked that was trained on such data: `samples_per_class` of each class where it knows those, else `samples`
    /// of the data's captions, evenly apart, where it takes a text and all pictures have one, else `samples` pictures.
    ///
    /// # Errors
    /// If the model has classes, and they are not those of the data; or a picture cannot be read.
    pub fn of(
        pipeline: &Pipeline,
        dataset: &dyn Dataset,
        samples_per_class: usize,
        samples: usize,
    ) -> Result<Self> {
        if let Some(classes) = shared_classes(pipeline, dataset)? {
            return Ok(Self::Classes {
                classes,
                samples: samples_per_class,
            });
        }
        if pipeline.condition::<TextCondition>().is_none() || dataset.is_empty() {
            return Ok(Self::Anything(samples));
        }
        let mut captions = Vec::with_capacity(samples.min(dataset.len()));
        for place in 0..samples {
            let index = (place as u128 * dataset.len() as u128 / samples as u128) as usize;
            match dataset.caption(index)? {
                Some(caption) => captions.push((caption, dataset.class(index)?)),
                None => return Ok(Self::Anything(samples)),
            }
        }
        Ok(Self::Captions {
            captions,
            classes: dataset.class_names().map(<[String]>::len),
        })
    }

    /// How many pictures that is.
    pub fn count(&self) -> usize {
        match self {
            Self::Anything(samples) => *samples,
            Self::Classes { classes, samples } => classes.saturating_mul(*samples),
            Self::Captions { captions, .. } => captions.len(),
        }
    }

    /// How many classes the pictures are asked to be of; `None` where they are of none.
    pub fn classes(&self) -> Option<usize> {
        match self {
            Self::Anything(_) => None,
            Self::Classes { classes, .. } => Some(*classes),
            Self::Captions { captions, classes } => {
                classes.filter(|_| captions.iter().all(|(_, class)| class.is_some()))
            }
        }
    }
}

/// Draws pictures as `request` says, but for its count, its classes and its prompts, which are those of the `subjects`. The processes of a world draw them
/// together, and each has all. `None` where the `watch` of one ended it.
///
/// # Errors
/// If the request does not fit the pipeline, or a step fails.
pub fn draw_set(
    pipeline: &Pipeline,
    subjects: &Subjects,
    request: &Request,
    world: &mut dyn World,
    watch: &mut (dyn Watch + Send),
) -> Result<Option<PictureSet>> {
    let count = subjects.count();
    if count == 0 {
        return Err(Error::Config("the number of samples must be at least 1".into()));
    }
    let mut request = Request {
        count: Some(count),
        ..request.clone()
    };
    let classes: Vec<Option<usize>> = match subjects {
        Subjects::Anything(_) => vec![None; count],
        Subjects::Classes { classes, samples } => {
            let each = (0..*classes).flat_map(|class| std::iter::repeat_n(class, *samples));
            request.class = each.clone().map(ClassName::Number).collect();
            each.map(Some).collect()
        }
        Subjects::Captions { captions, .. } => {
            request.prompt = captions.iter().map(|(caption, _)| caption.clone()).collect();
            captions.iter().map(|(_, class)| *class).collect()
        }
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
fn shared_classes(pipeline: &Pipeline, dataset: &dyn Dataset) -> Result<Option<usize>> {
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
