//! Several sampling loops, a step at a time, with the model asked once for all of them.

use burn::tensor::{Tensor, TensorData};

use super::{Sampling, sampling::SharedDenoiser};
use crate::{
    Error, Result,
    guidance::Question,
    models::{Conditioning, Denoiser, ImagePrompts},
    nn::LentRows,
    ops::{self, Precision, in_pool},
    world::{Team, of_process, part_of},
};

/// Does the next step of each of `loops`, of which none is at its end. Loops that borrow the same denoiser, at the same precision, ask it as one batch,
/// whatever their schedulers, timesteps and guidance are; others, and those whose gradient goes through the model, by themselves.
///
/// A loop comes to the same bits as it does alone: the model computes a picture without regard to its company, and everything else
/// is the loop's own. One result a loop; where one fails, the others have gone on.
pub fn step_together(loops: &mut [&mut Sampling<'_>]) -> Vec<Result<()>> {
    let Asked {
        denoiser,
        kinds,
        mut results,
    } = Asked::of(loops);
    for questions in kinds {
        if let Some((denoiser, precision)) = denoiser
            && let Ok(answers) = ops::computing(precision, || questions.answers(denoiser))
        {
            let all = questions.places.iter().zip(&questions.all).zip(answers);
            for ((&place, question), answer) in all {
                results[place] = Some(loops[place].answered(question, answer));
            }
        }
    }
    let whole = loops.iter_mut().zip(results);
    // Where the common question failed, each loop asks for itself, and each has its own error.
    whole
        .map(|(sampling, result)| match result {
            Some(result) => result,
            None => sampling.next().map_or(Ok(()), |step| step.map(drop)),
        })
        .collect()
}

/// The same as one of the processes of a world, which have the same loops: each computes some of the rows that the model is asked for, and has
/// the answers of the others. What the model is not asked for as one batch, each computes whole. All of them fail where one does.
///
/// # Errors
/// If a step fails in any process, or one is gone.
pub(crate) fn step_among(loops: &mut [&mut Sampling<'_>], team: &mut Team<'_>) -> Result<()> {
    let Asked {
        denoiser,
        kinds,
        mut results,
    } = in_pool(|| Asked::of(loops));
    for questions in kinds {
        let Some((denoiser, precision)) = denoiser else {
            continue;
        };
        let (rank, size) = (team.rank(), team.size());
        let own = in_pool(|| ops::computing(precision, || questions.part(denoiser, rank, size)));
        let all = all_parts(team, own)?;
        in_pool(|| {
            let answers = questions.of_parts(all)?;
            let all = questions.places.iter().zip(&questions.all).zip(answers);
            for ((&place, question), answer) in all {
                results[place] = Some(loops[place].answered(question, answer));
            }
            Ok::<(), Error>(())
        })?;
    }
    let mut whole = loops.iter_mut().zip(results);
    let done = in_pool(|| {
        whole.try_for_each(|(sampling, result)| match result {
            Some(result) => result,
            None => sampling.next().map_or(Ok(()), |step| step.map(drop)),
        })
    });
    team.agree(done)
}

/// Rows of an answer: how they are shaped, and their elements.
#[derive(Clone, Debug, PartialEq)]
struct Rows {
    /// Channels, height and width; nothing where there are no rows.
    shape: Option<[usize; 3]>,
    values: Vec<f32>,
}

/// The rows that all processes computed, in their order.
///
/// # Errors
/// If one of them failed.
fn all_parts(team: &mut Team<'_>, own: Result<Rows>) -> Result<Rows> {
    let own = team.agree(own)?;
    let all = team.gather(&own.to_bytes())?;
    let mut whole = Rows {
        shape: None,
        values: Vec::new(),
    };
    for (rank, bytes) in all.iter().enumerate() {
        let part =
            Rows::of_bytes(bytes).ok_or_else(|| of_process(rank, "sent what is no part of an answer"))?;
        match (whole.shape, part.shape) {
            (Some(there), Some(shape)) if there != shape => {
                return Err(of_process(rank, "computed pictures of another shape"));
            }
            (there, shape) => whole.shape = there.or(shape),
        }
        whole.values.extend(part.values);
    }
    Ok(whole)
}

impl Rows {
    fn to_bytes(&self) -> Vec<u8> {
        let shape = self.shape.unwrap_or_default().map(|side| side as u64);
        let shape = shape.into_iter().flat_map(u64::to_le_bytes);
        shape
            .chain(self.values.iter().flat_map(|value| value.to_le_bytes()))
            .collect()
    }

    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (shape, values) = bytes.split_at_checked(24)?;
        let (sides, _) = shape.as_chunks::<8>();
        let side = |place: usize| usize::try_from(u64::from_le_bytes(*sides.get(place)?)).ok();
        let (values, rest) = values.as_chunks::<4>();
        rest.is_empty().then_some(())?;
        Some(Self {
            shape: (!values.is_empty()).then_some([side(0)?, side(1)?, side(2)?]),
            values: values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        })
    }
}

/// What loops ask of a denoiser that they share.
struct Asked<'d> {
    denoiser: Option<(SharedDenoiser<'d>, Precision)>,
    /// One batch is computed in one way: what is asked as one, for each way.
    kinds: Vec<Questions>,
    /// Of loops that cannot even ask.
    results: Vec<Option<Result<()>>>,
}

impl<'d> Asked<'d> {
    fn of(loops: &mut [&mut Sampling<'d>]) -> Self {
        let mut results: Vec<Option<Result<()>>> = loops.iter().map(|_| None).collect();
        let mut asked: Option<(SharedDenoiser<'_>, Precision)> = None;
        let mut kinds: Vec<(Beside, Questions)> = Vec::new();
        for (place, sampling) in loops.iter_mut().enumerate() {
            match sampling.open().and_then(|mut step| step.question()) {
                Some(Ok((question, denoiser))) => {
                    let (first, precision) = *asked.get_or_insert((denoiser, sampling.precision));
                    if std::ptr::addr_eq(first, denoiser) && precision == sampling.precision {
                        let beside = Beside::of(&question.conditioning);
                        let known = kinds.iter().position(|(kind, _)| *kind == beside);
                        let kind = known.unwrap_or_else(|| {
                            kinds.push((beside, Questions::default()));
                            kinds.len() - 1
                        });
                        let questions = &mut kinds[kind].1;
                        questions.places.push(place);
                        questions.all.push(question);
                    }
                }
                Some(Err(error)) => results[place] = Some(Err(error)),
                None => {}
            }
        }
        Self {
            denoiser: asked,
            kinds: kinds.into_iter().map(|(_, questions)| questions).collect(),
            results,
        }
    }
}

/// What is computed beside the model itself: questions of which it is the same can be asked as one batch.
#[derive(PartialEq, Eq)]
struct Beside {
    /// How many additions there are to the way down's outputs, and to its levels.
    additions: Option<[usize; 2]>,
    /// How many tokens of pictures are looked at beside a text, for each adapter.
    tokens: Vec<usize>,
}

impl Beside {
    fn of(conditioning: &Conditioning) -> Self {
        let (residuals, images) = (&conditioning.residuals, &conditioning.images);
        Self {
            additions: residuals.as_ref().map(|all| [all.skips.len(), all.levels.len()]),
            tokens: images.as_ref().map(ImagePrompts::tokens).unwrap_or_default(),
        }
    }
}

/// Questions that are asked as one batch, and the numbers of the loops that ask them.
#[derive(Default)]
struct Questions {
    places: Vec<usize>,
    all: Vec<Question>,
}

impl Questions {
    /// The denoiser's answers to all questions, from one call.
    fn answers(&self, denoiser: &dyn Denoiser) -> Result<Vec<Tensor<4>>> {
        // What is asked alone costs no copying.
        if let [alone] = self.all.as_slice() {
            let (x, timesteps) = (alone.x.clone(), alone.timesteps.clone());
            return Ok(vec![denoiser.denoise(x, timesteps, &alone.conditioning)?]);
        }
        let (x, timesteps, conditioning) = self.whole()?;
        Ok(self.apart(denoiser.denoise(x, timesteps, &conditioning)?))
    }

    /// How many rows each question has.
    fn rows(&self) -> impl Iterator<Item = usize> {
        self.all.iter().map(|question| question.x.dims()[0])
    }

    /// The part of all rows' answers that one of so many processes computes.
    fn part(&self, denoiser: &dyn Denoiser, rank: usize, processes: usize) -> Result<Rows> {
        let count: usize = self.rows().sum();
        let own = part_of(rank, processes, count);
        if own.is_empty() {
            return Ok(Rows {
                shape: None,
                values: Vec::new(),
            });
        }
        let (x, timesteps, conditioning) = self.whole()?;
        let rows: Vec<usize> = own.clone().collect();
        let answer = denoiser.denoise(
            x.narrow(0, own.start, own.len()),
            timesteps.narrow(0, own.start, own.len()),
            &conditioning.rows(&rows),
        )?;
        let [_, channels, height, width] = answer.dims();
        Ok(Rows {
            shape: Some([channels, height, width]),
            // Models answer in float32, so the conversion cannot fail.
            values: answer
                .into_data()
                .convert::<f32>()
                .try_into_vec()
                .unwrap_or_default(),
        })
    }

    /// Each question's answer, of all rows of all of them.
    fn of_parts(&self, all: Rows) -> Result<Vec<Tensor<4>>> {
        let count: usize = self.rows().sum();
        let device = self.all.first().map(|question| question.x.device());
        match (all.shape, device) {
            (Some([channels, height, width]), Some(device))
                if all.values.len() == count * channels * height * width =>
            {
                let data = TensorData::new(all.values, [count, channels, height, width]);
                Ok(self.apart(Tensor::from_data(data, &device)))
            }
            _ => Err(Error::Shape(format!(
                "the processes computed {} numbers for {count} rows",
                all.values.len()
            ))),
        }
    }

    /// The rows of all questions, one after another.
    fn whole(&self) -> Result<(Tensor<4>, Tensor<1>, Conditioning)> {
        let questions = &self.all;
        let x = Tensor::cat(questions.iter().map(|question| question.x.clone()).collect(), 0);
        let timesteps = Tensor::cat(questions.iter().map(|q| q.timesteps.clone()).collect(), 0);
        // Those without LoRA have none of the others'.
        let any_lent = questions
            .iter()
            .any(|question| question.conditioning.lent.is_some());
        let told = |question: &Question| {
            let mut conditioning = question.conditioning.clone();
            if any_lent && conditioning.lent.is_none() {
                conditioning.lent = Some(LentRows::even([], question.x.dims()[0]));
            }
            conditioning
        };
        let conditioning = questions
            .iter()
            .map(told)
            .try_fold(None, |all: Option<Conditioning>, next| match all {
                Some(all) => all.followed_by(&next).map(Some),
                None => Ok(Some(next)),
            })?;
        let conditioning = conditioning.ok_or_else(|| Error::Config("no loop asks anything".into()))?;
        Ok((x, timesteps, conditioning))
    }

    /// An answer to all of them, as answers to each.
    fn apart(&self, answer: Tensor<4>) -> Vec<Tensor<4>> {
        let mut first = 0;
        self.rows()
            .map(|rows| {
                let from = first;
                first += rows;
                answer.clone().narrow(0, from, rows)
            })
            .collect()
    }
}

impl Sampling<'_> {
    /// Does the next step from the model's answer to its question.
    fn answered(&mut self, question: &Question, answer: Tensor<4>) -> Result<()> {
        let mut guidance = self.guidance.take();
        let done = self
            .open()
            .map_or(Ok(()), |step| step.answered(question, answer, guidance.as_mut()));
        self.guidance = guidance;
        done
    }
}
