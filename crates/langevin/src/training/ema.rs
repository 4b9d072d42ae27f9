//! Exponential moving average of weights.
