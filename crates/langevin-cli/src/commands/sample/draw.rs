//! The drawing itself, as its user sees it: a progress bar, the animation, and Ctrl-C.

use langevin::{
    Result,
    generate::Watch,
    pipelines::{Sampling, Step},
};

use super::animation::Animation;
use crate::{progress::Progress, stop::Stop, terminal};

/// Who looks on while pictures are drawn.
pub(crate) struct Drawing<'a> {
    stop: &'a Stop,
    animation: Option<&'a mut Animation>,
    bar: Option<Progress>,
    batches: usize,
    done: usize,
}

impl<'a> Drawing<'a> {
    /// Of a plan with so many batches.
    pub(crate) fn new(batches: usize, stop: &'a Stop, animation: Option<&'a mut Animation>) -> Self {
        Self {
            stop,
            animation,
            bar: None,
            batches,
            done: 0,
        }
    }
}

impl Watch for Drawing<'_> {
    fn begin(&mut self, sampling: &Sampling<'_>) -> Result<()> {
        match &mut self.animation {
            Some(animation) => animation.frames.begin(sampling),
            None => Ok(()),
        }
    }

    fn step(&mut self, step: &Step<'_>, _: usize, total: usize) -> Result<bool> {
        if let Some(animation) = &mut self.animation {
            animation.frames.show(step)?;
        }
        // Batches may be drawn at once: how many steps are done is what counts here, and not whose they are.
        self.done += 1;
        let (batches, done) = (self.batches, self.done);
        let bar = self.bar.get_or_insert_with(|| Progress::new("step", total));
        bar.update(done, || {
            if batches == 1 {
                String::new()
            } else {
                format!("batch {}/{batches}", (done * batches).div_ceil(total))
            }
        });
        Ok(!self.stop.requested())
    }

    fn flagged(&mut self, number: usize) {
        terminal::say(&format!(
            "picture {} is black: the pipeline's safety checker flagged it; --no-safety-checker leaves the checker out",
            number + 1
        ));
    }
}
