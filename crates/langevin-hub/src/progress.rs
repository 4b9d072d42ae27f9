//! Who looks on while files come and go.

/// Is told how a transfer goes, from several threads.
pub trait Progress: Sync {
    /// A transfer begins: how many files, and of how many bytes in all those that are not there yet.
    fn begin(&self, what: &str, files: usize, bytes: u64) {
        let _ = (what, files, bytes);
    }

    /// So many bytes more are there.
    fn advance(&self, bytes: u64) {
        let _ = bytes;
    }

    /// So many bytes have to come again.
    fn back(&self, bytes: u64) {
        let _ = bytes;
    }

    /// The transfer is over, or broke.
    fn end(&self) {}

    /// Something that its user should know.
    fn note(&self, text: &str) {
        let _ = text;
    }
}

/// Nobody looks on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {}
