//! A learner of several processes: each keeps the moments and the average of a share of the elements, moves those, and has the others from
//! whoever moved them (Rajbhandari et al. 2020, "ZeRO", stage 1). What AdamW and the average do to an element depends on that element
//! alone, so that this changes no bit.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId},
    tensor::{Device, Tensor, TensorData},
};

use super::{Learner, Update};
use crate::{
    Result, ops,
    training::{average::Ema, ema::EmaSchedule, gradients::clip_factor, gradients::flatten},
};

/// The part of moments and average that is kept here.
#[derive(Debug)]
pub(super) struct Shared {
    /// Its elements, in the row of all that are trained.
    range: Range<usize>,
    pieces: Vec<Piece>,
    average: Option<(EmaSchedule, u64, Vec<Tensor<1>>)>,
    /// The parameters that have moments.
    moved: HashSet<ParamId>,
}

/// A part of a parameter.
#[derive(Clone, Debug)]
struct Piece {
    id: ParamId,
    /// Which of the module's parameters it is, frozen ones included: an average has identities of its own.
    place: usize,
    /// Where it lies in the parameter.
    inside: Range<usize>,
}

/// The gradients of a share of all elements.
pub(in crate::training) struct ShareOfGradients {
    /// Of its elements, in their order.
    pub values: Vec<f32>,
    /// Parameters that have none, by their places.
    pub missing: Vec<usize>,
    /// The norm of all gradients together.
    pub norm: f64,
}

/// The elements that the processes gave one, one after another; `None` in the others.
pub(in crate::training) type Collect<'a> = dyn FnMut(Vec<f32>) -> Result<Option<Vec<f32>>> + 'a;

impl<M: Module> Learner<M> {
    /// The trained parameters in the module's order, each with the range of its elements in the row that all of them make.
    pub(in crate::training) fn row(&self) -> Vec<(ParamId, Range<usize>)> {
        let places = self.places().into_iter();
        places.map(|(id, _, at)| (id, at)).collect()
    }

    /// The same with their places among all parameters.
    fn places(&self) -> Vec<(ParamId, usize, Range<usize>)> {
        #[derive(Default)]
        struct Walk(usize, Vec<(ParamId, usize, Range<usize>)>);
        impl ModuleVisitor for Walk {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if param.is_require_grad() {
                    let start = self.1.last().map_or(0, |(.., range)| range.end);
                    let n: usize = param.dims().iter().product();
                    self.1.push((param.id, self.0, start..start + n));
                }
                self.0 += 1;
            }
        }
        let mut walk = Walk::default();
        self.model.visit(&mut walk);
        walk.1
    }

    /// Keeps of moments and average the elements of `range` alone.
    pub(in crate::training) fn share(&mut self, range: Range<usize>) {
        let pieces: Vec<Piece> = self
            .places()
            .into_iter()
            .filter_map(|(id, place, at)| {
                let (start, end) = (range.start.max(at.start), range.end.min(at.end));
                (start < end).then(|| Piece {
                    id,
                    place,
                    inside: start - at.start..end - at.start,
                })
            })
            .collect();
        let (mut moved, mut moments) = (HashSet::new(), HashMap::new());
        for (id, _) in self.row() {
            moved.extend(self.optimizer.moments_of(id).map(|_| id));
        }
        for piece in &pieces {
            if let Some(whole) = self.optimizer.moments_of(piece.id) {
                moments.insert(piece.id, whole.clone().map(|moment| piece.of(moment)));
            }
        }
        self.optimizer.set_moments(moments);
        let average = self.ema.take().map(|ema| {
            let values = values(ema.average(), &pieces);
            (ema.schedule(), ema.step(), values)
        });
        self.shared = Some(Shared {
            range,
            pieces,
            average,
            moved,
        });
    }

    /// One optimiser step of the elements that are kept here, and their values after it; the model gets them with all others by
    /// [`Self::with_values`]. Where the norm is not finite, nothing moves, and there are none.
    pub(in crate::training) fn update_share(
        &mut self,
        gradients: &ShareOfGradients,
    ) -> (Update, Option<Vec<f32>>) {
        let learning_rate = self.learning_rate * self.schedule.factor(self.steps);
        let mut update = Update {
            learning_rate,
            grad_norm: gradients.norm,
            ema_decay: None,
        };
        let row = self.row();
        let missing: HashSet<ParamId> = gradients.missing.iter().map(|&place| row[place].0).collect();
        let Some(shared) = self.shared.as_mut().filter(|_| gradients.norm.is_finite()) else {
            return (update, None);
        };
        // No other is shared.
        let Some(optimizer) = self.optimizer.by_element() else {
            return (update, None);
        };
        let factor = clip_factor(gradients.norm, self.max_grad_norm);
        let hyper = optimizer.next_step(factor, learning_rate);
        shared
            .moved
            .extend(row.iter().map(|(id, _)| *id).filter(|id| !missing.contains(id)));
        let mut rest = gradients.values.as_slice();
        let mut moved = Vec::with_capacity(rest.len());
        let mut now = values(&self.model, &shared.pieces);
        for (piece, value) in shared.pieces.iter().zip(&mut now) {
            let (own, after) = rest.split_at(piece.inside.len());
            rest = after;
            if !missing.contains(&piece.id) {
                let gradient = Tensor::from_data(TensorData::new(own.to_vec(), [own.len()]), &value.device());
                // In place, where nobody else holds it.
                let parameter = std::mem::replace(value, Tensor::empty([0], &gradient.device()));
                *value = optimizer.move_one(piece.id, parameter, gradient, hyper);
            }
            moved.extend(numbers(value.clone()));
        }
        self.steps += 1;
        if let Some((schedule, step, average)) = &mut shared.average {
            *step += 1;
            let decay = schedule.decay(*step);
            update.ema_decay = Some(decay);
            for (average, value) in average.iter_mut().zip(now) {
                let device = average.device();
                let before = std::mem::replace(average, Tensor::empty([0], &device));
                *average = ops::moving_average(before, value, decay);
            }
        }
        (update, Some(moved))
    }

    /// The same model with these values, of all elements that are trained.
    pub(in crate::training) fn with_values(mut self, values: &[f32]) -> Self {
        self.model = set(self.model, values);
        self
    }

    /// Has the average, and where they are asked for the moments, whole in the process that everything is collected in, until
    /// [`Self::disperse`].
    ///
    /// # Errors
    /// If a process is gone.
    pub(in crate::training) fn assemble(&mut self, moments: bool, collect: &mut Collect<'_>) -> Result<()> {
        let row = self.row();
        let Some(shared) = &self.shared else {
            return Ok(());
        };
        if let Some((schedule, step, average)) = &shared.average {
            let own = average.iter().flat_map(|piece| numbers(piece.clone())).collect();
            if let Some(all) = collect(own)? {
                let average = set(self.model.clone(), &all).valid();
                self.ema = Some(Ema::restored(average, *schedule, *step));
            }
        }
        if !moments {
            return Ok(());
        }
        let mut whole = Vec::new();
        for which in 0..2 {
            let mut own = Vec::with_capacity(shared.range.len());
            for piece in &shared.pieces {
                match self.optimizer.moments_of(piece.id) {
                    Some(moments) => own.extend(numbers(moments[which].clone())),
                    None => own.resize(own.len() + piece.inside.len(), 0.0),
                }
            }
            whole.extend(collect(own)?);
        }
        if let [first, second] = whole.as_slice() {
            // Outside of autodiff.
            let device = self.plain().devices().into_iter().next().unwrap_or_default();
            let moved = row.into_iter().filter(|(id, _)| shared.moved.contains(id));
            let tensor = |all: &[f32], at: &Range<usize>| row_of(&all[at.clone()], &device);
            let moments = moved.map(|(id, at)| (id, [tensor(first, &at), tensor(second, &at)]));
            self.optimizer.set_moments(moments.collect());
        }
        Ok(())
    }

    /// Lets go of what [`Self::assemble`] made whole, where it did.
    pub(in crate::training) fn disperse(&mut self) {
        let Some(shared) = &self.shared else { return };
        if shared.average.is_some() {
            self.ema = None;
        }
        for piece in &shared.pieces {
            if let Some(moments) = self.optimizer.moments_of(piece.id)
                && moments[0].dims() != [piece.inside.len()]
            {
                *moments = moments.clone().map(|moment| piece.of(moment));
            }
        }
        let kept: HashMap<_, _> = shared
            .pieces
            .iter()
            .filter_map(|piece| Some((piece.id, self.optimizer.moments_of(piece.id)?.clone())))
            .collect();
        self.optimizer.set_moments(kept);
    }
}

impl Piece {
    /// This part of a parameter's elements, which lets go of the others.
    fn of(&self, whole: Tensor<1>) -> Tensor<1> {
        let part = whole.slice([self.inside.clone()]);
        row_of(&numbers(part.clone()), &part.device())
    }
}

fn row_of(values: &[f32], device: &Device) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}

/// A tensor's elements.
pub(in crate::training) fn numbers(tensor: Tensor<1>) -> Vec<f32> {
    // The models are float32 throughout, so the conversion cannot fail.
    let data = tensor.into_data().convert::<f32>();
    data.try_into_vec().unwrap_or_default()
}

/// The values of pieces of a module's parameters.
fn values<M: Module>(module: &M, pieces: &[Piece]) -> Vec<Tensor<1>> {
    struct Walk<'a>(usize, &'a [Piece], Vec<Tensor<1>>);
    impl ModuleVisitor for Walk<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some((piece, rest)) = self.1.split_first()
                && piece.place == self.0
            {
                self.1 = rest;
                self.2.push(piece.of(flatten(param.val().inner())));
            }
            self.0 += 1;
        }
    }
    let mut walk = Walk(0, pieces, Vec::with_capacity(pieces.len()));
    module.visit(&mut walk);
    walk.2
}

/// Puts values into the trained parameters, in the module's order.
fn set<M: Module>(module: M, values: &[f32]) -> M {
    struct Set<'a>(&'a [f32]);
    impl ModuleMapper for Set<'_> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if !param.is_require_grad() {
                return param;
            }
            let (own, rest) = self.0.split_at(param.dims().iter().product());
            self.0 = rest;
            param.map(|tensor| {
                let plain = tensor.inner();
                let data = TensorData::new(own.to_vec(), plain.shape());
                Tensor::from_inner(Tensor::from_data(data, &plain.device())).set_require_grad(true)
            })
        }
    }
    module.map(&mut Set(values))
}
