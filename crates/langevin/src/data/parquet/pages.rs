//! A look at the pages of a column before the parquet crate reads them: it gives a page the memory that the page's
//! header claims, so headers that claim too much must not reach it.
//!
//! A page's header is a Thrift struct in the compact protocol, as the format's `parquet.thrift` defines it.

use std::{
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
};

use flate2::read::MultiGzDecoder;
use parquet::{
    basic::{Compression, Encoding},
    file::metadata::ColumnChunkMetaData,
};

use crate::data::decode::believable;

/// The most bytes that the columns of a row group may take once decompressed.
const MAX_GROUP_BYTES: u64 = 1 << 30;

/// What the columns of a row group may take once decompressed, in bytes, in a file of so many.
pub(super) fn budget(file_size: u64) -> u64 {
    MAX_GROUP_BYTES.min(believable(file_size))
}

/// Encodings by their number in the format: plain values, dictionaries, run lengths, packed differences of integers, of lengths and of
/// texts ([`delta`](super::delta) looks at these two), dictionaries again, and the bytes of numbers apart.
const ENCODINGS: [i64; 8] = [PLAIN, 2, 3, 5, 6, 7, 8, 9];
const PLAIN: i64 = 0;

/// Whether a column of which a footer names this encoding is read. Footers name those of the levels too, which old files pack in bits.
pub(super) fn is_read(encoding: Encoding) -> bool {
    const BIT_PACKED: i64 = 4;
    let number = i64::from(encoding as i32);
    ENCODINGS.contains(&number) || number == BIT_PACKED
}

const DATA_PAGE: i64 = 0;
const DICTIONARY_PAGE: i64 = 2;
const DATA_PAGE_V2: i64 = 3;

/// What a page's header says, as far as it matters here. Numbers that are not there are 0.
#[derive(Debug, Default)]
struct PageHeader {
    kind: i64,
    uncompressed: i64,
    compressed: i64,
    values: i64,
    encoding: i64,
    /// What comes before the part that is compressed, in data pages of the second version.
    levels: i64,
    /// Whether such a page is not compressed, whatever its column is.
    is_plain: bool,
}

/// Goes through the headers of a column's pages. `rows` is what the row group claims to hold, `budget` the bytes that
/// its columns may still take.
///
/// # Errors
/// The part of a sentence that follows the column's name, if a header is damaged or claims what cannot be.
pub(super) fn check(
    file: &File,
    column: &ColumnChunkMetaData,
    rows: u64,
    budget: &mut u64,
) -> Result<(), String> {
    let (start, length) = column.byte_range();
    let size = file.metadata().map_err(|e| format!("cannot be read: {e}"))?.len();
    if start.checked_add(length).is_none_or(|end| end > size) {
        return Err(format!("claims to end beyond its file, which has {size} bytes"));
    }
    let mut pages = Compact {
        reader: BufReader::new(file),
        left: length,
    };
    pages
        .reader
        .seek(SeekFrom::Start(start))
        .map_err(|e| format!("cannot be read: {e}"))?;
    let mut values = 0u64;
    while pages.left > 0 {
        let header = pages.page_header()?;
        let size =
            |claimed: i64| u64::try_from(claimed).map_err(|_| "has a page of negative size".to_string());
        let (compressed, uncompressed) = (size(header.compressed)?, size(header.uncompressed)?);
        if compressed > pages.left {
            return Err("has a page that claims to end beyond its column".into());
        }
        *budget = budget
            .checked_sub(uncompressed)
            .ok_or("claims more memory than a row group of its file may take")?;
        let claimed = size(header.values)?;
        match header.kind {
            DATA_PAGE | DATA_PAGE_V2 => {
                values += claimed;
                if values > rows {
                    return Err(format!("claims more values than the row group's {rows} rows"));
                }
            }
            // A value takes four bytes at least, be it a number or the length of a text.
            DICTIONARY_PAGE if claimed > uncompressed / 4 => {
                return Err(format!(
                    "has a dictionary that claims {claimed} values in {uncompressed} bytes"
                ));
            }
            _ => {}
        }
        if !ENCODINGS.contains(&header.encoding) {
            return Err(format!(
                "is encoded in a way that is not read here (number {} of the format's encodings)",
                header.encoding
            ));
        }
        let inflates: Option<Inflate> = match column.compression() {
            Compression::GZIP(_) => Some(|page, size| inflated(MultiGzDecoder::new(page), size)),
            #[cfg(feature = "brotli")]
            Compression::BROTLI(_) => {
                Some(|page, size| inflated(brotli_decompressor::Decompressor::new(page, 4096), size))
            }
            _ => None,
        };
        match inflates.filter(|_| !header.is_plain) {
            Some(inflate) => {
                let levels = size(header.levels)?.min(compressed).min(uncompressed);
                pages.pass(levels)?;
                pages.check_size(compressed - levels, uncompressed - levels, inflate)?;
            }
            None => pages.pass(compressed)?,
        }
    }
    Ok(())
}

/// How many bytes a compressed page holds, of which no more than so many are read.
type Inflate = fn(&mut dyn Read, u64) -> std::io::Result<u64>;

fn inflated(page: impl Read, most: u64) -> std::io::Result<u64> {
    std::io::copy(&mut page.take(most), &mut std::io::sink())
}

/// Thrift's compact protocol, over what is `left` of a column.
struct Compact<R> {
    reader: R,
    left: u64,
}

/// Thrift's types, by their number in the protocol.
mod kind {
    pub(super) const TRUE: u8 = 1;
    pub(super) const FALSE: u8 = 2;
    pub(super) const BYTE: u8 = 3;
    pub(super) const I16: u8 = 4;
    pub(super) const I64: u8 = 6;
    pub(super) const DOUBLE: u8 = 7;
    pub(super) const BINARY: u8 = 8;
    pub(super) const LIST: u8 = 9;
    pub(super) const SET: u8 = 10;
    pub(super) const MAP: u8 = 11;
    pub(super) const STRUCT: u8 = 12;
}

/// How deep values may be nested. The format's headers go two deep.
const MAX_DEPTH: usize = 16;

impl<R: Read + Seek> Compact<R> {
    fn page_header(&mut self) -> Result<PageHeader, String> {
        let mut header = PageHeader::default();
        self.fields(|this, field, kind| {
            match field {
                1..=3 => {
                    let number = this.number()?;
                    match field {
                        1 => header.kind = number,
                        2 => header.uncompressed = number,
                        _ => header.compressed = number,
                    }
                    Ok(())
                }
                // The headers of data pages, dictionaries and data pages of the second version.
                5 | 7 | 8 => this.fields(|this, inner, kind| match inner {
                    1 => this.number().map(|number| header.values = number),
                    2 if field != 8 => this.number().map(|number| header.encoding = number),
                    4 if field == 8 => this.number().map(|number| header.encoding = number),
                    5 | 6 if field == 8 => this
                        .number()
                        .map(|number| header.levels = header.levels.saturating_add(number)),
                    7 if field == 8 => {
                        header.is_plain = kind == kind::FALSE;
                        this.skip(kind, 0)
                    }
                    _ => this.skip(kind, 0),
                }),
                _ => this.skip(kind, 0),
            }
        })?;
        Ok(header)
    }

    /// Reads a struct: `read` is given each field's number and type, and reads its value.
    fn fields(
        &mut self,
        mut read: impl FnMut(&mut Self, i64, u8) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut field = 0i64;
        loop {
            let byte = self.byte()?;
            if byte == 0 {
                return Ok(());
            }
            field = match byte >> 4 {
                0 => self.number()?,
                step => field.saturating_add(i64::from(step)),
            };
            read(self, field, byte & 0x0F)?;
        }
    }

    fn byte(&mut self) -> Result<u8, String> {
        let mut byte = [0];
        self.left = self
            .left
            .checked_sub(1)
            .ok_or("has a page header that is cut off")?;
        self.reader
            .read_exact(&mut byte)
            .map_err(|e| format!("has a page header that cannot be read: {e}"))?;
        Ok(byte[0])
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("has a page header with a number that does not end".into())
    }

    fn number(&mut self) -> Result<i64, String> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn pass(&mut self, bytes: u64) -> Result<(), String> {
        self.left = self
            .left
            .checked_sub(bytes)
            .ok_or("has a page header that claims to end beyond its column")?;
        let step = i64::try_from(bytes).map_err(|_| "has a page that is too large")?;
        self.reader
            .seek(SeekFrom::Current(step))
            .map_err(|e| format!("cannot be read: {e}"))?;
        Ok(())
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err("has a page header that is nested too deep".into());
        }
        match kind {
            kind::TRUE | kind::FALSE => Ok(()),
            kind::BYTE => self.pass(1),
            kind::I16..=kind::I64 => self.varint().map(|_| ()),
            kind::DOUBLE => self.pass(8),
            kind::BINARY => {
                let length = self.varint()?;
                self.pass(length)
            }
            kind::LIST | kind::SET => {
                let byte = self.byte()?;
                let count = match byte >> 4 {
                    15 => self.varint()?,
                    count => u64::from(count),
                };
                (0..count).try_for_each(|_| self.skip_element(byte & 0x0F, depth + 1))
            }
            kind::MAP => {
                let count = self.varint()?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                (0..count).try_for_each(|_| {
                    self.skip_element(kinds >> 4, depth + 1)?;
                    self.skip_element(kinds & 0x0F, depth + 1)
                })
            }
            kind::STRUCT => self.fields(|this, _, kind| this.skip(kind, depth + 1)),
            other => Err(format!("has a page header with a value of unknown type {other}")),
        }
    }

    /// In lists, truth values take a byte each; in structs they are part of the field's type.
    fn skip_element(&mut self, kind: u8, depth: usize) -> Result<(), String> {
        match kind {
            kind::TRUE | kind::FALSE => self.pass(1),
            other => self.skip(other, depth),
        }
    }

    /// Passes over a page whose decompressor does not look at its size, after making sure that it holds what it claims: the parquet crate
    /// would inflate it to whatever size it has.
    fn check_size(&mut self, compressed: u64, uncompressed: u64, inflate: Inflate) -> Result<(), String> {
        // A page of nothing but empty values has nothing that is compressed.
        if compressed == 0 {
            return Ok(());
        }
        let start = self
            .reader
            .stream_position()
            .map_err(|e| format!("cannot be read: {e}"))?;
        let mut page = self.reader.by_ref().take(compressed);
        let size = inflate(&mut page, uncompressed + 1).map_err(|e| format!("has a damaged page: {e}"))?;
        if size > uncompressed {
            return Err(format!(
                "has a page that claims {uncompressed} bytes and inflates to more"
            ));
        }
        self.reader
            .seek(SeekFrom::Start(start))
            .map_err(|e| format!("cannot be read: {e}"))?;
        self.pass(compressed)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn header(bytes: &[u8]) -> Result<(PageHeader, u64), String> {
        let mut compact = Compact {
            reader: Cursor::new(bytes),
            left: bytes.len() as u64,
        };
        compact.page_header().map(|header| (header, compact.left))
    }

    #[test]
    fn a_header_of_pyarrows_is_understood() {
        // The first bytes of a column that pyarrow wrote: a data page of 140 values, plain.
        let (header, _) = header(&PYARROW).unwrap();
        assert_eq!(
            (header.kind, header.values, header.encoding),
            (DATA_PAGE, 140, PLAIN)
        );
        assert_eq!((header.uncompressed, header.compressed), (630_035, 630_035));
    }

    /// {1: 0, 2: 630035, 3: 630035, 5: {1: 140, 2: 0, 3: 3, 4: 3}}
    const PYARROW: [u8; 22] = [
        0x15, 0x00, 0x15, 0xA6, 0xF4, 0x4C, 0x15, 0xA6, 0xF4, 0x4C, 0x2C, 0x15, 0x98, 0x02, 0x15, 0x00, 0x15,
        0x06, 0x15, 0x06, 0x00, 0x00,
    ];

    #[test]
    fn headers_that_are_cut_or_lie_are_refused() {
        for end in 0..PYARROW.len() {
            assert!(header(&PYARROW[..end]).is_err(), "cut at {end}");
        }
        // A text that claims to be longer than the column, a list in a list in a list …, a number without an end.
        assert!(
            header(&[0x48, 0xFF, 0xFF, 0xFF, 0x7F])
                .unwrap_err()
                .contains("beyond")
        );
        assert!(
            header(&[0x49].into_iter().chain([0x19; 99]).collect::<Vec<_>>())
                .unwrap_err()
                .contains("deep")
        );
        assert!(
            header(&[0x15; 1].into_iter().chain([0xFF; 20]).collect::<Vec<_>>())
                .unwrap_err()
                .contains("end")
        );
        assert!(header(&[0x4D]).unwrap_err().contains("unknown type"));
    }
}
