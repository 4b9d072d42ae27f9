//! Command lines written for `accelerate launch` or `python`, pasted whole.

use std::{ffi::OsString, path::Path};

use anyhow::{Result, bail};

/// The script whose place `langevin train` takes.
const SCRIPT: &str = "train_unconditional.py";

/// The course's script for fine-tuning, and what `langevin train` has to be told of its settings where the line does not say them.
const FINETUNE: &str = "finetune_model.py";
const FINETUNE_DEFAULTS: [(&str, &str); 12] = [
    ("--start_model", "google/ddpm-bedroom-256"),
    ("--dataset_name", "huggan/wikiart"),
    ("--model_save_name", "wikiart_1e"),
    ("--image_size", "256"),
    ("--batch_size", "16"),
    ("--grad_accumulation_steps", "2"),
    ("--num_epochs", "1"),
    ("--learning_rate", "1e-5"),
    ("--lr_scheduler", "exponential"),
    ("--lr_gamma", "0.9"),
    ("--log_samples_every", "250"),
    ("--save_model_every", "2500"),
];

/// Accelerate's flags that stand alone. Every other takes the next word as its value.
const SWITCHES: [&str; 22] = [
    "--cpu",
    "--multi_gpu",
    "--tpu",
    "--ipex",
    "--use_mps_device",
    "--use_deepspeed",
    "--use_fsdp",
    "--use_parallelism_config",
    "--use_megatron_lm",
    "--use_xpu",
    "--use_tpu_cluster",
    "--tpu_use_cluster",
    "--tpu_use_sudo",
    "--enable_cpu_affinity",
    "--same_network",
    "--module",
    "--no_python",
    "--debug",
    "--quiet",
    "--dynamo_use_fullgraph",
    "--dynamo_use_dynamic",
    "--no_tpu_cluster",
];

/// What a pasted line asks for.
pub(crate) struct Launched {
    /// The program's arguments, its name first.
    pub args: Vec<OsString>,
    /// What the user should know about flags that were dropped.
    pub notes: Vec<String>,
}

/// Turns `langevin accelerate launch [accelerate's flags] [path/]train_unconditional.py …`, `langevin python [path/]train_unconditional.py …`
/// and `langevin python [path/]finetune_model.py …` into `langevin train …`. Any other line stays as it is.
///
/// Of accelerate's flags, `--mixed_precision` and `--gradient_accumulation_steps` carry over where the script's own do
/// not say otherwise; the others are about machines.
///
/// # Errors
/// If another script is launched, or none.
pub(crate) fn unwrap(args: Vec<OsString>) -> Result<Launched> {
    let word = |index: usize| args.get(index).and_then(|arg| arg.to_str());
    if matches!(word(1), Some("python" | "python3")) {
        return of_python(&args);
    }
    if word(1) != Some("accelerate") {
        return Ok(Launched {
            args,
            notes: Vec::new(),
        });
    }
    if word(2) != Some("launch") {
        bail!("of accelerate's commands only `accelerate launch … {SCRIPT}` has a meaning here");
    }
    let mut words = args.iter().skip(3).peekable();
    let (mut carried, mut notes) = (Vec::new(), Vec::new());
    let script = loop {
        let Some(arg) = words.next() else {
            bail!("`accelerate launch` names no script; `{SCRIPT}` and its flags should follow");
        };
        let text = arg.to_string_lossy();
        if !text.starts_with('-') {
            break Path::new(arg);
        }
        let (name, inline) = match text.split_once('=') {
            Some((name, value)) => (name.replace('-', "_"), Some(value.to_string())),
            None => (text.replace('-', "_"), None),
        };
        let name = format!("--{}", name.trim_start_matches('_'));
        let stands_alone = SWITCHES.contains(&name.as_str()) || matches!(name.as_str(), "--m" | "--q");
        let value = match inline {
            None if !stands_alone => words
                .next_if(|next| !is_script(next))
                .map(|v| v.to_string_lossy().into_owned()),
            inline => inline,
        };
        match (name.as_str(), value) {
            ("--mixed_precision" | "--gradient_accumulation_steps", Some(value)) => {
                carried.push((name, value))
            }
            ("--multi_gpu" | "--tpu", _) => {
                notes.push(format!("{name} has no meaning here: one device trains"))
            }
            ("--num_processes" | "--num_machines", Some(count)) if count != "1" => {
                notes.push(format!("{name} {count} has no meaning here: one process trains"));
            }
            _ => {}
        }
    };
    if script.file_name().is_none_or(|name| name != SCRIPT) {
        bail!(
            "`{}` is not a script that langevin takes the place of; only `{SCRIPT}` is",
            script.display()
        );
    }
    let rest: Vec<OsString> = words.cloned().collect();
    let mut line: Vec<OsString> = args.iter().take(1).cloned().collect();
    line.push("train".into());
    for (name, value) in carried {
        if !rest.iter().any(|arg| names_flag(arg, &name)) {
            line.push(format!("{name}={value}").into());
        }
    }
    line.extend(rest);
    Ok(Launched { args: line, notes })
}

/// A line that runs one of the scripts by itself.
fn of_python(args: &[OsString]) -> Result<Launched> {
    let Some(script) = args.get(2) else {
        bail!("`python` names no script; `{SCRIPT}` or `{FINETUNE}` and its flags should follow");
    };
    let mut line: Vec<OsString> = args.iter().take(1).cloned().collect();
    line.push("train".into());
    let rest = &args[3..];
    if is_script(script) {
        line.extend_from_slice(rest);
        return Ok(Launched {
            args: line,
            notes: Vec::new(),
        });
    }
    if Path::new(script).file_name().is_none_or(|name| name != FINETUNE) {
        bail!(
            "`{}` is not a script that langevin takes the place of; `{SCRIPT}` and `{FINETUNE}` are",
            script.display()
        );
    }
    let (rest, notes) = finetuning(rest)?;
    for (name, value) in FINETUNE_DEFAULTS {
        if !rest.iter().any(|arg| names_flag(arg, name)) {
            line.push(format!("{name}={value}").into());
        }
    }
    line.extend(rest);
    Ok(Launched { args: line, notes })
}

/// The flags of the course's script without those that have no counterpart: its project at Weights & Biases becomes that tracker.
fn finetuning(words: &[OsString]) -> Result<(Vec<OsString>, Vec<String>)> {
    let (mut kept, mut notes) = (Vec::new(), Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let dropped = ["--wandb_project", "--device"]
            .into_iter()
            .find(|name| names_flag(word, name));
        let Some(name) = dropped else {
            kept.push(word.clone());
            continue;
        };
        let inline = word.to_str().and_then(|word| word.split_once('='));
        let value = match inline {
            Some((_, value)) => value.to_string(),
            None => match words.next() {
                Some(value) => value.to_string_lossy().into_owned(),
                None => bail!("{name} has no value"),
            },
        };
        if name == "--device" {
            notes.push(format!(
                "--device {value} is left out: say --device here for another one than the processor"
            ));
        } else {
            kept.push("--logger=wandb".into());
            notes.push(format!(
                "--wandb_project {value}: the run is kept as an offline run folder, and `wandb sync --project {value}` sends it"
            ));
        }
    }
    Ok((kept, notes))
}

fn is_script(arg: &OsString) -> bool {
    Path::new(arg).file_name().is_some_and(|name| name == SCRIPT)
}

/// Whether `arg` is the flag `name`, with or without a value, in either spelling.
fn names_flag(arg: &OsString, name: &str) -> bool {
    arg.to_str().is_some_and(|text| {
        text.split('=')
            .next()
            .is_some_and(|given| given.replace('_', "-") == name.replace('_', "-"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launched(line: &str) -> Result<Launched> {
        unwrap(line.split_whitespace().map(OsString::from).collect())
    }

    fn line(text: &str) -> String {
        let args = launched(text).unwrap().args;
        args.join(std::ffi::OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn other_lines_are_left_alone() {
        assert_eq!(line("langevin train --seed 3"), "langevin train --seed 3");
        assert_eq!(line("langevin"), "langevin");
    }

    #[test]
    fn the_launcher_is_dropped() {
        assert_eq!(
            line("langevin accelerate launch train_unconditional.py --resolution=64"),
            "langevin train --resolution=64"
        );
        assert_eq!(
            line("langevin accelerate launch examples/train_unconditional.py --a b"),
            "langevin train --a b"
        );
    }

    #[test]
    fn the_launchers_flags_are_skipped_with_their_values() {
        let text = "langevin accelerate launch --cpu --num_processes 1 --main_process_port=29500 --gpu-ids all \
                    train_unconditional.py --seed 1";
        assert_eq!(line(text), "langevin train --seed 1");
        assert!(launched(text).unwrap().notes.is_empty());
    }

    #[test]
    fn an_unknown_switch_does_not_swallow_the_script() {
        assert_eq!(
            line("langevin accelerate launch --brand_new train_unconditional.py"),
            "langevin train"
        );
    }

    #[test]
    fn mixed_precision_carries_over_unless_the_script_says_its_own() {
        assert_eq!(
            line("langevin accelerate launch --mixed_precision fp16 train_unconditional.py --seed 1"),
            "langevin train --mixed_precision=fp16 --seed 1"
        );
        assert_eq!(
            line(
                "langevin accelerate launch --mixed_precision=fp16 train_unconditional.py --mixed-precision=no"
            ),
            "langevin train --mixed-precision=no"
        );
    }

    #[test]
    fn several_processes_are_noted() {
        let notes =
            launched("langevin accelerate launch --multi_gpu --num_processes=2 train_unconditional.py")
                .unwrap()
                .notes;
        assert_eq!(notes.len(), 2);
    }

    #[test]
    fn the_courses_line_is_taken_whole() {
        let text = "langevin python finetune_model.py --image_size 128 --batch_size 8 --num_epochs 16 --grad_accumulation_steps 2 \
                    --start_model google/ddpm-celebahq-256 --dataset_name Norod78/Vintage-Faces-FFHQAligned \
                    --wandb_project dm-finetune --log_samples_every 100 --save_model_every 1000 --model_save_name vintageface";
        assert_eq!(
            line(text),
            "langevin train --learning_rate=1e-5 --lr_scheduler=exponential --lr_gamma=0.9 --image_size 128 --batch_size 8 \
             --num_epochs 16 --grad_accumulation_steps 2 --start_model google/ddpm-celebahq-256 \
             --dataset_name Norod78/Vintage-Faces-FFHQAligned --logger=wandb --log_samples_every 100 \
             --save_model_every 1000 --model_save_name vintageface"
        );
        assert!(launched(text).unwrap().notes[0].contains("wandb sync --project dm-finetune"));
        let plain = line("langevin python3 unit2/finetune_model.py --device cuda");
        assert!(
            plain.ends_with("--log_samples_every=250 --save_model_every=2500"),
            "{plain}"
        );
        assert!(
            plain.contains("--dataset_name=huggan/wikiart") && plain.contains("--image_size=256"),
            "{plain}"
        );
        assert_eq!(
            line("langevin python train_unconditional.py --seed 1"),
            "langevin train --seed 1"
        );
        assert!(launched("langevin python finetune_model.py --wandb_project").is_err());
        assert!(launched("langevin python other.py").is_err());
        assert!(launched("langevin python").is_err());
    }

    #[test]
    fn other_scripts_are_refused() {
        assert!(launched("langevin accelerate launch train_text_to_image.py --a").is_err());
        assert!(launched("langevin accelerate launch --cpu").is_err());
        assert!(launched("langevin accelerate config").is_err());
    }
}
