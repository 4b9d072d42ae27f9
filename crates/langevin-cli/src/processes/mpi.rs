//! Processes that know each other by MPI. It carries bytes; no sum is ever its own.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use langevin::{Error, training::World};
use mpi::{
    Threading,
    datatype::{Partition, PartitionMut},
    environment::{Universe, processor_name},
    topology::SimpleCommunicator,
    traits::{Communicator, CommunicatorCollectives},
};

use super::launcher::Started;

/// How often others are waited for without a pause; after that, with one, so that they have the cores where these are shared.
const EAGER: usize = 2000;
const PAUSE: Duration = Duration::from_micros(200);
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

    pub(super) fn leave(self, failed: bool) {
        if !failed {
            return;
        }
        // Others that fail at the same point come to it too.
        let start = Instant::now();
        let mut request = self.apart.immediate_barrier();
        loop {
            match request.test() {
                Ok(_) => return,
                Err(_) if start.elapsed() > PATIENCE => self.world.abort(1),
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

    /// What each has, one after another, and how much that is.
    fn all<T: mpi::traits::Equivalence + Clone + Default>(&self, own: &[T]) -> Result<(Vec<T>, Vec<i32>)> {
        self.together();
        let mut counts = vec![0i32; self.size()];
        self.world.all_gather_into(&count(own.len())?, &mut counts[..]);
        let (places, total) = places(&counts)?;
        // The address of an empty slice of bytes is what Open MPI means "in place" by, so both have room.
        let mut own = own.to_vec();
        own.reserve(1);
        let mut all = Vec::with_capacity(total + 1);
        all.resize(total, T::default());
        self.world.all_gather_varcount_into(
            &own[..],
            &mut PartitionMut::new(&mut all[..], &counts[..], &places[..]),
        );
        Ok((all, counts))
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
        self.together();
        let sizes = || -> Result<Vec<i32>> { parts.iter().map(|part| count(part.len())).collect() };
        let sent = sizes().map_err(said)?;
        let mut received = vec![0i32; self.size()];
        self.world.all_to_all_into(&sent[..], &mut received[..]);
        let (from, _) = places(&sent).map_err(said)?;
        let (to, total) = places(&received).map_err(said)?;
        let own = parts.concat();
        let mut all = vec![0f32; total];
        self.world.all_to_all_varcount_into(
            &Partition::new(&own[..], &sent[..], &from[..]),
            &mut PartitionMut::new(&mut all[..], &received[..], &to[..]),
        );
        Ok(split(&all, &received))
    }

    fn gather_numbers(&mut self, own: &[f32]) -> langevin::Result<Vec<f32>> {
        Ok(self.all(own).map_err(said)?.0)
    }

    fn gather(&mut self, own: &[u8]) -> langevin::Result<Vec<Vec<u8>>> {
        let (all, counts) = self.all(own).map_err(said)?;
        Ok(split(&all, &counts))
    }
}

fn split<T: Clone>(all: &[T], counts: &[i32]) -> Vec<Vec<T>> {
    let mut rest = all;
    let part = |count: &i32| {
        let (part, after) = rest.split_at(*count as usize);
        rest = after;
        part.to_vec()
    };
    counts.iter().map(part).collect()
}

/// MPI counts in 32 bits.
fn count(len: usize) -> Result<i32> {
    i32::try_from(len).context("more than 2^31 numbers cannot be sent at once")
}

/// Where each part begins, and how many elements there are.
fn places(counts: &[i32]) -> Result<(Vec<i32>, usize)> {
    let mut end = 0usize;
    let place = |count: &i32| {
        let start = self::count(end);
        end += *count as usize;
        start
    };
    let places = counts.iter().map(place).collect::<Result<_>>()?;
    Ok((places, end))
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
