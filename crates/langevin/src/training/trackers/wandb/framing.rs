//! The log that a `.wandb` file is: LevelDB's, with a header of its own and the plain CRC-32.
//!
//! Blocks of 32768 bytes hold pieces of records. A piece is a checksum (4 bytes), a length (2), a kind (1) and data; a
//! record that does not fit into what is left of a block goes on in the next. What is too short for a piece is zeros.

use flate2::Crc;

const BLOCK: usize = 32_768;
const PIECE_HEADER: usize = 7;

const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// What a file begins with: a name, a magic number in two bytes, a version in one.
pub(super) const HEADER: [u8; 7] = [b':', b'W', b'&', b'B', 0xE1, 0xBE, 0];

/// The bytes that add `record` to a file of `position` bytes.
pub(super) fn record(position: u64, record: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(record.len() + 2 * PIECE_HEADER);
    let mut rest = record;
    let mut first = true;
    loop {
        let taken = ((position % BLOCK as u64) as usize + framed.len()) % BLOCK;
        let mut room = BLOCK - taken;
        if room < PIECE_HEADER {
            framed.resize(framed.len() + room, 0);
            room = BLOCK;
        }
        let (piece, after) = rest.split_at(rest.len().min(room - PIECE_HEADER));
        let kind = match (first, after.is_empty()) {
            (true, true) => FULL,
            (true, false) => FIRST,
            (false, false) => MIDDLE,
            (false, true) => LAST,
        };
        let mut crc = Crc::new();
        crc.update(&[kind]);
        crc.update(piece);
        framed.extend(crc.sum().to_le_bytes());
        // A block is shorter than 2¹⁶.
        framed.extend((piece.len() as u16).to_le_bytes());
        framed.push(kind);
        framed.extend(piece);
        if after.is_empty() {
            return framed;
        }
        (rest, first) = (after, false);
    }
}
