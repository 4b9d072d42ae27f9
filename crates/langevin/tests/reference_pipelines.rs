//! Whole pipelines against the pictures that diffusers made: every case in the reference folder's `pipelines`.

mod support;

use std::path::Path;

use langevin::{
    device::default_device,
    pipelines::{ModelIndex, Pipeline, PipelineClass, SampleOptions},
    random::Generator,
};
use support::{Outcome, Report};

/// A pixel may differ by one step of an 8-bit picture.
const TOLERANCE: f64 = 1.0 / 255.0;

/// The arguments of diffusers' call; a file with others is not understood, and fails.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    batch_size: usize,
    seed: u64,
    num_inference_steps: usize,
    #[serde(default)]
    eta: f64,
    #[serde(default)]
    use_clipped_model_output: Option<bool>,
}

#[test]
fn the_same_seed_gives_diffusers_pictures() {
    let mut report = Report::new();
    for case in support::folders("pipelines") {
        report.case(
            &case.file_name().unwrap_or_default().to_string_lossy(),
            run(&case),
        );
    }
    report.finish();
}

fn run(case: &Path) -> Result<Outcome, String> {
    let class_name = ModelIndex::load(case).map_err(|e| e.to_string())?.class_name;
    if PipelineClass::named(&class_name).is_none() {
        return Ok(Outcome::NotSupported(class_name));
    }
    let call: Call =
        serde_json::from_value(support::read_json(case.join("call.json"))).map_err(|e| e.to_string())?;
    let pipeline = Pipeline::load(case, &default_device()).map_err(|e| e.to_string())?;
    let options = SampleOptions {
        batch_size: call.batch_size,
        num_inference_steps: Some(call.num_inference_steps),
        eta: Some(call.eta),
        use_clipped_model_output: call.use_clipped_model_output.unwrap_or(false),
        ..SampleOptions::default()
    };
    let pictures = pipeline
        .call(&options, &mut Generator::new(call.seed))
        .map_err(|e| e.to_string())?;
    let expected = &support::read_tensors(case.join("images.safetensors"))["images"];
    if expected.shape != pictures.dims() {
        return Err(format!(
            "has the shape {:?}, and diffusers' pictures {:?}",
            pictures.dims(),
            expected.shape
        ));
    }
    let difference = support::largest_difference(&support::values(pictures), &expected.f32());
    support::within("a pixel", difference, TOLERANCE).map(|()| Outcome::Ran)
}
