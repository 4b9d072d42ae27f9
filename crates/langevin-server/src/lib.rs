//! What `langevin serve` opens: a page to draw with, and the HTTP API under it.
//!
//! Requests are checked as they come and wait in a queue with a bound. One thread draws, since the library uses all cores itself;
//! pictures of several requests go through a model together, each with a generator of its own, and come out as they would alone.
//!
//! ```no_run
//! use std::net::TcpListener;
//!
//! use langevin::{device::default_device, pipelines::LoadOptions};
//! use langevin_server::{Models, ServerOptions, serve};
//!
//! let mut models = Models::default();
//! models.load("digits", "runs/digits-1", &LoadOptions::default(), &default_device())?;
//! let listener = TcpListener::bind("127.0.0.1:7860")?;
//! serve(listener, models, ServerOptions::default(), || false)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod access;
mod api;
mod app;
mod bounds;
mod connections;
mod controls;
mod events;
mod ip_adapters;
mod loras;
mod metrics;
mod model;
mod models;
mod options;
mod order;
mod page;
mod pictures;
mod queue;
mod refusal;
mod request;
mod run;
mod runs;
mod schema;
mod shelf;
mod stage;
mod worker;

pub use controls::Controls;
pub use ip_adapters::IpAdapters;
pub use loras::Loras;
pub use models::Models;
pub use options::{Limits, ServerOptions};
pub use request::GenerateRequest;
pub use run::serve;
