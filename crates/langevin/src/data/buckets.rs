//! Sizes of nearly the same area that pictures are brought to, each to the one whose proportions are nearest, so that little is cut away and a
//! batch still has one size. The rule is that of sd-scripts (`BucketManager`, `make_bucket_resolutions`).

use std::collections::{BTreeMap, BTreeSet};

use super::Dataset;
use crate::{Error, Result};

/// What a picture is resized to, and the size of what is cut out of that: heights and widths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// After resizing: at least `size` on both sides.
    pub resized: [usize; 2],
    /// After cutting.
    pub size: [usize; 2],
}

impl Target {
    /// A picture that is made just large enough for a size, and cut.
    pub fn covering(height: usize, width: usize, size: [usize; 2]) -> Self {
        let [tall, wide] = size;
        let scale = match ratio(width, height) > ratio(wide, tall) {
            true => tall as f64 / height.max(1) as f64,
            false => wide as f64 / width.max(1) as f64,
        };
        let scaled = |side: usize, least: usize| rounded(side as f64 * scale).max(least);
        Self {
            resized: [scaled(height, tall), scaled(width, wide)],
            size,
        }
    }
}

/// The longest side of a size: that of the largest picture which is decoded.
const LONGEST: usize = 16_384;

/// Which sizes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketRule {
    /// The side of a square whose area no size has more of.
    pub resolution: usize,
    /// The shortest side; what is no multiple of `step` is made smaller.
    pub min: usize,
    /// The longest side; what is no multiple of `step` is made larger.
    pub max: usize,
    /// Sides are multiples of it.
    pub step: usize,
    /// Pictures are made smaller and never larger: their own sizes, rounded down, take the place of fixed ones, and `min` and `max` count for
    /// nothing.
    pub no_upscale: bool,
}

/// The sizes of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets {
    rule: BucketRule,
    /// `[width, height]`, sorted.
    sizes: Vec<[usize; 2]>,
}

impl Buckets {
    /// # Errors
    /// If there is no size between the shortest and the longest side.
    pub fn new(rule: BucketRule) -> Result<Self> {
        let BucketRule { resolution, step, .. } = rule;
        let refuse = |message: String| {
            let options = &[
                "resolution",
                "min_bucket_reso",
                "max_bucket_reso",
                "bucket_reso_steps",
            ];
            Err(Error::option(options, message))
        };
        if step == 0 || resolution < step {
            return refuse(format!(
                "`bucket_reso_steps` is {step}; it must be at least 1, and at most `resolution`, which is {resolution}"
            ));
        }
        if resolution.max(rule.max).max(step) > LONGEST {
            return refuse(format!(
                "sides are {LONGEST} pixels at most, and one of `resolution`, `max_bucket_reso` and `bucket_reso_steps` is more"
            ));
        }
        if rule.no_upscale {
            return Ok(Self {
                rule,
                sizes: Vec::new(),
            });
        }
        if rule.min < step || rule.min > resolution || rule.max < resolution {
            return refuse(format!(
                "`min_bucket_reso` is {}, `max_bucket_reso` {} and `resolution` {resolution}: it must lie between them, and both be at least \
                 `bucket_reso_steps`, {step}",
                rule.min, rule.max
            ));
        }
        let floored = |side: usize| side / step * step;
        let (min, max, area) = (
            floored(rule.min),
            rule.max.next_multiple_of(step),
            resolution * resolution,
        );
        let square = floored(resolution);
        let mut sizes = BTreeSet::from([[square, square]]);
        for width in (min..=max).step_by(step) {
            let height = floored(area / width).min(max);
            if height >= min {
                sizes.extend([[width, height], [height, width]]);
            }
        }
        Ok(Self {
            rule,
            sizes: sizes.into_iter().collect(),
        })
    }

    /// `[width, height]` of all, sorted; empty where pictures are never made larger.
    pub fn sizes(&self) -> &[[usize; 2]] {
        &self.sizes
    }

    /// What becomes of a picture of this size.
    pub fn target(&self, height: usize, width: usize) -> Target {
        if self.rule.no_upscale {
            return self.shrunk(height, width);
        }
        let wanted = ratio(width, height);
        let error = |size: &[usize; 2]| (ratio(size[0], size[1]) - wanted).abs();
        let nearest = self
            .sizes
            .iter()
            .find(|&&size| size == [width, height])
            .or_else(|| self.sizes.iter().min_by(|a, b| error(a).total_cmp(&error(b))));
        let [wide, tall] = nearest.copied().unwrap_or([self.rule.resolution; 2]);
        Target::covering(height, width, [tall, wide])
    }

    /// The picture's own size, or one of the area that is allowed, cut to whole steps.
    fn shrunk(&self, height: usize, width: usize) -> Target {
        let (area, step) = (self.rule.resolution * self.rule.resolution, self.rule.step);
        let to_step = |side: f64| (rounded(side) / step * step).max(step);
        let (tall, wide) = if width * height > area {
            let wanted = ratio(width, height);
            let exact = (area as f64 * wanted).sqrt();
            let by_width = to_step(exact);
            let by_height = to_step(area as f64 / exact);
            let error = |wide: usize, tall: usize| (ratio(wide, tall) - wanted).abs();
            let [of_width, of_height] = [
                error(by_width, to_step(by_width as f64 / wanted)),
                error(to_step(by_height as f64 * wanted), by_height),
            ];
            match of_width < of_height {
                true => (rounded(by_width as f64 / wanted), by_width),
                false => (by_height, rounded(by_height as f64 * wanted)),
            }
        } else {
            (height, width)
        };
        // Less than a step is made larger after all: there is no smaller size.
        let size = [tall, wide].map(|side| (side / step * step).max(step));
        if tall >= size[0] && wide >= size[1] {
            return Target {
                resized: [tall, wide],
                size,
            };
        }
        Target::covering(height, width, size)
    }
}

fn ratio(width: usize, height: usize) -> f64 {
    width as f64 / height.max(1) as f64
}

/// Python's `int(x + 0.5)`.
fn rounded(side: f64) -> usize {
    (side + 0.5) as usize
}

/// Which size each picture of a data set is brought to.
#[derive(Clone, Debug)]
pub(super) struct Bucketed {
    pub buckets: Buckets,
    /// Heights and widths of those that have pictures.
    sizes: Vec<[usize; 2]>,
    /// Which of them each picture has.
    of: Vec<u32>,
}

impl Bucketed {
    /// Looks at the size of every picture. One that cannot be read is the loader's to report, and stands with the first.
    pub(super) fn new(buckets: Buckets, dataset: &dyn Dataset) -> Self {
        let mut numbers: BTreeMap<[usize; 2], u32> = BTreeMap::new();
        let mut of = Vec::with_capacity(dataset.len());
        // Those that are there again are looked at once.
        let mut last = None;
        for index in 0..dataset.len() {
            let original = dataset.original(index);
            if let Some((known, number)) = last
                && known == original
            {
                of.push(number);
                continue;
            }
            let number = match dataset.size(index) {
                Ok([height, width]) => {
                    let next = numbers.len() as u32;
                    *numbers.entry(buckets.target(height, width).size).or_insert(next)
                }
                Err(_) => 0,
            };
            of.push(number);
            last = Some((original, number));
        }
        let mut sizes = vec![[buckets.rule.resolution; 2]; numbers.len().max(1)];
        for (size, number) in numbers {
            sizes[number as usize] = size;
        }
        Self { buckets, sizes, of }
    }

    /// What becomes of a picture of this size, which is of the bucket of the picture at `index`.
    pub(super) fn target(&self, index: usize, height: usize, width: usize) -> Target {
        let size = self.size(index);
        let own = self.buckets.target(height, width);
        match own.size == size {
            true => own,
            // Its file has changed since it was looked at, or says something else than it holds.
            false => Target::covering(height, width, size),
        }
    }

    /// Height and width of what the picture at `index` is brought to.
    pub(super) fn size(&self, index: usize) -> [usize; 2] {
        self.sizes[self.of[index] as usize]
    }

    /// How many pictures each size has, with heights and widths.
    pub(super) fn counts(&self) -> Vec<([usize; 2], usize)> {
        let mut counts = vec![0; self.sizes.len()];
        for &number in &self.of {
            counts[number as usize] += 1;
        }
        self.sizes.iter().copied().zip(counts).collect()
    }

    /// An order of pictures as batches of one size each, of at most so many: as they fill up along the order, then those that are not full.
    pub(super) fn batches(&self, order: &[usize], batch_size: usize) -> Vec<Vec<usize>> {
        let mut open: Vec<Vec<usize>> = vec![Vec::new(); self.sizes.len()];
        let mut batches = Vec::new();
        for &index in order {
            let batch = &mut open[self.of[index] as usize];
            batch.push(index);
            if batch.len() == batch_size {
                batches.push(std::mem::take(batch));
            }
        }
        batches.extend(open.into_iter().filter(|batch| !batch.is_empty()));
        batches
    }

    /// How many those are.
    pub(super) fn count(&self, batch_size: usize) -> usize {
        let counts = self.counts().into_iter();
        counts.map(|(_, pictures)| pictures.div_ceil(batch_size)).sum()
    }
}

#[cfg(test)]
#[path = "buckets_tests.rs"]
mod tests;
