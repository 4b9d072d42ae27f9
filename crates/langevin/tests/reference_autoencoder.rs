//! The autoencoders against what PyTorch and diffusers compute: every folder under `autoencoder` that has a `case.json`, by its `class`.
//!
//! ```python
//! posterior = vae.encode(x).latent_dist
//! latents = posterior.mean + torch.exp(posterior.logvar / 2) * noise
//! loss = F.mse_loss(vae.decode(latents).sample, x) + kl_weight * posterior.kl().mean(); loss.backward()
//! ```
//!
//! Where a folder has a `call.json` instead, it is a whole pipeline's, which is not compared here. `conditional/autoencoder_kl`, where there
//! is one, is an older case of fewer tensors.

mod support;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Device, Gradients, Int, Tensor},
};
use langevin::{
    Error,
    models::{
        AutoencoderKL, AutoencoderTiny, Checkpoint, Model, ModelConfig, VQModel,
        autoencoder::{Tiling, one_by_one},
        weights::{self, NamedTensor},
    },
    ops,
    random::Generator,
};
use serde_json::Value;
use support::{
    Outcome, Report, Stored, folders, read_json, read_tensors, reference, relative_difference, values, within,
};

const TOLERANCE: f64 = 1e-4;

/// A folder with a model and what it gives.
struct Case {
    folder: PathBuf,
    case: Value,
    io: BTreeMap<String, Stored>,
    device: Device,
}

impl Case {
    fn of(folder: PathBuf) -> Self {
        Self {
            case: read_json(folder.join("case.json")),
            io: read_tensors(folder.join("io.safetensors")),
            folder,
            device: support::device(),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.io.contains_key(name)
    }

    fn tensor(&self, name: &str) -> Tensor<4> {
        self.io[name].tensor(&self.device)
    }

    fn compare<const D: usize>(&self, name: &str, found: Tensor<D>) -> Result<(), String> {
        let Some(expected) = self.io.get(name) else {
            return Err(format!("the case has no {name}"));
        };
        if found.dims().as_slice() != expected.shape {
            return Err(format!(
                "{name} has shape {:?} where {:?} is right",
                found.dims(),
                expected.shape
            ));
        }
        let difference = relative_difference(&values(found.inner()), &expected.f32());
        within(name, difference, TOLERANCE)
    }

    /// The loss, its gradient at the pictures, and the norm of that at every parameter.
    fn compare_gradients<M: Module>(&self, model: &M, x: &Tensor<4>, loss: Tensor<1>) -> Result<(), String> {
        let gradients = loss.backward();
        let expected = self.io["loss"].item();
        let found = f64::from(loss.into_scalar::<f32>());
        within("loss", (found - expected).abs() / expected, TOLERANCE)?;
        let at_x = x.grad(&gradients).ok_or("the pictures have no gradient")?;
        let difference = relative_difference(&values(at_x), &self.io["grad_x"].f32());
        within("grad_x", difference, TOLERANCE)?;
        self.compare_norms(model, &gradients)
    }

    fn compare_norms<M: Module>(&self, model: &M, gradients: &Gradients) -> Result<(), String> {
        let mut found = GradientNorms {
            gradients,
            norms: vec![],
        };
        model.visit(&mut found);
        let names = weights::parameter_names(model);
        let expected = |name: &str| self.io.get(&format!("grad_norm.{name}")).map(Stored::item);
        let known = self.io.keys().filter(|key| key.starts_with("grad_norm.")).count();
        let largest = names.iter().filter_map(|name| expected(name)).fold(0.0, f64::max);
        if names.len() != known || largest == 0.0 {
            return Err(format!(
                "{} parameters where the reference has {known} gradients",
                names.len()
            ));
        }
        for (name, norm) in names.iter().zip(found.norms) {
            let expected = expected(name).ok_or(format!("the reference has no gradient of {name}"))?;
            within(
                &format!("gradient norm of {name}"),
                (norm - expected).abs() / largest,
                TOLERANCE,
            )?;
        }
        Ok(())
    }
}

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

/// The library's answer, or what the test reports.
fn ok<T>(result: langevin::Result<T>) -> Result<T, String> {
    result.map_err(|e| e.to_string())
}

/// The sizes that a case names, which are also the class's own where `own` is given.
fn tiling(case: &Case, own: Option<Tiling>) -> Result<Tiling, String> {
    let size = |name: &str| case.case["tiling"][name].as_u64().map(|size| size as usize);
    let named = (|| {
        Some(Tiling {
            tile_sample_min_size: size("tile_sample_min_size")?,
            tile_latent_min_size: size("tile_latent_min_size")?,
            tile_overlap_factor: case.case["tiling"]["tile_overlap_factor"].as_f64()?,
        })
    })();
    let named = named.ok_or("the case's tiling lacks a size")?;
    match own.filter(|own| *own != named) {
        None => Ok(named),
        Some(own) => Err(format!("the tiling is {own:?} where {named:?} is right")),
    }
}

fn kl(case: &Case, model: &AutoencoderKL) -> Result<(), String> {
    let posterior = ok(model.encode(case.tensor("x")))?;
    case.compare("mean", posterior.mean.clone())?;
    case.compare("logvar", posterior.log_variance.clone())?;
    case.compare("kl", posterior.kl())?;
    let noise = case.tensor("noise");
    if let Some(seed) = case.case["seed"].as_u64() {
        let drawn = Generator::new(seed).randn(noise.dims().iter().product());
        within(
            "noise",
            relative_difference(&drawn, &case.io["noise"].f32()),
            1e-6,
        )?;
    }
    let sample = ok(posterior.sample(noise))?;
    case.compare("sample", sample.clone())?;
    case.compare("decoded_sample", ok(model.decode(sample.clone()))?)?;
    case.compare("decoded_mode", ok(model.decode(posterior.mode()))?)?;
    let sliced = ok(one_by_one(sample, |latents| model.decode(latents)))?;
    case.compare("decoded_sample", sliced)?;
    kl_gradients(case, model)?;
    kl_large(case, model)
}

fn kl_gradients(case: &Case, model: &AutoencoderKL) -> Result<(), String> {
    let model = model.clone().train();
    let training = case.device.clone().autodiff();
    let x = case.io["x"].tensor::<4>(&training).require_grad();
    let posterior = ok(model.encode(x.clone()))?;
    let latents = ok(posterior.sample(case.io["noise"].tensor(&training)))?;
    let decoded = ok(model.decode(latents))?;
    let weight = case.case["kl_weight"]
        .as_f64()
        .ok_or("the case has no kl_weight")?;
    let loss = (decoded - x.clone()).square().mean() + posterior.kl().mean() * weight;
    case.compare_gradients(&model, &x, loss)
}

fn kl_large(case: &Case, model: &AutoencoderKL) -> Result<(), String> {
    if !case.has("big_x") {
        return Ok(());
    }
    let (pictures, latents) = (case.tensor("big_x"), case.tensor("big_latents"));
    case.compare("big_mean", ok(model.encode(pictures.clone()))?.mean)?;
    case.compare("big_decoded", ok(model.decode(latents.clone()))?)?;
    let tiling = tiling(case, Some(Tiling::of(model.config())))?;
    let tiled = ok(model.encode_tiled(pictures, &tiling))?;
    case.compare("tiled_mean", tiled.mean)?;
    case.compare("tiled_logvar", tiled.log_variance)?;
    case.compare("tiled_decoded", ok(model.decode_tiled(latents.clone(), &tiling))?)?;
    let half = Tiling {
        tile_overlap_factor: 0.5,
        ..tiling
    };
    case.compare(
        "tiled_overlap_half_decoded",
        ok(model.decode_tiled(latents, &half))?,
    )
}

fn tiny(case: &Case, model: &AutoencoderTiny) -> Result<(), String> {
    let latents = ok(model.encode(case.tensor("x")))?;
    case.compare("latents", latents.clone())?;
    case.compare("decoded", ok(model.decode(latents))?)?;
    case.compare("forward", ok(model.quantized_forward(case.tensor("x")))?)?;
    let wide = case.tensor("latents_wide");
    case.compare("decoded_wide", ok(model.decode(wide.clone()))?)?;

    let trained = model.clone().train();
    let x = case.io["x"]
        .tensor::<4>(&case.device.clone().autodiff())
        .require_grad();
    let decoded = ok(trained
        .encode(x.clone())
        .and_then(|latents| trained.decode(latents)))?;
    case.compare_gradients(&trained, &x, (decoded - x.clone()).square().mean())?;

    if !case.has("big_x") {
        return Ok(());
    }
    let tiling = tiling(case, None)?;
    let tiled = ok(model.encode_tiled(case.tensor("big_x"), &tiling))?;
    case.compare("tiled_latents", tiled)?;
    case.compare("tiled_decoded", ok(model.decode_tiled(wide, &tiling))?)
}

fn vq(case: &Case, model: &VQModel) -> Result<(), String> {
    let latents = ok(model.encode(case.tensor("x")))?;
    case.compare("latents", latents.clone())?;
    let quantized = ok(model.quantize(latents.clone()))?;
    let codes: Vec<i64> = quantized
        .codes
        .clone()
        .into_data()
        .convert::<i64>()
        .try_into_vec()
        .unwrap();
    if quantized.codes.dims().as_slice() != case.io["codes"].shape || codes != case.io["codes"].integers {
        return Err("the codes differ".into());
    }
    case.compare("quantized", quantized.quantized)?;
    if case.has("commit_loss") {
        case.compare("commit_loss", quantized.commitment)?;
    }
    case.compare("decoded", ok(model.decode(latents.clone()))?)?;
    case.compare("decoded_not_quantized", ok(model.decode_not_quantized(latents))?)
}

/// Loads the case's model, compares, and saves and loads it again.
fn check_class<M: Model>(
    case: &Case,
    compare: fn(&Case, &M) -> Result<(), String>,
) -> Result<Outcome, String> {
    let model = match M::load(&case.folder, &case.device) {
        Err(Error::Unsupported(what)) => return Ok(Outcome::NotSupported(what)),
        other => ok(other)?,
    };
    if let Some(factor) = case.case["down_factor"].as_u64() {
        let found = model.config().size_divisor() as u64;
        if found != factor {
            return Err(format!("the factor is {found} where {factor} is right"));
        }
    }
    compare(case, &model)?;
    let folder = tempfile::tempdir().unwrap();
    ok(model.save(folder.path()))?;
    let again = ok(M::load(folder.path(), &case.device))?;
    if weights::named_tensors(&again) != weights::named_tensors(&model) {
        return Err("what was saved is not what was loaded".into());
    }
    Ok(Outcome::Ran)
}

fn check(folder: &Path) -> Result<Outcome, String> {
    let case = Case::of(folder.to_path_buf());
    match case.case["class"].as_str().unwrap_or_default() {
        "AutoencoderKL" => check_class(&case, kl),
        "AutoencoderTiny" => check_class(&case, tiny),
        "VQModel" => check_class(&case, vq),
        other => Ok(Outcome::NotSupported(format!("{other} is not there yet"))),
    }
}

#[test]
fn every_autoencoder_gives_the_same_latents_pictures_and_gradients() {
    let mut report = Report::new();
    for folder in folders(reference().join("autoencoder")) {
        if folder.join("case.json").is_file() {
            report.case(&folder.display().to_string(), check(&folder));
        }
    }
    report.finish();
}

#[test]
fn the_older_case_gives_the_same_posterior_and_picture() {
    let folder = reference().join("conditional/autoencoder_kl");
    if !folder.is_dir() {
        return;
    }
    let case = Case {
        case: Value::Null,
        io: read_tensors(folder.join("io.safetensors")),
        device: support::device(),
        folder,
    };
    let model = AutoencoderKL::load(&case.folder, &case.device).unwrap();
    let posterior = model.encode(case.tensor("x")).unwrap();
    case.compare("mean", posterior.mean.clone()).unwrap();
    case.compare("logvar", posterior.log_variance.clone()).unwrap();
    case.compare("decoded", model.decode(posterior.mode()).unwrap())
        .unwrap();
}

/// The attention's parameters as they were named before diffusers 0.15, and shaped as convolutions.
fn as_then(tensor: NamedTensor) -> NamedTensor {
    let NamedTensor {
        mut name,
        mut shape,
        values,
    } = tensor;
    for (today, then) in [
        ("to_q", "query"),
        ("to_k", "key"),
        ("to_v", "value"),
        ("to_out.0", "proj_attn"),
    ] {
        if name.contains(&format!("attentions.0.{today}.")) {
            name = name.replace(today, then);
            if shape.len() == 2 {
                shape.extend([1, 1]);
            }
        }
    }
    NamedTensor { name, shape, values }
}

#[test]
fn early_names_and_convolutions_of_one_pixel_load_as_well() {
    let device = support::device();
    let mut found = 0;
    for folder in folders(reference().join("autoencoder")) {
        let Ok(model) = AutoencoderKL::load(&folder, &device) else {
            continue;
        };
        let expected = weights::named_tensors(&model);
        let then: Vec<NamedTensor> = expected.iter().cloned().map(as_then).collect();
        if then == expected {
            continue;
        }
        found += 1;
        let early = tempfile::tempdir().unwrap();
        let path = early.path().join(weights::FILE_NAME);
        weights::write_tensors(&path, &then).unwrap();
        let mut checkpoint = Checkpoint::in_folder(early.path()).unwrap();
        let loaded = AutoencoderKL::with_weights(model.config(), &mut checkpoint, &device).unwrap();
        assert!(weights::named_tensors(&loaded) == expected);
    }
    assert!(found > 0, "no autoencoder has attention");
}

#[test]
fn codes_are_the_same_however_many_are_looked_up_at_once() {
    let device = support::device();
    for folder in folders(reference().join("autoencoder")) {
        let Ok(model) = VQModel::load(&folder, &device) else {
            continue;
        };
        // More latents than are compared at once.
        let shape = [3, model.config().embed_dim(), 24, 19];
        let drawn = Generator::new(3).randn(shape.iter().product());
        let latents = Tensor::<4>::from_data(burn::tensor::TensorData::new(drawn, shape), &device);
        let together: Tensor<3, Int> = model.quantize(latents.clone()).unwrap().codes;
        for picture in 0..shape[0] {
            let alone = model.quantize(latents.clone().narrow(0, picture, 1)).unwrap();
            let same = together.clone().narrow(0, picture, 1).equal(alone.codes);
            assert!(same.all().into_scalar::<bool>());
        }
    }
}
