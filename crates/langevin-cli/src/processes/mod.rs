//! The processes that this one is one of.

pub(crate) mod launcher;
#[cfg(feature = "mpi")]
mod mpi;

use anyhow::{Result, bail};
use langevin::{
    Error,
    world::{Alone, World},
};

use self::launcher::Started;
use crate::{terminal, threads};

/// This process, alone or as one of several.
pub(crate) struct Processes {
    world: Transport,
    /// How many slots a run has that says nothing else.
    slots: usize,
}

enum Transport {
    Alone(Alone),
    #[cfg(feature = "mpi")]
    Mpi(Box<mpi::MpiWorld>),
}

impl Processes {
    pub(crate) fn alone() -> Self {
        Self {
            world: Transport::Alone(Alone),
            slots: 1,
        }
    }

    /// Joins those that a launcher started beside this one, if it did, and takes its part of the cores.
    ///
    /// # Errors
    /// If this program was built without MPI, or against another one than theirs.
    pub(crate) fn join(&mut self, trains: bool) -> Result<()> {
        if let Some(started) = launcher::started() {
            self.slots = started.size;
            self.world = transport(&started, trains)?;
        }
        if !self.is_first() {
            terminal::hush();
        }
        threads::bound(self.sharing())
    }

    /// Takes so many slots for a run that says nothing else.
    pub(crate) fn set_slots(&mut self, slots: usize) {
        self.slots = slots;
    }

    /// How many slots a run has that says nothing else.
    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    pub(crate) fn world(&mut self) -> &mut dyn World {
        match &mut self.world {
            Transport::Alone(alone) => alone,
            #[cfg(feature = "mpi")]
            Transport::Mpi(mpi) => mpi.as_mut(),
        }
    }

    pub(crate) fn rank_and_size(&self) -> (usize, usize) {
        match &self.world {
            Transport::Alone(alone) => (alone.rank(), alone.size()),
            #[cfg(feature = "mpi")]
            Transport::Mpi(mpi) => (mpi.rank(), mpi.size()),
        }
    }

    pub(crate) fn size(&self) -> usize {
        self.rank_and_size().1
    }

    /// Whether this one writes and speaks for all.
    pub(crate) fn is_first(&self) -> bool {
        self.rank_and_size().0 == 0
    }

    /// How many processes share the cores that this one may use.
    pub(crate) fn sharing(&self) -> usize {
        match &self.world {
            Transport::Alone(_) => 1,
            #[cfg(feature = "mpi")]
            Transport::Mpi(mpi) => mpi.sharing(),
        }
    }

    /// Does something in the first process, and when it is done in the others: what is downloaded is there then.
    ///
    /// # Errors
    /// Those of the work; in the others also that of the first.
    pub(crate) fn first_then_others<T>(&mut self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.size() == 1 {
            return work();
        }
        if self.is_first() {
            let done = work();
            let sentence = done
                .as_ref()
                .err()
                .map(|error| format!("{error:#}"))
                .unwrap_or_default();
            self.world().gather(sentence.as_bytes())?;
            return done;
        }
        let said = self.world().gather(&[])?;
        match String::from_utf8_lossy(&said[0]) {
            sentence if sentence.is_empty() => work(),
            sentence => Err(Error::Elsewhere {
                rank: 0,
                message: sentence.into_owned(),
            }
            .into()),
        }
    }

    /// What came of something that each process did: where any failed, all fail, and the first of those says why.
    ///
    /// # Errors
    /// If any process failed.
    pub(crate) fn agree<T>(&mut self, mine: Result<T>) -> Result<T> {
        if self.size() == 1 {
            return mine;
        }
        let sentence = mine
            .as_ref()
            .err()
            .map(|error| format!("{error:#}"))
            .unwrap_or_default();
        let all = self.world().gather(sentence.as_bytes())?;
        match all.iter().position(|sentence| !sentence.is_empty()) {
            Some(rank) if rank != self.rank_and_size().0 => Err(Error::Elsewhere {
                rank,
                message: String::from_utf8_lossy(&all[rank]).into_owned(),
            }
            .into()),
            _ => mine,
        }
    }

    /// Whether it is so in any process.
    ///
    /// # Errors
    /// If one is gone.
    pub(crate) fn any(&mut self, here: bool) -> Result<bool> {
        if self.size() == 1 {
            return Ok(here);
        }
        let all = self.world().gather(&[u8::from(here)])?;
        Ok(all.iter().any(|said| said.as_slice() == [1]))
    }

    /// Whether an error is another process's, which says it itself.
    pub(crate) fn leaves_unsaid(&self, error: &anyhow::Error) -> bool {
        !self.is_first() && is_elsewhere(error)
    }

    /// The sentence that says which process failed, where there are several.
    pub(crate) fn named(&self, error: anyhow::Error) -> anyhow::Error {
        match self.rank_and_size() {
            (_, 1) => error,
            // It names another.
            _ if is_elsewhere(&error) => error,
            (rank, _) => error.context(format!("process {rank}")),
        }
    }

    /// Leaves the others. Where this one failed and they did not, they are ended.
    pub(crate) fn leave(self, failed: bool) {
        match self.world {
            Transport::Alone(_) => _ = failed,
            #[cfg(feature = "mpi")]
            Transport::Mpi(mpi) => mpi.leave(failed),
        }
    }
}

#[cfg(feature = "mpi")]
fn transport(started: &Started, _: bool) -> Result<Transport> {
    if started.by == "torchrun" {
        bail!(
            "torchrun started {} processes, which do not know each other by MPI: `langevin launch` does",
            started.size
        );
    }
    Ok(Transport::Mpi(Box::new(mpi::MpiWorld::join(started)?)))
}

#[cfg(not(feature = "mpi"))]
fn transport(started: &Started, trains: bool) -> Result<Transport> {
    let Started { size, variable, by } = started;
    let (alone, instead) = match trains {
        true => (
            format!("{size} runs in one folder"),
            format!(" with --num-slots {size}, which comes to the same bytes"),
        ),
        false => (format!("{size} that each do all of it"), String::new()),
    };
    bail!(
        "{by} started {size} processes ({variable} says so), and this langevin was built without MPI, so they would be {alone}: build it \
         with `--features mpi`, or start one process{instead}"
    )
}

/// Whether an error is another process's.
fn is_elsewhere(error: &anyhow::Error) -> bool {
    let elsewhere = |error: &Error| matches!(error, Error::Elsewhere { .. });
    error.downcast_ref().is_some_and(elsewhere)
}

/// Refuses a command that several processes would each do alone.
///
/// # Errors
/// If this is one of several.
pub(crate) fn refuse_several(command: &str) -> Result<()> {
    match launcher::started() {
        None => Ok(()),
        Some(started) => bail!(
            "`langevin {command}` is one process, and {} started {}: each would do the same. train, sample and evaluate are shared by several",
            started.by,
            started.size
        ),
    }
}
