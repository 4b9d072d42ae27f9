//! What every kind of file gives: one channel at its own rate.

/// One channel of a file's samples at its own rate.
pub(super) trait Frames: Send {
    fn rate(&self) -> u32;

    /// How many there are.
    fn frames(&self) -> u64;

    /// Appends `count` of them from `from` on, or as many as there are.
    ///
    /// # Errors
    /// If they cannot be read; the part of a sentence that follows the file's name.
    fn read(&mut self, from: u64, mono: &mut Vec<f32>, count: usize) -> Result<(), String>;
}

/// Refuses a rate that no sound has.
///
/// # Errors
/// If it is none; the part of a sentence that follows the file's name.
pub(super) fn check_rate(rate: u32) -> Result<(), String> {
    if (1000..=1_536_000).contains(&rate) {
        return Ok(());
    }
    Err(format!(
        "says that a second has {rate} samples: 1000 to 1536000 are read"
    ))
}
