//! `langevin sample`.

mod animation;
mod args;
mod draw;
mod output;

use std::path::Path;

use anyhow::{Result, bail};
use burn::tensor::{Tensor, TensorData};
use langevin::{
    data::read_picture,
    grid,
    guidance::GuideMaker,
    models::{PictureEncoder, PictureVector},
    ops::{in_pool, set_exact_convolution},
    pipelines::{ConditioningImage, Pipeline, Sampling},
};

pub use args::{LONG_ABOUT, SampleArgs};
pub use output::Output;

use self::{
    animation::Animation,
    draw::{Begin, Drawing, draw},
};
use crate::{hub, stop::Stop, terminal};

/// Draws pictures and writes them.
pub fn run(args: SampleArgs) -> Result<()> {
    set_exact_convolution(args.exact_convolution);
    // Everything that can be wrong is found out before the first step.
    let output = Output::of(&args.output, args.overwrite)?;
    let mut animation = args.animate.as_deref().map(Animation::of).transpose()?;
    let drawing = resolve(&args)?;
    let stop = Stop::on_signals()?;
    terminal::say(&drawing.to_string());
    let pictures = in_pool(|| draw(&drawing, &stop, animation.as_mut()))?;
    output.write(&pictures, &drawing.facts())?;
    if let Some(animation) = animation {
        animation.write(grid::columns(pictures.len()))?;
    }
    let what = if pictures.len() == 1 {
        "1 picture".into()
    } else {
        format!("{} pictures", pictures.len())
    };
    terminal::print(&format!("{what} in {}", args.output.display()))?;
    if let Some(path) = &args.animate {
        terminal::print(&format!("animation in {}", path.display()))?;
    }
    Ok(())
}

/// What the flags mean for the pipeline at hand.
fn resolve(args: &SampleArgs) -> Result<Drawing> {
    let mut pipeline = Pipeline::load(hub::pipeline(&args.path)?, &args.device.open()?)?;
    if let Some(name) = &args.scheduler {
        pipeline = pipeline.with_scheduler(name)?;
    }
    if args.eta.is_some() && !pipeline.scheduler.takes_eta() {
        bail!("--eta belongs to the ddim and tcd schedulers; add --scheduler ddim");
    }
    for (flag, value) in [("--count", args.count), ("--batch-size", args.batch_size)] {
        if value == 0 {
            bail!("{flag} is 0; it must be at least 1");
        }
    }
    let classes = pipeline.class_numbers(&args.class)?;
    args.losses.check(args.vector_of.is_some())?;
    let maker = args.losses.maker(&pipeline)?;
    let conditioning_image = match &args.conditioning_image {
        Some(path) => Some(conditioning_image(&maker, args, path)?),
        None => None,
    };
    let vector = vector(&pipeline, &maker, args)?;
    let begin = match (&args.init_image, &args.inpaint) {
        (Some(path), _) => Begin::Picture {
            picture: maker.picture(&read_picture(path)?)?,
            strength: args.strength.unwrap_or(Sampling::USUAL_STRENGTH),
        },
        (None, Some(path)) => {
            let (picture, mask) = maker.masked(path)?;
            Begin::Inpainting { picture, mask }
        }
        (None, None) => Begin::Noise,
    };
    let drawing = Drawing {
        model: args.path.display().to_string(),
        steps: args.steps.unwrap_or(match begin {
            Begin::Inpainting { .. } => langevin::pipelines::USUAL_DDIM_STEPS,
            _ => pipeline.default_steps(),
        }),
        count: args.count,
        batch_size: args.batch_size,
        seed: args.seed,
        eta: args.eta,
        negative: match &args.negative_class {
            Some(class) => pipeline
                .class_numbers(std::slice::from_ref(class))?
                .first()
                .copied(),
            None => None,
        },
        classes,
        prompts: args.prompt.clone(),
        negative_prompt: args.negative_prompt.clone(),
        conditioning_image,
        vector,
        guidance: args.guidance.resolve()?,
        losses: args.losses.clone(),
        maker,
        begin,
        pipeline,
    };
    drawing.check()?;
    Ok(drawing)
}

/// The picture that the model is shown, and the mask where it is shown one.
fn conditioning_image(maker: &GuideMaker, args: &SampleArgs, path: &Path) -> Result<ConditioningImage> {
    let (picture, mask) = if args.losses.mask.is_some() {
        let (picture, known) = maker.masked(&path.to_path_buf())?;
        (picture, Some(known * -1.0 + 1.0))
    } else {
        (maker.picture(&read_picture(path)?)?, None)
    };
    Ok(ConditioningImage {
        picture,
        mask,
        as_is: args.conditioning_as_is,
    })
}

/// The vector that the model is told.
fn vector(pipeline: &Pipeline, maker: &GuideMaker, args: &SampleArgs) -> Result<Option<Tensor<2>>> {
    let Some(path) = &args.vector_of else {
        let numbers = args.vector.len();
        let data = TensorData::new(args.vector.clone(), [1, numbers]);
        return Ok((numbers > 0).then(|| Tensor::from_data(data, &maker.device)));
    };
    let Some(kind) = pipeline.model.config().picture_vector() else {
        bail!(
            "--vector-of: the model is told no vector of a picture; one trained with --conditioning vector is"
        );
    };
    if kind == PictureVector::Clip && maker.clip.is_none() {
        bail!("--vector-of: the model is told CLIP's embedding; name the same model with --clip");
    }
    let encoder = PictureEncoder::new(kind, maker.clip.clone())?;
    Ok(Some(encoder.encode(&maker.picture(&read_picture(path)?)?)?))
}
