//! The losses of tables: values from PyTorch 2.15 and diffusers 0.42.1, for x0 = linspace(-3, 3, 96) as `[2, 3, 4, 4]`, the same
//! with its two pictures exchanged as noise, cos(x0) as prediction, and timesteps 3 and 700 of the default DDPM schedule. The
//! others: what is known in closed form of Gaussian data.

use burn::tensor::Device;

use super::*;
use crate::schedulers::{
    DDPMConfig, DDPMScheduler, EDMEulerConfig, EDMEulerScheduler, FlowMatchEulerDiscreteConfig,
    FlowMatchEulerDiscreteScheduler, Scheduler, StepOptions,
};

const TIMES: [f64; 2] = [3.0, 700.0];
const KINDS: [PredictionType; 3] = [
    PredictionType::Epsilon,
    PredictionType::Sample,
    PredictionType::VPrediction,
];

fn ddpm(kind: PredictionType) -> DdpmObjective {
    let scheduler = DDPMScheduler::new(DDPMConfig::default()).unwrap();
    DdpmObjective::new(&scheduler, kind, Weighting::default()).unwrap()
}

fn setting() -> (Tensor<4>, Tensor<4>, Tensor<4>) {
    let ramp: Vec<f32> = (0..96).map(|i| -3.0 + 6.0 * i as f32 / 95.0).collect();
    let x0 = Tensor::from_data(TensorData::new(ramp, [2, 3, 4, 4]), &Device::default());
    (x0.clone(), x0.clone().flip([0]), x0.cos())
}

fn close(found: f32, expected: f32) {
    assert!(
        (found - expected).abs() <= 1e-5 * expected.abs().max(1.0),
        "{found} is not {expected}"
    );
}

fn number(tensor: Tensor<1>) -> f32 {
    tensor.into_scalar::<f32>()
}

#[test]
fn losses_are_those_of_diffusers_training_script() {
    let (x0, noise, prediction) = setting();
    for (kind, expected) in KINDS.into_iter().zip([3.545_147_2, 2_356.852_8, 2.570_201_9]) {
        let pair = ddpm(kind)
            .training_pair(x0.clone(), noise.clone().into(), &TIMES)
            .unwrap();
        close(number(pair.losses(prediction.clone()).unwrap().mean()), expected);
        assert_eq!(pair.timesteps, [3.0, 700.0]);
    }
}

#[test]
fn the_error_of_a_predicted_sample_is_weighted_by_the_signal_to_noise_ratio() {
    let (x0, noise, _) = setting();
    let pair = ddpm(PredictionType::Sample)
        .training_pair(x0, noise.into(), &TIMES)
        .unwrap();
    let weight = pair.weight.unwrap().into_data().try_into_vec::<f32>().unwrap();
    close(weight[0], 1_924.317_4);
    assert!((weight[1] / 0.006_915_778_4 - 1.0).abs() < 1e-5);
}

#[test]
fn predictions_lead_back_to_the_clean_picture() {
    let (x0, noise, prediction) = setting();
    for (kind, expected) in KINDS.into_iter().zip([
        [-2.976_711_8, -2.336_988_4, -48.061_802],
        [-0.989_992_5, -0.715_699_2, 0.999_501_4],
        [-2.975_16, -2.335_770_4, -1.243_616_1],
    ]) {
        let objective = ddpm(kind);
        let x_t = objective
            .training_pair(x0.clone(), noise.clone().into(), &TIMES)
            .unwrap()
            .input;
        let clean = objective
            .predicted_clean(prediction.clone(), x_t, &TIMES)
            .unwrap();
        let clean = clean.into_data().try_into_vec::<f32>().unwrap();
        for (place, expected) in [0, 10, 48].into_iter().zip(expected) {
            close(clean[place], expected);
        }
    }
}

/// Of `compute_dream_and_update_latents`, with cos(x0) for what the model makes of the noisy pictures.
#[test]
fn what_is_rectified_is_that_of_diffusers() {
    let (x0, noise, prediction) = setting();
    for (power, input, target) in [
        (
            1.0,
            [-2.997_970_6, -2.351_976_2, -6.959_094],
            [0.054_860_9, 0.694_582_4, -6.985_743],
        ),
        (
            2.5,
            [-2.998_499_2, -2.352_69, -6.938_616],
            [0.031_659_1, 0.663_266_1, -6.965_194],
        ),
    ] {
        let objective = ddpm(PredictionType::Epsilon).with_dream(power).unwrap();
        assert!(objective.rectifies());
        let pair = objective
            .training_pair(x0.clone(), noise.clone().into(), &TIMES)
            .unwrap();
        let pair = objective.rectified(pair, prediction.clone(), &TIMES).unwrap();
        for (found, expected) in [(pair.input, input), (pair.target, target)] {
            let found = found.into_data().try_into_vec::<f32>().unwrap();
            for (place, expected) in [0, 10, 48].into_iter().zip(expected) {
                close(found[place], expected);
            }
        }
    }
    let wrong = ddpm(PredictionType::VPrediction).with_dream(1.0).unwrap_err();
    assert!(wrong.to_string().contains("predict noise"), "{wrong}");
    assert!(ddpm(PredictionType::Epsilon).with_dream(f64::NAN).is_err());
}

/// Of `generate_timestep_weights` and `torch.multinomial`, seed 5.
#[test]
fn biased_timesteps_are_those_of_diffusers() {
    let later = TimestepBias {
        strategy: TimestepBiasStrategy::Later,
        multiplier: 3.0,
        ..TimestepBias::default()
    };
    let range = TimestepBias {
        strategy: TimestepBiasStrategy::Range,
        multiplier: 0.25,
        begin: 100,
        end: 400,
        ..TimestepBias::default()
    };
    let drawn = |bias: &TimestepBias| {
        let objective = ddpm(PredictionType::Epsilon).with_bias(bias).unwrap();
        objective.draw_times(12, &mut Generator::new(5))
    };
    let expected = [821, 389, 541, 472, 399, 925, 789, 860, 923, 679, 537, 488];
    assert_eq!(drawn(&later), expected.map(f64::from));
    let expected = [722, 426, 504, 469, 431, 884, 673, 783, 881, 576, 502, 477];
    assert_eq!(drawn(&range), expected.map(f64::from));
    let refused = |bias: TimestepBias| {
        let refused = ddpm(PredictionType::Epsilon).with_bias(&bias);
        refused.unwrap_err().to_string()
    };
    let of = |end, multiplier, portion| TimestepBias {
        strategy: TimestepBiasStrategy::Range,
        begin: 100,
        end,
        multiplier,
        portion,
    };
    assert!(refused(of(1001, 1.0, 0.5)).contains("timestep_bias_end"));
    assert!(refused(of(100, 1.0, 0.5)).contains("timestep_bias_end"));
    assert!(refused(of(200, 0.0, 0.5)).contains("timestep_bias_multiplier"));
    assert!(refused(of(200, 1.0, f64::NAN)).contains("timestep_bias_portion"));
}

fn every_objective() -> Vec<(Box<dyn Objective>, [f64; 2])> {
    let mut all: Vec<(Box<dyn Objective>, [f64; 2])> = vec![
        (Box::new(EdmObjective::default()), [0.03, 7.0]),
        (Box::new(FlowObjective::default()), [0.1, 0.9]),
    ];
    for kind in KINDS {
        all.push((Box::new(ddpm(kind)), TIMES));
    }
    all
}

#[test]
fn the_right_answer_leads_back_to_where_the_input_came_from() {
    let (x0, noise, _) = setting();
    for (objective, times) in every_objective() {
        let pair = objective
            .training_pair(x0.clone(), noise.clone().into(), &times)
            .unwrap();
        close(number(pair.losses(pair.target.clone()).unwrap().mean()), 0.0);
        let clean = objective
            .predicted_clean(pair.target, pair.input, &times)
            .unwrap();
        close(number((clean - x0.clone()).abs().max()), 0.0);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let (x0, noise, prediction) = setting();
    for (objective, times) in every_objective() {
        let refused = |noise: &Tensor<4>, times: &[f64]| {
            let pair = objective.training_pair(x0.clone(), noise.clone().into(), times);
            pair.unwrap_err().to_string()
        };
        assert!(refused(&noise, &times[..1]).contains("1 times were given for 2 pictures"));
        assert!(refused(&noise.clone().narrow(0, 0, 1), &times).contains("[1, 3, 4, 4]"));
        let pair = objective
            .training_pair(x0.clone(), noise.clone().into(), &times)
            .unwrap();
        let narrow = prediction.clone().narrow(1, 0, 1);
        assert!(
            pair.losses(narrow)
                .unwrap_err()
                .to_string()
                .contains("[2, 1, 4, 4]")
        );
    }
    for times in [[3.0, 1000.0], [0.5, 3.0], [-1.0, 3.0]] {
        let pair = ddpm(PredictionType::Epsilon).training_pair(x0.clone(), noise.clone().into(), &times);
        assert!(pair.unwrap_err().to_string().contains("is beyond"));
    }
}

#[test]
fn a_table_that_ends_without_signal_is_not_for_noise() {
    let rescaled = DDPMScheduler::new(DDPMConfig {
        rescale_betas_zero_snr: true,
        ..DDPMConfig::default()
    })
    .unwrap();
    let of = |kind, rule| {
        let gamma = None;
        DdpmObjective::new(&rescaled, kind, Weighting { rule, gamma })
    };
    let refused = of(PredictionType::Epsilon, LossWeighting::Script).unwrap_err();
    assert!(
        refused.to_string().contains("v_prediction or sample"),
        "{refused}"
    );
    use crate::named::Named;
    for &rule in LossWeighting::ALL {
        let objective = of(PredictionType::VPrediction, rule).unwrap();
        let last = objective.weight(999).unwrap().unwrap_or(1.0);
        // Without signal the velocity is minus the picture: only a weight by the ratio leaves nothing of it.
        assert!((0.0..=1.0).contains(&last), "{rule}: {last}");
        of(PredictionType::Sample, rule).unwrap();
    }
}

#[test]
fn a_weighting_means_the_same_whatever_is_predicted() {
    use crate::named::Named;
    for &rule in LossWeighting::ALL {
        if matches!(rule, LossWeighting::Script | LossWeighting::Uniform) {
            continue;
        }
        let weighting = Weighting {
            rule,
            gamma: Some(3.0),
        };
        for snr in [1e-4, 0.3, 1.0, 7.0, 1e4] {
            let [noise, clean, velocity] = KINDS.map(|kind| weighting.weight(kind, snr).unwrap().unwrap());
            assert!((noise * snr / clean - 1.0).abs() < 1e-12);
            assert!((velocity * (snr + 1.0) / clean - 1.0).abs() < 1e-12);
        }
    }
    // SNR weighting is the plain error of the noise; of P2, 1 / (1 + SNR) of it.
    let at = |rule, snr| {
        let weighting = Weighting { rule, gamma: None };
        weighting.weight(PredictionType::Epsilon, snr).unwrap().unwrap()
    };
    assert!((at(LossWeighting::Snr, 0.3) - 1.0).abs() < 1e-12);
    assert!((at(LossWeighting::P2, 3.0) - 0.25).abs() < 1e-12);
    assert!((at(LossWeighting::SoftMinSnr, 4.0) - 0.5).abs() < 1e-12);
}

/// Gaussian pictures of deviation `s`, noise, and one time for all.
fn gaussian(s: f64, seed: u64) -> (Tensor<4>, Tensor<4>) {
    let mut generator = Generator::new(seed);
    let shape = [1, 1, 400, 500];
    let x0 = generator.randn_tensor(shape, &Device::default()) * s;
    (x0, generator.randn_tensor(shape, &Device::default()))
}

/// Of Gaussian data the best answer is a number times the input; which one is the least-squares fit.
fn fit(pair: &TrainingPair) -> f64 {
    let product = (pair.input.clone() * pair.target.clone()).sum();
    let square = pair.input.clone().square().sum();
    f64::from(number(product) / number(square))
}

#[test]
fn the_best_answers_for_gaussian_data_are_the_closed_forms() {
    let s = 0.7_f64;
    let (x0, noise) = gaussian(s, 3);
    let pair = |objective: &dyn Objective, time: f64| {
        objective
            .training_pair(x0.clone(), noise.clone().into(), &[time])
            .unwrap()
    };
    for t in [50, 400, 900] {
        let objective = ddpm(PredictionType::Epsilon);
        let (snr, total) = (objective.snr(t), |snr: f64| {
            snr / (1.0 + snr) * s * s + 1.0 / (1.0 + snr)
        });
        let (signal, share) = ((snr / (1.0 + snr)).sqrt(), (1.0 / (1.0 + snr)).sqrt());
        let expected = [share, signal * s * s, signal * share * (1.0 - s * s)];
        for (kind, expected) in KINDS.into_iter().zip(expected) {
            let found = fit(&pair(&ddpm(kind), t as f64));
            assert!(
                (found - expected / total(snr)).abs() < 0.01,
                "{kind} at {t}: {found}"
            );
        }
    }
    for sigma in [0.1, 0.5, 0.95] {
        let clean = 1.0 - sigma;
        let expected = (sigma - clean * s * s) / (clean * clean * s * s + sigma * sigma);
        let found = fit(&pair(&FlowObjective::default(), sigma));
        assert!((found - expected).abs() < 0.01, "{sigma}: {found} and {expected}");
    }
    // With σ_data the data's own deviation, EDM's skip connection is the whole answer, and what is left has variance 1.
    let edm = EdmObjective {
        sigma_data: s,
        ..EdmObjective::default()
    };
    for sigma in [0.01, 0.4, 20.0] {
        let pair = pair(&edm, sigma);
        assert!(fit(&pair).abs() < 0.01, "{sigma}");
        for tensor in [&pair.input, &pair.target] {
            let variance = number(tensor.clone().square().mean());
            assert!((variance - 1.0).abs() < 0.02, "{sigma}: {variance}");
        }
        assert!((f64::from(pair.timesteps[0]) - sigma.ln() / 4.0).abs() < 1e-6);
    }
}

/// Draws with the answer `a(t) x` at every step; gives the samples' deviation.
fn drawn(mut scheduler: impl Scheduler, answer: impl Fn(f64) -> f64) -> f64 {
    // With fifty steps Euler's error alone would make the deviation a twentieth too small.
    scheduler.set_timesteps(400).unwrap();
    let (_, noise) = gaussian(1.0, 5);
    let mut x = noise * scheduler.init_noise_sigma();
    for t in scheduler.timesteps().to_vec() {
        let input = scheduler.scale_model_input(x.clone(), t).unwrap();
        x = scheduler
            .step(input * answer(t), t, x, &mut StepOptions::default())
            .unwrap()
            .previous;
    }
    f64::from(number(x.square().mean())).sqrt()
}

#[test]
fn what_is_learned_is_what_the_samplers_ask_for() {
    let s = 0.7_f64;
    let edm = EDMEulerScheduler::new(EDMEulerConfig {
        sigma_data: s,
        ..EDMEulerConfig::default()
    });
    let found = drawn(edm.unwrap(), |_| 0.0);
    assert!((found - s).abs() < 0.03, "{found}");
    let flow = FlowMatchEulerDiscreteScheduler::new(FlowMatchEulerDiscreteConfig::default());
    let found = drawn(flow.unwrap(), |t| {
        let (sigma, clean) = (t / 1000.0, 1.0 - t / 1000.0);
        (sigma - clean * s * s) / (clean * clean * s * s + sigma * sigma)
    });
    assert!((found - s).abs() < 0.03, "{found}");
}

#[test]
fn preconditioning_is_the_schedulers() {
    let (x0, noise, prediction) = setting();
    let mut scheduler = EDMEulerScheduler::new(EDMEulerConfig::default()).unwrap();
    scheduler.set_timesteps(4).unwrap();
    let (t, sigma) = (scheduler.timesteps()[2], f64::from(scheduler.sigmas()[2]));
    scheduler.set_begin_index(2);
    let x = x0.clone() + noise.clone() * sigma;
    let input = scheduler.scale_model_input(x.clone(), t).unwrap();
    let step = scheduler
        .step(prediction.clone(), t, x, &mut StepOptions::default())
        .unwrap();
    let objective = EdmObjective::default();
    let pair = objective.training_pair(x0, noise.into(), &[sigma; 2]).unwrap();
    close(number((pair.input.clone() - input).abs().max()), 0.0);
    close(pair.timesteps[0], t as f32);
    let clean = objective
        .predicted_clean(prediction, pair.input, &[sigma; 2])
        .unwrap();
    close(number((clean - step.predicted_clean).abs().max()), 0.0);
}

#[test]
fn times_are_drawn_as_they_should_be() {
    let mut generator = Generator::new(0);
    let mut moments = |objective: &dyn Objective, f: fn(f64) -> f64| {
        let times: Vec<f64> = objective
            .draw_times(40_000, &mut generator)
            .into_iter()
            .map(f)
            .collect();
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        let variance = times.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / times.len() as f64;
        (mean, variance.sqrt())
    };
    let near = |(mean, deviation): (f64, f64), expected: (f64, f64)| {
        assert!(
            (mean - expected.0).abs() < 0.03 && (deviation - expected.1).abs() < 0.03,
            "{mean} {deviation}"
        );
    };
    near(moments(&EdmObjective::default(), f64::ln), (-1.2, 1.2));
    near(
        moments(&FlowObjective::default(), |t| (t / (1.0 - t)).ln()),
        (0.0, 1.0),
    );
    near(
        moments(&ddpm(PredictionType::Epsilon), |t| t / 999.0),
        (0.5, 1.0 / 12_f64.sqrt()),
    );
}

#[test]
fn noise_is_offset_and_perturbed_as_asked() {
    let draw = |offset, input_perturbation| {
        let options = NoiseOptions {
            offset,
            input_perturbation,
        };
        options.draw([2, 3, 64, 64], &Device::default(), &mut Generator::new(1))
    };
    let deviation = |x: &Tensor<4>| f64::from(number(x.clone().square().mean())).sqrt();
    let plain = draw(0.0, 0.0);
    assert_eq!(
        number((plain.epsilon.clone() - plain.mixed.clone()).abs().max()),
        0.0
    );
    // The same number all over each channel: the mean moves, and the deviation around it does not.
    let offset = draw(0.5, 0.0);
    let moved = offset.epsilon.clone() - plain.epsilon.clone();
    let means = moved.clone().mean_dim(2).mean_dim(3);
    close(number((moved.clone() - means).abs().max()), 0.0);
    assert!(deviation(&moved) > 0.1);
    let perturbed = draw(0.0, 0.1);
    assert_eq!(
        number((perturbed.epsilon.clone() - plain.epsilon).abs().max()),
        0.0
    );
    assert!((deviation(&(perturbed.mixed - perturbed.epsilon)) - 0.1).abs() < 0.005);
}
