//! The configurations of a file's components: from their tensors' shapes, and from what is known of the kind.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Component, Kind, SingleFile, schedule};
use crate::{Error, Result, models::DIFFUSERS_VERSION, weights::Checkpoint};

/// The configurations of a file, by their folders' names.
pub(super) fn of(file: &SingleFile) -> Result<BTreeMap<&'static str, Value>> {
    let mut configs = BTreeMap::new();
    let there = file.components();
    for component in &there {
        let weights = file.component(*component)?;
        let shapes = Shapes(&weights);
        let (name, config) = match component {
            Component::Unet => ("unet", unet(&shapes, file)?),
            Component::Vae => ("vae", vae(&shapes, file.kind())?),
            Component::TextEncoder => ("text_encoder", text_encoder(&shapes, file.kind(), false)?),
            Component::TextEncoder2 => ("text_encoder_2", text_encoder(&shapes, file.kind(), true)?),
            Component::ControlNet => ("controlnet", controlnet(&shapes, file)?),
        };
        configs.insert(name, config);
    }
    if there.contains(&Component::Unet) {
        configs.extend(schedule::of(file.kind(), &file.file));
    }
    Ok(configs)
}

/// The shapes of a component's parameters.
struct Shapes<'a>(&'a Checkpoint);

impl Shapes<'_> {
    /// A parameter's shape, which has so many axes.
    fn get<const D: usize>(&self, name: &str) -> Result<[usize; D]> {
        let lacking = || Error::file(self.0.path(), format!("lacks {name}"));
        let shape = &self.0.get(name).ok_or_else(lacking)?.shape;
        shape.as_slice().try_into().map_err(|_| {
            let message = format!("{name} has shape {shape:?}, where {D} axes should be");
            Error::file(self.0.path(), message)
        })
    }

    fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some()
    }

    /// How many numbers from 0 on follow `prefix` in names.
    fn count(&self, prefix: &str) -> usize {
        let numbers: BTreeSet<usize> = self
            .0
            .names()
            .filter_map(|name| name.strip_prefix(prefix)?.split('.').next()?.parse().ok())
            .collect();
        (0..).take_while(|number| numbers.contains(number)).count()
    }

    /// The last number of a matrix or a convolution of one pixel.
    fn inputs(&self, name: &str) -> Option<usize> {
        self.0.get(name).and_then(|stored| stored.shape.get(1).copied())
    }
}

/// One number where all are the same, and all of them otherwise.
fn same_or_all<T: PartialEq + Into<Value> + Clone>(all: &[T]) -> Value {
    match all {
        [first, rest @ ..] if rest.iter().all(|other| other == first) => first.clone().into(),
        _ => Value::Array(all.iter().cloned().map(Into::into).collect()),
    }
}

/// One side of a UNet.
struct Side {
    widths: Vec<usize>,
    layers: Vec<usize>,
    /// Whether there is attention.
    attends: Vec<bool>,
    /// How many transformer blocks each layer's attention has.
    depths: Vec<Vec<usize>>,
}

impl Side {
    fn of(shapes: &Shapes<'_>, name: &str) -> Result<Self> {
        let mut side = Self {
            widths: vec![],
            layers: vec![],
            attends: vec![],
            depths: vec![],
        };
        for block in 0..shapes.count(&format!("{name}.")) {
            let block = format!("{name}.{block}");
            let layers = shapes.count(&format!("{block}.resnets."));
            let depth = |layer| shapes.count(&format!("{block}.attentions.{layer}.transformer_blocks."));
            let depths: Vec<usize> = (0..layers).map(depth).collect();
            let [width, ..] = shapes.get::<4>(&format!("{block}.resnets.0.conv1.weight"))?;
            side.widths.push(width);
            side.layers.push(layers);
            side.attends.push(depths.iter().any(|depth| *depth > 0));
            side.depths.push(depths);
        }
        Ok(side)
    }

    /// The classes of its blocks.
    fn types(&self, with: &str, without: &str) -> Vec<String> {
        let name = |attends: &bool| if *attends { with } else { without };
        self.attends
            .iter()
            .map(|attends| name(attends).to_string())
            .collect()
    }

    /// The depths as diffusers has them: a number per block, or one per layer. Where there is no attention any will do.
    fn depths(&self, without: usize) -> Vec<Value> {
        let depth = |(depths, attends): (&Vec<usize>, &bool)| match attends {
            true => same_or_all(depths),
            false => without.into(),
        };
        self.depths.iter().zip(&self.attends).map(depth).collect()
    }
}

/// What a UNet and a ControlNet have in common.
fn common(shapes: &Shapes<'_>, file: &SingleFile) -> Result<(Value, Side)> {
    let kind = file.kind();
    let down = Side::of(shapes, "down_blocks")?;
    let [_, channels, ..] = shapes.get::<4>("conv_in.weight")?;
    let middle = shapes.count("mid_block.attentions.0.transformer_blocks.");
    let depths = down.depths(if middle == 4 && kind == Kind::SdxlRefiner {
        4
    } else {
        1
    });
    let cross = shapes
        .0
        .names()
        .find(|name| name.ends_with(".attn2.to_k.weight"))
        .and_then(|name| shapes.inputs(name));
    let first = (0..down.attends.len()).find(|block| down.attends[*block]);
    let first = first.map(|block| format!("down_blocks.{block}.attentions.0"));
    let is_linear = first.as_ref().is_some_and(|first| {
        let stored = shapes.0.get(&format!("{first}.proj_in.weight"));
        stored.is_some_and(|stored| stored.shape.len() == 2)
    });
    let heads = match kind {
        _ if kind.is_xl() || kind.is_version_2() && kind != Kind::Upscale => same_or_all(
            &down
                .widths
                .iter()
                .map(|width| (width / 64).max(1))
                .collect::<Vec<_>>(),
        ),
        // A ControlNet of version 2 looks at its text, as version 2 does.
        Kind::ControlNet if cross == Some(1024) => same_or_all(
            &down
                .widths
                .iter()
                .map(|width| (width / 64).max(1))
                .collect::<Vec<_>>(),
        ),
        _ => 8.into(),
    };
    let mut config = json!({
        "_diffusers_version": DIFFUSERS_VERSION,
        "act_fn": "silu",
        "addition_embed_type": null,
        "addition_embed_type_num_heads": 64,
        "addition_time_embed_dim": null,
        "attention_head_dim": heads,
        "block_out_channels": down.widths,
        "class_embed_type": null,
        "cross_attention_dim": cross.unwrap_or(1280),
        "down_block_types": down.types("CrossAttnDownBlock2D", "DownBlock2D"),
        "downsample_padding": 1,
        "encoder_hid_dim": null,
        "encoder_hid_dim_type": null,
        "flip_sin_to_cos": true,
        "freq_shift": 0,
        "in_channels": channels,
        "layers_per_block": same_or_all(&down.layers),
        "mid_block_scale_factor": 1,
        "mid_block_type": match (shapes.count("mid_block.resnets."), middle) {
            (0, _) => Value::Null,
            (_, 0) => "UNetMidBlock2D".into(),
            _ => "UNetMidBlock2DCrossAttn".into(),
        },
        "norm_eps": 1e-5,
        "norm_num_groups": 32,
        "num_attention_heads": null,
        "num_class_embeds": null,
        "only_cross_attention": only_cross(shapes, &down),
        "projection_class_embeddings_input_dim": null,
        "resnet_time_scale_shift": "default",
        "transformer_layers_per_block": same_or_all(&depths),
        "upcast_attention": kind == Kind::Sd2,
        "use_linear_projection": is_linear,
    });
    if let Some(inputs) = shapes.inputs("add_embedding.linear_1.weight") {
        config["addition_embed_type"] = "text_time".into();
        config["addition_time_embed_dim"] = size_width(file, inputs).into();
        config["projection_class_embeddings_input_dim"] = inputs.into();
    }
    if let Some(inputs) = shapes.inputs("class_embedding.linear_1.weight") {
        config["class_embed_type"] = "projection".into();
        config["projection_class_embeddings_input_dim"] = inputs.into();
    }
    if shapes.has("class_embedding.weight") {
        config["num_class_embeds"] = shapes.get::<2>("class_embedding.weight")?[0].into();
    }
    Ok((config, down))
}

/// How wide each of the sizes is embedded that XL is told, of which there are six, or five in a refiner: what the text leaves of its vector.
fn size_width(file: &SingleFile, inputs: usize) -> usize {
    const USUAL: usize = 256;
    let sizes = if file.kind() == Kind::SdxlRefiner { 5 } else { 6 };
    let text = file.component(Component::TextEncoder2).ok();
    let text = text.and_then(|weights| weights.get(super::clip::PROJECTION)?.shape.first().copied());
    let left = text.and_then(|text| inputs.checked_sub(text));
    left.filter(|left| *left > 0 && left % sizes == 0)
        .map_or(USUAL, |left| left / sizes)
}

/// Whether a block's first attention looks at the text too: its keys are then as wide as the text, and not as the block. Where that is the same, it does not.
fn only_cross(shapes: &Shapes<'_>, down: &Side) -> Value {
    let keys = |block: usize| {
        shapes.inputs(&format!(
            "down_blocks.{block}.attentions.0.transformer_blocks.0.attn1.to_k.weight"
        ))
    };
    let is_cross = |block: usize| keys(block).map(|keys| keys != down.widths[block]);
    let known: Vec<Option<bool>> = (0..down.widths.len()).map(is_cross).collect();
    if !known.contains(&Some(true)) {
        return false.into();
    }
    let all: Vec<bool> = known.into_iter().map(|known| known.unwrap_or(true)).collect();
    same_or_all(&all)
}

fn unet(shapes: &Shapes<'_>, file: &SingleFile) -> Result<Value> {
    let (mut config, down) = common(shapes, file)?;
    let up = Side::of(shapes, "up_blocks")?;
    let [outputs, ..] = shapes.get::<4>("conv_out.weight")?;
    let condition = shapes.inputs("time_embedding.cond_proj.weight");
    let more = json!({
        "_class_name": "UNet2DConditionModel",
        "attention_type": "default",
        "center_input_sample": false,
        "class_embeddings_concat": false,
        "conv_in_kernel": 3,
        "conv_out_kernel": 3,
        "cross_attention_norm": null,
        "dropout": 0.0,
        "dual_cross_attention": false,
        "mid_block_only_cross_attention": null,
        "out_channels": outputs,
        "resnet_out_scale_factor": 1.0,
        "resnet_skip_time_act": false,
        "reverse_transformer_layers_per_block": reverse_depths(&down, &up),
        "sample_size": sample_size(file.kind()),
        "time_cond_proj_dim": condition,
        "time_embedding_act_fn": null,
        "time_embedding_dim": null,
        "time_embedding_type": "positional",
        "timestep_post_act": null,
        "up_block_types": up.types("CrossAttnUpBlock2D", "UpBlock2D"),
    });
    merge(&mut config, more);
    Ok(config)
}

/// The depths on the way up, where they are not those of the way down.
fn reverse_depths(down: &Side, up: &Side) -> Value {
    let uniform = |depths: &[usize]| {
        depths
            .iter()
            .all(|depth| *depth == depths[0])
            .then(|| depths.first().copied())
    };
    let of = |side: &Side| {
        side.depths
            .iter()
            .map(|depths| uniform(depths))
            .collect::<Vec<_>>()
    };
    let (mut there, back) = (of(down), of(up));
    there.reverse();
    match there == back {
        true => Value::Null,
        false => Value::Array(up.depths(1)),
    }
}

/// Height and width of a sample in latents.
fn sample_size(kind: Kind) -> usize {
    match kind {
        Kind::Sd2 => 96,
        Kind::Upscale => 128,
        _ if kind.is_xl() => 128,
        _ => 64,
    }
}

fn controlnet(shapes: &Shapes<'_>, file: &SingleFile) -> Result<Value> {
    let (mut config, _) = common(shapes, file)?;
    let [first, channels, ..] = shapes.get::<4>("controlnet_cond_embedding.conv_in.weight")?;
    let [_, last, ..] = shapes.get::<4>("controlnet_cond_embedding.conv_out.weight")?;
    let mut widths = vec![first];
    // Every second keeps the width, the others go to the next.
    for block in (1..shapes.count("controlnet_cond_embedding.blocks.")).step_by(2) {
        widths.push(shapes.get::<4>(&format!("controlnet_cond_embedding.blocks.{block}.weight"))?[0]);
    }
    if widths.last() != Some(&last) {
        let message = format!("has a hint of {widths:?} channels whose last layer takes {last}");
        return Err(Error::file(shapes.0.path(), message));
    }
    let more = json!({
        "_class_name": "ControlNetModel",
        "conditioning_channels": channels,
        "conditioning_embedding_out_channels": widths,
        "controlnet_conditioning_channel_order": "rgb",
        "global_pool_conditions": false,
    });
    merge(&mut config, more);
    Ok(config)
}

fn vae(shapes: &Shapes<'_>, kind: Kind) -> Result<Value> {
    let [_, inputs, ..] = shapes.get::<4>("encoder.conv_in.weight")?;
    let [outputs, ..] = shapes.get::<4>("decoder.conv_out.weight")?;
    let [_, latents, ..] = shapes.get::<4>("decoder.conv_in.weight")?;
    let levels = shapes.count("encoder.down_blocks.");
    let widths: Result<Vec<usize>> = (0..levels)
        .map(|level| Ok(shapes.get::<4>(&format!("encoder.down_blocks.{level}.resnets.0.conv1.weight"))?[0]))
        .collect();
    let (scaling, size) = match kind {
        Kind::Upscale => (0.083_33, 512),
        Kind::Sd2 => (0.182_15, 768),
        _ if kind.is_xl() => (0.130_25, 1024),
        _ => (0.182_15, 512),
    };
    Ok(json!({
        "_class_name": "AutoencoderKL",
        "_diffusers_version": DIFFUSERS_VERSION,
        "act_fn": "silu",
        "block_out_channels": widths?,
        "down_block_types": vec!["DownEncoderBlock2D"; levels],
        "force_upcast": true,
        "in_channels": inputs,
        "latent_channels": latents,
        "latents_mean": null,
        "latents_std": null,
        "layers_per_block": shapes.count("encoder.down_blocks.0.resnets."),
        "mid_block_add_attention": shapes.has("encoder.mid_block.attentions.0.to_q.weight"),
        "norm_num_groups": 32,
        "out_channels": outputs,
        "sample_size": size,
        "scaling_factor": scaling,
        "shift_factor": null,
        "up_block_types": vec!["UpDecoderBlock2D"; levels],
        "use_post_quant_conv": shapes.has("post_quant_conv.weight"),
        "use_quant_conv": shapes.has("quant_conv.weight"),
    }))
}

fn text_encoder(shapes: &Shapes<'_>, kind: Kind, is_second: bool) -> Result<Value> {
    let [vocabulary, width] = shapes.get("text_model.embeddings.token_embedding.weight")?;
    let [places, _] = shapes.get(super::clip::POSITIONS.0)?;
    let [inner, _] = shapes.get("text_model.encoder.layers.0.mlp.fc1.weight")?;
    let projection = match is_second {
        true => shapes.get::<2>(super::clip::PROJECTION)?[0],
        // It has none, and says what it had.
        false if kind.is_version_2() => 512,
        false => width,
    };
    // Those of open_clip were trained with the exact function.
    let is_open_clip = is_second || kind.is_version_2();
    Ok(json!({
        "architectures": [if is_second { "CLIPTextModelWithProjection" } else { "CLIPTextModel" }],
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "hidden_act": if is_open_clip { "gelu" } else { "quick_gelu" },
        "hidden_size": width,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "intermediate_size": inner,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": places,
        "model_type": "clip_text_model",
        "num_attention_heads": (width / 64).max(1),
        "num_hidden_layers": shapes.count("text_model.encoder.layers."),
        "pad_token_id": 1,
        "projection_dim": projection,
        "vocab_size": vocabulary,
    }))
}

/// Adds the entries of an object to another.
fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}
