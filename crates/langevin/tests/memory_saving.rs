//! What saves memory in training: activations kept as bf16, and gradient checkpointing, each against a step that saves nothing.

use burn::{module::Module, tensor::Tensor};
use langevin::{
    device::default_device,
    models::{
        Conditioning, DiTTransformer2DConfig, DiTTransformer2DModel, Model, UNet2DConditionConfig,
        UNet2DConditionModel, UNet2DConfig, UNet2DModel,
    },
    nn::dropping,
    objectives::{DdpmObjective, NoiseOptions, PredictionType, Weighting},
    ops::{self, AttentionOptions, Geometry, GroupNormOptions, KeptAs, Precision, keeping},
    random::Generator,
    schedulers::{DDPMConfig, DDPMScheduler},
    training::{
        gradients::Gradients,
        step::{Batch, Draw, Lesson, Saving, gradients_saving},
    },
};
use serde_json::json;

/// bf16 has eight bits: what is rounded to it is off by a 256th at most. Sums average that; one element of a gradient need not.
const BF16: f32 = 1.0 / 128.0;

fn leaf<const D: usize>(shape: [usize; D], generator: &mut Generator) -> Tensor<D> {
    Tensor::from_inner(generator.randn_tensor(shape, &default_device())).require_grad()
}

/// The root of the mean square of the differences, as a part of that of `b`.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let (mut off, mut all) = (0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        off += square(a - b);
        all += square(*b);
    }
    (off / all.max(1e-30)).sqrt() as f32
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec::<f32>().unwrap()
}

/// An operation's output and the gradients at its leaves, with activations kept as `kept_as`.
macro_rules! run {
    ($kept_as:expr, $op:expr, [$($leaf:ident),*]) => {{
        let y = keeping($kept_as, || $op);
        let output = values(y.clone().inner());
        // A gradient that is not the same everywhere.
        let weight = y.clone().inner().ones_like().cumsum(y.dims().len() - 1).sin();
        let gradients = (y * Tensor::from_inner(weight)).sum().backward();
        (output, vec![$((stringify!($leaf), values($leaf.grad(&gradients).unwrap()))),*])
    }};
}

/// Compares an operation with bf16 activations and with float32's. `same` are the leaves whose gradients do not depend on what was
/// rounded; they are the same to the bit.
macro_rules! assert_near {
    ($op:expr, [$($leaf:ident),*], same: [$($same:literal),*]) => {{
        let (whole, whole_gradients) = run!(KeptAs::Float32, $op, [$($leaf),*]);
        let (half, half_gradients) = run!(KeptAs::Bf16, $op, [$($leaf),*]);
        assert!(difference(&half, &whole) < BF16, "outputs: {}", difference(&half, &whole));
        let same: &[&str] = &[$($same),*];
        let mut rounded = 0;
        for ((name, half), (_, whole)) in half_gradients.iter().zip(&whole_gradients) {
            let off = difference(half, whole);
            assert!(off < BF16, "gradient at {name}: {off}");
            if same.contains(name) {
                assert_eq!(half, whole, "gradient at {name}");
            } else {
                rounded += usize::from(off > 1e-5);
            }
        }
        assert!(rounded > 0, "nothing was rounded");
    }};
}

#[test]
fn every_operation_is_near_float32_with_bf16_activations() {
    let mut generator = Generator::new(1);
    let mut leaf4 = |shape: [usize; 4]| leaf(shape, &mut generator);
    let x = leaf4([2, 8, 8, 32]);
    let weight = leaf4([3, 3, 32, 16]);
    let residual = leaf4([2, 8, 8, 16]);
    let (bias, gamma, beta) = (
        leaf([16], &mut generator),
        leaf([32], &mut generator),
        leaf([32], &mut generator),
    );
    let (scale, shift) = (leaf([2, 32], &mut generator), leaf([2, 32], &mut generator));
    let same = Geometry::uniform(1, 1);
    assert_near!(
        ops::conv2d(x.clone(), weight.clone(), Some(bias.clone()), Some(residual.clone()), same),
        [x, weight, bias, residual],
        same: ["x", "bias", "residual"]
    );
    let matrix = leaf([32, 24], &mut generator);
    assert_near!(ops::linear(x.clone(), matrix.clone(), None, None), [x, matrix], same: ["x"]);
    assert_near!(ops::silu(x.clone()), [x], same: []);
    for silu in [false, true] {
        let options = GroupNormOptions {
            groups: 8,
            eps: 1e-5,
            silu,
        };
        let film = || Some((scale.clone(), shift.clone()));
        assert_near!(
            ops::group_norm(x.clone(), gamma.clone(), beta.clone(), film(), options),
            [x, gamma, beta, scale, shift],
            same: []
        );
        assert_near!(
            ops::norm_conv2d(
                x.clone(),
                [gamma.clone(), beta.clone()],
                film(),
                options,
                (weight.clone(), Some(bias.clone())),
                Some(residual.clone()),
                same
            ),
            [x, gamma, beta, scale, shift, weight, bias, residual],
            same: ["bias", "residual"]
        );
    }
    let [q, k, v] = [(); 3].map(|()| leaf([2, 20, 32], &mut generator));
    let options = AttentionOptions {
        heads: 4,
        scale: 0.35,
        causal: false,
    };
    assert_near!(ops::attention(q.clone(), k.clone(), v.clone(), options), [q, k, v], same: []);
}

#[test]
fn a_normalisation_and_its_convolution_are_the_two_in_turn() {
    let mut generator = Generator::new(2);
    let x = leaf([2, 6, 6, 16], &mut generator);
    let weight = leaf([3, 3, 16, 24], &mut generator);
    let (gamma, beta, bias) = (
        leaf([16], &mut generator),
        leaf([16], &mut generator),
        leaf([24], &mut generator),
    );
    let options = GroupNormOptions {
        groups: 4,
        eps: 1e-5,
        silu: true,
    };
    let same = Geometry::uniform(1, 1);
    for kept_as in [KeptAs::Float32, KeptAs::Bf16] {
        let one = run!(
            kept_as,
            ops::norm_conv2d(
                x.clone(),
                [gamma.clone(), beta.clone()],
                None,
                options,
                (weight.clone(), Some(bias.clone())),
                None,
                same
            ),
            [x, gamma, beta, bias]
        );
        let two = run!(
            kept_as,
            {
                let normed = ops::group_norm(x.clone(), gamma.clone(), beta.clone(), None, options);
                ops::conv2d(normed, weight.clone(), Some(bias.clone()), None, same)
            },
            [x, gamma, beta, bias]
        );
        assert_eq!(one, two, "{kept_as:?}");
    }
}

/// A small UNet with everything that blocks have: attention, a shortcut, resampling by a block or by a convolution, dropout.
fn unet(norm: &str, dropout: f64) -> UNet2DConfig {
    serde_json::from_value(json!({
        "sample_size": 16,
        "in_channels": 3,
        "out_channels": 3,
        "layers_per_block": 2,
        "block_out_channels": [16, 32],
        "norm_num_groups": 8,
        "attention_head_dim": 8,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        "resnet_time_scale_shift": norm,
        "downsample_type": if norm == "default" { "conv" } else { "resnet" },
        "dropout": dropout
    }))
    .unwrap()
}

fn objective() -> DdpmObjective {
    let scheduler = DDPMScheduler::new(DDPMConfig::default()).unwrap();
    DdpmObjective::new(&scheduler, PredictionType::Epsilon, Weighting::default()).unwrap()
}

/// A step's lesson of a model whose dropout starts anew.
fn lesson<M>(model: &M, conditioning: &Conditioning, saving: Saving) -> Lesson
where
    M: Module + langevin::models::Denoiser,
{
    let mut generator = Generator::new(5);
    let clean = generator.randn_tensor([3, 3, 16, 16], &default_device());
    let batch = Batch::new(clean, conditioning.clone());
    let draw = Draw::new(
        &batch.clean,
        &objective(),
        NoiseOptions::default(),
        &mut generator,
    );
    gradients_saving(saving, model, &objective(), &batch, &draw).unwrap()
}

/// Every parameter's gradient by its name.
fn named<M: Module>(model: &M, gradients: &Gradients) -> Vec<(String, Vec<f32>)> {
    let named = gradients.named(model).into_iter();
    named
        .map(|tensor| {
            let name = tensor.name.clone();
            (name, values(tensor.into_flat(&default_device())))
        })
        .collect()
}

const fn saving(kept_as: KeptAs, checkpointing: bool) -> Saving {
    Saving {
        kept_as,
        checkpointing,
        precision: Precision::Float32,
    }
}

const ALL: [Saving; 4] = [
    saving(KeptAs::Float32, false),
    saving(KeptAs::Float32, true),
    saving(KeptAs::Bf16, false),
    saving(KeptAs::Bf16, true),
];

/// Through a whole model roundings add up: to less than three in a hundred of every gradient.
fn assert_near_each(half: &[(String, Vec<f32>)], whole: &[(String, Vec<f32>)]) {
    for ((name, half), (_, whole)) in half.iter().zip(whole) {
        // A key's bias adds the same to all scores of a query, which the softmax takes away again: the gradient is rounding alone.
        if name.ends_with("to_k.bias") {
            continue;
        }
        let off = difference(half, whole);
        assert!(off < 0.03, "{name}: {off}");
    }
}

#[test]
fn a_unet_learns_the_same() {
    for (norm, dropout) in [("default", 0.0), ("default", 0.2), ("scale_shift", 0.0)] {
        let model =
            UNet2DModel::new(&unet(norm, dropout), &default_device(), &mut Generator::new(0)).unwrap();
        let model = Module::train(model);
        let run = |saving: Saving| {
            let mut generator = Generator::new(7);
            let lesson = dropping(&mut generator, || {
                lesson(&model, &Conditioning::default(), saving)
            });
            (named(&model, &lesson.gradients), lesson.losses, generator.state())
        };
        let [whole, whole_again, half, half_again] = ALL.map(run);
        assert!(whole.0.len() > 50);
        // Checkpointing changes nothing, to the bit: losses, gradients, and where dropout's generator stands.
        assert!(whole == whole_again, "{norm}, dropout {dropout}");
        assert!(half == half_again, "{norm}, dropout {dropout}, bf16");
        assert_ne!(whole.0, half.0);
        assert_near_each(&half.0, &whole.0);
        assert!(difference(&half.1, &whole.1) < 1e-3);
    }
}

#[test]
fn a_conditional_unet_learns_the_same() {
    let config: UNet2DConditionConfig = serde_json::from_value(json!({
        "sample_size": 16,
        "in_channels": 3,
        "out_channels": 3,
        "layers_per_block": 1,
        "block_out_channels": [16, 32],
        "norm_num_groups": 8,
        "attention_head_dim": 2,
        "cross_attention_dim": 12,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"]
    }))
    .unwrap();
    let model = UNet2DConditionModel::new(&config, &default_device(), &mut Generator::new(0)).unwrap();
    let model = Module::train(model);
    let conditioning = Conditioning {
        sequence: Some(Generator::new(3).randn_tensor([3, 5, 12], &default_device())),
        ..Conditioning::default()
    };
    let [whole, whole_again, half, half_again] =
        ALL.map(|saving| named(&model, &lesson(&model, &conditioning, saving).gradients));
    assert!(whole == whole_again);
    assert!(half == half_again, "bf16");
    assert!(whole.len() > 50);
    assert_near_each(&half, &whole);
}

#[test]
fn a_dit_learns_the_same() {
    let config: DiTTransformer2DConfig = serde_json::from_value(json!({
        "sample_size": 16,
        "in_channels": 3,
        "out_channels": 3,
        "num_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "num_embeds_ada_norm": 4
    }))
    .unwrap();
    let model = DiTTransformer2DModel::new(&config, &default_device(), &mut Generator::new(0)).unwrap();
    let model = Module::train(model);
    let conditioning = Conditioning {
        classes: Some(Tensor::from_ints([0, 4, 2], &default_device())),
        ..Conditioning::default()
    };
    let [whole, whole_again, half, half_again] =
        ALL.map(|saving| named(&model, &lesson(&model, &conditioning, saving).gradients));
    assert!(whole == whole_again);
    assert!(half == half_again, "bf16");
    assert!(whole.len() > 30);
    assert_near_each(&half, &whole);
}

#[test]
fn what_is_not_trained_has_no_gradient_with_checkpointing_either() {
    use langevin::training::{TrainingConfig, learner::Learner, optimizer::AdamWConfig};
    let schedule = TrainingConfig::script().lr_schedule(10, 10).unwrap();
    let model = UNet2DModel::new(&unet("default", 0.0), &default_device(), &mut Generator::new(0)).unwrap();
    let learner = Learner::new(model, AdamWConfig::default(), 1e-4, schedule, 1.0, None)
        .train_only(|name| name.contains("up_blocks") && name.contains("conv1"))
        .unwrap();
    let [whole, again, ..] = ALL.map(|saving| {
        let lesson = lesson(learner.model(), &Conditioning::default(), saving);
        named(learner.model(), &lesson.gradients)
    });
    assert!(whole == again && !whole.is_empty());
    assert!(whole.iter().all(|(name, _)| name.contains("conv1")));
}

#[test]
fn keeping_ends_with_its_work() {
    let x = leaf([1, 2, 2, 8], &mut Generator::new(1));
    let gradient = |y: Tensor<4>| values(x.grad(&y.sum().backward()).unwrap());
    let whole = gradient(ops::silu(x.clone()));
    let half = gradient(keeping(KeptAs::Bf16, || ops::silu(x.clone())));
    assert_ne!(half, whole);
    assert_eq!(gradient(ops::silu(x.clone())), whole);
}
