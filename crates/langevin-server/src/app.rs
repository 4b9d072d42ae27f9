//! What the handlers of all routes share.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use tokio::sync::Semaphore;

use crate::{
    metrics::Metrics,
    models::{Lease, Models},
    options::ServerOptions,
    queue::Queue,
    refusal::Refusal,
    runs::Runs,
    schema::RequestSchema,
    stage::{Room, Stage},
};

/// Mebibytes of decoded pictures that wait at once, which is five times what one request may have.
const PICTURES_KEPT: usize = 1024;

/// Who calls, as far as the connection tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller(pub(crate) IpAddr);

/// What a request goes through before it waits to be drawn.
pub(crate) struct Stages {
    /// Bodies that may hold pictures are in memory, from when they are read until they are checked.
    pub(crate) bodies: Arc<Stage>,
    /// Pictures are decoded: more at once would take memory and win no time.
    pub(crate) pictures: Arc<Stage>,
    /// Models are waited for, where they are not in memory.
    pub(crate) models: Arc<Stage>,
    /// Texts are encoded, and what is asked for is held to the model.
    pub(crate) plans: Arc<Stage>,
    /// What training runs have written is read.
    pub(crate) runs: Arc<Stage>,
}

impl Stages {
    fn new() -> Self {
        let stage = |name, at_once, at_once_of_one, there| {
            Stage::new(
                name,
                Room {
                    at_once,
                    at_once_of_one,
                    there,
                },
            )
        };
        Self {
            bodies: stage("sending pictures", 32, 16, 32),
            pictures: stage("having their pictures decoded", 2, 1, 32),
            models: stage("waiting for a model", 128, 64, 128),
            plans: stage("being checked", 2, 1, 128),
            runs: stage("reading training runs", 1, 1, 128),
        }
    }
}

/// What handlers share.
pub(crate) struct App {
    pub(crate) models: Arc<Models>,
    pub(crate) options: Arc<ServerOptions>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) metrics: Arc<Metrics>,
    /// Whether nothing but this machine can call, and whoever calls is let in.
    pub(crate) only_local: bool,
    pub(crate) stages: Stages,
    /// The mebibytes that decoded pictures of requests may take until these are drawn.
    pub(crate) kept: Arc<Semaphore>,
    /// What a request may hold.
    pub(crate) schema: RequestSchema,
    /// The training runs that are shown.
    pub(crate) runs: Option<Arc<Runs>>,
}

impl App {
    pub(crate) fn new(
        models: Arc<Models>,
        options: Arc<ServerOptions>,
        queue: Arc<Queue>,
        metrics: Arc<Metrics>,
        address: SocketAddr,
    ) -> Arc<Self> {
        let (runs, schema) = (options.runs.clone(), RequestSchema::new(&options));
        Arc::new(Self {
            only_local: address.ip().is_loopback() && options.api_key.is_none(),
            models,
            options,
            queue,
            metrics,
            stages: Stages::new(),
            kept: Arc::new(Semaphore::new(PICTURES_KEPT)),
            schema,
            runs: runs.map(|folder| Arc::new(Runs::new(folder))),
        })
    }

    /// A model, for which a caller may have to wait.
    ///
    /// # Errors
    /// If others wait already, or the model cannot be loaded.
    pub(crate) async fn lease(&self, number: usize, caller: Caller) -> Result<Lease, Refusal> {
        let _place = self.stages.models.enter(caller.0).await?;
        self.models.lease(number).await
    }
}
