//! Command lines written for `accelerate launch` or `python`, pasted whole.

mod machines;
mod scripts;

use std::{ffi::OsString, path::Path};

use anyhow::{Result, bail};

use self::{machines::Machines, scripts::Script};

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
const SWITCHES: [&str; 26] = [
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
    // torchrun's.
    "--standalone",
    "--run_path",
    "--use_env",
    "--virtual_local_rank",
];

/// What a pasted line asks for.
pub(crate) struct Launched {
    /// The program's arguments, its name first.
    pub args: Vec<OsString>,
    /// What the user should know about flags that were dropped.
    pub notes: Vec<String>,
}

/// The modules that launch a script, each with whether a word `launch` follows its name.
const LAUNCHERS: [(&str, bool); 5] = [
    ("accelerate.commands.launch", false),
    ("accelerate.commands.accelerate_cli", true),
    ("accelerate", true),
    ("torch.distributed.run", false),
    ("torch.distributed.launch", false),
];

/// Turns `langevin accelerate launch [accelerate's flags] [path/]train_unconditional.py …`, the same with `torchrun` or `python -m
/// accelerate.commands.launch`, `langevin python [path/]train_unconditional.py …` and `langevin python [path/]finetune_model.py …` into
/// `langevin train …`. What stands before such a line in a notebook or a shell is dropped: a `!`, and variables as `NAME=value`. Any other
/// line stays as it is.
///
/// Of accelerate's flags, `--mixed_precision` and `--gradient_accumulation_steps` carry over where the script's own do
/// not say otherwise; the others are about machines: of several processes it becomes `langevin launch … train …`.
///
/// # Errors
/// If another script is launched, or none.
pub(crate) fn unwrap(args: Vec<OsString>) -> Result<Launched> {
    let (args, notes) = without_prefix(args);
    let word = |index: usize| args.get(index).and_then(|arg| arg.to_str());
    let mut launched = match word(1) {
        Some("accelerate") if word(2) == Some("launch") => of_launcher(&args, 3),
        Some("accelerate") => {
            bail!("of accelerate's commands only `accelerate launch … {SCRIPT}` has a meaning here")
        }
        Some("accelerate-launch" | "torchrun") => of_launcher(&args, 2),
        Some(name) if is_python(name) => of_python(&args),
        _ => Ok(Launched {
            args,
            notes: Vec::new(),
        }),
    }?;
    launched.notes.splice(0..0, notes);
    Ok(launched)
}

/// `python`, `python3`, `python3.11`.
fn is_python(name: &str) -> bool {
    name.strip_prefix("python")
        .is_some_and(|version| version.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
}

/// A line without the `!` of a notebook, variables, and the program's own name where that was pasted too.
fn without_prefix(args: Vec<OsString>) -> (Vec<OsString>, Vec<String>) {
    let mut words = args.into_iter();
    let program = words.next();
    let mut rest: Vec<OsString> = words.collect();
    let mut notes = Vec::new();
    if let Some(first) = rest
        .first()
        .and_then(|first| first.to_str()?.strip_prefix('!'))
        .map(OsString::from)
    {
        rest.splice(..1, (!first.is_empty()).then_some(first));
    }
    while let Some(name) = rest.first().and_then(variable) {
        notes.push(format!(
            "{name}=… is left out: variables are set where they stand before `langevin`"
        ));
        rest.remove(0);
    }
    if rest.first().is_some_and(|first| first == "langevin") {
        rest.remove(0);
    }
    (program.into_iter().chain(rest).collect(), notes)
}

/// The name of a variable that a word sets.
fn variable(word: &OsString) -> Option<String> {
    let (name, _) = word.to_str()?.split_once('=')?;
    let is_name = |name: &str| {
        let mut letters = name.bytes();
        letters
            .next()
            .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
            && letters.all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    is_name(name).then(|| name.to_string())
}

/// A line whose launcher's own flags begin at `from`.
fn of_launcher(args: &[OsString], from: usize) -> Result<Launched> {
    let mut words = args.iter().skip(from).peekable();
    let (mut carried, mut notes) = (Vec::new(), Vec::new());
    let mut machines = Machines::default();
    let script = loop {
        let Some(arg) = words.next() else {
            bail!("the line launches no script; `{SCRIPT}` and its flags should follow");
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
            (name, value) => machines.take(name, value.as_deref(), &mut notes)?,
        }
    };
    // Flags hold against a file, wherever it stands.
    let typed: Vec<String> = carried.iter().map(|(name, _)| String::clone(name)).collect();
    let of_file = std::mem::take(&mut machines.carried).into_iter();
    carried.extend(of_file.filter(|(name, _)| !typed.contains(name)));
    let mut line: Vec<OsString> = args.iter().take(1).cloned().collect();
    line.extend(machines.words()?);
    line.push("train".into());
    let rest: Vec<OsString> = words.cloned().collect();
    if let Some((rest, more)) = on_latents(script, &rest)? {
        let carried = carried
            .into_iter()
            .filter(|(name, _)| !rest.iter().any(|arg| names_flag(arg, name)));
        line.extend(carried.map(|(name, value)| OsString::from(format!("{name}={value}"))));
        line.extend(rest);
        notes.extend(more);
        return Ok(Launched { args: line, notes });
    }
    if script.file_name().is_none_or(|name| name != SCRIPT) {
        bail!("{}", unknown(script));
    }
    for (name, value) in carried {
        if !rest.iter().any(|arg| names_flag(arg, &name)) {
            line.push(format!("{name}={value}").into());
        }
    }
    line.extend(rest);
    Ok(Launched { args: line, notes })
}

/// A line that runs one of the scripts by itself, or a module that launches it.
fn of_python(args: &[OsString]) -> Result<Launched> {
    let word = |index: usize| args.get(index).and_then(|arg| arg.to_str());
    let mut at = 2;
    // The interpreter's own flags, of which two have a value.
    while let Some(flag) = word(at).filter(|flag| flag.starts_with('-') && *flag != "-m") {
        at += if matches!(flag, "-W" | "-X") { 2 } else { 1 };
    }
    if word(at) == Some("-m") {
        let module = word(at + 1).unwrap_or_default();
        let found = LAUNCHERS.iter().find(|(name, _)| *name == module);
        return match found {
            Some((_, false)) => of_launcher(args, at + 2),
            Some((_, true)) if word(at + 2) == Some("launch") => of_launcher(args, at + 3),
            _ => bail!(
                "`python -m {module}` is nothing that langevin takes the place of; `accelerate launch … {SCRIPT}` is"
            ),
        };
    }
    let Some(script) = args.get(at) else {
        bail!("`python` names no script; `{SCRIPT}` or `{FINETUNE}` and its flags should follow");
    };
    let mut line: Vec<OsString> = args.iter().take(1).cloned().collect();
    line.push("train".into());
    let rest = &args[at + 1..];
    if Path::new(script).file_name().is_some_and(|name| name == SCRIPT) {
        line.extend_from_slice(rest);
        return Ok(Launched {
            args: line,
            notes: Vec::new(),
        });
    }
    if let Some((rest, notes)) = on_latents(Path::new(script), rest)? {
        line.extend(rest);
        return Ok(Launched { args: line, notes });
    }
    if Path::new(script).file_name().is_none_or(|name| name != FINETUNE) {
        bail!("{}", unknown(Path::new(script)));
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

/// The flags of a script that trains on top of Stable Diffusion, as ours, with notes; `None` where it is another.
///
/// # Errors
/// If one asks for what is not there yet, or the script is sd-scripts'.
fn on_latents(script: &Path, words: &[OsString]) -> Result<Option<(Vec<OsString>, Vec<String>)>> {
    let name = script
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    scripts::refuse_sd_scripts(name, words)?;
    Script::named(name).map(|script| script.line(words)).transpose()
}

fn unknown(script: &Path) -> String {
    let known: Vec<&str> = scripts::SCRIPTS.iter().map(|script| script.name).collect();
    format!(
        "`{}` is not a script that langevin takes the place of; `{SCRIPT}`, `{FINETUNE}` and diffusers' {} are",
        script.display(),
        known.join(", ")
    )
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
    let name = Path::new(arg).file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name == SCRIPT || Script::named(name).is_some())
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
    fn several_processes_are_launched() {
        let text = "langevin accelerate launch --multi_gpu --num_processes=2 --mixed_precision=bf16 train_unconditional.py --seed 1";
        let notes = launched(text).unwrap().notes;
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert_eq!(
            line(text),
            "langevin launch --num-processes=2 train --mixed_precision=bf16 --seed 1"
        );
        let torchrun = "langevin torchrun --nproc_per_node=2 --nnodes 1 train_text_to_image_lora.py --pretrained_model_name_or_path=base";
        assert!(line(torchrun).starts_with("langevin launch --num-processes=2 train "));
        for refused in [
            "--use_deepspeed",
            "--use_fsdp --fsdp_version 1",
            "--tpu",
            "--num_machines 2 --num_processes 4",
        ] {
            assert!(
                launched(&format!(
                    "langevin accelerate launch {refused} train_unconditional.py"
                ))
                .is_err()
            );
        }
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
    fn other_launchers_and_what_stands_before_them_are_known() {
        let launch = "train_unconditional.py --seed 1";
        for before in [
            "torchrun --standalone --nproc_per_node=1",
            "torchrun --nnodes 1 --master-port 29500",
            "accelerate-launch --cpu",
            "python -m accelerate.commands.launch --num_processes 1",
            "python3.11 -u -m accelerate.commands.accelerate_cli launch",
            "python -m torch.distributed.launch --nproc_per_node 1 --use_env",
            "python -u -W ignore",
            "! accelerate launch",
            "!accelerate launch",
            "langevin accelerate launch",
        ] {
            let text = format!("langevin {before} {launch}");
            assert_eq!(line(&text), "langevin train --seed 1", "{text}");
            assert!(launched(&text).unwrap().notes.is_empty(), "{text}");
        }
        let variables = launched(
            "langevin CUDA_VISIBLE_DEVICES=0 HF_HUB_OFFLINE=1 torchrun --nproc_per_node=2 train_unconditional.py",
        );
        let notes = variables.unwrap().notes;
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].starts_with("CUDA_VISIBLE_DEVICES="));
        assert_eq!(line("langevin !langevin sample a=b"), "langevin sample a=b");
        assert!(launched("langevin python -m http.server").is_err());
        assert!(launched("langevin torchrun other.py").is_err());
    }

    #[test]
    fn lines_on_top_of_stable_diffusion_are_taken_whole() {
        for before in ["accelerate launch --mixed_precision fp16", "python"] {
            let text = format!(
                "langevin {before} examples/dreambooth/train_dreambooth_lora.py --pretrained_model_name_or_path=base --instance_data_dir=dog"
            );
            let line = line(&text);
            assert!(line.starts_with("langevin train "), "{line}");
            assert!(
                line.contains("--trainee=lora") && line.contains("--pretrained=base"),
                "{line}"
            );
        }
    }

    #[test]
    fn other_scripts_are_refused() {
        assert!(launched("langevin accelerate launch train_lcm_distill_sd_wds.py --a").is_err());
        assert!(launched("langevin accelerate launch train_network.py --network_dim=8").is_err());
        assert!(launched("langevin accelerate launch --cpu").is_err());
        assert!(launched("langevin accelerate config").is_err());
    }
}
