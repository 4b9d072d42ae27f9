//! The observer that shows a training run to its user.

use langevin::training::{Observer, Progress as Step, RunInfo};

use crate::{
    progress::Progress,
    stop::Stop,
    terminal::{self, duration, thousands},
};

/// Shows a run as a bar, and passes Ctrl-C on to it.
pub struct Watch {
    bar: Option<Progress>,
    stop: Stop,
    announced: bool,
}

impl Watch {
    /// A watcher that asks the run to end when `stop` is requested.
    pub fn new(stop: Stop) -> Self {
        Self {
            bar: None,
            stop,
            announced: false,
        }
    }
}

impl Observer for Watch {
    fn started(&mut self, info: &RunInfo) {
        let classes = match info.classes.len() {
            0 => String::new(),
            count => format!(" of {count} classes"),
        };
        terminal::say(&format!(
            "training {} ({} parameters) on {}: {} pictures{classes} at {size}x{size}, {} epochs, {} steps of {}",
            info.model,
            thousands(info.parameters),
            info.dataset,
            thousands(info.pictures),
            thousands(info.epochs),
            thousands(info.steps),
            info.batch_size,
            size = info.resolution,
        ));
        terminal::say(&format!("into {}", info.folder.display()));
        self.bar = Some(Progress::new("step", info.steps));
    }

    fn step(&mut self, step: &Step) {
        let Some(bar) = &mut self.bar else { return };
        bar.update(step.step, || {
            format!(
                "epoch {}/{}  loss {:.4}  lr {:.1e}  {:.0} pictures/s  {} left",
                step.epoch,
                step.epochs,
                step.loss,
                step.learning_rate,
                step.pictures_per_second,
                duration(step.seconds_left)
            )
        });
        if self.stop.requested() && !self.announced {
            self.announced = true;
            bar.say("writing a checkpoint and ending the run; Ctrl-C again ends it at once");
        }
        if step.step == step.steps {
            bar.finish();
        }
    }

    fn message(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.say(text),
            None => terminal::say(text),
        }
    }

    fn should_stop(&self) -> bool {
        self.stop.requested()
    }
}
