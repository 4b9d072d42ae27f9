//! The processes that do one thing together, and how bytes get from one to another: a file per transport.

mod threads;

use std::ops::Range;

use serde::{Serialize, de::DeserializeOwned};

pub use threads::ThreadWorld;

use crate::{Error, Result};

/// The processes of one run, as one of them sees them. Every method is called by all of them, in the same order: it returns when all have come
/// to it. A file per transport; numbers are carried and never added, since the order of a sum is no transport's business.
pub trait World {
    /// The number of this process, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Sends each process what stands at its number, and gives what they sent here, in their order.
    ///
    /// # Errors
    /// If another process is gone.
    fn exchange(&mut self, parts: Vec<Vec<f32>>) -> Result<Vec<Vec<f32>>>;

    /// What all processes have, one after another, the same in each.
    ///
    /// # Errors
    /// If another process is gone.
    fn gather_numbers(&mut self, own: &[f32]) -> Result<Vec<f32>>;

    /// What all processes say, in their order, the same in each.
    ///
    /// # Errors
    /// If another process is gone.
    fn gather(&mut self, own: &[u8]) -> Result<Vec<Vec<u8>>>;
}

/// One process alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl World for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn exchange(&mut self, parts: Vec<Vec<f32>>) -> Result<Vec<Vec<f32>>> {
        Ok(parts)
    }

    fn gather_numbers(&mut self, own: &[f32]) -> Result<Vec<f32>> {
        Ok(own.to_vec())
    }

    fn gather(&mut self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        Ok(vec![own.to_vec()])
    }
}

/// A world with what is asked of it.
pub(crate) struct Team<'w> {
    world: &'w mut dyn World,
    /// Bytes that this process sent to others.
    sent: u64,
}

impl<'w> Team<'w> {
    pub(crate) fn new(world: &'w mut dyn World) -> Self {
        Self { world, sent: 0 }
    }

    pub(crate) fn rank(&self) -> usize {
        self.world.rank()
    }

    pub(crate) fn size(&self) -> usize {
        self.world.size()
    }

    /// Whether this process writes what there is to write.
    pub(crate) fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Bytes that this process sent to others so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    pub(crate) fn exchange(&mut self, parts: Vec<Vec<f32>>) -> Result<Vec<Vec<f32>>> {
        let own = self.rank();
        let others = parts.iter().enumerate().filter(|(rank, _)| *rank != own);
        self.sent += others.map(|(_, part)| 4 * part.len() as u64).sum::<u64>();
        self.world.exchange(parts)
    }

    pub(crate) fn gather_numbers(&mut self, own: &[f32]) -> Result<Vec<f32>> {
        self.sent += 4 * (own.len() * (self.size() - 1)) as u64;
        self.world.gather_numbers(own)
    }

    pub(crate) fn gather(&mut self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.sent += (own.len() * (self.size() - 1)) as u64;
        self.world.gather(own)
    }

    /// Says a value to all, and hears theirs.
    ///
    /// # Errors
    /// If another process is gone, or says what cannot be read.
    pub(crate) fn speak<T: Serialize + DeserializeOwned>(&mut self, own: &T) -> Result<Vec<T>> {
        let text = serde_json::to_vec(own)
            .map_err(|e| Error::Config(format!("a message cannot be written: {e}")))?;
        let all = self.gather(&text)?;
        let heard = |(rank, text): (usize, &Vec<u8>)| {
            serde_json::from_slice(text)
                .map_err(|e| of_process(rank, &format!("said what cannot be read: {e}")))
        };
        all.iter().enumerate().map(heard).collect()
    }

    /// What came of something that each process did: where any failed, the error of the first that did.
    ///
    /// # Errors
    /// If any process failed, or is gone.
    pub(crate) fn agree<T>(&mut self, mine: Result<T>) -> Result<T> {
        if self.size() == 1 {
            return mine;
        }
        let sentence = mine.as_ref().err().map(Error::to_string).unwrap_or_default();
        let all = self.gather(sentence.as_bytes())?;
        match all.iter().position(|sentence| !sentence.is_empty()) {
            Some(rank) if rank != self.rank() => Err(of_process(rank, &String::from_utf8_lossy(&all[rank]))),
            _ => mine,
        }
    }
}

/// The part of `count` things that one of so many processes has.
pub(crate) fn part_of(rank: usize, processes: usize, count: usize) -> Range<usize> {
    rank * count / processes..(rank + 1) * count / processes
}

/// The error of another process.
pub(crate) fn of_process(rank: usize, sentence: &str) -> Error {
    Error::Elsewhere {
        rank,
        message: sentence.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// What each of three processes makes of its own result.
    fn agreed(failing: &[usize]) -> Vec<Result<usize>> {
        let threads = ThreadWorld::of(3).into_iter().map(|mut world| {
            let failing = failing.to_vec();
            thread::spawn(move || {
                let rank = world.rank();
                let mine = match failing.contains(&rank) {
                    true => Err(Error::Config(format!("{rank} fails"))),
                    false => Ok(rank),
                };
                Team::new(&mut world).agree(mine)
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    }

    #[test]
    fn a_fault_is_put_on_the_first_that_has_it() {
        assert_eq!(
            agreed(&[]).into_iter().map(Result::unwrap).collect::<Vec<_>>(),
            [0, 1, 2]
        );
        for failing in [&[1][..], &[1, 2], &[2]] {
            for (rank, result) in agreed(failing).into_iter().enumerate() {
                let error = result.unwrap_err();
                assert!(
                    error.to_string().contains(&format!("{} fails", failing[0])),
                    "{error}"
                );
                assert_eq!(matches!(error, Error::Config(_)), rank == failing[0], "{error}");
            }
        }
    }

    #[test]
    fn everything_is_somebodys_part() {
        for count in 0..9 {
            for processes in 1..5 {
                let all = (0..processes).flat_map(|rank| part_of(rank, processes, count));
                assert_eq!(all.collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
            }
        }
    }
}
