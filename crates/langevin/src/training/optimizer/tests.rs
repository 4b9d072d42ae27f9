use std::collections::BTreeMap;

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Device, Tensor, TensorData},
};
use serde_json::Value;

use super::*;
use crate::{device::default_device, training::gradients::Gradients};

/// A parameter of each kind of shape.
#[derive(Module, Debug)]
struct Parts {
    matrix: Param<Tensor<2>>,
    vector: Param<Tensor<1>>,
    zeros: Param<Tensor<2>>,
    conv: Param<Tensor<4>>,
    table: Param<Tensor<2>>,
}

fn numbers(value: &Value) -> Vec<f32> {
    serde_json::from_value(value.clone()).unwrap()
}

impl Parts {
    fn of(case: &Value, device: &Device) -> Self {
        fn part<const D: usize>(case: &Value, name: &str, device: &Device) -> Param<Tensor<D>> {
            let shape: Vec<usize> = serde_json::from_value(case["shapes"][name].clone()).unwrap();
            let data = TensorData::new(numbers(&case["begun"][name]), shape);
            Param::from_tensor(Tensor::from_data(data, device))
        }
        Self {
            matrix: part(case, "matrix", device),
            vector: part(case, "vector", device),
            zeros: part(case, "zeros", device),
            conv: part(case, "conv", device),
            table: part(case, "table", device),
        }
    }

    fn gradients(&self, step: &Value, device: &Device) -> Gradients {
        let stored = step["gradients"].as_object().unwrap().iter();
        let stored = stored.map(|(name, values)| {
            let values = numbers(values);
            let tensor = Tensor::from_data(TensorData::new(values.clone(), [values.len()]), device);
            (name.clone(), NamedTensor::flat(name.clone(), tensor))
        });
        Gradients::restored(self, stored.collect(), device)
    }

    /// How far it is from what a step left, of the largest value.
    fn difference(&self, after: &Value) -> f32 {
        struct Walk(Vec<f32>);
        impl ModuleVisitor for Walk {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                self.0
                    .extend(param.val().into_data().convert::<f32>().iter::<f32>());
            }
        }
        let mut walk = Walk(Vec::new());
        self.visit(&mut walk);
        let expected = ["matrix", "vector", "zeros", "conv", "table"].map(|name| numbers(&after[name]));
        let expected = expected.concat();
        assert_eq!(walk.0.len(), expected.len());
        let largest = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        let apart = walk.0.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        apart.fold(0.0, f32::max) / largest
    }
}

fn config(case: &Value) -> OptimizerConfig {
    let number = |name: &str| case["config"][name].as_f64();
    let flag = |name: &str, usual: bool| case["config"][name].as_bool().unwrap_or(usual);
    match case["kind"].as_str().unwrap() {
        "prodigy" => {
            let usual = ProdigyConfig::default();
            OptimizerConfig::Prodigy(ProdigyConfig {
                beta1: case["config"]["betas"][0].as_f64().unwrap_or(usual.beta1),
                beta2: case["config"]["betas"][1].as_f64().unwrap_or(usual.beta2),
                beta3: number("beta3"),
                eps: number("eps").unwrap_or(usual.eps),
                weight_decay: number("weight_decay").unwrap_or(usual.weight_decay),
                decouple: flag("decouple", usual.decouple),
                use_bias_correction: flag("use_bias_correction", usual.use_bias_correction),
                safeguard_warmup: flag("safeguard_warmup", usual.safeguard_warmup),
                d_coef: number("d_coef").unwrap_or(usual.d_coef),
            })
        }
        _ => {
            let usual = AdafactorConfig::default();
            OptimizerConfig::Adafactor(AdafactorConfig {
                beta2_decay: number("beta2_decay").unwrap_or(usual.beta2_decay),
                eps1: case["config"]["eps"][0].as_f64(),
                eps2: case["config"]["eps"][1].as_f64().unwrap_or(usual.eps2),
                d: number("d").unwrap_or(usual.d),
                weight_decay: number("weight_decay").unwrap_or(usual.weight_decay),
            })
        }
    }
}

/// The file was written by `prodigyopt.Prodigy` and `torch.optim.Adafactor`. A copy of each optimiser is stored and taken up after every step.
#[test]
fn steps_are_those_of_the_packages_and_go_on_to_the_bit() {
    let cases: Value = serde_json::from_str(include_str!("../../../tests/optimizers.json")).unwrap();
    let device = default_device();
    let mut steps = 0;
    for case in cases.as_array().unwrap() {
        let mut parts = Parts::of(case, &device);
        let mut optimizer = Optimizer::new(config(case));
        for (i, step) in case["steps"].as_array().unwrap().iter().enumerate() {
            let said = format!("step {i} of {} {}", case["kind"], case["config"]);
            let learning_rate = step["lr"].as_f64().unwrap();
            let stored: BTreeMap<String, NamedTensor> = optimizer
                .moments(&parts)
                .into_iter()
                .map(|tensor| (tensor.name.clone(), tensor))
                .collect();
            let mut again = Optimizer::new(config(case));
            again.resume(&parts, i as u64, stored, &device);
            let copy = again.step(parts.clone(), parts.gradients(step, &device), 1.0, learning_rate);
            // What counts half, twice as large.
            let gradients = parts.gradients(step, &device).scale(2.0);
            parts = optimizer.step(parts, gradients, 0.5, learning_rate);
            if let Some(d) = step["d"].as_f64() {
                let found = optimizer.own_rate();
                assert!((found - d).abs() <= 1e-5 * d, "{said}: {found}, and not {d}");
            }
            if step.get("after").is_some() {
                let difference = parts.difference(&step["after"]);
                assert!(difference < 2e-6, "{said}: {difference}");
                steps += 1;
            }
            let bits = |parts: &Parts| {
                weights::named_tensors(parts)
                    .into_iter()
                    .map(|tensor| tensor.values)
                    .collect::<Vec<_>>()
            };
            assert!(bits(&copy) == bits(&parts), "{said} goes on otherwise");
        }
    }
    assert!(steps >= 15, "{steps}");
}

/// What each keeps for a parameter.
#[test]
fn what_is_kept() {
    let device = default_device();
    let cases: Value = serde_json::from_str(include_str!("../../../tests/optimizers.json")).unwrap();
    let case = &cases[0];
    let kept = |kind: OptimizerConfig| {
        let parts = Parts::of(case, &device);
        let mut optimizer = Optimizer::new(kind);
        let parts = optimizer.step(
            parts.clone(),
            parts.gradients(&case["steps"][0], &device),
            1.0,
            1e-3,
        );
        let moments = optimizer.moments(&parts);
        moments.iter().map(|tensor| tensor.values.len()).sum::<usize>()
    };
    let elements = 15 + 4 + 6 + 36 + 6;
    assert_eq!(kept(AdamWConfig::default().into()), 2 * elements);
    // The one that begins at zero is not kept, and there are twelve numbers more.
    assert_eq!(
        kept(OptimizerConfig::Prodigy(ProdigyConfig::default())),
        4 * elements - 6 + 12
    );
    // Rows and columns, and all of the vector.
    let adafactor = OptimizerConfig::Adafactor(AdafactorConfig::default());
    assert_eq!(kept(adafactor), (5 + 3) + 4 + (3 + 2) + 6 * (3 + 2) + (1 + 6));
}
