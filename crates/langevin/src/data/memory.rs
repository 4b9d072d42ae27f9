//! How much memory there is to keep pictures in.

/// What is assumed where the system does not say, in bytes.
const UNKNOWN: u64 = 2 << 30;

/// Half of the memory that is free now, in bytes: what the cache of a [`Loader`](super::Loader) may grow to while the
/// model trains beside it. Where the system does not say, 2 GiB are taken to be free.
pub fn cache_limit() -> u64 {
    free_memory().unwrap_or(UNKNOWN) / 2
}

/// How many bytes of memory are free now, in the machine and to this process's group: Linux says so.
pub fn free_memory() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let system = read("/proc/meminfo").and_then(|text| kibibytes(&text, "MemAvailable:"));
    let group = read("/sys/fs/cgroup/memory.max")
        .zip(read("/sys/fs/cgroup/memory.current"))
        .and_then(|(most, now)| {
            let (most, now): (u64, u64) = (most.trim().parse().ok()?, now.trim().parse().ok()?);
            Some(most.saturating_sub(now))
        });
    system.into_iter().chain(group).min()
}

/// How many bytes of memory there are at all, in the machine and for this process's group.
pub fn machine_memory() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let system = read("/proc/meminfo").and_then(|text| kibibytes(&text, "MemTotal:"));
    let group = read("/sys/fs/cgroup/memory.max").and_then(|most| most.trim().parse().ok());
    system.into_iter().chain(group).min()
}

/// An entry of Linux's account of this process, such as `VmRSS:`, what it holds now, in bytes.
pub(crate) fn of_this_process(name: &str) -> Option<u64> {
    kibibytes(&std::fs::read_to_string("/proc/self/status").ok()?, name)
}

/// An entry of such an account, of the machine (`/proc/meminfo`) or of a process, in bytes.
fn kibibytes(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// A number of bytes for a person: `5.7 MB`.
pub(crate) fn bytes_in_words(bytes: u64) -> String {
    let scaled = |unit: f64| bytes as f64 / unit;
    match bytes {
        0..1_000_000 => format!("{:.1} kB", scaled(1e3)),
        1_000_000..1_000_000_000 => format!("{:.1} MB", scaled(1e6)),
        _ => format!("{:.1} GB", scaled(1e9)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_says_what_is_free() {
        assert_eq!(
            kibibytes("MemTotal:  9 kB\nMemAvailable:   2048 kB\n", "MemAvailable:"),
            Some(2 << 20)
        );
        for text in ["", "MemAvailable: many kB", "MemAvailable: 12"] {
            assert_eq!(kibibytes(text, "MemAvailable:"), None, "{text}");
        }
        assert!(cache_limit() > 0);
    }

    #[test]
    fn sizes_are_in_the_unit_that_reads_best() {
        assert_eq!(
            [900, 5_744_640, 123_456_789_000].map(bytes_in_words),
            ["0.9 kB", "5.7 MB", "123.5 GB"]
        );
    }
}
