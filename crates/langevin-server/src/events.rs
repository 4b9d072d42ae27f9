//! What a request hears while its pictures are drawn.

use langevin::{
    data::{Picture, sound::Sound},
    generate::Animation,
};

/// News of an order, from the thread that draws.
#[derive(Debug)]
pub(crate) enum Event {
    /// Its turn has come.
    Started,
    /// Another step is done.
    Progress(Progress),
    /// A picture is done.
    Finished(Finished),
    /// The way of all pictures out of the noise, where it was asked for.
    Animation(Box<Animation>),
    /// All pictures are done, in so many seconds.
    Done(f64),
    /// Nothing more will come.
    Failed(String),
}

/// How far an order is.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Steps of all pictures that are done.
    pub done: usize,
    /// Steps of all pictures.
    pub total: usize,
    /// How long the rest will take at the pace so far.
    pub seconds_left: f64,
    /// How the pictures under way look; empty where this step is not one to be shown.
    pub previews: Vec<Preview>,
}

/// A picture under way.
#[derive(Debug)]
pub(crate) struct Preview {
    /// Its number in the order, from 0.
    pub number: usize,
    /// Its steps that are done.
    pub step: usize,
    /// The sample as it is.
    pub sample: Picture,
    /// The clean picture that the model sees in it.
    pub clean: Picture,
}

/// A picture that is done.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Its number in the order, from 0.
    pub number: usize,
    /// Its seed.
    pub seed: u64,
    /// Its class, where it has one.
    pub class: Option<String>,
    pub picture: Picture,
    /// What it sounds like, where it is a spectrogram.
    pub sound: Option<Sound>,
    /// Whether the model's safety checker flagged it, so that it is black.
    pub flagged: bool,
    /// What its file says about how it was drawn.
    pub texts: Vec<(&'static str, String)>,
}
