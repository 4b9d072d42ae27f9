//! LoRA beside a model's weights, for one request: what others draw meanwhile, what is refused, and what pictures' files say.

mod support;

use std::path::PathBuf;

use burn::tensor::Tensor;
use langevin::{
    Lora, Pipeline, Request,
    conditioning::PromptSyntax,
    generate::{Aids, Plan},
    options::LoraInput,
    pipelines::{LoadOptions, Sampling, step_together},
    settings::{ModelName, Settings},
};
use support::{device, reference, values};

fn file(name: &str) -> String {
    let path: PathBuf = reference().join("lora/files").join(name);
    path.display().to_string()
}

fn pipeline() -> Pipeline {
    Pipeline::load(reference().join("sd/models/sd1"), &device()).unwrap()
}

fn request(loras: &[(&str, f64)]) -> Request {
    Request {
        prompt: vec!["a cat".into()],
        negative_prompt: vec!["blurry".into()],
        steps: Some(3),
        seed: 5,
        loras: loras
            .iter()
            .map(|(name, scale)| LoraInput::new(file(name), *scale))
            .collect(),
        ..Request::default()
    }
}

fn alone(pipeline: &Pipeline, request: &Request) -> Vec<f32> {
    let plan = Plan::of(pipeline, request).unwrap();
    values(plan.picture(pipeline, 0).unwrap().finish().unwrap())
}

#[test]
fn pictures_with_different_lora_come_to_what_they_come_to_alone() {
    let pipeline = pipeline();
    // In either order, two at once, one of them at another scale, and none.
    let requests = [
        request(&[("kohya.safetensors", 1.0)]),
        request(&[]),
        request(&[
            ("peft_metadata_conv.safetensors", -0.7),
            ("kohya.safetensors", 0.4),
        ]),
        request(&[
            ("kohya.safetensors", 0.4),
            ("peft_metadata_conv.safetensors", -0.7),
        ]),
        request(&[("diffusers_unet_text.safetensors", 2.0)]),
    ];
    let expected: Vec<Vec<f32>> = requests.iter().map(|request| alone(&pipeline, request)).collect();
    assert_eq!(
        expected[2], expected[3],
        "the order in which they are named is of no matter"
    );
    for (number, one) in expected.iter().enumerate() {
        let same = expected.iter().filter(|other| *other == one).count();
        assert_eq!(
            same,
            if [2, 3].contains(&number) { 2 } else { 1 },
            "request {number}"
        );
    }
    // The loops lend what was loaded once, as a server has it.
    let cached: Vec<_> = ["kohya", "peft_metadata_conv", "diffusers_unet_text"]
        .map(|name| file(&format!("{name}.safetensors")))
        .into_iter()
        .map(|path| (path.clone(), pipeline.lend(path).unwrap()))
        .collect();
    let load = |name: &str| Ok(cached.iter().find(|(path, _)| path == name).unwrap().1.clone());
    let plans = requests.iter().map(|request| {
        let aids = Aids {
            loras: &load,
            ..Aids::default()
        };
        Plan::with(&pipeline, request, aids).unwrap()
    });
    let plans: Vec<Plan> = plans.collect();
    let mut loops: Vec<Sampling<'_>> = plans
        .iter()
        .map(|plan| plan.picture(&pipeline, 0).unwrap())
        .collect();
    for _ in 0..3 {
        let mut all: Vec<&mut Sampling<'_>> = loops.iter_mut().collect();
        for result in step_together(&mut all) {
            result.unwrap();
        }
    }
    for (sampling, expected) in loops.into_iter().zip(&expected) {
        let found: Tensor<4> = sampling.finish().unwrap();
        assert_eq!(&values(found), expected);
    }
}

#[test]
fn a_scale_for_texts_is_for_texts_alone() {
    let pipeline = pipeline();
    let scaled = |parts: &[(&str, f64)]| {
        let mut request = request(&[("kohya.safetensors", 1.0)]);
        request.loras[0].parts = parts
            .iter()
            .map(|(part, scale)| ((*part).to_string(), *scale))
            .collect();
        alone(&pipeline, &request)
    };
    let none = alone(&pipeline, &request(&[]));
    let (texts, unet) = (scaled(&[("unet", 0.0)]), scaled(&[("text_encoder", 0.0)]));
    assert!(texts != none && unet != none && texts != unet);
    assert_eq!(scaled(&[("unet", 0.0), ("text_encoder", 0.0)]), none);
    // As a prompt says it.
    let tagged = |prompt: &str| {
        let mut asked = request(&[]);
        asked.prompt = vec![prompt.into()];
        asked.take_lora_tags().unwrap();
        assert_eq!(asked.prompt, ["a cat"]);
        asked.loras[0].name = file("kohya.safetensors");
        alone(&pipeline, &asked)
    };
    assert_eq!(tagged("a cat<lora:kohya:1:0>"), texts);
    assert_eq!(tagged("a<lora:kohya:te=0:unet=1> cat"), unet);
    assert_eq!(alone(&pipeline, &request(&[("kohya.safetensors", 0.0)])), none);
}

#[test]
fn the_same_lora_twice_counts_twice() {
    let pipeline = pipeline();
    let twice = request(&[("kohya.safetensors", 0.25), ("kohya.safetensors", 0.5)]);
    let once = alone(&pipeline, &request(&[("kohya.safetensors", 0.75)]));
    let difference = support::relative_difference(&alone(&pipeline, &twice), &once);
    assert!(difference < 1e-5, "{difference}");
}

#[test]
fn what_cannot_lie_beside_weights_is_refused_and_says_what_to_do() {
    let pipeline = pipeline();
    let refused =
        |pipeline: &Pipeline, request: &Request| Plan::of(pipeline, request).unwrap_err().to_string();
    for (name, kind) in [
        ("loha.safetensors", "LoHa"),
        ("lokr.safetensors", "LoKr"),
        ("dora_kohya.safetensors", "DoRA"),
    ] {
        let why = refused(&pipeline, &request(&[(name, 1.0)]));
        assert!(
            why.contains(name) && why.contains(&format!("is a {kind}")),
            "{why}"
        );
        assert!(why.contains("by `lora`"), "{why}");
        // Found out without reading its numbers, too.
        let checked = pipeline.check_lend(file(name)).unwrap_err().to_string();
        assert_eq!(checked, why);
    }
    pipeline.check_lend(file("kohya.safetensors")).unwrap();
    let why = refused(&pipeline, &request(&[("sdxl_kohya.safetensors", 1.0)]));
    assert!(why.contains("sdxl_kohya") && why.contains("another"), "{why}");
    let why = refused(&pipeline, &request(&[("none.safetensors", 1.0)]));
    assert!(why.contains("none.safetensors"), "{why}");
    let why = refused(&pipeline, &request(&[("kohya.safetensors", f64::NAN)]));
    assert!(why.contains("finite number"), "{why}");

    let pixels = Pipeline::load(reference().join("pipelines/ddim"), &device()).unwrap();
    let asked = Request {
        loras: request(&[("kohya.safetensors", 1.0)]).loras,
        ..Request::default()
    };
    let why = refused(&pixels, &asked);
    assert!(why.contains("`loras` is for pipelines with a UNet"), "{why}");

    // One that was loaded for another model of the same kind.
    let other = self::pipeline();
    let lent = other.lend(file("kohya.safetensors")).unwrap();
    let load = |_: &str| Ok(lent.clone());
    let aids = Aids {
        loras: &load,
        ..Aids::default()
    };
    let why = Plan::with(&pipeline, &request(&[("kohya.safetensors", 1.0)]), aids).unwrap_err();
    assert!(why.to_string().contains("for another model"), "{why}");
}

#[test]
fn prompts_of_one_request_name_the_same() {
    let with = |prompts: &[&str]| {
        let mut request = Request {
            prompt: prompts.iter().map(|&prompt| prompt.into()).collect(),
            ..Request::default()
        };
        request.take_lora_tags().map(|()| (request.prompt, request.loras))
    };
    let (prompts, loras) = with(&["a <lora:x:0.5>", "<lora:x:0.5>b"]).unwrap();
    assert_eq!(
        (prompts, loras),
        (vec!["a ".into(), "b".into()], vec![LoraInput::new("x", 0.5)])
    );
    assert!(
        with(&["a <lora:x:0.5>", "b"])
            .unwrap_err()
            .to_string()
            .contains("name other LoRA")
    );
    assert!(with(&["a <lora:x:much>"]).is_err());
}

#[test]
fn pictures_say_which_lora_they_were_drawn_with() {
    let pipeline = pipeline();
    let asked = request(&[("kohya.safetensors", 0.5)]);
    let plan = Plan::of(&pipeline, &asked).unwrap();
    let path = PathBuf::from(file("kohya.safetensors"));
    let name = ModelName {
        without_folders: true,
        hashes: [(path, "0123456789abcdef".to_string())].into(),
        ..ModelName::of("sd1")
    };
    let texts: Vec<(String, String)> = plan
        .settings(&name, Some(0))
        .into_iter()
        .map(|(key, text)| (key.to_string(), text))
        .collect();
    let folder = reference().display().to_string();
    assert!(texts.iter().all(|(_, text)| !text.contains(&folder)), "{texts:?}");
    let parameters = &texts.iter().find(|(key, _)| key == "parameters").unwrap().1;
    assert!(parameters.starts_with("a cat <lora:kohya:0.5>\n"), "{parameters}");
    assert!(
        parameters.contains("Lora hashes: \"kohya: 0123456789ab\""),
        "{parameters}"
    );
    let settings = Settings::of_texts(&texts).unwrap().unwrap();
    assert!(
        settings.request.unwrap().loras.is_empty(),
        "they are noted beside the request"
    );
    let [noted] = settings.loras.as_slice() else {
        panic!("{:?}", settings.loras);
    };
    assert_eq!(noted.path, PathBuf::from("kohya.safetensors"));
    assert_eq!(
        (noted.scale.clone(), noted.hash.as_deref()),
        (0.5.into(), Some("0123456789abcdef"))
    );
}

#[test]
fn a_lora_of_few_steps_brings_its_sampler_and_steps_along() {
    let (pipeline, folder) = (pipeline(), tempfile::tempdir().unwrap());
    let path = folder.path().join("lcm-lora-sdv1-5.safetensors");
    std::fs::copy(file("kohya.safetensors"), &path).unwrap();
    let lora = LoraInput::new(path.display().to_string(), 1.0);
    let asked = Request {
        steps: None,
        loras: vec![lora.clone()],
        negative_prompt: Vec::new(),
        ..request(&[])
    };
    let plan = Plan::of(&pipeline, &asked).unwrap();
    assert_eq!(plan.steps(), 4);
    let notices = plan.notices().join(" ");
    assert!(notices.contains("the LoRA is of LCM"), "{notices}");
    let facts = plan.facts("sd1", None);
    assert!(
        facts.contains(&("scheduler", "LCMScheduler".to_string())),
        "{facts:?}"
    );
    // As where it is merged.
    let options = LoadOptions {
        loras: vec![Lora::new(&path, 1.0)],
        ..LoadOptions::default()
    };
    let merged = Pipeline::load_with(reference().join("sd/models/sd1"), &options, &device()).unwrap();
    let without = Request {
        loras: Vec::new(),
        ..asked.clone()
    };
    let difference = support::relative_difference(&alone(&pipeline, &asked), &alone(&merged, &without));
    assert!(difference < 1e-4, "{difference}");
    // What is said counts, and the next request has the pipeline's own again.
    let said = Request {
        steps: Some(2),
        scheduler: Some("euler".into()),
        ..asked
    };
    let plan = Plan::of(&pipeline, &said).unwrap();
    assert_eq!(plan.steps(), 2);
    assert!(
        plan.notices().join(" ").contains("looks like a LCM model"),
        "{:?}",
        plan.notices()
    );
    let plan = Plan::of(&pipeline, &request(&[])).unwrap();
    assert!(plan.notices().is_empty(), "{:?}", plan.notices());
}

#[test]
fn schedules_and_several_prompts_at_once_keep_the_lora() {
    let pipeline = pipeline();
    // Each picture of several prompts, texts that change on the way, and two at once.
    let mut several = request(&[("kohya.safetensors", 0.8)]);
    several.prompt = vec!["a [cat:dog:0.5] AND a house :0.6".into(), "a tree".into()];
    several.prompt_syntax = PromptSyntax::A1111;
    several.negative_prompt = Vec::new();
    several.count = Some(2);
    let options = LoadOptions {
        loras: vec![Lora::new(file("kohya.safetensors"), 0.8)],
        ..LoadOptions::default()
    };
    let merged = Pipeline::load_with(reference().join("sd/models/sd1"), &options, &device()).unwrap();
    let drawn = |pipeline: &Pipeline, request: &Request| {
        let plan = Plan::of(pipeline, request).unwrap();
        values(Tensor::cat(plan.samples(pipeline, &mut ()).unwrap().unwrap(), 0))
    };
    let found = drawn(&pipeline, &several);
    several.loras.clear();
    let difference = support::relative_difference(&found, &drawn(&merged, &several));
    assert!(difference < 1e-4, "{difference}");
    assert!(support::relative_difference(&found, &drawn(&pipeline, &several)) > 1e-2);
}
