//! A decoded picture of 8 bits a channel.

use crate::{
    Error, Result,
    named::{Named, named_enum},
};

named_enum! {
    /// How many channels a picture has, and what they mean.
    pub enum Channels: "a choice of channels" {
        /// One channel of brightness.
        Grey = "grey",
        /// Red, green and blue.
        Rgb = "rgb",
    }
}

impl Channels {
    /// 1 or 3.
    pub fn count(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::Rgb => 3,
        }
    }

    /// The choice with so many channels, if there is one.
    pub fn from_count(count: usize) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|channels| channels.count() == count)
    }
}

/// A picture in memory: 8 bits a channel, row by row from the top, the channels of a pixel side by side.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    height: usize,
    width: usize,
    channels: Channels,
    pixels: Vec<u8>,
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({}x{} {:?})", self.width, self.height, self.channels)
    }
}

impl Picture {
    /// A picture of `pixels`, of shape `[height, width, channels]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if a side is zero or the number of values is not `height * width * channels`.
    pub fn new(height: usize, width: usize, channels: Channels, pixels: Vec<u8>) -> Result<Self> {
        let expected = height
            .checked_mul(width)
            .and_then(|n| n.checked_mul(channels.count()));
        if height == 0 || width == 0 || expected != Some(pixels.len()) {
            return Err(Error::Shape(format!(
                "a picture {width} wide and {height} high with {} channel(s) cannot have {} values",
                channels.count(),
                pixels.len()
            )));
        }
        Ok(Self {
            height,
            width,
            channels,
            pixels,
        })
    }

    /// A picture whose parts are known to fit, because they were computed from another one's.
    pub(crate) fn from_parts(height: usize, width: usize, channels: Channels, pixels: Vec<u8>) -> Self {
        debug_assert_eq!(pixels.len(), height * width * channels.count());
        Self {
            height,
            width,
            channels,
            pixels,
        }
    }

    /// A picture of one colour, given as grey.
    pub(crate) fn filled(height: usize, width: usize, channels: Channels, value: u8) -> Self {
        Self::from_parts(
            height,
            width,
            channels,
            vec![value; height * width * channels.count()],
        )
    }

    /// Pixels from top to bottom.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Pixels from left to right.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Grey or RGB.
    pub fn channels(&self) -> Channels {
        self.channels
    }

    /// The values, `[height, width, channels]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The values, `[height, width, channels]`.
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }

    /// The row at `y`, `[width, channels]`.
    pub(crate) fn row(&self, y: usize) -> &[u8] {
        let stride = self.width * self.channels.count();
        &self.pixels[y * stride..(y + 1) * stride]
    }

    pub(crate) fn row_mut(&mut self, y: usize) -> &mut [u8] {
        let stride = self.width * self.channels.count();
        &mut self.pixels[y * stride..(y + 1) * stride]
    }

    /// Puts another picture of the same channels at a place; what lies outside is cut off.
    pub(crate) fn paste(&mut self, part: &Self, top: isize, left: isize) {
        let c = self.channels.count();
        let width = self.width as isize;
        let (first, end) = (left.max(0), (left + part.width as isize).min(width));
        for y in 0..part.height {
            let row = top + y as isize;
            if row < 0 || row >= self.height as isize || first >= end {
                continue;
            }
            let from = &part.row(y)[(first - left) as usize * c..(end - left) as usize * c];
            self.row_mut(row as usize)[first as usize * c..end as usize * c].copy_from_slice(from);
        }
    }

    /// The picture in `channels`, as Pillow's `convert("RGB")` and `convert("L")` make it: grey is repeated;
    /// colours are weighed as ITU-R 601 says, in Pillow's 16-bit fixed point.
    pub fn into_channels(self, channels: Channels) -> Self {
        let pixels = match (self.channels, channels) {
            (from, to) if from == to => return self,
            (Channels::Grey, _) => self.pixels.iter().flat_map(|&v| [v; 3]).collect(),
            (Channels::Rgb, _) => self
                .pixels
                .chunks_exact(3)
                .map(|p| luma(p[0], p[1], p[2]))
                .collect(),
        };
        Self::from_parts(self.height, self.width, channels, pixels)
    }

    /// The `height` x `width` part whose upper left corner is at (`top`, `left`). What of it lies outside the
    /// picture is black, as in torchvision's `crop`.
    pub fn crop(&self, top: usize, left: usize, height: usize, width: usize) -> Self {
        let c = self.channels.count();
        let mut part = Self::filled(height, width, self.channels, 0);
        let columns = width.min(self.width.saturating_sub(left));
        for y in 0..height.min(self.height.saturating_sub(top)) {
            part.pixels[y * width * c..][..columns * c]
                .copy_from_slice(&self.row(top + y)[left * c..][..columns * c]);
        }
        part
    }

    /// The picture mirrored left to right.
    pub fn flip(&self) -> Self {
        let c = self.channels.count();
        let pixels = (0..self.height)
            .flat_map(|y| self.row(y).chunks_exact(c).rev().flatten().copied())
            .collect();
        Self::from_parts(self.height, self.width, self.channels, pixels)
    }

    /// The picture as a model sees it: `[channels, height, width]` in [-1, 1], computed as torchvision's
    /// `ToTensor` and `Normalize(0.5, 0.5)` do, in float32.
    pub fn to_chw(&self) -> Vec<f32> {
        let level: [f32; 256] = std::array::from_fn(|v| (v as f32 / 255.0 - 0.5) / 0.5);
        let c = self.channels.count();
        (0..c)
            .flat_map(|channel| self.pixels.iter().skip(channel).step_by(c))
            .map(|&v| level[usize::from(v)])
            .collect()
    }

    /// The picture of one sample in [-1, 1], `[channels, height, width]`, rounded as diffusers'
    /// `VaeImageProcessor` and `numpy_to_pil` round: `x / 2 + 0.5`, clamped to [0, 1], times 255, half to even.
    /// What is not a number becomes black.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are not 1 or 3 channels, or the number of values does not fit.
    pub fn from_chw(values: &[f32], channels: usize, height: usize, width: usize) -> Result<Self> {
        let kind = match channels {
            1 => Channels::Grey,
            3 => Channels::Rgb,
            n => {
                return Err(Error::Shape(format!(
                    "a picture has 1 or 3 channels, and not {n}"
                )));
            }
        };
        if channels * height * width != values.len() {
            return Err(Error::Shape(format!(
                "{} values do not make a picture of shape [{channels}, {height}, {width}]",
                values.len()
            )));
        }
        let plane = height * width;
        let byte = |x: f32| ((x / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
        let pixels = (0..plane)
            .flat_map(|p| (0..channels).map(move |c| byte(values[c * plane + p])))
            .collect();
        Self::new(height, width, kind, pixels)
    }
}

/// ITU-R 601 brightness in Pillow's fixed point (`L24` in its Convert.c).
fn luma(r: u8, g: u8, b: u8) -> u8 {
    let sum = u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000;
    (sum >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grey_is_pillows() {
        // Image.new("RGB", (1, 1), rgb).convert("L").getpixel((0, 0)) in Pillow 13.
        for (rgb, grey) in [
            ([255, 0, 0], 76),
            ([0, 255, 0], 150),
            ([0, 0, 255], 29),
            ([10, 200, 30], 124),
        ] {
            let picture = Picture::new(1, 1, Channels::Rgb, rgb.to_vec()).unwrap();
            assert_eq!(picture.into_channels(Channels::Grey).pixels(), [grey]);
        }
    }

    #[test]
    fn floats_round_to_bytes_as_in_diffusers() {
        // 0.5 * 255 = 127.5 goes to the even 128; what lies outside is clamped.
        let picture = Picture::from_chw(&[0.0, -1.0, 7.0, f32::NAN], 1, 2, 2).unwrap();
        assert_eq!(picture.pixels(), [128, 0, 255, 0]);
        let back = Picture::from_chw(&picture.to_chw(), 1, 2, 2).unwrap();
        assert_eq!(back, picture);
    }

    #[test]
    fn channels_move_from_planes_to_pixels_and_back() {
        let picture = Picture::new(1, 2, Channels::Rgb, vec![0, 51, 102, 153, 204, 255]).unwrap();
        let chw = picture.to_chw();
        assert_eq!(chw[..2], [-1.0, (153.0f32 / 255.0 - 0.5) / 0.5]);
        assert_eq!(Picture::from_chw(&chw, 3, 1, 2).unwrap(), picture);
        assert_eq!(picture.flip().pixels(), [153, 204, 255, 0, 51, 102]);
    }

    #[test]
    fn a_crop_past_the_edge_is_black() {
        let picture = Picture::new(1, 1, Channels::Grey, vec![9]).unwrap();
        assert_eq!(picture.crop(0, 0, 2, 2).pixels(), [9, 0, 0, 0]);
        assert_eq!(picture.crop(5, 5, 1, 1).pixels(), [0]);
    }

    #[test]
    fn sizes_that_lie_are_refused() {
        assert!(Picture::new(2, 2, Channels::Grey, vec![0; 3]).is_err());
        assert!(Picture::new(0, 2, Channels::Grey, vec![]).is_err());
        assert!(Picture::new(usize::MAX, 2, Channels::Rgb, vec![0; 6]).is_err());
        assert!(Picture::from_chw(&[0.0; 4], 4, 1, 1).is_err());
        assert!(Picture::from_chw(&[0.0; 4], 1, 1, 3).is_err());
    }
}
