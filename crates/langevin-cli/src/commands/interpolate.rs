//! `langevin interpolate`.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use burn::tensor::Tensor;
use clap::Args;
use langevin::{
    Request,
    codec::Codec,
    data::{
        is_picture_name, read_picture,
        sound::{Sound, SoundReader, is_sound_name},
    },
    device::DeviceName,
    grid,
    guidance::ClassifierFree,
    ops::in_pool,
    options::ClassName,
    pipelines::{Pipeline, slerp, to_pictures},
    random::Generator,
};

use super::{sample::is_written_sound, walk::Way};
use crate::{flags::Options, hub, stop::Stop, terminal};

/// What `--help` begins with.
pub(crate) const LONG_ABOUT: &str = "\
Draw what lies between two pictures, or between two seeds.

Pictures are inverted to the noise that they come from, seeds are noise; the way from one to the other is an arc (slerp), and \
what is drawn along it becomes a row of pictures, or an animation that goes there and back.";

const EXAMPLES: &str = "\
Examples:
  langevin interpolate runs/digits-1 1 2 --class 3
  langevin interpolate my-model cat.png dog.png --frames 24 --output between.gif
  langevin interpolate runs/tones-1 organ.wav bell.wav --frames 5 --output between.wav";

/// How long a frame of the animation stays.
const FRAME_MS: u32 = 80;

/// What the user typed.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InterpolateArgs {
    /// The run or pipeline, or ORG/NAME of the Hugging Face Hub
    pub path: PathBuf,
    /// A picture, a sound of which the beginning is taken, or a seed
    #[arg(value_name = "FILE OR SEED")]
    pub from: String,
    /// Another
    #[arg(value_name = "FILE OR SEED")]
    pub to: String,
    /// Pictures on the way, both ends included
    #[arg(long, value_name = "N", default_value_t = 9)]
    pub frames: usize,
    /// What they show [the null class]
    #[arg(long, value_name = "CLASS")]
    pub class: Option<ClassName>,
    /// A text about them, for a model that looks at texts [the empty text]
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// Steps
    #[arg(long, value_name = "N", default_value_t = langevin::pipelines::USUAL_DDIM_STEPS)]
    pub steps: usize,
    /// A picture's name for a row of pictures, .gif for an animation, .wav or .flac for sounds one after another
    #[arg(long, short, value_name = "FILE", default_value = "between.png")]
    pub output: PathBuf,
    /// Where to compute: cpu, or vulkan, vulkan:N, wgpu, wgpu:N, metal, cuda, cuda:N where they are built in
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceName::CPU)]
    pub device: DeviceName,
    #[command(flatten)]
    pub guidance: Options<ClassifierFree>,
}

/// Draws along the way.
pub(crate) fn run(args: InterpolateArgs) -> Result<()> {
    if args.frames < 2 {
        bail!("--frames is {}; both ends make 2", args.frames);
    }
    let sounds = is_written_sound(&args.output);
    if !is_picture_name(&args.output) && !sounds {
        bail!(
            "--output {}: the name must end as a picture's, in .gif, or of sounds in .wav or .flac",
            args.output.display()
        );
    }
    let pipeline = Pipeline::load(hub::pipeline(&args.path)?, &args.device.open()?)?;
    if sounds && pipeline.mel().is_none() {
        bail!(
            "--output {}: a {} draws pictures, and no sounds",
            args.output.display(),
            pipeline.class().name
        );
    }
    let request = Request {
        class: args.class.iter().cloned().collect(),
        prompt: args.prompt.iter().cloned().collect(),
        guidance: args.guidance.0,
        ..Request::default()
    };
    let ends = [&args.from, &args.to].map(|end| End::read(end, &pipeline));
    let stop = Stop::on_signals()?;
    let way = Way::new(&pipeline, args.steps, &stop);
    let pictures = in_pool(|| -> Result<_> {
        let [from, to] = ends.map(|end| match end? {
            End::Noise(noise) => Ok(noise),
            End::Picture(picture) => way.invert(&request, way.encode(picture)?, 0),
        });
        let (from, to) = (from?, to?);
        let between = (0..args.frames)
            .map(|frame| slerp(&from, &to, frame as f64 / (args.frames - 1) as f64))
            .collect::<langevin::Result<Vec<_>>>()?;
        let drawn = way.draw(&request, &Tensor::cat(between, 0), 0, None)?;
        Ok(to_pictures(&way.decode(drawn)?)?)
    })?;
    if let Some(mel) = pipeline.mel().filter(|_| sounds) {
        // One after another, with the spectrograms beside.
        let all = in_pool(|| langevin::generate::sounds(mel, &pictures, 0))?;
        let samples = all.into_iter().flat_map(|sound| sound.samples).collect();
        let sound = Sound {
            rate: mel.config().sample_rate,
            samples,
        };
        sound.write(&args.output)?;
        let row = grid::side_by_side(&pictures, pictures.len())?;
        grid::write_png(args.output.with_extension("png"), &row, &[])?;
    } else if is_gif(&args.output) {
        // There and back, so that it can go round.
        let back = (1..pictures.len() - 1).rev();
        let frames = (0..pictures.len())
            .chain(back)
            .map(|frame| grid::side_by_side(&pictures[frame..=frame], 1));
        let frames = frames.collect::<langevin::Result<Vec<_>>>()?;
        grid::write_gif(&args.output, &frames, FRAME_MS, FRAME_MS)?;
    } else {
        grid::write_picture(&args.output, &grid::side_by_side(&pictures, pictures.len())?, &[])?;
    }
    terminal::print_line(&format!(
        "{} {} in {}",
        pictures.len(),
        if sounds { "sounds" } else { "pictures" },
        args.output.display()
    ))?;
    Ok(())
}

fn is_gif(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gif"))
}

/// Where the way begins or ends; both `[1, channels, height, width]`.
enum End {
    Noise(Tensor<4>),
    Picture(Tensor<4>),
}

impl End {
    /// Reads a seed, or the picture of that name.
    fn read(text: &str, pipeline: &Pipeline) -> Result<Self> {
        let maker = pipeline.guide_maker()?;
        if let Ok(seed) = text.parse() {
            let [channels, height, width] = pipeline.codec().latent_shape(maker.size);
            let shape = [1, channels, height, width];
            return Ok(Self::Noise(
                Generator::new(seed).randn_tensor(shape, &maker.device),
            ));
        }
        let picture = match pipeline.mel() {
            Some(mel) if is_sound_name(text) => {
                let mut reader = SoundReader::open(text, Some(mel.config().sample_rate))?;
                mel.picture(&reader.read(0, mel.slice_samples())?)?
            }
            _ => read_picture(text)?,
        };
        Ok(Self::Picture(maker.picture(&picture)?))
    }
}
