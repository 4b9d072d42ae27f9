//! Texts that are written in a syntax with weights, schedules and chunks: what a call is drawn with, and from which step on.

use std::collections::{BTreeSet, HashMap};

use burn::tensor::Tensor;
use serde::Serialize;

use super::{Encoded, TextCondition, rows};
use crate::{
    Error, Result,
    conditioning::{
        Pair, Parts, Texts, Turns,
        prompt::{Chunk, Encoding, Join, Joined, MOST_STAGES, PromptSyntax, Span, Syntax},
    },
    options::SampleOptions,
};

/// The most chunks that texts of different lengths are repeated to.
const MOST_REPEATED: usize = 24;

/// One of the things that a picture is led towards: how far, and what is drawn up to which step.
#[derive(Clone)]
struct PartTexts {
    weight: f64,
    stages: Vec<(usize, Encoded)>,
}

/// The texts of one encoder, `[1, length, width]` each, up to which step.
type Stages = Vec<(usize, Encoded)>;

impl TextCondition {
    /// What a call is drawn with whose texts are written in a syntax.
    pub(super) fn of_syntax(&self, options: &SampleOptions, guided: bool) -> Result<Pair> {
        let batch = options.batch_size;
        let empty = vec![String::new(); batch];
        let texts = rows("prompt", options.prompts.as_ref(), batch)?.unwrap_or(&empty);
        let second = rows("second prompt", options.second_prompts.as_ref(), batch)?;
        let mut towards = self.side(texts, second, options, false)?;
        let is_composed = towards
            .iter()
            .any(|parts| parts.len() > 1 || parts.iter().any(|part| part.weight != 1.0));
        if is_composed && !guided {
            return Err(Error::option(
                &["prompt", "guidance_scale"],
                "`AND`, or a weight for the whole text, is a matter of guidance, which is off at a scale of 1 or less",
            ));
        }
        let rules = options.prompt_syntax.rules();
        let mut away = None;
        if guided {
            let negative = rows("negative prompt", options.negative_prompts.as_ref(), batch)?;
            let is_empty = negative.is_none_or(|texts| texts.iter().all(|text| text.trim().is_empty()));
            if !(is_empty && self.zeros_for_empty && rules.zeros_for_empty()) {
                let second = rows(
                    "negative second prompt",
                    options.negative_second_prompts.as_ref(),
                    batch,
                )?;
                away = Some(self.side(negative.unwrap_or(&empty), second, options, true)?);
            }
        }
        self.level(towards.iter_mut().chain(away.iter_mut().flatten()), options)?;
        let sides = Sides {
            towards: &towards,
            away: away.as_deref(),
        };
        let weights: Vec<Vec<f64>> = (0..sides.parts()).map(|part| sides.weights(part)).collect();
        let turns = sides.turns()?;
        let first = turns.texts[0].clone();
        Ok(Pair {
            towards: first.towards,
            away: first.away,
            parts: is_composed.then_some(Parts {
                weights,
                also: first.also,
            }),
            turns: (turns.at.len() > 1).then_some(turns),
            ..Pair::default()
        })
    }

    /// One list of parts for each picture.
    fn side(
        &self,
        texts: &[String],
        second: Option<&[String]>,
        options: &SampleOptions,
        is_negative: bool,
    ) -> Result<Vec<Vec<PartTexts>>> {
        let mut known: HashMap<(&str, Option<&str>), Vec<PartTexts>> = HashMap::new();
        let mut all = Vec::new();
        for (row, text) in texts.iter().enumerate() {
            let own = second.map(|second| second[row].as_str());
            let parts = match known.get(&(text.as_str(), own)) {
                Some(parts) => parts.clone(),
                None => self.parts(text, own, options, is_negative)?,
            };
            known.insert((text, own), parts.clone());
            all.push(parts);
        }
        Ok(all)
    }

    /// What one picture is led towards.
    fn parts(
        &self,
        text: &str,
        second: Option<&str>,
        options: &SampleOptions,
        is_negative: bool,
    ) -> Result<Vec<PartTexts>> {
        let rules = options.prompt_syntax.rules();
        let steps = options.num_inference_steps.unwrap_or(1);
        // Of each part, what each encoder makes of it.
        let mut parts: Vec<(f64, Vec<Stages>)> = Vec::new();
        for place in 0..self.towers.len() {
            let own = second.filter(|_| place > 0).unwrap_or(text);
            let prompt = rules.read(own, steps, is_negative)?;
            if place > 0 && prompt.parts.len() != parts.len() {
                return Err(Error::option(
                    &["prompt", "prompt_2"],
                    format!(
                        "the texts for the two text encoders have {} and {} parts between `AND`s",
                        parts.len(),
                        prompt.parts.len()
                    ),
                ));
            }
            for (number, part) in prompt.parts.into_iter().enumerate() {
                let stages = self.stages(place, part.stages, rules, options)?;
                match parts.get_mut(number) {
                    Some((_, all)) => all.push(stages),
                    None => parts.push((part.weight, vec![stages])),
                }
            }
        }
        let whole = parts.into_iter().map(|(weight, stages)| {
            let stages = self.side_by_side(stages, rules)?;
            Ok(PartTexts { weight, stages })
        });
        whole.collect()
    }

    /// What an encoder makes of a schedule.
    fn stages(
        &self,
        place: usize,
        stages: Vec<(usize, Joined)>,
        rules: &dyn Syntax,
        options: &SampleOptions,
    ) -> Result<Stages> {
        let tower = &self.towers[place];
        let mut different: Vec<(f64, Vec<Span>)> = Vec::new();
        let mut place_of =
            |text: &(f64, Vec<Span>)| match different.iter().position(|known| known.1 == text.1) {
                Some(found) => found,
                None => {
                    different.push(text.clone());
                    different.len() - 1
                }
            };
        let texts: Vec<Vec<usize>> = stages
            .iter()
            .map(|(_, joined)| joined.texts.iter().map(&mut place_of).collect())
            .collect();
        let mut chunks: Vec<Vec<Chunk>> = different
            .iter()
            .map(|(_, spans)| rules.chunks(tower, spans))
            .collect::<Result<_>>()?;
        let nothing = rules.chunks(tower, &[])?;
        if stages.len() > 1 || stages.iter().any(|(_, joined)| joined.join != Join::Follow) {
            let most = chunks.iter().map(Vec::len).max().unwrap_or(1);
            for chunks in &mut chunks {
                let missing = most - chunks.len();
                chunks.extend(std::iter::repeat_n(nothing[0].clone(), missing));
            }
        }
        let encode = |ids: &[Vec<u32>], mask: Option<&[Vec<f32>]>| {
            let found = self.states(place, &tower.encoder, ids, mask, options.clip_skip)?;
            Ok(found.sequence)
        };
        let mut encodings = Vec::new();
        let mut pooled = Vec::new();
        for chunks in chunks {
            let ids: Vec<Vec<u32>> = chunks.iter().map(|chunk| chunk.ids.clone()).collect();
            let found = self.states(place, &tower.encoder, &ids, None, options.clip_skip)?;
            pooled.push(found.pooled.map(|pooled| pooled.narrow(0, 0, 1)));
            encodings.push(Encoding {
                chunks,
                z: found.sequence,
            });
        }
        let weighed = rules.weigh(encodings, &nothing[0].ids, &encode)?;
        let flat: Vec<Tensor<3>> = weighed
            .into_iter()
            .map(|z| {
                let [chunks, length, width] = z.dims();
                z.reshape([1, chunks * length, width])
            })
            .collect();
        let joined = stages.into_iter().zip(texts).map(|((until, joined), places)| {
            let parts = joined
                .texts
                .iter()
                .zip(&places)
                .map(|((weight, _), &place)| (*weight, flat[place].clone(), pooled[place].clone()));
            (until, join(joined.join, parts.collect()))
        });
        Ok(joined.collect())
    }

    /// What all encoders make of a part, one behind the other in width.
    fn side_by_side(&self, mut stages: Vec<Stages>, rules: &dyn Syntax) -> Result<Stages> {
        if stages.len() == 1 {
            return Ok(stages.remove(0));
        }
        let ends: BTreeSet<usize> = stages.iter().flatten().map(|(until, _)| *until).collect();
        let lengths = stages
            .iter()
            .flatten()
            .map(|(_, encoded)| encoded.sequence.dims()[1]);
        let length = lengths.max().unwrap_or(0);
        let whole = ends.into_iter().map(|until| {
            let mut sequences = Vec::new();
            let mut pooled = None;
            for (place, stages) in stages.iter().enumerate() {
                let encoded = at(stages, until);
                let empty = || self.empty(place, rules);
                sequences.push(padded(encoded.sequence.clone(), length, empty)?);
                pooled = encoded.pooled.clone().or(pooled);
            }
            Ok((
                until,
                Encoded {
                    sequence: Tensor::cat(sequences, 2),
                    pooled,
                },
            ))
        });
        whole.collect()
    }

    /// What an encoder makes of the empty text, `[1, length, width]`.
    fn empty(&self, place: usize, rules: &dyn Syntax) -> Result<Tensor<3>> {
        let tower = &self.towers[place];
        let ids: Vec<Vec<u32>> = rules
            .chunks(tower, &[])?
            .into_iter()
            .map(|chunk| chunk.ids)
            .take(1)
            .collect();
        Ok(self.states(place, &tower.encoder, &ids, None, None)?.sequence)
    }

    /// Brings all sequences to one length: by empty chunks behind, or by repeating them whole, which no attention can tell from one.
    fn level<'a>(
        &self,
        all: impl Iterator<Item = &'a mut Vec<PartTexts>>,
        options: &SampleOptions,
    ) -> Result<()> {
        let rules = options.prompt_syntax.rules();
        let mut sequences: Vec<&mut Tensor<3>> = all
            .flatten()
            .flat_map(|part| part.stages.iter_mut().map(|(_, encoded)| &mut encoded.sequence))
            .collect();
        let lengths: BTreeSet<usize> = sequences.iter().map(|sequence| sequence.dims()[1]).collect();
        let (Some(&longest), true) = (lengths.last(), lengths.len() > 1) else {
            return Ok(());
        };
        let chunk = self.towers[0].tokenizer.length();
        let common = lengths
            .iter()
            .copied()
            .reduce(crate::conditioning::least_common_multiple)
            .unwrap_or(longest);
        let repeats = !rules.pads_with_empty() && common <= MOST_REPEATED * chunk;
        for sequence in &mut sequences {
            let taken = std::mem::replace(*sequence, Tensor::empty([1, 1, 1], &sequence.device()));
            let length = taken.dims()[1];
            **sequence = if repeats {
                taken.repeat_dim(1, common / length)
            } else {
                let empty = || {
                    let all = (0..self.towers.len()).map(|place| self.empty(place, rules));
                    Ok(Tensor::cat(all.collect::<Result<_>>()?, 2))
                };
                padded(taken, longest, empty)?
            };
        }
        Ok(())
    }

    /// How a text of this syntax falls into chunks for the first encoder, at the first step; of a blend, those of each of its texts.
    ///
    /// # Errors
    /// If it is none of the syntax, or a tokenizer fails on it.
    pub fn chunks(&self, text: &str, syntax: PromptSyntax) -> Result<Vec<TextChunk>> {
        let (rules, tower) = (syntax.rules(), &self.towers[0]);
        let prompt = rules.read(text, 1, false)?;
        let mut found = Vec::new();
        for part in &prompt.parts {
            for (_, spans) in part
                .stages
                .first()
                .into_iter()
                .flat_map(|(_, joined)| &joined.texts)
            {
                found.extend(rules.chunks(tower, spans)?);
            }
        }
        let piece = |&id: &u32| tower.tokenizer.piece(id).unwrap_or_else(|| "… ".into());
        let shown = found.iter().map(|chunk| TextChunk {
            tokens: chunk.len(),
            text: chunk.ids[1..=chunk.len()]
                .iter()
                .map(piece)
                .collect::<String>()
                .trim_end()
                .to_string(),
        });
        Ok(shown.collect())
    }
}

/// What of a text goes through the text encoder together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TextChunk {
    /// How many tokens it has, without start, end and padding.
    pub tokens: usize,
    /// The text that these stand for, in small letters as the encoder is given it.
    pub text: String,
}

/// A sequence with empty chunks behind it.
fn padded(
    sequence: Tensor<3>,
    length: usize,
    empty: impl FnOnce() -> Result<Tensor<3>>,
) -> Result<Tensor<3>> {
    let missing = length - sequence.dims()[1];
    if missing == 0 {
        return Ok(sequence);
    }
    let empty = empty()?;
    let times = missing / empty.dims()[1];
    Ok(Tensor::cat(vec![sequence, empty.repeat_dim(1, times)], 1))
}

/// What is drawn at a step, from 1; after the last, the last.
fn at(stages: &Stages, step: usize) -> &Encoded {
    let found = stages.iter().find(|(until, _)| step <= *until).or(stages.last());
    // There is at least one stage.
    &found.unwrap_or(&stages[0]).1
}

/// The encodings of several texts as one.
fn join(how: Join, mut parts: Vec<(f64, Tensor<3>, Option<Tensor<2>>)>) -> Encoded {
    if parts.len() == 1 && (parts[0].0 == 1.0 || how == Join::Mean) {
        let (_, sequence, pooled) = parts.remove(0);
        return Encoded { sequence, pooled };
    }
    let total: f64 = match how {
        Join::Mean => parts.iter().map(|(weight, ..)| weight).sum(),
        _ => 1.0,
    };
    let pooled = match how {
        Join::Follow => parts[0].2.clone(),
        _ => {
            let scaled = parts
                .iter()
                .filter_map(|(weight, _, pooled)| Some(pooled.clone()? * (weight / total)));
            scaled.reduce(|sum, more| sum + more)
        }
    };
    let first = parts[0].1.clone();
    let scaled = parts
        .into_iter()
        .map(|(weight, sequence, _)| sequence * (weight / total));
    let sequence = match how {
        Join::Follow => Tensor::cat(scaled.collect(), 1),
        _ => scaled.reduce(|sum, more| sum + more).unwrap_or(first),
    };
    Encoded { sequence, pooled }
}

/// Both sides of all pictures.
struct Sides<'a> {
    towards: &'a [Vec<PartTexts>],
    /// `None` for zeros.
    away: Option<&'a [Vec<PartTexts>]>,
}

impl Sides<'_> {
    /// The most parts of a picture.
    fn parts(&self) -> usize {
        self.towards.iter().map(Vec::len).max().unwrap_or(1)
    }

    /// Each picture's weight of a part; of one that it does not have, none.
    fn weights(&self, part: usize) -> Vec<f64> {
        let weight = |parts: &Vec<PartTexts>| parts.get(part).map_or(0.0, |part| part.weight);
        self.towards.iter().map(weight).collect()
    }

    /// From which step on which texts, and the texts that differ.
    fn turns(&self) -> Result<Turns> {
        let all = self.towards.iter().chain(self.away.into_iter().flatten());
        let ends = all
            .clone()
            .flatten()
            .flat_map(|part| &part.stages)
            .map(|(until, _)| *until);
        let ends: BTreeSet<usize> = ends.collect();
        let last = ends.last().copied().unwrap_or(0);
        let starts = std::iter::once(0).chain(ends.into_iter().filter(|&end| end != last));
        let (mut at, mut texts, mut known) = (Vec::new(), Vec::new(), HashMap::new());
        for start in starts {
            let place = |part: &PartTexts| part.stages.iter().position(|(until, _)| start < *until);
            let key: Vec<Option<usize>> = all.clone().flatten().map(place).collect();
            let number = *known.entry(key).or_insert_with(|| {
                texts.push(self.texts(start + 1));
                texts.len() - 1
            });
            at.push((start, number));
            if texts.len() > MOST_STAGES {
                return Err(Error::option(
                    &["prompt"],
                    format!("the prompts' schedules have more than {MOST_STAGES} texts together"),
                ));
            }
        }
        Ok(Turns { at, texts })
    }

    /// What is drawn at a step, from 1.
    fn texts(&self, step: usize) -> Texts {
        let of = |side: &[Vec<PartTexts>], part: usize| {
            let rows: Vec<&Encoded> = side
                .iter()
                .map(|parts| at(&parts.get(part).unwrap_or(&parts[0]).stages, step))
                .collect();
            let pooled: Option<Vec<Tensor<2>>> = rows.iter().map(|row| row.pooled.clone()).collect();
            Encoded {
                sequence: Tensor::cat(rows.iter().map(|row| row.sequence.clone()).collect(), 0),
                pooled: pooled.map(|pooled| Tensor::cat(pooled, 0)),
            }
        };
        let towards = of(self.towards, 0);
        let away = match self.away {
            Some(away) => of(away, 0),
            None => Encoded {
                sequence: towards.sequence.zeros_like(),
                pooled: towards.pooled.as_ref().map(Tensor::zeros_like),
            },
        };
        Texts {
            towards: towards.into(),
            away: away.into(),
            also: (1..self.parts())
                .map(|part| of(self.towards, part).into())
                .collect(),
        }
    }
}
