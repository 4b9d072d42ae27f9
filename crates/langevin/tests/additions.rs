//! What is put on top of a pipeline, as its pictures' files say it; and LoRA that make another kind of model of theirs.

mod support;

use std::{fs, path::PathBuf};

use langevin::{
    Lora, Request,
    conditioning::EmbeddingFile,
    generate::Plan,
    pipelines::{LoadOptions, Pipeline},
    settings::{ModelName, Settings, addition_hash},
    weights::FileHashes,
};
use support::{device, own_reference};

fn lora(name: &str) -> PathBuf {
    own_reference().join("lora/files").join(name)
}

fn with(loras: Vec<Lora>, embeddings: Vec<EmbeddingFile>) -> Pipeline {
    let options = LoadOptions {
        loras,
        embeddings,
        ..LoadOptions::default()
    };
    Pipeline::load_with(own_reference().join("sd/models/sd1"), &options, &device()).unwrap()
}

fn text<'a>(texts: &'a [(&'static str, String)], keyword: &str) -> &'a str {
    &texts.iter().find(|(known, _)| *known == keyword).unwrap().1
}

#[test]
fn a_picture_names_its_loras_and_words_as_others_do_and_is_read_again() {
    let words: Vec<PathBuf> = fs::read_dir(own_reference().join("lora/textual_inversion"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "pt"))
        .collect();
    let word = EmbeddingFile {
        path: words[0].clone(),
        token: Some("mycat".into()),
    };
    let style = Lora::new(lora("kohya.safetensors"), 0.8);
    let pipeline = with(vec![style.clone()], vec![word.clone()]);
    let hash = |path: &PathBuf, is_lora| (path.clone(), addition_hash(path, is_lora).unwrap());
    let model = ModelName {
        hashes: [hash(&style.path, true), hash(&word.path, false)].into(),
        ..ModelName::of("sd1")
    };
    let request = |prompt: &str| Request {
        prompt: vec![prompt.into()],
        steps: Some(1),
        ..Request::default()
    };
    let plan = Plan::of(&pipeline, &request("a mycat in the snow")).unwrap();
    let texts = plan.settings(&model, Some(0));
    let parameters = text(&texts, "parameters");
    // What A1111 shows: twelve digits of what follows the header, and of the whole file.
    let weights = FileHashes::of(&style.path).unwrap().weights.unwrap();
    let whole = FileHashes::of(&word.path).unwrap().sha256;
    let stem = word.path.file_stem().unwrap().to_str().unwrap();
    for part in [
        "a mycat in the snow <lora:kohya:0.8>".to_string(),
        format!("Lora hashes: \"kohya: {}\"", &weights[..12]),
        format!("TI hashes: \"{stem}: {}\"", &whole[..12]),
    ] {
        assert!(parameters.contains(&part), "`{part}` is not in: {parameters}");
    }
    let kept: Vec<(String, String)> = texts
        .iter()
        .map(|(keyword, text)| ((*keyword).to_string(), text.clone()))
        .collect();
    let read = Settings::of_texts(&kept).unwrap().unwrap();
    assert_eq!(read.loras.len(), 1);
    assert_eq!(
        (&read.loras[0].path, &read.loras[0].scale),
        (&style.path, &style.scale)
    );
    assert_eq!(read.loras[0].hash.as_deref(), Some(weights.as_str()));
    assert_eq!(
        (&read.embeddings[0].path, &read.embeddings[0].token),
        (&word.path, &word.token)
    );
    // A tag is for others: what is asked for again has none.
    assert_eq!(read.request.unwrap().prompt, ["a mycat in the snow"]);
    // Words that no text names are not told, as there.
    let plan = Plan::of(&pipeline, &request("a dog")).unwrap();
    assert!(!text(&plan.settings(&model, Some(0)), "parameters").contains("TI hashes"));
    // Nor is what nobody has hashed.
    let unhashed = plan.settings(&ModelName::of("sd1"), Some(0));
    assert!(!text(&unhashed, "parameters").contains("Lora hashes"));
}

#[test]
fn a_hash_that_a_header_notes_is_the_loras() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let header = br#"{"__metadata__":{"sshs_model_hash":"0123456789abcdef0123456789abcdef"}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header);
    fs::write(&path, &bytes).unwrap();
    assert_eq!(
        addition_hash(&path, true).unwrap(),
        "0123456789abcdef0123456789abcdef"
    );
    assert_eq!(
        addition_hash(&path, false).unwrap(),
        FileHashes::of(&path).unwrap().sha256
    );
    assert!(addition_hash(folder.path().join("none.safetensors"), true).is_err());
}

#[test]
fn a_lora_of_a_few_steps_brings_what_it_wants() {
    let folder = tempfile::tempdir().unwrap();
    let named = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(lora("kohya.safetensors"), &path).unwrap();
        path
    };
    let request = Request {
        prompt: vec!["a boat".into()],
        ..Request::default()
    };
    for (name, class, steps) in [
        ("lcm-lora-sdv1-5.safetensors", "LCMScheduler", 4),
        ("Hyper-SD15-8steps-lora.safetensors", "DDIMScheduler", 8),
        (
            "sdxl_lightning_4step_lora.safetensors",
            "EulerDiscreteScheduler",
            4,
        ),
        ("TCD-SD15-LoRA.safetensors", "TCDScheduler", 4),
        // As the Hub's cache has it.
        (
            "models--latent-consistency--lcm-lora-sdv1-5/snapshots/0123abc/pytorch_lora_weights.safetensors",
            "LCMScheduler",
            4,
        ),
    ] {
        let pipeline = with(vec![Lora::new(named(name), 1.0)], vec![]);
        assert_eq!(pipeline.scheduler.class_name(), class, "{name}");
        let plan = Plan::of(&pipeline, &request).unwrap();
        assert_eq!(plan.steps(), steps, "{name}");
        assert!(!plan.guidance().is_on(), "{name}");
        assert!(
            plan.notices()[0].contains("the LoRA is of"),
            "{name}: {:?}",
            plan.notices()
        );
        // Whoever says something gets it, with a line where it is wrong.
        let said = Request {
            steps: Some(30),
            ..request.clone()
        };
        let plan = Plan::of(&pipeline, &said).unwrap();
        assert_eq!(plan.steps(), 30, "{name}");
        assert!(
            plan.notices()[0].contains("30 steps is wrong"),
            "{name}: {:?}",
            plan.notices()
        );
    }
    // One that is not applied makes nothing of the model, and neither does a style.
    for (name, scale) in [
        ("lcm-lora-sdv1-5.safetensors", 0.0),
        ("hyperrealism.safetensors", 1.0),
    ] {
        let pipeline = with(vec![Lora::new(named(name), scale)], vec![]);
        assert_eq!(pipeline.scheduler.class_name(), "PNDMScheduler", "{name}");
    }
}
