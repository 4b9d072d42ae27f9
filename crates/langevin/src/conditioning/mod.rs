//! What a model is given besides the noisy picture and its timestep: one file per kind, with all of its life.
//!
//! A [`Condition`] says how it fits a model's configuration, what it makes of a call, towards and away, what it makes of a training
//! batch, and what it saves. It runs once per call or batch; what comes of it is a [`Conditioning`], tensors that a model takes in every
//! step. A new kind is a file here and a row of `KINDS`.

mod attributes;
mod class;
mod distilled;
mod encoding;
mod image;
mod picture_vector;
mod prompt;
mod size;
mod text;
mod variation;
mod vector;

use std::{any::Any, fmt::Debug, path::Path, sync::Arc};

use burn::tensor::{Device, Tensor, TensorData};

pub use attributes::AttributesCondition;
pub use class::{CLASSES, ClassCondition, Classes};
pub use distilled::DistilledGuidance;
pub use encoding::EncodingCondition;
pub use image::ConditioningImages;
pub use picture_vector::{PictureEncoder, PictureVector};
pub use prompt::PromptSyntax;
pub(crate) use prompt::network_tags;
pub use size::SizeCondition;
pub(crate) use text::TEXT_ENCODER;
pub use text::{EmbeddingFile, TextChunk, TextCondition};
pub use variation::VariationCondition;
pub use vector::VectorCondition;

use crate::{
    Error, Result, Size,
    error::require,
    guidance::GuideMaker,
    models::{AnyModelConfig, ClipTextEncoder, Components, Conditioning, ModelInputs},
    options::{Request, SampleOptions},
    random::Generator,
    training::{ConditioningKind, TrainingConfig},
};

/// One kind of condition of one model.
pub trait Condition: Any + Debug + Send + Sync {
    /// Says what a model needs that takes it.
    fn fit(&self, inputs: &mut ModelInputs);

    /// Whether classifier-free guidance can lead towards it.
    fn is_guided(&self) -> bool {
        true
    }

    /// What the pictures of a call are drawn with.
    ///
    /// # Errors
    /// If what the call says of it does not fit the model.
    fn of_call(&self, call: &Call<'_>) -> Result<Pair>;

    /// What the pictures of a training batch are trained with. With probability `dropout` a picture goes without.
    ///
    /// # Errors
    /// If the data do not say it.
    fn of_batch(
        &self,
        examples: &Examples<'_>,
        dropout: f64,
        generator: &mut Generator,
    ) -> Result<Conditioning>;

    /// How many parameters its own networks have.
    fn num_parameters(&self) -> usize {
        0
    }

    /// Writes what it consists of into a pipeline's folder, and names the components among it: name and class.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn save(&self, folder: &Path) -> Result<Vec<(&'static str, &'static str)>> {
        let _ = folder;
        Ok(Vec::new())
    }
}

/// A condition of whichever kind, shared by the copies of its pipeline.
pub type AnyCondition = Arc<dyn Condition>;

/// A call of a pipeline, as its conditions see it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// What is asked for.
    pub options: &'a SampleOptions,
    /// The model's configuration.
    pub config: &'a AnyModelConfig,
    /// The pictures' size.
    pub size: Size,
    /// Where the model is.
    pub device: &'a Device,
}

/// What a call draws towards, and what classifier-free guidance leads away from.
#[derive(Clone, Debug, Default)]
pub struct Pair {
    /// What is asked for.
    pub towards: Conditioning,
    /// The null class, the empty text and the like, or what the call names in their place.
    pub away: Conditioning,
    /// What stands between the two where a picture is edited: what is shown of it without the text.
    pub between: Option<Conditioning>,
    /// The other things that guidance leads towards at once, and how far.
    pub parts: Option<Parts>,
    /// The texts that take the place of these on the way.
    pub turns: Option<Turns>,
}

/// What guidance leads towards at once (Liu et al. 2022): away from what is not asked for, by the sum of all differences times their weights.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Of each thing and picture.
    pub weights: Vec<Vec<f64>>,
    /// All but the first: what differs from it.
    pub also: Vec<Conditioning>,
}

/// Texts that are drawn one after another.
#[derive(Clone, Debug)]
pub struct Turns {
    /// From which call of the model on, from 0, which of the texts.
    pub at: Vec<(usize, usize)>,
    /// The texts.
    pub texts: Vec<Texts>,
}

/// What of a conditioning changes on the way: sequences and their vectors.
#[derive(Clone, Debug)]
pub struct Texts {
    /// What is asked for.
    pub towards: Conditioning,
    /// What guidance leads away from.
    pub away: Conditioning,
    /// What else guidance leads towards.
    pub also: Vec<Conditioning>,
}

impl Texts {
    fn rows(&self, rows: &[usize]) -> Self {
        Self {
            towards: self.towards.rows(rows),
            away: self.away.rows(rows),
            also: self.also.iter().map(|also| also.rows(rows)).collect(),
        }
    }
}

impl Turns {
    /// Which of the texts are drawn in a call of the model, from 0.
    pub(crate) fn number(&self, call: usize) -> usize {
        let before = self.at.iter().take_while(|(from, _)| *from <= call);
        before.last().map_or(0, |(_, number)| *number)
    }
}

impl Pair {
    /// The same on both sides.
    fn both(conditioning: Conditioning) -> Self {
        Self {
            away: conditioning.clone(),
            towards: conditioning,
            ..Self::default()
        }
    }

    /// Of the given rows, one per picture, in their order.
    pub fn rows(&self, rows: &[usize]) -> Self {
        Self {
            towards: self.towards.rows(rows),
            away: self.away.rows(rows),
            between: self.between.as_ref().map(|between| between.rows(rows)),
            parts: self.parts.as_ref().map(|parts| Parts {
                weights: parts
                    .weights
                    .iter()
                    .map(|all| rows.iter().map(|&row| all[row]).collect())
                    .collect(),
                also: parts.also.iter().map(|also| also.rows(rows)).collect(),
            }),
            turns: self.turns.as_ref().map(|turns| Turns {
                at: turns.at.clone(),
                texts: turns.texts.iter().map(|texts| texts.rows(rows)).collect(),
            }),
        }
    }
}

/// The pictures of a training batch, as conditions see them.
#[derive(Clone, Copy, Debug)]
pub struct Examples<'a> {
    /// Each picture's class, below 0 where it is not known; `None` where the data have none.
    pub classes: Option<&'a [i64]>,
    /// Each picture's caption.
    pub captions: &'a [Option<String>],
    /// Which attributes each has.
    pub attributes: &'a [Vec<bool>],
    /// The clean pictures, `[batch, channels, height, width]` in -1..1.
    pub clean: &'a Tensor<4>,
    /// The conditioning pictures that the data hold beside them.
    pub conditioning: Option<&'a Tensor<4>>,
    /// The text encoder as it stands, where there is one.
    pub text_encoder: Option<&'a ClipTextEncoder>,
}

/// What somebody asks for, as conditions turn it into numbers.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// In their own words.
    pub request: &'a Request,
    /// What brings pictures to the model's size.
    pub images: &'a GuideMaker,
    /// How many pictures have to be told apart.
    pub rows: usize,
}

impl Ask<'_> {
    /// One of a list for each row, in turn; `None` where the list is empty.
    fn turns<T: Clone>(&self, all: &[T]) -> Option<Vec<T>> {
        (!all.is_empty()).then(|| all.iter().cloned().cycle().take(self.rows).collect())
    }
}

/// Where the conditions of a pipeline come from.
#[derive(Clone, Copy)]
struct Source<'a> {
    config: &'a AnyModelConfig,
    /// The pipeline's components; `None` for a model that has none.
    components: Option<&'a dyn Components>,
    device: &'a Device,
}

/// Where the conditions of a training run come from.
#[derive(Clone, Copy)]
pub struct RunSource<'a> {
    /// The run's options.
    pub config: &'a TrainingConfig,
    /// What it is trained on.
    pub dataset: &'a dyn crate::data::Dataset,
    /// The folder that holds the model which is trained on, with its text encoder; `None` where a new one is made.
    pub model: Option<&'a Path>,
    /// Where it is trained.
    pub device: &'a Device,
}

/// A model that a run starts from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pretrained<'a> {
    /// Its configuration.
    pub config: &'a AnyModelConfig,
    /// Whether a text encoder lies beside it.
    pub has_text: bool,
}

/// A condition of a training run, and how often a picture goes without.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The condition.
    pub condition: Arc<dyn Condition>,
    /// The probability.
    pub dropout: f64,
}

/// A row of [`KINDS`].
struct Kind {
    /// The condition of a pipeline, if its model takes this kind.
    of_pipeline: fn(&Source<'_>) -> Result<Option<AnyCondition>>,
    /// The condition of a training run, if it is asked for; new weights are drawn from the generator.
    of_run: fn(&RunSource<'_>, &mut Generator) -> Result<Option<Trained>>,
    /// Checks what a run's options say of this kind.
    check: fn(&TrainingConfig) -> Result<()>,
    /// Sets a run's options to how a model that is there is conditioned; whether that is by this kind.
    of_pretrained: fn(&Pretrained<'_>, &mut TrainingConfig) -> Result<bool>,
    /// How many pictures a request tells apart by this kind.
    rows: fn(&Request) -> Vec<usize>,
    /// Puts what a request says of this kind into a call's numbers.
    ask: fn(&[AnyCondition], &Ask<'_>, &mut SampleOptions) -> Result<()>,
    /// Refuses what a call says of this kind where the model does not take it.
    refuse: fn(&SampleOptions) -> Result<()>,
    /// Whether the condition is of this kind.
    is: fn(&dyn Condition) -> bool,
}

impl Kind {
    const fn of<K: ConditionKind>() -> Self {
        Self {
            of_pipeline: |source| Ok(K::of_pipeline(source)?.map(|condition| Arc::new(condition) as _)),
            of_run: |source, generator| {
                Ok(K::of_run(source, generator)?.map(|(condition, dropout)| Trained {
                    condition: Arc::new(condition),
                    dropout,
                }))
            },
            check: K::check,
            of_pretrained: K::of_pretrained,
            rows: K::rows,
            ask: |conditions, ask, options| K::ask(find::<K>(conditions), ask, options),
            refuse: K::refuse,
            is: |condition| (condition as &dyn Any).is::<K>(),
        }
    }
}

/// What a kind says before there is a condition of it.
trait ConditionKind: Condition + Sized {
    /// The condition of a pipeline, if its model takes this kind.
    fn of_pipeline(source: &Source<'_>) -> Result<Option<Self>>;
    /// The condition of a training run with its dropout, if it is asked for.
    fn of_run(source: &RunSource<'_>, generator: &mut Generator) -> Result<Option<(Self, f64)>>;
    /// Checks what a run's options say of this kind, without looking at the data.
    fn check(config: &TrainingConfig) -> Result<()> {
        let _ = config;
        Ok(())
    }
    /// Sets a run's options to how a model that is there is conditioned; whether that is by this kind.
    fn of_pretrained(model: &Pretrained<'_>, config: &mut TrainingConfig) -> Result<bool> {
        let _ = (model, config);
        Ok(false)
    }
    /// How many pictures a request tells apart by this kind: the lengths of its lists.
    fn rows(request: &Request) -> Vec<usize>;
    /// Puts what a request says of this kind into a call's numbers; where the model does not take it, [`Self::refuse`] has the last word.
    fn ask(condition: Option<&Self>, ask: &Ask<'_>, options: &mut SampleOptions) -> Result<()>;
    /// Refuses what a call says of this kind to a model that does not take it.
    fn refuse(options: &SampleOptions) -> Result<()>;
}

/// Every kind. A batch's dropout is drawn in this order.
const KINDS: [Kind; 9] = [
    Kind::of::<ClassCondition>(),
    Kind::of::<TextCondition>(),
    Kind::of::<ConditioningImages>(),
    Kind::of::<VectorCondition>(),
    Kind::of::<AttributesCondition>(),
    Kind::of::<VariationCondition>(),
    Kind::of::<SizeCondition>(),
    Kind::of::<DistilledGuidance>(),
    Kind::of::<EncodingCondition>(),
];

/// The conditions of a pipeline: of its model, and of what lies in its folder.
///
/// # Errors
/// If a file in the folder is broken, or another model's.
pub fn of_pipeline(
    config: &AnyModelConfig,
    components: Option<&dyn Components>,
    device: &Device,
) -> Result<Vec<AnyCondition>> {
    let source = Source {
        config,
        components,
        device,
    };
    let conditions = KINDS.iter().map(|kind| (kind.of_pipeline)(&source));
    conditions.filter_map(Result::transpose).collect()
}

/// The conditions of a training run.
///
/// # Errors
/// If the data do not have what they need, or a file that they are made of is broken.
pub fn of_run(source: &RunSource<'_>, generator: &mut Generator) -> Result<Vec<Trained>> {
    let conditions = KINDS.iter().map(|kind| (kind.of_run)(source, generator));
    conditions.filter_map(Result::transpose).collect()
}

/// Checks what a run's options say of every kind, without looking at the data.
///
/// # Errors
/// If it makes no sense, with the option's name and what would be right.
pub(crate) fn check_run(config: &TrainingConfig) -> Result<()> {
    KINDS.iter().try_for_each(|kind| (kind.check)(config))
}

/// Sets a run's options to how a model that is there is conditioned; whether by any kind.
///
/// # Errors
/// If it cannot be trained so.
pub(crate) fn of_pretrained(model: &Pretrained<'_>, config: &mut TrainingConfig) -> Result<bool> {
    KINDS.iter().try_fold(false, |found, kind| {
        Ok((kind.of_pretrained)(model, config)? || found)
    })
}

/// Checks an option that says how often something is withheld: that there is something, and that it is a probability.
fn check_dropout(
    (option, dropout): (&str, Option<f64>),
    is_given: bool,
    nothing: impl FnOnce() -> String,
) -> Result<()> {
    let Some(dropout) = dropout else { return Ok(()) };
    require(is_given, || {
        format!("`{option}` has nothing to drop: {}", nothing())
    })?;
    require((0.0..=1.0).contains(&dropout), || {
        format!("`{option}` is {dropout}; it must be between 0 and 1")
    })
}

/// What a run would have to be conditioned on, as the end of a sentence.
fn would_be(kind: ConditioningKind, config: &TrainingConfig) -> String {
    format!(
        "`conditioning` is `{}`; it would have to be `{kind}`",
        config.conditioning
    )
}

/// After how many pictures a request's lists begin anew together.
pub fn rows(request: &Request) -> usize {
    let lists = KINDS.iter().flat_map(|kind| (kind.rows)(request));
    lists.map(|length| length.max(1)).fold(1, least_common_multiple)
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    let (mut divisor, mut rest) = (a, b);
    while rest != 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    (a / divisor).saturating_mul(b)
}

/// Puts what a request says of every kind into a call's numbers.
///
/// # Errors
/// If it names what is not there, or a picture cannot be read.
pub fn ask(conditions: &[AnyCondition], ask: &Ask<'_>, options: &mut SampleOptions) -> Result<()> {
    KINDS
        .iter()
        .try_for_each(|kind| (kind.ask)(conditions, ask, options))
}

/// The condition of a kind, if it is among them.
pub fn find<K: Condition>(conditions: &[AnyCondition]) -> Option<&K> {
    conditions
        .iter()
        .find_map(|condition| (condition.as_ref() as &dyn Any).downcast_ref())
}

/// What a call is drawn with: all conditions together.
///
/// # Errors
/// If it says what the model does not take, or does not say what it needs.
pub fn of_call(conditions: &[AnyCondition], call: &Call<'_>) -> Result<Pair> {
    for kind in &KINDS {
        if !conditions.iter().any(|condition| (kind.is)(condition.as_ref())) {
            (kind.refuse)(call.options)?;
        }
    }
    let options = call.options;
    let negative = options.negative_classes.is_some() || options.negative_prompts.is_some();
    let guided = options.guidance.is_on();
    if (guided || negative) && !conditions.iter().any(|condition| condition.is_guided()) {
        return Err(Error::Config(
            "classifier-free guidance needs a model that can be told a class, a text or a vector, and this one is unconditional".into(),
        ));
    }
    if negative && !guided {
        return Err(Error::Config(
            "negative classes and prompts do nothing at a guidance scale of 1: give another scale".into(),
        ));
    }
    conditions.iter().try_fold(Pair::default(), |all, condition| {
        let own = condition.of_call(call)?;
        Ok(Pair {
            towards: all.towards.and(own.towards),
            away: all.away.and(own.away),
            between: None,
            parts: all.parts.or(own.parts),
            turns: all.turns.or(own.turns),
        })
    })
}

/// What a training batch is trained with: all conditions together.
///
/// # Errors
/// If the data do not say it.
pub fn of_batch(
    conditions: &[Trained],
    examples: &Examples<'_>,
    generator: &mut Generator,
) -> Result<Conditioning> {
    conditions
        .iter()
        .try_fold(Conditioning::default(), |all, trained| {
            let own = trained.condition.of_batch(examples, trained.dropout, generator)?;
            Ok(all.and(own))
        })
}

/// A vector for each picture.
fn of_vector(vector: Tensor<2>) -> Conditioning {
    Conditioning {
        vector: Some(vector),
        ..Conditioning::default()
    }
}

/// Zeros in place of what some pictures are given, which has a row per picture.
fn dropped<const D: usize>(given: Tensor<D>, dropout: f64, generator: &mut Generator) -> Tensor<D> {
    if dropout == 0.0 {
        return given;
    }
    let mut shape = [1; D];
    shape[0] = given.dims()[0];
    let draws = generator.rand(shape[0]);
    let kept = draws
        .into_iter()
        .map(|u| if f64::from(u) < dropout { 0.0 } else { 1.0 });
    let kept = TensorData::new(kept.collect::<Vec<f32>>(), shape);
    let device = given.device();
    given * Tensor::from_data(kept, &device)
}
