//! Which training configurations make sense.

use super::{
    ConditioningKind, LrSchedulerType, MixedPrecision, ModelSource, OptimizerKind, TraineeKind,
    TrainingConfig, codec_check,
};
use crate::{
    Error, Result, conditioning,
    data::Resize,
    error::require,
    models::{ImageCondition, ModelPreset},
};

/// The options of fine-tuning, which its sentences name.
const TUNING: &[&str] = &[
    "trainee",
    "pretrained",
    "enable_bucket",
    "cache_latents_to_disk",
    "center_crop",
    "min_bucket_reso",
    "max_bucket_reso",
    "bucket_reso_steps",
    "bucket_no_upscale",
    "resize",
    "rank",
    "lora_alpha",
    "lora_targets",
    "lora_text_targets",
    "lora_dropout",
    "lora_init",
    "use_dora",
    "output_kohya_format",
    "train_text_encoder",
    "text_encoder_lr",
    "instance_prompt",
    "shuffle_tags",
    "keep_tags",
    "class_prompt",
    "class_data_dir",
    "num_class_images",
    "prior_loss_weight",
    "placeholder_token",
    "initializer_token",
    "num_vectors",
    "learnable_property",
    "conditioning_dropout_prob",
    "conditioning_image",
    "validation_prompt",
    "validation_image",
];

/// Slots that a step may have: each holds generators of its own.
const MOST_SLOTS: usize = 100_000;

impl TrainingConfig {
    /// Checks every value, alone and against the others, without looking at the data or the model's file.
    ///
    /// # Errors
    /// If a value makes no sense, with the field's name and what would be right.
    pub fn validate(&self) -> Result<()> {
        self.dataset()?;
        self.mel()?;
        self.check_sizes()?;
        self.check_precision()?;
        self.check_optimiser()?;
        self.check_noise()?;
        self.check_model()?;
        codec_check::check(self)?;
        self.check_trainee()
    }

    /// What is said of fine-tuning, value by value and against each other.
    fn check_trainee(&self) -> Result<()> {
        let option = |message: String| Err(Error::option(TUNING, message));
        let probability = |name: &'static str, value: f64| {
            require((0.0..=1.0).contains(&value), || {
                format!("`{name}` is {value}; it must be between 0 and 1")
            })
        };
        probability("lora_dropout", self.lora_dropout)?;
        probability(
            "conditioning_dropout_prob",
            self.conditioning_dropout_prob.unwrap_or(0.0) * 3.0,
        )
        .map_err(|_| Error::Config("`conditioning_dropout_prob` must be between 0 and 1/3".into()))?;
        for (name, value) in [
            ("prior_loss_weight", self.prior_loss_weight),
            ("text_encoder_lr", self.text_encoder_lr.unwrap_or(0.0)),
            ("lora_alpha", self.lora_alpha.unwrap_or(0.0)),
        ] {
            require(value.is_finite() && value >= 0.0, || {
                format!("`{name}` is {value}; it must be 0 or more")
            })?;
        }
        for (name, value) in [
            ("rank", self.rank),
            ("num_vectors", self.num_vectors),
            ("num_class_images", self.num_class_images),
        ] {
            require(value > 0, || format!("`{name}` is 0; it must be at least 1"))?;
        }
        let kind = self.trainee;
        let usual = Self::script();
        let of_lora = [
            ("rank", self.rank != usual.rank),
            ("lora_alpha", self.lora_alpha.is_some()),
            ("lora_targets", !self.lora_targets.is_empty()),
            ("lora_text_targets", !self.lora_text_targets.is_empty()),
            ("lora_dropout", self.lora_dropout != 0.0),
            ("lora_init", self.lora_init != usual.lora_init),
            ("use_dora", self.use_dora),
            ("output_kohya_format", self.output_kohya_format),
        ];
        let of_embedding = [
            ("num_vectors", self.num_vectors != usual.num_vectors),
            (
                "learnable_property",
                self.learnable_property != usual.learnable_property,
            ),
        ];
        let whose = of_lora.map(|asked| (asked, TraineeKind::Lora)).into_iter();
        for ((name, asked), whose) in whose.chain(of_embedding.map(|asked| (asked, TraineeKind::Embedding))) {
            if asked && kind != whose {
                return option(format!("`{name}` belongs to `trainee` {whose}, and it is {kind}"));
            }
        }
        let needs = [
            (
                "num_class_images",
                self.num_class_images != usual.num_class_images,
                "class_prompt",
                self.class_prompt.is_some(),
            ),
            (
                "prior_loss_weight",
                self.prior_loss_weight != usual.prior_loss_weight,
                "class_prompt",
                self.class_prompt.is_some(),
            ),
            (
                "class_data_dir",
                self.class_data_dir.is_some(),
                "class_prompt",
                self.class_prompt.is_some(),
            ),
            (
                "text_encoder_lr",
                self.text_encoder_lr.is_some(),
                "train_text_encoder",
                self.train_text_encoder,
            ),
            (
                "lora_text_targets",
                !self.lora_text_targets.is_empty(),
                "train_text_encoder",
                self.train_text_encoder,
            ),
            (
                "keep_tags",
                self.keep_tags != usual.keep_tags,
                "shuffle_tags",
                self.shuffle_tags,
            ),
            (
                "min_bucket_reso",
                self.min_bucket_reso != usual.min_bucket_reso,
                "enable_bucket",
                self.enable_bucket,
            ),
            (
                "max_bucket_reso",
                self.max_bucket_reso != usual.max_bucket_reso,
                "enable_bucket",
                self.enable_bucket,
            ),
            (
                "bucket_reso_steps",
                self.bucket_reso_steps != usual.bucket_reso_steps,
                "enable_bucket",
                self.enable_bucket,
            ),
            (
                "bucket_no_upscale",
                self.bucket_no_upscale,
                "enable_bucket",
                self.enable_bucket,
            ),
        ];
        if let Some((name, _, other, _)) = needs.into_iter().find(|(_, asked, _, there)| *asked && !there) {
            return option(format!("`{name}` goes with `{other}`, and there is none"));
        }
        let shows = matches!(kind, TraineeKind::ControlNet | TraineeKind::Pix2Pix);
        if !self.validation_image.is_empty() && !shows {
            return option(format!(
                "`validation_image` goes with `trainee` controlnet and pix2pix, and it is {kind}"
            ));
        }
        let asks = [
            ("train_text_encoder", self.train_text_encoder),
            ("enable_bucket", self.enable_bucket),
            ("cache_latents_to_disk", self.cache_latents_to_disk.is_some()),
            ("instance_prompt", self.instance_prompt.is_some()),
            ("shuffle_tags", self.shuffle_tags),
            ("class_prompt", self.class_prompt.is_some()),
            ("placeholder_token", self.placeholder_token.is_some()),
            ("validation_prompt", !self.validation_prompt.is_empty()),
        ];
        if self.latent_base()?.is_none() {
            if !matches!(kind, TraineeKind::Full | TraineeKind::Codec) {
                return option(format!(
                    "`trainee` {kind} is trained on top of a latent pipeline, such as Stable Diffusion's, which `pretrained` names; it names none"
                ));
            }
            return match asks.into_iter().find(|(_, asked)| *asked) {
                Some((name, _)) => option(format!(
                    "`{name}` is for training on top of a latent pipeline, which `pretrained` names; it names none"
                )),
                None => Ok(()),
            };
        }
        self.buckets()?;
        if self.enable_bucket && self.resize == Resize::Square {
            return option(
                "`resize` square brings every picture to one square, and `enable_bucket` to the size of its proportions: leave one out".into(),
            );
        }
        if self.cache_latents_to_disk.is_some() && !self.center_crop && self.resize != Resize::Square {
            return option(
                "`cache_latents_to_disk` keeps what pictures come to, and they are cropped at random, anew each time: `center_crop` goes with it"
                    .into(),
            );
        }
        if self.shuffle_tags && (self.instance_prompt.is_some() || kind == TraineeKind::Embedding) {
            return option(
                "`shuffle_tags` shuffles the captions that pictures have, and this run gives all of them another".into(),
            );
        }
        let words = [
            ("placeholder_token", self.placeholder_token.is_some()),
            ("initializer_token", self.initializer_token.is_some()),
        ];
        for (name, given) in words {
            match (kind == TraineeKind::Embedding, given) {
                (true, false) => {
                    return option(format!(
                        "`trainee` embedding needs `{name}`: the new word, and one that it begins as"
                    ));
                }
                (false, true) => {
                    return option(format!(
                        "`{name}` belongs to `trainee` embedding, and it is {kind}"
                    ));
                }
                _ => {}
            }
        }
        let alone = matches!(
            kind,
            TraineeKind::Embedding | TraineeKind::ControlNet | TraineeKind::Pix2Pix
        );
        for (name, given) in [
            ("train_text_encoder", self.train_text_encoder),
            ("class_prompt", self.class_prompt.is_some()),
        ] {
            if alone && given {
                return option(format!(
                    "`{name}` goes with `trainee` full and lora, and it is {kind}"
                ));
            }
        }
        let shown = matches!(kind, TraineeKind::ControlNet | TraineeKind::Pix2Pix);
        let column = matches!(self.conditioning_image, Some(ImageCondition::Column(_)));
        if shown && !column {
            return option(format!(
                "`trainee` {kind} is shown pictures beside those that it draws: `conditioning_image` names their column, and it names none"
            ));
        }
        if !shown && self.conditioning_image.is_some() {
            return option(format!(
                "`conditioning_image` goes with `trainee` controlnet and pix2pix, and it is {kind}"
            ));
        }
        if self.conditioning_dropout_prob.is_some() && kind != TraineeKind::Pix2Pix {
            return option(format!(
                "`conditioning_dropout_prob` belongs to `trainee` pix2pix, and it is {kind}"
            ));
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<()> {
        for (name, value) in [
            ("resolution", self.resolution),
            ("train_batch_size", self.train_batch_size),
            ("num_slots", self.num_slots),
            ("eval_batch_size", self.eval_batch_size),
            ("gradient_accumulation_steps", self.gradient_accumulation_steps),
            ("ddpm_num_steps", self.ddpm_num_steps),
            ("ddpm_num_inference_steps", self.ddpm_num_inference_steps),
        ] {
            require(value > 0, || format!("`{name}` is 0; it must be at least 1"))?;
        }
        require(self.num_slots <= MOST_SLOTS, || {
            format!("`num_slots` is {}; {MOST_SLOTS} are the most", self.num_slots)
        })?;
        require(self.checkpoints_total_limit != Some(0), || {
            "`checkpoints_total_limit` is 0; it must be at least 1, and `checkpointing_steps` 0 writes none"
                .into()
        })?;
        require(self.num_epochs > 0 || self.max_train_steps.is_some(), || {
            "`num_epochs` is 0; it must be at least 1 where `max_train_steps` does not say how long to train"
                .into()
        })?;
        require(self.max_train_steps != Some(0), || {
            "`max_train_steps` is 0; it must be at least 1".into()
        })
    }

    fn check_precision(&self) -> Result<()> {
        require(self.mixed_precision != MixedPrecision::Fp16, || {
            "`mixed_precision` is `fp16`, whose gradients vanish without a scaled loss and which no CPU computes faster; `bf16` \
             has float32's range and halves what is kept for the backward, and `no` is float32"
                .into()
        })
    }

    fn check_optimiser(&self) -> Result<()> {
        for (name, value) in [
            ("learning_rate", self.learning_rate),
            ("adam_epsilon", self.adam_epsilon),
            ("max_grad_norm", self.max_grad_norm),
            ("lr_power", self.lr_power),
            ("lr_gamma", self.lr_gamma),
        ] {
            require(value.is_finite() && value > 0.0, || {
                format!("`{name}` is {value}; it must be a positive number")
            })?;
        }
        for (name, given) in [
            ("prodigy_beta3", self.prodigy_beta3.is_some()),
            ("prodigy_decouple", !self.prodigy_decouple),
            ("prodigy_use_bias_correction", !self.prodigy_use_bias_correction),
            ("prodigy_safeguard_warmup", !self.prodigy_safeguard_warmup),
            ("prodigy_d_coef", self.prodigy_d_coef != 1.0),
        ] {
            require(!given || self.optimizer == OptimizerKind::Prodigy, || {
                format!(
                    "`{name}` belongs to `optimizer` prodigy, and it is {}",
                    self.optimizer
                )
            })?;
        }
        require(
            self.optimizer != OptimizerKind::Prodigy || self.text_encoder_lr.is_none(),
            || {
                "`optimizer` prodigy finds one learning rate for all that is trained: leave `text_encoder_lr` out".into()
            },
        )?;
        let d_coef = self.prodigy_d_coef;
        require(d_coef.is_finite() && d_coef > 0.0, || {
            format!("`prodigy_d_coef` is {d_coef}; it must be a positive number")
        })?;
        require(
            self.prodigy_beta3.is_none_or(|beta| (0.0..1.0).contains(&beta)),
            || "`prodigy_beta3` must be at least 0 and less than 1".into(),
        )?;
        for (name, value) in [("adam_beta1", self.adam_beta1), ("adam_beta2", self.adam_beta2)] {
            require((0.0..1.0).contains(&value), || {
                format!("`{name}` is {value}; it must be at least 0 and less than 1")
            })?;
        }
        require(
            self.adam_weight_decay.is_finite() && self.adam_weight_decay >= 0.0,
            || {
                format!(
                    "`adam_weight_decay` is {}; it must be 0 or more",
                    self.adam_weight_decay
                )
            },
        )?;
        match (self.lr_scheduler, &self.lr_step_rules) {
            (LrSchedulerType::PiecewiseConstant, None) => Err(Error::Config(
                "`lr_scheduler` is `piecewise_constant`, which needs `lr_step_rules`, such as `1:10,0.1:20,0.01`".into(),
            )),
            (LrSchedulerType::PiecewiseConstant, Some(_)) | (_, None) => Ok(()),
            (other, Some(_)) => Err(Error::Config(format!(
                "`lr_step_rules` belongs to the `piecewise_constant` schedule, and `lr_scheduler` is `{other}`"
            ))),
        }?;
        let waves = matches!(
            self.lr_scheduler,
            LrSchedulerType::Cosine | LrSchedulerType::CosineWithRestarts
        );
        require(waves || self.lr_num_cycles.is_none(), || {
            format!(
                "`lr_num_cycles` belongs to the cosine schedules, and `lr_scheduler` is `{}`",
                self.lr_scheduler
            )
        })?;
        require(
            self.lr_num_cycles
                .is_none_or(|cycles| cycles.is_finite() && cycles > 0.0),
            || "`lr_num_cycles` must be a positive number".into(),
        )?;
        if !self.use_ema {
            return Ok(());
        }
        require((0.0..=1.0).contains(&self.ema_max_decay), || {
            format!(
                "`ema_max_decay` is {}; it must be between 0 and 1",
                self.ema_max_decay
            )
        })?;
        for (name, value) in [
            ("ema_inv_gamma", self.ema_inv_gamma),
            ("ema_power", self.ema_power),
        ] {
            require(value.is_finite() && value > 0.0, || {
                format!("`{name}` is {value}; it must be a positive number")
            })?;
        }
        Ok(())
    }

    fn check_model(&self) -> Result<()> {
        conditioning::check_run(self)?;
        let ModelSource::Preset(preset) = self.model else {
            return Ok(());
        };
        require(
            preset != ModelPreset::BasicUnet || self.conditioning == ConditioningKind::None,
            || format!("the model `{preset}` has no input for a class; `conditioning` must be `none`"),
        )?;
        require(
            preset != ModelPreset::BasicUnet || !self.gradient_checkpointing,
            || {
                format!(
                    "the model `{preset}` has no blocks that keep only their inputs; leave `gradient_checkpointing` out"
                )
            },
        )?;
        require(
            preset != ModelPreset::BasicUnet || self.conditioning_image.is_none(),
            || {
                format!(
                    "the model `{preset}` is shown nothing beside its picture; leave `conditioning_image` out"
                )
            },
        )?;
        require(
            preset != ModelPreset::BasicUnet || self.resolution.is_multiple_of(4),
            || {
                format!(
                    "the model `basic-unet` halves pictures twice; `resolution` {} is not a multiple of 4",
                    self.resolution
                )
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objectives::{LossWeighting, ObjectiveKind, PredictionType};

    #[test]
    fn the_defaults_make_sense() {
        TrainingConfig::digits().validate().unwrap();
        TrainingConfig {
            dataset_name: Some("digits".into()),
            ..TrainingConfig::script()
        }
        .validate()
        .unwrap();
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        type Change = fn(&mut TrainingConfig);
        let refused = |change: Change| {
            let mut config = TrainingConfig::digits();
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        let cases: [(Change, &str); 27] = [
            (|c| c.mixed_precision = MixedPrecision::Fp16, "bf16"),
            (|c| c.noise_offset = -0.1, "noise_offset"),
            (|c| c.snr_gamma = Some(5.0), "min-snr"),
            (
                |c| (c.loss_weighting, c.snr_gamma) = (LossWeighting::MinSnr, Some(0.0)),
                "snr_gamma",
            ),
            (
                |c| (c.prediction_type, c.rescale_betas_zero_snr) = (PredictionType::Epsilon, true),
                "v_prediction or sample",
            ),
            (|c| c.objective = ObjectiveKind::Flow, "objective ddpm"),
            (|c| c.edm_p_mean = -1.0, "objective edm"),
            (|c| c.logit_std = 2.0, "objective flow"),
            (|c| c.lr_gamma = 0.0, "lr_gamma"),
            (|c| c.checkpoints_total_limit = Some(0), "checkpoints_total_limit"),
            (|c| c.resolution = 0, "resolution"),
            (|c| c.train_batch_size = 0, "train_batch_size"),
            (|c| c.num_slots = 0, "num_slots"),
            (|c| c.num_epochs = 0, "num_epochs"),
            (|c| c.max_train_steps = Some(0), "max_train_steps"),
            (|c| c.learning_rate = f64::NAN, "learning_rate"),
            (|c| c.learning_rate = -1e-4, "learning_rate"),
            (|c| c.adam_beta1 = 1.0, "adam_beta1"),
            (|c| c.adam_weight_decay = -1.0, "adam_weight_decay"),
            (|c| c.ema_max_decay = 1.5, "ema_max_decay"),
            (|c| c.ddpm_num_inference_steps = 1001, "ddpm_num_inference_steps"),
            (|c| c.class_dropout = Some(1.1), "class_dropout"),
            (
                |c| (c.conditioning, c.class_dropout) = (ConditioningKind::None, Some(0.1)),
                "class_dropout",
            ),
            (|c| c.model = ModelPreset::BasicUnet.into(), "basic-unet"),
            (
                |c| c.lr_scheduler = LrSchedulerType::PiecewiseConstant,
                "lr_step_rules",
            ),
            (|c| c.lr_step_rules = Some("1:10,0.1".into()), "lr_step_rules"),
            (
                |c| (c.lr_scheduler, c.lr_num_cycles) = (LrSchedulerType::Linear, Some(2.0)),
                "lr_num_cycles",
            ),
        ];
        for (change, field) in cases {
            let message = refused(change);
            assert!(message.contains(field), "{message}");
        }
    }

    #[test]
    fn settings_of_an_average_that_is_not_kept_do_not_matter() {
        TrainingConfig {
            use_ema: false,
            ema_max_decay: 7.0,
            ..TrainingConfig::digits()
        }
        .validate()
        .unwrap();
    }
}
