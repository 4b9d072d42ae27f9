//! What somebody asks of a pipeline that draws sounds, besides what pictures are asked for.

use serde::{Deserialize, Serialize};

use crate::data::sound::SoundInput;

/// Options of sounds. A spectrogram is a picture, so all others hold for it too.
// Brackets hold defaults.
#[allow(rustdoc::broken_intra_doc_links)]
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct SoundOptions {
    /// How long the sounds are, in seconds [as long as those that the model was trained on].
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "SECONDS", conflicts_with = "size", help_heading = "Sound")
    )]
    #[cfg_attr(feature = "schema", schemars(range(max = 600), extend("exclusiveMinimum" = 0, "x-needs" = "sound")))]
    pub seconds: Option<f64>,
    /// Begin with this sound under noise, in place of noise alone; `strength` or `start_step` says how much of it stays.
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "FILE", conflicts_with_all = ["continue_audio", "init_image", "inpaint"], help_heading = "Sound")
    )]
    #[cfg_attr(feature = "schema", schemars(extend("x-needs" = "sound")))]
    pub init_audio: Option<SoundInput>,
    /// Go on where this sound ends: its last seconds stay, as many as `mask_start_secs` says, and what follows is drawn [half of a sound].
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "FILE", conflicts_with_all = ["init_image", "inpaint"], help_heading = "Sound")
    )]
    #[cfg_attr(feature = "schema", schemars(extend("x-needs" = "sound")))]
    pub continue_audio: Option<SoundInput>,
    /// Which part of the initial sound to begin with, counted from 0 in lengths of what the model draws [0].
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", help_heading = "Sound"))]
    #[cfg_attr(feature = "schema", schemars(range(max = 100_000), extend("x-needs" = "sound")))]
    pub audio_slice: Option<usize>,
    /// The step to begin with from the initial sound, as diffusers counts it: 0 is noise alone, most of the steps leave most of the sound
    /// [what `strength` comes to].
    #[cfg_attr(
        feature = "clap",
        arg(long, value_name = "N", conflicts_with = "strength", help_heading = "Sound")
    )]
    #[cfg_attr(feature = "schema", schemars(range(max = 100_000), extend("x-needs" = "sound")))]
    pub start_step: Option<usize>,
    /// How many seconds at the beginning stay as the initial sound has them [0].
    #[cfg_attr(feature = "clap", arg(long, value_name = "SECONDS", help_heading = "Sound"))]
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 600), extend("x-needs" = "sound")))]
    pub mask_start_secs: Option<f64>,
    /// How many seconds at the end stay as the initial sound has them [0].
    #[cfg_attr(feature = "clap", arg(long, value_name = "SECONDS", help_heading = "Sound"))]
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 600), extend("x-needs" = "sound")))]
    pub mask_end_secs: Option<f64>,
    /// The encoding of a sound that the drawn ones are to be like, as numbers, for a model that is told one.
    #[cfg_attr(
        feature = "clap",
        arg(
            long,
            value_delimiter = ',',
            allow_hyphen_values = true,
            value_name = "NUMBERS",
            help_heading = "Sound"
        )
    )]
    #[cfg_attr(feature = "schema", schemars(extend("x-needs" = "encoding")))]
    pub encoding: Vec<f32>,
}

impl SoundOptions {
    /// The sounds that it brings along, by the names of their options.
    pub fn sounds_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut SoundInput)> {
        [
            ("init_audio", &mut self.init_audio),
            ("continue_audio", &mut self.continue_audio),
        ]
        .into_iter()
        .filter_map(|(option, sound)| Some((option, sound.as_mut()?)))
    }

    /// Leaves out the sounds that it brings along.
    pub(crate) fn leave_sounds(&mut self) {
        (self.init_audio, self.continue_audio) = (None, None);
    }

    /// The first option that is given, for whoever has no use for any.
    pub(crate) fn first_given(&self) -> Option<&'static [&'static str]> {
        let given: [(&'static [&'static str], bool); 8] = [
            (&["seconds"], self.seconds.is_some()),
            (&["init_audio"], self.init_audio.is_some()),
            (&["continue_audio"], self.continue_audio.is_some()),
            (&["audio_slice"], self.audio_slice.is_some()),
            (&["start_step"], self.start_step.is_some()),
            (&["mask_start_secs"], self.mask_start_secs.is_some()),
            (&["mask_end_secs"], self.mask_end_secs.is_some()),
            (&["encoding"], !self.encoding.is_empty()),
        ];
        given
            .into_iter()
            .find(|(_, given)| *given)
            .map(|(option, _)| option)
    }
}
