//! The flags of guidance, which several commands have.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use langevin::{
    guidance::{
        ClassifierFree, ClipLoss, GuidanceSchedule, Guide, GuideMaker, Interval, LossGuidance, Through,
    },
    models::clip::ClipModel,
    pipelines::AnyPipeline,
    random::Generator,
};

use crate::hub;

/// Classifier-free guidance, as it is typed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Guidance")]
pub struct ClassifierFreeArgs {
    /// How many times as far towards the class as the model goes by itself: 1 is no guidance, 3 is much
    #[arg(
        long,
        value_name = "SCALE",
        default_value_t = 1.0,
        allow_negative_numbers = true
    )]
    pub guidance_scale: f64,
    /// How much of the unguided contrast is given back, 0 to 1
    #[arg(long, value_name = "PART", default_value_t = 0.0)]
    pub guidance_rescale: f64,
    /// The timesteps to guide at, such as 200:800, or fractions of the schedule, such as 0.2:0.8 [all]
    #[arg(long, value_name = "LOW:HIGH")]
    pub guidance_interval: Option<Interval>,
}

impl ClassifierFreeArgs {
    /// What the flags mean.
    pub fn resolve(&self) -> Result<ClassifierFree> {
        let guidance = ClassifierFree {
            scale: self.guidance_scale,
            rescale: self.guidance_rescale,
            interval: self.guidance_interval,
        };
        for (flag, given) in [
            ("--guidance-rescale", guidance.rescale != 0.0),
            ("--guidance-interval", guidance.interval.is_some()),
        ] {
            if given && !guidance.is_on() {
                bail!("{flag} does nothing without guidance: add --guidance-scale");
            }
        }
        Ok(guidance)
    }
}

/// Guidance by losses, as it is typed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Guidance")]
pub struct LossArgs {
    /// Lead every step by a loss: colour:#1AE680, brightness:0.8, symmetry, picture:FILE, known:FILE, clip:TEXT,
    /// clip-picture:FILE; several add up, and @ sets a scale, as in symmetry@10
    #[arg(long, value_name = "GUIDE")]
    pub guide: Vec<Guide>,
    /// What its gradient goes through: the predicted clean picture alone, or the model too, which costs three times as much
    #[arg(long, value_name = "WHAT", default_value_t = Through::Clean)]
    pub guide_through: Through,
    /// How its scale changes: constant, or with the signal, its root, or the noise's root
    #[arg(long, value_name = "NAME", default_value_t = GuidanceSchedule::Signal)]
    pub guide_schedule: GuidanceSchedule,
    /// The most that a step may move a picture, as a Euclidean norm [no bound]
    #[arg(long, value_name = "NORM")]
    pub guide_clip: Option<f64>,
    /// What is to be painted of --guide known's picture (white), and what is known (black)
    #[arg(long, value_name = "PICTURE")]
    pub mask: Option<PathBuf>,
    /// The CLIP model of --guide clip and clip-picture: a folder of transformers', an open_clip checkpoint, or a name of the Hub
    #[arg(long, value_name = "FOLDER")]
    pub clip: Option<PathBuf>,
    /// Random cut-outs that CLIP looks at in each step; 0 for the whole picture
    #[arg(long, value_name = "N", default_value_t = ClipLoss::USUAL_CUTS)]
    pub cuts: usize,
}

impl LossArgs {
    /// Whether there is anything to be guided by.
    pub fn is_given(&self) -> bool {
        !self.guide.is_empty()
    }

    /// Refuses what would do nothing or cannot be; `clip_is_used` where something else needs CLIP too.
    pub fn check(&self, clip_is_used: bool) -> Result<()> {
        if let Some(norm) = self.guide_clip.filter(|norm| norm.is_nan() || *norm <= 0.0) {
            bail!("--guide-clip is {norm}; it must be above 0");
        }
        let settings = [
            ("--guide-through", self.guide_through != Through::default()),
            (
                "--guide-schedule",
                self.guide_schedule != GuidanceSchedule::Signal,
            ),
            ("--clip", self.clip.is_some() && !clip_is_used),
            ("--guide-clip", self.guide_clip.is_some()),
        ];
        match settings.iter().find(|(_, given)| *given) {
            Some((flag, _)) if !self.is_given() => bail!("{flag} does nothing without --guide"),
            _ => Ok(()),
        }
    }

    /// What guides and pictures are made with for a pipeline.
    pub fn maker(&self, pipeline: &AnyPipeline) -> Result<GuideMaker> {
        let maker = pipeline.guide_maker()?;
        let load =
            |path: &PathBuf| -> Result<ClipModel> { Ok(ClipModel::load(hub::model(path)?, &maker.device)?) };
        Ok(GuideMaker {
            mask: self.mask.clone(),
            clip: self.clip.as_ref().map(load).transpose()?,
            cuts: self.cuts,
            ..maker
        })
    }

    /// The guidance by these guides.
    pub fn make(&self, maker: &GuideMaker, seed: u64) -> Result<LossGuidance> {
        let mut guidance = LossGuidance::new(self.guide_through)
            .with_schedule(self.guide_schedule)
            .with_generator(Generator::new(seed));
        if let Some(norm) = self.guide_clip {
            guidance = guidance.with_max_norm(norm);
        }
        for guide in &self.guide {
            guidance = guidance.with(maker.make(guide)?, guide.scale);
        }
        Ok(guidance)
    }
}
