//! From a file's bytes to a [`Picture`], within limits that a hostile file cannot talk its way past.

use std::{
    fs::File,
    io::{BufRead, Cursor, Read, Seek},
    path::Path,
};

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, metadata::Orientation};

use super::{Channels, Picture, contain::contain};
use crate::{Error, Result, named::named_enum};

/// The endings of files that are taken for pictures, in lower case. What a file is, its first bytes say.
pub const EXTENSIONS: [&str; 8] = ["png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff"];

/// Other endings that the same kinds of files have.
const ALSO: [&str; 4] = ["jfif", "jpe", "apng", "dib"];

/// The endings of pictures of kinds that are not read.
const UNREAD: [&str; 13] = [
    "avif", "heic", "heif", "jxl", "jp2", "j2k", "ico", "tga", "ppm", "pgm", "svg", "psd", "exr",
];

/// Whether files that end so, in lower case, are pictures of a kind that is not read.
pub(super) fn is_unread_picture(ending: &str) -> bool {
    UNREAD.contains(&ending)
}

/// The longest side that is decoded, in pixels.
const MAX_SIDE: u32 = 16_384;
/// The most memory that one picture may take, as a file, and decoded with all copies that this takes, in bytes. In colour that is 179
/// million pixels, the number from which Pillow takes a picture for a decompression bomb.
pub(super) const MAX_BYTES: u64 = 512 << 20;

/// The most memory, in bytes, that a file of `size` bytes is believed to unpack to. Deflate, the densest of the common
/// ways to pack, packs a thousand bytes into one; what claims more is a header that lies, or a picture of nothing.
pub(super) fn believable(size: u64) -> u64 {
    const ANY_FILE: u64 = 32 << 20;
    ANY_FILE.saturating_add(size.saturating_mul(1024))
}

named_enum! {
    /// What becomes of transparency.
    #[derive(Default)]
    pub enum Alpha: "a way with transparency" {
        /// Transparent pictures are laid onto white.
        #[default]
        White = "white",
        /// Transparent pictures are laid onto black.
        Black = "black",
        /// The colours stay as they are stored, also where nothing of them can be seen: Pillow's `convert("RGB")`.
        Drop = "drop",
    }
}

impl Alpha {
    /// The brightness of what transparent pictures are laid onto, if anything.
    fn background(self) -> Option<u8> {
        match self {
            Self::White => Some(255),
            Self::Black => Some(0),
            Self::Drop => None,
        }
    }

    /// Pixels of `N` values, the last of which is alpha, without it: in their own memory.
    fn flatten<const N: usize>(self, mut values: Vec<u8>) -> Vec<u8> {
        let background = self.background();
        let count = values.len() / N;
        for pixel in 0..count {
            let alpha = values[pixel * N + N - 1];
            for channel in 0..N - 1 {
                let value = values[pixel * N + channel];
                values[pixel * (N - 1) + channel] = match background {
                    Some(background) => over(value, background, alpha),
                    None => value,
                };
            }
        }
        values.truncate(count * (N - 1));
        values
    }
}

/// A value laid over another: Pillow's `paste` with a mask, to the bit.
fn over(value: u8, background: u8, alpha: u8) -> u8 {
    let sum = u32::from(value) * u32::from(alpha) + u32::from(background) * (255 - u32::from(alpha)) + 128;
    ((sum + (sum >> 8)) >> 8) as u8
}

/// Whether `path` ends as pictures' names do, in small or capital letters.
pub fn is_picture_name(path: impl AsRef<Path>) -> bool {
    path.as_ref()
        .extension()
        .and_then(|e| e.to_str())
        .map(str::to_ascii_lowercase)
        .is_some_and(|e| EXTENSIONS.contains(&&*e) || ALSO.contains(&&*e))
}

/// Reads and decodes a picture: turned upright as its EXIF data says, transparency laid onto white, 16 bits a channel
/// cut to their upper 8. Of an animation, the first frame.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::File`] if it is no picture, is damaged or truncated, is
/// more than 16,384 pixels wide or high, or would take more than 512 MiB.
pub fn read_picture(path: impl AsRef<Path>) -> Result<Picture> {
    read_picture_with(path, Alpha::default())
}

/// [`read_picture`], with a choice of what becomes of transparency.
///
/// # Errors
/// As [`read_picture`].
pub fn read_picture_with(path: impl AsRef<Path>, alpha: Alpha) -> Result<Picture> {
    let path = path.as_ref();
    let bytes = read_limited(path)?;
    decode(&bytes, alpha).map_err(|message| Error::file(path, message))
}

/// Decodes a picture that came as bytes, as [`read_picture`] decodes a file, of at most `max_side` pixels a side.
///
/// # Errors
/// As [`read_picture`]; the message begins with `what`, such as `the initial picture`.
pub fn decode_picture(bytes: &[u8], max_side: u32, what: &str) -> Result<Picture> {
    let side = max_side.min(MAX_SIDE);
    contain(|| decode_unguarded(bytes, Alpha::default(), side))
        .map_err(|message| Error::Config(format!("{what} {message}")))
}

/// The bytes of a regular file of bounded size: a pipe or a device with a picture's name must not block a loader.
pub(super) fn read_limited(path: &Path) -> Result<Vec<u8>> {
    let io = |e| Error::io("read", path, e);
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(Error::file(path, "is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)
        .map_err(io)?
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::file(
            path,
            format!("is larger than {} MiB", MAX_BYTES >> 20),
        ));
    }
    Ok(bytes)
}

/// Decodes a picture; the error is the part of a sentence that follows the file's name.
pub(super) fn decode(bytes: &[u8], alpha: Alpha) -> Result<Picture, String> {
    contain(|| decode_unguarded(bytes, alpha, MAX_SIDE))
}

/// Height and width of a picture, upright, as its file's header says; the error is the part of a sentence that follows the file's name.
pub(super) fn size(file: impl BufRead + Seek) -> Result<[usize; 2], String> {
    contain(|| {
        let broken = |e: &dyn std::fmt::Display| format!("cannot be read as a picture: {e}");
        let reader = ImageReader::new(file)
            .with_guessed_format()
            .map_err(|e| broken(&e))?;
        let mut decoder = reader.into_decoder().map_err(|e| broken(&e))?;
        let (width, height) = decoder.dimensions();
        let size = [height as usize, width as usize];
        let turned = matches!(
            decoder.orientation(),
            Ok(Orientation::Rotate90
                | Orientation::Rotate270
                | Orientation::Rotate90FlipH
                | Orientation::Rotate270FlipH)
        );
        Ok(if turned { [size[1], size[0]] } else { size })
    })
}

fn decode_unguarded(bytes: &[u8], alpha: Alpha, max_side: u32) -> Result<Picture, String> {
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|e| format!("cannot be read as a picture: {e}"))?;
    let Some(format) = reader.format() else {
        if bytes.get(4..8) == Some(b"ftyp") {
            return Err(
                "is an AVIF or HEIF picture, which is not supported: convert it to PNG or JPEG".into(),
            );
        }
        return Err(format!(
            "is not a picture in a known format ({})",
            EXTENSIONS.join(", ")
        ));
    };
    // Decoders ask for what they need, so a header that lies is held to what its file can hold.
    let most_bytes = MAX_BYTES.min(believable(bytes.len() as u64));
    let broken = |e: image::ImageError| match e {
        image::ImageError::Limits(_) => format!(
            "is larger than what is decoded at most: {max_side} pixels a side, and {} MiB for a file of {} bytes",
            most_bytes >> 20,
            bytes.len()
        ),
        image::ImageError::Unsupported(kind) => format!(
            "is a {} picture of a kind that is not supported here: {kind}",
            format.extensions_str()[0]
        ),
        other => format!("is a damaged {} picture: {other}", format.extensions_str()[0]),
    };
    let mut limits = Limits::default();
    limits.max_image_width = Some(max_side);
    limits.max_image_height = Some(max_side);
    limits.max_alloc = Some(most_bytes);
    reader.limits(limits.clone());
    if format == ImageFormat::WebP && !webp_chunks_fit(bytes, most_bytes) {
        return Err(format!(
            "is cut off, or larger than the {} MiB that are decoded at most for a webp file of {} bytes",
            most_bytes >> 20,
            bytes.len()
        ));
    }
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    limits.check_dimensions(width, height).map_err(broken)?;
    let decoded = decoder.total_bytes();
    limits.reserve(decoded).map_err(broken)?;
    // The JPEG decoder fills what is missing of a truncated file with grey; Pillow refuses such files, and so
    // should training.
    if format == ImageFormat::Jpeg && !jpeg_has_end(bytes) {
        return Err("is a truncated jpg picture: its end marker is missing".into());
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let copies = copies(format, decoder.color_type(), orientation, bytes);
    if decoded.saturating_mul(copies) > 2 * MAX_BYTES {
        return Err(format!(
            "takes {} MiB to decode, of {} MiB at most",
            decoded.saturating_mul(copies) >> 21,
            MAX_BYTES >> 20
        ));
    }
    let mut image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    image.apply_orientation(orientation);
    from_dynamic(image, alpha)
}

/// How often a picture's decoded bytes are in memory at a time, in halves: once, and as its decoder, its turning upright and its cutting
/// to 8 bits copy them.
fn copies(format: ImageFormat, colour: image::ColorType, orientation: Orientation, bytes: &[u8]) -> u64 {
    use image::ColorType::{L8, La8, Rgb8, Rgba8};
    let in_decoder = match format {
        // Coefficients of 16 bits until the last scan.
        ImageFormat::Jpeg if jpeg_is_progressive(bytes) => 4,
        // A canvas beside the frame, a strip or tile as it comes.
        ImageFormat::WebP | ImageFormat::Gif | ImageFormat::Tiff => 2,
        _ => 0,
    };
    let is_turned = !matches!(
        orientation,
        Orientation::NoTransforms
            | Orientation::FlipHorizontal
            | Orientation::FlipVertical
            | Orientation::Rotate180
    );
    let is_cut = !matches!(colour, L8 | La8 | Rgb8 | Rgba8);
    // The decoder is gone when the picture is turned, and its copy when it is cut.
    2 + in_decoder.max(2 * u64::from(is_turned)).max(u64::from(is_cut))
}

/// Cuts to 8 bits, then sees to alpha.
fn from_dynamic(image: DynamicImage, alpha: Alpha) -> Result<Picture, String> {
    let (height, width) = (image.height() as usize, image.width() as usize);
    let cut = |values: Vec<u16>| -> Vec<u8> { values.iter().map(|v| (v >> 8) as u8).collect() };
    let (channels, pixels) = match image {
        DynamicImage::ImageLuma8(i) => (Channels::Grey, i.into_raw()),
        DynamicImage::ImageLumaA8(i) => (Channels::Grey, alpha.flatten::<2>(i.into_raw())),
        DynamicImage::ImageLuma16(i) => (Channels::Grey, cut(i.into_raw())),
        DynamicImage::ImageLumaA16(i) => (Channels::Grey, alpha.flatten::<2>(cut(i.into_raw()))),
        DynamicImage::ImageRgb16(i) => (Channels::Rgb, cut(i.into_raw())),
        DynamicImage::ImageRgba16(i) => (Channels::Rgb, alpha.flatten::<4>(cut(i.into_raw()))),
        DynamicImage::ImageRgba8(i) => (Channels::Rgb, alpha.flatten::<4>(i.into_raw())),
        other => (Channels::Rgb, other.into_rgb8().into_raw()),
    };
    Picture::new(height, width, channels, pixels).map_err(|e| e.to_string())
}

/// Whether the chunks of a WebP file are all there, and no frame among them claims more pixels than fit into `most` bytes,
/// or than the canvas that the file's head declares, where it declares one. The decoder takes memory and time by what
/// chunks and frames claim, and asks nobody.
fn webp_chunks_fit(bytes: &[u8], most: u64) -> bool {
    // The sides are of 24 bits each, less one.
    let canvas = match bytes.get(12..16) {
        Some(b"VP8X") => [24, 27].map(|at| (little_endian(bytes, at) & 0xFF_FFFF) + 1),
        _ => [u64::from(MAX_SIDE); 2],
    };
    let end = usize::try_from(little_endian(bytes, 4)).map_or(bytes.len(), |size| bytes.len().min(size + 8));
    webp_sequence_fits(bytes.get(12..end).unwrap_or_default(), canvas, most, false)
}

/// The same of a sequence of chunks: those of a file, or of an animation's frame.
fn webp_sequence_fits(mut chunks: &[u8], canvas: [u64; 2], most: u64, in_frame: bool) -> bool {
    while chunks.len() >= 8 {
        let Some(body) = usize::try_from(little_endian(chunks, 4))
            .ok()
            .and_then(|size| chunks[8..].get(..size))
        else {
            return false;
        };
        let sides = match &chunks[..4] {
            // A frame's tag, a start code, and two sides of 14 bits in 16 each.
            b"VP8 " => [6, 8].map(|at| little_endian(body, at) & 0x3FFF),
            // A signature, and two sides of 14 bits, less one.
            b"VP8L" => [0, 14].map(|bit| ((little_endian(body, 1) >> bit) & 0x3FFF) + 1),
            // A frame of an animation: 16 bytes, and chunks of its own.
            b"ANMF" if !in_frame => {
                if !webp_sequence_fits(body.get(16..).unwrap_or_default(), canvas, most, true) {
                    return false;
                }
                [0; 2]
            }
            _ => [0; 2],
        };
        if sides[0] > canvas[0] || sides[1] > canvas[1] || 4 * sides[0] * sides[1] > most {
            return false;
        }
        // A chunk of odd length is followed by a byte.
        chunks = chunks
            .get(8 + body.len().next_multiple_of(2)..)
            .unwrap_or_default();
    }
    true
}

/// The number of four bytes at `at`, of which those beyond the end are 0.
fn little_endian(bytes: &[u8], at: usize) -> u64 {
    let four = bytes.iter().skip(at).take(4).rev();
    four.fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// Whether a JPEG's frame header, which stands before its first scan, is that of a progressive one.
fn jpeg_is_progressive(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xFF, marker]) = bytes.get(at..at + 2) {
        match (marker, bytes.get(at + 2..at + 4)) {
            (0xC2 | 0xC6 | 0xCA | 0xCE, _) => return true,
            (0xFF, _) => at += 1,
            (0xDA, _) | (_, None) => return false,
            (_, Some(length)) => at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2),
        }
    }
    false
}

/// Whether a JPEG's segments lead to its end marker: walks from marker to marker, over the compressed data of
/// each scan, so that the end marker of a thumbnail inside does not count.
fn jpeg_has_end(bytes: &[u8]) -> bool {
    let mut at = 2;
    while at + 1 < bytes.len() {
        if bytes[at] != 0xFF {
            // Compressed data, or garbage between segments, which decoders skip too.
            at += 1;
            continue;
        }
        match bytes[at + 1] {
            0xD9 => return true,
            // Fill bytes; stuffed zeros and restart markers inside a scan; markers without a body.
            0xFF => at += 1,
            0x00 | 0x01 | 0xD0..=0xD8 => at += 2,
            _ => match bytes.get(at + 2..at + 4) {
                Some(length) => at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2),
                None => return false,
            },
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(bytes: &[u8]) -> Result<Picture, String> {
        super::decode(bytes, Alpha::White)
    }

    fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn gradient() -> DynamicImage {
        image::RgbImage::from_fn(40, 30, |x, y| image::Rgb([x as u8 * 6, y as u8 * 8, 77])).into()
    }

    #[test]
    fn every_format_is_read() {
        let expected = gradient().into_rgb8().into_raw();
        for format in [
            ImageFormat::Png,
            ImageFormat::Bmp,
            ImageFormat::Tiff,
            ImageFormat::WebP,
        ] {
            let picture = decode(&encoded(&gradient(), format)).unwrap();
            assert_eq!((picture.height(), picture.width()), (30, 40));
            assert_eq!(picture.pixels(), expected, "{format:?}");
        }
        for format in [ImageFormat::Jpeg, ImageFormat::Gif] {
            let picture = decode(&encoded(&gradient(), format))
                .unwrap()
                .into_channels(Channels::Rgb);
            let off = picture
                .pixels()
                .iter()
                .zip(&expected)
                .map(|(a, b)| a.abs_diff(*b))
                .max()
                .unwrap();
            assert!(off < 40, "{format:?} is off by {off}");
        }
    }

    #[test]
    fn transparency_is_laid_onto_white_or_black_or_dropped() {
        let pixels = |image: DynamicImage, alpha| {
            super::decode(&encoded(&image, ImageFormat::Png), alpha)
                .unwrap()
                .into_pixels()
        };
        let rgba = |alpha| image::RgbaImage::from_pixel(1, 1, image::Rgba([10, 100, 200, alpha])).into();
        // background = Image.new("RGB", (1, 1), color); background.paste(picture, mask=picture.getchannel("A"))
        for (alpha, white, black) in [
            (0, [255, 255, 255], [0, 0, 0]),
            (77, [181, 208, 238], [3, 30, 60]),
            (128, [132, 177, 227], [5, 50, 100]),
            (255, [10, 100, 200], [10, 100, 200]),
        ] {
            assert_eq!(pixels(rgba(alpha), Alpha::White), white, "{alpha}");
            assert_eq!(pixels(rgba(alpha), Alpha::Black), black, "{alpha}");
            assert_eq!(pixels(rgba(alpha), Alpha::Drop), [10, 100, 200], "{alpha}");
        }
        let grey = || image::GrayAlphaImage::from_pixel(1, 1, image::LumaA([100, 77])).into();
        assert_eq!(pixels(grey(), Alpha::White), [208]);
        assert_eq!(pixels(grey(), Alpha::Drop), [100]);
        let deep = || image::ImageBuffer::from_pixel(1, 1, image::LumaA([100u16 << 8, 77 << 8])).into();
        assert_eq!(pixels(deep(), Alpha::White), [208]);
    }

    #[test]
    fn sixteen_bits_are_cut() {
        let deep = image::ImageBuffer::from_pixel(1, 1, image::Luma([0x12FFu16])).into();
        let picture = decode(&encoded(&deep, ImageFormat::Png)).unwrap();
        assert_eq!(
            (picture.channels(), picture.pixels()),
            (Channels::Grey, &[0x12][..])
        );
    }

    #[test]
    fn exif_turns_the_picture_upright() {
        // An APP1 segment with one tag: orientation (0x0112) 6, "turn 90 degrees clockwise".
        let exif =
            b"\xFF\xE1\x00\x22Exif\0\0MM\0\x2A\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let mut jpeg = encoded(&gradient(), ImageFormat::Jpeg);
        jpeg.splice(2..2, exif.iter().copied());
        let picture = decode(&jpeg).unwrap();
        assert_eq!((picture.height(), picture.width()), (40, 30));
    }

    #[test]
    fn truncated_pictures_are_refused_wherever_they_end() {
        for format in [
            ImageFormat::Png,
            ImageFormat::Jpeg,
            ImageFormat::WebP,
            ImageFormat::Bmp,
        ] {
            let whole = encoded(&gradient(), format);
            for end in [whole.len() / 4, whole.len() / 2, whole.len() * 9 / 10] {
                assert!(
                    decode(&whole[..end]).is_err(),
                    "{format:?} cut at {end} of {}",
                    whole.len()
                );
            }
        }
    }

    #[test]
    fn a_thumbnails_end_does_not_hide_truncation() {
        let mut jpeg = encoded(&gradient(), ImageFormat::Jpeg);
        let thumbnail = b"\xFF\xE1\x00\x08thum\xFF\xD9";
        jpeg.splice(2..2, thumbnail.iter().copied());
        assert!(jpeg_has_end(&jpeg));
        assert!(!jpeg_has_end(&jpeg[..jpeg.len() - 2]));
    }

    #[test]
    fn a_header_that_claims_a_huge_picture_is_refused_without_memory() {
        let mut png = encoded(&gradient(), ImageFormat::Png);
        png[16..20].copy_from_slice(&60_000u32.to_be_bytes());
        png[20..24].copy_from_slice(&60_000u32.to_be_bytes());
        let crc = crc32(&png[12..29]);
        png[29..33].copy_from_slice(&crc.to_be_bytes());
        assert!(decode(&png).unwrap_err().contains("larger than"));
        // Within the limit a side, but not in memory.
        png[16..20].copy_from_slice(&16_000u32.to_be_bytes());
        png[20..24].copy_from_slice(&16_000u32.to_be_bytes());
        let crc = crc32(&png[12..29]);
        png[29..33].copy_from_slice(&crc.to_be_bytes());
        assert!(decode(&png).unwrap_err().contains("larger than"));
        let mut bmp = encoded(&gradient(), ImageFormat::Bmp);
        bmp[18..22].copy_from_slice(&60_000u32.to_le_bytes());
        bmp[22..26].copy_from_slice(&60_000u32.to_le_bytes());
        assert!(decode(&bmp).unwrap_err().contains("larger than"));
    }

    #[test]
    fn what_copies_a_picture_counts() {
        use image::ColorType::{L8, Rgb16, Rgb32F, Rgba8};
        let plain = Orientation::NoTransforms;
        let halves = |format, colour, orientation| copies(format, colour, orientation, b"");
        assert_eq!(halves(ImageFormat::Png, Rgba8, plain), 2);
        assert_eq!(halves(ImageFormat::Png, Rgb16, plain), 3);
        assert_eq!(halves(ImageFormat::Png, L8, Orientation::Rotate90), 4);
        assert_eq!(halves(ImageFormat::Bmp, L8, Orientation::FlipVertical), 2);
        assert_eq!(halves(ImageFormat::Tiff, Rgb32F, plain), 4);
        // A frame header of a progressive JPEG behind an empty comment, and the usual one.
        let start = |frame| [&b"\xFF\xD8\xFF\xFE\x00\x02\xFF"[..], &[frame, 0, 2], b"\xFF\xDA"].concat();
        assert_eq!(copies(ImageFormat::Jpeg, L8, plain, &start(0xC2)), 6);
        assert_eq!(copies(ImageFormat::Jpeg, L8, plain, &start(0xC0)), 2);
        assert!(!jpeg_is_progressive(b"") && !jpeg_is_progressive(b"\xFF\xD8\xFF"));
    }

    #[test]
    fn a_picture_whose_copies_are_too_large_is_refused_before_it_is_decoded() {
        // 10,000 x 8,000 pixels of 16 bits in colour are 458 MiB, and half as much again once they are cut to 8 bits.
        let deep: DynamicImage = image::ImageBuffer::from_pixel(1, 1, image::Rgb([0u16; 3])).into();
        let mut png = encoded(&deep, ImageFormat::Png);
        png[16..20].copy_from_slice(&10_000u32.to_be_bytes());
        png[20..24].copy_from_slice(&8_000u32.to_be_bytes());
        let crc = crc32(&png[12..29]);
        png[29..33].copy_from_slice(&crc.to_be_bytes());
        // Enough bytes that so much is believed.
        png.resize(1 << 20, 0);
        let message = decode(&png).unwrap_err();
        assert!(
            message.contains("takes 686 MiB to decode, of 512 MiB at most"),
            "{message}"
        );
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, &b| {
            (0..8).fold(crc ^ u32::from(b), |c, _| {
                (c >> 1) ^ (0xEDB8_8320 & (c & 1).wrapping_neg())
            })
        })
    }

    #[test]
    fn a_webp_frame_that_claims_more_than_its_file_is_refused() {
        let whole = encoded(&gradient(), ImageFormat::WebP);
        let frame = whole.windows(4).position(|w| w == b"VP8L").unwrap();
        let mut lying = whole.clone();
        lying[frame + 9..frame + 12].fill(0xFF);
        let mut long = whole.clone();
        long[frame + 4..frame + 8].fill(0xFF);
        assert!(decode(&long).unwrap_err().contains("cut off"));
        assert!(webp_chunks_fit(&whole, 40 * 30 * 4) && !webp_chunks_fit(&whole, 40 * 30 * 4 - 1));
        assert!(decode(&lying).unwrap_err().contains("larger than"));
    }

    #[test]
    fn a_text_with_a_pictures_name_is_refused() {
        assert!(decode(b"hello").unwrap_err().contains("not a picture"));
        assert!(decode(b"").unwrap_err().contains("not a picture"));
    }

    #[test]
    fn a_folder_or_a_missing_file_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let error = read_picture(folder.path()).unwrap_err().to_string();
        assert!(error.contains(folder.path().to_str().unwrap()) && error.contains("regular file"));
        assert!(
            read_picture(folder.path().join("a.png"))
                .unwrap_err()
                .to_string()
                .contains("a.png")
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            _ = decode(&bytes);
            _ = jpeg_has_end(&bytes);
        }

        #[test]
        fn damaged_pictures_never_panic(
            format in prop::sample::select(vec![
                ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp,
                ImageFormat::Tiff,
            ]),
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let mut bytes = encoded(&gradient(), format);
            for (at, value) in damage {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            _ = decode(&bytes);
        }
    }
}
