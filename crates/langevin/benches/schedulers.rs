//! What samplers cost beside the model: `cargo bench -p langevin --bench schedulers`, with names to choose some.
//!
//! Prints a sampler's own work for one call of the model at the size of `course-butterflies`, one picture, and its share of a call
//! of that model; and by how much the process grew over a loop of 1000 steps.

use std::time::Instant;

use burn::tensor::{Device, Tensor};
use langevin::{
    device::default_device,
    models::{Conditioning, Denoiser, ModelPreset},
    random::Generator,
    schedulers::{AnyScheduler, ConfigMap, Scheduler, StepOptions},
};

const SHAPE: [usize; 4] = [1, 3, 32, 32];
/// Loops of so many steps are timed.
const STEPS: usize = 50;
/// A loop that would show growth.
const MANY_STEPS: usize = 1000;

/// The middle of the times, in seconds.
fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// The median time of a call of the model.
fn forward(device: &Device) -> f64 {
    let mut generator = Generator::new(0);
    let model = ModelPreset::CourseButterflies
        .config()
        .build(device, &mut generator);
    let model = model.expect("the preset is a model");
    let x = generator.randn_tensor(SHAPE, device);
    let call = || {
        let start = Instant::now();
        let t = Tensor::<1>::full([SHAPE[0]], 500.0, device);
        let prediction = model.denoise(x.clone(), t, &Conditioning::default());
        // Reads a value, so that the work is done.
        prediction
            .expect("the model takes its own size")
            .sum()
            .into_scalar::<f32>();
        start.elapsed().as_secs_f64()
    };
    call();
    median((0..15).map(|_| call()).collect())
}

/// A whole loop; gives the time of each call's own work.
fn walk(scheduler: &mut AnyScheduler, steps: usize, device: &Device) -> langevin::Result<Vec<f64>> {
    scheduler.set_timesteps(steps)?;
    let mut generator = Generator::new(0);
    let mut x = generator.randn_tensor(SHAPE, device) * scheduler.init_noise_sigma();
    let (picture, mask) = (x.zeros_like(), x.ones_like());
    let mut times = Vec::new();
    for t in scheduler.timesteps().to_vec() {
        let (original_image, mask) = (Some(picture.clone()), Some(mask.clone()));
        let start = Instant::now();
        let input = scheduler.scale_model_input(x.clone(), t)?;
        times.push(start.elapsed().as_secs_f64());
        let prediction = input * 0.5;
        let mut options = StepOptions {
            generator: Some(&mut generator),
            original_image,
            mask,
            ..StepOptions::default()
        };
        let start = Instant::now();
        x = scheduler.step(prediction, t, x, &mut options)?.previous;
        if let Some(last) = times.last_mut() {
            *last += start.elapsed().as_secs_f64();
        }
    }
    Ok(times)
}

/// What the process holds of the memory, in bytes; 0 where the system does not say.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let device = default_device();
    let forward = forward(&device);
    println!("one call of course-butterflies: {:.2} ms", forward * 1e3);
    println!(
        "{:16} {:>12} {:>8} {:>20}",
        "sampler", "own work", "share", "growth, 1000 steps"
    );
    for (name, class) in AnyScheduler::NAMES {
        if !chosen.is_empty() && !chosen.iter().any(|c| c == name) {
            continue;
        }
        let config: ConfigMap = [("_class_name".to_owned(), (*class).into())]
            .into_iter()
            .collect();
        let mut scheduler = AnyScheduler::from_json(config).expect("the defaults make a scheduler");
        let steps = STEPS.min(scheduler.num_train_timesteps());
        let times = (0..3).map(|_| walk(&mut scheduler, steps, &device));
        let times: langevin::Result<Vec<Vec<f64>>> = times.collect();
        let own = median(times.expect("the loop runs").concat());
        let before = resident();
        let growth = match walk(&mut scheduler, MANY_STEPS, &device) {
            Ok(_) => format!("{} kB", (resident().saturating_sub(before)) / 1024),
            Err(_) => "no such loop".to_owned(),
        };
        println!(
            "{name:16} {:9.1} us {:7.2} % {growth:>20}",
            own * 1e6,
            100.0 * own / forward
        );
    }
}
