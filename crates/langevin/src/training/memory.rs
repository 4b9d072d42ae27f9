//! How much memory a run will take, measured on a small batch.

use std::fs;

/// What `work` gives, and by how many bytes the process grew at most while it ran; `None` where the system does not say.
pub(super) fn growth<R>(work: impl FnOnce() -> R) -> (R, Option<u64>) {
    // Linux then forgets the highest point so far.
    let before = fs::write("/proc/self/clear_refs", "5")
        .ok()
        .and_then(|()| resident("VmRSS:"));
    let done = work();
    let peak = resident("VmHWM:");
    (
        done,
        before.zip(peak).map(|(before, peak)| peak.saturating_sub(before)),
    )
}

/// A line of Linux's account of this process, in bytes.
pub(super) fn resident(line: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let value = status.lines().find_map(|text| text.strip_prefix(line))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
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
