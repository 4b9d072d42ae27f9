//! What guidance costs: a sampling step of the course's UNet (32x32) plainly and with each kind of guidance, in turns.
//!
//! `bench_guidance [BATCH] [ROUNDS]` prints medians in milliseconds, and their ratios to the plain step.

use std::time::Instant;

use burn::tensor::{Device, Int, Tensor};
use langevin::{
    Result,
    device::default_device,
    guidance::{ClassifierFree, Colour, Guided, LossGuidance, Through},
    models::{AnyModel, Conditioning, ModelPreset},
    pipelines::Sampling,
    random::Generator,
    schedulers::{DDIMConfig, DDIMScheduler, Scheduler},
};

/// Steps that are not counted.
const WARM_UP: usize = 2;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse().ok());
    let batch = arguments.next().flatten().unwrap_or(8);
    let rounds = arguments.next().flatten().unwrap_or(9);
    langevin::ops::in_pool(|| run(batch, rounds))
}

/// A sampling loop, and the milliseconds of each counted step.
struct Row<'a> {
    name: &'static str,
    sampling: Sampling<'a>,
    times: Vec<f64>,
}

fn run(batch: usize, rounds: usize) -> Result<()> {
    let device = default_device();
    let config = ModelPreset::CourseButterflies
        .config()
        .made_for(32, 3, Some(10))?;
    let model = config.build(&device, &mut Generator::new(0))?;
    let mut generators = [0; 4].map(Generator::new);
    let [plain, clean, through, classes] = &mut generators;

    let colour = || Colour {
        rgb: [0x1A, 0xE6, 0x80],
    };
    let by_loss = |through| LossGuidance::new(through).with(colour(), 5.0);
    let guided = Guided::new(
        &model,
        told(0, batch, &device),
        ClassifierFree::of_scale(3.0),
        1000,
    )?;
    let steps = WARM_UP + rounds;
    let start = |generator| begin(Sampling::new, &model, steps, batch, generator, &device);
    let mut rows = [
        ("plain", start(plain)?),
        (
            "a loss, through the clean picture",
            start(clean)?.guided_by(by_loss(Through::Clean)),
        ),
        (
            "a loss, through the model",
            start(through)?.guided_by(by_loss(Through::Model)),
        ),
        (
            "classifier-free, one batch of two halves",
            begin(
                |_, scheduler, noise, generator| {
                    Sampling::owning(Box::new(guided), scheduler, noise, generator)
                },
                &model,
                steps,
                batch,
                classes,
                &device,
            )?,
        ),
    ]
    .map(|(name, sampling)| Row {
        name,
        sampling,
        times: Vec::new(),
    });

    for round in 0..steps {
        for row in &mut rows {
            let begun = Instant::now();
            if let Some(step) = row.sampling.next() {
                std::hint::black_box(step?.sample.to_data());
            }
            if round >= WARM_UP {
                row.times.push(begun.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    let plain = median(&mut rows[0].times);
    for row in &mut rows {
        let time = median(&mut row.times);
        println!("{:42} {time:8.1} ms  {:.2}", row.name, time / plain);
    }
    Ok(())
}

/// A DDIM loop from noise, made by `new`.
fn begin<'a>(
    new: impl FnOnce(
        &'a (dyn langevin::models::Denoiser + Sync),
        Box<dyn Scheduler + 'a>,
        Tensor<4>,
        &'a mut Generator,
    ) -> Sampling<'a>,
    model: &'a AnyModel,
    steps: usize,
    batch: usize,
    generator: &'a mut Generator,
    device: &Device,
) -> Result<Sampling<'a>> {
    let mut scheduler = DDIMScheduler::new(DDIMConfig::default())?;
    scheduler.set_timesteps(steps)?;
    let noise = generator.randn_tensor([batch, 3, 32, 32], device);
    Ok(new(model, Box::new(scheduler), noise, generator).with_conditioning(told(1, batch, device)))
}

fn told(class: i64, batch: usize, device: &Device) -> Conditioning {
    Conditioning {
        classes: Some(Tensor::<1, Int>::full([batch], class, device)),
        ..Conditioning::default()
    }
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
