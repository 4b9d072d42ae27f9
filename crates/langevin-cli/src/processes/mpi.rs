//! Processes that know each other by MPI. It carries bytes; no sum is ever its own.

use std::{
    ops::Range,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use langevin::{Error, world::World};
use mpi::{
    Threading,
    collective::SystemOperation,
    datatype::{Partition, PartitionMut},
    environment::{Universe, processor_name},
    topology::SimpleCommunicator,
    traits::{Communicator, CommunicatorCollectives},
};

use super::launcher::Started;

/// How often others are waited for without a pause; after that, with one, so that they have the cores where these are shared.
const EAGER: usize = 2000;
const PAUSE: Duration = Duration::from_micros(200);
/// MPI counts in 32 bits: so many elements are sent to a process at once, of as many processes as there are at most.
const AT_ONCE: usize = 1 << 20;
/// How long a process that failed waits for others that fail with it, before it ends them.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct MpiWorld {
    /// For processes that may not be in step with each other.
    apart: SimpleCommunicator,
    world: SimpleCommunicator,
    sharing: usize,
    /// Dropped last, which is the end of MPI.
    _universe: Universe,
}

impl MpiWorld {
    pub(super) fn join(started: &Started) -> Result<Self> {
        let (universe, _) = mpi::initialize_with_threading(Threading::Funneled)
            .context("MPI cannot be initialised a second time")?;
        let world = universe.world();
        if world.size() as usize != started.size {
            bail!(
                "{} started {} processes ({} says so), and MPI knows of {}: it is another MPI than the one that langevin was built with, \
                 or srun needs --mpi=pmix or --mpi=pmi2",
                started.by,
                started.size,
                started.variable,
                world.size()
            );
        }
        let mut joined = Self {
            apart: world.duplicate(),
            world,
            sharing: 1,
            _universe: universe,
        };
        let own = cores().unwrap_or_default();
        let all = joined.gather(own.as_bytes())?;
        joined.sharing = all
            .iter()
            .filter(|other| **other == own.as_bytes())
            .count()
            .max(1);
        Ok(joined)
    }

    pub(super) fn sharing(&self) -> usize {
        self.sharing
    }

    /// Waits for the others with pauses, where the end of MPI would wait without. Where this process failed and others did not come to the same
    /// point, they are ended.
    pub(super) fn leave(self, failed: bool) {
        let start = Instant::now();
        let mut request = self.apart.immediate_barrier();
        loop {
            match request.test() {
                Ok(_) => return,
                Err(_) if failed && start.elapsed() > PATIENCE => self.world.abort(1),
                Err(pending) => request = pending,
            }
            thread::sleep(PAUSE);
        }
    }

    /// Waits until all have come to this point, and leaves the cores to those that have not.
    fn together(&self) {
        let mut request = self.world.immediate_barrier();
        for tried in 0.. {
            match request.test() {
                Ok(_) => return,
                Err(pending) => request = pending,
            }
            match tried < EAGER {
                true => thread::yield_now(),
                false => thread::sleep(PAUSE),
            }
        }
    }

    /// What each has: all of it, whatever there is of it.
    fn all<T: mpi::traits::Equivalence + Clone + Default>(&self, own: &[T]) -> Result<Vec<Vec<T>>> {
        self.together();
        let mut lengths = vec![0u64; self.size()];
        self.world.all_gather_into(&(own.len() as u64), &mut lengths[..]);
        let lengths: Vec<usize> = lengths
            .into_iter()
            .map(usize::try_from)
            .collect::<Result<_, _>>()?;
        let mut all: Vec<Vec<T>> = lengths.iter().map(|&len| Vec::with_capacity(len)).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        for round in rounds(&lengths, longest, self.at_once()) {
            let counts = counts(&round)?;
            let (places, total) = places(&counts)?;
            // The address of an empty slice of bytes is what Open MPI means "in place" by, so both have room.
            let mut part = own[round[self.rank()].clone()].to_vec();
            part.reserve(1);
            let mut received = Vec::with_capacity(total + 1);
            received.resize(total, T::default());
            self.world.all_gather_varcount_into(
                &part[..],
                &mut PartitionMut::new(&mut received[..], &counts[..], &places[..]),
            );
            append(&mut all, &received, &counts);
        }
        Ok(all)
    }

    /// How many elements go to a process at once.
    fn at_once(&self) -> usize {
        AT_ONCE.min(i32::MAX as usize / self.size())
    }

    /// Sends each its part, and gives what they sent.
    fn each(&self, parts: &[Vec<f32>]) -> Result<Vec<Vec<f32>>> {
        self.together();
        let sent: Vec<u64> = parts.iter().map(|part| part.len() as u64).collect();
        let mut received = vec![0u64; self.size()];
        self.world.all_to_all_into(&sent[..], &mut received[..]);
        // All have to agree on how many rounds there are.
        let (own, mut longest) = (sent.iter().copied().max().unwrap_or(0), 0u64);
        self.world
            .all_reduce_into(&own, &mut longest, SystemOperation::max());
        let lengths = |all: Vec<u64>| {
            all.into_iter()
                .map(usize::try_from)
                .collect::<Result<Vec<_>, _>>()
        };
        let (sent, received, longest) = (lengths(sent)?, lengths(received)?, usize::try_from(longest)?);
        let mut all: Vec<Vec<f32>> = received.iter().map(|&len| Vec::with_capacity(len)).collect();
        let most = self.at_once();
        for (out, into) in rounds(&sent, longest, most).zip(rounds(&received, longest, most)) {
            let (sent, received) = (counts(&out)?, counts(&into)?);
            let (from, _) = places(&sent)?;
            let (to, total) = places(&received)?;
            let pieces = parts.iter().zip(&out).map(|(part, range)| &part[range.clone()]);
            let row = pieces.collect::<Vec<_>>().concat();
            let mut numbers = vec![0f32; total];
            self.world.all_to_all_varcount_into(
                &Partition::new(&row[..], &sent[..], &from[..]),
                &mut PartitionMut::new(&mut numbers[..], &received[..], &to[..]),
            );
            append(&mut all, &numbers, &received);
        }
        Ok(all)
    }
}

impl World for MpiWorld {
    fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    fn size(&self) -> usize {
        self.world.size() as usize
    }

    fn exchange(&mut self, parts: Vec<Vec<f32>>) -> langevin::Result<Vec<Vec<f32>>> {
        self.each(&parts).map_err(said)
    }

    fn gather_numbers(&mut self, own: &[f32]) -> langevin::Result<Vec<f32>> {
        Ok(self.all(own).map_err(said)?.concat())
    }

    fn gather(&mut self, own: &[u8]) -> langevin::Result<Vec<Vec<u8>>> {
        self.all(own).map_err(said)
    }
}

/// Which range of each of some rows is sent in each round, where none sends more than `most` at once and the longest of all rows is of so many.
fn rounds(lengths: &[usize], longest: usize, most: usize) -> impl Iterator<Item = Vec<Range<usize>>> {
    (0..longest.div_ceil(most)).map(move |round| {
        let of = |&len: &usize| (round * most).min(len)..((round + 1) * most).min(len);
        lengths.iter().map(of).collect()
    })
}

fn counts(ranges: &[Range<usize>]) -> Result<Vec<i32>> {
    let count = |range: &Range<usize>| Ok(i32::try_from(range.len())?);
    ranges.iter().map(count).collect()
}

/// Where each part begins, and how many elements there are.
fn places(counts: &[i32]) -> Result<(Vec<i32>, usize)> {
    let mut end = 0usize;
    let place = |count: &i32| {
        let start = i32::try_from(end);
        end += *count as usize;
        Ok(start?)
    };
    let places = counts.iter().map(place).collect::<Result<_>>()?;
    Ok((places, end))
}

/// Adds to each row its part of what was received.
fn append<T: Clone>(all: &mut [Vec<T>], received: &[T], counts: &[i32]) {
    let mut rest = received;
    for (row, count) in all.iter_mut().zip(counts) {
        let (part, after) = rest.split_at(*count as usize);
        row.extend_from_slice(part);
        rest = after;
    }
}

fn said(error: anyhow::Error) -> Error {
    Error::Config(format!("{error:#}"))
}

/// The machine, and those of its cores that this process may use, where the system says.
fn cores() -> Option<String> {
    let machine = processor_name().ok()?;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let allowed = status.lines().find(|line| line.starts_with("Cpus_allowed_list:"));
    Some(format!("{machine} {}", allowed.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_any_length_are_sent_in_rounds() {
        assert_eq!(rounds(&[0, 0], 0, 4).count(), 0);
        let all: Vec<_> = rounds(&[3, 0, 9], 9, 4).collect();
        assert_eq!(
            all,
            [
                vec![0..3, 0..0, 0..4],
                vec![3..3, 0..0, 4..8],
                vec![3..3, 0..0, 8..9]
            ]
        );
        // More than 32 bits count, without any of it being made.
        let long = 3usize << 31;
        let all: Vec<_> = rounds(&[long, 5], long, AT_ONCE).collect();
        assert_eq!(all.len(), long / AT_ONCE);
        assert_eq!(all.iter().map(|round| round[0].len()).sum::<usize>(), long);
        assert!(all.iter().all(|round| counts(round).is_ok()));
    }

    #[test]
    fn what_came_in_rounds_is_whole() {
        let rows = [vec![1, 2, 3], vec![], vec![4, 5, 6, 7, 8]];
        let mut all = vec![Vec::new(); 3];
        for round in rounds(&rows.each_ref().map(Vec::len), 5, 2) {
            let received: Vec<i32> = rows
                .iter()
                .zip(&round)
                .flat_map(|(row, range)| row[range.clone()].to_vec())
                .collect();
            let counts = counts(&round).unwrap();
            assert_eq!(places(&counts).unwrap().1, received.len());
            append(&mut all, &received, &counts);
        }
        assert_eq!(all, rows);
    }
}
