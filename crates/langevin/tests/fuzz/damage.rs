//! Damaged copies of files: bytes changed, numbers made huge, parts cut out, doubled, or put in from another file.

use langevin::random::Generator;

/// The damaged copy with this number: the same at every run.
pub(crate) fn damaged(corpus: &[Vec<u8>], number: u64) -> Vec<u8> {
    let mut draw = Draw(Generator::new(number));
    let mut bytes = corpus[draw.below(corpus.len())].clone();
    for _ in 0..1 + draw.below(6) {
        if bytes.is_empty() {
            break;
        }
        let at = draw.below(bytes.len());
        match draw.below(8) {
            0..3 => bytes[at] = draw.below(256) as u8,
            3 => bytes[at] ^= 1 << draw.below(8),
            4 => {
                // A number of one to eight bytes at an edge of its range.
                let length = (1 + draw.below(8)).min(bytes.len() - at);
                let edge = [0x00, 0x7F, 0x80, 0xFF][draw.below(4)];
                bytes[at..at + length].fill(edge);
            }
            5 => bytes.truncate(at),
            6 => {
                let end = (at + 1 + draw.below(64)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let other = &corpus[draw.below(corpus.len())];
                let from = draw.below(other.len().max(1)).min(other.len());
                let to = (from + 1 + draw.below(64)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    bytes
}

struct Draw(Generator);

impl Draw {
    /// A whole number below `end`, which is at least 1.
    fn below(&mut self, end: usize) -> usize {
        self.0.randint(0, end as i64, 1)[0] as usize
    }
}
