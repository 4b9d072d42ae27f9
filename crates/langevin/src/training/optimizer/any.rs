//! Whichever optimiser a run has.

use std::collections::{BTreeMap, HashMap};

use burn::{
    module::{Module, ParamId},
    tensor::{Device, Tensor},
};

use super::{
    AdamWConfig, AdamWOptimizer,
    adafactor::{AdafactorConfig, AdafactorOptimizer},
    prodigy::{ProdigyConfig, ProdigyOptimizer},
};
use crate::{models::weights::NamedTensor, named::named_enum, training::gradients::Gradients};

named_enum! {
    /// What moves the parameters.
    #[derive(Default)]
    pub enum OptimizerKind: "an optimiser" {
        /// Adam with weight decay apart from the gradient (Loshchilov & Hutter 2019).
        #[default]
        AdamW = "adamw",
        /// AdamW that finds its step size (Mishchenko & Defazio 2023); the learning rate multiplies it.
        Prodigy = "prodigy",
        /// Without a running mean, and with the running mean of squares by rows and columns: a fraction of the memory (Shazeer & Stern 2018).
        Adafactor = "adafactor",
    }
}

/// An optimiser's hyper-parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OptimizerConfig {
    /// AdamW's.
    AdamW(AdamWConfig),
    /// Prodigy's.
    Prodigy(ProdigyConfig),
    /// Adafactor's.
    Adafactor(AdafactorConfig),
}

impl From<AdamWConfig> for OptimizerConfig {
    fn from(config: AdamWConfig) -> Self {
        Self::AdamW(config)
    }
}

/// An optimiser with what it keeps.
#[derive(Debug)]
pub enum Optimizer {
    /// AdamW.
    AdamW(AdamWOptimizer),
    /// Prodigy.
    Prodigy(ProdigyOptimizer),
    /// Adafactor.
    Adafactor(AdafactorOptimizer),
}

impl OptimizerKind {
    /// The learning rate that works where nobody says another, if that is not the trainee's.
    pub fn learning_rate(self) -> Option<f64> {
        match self {
            Self::Prodigy => Some(1.0),
            Self::AdamW | Self::Adafactor => None,
        }
    }

    /// How many numbers it keeps for each that is trained, about.
    pub(in crate::training) fn copies(self) -> u64 {
        match self {
            Self::AdamW => 2,
            Self::Prodigy => 4,
            // What is left of rows and columns, and the update as it is made.
            Self::Adafactor => 1,
        }
    }

    /// Whether what it does to an element depends on that element alone, so that processes may keep a share each.
    pub fn is_by_element(self) -> bool {
        self == Self::AdamW
    }
}

impl Optimizer {
    /// With no steps done.
    pub fn new(config: OptimizerConfig) -> Self {
        match config {
            OptimizerConfig::AdamW(config) => Self::AdamW(AdamWOptimizer::new(config)),
            OptimizerConfig::Prodigy(config) => Self::Prodigy(ProdigyOptimizer::new(config)),
            OptimizerConfig::Adafactor(config) => Self::Adafactor(AdafactorOptimizer::new(config)),
        }
    }

    /// Moves every parameter that has a gradient, which counts `factor` times.
    pub fn step<M: Module>(&mut self, module: M, gradients: Gradients, factor: f64, learning_rate: f64) -> M {
        match self {
            Self::AdamW(optimizer) => optimizer.step(module, gradients, factor, learning_rate),
            Self::Prodigy(optimizer) => optimizer.step(module, gradients, factor, learning_rate),
            Self::Adafactor(optimizer) => optimizer.step(module, gradients, factor, learning_rate),
        }
    }

    /// What it multiplies the learning rate with on its own.
    pub fn own_rate(&self) -> f64 {
        match self {
            Self::Prodigy(optimizer) => optimizer.d(),
            Self::AdamW(_) | Self::Adafactor(_) => 1.0,
        }
    }

    /// All that it keeps, for a checkpoint.
    pub fn moments<M: Module>(&self, module: &M) -> Vec<NamedTensor> {
        match self {
            Self::AdamW(optimizer) => optimizer.moments(module),
            Self::Prodigy(optimizer) => optimizer.moments(module),
            Self::Adafactor(optimizer) => optimizer.moments(module),
        }
    }

    /// Takes up what [`Self::moments`] gave after `step` steps, for the same parameters in this process.
    pub fn resume<M: Module>(
        &mut self,
        module: &M,
        step: u64,
        stored: BTreeMap<String, NamedTensor>,
        device: &Device,
    ) {
        match self {
            Self::AdamW(optimizer) => optimizer.resume(module, step, stored, device),
            Self::Prodigy(optimizer) => optimizer.resume(module, stored),
            Self::Adafactor(optimizer) => optimizer.resume(module, step, stored),
        }
    }

    /// The same with the learning rate multiplied by these for these parameters.
    pub(in crate::training) fn with_rates(self, rates: HashMap<ParamId, f64>) -> Self {
        match self {
            Self::AdamW(optimizer) => Self::AdamW(optimizer.with_rates(rates)),
            Self::Adafactor(optimizer) => Self::Adafactor(optimizer.with_rates(rates)),
            // It has one step size for all.
            Self::Prodigy(optimizer) => Self::Prodigy(optimizer),
        }
    }

    /// The one whose elements processes may share, see [`OptimizerKind::is_by_element`].
    pub(in crate::training) fn by_element(&mut self) -> Option<&mut AdamWOptimizer> {
        match self {
            Self::AdamW(optimizer) => Some(optimizer),
            Self::Prodigy(_) | Self::Adafactor(_) => None,
        }
    }

    /// Both moments of a parameter, or of the piece of it that is kept here.
    pub(in crate::training) fn moments_of(&mut self, id: ParamId) -> Option<&mut [Tensor<1>; 2]> {
        self.by_element()?.moments_of(id)
    }

    /// Keeps other moments, in place of all.
    pub(in crate::training) fn set_moments(&mut self, moments: HashMap<ParamId, [Tensor<1>; 2]>) {
        if let Some(optimizer) = self.by_element() {
            optimizer.set_moments(moments);
        }
    }
}
