//! What loading and saving a model of Stable Diffusion's size takes: `cargo bench -p langevin --bench load_save [FOLDER]`.
//!
//! Makes Stable Diffusion 1.5's UNet (860 million parameters) with random weights, saves it to a temporary folder in FOLDER (the system's,
//! unless one is named) and loads it from there, each in a process of its own, so that the file's pages are in the system's cache when it is
//! loaded; then loads it with a LoRA of rank 32 on every layer of its transformers merged into it. Prints the seconds, and the largest resident set beside what the model and the file take. It needs 3.5 GB of disk and some 4 GB of
//! memory, and Linux for the figures of memory.

use std::{env, fs, path::Path, process::Command, time::Instant};

use langevin::{
    device::default_device,
    models::{Model, ModelConfig, UNet2DConditionConfig, UNet2DConditionModel, unet2d_condition::PerLevel},
    random::Generator,
    weights::{
        Checkpoint, FILE_NAME, NamedTensor,
        lora::{LoraFile, Targets},
        single_file::Component,
        write_tensors,
    },
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Loads of one run; the first may find the file's pages still being written.
const LOADS: usize = 3;

/// A line of `/proc/self/status`, in MiB.
fn memory(name: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.and_then(|line| line.trim_matches([':', ' ', '\t', 'k', 'B']).parse::<f64>().ok());
    kilobytes.unwrap_or(f64::NAN) / 1024.0
}

/// Begins to measure the largest resident set anew.
fn forget_the_peak() {
    // Where it cannot be, the peak is that of the whole process.
    drop(fs::write("/proc/self/clear_refs", "5"));
}

fn save(folder: &Path) -> Result<()> {
    let config = UNet2DConditionConfig {
        cross_attention_dim: PerLevel::All(768),
        ..UNet2DConditionConfig::default()
    };
    let model = UNet2DConditionModel::new(&config, &default_device(), &mut Generator::new(0))?;
    let held = memory("VmRSS");
    forget_the_peak();
    let start = Instant::now();
    model.save(folder)?;
    println!(
        "save: {:.2} s, {held:.0} MiB before, {:.0} MiB more at most ({} parameters)",
        start.elapsed().as_secs_f64(),
        memory("VmHWM") - held,
        model.num_parameters(),
    );
    Ok(())
}

/// The rank of the LoRA, a common one.
const RANK: usize = 32;

/// Writes a LoRA of the linear layers and the projections of all transformers, as sd-scripts trains them.
fn write_lora(folder: &Path) -> Result<()> {
    let weights = Checkpoint::open(folder.join(FILE_NAME))?;
    let mut generator = Generator::new(1);
    let mut tensors = Vec::new();
    for name in weights
        .names()
        .filter(|name| name.contains("attentions") && name.ends_with(".weight"))
    {
        let shape = weights
            .get(name)
            .map(|stored| stored.shape.clone())
            .unwrap_or_default();
        let [outputs, rest @ ..] = shape.as_slice() else {
            continue;
        };
        if rest.is_empty() {
            continue;
        }
        let module = name.trim_end_matches(".weight").replace('.', "_");
        for (part, shape) in [("down", [RANK, rest.iter().product()]), ("up", [*outputs, RANK])] {
            tensors.push(NamedTensor {
                name: format!("lora_unet_{module}.lora_{part}.weight"),
                values: generator.rand(shape.iter().product()),
                shape: shape.to_vec(),
            });
        }
    }
    Ok(write_tensors(folder.join(LORA), &tensors)?)
}

const LORA: &str = "lora.safetensors";

/// Loads the model with the LoRA merged into it.
fn merge(folder: &Path) -> Result<()> {
    write_lora(folder)?;
    forget_the_peak();
    let start = Instant::now();
    let mut weights = Checkpoint::open(folder.join(FILE_NAME))?;
    let mut targets = Targets::default();
    targets.add_checkpoint(Component::Unet, &weights);
    let fit = LoraFile::open(folder.join(LORA))?.fit(&targets, &1.0.into())?;
    fit.apply(Component::Unet, &mut weights);
    let config = UNet2DConditionConfig::load(folder)?;
    let model = UNet2DConditionModel::with_weights(&config, &mut weights, &default_device())?;
    println!(
        "load with a LoRA of rank {RANK} on {} modules: {:.2} s, {:.0} MiB at most ({} parameters)",
        fit.modules(),
        start.elapsed().as_secs_f64(),
        memory("VmHWM"),
        model.num_parameters(),
    );
    Ok(())
}

fn load(folder: &Path) -> Result<()> {
    let file = fs::metadata(folder.join(FILE_NAME))?.len() as f64 / f64::from(1 << 20);
    let start = Instant::now();
    let model = UNet2DConditionModel::load(folder, &default_device())?;
    let seconds = start.elapsed().as_secs_f64();
    let peak = memory("VmHWM");
    println!(
        "load: {seconds:.2} s, {peak:.0} MiB at most, {:.3} of the file's {file:.0} MiB ({} parameters)",
        peak / file,
        model.num_parameters(),
    );
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    match arguments.as_slice() {
        [action, folder] if action == "save" => return save(folder.as_ref()),
        [action, folder] if action == "load" => return load(folder.as_ref()),
        [action, folder] if action == "merge" => return merge(folder.as_ref()),
        _ => {}
    }
    let place = arguments.first().map_or_else(env::temp_dir, Into::into);
    let folder = tempfile::tempdir_in(place)?;
    for action in [["save"].as_slice(), &["load"; LOADS], &["merge"; LOADS]].concat() {
        let status = Command::new(env::current_exe()?)
            .arg(action)
            .arg(folder.path())
            .status()?;
        if !status.success() {
            return Err(format!("{action}: {status}").into());
        }
    }
    Ok(())
}
