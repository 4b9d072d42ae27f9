//! Latents on disk: what inversion found, to draw from later.

use std::{collections::HashMap, fs, path::Path};

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::{Error, Result, files, options::ClassName};

/// The key of the tensor.
const LATENTS: &str = "latents";
/// The keys of the metadata.
const STEPS: &str = "num_inference_steps";
const CLASSES: &str = "classes";

/// Noise that draws known pictures, and how it was found.
#[derive(Clone, Debug)]
pub struct Latents {
    /// The noise, `[pictures, channels, height, width]`.
    pub values: Tensor<4>,
    /// The steps of the inversion.
    pub steps: usize,
    /// The classes that the model was told, one per picture; none for an unconditional model.
    pub classes: Vec<i64>,
}

impl Latents {
    /// The classes as a request names them: one per picture, or none.
    pub fn class_names(&self) -> Vec<ClassName> {
        // A number below 0 is no class of any model.
        let number = |&class: &i64| usize::try_from(class).unwrap_or(usize::MAX);
        self.classes.iter().map(number).map(ClassName::Number).collect()
    }

    /// Writes a safetensors file with the tensor `latents`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let wrong =
            |e: &dyn std::fmt::Display| Error::file(path, format!("the latents cannot be stored: {e}"));
        let data = self.values.to_data().convert::<f32>();
        let values = data.as_slice::<f32>().map_err(|e| wrong(&format!("{e:?}")))?;
        let shape = self.values.dims().to_vec();
        let view = TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(values)).map_err(|e| wrong(&e))?;
        let classes: Vec<String> = self.classes.iter().map(i64::to_string).collect();
        let metadata = HashMap::from([
            (STEPS.to_string(), self.steps.to_string()),
            (CLASSES.to_string(), classes.join(",")),
        ]);
        let bytes = safetensors::serialize([(LATENTS, view)], Some(metadata)).map_err(|e| wrong(&e))?;
        files::write_atomically(path, |w| w.write_all(&bytes))
    }

    /// Reads such a file.
    ///
    /// # Errors
    /// If it cannot be read, or holds no latents.
    pub fn load(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let path = path.as_ref();
        let wrong = |message: String| Error::file(path, message);
        let bytes = fs::read(path).map_err(|e| Error::io("read", path, e))?;
        let unreadable = |e| wrong(format!("is not a whole safetensors file: {e}"));
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(unreadable)?;
        let file = SafeTensors::deserialize(&bytes).map_err(unreadable)?;
        let view = file
            .tensor(LATENTS)
            .map_err(|_| wrong(format!("holds no tensor `{LATENTS}`, as an inversion writes it")))?;
        let ([_, _, _, _], Dtype::F32) = (view.shape(), view.dtype()) else {
            return Err(wrong(format!(
                "`{LATENTS}` is of shape {:?} and type {:?}; float32 of four dimensions is needed",
                view.shape(),
                view.dtype()
            )));
        };
        let words = view.data().chunks_exact(4);
        let values: Vec<f32> = words
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();

        let metadata = header.metadata().clone().unwrap_or_default();
        let missing = |key: &str| wrong(format!("does not say its `{key}`, as an inversion writes it"));
        let text = |key: &str| metadata.get(key).ok_or_else(|| missing(key));
        let classes = text(CLASSES)?.split(',').filter(|class| !class.is_empty());
        let latents = Self {
            steps: text(STEPS)?.parse().map_err(|_| missing(STEPS))?,
            classes: classes
                .map(str::parse)
                .collect::<Result<_, _>>()
                .map_err(|_| missing(CLASSES))?,
            values: Tensor::from_data(TensorData::new(values, view.shape().to_vec()), device),
        };
        let [pictures, ..] = latents.values.dims();
        if !latents.classes.is_empty() && latents.classes.len() != pictures {
            return Err(wrong(format!(
                "holds {pictures} latents but {} classes",
                latents.classes.len()
            )));
        }
        Ok(latents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latents_survive_their_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("latents.safetensors");
        let device = Device::default();
        let values = Tensor::<1>::from_data([0.5, -1.0, 2.0, 0.0], &device).reshape([2, 1, 2, 1]);
        let latents = Latents {
            values: values.clone(),
            steps: 7,
            classes: vec![3, 0],
        };
        latents.save(&path).unwrap();
        let again = Latents::load(&path, &device).unwrap();
        assert_eq!((again.steps, again.classes), (7, vec![3, 0]));
        assert_eq!(again.values.to_data(), values.to_data());
    }

    #[test]
    fn other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("latents.safetensors");
        let device = Device::default();
        assert!(Latents::load(&path, &device).is_err());
        for bytes in [
            &b"x"[..],
            &[
                8, 0, 0, 0, 0, 0, 0, 0, b'{', b'}', b' ', b' ', b' ', b' ', b' ', b' ',
            ],
        ] {
            fs::write(&path, bytes).unwrap();
            let message = Latents::load(&path, &device).unwrap_err().to_string();
            assert!(message.contains("latents.safetensors"), "{message}");
        }
    }
}
