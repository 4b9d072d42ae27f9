//! What a model predicts and how its loss is weighted.
