//! A picture's sizes, for Stable Diffusion XL, which learned from pictures of all sizes and is told which (Podell et al. 2023, section 2.2).

use burn::tensor::{Tensor, TensorData};

use super::{Ask, Call, Condition, ConditionKind, Examples, Pair, RunSource, Source};
use crate::{
    Error, Offset, Result, Size,
    models::{AnyModelConfig, Conditioning, ModelInputs, unet2d_condition::AdditionEmbedType},
    options::{Request, SampleOptions, SizeOptions},
    random::Generator,
};

/// Whether a model takes a score in place of a target size: the refiner does.
const AESTHETICS: &str = "requires_aesthetics_score";
/// The score that is asked for where nobody says, and the one that guidance leads away from.
const USUAL_SCORES: [f64; 2] = [6.0, 2.5];

/// Original size, place of the cut, and target size or score: six numbers, or five.
#[derive(Clone, Copy, Debug)]
pub struct SizeCondition {
    aesthetics: bool,
}

/// A picture's numbers, and those that guidance leads away from.
struct Numbers {
    towards: Vec<f64>,
    away: Vec<f64>,
}

/// The six or five numbers of a picture.
fn numbers(original: Size, crop: Offset, last: &[f64]) -> Vec<f64> {
    let first = [original.height, original.width, crop.top, crop.left];
    first
        .map(|number| number as f64)
        .iter()
        .chain(last)
        .copied()
        .collect()
}

fn sides(size: Size) -> [f64; 2] {
    [size.height as f64, size.width as f64]
}

impl SizeCondition {
    /// Whether its model is told scores too.
    pub fn takes_scores(&self) -> bool {
        self.aesthetics
    }

    /// As diffusers' `_get_add_time_ids` of its pipelines.
    fn numbers(self, asked: &SizeOptions, size: Size) -> Numbers {
        let original = asked.original_size.unwrap_or(size);
        let crop = asked.crops_coords_top_left.unwrap_or_default();
        let target = asked.target_size.unwrap_or(size);
        let negative_crop = asked.negative_crops_coords_top_left.unwrap_or_default();
        if self.aesthetics {
            let score = asked.aesthetic_score.unwrap_or(USUAL_SCORES[0]);
            let negative = asked.negative_aesthetic_score.unwrap_or(USUAL_SCORES[1]);
            let negative_original = asked.negative_original_size.unwrap_or(original);
            return Numbers {
                towards: numbers(original, crop, &[score]),
                away: numbers(negative_original, negative_crop, &[negative]),
            };
        }
        let towards = numbers(original, crop, &sides(target));
        let away = match (asked.negative_original_size, asked.negative_target_size) {
            (negative, negative_target) if asked.from_picture => numbers(
                negative.unwrap_or(original),
                crop,
                &sides(negative_target.unwrap_or(target)),
            ),
            // Half of what guidance leads away from is as good as nothing to diffusers.
            (Some(original), Some(target)) => numbers(original, negative_crop, &sides(target)),
            _ => towards.clone(),
        };
        Numbers { towards, away }
    }
}

/// The same numbers for every picture.
fn of_numbers(numbers: &[f64], call: &Call<'_>) -> Conditioning {
    let values: Vec<f32> = numbers.iter().map(|&number| number as f32).collect();
    let row = Tensor::<2>::from_data(TensorData::new(values, [1, numbers.len()]), call.device);
    Conditioning {
        time_ids: Some(row.repeat_dim(0, call.options.batch_size)),
        ..Conditioning::default()
    }
}

impl SizeCondition {
    /// Refuses what the model would not be told.
    fn check_idle(self, asked: &SizeOptions) -> Result<()> {
        let scores = asked.aesthetic_score.or(asked.negative_aesthetic_score);
        if scores.is_some() && !self.aesthetics {
            return Err(Error::option(
                &["aesthetic_score", "negative_aesthetic_score"],
                "`aesthetic_score` and `negative_aesthetic_score` are for XL's refiner, and this model is told no scores",
            ));
        }
        Ok(())
    }

    /// Whether a request names a part of the sizes that guidance would lead away from, of which diffusers then takes none.
    pub(crate) fn overlooks(self, request: &Request) -> bool {
        let sizes = [request.negative_original_size, request.negative_target_size];
        let given = sizes.iter().flatten().count();
        let from_picture = request.init_image.is_some() || request.inpaint.is_some();
        let half = given == 1 || (given == 0 && request.negative_crop_top_left.is_some());
        half && !from_picture && !self.aesthetics
    }
}

impl Condition for SizeCondition {
    fn fit(&self, _: &mut ModelInputs) {}

    fn is_guided(&self) -> bool {
        false
    }

    fn of_call(&self, call: &Call<'_>) -> Result<Pair> {
        let numbers = self.numbers(&call.options.sizes, call.size);
        Ok(Pair {
            towards: of_numbers(&numbers.towards, call),
            away: of_numbers(&numbers.away, call),
            ..Pair::default()
        })
    }

    fn of_batch(&self, _: &Examples<'_>, _: f64, _: &mut Generator) -> Result<Conditioning> {
        Err(Error::Unsupported(
            "a model that takes its pictures' sizes cannot be trained yet".into(),
        ))
    }
}

impl ConditionKind for SizeCondition {
    fn of_pipeline(source: &Source<'_>) -> Result<Option<Self>> {
        let AnyModelConfig::Condition(config) = source.config else {
            return Ok(None);
        };
        let takes = config.addition_embed_type == Some(AdditionEmbedType::TextTime);
        Ok(takes.then(|| Self {
            aesthetics: source
                .components
                .is_some_and(|components| components.is_set(AESTHETICS)),
        }))
    }

    fn of_run(_: &RunSource<'_>, _: &mut Generator) -> Result<Option<(Self, f64)>> {
        Ok(None)
    }

    fn rows(_: &Request) -> Vec<usize> {
        Vec::new()
    }

    fn ask(condition: Option<&Self>, ask: &Ask<'_>, options: &mut SampleOptions) -> Result<()> {
        let request = ask.request;
        options.sizes = SizeOptions {
            original_size: request.original_size,
            crops_coords_top_left: request.crop_top_left,
            target_size: request.target_size,
            negative_original_size: request.negative_original_size,
            negative_crops_coords_top_left: request.negative_crop_top_left,
            negative_target_size: request.negative_target_size,
            aesthetic_score: request.aesthetic_score,
            negative_aesthetic_score: request.negative_aesthetic_score,
            from_picture: request.init_image.is_some() || request.inpaint.is_some(),
        };
        match condition {
            Some(condition) => condition.check_idle(&options.sizes),
            None => Ok(()),
        }
    }

    fn refuse(options: &SampleOptions) -> Result<()> {
        let sizes = &options.sizes;
        let given: [(&'static [&'static str], bool); 8] = [
            (&["original_size"], sizes.original_size.is_some()),
            (&["crop_top_left"], sizes.crops_coords_top_left.is_some()),
            (&["target_size"], sizes.target_size.is_some()),
            (
                &["negative_original_size"],
                sizes.negative_original_size.is_some(),
            ),
            (
                &["negative_crop_top_left"],
                sizes.negative_crops_coords_top_left.is_some(),
            ),
            (&["negative_target_size"], sizes.negative_target_size.is_some()),
            (&["aesthetic_score"], sizes.aesthetic_score.is_some()),
            (
                &["negative_aesthetic_score"],
                sizes.negative_aesthetic_score.is_some(),
            ),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            Some((option, _)) => Err(Error::option(
                option,
                format!("`{}` was given, but only Stable Diffusion XL takes it", option[0]),
            )),
            None => Ok(()),
        }
    }
}
