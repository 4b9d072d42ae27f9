//! Steps of an autoencoder that learns against those of PyTorch and diffusers (`scripts/codec_fixture.py`): losses, the gradients' norm before
//! clipping, and the weights at the end.

mod support;

use std::{collections::BTreeSet, path::Path};

use burn::tensor::{Device, Tensor};
use langevin::{
    data::{Channels, Picture},
    grid,
    models::{AutoencoderKL, Model, weights},
    training::{
        LrSchedulerType, Silent, Trainer, TrainingConfig,
        gradients::Gradients,
        learner::Learner,
        lr_schedule::{LrSchedule, LrScheduleOptions},
        optimizer::AdamWConfig,
        trainee::codec,
    },
};
use serde_json::{Value, json};
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

/// CompVis' and Stability AI's autoencoders that were trained on top of Stable Diffusion's have its encoder, since its UNet knows no other latents; what
/// was trained whole drew pale pictures with models that had worked before (diffusers 3726).
#[test]
fn on_top_of_a_pipeline_the_way_back_is_learned_and_its_latents_stay() {
    let scene = tempfile::tempdir().unwrap();
    for i in 0..4usize {
        let pixels = (0..16 * 16 * 3)
            .map(|at| ((at * (7 + i) + i * 40) % 256) as u8)
            .collect();
        let picture = Picture::new(16, 16, Channels::Rgb, pixels).unwrap();
        grid::write_png(scene.path().join(format!("pictures/{i}.png")), &picture, &[]).unwrap();
    }
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/sd_training/base");
    let before = read_tensors(base.join("vae/diffusion_pytorch_model.safetensors"));
    let changed = |folder: &str, options: Value| -> BTreeSet<String> {
        let mut all = json!({
            "trainee": "codec", "pretrained": base, "train_data_dir": scene.path().join("pictures"), "resolution": 16,
            "output_dir": scene.path().join(folder), "train_batch_size": 2, "learning_rate": 1e-3, "lr_warmup_steps": 0,
            "max_train_steps": 2, "save_images_epochs": 0, "save_model_epochs": 0, "eval_batch_size": 2,
        });
        for (name, value) in options.as_object().unwrap() {
            all[name] = value.clone();
        }
        let config: TrainingConfig = serde_json::from_value(all).unwrap();
        let mut trainer = Trainer::new(config, &Device::flex()).unwrap();
        trainer.estimate().unwrap();
        trainer.run(&mut Silent).unwrap();
        let after = read_tensors(
            scene
                .path()
                .join(folder)
                .join("diffusion_pytorch_model.safetensors"),
        );
        assert_eq!(before.len(), after.len());
        before
            .iter()
            .filter(|(name, tensor)| tensor.f32() != after[*name].f32())
            .map(|(name, _)| name.split('.').next().unwrap().to_string())
            .collect()
    };
    let set = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    assert_eq!(
        changed("as-it-comes", json!({"use_ema": true})),
        set(&["decoder", "post_quant_conv"])
    );
    assert_eq!(
        changed("said", json!({"train_only": ["encoder.", "quant_conv"]})),
        set(&["encoder", "quant_conv", "post_quant_conv"])
    );
}
