//! A T2I-Adapter in a single file: as its authors publish it, or the weights of diffusers' without a configuration.

use super::{AdapterType, T2IAdapterConfig};
use crate::{Error, Result, weights::Checkpoint};

/// What diffusers' names begin with.
const PREFIX: &str = "adapter.";
/// More levels, and more layers on one, than any adapter has.
const MOST: usize = 64;
/// The factor of adapters for Stable Diffusion XL, whose levels are halved otherwise: no name and no shape says so.
const XL_FACTOR: usize = 16;

/// Under what names a file has an adapter's weights.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Layout {
    /// Diffusers'.
    Levels,
    /// The authors' full adapter: one row of layers, so many of them a level.
    Row { layers: usize },
    /// The authors' light adapter.
    Light,
}

impl T2IAdapterConfig {
    /// That of the adapter whose weights these are, and the weights under diffusers' names; `None` where they are no adapter's.
    ///
    /// # Errors
    /// If it is one of a kind that is not there.
    pub fn of_weights(mut weights: Checkpoint) -> Result<Option<(Self, Checkpoint)>> {
        let is_one = |name: &str| name.trim_start_matches(PREFIX).starts_with("body.0.");
        if !weights.names().any(is_one) {
            return Ok(None);
        }
        weights.rename(|name| Some(name.trim_start_matches(PREFIX).to_string()));
        let layout = Layout::of(&weights);
        weights.rename(|name| Some(format!("{PREFIX}{}", layout.name(name))));
        let config = Self::of_shapes(&weights)?;
        Ok(Some((config, weights)))
    }

    /// What shapes tell, under diffusers' names.
    fn of_shapes(weights: &Checkpoint) -> Result<Self> {
        let shape = |name: &str| {
            let stored = weights.get(&format!("{PREFIX}{name}"));
            stored.map(|stored| stored.shape.clone()).unwrap_or_default()
        };
        let count = |start: &str| {
            let numbered = |number: &usize| {
                let start = format!("{PREFIX}{start}{number}.");
                weights.names().any(|name| name.starts_with(&start))
            };
            (0..MOST).take_while(numbered).count()
        };
        let fail = |what: &str| Err(Error::file(weights.path(), format!("holds a T2I-Adapter {what}")));
        let (levels, num_res_blocks) = (count("body."), count("body.0.resnets."));
        let is_light = shape("conv_in.weight").is_empty();
        let first = match is_light {
            true => shape("body.0.in_conv.weight"),
            false => shape("conv_in.weight"),
        };
        let Some((in_channels, downscale_factor)) = first.get(1).and_then(|&inputs| unshuffled(inputs))
        else {
            return fail("whose first convolution takes no picture");
        };
        let widths = |part: &str| -> Vec<usize> {
            let of = |level: usize| shape(&format!("body.{level}.{part}.weight")).first().copied();
            (0..levels).filter_map(of).collect()
        };
        let (adapter_type, channels, last_kernel) = match is_light {
            true => {
                // The last level's is the one before it.
                let mut channels = widths("out_conv");
                channels.pop();
                (AdapterType::LightAdapter, channels, 3)
            }
            false => {
                let adapter_type = match downscale_factor {
                    XL_FACTOR => AdapterType::FullAdapterXl,
                    _ => AdapterType::FullAdapter,
                };
                (adapter_type, widths("resnets.0.block1"), 1)
            }
        };
        if shape("body.0.resnets.0.block2.weight").last() != Some(&last_kernel) {
            return fail("of convolutions that published ones do not have, which is not there yet");
        }
        Ok(Self {
            in_channels,
            channels,
            num_res_blocks,
            downscale_factor,
            adapter_type,
            ..Self::default()
        })
    }
}

/// Channels and factor of pictures whose squares of pixels come to so many channels: of colours, or else of grey.
fn unshuffled(inputs: usize) -> Option<(usize, usize)> {
    [3, 1].into_iter().find_map(|channels| {
        let pixels = inputs / channels;
        let factor = pixels.isqrt();
        (factor > 0 && factor * factor * channels == inputs).then_some((channels, factor))
    })
}

impl Layout {
    fn of(weights: &Checkpoint) -> Self {
        let has = |name: &str| weights.get(name).is_some();
        if has("body.0.body.0.block1.weight") {
            return Self::Light;
        }
        if !has("body.0.block1.weight") {
            return Self::Levels;
        }
        // A level begins where the layer before has other channels, and two have the same; all have as many layers.
        let widens = |number: &usize| has(&format!("body.{number}.in_conv.weight"));
        let layers = (1..1 << 10).find(widens).unwrap_or(1);
        Self::Row { layers }
    }

    /// Diffusers' name of a tensor.
    fn name(self, name: &str) -> String {
        let Some(rest) = name.strip_prefix("body.") else {
            return name.to_string();
        };
        let numbered = rest
            .split_once('.')
            .and_then(|(number, part)| Some((number.parse::<usize>().ok()?, part)));
        match (self, numbered) {
            (Self::Light, Some((level, part))) => {
                let part = match part.strip_prefix("body.") {
                    Some(layer) => format!("resnets.{layer}"),
                    None => part.to_string(),
                };
                format!("body.{level}.{part}")
            }
            (Self::Row { layers }, Some((place, part))) => {
                let (level, layer) = (place / layers, place % layers);
                match part.starts_with("in_conv.") {
                    true => format!("body.{level}.{part}"),
                    false => format!("body.{level}.resnets.{layer}.{part}"),
                }
            }
            _ => name.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_layers_becomes_levels() {
        let row = Layout::Row { layers: 2 };
        assert_eq!(row.name("body.2.in_conv.weight"), "body.1.in_conv.weight");
        assert_eq!(row.name("body.5.block2.bias"), "body.2.resnets.1.block2.bias");
        assert_eq!(row.name("conv_in.bias"), "conv_in.bias");
        let light = Layout::Light;
        assert_eq!(
            light.name("body.3.body.1.block1.weight"),
            "body.3.resnets.1.block1.weight"
        );
        assert_eq!(light.name("body.3.out_conv.weight"), "body.3.out_conv.weight");
    }

    #[test]
    fn squares_of_pixels_tell_their_channels() {
        assert_eq!(unshuffled(192), Some((3, 8)));
        assert_eq!(unshuffled(64), Some((1, 8)));
        assert_eq!(unshuffled(768), Some((3, 16)));
        assert_eq!(unshuffled(256), Some((1, 16)));
        assert_eq!(unshuffled(0), None);
        assert_eq!(unshuffled(7), None);
    }
}
