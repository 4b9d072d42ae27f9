//! Single files that are odd, damaged or something else: each is read as far as it means something, or gives one sentence that names it.

mod support;

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use langevin::weights::{
    Precision,
    single_file::{self, Component, Kind, Markers, SingleFile},
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// Tensors by their names: type, shape and bytes.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn stored(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/reference/single_file")
        .join(path)
}

fn tensors(path: &str) -> Tensors {
    let bytes = fs::read(stored(path)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.tensors().into_iter();
    tensors
        .map(|(name, view)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
        .collect()
}

/// A file of tensors in a folder of its own.
fn file(tensors: &Tensors) -> (TempDir, PathBuf) {
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        let view = TensorView::new(*dtype, shape.clone(), data).unwrap();
        (name.as_str(), view)
    });
    bytes("a.safetensors", &safetensors::serialize(views, None).unwrap())
}

fn bytes(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

/// Names with the axes behind the first.
type Names<'a> = &'a [(&'a str, &'a [usize])];

/// A file of tensors without numbers, which cost nothing: their first axis is 0.
fn empty(names: Names<'_>) -> (TempDir, PathBuf) {
    let tensor = |(name, rest): &(&str, &[usize])| {
        let shape = [&[0], *rest].concat();
        ((*name).to_string(), (Dtype::F16, shape, vec![]))
    };
    file(&names.iter().map(tensor).collect())
}

/// The sentence of an error, which names the file and has each of `parts`.
fn sentence<T>(result: langevin::Result<T>, path: &Path, parts: &[&str]) {
    let Err(error) = result else {
        panic!("it was read: {parts:?}");
    };
    let error = error.to_string();
    assert!(error.contains(&path.display().to_string()), "{error}");
    assert!(!error.contains('\n'), "{error}");
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

fn opened(path: &Path) -> SingleFile {
    SingleFile::open(path).unwrap_or_else(|e| panic!("{e}"))
}

const UNET: &str = "model.diffusion_model.";

#[test]
fn kinds_are_told_by_names_and_shapes() {
    let first = "model.diffusion_model.input_blocks.0.0.weight";
    let text = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight";
    let clip = "cond_stage_model.transformer.text_model.final_layer_norm.weight";
    let open_clip = "cond_stage_model.model.ln_final.weight";
    let label = "model.diffusion_model.label_emb.0.0.weight";
    let cases: &[(Names<'_>, Kind)] = &[
        (&[(first, &[4, 3, 3]), (clip, &[])], Kind::Sd1),
        (&[(first, &[9, 3, 3]), (text, &[768])], Kind::Sd1Inpaint),
        (&[(first, &[8, 3, 3]), (clip, &[])], Kind::InstructPix2Pix),
        (&[(first, &[4, 3, 3]), (text, &[1024])], Kind::Sd2),
        (&[(first, &[4, 3, 3]), (open_clip, &[])], Kind::Sd2),
        (&[(first, &[9, 3, 3]), (open_clip, &[])], Kind::Sd2Inpaint),
        (&[(first, &[5, 3, 3]), (open_clip, &[])], Kind::Sd2Depth),
        (
            &[
                (first, &[7, 3, 3]),
                (text, &[1024]),
                ("model.diffusion_model.label_emb.weight", &[1024]),
            ],
            Kind::Upscale,
        ),
        (
            &[
                (first, &[4, 3, 3]),
                ("conditioner.embedders.1.model.ln_final.weight", &[]),
            ],
            Kind::Sdxl,
        ),
        (
            &[
                (first, &[9, 3, 3]),
                ("conditioner.embedders.1.model.ln_final.weight", &[]),
            ],
            Kind::SdxlInpaint,
        ),
        (
            &[
                (first, &[4, 3, 3]),
                ("conditioner.embedders.0.model.ln_final.weight", &[]),
            ],
            Kind::SdxlRefiner,
        ),
        // UNets alone.
        (
            &[(first, &[4, 3, 3]), (text, &[2048]), (label, &[2816])],
            Kind::Sdxl,
        ),
        (
            &[(first, &[4, 3, 3]), (text, &[1280]), (label, &[2560])],
            Kind::SdxlRefiner,
        ),
        (
            &[
                ("input_blocks.0.0.weight", &[4, 3, 3]),
                ("output_blocks.0.0.in_layers.0.bias", &[]),
            ],
            Kind::Sd1,
        ),
        (
            &[
                ("conv_in.weight", &[4, 3, 3]),
                ("up_blocks.0.resnets.0.norm1.bias", &[]),
            ],
            Kind::Sd1,
        ),
        (
            &[("control_model.input_blocks.0.0.weight", &[4, 3, 3])],
            Kind::ControlNet,
        ),
        (
            &[("control_model.label_emb.0.0.weight", &[2816])],
            Kind::ControlNetXl,
        ),
        (
            &[("controlnet_cond_embedding.conv_in.weight", &[3, 3, 3])],
            Kind::ControlNet,
        ),
        (
            &[("first_stage_model.decoder.conv_in.weight", &[4, 3, 3])],
            Kind::Vae,
        ),
        (&[("decoder.up.0.block.0.norm1.bias", &[])], Kind::Vae),
        (&[("decoder.up_blocks.0.resnets.0.norm1.bias", &[])], Kind::Vae),
    ];
    for (names, kind) in cases {
        let (_folder, path) = empty(names);
        assert_eq!(opened(&path).kind(), *kind, "{names:?}");
    }
}

#[test]
fn version_2_tells_noise_from_velocity_by_a_bias() {
    let of = |scale: f32| {
        let values = (0..320).map(|i| if i % 2 == 0 { scale } else { -scale });
        let name = format!("{UNET}output_blocks.11.1.transformer_blocks.0.norm1.bias");
        let (first, text) = (
            format!("{UNET}input_blocks.0.0.weight"),
            "cond_stage_model.model.ln_final.weight",
        );
        let tensors = Tensors::from([
            (
                name,
                (Dtype::F32, vec![320], values.flat_map(f32::to_le_bytes).collect()),
            ),
            (first, (Dtype::F32, vec![0, 4, 3, 3], vec![])),
            (text.into(), (Dtype::F32, vec![0], vec![])),
        ]);
        let (_folder, path) = file(&tensors);
        opened(&path).kind()
    };
    assert_eq!((of(0.08), of(0.1)), (Kind::Sd2Base, Kind::Sd2));
}

#[test]
fn what_is_something_else_is_named() {
    for (name, part) in [
        (
            "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight",
            "is a LoRA",
        ),
        (
            "unet.down_blocks.0.attentions.0.proj_in.lora_A.weight",
            "is a LoRA",
        ),
        ("lora_controlnet", "control-LoRA"),
        (
            "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight",
            "Stable Diffusion 3",
        ),
        ("double_blocks.0.img_attn.norm.key_norm.scale", "FLUX"),
        ("ip_adapter.1.to_k_ip.weight", "IP-Adapter"),
        ("emb_params", "textual inversion"),
        ("mlp.weight", "no checkpoint of Stable Diffusion"),
    ] {
        let (_folder, path) = empty(&[(name, &[4])]);
        sentence(SingleFile::open(&path), &path, &[part]);
    }
    let (_folder, path) = empty(&[]);
    sentence(SingleFile::open(&path), &path, &["holds no tensors"]);
}

#[test]
fn a_file_that_is_cut_off_is_refused() {
    let whole = fs::read(stored("vae/vae.safetensors")).unwrap();
    let pickle = fs::read(stored("vae/vae_lightning.ckpt")).unwrap();
    for percent in [0, 1, 10, 50, 99] {
        let (_folder, path) = bytes("a.safetensors", &whole[..whole.len() * percent / 100]);
        sentence(SingleFile::open(&path), &path, &["not a whole safetensors file"]);
        let (_folder, path) = bytes("a.ckpt", &pickle[..pickle.len() * percent / 100]);
        sentence(SingleFile::open(&path), &path, &["not a whole"]);
    }
    sentence(
        SingleFile::open("nowhere.safetensors"),
        Path::new("nowhere.safetensors"),
        &["cannot read"],
    );
}

#[test]
fn a_unet_without_one_of_its_blocks_is_refused() {
    for (block, part) in [
        ("input_blocks.4.", "lacks the layers input_blocks.4"),
        ("output_blocks.8.", "9 input blocks and 8 output blocks"),
        ("middle_block.1.", "lacks the layers middle_block.1"),
    ] {
        let mut all = tensors("sdxl/sdxl.safetensors");
        all.retain(|name, _| !name.starts_with(&format!("{UNET}{block}")));
        let (_folder, path) = file(&all);
        sentence(opened(&path).component(Component::Unet), &path, &[part]);
        sentence(opened(&path).configs(), &path, &[part]);
    }
    let mut all = tensors("sdxl/sdxl.safetensors");
    all.remove(&format!("{UNET}out.2.weight"));
    let (_folder, path) = file(&all);
    sentence(opened(&path).configs(), &path, &["lacks conv_out.weight"]);
    sentence(
        opened(&path).component(Component::ControlNet),
        &path,
        &["holds no controlnet", "text_encoder_2"],
    );
}

#[test]
fn wrong_shapes_and_types_are_refused() {
    let text = "conditioner.embedders.1.model.";
    for (name, shape, component, part) in [
        (
            format!("{text}transformer.resblocks.3.attn.in_proj_weight"),
            vec![71, 24],
            Component::TextEncoder2,
            "one below the other",
        ),
        (
            format!("{text}text_projection"),
            vec![480],
            Component::TextEncoder2,
            "a matrix",
        ),
    ] {
        let mut all = tensors("sdxl/sdxl.safetensors");
        let length = shape.iter().product::<usize>() * 2;
        all.insert(name.clone(), (Dtype::F16, shape, vec![0; length]));
        let (_folder, path) = file(&all);
        sentence(opened(&path).component(component), &path, &[&name, part]);
    }
    let mut all = tensors("sdxl/sdxl.safetensors");
    let first = format!("{UNET}input_blocks.0.0.weight");
    all.insert(first, (Dtype::F16, vec![4, 36], vec![0; 288]));
    let (_folder, path) = file(&all);
    sentence(
        opened(&path).configs(),
        &path,
        &["conv_in.weight has shape [4, 36]"],
    );

    for dtype in [Dtype::F8_E4M3, Dtype::I8] {
        let mut all = tensors("vae/vae.safetensors");
        for (found, _, data) in all.values_mut() {
            *found = dtype;
            data.truncate(data.len() / 2);
        }
        let (_folder, path) = file(&all);
        sentence(
            opened(&path).component(Component::Vae),
            &path,
            &[&format!("stored as {dtype:?}"), "BF16"],
        );
    }
}

#[test]
fn what_belongs_to_no_component_may_be_damaged() {
    let mut all = tensors("sdxl/sdxl.safetensors");
    let expected = opened(&stored("sdxl/sdxl.safetensors"))
        .component(Component::TextEncoder)
        .unwrap();
    let ids = "conditioner.embedders.0.transformer.text_model.embeddings.position_ids".to_string();
    all.insert(ids, (Dtype::F32, vec![3], vec![0xff; 12]));
    all.insert("betas".into(), (Dtype::F64, vec![1], vec![0xff; 8]));
    all.insert("loss.logvar".into(), (Dtype::U8, vec![1], vec![1]));
    let (_folder, path) = file(&all);
    let found = opened(&path).component(Component::TextEncoder).unwrap();
    assert!(found.names().eq(expected.names()) && found.names().count() > 0);
    assert!(!found.names().any(|name| name.contains("position_ids")));
}

#[test]
fn a_million_names_are_no_trouble() {
    let mut header = Map::new();
    for number in 0..1_000_000 {
        let name = format!("output_blocks.{number}.0.op.w");
        header.insert(
            name,
            json!({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}),
        );
    }
    let header = Value::Object(header).to_string();
    let mut content = (header.len() as u64).to_le_bytes().to_vec();
    content.extend(header.bytes());
    let (_folder, path) = bytes("a.safetensors", &content);
    let start = Instant::now();
    sentence(SingleFile::open(&path), &path, &["without its first layer"]);
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn the_moving_average_is_taken_where_it_is_asked_for() {
    let mut all = tensors("sdxl/sdxl.safetensors");
    let averages: Tensors = all
        .iter()
        .filter(|(name, _)| name.starts_with(UNET))
        .map(|(name, (dtype, shape, data))| {
            let name = format!("model_ema.{}", name["model.".len()..].replace('.', ""));
            // Half precision's ones.
            (name, (*dtype, shape.clone(), [0x00, 0x3c].repeat(data.len() / 2)))
        })
        .collect();
    all.extend(averages);
    let (_folder, path) = file(&all);
    let read = |file: SingleFile| {
        file.component(Component::Unet)
            .unwrap()
            .read("conv_in.weight")
            .unwrap()
    };
    let plain = read(opened(&stored("sdxl/sdxl.safetensors")));
    assert_eq!(read(opened(&path)), plain);
    let averaged = read(opened(&path).with_ema().unwrap());
    assert!(averaged.len() == plain.len() && averaged.iter().all(|x| *x == 1.0));

    all.remove("model_ema.diffusion_modelinput_blocks00weight");
    let (_folder, path) = file(&all);
    let file = opened(&path).with_ema().unwrap();
    sentence(
        file.component(Component::Unet),
        &path,
        &["the moving average of model.diffusion_model.input_blocks.0.0.weight"],
    );
    let path = stored("vae/vae.safetensors");
    sentence(opened(&path).with_ema(), &path, &["no moving average"]);
}

#[test]
fn markers_and_a_users_word_change_the_configuration() {
    let mut all = tensors("sdxl/sdxl.safetensors");
    for marker in ["v_pred", "ztsnr"] {
        all.insert(marker.into(), (Dtype::F32, vec![0], vec![]));
    }
    let (folder, path) = file(&all);
    let scheduler = &opened(&path).configs().unwrap()["scheduler"];
    assert_eq!(scheduler["prediction_type"], "v_prediction");
    assert_eq!(scheduler["rescale_betas_zero_snr"], true);

    let vae = opened(&path).component(Component::Vae).unwrap();
    let written = folder.path().join("b.safetensors");
    let markers = Markers {
        v_prediction: true,
        zero_terminal_snr: true,
    };
    single_file::write(
        &written,
        Kind::Sdxl,
        &[(Component::Vae, &vae)],
        markers,
        Precision::Float32,
    )
    .unwrap();
    let bytes = fs::read(&written).unwrap();
    let names = SafeTensors::deserialize(&bytes).unwrap();
    assert!(names.tensor("v_pred").is_ok() && names.tensor("ztsnr").is_ok());
    assert_eq!(names.tensor("decoder.conv_in.bias").unwrap().dtype(), Dtype::F32);

    let vae = opened(&stored("vae/vae.safetensors"));
    assert_eq!(vae.configs().unwrap()["vae"]["scaling_factor"], 0.18215);
    assert_eq!(
        vae.of_kind(Kind::Sdxl).configs().unwrap()["vae"]["scaling_factor"],
        0.13025
    );
}

#[test]
fn what_has_no_place_in_a_file_is_not_written() {
    let file = opened(&stored("sdxl/sdxl.safetensors"));
    let text = file.component(Component::TextEncoder2).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let write = |kind, component| {
        single_file::write(
            &path,
            kind,
            &[(component, &text)],
            Markers::default(),
            Precision::Stored,
        )
        .unwrap_err()
        .to_string()
    };
    let message = write(Kind::Sd1, Component::TextEncoder2);
    assert!(
        message.contains("sd1 has no place for the component text_encoder_2"),
        "{message}"
    );
    let message = write(Kind::Sd1, Component::Vae);
    assert!(message.contains("has no name in a single file"), "{message}");
    assert!(!path.exists());
}

/// A file of `torch.save`: an archive with this pickle and one storage of one number.
fn pickled(pickle: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ckpt");
    let mut archive = zip::ZipWriter::new(fs::File::create(&path).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in [("a/data.pkl", pickle), ("a/data/0", &[0; 4])] {
        archive.start_file(name, options).unwrap();
        archive.write_all(content).unwrap();
    }
    archive.finish().unwrap();
    (folder, path)
}

/// The instructions for a text.
fn text(text: &str) -> Vec<u8> {
    [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

#[test]
fn what_a_trainer_leaves_is_passed_over_and_never_called() {
    let tensor = [
        &b"ctorch._utils\n_rebuild_tensor_v2\n(("[..],
        &text("storage"),
        b"ctorch\nFloatStorage\n",
        &text("0"),
        &text("cpu"),
        b"K\x01tQK\x00K\x01\x85K\x01\x85\x89NtR",
    ]
    .concat();
    let command = [
        &b"cposix\nsystem\n"[..],
        &text("touch langevin-ran-a-pickle"),
        b"\x85R",
    ]
    .concat();
    let dict = |entries: &[(&str, &[u8])]| {
        let entries = entries
            .iter()
            .map(|(key, value)| [&text(key)[..], value, b"s"].concat());
        [&b"}"[..], &entries.collect::<Vec<_>>().concat()].concat()
    };
    let whole = |content: Vec<u8>| pickled(&[&b"\x80\x02"[..], &content, b"."].concat());
    let weights = dict(&[("decoder.up.0.block.0.norm1.bias", &tensor), ("step", b"K\x05")]);

    let (_folder, path) = whole(dict(&[("callbacks", &command), ("state_dict", &weights)]));
    let file = opened(&path);
    assert_eq!(
        (file.kind(), file.components()),
        (Kind::Vae, vec![Component::Vae])
    );
    let mut vae = file.component(Component::Vae).unwrap();
    assert_eq!(
        vae.read("decoder.up_blocks.0.resnets.0.norm1.bias").unwrap(),
        [0.0]
    );

    let hostile = dict(&[("decoder.up.0.block.0.norm1.bias", &command)]);
    for content in [dict(&[("state_dict", &hostile)]), hostile, command] {
        let (_folder, path) = whole(content);
        sentence(SingleFile::open(&path), &path, &["posix.system", "not run"]);
    }
    // A dict that is its own state dict.
    let (_folder, path) = whole([&b"}q\x00"[..], &text("state_dict"), b"h\x00s"].concat());
    sentence(SingleFile::open(&path), &path, &["holds no tensors"]);
    assert!(!Path::new("langevin-ran-a-pickle").exists());
}
