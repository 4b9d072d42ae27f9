//! Sounds and their spectrograms against what librosa and diffusers made of them: every case in the reference folder's `audio`.

mod support;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use burn::tensor::Tensor;
use langevin::{
    Request,
    codec::{Codec, Mel, MelConfig},
    data::{
        Channels, Picture, read_picture,
        sound::{Resampler, Sound, SoundInput},
    },
    device::default_device,
    generate::Plan,
    ops::in_pool,
    pipelines::{Pipeline, SampleOptions, slerp, to_pictures},
    random::Generator,
};
use serde_json::Value;
use support::{Outcome, Report, Stored, reference, within};

type Checked<T> = Result<T, String>;
type Tensors = BTreeMap<String, Stored>;

fn said(error: langevin::Error) -> String {
    error.to_string()
}

/// The cases of a folder that have this file.
fn cases(folder: &str, file: &str) -> Vec<PathBuf> {
    let all = support::folders(Path::new("audio").join(folder));
    all.into_iter().filter(|case| case.join(file).is_file()).collect()
}

fn name(case: &Path) -> String {
    case.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// The configuration that a case states, which may leave out what it does not need.
fn mel(value: &Value) -> Checked<Mel> {
    let config: MelConfig = serde_json::from_value(value.clone()).map_err(|e| e.to_string())?;
    Mel::new(config).map_err(said)
}

fn read(file: &str, rate: u32) -> Checked<Sound> {
    Sound::read(reference().join(file), Some(rate), 600.0).map_err(said)
}

#[test]
fn spectrograms_are_diffusers_to_the_byte() {
    let mut report = Report::new();
    for case in cases("mel", "case.json") {
        report.case(&name(&case), spectrograms(&case));
    }
    report.finish();
}

fn spectrograms(folder: &Path) -> Checked<Outcome> {
    let case = support::read_json(folder.join("case.json"));
    let expected = support::read_tensors(folder.join("expected.safetensors"));
    let mel = mel(&case["mel"])?;
    let config = mel.config().clone();
    // The configuration by itself, as diffusers writes it.
    let written = folder.with_file_name(format!(
        "{}.config",
        name(folder).split('.').next().unwrap_or_default()
    ));
    if written.is_dir() && MelConfig::load(&written).map_err(said)? != config {
        return Err("mel_config.json says something else".into());
    }
    let sound = read(case["file"].as_str().ok_or("names no file")?, config.sample_rate)?;
    let same = |what: &str, found: usize| match case[what].as_u64() == Some(found as u64) {
        true => Ok(()),
        false => Err(format!("{what} is {found}, and should be {}", case[what])),
    };
    same("slice_size", mel.slice_samples())?;
    same("number_of_slices", mel.slices(sound.samples.len()))?;
    let mut compared = 0;
    for (key, image) in &expected {
        let Some(number) = key.strip_prefix("image.") else {
            continue;
        };
        let number: usize = number.parse().map_err(|_| format!("{key} is no slice"))?;
        let slice = mel.slice(&sound.samples, number);
        let picture = mel.picture(slice).map_err(said)?;
        compared += 1;
        if [picture.height(), picture.width()] != image.shape[..] {
            return Err(format!("{key} is of {picture:?}"));
        }
        let expected_bytes = image.integers.iter().zip(picture.pixels());
        let differing: Vec<(usize, i64)> = expected_bytes
            .enumerate()
            .filter(|(_, (a, b))| **a != i64::from(**b))
            .map(|(place, (a, b))| (place, a - i64::from(*b)))
            .collect();
        // Where a value lies next to a step, either byte is right.
        let powers = powers(&mel, slice);
        let doubtful = differing
            .iter()
            .all(|(place, by)| by.abs() == 1 && next_to_a_step(&config, &powers, *place));
        if !doubtful {
            return Err(format!(
                "{key} differs at {:?}",
                &differing[..differing.len().min(8)]
            ));
        }
    }
    if compared == 0 {
        return Err("has no picture".into());
    }
    let powers = powers(&mel, mel.slice(&sound.samples, 0));
    if let Some(expected) = expected.get("mel_power.0") {
        let columns = expected.shape[1];
        let found: Vec<f32> = (0..config.y_res)
            .flat_map(|band| (0..columns).map(move |frame| (band, frame)))
            .map(|(band, frame)| powers[frame * config.y_res + band] as f32)
            .collect();
        within(
            "the power",
            support::relative_difference(&found, &expected.f32()),
            1e-5,
        )?;
    }
    if let Some(expected) = expected.get("decibels.0") {
        let found: Vec<f32> = (0..config.y_res * config.x_res)
            .map(|place| decibels(&config, &powers, place) as f32)
            .collect();
        within(
            "a decibel",
            support::largest_difference(&found, &expected.f32()),
            2e-3,
        )?;
    }
    Ok(Outcome::Ran)
}

/// What the bands hold of a slice, filled up with silence.
fn powers(mel: &Mel, slice: &[f32]) -> Vec<f64> {
    let mut samples = slice.to_vec();
    samples.resize(mel.slice_samples(), 0.0);
    mel.band_strengths(&samples)
}

/// The decibels at a picture's place, from the powers `[frames, bands]`.
fn decibels(config: &MelConfig, powers: &[f64], place: usize) -> f64 {
    let decibels = |power: f64| 10.0 * power.max(1e-10).log10();
    let loudest = decibels(powers.iter().copied().fold(0.0, f64::max));
    let (band, frame) = (place / config.x_res, place % config.x_res);
    (decibels(powers[frame * config.y_res + band]) - loudest).max(-config.top_db)
}

fn next_to_a_step(config: &MelConfig, powers: &[f64], place: usize) -> bool {
    let value = (decibels(config, powers, place) + config.top_db) * 255.0 / config.top_db + 0.5;
    (value - value.round()).abs() < 0.002
}

#[test]
fn transforms_and_filters_are_librosas() {
    let mut report = Report::new();
    let stored = support::read_tensors("audio/stft.safetensors");
    report.case("stft", transform(&stored));
    let banks = stored.keys().filter_map(|key| key.strip_suffix(".row_sums"));
    for bank in banks {
        report.case(bank, filters(bank, &stored));
    }
    report.finish();
}

fn transform(stored: &Tensors) -> Checked<Outcome> {
    let (real, imaginary) = (&stored["stft.real"], &stored["stft.imag"]);
    let (bins, frames) = (real.shape[0], real.shape[1]);
    let mel = Mel::new(MelConfig {
        n_fft: 2 * (bins - 1),
        ..MelConfig::default()
    })
    .map_err(said)?;
    let sound = read("audio/signal.wav", mel.config().sample_rate)?;
    let spectra = mel.spectra(&sound.samples);
    let found: Vec<f32> = (0..2 * bins * frames)
        .map(|place| {
            let (part, place) = (place / (bins * frames), place % (bins * frames));
            let value = spectra[place % frames * bins + place / frames];
            (if part == 0 { value.re } else { value.im }) as f32
        })
        .collect();
    let expected = [real.f32(), imaginary.f32()].concat();
    within("", support::relative_difference(&found, &expected), 1e-6).map(|()| Outcome::Ran)
}

fn filters(bank: &str, stored: &Tensors) -> Checked<Outcome> {
    let numbers: Vec<usize> = bank.split('.').filter_map(|word| word.parse().ok()).collect();
    let [bands, n_fft] = numbers[..] else {
        return Err("is not named by its bands and bins".into());
    };
    let config = MelConfig {
        y_res: bands,
        n_fft,
        ..MelConfig::default()
    };
    let mel = Mel::new(config).map_err(said)?;
    let (mut rows, mut largest, mut at, mut columns) = (vec![], vec![], vec![], vec![0.0; n_fft / 2 + 1]);
    for (first, weights) in mel.filters() {
        rows.push(weights.iter().sum::<f64>() as f32);
        let most = weights.iter().copied().fold(0.0, f64::max);
        largest.push(most as f32);
        at.push((first + weights.iter().position(|weight| *weight == most).unwrap_or(0)) as f32);
        for (column, weight) in columns[first..].iter_mut().zip(weights) {
            *column += weight;
        }
    }
    let columns: Vec<f32> = columns.into_iter().map(|sum: f64| sum as f32).collect();
    for (what, found, tolerance) in [
        ("row_sums", rows, 1e-6),
        ("row_max", largest, 1e-6),
        ("row_argmax", at, 0.0),
        ("column_sums", columns, 1e-6),
    ] {
        let expected = &stored[&format!("{bank}.{what}")];
        within(
            what,
            support::relative_difference(&found, &expected.f32()),
            tolerance,
        )?;
    }
    Ok(Outcome::Ran)
}

#[test]
fn sounds_of_spectrograms_are_librosas() {
    let mut report = Report::new();
    for case in cases("inverse", "case.json") {
        report.case(&name(&case), inverse(&case));
    }
    report.finish();
}

fn inverse(folder: &Path) -> Checked<Outcome> {
    let case = support::read_json(folder.join("case.json"));
    let expected = support::read_tensors(folder.join("expected.safetensors"));
    let mel = mel(&case["mel"])?;
    let image = &expected["image"];
    let bytes = image.integers.iter().map(|&byte| byte as u8).collect();
    let picture = Picture::new(image.shape[0], image.shape[1], Channels::Grey, bytes).map_err(said)?;
    let magnitudes = mel.magnitudes(&picture).map_err(said)?;
    let (bins, frames) = (mel.config().n_fft / 2 + 1, picture.width());
    let first = &expected["magnitude_16_columns"];
    let columns = first.shape[1];
    let found: Vec<f32> = (0..bins * columns)
        .map(|place| magnitudes[place % columns * bins + place / columns])
        .collect();
    within(
        "a magnitude",
        support::relative_difference(&found, &first.f32()),
        1e-5,
    )?;
    let norm = |frame: &[f32]| frame.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt() as f32;
    let norms: Vec<f32> = magnitudes.chunks(bins).map(norm).collect();
    within(
        "a norm",
        support::relative_difference(&norms, &expected["magnitude_column_norms"].f32()),
        1e-5,
    )?;

    let phases = vec![0.0; magnitudes.len()];
    for (rounds, convergence) in case["spectral_convergence"]
        .as_object()
        .ok_or("states no convergence")?
    {
        let rounds: usize = rounds.parse().map_err(|_| "a number of rounds is none")?;
        let sound = mel.sound_of(&magnitudes, &phases, rounds);
        if case["length"].as_u64() != Some(sound.samples.len() as u64) || frames == 0 {
            return Err(format!("has {} samples", sound.samples.len()));
        }
        if rounds <= 1 {
            let stored = expected[&format!("audio.{rounds}")].f32();
            let found = &sound.samples[..stored.len()];
            within(
                &format!("round {rounds}"),
                support::relative_difference(found, &stored),
                1e-3,
            )?;
        }
        let expected = convergence.as_f64().ok_or("a convergence is no number")?;
        let found = mel.convergence(&sound.samples, &magnitudes);
        within(
            &format!("the convergence after {rounds} rounds"),
            (found / expected - 1.0).abs(),
            0.02,
        )?;
    }
    // From phases that are drawn: as far as librosa's came.
    let drawn = mel.sound(&picture, &mut Generator::new(0)).map_err(said)?;
    let found = mel.convergence(&drawn.samples, &magnitudes);
    let others: Vec<f64> = case["random_phase_32_rounds"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_f64)
        .collect();
    let mean = others.iter().sum::<f64>() / others.len() as f64;
    within(
        "the convergence from random phases",
        (found / mean - 1.0).abs(),
        0.15,
    )?;
    Ok(Outcome::Ran)
}

#[test]
fn pipelines_draw_diffusers_spectrograms() {
    let mut report = Report::new();
    for case in cases("pipeline", "call.json") {
        report.case(&name(&case), in_pool(|| call(&case)));
    }
    for case in cases("pipeline", "case.json") {
        report.case(&name(&case), in_pool(|| encoded(&case)));
    }
    report.finish();
}

/// The request that a call's arguments are, and what its steps' noise comes from where that is a generator of its own.
fn request(folder: &Path, call: &Value, pipeline: &Pipeline) -> Checked<(Request, Option<u64>)> {
    let device = default_device();
    let seed = |which: &str| call[which]["seed"].as_u64();
    let mut request = Request {
        count: Some(1),
        seed: seed("generator").ok_or("names no seed")?,
        ..Request::default()
    };
    for (name, value) in call["arguments"].as_object().ok_or("has no arguments")? {
        let whole = || value.as_u64().map(|value| value as usize);
        match name.as_str() {
            "batch_size" => request.count = whole(),
            "steps" => request.steps = whole(),
            "start_step" => request.sound.start_step = whole(),
            "audio_file" => {
                let path = reference().join(value.as_str().unwrap_or_default());
                request.sound.init_audio = Some(SoundInput::File(path));
            }
            "slice" => request.sound.audio_slice = whole(),
            "mask_start_secs" => request.sound.mask_start_secs = value.as_f64(),
            "mask_end_secs" => request.sound.mask_end_secs = value.as_f64(),
            "eta" => request.eta = value.as_f64(),
            other => return Err(format!("the argument `{other}` is not known to this test")),
        }
    }
    request.batch_size = request.count.unwrap_or(1);
    for (name, value) in call["inputs"].as_object().into_iter().flatten() {
        let (file, key) = value
            .as_str()
            .and_then(|text| text.split_once('#'))
            .ok_or("an input is none")?;
        let stored = support::read_tensors(folder.join(file))[key].clone();
        match name.as_str() {
            "noise" => request.latents = Some(stored.tensor(&device)),
            "encoding" => request.sound.encoding = stored.f32(),
            other => return Err(format!("the input `{other}` is not known to this test")),
        }
    }
    let steps = seed("step_generator");
    if let (Some(_), None) = (steps, &request.latents) {
        let size = pipeline.size().map_err(said)?;
        let [channels, height, width] = pipeline.codec().latent_shape(size);
        let shape = [request.batch_size, channels, height, width];
        request.latents = Some(Generator::new(request.seed).randn_tensor(shape, &device));
    }
    Ok((request, steps))
}

fn call(folder: &Path) -> Checked<Outcome> {
    let call = support::read_json(folder.join("call.json"));
    let expected = &support::read_tensors(folder.join("expected.safetensors"))["images"];
    let path = reference().join(call["model"].as_str().ok_or("names no model")?);
    let pipeline = Pipeline::load(path, &default_device()).map_err(said)?;
    if call["pipeline"] != pipeline.class().name {
        return Err(format!("is loaded as a {}", pipeline.class().name));
    }
    let (request, steps) = request(folder, &call, &pipeline)?;
    let plan = Plan::of(&pipeline, &request).map_err(said)?;
    let mut generator = Generator::new(steps.unwrap_or(request.seed));
    let sampling = plan
        .batch(&pipeline, 0..plan.count(), &mut generator)
        .map_err(said)?;
    let samples = sampling.finish().map_err(said)?;
    let (pictures, _) = plan.pictures(&pipeline, samples).map_err(said)?;
    let sounds = plan.sounds(&pipeline, &pictures).map_err(said)?;
    let length = call["audio_shape"][2].as_u64();
    if let Some(sound) = sounds
        .iter()
        .find(|sound| Some(sound.samples.len() as u64) != length)
    {
        return Err(format!(
            "draws a sound of {} samples, and diffusers {}",
            sound.samples.len(),
            call["audio_shape"]
        ));
    }
    let found: Vec<f32> = pictures
        .iter()
        .flat_map(|picture| picture.pixels())
        .map(|&byte| f32::from(byte))
        .collect();
    within(
        "a byte",
        support::largest_difference(&found, &expected.f32()),
        1.0,
    )
    .map(|()| Outcome::Ran)
}

/// The class's helpers: noise that draws a picture again, and what lies between two of it.
fn encoded(folder: &Path) -> Checked<Outcome> {
    let device = default_device();
    let case = support::read_json(folder.join("case.json"));
    let expected = support::read_tensors(folder.join("expected.safetensors"));
    let path = |key: &str| {
        case[key]
            .as_str()
            .map(|path| reference().join(path))
            .ok_or(format!("names no {key}"))
    };
    let pipeline = Pipeline::load(path("model")?, &device).map_err(said)?;
    let picture = read_picture(path("image")?).map_err(said)?;
    let shape = [1, 1, picture.height(), picture.width()];
    let tensor = Tensor::from_data(burn::tensor::TensorData::new(picture.to_chw(), shape), &device);
    let options = SampleOptions {
        num_inference_steps: case["steps"].as_u64().map(|steps| steps as usize),
        ..SampleOptions::default()
    };
    let inverse = pipeline.inverse().map_err(said)?;
    let mut unused = Generator::new(0);
    let found = inverse
        .sample(&options, &mut unused)
        .and_then(|sampling| sampling.starting_at(tensor, 0))
        .and_then(|sampling| sampling.finish())
        .map_err(said)?;
    let stored = expected["encoded"].f32();
    within(
        "the noise",
        support::relative_difference(&support::values(found.clone()), &stored),
        1e-3,
    )?;
    to_pictures(&found).map_err(said)?;
    let (a, b) = (
        expected["a"].tensor::<4>(&device),
        expected["b"].tensor::<4>(&device),
    );
    for (key, stored) in &expected {
        let Some(part) = key.strip_prefix("slerp.") else {
            continue;
        };
        let part: f64 = part.parse().map_err(|_| format!("{key} is no part"))?;
        let between = slerp(&a, &b, part).map_err(said)?;
        within(
            key,
            support::relative_difference(&support::values(between), &stored.f32()),
            1e-5,
        )?;
    }
    Ok(Outcome::Ran)
}

/// The names that pipelines of before diffusers 0.25 have for their parts, whose module is gone there.
#[test]
fn an_index_of_a_module_that_is_gone_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = Pipeline::load(reference().join("audio/pipeline/models/ddim"), &default_device()).unwrap();
    pipeline.save(folder.path()).unwrap();
    let index = folder.path().join("model_index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    assert!(text.contains("\"Mel\""), "{text}");
    let mut value: Value = serde_json::from_str(&text).unwrap();
    value["mel"] = serde_json::json!(["audio_diffusion", "Mel"]);
    value["vqvae"] = serde_json::json!([null, null]);
    std::fs::write(&index, value.to_string()).unwrap();
    let again = Pipeline::load(folder.path(), &default_device()).unwrap();
    assert_eq!(again.class().name, "AudioDiffusionPipeline");
    assert_eq!(again.mel().unwrap().config(), pipeline.mel().unwrap().config());
    // A spectrogram of other bands than the model draws is none of its.
    std::fs::write(
        folder.path().join("mel/mel_config.json"),
        r#"{"x_res": 64, "y_res": 32}"#,
    )
    .unwrap();
    let message = Pipeline::load(folder.path(), &default_device())
        .unwrap_err()
        .to_string();
    assert!(message.contains("32 bands"), "{message}");
}

/// Another rate's samples agree with those of a resampler of the same kind as far as both pass bands go.
#[test]
fn other_rates_are_close_to_soxrs() {
    let case = support::read_json("audio/resample/case.json");
    let expected = support::read_tensors("audio/resample/expected.safetensors");
    let rate = |key: &str| case[key].as_u64().unwrap() as u32;
    let sound = read(case["file"].as_str().unwrap(), rate("to")).unwrap();
    let soxr = expected["soxr_hq"].f32();
    assert_eq!(sound.samples.len(), soxr.len());
    assert_eq!(
        Resampler::new(rate("from"), rate("to")).count(2 * soxr.len() as u64),
        soxr.len() as u64
    );
    let rms = |of: &dyn Fn(usize) -> f32| {
        let sum: f64 = (0..soxr.len()).map(|i| f64::from(of(i)).powi(2)).sum();
        (sum / soxr.len() as f64).sqrt()
    };
    let difference = rms(&|i| sound.samples[i] - soxr[i]);
    println!(
        "resampled: rms difference to soxr_hq {difference:.2e}, of {:.3}",
        rms(&|i| soxr[i])
    );
    let others = case["rms_difference_to_soxr_hq"].as_object().unwrap();
    let best = others
        .iter()
        .filter(|(name, _)| *name != "soxr_hq")
        .filter_map(|(_, value)| value.as_f64());
    assert!(difference < best.fold(f64::INFINITY, f64::min), "{difference}");
}
