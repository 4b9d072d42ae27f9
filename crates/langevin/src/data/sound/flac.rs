//! FLAC files of 16 bits a sample and one channel (RFC 9639): the format's fixed predictors and Rice's codes.

use super::Sound;

/// Samples in a frame.
const BLOCK: usize = 4096;
/// The highest order of the fixed predictors, and of the residual's partitions.
const MOST_ORDER: usize = 4;
const MOST_PARTITION: u32 = 4;
/// The largest parameter that four bits hold; 15 means something else.
const MOST_RICE: u32 = 14;

/// The bytes of a file.
pub(super) fn bytes(sound: &Sound) -> Vec<u8> {
    let samples: Vec<i32> = sound.sixteen_bits().map(i32::from).collect();
    let mut info = Bits::default();
    for (value, width) in [
        (BLOCK as u64, 16),
        (BLOCK as u64, 16),
        // The sizes of frames are not known.
        (0, 24),
        (0, 24),
        (u64::from(sound.rate), 20),
        (0, 3),
        (15, 5),
        (samples.len() as u64, 36),
        // Nor is a checksum.
        (0, 64),
        (0, 64),
    ] {
        info.put(value, width);
    }
    let mut bytes = b"fLaC\x80\0\0\x22".to_vec();
    bytes.extend(info.bytes);
    for (number, block) in samples.chunks(BLOCK).enumerate() {
        bytes.extend(frame(number as u64, block));
    }
    bytes
}

fn frame(number: u64, block: &[i32]) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.put(0xFFF8, 16);
    let is_whole = block.len() == BLOCK;
    bits.put(if is_whole { 0b1100 } else { 0b0111 }, 4);
    // The rate is the stream's; one channel; 16 bits.
    bits.put(0b0000_0000_1000, 12);
    bits.number(number);
    if !is_whole {
        bits.put(block.len() as u64 - 1, 16);
    }
    let check = checksum(&bits.bytes, 0x07 << 8, 8);
    bits.put(u64::from(check), 8);
    subframe(block, &mut bits);
    bits.align();
    let check = checksum(&bits.bytes, 0x8005, 16);
    bits.put(u64::from(check), 16);
    bits.bytes
}

fn subframe(block: &[i32], bits: &mut Bits) {
    if block.iter().all(|sample| *sample == block[0]) {
        bits.put(0, 8);
        bits.put(block[0] as u16 as u64, 16);
        return;
    }
    let orders = 0..=MOST_ORDER.min(block.len() - 1);
    let coded = orders.map(|order| {
        let residual = residual(block, order);
        let partitions = Partitions::of(&residual, block.len(), order);
        (order, residual, partitions)
    });
    let size = |order: usize, partitions: &Partitions| partitions.bits + 16 * order as u64;
    let best = coded.min_by_key(|(order, _, partitions)| size(*order, partitions));
    let Some((order, residual, partitions)) =
        best.filter(|(order, _, p)| size(*order, p) < 16 * block.len() as u64)
    else {
        bits.put(0b0000_0010, 8);
        block
            .iter()
            .for_each(|sample| bits.put(*sample as u16 as u64, 16));
        return;
    };
    bits.put((0b1000 | order as u64) << 1, 8);
    block[..order]
        .iter()
        .for_each(|sample| bits.put(*sample as u16 as u64, 16));
    bits.put(0, 2);
    bits.put(u64::from(partitions.order), 4);
    let mut rest = residual.as_slice();
    for (number, rice) in partitions.rice.iter().enumerate() {
        let count = (block.len() >> partitions.order) - if number == 0 { order } else { 0 };
        bits.put(u64::from(*rice), 4);
        for value in &rest[..count] {
            bits.zeros(value >> rice);
            bits.put(1, 1);
            bits.put(u64::from(value & ((1 << rice) - 1)), *rice);
        }
        rest = &rest[count..];
    }
}

/// What a predictor of this order, the order's difference, leaves: folded, so that none is below zero.
fn residual(block: &[i32], order: usize) -> Vec<u32> {
    let mut differences = block.to_vec();
    for done in 0..order {
        for i in (done + 1..differences.len()).rev() {
            differences[i] -= differences[i - 1];
        }
    }
    differences[order..]
        .iter()
        .map(|value| ((value << 1) ^ (value >> 31)) as u32)
        .collect()
}

/// How a residual is cut, with each part's parameter.
struct Partitions {
    order: u32,
    rice: Vec<u32>,
    bits: u64,
}

impl Partitions {
    /// The smallest that there are.
    fn of(residual: &[u32], block: usize, predicted: usize) -> Self {
        let fits = |order: &u32| block.is_multiple_of(1 << order) && (block >> order) > predicted;
        let cut = |order: u32| {
            let (mut rest, mut rice, mut bits) = (residual, Vec::new(), 0);
            for number in 0..1 << order {
                let (part, after) = rest.split_at((block >> order) - if number == 0 { predicted } else { 0 });
                let size = |rice: u32| {
                    part.iter()
                        .map(|value| u64::from(value >> rice) + 1 + u64::from(rice))
                        .sum::<u64>()
                };
                let (least, parameter) = (0..=MOST_RICE)
                    .map(|rice| (size(rice), rice))
                    .min()
                    .unwrap_or((0, 0));
                rice.push(parameter);
                bits += least + 4;
                rest = after;
            }
            Self { order, rice, bits }
        };
        let mut best = cut(0);
        for order in (1..=MOST_PARTITION).filter(fits) {
            let other = cut(order);
            if other.bits < best.bits {
                best = other;
            }
        }
        best
    }
}

/// Bits, the highest of each byte first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    /// How many of the last byte are taken, from 1 to 8; 0 before the first.
    taken: u32,
}

impl Bits {
    /// The lowest `width` bits of a value.
    fn put(&mut self, value: u64, width: u32) {
        for place in (0..width).rev() {
            if self.taken.is_multiple_of(8) {
                self.bytes.push(0);
                self.taken = 0;
            }
            let bit = (value >> place & 1) as u8;
            if let Some(last) = self.bytes.last_mut() {
                *last |= bit << (7 - self.taken);
            }
            self.taken += 1;
        }
    }

    fn zeros(&mut self, count: u32) {
        for _ in 0..count {
            self.put(0, 1);
        }
    }

    fn align(&mut self) {
        self.taken = 0;
    }

    /// A number as UTF-8 has those of characters, up to 36 bits.
    fn number(&mut self, number: u64) {
        let width = u64::BITS - number.leading_zeros();
        if width <= 7 {
            return self.put(number, 8);
        }
        // With each further byte, six bits more, and one fewer in the first.
        let further = (1..=6)
            .find(|further| width <= 6 * further + 6 - further)
            .unwrap_or(6);
        let first = (0xFF00_u64 >> (further + 1)) & 0xFF;
        self.put(first | number >> (6 * further), 8);
        for place in (0..further).rev() {
            self.put(0x80 | (number >> (6 * place) & 0x3F), 8);
        }
    }
}

/// A cyclic redundancy check of `width` bits, at the upper end of 16.
fn checksum(bytes: &[u8], polynomial: u16, width: u32) -> u16 {
    let mut rest: u16 = 0;
    for byte in bytes {
        rest ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            rest = if rest & 0x8000 == 0 {
                rest << 1
            } else {
                rest << 1 ^ polynomial
            };
        }
    }
    rest >> (16 - width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_and_numbers_are_the_formats() {
        // CRC-8 and CRC-16/UMTS of the usual word.
        assert_eq!(checksum(b"123456789", 0x07 << 8, 8), 0xF4);
        assert_eq!(checksum(b"123456789", 0x8005, 16), 0xFEE8);
        for (number, expected) in [
            (5, vec![5]),
            (0xE4, vec![0xC3, 0xA4]),
            (0x20AC, vec![0xE2, 0x82, 0xAC]),
            (0x1_F600, vec![0xF0, 0x9F, 0x98, 0x80]),
        ] {
            let mut bits = Bits::default();
            bits.number(number);
            assert_eq!(bits.bytes, expected);
        }
    }

    #[cfg(feature = "sound")]
    #[test]
    fn a_written_file_is_read_again_to_the_bit() {
        use std::{path::Path, sync::Arc};

        use super::super::{Bytes, SoundReader};

        let mut state = 1_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as i16
        };
        let tone = |i: usize| (20_000.0 * (i as f32 * 0.05).sin()) as i16;
        // Silence, a tone, noise, and an end that is no whole block.
        let whole: Vec<i16> = (0..4096)
            .map(|_| 7)
            .chain((0..9000).map(tone))
            .chain((0..5001).map(|_| noise()))
            .collect();
        let sound = Sound {
            rate: 11_025,
            samples: whole.iter().map(|&x| f32::from(x) / 32_768.0).collect(),
        };
        let bytes = bytes(&sound);
        assert!(bytes.len() < 2 * whole.len());
        let mut reader = SoundReader::of_bytes(Path::new("x.flac"), Bytes(Arc::from(bytes)), None).unwrap();
        assert_eq!((reader.rate(), reader.len()), (11_025, whole.len() as u64));
        assert_eq!(reader.read(0, whole.len()).unwrap(), sound.samples);
        assert_eq!(reader.read(5000, 3000).unwrap(), sound.samples[5000..8000]);
    }
}
