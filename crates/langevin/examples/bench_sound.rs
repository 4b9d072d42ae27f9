//! How long a sound takes to its spectrogram and back, for `benches/compare_librosa.py`.
//!
//! ```sh
//! cargo run --release --example bench_sound -- SOUND.wav [ROUNDS]
//! ```

use std::{hint::black_box, time::Instant};

use langevin::{
    Result,
    codec::{Mel, MelConfig},
    data::sound::Sound,
    random::Generator,
};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let file = args.next().unwrap_or_else(|| "sound.wav".into());
    let rounds: usize = args.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(9);
    let mel = Mel::new(MelConfig::default())?;
    let sound = Sound::read(file, Some(mel.config().sample_rate), 600.0)?;
    let slice = mel.slice(&sound.samples, 0);
    let picture = mel.picture(slice)?;
    let milliseconds = |work: &dyn Fn() -> Result<()>| -> Result<f64> {
        let mut all = Vec::with_capacity(rounds);
        work()?;
        for _ in 0..rounds {
            let start = Instant::now();
            work()?;
            all.push(1e3 * start.elapsed().as_secs_f64());
        }
        all.sort_by(f64::total_cmp);
        Ok(all[rounds / 2])
    };
    let forward = milliseconds(&|| mel.picture(slice).map(|picture| drop(black_box(picture))))?;
    let inverse = milliseconds(&|| {
        mel.sound(&picture, &mut Generator::new(0))
            .map(|sound| drop(black_box(sound)))
    })?;
    println!("{{\"forward\": {forward:.3}, \"inverse\": {inverse:.3}}}");
    Ok(())
}
