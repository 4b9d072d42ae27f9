//! What the typed flags of `langevin train` mean.

use std::collections::HashSet;

use anyhow::{Context, Result, bail};
use langevin::{
    data,
    models::ClassChannels,
    named::Named,
    objectives::{LossWeighting, ObjectiveKind, PredictionType},
    training::{ConditioningKind, SavedRun, TrackerKind, TrainingConfig, checkpoints},
};
use langevin_hub::ModelFiles;

use super::{
    args::{ScriptArgs, TrainArgs},
    publish::{self, Checked, Publish},
};
use crate::hub::Names;

/// A run, and what its user should know about flags that have no effect.
#[derive(Debug)]
pub struct Resolved {
    /// The configuration, checked.
    pub config: TrainingConfig,
    /// Where the run is published when it is over, unless it is only said with what it would train.
    pub publish: Option<Checked>,
    /// One line a flag.
    pub notes: Vec<String>,
}

/// Turns flags into a configuration: the digits recipe or the script's defaults, then the model's own sizes, then
/// what was typed.
///
/// # Errors
/// If a flag asks for what is not there yet, or the values contradict each other.
pub fn resolve(args: &TrainArgs) -> Result<Resolved> {
    let mut notes = script_notes(&args.script);
    let (names, publish) = publish::resolve(&args.hub, &mut notes)?;
    // Hours before there is something to publish, and before data are pulled, is the time to find out that it cannot be.
    let publish = publish
        .filter(|_| !args.dry_run)
        .map(Publish::check)
        .transpose()?;
    let mut config = match resumed(args)? {
        Some(saved) => saved,
        None => defaults(args),
    };
    if args.dataset_name.is_some() || args.train_data_dir.is_some() {
        config.dataset_name.clone_from(&args.dataset_name);
        config.train_data_dir.clone_from(&args.train_data_dir);
    }
    if let Some(model) = args.model.as_ref().or(args.model_config_name_or_path.as_ref()) {
        config.use_model(names.model_config(model)?)?;
    }
    if let Some(folder) = &args.pretrained {
        config.use_pretrained(&names.model(folder, &ModelFiles::default())?)?;
    }
    if args.pretrained.is_some() && args.conditioning.is_some_and(|kind| kind != config.conditioning) {
        // It belongs to what the model was told, and is not told any more.
        config.class_emb_size = ClassChannels::default();
    }
    apply(args, &mut config);
    pull(&mut config, &names)?;
    imply(args, &mut config)?;
    if let Some(names) = &args.logger {
        config.report_to = trackers(names)?;
    }
    config.validate()?;
    // A data set that is not there, or holds nothing, is told before anything is made.
    data::open_with(&config.dataset()?, &config.open_options())?;
    Ok(Resolved {
        config,
        publish,
        notes,
    })
}

/// Puts paths in place of the names of the Hub that the configuration holds, typed or from the checkpoint that is resumed.
fn pull(config: &mut TrainingConfig, names: &Names) -> Result<()> {
    config.model = names.model_config(&config.model)?;
    if let Some(folder) = &config.pretrained {
        config.pretrained = Some(names.model(folder, &ModelFiles::default())?);
    }
    if config.conditioning == ConditioningKind::CrossAttention {
        config.text_encoder = names.text_encoder(&config.text_encoder)?;
    }
    if let Some(clip) = &mut config.vector_clip {
        *clip = names.model(clip, &ModelFiles::default())?;
    }
    if let Some(name) = &config.dataset_name {
        config.dataset_name = Some(names.dataset(name, &config.open_options())?);
    }
    Ok(())
}

/// The configuration of the checkpoint that is resumed, so that nothing of it has to be typed again.
fn resumed(args: &TrainArgs) -> Result<Option<TrainingConfig>> {
    let asked = TrainingConfig {
        resume_from_checkpoint: args.resume_from_checkpoint.clone(),
        output_dir: args.output_dir.clone(),
        ..TrainingConfig::script()
    };
    let Some(checkpoint) = checkpoints::asked_for(&asked)? else {
        return Ok(None);
    };
    Ok(Some(TrainingConfig {
        // Wherever the folder was when it was written, and whatever was allowed then.
        output_dir: Some(checkpoints::run_of(&checkpoint)),
        overwrite_output_dir: false,
        ..SavedRun::open(checkpoint)?.config().clone()
    }))
}

/// The digits recipe, or the script's defaults where data are named.
fn defaults(args: &TrainArgs) -> TrainingConfig {
    let names_data =
        args.dataset_name.as_deref().is_some_and(|name| name != "digits") || args.train_data_dir.is_some();
    if names_data {
        TrainingConfig::script()
    } else {
        TrainingConfig::digits()
    }
}

/// Puts what was typed over the defaults.
fn apply(args: &TrainArgs, config: &mut TrainingConfig) {
    fn set<T: Clone>(field: &mut T, typed: &Option<T>) {
        if let Some(value) = typed {
            field.clone_from(value);
        }
    }
    fn set_option<T: Clone>(field: &mut Option<T>, typed: &Option<T>) {
        if typed.is_some() {
            field.clone_from(typed);
        }
    }
    set(&mut config.resolution, &args.resolution);
    set(&mut config.resize, &args.resize);
    set(&mut config.center_crop, &args.center_crop);
    set(&mut config.random_flip, &args.random_flip);
    set(&mut config.channels, &args.channels);
    set_option(&mut config.dataset_config_name, &args.dataset_config_name);
    set(&mut config.split, &args.split);
    set(&mut config.alpha, &args.alpha);
    set(&mut config.only_classes, &args.only_classes);
    set(&mut config.cache, &args.cache);
    set(&mut config.strict, &args.strict);
    set(&mut config.dataloader_num_workers, &args.dataloader_num_workers);
    set(&mut config.conditioning, &args.conditioning);
    set_option(&mut config.class_dropout, &args.class_dropout);
    set(&mut config.class_emb_size, &args.class_emb_size);
    set_option(&mut config.conditioning_image, &args.conditioning_image);
    set(&mut config.text_encoder, &args.text_encoder);
    set_option(&mut config.caption_dropout, &args.caption_dropout);
    set(&mut config.vector, &args.vector);
    set(&mut config.vector_embedding, &args.vector_embedding);
    set_option(&mut config.vector_clip, &args.vector_clip);
    set_option(&mut config.vector_dropout, &args.vector_dropout);
    set_option(&mut config.image_dropout, &args.image_dropout);
    set(&mut config.train_batch_size, &args.train_batch_size);
    set(&mut config.num_epochs, &args.num_epochs);
    set_option(&mut config.max_train_steps, &args.max_train_steps);
    set(
        &mut config.gradient_accumulation_steps,
        &args.gradient_accumulation_steps,
    );
    set(&mut config.seed, &args.seed);
    set(&mut config.exact_convolution, &args.exact_convolution);
    set(&mut config.mixed_precision, &args.mixed_precision);
    set(&mut config.gradient_checkpointing, &args.gradient_checkpointing);
    set(&mut config.learning_rate, &args.learning_rate);
    set(&mut config.lr_scheduler, &args.lr_scheduler);
    set(&mut config.lr_warmup_steps, &args.lr_warmup_steps);
    set_option(&mut config.lr_num_cycles, &args.lr_num_cycles);
    set(&mut config.lr_power, &args.lr_power);
    set_option(&mut config.lr_step_rules, &args.lr_step_rules);
    set(&mut config.adam_beta1, &args.adam_beta1);
    set(&mut config.adam_beta2, &args.adam_beta2);
    set(&mut config.adam_weight_decay, &args.adam_weight_decay);
    set(&mut config.adam_epsilon, &args.adam_epsilon);
    set(&mut config.max_grad_norm, &args.max_grad_norm);
    set(&mut config.use_ema, &args.use_ema);
    set(&mut config.ema_inv_gamma, &args.ema_inv_gamma);
    set(&mut config.ema_power, &args.ema_power);
    set(&mut config.ema_max_decay, &args.ema_max_decay);
    set(&mut config.train_only, &args.train_only);
    set(&mut config.lr_gamma, &args.lr_gamma);
    set(&mut config.objective, &args.objective);
    set(&mut config.rescale_betas_zero_snr, &args.rescale_betas_zero_snr);
    set(&mut config.loss_weighting, &args.loss_weighting);
    set_option(&mut config.snr_gamma, &args.snr_gamma);
    set(&mut config.noise_offset, &args.noise_offset);
    set(&mut config.input_perturbation, &args.input_perturbation);
    set(&mut config.edm_p_mean, &args.edm_p_mean);
    set(&mut config.edm_p_std, &args.edm_p_std);
    set(&mut config.edm_sigma_data, &args.edm_sigma_data);
    set(&mut config.logit_mean, &args.logit_mean);
    set(&mut config.logit_std, &args.logit_std);
    set(&mut config.save_model_every, &args.save_model_every);
    set(&mut config.prediction_type, &args.prediction_type);
    set(&mut config.ddpm_num_steps, &args.ddpm_num_steps);
    set(
        &mut config.ddpm_num_inference_steps,
        &args.ddpm_num_inference_steps,
    );
    set(&mut config.ddpm_beta_schedule, &args.ddpm_beta_schedule);
    set_option(&mut config.output_dir, &args.output_dir);
    set(&mut config.overwrite_output_dir, &args.overwrite_output_dir);
    set(&mut config.save_images_epochs, &args.save_images_epochs);
    set(&mut config.save_model_epochs, &args.save_model_epochs);
    set(&mut config.log_samples_every, &args.log_samples_every);
    set_option(&mut config.license, &args.license);
    set(&mut config.logging_dir, &args.logging_dir);
    set(&mut config.checkpointing_steps, &args.checkpointing_steps);
    set_option(&mut config.checkpoints_total_limit, &args.checkpoints_total_limit);
    set_option(&mut config.resume_from_checkpoint, &args.resume_from_checkpoint);
    set(&mut config.eval_batch_size, &args.eval_batch_size);
}

/// What some flags say about others that were not typed.
fn imply(args: &TrainArgs, config: &mut TrainingConfig) -> Result<()> {
    if args.snr_gamma.is_some()
        && args.loss_weighting.is_none()
        && config.loss_weighting == LossWeighting::Script
    {
        config.loss_weighting = LossWeighting::MinSnr;
    }
    if config.objective != ObjectiveKind::Ddpm {
        if args.ddpm_beta_schedule.is_some() {
            bail!(
                "--ddpm-beta-schedule belongs to the objective ddpm; {} has no such table",
                config.objective
            );
        }
        // The recipe's; what an edm or a flow predicts is settled.
        if args.prediction_type.is_none() {
            config.prediction_type = PredictionType::Epsilon;
        }
    }
    Ok(())
}

/// The trackers that `--logger` names, each once.
fn trackers(names: &[String]) -> Result<Vec<TrackerKind>> {
    let mut trackers = vec![];
    for name in names {
        let named = match name.as_str() {
            "all" => TrackerKind::ALL.to_vec(),
            "none" => vec![],
            name => vec![name.parse().context("--logger")?],
        };
        trackers.extend(named);
    }
    let mut seen = HashSet::new();
    trackers.retain(|tracker| seen.insert(*tracker));
    Ok(trackers)
}

/// A note for each of the script's flags that has nothing to do here.
fn script_notes(script: &ScriptArgs) -> Vec<String> {
    let without_effect = [
        (
            "--enable-xformers-memory-efficient-attention",
            script.enable_xformers_memory_efficient_attention,
            "attention never stores its scores here",
        ),
        ("--local-rank", script.local_rank.is_some(), "one process trains"),
        (
            "--preserve-input-precision",
            script.preserve_input_precision,
            "pictures of 8 and 16 bits keep their precision",
        ),
    ];
    let given = without_effect.into_iter().filter(|(_, given, _)| *given);
    given
        .map(|(flag, _, why)| format!("{flag} has no effect: {why}"))
        .collect()
}
