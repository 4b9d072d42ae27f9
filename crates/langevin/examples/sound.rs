//! The course's last notebook, "Diffusion for audio": a mel spectrogram is a picture, so a model of pictures learns sounds.
//!
//! ```sh
//! cargo run --release --example sound -- [SOUNDS] [STEPS] [FOLDER]
//! ```
//!
//! SOUNDS is a folder of sounds, the tones of this repository by default; FOLDER is where what it makes goes. `docs/sound.md` walks
//! through it.

// Tests call it as a module.
#![allow(unreachable_pub)]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use langevin::{
    Error, Request, Result,
    codec::{Mel, MelConfig},
    data::{
        self, Channels, Medium, OpenOptions,
        sound::{Sound, SoundInput},
    },
    device::default_device,
    grid,
    pipelines::Pipeline,
    random::Generator,
    training::{DataCodec, ModelSource, Silent, Trainer, TrainingConfig},
};

/// What may be chosen.
pub struct Lesson {
    /// A folder of sounds.
    pub sounds: PathBuf,
    /// Bands and columns of a spectrogram.
    pub resolution: usize,
    /// The model, a preset or a configuration.
    pub model: ModelSource,
    /// Steps of training.
    pub steps: usize,
    /// Steps of drawing.
    pub drawing: usize,
    /// Where everything is written.
    pub folder: PathBuf,
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let tones = concat!(env!("CARGO_MANIFEST_DIR"), "/../../datasets/tones");
    let lesson = Lesson {
        sounds: args.next().unwrap_or_else(|| tones.into()).into(),
        resolution: 64,
        model: "tones".to_string().into(),
        steps: args.next().and_then(|steps| steps.parse().ok()).unwrap_or(600),
        drawing: 50,
        folder: args.next().unwrap_or_else(|| "sound".into()).into(),
    };
    run(&lesson).map(|_| ())
}

/// What came out.
pub struct Outcome {
    /// How long each drawn sound is, in seconds: a usual one, a longer one, a varied one, and one that goes on.
    pub seconds: [f64; 4],
    /// The loss at the end.
    pub loss: f64,
}

/// The whole lesson.
///
/// # Errors
/// If the sounds cannot be read, or a file cannot be written.
pub fn run(lesson: &Lesson) -> Result<Outcome> {
    // 1. From a sound to its spectrogram and back. A slice is as long as the picture is wide.
    let (rate, n_fft, hop) = (11_025, 1024, 256);
    let mel = Mel::new(MelConfig {
        x_res: lesson.resolution,
        y_res: lesson.resolution,
        sample_rate: rate,
        n_fft,
        hop_length: hop,
        ..MelConfig::default()
    })?;
    let options = OpenOptions {
        medium: Medium::Sounds(Arc::new(mel.clone())),
        ..OpenOptions::default()
    };
    let dataset = data::open_with(&lesson.sounds.display().to_string(), &options)?;
    println!(
        "{}: {} slices of {:.2} s",
        dataset.description(),
        dataset.len(),
        mel.seconds(lesson.resolution)
    );
    let example = dataset.get(0)?;
    let file = |name: &str| lesson.folder.join(name);
    grid::write_png(file("spectrogram.png"), &example.picture, &[])?;
    // Griffin and Lim find phases for it; how loud it was is lost.
    let again = mel.sound(&example.picture, &mut Generator::new(0))?.normalized();
    again.write(file("again.wav"))?;

    // 2. Train. Nothing of the trainer knows of sounds: the data set gives it pictures, cut anywhere, anew in every epoch.
    let config = TrainingConfig {
        train_data_dir: Some(lesson.sounds.clone()),
        codec: Some(DataCodec::Mel.into()),
        sample_rate: Some(rate),
        n_fft: Some(n_fft),
        hop_length: Some(hop),
        model: lesson.model.clone(),
        resolution: lesson.resolution,
        channels: Channels::Grey,
        output_dir: Some(file("run")),
        overwrite_output_dir: true,
        max_train_steps: Some(lesson.steps),
        learning_rate: 1e-3,
        lr_warmup_steps: 50.min(lesson.steps),
        save_images_epochs: 0,
        save_model_epochs: 0,
        checkpointing_steps: 0,
        eval_batch_size: 4,
        ddpm_num_inference_steps: lesson.drawing,
        ..TrainingConfig::script()
    };
    let outcome = Trainer::new(config, &default_device())?.run(&mut Silent)?;
    let loss = outcome.final_loss.unwrap_or(f64::NAN);
    println!(
        "{} steps in {:.0} s, loss {loss:.4}",
        outcome.steps, outcome.seconds
    );

    // 3. Draw a new sound.
    let pipeline = Pipeline::load(file("run"), &default_device())?.with_scheduler("ddim")?;
    let request = Request {
        steps: Some(lesson.drawing),
        ..Request::default()
    };
    let drawn = draw(&pipeline, &request, &file("drawn.wav"))?;
    // 4. A longer one: the noise is wider, and the model goes along it.
    let mut longer = request.clone();
    longer.sound.seconds = Some(2.5 * drawn.seconds());
    let longer = draw(&pipeline, &longer, &file("longer.wav"))?;
    // 5. Begin with a sound that is there.
    let mut varied = request.clone();
    varied.sound.init_audio = Some(SoundInput::from(again.clone()));
    varied.strength = Some(0.5);
    let varied = draw(&pipeline, &varied, &file("varied.wav"))?;
    // 6. Go on from it: its end stays as it is while the rest is drawn.
    let mut continued = request;
    continued.sound.continue_audio = Some(SoundInput::from(again));
    let continued = draw(&pipeline, &continued, &file("continued.wav"))?;
    Ok(Outcome {
        seconds: [&drawn, &longer, &varied, &continued].map(Sound::seconds),
        loss,
    })
}

/// Draws a sound into a file, with its spectrogram beside it.
fn draw(pipeline: &Pipeline, request: &Request, path: &Path) -> Result<Sound> {
    let drawn = pipeline.generate_sounds(request)?.into_iter().next();
    let (sound, picture) = drawn.ok_or_else(|| Error::Config("nothing was drawn".into()))?;
    sound.write(path)?;
    grid::write_png(path.with_extension("png"), &picture, &[])?;
    println!("{}: {:.2} s", path.display(), sound.seconds());
    Ok(sound)
}
