//! `langevin train`.

mod args;
mod publish;
mod resolve;
mod watch;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use langevin::{
    data,
    device::DeviceName,
    models::weights::CONFIG_NAME,
    pipelines::MODEL_INDEX,
    training::{ConditioningKind, Estimate, Outcome, TraineeKind, Trainer, TrainingConfig, card::shell_word},
};

pub(crate) use args::{LONG_ABOUT, TrainArgs};

use self::{
    resolve::resolve,
    watch::{Manner, Watch},
};
use crate::{
    processes::Processes,
    stop::Stop,
    terminal::{self, duration},
};

/// Trains a model, or says with what it would.
pub(crate) fn run(args: TrainArgs, processes: &mut Processes) -> Result<()> {
    let (slots, is_first) = (processes.slots(), processes.is_first());
    let resolved = processes.first_then_others(|| resolve(&args, slots, is_first))?;
    let program = args.program;
    let manner = match (program.quiet || !is_first, program.no_dashboard) {
        (true, _) => Manner::Quiet,
        (false, true) => Manner::Bar,
        (false, false) => Manner::Dashboard,
    };
    if manner != Manner::Quiet {
        resolved.notes.iter().for_each(|note| terminal::note(note));
    }
    if program.dry_run && is_first {
        let config = resolved.config.portable();
        return Ok(terminal::print(&serde_json::to_string_pretty(&config)?)?);
    }
    let publish = resolved.publish;
    if program.dry_run || (resolved.done.is_some() && !is_first) {
        return Ok(());
    }
    if let Some(done) = resolved.done {
        let folder = done.folder.display();
        let steps = terminal::thousands(done.steps as usize);
        terminal::print(&format!(
            "the run in {folder} is done: {steps} steps, and nothing to do"
        ))?;
        return match publish {
            Some(publish) => publish
                .make(&done.folder)
                .and_then(|()| publish.run(&done.folder)),
            None => Ok(()),
        };
    }
    let device_name = program.device.unwrap_or(DeviceName::CPU);
    let device = device_name.open()?;
    let stop = Stop::on_signals()?;
    #[cfg(unix)]
    stop.on_user_signal()?;
    // The digits recipe is known to be quick; anything else should not be a surprise.
    let announce_time = manner != Manner::Quiet && resolved.config.model != TrainingConfig::digits().model;
    let next = Next::of(&resolved.config);
    let captioned = resolved.config.conditioning == ConditioningKind::CrossAttention;
    let mut trainer = Trainer::on(resolved.config, resolved.dataset.into(), &device)?;
    if let Some(publish) = &publish {
        publish.make(trainer.folder())?;
    }
    // It costs a step on a few pictures.
    let on_cpu = device_name == DeviceName::CPU && is_first;
    let mut estimates = Vec::new();
    if announce_time || on_cpu {
        let first = trainer.estimate_codec()?;
        estimates.extend(first.map(|first| ("the autoencoder is trained first: ", first)));
        estimates.push(("", trainer.estimate()?));
    }
    for (what, estimate) in estimates.iter().filter(|_| announce_time) {
        announce(what, estimate, processes.size());
    }
    let needed = estimates.iter().filter_map(|(_, estimate)| estimate.memory).max();
    if let Some(needed) = needed.filter(|_| on_cpu)
        && let (Some(free), Some(all)) = (data::free_memory(), data::machine_memory())
    {
        terminal::say(&memory_in_words(needed, free, all)?);
    }
    let outcome = trainer.run_among(processes.world(), &mut Watch::new(manner, stop))?;
    if !is_first {
        return Ok(());
    }
    summarise(&outcome, next.as_ref(), captioned)?;
    match publish {
        Some(_) if outcome.interrupted => {
            terminal::note("the run was stopped before its end, so it is not published");
            Ok(())
        }
        Some(publish) => publish.run(&outcome.folder),
        None => Ok(()),
    }
}

fn announce(what: &str, estimate: &Estimate, processes: usize) {
    let processes = processes as f64;
    terminal::say(&format!(
        "{what}a step takes about {:.2} s here: {} for an epoch of {} steps, {} for the whole run of {}",
        estimate.seconds_per_step / processes,
        duration(estimate.seconds_per_epoch() / processes),
        terminal::thousands(estimate.steps_per_epoch),
        duration(estimate.seconds() / processes),
        terminal::thousands(estimate.steps)
    ));
}

/// What a run needs in memory, where so much is free, and so much there at all.
///
/// # Errors
/// If there is not enough at all.
fn memory_in_words(needed: u64, free: u64, all: u64) -> Result<String> {
    let [words, free_words, all_words] = [needed, free, all].map(terminal::bytes);
    const ADVICE: &str =
        "lower --train-batch-size, and raise --gradient-accumulation-steps for steps of the same pictures";
    if needed > all {
        bail!("training would take about {words} of memory, and this machine has {all_words}: {ADVICE}");
    }
    Ok(if needed > free {
        format!(
            "warning: training takes about {words} of memory, and {free_words} are free; if it is ended by the system, {ADVICE}"
        )
    } else {
        format!("training takes about {words} of memory; {free_words} are free")
    })
}

/// What was trained on top of another pipeline, and how it is drawn with.
struct Next {
    what: &'static str,
    trainee: TraineeKind,
    base: String,
    data: Option<String>,
    prompt: String,
}

impl Next {
    /// Of a run that trains no pipeline of its own; `None` of others.
    fn of(config: &TrainingConfig) -> Option<Self> {
        let what = match config.trainee {
            TraineeKind::Full | TraineeKind::Pix2Pix => return None,
            TraineeKind::Lora => "LoRA      ",
            TraineeKind::Embedding => "word      ",
            TraineeKind::ControlNet => "network   ",
            TraineeKind::Codec => "codec     ",
        };
        let prompts = config
            .validation_prompt
            .first()
            .or(config.instance_prompt.as_ref());
        let prompt = prompts.or(config.placeholder_token.as_ref());
        // An autoencoder by itself draws nothing.
        let draws = |base: &&PathBuf| !base.join(CONFIG_NAME).is_file() || base.join(MODEL_INDEX).is_file();
        Some(Self {
            what,
            trainee: config.trainee,
            base: config
                .pretrained
                .as_ref()
                .filter(draws)
                .map_or_else(String::new, |base| shell_word(&base.display().to_string())),
            data: config.dataset().ok().map(|data| shell_word(&data)),
            prompt: shell_word(prompt.map_or("what to draw", String::as_str)),
        })
    }

    /// What `langevin` is told then.
    fn asked(&self, folder: &str) -> String {
        let (base, prompt) = (&self.base, &self.prompt);
        if self.trainee == TraineeKind::Codec {
            let folder = shell_word(folder);
            return match self.base.is_empty() {
                true => format!(
                    "train --dataset-name {} --codec {folder}",
                    self.data.as_deref().unwrap_or("DATA")
                ),
                false => format!("sample {base} --codec {folder} --output picture.png"),
            };
        }
        let on_top = match self.trainee {
            TraineeKind::Embedding => {
                // XL has a file for each of its two encoders.
                let files = ["learned_embeds.safetensors", "learned_embeds_2.safetensors"];
                let files = files.map(|name| format!("{folder}/{name}"));
                let there = files.iter().filter(|file| Path::new(file).is_file());
                let named = there.map(|file| format!("--embedding {}", shell_word(file)));
                named.collect::<Vec<_>>().join(" ")
            }
            TraineeKind::ControlNet => format!("--control {}=picture.png", shell_word(folder)),
            _ => format!("--lora {}", shell_word(folder)),
        };
        format!("sample {base} {on_top} --prompt {prompt} --output picture.png")
    }
}

/// Says where things are, and what to try next.
fn summarise(outcome: &Outcome, next: Option<&Next>, captioned: bool) -> Result<()> {
    let ended = if outcome.interrupted {
        "stopped after"
    } else {
        "trained for"
    };
    let loss = outcome
        .final_loss
        .map_or_else(String::new, |loss| format!(", loss {loss:.4}"));
    terminal::print(&format!(
        "{ended} {} steps in {}{loss}",
        terminal::thousands(outcome.steps),
        duration(outcome.seconds)
    ))?;
    let folder = outcome.folder.display();
    let what = next.map_or("pipeline  ", |next| next.what);
    terminal::print(&format!("{what}{folder}"))?;
    for (what, path) in [("samples ", &outcome.samples), ("loss    ", &outcome.plot)] {
        if let Some(path) = path {
            terminal::print(&format!("{what}  {}", path.display()))?;
        }
    }
    if let Some(checkpoint) = &outcome.checkpoint {
        let path = shell_word(&checkpoint.display().to_string());
        terminal::print(&format!(
            "go on     langevin train --resume-from-checkpoint {path}"
        ))?;
    }
    if let Some(next) = next {
        return Ok(terminal::print(&format!(
            "next      langevin {}",
            next.asked(&folder.to_string())
        ))?);
    }
    let prompt = if captioned { " --prompt 'what to draw'" } else { "" };
    let class = outcome.classes.first().map_or_else(String::new, |_| {
        // The last class is as good an example as any, and `3` reads well where the classes are digits.
        let example = outcome
            .classes
            .get(3)
            .or(outcome.classes.last())
            .map_or("", String::as_str);
        format!(" --class {}", shell_word(example))
    });
    terminal::print(&format!(
        "next      langevin sample {}{prompt}{class} --output samples.png",
        shell_word(&folder.to_string())
    ))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::memory_in_words;

    #[test]
    fn memory_that_is_not_there_is_told_before_training() {
        let gigabytes = |n: u64| n * 1_000_000_000;
        let said = |needed, free, all| memory_in_words(gigabytes(needed), gigabytes(free), gigabytes(all));
        assert_eq!(
            said(1, 4, 8).unwrap(),
            "training takes about 1.00 GB of memory; 4.00 GB are free"
        );
        assert!(said(5, 4, 8).unwrap().starts_with("warning: "));
        let refused = said(9, 4, 8).unwrap_err().to_string();
        assert!(
            refused.contains("9.00 GB") && refused.contains("--train-batch-size"),
            "{refused}"
        );
    }
}
