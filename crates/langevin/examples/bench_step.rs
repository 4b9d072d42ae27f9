//! Times one side of `benches/compare_pytorch.py`, which runs it: a training step or a forward, in a process of its own.
//!
//! `bench_step ROW [COUNTED]`, with ROW one of step-b16, forward-b8, forward-b1, mnist-step-b128, prints a line of JSON: the
//! milliseconds of each counted run after three that are not, the processor's seconds a run of them took, and the process's largest
//! resident set in KiB. `-bf16` behind a row's name is bf16 mixed precision, `-checkpointing` gradient checkpointing, and both may stand there.

use std::time::Instant;

use burn::{module::Module, tensor::Tensor};
use langevin::{
    Result,
    device::default_device,
    models::{Conditioning, Denoiser, ModelPreset},
    objectives::{DdpmObjective, NoiseOptions, PredictionType, Weighting},
    ops::KeptAs,
    random::Generator,
    schedulers::{BetaSchedule, DDPMConfig, DDPMScheduler},
    training::{
        TrainingConfig,
        learner::Learner,
        optimizer::AdamWConfig,
        step::{self, Batch, Draw, Saving},
    },
};

/// Runs that are not counted.
const WARM_UP: usize = 3;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let row = arguments.next().unwrap_or_else(|| "step-b16".into());
    let counted = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(17);
    let mut name = row.as_str();
    let mut saving = Saving::default();
    if let Some(rest) = name.strip_suffix("-checkpointing") {
        (name, saving.checkpointing) = (rest, true);
    }
    if let Some(rest) = name.strip_suffix("-bf16") {
        (name, saving.kept_as) = (rest, KeptAs::Bf16);
    }
    let before = cpu_seconds();
    let times = langevin::ops::in_pool(|| match name {
        "step-b16" => training(ModelPreset::CourseButterflies, 16, counted, saving),
        "mnist-step-b128" => training(ModelPreset::CourseMnist, 128, counted, saving),
        "forward-b8" => forward(8, counted),
        "forward-b1" => forward(1, counted),
        row => Err(langevin::Error::Config(format!("there is no row {row}"))),
    })?;
    // The model's making counts a little, and the same in every row.
    let cpu = before
        .zip(cpu_seconds())
        .map(|(before, after)| (after - before) / (times.len() + WARM_UP) as f64);
    println!(
        "{}",
        serde_json::json!({ "ms": times, "cpu_seconds": cpu, "peak_kib": peak_kib() })
    );
    Ok(())
}

/// Steps of training: noise, forward, backward, clipping, AdamW.
fn training(preset: ModelPreset, pictures: usize, counted: usize, saving: Saving) -> Result<Vec<f64>> {
    let device = default_device();
    let mut generator = Generator::new(0);
    let model = preset.config().build(&device, &mut generator)?;
    let config = TrainingConfig::script();
    // Taken out only while an update changes it in place.
    let schedule = config.lr_schedule(1000, 100)?;
    let mut learner = Some(Learner::new(
        model,
        AdamWConfig::default(),
        1e-4,
        schedule,
        1.0,
        None,
    ));
    let scheduler = DDPMScheduler::new(DDPMConfig {
        beta_schedule: BetaSchedule::SquaredcosCapV2,
        ..DDPMConfig::default()
    })?;
    let objective = DdpmObjective::new(&scheduler, PredictionType::Epsilon, Weighting::default())?;
    let side = preset.resolution();
    let clean = generator.randn_tensor([pictures, preset.channels(), side, side], &device);
    let batch = Batch::new(clean, Conditioning::default());
    time(counted, || {
        let current = learner.take().expect("every step puts it back");
        let draw = Draw::new(&batch.clean, &objective, NoiseOptions::default(), &mut generator);
        let lesson = step::gradients_saving(saving, current.model(), &objective, &batch, &draw)?;
        learner = Some(current.update(lesson.gradients).0);
        Ok(())
    })
}

fn forward(pictures: usize, counted: usize) -> Result<Vec<f64>> {
    let device = default_device();
    let mut generator = Generator::new(0);
    let preset = ModelPreset::CourseButterflies;
    let model = preset.config().build(&device, &mut generator)?.valid();
    let side = preset.resolution();
    let x: Tensor<4> = generator.randn_tensor([pictures, preset.channels(), side, side], &device);
    let timesteps: Vec<f32> = (0..pictures).map(|i| (i * 37 % 1000) as f32).collect();
    let timesteps = Tensor::<1>::from_floats(timesteps.as_slice(), &device);
    let counted = if pictures == 1 { 3 * counted } else { counted };
    time(counted, || {
        let y = model.denoise(x.clone(), timesteps.clone(), &Conditioning::default())?;
        std::hint::black_box(y.into_data());
        Ok(())
    })
}

/// Milliseconds of each counted run.
fn time(counted: usize, mut run: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    for _ in 0..WARM_UP {
        run()?;
    }
    (0..counted)
        .map(|_| {
            let start = Instant::now();
            run()?;
            Ok(start.elapsed().as_secs_f64() * 1e3)
        })
        .collect()
}

/// The largest resident set so far, where the system tells.
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Seconds that this process's threads have computed so far, where the system tells.
fn cpu_seconds() -> Option<f64> {
    /// Linux's clock ticks, a hundred a second on every processor that this was built for.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the program's name, which stands in parentheses: the 12th and 13th fields are the program's and the system's time.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |i: usize| fields.get(i)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS)
}
