//! Where pictures come from: data sets, transforms, the loader.
