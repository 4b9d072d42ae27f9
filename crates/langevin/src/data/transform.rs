//! From a picture to the floats that a model trains on: resize, crop, flip, normalise, as torchvision does.

use super::{Arithmetic, Channels, Filter, Picture, Target, resized};
use crate::{Result, named::named_enum, random::Generator};

named_enum! {
    /// How a picture is brought to the resolution.
    pub enum Resize: "a way to resize" {
        /// The shorter side becomes the resolution, and what the longer side has too much is cropped: torchvision's
        /// `Resize(n)` and a crop, as diffusers' scripts do.
        ShorterSide = "shorter-side",
        /// Both sides become the resolution, whatever the proportions: `Resize((n, n))`, as the course does.
        Square = "square",
    }
}

/// Which part of a longer side stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crop {
    /// The middle: torchvision's `CenterCrop`.
    Center,
    /// Any, drawn anew every epoch: torchvision's `RandomCrop`.
    Random,
}

/// How a picture was before it was cut, and where: what Stable Diffusion XL is told (Podell et al. 2023, section 2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// The picture's height as it came.
    pub height: usize,
    /// Its width as it came.
    pub width: usize,
    /// Rows above what stayed, in the picture that was resized and perhaps mirrored.
    pub top: usize,
    /// Columns left of it.
    pub left: usize,
}

impl Cut {
    /// Of a square picture of which all stayed.
    pub fn whole(side: usize) -> Self {
        Self {
            height: side,
            width: side,
            top: 0,
            left: 0,
        }
    }
}

/// What is done to every picture. A pure function of the picture and a generator.
///
/// Its numbers are those of `Resize` (Pillow, bilinear, antialiased), `CenterCrop` or `RandomCrop`,
/// `RandomHorizontalFlip`, `ToTensor` and `Normalize([0.5], [0.5])` of torchvision, in this order, after Pillow's
/// `convert("RGB")` or `convert("L")`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transform {
    /// Height and width of the result, in pixels.
    pub resolution: usize,
    /// How pictures of other proportions are brought to a square.
    pub resize: Resize,
    /// Which part of a longer side stays.
    pub crop: Crop,
    /// Whether every second picture, by chance, is mirrored.
    pub random_flip: bool,
    /// Colour or grey.
    pub channels: Channels,
}

impl Transform {
    /// Colour pictures of `resolution`, by their shorter side, cropped in the middle, never mirrored.
    pub fn new(resolution: usize) -> Self {
        Self {
            resolution,
            resize: Resize::ShorterSide,
            crop: Crop::Center,
            random_flip: false,
            channels: Channels::Rgb,
        }
    }

    /// `[channels, height, width]` of what [`Transform::apply`] gives.
    pub fn shape(&self) -> [usize; 3] {
        [self.channels.count(), self.resolution, self.resolution]
    }

    /// The picture as floats in [-1, 1], `[channels, resolution, resolution]`.
    ///
    /// `generator` is drawn from as torchvision draws: a random crop takes its row and then its column, if there
    /// is anything to choose; a random flip one uniform number.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the resolution is zero, or the picture is so long and thin that resized it would take
    /// more than 512 MiB.
    pub fn apply(&self, picture: Picture, generator: &mut Generator) -> Result<Vec<f32>> {
        Ok(self.apply_and_tell(picture, generator)?.0)
    }

    /// The same, and how the picture was cut.
    ///
    /// # Errors
    /// As [`Transform::apply`].
    pub fn apply_and_tell(&self, picture: Picture, generator: &mut Generator) -> Result<(Vec<f32>, Cut)> {
        let target = self.target(picture.height(), picture.width());
        self.apply_towards(picture, target, generator)
    }

    /// The same with another size than the square of the resolution: `[channels, height, width]`.
    ///
    /// # Errors
    /// As [`Transform::apply`].
    pub fn apply_towards(
        &self,
        picture: Picture,
        target: Target,
        generator: &mut Generator,
    ) -> Result<(Vec<f32>, Cut)> {
        let cut = self.middle(&picture, target);
        Ok(self.finish(&self.prepare(picture, target)?, cut, target.size, generator))
    }

    /// What becomes of a picture of this size.
    pub(super) fn target(&self, height: usize, width: usize) -> Target {
        let resized = match height > 0 && width > 0 {
            true => self.resized_size(height, width).into(),
            false => [self.resolution; 2],
        };
        Target {
            resized,
            size: [self.resolution; 2],
        }
    }

    /// How a picture is cut, but for chance.
    pub(super) fn middle(&self, picture: &Picture, target: Target) -> Cut {
        let (height, width) = (picture.height(), picture.width());
        let (top, left) = match self.crop {
            Crop::Center => {
                let spare =
                    |axis: usize| half_to_even(target.resized[axis].saturating_sub(target.size[axis]));
                (spare(0), spare(1))
            }
            _ => (0, 0),
        };
        Cut {
            height,
            width,
            top,
            left,
        }
    }

    /// The part that does not depend on chance: channels, size, and a crop in the middle.
    pub(super) fn prepare(&self, picture: Picture, target: Target) -> Result<Picture> {
        let picture = picture.into_channels(self.channels);
        let [height, width] = target.resized;
        let resized = resized(picture, height, width, Filter::Bilinear, Arithmetic::Pillow)?;
        Ok(match self.crop {
            Crop::Center => {
                let [tall, wide] = target.size;
                resized.crop(
                    half_to_even(height - tall),
                    half_to_even(width - wide),
                    tall,
                    wide,
                )
            }
            Crop::Random => resized,
        })
    }

    /// Height and width after resizing, before the crop: torchvision's `_compute_resized_output_size`, which cuts
    /// the longer side down to a whole number.
    fn resized_size(&self, height: usize, width: usize) -> (usize, usize) {
        let n = self.resolution;
        let longer = |long: usize, short: usize| (n as u128 * long as u128 / short as u128) as usize;
        match self.resize {
            Resize::Square => (n, n),
            Resize::ShorterSide if width <= height => (longer(height, width), n),
            Resize::ShorterSide => (n, longer(width, height)),
        }
    }

    /// The part that may depend on chance, on what [`Transform::prepare`] gave.
    pub(super) fn finish(
        &self,
        prepared: &Picture,
        cut: Cut,
        [tall, wide]: [usize; 2],
        generator: &mut Generator,
    ) -> (Vec<f32>, Cut) {
        let (spare_height, spare_width) = (prepared.height() - tall, prepared.width() - wide);
        let (top, left) = if spare_height == 0 && spare_width == 0 {
            (0, 0)
        } else {
            (
                draw_up_to(spare_height, generator),
                draw_up_to(spare_width, generator),
            )
        };
        let cropped = prepared.crop(top, left, tall, wide);
        let flipped = self.random_flip && generator.rand(1)[0] < 0.5;
        // A picture that is mirrored after it was cut is one that was mirrored before, and cut on the other side.
        let (chance, beyond) = (self.crop == Crop::Random, spare_width - left);
        let cut = match (chance, flipped) {
            (true, true) => Cut {
                top,
                left: beyond,
                ..cut
            },
            (true, false) => Cut { top, left, ..cut },
            (false, _) => cut,
        };
        let pixels = if flipped {
            cropped.flip().to_chw()
        } else {
            cropped.to_chw()
        };
        (pixels, cut)
    }
}

/// Python's `int(round(n / 2.0))`, which torchvision's `CenterCrop` places its window with: 1 goes to 0, 3 to 2.
fn half_to_even(n: usize) -> usize {
    n / 2 + usize::from(n % 4 == 3)
}

/// A whole number from 0 to `last`, as `torch.randint(0, last + 1, (1,))` draws it.
fn draw_up_to(last: usize, generator: &mut Generator) -> usize {
    generator.randint(0, last as i64 + 1, 1)[0] as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(height: usize, width: usize) -> Picture {
        let pixels = (0..height * width).map(|i| (i % width) as u8).collect();
        Picture::new(height, width, Channels::Grey, pixels).unwrap()
    }

    fn grey(resolution: usize) -> Transform {
        Transform {
            channels: Channels::Grey,
            ..Transform::new(resolution)
        }
    }

    #[test]
    fn sizes_and_offsets_round_as_torchvisions() {
        // int(size * long / short); 97 high and 151 wide.
        assert_eq!(grey(32).resized_size(97, 151), (32, 49));
        assert_eq!(grey(100).resized_size(151, 97), (155, 100));
        assert_eq!(
            Transform {
                resize: Resize::Square,
                ..grey(7)
            }
            .resized_size(97, 151),
            (7, 7)
        );
        // [int(round(n / 2.0)) for n in range(8)]
        assert_eq!(
            (0..8).map(half_to_even).collect::<Vec<_>>(),
            [0, 0, 1, 2, 2, 2, 3, 4]
        );
    }

    #[test]
    fn random_crops_and_flips_follow_the_generator() {
        let transform = Transform {
            crop: Crop::Random,
            random_flip: true,
            ..grey(4)
        };
        let level = |chw: &[f32]| {
            chw.iter()
                .map(|x| ((x + 1.0) * 127.5).round() as i32)
                .collect::<Vec<_>>()
        };
        let (mut starts, mut flips) = (std::collections::BTreeSet::new(), 0);
        for seed in 0..60 {
            let row = level(&transform.apply(ramp(4, 7), &mut Generator::new(seed)).unwrap()[..4]);
            assert_eq!(
                row,
                level(&transform.apply(ramp(4, 7), &mut Generator::new(seed)).unwrap()[..4])
            );
            flips += i32::from(row[0] > row[1]);
            starts.insert(row[0].min(row[3]));
        }
        assert_eq!(starts.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert!((15..45).contains(&flips), "{flips} of 60 flipped");
    }

    #[test]
    fn draws_are_torchvisions() {
        // RandomCrop draws the row (one choice here, still drawn), then the column; the flip comes after.
        let transform = Transform {
            crop: Crop::Random,
            random_flip: true,
            ..grey(4)
        };
        for seed in 0..8 {
            let mut generator = Generator::new(seed);
            generator.randint(0, 1, 1);
            let left = generator.randint(0, 4, 1)[0] as usize;
            let flip = generator.rand(1)[0] < 0.5;
            let expected = ramp(4, 7).crop(0, left, 4, 4);
            let expected = if flip { expected.flip() } else { expected };
            assert_eq!(
                transform.apply(ramp(4, 7), &mut Generator::new(seed)).unwrap(),
                expected.to_chw()
            );
        }
    }

    #[test]
    fn the_cut_that_is_told_is_where_the_pixels_come_from() {
        // Each pixel says its row and its column; a bucket of another shape than the picture.
        let (height, width) = (24, 41);
        let pixels = (0..height * width).flat_map(|at| [(at / width) as u8, (at % width) as u8, 0]);
        let picture = Picture::new(height, width, Channels::Rgb, pixels.collect()).unwrap();
        let target = Target {
            resized: [height, width],
            size: [16, 32],
        };
        let mut seen = std::collections::BTreeSet::new();
        for (crop, random_flip) in [(Crop::Random, true), (Crop::Random, false), (Crop::Center, false)] {
            let transform = Transform {
                crop,
                random_flip,
                ..Transform::new(16)
            };
            for seed in 0..20 {
                let mut generator = Generator::new(seed);
                let (values, cut) = transform
                    .apply_towards(picture.clone(), target, &mut generator)
                    .unwrap();
                let level = |at: usize| ((values[at] + 1.0) * 127.5).round() as usize;
                // The first row's number, and the first and the last column's.
                let (row, [first, last]) = (level(0), [0, 31].map(|x| level(16 * 32 + x)));
                let mirrored = first > last;
                // In the picture that was mirrored, columns count from the other side.
                let left = if mirrored { width - 1 - first } else { first };
                assert_eq!(
                    (cut.height, cut.width, cut.top, cut.left),
                    (height, width, row, left)
                );
                assert!(random_flip || !mirrored);
                seen.insert((crop == Crop::Random, mirrored));
            }
        }
        assert_eq!(seen.len(), 3);
    }

    #[test]
    fn a_thread_of_a_picture_is_refused() {
        let thread = Picture::new(1, 16_384, Channels::Grey, vec![0; 16_384]).unwrap();
        assert!(grey(1024).apply(thread, &mut Generator::new(0)).is_err());
        assert!(grey(0).apply(ramp(2, 2), &mut Generator::new(0)).is_err());
    }
}
