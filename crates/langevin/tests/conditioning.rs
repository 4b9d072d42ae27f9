//! Models that are told more than a timestep: what they need, and how they say what is missing.

use burn::tensor::{Int, Tensor, TensorData};
use langevin::{
    device::default_device,
    models::{
        AnyModel, AnyModelConfig, ClassChannels, Conditioning, Denoiser, DiTTransformer2DConfig,
        ImageCondition, Model, ModelConfig, ModelInputs, ModelPreset, PixArtTransformer2DConfig,
        PixArtTransformer2DModel, SD3Transformer2DConfig, SD3Transformer2DModel, UNet2DConditionConfig,
        UNet2DConditionModel, weights,
    },
    random::Generator,
};

fn digits(inputs: &ModelInputs) -> AnyModelConfig {
    ModelPreset::Digits.config().made_with(8, 1, inputs).unwrap()
}

fn built(inputs: &ModelInputs) -> AnyModel {
    digits(inputs)
        .build(&default_device(), &mut Generator::new(0))
        .unwrap()
}

fn noise(channels: usize) -> Tensor<4> {
    Generator::new(1).randn_tensor([2, channels, 8, 8], &default_device())
}

fn classes(numbers: [i64; 2]) -> Conditioning {
    Conditioning {
        classes: Some(Tensor::<1, Int>::from_data(
            TensorData::new(numbers.to_vec(), [2]),
            &default_device(),
        )),
        ..Conditioning::default()
    }
}

/// The model's prediction, or what it says.
fn ask(model: &AnyModel, told: &Conditioning) -> Result<Vec<f32>, String> {
    let timesteps = Tensor::full([2], 500.0, &default_device());
    let prediction = model
        .denoise(noise(1), timesteps, told)
        .map_err(|e| e.to_string())?;
    assert_eq!(prediction.dims(), [2, 1, 8, 8]);
    Ok(prediction.into_data().try_into_vec().unwrap())
}

#[test]
fn each_class_channel_changes_the_prediction() {
    for class_channels in [ClassChannels::Embedding(4), ClassChannels::OneHot] {
        let model = built(&ModelInputs {
            num_classes: Some(11),
            class_channels: Some(class_channels),
            ..ModelInputs::default()
        });
        let three = ask(&model, &classes([3, 3])).unwrap();
        assert_ne!(three, ask(&model, &classes([4, 10])).unwrap());
        assert!(
            ask(&model, &Conditioning::default())
                .unwrap_err()
                .contains("class")
        );
    }
}

#[test]
fn a_conditioning_picture_is_a_channel_and_must_be_as_large() {
    let inputs = ModelInputs {
        image: Some(ImageCondition::Edges),
        ..ModelInputs::default()
    };
    let config = digits(&inputs);
    assert_eq!(config.in_channels(), 1);
    assert_eq!(config.image_condition(), Some(ImageCondition::Edges));
    let model = built(&inputs);
    let shown = |side: usize| Conditioning {
        channels: Some(Tensor::zeros([2, 1, side, side], &default_device())),
        ..Conditioning::default()
    };
    ask(&model, &shown(8)).unwrap();
    assert!(ask(&model, &shown(4)).unwrap_err().contains("4x4"));
    assert!(
        ask(&model, &Conditioning::default())
            .unwrap_err()
            .contains("channels")
    );
}

#[test]
fn a_sequence_must_be_there_and_of_the_models_dimension() {
    let model = built(&ModelInputs {
        sequence_dim: Some(12),
        ..ModelInputs::default()
    });
    let told = |dimension: usize| Conditioning {
        sequence: Some(Tensor::ones([2, 5, dimension], &default_device())),
        ..Conditioning::default()
    };
    ask(&model, &told(12)).unwrap();
    assert!(ask(&model, &told(16)).unwrap_err().contains("[2, length, 12]"));
    assert!(
        ask(&model, &Conditioning::default())
            .unwrap_err()
            .contains("sequence")
    );
    let mut with_class = told(12);
    with_class.classes = classes([0, 1]).classes;
    assert!(ask(&model, &with_class).unwrap_err().contains("no classes"));
}

#[test]
fn a_conditional_unets_folder_keeps_what_it_does_not_know() {
    let folder = tempfile::tempdir().unwrap();
    let AnyModelConfig::Condition(mut config) = digits(&ModelInputs {
        sequence_dim: Some(12),
        ..ModelInputs::default()
    }) else {
        panic!("a model that looks at a sequence");
    };
    config.unknown.insert("upcast_attention".into(), true.into());
    let device = default_device();
    let model = UNet2DConditionModel::new(&config, &device, &mut Generator::new(3)).unwrap();
    model.save(folder.path()).unwrap();
    let again = UNet2DConditionModel::load(folder.path(), &device).unwrap();
    assert_eq!(again.config(), &config);
    assert_eq!(again.num_parameters(), model.num_parameters());
}

#[test]
fn what_is_not_there_yet_is_said_to_be() {
    let with = |key: &str, value: serde_json::Value| {
        let mut config = UNet2DConditionConfig::default();
        config.unknown.insert(key.into(), value);
        config.validate().unwrap_err().to_string()
    };
    assert!(with("dual_cross_attention", true.into()).contains("dual_cross_attention"));
    assert!(with("time_embedding_type", "fourier".into()).contains("time_embedding_type"));
    let config = UNet2DConditionConfig {
        class_embed_type: serde_json::from_str("\"projection\"").unwrap(),
        ..UNet2DConditionConfig::default()
    };
    assert!(
        config
            .validate()
            .unwrap_err()
            .to_string()
            .contains("projection_class_embeddings_input_dim")
    );
}

#[test]
fn a_sequence_keeps_its_mask() {
    let device = default_device();
    let told = |masked: Option<f32>| Conditioning {
        sequence: Some(Tensor::zeros([1, 2, 3], &device)),
        sequence_mask: masked.map(|number| Tensor::full([1, 2], number, &device)),
        ..Conditioning::default()
    };
    let mask = |conditioning: Conditioning| -> Vec<f32> {
        conditioning
            .sequence_mask
            .unwrap()
            .into_data()
            .try_into_vec()
            .unwrap()
    };
    let both = told(Some(0.0)).followed_by(&told(Some(1.0))).unwrap();
    assert_eq!(mask(both.rows(&[1, 0, 1])), [1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
    assert_eq!(mask(Conditioning::default().and(told(Some(1.0)))), [1.0, 1.0]);
    // Of two sequences the first is meant, and with it its mask or none.
    assert!(told(None).and(told(Some(1.0))).sequence_mask.is_none());
    let error = told(None).followed_by(&told(Some(1.0))).unwrap_err().to_string();
    assert!(error.contains("mask"), "{error}");
}

fn dit() -> AnyModelConfig {
    DiTTransformer2DConfig {
        num_layers: 1,
        num_attention_heads: 2,
        attention_head_dim: 8,
        ..DiTTransformer2DConfig::default()
    }
    .into()
}

#[test]
fn a_dit_is_made_for_classes_and_nothing_else() {
    let made = dit().made_for(12, 3, Some(11)).unwrap();
    assert_eq!((made.in_channels(), made.num_class_embeds()), (3, Some(11)));
    assert_eq!((made.sample_size(), made.size_divisor()), (Some([12, 12]), 2));
    let model = made.build(&default_device(), &mut Generator::new(1)).unwrap();
    let x = Tensor::zeros([2, 3, 12, 12], &default_device());
    let times = Tensor::zeros([2], &default_device());
    let answer = model.denoise(x, times, &classes([0, 10])).unwrap();
    assert_eq!(answer.dims(), [2, 3, 12, 12]);

    let refused = |resolution: usize, inputs: &ModelInputs| {
        let error = dit().made_with(resolution, 3, inputs).unwrap_err();
        error.to_string()
    };
    let told = ModelInputs {
        num_classes: Some(11),
        ..ModelInputs::default()
    };
    assert!(refused(12, &ModelInputs::default()).contains("`conditioning` must be `class`"));
    assert!(refused(13, &told).contains("patches of 2x2"));
    let text = ModelInputs {
        sequence_dim: Some(12),
        ..told.clone()
    };
    assert!(refused(12, &text).contains("nothing else"));
    let image = ModelInputs {
        image: Some(ImageCondition::Edges),
        ..told
    };
    assert!(refused(12, &image).contains("`conditioning_image`"));
}

#[test]
fn the_other_transformers_are_not_trained() {
    let configs: [AnyModelConfig; 2] = [
        PixArtTransformer2DConfig::default().into(),
        SD3Transformer2DConfig::default().into(),
    ];
    for config in configs {
        config.validate().unwrap();
        assert!(!config.takes_classes());
        let name = config.class_name();
        let error = config.made_for(32, 3, None).unwrap_err().to_string();
        assert!(
            error.contains(name) && error.contains("not trained yet"),
            "{error}"
        );
    }
}

fn numbers(tensor: Tensor<4>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

#[test]
fn a_pixart_of_large_pictures_is_told_their_size() {
    let config = PixArtTransformer2DConfig {
        num_layers: 1,
        num_attention_heads: 2,
        attention_head_dim: 6,
        cross_attention_dim: Some(12),
        caption_channels: Some(5),
        ..PixArtTransformer2DConfig::default()
    };
    let device = default_device();
    let model = PixArtTransformer2DModel::new(&config, &device, &mut Generator::new(1)).unwrap();
    let names = weights::parameter_names(&model);
    for layer in ["resolution_embedder", "aspect_ratio_embedder"] {
        let name = format!("adaln_single.emb.{layer}.linear_2.weight");
        assert!(names.contains(&name), "{names:?}");
    }
    let ask = |sizes: &[f32]| {
        let told = Conditioning {
            sequence: Some(Generator::new(2).randn_tensor([1, 3, 5], &device)),
            time_ids: Some(Tensor::<1>::from_floats(sizes, &device).unsqueeze()),
            ..Conditioning::default()
        };
        let x = Generator::new(3).randn_tensor([1, 4, 4, 4], &device);
        let answer = model.denoise(x, Tensor::full([1], 20.0, &device), &told);
        answer.map(numbers).map_err(|e| e.to_string())
    };
    let square = ask(&[1024.0, 1024.0, 1.0]).unwrap();
    assert_ne!(square, ask(&[512.0, 1024.0, 1.0]).unwrap());
    assert_ne!(square, ask(&[1024.0, 1024.0, 0.5]).unwrap());
    assert!(ask(&[1024.0; 6]).unwrap_err().contains("height over width"));
}

#[test]
fn a_picture_may_look_at_itself_once_more_in_some_layers() {
    let config = SD3Transformer2DConfig {
        num_layers: 2,
        num_attention_heads: 2,
        attention_head_dim: 8,
        in_channels: 4,
        joint_attention_dim: 6,
        caption_projection_dim: 16,
        pooled_projection_dim: 5,
        pos_embed_max_size: 8,
        sample_size: 8,
        dual_attention_layers: vec![0],
        qk_norm: Some("rms_norm".into()),
        ..SD3Transformer2DConfig::default()
    };
    let device = default_device();
    let model = SD3Transformer2DModel::new(&config, &device, &mut Generator::new(1)).unwrap();
    let tensors = weights::named_tensors(&model);
    let shape = |name: &str| {
        let found = tensors.iter().find(|tensor| tensor.name == name);
        found.map(|tensor| tensor.shape.clone())
    };
    assert_eq!(
        shape("transformer_blocks.0.norm1.linear.weight"),
        Some(vec![144, 16])
    );
    assert_eq!(shape("transformer_blocks.0.attn2.norm_q.weight"), Some(vec![8]));
    assert_eq!(
        shape("transformer_blocks.1.norm1.linear.weight"),
        Some(vec![96, 16])
    );
    assert_eq!(shape("transformer_blocks.1.attn2.to_q.weight"), None);

    let told = Conditioning {
        sequence: Some(Generator::new(2).randn_tensor([1, 3, 6], &device)),
        vector: Some(Tensor::ones([1, 5], &device)),
        ..Conditioning::default()
    };
    let ask = |model: &SD3Transformer2DModel| {
        let x = Generator::new(3).randn_tensor([1, 4, 8, 8], &device);
        numbers(model.denoise(x, Tensor::full([1], 20.0, &device), &told).unwrap())
    };
    let whole = ask(&model);
    let mut without = model;
    without.transformer_blocks[0].attn2 = None;
    assert_ne!(whole, ask(&without));
}
