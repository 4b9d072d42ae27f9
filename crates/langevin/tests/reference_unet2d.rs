//! `UNet2DModel` against what PyTorch and diffusers compute: every checkpoint found under `unet2d`.
//!
//! ```python
//! output = model(sample, timestep, class_labels).sample
//! loss = F.mse_loss(output, target); loss.backward()
//! ```

mod support;

use std::path::Path;

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Gradients, Int, Tensor, TensorData},
};
use langevin::{
    Error,
    models::{Conditioning, Denoiser, Model, UNet2DModel, weights},
    ops,
};
use support::{Outcome, Report, folders, read_tensors, reference, relative_difference, values, within};

const TOLERANCE: f64 = 1e-4;

/// The norm of every parameter's gradient, in the module's order.
struct GradientNorms<'a> {
    gradients: &'a Gradients,
    norms: Vec<f64>,
}

impl ModuleVisitor for GradientNorms<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // A frozen parameter has none, which the reference counts as zero.
        let norm = param.val().grad(self.gradients).map_or(0.0, |gradient| {
            f64::from(ops::sum_of_squares(gradient).into_scalar::<f32>()).sqrt()
        });
        self.norms.push(norm);
    }
}

fn check(folder: &Path) -> Result<Outcome, String> {
    let device = support::device();
    let training = device.clone().autodiff();
    let model = match UNet2DModel::load(folder, &device) {
        Err(Error::Unsupported(what)) => return Ok(Outcome::NotSupported(what)),
        other => other.map_err(|e| e.to_string())?.train(),
    };
    let io = read_tensors(folder.join("io.safetensors"));
    let sample = io["sample"].tensor::<4>(&training).require_grad();
    let [batch, ..] = sample.dims();
    let per_picture = |name: &str| {
        let given = io[name].f32();
        if given.len() == 1 {
            vec![given[0]; batch]
        } else {
            given
        }
    };
    let timesteps = Tensor::from_data(TensorData::new(per_picture("timestep"), [batch]), &training);
    let mut conditioning = Conditioning::default();
    if io.contains_key("class_labels") {
        let classes: Vec<i64> = per_picture("class_labels")
            .into_iter()
            .map(|c| c as i64)
            .collect();
        let classes = Tensor::<1, Int>::from_data(TensorData::new(classes, [batch]), &training);
        conditioning.classes = Some(classes);
    }

    let output = model
        .denoise(sample.clone(), timesteps, &conditioning)
        .map_err(|e| e.to_string())?;
    let target = io["target"].tensor::<4>(&training);
    let loss = (output.clone() - target).square().mean();
    let gradients = loss.backward();

    within(
        "output",
        relative_difference(&values(output.inner()), &io["output"].f32()),
        TOLERANCE,
    )?;
    let expected_loss = io["loss"].item();
    let loss = f64::from(loss.into_scalar::<f32>());
    within("loss", (loss - expected_loss).abs() / expected_loss, TOLERANCE)?;
    let gradient = sample.grad(&gradients).ok_or("the sample has no gradient")?;
    let expected = io["grad_sample"].f32();
    within(
        "gradient at the sample",
        relative_difference(&values(gradient), &expected),
        TOLERANCE,
    )?;

    let mut found = GradientNorms {
        gradients: &gradients,
        norms: vec![],
    };
    model.visit(&mut found);
    let names = weights::parameter_names(&model);
    let expected = |name: &str| io.get(&format!("grad_norm.{name}")).map(|norm| norm.item());
    let known = io.keys().filter(|key| key.starts_with("grad_norm.")).count();
    let largest = names.iter().filter_map(|name| expected(name)).fold(0.0, f64::max);
    if names.len() < known || largest == 0.0 {
        return Err(format!(
            "{} parameters where the reference has {known} gradients",
            names.len()
        ));
    }
    for (name, norm) in names.iter().zip(found.norms) {
        // Parameters that PyTorch does not train have no entry.
        let difference = (norm - expected(name).unwrap_or(0.0)).abs() / largest;
        within(&format!("gradient norm of {name}"), difference, TOLERANCE)?;
    }
    Ok(Outcome::Ran)
}

#[test]
fn every_checkpoint_gives_the_same_output_and_gradients() {
    let mut report = Report::new();
    for folder in folders(reference().join("unet2d")) {
        report.case(&folder.display().to_string(), check(&folder));
    }
    report.finish();
}
