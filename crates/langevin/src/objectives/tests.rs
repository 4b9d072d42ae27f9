//! Values from PyTorch 2.15 and diffusers 0.42.1, for x0 = linspace(-3, 3, 96) as `[2, 3, 4, 4]`, the same with its two
//! pictures exchanged as noise, cos(x0) as prediction, and timesteps 3 and 700 of the default DDPM schedule.

use burn::tensor::{Device, TensorData};

use super::*;
use crate::schedulers::{DDPMConfig, DDPMScheduler};

const TIMESTEPS: [usize; 2] = [3, 700];

fn setting() -> (DDPMScheduler, Tensor<4>, Tensor<4>, Tensor<4>) {
    let ramp: Vec<f32> = (0..96).map(|i| -3.0 + 6.0 * i as f32 / 95.0).collect();
    let x0 = Tensor::from_data(TensorData::new(ramp, [2, 3, 4, 4]), &Device::default());
    let noise = x0.clone().flip([0]);
    let prediction = x0.clone().cos();
    (
        DDPMScheduler::new(DDPMConfig::default()).unwrap(),
        x0,
        noise,
        prediction,
    )
}

fn close(found: f32, expected: f32) {
    assert!(
        (found - expected).abs() <= 1e-5 * expected.abs().max(1.0),
        "{found} is not {expected}"
    );
}

#[test]
fn losses_are_those_of_diffusers_training_script() {
    let (scheduler, x0, noise, prediction) = setting();
    for (kind, expected) in [
        (PredictionType::Epsilon, 3.545_147_2),
        (PredictionType::Sample, 2_356.852_8),
        (PredictionType::VPrediction, 2.570_201_9),
    ] {
        let pair = kind
            .training_pair(&scheduler, x0.clone(), noise.clone(), &TIMESTEPS)
            .unwrap();
        close(
            pair.losses(prediction.clone())
                .unwrap()
                .mean()
                .into_scalar::<f32>(),
            expected,
        );
    }
}

#[test]
fn the_error_of_a_predicted_sample_is_weighted_by_the_signal_to_noise_ratio() {
    let (scheduler, x0, noise, _) = setting();
    let pair = PredictionType::Sample
        .training_pair(&scheduler, x0, noise, &TIMESTEPS)
        .unwrap();
    let weight = pair.weight.unwrap().into_data().try_into_vec::<f32>().unwrap();
    close(weight[0], 1_924.317_4);
    assert!((weight[1] / 0.006_915_778_4 - 1.0).abs() < 1e-5);
}

#[test]
fn predictions_lead_back_to_the_clean_picture() {
    let (scheduler, x0, noise, prediction) = setting();
    let x_t = scheduler.add_noise(x0, noise, &TIMESTEPS).unwrap();
    for (kind, expected) in [
        (PredictionType::Epsilon, [-2.976_711_8, -2.336_988_4, -48.061_802]),
        (PredictionType::Sample, [-0.989_992_5, -0.715_699_2, 0.999_501_4]),
        (
            PredictionType::VPrediction,
            [-2.975_16, -2.335_770_4, -1.243_616_1],
        ),
    ] {
        let clean = kind
            .predicted_clean(&scheduler, prediction.clone(), x_t.clone(), &TIMESTEPS)
            .unwrap();
        let clean = clean.into_data().try_into_vec::<f32>().unwrap();
        for (place, expected) in [0, 10, 48].into_iter().zip(expected) {
            close(clean[place], expected);
        }
    }
}

#[test]
fn the_right_answer_leads_back_to_where_the_input_came_from() {
    let (scheduler, x0, noise, _) = setting();
    for kind in [
        PredictionType::Epsilon,
        PredictionType::Sample,
        PredictionType::VPrediction,
    ] {
        let pair = kind
            .training_pair(&scheduler, x0.clone(), noise.clone(), &TIMESTEPS)
            .unwrap();
        close(
            pair.losses(pair.target.clone())
                .unwrap()
                .mean()
                .into_scalar::<f32>(),
            0.0,
        );
        let clean = kind
            .predicted_clean(&scheduler, pair.target, pair.input, &TIMESTEPS)
            .unwrap();
        close((clean - x0.clone()).abs().max().into_scalar::<f32>(), 0.0);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let (scheduler, x0, noise, prediction) = setting();
    let kind = PredictionType::Epsilon;
    let refused = |timesteps: &[usize]| {
        kind.training_pair(&scheduler, x0.clone(), noise.clone(), timesteps)
            .unwrap_err()
            .to_string()
    };
    assert!(refused(&[3]).contains("1 timesteps were given for 2 pictures"));
    assert!(refused(&[3, 1000]).contains("timestep 1000 is beyond"));
    let pair = kind.training_pair(&scheduler, x0, noise, &TIMESTEPS).unwrap();
    let narrow = prediction.narrow(1, 0, 1);
    assert!(
        pair.losses(narrow)
            .unwrap_err()
            .to_string()
            .contains("[2, 1, 4, 4]")
    );
}
