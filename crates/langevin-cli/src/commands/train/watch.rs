//! The observer that shows a training run to its user.

use langevin::training::{Drawn, Observer, Progress as Step, RunInfo};

use crate::{
    dashboard::Dashboard,
    progress::Progress,
    stop::Stop,
    terminal::{self, duration, thousands},
};

/// How much of a run is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Nothing but what goes wrong.
    Quiet,
    /// A bar, or lines where nobody watches.
    Bar,
    /// The whole terminal where there is one, else as [`Manner::Bar`].
    Dashboard,
}

/// Shows a run, and passes Ctrl-C on to it.
pub(super) struct Watch {
    manner: Manner,
    shown: Shown,
    stop: Stop,
    announced: bool,
}

enum Shown {
    Nothing,
    Bar(Progress),
    Dashboard(Box<Dashboard>),
}

impl Watch {
    /// A watcher that asks the run to end when `stop` is requested.
    pub(super) fn new(manner: Manner, stop: Stop) -> Self {
        Self {
            manner,
            shown: Shown::Nothing,
            stop,
            announced: false,
        }
    }
}

impl Observer for Watch {
    fn started(&mut self, info: &RunInfo) {
        if self.manner == Manner::Quiet {
            return;
        }
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
        let bar = || Shown::Bar(Progress::new("step", info.steps));
        self.shown = if self.manner == Manner::Dashboard && Dashboard::fits() {
            // A terminal that cannot be taken still shows a bar.
            Dashboard::open(info, self.stop.clone())
                .map_or_else(|_| bar(), |it| Shown::Dashboard(Box::new(it)))
        } else {
            bar()
        };
    }

    fn step(&mut self, step: &Step) {
        let bar = match &mut self.shown {
            Shown::Nothing => return,
            Shown::Dashboard(dashboard) => return dashboard.step(step),
            Shown::Bar(bar) => bar,
        };
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

    fn drawn(&mut self, step: usize, drawn: &Drawn) {
        if let Shown::Dashboard(dashboard) = &mut self.shown {
            dashboard.samples(step, drawn);
        }
    }

    fn message(&mut self, text: &str) {
        match &mut self.shown {
            Shown::Bar(bar) => bar.say(text),
            Shown::Dashboard(dashboard) => {
                terminal::say(text);
                dashboard.redraw();
            }
            Shown::Nothing if self.manner == Manner::Quiet => {}
            Shown::Nothing => terminal::say(text),
        }
    }

    fn should_stop(&self) -> bool {
        self.stop.requested()
    }
}
