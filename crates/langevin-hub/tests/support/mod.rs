//! A Hub on this machine's loopback, which speaks the protocol of the real one as far as its clients here need it.
//!
//! `python.rs` beside this file runs Python's own client against it: what that client reads and writes without complaint is the protocol.

#![allow(dead_code, unused_imports, reason = "each test uses a part")]

pub(crate) mod hub;
pub(crate) mod notes;
pub(crate) mod python;
pub(crate) mod repos;
pub(crate) mod wire;

pub(crate) use hub::{READER, Server, Trouble, WRITER};
pub(crate) use notes::Notes;
