//! New models start from the weights that PyTorch and diffusers draw for the same seed.

use std::{collections::BTreeMap, path::Path};

use burn::tensor::Device;
use langevin::{
    models::{Model, ModelConfig, UNet2DConfig, UNet2DModel, weights},
    random::Generator,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    seed: u64,
    /// By configuration and parameter: the first value, the last, and the sum of the absolute values.
    cases: BTreeMap<String, BTreeMap<String, [f64; 3]>>,
}

#[test]
fn a_seed_gives_diffusers_weights() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let expected: Expected =
        serde_json::from_str(&std::fs::read_to_string(root.join("initialisation/values.json")).unwrap())
            .unwrap();
    assert!(!expected.cases.is_empty());
    for (case, parameters) in expected.cases {
        let config = UNet2DConfig::load(root.join("reference/unet2d").join(&case)).unwrap();
        let mut generator = Generator::new(expected.seed);
        let model = UNet2DModel::new(&config, &Device::flex(), &mut generator).unwrap();
        let tensors = weights::named_tensors(&model);
        assert_eq!(tensors.len(), parameters.len(), "{case}");
        for tensor in tensors {
            let values = &tensor.values;
            let sum: f64 = values.iter().map(|x| f64::from(x.abs())).sum();
            let found = [f64::from(values[0]), f64::from(values[values.len() - 1]), sum];
            for (found, expected) in found.into_iter().zip(parameters[&tensor.name]) {
                let tolerance = 1e-5 * expected.abs().max(1e-2);
                assert!(
                    (found - expected).abs() <= tolerance,
                    "{case} {}: {found} {expected}",
                    tensor.name
                );
            }
        }
    }
}
