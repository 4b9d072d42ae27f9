//! Training on the device that `LANGEVIN_DEVICE` names, beside the CPU.

mod support;

use std::sync::Arc;

use burn::{
    module::Module,
    tensor::{Device, Tensor, TensorData},
};
use langevin::{
    data::{self, Channels, Loader, LoaderConfig, Transform},
    device::default_device,
    models::{Conditioning, ModelPreset},
    objectives::{DdpmObjective, NoiseOptions, PredictionType, Weighting},
    random::Generator,
    schedulers::{DDPMConfig, DDPMScheduler},
    training::{
        optimizer::{AdamWConfig, AdamWOptimizer},
        step::{self, Draw},
    },
};

/// The losses of the first ten steps on the built-in digits.
fn ten_steps(device: &Device) -> Vec<f64> {
    let digits = Arc::from(data::open("digits").unwrap());
    let transform = Transform {
        channels: Channels::Grey,
        ..Transform::new(8)
    };
    let loader = Loader::new(digits, transform, LoaderConfig::default()).unwrap();
    let mut generator = Generator::new(0);
    let config = ModelPreset::CourseMnist.config().made_for(8, 1, None).unwrap();
    let mut model = config.build(device, &mut generator).unwrap().train();
    let scheduler = DDPMScheduler::new(DDPMConfig::default()).unwrap();
    let mut optimizer = AdamWOptimizer::new(AdamWConfig::default());
    let objective = DdpmObjective::new(&scheduler, PredictionType::Epsilon, Weighting::default()).unwrap();
    let mut losses = Vec::new();
    for batch in loader.epoch(0).take(10) {
        let batch = batch.unwrap();
        let pixels = TensorData::new(batch.pixels, batch.shape);
        let clean = Tensor::from_data(pixels, &device.clone().autodiff());
        let batch = step::Batch::new(clean, Conditioning::default());
        let draw = Draw::new(&batch.clean, &objective, NoiseOptions::default(), &mut generator);
        let lesson = step::gradients(&model, &objective, &batch, &draw).unwrap();
        model = optimizer.step(model, lesson.gradients, 1.0, 1e-3);
        losses.push(lesson.loss);
    }
    losses
}

#[test]
fn ten_steps_go_as_on_the_cpu() {
    let expected = ten_steps(&default_device());
    let losses = ten_steps(&support::device());
    println!("{losses:?}");
    assert_eq!(losses.len(), 10);
    assert!(losses[9] < losses[0], "{losses:?}");
    for (loss, expected) in losses.iter().zip(&expected) {
        assert!(
            (loss - expected).abs() <= 1e-3 * expected,
            "{losses:?} where the CPU has {expected:?}"
        );
    }
}
