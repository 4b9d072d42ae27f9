//! A module's name with full stops, of one with underscores, without the model that it is of.

/// Words of modules' names that have underscores in them.
const WORDS: [&str; 39] = [
    "down_blocks",
    "up_blocks",
    "mid_block",
    "transformer_blocks",
    "input_blocks",
    "middle_block",
    "output_blocks",
    "in_layers",
    "out_layers",
    "emb_layers",
    "skip_connection",
    "time_embed",
    "label_emb",
    "to_q",
    "to_k",
    "to_v",
    "to_out",
    "proj_in",
    "proj_out",
    "conv_in",
    "conv_out",
    "conv_shortcut",
    "conv_norm_out",
    "time_emb_proj",
    "time_embedding",
    "add_embedding",
    "class_embedding",
    "cond_proj",
    "linear_1",
    "linear_2",
    "text_model",
    "self_attn",
    "q_proj",
    "k_proj",
    "v_proj",
    "out_proj",
    "text_projection",
    "final_layer_norm",
    "token_embedding",
];

/// The name with full stops. What is no word with underscores is one without.
pub(super) fn dotted(name: &str) -> String {
    let (mut rest, mut words) = (name, Vec::new());
    while !rest.is_empty() {
        let ends = |word: &str| matches!(rest.as_bytes().get(word.len()), None | Some(b'_' | b'.'));
        let known = WORDS
            .into_iter()
            .filter(|word| rest.starts_with(word) && ends(word))
            .max_by_key(|word| word.len());
        let len = known.map_or_else(|| rest.find(['_', '.']).unwrap_or(rest.len()), str::len);
        words.push(&rest[..len]);
        rest = rest[len..].strip_prefix(['_', '.']).unwrap_or("");
    }
    words.join(".")
}

#[cfg(test)]
mod tests {
    use super::dotted;

    #[test]
    fn words_keep_their_underscores() {
        for name in [
            "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0",
            "mid_block.resnets.1.time_emb_proj",
            "up_blocks.0.upsamplers.0.conv",
            "down_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj",
            "input_blocks.4.1.proj_in",
            "output_blocks.2.0.skip_connection",
            "text_model.encoder.layers.11.self_attn.out_proj",
            "text_model.encoder.layers.0.mlp.fc1",
            "time_embedding.linear_1",
            "conv_in",
        ] {
            assert_eq!(dotted(&name.replace('.', "_")), name);
            assert_eq!(dotted(name), name);
        }
    }
}
