//! What a pipeline's CLIP is shown of a picture: resized, cropped and normalised, by the numbers of its `preprocessor_config.json`.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use serde::Deserialize;

use super::preprocess::FILE_NAME;
use crate::{
    Error, Result,
    data::{Arithmetic, Channels, Filter, Picture, resized},
    files,
};

/// A family of transformers' processors: what their classes are called, and what they do where the file does not say.
struct Family {
    /// The last is what the first was called in early pipelines.
    classes: [&'static str; 4],
    side: usize,
    /// Whether a size that is one number is that of both sides.
    square: bool,
    crops: bool,
    mean: [f32; 3],
    std: [f32; 3],
}

const FAMILIES: [Family; 2] = [
    Family {
        classes: [
            "CLIPImageProcessor",
            "CLIPImageProcessorFast",
            "CLIPImageProcessorPil",
            "CLIPFeatureExtractor",
        ],
        side: 224,
        square: false,
        crops: true,
        mean: super::preprocess::MEAN,
        std: super::preprocess::STD,
    },
    Family {
        classes: [
            "DPTImageProcessor",
            "DPTImageProcessorFast",
            "DPTImageProcessorPil",
            "DPTFeatureExtractor",
        ],
        side: 384,
        square: true,
        crops: false,
        mean: [0.5; 3],
        std: [0.5; 3],
    },
];

/// The largest side that a picture is resized to.
const LARGEST: usize = 1 << 13;

/// Resizes, crops the centre, scales and normalises pictures of 8 bits.
/// Mirrors `transformers.CLIPImageProcessor` and `DPTImageProcessor` of version 5, which resize by torchvision, to the bit; where gradients
/// are to pass, see [`ClipPreprocess`](super::ClipPreprocess).
#[derive(Clone, Debug, PartialEq)]
pub struct ClipImageProcessor {
    /// What pictures are resized to, where they are.
    pub resize: Option<ResizeTo>,
    /// How pixels are weighed in resizing.
    pub filter: Filter,
    /// Height and width of what is cut out of the centre, where anything is.
    pub crop: Option<[usize; 2]>,
    /// What 8-bit values are multiplied by.
    pub rescale_factor: f64,
    /// Taken from each channel.
    pub mean: [f32; 3],
    /// What each channel is then divided by.
    pub std: [f32; 3],
}

/// What pictures are resized to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizeTo {
    /// The shorter side becomes this; proportions stay.
    ShortestEdge(usize),
    /// Height and width, whatever the proportions.
    HeightWidth([usize; 2]),
    /// Proportions stay, and the side that changes less becomes that of this height and width; both are then divisible by a number.
    Within {
        /// Height and width.
        size: [usize; 2],
        /// What they are divisible by.
        multiple: usize,
    },
}

/// A size in a file: one number, or named ones.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum Size {
    Number(usize),
    Shortest { shortest_edge: usize },
    HeightWidth { height: usize, width: usize },
}

/// The file.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
struct File {
    image_processor_type: Option<String>,
    feature_extractor_type: Option<String>,
    do_resize: bool,
    size: Option<Size>,
    resample: u32,
    do_center_crop: Option<bool>,
    crop_size: Option<Size>,
    do_rescale: bool,
    rescale_factor: f64,
    do_normalize: bool,
    image_mean: Option<[f32; 3]>,
    image_std: Option<[f32; 3]>,
    keep_aspect_ratio: bool,
    ensure_multiple_of: Option<usize>,
    do_pad: Option<bool>,
}

impl Default for File {
    fn default() -> Self {
        Self {
            image_processor_type: None,
            feature_extractor_type: None,
            do_resize: true,
            size: None,
            resample: 3,
            do_center_crop: None,
            crop_size: None,
            do_rescale: true,
            rescale_factor: 1.0 / 255.0,
            do_normalize: true,
            image_mean: None,
            image_std: None,
            keep_aspect_ratio: false,
            ensure_multiple_of: None,
            do_pad: None,
        }
    }
}

impl ClipImageProcessor {
    /// Reads `preprocessor_config.json` of a folder, such as a pipeline's `feature_extractor`.
    ///
    /// # Errors
    /// If it is missing or broken, of another class, or asks for what is not there yet.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self> {
        let path = folder.as_ref().join(FILE_NAME);
        Self::of(files::read_json(&path)?).map_err(|e| match e {
            Error::Config(message) => Error::file(&path, message),
            other => other,
        })
    }

    /// CLIP's own for a tower that looks at squares of this side.
    ///
    /// # Errors
    /// If there is none so large.
    pub fn of_side(side: usize) -> Result<Self> {
        Self::of(File {
            size: Some(Size::Number(side)),
            crop_size: Some(Size::Number(side)),
            ..File::default()
        })
    }

    fn of(file: File) -> Result<Self> {
        let class = file.image_processor_type.or(file.feature_extractor_type);
        let family = match class {
            None => &FAMILIES[0],
            Some(class) => FAMILIES
                .iter()
                .find(|family| family.classes.contains(&class.as_str()))
                .ok_or_else(|| {
                    Error::Unsupported(format!(
                        "pictures prepared by a {class} are not there yet; those by a {} or a {} are",
                        FAMILIES[0].classes[0], FAMILIES[1].classes[0]
                    ))
                })?,
        };
        if file.do_pad == Some(true) {
            return Err(Error::Unsupported(
                "pictures that are padded (do_pad) are not there yet".into(),
            ));
        }
        let size = match file.size.unwrap_or(Size::Number(family.side)) {
            Size::HeightWidth { height, width } => Err([height, width]),
            Size::Number(side) if family.square => Err([side; 2]),
            Size::Number(side) | Size::Shortest { shortest_edge: side } => Ok(side),
        };
        let multiple = file.ensure_multiple_of.unwrap_or(1);
        if multiple == 0 || multiple > LARGEST {
            return Err(Error::Config(format!(
                "ensure_multiple_of is {multiple}: it must be from 1 to {LARGEST}"
            )));
        }
        let resize = match size {
            Ok(side) => ResizeTo::ShortestEdge(side),
            Err(size) if file.keep_aspect_ratio => ResizeTo::Within { size, multiple },
            // What is no size is refused below.
            Err(size) if size.contains(&0) => ResizeTo::HeightWidth(size),
            Err(size) => ResizeTo::HeightWidth(size.map(|side| nearest(side as f64, multiple))),
        };
        let crop = match file.crop_size.unwrap_or(Size::Number(family.side)) {
            Size::Number(side) | Size::Shortest { shortest_edge: side } => [side; 2],
            Size::HeightWidth { height, width } => [height, width],
        };
        let (mean, std) = match file.do_normalize {
            true => (
                file.image_mean.unwrap_or(family.mean),
                file.image_std.unwrap_or(family.std),
            ),
            false => ([0.0; 3], [1.0; 3]),
        };
        let processor = Self {
            resize: file.do_resize.then_some(resize),
            filter: filter(file.resample)?,
            crop: file.do_center_crop.unwrap_or(family.crops).then_some(crop),
            rescale_factor: if file.do_rescale { file.rescale_factor } else { 1.0 },
            mean,
            std,
        };
        processor.validate()?;
        Ok(processor)
    }

    /// Checks the numbers.
    fn validate(&self) -> Result<()> {
        let resize = self.resize.map(|resize| match resize {
            ResizeTo::ShortestEdge(side) => [side; 2],
            ResizeTo::HeightWidth(size) | ResizeTo::Within { size, .. } => size,
        });
        for side in [resize, self.crop].into_iter().flatten().flatten() {
            if side == 0 || side > LARGEST {
                return Err(Error::Config(format!(
                    "size and crop_size must be from 1 to {LARGEST}; one is {side}"
                )));
            }
        }
        let positive = |x: &f32| x.is_finite() && *x > 0.0;
        if !self.std.iter().all(positive) || !self.mean.iter().all(|x| x.is_finite()) {
            return Err(Error::Config(
                "image_mean should be three numbers and image_std three positive ones".into(),
            ));
        }
        if !self.rescale_factor.is_finite() || self.rescale_factor <= 0.0 {
            return Err(Error::Config("rescale_factor must be a positive number".into()));
        }
        Ok(())
    }

    /// What CLIP is shown of pictures of 8 bits, of any size; grey ones become grey ones of three channels.
    ///
    /// # Shapes
    /// `[batch, 3, height, width]`, as large as `crop` says
    ///
    /// # Errors
    /// If there are no pictures, they come out in several sizes, or one is so long and thin that resized it would take more than 512 MiB.
    pub fn forward(&self, pictures: &[Picture], device: &Device) -> Result<Tensor<4>> {
        let mut values = Vec::new();
        let mut size = None;
        for picture in pictures {
            let picture = self.prepared(picture.clone().into_channels(Channels::Rgb))?;
            let this = [picture.height(), picture.width()];
            if *size.get_or_insert(this) != this {
                return Err(Error::Shape(format!(
                    "CLIP's pictures come out in several sizes, such as {size:?} and {this:?}: they must be cropped to one"
                )));
            }
            self.normalise(&picture, &mut values);
        }
        let Some([height, width]) = size else {
            return Err(Error::Shape("CLIP is shown at least one picture".into()));
        };
        let shape = [pictures.len(), 3, height, width];
        Ok(Tensor::from_data(TensorData::new(values, shape), device))
    }

    /// Resized and cropped.
    fn prepared(&self, picture: Picture) -> Result<Picture> {
        let picture = match self.resize {
            None => picture,
            Some(resize) => {
                let [height, width] = resize.size([picture.height(), picture.width()]);
                resized(picture, height, width, self.filter, Arithmetic::Torchvision)?
            }
        };
        let Some([height, width]) = self.crop else {
            return Ok(picture);
        };
        let picture = with_rim(picture, height, width);
        let (top, left) = ((picture.height() - height) / 2, (picture.width() - width) / 2);
        Ok(picture.crop(top, left, height, width))
    }

    /// Appends `(value · factor - mean) / std`, channel after channel.
    fn normalise(&self, picture: &Picture, values: &mut Vec<f32>) {
        for channel in 0..3 {
            let (mean, std) = (self.mean[channel], self.std[channel]);
            let table: Vec<f32> = (0..=u8::MAX)
                .map(|value| ((f64::from(value) * self.rescale_factor) as f32 - mean) / std)
                .collect();
            let pixels = picture.pixels().iter().skip(channel).step_by(3);
            values.extend(pixels.map(|&value| table[usize::from(value)]));
        }
    }
}

/// The picture in the middle of a black one that is at least so large, the odd row and column above and to the left.
fn with_rim(picture: Picture, height: usize, width: usize) -> Picture {
    let (height, width) = (height.max(picture.height()), width.max(picture.width()));
    if [height, width] == [picture.height(), picture.width()] {
        return picture;
    }
    let rim = |outer: usize, inner: usize| (outer - inner).div_ceil(2);
    let (top, left) = (rim(height, picture.height()), rim(width, picture.width()));
    let channels = picture.channels();
    let stride = picture.width() * channels.count();
    let mut pixels = vec![0; height * width * channels.count()];
    for (y, row) in picture.pixels().chunks_exact(stride).enumerate() {
        let start = ((top + y) * width + left) * channels.count();
        pixels[start..start + stride].copy_from_slice(row);
    }
    Picture::from_parts(height, width, channels, pixels)
}

impl ResizeTo {
    /// Height and width of what becomes of a picture of this size.
    fn size(self, [height, width]: [usize; 2]) -> [usize; 2] {
        match self {
            Self::HeightWidth(size) => size,
            Self::Within { size, multiple } => {
                let scales = [size[0] as f64 / height as f64, size[1] as f64 / width as f64];
                let scale = match (1.0 - scales[1]).abs() < (1.0 - scales[0]).abs() {
                    true => scales[1],
                    false => scales[0],
                };
                [height, width].map(|side| nearest(scale * side as f64, multiple))
            }
            Self::ShortestEdge(side) => {
                let shorter = height.min(width).max(1) as f64;
                let scaled = |long: usize| ((side * long) as f64 / shorter) as usize;
                [scaled(height), scaled(width)]
            }
        }
    }
}

/// The nearest number that `multiple` divides, and at least that.
fn nearest(side: f64, multiple: usize) -> usize {
    let multiples = (side / multiple as f64).round_ties_even() as usize;
    multiples.max(1) * multiple
}

/// Pillow's number of a filter.
fn filter(resample: u32) -> Result<Filter> {
    match resample {
        1 => Ok(Filter::Lanczos),
        2 => Ok(Filter::Bilinear),
        3 => Ok(Filter::Bicubic),
        other => Err(Error::Unsupported(format!(
            "resample {other} is not there yet; 1 (Lanczos), 2 (bilinear) and 3 (bicubic) are"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(value: Value) -> Result<ClipImageProcessor> {
        ClipImageProcessor::of(serde_json::from_value(value).map_err(|e| Error::Config(e.to_string()))?)
    }

    #[test]
    fn both_spellings_of_sizes_and_classes_are_the_same() {
        let early = of(json!({
            "feature_extractor_type": "CLIPFeatureExtractor", "size": 24, "crop_size": 24, "resample": 3,
        }));
        let today = of(json!({
            "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 24},
            "crop_size": {"height": 24, "width": 24}, "rescale_factor": 0.00392156862745098, "do_convert_rgb": true,
        }));
        assert_eq!(early.unwrap(), today.unwrap());
        let stretched = of(json!({"size": {"height": 5, "width": 7}, "do_center_crop": false})).unwrap();
        assert_eq!(stretched.resize, Some(ResizeTo::HeightWidth([5, 7])));
        assert_eq!(stretched.crop, None);
    }

    #[test]
    fn what_makes_no_picture_is_refused() {
        for (value, part) in [
            (
                json!({"image_processor_type": "ViTImageProcessor"}),
                "ViTImageProcessor",
            ),
            (json!({"resample": 0}), "resample 0 is not there yet"),
            (json!({"size": 0}), "one is 0"),
            (
                json!({"crop_size": {"height": 1, "width": 1_u64 << 40}}),
                "must be from 1",
            ),
            (json!({"image_std": [1, 0, 1]}), "three positive ones"),
            (json!({"rescale_factor": -1}), "rescale_factor"),
            (json!({"size": "large"}), "size"),
        ] {
            let error = of(value).unwrap_err().to_string();
            assert!(
                error.contains(part) || part == "size",
                "`{part}` is not in: {error}"
            );
        }
    }

    #[test]
    fn what_is_smaller_than_the_crop_gets_a_black_rim() {
        let processor = of(json!({
            "do_resize": false, "crop_size": 4, "do_rescale": false, "do_normalize": false,
        }))
        .unwrap();
        let white = Picture::filled(2, 4, Channels::Grey, 255);
        let shown = processor.forward(&[white], &Device::flex()).unwrap();
        assert_eq!(shown.dims(), [1, 3, 4, 4]);
        let values: Vec<f32> = shown.into_data().try_into_vec().unwrap();
        assert_eq!(values[..4], [0.0; 4]);
        assert_eq!(values[4..12], [255.0; 8]);
        assert_eq!(values[12..16], [0.0; 4]);
    }

    #[test]
    fn no_pictures_and_several_sizes_are_refused() {
        let whole = of(json!({"size": 8, "do_center_crop": false})).unwrap();
        let device = Device::flex();
        assert!(whole.forward(&[], &device).is_err());
        let pictures = [[8, 8], [8, 9]].map(|[h, w]| Picture::filled(h, w, Channels::Rgb, 7));
        let error = whole.forward(&pictures, &device).unwrap_err().to_string();
        assert!(error.contains("several sizes"), "{error}");
    }
}
