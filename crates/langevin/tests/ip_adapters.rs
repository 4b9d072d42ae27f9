//! IP-Adapters beyond the calls that are compared: where they come from, what is refused, and in whose company they draw.

mod support;

use std::fs;

use langevin::{
    Request,
    data::{Channels, ImageInput, Picture},
    generate::{Aids, Plan},
    models::IpAdapterModel,
    options::IpAdapterInput,
    pipelines::{Pipeline, step_together},
};
use support::{device, own_reference, values};

fn pipeline() -> Pipeline {
    Pipeline::load(own_reference().join("sd/models/sd1"), &device()).unwrap()
}

fn file(name: &str) -> String {
    let path = own_reference().join("ip_adapter").join(name);
    path.to_str().unwrap().into()
}

fn picture(kind: u8) -> ImageInput {
    let pixels = (0..40 * 30 * 3).map(|i| {
        if i / 90 % 10 < 4 {
            20 * kind
        } else {
            240 - 20 * kind
        }
    });
    Picture::new(30, 40, Channels::Rgb, pixels.collect())
        .unwrap()
        .into()
}

fn asked(prompts: Vec<IpAdapterInput>) -> Request {
    Request {
        prompt: vec!["a boat".into()],
        steps: Some(3),
        size: Some("24".parse().unwrap()),
        ip_adapter: prompts,
        ..Request::default()
    }
}

fn like(name: &str, kind: u8) -> IpAdapterInput {
    IpAdapterInput::new(file(name), picture(kind))
}

fn refused(request: &Request, parts: &[&str]) {
    let error = pipeline().generate(request).unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

#[test]
fn a_picture_leads_and_repeats() {
    let pipeline = pipeline();
    let drawn = |request: &Request| pipeline.generate(request).unwrap();
    let plain = drawn(&asked(vec![]));
    for name in ["plain_sd.safetensors", "plus_sd.bin", "full_sd.safetensors"] {
        let led = drawn(&asked(vec![like(name, 1)]));
        assert_ne!(plain, led, "{name}");
        assert_eq!(led, drawn(&asked(vec![like(name, 1)])), "{name}");
        assert_ne!(led, drawn(&asked(vec![like(name, 5)])), "{name}");
        let mut idle = like(name, 1);
        idle.scale = 0.0;
        assert_eq!(plain, drawn(&asked(vec![idle])), "{name}");
        // Nothing but its parts: all of them are as good as a scale for all.
        let mut parts = like(name, 1);
        parts.scale = 0.0;
        parts.parts = [("down_blocks", 1.0), ("mid_block", 1.0), ("up_blocks", 1.0)]
            .map(|(part, scale)| (part.to_string(), scale))
            .into();
        assert_eq!(led, drawn(&asked(vec![parts.clone()])), "{name}");
        parts.parts.remove("up_blocks");
        assert_ne!(led, drawn(&asked(vec![parts])), "{name}");
    }
    // Several pictures of one are seen together, which is not the sum of two.
    let both = ImageInput::Several(vec![picture(1), picture(5)]);
    let together = drawn(&asked(vec![IpAdapterInput::new(file("plus_sd.bin"), both)]));
    let summed = drawn(&asked(vec![like("plus_sd.bin", 1), like("plus_sd.bin", 5)]));
    assert_ne!(together, summed);
}

#[test]
fn schedules_composed_prompts_and_pictures_keep_what_is_drawn_like() {
    use langevin::conditioning::PromptSyntax;
    let pipeline = pipeline();
    for prompt in [
        "a [boat:tower:0.5]",
        "a boat AND a tower :0.5",
        "a [boat:tower:0.5] AND a cat",
    ] {
        let with = |prompts: Vec<IpAdapterInput>| Request {
            prompt: vec![prompt.into()],
            prompt_syntax: PromptSyntax::A1111,
            ..asked(prompts)
        };
        let plain = pipeline.generate(&with(vec![])).unwrap();
        let led = pipeline
            .generate(&with(vec![like("plain_sd.safetensors", 2)]))
            .unwrap();
        assert_ne!(plain, led, "{prompt}");
    }
}

#[test]
fn loops_with_other_pictures_step_together_as_they_do_alone() {
    let pipeline = pipeline();
    let mut weak = like("plain_sd.safetensors", 3);
    weak.scale = 0.2;
    let requests = [
        vec![],
        vec![like("plain_sd.safetensors", 1)],
        vec![like("plus_sd.bin", 2)],
        vec![weak],
        vec![like("plain_sd.safetensors", 4), like("plus_sd.bin", 1)],
    ];
    let plans: Vec<Plan> = requests
        .into_iter()
        .enumerate()
        .map(|(seed, prompts)| {
            let request = Request {
                seed: seed as u64,
                ..asked(prompts)
            };
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
fn an_adapter_is_found_with_its_encoder_or_the_reason_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("models");
    fs::create_dir(&place).unwrap();
    let copy = |name: &str| fs::copy(file(name), place.join(name)).unwrap();
    copy("plain_sd.safetensors");
    let open = |path: &std::path::Path| IpAdapterModel::open(path, None, &device());
    let error = open(&place).unwrap_err().to_string();
    assert!(error.contains("there is no image encoder beside it"), "{error}");
    // Beside the folder, as the authors' repository has that of other models.
    support::call::copy_folder(
        file("image_encoder").as_ref(),
        &folder.path().join("image_encoder"),
    );
    open(&place).unwrap();
    // Which one of several is not guessed.
    copy("plus_sd.bin");
    let error = open(&place).unwrap_err().to_string();
    assert!(error.contains("plain_sd.safetensors, plus_sd.bin"), "{error}");
    // An encoder of another size is passed over, and refused where it is named.
    let other = folder.path().join("other");
    support::call::copy_folder(file("image_encoder").as_ref(), &other);
    let config = fs::read_to_string(other.join("config.json")).unwrap();
    fs::write(
        other.join("config.json"),
        config.replace("\"projection_dim\": 24", "\"projection_dim\": 20"),
    )
    .unwrap();
    let named = place.join("plain_sd.safetensors");
    assert!(IpAdapterModel::open(&named, Some(&other), &device()).is_err());
    let error = open(&folder.path().join("nowhere")).unwrap_err().to_string();
    assert!(error.contains("there is no such IP-Adapter"), "{error}");
}

#[test]
fn what_does_not_fit_is_refused() {
    refused(
        &asked(vec![like("plain_xl.safetensors", 1)]),
        &["the IP-Adapter is made for another model", "40", "32"],
    );
    let mut request = asked(vec![]);
    request.image_encoder = Some(file("image_encoder").into());
    refused(&request, &["`image_encoder` does nothing without `ip_adapter`"]);
    let mut wrong = like("plain_sd.safetensors", 1);
    wrong.scale = f64::NAN;
    refused(&asked(vec![wrong]), &["must be a finite number"]);
    let mut wrong = like("plain_sd.safetensors", 1);
    wrong.parts.insert("up_block.0".into(), 1.0);
    refused(
        &asked(vec![wrong]),
        &["`up_block.0`", "has no cross-attention", "mid_block.attentions.0"],
    );
    // Files that are something else.
    for (name, part) in [
        ("lora/files/kohya.safetensors", "holds no IP-Adapter"),
        ("sd/models/sd1/model_index.json", ""),
    ] {
        let path = own_reference().join(name);
        let request = asked(vec![IpAdapterInput::new(path.to_str().unwrap(), picture(1))]);
        refused(&request, &[part]);
    }
    // By default nothing is loaded: who may name a model may not read this machine's files.
    let error = Plan::with(
        &pipeline(),
        &asked(vec![like("plain_sd.safetensors", 1)]),
        Aids::default(),
    );
    assert!(error.unwrap_err().to_string().contains("there is no IP-Adapter"));
}
