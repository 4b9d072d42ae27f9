//! A picture as one vector.

use burn::tensor::Tensor;

use crate::{Error, Result, models::clip::ClipModel, named::named_enum};

named_enum! {
    /// What a picture's vector is.
    pub enum PictureVector: "a picture's vector" {
        /// Its mean colour: a number a channel, -1 to 1.
        Colour = "colour",
        /// CLIP's embedding of it, not normalised, as diffusers' unCLIP pipelines have it.
        Clip = "clip",
    }
}

/// Makes a picture's vector.
#[derive(Clone, Debug)]
pub struct PictureEncoder {
    kind: PictureVector,
    clip: Option<ClipModel>,
}

impl PictureEncoder {
    /// With the CLIP model that [`PictureVector::Clip`] needs.
    ///
    /// # Errors
    /// If it needs one and there is none.
    pub fn new(kind: PictureVector, clip: Option<ClipModel>) -> Result<Self> {
        if kind == PictureVector::Clip && clip.is_none() {
            return Err(Error::Config(
                "the vector is CLIP's embedding of a picture, so a CLIP model must be named".into(),
            ));
        }
        Ok(Self { kind, clip })
    }

    /// How many numbers a vector has, of pictures with so many channels.
    pub fn dimension(&self, channels: usize) -> usize {
        match (self.kind, &self.clip) {
            (PictureVector::Clip, Some(clip)) => clip.embedding_dim(),
            _ => channels,
        }
    }

    /// The vectors of pictures. They carry no gradient.
    ///
    /// # Shapes
    /// `[batch, channels, height, width]` in -1..1 → `[batch, dimension]`
    ///
    /// # Errors
    /// If CLIP does not take such pictures.
    pub fn encode(&self, pictures: &Tensor<4>) -> Result<Tensor<2>> {
        match (self.kind, &self.clip) {
            (PictureVector::Clip, Some(clip)) => Ok(clip
                .encode_image(pictures.clone() / 2.0 + 0.5)?
                .without_autodiff()),
            _ => {
                let [batch, channels, height, width] = pictures.dims();
                let rows = pictures.clone().reshape([batch, channels, height * width]);
                Ok(rows.mean_dim(2).reshape([batch, channels]))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;
    use crate::device::default_device;

    #[test]
    fn the_colour_is_the_mean_of_each_channel() {
        let encoder = PictureEncoder::new(PictureVector::Colour, None).unwrap();
        let values: Vec<f32> = vec![0.0, 1.0, -1.0, -1.0, 0.5, 0.0];
        let pictures = Tensor::from_data(TensorData::new(values, [1, 3, 1, 2]), &default_device());
        let vector: Vec<f32> = encoder
            .encode(&pictures)
            .unwrap()
            .into_data()
            .try_into_vec()
            .unwrap();
        assert_eq!(vector, [0.5, -1.0, 0.25]);
        assert_eq!(encoder.dimension(3), 3);
        let message = PictureEncoder::new(PictureVector::Clip, None)
            .unwrap_err()
            .to_string();
        assert!(message.contains("CLIP model must be named"), "{message}");
    }
}
