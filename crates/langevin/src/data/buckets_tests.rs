use serde_json::Value;

use super::*;
use crate::data::{Channels, Example, Picture};

/// What sd-scripts' `BucketManager` makes of pictures of many sizes; the file was written by it.
#[test]
fn sizes_and_choices_are_those_of_sd_scripts() {
    let cases: Value = serde_json::from_str(include_str!("../../tests/buckets.json")).unwrap();
    let number = |value: &Value| value.as_u64().unwrap() as usize;
    let mut pictures = 0;
    for case in cases.as_array().unwrap() {
        let buckets = Buckets::new(BucketRule {
            resolution: number(&case["resolution"]),
            min: number(&case["min"]),
            max: number(&case["max"]),
            step: number(&case["step"]),
            no_upscale: case["no_upscale"].as_bool().unwrap(),
        })
        .unwrap();
        let sizes: Vec<[usize; 2]> = serde_json::from_value(case["sizes"].clone()).unwrap();
        assert_eq!(buckets.sizes(), sizes);
        for picture in case["pictures"].as_array().unwrap() {
            let [width, height, wide, tall, resized_width, resized_height]: [usize; 6] =
                serde_json::from_value(picture.clone()).unwrap();
            let target = Target {
                resized: [resized_height, resized_width],
                size: [tall, wide],
            };
            assert_eq!(
                buckets.target(height, width),
                target,
                "{width}x{height} of {case}"
            );
            pictures += 1;
        }
    }
    assert!(pictures > 150, "{pictures}");
}

#[test]
fn every_size_of_picture_fits_a_size() {
    for no_upscale in [false, true] {
        let rule = BucketRule {
            resolution: 512,
            min: 256,
            max: 1024,
            step: 64,
            no_upscale,
        };
        let buckets = Buckets::new(rule).unwrap();
        for height in [1, 2, 63, 64, 511, 512, 4000, 16_384] {
            for width in [1, 3, 65, 700, 16_384] {
                let Target { resized, size } = buckets.target(height, width);
                for (resized, size) in resized.into_iter().zip(size) {
                    assert!(
                        resized >= size && size >= 64 && size % 64 == 0,
                        "{width}x{height}"
                    );
                }
                let most = if no_upscale { 17_000 * 64 } else { 512 * 512 };
                assert!(size[0] * size[1] <= most, "{width}x{height}");
            }
        }
    }
}

#[test]
fn rules_without_a_size_are_refused() {
    let rule = |resolution, min, max, step| {
        Buckets::new(BucketRule {
            resolution,
            min,
            max,
            step,
            no_upscale: false,
        })
    };
    assert!(rule(512, 256, 1024, 64).is_ok());
    // So long a side leaves none for the other.
    assert!(
        rule(512, 64, 16_384, 64)
            .unwrap()
            .sizes()
            .iter()
            .all(|[wide, tall]| *wide >= 64 && *tall >= 64)
    );
    assert!(rule(512, 64, usize::MAX, 64).is_err());
    for (resolution, min, max, step) in [
        (512, 600, 1024, 64),
        (2000, 256, 1024, 64),
        (32, 8, 64, 64),
        (64, 8, 64, 0),
    ] {
        assert!(
            rule(resolution, min, max, step).is_err(),
            "{resolution} {min} {max} {step}"
        );
    }
}

/// Pictures of three proportions in turn.
struct Mixed(usize);

impl Dataset for Mixed {
    fn len(&self) -> usize {
        self.0
    }

    fn get(&self, index: usize) -> Result<Example> {
        let [height, width] = self.size(index)?;
        let picture = Picture::new(height, width, Channels::Grey, vec![index as u8; height * width])?;
        Ok(Example {
            picture,
            class: None,
            caption: None,
            conditioning: None,
            attributes: vec![],
        })
    }

    fn size(&self, index: usize) -> Result<[usize; 2]> {
        Ok([[16, 16], [8, 32], [40, 10]][index % 3])
    }

    fn class_names(&self) -> Option<&[String]> {
        None
    }

    fn name(&self) -> &str {
        "mixed"
    }

    fn description(&self) -> String {
        "pictures of three proportions".into()
    }
}

#[test]
fn a_batch_has_one_size_and_an_epoch_every_picture_once() {
    use crate::data::{Loader, LoaderConfig, Transform};
    let rule = BucketRule {
        resolution: 16,
        min: 8,
        max: 32,
        step: 8,
        no_upscale: false,
    };
    let config = LoaderConfig {
        batch_size: 4,
        workers: 3,
        ..LoaderConfig::default()
    };
    let transform = Transform {
        channels: Channels::Grey,
        ..Transform::new(16)
    };
    let loader = |workers: usize| {
        let config = LoaderConfig { workers, ..config };
        Loader::in_buckets(
            std::sync::Arc::new(Mixed(32)),
            transform,
            config,
            Buckets::new(rule).unwrap(),
        )
        .unwrap()
    };
    let (one, many) = (loader(1), loader(3));
    let mut orders = BTreeSet::new();
    for epoch in 0..5 {
        let batches: Vec<_> = one.epoch(epoch).map(|batch| batch.unwrap()).collect();
        let same: Vec<_> = many.epoch(epoch).map(|batch| batch.unwrap()).collect();
        assert_eq!(batches, same);
        assert_eq!(batches.len(), one.batches_per_epoch());
        let mut all: Vec<usize> = batches.iter().flat_map(|batch| batch.indices.clone()).collect();
        orders.insert(all.clone());
        for (batch, &pictures) in batches.iter().zip(&one.batch_sizes(epoch)) {
            let [count, _, height, width] = batch.shape;
            assert_eq!((count, batch.pixels.len()), (pictures, count * height * width));
            let sizes: BTreeSet<usize> = batch.indices.iter().map(|index| index % 3).collect();
            assert_eq!(sizes.len(), 1, "{:?}", batch.indices);
            let expected = [[16, 16], [8, 32], [32, 8]][batch.indices[0] % 3];
            assert_eq!([height, width], expected);
            for (row, &index) in batch.indices.iter().enumerate() {
                assert_eq!(batch.pixels[row * height * width], index as f32 / 127.5 - 1.0);
            }
        }
        // From the middle it is the same rest.
        let rest: Vec<_> = many.epoch_from(epoch, 3).map(|batch| batch.unwrap()).collect();
        assert_eq!(rest, batches[3..]);
        all.sort_unstable();
        assert_eq!(all, (0..32).collect::<Vec<_>>());
    }
    assert_eq!(orders.len(), 5, "each epoch has an order of its own");
}
