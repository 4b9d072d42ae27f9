//! A model with its scheduler: load, save, call.
