//! Steps of an autoencoder that learns against those of PyTorch and diffusers (`scripts/codec_fixture.py`): losses, the gradients' norm before
//! clipping, and the weights at the end.

mod support;

use burn::tensor::{Device, Tensor};
use langevin::{
    models::{AutoencoderKL, Model, weights},
    training::{
        LrSchedulerType,
        gradients::Gradients,
        learner::Learner,
        lr_schedule::{LrSchedule, LrScheduleOptions},
        optimizer::AdamWConfig,
        trainee::codec,
    },
};
use support::{read_json, read_tensors, reference, relative_difference};

const TOLERANCE: f64 = 1e-3;

#[test]
fn an_autoencoder_learns_as_pytorch_lets_it() {
    let folder = reference().join("codec_training");
    if !folder.is_dir() {
        // Another set of references has none.
        return;
    }
    let case = read_json(folder.join("case.json"));
    let io = read_tensors(folder.join("io.safetensors"));
    let device = Device::flex();
    let network = AutoencoderKL::load(&folder, &device).unwrap();
    let options = LrScheduleOptions {
        num_warmup_steps: 0,
        num_training_steps: 100,
        num_cycles: None,
        power: 1.0,
        step_rules: None,
        gamma: 1.0,
        steps_per_epoch: 100,
        learning_rate: 1.0,
    };
    let constant = LrSchedule::new(LrSchedulerType::Constant, &options).unwrap();
    let adam = AdamWConfig {
        beta1: 0.95,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 1e-6,
    };
    let rate = case["learning_rate"].as_f64().unwrap();
    let weight = case["kl_weight"].as_f64().unwrap();
    let mut learner = Learner::new(network, adam, rate, constant, 1.0, None);
    let close = |what: &str, found: f64, expected: f64| {
        let off = (found - expected).abs() / expected.abs();
        assert!(off < TOLERANCE, "{what}: {found}, expected {expected}");
    };
    for (step, expected) in case["trace"].as_array().unwrap().iter().enumerate() {
        let tensor = |name: &str| -> Tensor<4> { io[&format!("{name}.{step}")].tensor(&device) };
        let losses = codec::losses(learner.model(), tensor("pictures"), tensor("noise"), weight).unwrap();
        let loss = losses.clone().mean();
        let mut backward = loss.backward();
        let gradients = Gradients::gather(learner.model(), &mut backward);
        let values = losses.into_data().convert::<f32>();
        for (found, expected) in values.iter::<f32>().zip(expected["losses"].as_array().unwrap()) {
            close(
                &format!("a loss of step {step}"),
                f64::from(found),
                expected.as_f64().unwrap(),
            );
        }
        let (moved, update) = learner.update(gradients);
        learner = moved;
        let norm = expected["norm"].as_f64().unwrap();
        close(&format!("the norm of step {step}"), update.grad_norm, norm);
    }
    for tensor in weights::named_tensors(&learner.plain()) {
        let expected = io[&format!("after.{}", tensor.name)].f32();
        let off = relative_difference(&tensor.values, &expected);
        assert!(off < TOLERANCE, "{}: {off}", tensor.name);
    }
}
