//! T2I-Adapters beyond the calls that are compared: where they come from, what is refused, and in whose company they draw.

mod support;

use std::fs;

use langevin::{
    Request,
    data::{Channels, ImageInput, Picture},
    generate::Plan,
    models::{AdapterType, AnyControl, AnyControlConfig, Model, T2IAdapter, T2IAdapterConfig},
    options::ControlInput,
    pipelines::{Pipeline, step_together},
    random::Generator,
    weights::{Checkpoint, NamedTensor, named_tensors, write_tensors},
};
use serde_json::json;
use support::{call::Case, device, own_reference, read_json, values};

/// The pipeline of a compared call, without adapters of its own.
fn pipeline() -> Pipeline {
    let folder = own_reference().join("t2i_adapter/cases/sd_full");
    let case = Case::in_folder(&folder);
    let loaded = Pipeline::load(case.pipeline_folder().path(), &device()).unwrap();
    loaded.with_controls(Vec::new()).unwrap()
}

fn adapter(name: &str) -> String {
    let path = own_reference().join("t2i_adapter/models").join(name);
    path.to_str().unwrap().into()
}

fn picture() -> ImageInput {
    let pixels = (0..24 * 24 * 3).map(|i| if i / 72 % 8 < 3 { 220 } else { 30 });
    Picture::new(24, 24, Channels::Rgb, pixels.collect())
        .unwrap()
        .into()
}

fn asked(controls: &[&str]) -> Request {
    Request {
        prompt: vec!["a boat".into()],
        steps: Some(3),
        size: Some("24".parse().unwrap()),
        control: controls
            .iter()
            .map(|name| ControlInput::new(*name, picture()))
            .collect(),
        ..Request::default()
    }
}

fn drawn(pipeline: &Pipeline, request: &Request) -> Vec<Picture> {
    pipeline.generate(request).unwrap()
}

fn refused(pipeline: &Pipeline, request: &Request, parts: &[&str]) {
    let error = pipeline.generate(request).unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

#[test]
fn an_adapter_leads_and_repeats_and_ends_where_it_is_to() {
    let pipeline = pipeline();
    let plain = drawn(&pipeline, &asked(&[]));
    let led = drawn(&pipeline, &asked(&[&adapter("full")]));
    assert_ne!(plain, led);
    assert_eq!(led, drawn(&pipeline, &asked(&[&adapter("full")])));
    for (scale, end) in [(0.0, 1.0), (1.0, 0.1)] {
        let mut request = asked(&[&adapter("full")]);
        (request.control[0].scale, request.control[0].end) = (Some(scale), end);
        assert_eq!(plain, drawn(&pipeline, &request), "{scale} {end}");
    }
    // Where nobody says, also from a picture, it leads as strongly as it was trained.
    let mut request = asked(&[&adapter("full")]);
    request.init_image = Some(picture());
    let mut said = request.clone();
    said.control[0].scale = Some(1.0);
    assert_eq!(drawn(&pipeline, &request), drawn(&pipeline, &said));
}

/// The names that the authors' files have for these tensors of diffusers'.
fn authors_name(name: &str, layers: usize, is_light: bool) -> String {
    let name = name.strip_prefix("adapter.").unwrap();
    let Some(rest) = name.strip_prefix("body.") else {
        return name.into();
    };
    let parts: Vec<&str> = rest.split('.').collect();
    match (parts.as_slice(), is_light) {
        ([level, "resnets", layer, rest @ ..], true) => {
            format!("body.{level}.body.{layer}.{}", rest.join("."))
        }
        ([level, "resnets", layer, rest @ ..], false) => {
            let place = level.parse::<usize>().unwrap() * layers + layer.parse::<usize>().unwrap();
            format!("body.{place}.{}", rest.join("."))
        }
        ([level, rest @ ..], false) => {
            format!(
                "body.{}.{}",
                level.parse::<usize>().unwrap() * layers,
                rest.join(".")
            )
        }
        _ => name.into(),
    }
}

#[test]
fn single_files_of_both_layouts_are_the_same_adapters() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["full", "grey", "light"] {
        let own = T2IAdapter::load(adapter(name), &device()).unwrap();
        let config = own.config();
        let is_light = config.adapter_type == AdapterType::LightAdapter;
        let tensors = named_tensors(&own);
        let renamed = |tensor: &NamedTensor| NamedTensor {
            name: authors_name(&tensor.name, config.num_res_blocks, is_light),
            ..tensor.clone()
        };
        let bare = |tensor: &NamedTensor| NamedTensor {
            name: tensor.name.replace("adapter.", ""),
            ..tensor.clone()
        };
        for (ending, tensors) in [
            ("authors", tensors.iter().map(renamed).collect::<Vec<_>>()),
            ("bare", tensors.iter().map(bare).collect()),
            ("diffusers", tensors.clone()),
        ] {
            let file = folder.path().join(format!("{name}-{ending}.safetensors"));
            write_tensors(&file, &tensors).unwrap();
            let (found, _) = T2IAdapterConfig::of_weights(Checkpoint::open(&file).unwrap())
                .unwrap()
                .unwrap();
            assert_eq!(found.channels, config.channels, "{name} {ending}");
            let AnyControlConfig::T2IAdapter(found) = AnyControlConfig::at(&file).unwrap() else {
                panic!("{name} {ending} is no adapter");
            };
            let numbers = |config: &T2IAdapterConfig| {
                (
                    config.in_channels,
                    config.num_res_blocks,
                    config.downscale_factor,
                    config.adapter_type,
                )
            };
            assert_eq!(numbers(&found), numbers(config), "{name} {ending}");
            let AnyControl::T2IAdapter(loaded) = AnyControl::open(&file, &device()).unwrap() else {
                panic!("{name} {ending} is no adapter");
            };
            assert_eq!(
                named_tensors(loaded.as_ref()),
                tensors_of(&own),
                "{name} {ending}"
            );
        }
    }
}

fn tensors_of(adapter: &T2IAdapter) -> Vec<NamedTensor> {
    named_tensors(adapter)
}

#[test]
fn a_pipeline_with_adapters_of_its_own_is_saved_as_diffusers_has_it() {
    let pipeline = pipeline();
    let open = |name: &str| AnyControl::open(adapter(name), &device()).unwrap();
    for (names, class) in [
        (vec!["full"], "T2IAdapter"),
        (vec!["full", "grey"], "MultiAdapter"),
    ] {
        let own = pipeline
            .clone()
            .with_controls(names.iter().map(|name| open(name)).collect())
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        own.save(folder.path()).unwrap();
        let index = read_json(folder.path().join("model_index.json"));
        assert_eq!(index["_class_name"], "StableDiffusionAdapterPipeline");
        assert_eq!(index["adapter"], json!(["diffusers", class]));
        let again = Pipeline::load(folder.path(), &device()).unwrap();
        assert_eq!(again.control_names().next().as_deref(), Some("adapter"));
        let unnamed = |pipeline: &Pipeline| {
            let mut request = asked(&vec![""; names.len()]);
            request
                .control
                .iter_mut()
                .for_each(|control| control.model = None);
            drawn(pipeline, &request)
        };
        let paths: Vec<String> = names.iter().map(|name| adapter(name)).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        assert_eq!(unnamed(&again), drawn(&pipeline, &asked(&paths)));
    }
}

#[test]
fn loops_with_adapters_and_without_step_together_as_they_do_alone() {
    let pipeline = pipeline();
    let plans: Vec<Plan> = [
        vec![],
        vec!["full"],
        vec!["light"],
        vec!["full", "grey"],
        vec!["full"],
    ]
    .iter()
    .enumerate()
    .map(|(place, names)| {
        let paths: Vec<String> = names.iter().map(|name| adapter(name)).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let mut request = asked(&paths);
        request.seed = place as u64;
        if place == 4 {
            request.control[0].scale = Some(0.3);
        }
        Plan::of(&pipeline, &request).unwrap()
    })
    .collect();
    let alone: Vec<Vec<f32>> = plans
        .iter()
        .map(|plan| values(plan.picture(&pipeline, 0).unwrap().finish().unwrap()))
        .collect();
    let mut loops: Vec<_> = plans
        .iter()
        .map(|plan| plan.picture(&pipeline, 0).unwrap())
        .collect();
    while loops[0].done() < loops[0].total() {
        let mut all: Vec<_> = loops.iter_mut().collect();
        for result in step_together(&mut all) {
            result.unwrap();
        }
    }
    for (sampling, alone) in loops.into_iter().zip(alone) {
        assert_eq!(values(sampling.finish().unwrap()), alone);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let pipeline = pipeline();
    let other = Pipeline::load(own_reference().join("sd/models/sd1"), &device()).unwrap();
    let parts = [
        "the T2I-Adapter is made for another model",
        "[8, 16, 16]",
        "[32, 64]",
    ];
    refused(&other, &asked(&[&adapter("full")]), &parts);
    let mut request = asked(&[&adapter("full")]);
    request.guess_mode = true;
    refused(&pipeline, &request, &["`guess_mode` is for ControlNets"]);
    // The adapter's factor, where it is more than the autoencoder's.
    let folder = tempfile::tempdir().unwrap();
    let config = T2IAdapterConfig {
        downscale_factor: 4,
        ..T2IAdapter::load(adapter("full"), &device())
            .unwrap()
            .config()
            .clone()
    };
    let coarse = T2IAdapter::new(&config, &device(), &mut Generator::new(1)).unwrap();
    coarse.save(folder.path()).unwrap();
    let mut request = asked(&[folder.path().to_str().unwrap()]);
    request.size = Some("24x26".parse().unwrap());
    refused(&pipeline, &request, &["4 divides"]);
    // A pipeline has those of one kind.
    let net = own_reference().join("controlnet/models/net_a");
    let of_another = AnyControl::open(net, &device()).unwrap();
    let full = AnyControl::open(adapter("full"), &device()).unwrap();
    assert!(pipeline.clone().with_controls(vec![full, of_another]).is_err());
    // What stands in a configuration is held to what there is.
    for (key, value, part) in [
        ("channels", json!([]), "channels has 0 entries"),
        ("downscale_factor", json!(0), "downscale_factor is 0"),
        ("adapter_type", json!("full_adapter_xxl"), "full_adapter_xxl"),
        ("num_res_blocks", json!(1000), "num_res_blocks is 1000"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        support::call::copy_folder(adapter("full").as_ref(), folder.path());
        let path = folder.path().join("config.json");
        let mut config = read_json(&path);
        config[key] = value;
        fs::write(&path, config.to_string()).unwrap();
        let error = AnyControl::open(folder.path(), &device())
            .unwrap_err()
            .to_string();
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}
