//! Processes that are threads of one: for tests, and for who embeds training and wants no MPI.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::World;
use crate::{Error, Result};

/// One of several threads that do one thing together: train, each with a [`Trainer`](crate::training::Trainer) of its own, or draw.
///
/// # Examples
/// ```
/// use langevin::world::{ThreadWorld, World};
///
/// let threads: Vec<_> = ThreadWorld::of(2)
///     .into_iter()
///     .map(|mut world| std::thread::spawn(move || world.gather_numbers(&[world.rank() as f32])))
///     .collect();
/// for thread in threads {
///     assert_eq!(thread.join().unwrap().unwrap(), [0.0, 1.0]);
/// }
/// ```
#[derive(Debug)]
pub struct ThreadWorld {
    rank: usize,
    to: Vec<Sender<Message>>,
    from: Vec<Receiver<Message>>,
}

#[derive(Debug)]
enum Message {
    Numbers(Vec<f32>),
    Bytes(Vec<u8>),
}

impl ThreadWorld {
    /// So many that know each other.
    pub fn of(size: usize) -> Vec<Self> {
        let mut all: Vec<Self> = (0..size)
            .map(|rank| Self {
                rank,
                to: Vec::new(),
                from: Vec::new(),
            })
            .collect();
        for from in 0..size {
            for to in 0..size {
                let (sender, receiver) = channel();
                all[from].to.push(sender);
                all[to].from.push(receiver);
            }
        }
        all
    }

    fn send(&self, to: usize, message: Message) -> Result<()> {
        self.to[to].send(message).map_err(|_| gone(to))
    }

    fn numbers(&self) -> Result<Vec<Vec<f32>>> {
        let receive = |(rank, from): (usize, &Receiver<Message>)| match from.recv() {
            Ok(Message::Numbers(numbers)) => Ok(numbers),
            Ok(Message::Bytes(_)) | Err(_) => Err(gone(rank)),
        };
        self.from.iter().enumerate().map(receive).collect()
    }
}

impl World for ThreadWorld {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn exchange(&mut self, parts: Vec<Vec<f32>>) -> Result<Vec<Vec<f32>>> {
        for (rank, part) in parts.into_iter().enumerate() {
            self.send(rank, Message::Numbers(part))?;
        }
        self.numbers()
    }

    fn gather_numbers(&mut self, own: &[f32]) -> Result<Vec<f32>> {
        for rank in 0..self.size() {
            self.send(rank, Message::Numbers(own.to_vec()))?;
        }
        Ok(self.numbers()?.concat())
    }

    fn gather(&mut self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        for rank in 0..self.size() {
            self.send(rank, Message::Bytes(own.to_vec()))?;
        }
        let receive = |(rank, from): (usize, &Receiver<Message>)| match from.recv() {
            Ok(Message::Bytes(bytes)) => Ok(bytes),
            Ok(Message::Numbers(_)) | Err(_) => Err(gone(rank)),
        };
        self.from.iter().enumerate().map(receive).collect()
    }
}

fn gone(rank: usize) -> Error {
    Error::Elsewhere {
        rank,
        message: "is gone".into(),
    }
}
