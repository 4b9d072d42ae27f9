//! How a server is set up.

use std::{path::PathBuf, sync::Arc, time::Duration};

use langevin::{guidance::ClipLoss, models::clip::ClipModel};
use serde::Serialize;

use crate::{controls::Controls, ip_adapters::IpAdapters, loras::Loras, shelf::Keeps};

/// What one request may ask for. More is answered by 422, a larger body by 413.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Denoising steps.
    pub steps: usize,
    /// Pictures.
    pub count: usize,
    /// The longest side of a picture that is sent, in pixels.
    pub side: u32,
    /// The longest side of a picture that is drawn from latents, in pixels; others may be twice as large as their model has them.
    pub size: usize,
    /// Characters of a text.
    pub text: usize,
    /// Losses that guide a picture.
    pub guides: usize,
    /// Moments of the denoising that are shown on the way.
    pub previews: usize,
    /// Bytes of a body.
    pub body: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            steps: 1000,
            count: 64,
            side: 4096,
            size: 2048,
            text: 1000,
            guides: 8,
            previews: 100,
            body: 8 << 20,
        }
    }
}

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// What one request may ask for.
    pub limits: Limits,
    /// Requests that wait at most; those beyond are answered by 429.
    pub queue: usize,
    /// Pictures that are drawn at once.
    pub batch_size: usize,
    /// How long a caller may take for the head of a request and again for its body, and how long a connection may be idle.
    pub patience: Duration,
    /// What callers of the API must know; `None` lets everybody in.
    pub api_key: Option<String>,
    /// The origin whose pages may call the API from a browser, besides the server's own; `*` for all.
    pub allow_origin: Option<String>,
    /// The folder of training runs that can be followed; `None` shows none.
    pub runs: Option<PathBuf>,
    /// CLIP, for guidance by a text.
    pub clip: Option<ClipModel>,
    /// How many cut-outs CLIP looks at.
    pub cuts: usize,
    /// The ControlNets that requests may name besides a model's own; `None` lets them name no other.
    pub controls: Option<Arc<Controls>>,
    /// The IP-Adapters that requests may name; `None` lets them name none.
    pub ip_adapters: Option<Arc<IpAdapters>>,
    /// The LoRA that requests may name; `None` lets them name none.
    pub loras: Option<Arc<Loras>>,
    /// Whether pictures say nothing about how they were drawn.
    pub no_metadata: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            queue: 64,
            batch_size: 16,
            patience: Duration::from_secs(30),
            api_key: None,
            allow_origin: None,
            runs: None,
            clip: None,
            cuts: ClipLoss::USUAL_CUTS,
            controls: None,
            ip_adapters: None,
            loras: None,
            no_metadata: false,
        }
    }
}

impl ServerOptions {
    /// What stays in memory beside models.
    pub(crate) fn kept(&self) -> Vec<Arc<dyn Keeps>> {
        let controls = self.controls.clone().map(|all| all as Arc<dyn Keeps>);
        let ip_adapters = self.ip_adapters.clone().map(|all| all as Arc<dyn Keeps>);
        controls.into_iter().chain(ip_adapters).collect()
    }
}
