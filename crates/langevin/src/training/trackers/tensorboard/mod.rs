//! TensorBoard's event files: scalars, sample grids and hyper-parameters.

mod framing;
mod messages;

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use prost::Message;
use serde_json::Value as Json;

use self::messages::{Audio, Event, Image, SessionLog, SummaryValue};
use super::{Tracker, date::Moment, scalars};
use crate::{
    Error, Result,
    data::{Picture, sound::Sound},
    grid,
    training::UpdateReport,
};

/// The version that TensorBoard's own writer puts at the head of a file.
const FILE_VERSION: &str = "brain.Event:2";

/// `tensorboard.SessionLog.START`.
const SESSION_START: i32 = 1;

/// One run's event file, named and written as `torch.utils.tensorboard.SummaryWriter`'s.
#[derive(Debug)]
pub struct TensorBoard {
    path: PathBuf,
    file: File,
}

impl TensorBoard {
    /// Begins a file of its own in `folder`, with the run's hyper-parameters: a JSON object. `goes_on_at` is the first step that is
    /// written anew where other files are there: what they have from it on no longer counts, as with `SummaryWriter`'s `purge_step`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn create(folder: &Path, hyper_parameters: &Json, goes_on_at: Option<usize>) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
        let started = Moment::now();
        let (seconds, process) = (started.seconds, std::process::id());
        let mut number = 0;
        let (path, file) = loop {
            let path = folder.join(format!(
                "events.out.tfevents.{seconds}.langevin.{process}.{number}"
            ));
            match OpenOptions::new().append(true).create_new(true).open(&path) {
                Ok(file) => break (path, file),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                Err(e) => return Err(Error::io("create", path, e)),
            }
        };
        let mut writer = Self { path, file };
        writer.write(&Event {
            wall_time: started.as_f64(),
            file_version: Some(FILE_VERSION.into()),
            ..Event::default()
        })?;
        if let Some(step) = goes_on_at {
            let at_step = |file_version, session_log| Event {
                wall_time: started.as_f64(),
                step: step as i64,
                file_version,
                session_log,
                ..Event::default()
            };
            writer.write(&at_step(Some(FILE_VERSION.into()), None))?;
            writer.write(&at_step(
                None,
                Some(SessionLog {
                    status: SESSION_START,
                }),
            ))?;
        }
        for value in messages::hyper_parameters(hyper_parameters, started.as_f64()) {
            writer.write_values(0, vec![value])?;
        }
        Ok(writer)
    }

    /// The event file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn write_values(&mut self, step: usize, values: Vec<SummaryValue>) -> Result<()> {
        self.write(&Event {
            wall_time: Moment::now().as_f64(),
            step: step as i64,
            summary: Some(messages::Summary { values }),
            ..Event::default()
        })
    }

    /// Adds an event in one write, so that a run killed in the middle leaves whole events.
    fn write(&mut self, event: &Event) -> Result<()> {
        self.file
            .write_all(&framing::record(&event.encode_to_vec()))
            .map_err(|e| Error::io("write", &self.path, e))
    }
}

impl Tracker for TensorBoard {
    fn update(&mut self, report: &UpdateReport) -> Result<()> {
        let scalars = scalars(report).into_iter();
        let values = scalars.map(|(name, value)| SummaryValue::scalar(name, value as f32));
        self.write_values(report.step, values.collect())
    }

    fn picture(&mut self, name: &str, step: usize, picture: &Picture) -> Result<()> {
        let image = Image {
            height: picture.height() as i32,
            width: picture.width() as i32,
            colorspace: picture.channels().count() as i32,
            encoded_image_string: grid::png_bytes(picture)?,
        };
        self.write_values(step, vec![SummaryValue::image(name, image)])
    }

    fn sound(&mut self, name: &str, step: usize, sound: &Sound) -> Result<()> {
        let audio = Audio {
            sample_rate: sound.rate as f32,
            num_channels: 1,
            length_frames: sound.samples.len() as i64,
            encoded_audio_string: sound.wav(),
            content_type: "audio/wav".into(),
        };
        self.write_values(step, vec![SummaryValue::audio(name, audio)])
    }

    fn finish(&mut self, well: bool) -> Result<()> {
        self.write_values(0, vec![messages::session_end(well, Moment::now().as_f64())])?;
        self.file
            .sync_all()
            .map_err(|e| Error::io("write", &self.path, e))
    }
}

#[cfg(test)]
mod tests;
