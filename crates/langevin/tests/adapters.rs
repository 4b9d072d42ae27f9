//! Adapters on layers: what they come to, how strongly each row of a batch has them, and what a backward leaves out because of them.

mod support;

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Tensor, TensorData},
};
use langevin::{
    models::{Conditioning, Denoiser, Model, UNet2DConditionModel, weights},
    nn::{AdaptedLayer, Adapter, AdapterInit, Strength, Strengths, adapting},
    objectives::{DdpmObjective, NoiseOptions, PredictionType, Weighting},
    random::Generator,
    schedulers::{DDPMConfig, DDPMScheduler},
    training::step::{self, Batch, Draw, Saving},
};
use support::{device, reference, relative_difference, values};

fn model() -> UNet2DConditionModel {
    UNet2DConditionModel::load(reference().join("sd_training/base/unet"), &device()).unwrap()
}

/// An adapter with numbers in both factors, so that it changes something.
fn drawn(layer: &AdaptedLayer, rank: usize, seed: u64) -> Adapter {
    let mut generator = Generator::new(seed + layer.name.len() as u64);
    let [height, width] = layer.kernel.unwrap_or([1, 1]);
    let small = |values: Vec<f32>| values.into_iter().map(|value| value * 0.3).collect::<Vec<_>>();
    let down = small(generator.randn(rank * layer.inputs * height * width));
    let up = small(generator.randn(rank * layer.outputs));
    Adapter::of(layer, down, up, &device())
}

/// On linear layers, on 1x1 and on 3x3 convolutions, of stride 1 and 2.
fn is_chosen(layer: &AdaptedLayer) -> bool {
    [
        "to_q",
        "to_out.0",
        "ff.net.2",
        "proj_in",
        "conv1",
        "conv",
        "conv_in",
        "time_emb_proj",
        "linear_1",
    ]
    .iter()
    .any(|name| layer.name == *name || layer.name.ends_with(&format!(".{name}")))
}

fn adapted(seed: u64, slot: usize, model: UNet2DConditionModel) -> UNet2DConditionModel {
    weights::adapt(model, |layer| {
        is_chosen(layer).then(|| drawn(layer, 3, seed).with_alpha(6.0).in_slot(slot))
    })
}

struct Asked {
    x: Tensor<4>,
    timesteps: Tensor<1>,
    conditioning: Conditioning,
}

fn asked(rows: usize) -> Asked {
    let (mut generator, device) = (Generator::new(1), device());
    let sequence = generator
        .randn_tensor([rows, 1, 5, 16], &device)
        .reshape([rows, 5, 16]);
    Asked {
        x: generator.randn_tensor([rows, 4, 8, 8], &device),
        timesteps: Tensor::from_data(TensorData::new(vec![301.0f32; rows], [rows]), &device),
        conditioning: Conditioning {
            sequence: Some(sequence),
            ..Conditioning::default()
        },
    }
}

impl Asked {
    fn of(&self, model: &UNet2DConditionModel) -> Vec<f32> {
        let answer = model.denoise(self.x.clone(), self.timesteps.clone(), &self.conditioning);
        values(answer.unwrap())
    }

    fn row(&self, row: usize) -> Self {
        Self {
            x: self.x.clone().narrow(0, row, 1),
            timesteps: self.timesteps.clone().narrow(0, row, 1),
            conditioning: self.conditioning.rows(&[row]),
        }
    }
}

fn with<const N: usize>(strengths: [Strength; N]) -> Strengths {
    Strengths(strengths.to_vec())
}

/// The model whose weights have the adapters' changes in them: W + alpha / rank · up · down, in float64.
fn merged(model: &UNet2DConditionModel, strength: f64) -> UNet2DConditionModel {
    let changes = weights::adapters(model);
    let plain = weights::without_adapters(model.clone());
    let mut tensors = weights::named_tensors(&plain);
    for change in changes {
        let name = format!("{}.weight", change.layer);
        let weight = tensors.iter_mut().find(|tensor| tensor.name == name).unwrap();
        let (rank, outputs) = (change.down.shape[0], weight.shape[0]);
        let columns = weight.values.len() / outputs;
        for output in 0..outputs {
            for column in 0..columns {
                let sum: f64 = (0..rank)
                    .map(|r| {
                        f64::from(change.up.values[output * rank + r])
                            * f64::from(change.down.values[r * columns + column])
                    })
                    .sum();
                weight.values[output * columns + column] += (strength * 6.0 / rank as f64 * sum) as f32;
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    plain.save(folder.path()).unwrap();
    weights::write_tensors(folder.path().join(weights::FILE_NAME), &tensors).unwrap();
    UNet2DConditionModel::load(folder.path(), &device()).unwrap()
}

#[test]
fn adapters_come_to_what_changed_weights_come_to() {
    let (asked, adapted) = (asked(2), adapted(4, 0, model()));
    assert!(weights::adapters(&adapted).len() > 15);
    let plain = asked.of(&model());
    for strength in [1.0, -0.5] {
        let found = adapting(with([Strength::Even(strength as f32)]), || asked.of(&adapted));
        let expected = asked.of(&merged(&adapted, strength));
        assert!(relative_difference(&found, &plain) > 0.05);
        let difference = relative_difference(&found, &expected);
        assert!(difference < 1e-4, "{difference}");
    }
    // Where nobody says how strongly, all count.
    let all = adapting(with([Strength::Even(1.0)]), || asked.of(&adapted));
    assert_eq!(asked.of(&adapted), all);
}

#[test]
fn each_row_has_its_own_strengths_and_comes_to_what_it_comes_to_alone() {
    let asked = asked(3);
    let two = adapted(9, 1, adapted(4, 0, model()));
    let rows = [[0.7, 0.0, 1.0], [0.0, 0.0, -1.5]];
    let strengths = rows.map(|strengths| Strength::Rows(strengths.to_vec()));
    let together = adapting(with(strengths), || asked.of(&two));
    let one = together.len() / 3;
    for row in 0..3 {
        let alone = asked.row(row);
        let own = rows.map(|strengths| Strength::Even(strengths[row]));
        let expected = adapting(with(own), || alone.of(&two));
        assert!(together[row * one..][..one] == expected[..], "row {row}");
    }
    let none = asked.row(1).of(&model());
    assert!(together[one..][..one] == none[..]);
}

#[test]
fn a_model_without_adapters_is_what_it_was() {
    let model = model();
    let names = weights::parameter_names(&model);
    let adapted = adapted(4, 0, model.clone());
    assert!(weights::parameter_names(&adapted).len() > names.len());
    let again = weights::without_adapters(adapted);
    assert_eq!(weights::parameter_names(&again), names);
    assert!(asked(2).of(&again) == asked(2).of(&model));
    let fresh = weights::adapt(model.clone(), |layer| {
        let adapter = Adapter::new(layer, 2, AdapterInit::Kaiming, &mut Generator::new(1), &device());
        is_chosen(layer).then_some(adapter)
    });
    assert!(
        asked(2).of(&fresh) == asked(2).of(&model),
        "a new adapter changes nothing"
    );
}

/// Which parameters are to be trained.
struct Trained(Vec<bool>);

impl ModuleVisitor for Trained {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.is_require_grad());
    }
}

#[test]
fn frozen_layers_have_no_gradients_and_adapters_the_same_with_checkpointing() {
    let model = weights::adapt(model().no_grad(), |layer| {
        is_chosen(layer).then(|| drawn(layer, 3, 4).with_dropout(0.0))
    });
    let model = Module::train(model);
    let mut trained = Trained(vec![]);
    model.visit(&mut trained);
    let names = weights::parameter_names(&model);
    for (name, trained) in names.iter().zip(&trained.0) {
        assert_eq!(*trained, weights::is_adapter(name), "{name}");
    }
    let scheduler = DDPMScheduler::new(DDPMConfig::default()).unwrap();
    let objective = DdpmObjective::new(&scheduler, PredictionType::Epsilon, Weighting::default()).unwrap();
    let asked = asked(2);
    let batch = Batch::new(asked.x.clone(), asked.conditioning.clone());
    let draw = Draw::new(
        &batch.clean,
        &objective,
        NoiseOptions::default(),
        &mut Generator::new(3),
    );
    let [plain, checkpointed] = [false, true].map(|checkpointing| {
        let saving = Saving {
            checkpointing,
            ..Saving::default()
        };
        let lesson = step::gradients_saving(saving, &model, &objective, &batch, &draw).unwrap();
        (lesson.loss, lesson.gradients.named(&model))
    });
    let adapters = names.iter().filter(|name| weights::is_adapter(name)).count();
    assert_eq!(plain.1.len(), adapters);
    assert!(
        plain
            .1
            .iter()
            .all(|gradient| gradient.values.iter().any(|value| *value != 0.0))
    );
    assert_eq!(plain.0, checkpointed.0);
    assert!(plain.1 == checkpointed.1);
}
