//! Numbers in blocks that share their scales, as ggml has them: fewer bits for each, and a scale for some of them together.
//!
//! The layouts are those of `ggml-quants.c`, whose arithmetic in float32 this is.

use half::f16;

/// Numbers of a block of the older types.
const SMALL: usize = 32;
/// Numbers of a block of the types called K.
const LARGE: usize = 256;

/// How numbers of a block lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::weights) enum BlockType {
    /// Four bits, one scale.
    Q4_0,
    /// Four bits, a scale and what is added.
    Q4_1,
    /// Five bits, one scale.
    Q5_0,
    /// Five bits, a scale and what is added.
    Q5_1,
    /// Eight bits, one scale.
    Q8_0,
    /// Two bits; scales for 16 numbers each.
    Q2K,
    /// Three bits; scales for 16 numbers each.
    Q3K,
    /// Four bits; scales for 32 numbers each.
    Q4K,
    /// Five bits; scales for 32 numbers each.
    Q5K,
    /// Six bits; scales for 16 numbers each.
    Q6K,
}

/// What is known of a type.
struct Row {
    of: BlockType,
    /// ggml's number of it.
    id: u32,
    name: &'static str,
    /// Numbers of a block.
    numbers: usize,
    /// Bytes of a block.
    bytes: usize,
    /// Reads a block, which has so many bytes, into so many numbers.
    widen: fn(&[u8], &mut [f32]),
}

const fn row(
    of: BlockType,
    id: u32,
    name: &'static str,
    [numbers, bytes]: [usize; 2],
    widen: fn(&[u8], &mut [f32]),
) -> Row {
    Row {
        of,
        id,
        name,
        numbers,
        bytes,
        widen,
    }
}

const ROWS: [Row; 10] = [
    row(BlockType::Q4_0, 2, "q4_0", [SMALL, 18], q4_0),
    row(BlockType::Q4_1, 3, "q4_1", [SMALL, 20], q4_1),
    row(BlockType::Q5_0, 6, "q5_0", [SMALL, 22], q5_0),
    row(BlockType::Q5_1, 7, "q5_1", [SMALL, 24], q5_1),
    row(BlockType::Q8_0, 8, "q8_0", [SMALL, 34], q8_0),
    row(BlockType::Q2K, 10, "q2_k", [LARGE, 84], q2_k),
    row(BlockType::Q3K, 11, "q3_k", [LARGE, 110], q3_k),
    row(BlockType::Q4K, 12, "q4_k", [LARGE, 144], q4_k),
    row(BlockType::Q5K, 13, "q5_k", [LARGE, 176], q5_k),
    row(BlockType::Q6K, 14, "q6_k", [LARGE, 210], q6_k),
];

impl BlockType {
    /// The type that ggml gives this number.
    pub(super) fn of_id(id: u32) -> Option<Self> {
        ROWS.iter().find(|row| row.id == id).map(|row| row.of)
    }

    /// The names of all, for sentences.
    pub(super) fn names() -> String {
        let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        names.join(", ")
    }

    fn row(self) -> &'static Row {
        // The rows stand in the order of the variants, which a test holds.
        &ROWS[self as usize]
    }

    /// ggml's number of it.
    pub(super) fn id(self) -> u32 {
        self.row().id
    }

    /// What people call it.
    pub(super) fn name(self) -> &'static str {
        self.row().name
    }

    /// Numbers of a block.
    pub(in crate::weights) fn numbers(self) -> usize {
        self.row().numbers
    }

    /// Bytes of a block.
    pub(in crate::weights) fn bytes(self) -> usize {
        self.row().bytes
    }

    /// Reads whole blocks as float32.
    pub(in crate::weights) fn widen(self, blocks: &[u8], into: &mut [f32]) {
        let row = self.row();
        for (block, into) in blocks
            .chunks_exact(row.bytes)
            .zip(into.chunks_exact_mut(row.numbers))
        {
            (row.widen)(block, into);
        }
    }
}

/// Numbers as blocks of [`BlockType::Q8_0`]: the largest of a block becomes 127. `values` are whole blocks.
pub(super) fn to_q8_0(values: &[f32]) -> Vec<u8> {
    let mut blocks = Vec::with_capacity(values.len() / SMALL * BlockType::Q8_0.bytes());
    for values in values.chunks_exact(SMALL) {
        let largest = values.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let scale = largest / 127.0;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        blocks.extend(f16::from_f32(scale).to_le_bytes());
        blocks.extend(values.iter().map(|x| (x * inverse).round() as i8 as u8));
    }
    blocks
}

fn half(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// Half bytes: the low ones of all bytes are the first half of the numbers.
fn nibbles(bytes: &[u8], into: &mut [f32], number: impl Fn(usize, u8) -> f32) {
    let (low, high) = into.split_at_mut(bytes.len());
    for (i, byte) in bytes.iter().enumerate() {
        low[i] = number(i, byte & 15);
        high[i] = number(i + bytes.len(), byte >> 4);
    }
}

fn q4_0(block: &[u8], into: &mut [f32]) {
    let d = half(block);
    nibbles(&block[2..], into, |_, q| d * (f32::from(q) - 8.0));
}

fn q4_1(block: &[u8], into: &mut [f32]) {
    let (d, m) = (half(block), half(&block[2..]));
    nibbles(&block[4..], into, |_, q| d * f32::from(q) + m);
}

/// A number's fifth bit, of 32 that lie together.
fn fifth(bits: &[u8], i: usize) -> u8 {
    (bits[i / 8] >> (i % 8) & 1) << 4
}

fn q5_0(block: &[u8], into: &mut [f32]) {
    let (d, bits) = (half(block), &block[2..6]);
    nibbles(&block[6..], into, |i, q| {
        d * (f32::from(q | fifth(bits, i)) - 16.0)
    });
}

fn q5_1(block: &[u8], into: &mut [f32]) {
    let (d, m, bits) = (half(block), half(&block[2..]), &block[4..8]);
    nibbles(&block[8..], into, |i, q| d * f32::from(q | fifth(bits, i)) + m);
}

fn q8_0(block: &[u8], into: &mut [f32]) {
    let d = half(block);
    for (into, q) in into.iter_mut().zip(&block[2..]) {
        *into = d * f32::from(*q as i8);
    }
}

/// Scales, two bits of four numbers in each byte, both of the block's scales.
fn q2_k(block: &[u8], into: &mut [f32]) {
    let (scales, bits) = (&block[..16], &block[16..80]);
    let (d, dmin) = (half(&block[80..]), half(&block[82..]));
    for (group, into) in into.chunks_exact_mut(16).enumerate() {
        let (scale, least) = (
            d * f32::from(scales[group] & 15),
            dmin * f32::from(scales[group] >> 4),
        );
        // Of 128 numbers 32 bytes: eight groups, two for each pair of bits.
        let (part, pair, half) = (group / 8, group % 8 / 2, group % 2);
        let bits = &bits[32 * part + 16 * half..][..16];
        for (into, bits) in into.iter_mut().zip(bits) {
            *into = scale * f32::from(bits >> (2 * pair) & 3) - least;
        }
    }
}

/// Third bits, two bits of four numbers in each byte, sixteen scales of six bits, the block's scale.
fn q3_k(block: &[u8], into: &mut [f32]) {
    let (third, bits, scales, d) = (&block[..32], &block[32..96], &block[96..108], half(&block[108..]));
    for (group, into) in into.chunks_exact_mut(16).enumerate() {
        let low = match group < 8 {
            true => scales[group] & 15,
            false => scales[group - 8] >> 4,
        };
        let high = scales[8 + group % 4] >> (2 * (group / 4)) & 3;
        let scale = d * (f32::from(low | high << 4) - 32.0);
        let (part, pair, half) = (group / 8, group % 8 / 2, group % 2);
        let places = 16 * half..16 * half + 16;
        let (bits, third) = (&bits[32 * part..][places.clone()], &third[places]);
        for ((into, bits), third) in into.iter_mut().zip(bits).zip(third) {
            // One that is not set takes four off.
            let third = third >> (4 * part + pair) & 1;
            *into = scale * (f32::from(bits >> (2 * pair) & 3) + 4.0 * f32::from(third) - 4.0);
        }
    }
}

/// The scale and the least of a group of 32, of twelve bytes that hold eight of each in six bits.
fn scale_and_least(bytes: &[u8], group: usize) -> (f32, f32) {
    let (scale, least) = match group < 4 {
        true => (bytes[group] & 63, bytes[group + 4] & 63),
        false => (
            bytes[group + 4] & 15 | bytes[group - 4] >> 6 << 4,
            bytes[group + 4] >> 4 | bytes[group] >> 6 << 4,
        ),
    };
    (f32::from(scale), f32::from(least))
}

/// Both scales, those of the groups, and half bytes of two groups each; `fifth` has the bit above them.
fn in_groups(block: &[u8], bytes: &[u8], into: &mut [f32], fifth: impl Fn(usize, usize) -> u8) {
    let (d, dmin, scales) = (half(block), half(&block[2..]), &block[4..16]);
    for (pair, into) in into.chunks_exact_mut(64).enumerate() {
        let of = |group: usize| {
            let (scale, least) = scale_and_least(scales, group);
            (d * scale, dmin * least)
        };
        let both = [of(2 * pair), of(2 * pair + 1)];
        nibbles(&bytes[32 * pair..][..32], into, |i, q| {
            let (scale, least) = both[i / 32];
            scale * f32::from(q | fifth(2 * pair + i / 32, i % 32)) - least
        });
    }
}

fn q4_k(block: &[u8], into: &mut [f32]) {
    in_groups(block, &block[16..], into, |_, _| 0);
}

fn q5_k(block: &[u8], into: &mut [f32]) {
    let bits = &block[16..48];
    in_groups(block, &block[48..], into, |group, i| (bits[i] >> group & 1) << 4);
}

/// Four low bits, two high ones, sixteen scales of eight bits, the block's scale.
fn q6_k(block: &[u8], into: &mut [f32]) {
    let (low, high, scales, d) = (
        &block[..128],
        &block[128..192],
        &block[192..208],
        half(&block[208..]),
    );
    for (part, into) in into.chunks_exact_mut(128).enumerate() {
        let (low, high) = (&low[64 * part..], &high[32 * part..]);
        for (quarter, into) in into.chunks_exact_mut(32).enumerate() {
            for (i, into) in into.iter_mut().enumerate() {
                let low = low[32 * (quarter % 2) + i] >> (4 * (quarter / 2)) & 15;
                let high = high[i] >> (2 * quarter) & 3;
                let scale = f32::from(scales[8 * part + 2 * quarter + i / 16] as i8);
                *into = d * scale * (f32::from(low | high << 4) - 32.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_the_order_of_the_types() {
        for row in &ROWS {
            assert_eq!(row.of.id(), row.id);
        }
    }

    #[test]
    fn eight_bits_come_back_within_half_a_step() {
        let values: Vec<f32> = (0..64).map(|i| ((i * 37 % 64) as f32 - 31.0) * 0.01).collect();
        let blocks = to_q8_0(&values);
        let mut read = vec![0.0; 64];
        BlockType::Q8_0.widen(&blocks, &mut read);
        for (block, read) in values.chunks(32).zip(read.chunks(32)) {
            let step = block.iter().fold(0.0_f32, |m, x| m.max(x.abs())) / 127.0;
            for (x, y) in block.iter().zip(read) {
                // The scale is rounded too.
                assert!((x - y).abs() <= step * 0.57, "{x} {y}");
            }
        }
        assert_eq!(to_q8_0(&[0.0; 32]), [0; 34]);
    }
}
