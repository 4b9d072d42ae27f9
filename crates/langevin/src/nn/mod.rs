//! Layers and blocks.
