//! Networks that let pictures follow another, in a sampling loop: what each of them adds to the model in a step.

use std::sync::Arc;

use burn::tensor::Tensor;

use crate::{
    Result,
    guidance::Question,
    models::{ControlNetModel, Residuals},
};

/// What a picture comes to in the steps of a loop.
#[derive(Clone, Debug)]
pub(crate) enum Adds {
    /// What a ControlNet answers in each step.
    Answer {
        network: Arc<ControlNetModel>,
        /// The embedded pictures, `[1 or batch, height, width, channels]`: see [`ControlNetModel::embed`].
        embedded: Tensor<4>,
        /// Whether it leads without regard to the text.
        guess: bool,
    },
    /// The same in every step, of 1 or as many pictures as are in a batch.
    Same(Residuals),
}

/// What a picture comes to, how strongly and when.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    pub adds: Adds,
    pub scale: f64,
    /// The part of the steps in which it leads, from 0 to 1.
    pub part: [f64; 2],
}

impl Control {
    /// Whether it leads in a step, as diffusers' pipelines count: the step must lie within its part as a whole.
    fn leads(&self, step: usize, total: usize) -> bool {
        let [start, end] = self.part;
        let (first, last) = (step as f64 / total as f64, (step + 1) as f64 / total as f64);
        self.scale != 0.0 && first >= start && last <= end
    }

    /// What it adds in answer to a question.
    fn residuals(&self, question: &Question) -> Result<Residuals> {
        match &self.adds {
            Adds::Answer {
                network,
                embedded,
                guess,
            } => answer(network, embedded, *guess, self.scale, question),
            Adds::Same(residuals) => Ok(residuals.clone().times(self.scale).repeated(question.x.dims()[0])),
        }
    }
}

/// What a ControlNet answers to a question, whose rows are so many times the batch, what is asked for last.
fn answer(
    network: &ControlNetModel,
    embedded: &Tensor<4>,
    guess: bool,
    scale: f64,
    question: &Question,
) -> Result<Residuals> {
    let ([rows, ..], parts) = (question.x.dims(), question.parts());
    let batch = rows / parts;
    // Where it guesses, nothing is added to what guidance leads away from, and so it is not computed.
    let alone = guess && parts > 1;
    let first = if alone { rows - batch } else { 0 };
    let asked: Vec<usize> = (first..rows).collect();
    let conditioning = if alone {
        question.conditioning.rows(&asked)
    } else {
        question.conditioning.clone()
    };
    let [pictures, ..] = embedded.dims();
    let residuals = network.residuals(
        question.x.clone().narrow(0, first, asked.len()),
        question.timesteps.clone().narrow(0, first, asked.len()),
        &conditioning,
        embedded.clone().repeat_dim(0, asked.len() / pictures.max(1)),
    )?;
    let scaled = network.scaled(residuals, scale, guess);
    Ok(if alone { scaled.behind_zeros(parts) } else { scaled })
}

/// Adds what all that lead in a step come to.
pub(super) fn apply(controls: &[Control], question: &mut Question, step: usize, total: usize) -> Result<()> {
    let leading = controls.iter().filter(|control| control.leads(step, total));
    let sum = leading.map(|control| control.residuals(question)).try_fold(
        None,
        |sum: Option<Residuals>, next| match sum {
            Some(sum) => sum.plus(next?).map(Some),
            None => next.map(Some),
        },
    )?;
    if let Some(sum) = sum {
        question.conditioning.residuals = Some(sum);
    }
    Ok(())
}
