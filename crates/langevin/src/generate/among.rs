//! The pictures of a plan, drawn by the processes of a world: each has the model, and computes a part of what it is asked in each step. Everything
//! else all of them do alike, so that every picture has the bits that one process comes to.

use std::ops::Range;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Plan, Watch};
use crate::{
    Error, Result,
    data::{Channels, Picture},
    ops::{computing, in_pool},
    pipelines::{Pipeline, Sampling, step_among},
    random::Generator,
    world::{Team, World, of_process, part_of},
};

/// What a process says of what it is about to draw.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Introduction {
    version: String,
    /// What is drawn, in words.
    plan: String,
    /// Of what the model answers to some noise.
    numbers: String,
}

impl Plan {
    /// Draws all pictures as [`Self::run`] does, as one of the processes of a world, each of which has such a plan and pipeline, and gives all of
    /// them in each. `None` where the `watch` of any ended it.
    ///
    /// # Errors
    /// As [`Self::run`], in every process, whichever failed; if they do not draw the same; or if one is gone.
    pub fn run_among(
        &self,
        pipeline: &Pipeline,
        world: &mut dyn World,
        watch: &mut (dyn Watch + Send),
    ) -> Result<Option<Vec<Picture>>> {
        if world.size() == 1 {
            return in_pool(|| self.run(pipeline, watch));
        }
        let mut team = Team::new(world);
        self.meet(pipeline, &mut team)?;
        self.run_in(pipeline, &mut team, watch)
    }

    /// The same before anything is decoded, see [`Self::samples`].
    ///
    /// # Errors
    /// As [`Self::run_among`].
    pub fn samples_among(
        &self,
        pipeline: &Pipeline,
        world: &mut dyn World,
        watch: &mut (dyn Watch + Send),
    ) -> Result<Option<Vec<Tensor<4>>>> {
        if world.size() == 1 {
            return in_pool(|| self.samples(pipeline, watch));
        }
        let mut team = Team::new(world);
        self.meet(pipeline, &mut team)?;
        self.samples_in(pipeline, &mut team, watch)
    }

    /// [`Self::run_among`] with processes that know of each other that they do the same.
    pub(crate) fn run_in(
        &self,
        pipeline: &Pipeline,
        team: &mut Team<'_>,
        watch: &mut (dyn Watch + Send),
    ) -> Result<Option<Vec<Picture>>> {
        if team.size() == 1 {
            return in_pool(|| self.run(pipeline, watch));
        }
        let Some(batches) = self.samples_in(pipeline, team, watch)? else {
            return Ok(None);
        };
        let samples = Tensor::cat(batches, 0);
        let [count, ..] = samples.dims();
        // What costs nothing is not worth sending.
        let sends = pipeline.codec().is_latent();
        let own = match sends {
            true => part_of(team.rank(), team.size(), count),
            false => 0..count,
        };
        let decoded = in_pool(|| {
            let one = |number: usize| self.pictures(pipeline, samples.clone().narrow(0, number, 1));
            let all = own.clone().map(one).collect::<Result<Vec<_>>>()?;
            let (pictures, flags): (Vec<_>, Vec<_>) = all.into_iter().unzip();
            Ok((pictures.concat(), flags.concat()))
        });
        let (pictures, flags) = team.agree(decoded)?;
        let all: Vec<(Picture, bool)> = match sends {
            true => exchanged(team, &pictures, &flags)?,
            false => pictures.into_iter().zip(flags).collect(),
        };
        for (number, _) in all.iter().enumerate().filter(|(_, (_, flag))| *flag) {
            watch.flagged(number);
        }
        Ok(Some(all.into_iter().map(|(picture, _)| picture).collect()))
    }

    /// Refuses processes that would not draw the same. All of them come to the same verdict.
    fn meet(&self, pipeline: &Pipeline, team: &mut Team<'_>) -> Result<()> {
        let own = team.agree(self.introduction(pipeline))?;
        let all: Vec<Introduction> = team.speak(&own)?;
        let differs = |other: &Introduction| {
            let first = &all[0];
            if other.version != first.version {
                return Some(format!(
                    "it is of version {}, and that of {}",
                    other.version, first.version
                ));
            }
            if other.plan != first.plan {
                return Some(format!(
                    "it is `{}` in it, and `{}` in that",
                    other.plan, first.plan
                ));
            }
            (other.numbers != first.numbers).then(|| {
                "it has another model, or a processor that computes with other instructions: LANGEVIN_ISA=avx2 in all of them has \
                 processors compute alike"
                    .to_string()
            })
        };
        let verdict = all
            .iter()
            .enumerate()
            .find_map(|(rank, other)| {
                let why = differs(other)?;
                Some(Error::Config(format!(
                    "process {rank} cannot draw with process 0: {why}"
                )))
            })
            .map_or(Ok(()), Err);
        match team.is_first() {
            true => verdict,
            false => verdict.map_err(|error| of_process(0, &error.to_string())),
        }
    }

    fn introduction(&self, pipeline: &Pipeline) -> Result<Introduction> {
        // A first step of one picture says more of a model than its files' names, and is one of many.
        let numbers = in_pool(|| {
            let mut generator = Generator::new(self.seed());
            let mut sampling = self.batch(pipeline, 0..1, &mut generator)?;
            let mut hash = Sha256::new();
            if let Some(step) = sampling.next() {
                let answer = step?.prediction.clone().into_data().convert::<f32>();
                for value in answer.try_into_vec::<f32>().unwrap_or_default() {
                    hash.update(value.to_le_bytes());
                }
            }
            let hash = hash.finalize();
            Ok::<_, Error>(hash.iter().map(|byte| format!("{byte:02x}")).collect())
        })?;
        Ok(Introduction {
            version: env!("CARGO_PKG_VERSION").into(),
            plan: format!("{self}, {} together", self.batch_size()),
            numbers,
        })
    }

    fn samples_in(
        &self,
        pipeline: &Pipeline,
        team: &mut Team<'_>,
        watch: &mut (dyn Watch + Send),
    ) -> Result<Option<Vec<Tensor<4>>>> {
        let batches = self.batches();
        // Batches of fewer rows than there are processes are drawn several at once.
        let rows = batches.first().map_or(1, Range::len) * self.calls();
        let at_once = team.size().div_ceil(rows.max(1));
        let mut generator = Generator::new(self.seed());
        let mut all = Vec::with_capacity(batches.len());
        for (group, pictures) in batches.chunks(at_once).enumerate() {
            let begun = in_pool(|| {
                let begin = |pictures: &Range<usize>| self.begin(pipeline, pictures, &mut generator);
                pictures.iter().map(begin).collect::<Result<Vec<_>>>()
            });
            let loops = team.agree(begun)?;
            let each = self.steps_of_all_passes(loops.first().map_or(0, Sampling::total));
            let mut count = Count {
                each,
                first: group * at_once,
                before: 0,
                total: batches.len() * each,
            };
            let Some(mut samples) = walk(loops, team, watch, count)? else {
                return Ok(None);
            };
            if self.has_second_pass() {
                let seconds = in_pool(|| {
                    let all = samples.into_iter().zip(pictures);
                    all.map(|(samples, pictures)| self.go_on(pipeline, samples, pictures.clone()))
                        .collect::<Result<Vec<_>>>()
                });
                let seconds = team.agree(seconds)?;
                count.before = each - seconds.first().map_or(0, Sampling::total);
                samples = match walk(seconds, team, watch, count)? {
                    Some(samples) => samples,
                    None => return Ok(None),
                };
            }
            all.extend(samples);
        }
        Ok(Some(all))
    }

    /// The loop of a batch, and the generator as that loop will leave it: what is drawn on the way does not depend on what the model says, so
    /// that the next batch can begin before this one has ended.
    fn begin<'a>(
        &self,
        pipeline: &'a Pipeline,
        pictures: &Range<usize>,
        generator: &mut Generator,
    ) -> Result<Sampling<'a>> {
        if self.has_own_seeds() {
            return self.picture(pipeline, pictures.start);
        }
        computing(self.precision(), || {
            let sampling = self.start(pipeline, pictures.clone(), generator.clone().into(), None)?;
            let sampling = self.guided(sampling, self.seed())?;
            let mut passed = self.start(pipeline, pictures.clone(), (&mut *generator).into(), None)?;
            while let Some(step) = passed.open() {
                step.pass()?;
            }
            Ok(sampling)
        })
    }
}

/// How the steps of loops that are walked at once are counted.
#[derive(Clone, Copy)]
struct Count {
    /// Steps of a batch, over all passes.
    each: usize,
    /// The first loop's batch.
    first: usize,
    /// Steps of a batch that are done before.
    before: usize,
    total: usize,
}

/// Takes all steps of loops that have as many; `None` where any process's `watch` ended it.
fn walk(
    mut loops: Vec<Sampling<'_>>,
    team: &mut Team<'_>,
    watch: &mut (dyn Watch + Send),
    count: Count,
) -> Result<Option<Vec<Tensor<4>>>> {
    let begun = in_pool(|| loops.iter_mut().try_for_each(|sampling| watch.begin(sampling)));
    team.agree(begun)?;
    let total = loops.first().map_or(0, Sampling::total);
    if loops.iter().any(|sampling| sampling.total() != total) {
        return Err(Error::Config(
            "the batches of a plan have different numbers of steps".into(),
        ));
    }
    for done in 1..=total {
        step_among(&mut loops.iter_mut().collect::<Vec<_>>(), team)?;
        let seen = in_pool(|| {
            let mut goes_on = true;
            // Lent out by turns: a loop is no thing for two threads.
            for (place, sampling) in loops.iter_mut().enumerate() {
                if let Some(step) = sampling.latest() {
                    let number = (count.first + place) * count.each + count.before + done;
                    goes_on &= watch.step(&step, number, count.total)?;
                }
            }
            Ok(goes_on)
        });
        let own = team.agree(seen)?;
        if !team.speak(&own)?.into_iter().all(|goes_on: bool| goes_on) {
            return Ok(None);
        }
    }
    let ended = in_pool(|| loops.into_iter().map(Sampling::finish).collect());
    team.agree(ended).map(Some)
}

/// The pictures that all processes have, in their order, with what a safety checker said of each.
///
/// # Errors
/// If a process is gone.
pub(crate) fn exchanged(
    team: &mut Team<'_>,
    pictures: &[Picture],
    flags: &[bool],
) -> Result<Vec<(Picture, bool)>> {
    let mut bytes = Vec::new();
    for (picture, flag) in pictures.iter().zip(flags) {
        let sides = [picture.height(), picture.width(), picture.channels().count()];
        for side in sides {
            bytes.extend((side as u32).to_le_bytes());
        }
        bytes.push(u8::from(*flag));
        bytes.extend_from_slice(picture.pixels());
    }
    let mut all = Vec::new();
    for (rank, bytes) in team.gather(&bytes)?.iter().enumerate() {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (one, after) = picture(rest).ok_or_else(|| of_process(rank, "sent what is no picture"))?;
            all.push(one);
            rest = after;
        }
    }
    Ok(all)
}

/// A picture that was sent, with what the safety checker said, and what comes after it.
fn picture(bytes: &[u8]) -> Option<((Picture, bool), &[u8])> {
    let (sides, rest) = bytes.split_at_checked(12)?;
    let (sides, _) = sides.as_chunks::<4>();
    let side = |place: usize| Some(u32::from_le_bytes(*sides.get(place)?) as usize);
    let (height, width, channels) = (side(0)?, side(1)?, side(2)?);
    let (flag, rest) = rest.split_first()?;
    let (pixels, rest) = rest.split_at_checked(height.checked_mul(width)?.checked_mul(channels)?)?;
    let channels = [Channels::Grey, Channels::Rgb]
        .into_iter()
        .find(|known| known.count() == channels)?;
    let picture = Picture::new(height, width, channels, pixels.to_vec()).ok()?;
    Some(((picture, *flag != 0), rest))
}
