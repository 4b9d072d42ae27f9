//! A part of a picture that is worked on by itself, and put back: diffusers' `padding_mask_crop`.

use super::{Channels, Fit, Picture};
use crate::{Error, Result, Size};

/// A part of a picture, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Rows above it.
    pub top: usize,
    /// Columns left of it.
    pub left: usize,
    /// Its size.
    pub size: Size,
}

impl Part {
    /// What the mask covers, with so much around it, and as much more as brings it to the proportions of `size`: diffusers'
    /// `get_crop_region`.
    ///
    /// # Errors
    /// If the mask covers nothing.
    pub fn around(mask: &Picture, padding: usize, size: Size) -> Result<Self> {
        let grey = mask.clone().into_channels(Channels::Grey);
        let rows: Vec<usize> = (0..grey.height())
            .filter(|&y| grey.row(y).iter().any(|&value| value != 0))
            .collect();
        let columns: Vec<usize> = (0..grey.width())
            .filter(|&x| (0..grey.height()).any(|y| grey.row(y)[x] != 0))
            .collect();
        let (Some(&top), Some(&bottom), Some(&left), Some(&right)) =
            (rows.first(), rows.last(), columns.first(), columns.last())
        else {
            return Err(Error::Config(
                "the mask is black all over: there is nothing to paint, and nothing to cut out around it"
                    .into(),
            ));
        };
        let (mut rows, mut columns) = (
            Span::of(top, bottom + 1, padding, grey.height()),
            Span::of(left, right + 1, padding, grey.width()),
        );
        let wanted = size.width as f64 / size.height as f64;
        if columns.length() as f64 / rows.length() as f64 > wanted {
            let more = (columns.length() as f64 / wanted - rows.length() as f64) as i64;
            rows.widen(more, grey.height());
        } else {
            let more = (rows.length() as f64 * wanted - columns.length() as f64) as i64;
            columns.widen(more, grey.width());
        }
        Ok(Self {
            top: rows.first as usize,
            left: columns.first as usize,
            size: Size {
                height: rows.length() as usize,
                width: columns.length() as usize,
            },
        })
    }

    /// This part of a picture.
    pub fn of(&self, picture: &Picture) -> Picture {
        picture.crop(self.top, self.left, self.size.height, self.size.width)
    }

    /// The picture `original` with this part painted, where `mask` is white: diffusers' `apply_overlay`.
    ///
    /// # Errors
    /// If the part would take more than 512 MiB.
    pub fn put_back(&self, painted: Picture, original: &Picture, mask: &Picture) -> Result<Picture> {
        let part = Fit::Cover.resize(painted, self.size.height, self.size.width)?;
        let mut whole = Picture::filled(original.height(), original.width(), part.channels(), 0);
        whole.paste(&part, self.top as isize, self.left as isize);
        Ok(laid_over(whole, original, mask))
    }
}

/// From a pixel to another along a side.
struct Span {
    first: i64,
    end: i64,
}

impl Span {
    fn of(first: usize, end: usize, padding: usize, side: usize) -> Self {
        Self {
            first: first.saturating_sub(padding) as i64,
            end: end.saturating_add(padding).min(side) as i64,
        }
    }

    fn length(&self) -> i64 {
        self.end - self.first
    }

    /// Makes it longer on both sides, and moves it back inside.
    fn widen(&mut self, more: i64, side: usize) {
        let side = side as i64;
        self.first -= more.div_euclid(2);
        self.end += more - more.div_euclid(2);
        if self.end >= side {
            let beyond = self.end - side;
            self.end -= beyond;
            self.first -= beyond;
        }
        if self.first < 0 {
            self.end -= self.first;
            self.first = 0;
        }
        self.end = self.end.min(side);
    }
}

/// a · b / 255, as Pillow rounds it.
fn times(a: u32, b: u32) -> u32 {
    let product = a * b + 128;
    ((product >> 8) + product) >> 8
}

/// What is not white in the mask of `over`, laid over `under`: in Pillow's arithmetic of premultiplied colours.
fn laid_over(under: Picture, over: &Picture, mask: &Picture) -> Picture {
    let over = over.clone().into_channels(Channels::Rgb);
    let under = under.into_channels(Channels::Rgb);
    let mask = mask.clone().into_channels(Channels::Grey);
    let pixels = under.pixels().chunks_exact(3).zip(over.pixels().chunks_exact(3));
    let mixed = pixels.zip(mask.pixels()).flat_map(|((under, over), &white)| {
        let alpha = 255 - u32::from(white);
        let channel = move |channel: usize| {
            let (below, above) = (u32::from(under[channel]), u32::from(over[channel]));
            let premultiplied = times(above, alpha);
            let colour = match alpha {
                0 => return below as u8,
                255 => premultiplied,
                _ => (255 * premultiplied / alpha).min(255),
            };
            let sum = colour * (alpha * 128) + below * (255 * 128 - alpha * 128) + (0x80 << 7);
            ((((sum >> 8) + sum) >> 8) >> 7) as u8
        };
        [channel(0), channel(1), channel(2)]
    });
    Picture::from_parts(under.height(), under.width(), Channels::Rgb, mixed.collect())
}
