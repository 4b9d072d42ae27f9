//! Epochs of several slots, which processes share.

use std::iter::Peekable;

use super::{Accumulated, Ended, Run, lesson};
use crate::{
    Error, Result,
    data::Batch,
    ops::in_pool,
    training::{
        Observer, Trainer,
        gradients::Gradients,
        slots::{self, Part, Plan, SlotLesson, Total, Whole},
    },
};

impl Run<'_> {
    /// Has what is written or drawn whole in the first process, where several keep it together; until [`Self::disperse`].
    pub(super) fn assemble(&mut self, moments: bool) -> Result<()> {
        let (team, Some(learner)) = (&mut self.team, &mut self.learner) else {
            return Ok(());
        };
        learner.assemble(moments, &mut |own| slots::collect(team, own))
    }

    /// Has the average whole in every process, where several keep it together; until [`Self::disperse`].
    pub(super) fn assemble_everywhere(&mut self) -> Result<()> {
        let (team, Some(learner)) = (&mut self.team, &mut self.learner) else {
            return Ok(());
        };
        learner.assemble(false, &mut |own| team.gather_numbers(&own).map(Some))
    }

    pub(super) fn disperse(&mut self) {
        if let Some(learner) = &mut self.learner {
            learner.disperse();
        }
    }

    /// The rest of the epoch, of several slots. A run of them is only interrupted between two steps.
    pub(super) fn epoch_in_slots(
        &mut self,
        trainer: &mut Trainer,
        observer: &mut dyn Observer,
    ) -> Result<Ended> {
        let sizes = trainer.loader.batch_sizes(self.epoch as u64);
        let plan = trainer.config.plan(&sizes);
        let from = plan.step_after(self.batch);
        let numbers = plan.numbers(&self.own, from);
        let mut loaded = trainer.loader.epoch_of(self.epoch as u64, numbers).peekable();
        let mut learned = from > 0;
        for step in from..plan.steps() {
            if self.learner()?.steps() >= self.steps {
                break;
            }
            let part = self.learn_slots(trainer, &plan, step, &mut loaded);
            let row = self.learner()?.row();
            let stop = observer.should_stop();
            let whole = slots::reduce(&mut self.team, plan.slots, &row, part, stop)?;
            self.batch = plan.done_after(step);
            let stop = whole.stop;
            learned |= self.update_slots(trainer, observer, plan.rounds(step), whole)?;
            self.samples_if_due(trainer, observer)?;
            self.write_if_due(trainer)?;
            if self.learner()?.steps() < self.steps && stop {
                return Ok(Ended::Interrupted);
            }
        }
        match learned {
            true => Ok(Ended::Finished),
            false => Err(Error::Config(format!(
                "none of the {} pictures of {} could be read",
                trainer.dataset.len(),
                trainer.dataset.name()
            ))),
        }
    }

    /// What the slots that are computed here learn in a step.
    fn learn_slots(
        &mut self,
        trainer: &Trainer,
        plan: &Plan,
        step: usize,
        loaded: &mut Peekable<impl Iterator<Item = Result<Batch>>>,
    ) -> Result<Part> {
        let first = self.own.start;
        let (own, chances) = (self.own.clone(), &mut self.chances);
        let learner = &self.learner;
        slots::learn(&own, plan.slots, |slot| {
            let (mut gradients, mut learned) = (Gradients::default(), SlotLesson::default());
            for task in plan.tasks(step, slot) {
                // An error is this batch's; of another number, this one has no picture that can be read.
                let is_next =
                    |batch: &Result<Batch>| batch.as_ref().map_or(true, |batch| batch.number == task.number);
                let Some(batch) = loaded.next_if(is_next) else {
                    continue;
                };
                let Some(learner) = learner else { continue };
                let (lesson, levels) = lesson(trainer, learner, batch?, &mut chances[slot - first])?;
                gradients = gradients.plus(lesson.gradients.scale(task.weight));
                learned.loss += task.weight * lesson.loss;
                learned.losses.extend(lesson.losses);
                learned.noise_levels.extend(levels);
            }
            let any = !learned.losses.is_empty();
            Ok((any.then_some(gradients), learned))
        })
    }

    /// One optimiser step of what all slots learned, and word of it; none where they learned nothing, which is then said.
    fn update_slots(
        &mut self,
        trainer: &Trainer,
        observer: &mut dyn Observer,
        rounds: usize,
        whole: Whole,
    ) -> Result<bool> {
        let Some(mut learner) = self.learner.take() else {
            return self.learner().map(|_| false);
        };
        let (learner, update) = match whole.total {
            Total::Nothing => {
                self.learner = Some(learner);
                return Ok(false);
            }
            Total::Whole(gradients, norm) => in_pool(|| learner.update_of_norm(gradients, norm)),
            Total::Share(share) => {
                let (update, moved) = in_pool(|| learner.update_share(&share));
                match moved {
                    Some(moved) => {
                        let all = self.team.gather_numbers(&moved)?;
                        (learner.with_values(&all), update)
                    }
                    None => (learner, update),
                }
            }
        };
        self.learner = Some(learner);
        let mut done = Accumulated {
            batches: rounds,
            ..Accumulated::default()
        };
        for slot in whole.slots {
            // The weights of a step's batches add up to its rounds over their full number.
            done.loss += slot.loss * trainer.config.gradient_accumulation_steps as f64;
            done.losses.extend(slot.losses);
            done.noise_levels.extend(slot.noise_levels);
        }
        let told = match self.team.is_first() {
            true => self.told(trainer, observer, &update, done),
            false => Ok(()),
        };
        self.team.agree(told)?;
        Ok(true)
    }
}
