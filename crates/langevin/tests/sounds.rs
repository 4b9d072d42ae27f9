//! Sounds in files and data sets: what is read of every kind, and what is said of what cannot be.

mod support;

use std::{fs, path::Path, sync::Arc};

use langevin::{
    codec::{Mel, MelConfig},
    data::{
        self, Channels, Crop, Dataset, Loader, LoaderConfig, Medium, OpenOptions, Transform,
        sound::{Sound, SoundReader},
    },
};

/// A small spectrogram: 0.37 s in 16 columns of 16 bands.
fn mel() -> Mel {
    Mel::new(MelConfig {
        x_res: 16,
        y_res: 16,
        ..MelConfig::default()
    })
    .unwrap()
}

fn heard() -> OpenOptions {
    OpenOptions {
        medium: Medium::Sounds(Arc::new(mel())),
        ..OpenOptions::default()
    }
}

fn open(folder: &Path) -> Result<Box<dyn Dataset>, String> {
    data::open_with(folder.to_str().unwrap(), &heard()).map_err(|error| error.to_string())
}

fn tone(hertz: f64, seconds: f64) -> Sound {
    let rate = 22_050;
    let turn = std::f64::consts::TAU * hertz / f64::from(rate);
    let count = (seconds * f64::from(rate)) as usize;
    Sound {
        rate,
        samples: (0..count)
            .map(|i| (0.5 * (turn * i as f64).sin()) as f32)
            .collect(),
    }
}

/// Every kind of file gives what another decoder gives, as a whole and where a part of it is asked for.
#[cfg(feature = "sound")]
#[test]
fn packed_files_are_read_as_others_read_them() {
    let folder = support::reference().join("sounds");
    let mut found = 0;
    for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
        let expected = format!("{}.wav", entry.display());
        if !Path::new(&expected).is_file() {
            continue;
        }
        found += 1;
        let expected = Sound::read(&expected, None, 60.0).unwrap();
        let name = entry.file_name().unwrap().to_string_lossy().into_owned();
        let mut reader = SoundReader::open(&entry, None).unwrap();
        assert_eq!(reader.rate(), expected.rate, "{name}");
        let whole = reader.read(0, expected.samples.len()).unwrap();
        // FFmpeg leaves what the encoder put before the first sample of M4A.
        let most = if name.ends_with("m4a") { 2200 } else { 0 };
        let shift = best_shift(&whole, &expected.samples, most);
        let error = difference(&whole, &expected.samples, shift);
        println!("{name}: shifted by {shift}, rms difference {error:.2e}");
        // The expected ones are of 16 bits.
        let tolerance = if name.ends_with("flac") { 2e-5 } else { 2e-3 };
        assert!(error < tolerance, "{name} differs by {error} (shift {shift})");
        // Backwards, so that every part has to be sought.
        for second in [2, 1, 0] {
            let from = second * 20_000;
            let part = reader.read(from as u64, 5_000).unwrap();
            let error = rms(part.iter().zip(&whole[from..]).map(|(a, b)| a - b));
            assert!(error < 1e-3, "{name}: the part at {from} differs by {error}");
        }
    }
    assert_eq!(found, 4);
}

/// A file that was cut off is read as far as it goes, and what is missing is said.
#[cfg(feature = "sound")]
#[test]
fn a_file_that_was_cut_off_is_read_as_far_as_it_goes() {
    for name in ["sweep.mp3", "sweep.flac", "sweep.ogg"] {
        let folder = tempfile::tempdir().unwrap();
        let bytes = fs::read(support::reference().join("sounds").join(name)).unwrap();
        fs::write(folder.path().join(name), &bytes[..bytes.len() / 2]).unwrap();
        let data = open(folder.path()).unwrap();
        match data.get(0) {
            Ok(_) => {}
            // One page holds all of it, and is not whole.
            Err(error) if name.ends_with("ogg") => {
                assert!(error.to_string().contains("cut off"), "{error}");
            }
            Err(error) => panic!("{name}: {error}"),
        }
        // Three seconds are eight slices; that some are missing, the file may say or not.
        if data.len() == 8 {
            let message = data.get(7).unwrap_err().to_string();
            assert!(
                message.contains("cut off") || message.contains("damaged"),
                "{name}: {message}"
            );
        }
    }
}

fn rms(values: impl Iterator<Item = f32>) -> f64 {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), x| {
        (sum + f64::from(x).powi(2), count + 1)
    });
    (sum / f64::from(count.max(1))).sqrt()
}

fn difference(found: &[f32], expected: &[f32], shift: usize) -> f64 {
    rms(found
        .iter()
        .zip(&expected[shift..])
        .skip(2000)
        .take(50_000)
        .map(|(a, b)| a - b))
}

fn best_shift(found: &[f32], expected: &[f32], most: usize) -> usize {
    (0..=most)
        .min_by(|a, b| difference(found, expected, *a).total_cmp(&difference(found, expected, *b)))
        .unwrap()
}

#[test]
fn a_folder_of_sounds_is_a_set_of_slices_with_classes_and_captions() {
    let folder = tempfile::tempdir().unwrap();
    tone(440.0, 1.2).write(folder.path().join("high/a.wav")).unwrap();
    tone(220.0, 0.1).write(folder.path().join("low/b.wav")).unwrap();
    fs::write(folder.path().join("low/b.txt"), "a low tone\n").unwrap();
    let data = open(folder.path()).unwrap();
    // 1.2 s are 26460 samples, and a slice has 16 * 512 - 1.
    assert_eq!(data.len(), 3 + 1);
    assert_eq!(data.class_names().unwrap(), ["high", "low"]);
    let last = data.get(3).unwrap();
    assert_eq!(
        (last.class, last.caption.as_deref()),
        (Some(1), Some("a low tone"))
    );
    assert_eq!((last.picture.height(), last.picture.width()), (16, 16));
    // Each slice is diffusers' of the whole sound.
    let mel = mel();
    let sound = Sound::read(folder.path().join("high/a.wav"), None, 60.0).unwrap();
    for slice in 0..3 {
        let expected = mel.picture(mel.slice(&sound.samples, slice)).unwrap();
        assert_eq!(data.get(slice).unwrap().picture, expected);
    }
    assert!(data.get(4).is_err());
    // Other spectrograms are other data.
    let other = OpenOptions {
        medium: Medium::Sounds(Arc::new(
            Mel::new(MelConfig {
                top_db: 60.0,
                ..mel.config().clone()
            })
            .unwrap(),
        )),
        ..OpenOptions::default()
    };
    let other = data::open_with(folder.path().to_str().unwrap(), &other).unwrap();
    assert_ne!(data.fingerprint().unwrap(), other.fingerprint().unwrap());
}

#[test]
fn random_cuts_follow_the_seed_and_slices_stay() {
    let folder = tempfile::tempdir().unwrap();
    let sweep = Sound {
        rate: 22_050,
        samples: (0..60_000).map(|i| (1e-6 * (i as f32).powi(2)).sin()).collect(),
    };
    sweep.write(folder.path().join("sweep.wav")).unwrap();
    let data: Arc<dyn Dataset> = Arc::from(open(folder.path()).unwrap());
    let pixels = |crop, epoch| {
        let transform = Transform {
            crop,
            channels: Channels::Grey,
            ..Transform::new(16)
        };
        let config = LoaderConfig {
            shuffle: false,
            ..LoaderConfig::default()
        };
        let loader = Loader::new(Arc::clone(&data), transform, config).unwrap();
        loader.epoch(epoch).next().unwrap().unwrap().pixels
    };
    assert_eq!(pixels(Crop::Center, 0), pixels(Crop::Center, 1));
    assert_eq!(pixels(Crop::Random, 1), pixels(Crop::Random, 1));
    assert_ne!(pixels(Crop::Random, 0), pixels(Crop::Random, 1));
    assert_ne!(pixels(Crop::Random, 0), pixels(Crop::Center, 0));
}

#[test]
fn metadata_and_archives_name_sounds_as_they_name_pictures() {
    let folder = tempfile::tempdir().unwrap();
    tone(440.0, 0.5).write(folder.path().join("a.wav")).unwrap();
    tone(220.0, 0.5).write(folder.path().join("b.wav")).unwrap();
    let rows = "file_name,text,label\nb.wav,low,0\na.wav,high,1\n";
    fs::write(folder.path().join("metadata.csv"), rows).unwrap();
    let data = open(folder.path()).unwrap();
    assert_eq!(data.len(), 2);
    assert_eq!(data.get(0).unwrap().caption.as_deref(), Some("low"));
    assert_eq!(data.class(1).unwrap(), Some(1));

    let path = folder.path().join("sounds.zip");
    let mut zip = zip::ZipWriter::new(fs::File::create(&path).unwrap());
    let options = zip::write::SimpleFileOptions::default();
    for (name, hertz) in [("one/a.wav", 440.0), ("two/b.wav", 220.0)] {
        zip.start_file(name, options).unwrap();
        std::io::Write::write_all(&mut zip, &tone(hertz, 0.5).wav()).unwrap();
    }
    zip.finish().unwrap();
    let data = open(&path).unwrap();
    assert_eq!((data.len(), data.class_names().unwrap().len()), (2, 2));
    assert!(data.get(1).is_ok());
}

/// What is wrong with a file is said, and the others are read.
#[test]
fn broken_sounds_are_left_out_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    tone(440.0, 0.5).write(folder.path().join("a-good.wav")).unwrap();
    write(
        "b-text.wav",
        b"this is no sound at all, but a text that someone called so",
    );
    write("c-empty.wav", b"");
    let mut nan = wav_header(3, 1, 22_050, 32, 4);
    nan.extend(f32::NAN.to_le_bytes());
    write("d-nan.wav", &nan);
    write("e-nothing.wav", &wav_header(1, 1, 22_050, 16, 0));
    Sound {
        rate: 22_050,
        samples: vec![0.0; 9000],
    }
    .write(folder.path().join("f-silent.wav"))
    .unwrap();
    let data = open(folder.path()).unwrap();
    assert_eq!(data.len(), 6);
    let mut said = Vec::new();
    for index in 0..6 {
        match data.get(index) {
            Ok(_) => assert_eq!(index, 0),
            Err(error) => said.push(error.to_string()),
        }
    }
    let unknown = if cfg!(feature = "sound") {
        "no sound of a known kind"
    } else {
        "feature `sound`"
    };
    for (message, expected) in
        said.iter()
            .zip([unknown, "is empty", "not a number", "no samples", "is silent"])
    {
        assert!(message.contains(expected), "{message}");
    }
    assert_eq!(said.len(), 5);
    // The loader leaves them out.
    let transform = Transform {
        channels: Channels::Grey,
        ..Transform::new(16)
    };
    let loader = Loader::new(Arc::from(data), transform, LoaderConfig::default()).unwrap();
    let pictures: usize = loader.epoch(0).map(|batch| batch.unwrap().indices.len()).sum();
    assert_eq!((pictures, loader.skipped()), (1, 5));
}

fn wav_header(kind: u16, channels: u16, rate: u32, bits: u16, size: u32) -> Vec<u8> {
    let block = channels * bits / 8;
    let mut bytes = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0".to_vec();
    for number in [
        u32::from(kind) | u32::from(channels) << 16,
        rate,
        rate * u32::from(block),
        u32::from(block) | u32::from(bits) << 16,
    ] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(b"data");
    bytes.extend(size.to_le_bytes());
    bytes
}

/// 8 kHz and 192 kHz, 24 bits, 6 channels: each becomes the same tone.
#[test]
fn every_rate_and_number_of_channels_comes_to_one() {
    let folder = tempfile::tempdir().unwrap();
    let expected = tone(440.0, 1.0);
    for (rate, channels) in [(8_000, 1), (192_000, 2), (48_000, 6), (44_100, 1)] {
        let mut bytes = wav_header(1, channels, rate, 24, 3 * u32::from(channels) * rate);
        for i in 0..rate {
            let value = 0.5 * (f64::from(i) * std::f64::consts::TAU * 440.0 / f64::from(rate)).sin();
            let sample = ((value * 8_388_608.0) as i32).to_le_bytes();
            (0..channels).for_each(|_| bytes.extend(&sample[..3]));
        }
        let path = folder.path().join("tone.wav");
        fs::write(&path, bytes).unwrap();
        let sound = Sound::read(&path, Some(22_050), 60.0).unwrap();
        assert_eq!(sound.samples.len(), 22_050);
        let inside = 3000..19_000;
        let error = rms(sound.samples[inside.clone()]
            .iter()
            .zip(&expected.samples[inside])
            .map(|(a, b)| a - b));
        assert!(error < 1e-5, "{rate} Hz, {channels} channels: {error}");
    }
}

#[test]
fn what_a_folder_is_to_be_read_as_is_asked_where_it_could_be_both() {
    let folder = tempfile::tempdir().unwrap();
    let plain = || {
        data::open(folder.path().to_str().unwrap())
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    let empty = open(folder.path()).map(|_| ()).unwrap_err();
    assert!(empty.contains("holds no sound (looked for wav"), "{empty}");
    tone(440.0, 0.5).write(folder.path().join("a.wav")).unwrap();
    assert!(plain().contains("`codec` mel"), "{}", plain());
    let png = include_bytes!("fuzz/__fuzz__/picture/corpus/grey.png");
    fs::write(folder.path().join("b.png"), png).unwrap();
    assert!(plain().contains("1 pictures and 1 sounds"), "{}", plain());
    assert_eq!(open(folder.path()).unwrap().len(), 1);
    let pictures = OpenOptions {
        medium: Medium::Pictures,
        ..OpenOptions::default()
    };
    assert_eq!(
        data::open_with(folder.path().to_str().unwrap(), &pictures)
            .unwrap()
            .len(),
        1
    );
    let digits = data::open_with("digits", &heard())
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(digits.contains("holds pictures, and no sounds"), "{digits}");
}

/// Two hours in one file are read slice by slice: the last one at once, and with little memory.
#[test]
fn hours_are_read_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.wav");
    let rate: u32 = 44_100;
    let frames = u64::from(rate) * 7_200;
    let file = fs::File::create(&path).unwrap();
    std::io::Write::write_all(&mut &file, &wav_header(1, 1, rate, 16, (2 * frames) as u32)).unwrap();
    // A hole up to the last second.
    file.set_len(44 + 2 * frames).unwrap();
    let last = tone(440.0, 1.0);
    let mut end = Vec::new();
    for sample in &last.samples {
        let value = ((sample * 32_767.0) as i16).to_le_bytes();
        end.extend(value);
        end.extend(value);
    }
    std::os::unix::fs::FileExt::write_all_at(&file, &end, 44 + 2 * frames - end.len() as u64).unwrap();
    let start = std::time::Instant::now();
    let data = open(folder.path()).unwrap();
    assert_eq!(data.len(), (7_200 * 22_050) / (16 * 512 - 1));
    assert!(data.get(0).unwrap_err().to_string().contains("is silent"));
    assert!(data.get(data.len() - 1).is_ok());
    assert!(start.elapsed().as_secs() < 20);
}
