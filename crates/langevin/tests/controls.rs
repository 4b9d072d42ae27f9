//! Pictures that follow others by ControlNets: what may be asked for, what is refused, and where the networks come from.

mod support;

use std::{fs, path::Path};

use langevin::{
    Error, Request,
    data::{Channels, Fit, ImageInput, Picture, Preprocess},
    generate::{Aids, Plan},
    models::{AnyControl, ControlNetConfig, ControlNetModel, Model, unet2d_condition::PerLevel},
    options::ControlInput,
    pipelines::{LoadOptions, Pipeline, loaded_bytes, pack, step_together},
    random::Generator,
    weights::{Precision, named_tensors},
};
use serde_json::{Value, json};
use support::{device, read_json, read_tensors, reference, values};

fn pipeline() -> Pipeline {
    Pipeline::load(reference().join("sd/models/sd2"), &device()).unwrap()
}

fn network(name: &str) -> String {
    let path = reference().join("controlnet/models").join(name);
    path.to_str().unwrap().into()
}

/// A picture with something to follow.
fn picture() -> Picture {
    let pixels = (0..32 * 32 * 3).map(|i| if (i / 96 + i % 96 / 3) % 16 < 5 { 230 } else { 20 });
    Picture::new(32, 32, Channels::Rgb, pixels.collect()).unwrap()
}

fn control(name: &str) -> ControlInput {
    ControlInput::new(network(name), picture())
}

fn asked(control: Vec<ControlInput>) -> Request {
    Request {
        prompt: vec!["a cat in the snow".into()],
        steps: Some(3),
        seed: 5,
        control,
        ..Request::default()
    }
}

fn drawn(pipeline: &Pipeline, request: &Request) -> Vec<u8> {
    let pictures = pipeline.generate(request).unwrap();
    pictures.into_iter().flat_map(Picture::into_pixels).collect()
}

#[track_caller]
fn refused(request: &Request, parts: &[&str]) {
    let error = Plan::of(&pipeline(), request)
        .expect_err("it was planned")
        .to_string();
    assert!(!error.contains('\n'), "{error}");
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

/// A network of another shape than the pipeline's model, as files.
fn other(change: impl FnOnce(&mut Value)) -> (tempfile::TempDir, String) {
    let mut config: Value = read_json(Path::new(&network("net_a")).join("config.json"));
    change(&mut config);
    let config: ControlNetConfig = serde_json::from_value(config).unwrap();
    let network = ControlNetModel::new(&config, &device(), &mut Generator::new(1)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    network.save(folder.path()).unwrap();
    let path = folder.path().to_str().unwrap().into();
    (folder, path)
}

#[test]
fn a_control_leads_and_repeats() {
    let pipeline = pipeline();
    let plain = drawn(&pipeline, &asked(vec![]));
    let led = drawn(&pipeline, &asked(vec![control("net_a")]));
    assert_ne!(plain, led);
    assert_eq!(led, drawn(&pipeline, &asked(vec![control("net_a")])));
    let guessed = Request {
        guess_mode: true,
        ..asked(vec![control("net_a")])
    };
    assert_ne!(led, drawn(&pipeline, &guessed));
    // Without strength it is as good as none, and so is one that ends before the first step does.
    let with = |scale, end| ControlInput {
        scale: Some(scale),
        end,
        ..control("net_a")
    };
    assert_eq!(plain, drawn(&pipeline, &asked(vec![with(0.0, 1.0)])));
    assert_eq!(plain, drawn(&pipeline, &asked(vec![with(1.0, 0.3)])));
    assert_ne!(plain, drawn(&pipeline, &asked(vec![with(1.0, 0.4)])));
}

#[test]
fn a_network_that_adds_nothing_yet_changes_nothing() {
    let pipeline = pipeline();
    let (_folder, path) = other(|_| {});
    let request = asked(vec![ControlInput::new(path, picture())]);
    assert_eq!(drawn(&pipeline, &asked(vec![])), drawn(&pipeline, &request));
}

#[test]
fn samplers_that_ask_more_than_once_a_step_are_led() {
    // The number of calls and not that of steps is what a part of them is of.
    let pipeline = pipeline();
    for sampler in ["pndm", "heun", "euler-a", "lcm"] {
        let with = |control| Request {
            scheduler: Some(sampler.into()),
            steps: Some(4),
            ..asked(control)
        };
        let led = drawn(&pipeline, &with(vec![control("net_a")]));
        assert_ne!(drawn(&pipeline, &with(vec![])), led, "{sampler}");
    }
}

#[test]
fn the_same_pictures_come_of_every_place_that_a_network_lies_in() {
    let pipeline = pipeline();
    let led = drawn(&pipeline, &asked(vec![control("net_a")]));
    // A pipeline of its own, by its name and without.
    let own = ControlNetModel::open(network("net_a"), &device()).unwrap();
    let other = ControlNetModel::open(network("net_b"), &device()).unwrap();
    let both = pipeline
        .clone()
        .with_controls(vec![other.into(), own.into()])
        .unwrap();
    let named = ControlInput {
        model: Some("controlnet_1".into()),
        ..control("")
    };
    assert_eq!(led, drawn(&both, &asked(vec![named.clone()])));

    // Saved as diffusers saves it, and loaded again.
    let folder = tempfile::tempdir().unwrap();
    both.save(folder.path().join("saved")).unwrap();
    let saved = folder.path().join("saved");
    let index: Value = read_json(saved.join("model_index.json"));
    assert_eq!(index["_class_name"], "StableDiffusionControlNetPipeline");
    assert_eq!(index["controlnet"], json!(["diffusers", "MultiControlNetModel"]));
    let loaded = Pipeline::load(&saved, &device()).unwrap();
    assert_eq!(loaded.controls().len(), 2);
    assert_eq!(led, drawn(&loaded, &asked(vec![named])));
    let unnamed = || ControlInput {
        model: None,
        ..control("")
    };
    let two = drawn(&loaded, &asked(vec![unnamed(), unnamed()]));
    assert_eq!(
        two,
        drawn(&pipeline, &asked(vec![control("net_b"), control("net_a")]))
    );
    let three = asked(vec![unnamed(), unnamed(), unnamed()]);
    let error = Plan::of(&loaded, &three).unwrap_err().to_string();
    assert!(error.contains("has 2 of its own"), "{error}");
}

#[test]
fn a_single_file_gives_the_same_network() {
    // Four levels of two layers, as every published one has, and groups of 32 channels, which no file says.
    let config = ControlNetConfig {
        block_out_channels: vec![32; 4],
        cross_attention_dim: PerLevel::All(768),
        conditioning_embedding_out_channels: vec![4, 8, 8, 16],
        ..ControlNetConfig::default()
    };
    let network = ControlNetModel::new(&config, &device(), &mut Generator::new(9)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (diffusers, file) = (
        folder.path().join("control"),
        folder.path().join("control.safetensors"),
    );
    network.save(&diffusers).unwrap();
    pack(&diffusers, &file, None, None, Precision::Stored, &[]).unwrap();
    let unpacked = ControlNetModel::open(&file, &device()).unwrap();
    assert!(named_tensors(&network) == named_tensors(&unpacked));
}

#[test]
fn loops_with_and_without_controls_take_steps_together() {
    let pipeline = pipeline();
    let two = asked(vec![control("net_a"), control("net_b")]);
    let requests = [asked(vec![control("net_a")]), asked(vec![]), two, asked(vec![])];
    let plans: Vec<Plan> = requests
        .iter()
        .map(|request| Plan::of(&pipeline, request).unwrap())
        .collect();
    let alone: Vec<Vec<f32>> = plans
        .iter()
        .map(|plan| values(plan.picture(&pipeline, 0).unwrap().finish().unwrap()))
        .collect();
    let mut loops: Vec<_> = plans
        .iter()
        .map(|plan| plan.picture(&pipeline, 0).unwrap())
        .collect();
    for _ in 0..3 {
        let mut borrowed: Vec<_> = loops.iter_mut().collect();
        for result in step_together(&mut borrowed) {
            result.unwrap();
        }
    }
    for (sampling, alone) in loops.into_iter().zip(alone) {
        assert_eq!(values(sampling.finish().unwrap()), alone);
    }
}

#[test]
fn pictures_of_a_control_are_taken_in_turn() {
    let pipeline = pipeline();
    let other = Picture::new(32, 32, Channels::Rgb, vec![90; 32 * 32 * 3]).unwrap();
    let with = |picture: ImageInput, count| Request {
        count: Some(count),
        seeds: vec![5],
        ..asked(vec![ControlInput {
            picture,
            ..control("net_a")
        }])
    };
    let several = ImageInput::Several(vec![picture().into(), other.clone().into()]);
    let both = drawn(&pipeline, &with(several, 2));
    let (first, second) = both.split_at(both.len() / 2);
    assert_eq!(first, drawn(&pipeline, &with(picture().into(), 1)));
    assert_eq!(second, drawn(&pipeline, &with(other.into(), 1)));
}

#[test]
fn pictures_are_as_large_as_those_that_they_follow() {
    let wide = picture().into_pixels().into_iter().take(24 * 32 * 3).collect();
    let wide = Picture::new(24, 32, Channels::Rgb, wide).unwrap();
    let request = asked(vec![ControlInput::new(network("net_a"), wide)]);
    let plan = Plan::of(&pipeline(), &request).unwrap();
    let shown = &plan.control_pictures()[0];
    assert_eq!((shown.height(), shown.width()), (24, 32));
    let drawn = pipeline().generate(&request).unwrap();
    assert_eq!((drawn[0].height(), drawn[0].width()), (24, 32));
}

#[test]
fn every_picture_of_a_batch_is_led() {
    // What led half of a batch, or the first batch alone, elsewhere: Mikubill/sd-webui-controlnet#680 and #184.
    let pipeline = pipeline();
    let with = |batch_size, guess_mode| Request {
        count: Some(4),
        seeds: vec![1, 2, 3, 4],
        batch_size,
        guess_mode,
        ..asked(vec![ControlInput {
            end: 0.7,
            ..control("net_a")
        }])
    };
    for guess_mode in [false, true] {
        let together = drawn(&pipeline, &with(4, guess_mode));
        assert_eq!(together, drawn(&pipeline, &with(1, guess_mode)));
        for (place, picture) in together.chunks(together.len() / 4).enumerate() {
            let alone = Request {
                count: Some(1),
                seeds: vec![place as u64 + 1],
                ..with(1, guess_mode)
            };
            assert_eq!(picture, drawn(&pipeline, &alone), "{place}");
        }
    }
    // With one generator for all as well, where batches of pictures follow one another.
    let one = |batch_size| Request {
        seeds: vec![],
        ..with(batch_size, true)
    };
    assert_eq!(drawn(&pipeline, &one(4)), drawn(&pipeline, &one(2)));
}

#[test]
fn the_third_of_several_networks_is_kept() {
    // diffusers called its folder controlnet_1_2 once, and did not find it again: huggingface/diffusers#7814.
    let network = || AnyControl::from(ControlNetModel::open(network("net_a"), &device()).unwrap());
    let three = pipeline()
        .with_controls(vec![network(), network(), network()])
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("saved");
    three.save(&saved).unwrap();
    assert_eq!(Pipeline::load(&saved, &device()).unwrap().controls().len(), 3);
    // Each counts as memory, and not the first alone, which the index names.
    let one = AnyControl::bytes_at(self::network("net_a")).unwrap();
    let bytes = |folder: &Path| loaded_bytes(folder, &LoadOptions::default()).unwrap();
    let without = folder.path().join("without");
    pipeline().save(&without).unwrap();
    assert_eq!(bytes(&saved), bytes(&without) + 3 * one);
    fs::rename(saved.join("controlnet_2"), saved.join("controlnet_1_2")).unwrap();
    assert_eq!(Pipeline::load(&saved, &device()).unwrap().controls().len(), 3);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let with = |change: fn(&mut ControlInput)| {
        let mut control = control("net_a");
        change(&mut control);
        asked(vec![control])
    };
    refused(&with(|c| c.scale = Some(f64::NAN)), &["`control`", "NaN"]);
    refused(&with(|c| (c.start, c.end) = (0.7, 0.2)), &["from 0.7 to 0.2"]);
    refused(&with(|c| c.end = 1.5), &["from 0 to 1"]);
    refused(
        &with(|c| c.model = None),
        &["no ControlNet of its own", "MODEL=PICTURE"],
    );
    refused(
        &with(|c| c.model = Some("not/there".into())),
        &["not/there", "no such ControlNet"],
    );
    let idle = Request {
        guess_mode: true,
        ..asked(vec![])
    };
    refused(&idle, &["`guess_mode` does nothing without `control`"]);
}

#[test]
fn a_network_for_another_model_is_refused() {
    let refuses = |change: fn(&mut Value), parts: &[&str]| {
        let (_folder, path) = other(change);
        refused(&asked(vec![ControlInput::new(path, picture())]), parts);
    };
    refuses(
        |config| config["cross_attention_dim"] = json!(768),
        &[
            "made for another model",
            "768 numbers a token (Stable Diffusion 1)",
            "24",
        ],
    );
    refuses(
        |config| {
            config["addition_embed_type"] = json!("text_time");
            config["addition_time_embed_dim"] = json!(8);
            config["projection_class_embeddings_input_dim"] = json!(68);
        },
        &["Stable Diffusion XL", "a text alone"],
    );
    refuses(|config| config["in_channels"] = json!(9), &["9 channels", "4"]);
    refuses(
        |config| config["block_out_channels"] = json!([16, 64]),
        &["[16, 64]", "[16, 32]"],
    );
    refuses(
        |config| config["layers_per_block"] = json!(2),
        &["6 outputs", "with 4"],
    );
    refuses(
        |config| config["conditioning_embedding_out_channels"] = json!([4, 8]),
        &["2 times smaller", "4 times"],
    );
    refuses(
        |config| config["conditioning_channels"] = json!(5),
        &["5 channels"],
    );
}

#[test]
fn what_is_no_network_is_named() {
    let unet = reference().join("sd/models/sd2/unet");
    let request = asked(vec![ControlInput::new(unet.to_str().unwrap(), picture())]);
    refused(&request, &["UNet2DConditionModel", "ControlNetModel is needed"]);
    // A text encoder's, or a whole pipeline's.
    let whole = reference().join("sd/models/sd2");
    let request = asked(vec![ControlInput::new(whole.to_str().unwrap(), picture())]);
    refused(&request, &["config.json"]);
    let vae = reference().join("single_file/vae/vae.safetensors");
    let request = asked(vec![ControlInput::new(vae.to_str().unwrap(), picture())]);
    refused(&request, &["holds no ControlNet; it holds vae"]);
    // A1111's files of differences.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("difference.safetensors");
    let header = br#"{"difference":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    fs::write(&path, bytes).unwrap();
    let request = asked(vec![ControlInput::new(path.to_str().unwrap(), picture())]);
    refused(&request, &["differs by from another model"]);
}

#[test]
fn a_program_decides_where_networks_come_from() {
    let pipeline = pipeline();
    let request = asked(vec![control("net_a")]);
    // By default nothing is loaded: who may name a model may not read this machine's files.
    let error = Plan::with(&pipeline, &request, Aids::default()).unwrap_err();
    assert!(error.to_string().contains("there is no ControlNet"), "{error}");
    let load = |_: &str| ControlNetModel::open(network("net_b"), &device()).map(AnyControl::from);
    let aids = Aids {
        controls: &load,
        ..Aids::default()
    };
    let plan = Plan::with(&pipeline, &request, aids).unwrap();
    let found = plan.run(&pipeline, &mut ()).unwrap().unwrap();
    let found: Vec<u8> = found.into_iter().flat_map(Picture::into_pixels).collect();
    assert_eq!(found, drawn(&pipeline, &asked(vec![control("net_b")])));
}

/// A picture of the file of what OpenCV makes of some.
fn stored(stored: &support::Stored) -> Picture {
    let pixels: Vec<u8> = stored.values.iter().map(|&value| value as u8).collect();
    let channels = match stored.shape.len() {
        2 => Channels::Grey,
        _ => Channels::Rgb,
    };
    Picture::new(stored.shape[0], stored.shape[1], channels, pixels).unwrap()
}

#[test]
fn the_edges_are_opencvs_and_so_is_the_blur() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/preprocess/opencv.safetensors");
    let all = read_tensors(own);
    let mut compared = 0;
    for (name, expected) in &all {
        let Some(start) = name.find(".canny").or(name.find(".blur")) else {
            continue;
        };
        let source = &all[&name[..start]];
        let preprocess: Preprocess = name[start + 1..].parse().unwrap();
        let found = preprocess.apply(stored(source));
        let expected = stored(expected);
        // Edges to the bit; OpenCV blurs in fixed point of eight bits, once for rows and once for columns.
        let off = if name.contains(".canny") { 0 } else { 2 };
        let pairs = found.pixels().iter().zip(expected.pixels());
        let most = pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(most <= off, "{name}: {most}");
        assert_eq!(found.pixels().len(), expected.pixels().len());
        compared += 1;
    }
    assert_eq!(compared, 44);
}

#[test]
fn the_pictures_of_controls_are_preprocessed_and_brought_to_the_size() {
    let pipeline = pipeline();
    let shown = |preprocess: &[&str], resize, controls: Vec<ControlInput>| {
        let request = Request {
            size: Some("48x32".parse().unwrap()),
            control_preprocess: preprocess.iter().map(|text| text.parse().unwrap()).collect(),
            control_resize: resize,
            ..asked(controls)
        };
        Plan::of(&pipeline, &request).map(|plan| plan.control_pictures().to_vec())
    };
    let two = || vec![control("net_a"), control("net_b")];
    let once = shown(&["invert"], Fit::Stretch, two()).unwrap();
    let plain = shown(&[], Fit::Stretch, two()).unwrap();
    assert_eq!((once[0].height(), once[0].width()), (32, 48));
    let turned: Vec<u8> = plain[0].pixels().iter().map(|value| 255 - value).collect();
    assert_eq!(once[0].pixels(), turned);
    assert_eq!(once[0], once[1]);
    let each = shown(&["none", "canny"], Fit::Stretch, two()).unwrap();
    assert_eq!(each[0], plain[0]);
    // A network for colours is shown grey ones in three equal channels.
    let is_edge = |pixel: &[u8]| pixel == [0; 3] || pixel == [255; 3];
    assert!(each[1].pixels().chunks(3).all(is_edge));
    assert!(each[1].pixels().contains(&255));
    // The middle of a picture that is cut, or that fits inside, is not stretched.
    let cut = shown(&[], Fit::Cover, two()).unwrap();
    let inside = shown(&[], Fit::Inside, two()).unwrap();
    assert!(cut[0] != plain[0] && inside[0] != plain[0] && cut[0] != inside[0]);
    let error = shown(&["canny", "blur", "grey"], Fit::Stretch, two()).unwrap_err();
    assert!(
        error.to_string().contains("3 times and `control` 2 times"),
        "{error}"
    );
    let error = shown(&["canny"], Fit::Stretch, vec![]).unwrap_err();
    assert!(
        error.to_string().contains("does nothing without `control`"),
        "{error}"
    );
}

#[test]
fn a_model_of_pictures_is_not_led() {
    let pipeline = Pipeline::load(reference().join("pipelines/ddim"), &device()).unwrap();
    let request = Request {
        control: vec![control("net_a")],
        ..Request::default()
    };
    let error = Plan::of(&pipeline, &request).unwrap_err().to_string();
    assert!(
        error.contains("UNet2DConditionModel") && error.contains("UNet2DModel"),
        "{error}"
    );
}

#[test]
fn a_configuration_that_makes_no_network_is_refused() {
    for (key, value, part) in [
        ("conditioning_embedding_out_channels", json!([]), "1 to 8"),
        (
            "conditioning_embedding_out_channels",
            json!([16, 1_u64 << 20]),
            "1048576",
        ),
        ("conditioning_embedding_out_channels", json!([16, 0]), "0"),
        ("conditioning_channels", json!(0), "conditioning_channels is 0"),
        ("controlnet_conditioning_channel_order", json!("gbr"), "gbr"),
        ("block_out_channels", json!([]), "1 to 16 levels"),
        ("layers_per_block", json!(1_u64 << 40), "layers_per_block"),
        ("down_block_types", json!(["DownBlock2D"]), "down_block_types"),
        ("mid_block_type", json!("UNetMidBlock2D"), "UNetMidBlock2D"),
        (
            "num_attention_heads",
            json!(8),
            "not there yet for a ControlNetModel",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut config: Value = read_json(Path::new(&network("net_a")).join("config.json"));
        config[key] = value;
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let weights = "diffusion_pytorch_model.safetensors";
        fs::copy(
            Path::new(&network("net_a")).join(weights),
            folder.path().join(weights),
        )
        .unwrap();
        let error = match ControlNetModel::open(folder.path(), &device()) {
            Err(error @ (Error::Config(_) | Error::File { .. } | Error::Unsupported(_))) => error.to_string(),
            Err(error) => panic!("{key}: {error:?}"),
            Ok(_) => panic!("{key}: it was opened"),
        };
        assert!(error.contains(part), "{key}: {error}");
    }
}
