//! Runs that train an autoencoder: what they begin with, draw and leave.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};

use super::{
    CodecSource, Drawn, Trainer, TrainingConfig,
    setup::transform,
    trainee::codec::{Spread, normalised},
};
use crate::{
    Error, Result,
    codec::AnyCodec,
    data::{Channels, Crop, Picture, Transform},
    device::default_device,
    grid,
    models::{AutoencoderKL, AutoencoderKLConfig, Model, ModelConfig},
    ops::in_pool,
    pipelines::to_pictures,
    random::Generator,
    weights,
};

/// Pictures that an autoencoder is measured on, at most.
const MEASURED: usize = 512;
/// Pictures that are looked at together.
const TOGETHER: usize = 16;
/// Pictures in a row of a grid of reconstructions.
const COLUMNS: usize = 8;

/// The autoencoder in a folder or a file.
pub(super) fn pretrained_network(path: &Path, device: &Device) -> Result<AutoencoderKL> {
    match AnyCodec::open(path, device)? {
        AnyCodec::Autoencoder(codec) => Ok(weights::widened(codec.network().clone())),
        _ => Err(Error::file(
            path,
            format!(
                "has an autoencoder of another class than {}, which is the one that is trained",
                AutoencoderKLConfig::CLASS
            ),
        )),
    }
}

/// The autoencoder that a run begins with.
///
/// # Errors
/// If it cannot be read or made, or does not fit the pictures.
pub(super) fn begun(
    config: &TrainingConfig,
    device: &Device,
    generator: &mut Generator,
) -> Result<AutoencoderKL> {
    let network = match &config.pretrained {
        Some(path) => pretrained_network(path, device)?,
        None => {
            let network = config
                .codec_model
                .config(config.resolution, config.channels.count())?;
            AutoencoderKL::new(&network, device, generator)?
        }
    };
    let (channels, of_pictures) = (network.config().in_channels, config.channels.count());
    if channels != of_pictures || network.config().out_channels != of_pictures {
        return Err(Error::option(
            &["channels"],
            format!("the autoencoder takes pictures of {channels} channels, and these have {of_pictures}"),
        ));
    }
    fits(config, network.config().factor())?;
    Ok(network)
}

/// Refuses pictures that an autoencoder's latents do not cover.
///
/// # Errors
/// If their side is no multiple of what one stands for.
pub(super) fn fits(config: &TrainingConfig, factor: usize) -> Result<()> {
    let side = config.resolution;
    match side.is_multiple_of(factor) {
        true => Ok(()),
        false => Err(Error::option(
            &["resolution"],
            format!(
                "`resolution` is {side}, and the autoencoder's latents stand for {factor}x{factor} pixels each: it must be a multiple"
            ),
        )),
    }
}

/// Pictures of the data that are evenly apart, in batches; those that cannot be read are left out.
fn pictures(trainer: &Trainer, most: usize) -> impl Iterator<Item = Result<Tensor<4>>> {
    let config = &trainer.config;
    let transform = Transform {
        crop: Crop::Center,
        random_flip: false,
        ..transform(config)
    };
    let count = trainer.dataset.len();
    let chosen: Vec<usize> = (0..count.min(most))
        .map(|n| n * count / count.min(most))
        .collect();
    let (side, channels) = (config.resolution, config.channels.count());
    let batches: Vec<Vec<usize>> = chosen.chunks(TOGETHER).map(<[usize]>::to_vec).collect();
    batches.into_iter().filter_map(move |batch| {
        let mut pixels = Vec::new();
        for index in batch {
            if let Ok(example) = trainer.dataset.get(index) {
                match transform.apply(example.picture, &mut Generator::new(0)) {
                    Ok(values) => pixels.extend(values),
                    Err(error) => return Some(Err(error)),
                }
            }
        }
        let rows = pixels.len() / (channels * side * side);
        let shape = [rows, channels, side, side];
        (rows > 0).then(|| Ok(Tensor::from_data(TensorData::new(pixels, shape), &trainer.device)))
    })
}

/// How well pictures come back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fidelity {
    /// The mean of the absolute differences, of pictures in 0..255.
    pub error: f64,
    /// Of pictures in 0..1, over all of them, in decibels.
    pub psnr: f64,
    /// Pictures that were looked at.
    pub pictures: usize,
}

impl std::fmt::Display for Fidelity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "mean absolute error {:.2} of 255, {:.1} dB (PSNR), over {} pictures",
            self.error, self.psnr, self.pictures
        )
    }
}

/// Measures the reconstruction of the data's pictures by their likeliest latents.
///
/// # Errors
/// If they do not fit, or none can be read.
pub(super) fn fidelity(trainer: &Trainer, network: &AutoencoderKL) -> Result<Fidelity> {
    let (mut sum, mut squares, mut numbers, mut count) = (0.0f64, 0.0f64, 0usize, 0usize);
    for batch in pictures(trainer, MEASURED) {
        let batch = batch?;
        count += batch.dims()[0];
        let back = in_pool(|| back(network, batch.clone()))?;
        let difference = (batch - back).into_data().convert::<f32>();
        for value in difference.iter::<f32>() {
            // Pictures are in -1..1.
            let value = f64::from(value) / 2.0;
            sum += value.abs();
            squares += value * value;
            numbers += 1;
        }
    }
    if numbers == 0 {
        return Err(Error::Config(
            "there are no pictures to measure the autoencoder on".into(),
        ));
    }
    Ok(Fidelity {
        error: 255.0 * sum / numbers as f64,
        psnr: -10.0 * (squares / numbers as f64).log10(),
        pictures: count,
    })
}

/// What becomes of pictures, bounded as pictures are.
fn back(network: &AutoencoderKL, pictures: Tensor<4>) -> Result<Tensor<4>> {
    let latents = network.encode(pictures)?.mode();
    Ok(network.decode(latents)?.clamp(-1.0, 1.0))
}

/// Draws a grid of pictures, each with what becomes of it below.
///
/// # Errors
/// If they do not fit, or a file cannot be written.
pub(super) fn draw(trainer: &Trainer, network: &AutoencoderKL, path: &Path) -> Result<Drawn> {
    let (mut rows, mut drawn) = (Vec::new(), Vec::new());
    let shown = trainer.config.eval_batch_size.next_multiple_of(COLUMNS);
    for batch in pictures(trainer, shown) {
        let batch = batch?;
        let [originals, backs] = [
            to_pictures(&batch)?,
            to_pictures(&in_pool(|| back(network, batch))?)?,
        ];
        for (originals, backs) in originals.chunks(COLUMNS).zip(backs.chunks(COLUMNS)) {
            rows.extend(row(originals)?);
            rows.extend(row(backs)?);
            drawn.extend_from_slice(backs);
        }
    }
    let Some(first) = rows.first() else {
        return Err(Error::Config("there are no pictures to draw".into()));
    };
    let whole = grid::grid(&rows, COLUMNS, 2, grid::visible_scale(first))?;
    let text = [
        (
            "Title",
            "pictures, and below each what comes back of it".to_string(),
        ),
        ("model", trainer.folder.display().to_string()),
    ];
    grid::write_png(path, &whole, &text)?;
    Ok(Drawn {
        pictures: drawn,
        columns: COLUMNS,
        denoising: whole.clone(),
        grid: whole,
        path: path.to_path_buf(),
        sound: None,
    })
}

/// A whole row of a grid: white pictures stand where there are none.
fn row(pictures: &[Picture]) -> Result<Vec<Picture>> {
    let mut row = pictures.to_vec();
    if let Some(first) = pictures.first() {
        let (channels, height, width) = (first.channels().count(), first.height(), first.width());
        let white = vec![1.0; channels * height * width];
        while row.len() < COLUMNS {
            row.push(Picture::from_chw(&white, channels, height, width)?);
        }
    }
    Ok(row)
}

/// Leaves an autoencoder in a folder: `config.json` and its weights. One that was trained from nothing gets latents of deviation 1; that of a
/// pipeline keeps the space that the pipeline's model knows.
///
/// # Errors
/// If the data's pictures do not fit it, or a file cannot be written.
pub(super) fn save(trainer: &Trainer, network: &AutoencoderKL, folder: &Path) -> Result<()> {
    if trainer.config.pretrained.is_some() {
        return network.save(folder);
    }
    let spread = in_pool(|| Spread::of(network, pictures(trainer, MEASURED)))?;
    normalised(network, &spread, &trainer.device)?.save(folder)
}

impl TrainingConfig {
    /// Whether the run's model draws an autoencoder's latents, from nothing.
    pub fn draws_latents(&self) -> bool {
        self.codec.as_ref().is_some_and(CodecSource::is_latent)
    }

    /// Starts from an autoencoder that is there, its own or a pipeline's, and trains that.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn use_pretrained_codec(&mut self, path: &Path) -> Result<()> {
        let network = pretrained_network(path, &default_device())?;
        if let Some([height, _]) = network.config().sample_size() {
            self.resolution = height;
        }
        self.channels = Channels::from_count(network.config().in_channels).unwrap_or(self.channels);
        self.pretrained = Some(path.to_path_buf());
        Ok(())
    }
}
