//! The transformers against what PyTorch and diffusers compute: every folder under `dit` with a `case.json`.
//!
//! ```python
//! output = model(hidden_states, timestep=timestep, **inputs).sample
//! loss = F.mse_loss(output, target); loss.backward()
//! ```
//!
//! A folder with a `call.json` is a call of a pipeline: those are for a test of their own below the one of the networks.

mod support;

use std::{collections::BTreeMap, fs, path::Path};

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Device, Gradients, Int, Tensor, TensorData},
};
use langevin::{
    Error,
    models::{AnyModel, Conditioning, Denoiser, weights},
    ops,
};
use safetensors::SafeTensors;
use serde_json::Value;
use support::{
    Outcome, Report, Stored, folders, read_json, read_tensors, reference, relative_difference, values, within,
};

const TOLERANCE: f64 = 1e-4;

/// The norm of every parameter's gradient, in the module's order; 0 of one that is not trained.
struct GradientNorms<'a> {
    gradients: &'a Gradients,
    norms: Vec<f64>,
}

impl ModuleVisitor for GradientNorms<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let norm = param.val().grad(self.gradients).map_or(0.0, |gradient| {
            f64::from(ops::sum_of_squares(gradient).into_scalar::<f32>()).sqrt()
        });
        self.norms.push(norm);
    }
}

/// The inputs besides the noisy picture, by the names of diffusers' arguments.
fn conditioning(io: &BTreeMap<String, Stored>, device: &Device) -> Conditioning {
    let sizes = ["resolution", "aspect_ratio"].map(|name| Some(io.get(name)?.tensor::<2>(device)));
    let time_ids = match sizes {
        [Some(resolution), Some(ratio)] => Some(Tensor::cat(vec![resolution, ratio], 1)),
        _ => None,
    };
    Conditioning {
        classes: io.get("class_labels").map(|labels| {
            let data = TensorData::new(labels.integers.clone(), labels.shape.clone());
            Tensor::<1, Int>::from_data(data, device)
        }),
        vector: io.get("pooled_projections").map(|stored| stored.tensor(device)),
        time_ids,
        sequence: io
            .get("encoder_hidden_states")
            .map(|stored| stored.tensor(device)),
        sequence_mask: io
            .get("encoder_attention_mask")
            .map(|stored| stored.tensor(device)),
        ..Conditioning::default()
    }
}

/// Every tensor of a file: type, shape and bytes.
fn tensors(path: &Path) -> BTreeMap<String, (String, Vec<usize>, Vec<u8>)> {
    let bytes = fs::read(path).unwrap();
    SafeTensors::deserialize(&bytes)
        .unwrap()
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let dtype = format!("{:?}", view.dtype());
            (name, (dtype, view.shape().to_vec(), view.data().to_vec()))
        })
        .collect()
}

/// Saved and loaded again, the weights are the same bytes, and what is unknown in the configuration is still there.
fn check_saving(model: &AnyModel, folder: &Path) -> Result<(), String> {
    let saved = tempfile::tempdir().unwrap();
    model.save(saved.path()).map_err(|e| e.to_string())?;
    AnyModel::load(saved.path(), &support::device()).map_err(|e| e.to_string())?;
    let of = |folder: &Path| tensors(&folder.join(weights::FILE_NAME));
    if of(folder) != of(saved.path()) {
        return Err("the saved weights are not those that were loaded".into());
    }
    let config = |folder: &Path| read_json(folder.join(weights::CONFIG_NAME));
    let (before, after) = (config(folder), config(saved.path()));
    // 2 and 2.0 are the same number.
    let same = |a: &Value, b: &Value| a == b || a.as_f64().is_some_and(|a| Some(a) == b.as_f64());
    let kept = |name: &str, value: &Value| after.get(name).is_some_and(|after| same(value, after));
    let lost = before
        .as_object()
        .unwrap()
        .iter()
        .find(|(name, value)| *name != "_diffusers_version" && !kept(name, value));
    match lost {
        None => Ok(()),
        Some((name, value)) => Err(format!("{name} was {value} and is {:?}", after.get(name))),
    }
}

fn check_gradient_norms(
    model: &AnyModel,
    gradients: &Gradients,
    io: &BTreeMap<String, Stored>,
) -> Result<(), String> {
    let mut found = GradientNorms {
        gradients,
        norms: vec![],
    };
    model.visit(&mut found);
    let names = weights::parameter_names(model);
    let expected = |name: &str| io.get(&format!("grad_norm.{name}")).map(|norm| norm.item());
    let known = io.keys().filter(|key| key.starts_with("grad_norm.")).count();
    let compared = names.iter().filter(|name| expected(name).is_some()).count();
    let largest = names.iter().filter_map(|name| expected(name)).fold(0.0, f64::max);
    if compared != known || largest == 0.0 {
        return Err(format!(
            "{compared} parameters where the reference has {known} gradients"
        ));
    }
    for (name, norm) in names.iter().zip(found.norms) {
        // What PyTorch does not train has no entry.
        let difference = (norm - expected(name).unwrap_or(0.0)).abs() / largest;
        within(&format!("gradient norm of {name}"), difference, TOLERANCE)?;
    }
    Ok(())
}

fn check_model(folder: &Path) -> Result<Outcome, String> {
    let case: Value = read_json(folder.join("case.json"));
    let model_folder = folder.join(case["model"].as_str().unwrap_or("model"));
    let device = support::device();
    let training = device.clone().autodiff();
    let model = match AnyModel::load(&model_folder, &device) {
        Err(Error::Unsupported(what)) => return Ok(Outcome::NotSupported(what)),
        other => other.map_err(|e| e.to_string())?,
    };
    if case["class"] != model.config().class_name() {
        return Err(format!("the model is a {}", model.config().class_name()));
    }
    check_saving(&model, &model_folder)?;

    let model = model.train();
    let io = read_tensors(folder.join("io.safetensors"));
    let sample = io["hidden_states"].tensor::<4>(&training).require_grad();
    let timesteps = Tensor::from_data(
        TensorData::new(io["timestep"].f32(), [sample.dims()[0]]),
        &training,
    );
    let output = model
        .denoise(sample.clone(), timesteps, &conditioning(&io, &training))
        .map_err(|e| e.to_string())?;
    let loss = (output.clone() - io["target"].tensor(&training)).square().mean();
    let gradients = loss.backward();
    within(
        "output",
        relative_difference(&values(output.inner()), &io["output"].f32()),
        TOLERANCE,
    )?;
    let expected = io["loss"].item();
    let loss = f64::from(loss.into_scalar::<f32>());
    within("loss", (loss - expected).abs() / expected, TOLERANCE)?;
    let gradient = sample.grad(&gradients).ok_or("the sample has no gradient")?;
    within(
        "gradient at the sample",
        relative_difference(&values(gradient), &io["grad_hidden_states"].f32()),
        TOLERANCE,
    )?;
    check_gradient_norms(&model, &gradients, &io)?;
    Ok(Outcome::Ran)
}

#[test]
fn every_transformer_gives_the_same_output_and_gradients() {
    let mut report = Report::new();
    let cases = folders(reference().join("dit")).into_iter();
    for folder in cases.filter(|folder| folder.join("case.json").exists()) {
        report.case(&folder.display().to_string(), check_model(&folder));
    }
    report.finish();
}

#[test]
fn pipelines_give_diffusers_pictures() {
    let mut report = Report::new();
    for folder in folders("dit") {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        if folder.join("call.json").is_file() {
            report.case(&name, support::call::Case::in_folder(&folder).compare());
        }
    }
    report.finish();
}
