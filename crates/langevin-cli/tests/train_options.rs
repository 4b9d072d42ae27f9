//! Every option of a training run, as its field has it: a flag with its help, in both spellings, in what `--dry-run` shows, and in the
//! checkpoint that a run goes on from.

mod support;

use std::{fmt::Write, fs, path::Path};

use clap::{Args, Command, FromArgMatches};
use langevin::{data::sound::Sound, training::TrainingConfig};
use serde_json::{Map, Value};
use support::{line, pictures, reference_pipeline, small_model};

/// The options and their defaults.
fn defaults() -> Map<String, Value> {
    let defaults = serde_json::to_value(TrainingConfig::script()).unwrap();
    defaults.as_object().unwrap().clone()
}

/// A flag as a command line spells it.
fn kebab(option: &str) -> String {
    format!("--{}", option.replace('_', "-"))
}

/// What an option is given, other than its default, and what has to stand beside it for the whole to make sense.
fn given(option: &str, default: &Value) -> (String, String) {
    const PICTURES: &str = "--train-data-dir pictures";
    const SOUNDS: &str = "--train-data-dir sounds";
    if let Some(given) = of_latent(option) {
        return given;
    }
    let (value, beside) = match option {
        "dataset_name" => ("pictures", ""),
        "train_data_dir" => ("pictures", ""),
        "dataset_config_name" => ("letters", "--dataset-name set"),
        "split" => ("test", "--dataset-name set --dataset-config-name letters"),
        "only_classes" => ("dark", PICTURES),
        "model" => ("course-butterflies", PICTURES),
        "pretrained" => {
            let folder = reference_pipeline("ddpm").canonicalize().unwrap();
            return (folder.to_str().unwrap().into(), PICTURES.into());
        }
        "train_only" => ("attention,norm", PICTURES),
        "output_dir" => ("out", PICTURES),
        "report_to" => ("wandb,tensorboard", PICTURES),
        "logging_dir" => ("elsewhere", PICTURES),
        "license" => ("mit", PICTURES),
        "resume_from_checkpoint" => ("run", ""),
        "resize" => ("square", PICTURES),
        "channels" => ("grey", PICTURES),
        "alpha" => ("black", PICTURES),
        "max_train_steps" | "checkpoints_total_limit" => ("3", PICTURES),
        "lr_scheduler" => ("linear", PICTURES),
        "lr_num_cycles" => ("2.5", PICTURES),
        "lr_step_rules" => (
            "1:10,0.1",
            "--train-data-dir pictures --lr-scheduler piecewise_constant",
        ),
        "objective" => ("edm", PICTURES),
        "prediction_type" => ("sample", PICTURES),
        "ddpm_num_inference_steps" => ("7", PICTURES),
        "ddpm_beta_schedule" => ("squaredcos_cap_v2", PICTURES),
        "rescale_betas_zero_snr" => ("true", "--train-data-dir pictures --prediction-type v_prediction"),
        "loss_weighting" => ("p2", PICTURES),
        "snr_gamma" => ("3.5", PICTURES),
        "noise_offset" | "input_perturbation" => ("0.25", PICTURES),
        "caption_column" => ("smiling", "--train-data-dir faces"),
        "timestep_bias_strategy" => ("later", PICTURES),
        "timestep_bias_multiplier" => ("3.5", "--train-data-dir pictures --timestep-bias-strategy later"),
        "timestep_bias_portion" => (
            "0.5",
            "--train-data-dir pictures --timestep-bias-strategy earlier",
        ),
        "timestep_bias_begin" => ("5", "--train-data-dir pictures --timestep-bias-strategy range"),
        "timestep_bias_end" => ("500", "--train-data-dir pictures --timestep-bias-strategy range"),
        "dream_detail_preservation" => ("2.5", "--train-data-dir pictures --dream-training"),
        "edm_p_mean" => ("-0.5", "--train-data-dir pictures --objective edm"),
        "edm_p_std" | "edm_sigma_data" => ("0.75", "--train-data-dir pictures --objective edm"),
        "logit_mean" => ("-0.5", "--train-data-dir pictures --objective flow"),
        "logit_std" => ("0.75", "--train-data-dir pictures --objective flow"),
        "conditioning" => ("class", PICTURES),
        "class_dropout" => ("0.3", "--train-data-dir pictures --conditioning class"),
        "class_emb_size" => ("6", "--train-data-dir pictures --conditioning channels"),
        "conditioning_image" => ("blur:2.5", PICTURES),
        "image_dropout" => ("0.3", "--train-data-dir pictures --conditioning-image edges"),
        "text_encoder" => (
            "encoder",
            "--train-data-dir pictures --conditioning cross-attention",
        ),
        "caption_dropout" => ("0.3", "--train-data-dir pictures --conditioning cross-attention"),
        "vector" => (
            "clip",
            "--train-data-dir pictures --conditioning vector --vector-clip clip",
        ),
        "vector_embedding" => ("identity", "--train-data-dir pictures --conditioning vector"),
        "vector_clip" => (
            "clip",
            "--train-data-dir pictures --conditioning vector --vector clip",
        ),
        "vector_dropout" => ("0.3", "--train-data-dir pictures --conditioning vector"),
        "attribute_columns" => (
            "smiling,glasses",
            "--train-data-dir faces --conditioning attributes",
        ),
        "attribute_dropout" => (
            "0.3",
            "--train-data-dir faces --conditioning attributes --attribute-columns smiling",
        ),
        "codec" => ("mel", SOUNDS),
        "codec_model" => ("small", "--train-data-dir pictures --codec train"),
        "codec_train_steps" => ("300", "--train-data-dir pictures --codec train"),
        "codec_batch_size" => ("8", "--train-data-dir pictures --codec train"),
        "codec_learning_rate" => ("2e-3", "--train-data-dir pictures --codec train"),
        "kl_weight" => ("1e-4", "--train-data-dir pictures --codec train"),
        "sample_rate" => ("11025", "--train-data-dir sounds --codec mel"),
        "n_fft" => ("1024", "--train-data-dir sounds --codec mel"),
        "hop_length" => ("256", "--train-data-dir sounds --codec mel"),
        "top_db" => ("60.5", "--train-data-dir sounds --codec mel"),
        "n_iter" => ("16", "--train-data-dir sounds --codec mel"),
        "mixed_precision" => ("bf16", PICTURES),
        "optimizer" => ("prodigy", PICTURES),
        "prodigy_beta3" => ("0.5", "--train-data-dir pictures --optimizer prodigy"),
        "prodigy_decouple" | "prodigy_use_bias_correction" | "prodigy_safeguard_warmup" => {
            ("false", "--train-data-dir pictures --optimizer prodigy")
        }
        "prodigy_d_coef" => ("0.5", "--train-data-dir pictures --optimizer prodigy"),
        _ => {
            let value = match default {
                Value::Bool(_) => "true".into(),
                Value::Number(number) if number.is_u64() => (number.as_u64().unwrap() + 1).to_string(),
                Value::Number(number) => (number.as_f64().unwrap() / 2.0).to_string(),
                _ => panic!("say what `{option}` may be given"),
            };
            return (value, PICTURES.into());
        }
    };
    (value.into(), beside.into())
}

/// The same of the options of training on top of a latent pipeline; `None` for others.
fn of_latent(option: &str) -> Option<(String, String)> {
    let (value, trainee) = match option {
        "trainee" => ("lora", ""),
        "rank" => ("8", "lora"),
        "lora_alpha" => ("2.5", "lora"),
        "lora_targets" => ("to_q,to_v", "lora"),
        "lora_text_targets" => ("q_proj", "lora --train-text-encoder"),
        "lora_dropout" => ("0.5", "lora"),
        "lora_init" => ("kaiming", "lora"),
        "use_dora" => ("true", "lora"),
        "output_kohya_format" => ("true", "lora"),
        "train_text_encoder" => ("true", "full"),
        "text_encoder_lr" => ("0.5", "lora --train-text-encoder"),
        "cache_latents_to_disk" => ("kept", "lora"),
        "enable_bucket" => ("true", "lora --min-bucket-reso 8 --bucket-reso-steps 8"),
        "min_bucket_reso" => ("8", "lora --enable-bucket --bucket-reso-steps 8"),
        "max_bucket_reso" => (
            "128",
            "lora --enable-bucket --min-bucket-reso 8 --bucket-reso-steps 8",
        ),
        "bucket_reso_steps" => ("8", "lora --enable-bucket --min-bucket-reso 8"),
        "bucket_no_upscale" => ("true", "lora --enable-bucket --bucket-reso-steps 8"),
        "shuffle_tags" => ("true", "lora"),
        "keep_tags" => ("2", "lora --shuffle-tags"),
        "instance_prompt" => ("a-dog", "full"),
        "class_prompt" => ("a-dog", "full"),
        "class_data_dir" => ("dogs", "full --class-prompt a-dog"),
        "num_class_images" => ("3", "full --class-prompt a-dog"),
        "prior_loss_weight" => ("0.5", "full --class-prompt a-dog"),
        "placeholder_token" => ("<toy>", "embedding --initializer-token cat"),
        "initializer_token" => ("cat", "embedding --placeholder-token <toy>"),
        "num_vectors" => ("3", "embedding --placeholder-token <toy> --initializer-token cat"),
        "learnable_property" => (
            "style",
            "embedding --placeholder-token <toy> --initializer-token cat",
        ),
        "conditioning_dropout_prob" => ("0.25", "pix2pix --conditioning-image column"),
        "validation_prompt" => ("a-dog", "lora"),
        "validation_image" => ("a.png", "pix2pix --conditioning-image column"),
        _ => return None,
    };
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../langevin/tests/reference/sd_training/base");
    let base = base.canonicalize().unwrap();
    let data = if trainee.contains("column") {
        "pairs"
    } else {
        "pictures"
    };
    let trainee = match trainee {
        "" => String::new(),
        trainee => format!(" --trainee {trainee}"),
    };
    Some((
        value.into(),
        format!("--train-data-dir {data} --pretrained {}{trainee}", base.display()),
    ))
}

/// A value as a configuration file has it, of the type that the option's default is of.
fn in_file(value: &str, default: &Value) -> Value {
    match default {
        Value::Array(_) => value.split(',').collect(),
        Value::String(_) => value.into(),
        _ => serde_json::from_str(value).unwrap_or_else(|_| value.into()),
    }
}

/// A folder of all that the options name, and of a run with a checkpoint.
fn scene() -> tempfile::TempDir {
    let scene = tempfile::tempdir().unwrap();
    pictures(scene.path());
    let shard =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../langevin/tests/hub/data/train-00000-of-00001.parquet");
    for (config, split) in [("balanced", "train"), ("letters", "train"), ("letters", "test")] {
        let folder = scene.path().join("set").join(config);
        fs::create_dir_all(&folder).unwrap();
        fs::copy(&shard, folder.join(format!("{split}-00000-of-00001.parquet"))).unwrap();
    }
    let faces = scene.path().join("faces");
    fs::create_dir_all(&faces).unwrap();
    let mut rows = "file_name,smiling,glasses\n".to_string();
    for i in (0..12).step_by(2) {
        let name = format!("{i:02}.png");
        fs::copy(scene.path().join("pictures/dark").join(&name), faces.join(&name)).unwrap();
        writeln!(rows, "{name},{},{}", i % 4 / 2, i / 6).unwrap();
    }
    fs::write(faces.join("metadata.csv"), rows).unwrap();
    let pairs = scene.path().join("pairs");
    fs::create_dir_all(&pairs).unwrap();
    for name in ["a.png", "b.png"] {
        fs::copy(scene.path().join("pictures/dark/00.png"), pairs.join(name)).unwrap();
    }
    fs::write(
        pairs.join("metadata.csv"),
        "file_name,column_file_name,text\na.png,b.png,a dog\n",
    )
    .unwrap();
    let sound = Sound {
        rate: 22_050,
        samples: (0..4000).map(|i| (i as f32 * 0.1).sin()).collect(),
    };
    sound.write(scene.path().join("sounds/tone.wav")).unwrap();
    let model = small_model(scene.path(), 3, false);
    line(
        scene.path(),
        &format!(
            "train --train-data-dir pictures --model {model} --max-train-steps 1 --checkpointing-steps 1 \
             --ddpm-num-inference-steps 1 --eval-batch-size 1 --output-dir run --quiet"
        ),
    )
    .ok();
    scene
}

#[test]
fn every_option_is_a_flag_and_a_field_and_outlives_its_run() {
    /// What a resumed run takes from elsewhere: where it is now, that it is resumed, and nothing that was allowed before.
    const NOT_KEPT: [&str; 3] = ["output_dir", "resume_from_checkpoint", "overwrite_output_dir"];
    let scene = scene();
    let help = line(scene.path(), "train --help").ok().out;
    let flags: Vec<&str> = help
        .lines()
        .filter_map(|line| line.trim_start().split([' ', '[']).next())
        .filter(|word| word.starts_with("--"))
        .collect();
    let dry_run = |flags: &str| {
        line(scene.path(), &format!("train --dry-run {flags}"))
            .ok()
            .json()
    };
    for (option, default) in &defaults() {
        let flag = kebab(option);
        assert!(flags.contains(&flag.as_str()), "{flag} is not in: {help}");

        let (value, beside) = given(option, default);
        let config = dry_run(&format!("{beside} --{option}={value}"));
        let expected = in_file(&value, default);
        assert_ne!(&expected, default, "{option}");
        assert_eq!(config[option], expected, "{option}");
        assert_eq!(dry_run(&format!("{beside} {flag}={value}")), config, "{option}");

        if NOT_KEPT.contains(&option.as_str()) {
            continue;
        }
        let file = scene.path().join("run/checkpoint-1/training.json");
        fs::write(file, config.to_string()).unwrap();
        let resumed = dry_run("--resume-from-checkpoint run");
        assert_eq!(resumed[option], expected, "{option}");
    }
}

#[test]
fn defaults_in_brackets_are_the_defaults() {
    let command = TrainingConfig::augment_args_for_update(Command::new("train"));
    let defaults = defaults();
    let mut found = 0;
    for arg in command.get_arguments() {
        let option = arg.get_id().as_str();
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let Some((_, bracketed)) = help.strip_suffix(']').and_then(|help| help.rsplit_once(" [")) else {
            continue;
        };
        // Of no value there are words or, as of probabilities, what stands for it; of no tracker, `none`.
        if defaults[option].is_null() || option == "report_to" {
            continue;
        }
        let value = bracketed.split(", ").next().unwrap();
        let matches = command
            .clone()
            .try_get_matches_from(["train".into(), format!("{}={value}", kebab(option))])
            .unwrap();
        let mut config = TrainingConfig::script();
        config.update_from_arg_matches(&matches).unwrap();
        assert_eq!(config, TrainingConfig::script(), "{option}");
        found += 1;
    }
    assert!(found > 40, "{found}");
}
