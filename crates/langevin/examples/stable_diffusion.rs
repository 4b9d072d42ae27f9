//! The course's third unit: Stable Diffusion, whole and then part by part.
//!
//! ```sh
//! cargo run --release -p langevin --example stable_diffusion -- [PIPELINE] [PROMPT] [FOLDER] [DEPTH-PIPELINE]
//! ```
//!
//! PIPELINE is a folder of Stable Diffusion 1, 2 or XL; without one it is a tiny one with random weights from the tests, whose pictures show
//! nothing. `docs/stable-diffusion.md` walks through it.

// Tests call it as a module.
#![allow(unreachable_pub)]

use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use langevin::{
    Error, Pipeline, Request, Result,
    codec::Codec,
    conditioning::TextCondition,
    data::{Channels, ImageInput, Picture},
    device::default_device,
    generate::Plan,
    grid,
    guidance::ClassifierFree,
    models::{Denoiser, clip::ClipTokenizer},
    pipelines::{SampleOptions, to_pictures},
    random::Generator,
    schedulers::{Scheduler, StepOptions},
};

/// What may be chosen.
pub struct Lesson {
    /// A folder of Stable Diffusion.
    pub pipeline: PathBuf,
    /// One whose model is shown depths.
    pub depth: Option<PathBuf>,
    /// What to draw.
    pub prompt: String,
    /// What to lead away from.
    pub negative_prompt: String,
    /// Denoising steps.
    pub steps: usize,
    /// Where the pictures of the lesson go.
    pub folder: PathBuf,
}

/// What came of it.
pub struct Outcome {
    /// The prompt's pieces.
    pub pieces: Vec<String>,
    /// What the loop by hand ended with, beside what the pipeline drew: the largest difference of a pixel, of 255.
    pub by_hand: u8,
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let tiny = || concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/sd/models/sd1").into();
    let lesson = Lesson {
        pipeline: args.next().unwrap_or_else(tiny).into(),
        prompt: args
            .next()
            .unwrap_or_else(|| "Palette knife painting of an autumn cityscape".into()),
        negative_prompt: "Oversaturated, blurry, low quality".into(),
        steps: 35,
        folder: args.next().unwrap_or_else(|| "stable_diffusion".into()).into(),
        depth: args.next().map(PathBuf::from),
    };
    run(&lesson).map(|_| ())
}

/// How far guidance goes: the notebook's.
const GUIDANCE_SCALE: f64 = 8.0;
/// The seed of everything: the notebook's.
const SEED: u64 = 42;

/// The lesson.
pub fn run(lesson: &Lesson) -> Result<Outcome> {
    let device = default_device();
    let pipeline = Pipeline::load(&lesson.pipeline, &device)?;

    // 1. From a prompt to a picture. What is not said is as in diffusers: the size is the model's.
    let request = Request {
        prompt: vec![lesson.prompt.clone()],
        negative_prompt: vec![lesson.negative_prompt.clone()],
        guidance: ClassifierFree::of_scale(GUIDANCE_SCALE),
        steps: Some(lesson.steps),
        seed: SEED,
        ..Request::default()
    };
    let drawn = pipeline.generate(&request)?;
    show(&drawn, lesson, "drawn.png")?;

    // 2. Guidance: how closely the picture follows the prompt. At much higher scales the colours burn out.
    let mut row = Vec::new();
    for scale in [1.1, 3.0, 12.0] {
        let guidance = ClassifierFree::of_scale(scale);
        row.extend(pipeline.generate(&Request {
            guidance,
            ..request.clone()
        })?);
    }
    show(&row, lesson, "scales.png")?;

    // 3. The autoencoder: the model never sees pictures but latents, of fewer numbers, and its decoder makes pictures of them.
    let codec = pipeline.codec();
    let picture = tensor(&drawn[0]);
    let latents = codec.scale(codec.encode(picture.clone())?.mode());
    let decoded = codec.decode(latents.clone())?;
    println!("picture {:?}, latents {:?}", picture.dims(), latents.dims());
    let mut row = drawn.clone();
    row.extend(to_pictures(&decoded)?);
    show(&row, lesson, "there-and-back.png")?;

    // 4. Tokens and embeddings: a prompt is cut into pieces of a fixed vocabulary, filled up to a fixed length, and the text encoder
    // makes a vector of each, which knows what stands before it.
    let text = pipeline
        .condition::<TextCondition>()
        .ok_or_else(|| Error::Config("this pipeline looks at no texts".into()))?;
    let pieces = pieces(text.tokenizer(), &lesson.prompt)?;
    let embeddings = text.embeddings(&[&lesson.prompt], &[&lesson.negative_prompt])?;
    println!("{pieces:?}: embeddings {:?}", embeddings.towards.dims());
    // They may take the prompt's place; here half of them is the negative prompt's.
    let mut mixed = embeddings.clone();
    if let Some(away) = &embeddings.away {
        mixed.towards = (embeddings.towards + away.clone()) / 2.0;
    }
    let of_embeddings = Request {
        prompt: vec![],
        negative_prompt: vec![],
        embeddings: Some(mixed),
        ..request.clone()
    };
    show(&pipeline.generate(&of_embeddings)?, lesson, "mixed.png")?;

    // 5. The UNet: noisy latents, a timestep and what is asked for in; how it sees the noise out, in the latents' shape.
    let size = pipeline.size()?;
    let options = SampleOptions {
        prompts: Some(vec![lesson.prompt.clone()]),
        negative_prompts: Some(vec![lesson.negative_prompt.clone()]),
        guidance: ClassifierFree::of_scale(GUIDANCE_SCALE),
        ..SampleOptions::default()
    };
    let told = pipeline.pair(&options, size)?;
    let [channels, height, width] = codec.latent_shape(size);
    let mut generator = Generator::new(SEED);
    let noise = generator.randn_tensor([1, channels, height, width], &device);
    let timestep = Tensor::<1>::full([1], 980.0, &device);
    let prediction = pipeline.model.denoise(noise.clone(), timestep, &told.towards)?;
    println!("noise {:?}, prediction {:?}", noise.dims(), prediction.dims());

    // 6. The scheduler: how much noise there is at each timestep, and which of them the loop visits; another takes other steps with the
    // same model.
    let mut scheduler = pipeline.scheduler.clone();
    scheduler.set_timesteps(lesson.steps)?;
    plot(&scheduler, lesson)?;
    let swapped = Request {
        scheduler: Some("lms".into()),
        ..request.clone()
    };
    show(&pipeline.generate(&swapped)?, lesson, "lms.png")?;

    // 7. The loop by hand. Both halves of guidance are one batch: first what is led away from, then what is asked for.
    let both = told.away.followed_by(&told.towards)?;
    let mut latents = noise * scheduler.init_noise_sigma();
    for t in scheduler.timesteps().to_vec() {
        let twice = latents.clone().repeat_dim(0, 2);
        let input = scheduler.scale_model_input(twice, t)?;
        let predictions = pipeline
            .model
            .denoise(input, Tensor::full([2], t, &device), &both)?;
        let (away, towards) = (predictions.clone().narrow(0, 0, 1), predictions.narrow(0, 1, 1));
        let prediction = away.clone() + (towards - away) * GUIDANCE_SCALE;
        let mut options = StepOptions {
            generator: Some(&mut generator),
            ..StepOptions::default()
        };
        latents = scheduler.step(prediction, t, latents, &mut options)?.previous;
    }
    let by_hand = to_pictures(&codec.decode(latents)?)?;
    show(&by_hand, lesson, "by-hand.png")?;

    // 8. The same loop as an iterator, with a hand in every step: what the model takes the picture for, on the way.
    let plan = Plan::of(&pipeline, &request)?;
    let mut sampling = plan.picture(&pipeline, 0)?;
    let mut row = Vec::new();
    while let Some(mut step) = sampling.open() {
        let prediction = step.predict(step.sample.clone())?;
        if step.index % step.total.div_ceil(6) == 0 {
            let clean = step.predicted_clean(&prediction, &step.sample)?;
            row.extend(to_pictures(&codec.preview(clean)?)?);
        }
        step.take(prediction)?;
    }
    show(&row, lesson, "on-the-way.png")?;

    // 9. Picture to picture: the picture's latents under as much noise as the strength says, and the loop from there.
    let again = Request {
        init_image: Some(drawn[0].clone().into()),
        strength: Some(0.6),
        ..request.clone()
    };
    show(&pipeline.generate(&again)?, lesson, "again.png")?;

    // 10. Painting in: what is black in the mask is known, and put back after every step.
    let painted = Request {
        inpaint: Some(drawn[0].clone().into()),
        mask: Some(box_in(&drawn[0])?),
        size: Some([drawn[0].height(), drawn[0].width()].into()),
        ..request.clone()
    };
    show(&pipeline.generate(&painted)?, lesson, "painted.png")?;

    // 11. Depth: a model that is shown how far everything is keeps that, and may change all else.
    if let Some(depth) = &lesson.depth {
        let pipeline = Pipeline::load(depth, &device)?;
        let kept = Request {
            init_image: Some(drawn[0].clone().into()),
            depth: Some(box_in(&drawn[0])?),
            strength: Some(0.9),
            ..request.clone()
        };
        show(&pipeline.generate(&kept)?, lesson, "depth.png")?;
    }

    Ok(Outcome {
        pieces,
        by_hand: difference(&by_hand[0], &drawn[0]),
    })
}

/// A prompt's pieces, without what begins and ends it.
fn pieces(tokenizer: &ClipTokenizer, prompt: &str) -> Result<Vec<String>> {
    let [start, end, _] = tokenizer.special_ids();
    let ids = tokenizer.encode(prompt)?;
    let own = ids
        .into_iter()
        .skip_while(|id| *id == start)
        .take_while(|id| *id != end);
    Ok(own.filter_map(|id| tokenizer.piece(id)).collect())
}

/// A picture as networks take it: `[1, 3, height, width]` in -1..1.
fn tensor(picture: &Picture) -> Tensor<4> {
    let shape = [1, picture.channels().count(), picture.height(), picture.width()];
    Tensor::from_data(TensorData::new(picture.to_chw(), shape), &default_device())
}

/// A mask or depths of a picture's size: the middle white, the rest black.
fn box_in(picture: &Picture) -> Result<ImageInput> {
    let (height, width) = (picture.height(), picture.width());
    let middle = |at: usize, side: usize| (side / 4..side - side / 4).contains(&at);
    let white = |at: usize| middle(at / width, height) && middle(at % width, width);
    let pixels = (0..height * width)
        .map(|at| if white(at) { 255 } else { 0 })
        .collect();
    Ok(Picture::new(height, width, Channels::Grey, pixels)?.into())
}

/// By how much two pictures differ where they differ most.
fn difference(a: &Picture, b: &Picture) -> u8 {
    let pairs = a.pixels().iter().zip(b.pixels());
    pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
}

/// The noise schedule, and the steps down it.
#[cfg(feature = "plot")]
fn plot(scheduler: &langevin::schedulers::AnyScheduler, lesson: &Lesson) -> Result<()> {
    use langevin::plot::{ScheduleCurves, schedule_plot};
    let curves = ScheduleCurves::of(scheduler)?;
    schedule_plot(
        lesson.folder.join("schedule.png"),
        &curves,
        scheduler.class_name(),
    )
}

#[cfg(not(feature = "plot"))]
fn plot(_: &langevin::schedulers::AnyScheduler, _: &Lesson) -> Result<()> {
    Ok(())
}

/// Writes pictures side by side.
fn show(pictures: &[Picture], lesson: &Lesson, name: &str) -> Result<()> {
    let row = grid::side_by_side(pictures, pictures.len())?;
    let path: &Path = &lesson.folder;
    grid::write_png(path.join(name), &row, &[])
}
