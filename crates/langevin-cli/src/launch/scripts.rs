//! diffusers' scripts that train on top of Stable Diffusion, as lines of `langevin train`: each with its own defaults, and each flag under the name
//! that it has here.

use std::ffi::OsString;

use anyhow::{Result, bail};

/// A script, and what `langevin train` has to be told where a line of it does not say so.
pub(super) struct Script {
    /// Its file's name.
    pub name: &'static str,
    defaults: &'static [(&'static str, &'static str)],
}

/// What many of them have.
const RATE: (&str, &str) = ("learning_rate", "1e-4");
const SIDE: (&str, &str) = ("resolution", "512");
const LARGE: (&str, &str) = ("resolution", "1024");
const BATCH: (&str, &str) = ("train_batch_size", "16");
const LONG: (&str, &str) = ("num_epochs", "100");
const SHORT: (&str, &str) = ("num_epochs", "1");
const FOUR: (&str, &str) = ("train_batch_size", "4");
const EACH: (&str, &str) = ("save_images_epochs", "1");
const RARELY: (&str, &str) = ("save_images_epochs", "50");
const OFTEN: (&str, &str) = ("log_samples_every", "100");
const CROP: (&str, &str) = ("center_crop", "false");
const FULL: (&str, &str) = ("trainee", "full");
const LORA: (&str, &str) = ("trainee", "lora");
const EMBEDDING: (&str, &str) = ("trainee", "embedding");
const CONTROLNET: (&str, &str) = ("trainee", "controlnet");
const PIX2PIX: (&str, &str) = ("trainee", "pix2pix");
const SHOWN: (&str, &str) = ("conditioning_image", "conditioning_image");
const EDITED: (&str, &str) = ("conditioning_image", "input_image");
const SQUARE: (&str, &str) = ("resize", "square");
const MIRRORED: (&str, &str) = ("random_flip", "true");
/// What all of them have; of a rate that is constant it is nothing.
const WARM_UP: (&str, &str) = ("lr_warmup_steps", "500");
/// The script clips nothing.
const UNCLIPPED: (&str, &str) = ("max_grad_norm", "1e9");

/// All that a line may name. What is not said of them is the same everywhere, and here too.
pub(super) const SCRIPTS: [Script; 14] = [
    Script {
        name: "train_text_to_image.py",
        defaults: &[
            FULL,
            RATE,
            SIDE,
            BATCH,
            LONG,
            CROP,
            ("save_images_epochs", "5"),
            ("output_dir", "sd-model-finetuned"),
        ],
    },
    Script {
        name: "train_text_to_image_sdxl.py",
        defaults: &[
            FULL,
            RATE,
            LARGE,
            BATCH,
            LONG,
            CROP,
            EACH,
            ("output_dir", "sdxl-model-finetuned"),
        ],
    },
    Script {
        name: "train_text_to_image_lora.py",
        defaults: &[
            LORA,
            RATE,
            SIDE,
            BATCH,
            LONG,
            CROP,
            EACH,
            ("output_dir", "sd-model-finetuned-lora"),
        ],
    },
    Script {
        name: "train_text_to_image_lora_sdxl.py",
        defaults: &[
            LORA,
            RATE,
            LARGE,
            BATCH,
            LONG,
            CROP,
            EACH,
            ("output_dir", "sd-model-finetuned-lora"),
        ],
    },
    Script {
        name: "train_dreambooth.py",
        defaults: &[
            FULL,
            ("learning_rate", "5e-6"),
            SIDE,
            FOUR,
            SHORT,
            CROP,
            OFTEN,
            ("output_dir", "dreambooth-model"),
        ],
    },
    Script {
        name: "train_dreambooth_lora.py",
        defaults: &[
            LORA,
            ("learning_rate", "5e-4"),
            SIDE,
            FOUR,
            SHORT,
            CROP,
            RARELY,
            ("output_dir", "lora-dreambooth-model"),
        ],
    },
    Script {
        name: "train_dreambooth_lora_sdxl.py",
        defaults: &[
            LORA,
            RATE,
            LARGE,
            FOUR,
            SHORT,
            CROP,
            RARELY,
            ("adam_weight_decay", "1e-4"),
            ("output_dir", "lora-dreambooth-model"),
        ],
    },
    Script {
        name: "textual_inversion.py",
        defaults: &[
            EMBEDDING,
            RATE,
            SIDE,
            BATCH,
            LONG,
            SQUARE,
            MIRRORED,
            UNCLIPPED,
            OFTEN,
            ("max_train_steps", "5000"),
            ("output_dir", "text-inversion-model"),
        ],
    },
    Script {
        name: "textual_inversion_sdxl.py",
        defaults: &[
            EMBEDDING,
            RATE,
            LARGE,
            BATCH,
            LONG,
            SQUARE,
            MIRRORED,
            UNCLIPPED,
            OFTEN,
            ("max_train_steps", "5000"),
            ("output_dir", "text-inversion-model"),
        ],
    },
    Script {
        name: "train_controlnet.py",
        defaults: &[
            CONTROLNET,
            ("learning_rate", "5e-6"),
            SIDE,
            FOUR,
            SHORT,
            SHOWN,
            OFTEN,
            ("output_dir", "controlnet-model"),
        ],
    },
    Script {
        name: "train_controlnet_sdxl.py",
        defaults: &[
            CONTROLNET,
            ("learning_rate", "5e-6"),
            LARGE,
            FOUR,
            SHORT,
            SHOWN,
            OFTEN,
            ("output_dir", "controlnet-model"),
        ],
    },
    Script {
        name: "train_instruct_pix2pix.py",
        defaults: &[
            PIX2PIX,
            RATE,
            ("resolution", "256"),
            BATCH,
            LONG,
            SQUARE,
            EDITED,
            EACH,
            ("conditioning_dropout_prob", "0"),
            ("output_dir", "instruct-pix2pix-model"),
        ],
    },
    Script {
        name: "train_instruct_pix2pix_sdxl.py",
        defaults: &[
            PIX2PIX,
            RATE,
            ("resolution", "256"),
            BATCH,
            LONG,
            SQUARE,
            EDITED,
            OFTEN,
            ("conditioning_dropout_prob", "0"),
            ("output_dir", "instruct-pix2pix-model"),
        ],
    },
    Script {
        name: "train_dreambooth_sdxl.py",
        defaults: &[
            FULL,
            ("learning_rate", "5e-6"),
            LARGE,
            FOUR,
            SHORT,
            CROP,
            OFTEN,
            ("output_dir", "dreambooth-model"),
        ],
    },
];

/// What becomes of a flag.
enum Meaning {
    /// It is called so here.
    Is(&'static str),
    /// It stands for another with this value.
    Means(&'static str, &'static str),
    /// It has no effect, for this reason.
    Without(&'static str),
    /// It asks for what is not there yet.
    Missing(&'static str),
}

/// The flags that do not stand as they are.
const FLAGS: [(&str, Meaning); 58] = [
    ("pretrained_model_name_or_path", Meaning::Is("pretrained")),
    ("instance_data_dir", Meaning::Is("train_data_dir")),
    ("num_train_epochs", Meaning::Is("num_epochs")),
    ("num_validation_images", Meaning::Is("eval_batch_size")),
    ("validation_prompts", Meaning::Is("validation_prompt")),
    ("validation_images", Meaning::Is("validation_image")),
    ("val_image_url", Meaning::Is("validation_image")),
    ("val_image_url_or_path", Meaning::Is("validation_image")),
    ("validation_epochs", Meaning::Is("save_images_epochs")),
    ("validation_steps", Meaning::Is("log_samples_every")),
    ("conditioning_image_column", Meaning::Is("conditioning_image")),
    ("original_image_column", Meaning::Is("conditioning_image")),
    ("proportion_empty_prompts", Meaning::Is("caption_dropout")),
    ("save_steps", Meaning::Is("save_model_every")),
    ("offset_noise", Meaning::Means("noise_offset", "0.1")),
    (
        "image_column",
        Meaning::Without("columns are found by their names, and `langevin info` shows which"),
    ),
    ("edit_prompt_column", Meaning::Is("caption_column")),
    (
        "edited_image_column",
        Meaning::Without("columns are found by their names, and `langevin info` shows which"),
    ),
    ("allow_tf32", Meaning::Without("it is for GPUs")),
    ("use_8bit_adam", Meaning::Without("moments stay float32")),
    (
        "enable_xformers_memory_efficient_attention",
        Meaning::Without("attention never stores its scores here"),
    ),
    (
        "enable_npu_flash_attention",
        Meaning::Without("attention never stores its scores here"),
    ),
    ("set_grads_to_none", Meaning::Without("gradients are never kept")),
    (
        "foreach_ema",
        Meaning::Without("the average is one pass over the weights"),
    ),
    ("offload_ema", Meaning::Without("there is one memory")),
    (
        "pre_compute_text_embeddings",
        Meaning::Without("texts are encoded once wherever their encoder is not trained"),
    ),
    ("no_safe_serialization", Meaning::Without("files are safetensors")),
    (
        "debug_loss",
        Meaning::Without("metrics.jsonl has each picture's noise level and loss"),
    ),
    (
        "sample_batch_size",
        Meaning::Without("class pictures are drawn one by one"),
    ),
    (
        "prior_generation_precision",
        Meaning::Without("class pictures are drawn in float32"),
    ),
    (
        "vae_precision",
        Meaning::Without("the autoencoder is computed in float32"),
    ),
    (
        "validation_scheduler",
        Meaning::Without("validation pictures are drawn by the pipeline's own sampler"),
    ),
    (
        "image_interpolation_mode",
        Meaning::Without("pictures are resized as torchvision's bilinear filter does it"),
    ),
    (
        "tracker_project_name",
        Meaning::Without("the run's folder has a name"),
    ),
    ("revision", Meaning::Without("ORG/NAME@REVISION says it")),
    (
        "variant",
        Meaning::Without("whichever weights are there are read"),
    ),
    (
        "non_ema_revision",
        Meaning::Without("the pipeline's weights are what training begins with"),
    ),
    ("tokenizer_name", Meaning::Without("the pipeline has its own")),
    (
        "repeats",
        Meaning::Without("--max-train-steps says how long to train"),
    ),
    ("local_rank", Meaning::Without("MPI says which process is which")),
    (
        "skip_save_text_encoder",
        Meaning::Without("a pipeline is saved whole"),
    ),
    ("prodigy_beta3", Meaning::Is("prodigy-beta3")),
    ("prodigy_decouple", Meaning::Is("prodigy-decouple")),
    (
        "prodigy_use_bias_correction",
        Meaning::Is("prodigy-use-bias-correction"),
    ),
    (
        "prodigy_safeguard_warmup",
        Meaning::Is("prodigy-safeguard-warmup"),
    ),
    (
        "crops_coords_top_left_h",
        Meaning::Without("what the model is told of a picture's cut is true to it"),
    ),
    (
        "crops_coords_top_left_w",
        Meaning::Without("what the model is told of a picture's cut is true to it"),
    ),
    (
        "pretrained_vae_model_name_or_path",
        Meaning::Without("the pipeline's autoencoder is computed in float32, where it needs no mending"),
    ),
    (
        "do_edm_style_training",
        Meaning::Missing("training in the manner of EDM on top of a latent pipeline"),
    ),
    (
        "text_encoder_use_attention_mask",
        Meaning::Missing("a mask of the text's padding"),
    ),
    (
        "tokenizer_max_length",
        Meaning::Missing("another length of texts"),
    ),
    (
        "class_labels_conditioning",
        Meaning::Missing("a second timestep as a class"),
    ),
    (
        "max_train_samples",
        Meaning::Missing("training on a part of the data"),
    ),
    (
        "controlnet_model_name_or_path",
        Meaning::Missing("going on from a ControlNet, but for --resume-from-checkpoint,"),
    ),
    (
        "save_as_full_pipeline",
        Meaning::Missing("a pipeline with the new word in its vocabulary"),
    ),
    (
        "adam_weight_decay_text_encoder",
        Meaning::Missing("a weight decay of the text encoder's own"),
    ),
    (
        "scale_lr",
        Meaning::Missing(
            "a learning rate that is multiplied by the size of a step (say the product with --learning-rate)",
        ),
    ),
    (
        "train_text_encoder_ti",
        Meaning::Missing("training new words and a LoRA together"),
    ),
];

/// A flag of a line with its values.
struct Given {
    name: String,
    values: Vec<String>,
}

/// The words behind a script as flags.
fn given(words: &[OsString]) -> Result<Vec<Given>> {
    let mut all: Vec<Given> = Vec::new();
    for word in words {
        let Some(word) = word.to_str() else {
            bail!("a word of the line is not UTF-8");
        };
        match (word.strip_prefix("--"), all.last_mut()) {
            (Some(flag), _) if !flag.is_empty() => {
                let (name, value) = match flag.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_string())),
                    None => (flag, None),
                };
                all.push(Given {
                    name: name.replace('-', "_"),
                    values: value.into_iter().collect(),
                });
            }
            // A line's continuation that was pasted with it.
            _ if word == "\\" => {}
            (_, Some(last)) => last.values.push(word.to_string()),
            (_, None) => bail!("`{word}` is no flag of the script"),
        }
    }
    Ok(all)
}

impl Script {
    /// The script of this name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        SCRIPTS.iter().find(|script| script.name == name)
    }

    /// Its line as flags of `langevin train`, and what the user should know of those that have no effect.
    ///
    /// # Errors
    /// If a flag asks for what is not there yet.
    pub(super) fn line(&self, words: &[OsString]) -> Result<(Vec<OsString>, Vec<String>)> {
        let (mut line, mut notes, mut said) = (Vec::new(), Vec::new(), Vec::new());
        let mut keeps_prior = false;
        let is_prodigy = |given: &Given| {
            given.name == "optimizer" && given.values.iter().any(|value| is(value, "prodigy"))
        };
        let finds_rate = given(words)?.iter().any(is_prodigy);
        for Given { name, values } in given(words)? {
            if name.starts_with("prodigy_") && !finds_rate {
                notes.push(format!("--{name} has no effect: the optimiser is AdamW"));
                continue;
            }
            let meaning = FLAGS
                .iter()
                .find(|(flag, _)| *flag == name)
                .map(|(_, meaning)| meaning);
            if name == "with_prior_preservation" {
                keeps_prior = true;
                continue;
            }
            let flag = match (meaning, name.as_str(), values.first().map(String::as_str)) {
                (_, "optimizer", Some("AdamW" | "adamw")) => continue,
                (_, "optimizer", Some(value)) if is(value, "prodigy") => {
                    line.push("--optimizer=prodigy".into());
                    continue;
                }
                (_, "optimizer", Some(value)) => {
                    bail!("`--{name} {value}` of {} is not there yet", self.name)
                }
                // As Python spells them.
                (Some(Meaning::Is(ours)), name, Some(value))
                    if name.starts_with("prodigy_") && (is(value, "true") || is(value, "false")) =>
                {
                    line.push(format!("--{ours}={}", value.to_ascii_lowercase()).into());
                    said.push((*ours).to_string());
                    continue;
                }
                // What the script draws with is 20 to 50 steps of the pipeline's sampler.
                (Some(Meaning::Is(ours)), ..) => (*ours).to_string(),
                (Some(Meaning::Means(ours, value)), ..) => {
                    line.push(format!("--{ours}={value}").into());
                    said.push((*ours).to_string());
                    continue;
                }
                (Some(Meaning::Without(why)), ..) => {
                    notes.push(format!("--{name} has no effect: {why}"));
                    continue;
                }
                (Some(Meaning::Missing(what)), ..) => {
                    bail!("--{name} of {}: {what} is not there yet", self.name)
                }
                (None, ..) => name,
            };
            if values.is_empty() {
                line.push(format!("--{flag}").into());
            }
            line.extend(
                values
                    .into_iter()
                    .map(|value| OsString::from(format!("--{flag}={value}"))),
            );
            said.push(flag);
        }
        let has = |flag: &str| said.iter().any(|said| said == flag);
        match (has("class_prompt"), keeps_prior) {
            (false, true) => bail!("--with_prior_preservation of {} needs --class_prompt", self.name),
            (true, false) => {
                notes.push(
                    "--class_prompt has no effect without --with_prior_preservation, as in the script".into(),
                );
                let of_class = ["--class_prompt", "--class_data_dir", "--num_class_images"];
                line.retain(|word: &OsString| {
                    let word = word.to_string_lossy();
                    !of_class.iter().any(|flag| word.split('=').next() == Some(flag))
                });
            }
            _ => {}
        }
        let missing = self
            .defaults
            .iter()
            .chain(&[WARM_UP])
            // Without a prompt the scripts draw nothing on the way.
            .filter(|(flag, _)| has("validation_prompt") || ![EACH.0, OFTEN.0].contains(flag))
            .filter(|(flag, _)| !said.iter().any(|said| said == flag));
        let defaults = missing.map(|(flag, value)| OsString::from(format!("--{flag}={value}")));
        Ok((defaults.chain(line).collect(), notes))
    }
}

/// Whether a word is this one, in small or capital letters.
fn is(word: &str, other: &str) -> bool {
    word.eq_ignore_ascii_case(other)
}

/// sd-scripts' scripts, and what trains the same here.
const SD_SCRIPTS: [(&str, &str); 7] = [
    ("train_network.py", "lora"),
    ("sdxl_train_network.py", "lora"),
    ("train_db.py", "full"),
    ("fine_tune.py", "full"),
    ("sdxl_train.py", "full"),
    ("train_textual_inversion.py", "embedding"),
    ("sdxl_train_textual_inversion.py", "embedding"),
];

/// Refuses a line of sd-scripts with one of ours that does the same; nothing where it is not theirs.
///
/// # Errors
/// If it is theirs.
pub(super) fn refuse_sd_scripts(name: &str, words: &[OsString]) -> Result<()> {
    let Some((_, trainee)) = SD_SCRIPTS.iter().find(|(script, _)| *script == name) else {
        return Ok(());
    };
    const SAME: [(&str, &str); 18] = [
        ("pretrained_model_name_or_path", "pretrained"),
        ("train_data_dir", "train-data-dir"),
        ("output_dir", "output-dir"),
        ("network_dim", "rank"),
        ("network_alpha", "lora-alpha"),
        ("learning_rate", "learning-rate"),
        ("unet_lr", "learning-rate"),
        ("text_encoder_lr", "text-encoder-lr"),
        ("max_train_steps", "max-train-steps"),
        ("max_train_epochs", "num-epochs"),
        ("train_batch_size", "train-batch-size"),
        ("seed", "seed"),
        ("token_string", "placeholder-token"),
        ("init_word", "initializer-token"),
        ("keep_tokens", "keep-tags"),
        ("min_bucket_reso", "min-bucket-reso"),
        ("max_bucket_reso", "max-bucket-reso"),
        ("bucket_reso_steps", "bucket-reso-steps"),
    ];
    let mut line = format!("langevin train --trainee {trainee}");
    let (mut has_alpha, mut is_file) = (false, false);
    for Given { name, values } in given(words).unwrap_or_default() {
        let switches = [
            ("shuffle_caption", " --shuffle-tags"),
            ("enable_bucket", " --enable-bucket"),
            ("bucket_no_upscale", " --bucket-no-upscale"),
        ];
        if let Some((_, ours)) = switches.iter().find(|(theirs, _)| *theirs == name) {
            line.push_str(ours);
        }
        let Some(value) = values.first() else { continue };
        has_alpha |= name == "network_alpha";
        is_file |= name == "pretrained_model_name_or_path"
            && [".safetensors", ".ckpt"]
                .iter()
                .any(|ending| value.ends_with(ending));
        let quoted = match value.contains([' ', '\'', '"']) {
            true => format!("'{}'", value.replace('\'', "'\\''")),
            false => value.clone(),
        };
        if let Some((_, ours)) = SAME.iter().find(|(theirs, _)| *theirs == name) {
            line.push_str(&format!(" --{ours} {quoted}"));
        } else if name == "resolution" {
            line.push_str(&format!(
                " --resolution {}",
                value.split(',').next().unwrap_or(value)
            ));
        }
    }
    if *trainee == "lora" && !has_alpha {
        // Theirs counts alpha as 1 where nobody says.
        line.push_str(" --lora-alpha 1");
    }
    if *trainee == "lora" {
        line.push_str(" --output-kohya-format");
    }
    let converted = match is_file {
        true => " (`langevin convert FILE FOLDER` makes a folder of the single file that is trained on)",
        false => "",
    };
    bail!(
        "`{name}` is sd-scripts', whose flags mean other things: `{line}` does the same here, as far as the two agree{converted}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split('|').map(OsString::from).collect()
    }

    fn line(script: &str, text: &str) -> (String, Vec<String>) {
        let (line, notes) = Script::named(script).unwrap().line(&words(text)).unwrap();
        (line.join(std::ffi::OsStr::new(" ")).into_string().unwrap(), notes)
    }

    #[test]
    fn a_line_has_the_scripts_defaults_where_it_says_nothing() {
        let (ours, notes) = line(
            "train_dreambooth_lora.py",
            "--pretrained_model_name_or_path=base|--instance_data_dir|dog|--instance_prompt=a photo of sks dog|--resolution=512|\
             --train_batch_size=1|--checkpointing_steps=100|--learning_rate=1e-4|--lr_scheduler=constant|--lr_warmup_steps=0|\
             --max_train_steps=500|--validation_prompt=A photo of sks dog in a bucket|--validation_epochs=50|--seed=0",
        );
        assert_eq!(
            ours,
            "--trainee=lora --num_epochs=1 --center_crop=false --output_dir=lora-dreambooth-model --pretrained=base --train_data_dir=dog \
             --instance_prompt=a photo of sks dog --resolution=512 --train_batch_size=1 --checkpointing_steps=100 --learning_rate=1e-4 \
             --lr_scheduler=constant --lr_warmup_steps=0 --max_train_steps=500 --validation_prompt=A photo of sks dog in a bucket \
             --save_images_epochs=50 --seed=0"
        );
        assert!(notes.is_empty());
    }

    #[test]
    fn several_values_are_several_flags_and_what_does_nothing_is_said() {
        let (ours, notes) = line(
            "train_controlnet.py",
            "--validation_prompt|red circle|cyan circle|--validation_image|a.png|b.png|--use_8bit_adam|--revision=fp16|\\",
        );
        assert!(ours.ends_with(
            "--validation_prompt=red circle --validation_prompt=cyan circle --validation_image=a.png --validation_image=b.png"
        ));
        assert_eq!(notes.len(), 2, "{notes:?}");
        let refused = |text: &str| {
            Script::named("train_text_to_image.py")
                .unwrap()
                .line(&words(text))
                .is_err()
        };
        assert!(refused("--scale_lr") && refused("dog") && !refused("--allow_tf32"));
    }

    #[test]
    fn what_is_here_by_the_same_name_stays() {
        let (ours, notes) = line(
            "train_text_to_image_sdxl.py",
            "--timestep_bias_strategy=later|--timestep_bias_portion=0.5|--timestep_bias_multiplier=3|--dream_training",
        );
        let flags = "--timestep_bias_strategy=later --timestep_bias_portion=0.5 --timestep_bias_multiplier=3 --dream_training";
        assert!(ours.ends_with(flags) && notes.is_empty(), "{ours} {notes:?}");
    }

    #[test]
    fn what_prodigy_is_told_counts_where_it_is_asked_for() {
        let told = "--prodigy_decouple=True|--prodigy_safeguard_warmup|False|--prodigy_beta3=0.9";
        let script = "train_dreambooth_lora_sdxl.py";
        let (ours, notes) = line(script, &format!("--optimizer=Prodigy|--learning_rate=1.0|{told}"));
        let flags = "--optimizer=prodigy --learning_rate=1.0 --prodigy-decouple=true --prodigy-safeguard-warmup=false --prodigy-beta3=0.9";
        assert!(ours.ends_with(flags) && notes.is_empty(), "{ours} {notes:?}");
        let (ours, notes) = line(script, told);
        assert!(!ours.contains("prodigy") && notes.len() == 3, "{ours} {notes:?}");
        let other = Script::named(script).unwrap().line(&words("--optimizer=lion"));
        assert!(other.unwrap_err().to_string().contains("not there yet"));
    }

    #[test]
    fn class_pictures_are_asked_for_by_two_flags() {
        let class = "--class_prompt=a dog|--class_data_dir=dogs|--num_class_images=9";
        let (ours, notes) = line(
            "train_dreambooth.py",
            &format!("{class}|--with_prior_preservation"),
        );
        assert!(
            ours.ends_with("--class_prompt=a dog --class_data_dir=dogs --num_class_images=9"),
            "{ours}"
        );
        assert!(notes.is_empty(), "{notes:?}");
        let (ours, notes) = line("train_dreambooth.py", class);
        assert!(!ours.contains("class"), "{ours}");
        assert!(
            notes.len() == 1 && notes[0].contains("--with_prior_preservation"),
            "{notes:?}"
        );
        let alone = Script::named("train_dreambooth.py").unwrap();
        let refused = alone.line(&words("--with_prior_preservation")).unwrap_err();
        assert!(refused.to_string().contains("--class_prompt"), "{refused}");
    }

    #[test]
    fn sd_scripts_lines_are_refused_with_ours() {
        let line = words(
            "--pretrained_model_name_or_path=sd.safetensors|--network_dim=8|--train_data_dir=pictures of it|--resolution=512,512|--enable_bucket|--max_bucket_reso=768",
        );
        let message = refuse_sd_scripts("train_network.py", &line)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains(
                "langevin train --trainee lora --pretrained sd.safetensors --rank 8 --train-data-dir 'pictures of it' --resolution 512 \
                 --enable-bucket --max-bucket-reso 768 --lora-alpha 1 --output-kohya-format"
            ),
            "{message}"
        );
        assert!(refuse_sd_scripts("train_unconditional.py", &line).is_ok());
    }
}
