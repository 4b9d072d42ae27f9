//! `UNet2DConditionModel` against what PyTorch and diffusers compute: every checkpoint found under `conditional/unet2d_condition`.
//!
//! ```python
//! output = model(sample, timestep, encoder_hidden_states, class_labels, added_cond_kwargs=added).sample
//! output.square().mean().backward()
//! ```

mod support;

use std::path::Path;

use burn::{
    module::Module,
    tensor::{Tensor, TensorData},
};
use langevin::{
    Error,
    models::{Conditioning, Denoiser, Model, UNet2DConditionModel},
};
use support::{Outcome, Report, folders, read_tensors, reference, relative_difference, values, within};

const TOLERANCE: f64 = 1e-4;

fn check(folder: &Path) -> Result<Outcome, String> {
    let device = support::device();
    let training = device.clone().autodiff();
    let model = match UNet2DConditionModel::load(folder, &device) {
        Err(Error::Unsupported(what)) => return Ok(Outcome::NotSupported(what)),
        other => other.map_err(|e| e.to_string())?.train(),
    };
    let io = read_tensors(folder.join("io.safetensors"));
    let sample = io["sample"].tensor::<4>(&training).require_grad();
    let [batch, ..] = sample.dims();
    let timesteps = Tensor::from_data(TensorData::new(io["timestep"].f32(), [batch]), &training);
    let optional = |name: &str| io.get(name).map(|stored| stored.tensor::<2>(&training));
    let classes = io
        .get("class_ids")
        .map(|stored| Tensor::<1>::from_floats(stored.f32().as_slice(), &training).int());
    let conditioning = Conditioning {
        classes,
        vector: optional("class_labels").or_else(|| optional("text_embeds")),
        time_ids: optional("time_ids"),
        sequence: Some(io["encoder_hidden_states"].tensor(&training)),
        ..Conditioning::default()
    };

    let output = model
        .denoise(sample.clone(), timesteps, &conditioning)
        .map_err(|e| e.to_string())?;
    let gradients = output.clone().square().mean().backward();
    within(
        "output",
        relative_difference(&values(output.inner()), &io["output"].f32()),
        TOLERANCE,
    )?;
    let gradient = sample.grad(&gradients).ok_or("the sample has no gradient")?;
    within(
        "gradient at the sample",
        relative_difference(&values(gradient), &io["grad_sample"].f32()),
        TOLERANCE,
    )?;
    Ok(Outcome::Ran)
}

#[test]
fn every_checkpoint_gives_the_same_output_and_gradient() {
    let mut report = Report::new();
    for folder in folders(reference().join("conditional/unet2d_condition")) {
        report.case(&folder.display().to_string(), check(&folder));
    }
    report.finish();
}
