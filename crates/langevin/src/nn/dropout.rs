//! Dropout that draws from an explicit generator.

use std::cell::RefCell;

use burn::tensor::{Tensor, TensorData};

use crate::random::Generator;

thread_local! {
    /// What dropout layers draw their masks from; `None` while nothing is trained.
    static GENERATOR: RefCell<Option<Generator>> = const { RefCell::new(None) };
}

/// Runs a forward whose dropout layers draw from `generator`, on this thread. Outside of it they change nothing, as after `eval()` in
/// PyTorch: a model holds no generator, so that no other use of it, nor its moving average, drops anything.
pub fn dropping<R>(generator: &mut Generator, work: impl FnOnce() -> R) -> R {
    let (done, after) = drawing_from(Some(generator.clone()), work);
    if let Some(after) = after {
        *generator = after;
    }
    done
}

/// Runs `work` with masks from this generator, and gives it back as it stands then. What was drawn from before is again afterwards.
pub(super) fn drawing_from<R>(
    generator: Option<Generator>,
    work: impl FnOnce() -> R,
) -> (R, Option<Generator>) {
    struct Restore(Option<Generator>);
    impl Drop for Restore {
        fn drop(&mut self) {
            GENERATOR.set(self.0.take());
        }
    }
    let _restore = Restore(GENERATOR.replace(generator));
    let done = work();
    (done, GENERATOR.take())
}

/// What masks are drawn from on this thread, as it stands.
pub(super) fn generator() -> Option<Generator> {
    GENERATOR.with_borrow(Clone::clone)
}

/// Zeroes elements at random within [`dropping`] and scales the others up. Mirrors `torch.nn.Dropout`.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    probability: f64,
}

impl Dropout {
    /// A layer that zeroes each element with `probability`.
    pub fn new(probability: f64) -> Self {
        Self { probability }
    }

    /// Whether it changes its input now.
    pub fn is_active(self) -> bool {
        self.probability != 0.0 && GENERATOR.with_borrow(Option::is_some)
    }

    /// The input unchanged, unless there is something to draw from and the probability is not zero.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        if self.probability == 0.0 {
            return x;
        }
        let shape = x.dims();
        let draws =
            GENERATOR.with_borrow_mut(|generator| Some(generator.as_mut()?.rand(shape.iter().product())));
        let Some(draws) = draws else {
            return x;
        };
        let keep = 1.0 - self.probability;
        let mask: Vec<f32> = draws
            .into_iter()
            .map(|u| {
                if f64::from(u) < keep {
                    (1.0 / keep) as f32
                } else {
                    0.0
                }
            })
            .collect();
        let device = x.device();
        x * Tensor::from_data(TensorData::new(mask, shape), &device)
    }
}
