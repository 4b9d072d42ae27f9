//! Pictures whose products are of bf16 values: beside float32's, and with the same bits whatever runs beside them.

mod support;

use burn::tensor::Tensor;
use langevin::{
    Request,
    device::default_device,
    generate::Plan,
    models::{Conditioning, Denoiser, ModelPreset},
    ops::{Precision, computing, in_pool},
    pipelines::{Pipeline, step_together},
    random::Generator,
};
use support::{call::Case, read_tensors, reference, values};

/// The root of the mean square of a difference, as a part of the truth's.
fn apart(found: &[f32], truth: &[f32]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>();
    let off = square(&mut found.iter().zip(truth).map(|(a, b)| a - b));
    (off / square(&mut truth.iter().copied())).sqrt()
}

/// diffusers 0.42.1, PyTorch 2.15, `torch_dtype=torch.bfloat16` beside float32, the same noise:
///
/// ```python
/// latents = pipe(**arguments, latents=noise.to(dtype)).images
/// ((latents_bf16 - latents).pow(2).mean().sqrt() / latents.pow(2).mean().sqrt())  # 0.0409
/// ```
const PYTORCHS_OWN: f64 = 0.0409;

#[test]
fn latents_are_closer_to_float32s_than_pytorchs_bf16_is() {
    let device = default_device();
    let folder = reference().join("sd/cases/pndm_negative");
    let case = Case::in_folder(&folder);
    let pipeline_folder = case.pipeline_folder();
    let pipeline = Pipeline::load(pipeline_folder.path(), &device).unwrap();
    let draw = |precision| {
        let request = Request {
            precision,
            ..case.request(&device).unwrap()
        };
        let plan = Plan::of(&pipeline, &request).unwrap();
        let latents = plan.samples(&pipeline, &mut ()).unwrap().unwrap();
        values(Tensor::cat(latents, 0))
    };
    let expected = read_tensors(folder.join("expected.safetensors"))["latents"].f32();
    let (float32, bf16) = (draw(Precision::Float32), draw(Precision::Bf16));
    assert!(apart(&float32, &expected) < 1e-4);
    let off = apart(&bf16, &expected);
    println!("bf16 is {off:.4} from diffusers' float32, PyTorch's own {PYTORCHS_OWN}");
    assert!(off < PYTORCHS_OWN, "{off}");
    assert_eq!(
        bf16 != float32,
        Precision::has_bf16(),
        "products are of bf16 values where there are instructions"
    );
}

fn denoised(x: Tensor<4>) -> Vec<u32> {
    let preset = ModelPreset::CourseButterflies;
    let model = preset
        .config()
        .build(&default_device(), &mut Generator::new(1))
        .unwrap();
    let t = Tensor::<1>::full([x.dims()[0]], 300.0, &default_device());
    let y = model.denoise(x, t, &Conditioning::default()).unwrap();
    values(y).into_iter().map(f32::to_bits).collect()
}

#[test]
fn bits_depend_on_neither_threads_nor_batch() {
    let x = Generator::new(3).randn_tensor([5, 3, 32, 32], &default_device());
    let run = |x: Tensor<4>, threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| in_pool(|| computing(Precision::Bf16, || denoised(x))))
    };
    let all = run(x.clone(), 1);
    for threads in [2, 4] {
        assert!(run(x.clone(), threads) == all, "{threads} threads");
    }
    let len = all.len() / 5;
    for i in [0, 3] {
        assert!(
            run(x.clone().narrow(0, i, 1), 2) == all[i * len..][..len],
            "picture {i}"
        );
    }
}

#[test]
fn loops_of_both_precisions_keep_their_own_in_company() {
    let device = default_device();
    let case = Case::in_folder(&reference().join("sd/cases/pndm_negative"));
    let folder = case.pipeline_folder();
    let pipeline = Pipeline::load(folder.path(), &device).unwrap();
    let plan = |precision| {
        let request = Request {
            precision,
            ..case.request(&device).unwrap()
        };
        Plan::of(&pipeline, &request).unwrap()
    };
    let plans = [Precision::Float32, Precision::Bf16].map(plan);
    let alone = plans.each_ref().map(|plan| {
        let sampling = plan.picture(&pipeline, 0).unwrap();
        values(sampling.finish().unwrap())
    });
    let mut loops = plans.each_ref().map(|plan| plan.picture(&pipeline, 0).unwrap());
    while loops[0].done() < loops[0].total() {
        let [a, b] = &mut loops;
        for result in step_together(&mut [a, b]) {
            result.unwrap();
        }
    }
    for (sampling, alone) in loops.into_iter().zip(alone) {
        assert!(values(sampling.finish().unwrap()) == alone);
    }
}
