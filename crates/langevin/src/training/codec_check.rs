//! What the options of autoencoders must be.

use super::{CodecSource, DataCodec, TraineeKind, TrainingConfig};
use crate::{Error, Result};

/// Checks them, without looking at the data.
///
/// # Errors
/// If they make no sense, alone or together.
pub(super) fn check(config: &TrainingConfig) -> Result<()> {
    const OPTIONS: &[&str] = &[
        "codec",
        "codec_model",
        "codec_train_steps",
        "codec_batch_size",
        "codec_learning_rate",
        "kl_weight",
        "trainee",
        "pretrained",
        "conditioning_image",
        "gradient_checkpointing",
    ];
    let refused = |message: String| Err(Error::option(OPTIONS, message));
    if let Some(codec) = &config.codec {
        codec.check()?;
    }
    let (trains, before) = (
        config.trainee == TraineeKind::Codec,
        config.codec == Some(CodecSource::Train),
    );
    let usual = TrainingConfig::script();
    let asked = [
        (
            "codec_model",
            config.codec_model != usual.codec_model,
            trains || before,
        ),
        ("kl_weight", config.kl_weight != usual.kl_weight, trains || before),
        (
            "codec_train_steps",
            config.codec_train_steps != usual.codec_train_steps,
            before,
        ),
        ("codec_batch_size", config.codec_batch_size.is_some(), before),
        (
            "codec_learning_rate",
            config.codec_learning_rate.is_some(),
            before,
        ),
    ];
    if let Some((name, ..)) = asked.into_iter().find(|(_, asked, used)| *asked && !used) {
        return refused(format!(
            "`{name}` goes with `codec` train, which trains an autoencoder first"
        ));
    }
    if !(config.kl_weight.is_finite() && config.kl_weight >= 0.0) {
        return refused(format!(
            "`kl_weight` is {}; it must be 0 or more",
            config.kl_weight
        ));
    }
    if config.codec_train_steps == 0 || config.codec_batch_size == Some(0) {
        return refused("`codec_train_steps` and `codec_batch_size` must be at least 1".into());
    }
    if config
        .codec_learning_rate
        .is_some_and(|rate| !(rate.is_finite() && rate > 0.0))
    {
        return refused("`codec_learning_rate` must be a positive number".into());
    }
    if config.draws_latents() {
        if config.pretrained.is_some() {
            return refused(
                "`codec` is of a model from nothing; the one that `pretrained` names has an autoencoder, or draws pictures themselves"
                    .into(),
            );
        }
        if config.conditioning_image.is_some() {
            return refused(
                "`conditioning_image` is shown beside the picture that a model draws, and with `codec` it draws latents".into(),
            );
        }
    }
    if !trains {
        return Ok(());
    }
    if config
        .codec
        .as_ref()
        .is_some_and(|codec| *codec != DataCodec::Pixels.into())
    {
        return refused("`trainee` codec learns from pictures themselves: `codec` is not for it".into());
    }
    if config.gradient_checkpointing {
        return refused(
            "`gradient_checkpointing` is there for models that denoise; `trainee` codec has none".into(),
        );
    }
    check_unused(config)
}

/// Refuses options of noise and conditions where an autoencoder is trained, which has neither.
///
/// # Errors
/// If one is given.
fn check_unused(config: &TrainingConfig) -> Result<()> {
    let fields = |config: &TrainingConfig| serde_json::to_value(config).unwrap_or_default();
    let (given, usual) = (fields(config), fields(&TrainingConfig::script()));
    // The first is what the sentence names beside.
    const UNUSED: &[&str] = &[
        "trainee",
        "objective",
        "prediction_type",
        "ddpm_num_steps",
        "ddpm_beta_schedule",
        "rescale_betas_zero_snr",
        "loss_weighting",
        "snr_gamma",
        "noise_offset",
        "input_perturbation",
        "timestep_bias_strategy",
        "dream_training",
        "conditioning",
        "conditioning_image",
        "attribute_columns",
        "class_dropout",
        "caption_dropout",
        "vector_dropout",
    ];
    match UNUSED[1..].iter().find(|&&name| given[name] != usual[name]) {
        Some(name) => Err(Error::option(
            UNUSED,
            format!(
                "`{name}` is for models that denoise, and `trainee` codec learns an autoencoder: leave it out"
            ),
        )),
        None => Ok(()),
    }
}
