//! How many threads compute.

use std::thread::available_parallelism;

use anyhow::Result;
use rayon::ThreadPoolBuilder;

use crate::terminal;

/// What rayon reads the number of its threads from.
const VARIABLE: &str = "RAYON_NUM_THREADS";

/// Holds the number of threads that the environment asks for to what a machine can be asked for: tens of thousands take minutes to
/// start, in which no signal is looked at, or do not start at all. Where nothing is asked for, and so many processes share the cores, each has its
/// part of them.
///
/// # Errors
/// If even those that are left do not start.
pub(crate) fn bound(processes: usize) -> Result<()> {
    let cores = available_parallelism().map_or(1, usize::from);
    let most = (4 * cores).max(64);
    // A number too large for a number is one that is too large.
    let is_number = |text: &String| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let asked = std::env::var(VARIABLE).ok().filter(is_number);
    if asked.is_none() && processes > 1 {
        let part = (cores / processes).max(1);
        return Ok(ThreadPoolBuilder::new().num_threads(part).build_global()?);
    }
    if asked.is_none_or(|asked| asked.parse().is_ok_and(|asked: usize| asked <= most)) {
        return Ok(());
    }
    terminal::note(&format!(
        "{VARIABLE} is more than is of use here: {most} threads compute"
    ));
    Ok(ThreadPoolBuilder::new().num_threads(most).build_global()?)
}
