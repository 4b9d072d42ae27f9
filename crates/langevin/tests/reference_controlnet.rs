//! ControlNets against what diffusers computes with them: every network alone, new ones of a UNet, and every case of pictures found
//! under `controlnet/`.

mod support;

use std::{collections::BTreeMap, path::Path};

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Device, Gradients, Tensor, TensorData},
};
use langevin::{
    models::{
        Conditioning, ControlNetConfig, ControlNetModel, Denoiser, Model, Residuals, UNet2DConditionModel,
    },
    ops,
    random::Generator,
    weights::{self, named_tensors},
};
use serde_json::Value;
use support::{
    Outcome, Report, Stored, call::Case, folders, read_json, read_tensors, reference, relative_difference,
    values, within,
};

const TOLERANCE: f64 = 1e-4;

type Tensors = BTreeMap<String, Stored>;

/// The norm of every parameter's gradient, in the module's order.
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

/// What a network is asked in a file of inputs.
struct Asked {
    sample: Tensor<4>,
    picture: Tensor<4>,
    timesteps: Tensor<1>,
    conditioning: Conditioning,
}

impl Asked {
    fn of(io: &Tensors, device: &Device) -> Self {
        let optional = |name: &str| io.get(name).map(|stored| stored.tensor::<2>(device));
        let sample = io["sample"].tensor::<4>(device);
        let [batch, ..] = sample.dims();
        Self {
            sample,
            picture: io["controlnet_cond"].tensor(device),
            timesteps: Tensor::from_data(TensorData::new(io["timestep"].f32(), [batch]), device),
            conditioning: Conditioning {
                vector: optional("text_embeds"),
                time_ids: optional("time_ids"),
                sequence: Some(io["encoder_hidden_states"].tensor(device)),
                ..Conditioning::default()
            },
        }
    }

    fn answer(&self, network: &ControlNetModel) -> Result<Residuals, String> {
        let embedded = network.embed(self.picture.clone()).map_err(said)?;
        let (sample, timesteps) = (self.sample.clone(), self.timesteps.clone());
        network
            .residuals(sample, timesteps, &self.conditioning, embedded)
            .map_err(said)
    }
}

fn said(error: langevin::Error) -> String {
    error.to_string()
}

/// All residuals, the last that of the middle, in PyTorch's layout.
fn all(residuals: &Residuals) -> Vec<Tensor<4>> {
    let each = residuals.skips.iter().chain(&residuals.middle);
    each.map(|residual| residual.clone().permute([0, 3, 1, 2]))
        .collect()
}

fn check_residuals(residuals: &Residuals, io: &Tensors, prefix: &str) -> Result<(), String> {
    let skips = residuals.skips.len();
    let expected = io
        .keys()
        .filter(|key| key.starts_with(&format!("{prefix}down.")))
        .count();
    if skips != expected {
        return Err(format!(
            "{skips} outputs of the way down where there are {expected}"
        ));
    }
    for (place, residual) in all(residuals).into_iter().enumerate() {
        let name = match place {
            place if place == skips => format!("{prefix}mid"),
            place => format!("{prefix}down.{place}"),
        };
        let difference = relative_difference(&values(residual), &io[&name].f32());
        within(&name, difference, TOLERANCE)?;
    }
    Ok(())
}

/// A network's residuals as they are and in guess mode, and what a UNet makes of them.
fn check_outputs(case: &Value, io: &Tensors, network: &ControlNetModel) -> Result<(), String> {
    let asked = Asked::of(io, &support::device());
    let residuals = asked.answer(network)?;
    let scale = case["conditioning_scale"].as_f64().unwrap();
    let plain = network.scaled(residuals.clone(), scale, false);
    check_residuals(&plain, io, "")?;
    let guess = &case["guess"];
    let (scale, guesses) = (&guess["conditioning_scale"], &guess["guess_mode"]);
    let guessed = network.scaled(residuals, scale.as_f64().unwrap(), guesses.as_bool().unwrap());
    check_residuals(&guessed, io, "guess.")?;

    let unet = reference().join(case["unet"].as_str().unwrap());
    let unet = UNet2DConditionModel::load(unet, &support::device()).map_err(said)?;
    for (name, residuals) in [("unet_output_without", None), ("unet_output", Some(plain))] {
        let conditioning = Conditioning {
            residuals,
            ..asked.conditioning.clone()
        };
        let (sample, timesteps) = (asked.sample.clone(), asked.timesteps.clone());
        let found = unet.denoise(sample, timesteps, &conditioning).map_err(said)?;
        within(
            name,
            relative_difference(&values(found), &io[name].f32()),
            TOLERANCE,
        )?;
    }
    Ok(())
}

/// The loss, and its gradients at the inputs and at every parameter.
fn check_gradients(io: &Tensors, network: ControlNetModel) -> Result<(), String> {
    let network = network.train();
    let mut asked = Asked::of(io, &support::device().autodiff());
    asked.sample = asked.sample.require_grad();
    asked.picture = asked.picture.require_grad();
    let sequence = asked.conditioning.sequence.take().unwrap().require_grad();
    asked.conditioning.sequence = Some(sequence.clone());
    let squares = all(&asked.answer(&network)?)
        .into_iter()
        .map(|residual| residual.square().mean());
    let loss = squares.reduce(|sum, next| sum + next).unwrap();
    let gradients = loss.backward();
    let expected = io["loss"].item();
    let loss = f64::from(loss.into_scalar::<f32>());
    within("loss", (loss - expected).abs() / expected, TOLERANCE)?;
    let at = |name: &str, found: Option<Vec<f32>>| {
        let found = found.ok_or(format!("there is no {name}"))?;
        within(name, relative_difference(&found, &io[name].f32()), TOLERANCE)
    };
    at("grad_sample", asked.sample.grad(&gradients).map(values))?;
    at("grad_cond", asked.picture.grad(&gradients).map(values))?;
    at(
        "grad_encoder_hidden_states",
        sequence.grad(&gradients).map(values),
    )?;

    let mut found = GradientNorms {
        gradients: &gradients,
        norms: vec![],
    };
    network.visit(&mut found);
    let names = weights::parameter_names(&network);
    let expected: Vec<f64> = names
        .iter()
        .filter_map(|name| io.get(&format!("grad_norm.{name}")).map(Stored::item))
        .collect();
    let known = io.keys().filter(|key| key.starts_with("grad_norm.")).count();
    if (expected.len(), names.len()) != (known, known) {
        return Err(format!(
            "{} parameters where there are {known} gradients",
            names.len()
        ));
    }
    let largest = expected.iter().copied().fold(0.0, f64::max);
    for ((name, found), expected) in names.iter().zip(found.norms).zip(expected) {
        let difference = (found - expected).abs() / largest;
        within(&format!("gradient norm of {name}"), difference, TOLERANCE)?;
    }
    Ok(())
}

#[test]
fn every_network_gives_the_same_residuals_and_gradients() {
    let mut report = Report::new();
    for folder in folders("controlnet/alone") {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let check = || {
            let case: Value = read_json(folder.join("case.json"));
            let model = reference().join(case["model"].as_str().unwrap());
            let network = ControlNetModel::open(model, &support::device()).map_err(said)?;
            let io = read_tensors(folder.join("io.safetensors"));
            check_outputs(&case, &io, &network)?;
            check_gradients(&io, network)?;
            Ok(Outcome::Ran)
        };
        report.case(&name, check());
    }
    report.finish();
}

/// Of every parameter of a new network, whether it is copied, zero or drawn.
fn check_new(folder: &Path) -> Result<Outcome, String> {
    let case: Value = read_json(folder.join("case.json"));
    let device = support::device();
    let unet = reference().join(case["unet"].as_str().unwrap());
    let unet = UNet2DConditionModel::load(unet, &device).map_err(said)?;
    let config = ControlNetConfig {
        conditioning_embedding_out_channels: serde_json::from_value(
            case["conditioning_embedding_out_channels"].clone(),
        )
        .unwrap(),
        ..ControlNetConfig::of_unet(unet.config())
    };
    let new = ControlNetModel::from_unet(&unet, &config, &device, &mut Generator::new(0)).map_err(said)?;
    let theirs: BTreeMap<_, _> = named_tensors(&unet)
        .into_iter()
        .map(|t| (t.name.clone(), t))
        .collect();
    let ours = named_tensors(&new);
    let parameters = case["parameters"].as_object().unwrap();
    if ours.len() != parameters.len() {
        return Err(format!(
            "{} parameters where there are {}",
            ours.len(),
            parameters.len()
        ));
    }
    for tensor in ours {
        let name = &tensor.name;
        let is_right = match parameters.get(name).and_then(Value::as_str) {
            Some("unet") => theirs
                .get(name)
                .is_some_and(|theirs| theirs.values == tensor.values),
            Some("zero") => tensor.values.iter().all(|value| *value == 0.0),
            Some("fresh") => tensor.values.iter().any(|value| *value != 0.0),
            other => return Err(format!("{name} is not expected: {other:?}")),
        };
        if !is_right {
            return Err(format!("{name} should be {}", parameters[name]));
        }
    }
    let written: Value = serde_json::to_value(new.written_config()).unwrap();
    for (key, value) in read_json(folder.join("config.json")).as_object().unwrap() {
        let same = |found: &Value| found == value || found.as_f64() == value.as_f64() && value.is_number();
        // What is null and what has one value alone need not be said.
        let is_silent =
            written.get(key).is_none() && (value.is_null() || key == "addition_embed_type_num_heads");
        if !written.get(key).is_some_and(same) && !is_silent {
            return Err(format!("{key} is {:?} and should be {value}", written.get(key)));
        }
    }
    Ok(Outcome::Ran)
}

#[test]
fn new_networks_begin_with_their_unets_weights() {
    let mut report = Report::new();
    for folder in folders("controlnet/models") {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        if folder.join("case.json").is_file() {
            report.case(&name, check_new(&folder));
        }
    }
    report.finish();
}

#[test]
fn calls_give_diffusers_latents_and_pictures() {
    let mut report = Report::new();
    for folder in folders("controlnet/cases") {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        report.case(&name, Case::in_folder(&folder).compare());
    }
    report.finish();
}
