//! Words that were learned as vectors: diffusers' calls with them, the formats of their files, and files that are none.

mod support;

use std::{collections::BTreeMap, fs, io::Write, path::Path};

use langevin::{
    Pipeline, Request,
    conditioning::{EmbeddingFile, TextCondition},
    generate::Plan,
    models::AnyModel,
    pipelines::LoadOptions,
};
use safetensors::{Dtype, tensor::TensorView};
use support::{Outcome, Report, call::Case, device, folders, read_json, read_tensors, reference, values};

fn learned(path: impl AsRef<Path>, token: Option<&str>) -> EmbeddingFile {
    EmbeddingFile {
        path: path.as_ref().to_path_buf(),
        token: token.map(String::from),
    }
}

fn tiny(name: &str, embeddings: Vec<EmbeddingFile>) -> langevin::Result<Pipeline> {
    let options = LoadOptions {
        embeddings,
        ..LoadOptions::default()
    };
    Pipeline::load_with(reference().join(name), &options, &device())
}

fn sd1(embeddings: Vec<EmbeddingFile>) -> langevin::Result<Pipeline> {
    tiny("sd/models/sd1", embeddings)
}

/// Numbers and shapes as a safetensors file.
fn write(path: &Path, tensors: &[(&str, &[usize], &[f32])]) {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(.., values)| values.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap();
        ((*name).to_string(), view)
    });
    let views: BTreeMap<String, TensorView<'_>> = views.collect();
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn said(embedding: EmbeddingFile) -> String {
    sd1(vec![embedding]).unwrap_err().to_string()
}

#[test]
fn calls_give_diffusers_pictures() {
    let mut report = Report::new();
    for folder in folders("lora/cases") {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("ti_") {
            report.case(&name, Case::in_folder(&folder).compare());
        }
    }
    report.finish();
}

#[test]
fn tokens_are_those_of_diffusers() {
    let mut report = Report::new();
    for folder in folders("lora/cases") {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with("ti_") {
            continue;
        }
        let case = Case::in_folder(&folder);
        let pipeline =
            Pipeline::load_with(case.pipeline_folder().path(), &case.load_options(), &device()).unwrap();
        let text = pipeline.condition::<TextCondition>().unwrap();
        let call = read_json(folder.join("call.json"));
        let found = text
            .token_ids(call["arguments"]["prompt"].as_str().unwrap())
            .unwrap();
        let expected = read_tensors(folder.join("expected.safetensors"));
        for (key, found) in ["input_ids", "input_ids_2"].iter().zip(&found) {
            let expected: Vec<u32> = expected[*key].integers.iter().map(|&id| id as u32).collect();
            let outcome = match *found == expected {
                true => Ok(Outcome::Ran),
                false => Err(format!("{found:?} where {expected:?} is expected")),
            };
            report.case(&format!("{name}: {key}"), outcome);
        }
    }
    report.finish();
}

#[test]
fn a_learned_word_changes_the_picture_and_others_do_not() {
    let files = reference().join("lora/textual_inversion");
    let draw = |pipeline: &Pipeline, prompt: &str| {
        let request = Request {
            prompt: vec![prompt.into()],
            steps: Some(1),
            ..Request::default()
        };
        let plan = Plan::of(pipeline, &request).unwrap();
        values(plan.samples(pipeline, &mut ()).unwrap().unwrap().remove(0))
    };
    let plain = sd1(vec![]).unwrap();
    let taught = sd1(vec![learned(files.join("learned_embeds.safetensors"), None)]).unwrap();
    assert_ne!(draw(&plain, "a <cat-toy>"), draw(&taught, "a <cat-toy>"));
    assert_eq!(draw(&taught, "a <CAT-toy>"), draw(&taught, "a <cat-toy>"));
    assert_eq!(draw(&plain, "a cat-toy"), draw(&taught, "a cat-toy"));
    // A program may teach it later.
    let later = plain
        .with_embeddings(&[learned(files.join("learned_embeds.bin"), None)])
        .unwrap();
    assert_eq!(draw(&later, "a <cat-toy>"), draw(&taught, "a <cat-toy>"));
}

#[test]
fn a_file_of_a1111_goes_by_its_name_too() {
    let files = reference().join("lora/textual_inversion");
    let pipeline = sd1(vec![
        learned(files.join("a1111.pt"), None),
        learned(files.join("a1111.safetensors"), Some("<s>")),
    ])
    .unwrap();
    let text = pipeline.condition::<TextCondition>().unwrap();
    assert_eq!(
        text.token_ids("A1111 hill").unwrap(),
        text.token_ids("my-thing hill").unwrap()
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad hands v2.safetensors");
    write(&path, &[("emb_params", &[2, 32], &[0.5; 64])]);
    let pipeline = sd1(vec![learned(&path, None)]).unwrap();
    let text = pipeline.condition::<TextCondition>().unwrap();
    assert_eq!(
        text.token_ids("bad hands v2, a").unwrap()[0][1..3],
        [786, 787],
        "a name of several words"
    );
}

/// A pickle, as `torch.save` writes them: of the instructions that state dicts are made of.
#[derive(Default)]
struct Pickle(Vec<u8>);

impl Pickle {
    fn text(mut self, text: &str) -> Self {
        self.0.push(b'X');
        self.0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.as_bytes());
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// A parameter of one vector, whose numbers are the entry `data/0`.
    fn parameter(self, width: u8) -> Self {
        self.raw(b"ctorch._utils\n_rebuild_parameter\n(ctorch._utils\n_rebuild_tensor_v2\n((")
            .text("storage")
            .raw(b"ctorch\nFloatStorage\n")
            .text("0")
            .text("cpu")
            .raw(&[b'K', width, b't', b'Q', b'K', 0, b'K', 1, b'K', width, 0x86])
            .raw(&[b'K', width, b'K', 1, 0x86, 0x89])
            .raw(b"ccollections\nOrderedDict\n)RtR\x88ccollections\nOrderedDict\n)RtR")
    }

    fn save(self, path: &Path, numbers: &[f32]) {
        let mut archive = zip::ZipWriter::new(fs::File::create(path).unwrap());
        let stored =
            zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        archive.start_file("old/data.pkl", stored).unwrap();
        archive.write_all(&self.0).unwrap();
        archive.start_file("old/data/0", stored).unwrap();
        let bytes: Vec<u8> = numbers.iter().flat_map(|value| value.to_le_bytes()).collect();
        archive.write_all(&bytes).unwrap();
        archive.finish().unwrap();
    }
}

#[test]
fn a_file_of_the_papers_own_program_is_read() {
    // {"string_to_token": {"*": 265}, "string_to_param": ParameterDict({"*": …})}
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("painting.pt");
    Pickle::default()
        .raw(b"\x80\x02}(")
        .text("string_to_token")
        .raw(b"}")
        .text("*")
        .raw(b"M\x09\x01s")
        .text("string_to_param")
        .raw(b"ctorch.nn.modules.container\nParameterDict\n)\x81}(")
        .text("training")
        .raw(b"\x88")
        .text("_parameters")
        .raw(b"ccollections\nOrderedDict\n)R")
        .text("*")
        .parameter(32)
        .raw(b"sub")
        .raw(b"u.")
        .save(&path, &[0.25; 32]);
    let pipeline = sd1(vec![learned(&path, None)]).unwrap();
    let text = pipeline.condition::<TextCondition>().unwrap();
    assert_eq!(text.token_ids("a painting").unwrap()[0][1..4], [320, 786, 785]);
}

#[test]
fn what_does_not_fit_is_refused_with_both_widths() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("word.safetensors");
    write(&path, &[("emb_params", &[1, 48], &[0.5; 48])]);
    let message = said(learned(&path, None));
    assert!(
        message.contains("word.safetensors") && message.contains("48 numbers") && message.contains("32"),
        "{message}"
    );
    let both = reference().join("lora/textual_inversion/sdxl_clip_l_clip_g.safetensors");
    let message = said(learned(&both, None));
    assert!(
        message.contains("two text encoders") && message.contains("16 numbers in clip_l"),
        "{message}"
    );
    let message = tiny("sdxl/models/base", vec![learned(&path, None)])
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("48 numbers") && message.contains("16"),
        "{message}"
    );
    write(&path, &[("clip_l", &[1, 16], &[0.5; 16])]);
    let message = tiny("sdxl/models/base", vec![learned(&path, None)])
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("text_encoder_2 takes vectors of 24"),
        "{message}"
    );
    // A model that looks at no texts.
    let unet = Pipeline::load(reference().join("pipelines/ddpm"), &device()).unwrap();
    assert!(matches!(unet.model, AnyModel::UNet2D(_)));
    let message = unet
        .with_embeddings(&[learned(&path, None)])
        .unwrap_err()
        .to_string();
    assert!(message.contains("`embedding`"), "{message}");
}

#[test]
fn files_that_are_no_embedding_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let one = |key: &'static str, shape: &[usize], values: &[f32]| {
        write(&path, &[(key, shape, values)]);
        said(learned(&path, None))
    };
    assert!(one("a", &[2, 2, 8], &[0.0; 32]).contains("[2, 2, 8]"));
    assert!(one("a", &[], &[0.0]).contains("shape []"));
    assert!(one("a", &[0, 32], &[]).contains("shape [0, 32]"));
    assert!(one("a", &[1025, 1], &[0.0; 1025]).contains("1025"));
    assert!(one("a", &[32], &[f32::NAN; 32]).contains("not numbers"));
    assert!(one(" ", &[32], &[0.0; 32]).contains("the word for it"));
    assert!(one("a\u{7}", &[32], &[0.0; 32]).contains("the word for it"));
    let long: &'static str = Box::leak("x".repeat(300).into_boxed_str());
    assert!(one(long, &[32], &[0.0; 32]).len() < 400);
    // A LoRA.
    let weights: [(&str, &[usize], &[f32]); 2] = [
        ("lora_unet_x.lora_down.weight", &[1, 4], &[0.0; 4]),
        ("lora_unet_x.lora_up.weight", &[4, 1], &[0.0; 4]),
    ];
    write(&path, &weights);
    let message = said(learned(&path, None));
    assert!(
        message.contains("2 tensors") && message.contains("lora_unet_x"),
        "{message}"
    );
    let weights: [(&str, &[usize], &[f32]); 2] =
        [("clip_l", &[1, 32], &[0.0; 32]), ("clip_g", &[2, 32], &[0.0; 64])];
    write(&path, &weights);
    assert!(said(learned(&path, None)).contains("more vectors for one"));
    fs::write(&path, b"\x02\0\0\0\0\0\0\0{}").unwrap();
    assert!(said(learned(&path, None)).contains("0 tensors"));
    // A pickle that would run something.
    let evil = folder.path().join("evil.pt");
    Pickle::default()
        .raw(b"\x80\x02}")
        .text("string_to_param")
        .raw(b"cposix\nsystem\n")
        .text("echo ran")
        .raw(b"\x85Rs.")
        .save(&evil, &[]);
    let message = said(learned(&evil, None));
    assert!(message.contains("posix.system"), "{message}");
    // A picture with an embedding hidden in it, and nothing at all.
    let picture = folder.path().join("a.png");
    fs::write(&picture, b"\x89PNG\r\n\x1a\n").unwrap();
    assert!(said(learned(&picture, None)).contains("a.png"));
    assert!(said(learned(folder.path().join("none.pt"), None)).contains("none.pt"));
}

#[test]
fn words_of_two_files_are_kept_apart() {
    let files = reference().join("lora/textual_inversion");
    let twice = |token: Option<&str>| {
        let first = learned(files.join("learned_embeds.safetensors"), None);
        sd1(vec![first, learned(files.join("learned_embeds.bin"), token)])
    };
    let message = twice(None).unwrap_err().to_string();
    assert!(
        message.contains("learned_embeds.bin") && message.contains("learned_embeds.safetensors"),
        "{message}"
    );
    assert!(twice(Some("<other>")).is_ok());
}
