//! Several sampling loops, a step at a time, with the model asked once for all of them.

use burn::tensor::Tensor;

use super::{Sampling, sampling::SharedDenoiser};
use crate::{
    Error, Result,
    guidance::Question,
    models::{Conditioning, Denoiser, ImagePrompts},
    nn::LentRows,
    ops::{self, Precision},
};

/// Does the next step of each of `loops`, of which none is at its end. Loops that borrow the same denoiser, at the same precision, ask it as one batch,
/// whatever their schedulers, timesteps and guidance are; others, and those whose gradient goes through the model, by themselves.
///
/// A loop comes to the same bits as it does alone: the model computes a picture without regard to its company, and everything else
/// is the loop's own. One result a loop; where one fails, the others have gone on.
pub fn step_together(loops: &mut [&mut Sampling<'_>]) -> Vec<Result<()>> {
    let mut results: Vec<Option<Result<()>>> = loops.iter().map(|_| None).collect();
    let mut asked: Option<(SharedDenoiser<'_>, Precision)> = None;
    // One batch is computed in one way.
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
    for (_, questions) in kinds {
        if let Some((denoiser, precision)) = asked
            && !questions.all.is_empty()
            && let Ok(answers) = ops::computing(precision, || answers(denoiser, &questions.all))
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

/// The denoiser's answers to all questions, from one call.
fn answers(denoiser: &dyn Denoiser, questions: &[Question]) -> Result<Vec<Tensor<4>>> {
    // What is asked alone costs no copying.
    if let [alone] = questions {
        let (x, timesteps) = (alone.x.clone(), alone.timesteps.clone());
        return Ok(vec![denoiser.denoise(x, timesteps, &alone.conditioning)?]);
    }
    let column = |of: fn(&Question) -> Tensor<4>| Tensor::cat(questions.iter().map(of).collect(), 0);
    let x = column(|question| question.x.clone());
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
    let conditioning =
        questions
            .iter()
            .map(told)
            .try_fold(None, |all: Option<Conditioning>, next| match all {
                Some(all) => all.followed_by(&next).map(Some),
                None => Ok(Some(next)),
            })?;
    let conditioning = conditioning.ok_or_else(|| Error::Config("no loop asks anything".into()))?;
    let answer = denoiser.denoise(x, timesteps, &conditioning)?;
    let mut first = 0;
    let rows = questions.iter().map(|question| question.x.dims()[0]);
    Ok(rows
        .map(|rows| {
            let from = first;
            first += rows;
            answer.clone().narrow(0, from, rows)
        })
        .collect())
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
