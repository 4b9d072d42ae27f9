//! Bits depend on neither the number of threads nor a picture's company in its batch.

use burn::tensor::Tensor;
use langevin::{
    device::default_device,
    models::{AnyModel, Conditioning, Denoiser, ModelPreset, weights::named_tensors},
    objectives::{DdpmObjective, NoiseOptions, PredictionType, Weighting},
    ops::in_pool,
    random::Generator,
    schedulers::{DDPMConfig, DDPMScheduler},
    training::{
        TrainingConfig,
        learner::Learner,
        optimizer::AdamWConfig,
        step::{self, Batch, Draw},
    },
};

fn model(preset: ModelPreset) -> AnyModel {
    preset
        .config()
        .build(&default_device(), &mut Generator::new(1))
        .unwrap()
}

/// The bits of all weights after some steps of training.
fn trained(preset: ModelPreset, pictures: usize, steps: usize) -> Vec<u32> {
    let config = TrainingConfig::script();
    let schedule = config.lr_schedule(steps, steps).unwrap();
    let mut learner = Learner::new(model(preset), AdamWConfig::default(), 1e-3, schedule, 1.0, None);
    let scheduler = DDPMScheduler::new(DDPMConfig::default()).unwrap();
    let objective = DdpmObjective::new(&scheduler, PredictionType::Epsilon, Weighting::default()).unwrap();
    let mut generator = Generator::new(2);
    let side = preset.resolution();
    for _ in 0..steps {
        let clean = generator.randn_tensor([pictures, preset.channels(), side, side], &default_device());
        let batch = Batch::new(clean, Conditioning::default());
        let draw = Draw::new(&batch.clean, &objective, NoiseOptions::default(), &mut generator);
        let lesson = step::gradients(learner.model(), &objective, &batch, &draw).unwrap();
        learner = learner.update(lesson.gradients).0;
    }
    let weights = named_tensors(learner.model());
    weights
        .iter()
        .flat_map(|tensor| tensor.values.iter().map(|v| v.to_bits()))
        .collect()
}

#[test]
fn training_gives_the_same_bits_with_any_number_of_threads() {
    // Few pictures, whose layers are split by channels, and so many that weight gradients are cut into slices (fewer steps: they
    // are long ones).
    for (preset, pictures, steps) in [(ModelPreset::Digits, 5, 20), (ModelPreset::CourseMnist, 12, 3)] {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| in_pool(|| trained(preset, pictures, steps)))
        };
        let one = run(1);
        for threads in [2, 4] {
            assert!(run(threads) == one, "{preset}: {threads} threads");
        }
    }
}

#[test]
fn a_picture_alone_has_the_bits_that_it_has_in_a_batch() {
    const PICTURES: usize = 9;
    for preset in [
        ModelPreset::Digits,
        ModelPreset::CourseMnist,
        ModelPreset::CourseButterflies,
    ] {
        let model = model(preset);
        let side = preset.resolution();
        let x = Generator::new(3).randn_tensor([PICTURES, preset.channels(), side, side], &default_device());
        let times: Vec<f32> = (0..PICTURES).map(|i| (i * 111) as f32).collect();
        let predict = |range: std::ops::Range<usize>| -> Vec<u32> {
            let t = Tensor::<1>::from_floats(&times[range.clone()], &default_device());
            let y = model
                .denoise(x.clone().slice([range]), t, &Conditioning::default())
                .unwrap();
            let values: Vec<f32> = y.into_data().try_to_vec().unwrap();
            values.into_iter().map(f32::to_bits).collect()
        };
        let together = predict(0..PICTURES);
        let len = together.len() / PICTURES;
        for i in [0, 4, PICTURES - 1] {
            assert!(
                predict(i..i + 1) == together[i * len..(i + 1) * len],
                "{preset}: picture {i}"
            );
        }
    }
}
