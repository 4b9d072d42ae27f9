//! Checkpoints that are not what they should be: each gives one sentence that names the file, and no panic.

use std::{collections::BTreeMap, fs, path::Path};

use burn::tensor::Device;
use langevin::models::{
    AnyModel, AutoencoderKL, AutoencoderTiny, Checkpoint, Model, ModelConfig, UNet2DConfig, UNet2DModel,
    VQModel, autoencoder::Tiling, weights,
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

/// A copy of a small checkpoint from the references, to be broken.
fn checkpoint() -> tempfile::TempDir {
    copy_of("unet2d/class_emb")
}

fn copy_of(reference: &str) -> tempfile::TempDir {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/reference")
        .join(reference);
    let folder = tempfile::tempdir().unwrap();
    for name in [weights::CONFIG_NAME, weights::FILE_NAME] {
        fs::copy(source.join(name), folder.path().join(name)).unwrap();
    }
    folder
}

/// The error of loading it, which must name `file` and contain each of `parts`.
fn refused(folder: &Path, file: &str, parts: &[&str]) {
    let error = UNet2DModel::load(folder, &Device::flex())
        .expect_err("it loaded")
        .to_string();
    assert!(error.contains(file), "{error}");
    assert!(!error.contains('\n'), "{error}");
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

/// Changes the tensors: name to type, shape and bytes.
fn change_weights(folder: &Path, change: impl FnOnce(&mut BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>)) {
    let path = folder.join(weights::FILE_NAME);
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors = file
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
        .collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        (
            name.as_str(),
            TensorView::new(*dtype, shape.clone(), data).unwrap(),
        )
    });
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn change_config(folder: &Path, key: &str, value: Value) {
    let path = folder.join(weights::CONFIG_NAME);
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config[key] = value;
    fs::write(path, config.to_string()).unwrap();
}

#[test]
fn a_missing_key_is_named() {
    let folder = checkpoint();
    change_weights(folder.path(), |tensors| {
        tensors.remove("conv_in.bias");
    });
    refused(folder.path(), weights::FILE_NAME, &["lacks conv_in.bias"]);
    // An old name in place of the new one is a missing key.
    change_weights(folder.path(), |tensors| {
        for i in 0..5 {
            let key = tensors.keys().next().unwrap().clone();
            let tensor = tensors.remove(&key).unwrap();
            tensors.insert(format!("zz.{i}.{key}"), tensor);
        }
    });
    refused(folder.path(), weights::FILE_NAME, &["more parameters"]);
}

#[test]
fn a_key_too_many_is_passed_over() {
    let folder = checkpoint();
    change_weights(folder.path(), |tensors| {
        tensors.insert("from.elsewhere".into(), (Dtype::F32, vec![1], vec![0; 4]));
    });
    UNet2DModel::load(folder.path(), &Device::flex()).unwrap();
}

#[test]
fn another_shape_is_refused() {
    let folder = checkpoint();
    change_weights(folder.path(), |tensors| {
        let (_, shape, _) = tensors.get_mut("conv_in.weight").unwrap();
        shape.swap(0, 1);
    });
    refused(
        folder.path(),
        weights::FILE_NAME,
        &["conv_in.weight has shape [3, 16, 3, 3]", "[16, 3, 3, 3]"],
    );
}

#[test]
fn another_type_is_refused_and_other_floats_are_read() {
    let folder = checkpoint();
    let expected = weights::named_tensors(&UNet2DModel::load(folder.path(), &Device::flex()).unwrap());
    change_weights(folder.path(), |tensors| {
        for (dtype, _, data) in tensors.values_mut() {
            let values = data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
            *data = values.flat_map(|x| f64::from(x).to_le_bytes()).collect();
            *dtype = Dtype::F64;
        }
    });
    let found = weights::named_tensors(&UNet2DModel::load(folder.path(), &Device::flex()).unwrap());
    assert_eq!(found, expected);
    change_weights(folder.path(), |tensors| {
        tensors.get_mut("conv_in.bias").unwrap().0 = Dtype::I64;
    });
    refused(
        folder.path(),
        weights::FILE_NAME,
        &["conv_in.bias is stored as I64", "F32"],
    );
}

#[test]
fn a_header_that_lies_is_refused() {
    let folder = checkpoint();
    let path = folder.path().join(weights::FILE_NAME);
    let whole = fs::read(&path).unwrap();
    let with_length = |length: u64| {
        let mut bytes = whole.clone();
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        bytes
    };
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap());
    for bytes in [
        with_length(u64::MAX),
        with_length(header - 1),
        with_length(header + 1),
        with_length(0),
        whole[..whole.len() - 1].to_vec(),
        whole[..100].to_vec(),
        whole[..7].to_vec(),
        vec![],
        b"{\"this is\": \"JSON\"}".to_vec(),
    ] {
        fs::write(&path, bytes).unwrap();
        refused(
            folder.path(),
            weights::FILE_NAME,
            &["not a whole safetensors file"],
        );
    }
    fs::remove_file(&path).unwrap();
    refused(folder.path(), weights::FILE_NAME, &["holds no weights"]);
}

#[test]
fn a_configuration_of_unknown_values_is_refused() {
    for (key, value, part) in [
        (
            "down_block_types",
            json!(["DownBlock3D", "DownBlock2D"]),
            "DownBlock3D",
        ),
        ("act_fn", json!("tangent"), "tangent"),
        ("in_channels", json!(-3), "-3"),
        ("block_out_channels", json!("many"), "many"),
        ("resnet_time_scale_shift", json!("spatial"), "spatial"),
    ] {
        let folder = checkpoint();
        change_config(folder.path(), key, value);
        refused(folder.path(), weights::CONFIG_NAME, &[part]);
    }
}

#[test]
fn a_configuration_that_contradicts_itself_is_refused() {
    for (key, value, part) in [
        ("block_out_channels", json!([16, 32, 64]), "one block a level"),
        ("block_out_channels", json!([]), "levels"),
        ("block_out_channels", json!([16, 30]), "norm_num_groups"),
        (
            "block_out_channels",
            json!([16, 1_000_000_000_000_u64]),
            "must be from 1 to",
        ),
        ("layers_per_block", json!(0), "layers_per_block is 0"),
        ("attention_head_dim", json!(64), "attention_head_dim 64"),
        ("attention_head_dim", json!(0), "attention_head_dim 0"),
        ("norm_num_groups", json!(null), "norm_num_groups is null"),
        ("dropout", json!(1.5), "dropout is 1.5"),
        ("num_class_embeds", json!(0), "num_class_embeds is 0"),
        ("time_embedding_type", json!("learned"), "num_train_timesteps"),
        ("norm_eps", json!(0.0), "norm_eps"),
    ] {
        let folder = checkpoint();
        change_config(folder.path(), key, value);
        let error = UNet2DModel::load(folder.path(), &Device::flex())
            .expect_err("it loaded")
            .to_string();
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

#[test]
fn a_configuration_that_is_no_json_is_refused() {
    let folder = checkpoint();
    for text in ["", "{", "[]", "null", "{\"in_channels\": 3,,}"] {
        fs::write(folder.path().join(weights::CONFIG_NAME), text).unwrap();
        refused(folder.path(), weights::CONFIG_NAME, &["not the JSON expected"]);
    }
}

#[test]
fn other_weights_than_the_configuration_makes_are_refused() {
    let folder = checkpoint();
    change_config(folder.path(), "block_out_channels", json!([16, 64]));
    refused(
        folder.path(),
        weights::FILE_NAME,
        &["where the configuration makes"],
    );
}

#[test]
fn a_file_that_is_cut_short_after_it_was_opened_is_refused() {
    let folder = checkpoint();
    let path = folder.path().join(weights::FILE_NAME);
    let mut opened = Checkpoint::in_folder(folder.path()).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(fs::metadata(&path).unwrap().len() / 2).unwrap();
    let config = UNet2DConfig::load(folder.path()).unwrap();
    let error = UNet2DModel::with_weights(&config, &mut opened, &Device::flex()).expect_err("it loaded");
    let sentence = format!("{}: ends in the middle of its weights", path.display());
    assert_eq!(error.to_string(), sentence);
}

#[test]
fn what_does_not_fit_the_model_is_refused() {
    use burn::tensor::{Int, Tensor};
    use langevin::models::{Conditioning, Denoiser};
    let folder = checkpoint();
    let device = Device::flex();
    let model = UNet2DModel::load(folder.path(), &device).unwrap();
    let ask = |shape: [usize; 4], timesteps: usize, classes: Option<usize>| {
        let classes = classes.map(|n| Tensor::<1, Int>::zeros([n], &device));
        let conditioning = Conditioning {
            classes,
            ..Conditioning::default()
        };
        model.denoise(
            Tensor::zeros(shape, &device),
            Tensor::zeros([timesteps], &device),
            &conditioning,
        )
    };
    assert!(ask([2, 3, 16, 16], 2, Some(2)).is_ok());
    for (shape, timesteps, classes, part) in [
        ([2, 1, 16, 16], 2, Some(2), "channels"),
        ([2, 3, 15, 16], 2, Some(2), "15x16"),
        ([2, 3, 0, 16], 2, Some(2), "0x16"),
        ([2, 3, 16, 16], 3, Some(2), "3 timesteps for 2 pictures"),
        ([2, 3, 16, 16], 2, Some(1), "one class or vector a picture"),
        ([2, 3, 16, 16], 2, None, "class-conditional"),
    ] {
        let error = ask(shape, timesteps, classes).unwrap_err().to_string();
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

/// The error of loading a changed copy of an autoencoder, which must contain `part`.
fn autoencoder_refused<M: Model>(reference: &str, changes: &[(&str, Value)], part: &str) {
    let folder = copy_of(reference);
    for (key, value) in changes {
        change_config(folder.path(), key, value.clone());
    }
    let error = M::load(folder.path(), &Device::flex())
        .map(|_| ())
        .expect_err(&format!("{changes:?} loaded"))
        .to_string();
    assert!(error.contains(part), "`{part}` is not in: {error}");
    assert!(!error.contains('\n'), "{error}");
}

#[test]
fn bad_configurations_of_an_autoencoder_kl_are_refused() {
    for (key, value, part) in [
        (
            "down_block_types",
            json!(vec!["AttnDownEncoderBlock2D"; 2]),
            "AttnDownEncoderBlock2D, which is not there yet",
        ),
        (
            "up_block_types",
            json!(["UpBlock", "UpDecoderBlock2D"]),
            "UpBlock, which is not there yet",
        ),
        ("up_block_types", json!(["UpDecoderBlock2D"]), "one block a level"),
        ("block_out_channels", json!([8, 16, 16]), "one block a level"),
        ("block_out_channels", json!([]), "1 to 16 levels"),
        ("block_out_channels", json!(vec![8; 17]), "1 to 16 levels"),
        ("block_out_channels", json!([8, 1_u64 << 60]), "must be from 1 to"),
        ("block_out_channels", json!([8, 18]), "norm_num_groups"),
        (
            "block_out_channels",
            json!([8, 20]),
            "where the configuration makes",
        ),
        ("in_channels", json!(0), "in_channels is 0"),
        ("out_channels", json!(1_u64 << 40), "out_channels is"),
        ("latent_channels", json!(u64::MAX), "latent_channels is"),
        ("layers_per_block", json!(65), "layers_per_block is 65"),
        ("norm_num_groups", json!(0), "norm_num_groups is 0"),
        ("sample_size", json!(0), "sample_size is 0"),
        ("sample_size", json!([64, 1_u64 << 30]), "sample_size is"),
        ("scaling_factor", json!(0.0), "scaling_factor is 0"),
        ("scaling_factor", json!(-1e300), "scaling_factor is"),
        ("latents_mean", json!([0.0, 0.0]), "latents_mean has 2 entries"),
        ("latents_std", json!([1, 1, 1, 1, 1, 1, 1, 0]), "latents_std is 0"),
        (
            "use_quant_conv",
            json!(true),
            "lacks quant_conv.weight, quant_conv.bias",
        ),
        ("mid_block_add_attention", json!("yes"), "not the JSON expected"),
        ("act_fn", json!("tangent"), "tangent"),
    ] {
        autoencoder_refused::<AutoencoderKL>("autoencoder/kl_no_quant_shift", &[(key, value)], part);
    }
}

#[test]
fn bad_configurations_of_an_autoencoder_tiny_are_refused() {
    for (key, value, part) in [
        (
            "upsample_fn",
            json!("bilinear"),
            "upsample_fn \"bilinear\" is not there yet",
        ),
        (
            "upsampling_scaling_factor",
            json!(3),
            "upsampling_scaling_factor 3 is not there yet",
        ),
        ("encoder_block_out_channels", json!([8, 8, 16]), "equally wide"),
        ("decoder_block_out_channels", json!([8, 8]), "has 2 entries"),
        ("encoder_block_out_channels", json!([]), "1 to 16 levels"),
        (
            "decoder_block_out_channels",
            json!([0, 0, 0]),
            "must be from 1 to",
        ),
        ("num_encoder_blocks", json!([1, 1]), "has 2 entries"),
        ("num_decoder_blocks", json!([1, 1, 1_u64 << 50]), "at most 64"),
        ("num_decoder_blocks", json!([1, 1, 2]), "lacks decoder.layers"),
        ("latent_channels", json!(0), "latent_channels is 0"),
        ("latent_magnitude", json!(0), "latent_magnitude is 0"),
        ("scaling_factor", json!(null), "not the JSON expected"),
    ] {
        autoencoder_refused::<AutoencoderTiny>("autoencoder/tiny_16_channels", &[(key, value)], part);
    }
}

#[test]
fn bad_configurations_of_a_vq_model_are_refused() {
    for (key, value, part) in [
        (
            "norm_type",
            json!("spatial"),
            "norm_type \"spatial\" is not there yet",
        ),
        (
            "lookup_from_codebook",
            json!(true),
            "lookup_from_codebook true is not there yet",
        ),
        ("num_vq_embeddings", json!(0), "num_vq_embeddings is 0"),
        (
            "num_vq_embeddings",
            json!(33),
            "quantize.embedding.weight has shape [32, 3]",
        ),
        ("num_vq_embeddings", json!(1_u64 << 50), "num_vq_embeddings is"),
        ("vq_embed_dim", json!(0), "vq_embed_dim is 0"),
        ("vq_embed_dim", json!(4), "where the configuration makes"),
        (
            "down_block_types",
            json!(["DownEncoderBlock2D"]),
            "one block a level",
        ),
        ("scaling_factor", json!(0), "scaling_factor is 0"),
    ] {
        autoencoder_refused::<VQModel>("autoencoder/vq", &[(key, value)], part);
    }
}

#[test]
fn a_matrix_is_no_vector_however_many_ones_stand_beside_it() {
    let folder = copy_of("autoencoder/kl_no_quant_shift");
    let name = "decoder.mid_block.attentions.0.to_q.bias";
    change_weights(folder.path(), |tensors| tensors.get_mut(name).unwrap().1.push(1));
    let error = AutoencoderKL::load(folder.path(), &Device::flex()).unwrap_err();
    assert!(error.to_string().contains("has shape [16, 1]"), "{error}");
}

#[test]
fn what_an_autoencoder_cannot_take_is_refused() {
    use burn::tensor::Tensor;
    let device = Device::flex();
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/autoencoder");
    let kl = AutoencoderKL::load(reference.join("kl_no_mid_attention"), &device).unwrap();
    let tiny = AutoencoderTiny::load(reference.join("tiny"), &device).unwrap();
    let vq = VQModel::load(reference.join("vq"), &device).unwrap();
    let zeros = |shape: [usize; 4]| Tensor::<4>::zeros(shape, &device);
    let tiling = |pixels, latents, overlap| Tiling {
        tile_sample_min_size: pixels,
        tile_latent_min_size: latents,
        tile_overlap_factor: overlap,
    };
    for (error, part) in [
        (
            kl.encode(zeros([1, 4, 8, 8])).map(|_| ()),
            "pictures of 3 channels",
        ),
        (kl.encode(zeros([1, 3, 3, 8])).map(|_| ()), "too small"),
        (
            kl.decode(zeros([1, 3, 8, 8])).map(|_| ()),
            "latents of 4 channels",
        ),
        (kl.decode(zeros([1, 4, 0, 8])).map(|_| ()), "0x8"),
        (tiny.encode(zeros([1, 3, 7, 8])).map(|_| ()), "too small"),
        (
            tiny.decode(zeros([1, 16, 2, 2])).map(|_| ()),
            "latents of 4 channels",
        ),
        (
            vq.quantize(zeros([1, 4, 2, 2])).map(|_| ()),
            "latents of 3 channels",
        ),
        (vq.decode(zeros([1, 3, 2, 0])).map(|_| ()), "2x0"),
        (
            kl.encode(zeros([1, 3, 8, 8]))
                .and_then(|of| of.sample(zeros([1, 4, 2, 1])))
                .map(|_| ()),
            "the noise has shape",
        ),
        // Tiles that do not begin, that overlap wholly, that leave gaps, and whose last one is smaller than a latent.
        (
            kl.decode_tiled(zeros([1, 4, 9, 9]), &tiling(16, 0, 0.25))
                .map(|_| ()),
            "cannot overlap",
        ),
        (
            kl.decode_tiled(zeros([1, 4, 9, 9]), &tiling(16, 4, 1.0))
                .map(|_| ()),
            "cannot overlap",
        ),
        (
            kl.decode_tiled(zeros([1, 4, 9, 9]), &tiling(16, 4, f64::NAN))
                .map(|_| ()),
            "cannot overlap",
        ),
        (
            kl.decode_tiled(zeros([1, 4, 9, 9]), &tiling(16, 4, 0.3))
                .map(|_| ()),
            "do not make a whole picture",
        ),
        (
            kl.encode_tiled(zeros([1, 3, 36, 36]), &tiling(24, 4, 0.25))
                .map(|_| ()),
            "do not make a whole picture",
        ),
        (
            kl.encode_tiled(zeros([1, 3, 27, 36]), &tiling(16, 4, 0.25))
                .map(|_| ()),
            "too small",
        ),
        (
            tiny.decode_tiled(zeros([1, 4, 9, 9]), &tiling(32, 0, 0.125))
                .map(|_| ()),
            "cannot overlap",
        ),
        (
            tiny.decode_tiled(zeros([1, 4, 9, 9]), &tiling(32, 4, -1.0))
                .map(|_| ()),
            "cannot overlap",
        ),
        (
            tiny.encode_tiled(zeros([1, 3, 45, 45]), &tiling(32, 4, 0.125))
                .map(|_| ()),
            "whole numbers of latents",
        ),
    ] {
        let error = error.expect_err(part).to_string();
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

/// A copy of a transformer's folder from the references, with one key of its configuration changed.
fn transformer(name: &str, key: &str, value: &Value) -> tempfile::TempDir {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/reference/dit")
        .join(name)
        .join("model");
    let folder = tempfile::tempdir().unwrap();
    for name in [weights::CONFIG_NAME, weights::FILE_NAME] {
        fs::copy(source.join(name), folder.path().join(name)).unwrap();
    }
    change_config(folder.path(), key, value.clone());
    folder
}

/// Each error names the file and says what is wrong in it.
fn transformers_refused(name: &str, changes: &[(&str, Value, &str)]) {
    for (key, value, part) in changes {
        let folder = transformer(name, key, value);
        let error = AnyModel::load(folder.path(), &Device::flex())
            .expect_err("it loaded")
            .to_string();
        assert!(error.contains(part), "{name}, {key}: `{part}` is not in: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

const TRANSFORMERS: [&str; 3] = ["dit_transformer", "pixart_transformer", "sd3_transformer"];

#[test]
fn numbers_that_make_no_transformer_are_refused() {
    let huge = json!(1_000_000_000_000_000_u64);
    for name in TRANSFORMERS {
        for key in [
            "in_channels",
            "out_channels",
            "num_layers",
            "num_attention_heads",
            "attention_head_dim",
            "sample_size",
            "patch_size",
        ] {
            transformers_refused(
                name,
                &[
                    (key, json!(0), &format!("{key} is 0")),
                    (key, huge.clone(), "must be from 1 to"),
                    (key, json!(-1), "-1"),
                    (key, json!("two"), "two"),
                ],
            );
        }
        transformers_refused(
            name,
            &[
                ("attention_head_dim", json!(7), "divisible by 4"),
                ("sample_size", json!(9), "not divisible by patch_size"),
            ],
        );
    }
    transformers_refused(
        "dit_transformer",
        &[
            ("num_embeds_ada_norm", json!(0), "num_embeds_ada_norm is 0"),
            ("num_embeds_ada_norm", huge.clone(), "num_embeds_ada_norm"),
            ("num_embeds_ada_norm", json!(10), "embedding_table.weight"),
            (
                "num_attention_heads",
                json!(1024),
                "where the configuration makes",
            ),
            ("norm_eps", json!(-1.0), "norm_eps"),
        ],
    );
    transformers_refused(
        "pixart_transformer",
        &[
            ("caption_channels", json!(0), "caption_channels is 0"),
            ("cross_attention_dim", json!(20), "must be equal"),
            ("cross_attention_dim", huge.clone(), "cross_attention_dim"),
            ("interpolation_scale", json!(0), "interpolation_scale"),
            ("use_additional_conditions", json!(true), "divisible by 3"),
            ("norm_eps", json!(0), "norm_eps"),
        ],
    );
    transformers_refused(
        "sd3_transformer",
        &[
            ("joint_attention_dim", json!(0), "joint_attention_dim is 0"),
            ("pooled_projection_dim", huge.clone(), "pooled_projection_dim"),
            ("pos_embed_max_size", json!(0), "pos_embed_max_size is 0"),
            ("pos_embed_max_size", huge, "pos_embed_max_size"),
            ("pos_embed_max_size", json!(24), "pos_embed.pos_embed has shape"),
            (
                "caption_projection_dim",
                json!(20),
                "caption_projection_dim is 20",
            ),
            ("dual_attention_layers", json!([0]), "attn2"),
        ],
    );
}

#[test]
fn what_a_transformer_does_not_do_yet_is_named() {
    for name in &TRANSFORMERS[..2] {
        transformers_refused(
            name,
            &[
                ("dropout", json!(0.1), "dropout 0.1 is not there yet"),
                ("norm_type", json!("layer_norm"), "norm_type"),
                ("activation_fn", json!("geglu"), "activation_fn \"geglu\""),
                (
                    "norm_elementwise_affine",
                    json!(true),
                    "norm_elementwise_affine true",
                ),
            ],
        );
    }
    transformers_refused(
        "pixart_transformer",
        &[
            ("attention_type", json!("gated"), "attention_type"),
            ("cross_attention_dim", Value::Null, "cross_attention_dim null"),
        ],
    );
    transformers_refused(
        "sd3_transformer",
        &[("qk_norm", json!("layer_norm"), "qk_norm \"layer_norm\"")],
    );
}

#[test]
fn what_does_not_fit_a_transformer_is_refused() {
    use burn::tensor::Tensor;
    use langevin::models::{Conditioning, Denoiser};
    let device = Device::flex();
    let load = |name| {
        let folder = transformer(name, "unknown", &Value::Null);
        AnyModel::load(folder.path(), &device).unwrap()
    };
    let ask = |model: &AnyModel, size: [usize; 2], conditioning: &Conditioning| {
        let x = Tensor::zeros([2, 4, size[0], size[1]], &device);
        model
            .denoise(x, Tensor::zeros([2], &device), conditioning)
            .map(|y| y.dims())
            .map_err(|e| e.to_string())
    };
    let of_classes = |classes| Conditioning {
        classes: Some(Tensor::zeros([classes], &device)),
        ..Conditioning::default()
    };
    let dit = load(TRANSFORMERS[0]);
    assert_eq!(ask(&dit, [8, 12], &of_classes(2)).unwrap(), [2, 8, 8, 12]);
    for (size, conditioning, part) in [
        ([7, 8], of_classes(2), "patches of 2x2"),
        ([0, 8], of_classes(2), "0x8"),
        ([8, 8], of_classes(3), "3 classes for 2 pictures"),
        ([8, 8], Conditioning::default(), "class-conditional"),
    ] {
        let error = ask(&dit, size, &conditioning).unwrap_err();
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }

    let told = |length: usize, mask: Option<usize>, vector: Option<usize>| Conditioning {
        sequence: Some(Tensor::zeros([2, length, 20], &device)),
        sequence_mask: mask.map(|length| Tensor::ones([2, length], &device)),
        vector: vector.map(|numbers| Tensor::zeros([2, numbers], &device)),
        ..Conditioning::default()
    };
    let pixart = load(TRANSFORMERS[1]);
    assert_eq!(
        ask(&pixart, [4, 8], &told(3, Some(3), None)).unwrap(),
        [2, 8, 4, 8]
    );
    assert!(
        ask(&pixart, [8, 8], &told(3, Some(4), None))
            .unwrap_err()
            .contains("mask")
    );
    assert!(
        ask(&pixart, [8, 8], &told(0, None, None))
            .unwrap_err()
            .contains("length")
    );
    assert!(
        ask(&pixart, [8, 8], &of_classes(2))
            .unwrap_err()
            .contains("sequence")
    );

    let sd3 = load(TRANSFORMERS[2]);
    assert_eq!(
        ask(&sd3, [8, 24], &told(3, None, Some(12))).unwrap(),
        [2, 4, 8, 24]
    );
    assert!(
        ask(&sd3, [8, 8], &told(3, None, None))
            .unwrap_err()
            .contains("12 numbers")
    );
    assert!(
        ask(&sd3, [8, 8], &told(3, None, Some(11)))
            .unwrap_err()
            .contains("[2, 12]")
    );
    let error = ask(&sd3, [8, 26], &told(3, None, Some(12))).unwrap_err();
    assert!(error.contains("4x13") && error.contains("12x12"), "{error}");
}

#[test]
fn an_early_transformer_has_todays_class() {
    for (name, class) in [
        (TRANSFORMERS[0], "DiTTransformer2DModel"),
        (TRANSFORMERS[1], "PixArtTransformer2DModel"),
    ] {
        let folder = transformer(name, "_class_name", &json!("Transformer2DModel"));
        let model = AnyModel::load(folder.path(), &Device::flex()).unwrap();
        assert_eq!(model.config().class_name(), class);
        let saved = tempfile::tempdir().unwrap();
        model.save(saved.path()).unwrap();
        let written = fs::read_to_string(saved.path().join(weights::CONFIG_NAME)).unwrap();
        assert!(written.contains(&format!("\"{class}\"")), "{written}");
    }
    transformers_refused(
        TRANSFORMERS[2],
        &[(
            "_class_name",
            json!("Transformer2DModel"),
            "a Transformer2DModel is not there yet",
        )],
    );
}
