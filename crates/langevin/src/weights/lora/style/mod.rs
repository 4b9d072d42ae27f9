//! How LoRA files name their tensors: a file per style, a row each in [`STYLES`].
//!
//! Names are read one by one and not file by file: files in the wild mix styles, half-converted ones do so within a name.

mod diffusers;
mod kohya;
mod lycoris;
mod peft;

use super::key::{Key, Part};
use crate::{named::named_enum, weights::single_file::Component};

named_enum! {
    /// How a LoRA file that is written names its tensors.
    pub enum LoraStyle: "a style of LoRA files" {
        /// `unet.….to_q.lora_A.weight`: PEFT's and today's diffusers'.
        Peft = "peft",
        /// `unet.….to_q.lora.down.weight`: diffusers' before PEFT.
        Diffusers = "diffusers",
        /// `lora_unet_…_to_q.lora_down.weight`: sd-scripts', and what A1111 and ComfyUI take.
        Kohya = "kohya",
    }
}

/// Reads a name; `None` where it is not of the style.
type Read = fn(&str) -> Option<Key>;

/// All styles that are read. The first that knows a name is right.
const STYLES: &[Read] = &[peft::key, diffusers::key, kohya::key, lycoris::key];

/// What a name says; `None` where it is of no style.
pub(super) fn key(name: &str) -> Option<Key> {
    STYLES.iter().find_map(|read| read(name))
}

/// What a part of a module of a component is called in a style; `None` where the style has no name for such a part.
pub(super) fn name(style: LoraStyle, component: Component, module: &str, part: Part) -> Option<String> {
    let written = match style {
        LoraStyle::Peft => peft::name,
        LoraStyle::Diffusers => diffusers::name,
        LoraStyle::Kohya => kohya::name,
    };
    written(component, module, part)
}

/// What a part is called in most files.
pub(super) fn part_name(part: Part) -> &'static str {
    let tables = [kohya::SUFFIXES, lycoris::SUFFIXES, peft::SUFFIXES];
    let found = tables.into_iter().find_map(|suffixes| suffix(suffixes, part));
    let name = found.unwrap_or_default().trim_start_matches('.');
    name.strip_suffix(".weight").unwrap_or(name)
}

/// The suffix of a part among a style's.
fn suffix(suffixes: &[(&'static str, Part)], part: Part) -> Option<&'static str> {
    suffixes
        .iter()
        .find(|(_, of)| *of == part)
        .map(|(suffix, _)| *suffix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_style_is_read() {
        use Component::{TextEncoder, TextEncoder2, Unet};
        let unet = "down_blocks.0.attentions.0.transformer_blocks.0.attn1";
        for (name, component, module, part) in [
            (
                format!("unet.{unet}.to_out.0.lora_A.weight"),
                Some(Unet),
                format!("{unet}.to_out.0"),
                Part::Down,
            ),
            (
                format!("base_model.model.{unet}.to_q.lora_B.default.weight"),
                None,
                format!("{unet}.to_q"),
                Part::Up,
            ),
            (
                format!("base_model.model.unet.{unet}.to_q.lora_B.bias"),
                Some(Unet),
                format!("{unet}.to_q"),
                Part::UpBias,
            ),
            (
                format!("unet.{unet}.to_q.lora_magnitude_vector"),
                Some(Unet),
                format!("{unet}.to_q"),
                Part::Magnitude,
            ),
            (
                format!("unet.{unet}.to_q.lora_magnitude_vector.default.weight"),
                Some(Unet),
                format!("{unet}.to_q"),
                Part::Magnitude,
            ),
            (
                format!("unet.{unet}.to_q.lora.up.weight"),
                Some(Unet),
                format!("{unet}.to_q"),
                Part::Up,
            ),
            (
                format!("{unet}.processor.to_out_lora.down.weight"),
                None,
                format!("{unet}.to_out.0"),
                Part::Down,
            ),
            (
                "text_encoder.text_model.encoder.layers.0.self_attn.to_out_lora.up.weight".into(),
                Some(TextEncoder),
                "text_model.encoder.layers.0.self_attn.out_proj".into(),
                Part::Up,
            ),
            (
                "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.down.weight"
                    .into(),
                Some(TextEncoder2),
                "text_model.encoder.layers.0.self_attn.q_proj".into(),
                Part::Down,
            ),
            (
                "lora_te_text_model_encoder_layers_0_mlp_fc1.alpha".into(),
                Some(TextEncoder),
                "text_model_encoder_layers_0_mlp_fc1".into(),
                Part::Alpha,
            ),
            (
                "lora_unet_input_blocks_4_1_proj_in.lora_mid.weight".into(),
                Some(Unet),
                "input_blocks_4_1_proj_in".into(),
                Part::Mid,
            ),
            // ComfyUI issue 3494: names that a converter left half way.
            (
                "lora_unet_down_blocks_2_attentions_0_transformer_blocks_2_attn1.to_q.lora_magnitude_vector"
                    .into(),
                Some(Unet),
                "down_blocks_2_attentions_0_transformer_blocks_2_attn1.to_q".into(),
                Part::Magnitude,
            ),
            (
                "lycoris_mid_block_resnets_0_conv1.lokr_w2_a".into(),
                None,
                "mid_block_resnets_0_conv1".into(),
                Part::LokrW2A,
            ),
        ] {
            let key = key(&name).unwrap_or_else(|| panic!("{name} is not read"));
            assert_eq!(
                key,
                Key {
                    component,
                    module,
                    part
                },
                "{name}"
            );
        }
        for foreign in [
            "model.diffusion_model.out.2.weight",
            "emb_params",
            "lora_A.weight.x",
            "alpha",
        ] {
            assert_eq!(key(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn what_is_written_is_read_as_what_it_was() {
        use crate::named::Named;
        let module = "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0";
        for style in LoraStyle::ALL {
            for part in [Part::Down, Part::Up] {
                let name = name(*style, Component::Unet, module, part).unwrap();
                let key = key(&name).unwrap();
                assert_eq!((key.component, key.part), (Some(Component::Unet), part));
                assert_eq!(key.module.replace('.', "_"), module.replace('.', "_"));
            }
        }
        assert_eq!(
            name(LoraStyle::Peft, Component::Unet, module, Part::HadaW1A),
            None
        );
    }
}
