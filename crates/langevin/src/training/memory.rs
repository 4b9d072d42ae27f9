//! How much memory a run will take, measured on a small batch.

use std::fs;

use crate::data::of_this_process;

/// What `work` gives, and by how many bytes the process grew at most while it ran; `None` where the system does not say.
pub(super) fn growth<R>(work: impl FnOnce() -> R) -> (R, Option<u64>) {
    // Linux then forgets the highest point so far.
    let before = fs::write("/proc/self/clear_refs", "5")
        .ok()
        .and_then(|()| of_this_process("VmRSS:"));
    let done = work();
    let peak = of_this_process("VmHWM:");
    (
        done,
        before.zip(peak).map(|(before, peak)| peak.saturating_sub(before)),
    )
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_and_given_back_is_seen() {
        let taken = || vec![1_u8; 300 << 20].iter().map(|&x| u64::from(x)).sum::<u64>();
        let (sum, Some(growth)) = growth(taken) else {
            // A system without this account says nothing.
            return;
        };
        assert_eq!(sum, 300 << 20);
        assert!(growth >= 290 << 20, "{growth}");
    }
}
