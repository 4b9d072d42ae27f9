//! What an IP-Adapter's file is: read from the names and shapes of its tensors, for it has no configuration.

use std::path::Path;

use crate::{
    Error, Result,
    models::{AnyModelConfig, UNet2DConditionConfig},
    weights::Checkpoint,
};

/// More layers than any resampler has.
const MOST_LAYERS: usize = 64;
/// The dimension of a resampler's heads; the authors fix it.
pub(super) const HEAD_DIM: usize = 64;
/// The tokens that a picture's one vector becomes in a plain adapter; the authors fix it.
const PLAIN_TOKENS: usize = 4;

/// What is made of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpAdapterKind {
    /// So many tokens of the picture's one vector.
    Plain {
        /// How many.
        tokens: usize,
    },
    /// "plus": tokens that have looked at the patches of the picture.
    Plus {
        /// How many.
        tokens: usize,
        /// Their dimension while they look.
        hidden: usize,
        /// How many heads look.
        heads: usize,
        /// How often they look.
        layers: usize,
        /// The inner dimension of the feed-forwards.
        widened: usize,
    },
    /// "full": a token of each patch.
    Full,
}

/// What an IP-Adapter consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpAdapterConfig {
    /// What is made of a picture.
    pub kind: IpAdapterKind,
    /// The dimension of what its picture's encoder says.
    pub image_embed_dim: usize,
    /// The dimension of the tokens, which is that of the UNet's cross-attentions.
    pub cross_attention_dim: usize,
    /// The channels of each cross-attention that it was made for: on the way down, on the way up, and in the middle.
    pub widths: Vec<usize>,
}

impl IpAdapterConfig {
    /// What a file holds, of whose weights nothing is read.
    ///
    /// # Errors
    /// If it cannot be read, or is no such file.
    pub fn at(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Self::of_weights(Checkpoint::open(path)?)?.0)
    }

    /// What these weights are, and the weights under this library's names.
    ///
    /// # Errors
    /// If they are no IP-Adapter's, or of a kind that is not there.
    pub fn of_weights(mut weights: Checkpoint) -> Result<(Self, Checkpoint)> {
        let path = weights.path().to_path_buf();
        let fail = |what: &str| Error::file(&path, what);
        // A tensor without numbers may claim any side.
        let shape = |name: &str| {
            let shape = weights.get(name).map(|stored| stored.shape.clone());
            shape.filter(|shape| !shape.contains(&0))
        };
        let side = |name: &str, axis: usize| shape(name).and_then(|shape| shape.get(axis).copied());
        let has = |name: &str| weights.get(name).is_some();
        if !weights.names().any(|name| name.starts_with("image_proj."))
            || !weights.names().any(|name| name.starts_with("ip_adapter."))
        {
            return Err(fail(
                "holds no IP-Adapter: there is no image_proj and no ip_adapter in it",
            ));
        }
        // Before the rest: they have names in common with the others.
        let is_face = has("image_proj.perceiver_resampler.proj_in.weight")
            || has("image_proj.norm.weight") && has("image_proj.proj.0.weight");
        if is_face {
            return Err(fail(
                "holds a FaceID adapter, which is told the vector of a face by another network (insightface): it is not there yet",
            ));
        }
        let count = |start: &str| {
            let there = |number: &usize| {
                let start = format!("{start}{number}.");
                weights.names().any(|name| name.starts_with(&start))
            };
            (0..MOST_LAYERS).take_while(there).count()
        };
        let widths: Vec<usize> = (0..)
            .map_while(|number: usize| side(&format!("ip_adapter.{}.to_k_ip.weight", 2 * number + 1), 0))
            .collect();
        let keys = side("ip_adapter.1.to_k_ip.weight", 1);
        let found = if has("image_proj.proj.weight") {
            let outputs = side("image_proj.proj.weight", 0).unwrap_or_default();
            let tokens = keys
                .filter(|&dim| dim > 0)
                .map_or(PLAIN_TOKENS, |dim| outputs / dim);
            let kind = IpAdapterKind::Plain { tokens };
            side("image_proj.proj.weight", 1).map(|inputs| (kind, inputs))
        } else if has("image_proj.proj.3.weight") {
            side("image_proj.proj.0.weight", 1).map(|inputs| (IpAdapterKind::Full, inputs))
        } else {
            let numbers = (
                side("image_proj.latents", 1),
                side("image_proj.latents", 2),
                side("image_proj.layers.0.0.to_q.weight", 0),
                side("image_proj.layers.0.1.1.weight", 0),
            );
            match (numbers, side("image_proj.proj_in.weight", 1)) {
                ((Some(tokens), Some(hidden), Some(inner), Some(widened)), Some(inputs)) => {
                    let kind = IpAdapterKind::Plus {
                        tokens,
                        hidden,
                        heads: inner / HEAD_DIM,
                        layers: count("image_proj.layers."),
                        widened,
                    };
                    Some((kind, inputs))
                }
                _ => None,
            }
        };
        let (Some((kind, image_embed_dim)), Some(cross_attention_dim)) = (found, keys) else {
            return Err(fail("holds an IP-Adapter of a kind that is not known here"));
        };
        let config = Self {
            kind,
            image_embed_dim,
            cross_attention_dim,
            widths,
        };
        config.validate().map_err(|message| fail(&message))?;
        weights.rename(|name| renamed(name, kind));
        Ok((config, weights))
    }

    fn validate(&self) -> Result<(), String> {
        let sizes = match self.kind {
            IpAdapterKind::Plain { tokens } => [tokens, 1, 1, 1, 1],
            IpAdapterKind::Plus {
                tokens,
                hidden,
                heads,
                layers,
                widened,
            } => [tokens, hidden, heads, layers, widened],
            IpAdapterKind::Full => [1; 5],
        };
        let all = sizes
            .into_iter()
            .chain([self.image_embed_dim, self.cross_attention_dim]);
        match all
            .chain(self.widths.iter().copied())
            .all(|size| (1..=1 << 16).contains(&size))
        {
            true => Ok(()),
            false => Err("holds an IP-Adapter of impossible sizes".into()),
        }
    }

    /// Whether it is told the vectors of a picture's patches, and not the picture's own.
    pub fn sees_patches(&self) -> bool {
        !matches!(self.kind, IpAdapterKind::Plain { .. })
    }

    /// How many numbers the scores of its attention take beside a text's: tokens of a picture.
    pub fn tokens(&self, patches: usize) -> usize {
        match self.kind {
            IpAdapterKind::Plain { tokens } | IpAdapterKind::Plus { tokens, .. } => tokens,
            IpAdapterKind::Full => patches,
        }
    }

    /// Refuses an adapter that was made for another UNet, and says for which.
    ///
    /// # Errors
    /// If it was.
    pub fn check_fits(&self, model: &AnyModelConfig) -> Result<()> {
        let AnyModelConfig::Condition(unet) = model else {
            return Err(Error::option(
                &["ip_adapter"],
                format!(
                    "an IP-Adapter is for a {}, and this model is a {}",
                    <UNet2DConditionConfig as crate::models::ModelConfig>::CLASS,
                    model.class_name()
                ),
            ));
        };
        let own = unet.cross_attentions();
        let [down, middle, up] = &own;
        let ours: Vec<usize> = [down, up, middle]
            .into_iter()
            .flatten()
            .map(|attention| attention.channels)
            .collect();
        let dimension = unet.cross_attention_dim.at(0);
        let wrong = if self.cross_attention_dim != dimension {
            let family = |dimension| match dimension {
                768 => " (Stable Diffusion 1)",
                1024 => " (Stable Diffusion 2)",
                2048 => " (Stable Diffusion XL)",
                _ => "",
            };
            format!(
                "its tokens have {}{} numbers, and the model's {dimension}{}",
                self.cross_attention_dim,
                family(self.cross_attention_dim),
                family(dimension)
            )
        } else if self.widths != ours {
            format!(
                "it has {} cross-attentions of up to {} channels, and the model {} of up to {}",
                self.widths.len(),
                self.widths.iter().max().unwrap_or(&0),
                ours.len(),
                ours.iter().max().unwrap_or(&0)
            )
        } else {
            return Ok(());
        };
        Err(Error::option(
            &["ip_adapter"],
            format!("the IP-Adapter is made for another model: {wrong}"),
        ))
    }
}

/// What a tensor is called here; `None` for what is none of an adapter's.
fn renamed(name: &str, kind: IpAdapterKind) -> Option<String> {
    if let Some(rest) = name.strip_prefix("ip_adapter.") {
        let (number, part) = rest.split_once('.')?;
        let number: usize = number.parse().ok()?;
        // Self-attentions have the even numbers, and nothing of their own.
        return Some(format!("layers.{}.{part}", number / 2));
    }
    let part = name.strip_prefix("image_proj.")?;
    let part = match kind {
        IpAdapterKind::Plain { .. } => part.to_string(),
        IpAdapterKind::Full => part
            .replace("proj.0.", "inner.")
            .replace("proj.2.", "outer.")
            .replace("proj.3.", "norm."),
        IpAdapterKind::Plus { .. } => match part.strip_prefix("layers.") {
            Some(rest) => {
                let (layer, rest) = rest.split_once('.')?;
                let rest = match rest.strip_prefix("0.") {
                    Some(attention) => attention.to_string(),
                    None => rest
                        .replace("1.0.", "ff_norm.")
                        .replace("1.1.", "ff_in.")
                        .replace("1.3.", "ff_out."),
                };
                format!("layers.{layer}.{rest}")
            }
            None => part.to_string(),
        },
    };
    Some(format!("image_proj.{part}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_become_those_of_the_modules() {
        let plus = IpAdapterKind::Plus {
            tokens: 16,
            hidden: 768,
            heads: 12,
            layers: 4,
            widened: 3072,
        };
        let all = [
            ("ip_adapter.1.to_k_ip.weight", plus, "layers.0.to_k_ip.weight"),
            ("ip_adapter.31.to_v_ip.weight", plus, "layers.15.to_v_ip.weight"),
            ("image_proj.latents", plus, "image_proj.latents"),
            (
                "image_proj.layers.3.0.to_kv.weight",
                plus,
                "image_proj.layers.3.to_kv.weight",
            ),
            (
                "image_proj.layers.1.1.0.bias",
                plus,
                "image_proj.layers.1.ff_norm.bias",
            ),
            (
                "image_proj.layers.1.1.3.weight",
                plus,
                "image_proj.layers.1.ff_out.weight",
            ),
            (
                "image_proj.proj.3.weight",
                IpAdapterKind::Full,
                "image_proj.norm.weight",
            ),
        ];
        for (name, kind, expected) in all {
            assert_eq!(renamed(name, kind).as_deref(), Some(expected));
        }
        assert_eq!(renamed("optimizer.state", plus), None);
    }
}
