//! Names that parameters had in early checkpoints.

/// The attention blocks' projections before diffusers 0.15, and since. Mirrors
/// `ModelMixin._fix_state_dict_keys_on_load`; the normalisation, `group_norm`, kept its name.
const ATTENTION: [(&str, &str); 4] = [
    ("query", "to_q"),
    ("key", "to_k"),
    ("value", "to_v"),
    ("proj_attn", "to_out.0"),
];

/// Today's name of a parameter that has an early one: `mid_block.attentions.0.query.weight` is
/// `mid_block.attentions.0.to_q.weight`. `None` for every other.
pub(super) fn present(name: &str) -> Option<String> {
    let (layer, parameter) = name.rsplit_once('.')?;
    let (block, layer) = layer.rsplit_once('.')?;
    let (_, present) = ATTENTION.iter().find(|(early, _)| *early == layer)?;
    block
        .split('.')
        .any(|part| part == "attentions")
        .then(|| format!("{block}.{present}.{parameter}"))
}

#[cfg(test)]
mod tests {
    use super::present;

    #[test]
    fn attention_has_todays_names() {
        let of = |name: &str| present(name).unwrap_or_else(|| name.to_string());
        assert_eq!(
            of("mid_block.attentions.0.query.weight"),
            "mid_block.attentions.0.to_q.weight"
        );
        assert_eq!(
            of("down_blocks.1.attentions.0.proj_attn.bias"),
            "down_blocks.1.attentions.0.to_out.0.bias"
        );
        for same in [
            "mid_block.attentions.0.group_norm.weight",
            "mid_block.attentions.0.to_out.0.weight",
            "memory.key.weight",
            "key.weight",
            "key",
        ] {
            assert_eq!(present(same), None);
        }
    }
}
