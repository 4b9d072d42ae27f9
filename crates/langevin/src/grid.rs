//! Grids of pictures, as PNG or animated GIF.
