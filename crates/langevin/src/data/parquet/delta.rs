//! A look at values that are packed as differences, before the parquet crate unpacks them: it reserves what the packed header claims, and a
//! few bytes may stand for any number of long texts.
//!
//! The format's encodings `DELTA_BINARY_PACKED`, `DELTA_LENGTH_BYTE_ARRAY` and `DELTA_BYTE_ARRAY`, as its `Encodings.md` defines them.

use parquet::{basic::Encoding, column::page::Page};

/// Whether values that are encoded so are looked at here.
pub(super) fn is_looked_at(encoding: Encoding) -> bool {
    matches!(
        encoding,
        Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::DELTA_BYTE_ARRAY
    )
}

/// Goes through the lengths of a page's texts. `is_optional` says that values may be missing, which levels before them tell; `budget` is
/// what they may still take once unpacked.
///
/// # Errors
/// The part of a sentence that follows the column's name, if they claim what is not there, or too much.
pub(super) fn check(page: &Page, is_optional: bool, budget: &mut u64) -> Result<(), String> {
    let values = match page {
        Page::DataPage { buf, .. } if is_optional => {
            let levels = buf.get(..4).ok_or("has a page that is cut off")?;
            let length = u32::from_le_bytes([levels[0], levels[1], levels[2], levels[3]]) as usize;
            buf.get(4usize.saturating_add(length)..)
        }
        Page::DataPage { buf, .. } => buf.get(..),
        Page::DataPageV2 {
            buf,
            def_levels_byte_len,
            rep_levels_byte_len,
            ..
        } => buf.get((*def_levels_byte_len as usize).saturating_add(*rep_levels_byte_len as usize)..),
        Page::DictionaryPage { .. } => return Ok(()),
    };
    let values = values.ok_or("has a page that is cut off")?;
    let most = u64::from(page.num_values());
    let mut reader = Reader { bytes: values, at: 0 };
    match page.encoding() {
        Encoding::DELTA_LENGTH_BYTE_ARRAY => {
            let lengths = reader.lengths(most)?;
            reader.has(lengths.iter().sum())
        }
        Encoding::DELTA_BYTE_ARRAY => {
            let prefixes = reader.lengths(most)?;
            let suffixes = reader.lengths(most)?;
            if prefixes.len() != suffixes.len() {
                return Err("has a page whose texts have more beginnings than ends".into());
            }
            reader.has(suffixes.iter().sum())?;
            let (mut before, mut all) = (0, 0u64);
            for (prefix, suffix) in prefixes.into_iter().zip(suffixes) {
                if prefix > before {
                    return Err("has a text that begins with more of the one before than that has".into());
                }
                before = prefix + suffix;
                all = all.saturating_add(before);
            }
            *budget = budget
                .checked_sub(all)
                .ok_or("claims more memory than a row group of its file may take")?;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Bytes, and how many of them are read.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or("has lengths that are cut off")?;
            self.at += 1;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("has a length that does not end".into())
    }

    fn zigzag(&mut self) -> Result<i64, String> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Whether so many bytes are left.
    fn has(&self, bytes: u64) -> Result<(), String> {
        match bytes <= (self.bytes.len() - self.at) as u64 {
            true => Ok(()),
            false => Err("has texts that claim to end beyond their page".into()),
        }
    }

    /// At most so many lengths, packed as differences.
    fn lengths(&mut self, most: u64) -> Result<Vec<u64>, String> {
        const LARGEST_BLOCK: u64 = 1 << 16;
        let (block, parts, count) = (self.varint()?, self.varint()?, self.varint()?);
        let first = self.zigzag()?;
        if count > most {
            return Err(format!("claims {count} texts in a page of {most}"));
        }
        let is_whole = parts > 0 && block <= LARGEST_BLOCK && block.is_multiple_of(parts);
        let in_part = if is_whole { (block / parts) as usize } else { 0 };
        if in_part == 0 || !in_part.is_multiple_of(8) {
            return Err(format!("has lengths in blocks of {block} and {parts} parts"));
        }
        let mut lengths = Vec::with_capacity(count as usize);
        let mut value = first;
        if count > 0 {
            lengths.push(length(value)?);
        }
        while (lengths.len() as u64) < count {
            let least = self.zigzag()?;
            self.has(parts)?;
            let widths = &self.bytes[self.at..self.at + parts as usize];
            self.at += parts as usize;
            for &width in widths {
                let left = (count - lengths.len() as u64) as usize;
                if left == 0 {
                    break;
                }
                let width = usize::from(width);
                let packed = in_part * width / 8;
                self.has(packed as u64)?;
                if width > 64 {
                    return Err("has lengths of more bits than there are".into());
                }
                let bytes = &self.bytes[self.at..self.at + packed];
                self.at += packed;
                for number in 0..in_part.min(left) {
                    let more = bits(bytes, number * width, width);
                    value = value.wrapping_add(least).wrapping_add(more as i64);
                    lengths.push(length(value)?);
                }
            }
        }
        Ok(lengths)
    }
}

/// A length is a number of 32 bits that is not negative.
fn length(value: i64) -> Result<u64, String> {
    u64::try_from(value)
        .ok()
        .filter(|&length| length <= i32::MAX as u64)
        .ok_or_else(|| format!("has a text of {value} bytes"))
}

/// So many bits from a place on, the lowest first.
fn bits(bytes: &[u8], from: usize, count: usize) -> u64 {
    (0..count).fold(0, |value, bit| {
        let at = from + bit;
        value | u64::from(bytes[at / 8] >> (at % 8) & 1) << bit
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(bytes: &[u8], most: u64) -> Result<Vec<u64>, String> {
        Reader { bytes, at: 0 }.lengths(most)
    }

    #[test]
    fn the_specifications_examples_are_read() {
        // Encodings.md: 1, 2, 3, 4, 5 has the header block 8 …, first 1, least difference 1, widths of 0 bits.
        assert_eq!(lengths(&[8, 1, 5, 2, 2, 0], 5).unwrap(), [1, 2, 3, 4, 5]);
        // 7, 5, 3, 1, 2, 3, 4, 5: least difference -2, differences 0 0 0 3 3 3 3 in two bits each.
        assert_eq!(
            lengths(&[8, 1, 8, 14, 3, 2, 0b1100_0000, 0b0011_1111], 8).unwrap(),
            [7, 5, 3, 1, 2, 3, 4, 5]
        );
    }

    #[test]
    fn what_claims_too_much_is_refused() {
        for (bytes, part) in [
            (&[8, 1, 6, 2, 2, 0][..], "claims 6 texts in a page of 5"),
            (&[8, 0, 5, 2, 2, 0], "in blocks of 8 and 0 parts"),
            (&[8, 1, 5, 2, 2, 99], "beyond their page"),
            (&[8, 1, 5, 1], "a text of -1 bytes"),
            (&[8, 1, 5], "cut off"),
            (&[0xFF; 20], "does not end"),
        ] {
            let message = lengths(bytes, 5).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
    }
}
