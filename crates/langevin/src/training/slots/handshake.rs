//! What processes tell each other before the first step: that they do the same, and compute alike.

use burn::module::Module;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    Error, Result,
    data::Fingerprint,
    device::default_device,
    models::{
        AnyModelConfig, Conditioning, UNet2DConfig,
        unet2d::{DownBlockType, UpBlockType},
    },
    objectives::{DdpmObjective, NoiseOptions, PredictionType, Weighting},
    ops::in_pool,
    random::Generator,
    schedulers::{DDPMConfig, DDPMScheduler},
    training::{
        Trainer, TrainingConfig,
        learner::shared::numbers,
        state::{VERSION, config_differences, differences},
        step::{self, Batch, Draw},
    },
    world::{Team, of_process},
};

/// The options that say when all processes do something together.
const MEETINGS: [&str; 7] = [
    "max_train_steps",
    "num_epochs",
    "checkpointing_steps",
    "save_images_epochs",
    "save_model_epochs",
    "save_model_every",
    "log_samples_every",
];

/// What a process says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Introduction {
    version: String,
    config: TrainingConfig,
    data: Fingerprint,
    /// The step that it goes on after.
    resumed: Option<usize>,
    /// Of the numbers of a small forward and backward.
    numbers: String,
}

/// Refuses processes that would not train the same run, or not with the same numbers. All of them come to the same verdict.
///
/// # Errors
/// If a process is of another version, or has other options, other data or another checkpoint; if processors compute otherwise and
/// `allow_mixed_processors` is not said; or if there are more processes than slots.
pub(in crate::training) fn check(team: &mut Team<'_>, trainer: &Trainer) -> Result<()> {
    if team.size() == 1 {
        return Ok(());
    }
    let own = team.agree(Introduction::of(trainer))?;
    let all: Vec<Introduction> = team.speak(&own)?;
    let verdict = together(&all);
    // All have come to it, and the first says it.
    match team.is_first() {
        true => verdict,
        false => verdict.map_err(|error| of_process(0, &error.to_string())),
    }
}

/// Refuses processes that say so of themselves.
fn together(all: &[Introduction]) -> Result<()> {
    let config = &all[0].config;
    if all.len() > config.num_slots {
        return Err(Error::option(
            &["num_slots"],
            format!(
                "a step of {} slots can be shared by so many processes at most, and there are {}: start fewer, or a new run with a larger \
                 `num_slots`",
                config.num_slots,
                all.len()
            ),
        ));
    }
    if !config.optimizer.is_by_element() {
        return Err(Error::option(
            &["optimizer"],
            format!(
                "`optimizer` {} moves an element by what it knows of others, and each of several processes keeps a share of them: train in one \
                 process, with as many slots as you like, or with adamw",
                config.optimizer
            ),
        ));
    }
    all.iter().enumerate().skip(1).try_for_each(|(rank, other)| {
        compare(&all[0], other, config.allow_mixed_processors).map_err(|sentence| {
            Error::Config(format!("process {rank} cannot train with process 0: {sentence}"))
        })
    })
}

impl Introduction {
    fn of(trainer: &Trainer) -> Result<Self> {
        Ok(Self {
            version: VERSION.into(),
            config: trainer.config.portable(),
            data: trainer.data.clone(),
            resumed: trainer.resumed.as_ref().map(|saved| saved.step()),
            numbers: numeric_fingerprint()?,
        })
    }
}

/// What keeps two processes from training together; the error is the rest of a sentence.
fn compare(first: &Introduction, other: &Introduction, mixed: bool) -> Result<(), String> {
    if first.version != other.version {
        return Err(format!(
            "it is of version {}, and that of {}",
            other.version, first.version
        ));
    }
    let differing = config_differences(&first.config, &other.config).map_err(|error| error.to_string())?;
    if let Some((name, there, here)) = differing.first() {
        return Err(format!("`{name}` is {here} in it, and {there} in that"));
    }
    // What may change from one part of a run to the next may not within one: it says when processes meet.
    let all = differences(&first.config, &other.config).map_err(|error| error.to_string())?;
    if let Some((name, there, here)) = all.iter().find(|(name, ..)| MEETINGS.contains(&name.as_str())) {
        return Err(format!("`{name}` is {here} in it, and {there} in that"));
    }
    if let Some(difference) = first.data.difference(&other.data, true, true) {
        return Err(format!("it has other data: {difference} in that"));
    }
    if first.resumed != other.resumed {
        return Err("they go on from different checkpoints: all machines need the same folder".into());
    }
    if first.numbers != other.numbers && !mixed {
        return Err(
            "their processors compute with other instructions, so the run's bits would depend on which of them does what: \
             `allow_mixed_processors` trains all the same, and gives up that a run can be repeated to the bit"
                .into(),
        );
    }
    Ok(())
}

/// A hash of the gradients of a small network: equal where processors, and the kernels that are chosen for them, give equal bits.
fn numeric_fingerprint() -> Result<String> {
    let device = default_device();
    let config = AnyModelConfig::from(UNet2DConfig {
        sample_size: None,
        down_block_types: vec![DownBlockType::DownBlock2D, DownBlockType::AttnDownBlock2D],
        up_block_types: vec![UpBlockType::AttnUpBlock2D, UpBlockType::UpBlock2D],
        block_out_channels: vec![16, 32],
        layers_per_block: 1,
        norm_num_groups: Some(4),
        attention_head_dim: Some(8),
        ..UNet2DConfig::default()
    });
    let mut generator = Generator::new(0);
    let model = config.build(&device, &mut generator)?.train();
    let scheduler = DDPMScheduler::new(DDPMConfig::default())?;
    let objective = DdpmObjective::new(&scheduler, PredictionType::Epsilon, Weighting::default())?;
    let batch = Batch::new(
        generator.randn_tensor([2, 3, 16, 16], &device),
        Conditioning::default(),
    );
    let draw = Draw::new(&batch.clean, &objective, NoiseOptions::default(), &mut generator);
    let lesson = in_pool(|| step::gradients(&model, &objective, &batch, &draw))?;
    let mut hash = Sha256::new();
    for (_, gradient) in lesson.gradients.parts() {
        for value in numbers(gradient.clone()) {
            hash.update(value.to_le_bytes());
        }
    }
    let hash = hash.finalize();
    Ok(hash.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn introduction() -> Introduction {
        Introduction {
            version: "1".into(),
            config: TrainingConfig::digits(),
            data: Fingerprint {
                pictures: 3,
                classes: vec![],
                names: "a".into(),
                labels: "b".into(),
                captions: "c".into(),
            },
            resumed: None,
            numbers: "d".into(),
        }
    }

    #[test]
    fn what_differs_is_named() {
        let first = introduction();
        assert_eq!(compare(&first, &first, false), Ok(()));
        let refused = |change: fn(&mut Introduction)| {
            let mut other = introduction();
            change(&mut other);
            (
                compare(&first, &other, false).unwrap_err(),
                compare(&first, &other, true).is_ok(),
            )
        };
        let (sentence, mixed) = refused(|other| other.config.seed = 7);
        assert!(
            sentence.contains("`seed` is 7 in it, and 0") && !mixed,
            "{sentence}"
        );
        assert!(
            refused(|other| other.version = "2".into())
                .0
                .contains("version 2")
        );
        assert!(refused(|other| other.data.pictures = 4).0.contains("data"));
        assert!(refused(|other| other.resumed = Some(4)).0.contains("checkpoints"));
        let (sentence, mixed) = refused(|other| other.config.checkpointing_steps = 3);
        assert!(
            sentence.contains("`checkpointing_steps` is 3 in it") && !mixed,
            "{sentence}"
        );
        let (sentence, mixed) = refused(|other| other.numbers = "e".into());
        assert!(sentence.contains("processors") && mixed, "{sentence}");
        // Where a run is written is nobody's business but the first's.
        let mut other = introduction();
        other.config.output_dir = Some("elsewhere".into());
        assert_eq!(compare(&first, &other, false), Ok(()));
    }

    #[test]
    fn the_numbers_of_a_processor_are_the_same_twice() {
        assert_eq!(numeric_fingerprint().unwrap(), numeric_fingerprint().unwrap());
    }
}
