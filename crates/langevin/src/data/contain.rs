//! Decoders of other crates, kept from taking the program down: a panic inside becomes an error.

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
};

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic on this thread would be caught and become an error of a data set.
///
/// A program's panic hook that prints nothing then keeps hostile files from filling the terminal.
pub fn panics_are_contained() -> bool {
    CONTAINED.get()
}

/// What `work` gives; if it panics, an error: the part of a sentence that follows the file's name.
///
/// `work` must own what it changes: after a panic, nothing that it touched is looked at again.
pub(crate) fn contain<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let outer = CONTAINED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    CONTAINED.set(outer);
    result.unwrap_or_else(|payload| {
        Err(format!(
            "is damaged in a way that its decoder fails at: {}",
            message(payload.as_ref())
        ))
    })
}

/// What a panic said.
fn message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it gave no reason")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_reason() {
        let inside = contain(|| Ok(panics_are_contained())).unwrap();
        assert!(inside && !panics_are_contained());
        let index = std::hint::black_box(7);
        let error = contain(|| Ok([1, 2, 3][index])).unwrap_err();
        assert!(
            error.contains("index out of bounds") && error.contains('7'),
            "{error}"
        );
        assert!(!panics_are_contained());
    }
}
