//! What a run draws: grids of samples, how they came out of noise, and the plot of its loss.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use burn::tensor::{Tensor, TensorData};

use super::{Drawn, TraineeKind, Trainer, class_pictures, setup::transform, trackers::metrics::Metrics};
use crate::{
    Error, Request, Result, Size,
    codec::{AnyCodec, Codec, Mel},
    conditioning::{AttributesCondition, ConditioningImages, TextCondition, VectorCondition},
    data::{Crop, Example, ImageInput, Picture, Transform, sound::Sound},
    generate::{Plan, Watch, sounds},
    grid,
    models::ImageCondition,
    ops::in_pool,
    options::{ClassName, ControlInput},
    pipelines::{Pipeline, Sampling, Step, to_pictures},
    random::Generator,
    world::Team,
};

/// The plot of the loss in a run's folder.
pub const LOSS_PLOT: &str = "loss.png";
/// The grid of samples drawn at the end.
pub const SAMPLES: &str = "samples.png";
/// The same of the weights as they were trained, where [`SAMPLES`] is of their average.
pub const SAMPLES_TRAINED: &str = "samples-trained.png";
/// A copy of the grid that was drawn last, of a run that was interrupted.
pub const SAMPLES_LAST: &str = "samples-last.png";
/// The folder of the grids that are drawn while a run goes on.
pub(super) const DRAWN: &str = "samples";

/// The ending of the sounds beside a grid.
const SOUND: &str = "wav";

/// Pictures whose way from noise is shown, and moments of it.
const SHOWN: usize = 4;
const MOMENTS: usize = 10;

/// Draws a grid with seed 0, as the training script's samples are: a row for each class, or as square as it gets. Beside it, with
/// `-denoising` added to its name, goes the way of a few of them out of the noise. All processes draw, each with this pipeline; the first
/// writes, and has what was drawn.
pub(super) fn draw(
    trainer: &Trainer,
    pipeline: &Pipeline,
    path: &Path,
    team: &mut Team<'_>,
) -> Result<Option<Drawn>> {
    let planned = in_pool(|| {
        let (request, columns) = match &trainer.latent {
            Some(_) => of_latent(trainer)?,
            None => of_pictures(trainer)?,
        };
        Ok((Plan::of(pipeline, &request)?, columns))
    });
    let (plan, columns) = team.agree(planned)?;
    let mut moments = Moments {
        codec: pipeline.codec(),
        all: Vec::new(),
    };
    let drawn = match team.is_first() {
        true => plan.run_in(pipeline, team, &mut moments)?,
        false => plan.run_in(pipeline, team, &mut ())?,
    };
    match drawn.filter(|_| team.is_first()) {
        Some(pictures) => written(trainer, pipeline, path, pictures, columns, moments.all).map(Some),
        None => Ok(None),
    }
}

/// Writes what was drawn.
fn written(
    trainer: &Trainer,
    pipeline: &Pipeline,
    path: &Path,
    pictures: Vec<Picture>,
    columns: usize,
    moments: Vec<Vec<Picture>>,
) -> Result<Drawn> {
    let config = &trainer.config;
    let scale = grid::visible_scale(&pictures[0]);
    let whole = grid::grid(&pictures, columns, 2, scale)?;
    let denoising = grid::grid(&by_picture(&moments), moments.len(), 2, scale)?;
    let text = [
        ("seed", "0".to_string()),
        ("scheduler", pipeline.scheduler.class_name().to_string()),
        ("steps", config.ddpm_num_inference_steps.to_string()),
        ("model", trainer.folder.display().to_string()),
    ];
    grid::write_png(path, &whole, &text)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    grid::write_png(path.with_file_name(self::denoising(&name)), &denoising, &text)?;
    let sound = match pipeline.mel() {
        Some(mel) => {
            let sound = heard(mel, &pictures)?;
            sound.write(path.with_extension(SOUND))?;
            Some(sound)
        }
        None => None,
    };
    Ok(Drawn {
        sound,
        pictures,
        columns,
        grid: whole,
        denoising,
        path: path.to_path_buf(),
    })
}

/// What is drawn of a model of pictures, and in how many columns.
fn of_pictures(trainer: &Trainer) -> Result<(Request, usize)> {
    const MOST_ROWS: usize = 20;
    let config = &trainer.config;
    let (classes, columns) = match trainer.classes() {
        Some(classes) => {
            let rows = classes.names.len().min(MOST_ROWS);
            let columns = (config.eval_batch_size / rows).clamp(1, 10);
            let classes = (0..rows)
                .flat_map(|class| vec![class; columns])
                .collect::<Vec<_>>();
            (Some(classes), columns)
        }
        None => (None, (config.eval_batch_size as f64).sqrt().ceil() as usize),
    };
    let count = classes.as_ref().map_or(config.eval_batch_size, Vec::len);
    let examples = Examples::of(trainer);
    let classes = classes.unwrap_or_default();
    let (conditioning_image, mask) = examples.images(0..count)?;
    let request = Request {
        count: Some(count),
        batch_size: config.eval_batch_size,
        steps: Some(config.ddpm_num_inference_steps),
        class: classes.into_iter().map(ClassName::Number).collect(),
        prompt: examples.prompts(0..count),
        attributes: examples.attributes(0..count)?,
        conditioning_image,
        mask,
        vectors: examples.vectors(0..count)?,
        ..Request::default()
    };
    Ok((request, columns))
}

/// What is drawn to validate what is trained on a latent pipeline: the texts that the configuration names, or the captions of the first pictures,
/// so many of each.
fn of_latent(trainer: &Trainer) -> Result<(Request, usize)> {
    let config = &trainer.config;
    let examples = Examples::of(trainer);
    let each = config.eval_batch_size;
    let prompts = match (
        &config.validation_prompt,
        &config.instance_prompt,
        &config.placeholder_token,
    ) {
        (prompts, ..) if !prompts.is_empty() => prompts.clone(),
        (_, Some(prompt), _) => vec![prompt.clone()],
        (.., Some(word)) => vec![format!("a photo of a {word}")],
        _ => examples.prompts(0..each),
    };
    let rows = match config.validation_prompt.len() {
        0 => 1,
        rows => rows,
    };
    let count = each * rows;
    // One text a row of the grid.
    let prompt = match rows {
        1 => prompts,
        _ => prompts
            .iter()
            .flat_map(|prompt| vec![prompt.clone(); each])
            .collect(),
    };
    let shown = matches!(config.trainee, TraineeKind::ControlNet | TraineeKind::Pix2Pix);
    let shown = shown.then(|| examples.shown(rows, each)).transpose()?;
    let edits = config.trainee == TraineeKind::Pix2Pix;
    let request = Request {
        count: Some(count),
        batch_size: 1,
        steps: Some(config.ddpm_num_inference_steps),
        size: Some(Size {
            height: config.resolution,
            width: config.resolution,
        }),
        prompt,
        control: match (&shown, edits) {
            (Some(picture), false) => vec![ControlInput {
                model: None,
                picture: picture.clone(),
                scale: None,
                start: 0.0,
                end: 1.0,
            }],
            _ => Vec::new(),
        },
        init_image: shown.filter(|_| edits),
        ..Request::default()
    };
    Ok((request, each.min(8)))
}

/// A few spectrograms as sounds, one after another: evenly apart, so that they are of several classes where there are some.
fn heard(mel: &Mel, pictures: &[Picture]) -> Result<Sound> {
    const HEARD: usize = 8;
    const SECONDS_BETWEEN: f64 = 0.25;
    let apart: Vec<Picture> = pictures
        .iter()
        .step_by(pictures.len().div_ceil(HEARD).max(1))
        .cloned()
        .collect();
    let rate = mel.config().sample_rate;
    let silence = vec![0.0; (SECONDS_BETWEEN * f64::from(rate)) as usize];
    let sounds = sounds(mel, &apart, 0)?;
    let samples = sounds
        .into_iter()
        .flat_map(|sound| [sound.samples, silence.clone()])
        .flatten()
        .collect();
    Ok(Sound { rate, samples })
}

/// Removes the copy of a grid that was drawn on the way, if there is one: another one holds now.
pub(super) fn forget_last(folder: &Path) {
    remove(folder, SAMPLES_LAST);
}

/// Removes the grids that a run ended with: the weights are about to be others than those that drew them.
pub(super) fn forget_end(folder: &Path) {
    for name in [SAMPLES, SAMPLES_TRAINED] {
        remove(folder, name);
        remove(folder, &denoising(name));
        remove(folder, &name.replace(".png", ".wav"));
    }
}

/// Removes all that a run drew which is replaced: the new one's samples would stand among them.
pub(super) fn forget(folder: &Path) {
    forget_last(folder);
    forget_end(folder);
    remove(folder, LOSS_PLOT);
    // They are of the class that the new run names.
    class_pictures::forget(folder);
    let drawn = folder.join(DRAWN);
    for entry in std::fs::read_dir(&drawn).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_ours = ["epoch-", "step-"].iter().any(|start| name.starts_with(start));
        if is_ours && [".png", ".wav"].iter().any(|ending| name.ends_with(ending)) {
            remove(&drawn, &name);
        }
    }
}

fn remove(folder: &Path, name: &str) {
    // One that cannot be removed is an old picture, and no reason to end a run.
    let _ = std::fs::remove_file(folder.join(name));
}

/// What the way out of the noise is called beside a grid.
fn denoising(grid: &str) -> String {
    format!("{}-denoising.png", grid.trim_end_matches(".png"))
}

/// A few pictures of the first batch at moments evenly apart, from the noise to the end.
struct Moments<'a> {
    codec: &'a AnyCodec,
    all: Vec<Vec<Picture>>,
}

impl Moments<'_> {
    fn add(&mut self, samples: &Tensor<4>) -> Result<()> {
        let all = to_pictures(&self.codec.preview(samples.clone())?)?;
        // Evenly apart, so that they are of several classes where there are some.
        let apart = all.len().div_ceil(SHOWN);
        self.all.push(all.into_iter().step_by(apart).collect());
        Ok(())
    }
}

impl Watch for Moments<'_> {
    fn begin(&mut self, sampling: &Sampling<'_>) -> Result<()> {
        match self.all.is_empty() {
            true => self.add(sampling.sample()),
            false => Ok(()),
        }
    }

    fn step(&mut self, step: &Step<'_>, done: usize, _: usize) -> Result<bool> {
        let passed = |steps: usize| steps * (MOMENTS - 1) / step.total;
        if done <= step.total && passed(step.index + 1) > passed(step.index) {
            self.add(step.sample)?;
        }
        Ok(true)
    }
}

/// From moments of pictures to pictures in their moments.
fn by_picture(moments: &[Vec<Picture>]) -> Vec<Picture> {
    let count = moments.first().map_or(0, Vec::len);
    (0..count)
        .flat_map(|picture| moments.iter().map(move |moment| moment[picture].clone()))
        .collect()
}

/// What samples are told of the data's first pictures, one after another.
struct Examples<'a> {
    trainer: &'a Trainer,
    captioned: bool,
    image: Option<ImageCondition>,
}

impl<'a> Examples<'a> {
    fn of(trainer: &'a Trainer) -> Self {
        let image = trainer.condition::<ConditioningImages>();
        Self {
            trainer,
            captioned: trainer.condition::<TextCondition>().is_some(),
            image: image.map(|image| image.kind().clone()),
        }
    }

    fn example(&self, index: usize) -> Result<Example> {
        let dataset = &self.trainer.dataset;
        dataset.get(index % dataset.len())
    }

    /// The captions of these pictures, for a model that looks at texts.
    fn prompts(&self, range: Range<usize>) -> Vec<String> {
        let caption = |index| self.example(index).ok().and_then(|example| example.caption);
        let captions = range.map(|index| caption(index).unwrap_or_default());
        captions.filter(|_| self.captioned).collect()
    }

    /// What rows of a grid are drawn after: the pictures that the configuration names, or those beside the first of the data.
    fn shown(&self, rows: usize, each: usize) -> Result<ImageInput> {
        let named = &self.trainer.config.validation_image;
        let one = |row: usize| match named.get(row % named.len().max(1)) {
            Some(path) => Ok(ImageInput::File(path.clone())),
            None => match self.example(row)?.conditioning {
                Some(picture) => Ok(ImageInput::Picture(picture)),
                None => Err(Error::option(
                    &["conditioning_image"],
                    "the first picture of the data has no other beside it to be drawn after",
                )),
            },
        };
        let all: Vec<ImageInput> = (0..rows).map(one).collect::<Result<_>>()?;
        let turns = all.into_iter().flat_map(|picture| vec![picture; each]);
        Ok(ImageInput::Several(turns.collect()))
    }

    /// The attributes of these pictures, for a model that knows any.
    fn attributes(&self, range: Range<usize>) -> Result<Vec<String>> {
        let Some(attributes) = self.trainer.condition::<AttributesCondition>() else {
            return Ok(Vec::new());
        };
        let list = |index| Ok(attributes.list(&self.example(index)?.attributes));
        range.map(list).collect()
    }

    /// The vectors of these pictures, for a model that is told one.
    fn vectors(&self, range: Range<usize>) -> Result<Option<Tensor<2>>> {
        let Some(vector) = self.trainer.condition::<VectorCondition>() else {
            return Ok(None);
        };
        let pictures = self.pictures(range, |example| example.picture)?;
        vector.encode(&pictures).map(Some)
    }

    /// What `of` takes of these examples, cropped in the middle: `[pictures, channels, height, width]`.
    fn pictures(&self, range: Range<usize>, of: impl Fn(Example) -> Picture) -> Result<Tensor<4>> {
        let config = &self.trainer.config;
        let transform = Transform {
            crop: Crop::Center,
            random_flip: false,
            ..transform(config)
        };
        let side = config.resolution;
        let shape = [range.len(), config.channels.count(), side, side];
        let mut pixels = vec![];
        for index in range {
            pixels.extend(transform.apply(of(self.example(index)?), &mut Generator::new(0))?);
        }
        Ok(Tensor::from_data(
            TensorData::new(pixels, shape),
            &self.trainer.device,
        ))
    }

    /// These pictures, for a model that is shown one, and the mask that covers their middle, for a model that paints under one.
    fn images(&self, range: Range<usize>) -> Result<(Option<ImageInput>, Option<ImageInput>)> {
        let Some(image) = &self.image else {
            return Ok((None, None));
        };
        let device = &self.trainer.device;
        let side = self.trainer.config.resolution;
        let picture = self.pictures(range, |example| match (image, example.conditioning) {
            (ImageCondition::Column(_), Some(given)) => given,
            _ => example.picture,
        })?;
        let middle = |i: usize| (side / 4..side - side / 4).contains(&i);
        let mask: Vec<f32> = (0..side * side)
            .map(|i| {
                if middle(i / side) && middle(i % side) {
                    1.0
                } else {
                    0.0
                }
            })
            .collect();
        let mask = (*image == ImageCondition::Mask)
            .then(|| Tensor::from_data(TensorData::new(mask, [1, 1, side, side]), device));
        Ok((Some(picture.into()), mask.map(ImageInput::Tensor)))
    }
}

/// Plots the loss into the run's folder.
#[cfg(feature = "plot")]
pub(super) fn plot(trainer: &Trainer, metrics: &Metrics) -> Result<Option<PathBuf>> {
    let path = trainer.folder.join(LOSS_PLOT);
    let title = format!("{} on {}", trainer.config.model_name(), trainer.dataset.name());
    crate::plot::loss_plot(&path, metrics.losses(), &title)?;
    Ok(Some(path))
}

/// Plots nothing: this build cannot.
#[cfg(not(feature = "plot"))]
pub(super) fn plot(_trainer: &Trainer, _metrics: &Metrics) -> Result<Option<PathBuf>> {
    Ok(None)
}
