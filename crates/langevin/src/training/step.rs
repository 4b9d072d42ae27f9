//! The method on one screen: how a diffusion model learns (Ho et al. 2020, algorithm 1).

use burn::{module::Module, tensor::Tensor};

use super::gradients::{Beside, Gradients};
use crate::{
    Error, Result,
    models::{Conditioning, Denoiser},
    nn::checkpoint::checkpointing,
    objectives::{Noise, NoiseOptions, Objective, TrainingPair},
    ops::{KeptAs, Precision, computing, keeping},
    random::Generator,
};

/// Clean pictures and what the model is told of them.
#[derive(Clone, Debug)]
pub struct Batch {
    /// x_0, `[batch, channels, height, width]` in -1..1.
    pub clean: Tensor<4>,
    /// Classes and the like.
    pub conditioning: Conditioning,
    /// Rows beside the parameters whose gradients count for the norm.
    pub beside: Vec<Beside>,
    /// How much pictures of the class count, where the second half of the pictures are such: what the model drew before, so that it does not
    /// forget what the class looks like (Ruiz et al. 2022, "DreamBooth", equation 2).
    pub prior_weight: Option<f64>,
}

impl Batch {
    /// Pictures of one kind.
    pub fn new(clean: Tensor<4>, conditioning: Conditioning) -> Self {
        Self {
            clean,
            conditioning,
            beside: Vec::new(),
            prior_weight: None,
        }
    }

    /// How many pictures are of the instance, and not of its class.
    fn instances(&self) -> usize {
        let [batch, ..] = self.clean.dims();
        match self.prior_weight {
            Some(_) => batch / 2,
            None => batch,
        }
    }

    /// The loss of the pictures' losses: their mean, or that of the instances and the weighted one of their class.
    fn loss(&self, losses: &Tensor<1>) -> Tensor<1> {
        let instances = self.instances();
        let [batch] = losses.dims();
        match self.prior_weight {
            Some(weight) => {
                let class = losses.clone().narrow(0, instances, batch - instances).mean();
                losses.clone().narrow(0, 0, instances).mean() + class * weight
            }
            None => losses.clone().mean(),
        }
    }
}

/// What chance decides in a step.
#[derive(Clone, Debug)]
pub struct Draw {
    /// ε, standard normal, of the pictures' shape.
    pub noise: Noise,
    /// How far each picture is on its way to noise: t.
    pub times: Vec<f64>,
}

impl Draw {
    /// Noise, then times, in the order in which the training script draws them.
    pub fn new(
        clean: &Tensor<4>,
        objective: &dyn Objective,
        noise: NoiseOptions,
        generator: &mut Generator,
    ) -> Self {
        let shape = clean.dims();
        Self {
            noise: noise.draw(shape, &clean.device(), generator),
            times: objective.draw_times(shape[0], generator),
        }
    }
}

/// What the model learns from one batch.
#[derive(Clone, Debug)]
pub struct Lesson {
    /// The mean of the pictures' losses, or what the batch makes of them.
    pub loss: f64,
    /// Each picture's.
    pub losses: Vec<f32>,
    /// How the loss changes with every parameter.
    pub gradients: Gradients,
}

/// How far the model's prediction is from what it should be: for each picture the mean of the (weighted) squared differences, `[batch]`.
fn of_pair(model: &impl Denoiser, pair: TrainingPair, batch: &Batch) -> Result<Tensor<1>> {
    // Predict.
    let prediction = model.denoise(pair.input.clone(), timesteps(&pair), &batch.conditioning)?;

    // Compare. Pictures of the class are not weighted by their noise.
    pair.weighting_first(batch.instances()).losses(prediction)
}

fn timesteps(pair: &TrainingPair) -> Tensor<1> {
    Tensor::from_floats(pair.timesteps.as_slice(), &pair.input.device())
}

/// What is learned from a batch: as [`of_pair`] has it, or rectified by what the model makes of it as it stands.
fn lesson<M: Module + Denoiser>(
    model: &M,
    objective: &dyn Objective,
    batch: &Batch,
    draw: &Draw,
) -> Result<TrainingPair> {
    // Corrupt: x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε, and what the model should make of it.
    let pair = objective.training_pair(batch.clean.clone(), draw.noise.clone(), &draw.times)?;
    if !objective.rectifies() {
        return Ok(pair);
    }
    let frozen = model.clone().no_grad();
    let prediction = frozen.denoise(pair.input.clone(), timesteps(&pair), &batch.conditioning)?;
    objective.rectified(pair, prediction.detach(), &draw.times)
}

/// Predicts, compares, and finds how the loss, the mean over the pictures or what the batch makes of them, changes with every parameter.
///
/// # Errors
/// If the batch does not fit the model.
pub fn gradients<M: Module + Denoiser>(
    model: &M,
    objective: &dyn Objective,
    batch: &Batch,
    draw: &Draw,
) -> Result<Lesson> {
    let losses = of_pair(model, lesson(model, objective, batch, draw)?, batch)?;
    let loss = batch.loss(&losses);
    let mut backward = loss.backward();
    let gradients = Gradients::gather(model, &mut backward).and_beside(&batch.beside, &mut backward);
    Ok(Lesson::new(loss, losses, gradients))
}

/// [`gradients`] with gradient checkpointing: the model's blocks keep their inputs and compute the rest again: one more forward, and much
/// less memory. The gradients are the same to the bit; where a sequence is trained along, its own are the same but for the
/// order of their sums.
///
/// # Errors
/// If the batch does not fit the model.
pub fn gradients_checkpointed<M: Module + Denoiser>(
    model: &M,
    objective: &dyn Objective,
    batch: &Batch,
    draw: &Draw,
) -> Result<Lesson> {
    let pair = lesson(model, objective, batch, draw)?;
    let (found, collected) = checkpointing(|| {
        let losses = of_pair(model, pair, batch)?;
        let loss = batch.loss(&losses);
        let backward = loss.backward();
        Ok::<_, Error>((loss, losses, backward))
    });
    let (loss, losses, mut backward) = found?;
    let gradients = Gradients::gather_checkpointed(model, &mut backward, collected)
        .and_beside(&batch.beside, &mut backward);
    Ok(Lesson::new(loss, losses, gradients))
}

/// How a step does with less memory than it likes best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saving {
    /// How activations are kept for the backward.
    pub kept_as: KeptAs,
    /// Whether blocks compute theirs again, see [`gradients_checkpointed`].
    pub checkpointing: bool,
    /// What products are of, forward and for the gradients of inputs; those of weights are float32's.
    pub precision: Precision,
}

/// [`gradients`], with less memory.
///
/// # Errors
/// If the batch does not fit the model.
pub fn gradients_saving<M: Module + Denoiser>(
    saving: Saving,
    model: &M,
    objective: &dyn Objective,
    batch: &Batch,
    draw: &Draw,
) -> Result<Lesson> {
    keeping(saving.kept_as, || {
        computing(saving.precision, || match saving.checkpointing {
            true => gradients_checkpointed(model, objective, batch, draw),
            false => gradients(model, objective, batch, draw),
        })
    })
}

impl Lesson {
    /// Of the loss and each picture's, with the gradients that they led to.
    pub(super) fn new(loss: Tensor<1>, losses: Tensor<1>, gradients: Gradients) -> Self {
        let losses = losses.into_data().convert::<f32>();
        Self {
            loss: f64::from(loss.into_scalar::<f32>()),
            losses: losses.iter::<f32>().collect(),
            gradients,
        }
    }
}
