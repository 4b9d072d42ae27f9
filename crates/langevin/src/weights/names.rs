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

/// What `torch.compile` and `DataParallel` put before the names of a whole model's parameters.
const WRAPPERS: [&str; 2] = ["_orig_mod.", "module."];

/// How many letters of all these names are of modules that only wrap the model: `module._orig_mod.conv_in.weight`.
pub(super) fn wrapped<'a>(names: impl Iterator<Item = &'a String> + Clone) -> usize {
    let mut length = 0;
    while let Some(first) = names.clone().next()
        && let Some(wrapper) = WRAPPERS
            .iter()
            .find(|wrapper| first[length..].starts_with(**wrapper))
        && names
            .clone()
            .all(|name| name.get(length..).is_some_and(|rest| rest.starts_with(wrapper)))
    {
        length += wrapper.len();
    }
    length
}

/// A parameter's name without the `_orig_mod.` of a compiled part of the model.
pub(super) fn not_compiled(name: &str) -> String {
    name.replace("._orig_mod.", ".")
}

#[cfg(test)]
mod tests {
    use super::{not_compiled, present, wrapped};

    #[test]
    fn modules_that_wrap_the_whole_model_are_found() {
        let of = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            wrapped(names.iter())
        };
        assert_eq!(of(&["_orig_mod.a", "_orig_mod.b.c"]), 10);
        assert_eq!(of(&["module._orig_mod.a", "module._orig_mod.b"]), 17);
        assert_eq!(of(&["module.a", "b"]), 0);
        assert_eq!(of(&["a"]), 0);
        assert_eq!(of(&[]), 0);
        assert_eq!(
            not_compiled("mid_block._orig_mod.resnets.0.weight"),
            "mid_block.resnets.0.weight"
        );
    }

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
